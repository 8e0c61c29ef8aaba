//! Batches that the aggregator does not take, because it holds messages that they cover under
//! another buffer: this machine's disk was put back from a copy, or lost what it had confirmed.
//! What is left of them is sealed once more, and then a gap without readings stands for them.
//!
//! In this order: when the power fails between the two, the batch is offered again, and the
//! aggregator finds its rest held under another name, or the other way round.

use super::{Cover, Lane, Now, Origin, SealStage, StageError};
use crate::decode::Reading;
use crate::seal::Taking;
use metrics::counter;
use std::collections::BTreeMap;
use tracing::{error, warn};
use tributary_planted::planted;
use tributary_protocol::batch::{Content, Decoder, SealedBatch};
use tributary_protocol::ids::{BatchKey, BufferId};
use tributary_protocol::limits::BATCH_COVERS_MAX;
use tributary_protocol::reading::{Flags, Readings, Row};
use tributary_protocol::series::SeriesDef;

/// Messages of some buffer, and the places of their rows.
type Left = BTreeMap<(BufferId, u64), Vec<usize>>;

/// A batch that is not taken, decoded.
struct Parted {
    readings: Readings,
    names: Vec<SeriesDef>,
}

impl Parted {
    /// The readings in these places, as they came out of the log.
    fn readings(&self, places: &[usize]) -> impl Iterator<Item = Reading<'_>> {
        let rows = places.iter().filter_map(|at| self.readings.rows().get(*at));
        rows.filter_map(|row: &Row| {
            let of = self.names.get(row.series.0 as usize)?;
            Some(Reading {
                device: &of.device,
                metric: &of.metric,
                unit: of.unit.as_deref().unwrap_or_default(),
                meta: row.meta,
                value: self.readings.value(row),
            })
        })
    }
}

impl SealStage {
    /// Replaces what was not taken since the last look.
    pub(super) fn replace_covered(&mut self, now: Now) -> Result<(), StageError> {
        while let Some((key, held)) = self.spool.next_covered() {
            if let Err(problem) = self.replace(key, &held, now)? {
                // The next session asks once more.
                error!(batch = %key, problem, "a batch whose messages the aggregator holds under \
                    another buffer can't be replaced now: it stays in the spool");
            }
        }
        Ok(())
    }

    /// The inner error is about this batch, and changes nothing.
    fn replace(
        &mut self,
        key: BatchKey,
        held: &[Cover],
        now: Now,
    ) -> Result<Result<(), String>, StageError> {
        if self.spool.tell_again(key) {
            return Ok(Ok(()));
        }
        let batch = match self.spool.read_covered(key) {
            Ok(batch) => batch,
            Err(problem) => return Ok(Err(problem)),
        };
        let left = left_of(batch.covers(), held);
        let mut kept = 0;
        if !left.is_empty() && !planted!(CoveredDropsRest) {
            match self.seal_left(&batch, &left, now)? {
                Ok(readings) => kept = readings,
                Err(problem) => return Ok(Err(problem)),
            }
        }
        self.until_stored(|stage| stage.spool.declare_repeat(&batch))?;
        let (lane, readings) = (key.lane.name(), u64::from(batch.rows()) - kept as u64);
        warn!(batch = %key, readings, sealed_again = kept, "readings of this batch are at the \
            aggregator already, under another buffer: this machine's disk was put back from a \
            copy, or lost what it had confirmed. They are not sent twice");
        counter!("tributary_agent_covered_batches_total", "lane" => lane).increment(1);
        counter!("tributary_agent_covered_readings_total", "lane" => lane).increment(readings);
        Ok(Ok(()))
    }

