//! What a recorded run stored besides readings, and what of it must be in a lake after a cut: the
//! rows of every batch that was sealed by then, under the same name and with the same content, and
//! every alert that somebody had heard by then.

use super::bits::frames;
use super::disk::Disk;
use super::log::{Log, Op, SyncId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use tributary_sim::verify::{self, Identity};

/// Tables whose rows have a content of their own to be compared.
const TOLD: [&str; 2] = ["alerts", "aggregates"];

/// How an aggregate says that its series gave way.
const CROWDED: &str = "\"closed\":\"crowded\"";

/// An alert: its id, and whether it was raised, acknowledged or cleared.
pub type Alert = (String, String);

/// Rows of a lake, by whose they are; how many stand there more than once.
#[derive(Default, Debug)]
pub struct Rows {
    told: BTreeMap<Identity, String>,
    readings: BTreeSet<Identity>,
    /// Rows whose name another one has, or that say what another one says, in words.
    pub twice: Vec<String>,
}

impl Rows {
    /// All of a lake.
    ///
    /// # Errors
    /// What can't be read, in words.
    pub fn read(lake: &Path) -> Result<Self, String> {
        let mut rows = Self::default();
        for table in TOLD {
            let mut texts = BTreeSet::new();
            verify::identities(lake, table, &mut |identity, json| {
                let json = json.unwrap_or_default();
                // A series that gave way within a window, and came back, may close it twice alike.
                let is_new = json.contains(CROWDED) || texts.insert(json.to_owned());
                let words = format!("{identity:?}: {json}");
                let other = rows.told.insert(identity, json.to_owned());
                let is_twice = !is_new || other.is_some();
                rows.twice.extend(is_twice.then_some(words));
            })?;
        }
        verify::identities(lake, "readings", &mut |identity, _| {
            let words = format!("{identity:?}");
            let is_twice = !rows.readings.insert(identity);
            rows.twice.extend(is_twice.then_some(words));
        })?;
        Ok(rows)
    }

    fn all(&self) -> impl Iterator<Item = &Identity> {
        self.told.keys().chain(&self.readings)
    }

    /// How many rows these batches of a lane have.
    pub fn rows_of(&self, buffer: &str, lane: &str, batches: &std::ops::Range<i64>) -> u64 {
        let is_it = |one: &&Identity| {
            one.buffer == buffer && one.lane == lane && batches.contains(&one.batch)
        };
        self.all().filter(is_it).count() as u64
    }

    /// How many the `count` greatest batches have.
    pub fn rows_of_greatest(&self, count: u64) -> u64 {
        let mut batches: BTreeMap<(&str, &str, i64), u64> = BTreeMap::new();
        for row in self.all() {
            *batches
                .entry((&row.buffer, &row.lane, row.batch))
                .or_default() += 1;
        }
        let mut sizes: Vec<u64> = batches.into_values().collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.iter().take(count as usize).sum()
    }
}

/// What was stored when.
#[derive(Debug)]
pub struct Stored {
    /// What the run's own lake has.
    pub rows: Rows,
    /// After so many operations, which lane of which life was sealed up to which number.
    sealed: Vec<(usize, String, String, i64)>,
    /// After so many operations, an alert had been heard.
    heard: Vec<(usize, Alert)>,
}

impl Stored {
    /// Of a recording with this lake, in which these alerts were heard.
    ///
    /// # Panics
    /// When the recording can't be replayed, or its lake not be read.
    pub fn of(
        log: &Log,
        mut disk: Disk,
        agent: &str,
        lake: &Path,
        heard: Vec<(usize, Alert)>,
    ) -> Self {
        let spool = format!("{agent}/spool/");
        let mut segments: HashMap<String, u64> = HashMap::new();
        let mut syncing: HashMap<SyncId, u64> = HashMap::new();
        let mut sealed = Vec::new();
        let mut ends: HashMap<(String, String), i64> = HashMap::new();
        for (place, (_, op)) in log.ops().enumerate() {
            disk.apply(&op).unwrap();
            match op {
                Op::Create { path, inode } if path.starts_with(&spool) => {
                    segments.insert(path.to_owned(), inode);
                }
                Op::Rename { from, to } if from.starts_with(&spool) => {
                    if let Some(inode) = segments.remove(from) {
                        segments.insert(to.to_owned(), inode);
                    }
                }
                Op::Remove { path } => {
                    segments.remove(path);
                }
                Op::SyncBegin { inode, id, .. } => {
                    syncing.insert(id, inode);
                }
                Op::SyncEnd { id } => {
                    let inode = syncing.remove(&id);
                    let segment = segments.iter().find(|(_, one)| Some(**one) == inode);
                    let Some((path, inode)) = segment else {
                        continue;
                    };
                    let Some((lane, life)) = lane_and_life(&path[spool.len()..]) else {
                        continue;
                    };
                    let image = disk.durable(*inode).expect("a file that was synced");
                    let Some(last) = frames(image).pop() else {
                        continue;
                    };
                    let end = (last.first + last.count) as i64;
                    let known = ends.entry((life.clone(), lane.clone())).or_insert(0);
                    if end > *known {
                        *known = end;
                        sealed.push((place + 1, life, lane, end));
                    }
                }
                _ => {}
            }
        }
        Self {
            rows: Rows::read(lake).unwrap(),
            sealed,
            heard,
        }
    }

    /// How many lanes of lives something was sealed in.
    pub fn lanes(&self) -> BTreeSet<&str> {
        self.sealed.iter().map(|(_, _, lane, _)| &**lane).collect()
    }

    /// How many alerts were heard.
    pub fn heard_count(&self) -> usize {
        self.heard.len()
    }

    /// What of it had to be in a lake, after a cut at `at`, and is not there, or is more than once.
    ///
    /// # Errors
    /// What can't be read, in words.
    pub fn look(&self, at: usize, lake: &Path) -> Result<Missing, String> {
        let found = Rows::read(lake)?;
        let mut ends: HashMap<(&str, &str), i64> = HashMap::new();
        for (_, life, lane, end) in self.sealed.iter().take_while(|(place, ..)| *place <= at) {
            ends.insert((life, lane), *end);
        }
        let was_sealed = |one: &Identity| {
            let end = ends.get(&(&*one.buffer, &*one.lane));
            end.is_some_and(|end| one.batch < *end)
        };
        let told = self.rows.told.iter();
        let told = told.filter(|(one, json)| found.told.get(*one) != Some(*json));
        let readings = self.rows.readings.iter();
        let readings = readings.filter(|one| !found.readings.contains(one));
        let rows = told.map(|(one, _)| one).chain(readings);
        let alerts: BTreeSet<Alert> = verify::alerts(lake)?.into_iter().collect();
        let heard = self.heard.iter().take_while(|(place, _)| *place <= at);
        let heard = heard.filter(|(_, alert)| !alerts.contains(alert));
        Ok(Missing {
            rows: rows.filter(|one| was_sealed(one)).cloned().collect(),
            alerts: heard.map(|(_, alert)| alert.clone()).collect(),
            twice: found.twice,
        })
    }
}

/// What is not in a lake as it must be.
#[derive(Clone, Default, Debug)]
pub struct Missing {
    /// Rows of batches that were sealed: not there, or with another content.
    pub rows: Vec<Identity>,
    /// Alerts that were heard.
    pub alerts: Vec<Alert>,
    /// Rows that are there twice, by name or, of alerts and aggregates, by content.
    pub twice: Vec<String>,
}

impl Missing {
    /// How many alerts and aggregates are missing.
    pub fn told(&self) -> u64 {
        let told = self.rows.iter().filter(|row| row.lane != "telemetry");
        (told.count() + self.alerts.len()) as u64
    }

    /// The batches that those rows were in.
    pub fn batches(&self) -> BTreeSet<(&str, &str, i64)> {
        let rows = self.rows.iter();
        rows.map(|row| (&*row.buffer, &*row.lane, row.batch))
            .collect()
    }
}

/// `telemetry/<life>-<first>.seg`.
fn lane_and_life(path: &str) -> Option<(String, String)> {
    let (lane, name) = path.split_once('/')?;
    let (life, first) = name.split_once('-')?;
    first.strip_suffix(".seg")?;
    Some((lane.to_owned(), life.to_owned()))
}
