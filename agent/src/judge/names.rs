//! The names of the series at hand, each kept once: of devices, or of metrics. One is forgotten
//! with the last series that has it.

use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

struct Name {
    text: Box<str>,
    /// Series that have it.
    series: u32,
}

/// The names; see the module.
#[derive(Default)]
pub struct Names {
    places: HashTable<u32>,
    hasher: RandomState,
    names: Vec<Name>,
    free: Vec<u32>,
}

impl Names {
    /// One series more has this name.
    pub fn enter(&mut self, text: &str) -> u32 {
        if let Some(at) = self.find(text) {
            if let Some(name) = self.names.get_mut(at as usize) {
                name.series += 1;
            }
            return at;
        }
        let name = Name {
            text: text.into(),
            series: 1,
        };
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(place) = self.names.get_mut(at as usize) {
                    *place = name;
                }
                at
            }
            None => {
                self.names.push(name);
                self.names.len() as u32 - 1
            }
        };
        let Self {
            places,
            hasher,
            names,
            ..
        } = self;
        places.insert_unique(hasher.hash_one(text), at, |at| {
            let name = names.get(*at as usize);
            hasher.hash_one(name.map_or("", |name| &*name.text))
        });
        at
    }

    /// One series less has a name; whether that was its last one.
    pub fn leave(&mut self, at: u32) -> bool {
        let Some(name) = self.names.get_mut(at as usize) else {
            return false;
        };
        name.series = name.series.saturating_sub(1);
        if name.series > 0 {
            return false;
        }
        let hash = self.hasher.hash_one(&*name.text);
        name.text = "".into();
        if let Ok(entry) = self.places.find_entry(hash, |known| *known == at) {
            entry.remove();
        }
        self.free.push(at);
        true
    }

    /// Where a name stands.
    pub fn find(&self, text: &str) -> Option<u32> {
        let is_it = |at: &u32| {
            self.names
                .get(*at as usize)
                .is_some_and(|it| *it.text == *text)
        };
        let hash = self.hasher.hash_one(text);
        self.places.find(hash, is_it).copied()
    }

    /// A name.
    pub fn text(&self, at: u32) -> Option<&str> {
        let name = self.names.get(at as usize)?;
        (name.series > 0).then_some(&*name.text)
    }

    /// How many series have a name.
    pub fn series(&self, at: u32) -> usize {
        self.names
            .get(at as usize)
            .map_or(0, |name| name.series as usize)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Every name's place.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.places.iter().copied()
    }
}
