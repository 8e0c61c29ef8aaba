//! The series that are watched, by name: a bounded number. For a new one another gives way: as a
//! rule the one that was silent longest, but a device that has its share gives way to itself, and
//! what windows of others say goes before what devices do. A function of the order of calls alone,
//! so that a replay builds the same.

use super::kept::{read_text, write_text};
use super::names::Names;
use super::recent::Recent;
use crate::detect::{DeviceSlot, Pace, Preset, SeriesDetector, SeriesSlot};
use crate::limits::WATCHED_SHARE;
use bytes::{Buf, BufMut};
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

/// No slot.
const NONE: u32 = u32::MAX;
/// Slots that are taken from memory at once.
const SLOTS_STEP: usize = 4_096;
/// Bytes of a series, beside the names and the place that it is found by.
const SLOT_BYTES_MAX: usize = 888;
const _: () = assert!(size_of::<Option<Slot>>() <= SLOT_BYTES_MAX);

/// What is known of one series.
#[derive(Clone, PartialEq, Debug)]
pub struct Watch {
    /// What judges it.
    pub detector: SeriesDetector,
    /// How fast it reports. Whether it is derived says in which list it stands:
    /// [`Watched::own`] alone changes that.
    pub pace: Pace,
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
            pace: Pace::default(),
            newest: i64::MIN,
            of_newest: 0,
            quiet: u8::MAX,
            alerted: false,
            recent: Recent::default(),
        }
    }

    /// Judges by this preset from here on; what was judged by another learns anew.
    pub fn judge_by(&mut self, preset: Preset) {
        if self.detector.preset() != preset {
            self.detector = SeriesDetector::new(preset);
        }
    }

    /// Has it learn from nothing, by other values than those before. An alert that stands is over
    /// as it would be otherwise.
    pub fn begin_anew(&mut self) {
        self.detector = SeriesDetector::new(self.detector.preset());
        self.recent = Recent::default();
    }

    /// Appends its bytes, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.detector.write(out);
        self.pace.write(out);
        out.put_i64_le(self.newest);
        out.put_u32_le(self.of_newest);
        out.put_slice(&[self.quiet, u8::from(self.alerted)]);
        self.recent.write(out);
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            detector: SeriesDetector::read(input)?,
            pace: Pace::read(input)?,
            newest: input.try_get_i64_le().ok()?,
            of_newest: input.try_get_u32_le().ok()?,
            quiet: input.try_get_u8().ok()?,
            alerted: input.try_get_u8().ok()? != 0,
            recent: Recent::read(input)?,
        })
    }
}

/// Where a series stands in a list that begins with the one that spoke last.
#[derive(Clone, Copy)]
struct Link {
    newer: u32,
    older: u32,
}

const UNLINKED: Link = Link {
    newer: NONE,
    older: NONE,
};

/// Both ends of such a list.
#[derive(Clone, Copy)]
struct Ends {
    newest: u32,
    oldest: u32,
}

const EMPTY: Ends = Ends {
    newest: NONE,
    oldest: NONE,
};

/// Of the series that windows of others say, and of those that devices do.
#[derive(Clone, Copy)]
struct Kinds {
    derived: Ends,
    own: Ends,
}

const NO_KINDS: Kinds = Kinds {
    derived: EMPTY,
    own: EMPTY,
};

impl Kinds {
    /// The one that gives way first.
    fn first(&self) -> u32 {
        match self.derived.oldest {
            NONE => self.own.oldest,
            oldest => oldest,
        }
    }

    fn of(&mut self, is_derived: bool) -> &mut Ends {
        match is_derived {
            true => &mut self.derived,
            false => &mut self.own,
        }
    }
}

struct Slot {
    watch: Watch,
    device: u32,
    metric: u32,
    /// Among all series, and among those of its device.
    of_all: Link,
    of_device: Link,
}

