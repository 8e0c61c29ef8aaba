//! Which rules messages are decoded by: a function of the log, as all else.

use super::{Decoded, Message, Now, Origin, SealStage, StageError};
use crate::configuration::Announcement;
use crate::decode::{DeadLetter, Incoming};
use crate::limits::CONFIGURATIONS_MAX;
use tracing::error;
use tributary_protocol::ids::BufferId;

impl SealStage {
    /// Decodes by the rules that the message came under.
    pub(super) fn decode(&mut self, message: &Message<'_>) -> Result<Decoded, DeadLetter> {
        let incoming = Incoming {
            topic: message.topic,
            payload: message.payload,
            properties: message.properties,
            received_time: message.received_time,
        };
        match self.configurations.rules() {
            Some(rules) => rules.decode(&incoming, &mut self.rows),
            None => {
                self.rows.clear();
                Err(DeadLetter::Configuration)
            }
        }
    }

    /// Other rules hold behind this record of the log.
    pub(super) fn configured(
        &mut self,
        origin: Origin,
        bytes: &[u8],
        now: Now,
    ) -> Result<(), StageError> {
        let announced = Announcement::read(bytes);
        if announced.is_none() {
            error!(
                number = origin.number,
                "the log names decoding rules that can't be understood"
            );
        }
        let named = announced.map(|Announcement(hash)| hash);
        if self.configurations.is_in_force(named) {
            return Ok(());
        }
        // What waits came under the rules before: it may have to be decoded once more.
        self.seal(now)?;
        self.configurations.begin(origin, named);
        // A capture decodes by the rules of now.
        self.captures.raise_floor(origin);
        if self.configurations.held() > CONFIGURATIONS_MAX {
            // The second one lets go of what stands before the first.
            self.checkpoint(now)?;
            self.checkpoint(now)?;
        }
        Ok(())
    }

    /// Each life begins with a record that names its rules. When that can't be read, nobody knows
    /// them: `number` is the first one of the log that can, if one can.
    pub(super) fn begin_life(&mut self, buffer: BufferId, number: Option<u64>) {
        let goes_on = self
            .position
            .is_some_and(|position| position.buffer == buffer);
        if !goes_on {
            self.begin_forwarded(Origin { buffer, number: 0 });
        }
        if !goes_on && number != Some(0) {
            let at = Origin { buffer, number: 0 };
            self.configurations.lose(at);
            self.captures.raise_floor(at);
        }
    }
}
