//! The series of this life, by name: who may define how many, and which are still to be sealed.
//!
//! Room for names is bounded, and no device and no client may take it from all others. Whoever
//! defines a series may have as much, with it, as is left for everybody else after it: one alone
//! half of the room, two a third each, and one that comes behind any number of them finds some.
//! (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998,
//! with a factor of 1.) Up to half of the room nobody is held to anything.

use super::TakeError;
use crate::decode::Reading;
use crate::limits::{DICTIONARY_BYTES_MAX, SERIES_BATCH_BYTES, SERIES_BYTES_LEAST};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use tributary_protocol::ids::SeriesId;
use tributary_protocol::limits::{SERIES_MAX, SERIES_PER_BATCH_MAX};
use tributary_protocol::series::SeriesDef;

// The room for names bounds their number.
const _: () = assert!(DICTIONARY_BYTES_MAX / SERIES_BYTES_LEAST <= SERIES_MAX);

/// One device or client has its share of series.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{whose} has {held_bytes} bytes of names of series since the agent started and may have no \
     more while {free_bytes} of {DICTIONARY_BYTES_MAX} are left for all others: is something that \
     changes, a time or a number, part of a device's or metric's name?"
)]
pub struct OverShare {
    whose: Box<str>,
    held_bytes: usize,
    free_bytes: usize,
}

/// Bytes of names, by who brought them.
#[derive(Debug, Default)]
struct Shares {
    hasher: RandomState,
    clients: HashMap<u64, u32>,
    /// By a hash of the name; nothing is counted before it matters.
    devices: Option<HashMap<u64, u32>>,
}

impl Shares {
    fn device(&self, name: &str) -> u64 {
        self.hasher.hash_one(name)
    }

    /// Whether one more series of these may come; `free` bytes are left with it.
    fn check(&self, device: &str, client: Option<u64>, free: usize) -> Result<(), OverShare> {
        let of = |known: &HashMap<u64, u32>, key| known.get(&key).copied().unwrap_or(0) as usize;
        let by_device = self.devices.as_ref().map(|devices| {
            let held = of(devices, self.device(device));
            (held, format!("device `{}`", device.escape_debug()))
        });
        let by_client = client.map(|client| {
            let held = of(&self.clients, client);
            (held, "the client that publishes this".to_owned())
        });
        let over = by_device.into_iter().chain(by_client);
        let mut over = over.filter(|(held_bytes, _)| *held_bytes > free);
        over.next().map_or(Ok(()), |(held_bytes, whose)| {
            Err(OverShare {
                whose: whose.into(),
                held_bytes,
                free_bytes: free,
            })
        })
    }

    fn count(&mut self, device: &str, client: Option<u64>, bytes: usize) {
        let key = self.device(device);
        if let Some(devices) = &mut self.devices {
            *devices.entry(key).or_default() += bytes as u32;
        }
        if let Some(client) = client {
            *self.clients.entry(client).or_default() += bytes as u32;
        }
    }
}

/// The series of this life; see the module.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    places: HashMap<Box<[u8]>, SeriesId>,
    /// By number; the first `sealed` of them are in sealed batches.
    all: Vec<SeriesDef>,
    sealed: usize,
    bytes: usize,
    shares: Shares,
    scratch: Vec<u8>,
}

impl Dictionary {
    pub(super) fn len(&self) -> u32 {
        self.all.len() as u32
    }

    /// Every series, by number.
    pub(super) fn all(&self) -> &[SeriesDef] {
        &self.all
    }

    /// How many of them are in sealed batches.
    pub(super) fn sealed(&self) -> u32 {
        self.sealed as u32
    }

    /// So many more are.
    pub(super) fn seal(&mut self, count: usize) {
        self.sealed += count;
    }

    /// The series of a reading. Type and unit belong to its name: when they change, it is another.
    /// A new one counts for its device, and for the client that brings it.
    pub(super) fn series(
        &mut self,
        reading: &Reading<'_>,
        client: Option<u64>,
    ) -> Result<SeriesId, TakeError> {
        let Reading {
            device,
            metric,
            unit,
            value,
            ..
        } = reading;
        self.scratch.clear();
        for part in [device, metric, unit] {
            self.scratch.extend_from_slice(part.as_bytes());
            // Names hold no control character, so a 0 separates them.
            self.scratch.push(0);
        }
        self.scratch.push(value.value_type().code());
        if let Some(known) = self.places.get(self.scratch.as_slice()) {
            return Ok(*known);
        }
        let cost = self.scratch.len().max(SERIES_BYTES_LEAST);
        self.admit(device, client, cost)?;
        let unit = (!unit.is_empty()).then_some(*unit);
        let definition = SeriesDef::new(device, metric, unit, value.value_type())?;
        let id = SeriesId(self.len());
        self.places.insert(self.scratch.as_slice().into(), id);
        self.all.push(definition);
        self.bytes += cost;
        self.shares.count(device, client, cost);
        Ok(id)
    }

