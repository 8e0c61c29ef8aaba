//! The series that gave way and are not forgotten: which they are, and by which number what was
//! learned of each is found in a store.
//!
//! The stage hands a row to the store when a series gives way, under a number that no other row
//! has, and asks for it when the series speaks again. Which rows there are is known here, in the
//! checkpoint, not in the store: a row that is there from after the checkpoint is never asked for,
//! and a replay hands over the same rows under the same numbers. So a store has to keep each row
//! until no checkpoint that may still be used names it, and to have it durable before one that
//! does.
//!
//! A bounded number: the one that gave way longest ago is forgotten for another. About 45 bytes of
//! memory each.

use super::kept::{read_text, write_text};
use bytes::{Buf, BufMut};
use hashbrown::HashTable;
use std::collections::{BTreeMap, VecDeque};

/// Where rows are kept.
pub trait IdleRows: Send {
    /// Takes what was learned of a series. One that can't be taken is lost.
    fn put(&mut self, number: u64, row: Vec<u8>);
    /// Gives a row; `None` when it was lost.
    fn get(&mut self, number: u64) -> Option<Vec<u8>>;
    /// A row is not asked for any more: neither by who goes on from here, nor by a checkpoint that
    /// is written from here on. `next` is the number that the next row will have.
    fn gone(&mut self, number: u64, next: u64);
}

/// No key: stands where a series was.
const NOBODY: u64 = 0;
/// Places without a series that are suffered beside half as many as there are series.
const SLACK: usize = 1_024;

/// A series that is forgotten, and device and metric where an alert of its own stands.
pub type Forgotten = (u64, Option<(Box<str>, Box<str>)>);

/// The series; see the module.
pub struct Idle {
    /// Numbers by key.
    places: HashTable<u64>,
    /// Number and key, in the order in which they gave way.
    ring: VecDeque<(u64, u64)>,
    /// Device and metric of those whose alert stands, by number.
    alerted: BTreeMap<u64, (Box<str>, Box<str>)>,
    next: u64,
    most: usize,
}

impl Idle {
    /// None yet, at most `most`.
    pub fn new(most: usize) -> Self {
        Self {
            places: HashTable::new(),
            ring: VecDeque::new(),
            alerted: BTreeMap::new(),
            next: 0,
            most,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// How many there may be.
    pub fn most(&self) -> usize {
        self.most
    }

    /// There may be so many from here on: those [beyond](Self::forget) have to be forgotten.
    pub fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// The number that the next row will have.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The numbers of all rows, in order.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        let all = self.ring.iter().filter(|(_, key)| *key != NOBODY);
        all.map(|(number, _)| *number)
    }

    /// A series gives way; `alerted`: an alert of its own stands. Gives the number of its row, and
    /// of another one that has its key, which is forgotten. There has to be room.
    pub fn put(&mut self, device: &str, metric: &str, alerted: bool) -> (u64, Option<Forgotten>) {
        let key = key_of(device, metric);
        let other = self.take_key(key);
        let number = self.next;
        self.next += 1;
        if alerted {
            self.alerted.insert(number, (device.into(), metric.into()));
        }
        self.insert(number, key);
        (number, other)
    }

    /// A series speaks again: the number of its row, and where an alert stands the names that it
    /// stands with: another's, if both have one key.
    pub fn take(&mut self, device: &str, metric: &str) -> Option<Forgotten> {
        // Nearly always there are none, and what would be looked for is not worth its hash.
        if self.places.is_empty() {
            return None;
        }
        self.take_key(key_of(device, metric))
    }

    /// The one that gave way longest ago, to be forgotten, while there are more than `room` beside
    /// it would leave.
    pub fn forget(&mut self, room: usize) -> Option<Forgotten> {
        if self.len() + room <= self.most {
            return None;
        }
        let (_, key) = self.ring.iter().find(|(_, key)| *key != NOBODY)?;
        self.take_key(*key)
    }

    fn insert(&mut self, number: u64, key: u64) {
        self.ring.push_back((number, key));
        let Self { places, ring, .. } = self;
        places.insert_unique(key, number, |number| key_at(ring, *number));
    }

    fn take_key(&mut self, key: u64) -> Option<Forgotten> {
        let Self { places, ring, .. } = self;
        let found = places.find_entry(key, |number| key_at(ring, *number) == key);
        let (number, _) = found.ok()?.remove();
        if let Ok(at) = ring.binary_search_by_key(&number, |(number, _)| *number)
            && let Some(place) = ring.get_mut(at)
        {
            place.1 = NOBODY;
        }
        while ring.pop_front_if(|(_, key)| *key == NOBODY).is_some() {}
        if ring.len() > places.len() + places.len() / 2 + SLACK {
            ring.retain(|(_, key)| *key != NOBODY);
        }
        Some((number, self.alerted.remove(&number)))
    }

    /// Appends all of it, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.next);
        out.put_u32_le(self.len() as u32);
        for (number, key) in self.ring.iter().filter(|(_, key)| *key != NOBODY) {
            out.put_u64_le(*number);
            out.put_u64_le(*key);
        }
        out.put_u32_le(self.alerted.len() as u32);
        for (number, (device, metric)) in &self.alerted {
            out.put_u64_le(*number);
            write_text(device, out);
            write_text(metric, out);
        }
    }

    /// Takes it off the front of `input`; `None` when the bytes are none.
    pub fn read(most: usize, input: &mut &[u8]) -> Option<Self> {
        let mut idle = Self::new(most);
        idle.next = input.try_get_u64_le().ok()?;
        for _ in 0..input.try_get_u32_le().ok()? {
            let (number, key) = (input.try_get_u64_le().ok()?, input.try_get_u64_le().ok()?);
            let last = idle.ring.back().map(|(last, _)| *last);
            let is_known = || {
                let is_it = |number: &u64| key_at(&idle.ring, *number) == key;
                idle.places.find(key, is_it).is_some()
            };
            if key == NOBODY || number >= idle.next || last >= Some(number) || is_known() {
                return None;
            }
            idle.insert(number, key);
        }
        for _ in 0..input.try_get_u32_le().ok()? {
            let number = input.try_get_u64_le().ok()?;
            let names = (read_text(input)?.into(), read_text(input)?.into());
            if key_at(&idle.ring, number) == NOBODY {
                return None;
            }
            idle.alerted.insert(number, names);
        }
        Some(idle)
    }
}

/// The key of the series whose row has this number.
fn key_at(ring: &VecDeque<(u64, u64)>, number: u64) -> u64 {
    let at = ring.binary_search_by_key(&number, |(number, _)| *number);
    at.ok()
        .and_then(|at| ring.get(at))
        .map_or(NOBODY, |(_, key)| *key)
}

/// The same in every process. Two series that share one cost each other what was learned: the row
/// has their names.
fn key_of(device: &str, metric: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(device.len() as u64).to_le_bytes());
    hasher.update(device.as_bytes());
    hasher.update(metric.as_bytes());
    let mut key = [0; 8];
    hasher.finalize_xof().fill(&mut key);
    u64::from_le_bytes(key).max(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
