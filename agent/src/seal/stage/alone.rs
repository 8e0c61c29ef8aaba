//! What can't be sealed together is sealed message by message.

use super::{GivenUp, LifeId, Now, Origin, RecordKind, SealStage, StageError, message, put_back};
use crate::limits::BATCH_READ_TRIES;
use tributary_journal::LogError;
use tributary_protocol::ids::Lane;

impl SealStage {
    /// Seals what waits in a lane message by message, each with what was refused before it: it
    /// alone is covered by then.
    pub(in crate::seal) fn seal_each(
        &mut self,
        lane: Lane,
        under: Origin,
        now: Now,
    ) -> Result<(), StageError> {
        let mut given_up = self.lanes.give_up(lane);
        // A record of a capture stands there once for each message that it brought.
        given_up.dedup_by_key(|message| message.origin);
        let covers = self.lanes.set_covers(Vec::new());
        let last = self.lanes.set_refused(None);
        for given_up in given_up {
            if let Some(refused) = given_up.refused {
                self.lanes.declare(refused);
            }
            self.seal_alone(lane, given_up, now)?;
            self.lanes.set_covers(Vec::new());
        }
        self.lanes.set_covers(covers);
        if let Some(refused) = last {
            self.lanes.declare(refused);
        }
        if lane == Lane::Telemetry {
            self.declare_letters(under)?;
        }
        // What was refused behind the last one stands in a batch of its own.
        let rest = self.lanes.seal_lane(lane, now.wall)?;
        self.store(rest)
    }

    /// Takes one message out of the log again, and seals its readings alone.
    fn seal_alone(&mut self, lane: Lane, given_up: GivenUp, now: Now) -> Result<(), StageError> {
        let Origin { buffer, number } = given_up.origin;
        let (mut entries, mut tries) = (Vec::new(), 0);
        // A disk that fails for a moment is asked again: a declared loss is for ever.
        self.until_stored(|stage| {
            entries.clear();
            tries += 1;
            match stage.wal.read(LifeId(buffer.0), number, 1, &mut entries) {
                Err(error @ LogError::Io { .. }) if tries < BATCH_READ_TRIES => Err(error),
                _ => Ok(()),
            }
        })?;
        let Some(entry) = entries.into_iter().find(|entry| entry.number == number) else {
            return self.declare_alone(lane, given_up.origin, now);
        };
        let Some(message) = put_back::message_in(entry.kind, &entry.bytes) else {
            return self.capture_alone(given_up.origin, &entry, now);
        };
        // Rules change only where nothing waits: these are the ones that it came under.
        if self.decode(&message).is_err() {
            return Ok(());
        }
        if entry.kind != RecordKind::PutBack.code() {
            self.keep_forwarded(lane, (given_up.origin, message.received_time), false);
        }
        let readings = self.rows.iter();
        let taking = message::taking(&message, given_up.more_flags, now);
        let taken = self.lanes.take(lane, given_up.origin, readings, taking);
        let failed = match taken {
            Ok(()) => self
                .seal_together(lane, now)?
                .err()
                .map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = failed {
            for failed in self.lanes.give_up(lane) {
                self.lanes.set_refused(failed.refused);
            }
            let readings = Some(self.rows.len() as u64);
            self.captures.set_apart(given_up.origin);
            self.bury(given_up.origin, &message, ("seal", &reason), readings)?;
        }
        Ok(())
    }
}
