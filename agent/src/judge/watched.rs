//! The series that are watched, by name: a bounded number, of which the one that was silent longest
//! gives way. A function of the order of calls alone, so that a replay builds the same.

use super::kept::{read_text, write_text};
use super::recent::Recent;
use crate::alert::AlertId;
use crate::detect::{Preset, SeriesDetector};
use bytes::{Buf, BufMut};
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// No slot.
const NONE: u32 = u32::MAX;
/// Slots that are taken from memory at once.
const SLOTS_STEP: usize = 4_096;

/// An alert that was raised and not cleared.
#[derive(Clone, PartialEq, Debug)]
pub struct Standing {
    /// Which.
    pub id: AlertId,
    /// Its score.
    pub score: f64,
    /// Its JSON, as it was raised: the present state of its topic.
    pub json: Box<str>,
}

/// What is known of one series.
#[derive(Clone, PartialEq, Debug)]
pub struct Watch {
    /// What judges it.
    pub detector: SeriesDetector,
    /// The greatest time so far.
    pub newest: i64,
    /// Readings of that time.
    pub of_newest: u32,
    /// Readings since the last one that alerted, saturating.
    pub quiet: u8,
    /// The last readings.
    pub recent: Recent,
    /// The alert that stands.
    pub standing: Option<Box<Standing>>,
}

impl Watch {
    /// Nothing seen.
    pub fn new(preset: Preset) -> Self {
        Self {
            detector: SeriesDetector::new(preset),
            newest: i64::MIN,
            of_newest: 0,
            quiet: u8::MAX,
            recent: Recent::default(),
            standing: None,
        }
    }
}

struct Slot {
    /// The device's name, then the metric's.
    name: Box<str>,
    device_bytes: u16,
    newer: u32,
    older: u32,
    watch: Watch,
}

impl Slot {
    fn names(&self) -> (&str, &str) {
        self.name.split_at(usize::from(self.device_bytes))
    }
}

/// The series; see the module.
pub struct Watched {
    places: HashTable<u32>,
    hasher: RandomState,
    slots: Vec<Slot>,
    newest: u32,
    oldest: u32,
    most: usize,
}

impl Watched {
    /// None yet, at most `most`.
    pub fn new(most: usize) -> Self {
        Self {
            places: HashTable::new(),
            hasher: RandomState::new(),
            slots: Vec::new(),
            newest: NONE,
            oldest: NONE,
            most: most.clamp(1, NONE as usize),
        }
    }

    /// Watches at most so many from here on; those beyond that were silent longest are forgotten.
    pub fn set_most(&mut self, most: usize) {
        if most.max(1) < self.slots.len() {
            let mut fewer = Self::new(most);
            let skipped = self.slots.len() - fewer.most;
            for ((device, metric), watch) in self.iter().skip(skipped) {
                let preset = watch.detector.preset();
                *fewer.entry(device, metric, preset).0 = watch.clone();
            }
            *self = fewer;
        }
        self.most = most.clamp(1, NONE as usize);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The series of these names, which is the newest from here on; and the names and the alert of
    /// the one that gave way to it, if one had to that had an alert.
    pub fn entry(&mut self, device: &str, metric: &str, preset: Preset) -> (&mut Watch, Gone) {
        let hash = self.hasher.hash_one((device, metric));
        let slots = &self.slots;
        let is_it = |at: &u32| slot(slots, *at).is_some_and(|it| it.names() == (device, metric));
        let found = self.places.find(hash, is_it).copied();
        let (at, gone) = match found {
            Some(at) => {
                self.unlink(at);
                (at, Gone::Nobody)
            }
            None => self.add((device, metric), hash, preset),
        };
        self.link(at);
        let slot = self.slots.get_mut(at as usize);
        let slot = slot.expect("a place of the table is that of a slot");
        (&mut slot.watch, gone)
    }

    fn add(&mut self, (device, metric): (&str, &str), hash: u64, preset: Preset) -> (u32, Gone) {
        let slot = Slot {
            name: [device, metric].concat().into(),
            device_bytes: device.len() as u16,
            newer: NONE,
            older: NONE,
            watch: Watch::new(preset),
        };
        let (at, gone) = match self.slots.len() < self.most {
            true => {
                if self.slots.len() == self.slots.capacity() {
                    self.slots
                        .reserve_exact(SLOTS_STEP.min(self.most - self.slots.len()));
                }
                self.slots.push(slot);
                (self.slots.len() as u32 - 1, Gone::Nobody)
            }
            false => {
                let at = self.oldest;
                self.unlink(at);
                (at, self.replace(at, slot))
            }
        };
        let Self {
            places,
            slots,
            hasher,
            ..
        } = self;
        places.insert_unique(hash, at, |at| {
            let names = self::slot(slots, *at).map(Slot::names);
            hasher.hash_one(names.unwrap_or_default())
        });
        (at, gone)
    }

    fn replace(&mut self, at: u32, slot: Slot) -> Gone {
        let Some(place) = self.slots.get_mut(at as usize) else {
            return Gone::Nobody;
        };
        let before = std::mem::replace(place, slot);
        let hash = self.hasher.hash_one(before.names());
        if let Ok(entry) = self.places.find_entry(hash, |known| *known == at) {
            entry.remove();
        }
        match before.watch.standing {
            Some(_) => {
                let (device, metric) = before.names();
                Gone::Alerted(device.into(), metric.into())
            }
            None => Gone::Quiet,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Some(Slot { newer, older, .. }) = self.slots.get(at as usize) else {
            return;
        };
        let (newer, older) = (*newer, *older);
        match self.slots.get_mut(newer as usize) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older as usize) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link(&mut self, at: u32) {
        let before = std::mem::replace(&mut self.newest, at);
        match self.slots.get_mut(before as usize) {
            Some(slot) => slot.newer = at,
            None => self.oldest = at,
        }
        if let Some(slot) = self.slots.get_mut(at as usize) {
            (slot.newer, slot.older) = (NONE, before);
        }
    }

    /// Every series with its names, the one that was silent longest first.
    pub fn iter(&self) -> impl Iterator<Item = ((&str, &str), &Watch)> {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            let slot = slot(&self.slots, at)?;
            at = slot.newer;
            Some((slot.names(), &slot.watch))
        })
    }