/// Which list.
#[derive(Clone, Copy)]
enum List {
    All,
    Device(u32),
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
#[derive(Clone, PartialEq, Debug)]
pub struct Gone {
    /// Where it stood.
    pub at: At,
    /// Its device's name.
    pub device: Box<str>,
    /// Its metric's.
    pub metric: Box<str>,
    /// Whether it was the last one of its device.
    pub device_gone: bool,
    /// Whether it gave way to one of its own device, which has its share.
    pub to_its_own: bool,
    /// What was known of it.
    pub watch: Watch,
}

/// The series; see the module.
pub struct Watched {
    places: HashTable<u32>,
    hasher: RandomState,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    devices: Names,
    metrics: Names,
    all: Kinds,
    /// By device.
    of_devices: Vec<Kinds>,
    /// The device that has more than half of what there may be.
    greedy: Option<u32>,
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
            devices: Names::default(),
            metrics: Names::default(),
            all: NO_KINDS,
            of_devices: Vec::new(),
            greedy: None,
            most: most.clamp(1, NONE as usize),
        }
    }

    /// Watches at most so many from here on. Those beyond, which were silent longest, are taken
    /// out, one with each call until there is none.
    pub fn shrink(&mut self, most: usize) -> Option<Gone> {
        self.most = most.clamp(1, NONE as usize);
        if self.len() > self.most {
            return self.take(self.all.first());
        }
        self.greedy = self.devices.iter().find(|device| self.is_greedy(*device));
        None
    }

    /// Takes out a series where one of this device is to come, and there is no room for it.
    ///
    /// A device that has its share gives way to itself: a sixteenth, or as much as each has when
    /// all have the same. What one has beyond half of all gives way first; otherwise it is the one
    /// that was silent longest. Of either, one that windows of others say is taken if there is one.
    pub fn make_room(&mut self, device: &str) -> Option<Gone> {
        if !self.is_full() {
            return None;
        }
        let own = self.with_share(device);
        let of_device = own
            .or(self.greedy)
            .and_then(|it| self.of_devices.get(it as usize));
        let mut gone = self.take(of_device.unwrap_or(&self.all).first())?;
        gone.to_its_own = own.is_some();
        Some(gone)
    }

    /// Whether this device has its share: then its new series have to take the places of its own.
    pub fn has_share(&self, device: &str) -> bool {
        self.with_share(device).is_some()
    }

    fn with_share(&self, device: &str) -> Option<u32> {
        let each = self.most / self.devices.len().max(1);
        let share = each.max(self.most / WATCHED_SHARE).max(1);
        let own = self.devices.find(device)?;
        (self.devices.series(own) >= share).then_some(own)
    }

    fn is_greedy(&self, device: u32) -> bool {
        self.devices.series(device) > self.most / 2
    }

    /// Whether another one has to give way to a new one.
    pub fn is_full(&self) -> bool {
        self.len() >= self.most
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Where the series of these names stands; it is the newest from here on.
    pub fn touch(&mut self, device: &str, metric: &str) -> Option<At> {
        let at = self.find(device, metric)?;
        let device = self.slot(at)?.device;
        for list in [List::All, List::Device(device)] {
            self.unlink(list, at);
            self.link(list, at);
        }
        Some(At {
            series: SeriesSlot(at),
            device: DeviceSlot(device),
        })
    }

    fn find(&self, device: &str, metric: &str) -> Option<u32> {
        let hash = self.hasher.hash_one((device, metric));
        let is_it = |at: &u32| self.names_at(*at) == Some((device, metric));
        self.places.find(hash, is_it).copied()
    }

    fn names_at(&self, at: u32) -> Option<(&str, &str)> {
        names_of(self.slot(at)?, (&self.devices, &self.metrics))
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

    /// A new series, which is the newest. There has to be [room](Self::make_room).
    pub fn add(&mut self, device: &str, metric: &str, watch: Watch) -> At {
        let device_at = self.devices.enter(device);
        let slot = Slot {
            watch,
            device: device_at,
            metric: self.metrics.enter(metric),
            of_all: UNLINKED,
            of_device: UNLINKED,
        };
        let at = self.put(slot);
        let hash = self.hasher.hash_one((device, metric));
        let Self {
            places,
            slots,
            hasher,
            devices,
            metrics,
            ..
        } = self;
        places.insert_unique(hash, at, |at| {
            let slot = slots.get(*at as usize).and_then(Option::as_ref);
            let names = slot.and_then(|slot| names_of(slot, (devices, metrics)));
            hasher.hash_one(names.unwrap_or_default())
        });
        let places = device_at as usize + 1;
        if self.of_devices.len() < places {
            self.of_devices.resize(places, NO_KINDS);
        }
        self.link(List::All, at);
        self.link(List::Device(device_at), at);
        if self.is_greedy(device_at) {
            self.greedy = Some(device_at);
        }
        At {
            series: SeriesSlot(at),
            device: DeviceSlot(device_at),
        }
    }

    fn put(&mut self, slot: Slot) -> u32 {
        if let Some(at) = self.free.pop() {
            if let Some(place) = self.slots.get_mut(at as usize) {
                *place = Some(slot);
            }
            return at;
        }
        if self.slots.len() == self.slots.capacity() {
            let more = self.most.saturating_sub(self.slots.len()).max(1);
            self.slots.reserve_exact(SLOTS_STEP.min(more));
        }
        self.slots.push(Some(slot));
        self.slots.len() as u32 - 1
    }

    fn take(&mut self, at: u32) -> Option<Gone> {
        let (device, metric) = self.names_at(at)?;
        let hash = self.hasher.hash_one((device, metric));
        let (device, metric) = (device.into(), metric.into());
        let device_at = self.slot(at)?.device;
        self.unlink(List::All, at);
        self.unlink(List::Device(device_at), at);
        let slot = self.slots.get_mut(at as usize)?.take()?;
        if let Ok(entry) = self.places.find_entry(hash, |known| *known == at) {
            entry.remove();
        }
        self.free.push(at);
        self.metrics.leave(slot.metric);
        let device_gone = self.devices.leave(device_at);
        if self.greedy == Some(device_at) && !self.is_greedy(device_at) {
            self.greedy = None;
        }
        Some(Gone {
            at: At {
                series: SeriesSlot(at),
                device: DeviceSlot(device_at),
            },
            device,
            metric,
            device_gone,
            to_its_own: false,
            watch: slot.watch,
        })
    }

    fn link_mut(&mut self, list: List, at: u32) -> Option<&mut Link> {
        let slot = self.slot_mut(at)?;
        Some(match list {
            List::All => &mut slot.of_all,
            List::Device(_) => &mut slot.of_device,
        })
    }

    /// Both ends of the list in which a series of a slot is.
    fn ends_mut(&mut self, list: List, at: u32) -> Option<&mut Ends> {
        let is_derived = self.slot(at)?.watch.pace.is_derived();
        let kinds = match list {
            List::All => Some(&mut self.all),
            List::Device(device) => self.of_devices.get_mut(device as usize),
        };
        kinds.map(|kinds| kinds.of(is_derived))
    }

    /// What windows of others said is said by its device from here on.
    pub fn own(&mut self, SeriesSlot(at): SeriesSlot) {
        let Some(device) = self.slot(at).map(|slot| slot.device) else {
            return;
        };
        let lists = [List::All, List::Device(device)];
        lists.into_iter().for_each(|list| self.unlink(list, at));
        if let Some(slot) = self.slot_mut(at) {
            slot.watch.pace = Pace::default();
        }
        lists.into_iter().for_each(|list| self.link(list, at));
    }

    fn unlink(&mut self, list: List, at: u32) {
        let Some(Link { newer, older }) = self.link_mut(list, at).copied() else {
            return;
        };
        match self.link_mut(list, newer) {
            Some(link) => link.older = older,
            None => {
                if let Some(ends) = self.ends_mut(list, at) {
                    ends.newest = older;
                }
            }
        }
        match self.link_mut(list, older) {
            Some(link) => link.newer = newer,
            None => {
                if let Some(ends) = self.ends_mut(list, at) {
                    ends.oldest = newer;
                }
            }
        }
    }

    fn link(&mut self, list: List, at: u32) {
        let Some(ends) = self.ends_mut(list, at) else {
            return;
        };
        let before = std::mem::replace(&mut ends.newest, at);
        if before == NONE {
            ends.oldest = at;
        }
        if let Some(link) = self.link_mut(list, before) {
            link.newer = at;
        }
        if let Some(link) = self.link_mut(list, at) {
            *link = Link {
                newer: NONE,
                older: before,
            };
        }
    }

    /// Every series with its names, the one that gives way first, first.
    pub fn iter(&self) -> impl Iterator<Item = ((&str, &str), &Watch)> {
        let Kinds { derived, own } = self.all;
        let derived = self.beginning_with(derived.oldest);
        derived.chain(self.beginning_with(own.oldest))
    }

    fn beginning_with(&self, oldest: u32) -> impl Iterator<Item = ((&str, &str), &Watch)> {
        let mut at = oldest;
        std::iter::from_fn(move || {
            let slot = self.slot(at)?;
            at = slot.of_all.newer;
            let names = names_of(slot, (&self.devices, &self.metrics))?;
            Some((names, &slot.watch))
        })
    }

    /// How many places there are, taken or not.
    pub fn places_len(&self) -> usize {
        self.slots.len()
    }

    /// The series at these places.
    pub fn places(&self, at: Range<usize>) -> impl Iterator<Item = ((&str, &str), &Watch)> {
        let to = at.end.min(self.slots.len());
        let slots = self.slots.get(at.start..to).unwrap_or_default();
        slots.iter().flatten().filter_map(|slot| {
            let names = names_of(slot, (&self.devices, &self.metrics))?;
            Some((names, &slot.watch))
        })
    }

    /// What is known of a series, to be looked at.
    pub fn look(&self, SeriesSlot(at): SeriesSlot) -> Option<&Watch> {
        self.slot(at).map(|slot| &slot.watch)
    }

    /// Device and metric of a series.
    pub fn names(&self, SeriesSlot(at): SeriesSlot) -> Option<(&str, &str)> {
        self.names_at(at)
    }

    /// The name of a device.
    pub fn device_name(&self, DeviceSlot(at): DeviceSlot) -> Option<&str> {
        self.devices.text(at)
    }

    /// Where a device of this name stands.
    pub fn device(&self, name: &str) -> Option<DeviceSlot> {
        self.devices.find(name).map(DeviceSlot)
    }

    /// Where a series of these names stands.
    pub fn series(&self, device: &str, metric: &str) -> Option<(SeriesSlot, DeviceSlot)> {
        let at = self.find(device, metric)?;
        Some((SeriesSlot(at), DeviceSlot(self.slot(at)?.device)))
    }

    /// Has every series judged by this preset from here on; one that was judged by another learns
    /// anew.
    pub fn judge_by(&mut self, preset: Preset) {
        for slot in self.slots.iter_mut().flatten() {
            slot.watch.judge_by(preset);
        }
    }

    /// Appends all of it, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.len() as u32);
        for ((device, metric), watch) in self.iter() {
            write_text(device, out);
            write_text(metric, out);
            watch.write(out);
        }
    }

    /// Takes it off the front of `input`; `None` when the bytes are none.
    pub fn read(most: usize, input: &mut &[u8]) -> Option<Self> {
        let mut watched = Self::new(most);
        for _ in 0..input.try_get_u32_le().ok()? {
            let (device, metric) = (read_text(input)?, read_text(input)?);
            let watch = Watch::read(input)?;
            if watched.len() >= watched.most || watched.find(device, metric).is_some() {
                return None;
            }
            watched.add(device, metric, watch);
        }
        Some(watched)
    }
}

fn names_of<'a>(slot: &Slot, names: (&'a Names, &'a Names)) -> Option<(&'a str, &'a str)> {
    Some((names.0.text(slot.device)?, names.1.text(slot.metric)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
