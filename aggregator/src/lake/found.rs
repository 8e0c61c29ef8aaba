//! What the lake has of journal entries that cannot be read any more: the numbers, from the files
//! of the flushes in which those entries were. It judges nothing; the keeper asks, before anybody
//! else does, so that what stands in the lake is not taken as new.
//!
//! A file that is not what it was written as is an error: a number read wrongly would be held, and
//! its agent would forget a batch that nobody has. So is a batch of which a file is missing.

mod whole;

pub use whole::{RestoredLane, Whole, WholeLane, restored_path};

use super::columns::digest;
use super::commit::LakeStore;
use super::file::{Footer, LaneSum, footer};
use super::{LakeError, Table};
use crate::limits::AUDIT_FILE_ROWS_MAX;
use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Int32Type, Int64Type};
use arrow_array::{PrimitiveArray, RecordBatch, StringArray};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::{AgentId, BatchHash, HashSum, LaneKey, LogId};
use tributary_protocol::ranges::{HeldRanges, UNKNOWN};

/// Numbers of one lane that one flush has, and the hash sum over all of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FoundLane {
    /// Which, without sums.
    pub numbers: HeldRanges,
    /// Of all of them together.
    pub sum: HashSum,
}

/// What the files of one flush have.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// The journal entries of the flush.
    pub entries: Range<u64>,
    /// By agent and lane.
    pub lanes: BTreeMap<(AgentId, LaneKey), FoundLane>,
    /// What tells whether batches of readings are there with all their rows.
    rows: BTreeMap<(AgentId, LaneKey), LaneRows>,
}

/// Rows of the readings of one lane.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct LaneRows {
    /// So many are there.
    found: u64,
    /// So many belong to the batches whose first row is there, as the footers say.
    told: u64,
    /// Batches of which any row is there.
    any: HeldRanges,
    /// Batches whose first row is there.
    begun: HeldRanges,
}

impl Found {
    fn take(&mut self, lane: (AgentId, LaneKey), first: u64, end: u64) {
        let lane = self.lanes.entry(lane).or_default();
        lane.numbers.insert_missing(first, end, UNKNOWN);
    }

    fn add(&mut self, lane: (AgentId, LaneKey), sum: HashSum) {
        let lane = self.lanes.entry(lane).or_default();
        lane.sum = lane.sum.and(sum);
    }

    /// Takes in a table's file.
    fn read_table(&mut self, path: &str, bytes: &Bytes, table: Table) -> Result<(), String> {
        let footer = footer(path, bytes).map_err(|error| error.to_string())?;
        let Some(whole) = rows_of(bytes, &footer)? else {
            return Ok(());
        };
        self.read_rows(&whole, table)?;
        if table != Table::Gaps {
            self.count_rows(&whole)?;
        }
        for sum in &footer.lanes {
            let lane = lane_of_sum(sum).ok_or("its footer names a lane that can't be")?;
            if table != Table::Gaps {
                let rows = self.rows.entry(lane.clone()).or_default();
                rows.told = rows.told.saturating_add(sum.rows);
            }
            let of_lane = u128::from_str_radix(&sum.hash_sum, 16);
            self.add(lane, HashSum(of_lane.map_err(|error| error.to_string())?));
        }
        Ok(())
    }

    fn count_rows(&mut self, rows: &RecordBatch) -> Result<(), String> {
        let [tenant, agent, buffer, lane] = names_of(rows)?;
        let (batch, row) = (
            whole::<Int64Type>(rows, "batch")?,
            whole::<Int32Type>(rows, "row")?,
        );
        let mut at = 0;
        while at < rows.num_rows() {
            let of = |i: usize| [tenant, agent, buffer, lane].map(|column| column.value(i));
            let same = |i: &usize| of(*i) == of(at);
            let end = (at..rows.num_rows()).take_while(same).count() + at;
            let [tenant, agent, buffer, lane] = of(at);
            let lane = lane_of(tenant, agent, buffer, lane);
            let lane = lane.ok_or("a row names a lane that can't be")?;
            let counted = self.rows.entry(lane).or_default();
            counted.found += (end - at) as u64;
            for i in at..end {
                let number = batch.value(i).cast_unsigned();
                let after = number.saturating_add(1);
                counted.any.insert_missing(number, after, UNKNOWN);
                if row.value(i) == 0 {
                    counted.begun.insert_missing(number, after, UNKNOWN);
                }
            }
            at = end;
        }
        Ok(())
    }

    /// A lane of which batches are there with some of their rows: each begins, and all together
    /// have as many as those that begin.
    fn torn(&self) -> Option<LaneKey> {
        let torn =
            |rows: &LaneRows| rows.any.count() != rows.begun.count() || rows.found != rows.told;
        let lane = self.rows.iter().find(|(_, rows)| torn(rows));
        lane.map(|((_, key), _)| *key)
    }

