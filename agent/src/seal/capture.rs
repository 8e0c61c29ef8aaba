//! Readings of a capture that are more than a batch holds: several batches, stored all or none of
//! them, since they are of one record of the log.

use super::spoken::GROUP_BYTES_MAX;
use super::{Lanes, SealedBatch};
use metrics::counter;
use tracing::warn;
use tributary_protocol::batch::Spec;
use tributary_protocol::ids::Lane;
use tributary_protocol::limits::BATCH_READINGS_TARGET;

/// Counts what of captures is not captured.
pub(super) fn count_missed(reason: &'static str, count: usize) {
    counter!("tributary_agent_capture_missed_total", "reason" => reason).increment(count as u64);
}

impl Lanes {
    /// Has the readings of telemetry stand in a batch of their own if so many more do not fit.
    pub fn make_room_for(&mut self, readings: usize) {
        if self.telemetry.readings.len() + readings > BATCH_READINGS_TARGET {
            let aside = std::mem::take(&mut self.telemetry.readings);
            self.aside.push(aside);
        }
    }

    /// Seals what stands aside, from this number on: as much as one frame of the spool takes.
    pub(super) fn seal_aside(&mut self, number: u64, sealed_at: i64) -> Vec<SealedBatch> {
        let mut sealed: Vec<SealedBatch> = Vec::new();
        let mut bytes = 0;
        let mut aside = std::mem::take(&mut self.aside);
        for (place, readings) in aside.iter_mut().enumerate() {
            let spec = Spec {
                key: self.key(Lane::Telemetry, number + sealed.len() as u64),
                sealed_at,
                series_needed: self.dictionary.len(),
                covers: self.covers.clone(),
            };
            let batch = match self.sealer.readings(&spec, readings) {
                Ok(batch) => batch,
                Err(error) => {
                    warn!(%error, "a part of a capture can't be sealed");
                    count_missed("much", 1);
                    continue;
                }
            };
            bytes += batch.bytes().len();
            if bytes > GROUP_BYTES_MAX {
                warn!(
                    batches = place,
                    "a capture is more than can be stored together: cut"
                );
                count_missed("much", 1);
                break;
            }
            sealed.push(batch);
        }
        sealed
    }
}
