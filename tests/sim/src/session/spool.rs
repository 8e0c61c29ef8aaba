//! What an agent's disk holds in the session world: sealed batches, and gaps that stand for some.

use std::collections::BTreeMap;
use tributary_protocol::ids::{BatchHash, BatchKey, Lane, LaneKey};
use tributary_protocol::session::{LaneStart, Outgoing, SenderCursor, Trim};

/// A batch, or a gap, as both ends have to know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item {
    /// Its name.
    pub key: BatchKey,
    /// How many numbers it stands for.
    pub count: u64,
    /// Whether it declares a loss.
    pub gap: bool,
    /// Its bytes.
    pub bytes: u64,
    /// Its hash.
    pub hash: BatchHash,
    /// Series that must be known before it makes sense.
    pub series_needed: u32,
    /// Of the lane `series`: how many are known with it.
    pub series_after: u32,
}

impl Item {
    /// One past its greatest number.
    pub fn end(&self) -> u64 {
        self.key.number + self.count
    }

    /// As the sender has to know it.
    pub fn outgoing(&self) -> Outgoing {
        Outgoing {
            key: self.key,
            count: self.count,
            bytes: self.bytes,
            hash: self.hash,
            series_needed: self.series_needed,
            series_after: self.series_after,
        }
    }
}

/// What is on the disk.
#[derive(Clone, Debug, Default)]
pub struct Spool {
    batches: BTreeMap<BatchKey, Item>,
    /// By their first numbers.
    gaps: BTreeMap<BatchKey, Item>,
    /// Trimmed since the cursor was kept: a loss of power may bring them back.
    trimmed: Vec<Item>,
    cursor: SenderCursor,
}

impl Spool {
    /// Keeps what was sealed.
    pub fn put(&mut self, item: Item) {
        let place = if item.gap {
            &mut self.gaps
        } else {
            &mut self.batches
        };
        place.insert(item.key, item);
    }

    /// What stands under this number: the batch, or the gap that replaces it.
    pub fn stored(&self, key: BatchKey) -> Option<Item> {
        if let Some(item) = self.batches.get(&key) {
            return Some(*item);
        }
        let (_, gap) = self.gaps.range(..=key).next_back()?;
        let stands = gap.key.lane_key() == key.lane_key() && key.number < gap.end();
        stands.then_some(*gap)
    }

    /// The oldest readings: where they begin, and how many follow each other.
    pub fn oldest_readings(&self) -> Option<(BatchKey, u64)> {
        let mut readings = self
            .batches
            .keys()
            .filter(|key| key.lane == Lane::Telemetry);
        let first = *readings.next()?;
        let follow = readings.zip(1..);
        let follow = follow.take_while(|(key, by)| {
            key.lane_key() == first.lane_key() && key.number == first.number + by
        });
        Some((first, 1 + follow.count() as u64))
    }

    /// The gap stands for its numbers from now on; the bytes that were given up.
    pub fn shed(&mut self, gap: Item) -> u64 {
        let numbers = gap.key.number..gap.end();
        let keys = numbers.map(|number| BatchKey { number, ..gap.key });
        let gone = keys.filter_map(|key| self.batches.remove(&key));
        let bytes = gone.map(|item| item.bytes).sum();
        self.put(gap);
        bytes
    }

    /// Gives up what is acknowledged; what that was.
    pub fn trim(&mut self, trim: Trim) -> Vec<Item> {
        let of_lane = |item: &Item| item.key.lane_key() == trim.key && item.end() <= trim.below;
        let all = self.batches.values().chain(self.gaps.values());
        let gone: Vec<Item> = all.filter(|item| of_lane(item)).copied().collect();
        for item in &gone {
            let place = if item.gap {
                &mut self.gaps
            } else {
                &mut self.batches
            };
            place.remove(&item.key);
        }
        self.trimmed.extend(&gone);
        gone
    }

    /// Keeps the cursor: what was trimmed before is gone for good.
    pub fn save(&mut self, cursor: SenderCursor) {
        self.cursor = cursor;
        self.trimmed.clear();
    }

    /// The power went: what was trimmed last may be back; how much is.
    pub fn after_power_cut(&mut self, back: bool) -> u64 {
        let trimmed = std::mem::take(&mut self.trimmed).into_iter();
        let returned = trimmed.filter(|_| back).map(|item| self.put(item));
        returned.count() as u64
    }

    /// What it holds of each lane, as an agent finds it that starts.
    pub fn starts(&self) -> Vec<LaneStart> {
        let mut starts: BTreeMap<LaneKey, LaneStart> = BTreeMap::new();
        for item in self.batches.values() {
            let key = item.key.lane_key();
            let start = starts.entry(key).or_insert_with(|| LaneStart {
                key,
                first: item.key.number,
                end: item.key.number,
                bytes: 0,
                acked: Vec::new(),
            });
            start.end = item.end();
            start.bytes += item.bytes;
        }
        for start in starts.values_mut() {
            start.acked = self.cursor.acked(start.key).iter().copied().collect();
        }
        starts.into_values().collect()
    }

    /// The cursor as it was kept.
    pub fn cursor(&self) -> &SenderCursor {
        &self.cursor
    }

    /// The gaps, by their first numbers.
    pub fn gaps(&self) -> impl Iterator<Item = &Item> {
        self.gaps.values()
    }

    /// What has still to arrive somewhere, and so has to drain.
    pub fn left(&self) -> impl Iterator<Item = &Item> {
        let batches = self
            .batches
            .values()
            .filter(|item| item.key.lane != Lane::Series);
        batches.chain(self.gaps.values())
    }
}
