//! The series that are watched, by name: a bounded number, of which the one that was silent longest
//! gives way. A function of the order of calls alone, so that a replay builds the same.

use super::devices::Devices;
use super::kept::{read_text, write_text};
use super::recent::Recent;
use crate::detect::{DeviceSlot, Preset, SeriesDetector, SeriesSlot};
use bytes::{Buf, BufMut};
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// No slot.
const NONE: u32 = u32::MAX;
/// Slots that are taken from memory at once.
const SLOTS_STEP: usize = 4_096;

/// What is known of one series.
#[derive(Clone, PartialEq, Debug)]
pub struct Watch {
    /// What judges it.
    pub detector: SeriesDetector,
    /// The greatest time so far.
    pub newest: i64,
    /// Readings of that time before the newest one.
    pub of_newest: u32,
    /// Readings since the last one that alerted, saturating.
    pub quiet: u8,
    /// Whether its detector's alert stands.
    pub alerted: bool,
    /// The last readings.
    pub recent: Recent,
}

impl Watch {
    /// Nothing seen.
    pub fn new(preset: Preset) -> Self {
        Self {
            detector: SeriesDetector::new(preset),
            newest: i64::MIN,
            of_newest: 0,
            quiet: u8::MAX,
            alerted: false,
            recent: Recent::default(),
        }
    }
}

struct Slot {
    /// The device's name, then the metric's.
    name: Box<str>,
    device_bytes: u16,
    device: DeviceSlot,
    newer: u32,
    older: u32,
    watch: Watch,
}

impl Slot {
    fn names(&self) -> (&str, &str) {
        self.name.split_at(usize::from(self.device_bytes))
    }
}

/// Where a series stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct At {
    /// The series.
    pub series: SeriesSlot,
    /// Its device.
    pub device: DeviceSlot,
}

/// A series that gave way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gone {
    /// Where it stood.
    pub at: At,
    /// Its device's name.
    pub device: Box<str>,
    /// Its metric's.
    pub metric: Box<str>,
    /// Whether it was the last one of its device.
    pub device_gone: bool,
    /// Whether its detector's alert stood.
    pub alerted: bool,
}

