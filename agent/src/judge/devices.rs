//! The devices of the series at hand, by name. One is forgotten with its last series.

use crate::detect::DeviceSlot;
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

struct Device {
    name: Box<str>,
    series: u32,
}

/// The devices; see the module.
#[derive(Default)]
pub struct Devices {
    places: HashTable<u32>,
    hasher: RandomState,
    devices: Vec<Device>,
    free: Vec<u32>,
}

impl Devices {
    /// The device of this name has one series more.
    pub fn enter(&mut self, name: &str) -> DeviceSlot {
        let hash = self.hasher.hash_one(name);
        let Self {
            places,
            hasher,
            devices,
            free,
        } = self;
        let is_it = |at: &u32| {
            devices
                .get(*at as usize)
                .is_some_and(|it| *it.name == *name)
        };
        if let Some(at) = places.find(hash, is_it).copied() {
            if let Some(device) = devices.get_mut(at as usize) {
                device.series += 1;
            }
            return DeviceSlot(at);
        }
        let device = Device {
            name: name.into(),
            series: 1,
        };
        let at = match free.pop() {
            Some(at) => {
                if let Some(place) = devices.get_mut(at as usize) {
                    *place = device;
                }
                at
            }
            None => {
                devices.push(device);
                devices.len() as u32 - 1
            }
        };
        places.insert_unique(hash, at, |at| {
            let device = devices.get(*at as usize);
            hasher.hash_one(device.map_or("", |device| &*device.name))
        });
        DeviceSlot(at)
    }

    /// A device has one series less; whether that was its last one.
    pub fn leave(&mut self, DeviceSlot(at): DeviceSlot) -> bool {
        let Some(device) = self.devices.get_mut(at as usize) else {
            return false;
        };
        device.series = device.series.saturating_sub(1);
        if device.series > 0 {
            return false;
        }
        let hash = self.hasher.hash_one(&*device.name);
        device.name = "".into();
        if let Ok(entry) = self.places.find_entry(hash, |known| *known == at) {
            entry.remove();
        }
        self.free.push(at);
        true
    }

    /// The slot of the device of this name.
    pub fn find(&self, name: &str) -> Option<DeviceSlot> {
        let hash = self.hasher.hash_one(name);
        let is_it = |at: &u32| {
            let device = self.devices.get(*at as usize);
            device.is_some_and(|it| *it.name == *name)
        };
        self.places.find(hash, is_it).copied().map(DeviceSlot)
    }

    /// The name of a device.
    pub fn name(&self, DeviceSlot(at): DeviceSlot) -> Option<&str> {
        let device = self.devices.get(at as usize)?;
        (device.series > 0).then_some(&*device.name)
    }
}
