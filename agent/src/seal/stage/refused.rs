//! What was refused at the door although it was acknowledged: declared with the next batch.

use super::{Now, Origin, SealStage, StageError, counter, error};
use crate::wal::Refused;
use tributary_protocol::ids::Lane;

impl SealStage {
    /// Takes in what was refused at the door although it was acknowledged.
    pub(super) fn refused(
        &mut self,
        origin: Origin,
        bytes: &[u8],
        now: Now,
    ) -> Result<(), StageError> {
        let unknown = Refused {
            messages: 0,
            readings: 0,
            first: now.wall,
            last: now.wall,
        };
        let refused = Refused::read(bytes).unwrap_or_else(|error| {
            error!(%error, number = origin.number, "what was refused can't be understood");
            unknown
        });
        counter!("tributary_agent_refused_readings_total").increment(refused.readings);
        if self.lanes.must_seal_before(Lane::Telemetry, origin, 0, 0) {
            self.seal(now)?;
        }
        self.lanes.refuse(origin, refused, now.monotonic);
        Ok(())
    }
}
