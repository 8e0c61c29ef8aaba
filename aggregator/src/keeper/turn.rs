//! A turn of the keeper: what waits is judged, what is new is made durable, and then everybody is
//! told. Pure but for its files: it is told the time, waits for nothing, and owns no thread.

use super::handle::Request;
use super::judge::Step;
use super::record::{self, RecordKind};
use super::{Checked, Keeper, Offer, Outcome, Sign};
use crate::clock::Now;
use crate::limits::{APPEND_RETRY_MS, COMMIT_BATCHES_MAX, COMMIT_BYTES_MAX, KEEPER_TIDY_MS};
use std::ops::Range;
use tokio::sync::oneshot;
use tributary_journal::LogError;
use tributary_planted::planted;
use tributary_protocol::batch::Gap;
use tributary_protocol::ids::{AgentId, Lane};
use tributary_protocol::ledger::Admission;
use tributary_protocol::message::AgainReason;

/// A batch in the frame that is being filled.
pub(super) struct Staged {
    admission: Admission,
    kind: RecordKind,
    offer: Offer,
    replies: Vec<oneshot::Sender<Outcome>>,
}

/// A frame was not written. Nothing is taken until then, and whoever sent what was in it is not
/// told before: a disk that is full stays full for a while.
pub(super) struct Hold {
    until: i64,
    refused: Vec<Staged>,
}

fn us(ms: u64) -> i64 {
    (ms * 1_000) as i64
}

impl Keeper {
    /// Deals with what waits, one frame of it, as a rule; with nothing there, tidies when it is
    /// time. Says when to come again, if nothing is asked before: at once when more waits.
    pub fn turn(&mut self, now: Now) -> i64 {
        if let Some(hold) = &self.hold {
            if now.at < hold.until {
                return hold.until;
            }
            self.end_hold();
        }
        let after_idle = now.at.saturating_add(us(KEEPER_TIDY_MS));
        if self.group(now) {
            self.tidy_at = Some(after_idle);
        } else if *self.tidy_at.get_or_insert(after_idle) <= now.at {
            self.tidy();
            self.tidy_at = Some(after_idle);
        }
        match &self.hold {
            Some(hold) => hold.until,
            None if !self.requests.is_empty() => now.at,
            None => self.tidy_at.unwrap_or(after_idle),
        }
    }

    /// Takes no more, answers everything that waits, and ends: also what a hold keeps waiting.
    pub fn end(mut self, now: Now) {
        self.requests.close();
        self.end_hold();
        while self.group(now) {
            self.end_hold();
        }
    }

    /// Deals with what waits, up to one frame of it; whether there was anything.
    fn group(&mut self, now: Now) -> bool {
        let mut count = 0;
        while let Some(request) = self.next_request() {
            match request {
                Request::Open {
                    agent,
                    hello,
                    fence,
                    reply,
                } => {
                    // Whoever asked may have gone.
                    let _ = reply.send(self.open_session(agent, &hello, fence, now));
                }
                Request::Offer { offer, reply } => self.offer(offer, reply, now),
                Request::Status(reply) => {
                    let _ = reply.send(self.report());
                }
            }
            count += 1;
            let full = count >= COMMIT_BATCHES_MAX || self.frame.len_bytes() >= COMMIT_BYTES_MAX;
            if full || self.hold.is_some() {
                break;
            }
        }
        let any = count > 0 || !self.frame.is_empty();
        if self.hold.is_none() {
            self.append(now);
        }
        any
    }

    fn next_request(&mut self) -> Option<Request> {
        let taken = self.taken.take();
        taken.or_else(|| self.requests.try_recv().ok())
    }