    /// Has every series judged by this preset from here on; one that was judged by another learns
    /// anew.
    pub fn judge_by(&mut self, preset: Preset) {
        for slot in &mut self.slots {
            if slot.watch.detector.preset() != preset {
                slot.watch.detector = SeriesDetector::new(preset);
            }
        }
    }

    /// Appends all of it, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.slots.len() as u32);
        for ((device, metric), watch) in self.iter() {
            write_text(device, out);
            write_text(metric, out);
            watch.detector.write(out);
            out.put_i64_le(watch.newest);
            out.put_u32_le(watch.of_newest);
            out.put_u8(watch.quiet);
            watch.recent.write(out);
            out.put_u8(u8::from(watch.standing.is_some()));
            if let Some(standing) = &watch.standing {
                out.put_slice(&standing.id.0);
                out.put_f64_le(standing.score);
                write_text(&standing.json, out);
            }
        }
    }

    /// Takes it off the front of `input`; `None` when the bytes are none. Of more than `most`
    /// series those that were silent longest are left out.
    pub fn read(most: usize, input: &mut &[u8]) -> Option<Self> {
        let mut watched = Self::new(most);
        for _ in 0..input.try_get_u32_le().ok()? {
            let (device, metric) = (read_text(input)?, read_text(input)?);
            let watch = read_watch(input)?;
            let preset = watch.detector.preset();
            *watched.entry(device, metric, preset).0 = watch;
        }
        Some(watched)
    }
}

fn slot(slots: &[Slot], at: u32) -> Option<&Slot> {
    slots.get(at as usize)
}

fn read_watch(input: &mut &[u8]) -> Option<Watch> {
    Some(Watch {
        detector: SeriesDetector::read(input)?,
        newest: input.try_get_i64_le().ok()?,
        of_newest: input.try_get_u32_le().ok()?,
        quiet: input.try_get_u8().ok()?,
        recent: Recent::read(input)?,
        standing: match input.try_get_u8().ok()? {
            0 => None,
            _ => {
                let (id, rest) = input.split_first_chunk()?;
                *input = rest;
                Some(Box::new(Standing {
                    id: AlertId(*id),
                    score: input.try_get_f64_le().ok()?,
                    json: read_text(input)?.into(),
                }))
            }
        },
    })
}

/// What gave way to a new series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gone {
    /// Nothing had to.
    Nobody,
    /// A series about which no alert stands.
    Quiet,
    /// The series of these names, about which one does.
    Alerted(Box<str>, Box<str>),
}
