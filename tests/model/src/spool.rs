//! What the agent's disk holds in the model: sealed batches, gaps that stand for some, a cursor.

use crate::item::{Item, lane_of};
use crate::limits::GAP_NUMBERS;
use std::collections::BTreeMap;
use tributary_protocol::ids::BatchKey;
use tributary_protocol::session::{LaneStart, SenderCursor, Trim};

/// What is on the disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Spool {
    /// By life and first number: a gap takes the places of what it stands for.
    items: BTreeMap<(u64, u64), Item>,
    /// Below which number everything of a buffer is acknowledged, as far as this process knows.
    acked: BTreeMap<u64, u64>,
    /// What went with the last cursor: a loss of power may bring it back.
    unlinked: Vec<Item>,
    cursor: SenderCursor,
}

impl Spool {
    /// Keeps what was sealed.
    pub fn put(&mut self, item: Item) {
        self.items.insert((item.life, item.number), item);
    }

    /// What stands under this number: the batch, or the gap that replaces it.
    pub fn stored(&self, key: BatchKey) -> Option<Item> {
        let place = (key.buffer.life(), key.number);
        let (_, item) = self.items.range(..=place).next_back()?;
        let stands = item.life == place.0 && item.numbers().contains(&key.number);
        stands.then_some(*item)
    }

    /// Gives up the oldest batches that follow each other, as many as a gap stands for at most; the
    /// gap.
    pub fn shed(&mut self) -> Option<Item> {
        let first = *self.items().find(|item| !item.gap)?;
        let follow = (1..GAP_NUMBERS).take_while(|by| {
            let next = self.items.get(&(first.life, first.number + by));
            next.is_some_and(|item| !item.gap)
        });
        let count = 1 + follow.count() as u64;
        let gap = Item {
            count,
            gap: true,
            ..first
        };
        for number in gap.numbers() {
            self.items.remove(&(gap.life, number));
        }
        self.put(gap);
        Some(gap)
    }

    /// Everything below is acknowledged, and goes with the next cursor; what that is.
    pub fn trim(&mut self, trim: Trim) -> Vec<Item> {
        let life = trim.key.buffer.life();
        let below = self.acked.entry(life).or_default();
        let before = std::mem::replace(below, trim.below);
        let new = before..trim.below;
        let items = self.items.values();
        let done =
            items.filter(|item| item.life == life && new.contains(&(item.numbers().end - 1)));
        done.copied().collect()
    }

    /// Whether everything that this stands for was acknowledged meanwhile.
    pub fn is_trimmed(&self, item: &Item) -> bool {
        let below = self.acked.get(&item.life);
        below.is_some_and(|below| item.numbers().end <= *below)
    }

    /// Whether keeping this cursor changes anything.
    pub fn would_change(&self, cursor: &SenderCursor) -> bool {
        self.cursor != *cursor || self.items.values().any(|item| self.is_trimmed(item))
    }

    /// Keeps the cursor, and lets go of what was trimmed.
    pub fn save(&mut self, cursor: SenderCursor) {
        self.cursor = cursor;
        let gone = self.items.values().filter(|item| self.is_trimmed(item));
        let gone: Vec<Item> = gone.copied().collect();
        for item in &gone {
            self.items.remove(&(item.life, item.number));
        }
        self.unlinked = gone;
    }

    /// Whether a loss of power could bring something back.
    pub fn may_come_back(&self) -> bool {
        !self.unlinked.is_empty()
    }

    /// The power went: what went with the last cursor may be `back`.
    pub fn after_power_cut(&mut self, back: bool) {
        let unlinked = std::mem::take(&mut self.unlinked).into_iter();
        unlinked.filter(|_| back).for_each(|item| self.put(item));
        self.acked.clear();
    }

    /// What it holds of each lane, as an agent finds it that starts.
    pub fn starts(&self, bytes: u64) -> Vec<LaneStart> {
        let mut starts: BTreeMap<u64, LaneStart> = BTreeMap::new();
        for item in self.items.values().filter(|item| !item.gap) {
            let start = starts.entry(item.life).or_insert_with(|| LaneStart {
                key: lane_of(item.life),
                first: item.number,
                end: item.number,
                bytes: 0,
                acked: Vec::new(),
            });
            start.end = item.numbers().end;
            start.bytes += bytes;
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

    /// What it holds and may not let go of, by life and number.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values().filter(|item| !self.is_trimmed(item))
    }
}
