//! What a whole lake has, whichever journals wrote it: for whoever begins a journal that is to know
//! it. Flush by flush, so that little of it is held at a time.

use super::{Found, LakeError, LakeStore, guarded, lane_of, torn_error};
use crate::lake::Table;
use crate::lake::markers::folder;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use tributary_protocol::ids::{AgentId, HashSum, LaneKey, LogId};
use tributary_protocol::ranges::{Held, HeldRanges, UNKNOWN};

/// What the lake has of one lane.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WholeLane {
    /// Which numbers, without sums.
    pub numbers: HeldRanges,
    /// The hash sum of all of them together; nothing where the lake has some twice.
    sum: HashSum,
    /// How many numbers more than one flush has.
    pub twice: u64,
}

impl WholeLane {
    fn add(&mut self, numbers: &HeldRanges, sum: HashSum) {
        for run in numbers.iter() {
            let new = self.numbers.insert_missing(run.first, run.end, UNKNOWN);
            let new: u64 = new.iter().map(|(first, end)| end - first).sum();
            self.twice += run.end - run.first - new;
        }
        self.sum = self.sum.and(sum);
    }

    /// The numbers in runs; the first has the sum of all, as far as it is known: apart, nobody
    /// knows whose it is.
    pub fn runs(&self) -> Vec<Held> {
        let mut sum = match self.twice {
            0 => self.sum,
            _ => HashSum::default(),
        };
        let runs = self.numbers.iter();
        let run = |run: &Held| Held {
            sum: std::mem::take(&mut sum),
            ..*run
        };
        runs.map(run).collect()
    }
}

/// What a whole lake has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Whole {
    /// By agent and lane.
    pub lanes: BTreeMap<(AgentId, LaneKey), WholeLane>,
    /// How many files it was read from.
    pub files: u64,
    /// The journals that wrote it.
    pub logs: BTreeSet<LogId>,
}

/// Where it is written down what a journal holds because the lake had it.
pub fn restored_path(log: LogId) -> String {
    format!("{}/restored.json", folder(log))
}

/// Runs of a lane that a journal holds because the lake had them.
#[derive(Serialize, Deserialize)]
pub struct RestoredLane {
    agent: String,
    buffer: String,
    lane: String,
    /// First, one past the last, and their hash sum.
    runs: Vec<(u64, u64, String)>,
}

fn run_text(run: &Held) -> (u64, u64, String) {
    (run.first, run.end, format!("{:032x}", run.sum.0))
}

impl RestoredLane {
    /// The lane, and what is held of it; nothing where it names what can't be.
    pub fn of(&self) -> Option<((AgentId, LaneKey), HeldRanges)> {
        let (tenant, agent) = self.agent.split_once('/')?;
        let lane = lane_of(tenant, agent, &self.buffer, &self.lane)?;
        let mut held = HeldRanges::new();
        for (first, end, sum) in &self.runs {
            let sum = HashSum(u128::from_str_radix(sum, 16).ok()?);
            let (first, end) = (*first, *end);
            held.insert_known(Held { first, end, sum });
        }
        Some((lane, held))
    }
}

/// A flush: its journal, and its entries.
type Flush = (LogId, u64, u64);

/// The flush that a file with this name is of.
fn flush_of(stem: &str) -> Option<(LogId, Range<u64>)> {
    let mut parts = stem.split('-');
    let log = parts.next()?.parse().ok()?;
    let (first, end) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (first < end && parts.next().is_none()).then_some((log, first..end))
}

impl LakeStore {
    /// The files below `folder` that end so, by their flush.
    async fn flushes(
        &self,
        folder: &str,
        ending: &str,
    ) -> Result<BTreeMap<Flush, Vec<String>>, LakeError> {
        let mut flushes: BTreeMap<Flush, Vec<String>> = BTreeMap::new();
        for path in self.list(folder).await? {
            let name = path.rsplit('/').next().unwrap_or_default();
            if let Some((log, entries)) = name.strip_suffix(ending).and_then(flush_of) {
                let flush = (log, entries.start, entries.end);
                flushes.entry(flush).or_default().push(path);
            }
        }
        Ok(flushes)
    }

    /// A journal other than this one that wrote into the lake, if one did.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn another_log(&self) -> Result<Option<LogId>, LakeError> {
        for table in Table::ALL {
            let flushes = self.flushes(table.name(), ".parquet").await?;
            let mut others = flushes.keys().map(|(log, ..)| *log);
            if let Some(other) = others.find(|log| *log != self.log()) {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }

    /// Writes down, for whoever audits this journal, what it holds because the lake has it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn note_restored(&mut self, whole: &Whole) -> Result<(), LakeError> {
        let lanes = whole.lanes.iter().map(|((agent, key), lane)| RestoredLane {
            agent: agent.to_string(),
            buffer: key.buffer.to_string(),
            lane: key.lane.name().to_owned(),
            runs: lane.runs().iter().map(run_text).collect(),
        });
        let lanes: Vec<_> = lanes.collect();
        let text = serde_json::to_vec(&lanes).expect("it has only strings and numbers");
        let path = restored_path(self.log());
        self.create(&path, text.into()).await?;
        self.make_folder_durable(&path)
    }

    /// What the lake has, of all journals: every file is read, those of flushes that are not done
    /// as well, since readers see them.
    ///
    /// # Errors
    /// When the store fails, a file cannot be relied on, or one that belongs to others is gone.
    pub async fn whole(&self) -> Result<Whole, LakeError> {
        let mut whole = Whole::default();
        for table in Table::ALL {
            for (flush, paths) in self.flushes(table.name(), ".parquet").await? {
                let mut found = found_of(flush);
                for path in &paths {
                    let bytes = self.read_file(path).await?;
                    guarded(path, || found.read_table(path, &bytes, table))?;
                }
                // Each lane has one table.
                if let Some(lane) = found.torn() {
                    return Err(torn_error(lane, &paths));
                }
                whole.add(flush, &found, paths.len());
            }
        }
        for (flush, paths) in self.flushes("rejected", ".json").await? {
            let mut found = found_of(flush);
            for path in &paths {
                let list = self.read_file(path).await?;
                let batches = self.read_beside(path).await?;
                guarded(path, || found.read_rejected(&list, &batches))?;
            }
            whole.add(flush, &found, paths.len());
        }
        Ok(whole)
    }
}

fn found_of((_, first, end): Flush) -> Found {
    Found {
        entries: first..end,
        ..Found::default()
    }
}

impl Whole {
    fn add(&mut self, (log, ..): Flush, found: &Found, files: usize) {
        self.logs.insert(log);
        self.files += files as u64;
        for (lane, numbers) in &found.lanes {
            let all = self.lanes.entry(lane.clone()).or_default();
            all.add(&numbers.numbers, numbers.sum);
        }
    }
}
