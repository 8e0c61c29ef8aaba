//! Dead letters that are put back, and what of the log is no message at all.

use super::{
    How, Letter, Message, Now, Origin, Record, RecordKind, SealStage, StageError, counter,
};
use crate::deadletter::put_back::{PutBackRecord, Taken};
use crate::decode::UserProperties;

impl SealStage {
    /// Reads a dead letter's message once more, by the rules that hold now; once.
    pub(super) fn put_back_record(
        &mut self,
        origin: Origin,
        bytes: &[u8],
        covered: bool,
        now: Now,
    ) -> Result<(), StageError> {
        let Some(PutBackRecord { letter, message }) = PutBackRecord::read(bytes) else {
            self.pass(origin, covered, now)?;
            if !covered {
                let reason = "a dead letter's record can't be understood";
                self.bury_record(origin, bytes, reason, now)?;
            }
            return Ok(());
        };
        if self.put_back.with(|done| done.holds(letter)) {
            if !covered {
                counter!("tributary_agent_repeats_total", "reason" => "put_back").increment(1);
            }
            return self.pass(origin, covered, now);
        }
        // It was given up before this record came, and its readings with it. One that is covered
        // came before.
        if !covered && self.dead.is_gone(letter) {
            self.put_back.take_in(letter, Taken::Gone);
            return self.pass(origin, covered, now);
        }
        let buried = self.buried;
        self.message(origin, &message, How::PutBack, now)?;
        let taken = match self.buried == buried {
            true => Taken::Read,
            false => Taken::DeadAgain,
        };
        self.put_back.take_in(letter, taken);
        Ok(())
    }

    /// Keeps a record that this version can't understand.
    pub(super) fn bury_record(
        &mut self,
        origin: Origin,
        bytes: &[u8],
        reason: &str,
        now: Now,
    ) -> Result<(), StageError> {
        let letter = Letter {
            origin,
            received_time: now.wall,
            word: "record",
            reason,
            will: false,
            topic: "",
            properties: UserProperties::NONE,
            payload: bytes,
        };
        self.buried += 1;
        counter!("tributary_agent_dead_letters_total", "reason" => "record").increment(1);
        self.until_stored(|stage| stage.dead.push(&letter, None))
    }
}

/// The message in a record of the log, if there is one.
pub(super) fn message_in(kind: u8, bytes: &[u8]) -> Option<Message<'_>> {
    match Record::parse(kind, bytes).ok()? {
        Record::Message(message) => Some(message),
        Record::Control(RecordKind::PutBack, bytes) => {
            PutBackRecord::read(bytes).map(|record| record.message)
        }
        _ => None,
    }
}
