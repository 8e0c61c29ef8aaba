//! Alerts that were raised and not cleared, by series: what a topic shows when one of several is
//! over.

use super::kept::{read_text, write_text};
use crate::alert::AlertId;
use crate::limits::{STANDING_BYTES_MAX, STANDING_MAX};
use bytes::{Buf, BufMut};
use std::collections::BTreeMap;

/// Device and metric.
type Key = (Box<str>, Box<str>);

/// An alert that stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Standing {
    /// What raised it.
    pub detector: Box<str>,
    /// Which.
    pub id: AlertId,
    /// The incident that it is part of.
    pub incident: AlertId,
    /// Its score.
    pub score: f64,
    /// Its JSON, as it was raised.
    pub json: Box<str>,
}

/// All of them, at most [`STANDING_MAX`]: of one more it is not remembered that it was raised, and
/// so it is never said to be over.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Standings {
    by_series: BTreeMap<Key, Vec<Standing>>,
    count: usize,
    /// Bytes of their JSON, about.
    bytes: usize,
}

impl Standings {
    /// Keeps one, which is the only one of its detector there.
    pub fn raise(&mut self, device: &str, metric: &str, standing: Standing) {
        if self.count < STANDING_MAX && self.bytes < STANDING_BYTES_MAX {
            self.bytes += standing.json.len();
            let of_series = self.by_series.entry((device.into(), metric.into()));
            of_series.or_default().push(standing);
            self.count += 1;
        }
    }

    /// Takes out the one of a detector.
    pub fn clear(&mut self, device: &str, metric: &str, detector: &str) -> Option<Standing> {
        let key = (device.into(), metric.into());
        let of_series = self.by_series.get_mut(&key)?;
        let at = of_series
            .iter()
            .position(|standing| *standing.detector == *detector)?;
        let standing = of_series.remove(at);
        if of_series.is_empty() {
            self.by_series.remove(&key);
        }
        self.count -= 1;
        self.bytes = self.bytes.saturating_sub(standing.json.len());
        Some(standing)
    }

    /// Notes that somebody has seen one: where it stands, and whether it is the present state
    /// there, if it stands and nobody had seen it.
    pub fn acknowledge(&mut self, id: AlertId) -> Option<(&str, &str, &Standing, bool)> {
        const RAISED: &str = "\"state\":\"raised\"";
        for ((device, metric), all) in &mut self.by_series {
            let last = all.len().saturating_sub(1);
            let found = all
                .iter_mut()
                .enumerate()
                .find(|(_, standing)| standing.id == id);
            let Some((at, standing)) = found else {
                continue;
            };
            // Our own JSON: nothing that somebody else named stands before its state.
            let seen = standing
                .json
                .replacen(RAISED, "\"state\":\"acknowledged\"", 1);
            if *seen == *standing.json {
                return None;
            }
            standing.json = seen.into();
            return Some((device, metric, standing, at == last));
        }
        None
    }

    /// The one of a series that was raised last.
    pub fn present(&self, device: &str, metric: &str) -> Option<&Standing> {
        self.by_series
            .get(&(device.into(), metric.into()))
            .and_then(|of_series| of_series.last())
    }

    /// For each series with alerts the one that was raised last.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Standing)> {
        let of_series = self.by_series.iter();
        of_series.filter_map(|((device, metric), all)| Some((&**device, &**metric, all.last()?)))
    }

    /// Appends all of them, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.count as u32);
        for ((device, metric), all) in &self.by_series {
            for standing in all {
                write_text(device, out);
                write_text(metric, out);
                standing.write(out);
            }
        }
    }

    /// Takes them off the front of `input`; `None` when the bytes are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let mut standings = Self::default();
        for _ in 0..input.try_get_u32_le().ok()? {
            let (device, metric) = (read_text(input)?, read_text(input)?);
            let standing = Standing::read(input)?;
            standings.raise(device, metric, standing);
        }
        Some(standings)
    }
}
