//! The newest few marks of one key, and a bounded map of keys that gives up one not used lately.
//! Both are functions of the order of calls alone, so that a replay builds the same.

use super::Mark;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// The last `N` marks, oldest overwritten first. It takes what it holds, up to the next power of 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ring<const N: usize, M = Mark> {
    marks: Vec<M>,
    next: usize,
}

impl<const N: usize, M> Default for Ring<N, M> {
    fn default() -> Self {
        Self {
            marks: Vec::new(),
            next: 0,
        }
    }
}

impl<const N: usize> Ring<N> {
    /// The newest mark with this number.
    pub(super) fn newest(&self, number: i64) -> Option<Mark> {
        let (newer, older) = self.marks.split_at(self.next.min(self.marks.len()));
        let newest_first = newer.iter().rev().chain(older.iter().rev());
        newest_first.copied().find(|mark| mark.number == number)
    }

    pub(super) fn contains_content(&self, content: u64) -> bool {
        self.marks.iter().any(|mark| mark.content == content)
    }
}

impl<const N: usize, M: PartialEq> Ring<N, M> {
    pub(super) fn contains(&self, mark: &M) -> bool {
        self.marks.contains(mark)
    }

    pub(super) fn push(&mut self, mark: M) {
        if self.marks.len() < N {
            self.marks.push(mark);
            return;
        }
        if let Some(oldest) = self.marks.get_mut(self.next) {
            *oldest = mark;
        }
        self.next = (self.next + 1) % N;
    }

    /// The marks, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &M> {
        let (newer, older) = self.marks.split_at(self.next.min(self.marks.len()));
        older.iter().chain(newer)
    }

    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    used: bool,
}

/// A map of at most `most` keys. When it is full, a hand goes round and takes the place of the
/// first key that was not used since it came by last (second chance).
#[derive(Clone, Debug)]
pub(super) struct Keyed<K, V> {
    places: HashMap<K, usize>,
    slots: Vec<Slot<K, V>>,
    hand: usize,
    most: usize,
}

impl<K: PartialEq, V: PartialEq> PartialEq for Keyed<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.slots == other.slots && self.hand == other.hand
    }
}

impl<K: Eq, V: Eq> Eq for Keyed<K, V> {}

impl<K: Hash + Eq + Clone, V: Default> Keyed<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            places: HashMap::new(),
            slots: Vec::new(),
            hand: 0,
            most,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn hand(&self) -> usize {
        self.hand
    }

    /// Puts the hand where it was when the map was written.
    pub(super) fn set_hand(&mut self, hand: usize) {
        self.hand = hand.min(self.slots.len().saturating_sub(1));
    }

    /// Keys, whether each was used since the hand came by, and values, in the order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, bool, &V)> {
        self.slots
            .iter()
            .map(|slot| (&slot.key, slot.used, &slot.value))
    }

    /// Adds a key in the next slot; `None` when it is there already or there is no room.
    pub(super) fn restore(&mut self, key: K, used: bool, value: V) -> Option<()> {
        if self.slots.len() >= self.most || self.places.contains_key(&key) {
            return None;
        }
        self.places.insert(key.clone(), self.slots.len());
        self.slots.push(Slot { key, value, used });
        Some(())
    }

    /// The value of `key`, a fresh one when there is none.
    pub(super) fn entry<Q>(&mut self, key: &Q, owned: impl FnOnce() -> K) -> &mut V
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let place = match self.places.get(key) {
            Some(place) => *place,
            None => self.make_room(owned()),
        };
        let slot = self.slots.get_mut(place).expect("every place names a slot");
        slot.used = true;
        &mut slot.value
    }

    fn make_room(&mut self, key: K) -> usize {
        let fresh = Slot {
            key: key.clone(),
            value: V::default(),
            used: true,
        };
        let place = if self.slots.len() < self.most {
            self.slots.push(fresh);
            self.slots.len() - 1
        } else {
            let place = self.find_unused();
            let slot = self
                .slots
                .get_mut(place)
                .expect("the hand stands on a slot");
            let gone = std::mem::replace(slot, fresh);
            self.places.remove(&gone.key);
            place
        };
        self.places.insert(key, place);
        place
    }

    /// Ends within two rounds: the first clears every bit.
    fn find_unused(&mut self) -> usize {
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            match self.slots.get_mut(place) {
                Some(slot) if slot.used => slot.used = false,
                _ => return place,
            }
        }
    }
}