    /// Seals the readings of these of its messages once more, in batches that cover these alone;
    /// gives how many there are.
    fn seal_left(
        &mut self,
        batch: &SealedBatch,
        left: &[Cover],
        now: Now,
    ) -> Result<Result<usize, String>, StageError> {
        let lane = batch.key().lane;
        let parted = match self.part(batch) {
            Ok(parted) => parted,
            Err(problem) => return Ok(Err(problem)),
        };
        let Some(messages) = batch.messages() else {
            return Ok(Err(
                "it does not say of which message each reading is".into()
            ));
        };
        let mut rows = Left::new();
        for (place, message) in messages.into_iter().enumerate() {
            rows.entry(message).or_default().push(place);
        }
        let of = |cover: &Cover| {
            let end = cover.first + cover.count;
            (cover.buffer, cover.first)..(cover.buffer, end)
        };
        let has_rows = |cover: &&Cover| rows.range(of(cover)).next().is_some();
        let left: Vec<Cover> = left.iter().filter(has_rows).copied().collect();
        self.seal(now)?;
        let mut kept = 0;
        // One more says how far the lane is: the newest batch is asked for that.
        for covers in left.chunks(BATCH_COVERS_MAX - 1) {
            for (message, places) in covers.iter().flat_map(|cover| rows.range(of(cover))) {
                let (buffer, number) = *message;
                let taking = Taking {
                    client: None,
                    more_flags: Flags::default(),
                    now: now.monotonic,
                };
                let origin = Origin { buffer, number };
                let taken = self
                    .lanes
                    .take(lane, origin, parted.readings(places), taking);
                if let Err(problem) = taken {
                    self.lanes.clear();
                    return Ok(Err(problem.to_string()));
                }
                kept += places.len();
            }
            let is_at = self
                .covered
                .of(lane)
                .map(|Origin { buffer, number }| Cover {
                    buffer,
                    first: number,
                    count: 0,
                });
            let covers = covers.iter().copied().chain(is_at).collect();
            self.lanes.set_covers(covers);
            let sealed = self.seal_together(lane, now)?;
            self.lanes.clear();
            if let Err(problem) = sealed {
                return Ok(Err(problem.to_string()));
            }
        }
        Ok(Ok(kept))
    }

    fn part(&mut self, batch: &SealedBatch) -> Result<Parted, String> {
        let content = batch.decode(&mut Decoder::new());
        let Content::Readings(readings) = content.map_err(|error| error.to_string())? else {
            return Err("it holds no readings".into());
        };
        let names = match batch.key().lane {
            Lane::Events => batch.names().to_vec(),
            _ => self.spool.definitions(batch.key().buffer)?,
        };
        let named = |row: &Row| (row.series.0 as usize) < names.len();
        if !readings.rows().iter().all(named) {
            return Err("the definitions of its series can't be read".into());
        }
        Ok(Parted { readings, names })
    }
}

/// What of these messages is not held.
fn left_of(covers: &[Cover], held: &[Cover]) -> Vec<Cover> {
    let mut left = Vec::new();
    for cover in covers {
        let end = cover.first + cover.count;
        let mut at = cover.first;
        let mut runs: Vec<_> = held.iter().filter(|it| it.buffer == cover.buffer).collect();
        runs.sort_by_key(|run| run.first);
        let nothing = Cover {
            first: end,
            ..*cover
        };
        for run in runs.into_iter().chain([&nothing]) {
            let to = run.first.min(end);
            if at < to {
                left.push(Cover {
                    buffer: cover.buffer,
                    first: at,
                    count: to - at,
                });
            }
            at = at.max(run.first.saturating_add(run.count));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_covers_lies_between_what_is_held() {
        let cover = |life, first, count| Cover {
            buffer: BufferId::new(life, 1),
            first,
            count,
        };
        let covers = [cover(1, 10, 10), cover(2, 0, 5)];
        let held = [cover(1, 14, 3), cover(1, 5, 6), cover(2, 0, 5)];
        let left = [cover(1, 11, 3), cover(1, 17, 3)];
        assert_eq!(left_of(&covers, &held), left);
        assert_eq!(left_of(&covers, &covers), []);
        assert_eq!(left_of(&covers, &[]), covers);
        assert_eq!(left_of(&covers, &[cover(1, 0, 99)]), [cover(2, 0, 5)]);
    }
}