    pub(super) fn offer(&mut self, offer: Offer, reply: oneshot::Sender<Outcome>, now: Now) {
        let (admission, kind) = match self.judge.judge(&offer) {
            Step::Append(admission, kind) => (admission, kind),
            Step::Answer(outcome) => {
                let _ = reply.send(outcome);
                return;
            }
            Step::Quarantine(outcome, reason) => {
                self.quarantine.keep(&offer.agent, &offer.batch, &reason);
                self.status.saw(&offer.agent, Sign::Conflict, now.wall_us);
                let _ = reply.send(outcome);
                return;
            }
            Step::Share if planted!(SharedAtOnce) => {
                let _ = reply.send(Outcome::Durable);
                return;
            }
            Step::Share => {
                let (key, numbers) = (offer.batch.key(), offer.batch.numbers());
                let taken = |run: &Range<u64>| run.start < numbers.end && numbers.start < run.end;
                // Whatever is pending shares one frame, so any of it tells the outcome of all.
                let same = |it: &&mut Staged| {
                    it.offer.agent == offer.agent
                        && it.offer.batch.key().lane_key() == key.lane_key()
                        && it.admission.runs().iter().any(taken)
                };
                match self.staged.iter_mut().find(same) {
                    Some(first) => first.replies.push(reply),
                    // It shares nothing, so it comes again.
                    None => drop(reply.send(Outcome::Again(AgainReason::Busy))),
                }
                return;
            }
        };
        // Its agent says so, or another batch has some of its messages.
        let in_doubt = offer.in_doubt && !planted!(MarkNotKept) || admission.doubled() > 0;
        let mut header = record::header(&offer.agent, now.wall_us, in_doubt);
        if kind == RecordKind::Gap {
            header.extend(record::runs(admission.runs()));
        }
        let sealed = offer.batch.bytes().clone();
        if !self.frame.fits(header.len() + sealed.len()) {
            self.append(now);
        }
        let series = matches!(offer.content, Checked::Series { .. });
        let staged = Staged {
            admission,
            kind,
            offer,
            replies: vec![reply],
        };
        if let Some(hold) = &mut self.hold {
            // The frame before it was not written: nor is this one, and it shares the wait.
            hold.refused.push(staged);
            return;
        }
        self.frame
            .push_parts(kind.code(), &[&header, &sealed])
            .expect("a record fits an empty frame, see limits");
        self.staged.push(staged);
        if series {
            // Whatever uses these definitions may be waiting right behind them.
            self.append(now);
        }
    }

    /// Makes the frame durable, and tells everybody; or nobody.
    pub(super) fn append(&mut self, now: Now) {
        if self.frame.is_empty() {
            return;
        }
        if planted!(AnsweredBeforeSync) {
            let replies = self.staged.iter_mut().flat_map(|it| it.replies.drain(..));
            replies.for_each(|reply| drop(reply.send(Outcome::Durable)));
        }
        let began = self.timer.map(|clock| clock.now());
        let result = self.store.append(&self.frame);
        self.frame.clear();
        match result {
            Ok(_) => {
                if let Some((clock, began)) = self.timer.zip(began) {
                    metrics::histogram!("tributary_aggregator_commit_seconds")
                        .record((clock.now() - began) as f64 / 1e6);
                }
                self.status.set_trouble(None);
                self.committed();
            }
            Err(error) => self.failed(&error, now),
        }
    }

    fn committed(&mut self) {
        let (mut rows, mut bytes) = (0, 0);
        let end = self.store.end();
        let count = self.staged.len() as u64;
        let mut told = Vec::with_capacity(self.staged.len());
        for Staged {
            admission,
            kind,
            offer,
            replies,
        } in self.staged.drain(..)
        {
            if kind == RecordKind::Quarantined {
                let reason = "it does not verify; its number is held as quarantined";
                self.quarantine.keep(&offer.agent, &offer.batch, reason);
            }
            if let Some(gap) = offer.batch.gap() {
                count_gap(gap, admission.runs());
            }
            // Rows of the lane `series` are definitions, not readings.
            if offer.batch.key().lane != Lane::Series {
                rows += u64::from(offer.batch.rows());
            }
            bytes += offer.batch.bytes().len() as u64;
            self.judge.commit(&offer, admission, kind);
            let buffer = offer.batch.key().buffer;
            self.judge.books.touch(&offer.agent, buffer, end);
            told.extend(replies);
        }
        metrics::counter!("tributary_aggregator_batches_total").increment(count);
        metrics::counter!("tributary_aggregator_readings_total").increment(rows);
        metrics::counter!("tributary_aggregator_batch_bytes_total").increment(bytes);
        self.status.add(count, rows, bytes);
        self.status.set_end(end);
        self.durable.send_replace(end);
        // Last, so that whoever hears of it finds it everywhere.
        for reply in told {
            // Whoever offered it may have gone.
            let _ = reply.send(Outcome::Durable);
        }
        if self.store.segment_began() {
            self.checkpoint_due = true;
            self.tidy();
        }
    }

