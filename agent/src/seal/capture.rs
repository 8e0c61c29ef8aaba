//! Readings of a capture that are more than a batch holds: several batches, stored all or none of
//! them, since they are of one record of the log.

use super::spoken::GROUP_BYTES_MAX;
use super::{Lanes, Readings, SealedBatch};
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

    /// How many readings of telemetry wait to be sealed.
    pub fn waiting_telemetry(&self) -> usize {
        let aside: usize = self.aside.iter().map(Readings::len).sum();
        aside + self.telemetry.readings.len()
    }

    /// Seals what stands aside, from this number on: as much as one frame of the spool takes, and
    /// how many readings that leaves out. They stand aside until all is sealed.
    pub(super) fn seal_aside(&mut self, number: u64, sealed_at: i64) -> (Vec<SealedBatch>, usize) {
        let mut sealed: Vec<SealedBatch> = Vec::new();
        let (mut bytes, mut missed) = (0, 0);
        let mut aside = std::mem::take(&mut self.aside);
        for readings in &mut aside {
            let spec = Spec {
                key: self.key(Lane::Telemetry, number + sealed.len() as u64),
                sealed_at,
                series_needed: self.dictionary.len(),
                covers: self.covers.clone(),
            };
            match self.sealer.shared(&spec, readings) {
                Ok(batch) if bytes + batch.bytes().len() <= GROUP_BYTES_MAX => {
                    bytes += batch.bytes().len();
                    sealed.push(batch);
                }
                // As much as can be stored together.
                Ok(_) => {
                    bytes = GROUP_BYTES_MAX;
                    missed += readings.len();
                }
                Err(error) => {
                    warn!(%error, "a part of a capture can't be sealed");
                    missed += readings.len();
                }
            }
        }
        self.aside = aside;
        (sealed, missed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::decode::Reading;
    use crate::seal::{Origin, Taking};
    use tributary_protocol::ids::BufferId;
    use tributary_protocol::reading::{Flags, Meta, Value};

    fn take(lanes: &mut Lanes, value: Value<'_>) {
        let reading = Reading {
            device: "d",
            metric: if matches!(value, Value::Str(_)) {
                "t"
            } else {
                "m"
            },
            unit: "",
            meta: Meta::default(),
            value,
        };
        let origin = Origin {
            buffer: BufferId::new(1, 1),
            number: 3,
        };
        let taking = Taking {
            client: None,
            more_flags: Flags::default(),
            now: 0,
        };
        lanes
            .take(Lane::Telemetry, origin, [reading].into_iter(), taking)
            .unwrap();
    }

    /// Ten readings aside, and one behind them.
    fn filled(aside: Value<'_>, behind: Value<'_>) -> Lanes {
        let mut lanes = Lanes::new(BufferId::new(1, 1), 1_000);
        (0..10).for_each(|_| take(&mut lanes, aside));
        lanes.make_room_for(BATCH_READINGS_TARGET);
        take(&mut lanes, behind);
        while lanes.seal_series(0).unwrap().is_some() {}
        lanes
    }

    const GOOD: Value<'static> = Value::F64(1.0);
    /// No batch holds it.
    const BAD: Value<'static> = Value::Str("\0");

    #[test]
    fn what_stands_aside_stays_until_all_is_sealed() {
        let mut lanes = filled(GOOD, BAD);
        for _ in 0..2 {
            assert!(lanes.seal_lane(Lane::Telemetry, 0).is_err());
            assert_eq!(lanes.waiting_telemetry(), 11);
        }
        assert_eq!(lanes.give_up(Lane::Telemetry).len(), 11);
        assert_eq!(lanes.waiting_telemetry(), 0);
        take(&mut lanes, GOOD);
        let sealed = lanes.seal_lane(Lane::Telemetry, 0).unwrap();
        assert_eq!((sealed.len(), sealed[0].key().number), (1, 0));

        let mut lanes = filled(GOOD, GOOD);
        assert_eq!(lanes.seal_lane(Lane::Telemetry, 0).unwrap().len(), 2);
        assert_eq!(lanes.waiting_telemetry(), 0);
        assert!(lanes.seal_lane(Lane::Telemetry, 0).unwrap().is_empty());
    }

    #[test]
    fn what_is_left_out_is_counted_by_its_readings() {
        let mut lanes = filled(BAD, GOOD);
        let (sealed, missed) = lanes.seal_aside(0, 0);
        assert_eq!((sealed.len(), missed), (0, 10));
        assert_eq!(lanes.seal_lane(Lane::Telemetry, 0).unwrap().len(), 1);
    }
}
