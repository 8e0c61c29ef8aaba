//! The faults of a run, out of its truth ledger: what was injected, where, from when to when.

use super::{Event, TruthError, TruthReader};
use crate::fault::FaultKind;
use crate::reading::Reading;
use crate::replay::time::Rfc3339;
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

/// A fault as it was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Injected {
    /// The device.
    pub device: String,
    /// What it measures.
    pub metric: String,
    /// What was wrong with it.
    pub kind: FaultKind,
    /// Event time of the first reading with it: microseconds since 1970, UTC.
    pub first_us: i64,
    /// Event time of the last one.
    pub last_us: i64,
    /// How many readings it is in.
    pub readings: u64,
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (Rfc3339(self.first_us), Rfc3339(self.last_us));
        let (device, metric, kind) = (&self.device, &self.metric, self.kind);
        let readings = self.readings;
        write!(f, "{device}\t{metric}\t{kind}\t{first}\t{last}\t{readings}")
    }
}

/// Faults on their way out of a ledger.
#[derive(Default)]
struct Collected {
    names: Vec<(String, String)>,
    /// The newest reading of each series: number and event time.
    newest: HashMap<u32, (u64, i64)>,
    /// Of each series the number of the last faulty reading, and the place of its fault.
    open: HashMap<u32, (u64, usize)>,
    found: Vec<Injected>,
}

impl Collected {
    fn learn(&mut self, event: Event) -> Result<(), &'static str> {
        match event {
            Event::Series { device, metric, .. } => self.names.push((device, metric)),
            Event::Published(Reading {
                series,
                seq,
                time_us,
                ..
            }) => {
                self.newest.insert(series, (seq, time_us));
            }
            Event::Faulty { series, seq, kind } => self.faulty(series, seq, kind)?,
            Event::Acknowledged { .. } | Event::Refused { .. } | Event::End { .. } => {}
        }
        Ok(())
    }

    fn faulty(&mut self, series: u32, seq: u64, kind: FaultKind) -> Result<(), &'static str> {
        let time_us = match self.newest.get(&series) {
            Some((newest, time_us)) if *newest == seq => *time_us,
            _ => return Err("a fault in a reading that was not published"),
        };
        let (device, metric) = self
            .names
            .get(series as usize)
            .cloned()
            .ok_or("a reading of an unnamed series")?;
        if let Some((last, place)) = self.open.get_mut(&series)
            && last.checked_add(1) == Some(seq)
            && let Some(fault) = self.found.get_mut(*place)
            && fault.kind == kind
        {
            fault.last_us = time_us;
            fault.readings += 1;
            *last = seq;
            return Ok(());
        }
        self.open.insert(series, (seq, self.found.len()));
        self.found.push(Injected {
            device,
            metric,
            kind,
            first_us: time_us,
            last_us: time_us,
            readings: 1,
        });
        Ok(())
    }
}

/// The faults of a run, in the order in which they began to be published.
///
/// # Errors
/// When the ledger cannot be read.
pub fn faults(truth: &Path) -> Result<Vec<Injected>, TruthError> {
    let mut collected = Collected::default();
    // A ledger without an end holds what it holds.
    TruthReader::open(truth)?.read(|event| collected.learn(event))?;
    Ok(collected.found)
}
