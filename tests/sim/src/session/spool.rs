//! What an agent's disk holds in the session world: sealed batches, and gaps that stand for some.

use std::collections::BTreeMap;
use tributary_protocol::ids::{BatchHash, BatchKey, BufferId, Lane, LaneKey};
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

/// Numbers of a segment: it goes when all of it is trimmed.
const SEGMENT_BATCHES: u64 = 16;

/// What is on the disk.
#[derive(Clone, Debug, Default)]
pub struct Spool {
    batches: BTreeMap<BatchKey, Item>,
    /// By their first numbers.
    gaps: BTreeMap<BatchKey, Item>,
    /// Trimmed since the cursor was kept: a loss of power may bring them back.
    trimmed: Vec<Item>,
    /// Batches that were trimmed and stand in a segment of which not all is.
    remains: BTreeMap<BatchKey, Item>,
    gone: Vec<BatchKey>,
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
        let gap = self.gaps.range(..=key).next_back().map(|(_, gap)| gap);
        let stands = |gap: &&Item| gap.key.lane_key() == key.lane_key() && key.number < gap.end();
        gap.filter(stands)
            .or_else(|| self.remains.get(&key))
            .copied()
    }

    /// What was trimmed is asked for once more: it is held as before. Whether it was trimmed.
    pub fn reclaim(&mut self, item: &Item) -> bool {
        let there = self.remains.remove(&item.key).is_some();
        if there {
            self.put(*item);
        }
        there
    }

    /// Whether this was trimmed and can be had again: it is there, and so is what follows it.
    pub fn remains(&self, key: BatchKey) -> bool {
        let behind = (key.number..).map(|number| BatchKey { number, ..key });
        let mut behind = behind.skip_while(|key| self.remains.contains_key(key));
        let of_lane = |other: &BatchKey| other.lane_key() == key.lane_key();
        let next = behind.next().unwrap_or(key);
        let goes_on = self.remains.range(next..).next();
        let is_end = !goes_on.is_some_and(|(other, _)| of_lane(other));
        next != key && is_end
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
        self.drop_remains(gap.key.lane_key(), gap.end());
        bytes
    }

    /// Gives up what is acknowledged; what that was. Of the present buffer the last of it stays
    /// until its segment is full.
    pub fn trim(&mut self, trim: Trim, present: BufferId) -> Vec<Item> {
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
            if !item.gap && item.key.lane != Lane::Series && item.key.buffer == present {
                self.remains.insert(item.key, *item);
            }
        }
        self.drop_remains(trim.key, trim.below - trim.below % SEGMENT_BATCHES);
        self.trimmed.extend(&gone);
        gone
    }

    /// The segments below this number go.
    fn drop_remains(&mut self, lane: LaneKey, below: u64) {
        let goes = |key: &BatchKey| key.lane_key() == lane && key.number < below;
        let gone: Vec<BatchKey> = self.remains.keys().copied().filter(goes).collect();
        for key in gone {
            self.remains.remove(&key);
            self.gone.push(key);
        }
    }

    /// What went with its segment since the last call.
    pub fn take_gone(&mut self) -> Vec<BatchKey> {
        std::mem::take(&mut self.gone)
    }

    /// Keeps the cursor: what was trimmed before is gone for good.
    pub fn save(&mut self, cursor: SenderCursor) {
        self.cursor = cursor;
        self.trimmed.clear();
    }

    /// The power went: what was trimmed last may be back; what is.
    pub fn after_power_cut(&mut self, back: bool) -> Vec<Item> {
        let mut trimmed = std::mem::take(&mut self.trimmed);
        trimmed.retain(|item| back || self.remains.contains_key(&item.key));
        trimmed.extend(std::mem::take(&mut self.remains).into_values());
        trimmed.sort_by_key(|item| item.key);
        trimmed.dedup();
        trimmed.iter().for_each(|item| self.put(*item));
        trimmed
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