    fn read_rows(&mut self, rows: &RecordBatch, table: Table) -> Result<(), String> {
        let names = names_of(rows)?;
        let batch = whole::<Int64Type>(rows, "batch")?;
        let parts = match table {
            Table::Gaps => Some((
                whole::<Int64Type>(rows, "first")?,
                whole::<Int64Type>(rows, "count")?,
            )),
            _ => None,
        };
        let mut last = None;
        for row in 0..rows.num_rows() {
            let [tenant, agent, buffer, lane] = names.map(|column| column.value(row));
            if agent.is_empty() {
                // The lake itself could not read these entries: nothing of them is in it.
                continue;
            }
            let number = batch.value(row);
            let part = parts.map(|(first, count)| (first.value(row), count.value(row)));
            let here = (agent, buffer, lane, number, part);
            if last == Some(here) {
                continue;
            }
            last = Some(here);
            let of = lane_of(tenant, agent, buffer, lane);
            let of = of.ok_or("a row names a lane that can't be")?;
            let (first, end) = match part {
                Some((first, count)) if first >= number => (first, first.saturating_add(count)),
                // A gap that tells of what is before its own number takes that alone.
                _ => (number, number.saturating_add(1)),
            };
            self.take(of, first.cast_unsigned(), end.cast_unsigned());
        }
        Ok(())
    }

    /// Takes in what was set apart, as the list beside it says.
    fn read_rejected(&mut self, list: &[u8], batches: &Bytes) -> Result<(), String> {
        let list: Vec<Rejected> =
            serde_json::from_slice(list).map_err(|error| error.to_string())?;
        for rejected in list {
            let end = rejected.offset.saturating_add(rejected.bytes);
            if end > batches.len() || !self.entries.contains(&rejected.entry) {
                return Err(format!("entry {} does not lie beside it", rejected.entry));
            }
            let sealed = batches.slice(rejected.offset..end);
            let hash = BatchHash::of(&sealed);
            let batch = SealedBatch::open(sealed).map_err(|error| error.to_string())?;
            if hash.to_string() != rejected.hash || batch.key().to_string() != rejected.batch {
                return Err(format!("entry {} is not what it was", rejected.entry));
            }
            let key = batch.key();
            let agent = rejected.agent.split_once('/');
            let agent = agent.and_then(|(tenant, uuid)| agent_of(tenant, uuid));
            let lane = (agent.ok_or("it names no agent")?, key.lane_key());
            self.take(lane.clone(), key.number, key.number.saturating_add(1));
            self.add(lane, HashSum::default().with(hash));
        }
        Ok(())
    }
}

/// All rows of a file, as one, if they are those that it was written with; nothing where there
/// are none.
fn rows_of(bytes: &Bytes, footer: &Footer) -> Result<Option<RecordBatch>, String> {
    let rows = usize::try_from(footer.rows).unwrap_or(usize::MAX);
    if rows > AUDIT_FILE_ROWS_MAX {
        return Err(format!("{rows} rows: no flush writes so many"));
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone())
        .and_then(|builder| builder.with_batch_size(rows.max(1)).build());
    let mut reader = reader.map_err(|error| error.to_string())?;
    let batch = reader.next().transpose();
    let batch = batch.map_err(|error| error.to_string())?;
    match &batch {
        Some(batch) if digest(batch) != footer.digest => {
            Err("its rows are not those that it was written with".to_owned())
        }
        _ => Ok(batch),
    }
}

/// A batch in `rejected/`, as its list names it.
#[derive(Deserialize)]
struct Rejected {
    entry: u64,
    agent: String,
    batch: String,
    hash: String,
    offset: usize,
    bytes: usize,
}

fn agent_of(tenant: &str, uuid: &str) -> Option<AgentId> {
    AgentId::new(tenant, uuid.parse().ok()?).ok()
}

fn lane_of(tenant: &str, agent: &str, buffer: &str, lane: &str) -> Option<(AgentId, LaneKey)> {
    let (buffer, lane) = (buffer.parse().ok()?, lane.parse().ok()?);
    Some((agent_of(tenant, agent)?, LaneKey { buffer, lane }))
}

fn lane_of_sum(sum: &LaneSum) -> Option<(AgentId, LaneKey)> {
    let (tenant, agent) = sum.agent.split_once('/')?;
    lane_of(tenant, agent, &sum.buffer, &sum.lane)
}

fn text<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a StringArray, String> {
    let column = rows.column_by_name(name);
    let column = column.and_then(|column| column.as_string_opt::<i32>());
    column.ok_or_else(|| format!("it has no column `{name}`"))
}