    /// Whether a new series of so many bytes may come.
    fn admit(&mut self, device: &str, client: Option<u64>, cost: usize) -> Result<(), TakeError> {
        let taken = self.bytes + cost;
        let Some(free) = DICTIONARY_BYTES_MAX.checked_sub(taken) else {
            return Err(TakeError::TooManySeries);
        };
        if taken <= free {
            return Ok(());
        }
        if self.shares.devices.is_none() {
            self.shares.devices = Some(HashMap::new());
            for series in &self.all {
                self.shares.count(&series.device, None, cost_of(series));
            }
        }
        Ok(self.shares.check(device, client, free)?)
    }

    /// The next definitions to be sealed together: a bounded number, of bounded bytes.
    pub(super) fn fresh(&self) -> &[SeriesDef] {
        let fresh = self.all.get(self.sealed..).unwrap_or_default();
        let mut bytes = 0;
        let fits = fresh
            .iter()
            .take(SERIES_PER_BATCH_MAX)
            .take_while(|series| {
                let unit = series.unit.as_deref().map_or(0, str::len);
                bytes += series.device.len() + series.metric.len() + unit;
                bytes <= SERIES_BATCH_BYTES
            });
        fresh.get(..fits.count()).unwrap_or_default()
    }
}

/// What a series counts: its names, what separates them, and its type.
fn cost_of(series: &SeriesDef) -> usize {
    let unit = series.unit.as_deref().map_or(0, str::len);
    (series.device.len() + series.metric.len() + unit + 4).max(SERIES_BYTES_LEAST)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use tributary_protocol::reading::{Meta, Value};

    /// Defines series until there are `bytes` of them, or it may not; how many bytes it got.
    fn define(
        known: &mut Dictionary,
        device: &str,
        client: Option<u64>,
        bytes: usize,
    ) -> (usize, Option<TakeError>) {
        let before = known.bytes;
        for n in 0.. {
            if known.bytes - before >= bytes {
                break;
            }
            let reading = Reading {
                device,
                metric: &format!("{n:0>200}"),
                unit: "",
                meta: Meta::default(),
                value: Value::Bool(true),
            };
            if let Err(error) = known.series(&reading, client) {
                return (known.bytes - before, Some(error));
            }
        }
        (known.bytes - before, None)
    }

    fn is_about(bytes: usize, share: usize) -> bool {
        let expected = DICTIONARY_BYTES_MAX / share;
        bytes.abs_diff(expected) < 4_096
    }

    #[test]
    fn a_device_gets_half_the_next_a_quarter_and_others_all_they_need() {
        let mut known = Dictionary::default();
        for (device, share) in [("a", 2), ("b", 4), ("c", 8)] {
            // A broker's: many devices come by one client, and only they are held to a share.
            let (got, why) = define(&mut known, device, None, usize::MAX);
            assert!(is_about(got, share), "{device}: {got}");
            let why = why.unwrap();
            assert_eq!(why.word(), "series_share");
            let said = why.to_string();
            assert!(
                said.starts_with(&format!("device `{device}` has ")),
                "{said}"
            );
        }
        for device in 0..50 {
            let (got, why) = define(&mut known, &format!("small-{device}"), None, 20_000);
            assert!(got >= 20_000 && why.is_none(), "{device}: {why:?}");
        }
        // What is known goes on.
        assert_eq!(define(&mut known, "a", None, 0).1.map(|_| ()), None);
        let all = known.all.iter().map(cost_of);
        assert_eq!(all.sum::<usize>(), known.bytes);
    }

    #[test]
    fn a_client_that_invents_devices_has_one_share() {
        let mut known = Dictionary::default();
        let (mut got, mut refused) = (0, 0);
        for device in 0..2_000 {
            let (bytes, why) = define(&mut known, &format!("d{device}"), Some(1), 10_000);
            got += bytes;
            refused += usize::from(why.is_some());
        }
        assert!(is_about(got, 2), "{got}");
        assert!(refused > 1_000);
        let (got, why) = define(&mut known, "new", Some(2), 1_000_000);
        assert!(got >= 1_000_000 && why.is_none(), "{why:?}");
    }

    #[test]
    fn the_room_ends() {
        let mut known = Dictionary::default();
        let mut last = None;
        for device in 0..20_000 {
            last = define(&mut known, &format!("d{device}"), Some(device), 1_000).1;
        }
        assert_eq!(last.unwrap().word(), "series");
        assert!(known.bytes <= DICTIONARY_BYTES_MAX);
    }
}