/// The series; see the module.
pub struct Watched {
    places: HashTable<u32>,
    hasher: RandomState,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    devices: Devices,
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
            free: Vec::new(),
            devices: Devices::default(),
            newest: NONE,
            oldest: NONE,
            most: most.clamp(1, NONE as usize),
        }
    }

    /// Watches at most so many from here on; [take](Self::take_oldest) those beyond.
    pub fn set_most(&mut self, most: usize) {
        self.most = most.clamp(1, NONE as usize);
    }

    /// Whether there are more than there may be, or as many, if `one_more` is to come.
    pub fn is_crowded(&self, one_more: bool) -> bool {
        self.len() + usize::from(one_more) > self.most
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Where the series of these names stands; it is the newest from here on.
    pub fn touch(&mut self, device: &str, metric: &str) -> Option<At> {
        let at = self.find(device, metric)?;
        self.unlink(at);
        self.link(at);
        Some(At {
            series: SeriesSlot(at),
            device: self.slot(at)?.device,
        })
    }

    fn find(&self, device: &str, metric: &str) -> Option<u32> {
        let hash = self.hasher.hash_one((device, metric));
        let is_it = |at: &u32| {
            let slot = self.slot(*at);
            slot.is_some_and(|it| it.names() == (device, metric))
        };
        self.places.find(hash, is_it).copied()
    }

    fn slot(&self, at: u32) -> Option<&Slot> {
        self.slots.get(at as usize)?.as_ref()
    }

    fn slot_mut(&mut self, at: u32) -> Option<&mut Slot> {
        self.slots.get_mut(at as usize)?.as_mut()
    }

    /// What is known of a series.
    pub fn watch(&mut self, SeriesSlot(at): SeriesSlot) -> Option<&mut Watch> {
        self.slot_mut(at).map(|slot| &mut slot.watch)
    }

    /// A new series, which is the newest. There has to be [room](Self::is_crowded).
    pub fn add(&mut self, device: &str, metric: &str, watch: Watch) -> At {
        let device_slot = self.devices.enter(device);
        let slot = Slot {
            name: [device, metric].concat().into(),
            device_bytes: device.len() as u16,
            device: device_slot,
            newer: NONE,
            older: NONE,
            watch,
        };
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(place) = self.slots.get_mut(at as usize) {
                    *place = Some(slot);
                }
                at
            }
            None => {
                if self.slots.len() == self.slots.capacity() {
                    let more = self.most.saturating_sub(self.slots.len()).max(1);
                    self.slots.reserve_exact(SLOTS_STEP.min(more));
                }
                self.slots.push(Some(slot));
                self.slots.len() as u32 - 1
            }
        };
        let hash = self.hasher.hash_one((device, metric));
        let Self {
            places,
            slots,
            hasher,
            ..
        } = self;
        places.insert_unique(hash, at, |at| {
            let slot = slots.get(*at as usize).and_then(Option::as_ref);
            hasher.hash_one(slot.map(Slot::names).unwrap_or_default())
        });
        self.link(at);
        At {
            series: SeriesSlot(at),
            device: device_slot,
        }
    }

    /// Takes out the series that was silent longest.
    pub fn take_oldest(&mut self) -> Option<Gone> {
        let at = self.oldest;
        self.unlink(at);
        let slot = self.slots.get_mut(at as usize)?.take()?;
        let hash = self.hasher.hash_one(slot.names());
        if let Ok(entry) = self.places.find_entry(hash, |known| *known == at) {
            entry.remove();
        }
        self.free.push(at);
        let (device, metric) = slot.names();
        Some(Gone {
            at: At {
                series: SeriesSlot(at),
                device: slot.device,
            },
            device: device.into(),
            metric: metric.into(),
            device_gone: self.devices.leave(slot.device),
            alerted: slot.watch.alerted,
        })
    }

    fn unlink(&mut self, at: u32) {
        let Some(Slot { newer, older, .. }) = self.slot(at) else {
            return;
        };
        let (newer, older) = (*newer, *older);
        match self.slot_mut(newer) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slot_mut(older) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link(&mut self, at: u32) {
        let before = std::mem::replace(&mut self.newest, at);
        match self.slot_mut(before) {
            Some(slot) => slot.newer = at,
            None => self.oldest = at,
        }
        if let Some(slot) = self.slot_mut(at) {
            (slot.newer, slot.older) = (NONE, before);
        }
    }

    /// Every series with its names, the one that was silent longest first.
    pub fn iter(&self) -> impl Iterator<Item = ((&str, &str), &Watch)> {
        let mut at = self.oldest;
        std::iter::from_fn(move || {
            let slot = self.slot(at)?;
            at = slot.newer;
            Some((slot.names(), &slot.watch))
        })
    }

    /// Device and metric of a series.
    pub fn names(&self, SeriesSlot(at): SeriesSlot) -> Option<(&str, &str)> {
        self.slot(at).map(Slot::names)
    }

    /// The name of a device.
    pub fn device_name(&self, device: DeviceSlot) -> Option<&str> {
        self.devices.name(device)
    }

    /// Where a device of this name stands.
    pub fn device(&self, name: &str) -> Option<DeviceSlot> {
        self.devices.find(name)
    }

    /// Where a series of these names stands.
    pub fn series(&self, device: &str, metric: &str) -> Option<(SeriesSlot, DeviceSlot)> {
        let at = self.find(device, metric)?;
        Some((SeriesSlot(at), self.slot(at)?.device))
    }

    /// Has every series judged by this preset from here on; one that was judged by another learns
    /// anew.
    pub fn judge_by(&mut self, preset: Preset) {
        for slot in self.slots.iter_mut().flatten() {
            if slot.watch.detector.preset() != preset {
                slot.watch.detector = SeriesDetector::new(preset);
            }
        }
    }

    /// Appends all of it, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.len() as u32);
        for ((device, metric), watch) in self.iter() {
            write_text(device, out);
            write_text(metric, out);
            watch.detector.write(out);
            out.put_i64_le(watch.newest);
            out.put_u32_le(watch.of_newest);
            out.put_slice(&[watch.quiet, u8::from(watch.alerted)]);
            watch.recent.write(out);
        }
    }

    /// Takes it off the front of `input`; `None` when the bytes are none.
    pub fn read(most: usize, input: &mut &[u8]) -> Option<Self> {
        let mut watched = Self::new(most);
        for _ in 0..input.try_get_u32_le().ok()? {
            let (device, metric) = (read_text(input)?, read_text(input)?);
            let watch = read_watch(input)?;
            if watched.is_crowded(true) || watched.find(device, metric).is_some() {
                return None;
            }
            watched.add(device, metric, watch);
        }
        Some(watched)
    }
}

fn read_watch(input: &mut &[u8]) -> Option<Watch> {
    Some(Watch {
        detector: SeriesDetector::read(input)?,
        newest: input.try_get_i64_le().ok()?,
        of_newest: input.try_get_u32_le().ok()?,
        quiet: input.try_get_u8().ok()?,
        alerted: input.try_get_u8().ok()? != 0,
        recent: Recent::read(input)?,
    })
}