    /// Nothing of the frame counts.
    fn failed(&mut self, error: &LogError, now: Now) {
        let batches = self.staged.len();
        tracing::error!(%error, batches, "the journal cannot be written");
        metrics::counter!("tributary_aggregator_append_errors_total").increment(1);
        self.status.set_trouble(Some(error.to_string()));
        self.tidy();
        let until = now.at.saturating_add(us(APPEND_RETRY_MS));
        let refused = std::mem::take(&mut self.staged);
        // Whatever is refused already stays so until it is told.
        match &mut self.hold {
            Some(hold) => {
                hold.until = until;
                hold.refused.extend(refused);
            }
            None => self.hold = Some(Hold { until, refused }),
        }
    }

    /// Whoever sent what was not written is asked again.
    pub(super) fn end_hold(&mut self) {
        let refused = self.hold.take().map(|hold| hold.refused);
        for Staged {
            admission, replies, ..
        } in refused.into_iter().flatten()
        {
            self.judge.ledger.abort(admission);
            for reply in replies {
                let _ = reply.send(Outcome::Again(AgainReason::Busy));
            }
        }
    }

    /// Writes the checkpoint that is due, and gives up what it and the lake no longer need.
    fn tidy(&mut self) {
        if self.checkpoint_due {
            let below = self.in_all_sinks().unwrap_or(0);
            // Behind this checkpoint, the one that is newest now is the older one.
            let below = below.min(self.store.newest_checkpoint());
            let quarantine = &self.quarantine;
            let needed = |agent: &AgentId, buffer| quarantine.has(agent, buffer);
            self.judge.books.drop_retired(below, needed);
            match self.store.checkpoint(&self.judge.ledger, &self.judge.books) {
                Ok(()) => self.checkpoint_due = false,
                Err(error) => {
                    tracing::error!(%error, "no checkpoint: the journal is not trimmed meanwhile");
                    metrics::counter!("tributary_aggregator_checkpoint_errors_total").increment(1);
                }
            }
        }
        self.trim();
    }

    /// Entries below are where they belong; nothing while nobody says so.
    fn in_all_sinks(&self) -> Option<u64> {
        let lake = self.lake.as_ref()?;
        let is_short = self.store.is_short();
        let waited_for = self
            .sinks
            .iter()
            .filter(|sink| sink.is_required() || !is_short);
        let least = waited_for.map(|sink| sink.position()).min();
        Some(least.map_or(lake.position(), |least| least.min(lake.position())))
    }

    fn trim(&self) {
        let Some(below) = self.in_all_sinks() else {
            return;
        };
        if let Err(error) = self.store.trim(below) {
            tracing::error!(%error, "the journal cannot be trimmed");
        }
    }
}

/// Counts what is lost by a gap that took these numbers.
fn count_gap(gap: &Gap, runs: &[Range<u64>]) {
    let reason = gap.reason.name();
    for part in gap.parts(runs) {
        metrics::counter!("tributary_aggregator_gap_batches_total", "reason" => reason)
            .increment(part.count);
        match part.readings {
            Some(readings) => {
                let name = "tributary_aggregator_gap_readings_total";
                metrics::counter!(name, "reason" => reason).increment(readings);
            }
            None => {
                let name = "tributary_aggregator_gaps_of_unknown_size_total";
                metrics::counter!(name, "reason" => reason).increment(1);
            }
        }
    }
}
