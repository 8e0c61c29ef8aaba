//! One message of the log: which lane its readings go to, or why it gives none.

use super::{Letter, Message, Now, Origin, SealStage, StageError, counter, text_bytes};
use crate::decode::Decoded;
use crate::marks::{Evidence, Judged};
use crate::seal::{Refused, Taking};
use tributary_planted::planted;
use tributary_protocol::ids::Lane;
use tributary_protocol::reading::Flags;

/// How a message came to the stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    /// It was taken in.
    Published,
    /// It was refused, and acknowledged.
    Refused,
    /// It is a dead letter that is to be read once more.
    PutBack,
}

impl How {
    /// The lane that its readings go to.
    fn lane_of(self, message: &Message<'_>) -> Lane {
        // What a client leaves behind tells of the client, not of what it measured.
        match (message.will, self) {
            (true, Self::Published | Self::PutBack) => Lane::Events,
            _ => Lane::Telemetry,
        }
    }
}

impl SealStage {
    /// Every message passes through the marks; only one that no lane covers gives readings.
    pub(super) fn message(
        &mut self,
        origin: Origin,
        message: &Message<'_>,
        how: How,
        now: Now,
    ) -> Result<(), StageError> {
        let lane = how.lane_of(message);
        let covered = self.is_covered(lane, origin);
        if covered && planted!(Blind11) {
            return Ok(());
        }
        let decoded = self.decode(message);
        let judged = match how {
            // Its marks are from when it came first: they are no evidence against it.
            How::PutBack => Judged::New,
            _ if covered && planted!(MarksNotReplayed) => Judged::New,
            How::Published | How::Refused => self.judge(message, decoded.as_ref().ok()),
        };
        let kept = self.kept((lane, how), (origin, message.received_time), &judged);
        if covered {
            return Ok(());
        }
        if let Judged::Repeat(reason) = judged {
            counter!("tributary_agent_repeats_total", "reason" => reason.name()).increment(1);
            return self.pass(origin, false, now);
        }
        match decoded {
            Ok(decoded) => count(&decoded),
            Err(reason) => {
                self.pass(origin, false, now)?;
                let why = (reason.reason(), &*reason.to_string());
                return self.bury(origin, message, why, None);
            }
        }
        if self.dead.holds(origin) {
            // It became one before the process ended, and may have been put back since.
            self.buried += 1;
            return self.pass(origin, false, now);
        }
        kept.count();
        if how == How::Refused {
            return self.refuse(origin, message.received_time, now);
        }
        let texts = text_bytes(self.rows.iter());
        let rows = self.rows.len();
        if self.lanes.must_seal_before(lane, origin, rows, texts) {
            self.seal(now)?;
        }
        let flags = match judged {
            Judged::MaybeRepeat => {
                counter!("tributary_agent_maybe_repeats_total").increment(1);
                Flags::MAYBE_REPEAT
            }
            _ => Flags::default(),
        };
        let taking = taking(message, flags, now);
        let readings = self.rows.iter();
        if let Err(reason) = self.lanes.take(lane, origin, readings, taking) {
            let readings = Some(self.rows.len() as u64);
            self.pass(origin, false, now)?;
            self.captures.set_apart(origin);
            let why = (reason.word(), &*reason.to_string());
            return self.bury(origin, message, why, readings);
        }
        counter!("tributary_agent_readings_total").increment(self.rows.len() as u64);
        Ok(())
    }

    /// Counts the readings of a message among what is declared with the next batch.
    fn refuse(&mut self, origin: Origin, received_time: i64, now: Now) -> Result<(), StageError> {
        let readings = self.rows.len() as u64;
        counter!("tributary_agent_refused_readings_total").increment(readings);
        if self.lanes.must_seal_before(Lane::Telemetry, origin, 0, 0) {
            self.seal(now)?;
        }
        let refused = Refused::one(readings, received_time);
        self.lanes.refuse(origin, refused, now.monotonic);
        Ok(())
    }

    fn judge(&mut self, message: &Message<'_>, decoded: Option<&Decoded>) -> Judged {
        let first = self.rows.iter().next();
        let evidence = Evidence::of(message, decoded, first.as_ref());
        self.marks.judge(&evidence)
    }

    /// Keeps a message that gave no readings, for a reason in one word and for people; `readings`
    /// if it was decoded.
    pub(super) fn bury(
        &mut self,
        origin: Origin,
        message: &Message<'_>,
        (word, reason): (&'static str, &str),
        readings: Option<u64>,
    ) -> Result<(), StageError> {
        let letter = Letter {
            origin,
            received_time: message.received_time,
            word,
            reason,
            will: message.will,
            topic: message.topic,
            properties: message.properties,
            payload: message.payload,
        };
        self.buried += 1;
        counter!("tributary_agent_dead_letters_total", "reason" => word).increment(1);
        self.until_stored(|stage| stage.dead.push(&letter, readings))
    }
}

/// A broker's messages are those of many clients, and what is put back is nobody's.
pub(super) fn taking(message: &Message<'_>, more_flags: Flags, now: Now) -> Taking {
    let is_clients = !message.broker && message.session != 0;
    Taking {
        client: is_clients.then_some(message.session),
        more_flags,
        now: now.monotonic,
    }
}

/// Counts what of a message is of no use.
fn count(decoded: &Decoded) {
    if decoded.readings == 0 {
        counter!("tributary_agent_messages_without_readings_total").increment(1);
    }
    if decoded.unusable > 0 {
        let unusable = decoded.unusable.into();
        counter!("tributary_agent_user_properties_unusable_total").increment(unusable);
    }
}
