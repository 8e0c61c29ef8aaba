//! What is looked up and may be rebuilt: the newest value of every series, in sled. Committed with
//! each checkpoint; the messages after it bring the rest back. Nothing depends on it but what
//! people see.

use crate::limits::LATEST_SERIES_MAX;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::warn;
use tributary_journal::{Batch, Meter, StateDb};
use tributary_protocol::reading::{Flags, Meta, Value};
use tributary_protocol::series::SeriesDef;

/// Bytes of a text value that are kept for people to see.
const TEXT_SHOWN_BYTES: usize = 512;
/// Bytes that sled writes for a commit, about.
const SLED_COMMIT_BYTES: u64 = 4_300;
/// Keys of newest values begin so.
const PREFIX: &[u8] = b"latest/";

/// The newest value of a series.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Latest {
    /// What published it.
    pub device: Box<str>,
    /// What was measured.
    pub metric: Box<str>,
    /// In which unit, if that is known.
    pub unit: Option<Box<str>>,
    /// When it was measured: microseconds since 1970, UTC.
    pub event_time: i64,
    /// When it was received: microseconds since 1970, UTC.
    pub received_time: i64,
    /// The value, as text.
    pub value: String,
}

/// A view of the newest values, shared with who shows them.
#[derive(Clone, Debug, Default)]
pub struct LatestView(Arc<Mutex<HashMap<[u8; 16], Latest>>>);

impl LatestView {
    /// At most `most` of them, by device and metric.
    pub fn list(&self, most: usize) -> Vec<Latest> {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Latest> = latest.values().cloned().collect();
        drop(latest);
        all.sort_by(|a, b| (&a.device, &a.metric).cmp(&(&b.device, &b.metric)));
        all.truncate(most);
        all
    }

    /// How many series have a value.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no series has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The catalogue; see the module.
#[derive(Debug)]
pub struct Catalogue {
    /// Absent when it could not be opened: then nothing is kept over a restart.
    db: Option<StateDb>,
    latest: LatestView,
    changed: HashSet<[u8; 16]>,
    meter: Meter,
}

impl Catalogue {
    /// The catalogue in `dir`. One that can't be opened is set aside, or done without.
    pub fn open(dir: &Path) -> Self {
        let opened = StateDb::open(dir).inspect_err(|error| {
            warn!(%error, "going on without a catalogue: newest values begin afresh");
        });
        let db = opened.ok().map(|opened| {
            if let Some(aside) = opened.set_aside {
                warn!(path = %aside.display(), "the catalogue was damaged, and begins afresh");
            }
            opened.db
        });
        let latest = LatestView::default();
        if let Some(db) = &db {
            load(db, &latest);
        }
        Self {
            db,
            latest,
            changed: HashSet::new(),
            meter: Meter::default(),
        }
    }

    /// A catalogue that forgets everything with the process.
    pub fn unkept() -> Self {
        Self {
            db: None,
            latest: LatestView::default(),
            changed: HashSet::new(),
            meter: Meter::default(),
        }
    }

    /// With a meter for what sled writes: it does not pass the disk that is counted.
    pub fn metered(self, meter: Meter) -> Self {
        Self { meter, ..self }
    }

    /// A view of the newest values.
    pub fn view(&self) -> LatestView {
        self.latest.clone()
    }

    /// A reading became part of a sealed batch.
    pub fn note(&mut self, series: &SeriesDef, meta: &Meta, value: Value<'_>) {
        let key = key_of(series);
        let mut latest = self.latest.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = latest.get(&key);
        if meta.flags.has(Flags::CLOCK_SUSPECT) {
            // A clock that is ahead would be the newest for ever.
            return;
        }
        let full = known.is_none() && latest.len() >= LATEST_SERIES_MAX;
        if full || known.is_some_and(|known| known.event_time > meta.event_time) {
            return;
        }
        let newest = Latest {
            device: (&*series.device).into(),
            metric: (&*series.metric).into(),
            unit: series.unit.as_deref().map(Into::into),
            event_time: meta.event_time,
            received_time: meta.received_time,
            value: shown(value),
        };
        latest.insert(key, newest);
        self.changed.insert(key);
    }

    /// Keeps what changed since the last time.
    pub fn commit(&mut self) {
        let Some(db) = &mut self.db else {
            self.changed.clear();
            return;
        };
        let latest = self.latest.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::new();
        // Measured: about 13 kB reach the device, the commit's own share included.
        self.meter.count(SLED_COMMIT_BYTES, 1);
        for key in self.changed.drain() {
            let value = latest
                .get(&key)
                .and_then(|newest| serde_json::to_vec(newest).ok());
            let put = value.map(|value| batch.put(&[PREFIX, &key].concat(), &value));
            if let Some(Err(error)) = put {
                warn!(%error, "a newest value is not kept");
            }
        }
        drop(latest);
        let committed = db.apply(&mut batch).and_then(|()| db.commit());
        if let Err(error) = committed {
            warn!(%error, "the catalogue is not kept any more");
            self.db = None;
        }
    }
}

fn load(db: &StateDb, latest: &LatestView) {
    let rows = db.scan_prefix(PREFIX).unwrap_or_else(|error| {
        warn!(%error, "the catalogue can't be read");
        Vec::new()
    });
    let mut map = latest.0.lock().unwrap_or_else(PoisonError::into_inner);
    for (key, value) in rows.into_iter().take(LATEST_SERIES_MAX) {
        let id = key.strip_prefix(PREFIX).and_then(|id| id.try_into().ok());
        if let (Some(id), Ok(newest)) = (id, serde_json::from_slice(&value)) {
            map.insert(id, newest);
        }
    }
}

fn key_of(series: &SeriesDef) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in [
        &*series.device,
        &*series.metric,
        series.unit.as_deref().unwrap_or(""),
    ] {
        hasher.update(part.as_bytes());
        // Names hold no control character, so a 0 separates them.
        hasher.update(&[0]);
    }
    hasher.update(&[series.value_type.code()]);
    let mut key = [0; 16];
    hasher.finalize_xof().fill(&mut key);
    key
}

fn shown(value: Value<'_>) -> String {
    match value {
        Value::F64(x) => x.to_string(),
        Value::F32(x) => x.to_string(),
        Value::I64(x) => x.to_string(),
        Value::Bool(x) => x.to_string(),
        Value::Str(text) => {
            let mut end = text.len().min(TEXT_SHOWN_BYTES);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.get(..end).unwrap_or_default().to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_protocol::reading::ValueType;

    #[test]
    fn the_newest_by_event_time_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let series = SeriesDef::new("pump", "rpm", None, ValueType::I64).unwrap();
        let at = |event_time| Meta {
            event_time,
            ..Meta::default()
        };
        let mut catalogue = Catalogue::open(dir.path());
        catalogue.note(&series, &at(20), Value::I64(2));
        catalogue.note(&series, &at(10), Value::I64(1));
        catalogue.commit();
        drop(catalogue);
        let latest = Catalogue::open(dir.path()).view().list(9);
        let values: Vec<_> = latest.iter().map(|newest| newest.value.as_str()).collect();
        assert_eq!(values, ["2"]);
    }
}
