//! What is made of an offered batch: the ledger's verdict, and whether its series are known and
//! its content is good. Pure: no journal, no file, no clock.

use super::books::Books;
use super::record::RecordKind;
use super::{Checked, Offer, Outcome};
use crate::limits::{GAP_RUNS_MAX, VERIFY_TRIES_HELD_MAX};
use std::collections::HashMap;
use tributary_planted::planted;
use tributary_protocol::batch::Kind;
use tributary_protocol::ids::{AgentId, BatchHash, BatchKey};
use tributary_protocol::ledger::{Admission, Covering, Ledger, Refusal, Verdict};
use tributary_protocol::limits::VERIFY_TRIES_MAX;
use tributary_protocol::message::{AgainReason, Reject, RejectCode};
use tributary_protocol::series::BookError;

/// What to do with an offered batch.
#[derive(Debug, PartialEq)]
#[must_use = "an admission is committed or aborted"]
pub enum Step {
    /// Append it as this kind of record, then [commit](Judge::commit); or abort.
    Append(Admission, RecordKind),
    /// Its first copy, or a gap for it, is in this very group: it shares that one's outcome.
    Share,
    /// Say so at once.
    Answer(Outcome),
    /// Keep it for a look, and say so.
    Quarantine(Outcome, String),
}

/// The ledger with all books.
#[derive(Debug, Default)]
pub struct Judge {
    /// What is held.
    pub ledger: Ledger,
    /// What series are called.
    pub books: Books,
    /// How often a batch was offered that does not verify.
    tries: HashMap<(AgentId, BatchKey, BatchHash), u8>,
}

impl Judge {
    /// A judge who knows what a recovered journal says.
    pub fn new(ledger: Ledger, books: Books) -> Self {
        Self {
            ledger,
            books,
            tries: HashMap::new(),
        }
    }

    /// What to do with this batch.
    pub fn judge(&mut self, offer: &Offer) -> Step {
        let (key, hash) = (offer.batch.key(), offer.batch.hash());
        let verdict = match offer.batch.kind() {
            Kind::Gap => {
                let gap = (hash, offer.batch.numbers());
                self.ledger.judge_gap(offer.session, &offer.agent, key, gap)
            }
            Kind::Readings | Kind::Series => {
                let covering = Covering::of(&offer.batch);
                let named = (key, hash);
                self.ledger
                    .judge_covering(offer.session, &offer.agent, named, covering)
            }
        };
        match verdict {
            Verdict::Fresh(mut admission) => {
                if offer.batch.kind() == Kind::Gap {
                    let covering = Covering::of(&offer.batch);
                    self.ledger.set_covering(&mut admission, covering);
                }
                self.examine(offer, admission)
            }
            Verdict::Pending if planted!(Blind7) => Step::Answer(Outcome::Durable),
            Verdict::Pending => Step::Share,
            Verdict::Replay { verified } => {
                metrics::counter!("tributary_aggregator_replayed_batches_total").increment(1);
                if !verified {
                    let name = "tributary_aggregator_unverified_replays_total";
                    metrics::counter!(name).increment(1);
                }
                Step::Answer(Outcome::Durable)
            }
            Verdict::Conflict => {
                let reason = "held with another hash: a clone, or a disk that lied".to_owned();
                let outcome = reject(RejectCode::Conflict, &reason, key);
                Step::Quarantine(outcome, reason)
            }
            Verdict::Stale { .. } => {
                let reason = "a newer session of this agent has begun";
                Step::Answer(reject(RejectCode::Fenced, reason, key))
            }
            Verdict::Refused(refusal) => Step::Answer(refused(refusal, key)),
        }
    }