fn names_of(rows: &RecordBatch) -> Result<[&StringArray; 4], String> {
    Ok([
        text(rows, "tenant")?,
        text(rows, "agent")?,
        text(rows, "buffer")?,
        text(rows, "lane")?,
    ])
}

fn whole<'a, T: ArrowPrimitiveType>(
    rows: &'a RecordBatch,
    name: &str,
) -> Result<&'a PrimitiveArray<T>, String> {
    let column = rows.column_by_name(name);
    let column = column.and_then(|column| column.as_primitive_opt::<T>());
    column.ok_or_else(|| format!("it has no column `{name}`"))
}

/// The entries of the flush that a file with this name is of.
fn entries_of(log: LogId, stem: &str) -> Option<Range<u64>> {
    let (first, end) = stem.strip_prefix(&format!("{log}-"))?.split_once('-')?;
    let (first, end) = (first.parse().ok()?, end.parse().ok()?);
    (first < end).then_some(first..end)
}

/// Parquet's reader relies on what it reads, and may panic on damaged bytes. Where that ends the
/// process, the file has been named before.
fn guarded(path: &str, read: impl FnOnce() -> Result<(), String>) -> Result<(), LakeError> {
    tracing::info!(path, "looking in the lake for what the journal lost");
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    let read = read.unwrap_or_else(|_| Err("the Parquet reader gave up on it".to_owned()));
    read.map_err(|reason| LakeError::Unknown {
        path: path.to_owned(),
        reason,
    })
}

impl LakeStore {
    /// What the lake has of all flushes that any of these entries were in, as far as they are done.
    ///
    /// # Errors
    /// When the store fails, such a file cannot be relied on, or one that belongs to them is gone.
    pub async fn find(&self, entries: &[Range<u64>]) -> Result<Vec<Found>, LakeError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let position = self.progress().await?.0.position;
        let wanted = |flush: &Range<u64>| {
            let meets = |range: &Range<u64>| range.start < flush.end && flush.start < range.end;
            flush.end <= position && entries.iter().any(meets)
        };
        let mut found: BTreeMap<u64, Found> = BTreeMap::new();
        for table in Table::ALL {
            let mut files: BTreeMap<u64, Vec<String>> = BTreeMap::new();
            for (path, flush) in self.named(table.name(), ".parquet").await? {
                if wanted(&flush) {
                    let bytes = self.read_file(&path).await?;
                    files.entry(flush.start).or_default().push(path.clone());
                    let here = of_flush(&mut found, flush);
                    guarded(&path, || here.read_table(&path, &bytes, table))?;
                }
            }
            // Each lane has one table, so those that were read before are whole.
            for (flush, files) in files {
                let torn = found.get(&flush).and_then(Found::torn);
                if let Some(lane) = torn {
                    return Err(torn_error(lane, &files));
                }
            }
        }
        for (path, flush) in self.named("rejected", ".json").await? {
            if wanted(&flush) {
                let list = self.read_file(&path).await?;
                let batches = self.read_beside(&path).await?;
                let here = of_flush(&mut found, flush);
                guarded(&path, || here.read_rejected(&list, &batches))?;
            }
        }
        Ok(found.into_values().collect())
    }

    /// The batches that the list at `path` is of.
    async fn read_beside(&self, path: &str) -> Result<Bytes, LakeError> {
        let batches = path.replace(".json", ".batches");
        match self.read_file(&batches).await {
            Err(LakeError::Store {
                source: object_store::Error::NotFound { .. },
                ..
            }) => Err(LakeError::Unknown {
                path: path.to_owned(),
                reason: format!("`{batches}`, which lies beside it, is missing"),
            }),
            read => read,
        }
    }

    /// The files of this journal below `folder` that end so, and whose entries they are of.
    pub(super) async fn named(
        &self,
        folder: &str,
        ending: &str,
    ) -> Result<Vec<(String, Range<u64>)>, LakeError> {
        let listed = self.list(folder).await?;
        let named = listed.into_iter().filter_map(|path| {
            let name = path.rsplit('/').next()?.strip_suffix(ending)?;
            let entries = entries_of(self.log(), name)?;
            Some((path, entries))
        });
        Ok(named.collect())
    }
}

/// Batches are there with some of their rows. Held, the others would be gone; taken again, these
/// would be there twice.
fn torn_error(lane: LaneKey, files: &[String]) -> LakeError {
    let there = files.join("`, `");
    LakeError::Torn {
        lane: lane.lane.name(),
        name: files
            .first()
            .and_then(|path| path.rsplit('/').next())
            .unwrap_or_default()
            .to_owned(),
        there,
    }
}

fn of_flush(found: &mut BTreeMap<u64, Found>, entries: Range<u64>) -> &mut Found {
    let here = found.entry(entries.start).or_default();
    here.entries = entries;
    here
}
