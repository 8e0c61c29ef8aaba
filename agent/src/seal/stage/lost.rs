//! What was durable in the log and cannot be read back, and what dead letters were given up with:
//! declared as gaps.

use super::{Cover, Damage, Now, Origin, SealStage, StageError};
use crate::decode::message_hash;
use crate::limits::DECLARED_MAX;
use metrics::counter;
use tracing::error;
use tributary_protocol::ids::{BufferId, Lane};

impl SealStage {
    pub(super) fn declare_lost(
        &mut self,
        buffer: BufferId,
        first: u64,
        end: u64,
        now: Now,
    ) -> Result<(), StageError> {
        let covered_to = self.covered.least();
        let open = covered_to
            .filter(|to| to.buffer == buffer)
            .map_or(first, |to| to.number);
        let before = covered_to.is_some_and(|to| to.buffer > buffer);
        let first = first.max(open);
        self.position = Some(Origin {
            buffer,
            number: end,
        });
        if before || first >= end {
            return Ok(());
        }
        self.seal(now)?;
        let lost = Cover {
            buffer,
            first,
            count: end - first,
        };
        let detail = format!("{} messages of {buffer} from {first} on", lost.count);
        let gap = self.lanes.seal_gap(Some(&lost), detail, now.wall)?;
        // What a gap covers is not looked at again either.
        self.until_stored(|stage| stage.dead.flush())?;
        self.store(vec![gap])?;
        self.covered.advance_all(Origin {
            buffer,
            number: end,
        });
        Ok(())
    }

    /// Declares one message among those that are sealed alone.
    pub(super) fn declare_alone(
        &mut self,
        lane: Lane,
        origin: Origin,
        now: Now,
    ) -> Result<(), StageError> {
        let Origin { buffer, number } = origin;
        let lost = Cover {
            buffer,
            first: number,
            count: 1,
        };
        // What comes before it waits in `telemetry` while `events` is sealed: not covered.
        let covers = (lane == Lane::Telemetry).then_some(&lost);
        let detail = format!("message {number} of {buffer}");
        let gap = self.lanes.seal_gap(covers, detail, now.wall)?;
        self.until_stored(|stage| stage.dead.flush())?;
        self.store(vec![gap])
    }

    /// Declares damage of the log that no replay meets; once.
    ///
    /// # Errors
    /// See [`StageError`].
    pub fn declare_damage(&mut self, damage: &Damage, now: Now) -> Result<(), StageError> {
        let place = message_hash(&damage.segment, &damage.offset.to_le_bytes());
        let end = Origin {
            buffer: BufferId(damage.life.0),
            number: damage.numbers.end,
        };
        let known = !damage.numbers.is_empty();
        let covered = known && self.covered.least().is_some_and(|to| end <= to);
        if covered || self.declared.contains(&place) {
            return Ok(());
        }
        let Damage {
            segment,
            offset,
            bytes,
            ..
        } = damage;
        error!(
            segment,
            offset, bytes, "a part of the log can't be read back: declared as a gap"
        );
        counter!("tributary_agent_log_damage_total").increment(1);
        self.seal(now)?;
        let detail = format!("{bytes} bytes of {segment} at {offset}");
        let gap = self.lanes.seal_gap(None, detail, now.wall)?;
        self.store(vec![gap])?;
        self.declared.insert(place);
        if self.declared.len() > DECLARED_MAX {
            self.declared.pop_first();
        }
        Ok(())
    }

    /// Has the next batch, which covers all before `under`, declare the readings in letters that
    /// were given up.
    pub(super) fn declare_letters(&mut self, under: Origin) -> Result<(), StageError> {
        self.until_stored(|stage| stage.dead.flush())?;
        if let Some(lost) = self.dead.declare(under) {
            self.lanes.declare(lost);
        }
        Ok(())
    }
}