    /// A batch that the ledger would take: are its series known, is its content good?
    fn examine(&mut self, offer: &Offer, admission: Admission) -> Step {
        let key = offer.batch.key();
        let flaw = match &offer.content {
            Checked::Bad(reason) => Err(Flaw::Bad(reason.clone())),
            Checked::Gap if admission.runs().len() > GAP_RUNS_MAX => {
                // Between what is being written just now; it comes again when that is over.
                self.ledger.abort(admission);
                return Step::Answer(Outcome::Again(AgainReason::Busy));
            }
            Checked::Gap => return Step::Append(admission, RecordKind::Gap),
            Checked::Series { defs, .. } if !self.books.has_room(&offer.agent, defs) => {
                Err(Flaw::NoRoom)
            }
            Checked::Series { base, defs } => self
                .books
                .fits(&offer.agent, key.buffer, *base, defs)
                .map_err(|error| match error {
                    BookError::Hole { .. } => Flaw::SeriesUnknown,
                    other => Flaw::Bad(other.to_string()),
                }),
            Checked::Readings { types } => {
                if offer.batch.series_needed() > self.books.len(&offer.agent, key.buffer) {
                    Err(Flaw::SeriesUnknown)
                } else {
                    self.books
                        .check(&offer.agent, key.buffer, types)
                        .map_err(Flaw::Bad)
                }
            }
        };
        match flaw {
            Ok(()) => Step::Append(admission, RecordKind::Batch),
            Err(Flaw::NoRoom) => {
                tracing::warn!(agent = %offer.agent, batch = %key, "no room for more series");
                metrics::counter!("tributary_aggregator_series_without_room_total").increment(1);
                self.ledger.abort(admission);
                Step::Answer(Outcome::Again(AgainReason::Busy))
            }
            Err(Flaw::SeriesUnknown) if self.books.is_torn(&offer.agent, key.buffer) => {
                let reason = "it needs definitions that are in quarantine";
                self.count_try(offer, admission, reason)
            }
            Err(Flaw::SeriesUnknown) => {
                self.ledger.abort(admission);
                Step::Answer(Outcome::Again(AgainReason::SeriesUnknown))
            }
            Err(Flaw::Bad(reason)) => self.count_try(offer, admission, &reason),
        }
    }

    /// A batch that does not verify is asked for again, and at the last try held as quarantined,
    /// so that no poison stops a lane.
    fn count_try(&mut self, offer: &Offer, mut admission: Admission, reason: &str) -> Step {
        let id = (offer.agent.clone(), offer.batch.key(), offer.batch.hash());
        if self.tries.len() >= VERIFY_TRIES_HELD_MAX && !self.tries.contains_key(&id) {
            // Forgetting only makes somebody send it more often.
            self.tries.clear();
        }
        let tries = self.tries.entry(id).or_default();
        *tries += 1;
        tracing::warn!(agent = %offer.agent, batch = %offer.batch.key(), tries, reason,
            "a batch does not verify");
        if *tries < VERIFY_TRIES_MAX {
            self.ledger.abort(admission);
            return Step::Answer(Outcome::Again(AgainReason::Damaged));
        }
        // Its readings are in no sink.
        self.ledger
            .set_covering(&mut admission, Covering::default());
        Step::Append(admission, RecordKind::Quarantined)
    }

    /// The batch is durable as this kind of record.
    pub fn commit(&mut self, offer: &Offer, admission: Admission, kind: RecordKind) {
        if admission.doubled() > 0 {
            tell_doubled(offer, admission.doubled());
        }
        if kind == RecordKind::Quarantined {
            let id = (offer.agent.clone(), offer.batch.key(), offer.batch.hash());
            self.tries.remove(&id);
            if offer.batch.kind() == Kind::Series {
                self.books.tear(&offer.agent, offer.batch.key().buffer);
            }
        } else if let Checked::Series { base, defs } = &offer.content {
            self.books
                .append(&offer.agent, offer.batch.key().buffer, *base, defs)
                .expect("definitions were tried before they were appended, and nobody else writes");
        }
        self.ledger.commit(admission);
    }
}

/// Says that some of what is stored may be there twice.
fn tell_doubled(offer: &Offer, messages: u64) {
    let (agent, batch) = (&offer.agent, offer.batch.key());
    tracing::warn!(%agent, %batch, messages,
        "readings of these messages are stored under another buffer of the agent, too, and may be \
         there twice now: its storage was copied, or put back from a copy, or its disk lost what \
         it had confirmed. The entry is marked as in doubt");
    metrics::counter!("tributary_aggregator_doubled_messages_total").increment(messages);
}

enum Flaw {
    SeriesUnknown,
    /// Its definitions would be more than are kept.
    NoRoom,
    Bad(String),
}

fn reject(code: RejectCode, detail: &str, key: BatchKey) -> Outcome {
    let (detail, batch) = (detail.to_owned(), Some(key));
    Outcome::Reject(Reject {
        code,
        detail,
        retry_after_ms: 0,
        batch,
    })
}

fn refused(refusal: Refusal, key: BatchKey) -> Outcome {
    let code = match refusal {
        Refusal::Holes { .. } => return Outcome::Again(AgainReason::Holes),
        Refusal::Busy => return Outcome::Again(AgainReason::Busy),
        Refusal::Buffers => RejectCode::Buffers,
        Refusal::Number => RejectCode::Protocol,
    };
    reject(code, &refusal.to_string(), key)
}
