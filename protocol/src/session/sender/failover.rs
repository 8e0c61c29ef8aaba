//! A sender between several aggregators: what each journal is known, or suspected, to hold, and
//! what the others have to be told of it.

use super::{
    AckedTo, BatchKey, HeldRanges, Journal, Lane, LaneCursor, LaneKey, Place, Sender, SenderCursor,
};
use crate::frame::FrameKind;
use crate::ids::LogId;
use crate::limits::SENT_TO_MAX;
use crate::message::{Elsewhere, Hello};
use std::ops::Range;
use tributary_planted::planted;

impl Sender {
    /// Takes in what a cursor kept before a restart, right after [`new`](Self::new). Of lanes that
    /// are not held any more nothing is. What nobody acknowledged may be held by each journal that
    /// the cursor names, and waits for it from when the [time](Self::on_time) is told first.
    pub fn recall(&mut self, cursor: &SenderCursor) {
        for known in &cursor.lanes {
            let Some(lane) = self.lanes.get_mut(&known.key) else {
                continue;
            };
            match known.by {
                AckedTo::Journal(journal) => lane.acked.recall(journal, &known.acked),
                AckedTo::Nobody => {
                    let runs = known.acked.iter();
                    runs.for_each(|run| self.doubts.taken_back(known.key, run.first..run.end));
                }
                AckedTo::Somebody => {}
            }
        }
        for (key, lane) in &self.lanes {
            let unknown = lane.acked.all().missing(lane.first, lane.end);
            for journal in &cursor.sent_to {
                if planted!(Blind2) && cursor.sent_to.last() != Some(journal) {
                    continue;
                }
                for (first, end) in &unknown {
                    self.doubts.sent(*journal, self.now, *key, *first..*end);
                }
            }
        }
        self.saved = cursor.sent_to.clone();
        self.last = cursor.sent_to.last().copied();
        self.recalled = !self.timed;
        self.touch_all();
    }

    /// How long a batch in doubt waits for the aggregator that it was sent to, in microseconds, if
    /// not [`FAILOVER_HOLD_US`](crate::limits::FAILOVER_HOLD_US).
    pub fn hold_for(&mut self, hold_us: i64) {
        self.doubts.hold_us = hold_us;
    }

    /// The places that there are: nobody waits for an aggregator that is not on the list any more.
    pub fn keep_to(&mut self, places: &[Place]) {
        self.doubts.keep_to(places);
    }

    /// What time it is: microseconds on a clock that nobody sets. Who has one aggregator need not
    /// say.
    pub fn on_time(&mut self, now: i64) {
        // What was recalled before anybody told the time waits from now on.
        self.timed = true;
        if std::mem::take(&mut self.recalled) {
            self.doubts.begin(now);
        }
        self.now = now;
    }

    /// As [`on_lost`](Self::on_lost), with the time: from now on what was in flight waits for that
    /// aggregator.
    pub fn on_lost_at(&mut self, now: i64) {
        self.on_time(now);
        self.on_lost();
    }

    /// When something has waited long enough for another aggregator, and [`poll_send`] may have
    /// more to say.
    ///
    /// [`poll_send`]: Self::poll_send
    pub fn poll_timeout(&self) -> Option<i64> {
        self.doubts.poll_timeout(self.journal?.log, self.now)
    }

    /// How a batch that was [offered](Self::offer) just now is to be framed.
    pub fn frame_kind(&self, key: BatchKey) -> FrameKind {
        let flight = self.in_flight.get(&key);
        match flight.is_some_and(|flight| flight.in_doubt) && self.takes_in_doubt {
            true => FrameKind::BatchInDoubt,
            false => FrameKind::Batch,
        }
    }

    /// Whether the [cursor](Self::cursor) has to be durable before the first batch of this session
    /// leaves: otherwise a restart does not know that this journal may hold what it did not
    /// acknowledge.
    pub fn needs_saving(&self) -> bool {
        let known = |journal: Journal| self.saved.iter().any(|saved| saved.log == journal.log);
        self.journal.is_some_and(|journal| !known(journal))
    }

    /// This cursor is durable.
    pub fn on_saved(&mut self, cursor: &SenderCursor) {
        self.saved = cursor.sent_to.clone();
    }

    /// What to keep in the cursor.
    pub fn cursor(&self) -> SenderCursor {
        let lanes = self.lanes.iter();
        let lanes = lanes.filter(|(key, _)| key.lane != Lane::Series);
        let entry = |key: LaneKey, by, held: &HeldRanges| LaneCursor {
            key,
            by,
            acked: held.iter().copied().collect(),
        };
        let known = lanes.flat_map(|(key, lane)| {
            let by_whom = lane.acked.by_whom();
            by_whom.map(|(by, held)| entry(*key, by, held))
        });
        let gone = self.doubts.gone().iter();
        let gone = gone.map(|(key, held)| entry(*key, AckedTo::Nobody, held));
        // The newest last: whoever is met there may get what is sealed from now on.
        let others = self.doubts.sent_to();
        let others = others.filter(|of| self.last.is_none_or(|last| last.log != of.log));
        let mut sent_to: Vec<Journal> = others.chain(self.last).collect();
        sent_to.drain(..sent_to.len().saturating_sub(SENT_TO_MAX));
        SenderCursor {
            lanes: known.chain(gone).collect(),
            sent_to,
        }
    }

    /// A session with this journal begins.
    pub(super) fn meet(&mut self, journal: Journal, takes_in_doubt: bool) {
        self.journal = Some(journal);
        self.last = Some(journal);
        self.takes_in_doubt = takes_in_doubt;
        self.notices.clear();
        self.doubts.meet(journal);
    }

    /// These were sent to it, and it did not say what became of them.
    pub(super) fn is_in_doubt_at(&mut self, journal: Journal, key: BatchKey, count: u64) {
        let numbers = key.number..key.number.saturating_add(count);
        self.doubts.sent(journal, self.now, key.lane_key(), numbers);
    }

    /// Whether another journal than the present one may hold any of these.
    pub(super) fn is_in_doubt(&self, key: LaneKey, numbers: &Range<u64>) -> bool {
        let log = self.present_log();
        let acked = || {
            let lane = self.lanes.get(&key);
            lane.is_some_and(|lane| lane.acked.is_elsewhere(log, (numbers.start, numbers.end)))
        };
        key.lane != Lane::Series && (self.doubts.is_held_elsewhere(log, key, numbers) || acked())
    }

    /// How many batches were sent to another aggregator than the one that was met last, which did
    /// not say what became of them.
    pub fn in_doubt(&self) -> u64 {
        self.doubts.count(self.present_log())
    }

    fn present_log(&self) -> LogId {
        self.journal.map_or(LogId::FORGOTTEN, |journal| journal.log)
    }

    /// What of a lane waits for another aggregator.
    pub(super) fn waiting(&self, key: LaneKey) -> Vec<&HeldRanges> {
        self.doubts.waiting(self.present_log(), self.now, key)
    }

    pub(super) fn any_waits(&self) -> bool {
        self.doubts.any_waits(self.present_log(), self.now)
    }

    /// Tells a ledger what others acknowledged.
    pub(super) fn say_elsewhere(&self, hello: &mut Hello) {
        if planted!(ElsewhereUnsaid) {
            return;
        }
        let announced = self.lanes.iter().rev();
        let announced = announced
            .filter(|(key, _)| key.lane != Lane::Series && self.announced.contains(&key.buffer));
        for (key, lane) in announced {
            for (log, ranges) in lane.elsewhere(self.place) {
                let key = *key;
                hello.push_elsewhere(Elsewhere { key, log, ranges });
            }
        }
    }
}
