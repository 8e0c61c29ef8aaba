//! What one flush holds: the decoded batches of the journal entries `[first, end)`, and the order
//! in which their rows lie in the files. Pure: no file, no clock, and the same entries give the
//! same plan.

use super::Table;
use super::partition::{Hour, Placement};
use crate::limits::{
    FLUSH_BYTES, FLUSH_ENTRIES_MAX, FLUSH_LANES_MAX, FLUSH_PARTITIONS_MAX, FLUSH_REFUSED_MAX,
    FLUSH_ROWS,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use tributary_protocol::ids::{AgentId, BatchHash, BatchKey, BufferId, HashSum, LaneKey, SeriesId};
use tributary_protocol::reading::{Readings, Row, ValueType};
use tributary_protocol::series::SeriesDef;

/// What a series is called.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SeriesName {
    /// What publishes.
    pub device: Arc<str>,
    /// What it measures.
    pub metric: Arc<str>,
    /// In which unit; empty when nobody said.
    pub unit: Arc<str>,
    /// What kind of value.
    pub value_type: ValueType,
}

/// Who knows what the series of a buffer are called.
pub trait Names: Send + Sync {
    /// The series, if its definition is known.
    fn name(&self, agent: &AgentId, buffer: BufferId, series: SeriesId) -> Option<SeriesName>;
}

/// Names that stand in the batch itself.
struct Inline<'a>(&'a [SeriesDef]);

impl Names for Inline<'_> {
    fn name(&self, _: &AgentId, _: BufferId, series: SeriesId) -> Option<SeriesName> {
        let def = self.0.get(series.0 as usize)?;
        Some(SeriesName {
            device: Arc::clone(&def.device),
            metric: Arc::clone(&def.metric),
            unit: def.unit.clone().unwrap_or_else(|| "".into()),
            value_type: def.value_type,
        })
    }
}

/// Who sent a batch, and which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The journal entry.
    pub entry: u64,
    /// The agent.
    pub agent: AgentId,
    /// The batch.
    pub key: BatchKey,
    /// Its hash.
    pub hash: BatchHash,
    /// Whether another batch may hold its rows as well.
    pub in_doubt: bool,
    /// Its sealed bytes: what is kept when they cannot be written as rows.
    pub sealed: Bytes,
}

/// A declared loss, as a row of the table `gaps`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GapRow {
    /// First number that is missing.
    pub first: u64,
    /// How many numbers are missing.
    pub count: u64,
    /// Readings lost, if anybody knows.
    pub readings: Option<u64>,
    /// Earliest event time lost, microseconds since 1970.
    pub event_first: i64,
    /// Latest event time lost.
    pub event_last: i64,
    /// Why.
    pub reason: String,
    /// What is known beside.
    pub detail: String,
    /// Numbers of the lane that it holds in the ledger: no column, but counted among the batches.
    pub taken: u64,
}

/// A row of the table `gaps`, and the batch that declared it; none when the journal is damaged.
pub type Gap = (Option<Origin>, GapRow);

/// What one journal entry brings to the lake.
#[derive(Clone, PartialEq, Debug)]
pub enum Content {
    /// Rows.
    Readings(Readings),
    /// Rows whose series are named in the batch itself, by number.
    Named(Readings, Arc<[SeriesDef]>),
    /// A declared loss: a row for each run of numbers, all of one time.
    Gap(Vec<GapRow>),
    /// Definitions of series: no rows, but counted among the batches.
    Definitions,
    /// It cannot be written as rows: kept as it is, with the reason.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Count and hash sum of some batches of one lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum {
    /// How many batches.
    pub batches: u64,
    /// Their readings.
    pub rows: u64,
    /// Their hash sum.
    pub hash_sum: HashSum,
}

impl Sum {
    fn add(&mut self, hash: BatchHash, rows: u64) {
        self.batches += 1;
        self.rows += rows;
        self.hash_sum = self.hash_sum.with(hash);
    }

    fn add_gap(&mut self, hash: BatchHash, numbers: u64) {
        self.batches += numbers;
        self.hash_sum = self.hash_sum.with_each(hash, numbers);
    }
}

/// Sums by lane.
pub type Sums = BTreeMap<(AgentId, LaneKey), Sum>;

/// The sums of batches that declare losses.
pub fn sums_of_gaps(gaps: &[&Gap]) -> Sums {
    let mut sums = Sums::new();
    for (origin, row) in gaps {
        let Some(origin) = origin else { continue };
        let key = (origin.agent.clone(), origin.key.lane_key());
        sums.entry(key).or_default().add_gap(origin.hash, row.taken);
    }
    sums
}

/// A batch of readings in a flush.
#[derive(Debug)]
pub struct Loaded {
    /// Who sent it.
    pub origin: Origin,
    /// Its rows.
    pub readings: Readings,
}

/// Where one row stands, in the files' order: table, hour, series, event time, then arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Slot {
    table: Table,
    hour: Hour,
    /// Place among the flush's names; its rank once planned.
    series: u32,
    event_time: i64,
    batch: u32,
    row: u32,
}

/// What became of an offered entry.
#[derive(Debug, PartialEq)]
#[must_use = "what is not taken opens the next flush"]
pub enum Offer {
    /// It is part of this flush.
    Taken,
    /// The flush ends before it.
    Full(Box<(Origin, Content)>),
}

/// Where damaged entries are declared: nobody knows from when they were.
const DAMAGE: (Table, Hour) = (Table::Gaps, Hour(0));

/// The entries of one flush.
#[derive(Debug)]
pub struct Load {
    first: u64,
    end: u64,
    batches: Vec<Loaded>,
    gaps: Vec<Gap>,
    refused: Vec<(Origin, String)>,
    names: Vec<SeriesName>,
    name_places: HashMap<SeriesName, u32>,
    slots: Vec<Slot>,
    partitions: BTreeSet<(Table, Hour)>,
    sums: Sums,
    bytes: usize,
    damaged: u64,
}

impl Load {
    /// A flush that begins at this entry.
    pub fn new(first: u64) -> Self {
        Self {
            first,
            end: first,
            batches: Vec::new(),
            gaps: Vec::new(),
            refused: Vec::new(),
            names: Vec::new(),
            name_places: HashMap::new(),
            slots: Vec::new(),
            partitions: BTreeSet::new(),
            sums: Sums::new(),
            bytes: 0,
            damaged: 0,
        }
    }

    /// The first entry.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// One past the last entry.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether no entry was taken.
    pub fn is_empty(&self) -> bool {
        self.first == self.end
    }

    /// How many rows of readings there are.
    pub fn rows(&self) -> usize {
        self.slots.len()
    }

    /// Whether it is time to write, whatever the clock says.
    pub fn is_due(&self) -> bool {
        self.slots.len() >= FLUSH_ROWS
            || self.bytes >= FLUSH_BYTES
            || self.end - self.first >= FLUSH_ENTRIES_MAX
            || self.sums.len() >= FLUSH_LANES_MAX
            || self.refused.len() >= FLUSH_REFUSED_MAX
    }

    /// Takes the entry unless it would touch too many partitions; an empty flush takes any.
    pub fn offer(&mut self, origin: Origin, content: Content, names: &dyn Names) -> Offer {
        let wanted = partitions_of(&origin, &content);
        let more = wanted.difference(&self.partitions).count();
        if !self.is_empty() && self.partitions.len() + more > FLUSH_PARTITIONS_MAX {
            return Offer::Full(Box::new((origin, content)));
        }
        self.take(origin, content, names);
        Offer::Taken
    }

    /// Takes the entry: what an intent names is redone whatever it touches.
    pub fn take(&mut self, origin: Origin, content: Content, names: &dyn Names) {
        self.end = origin.entry + 1;
        match content {
            Content::Definitions => self.count(&origin, 0),
            Content::Gap(rows) => {
                let key = (origin.agent.clone(), origin.key.lane_key());
                let sum = self.sums.entry(key).or_default();
                for row in rows {
                    sum.add_gap(origin.hash, row.taken);
                    let hour = Hour::of(row.event_first);
                    self.partitions.insert((Table::Gaps, hour));
                    self.gaps.push((Some(origin.clone()), row));
                }
            }
            Content::Refused { reason } => self.refuse(origin, reason),
            Content::Readings(readings) => self.take_readings(origin, readings, names),
            Content::Named(readings, own) => self.take_readings(origin, readings, &Inline(&own)),
        }
    }

    /// Moves the end over entries that bring nothing.
    pub fn pass(&mut self, entry: u64) {
        self.end = self.end.max(entry + 1);
    }

    /// Whether entries that are damaged can be declared in this flush; an empty one takes any.
    pub fn has_room_for_damage(&self) -> bool {
        self.is_empty()
            || self.partitions.len() < FLUSH_PARTITIONS_MAX
            || self.partitions.contains(&DAMAGE)
    }

    /// Declares entries that cannot be read. Whose they were and from when is not known any more.
    pub fn take_damaged(&mut self, entries: Range<u64>) {
        let lost = entries.end.saturating_sub(entries.start);
        self.end = self.end.max(entries.end);
        self.damaged += lost;
        self.partitions.insert(DAMAGE);
        let row = GapRow {
            first: entries.start,
            count: lost,
            readings: None,
            event_first: 0,
            event_last: 0,
            reason: "damaged".to_owned(),
            detail: format!("entries {}..{} of the journal", entries.start, entries.end),
            taken: 0,
        };
        self.gaps.push((None, row));
    }

    fn count(&mut self, origin: &Origin, rows: usize) {
        let key = (origin.agent.clone(), origin.key.lane_key());
        self.sums
            .entry(key)
            .or_default()
            .add(origin.hash, rows as u64);
    }

    fn refuse(&mut self, origin: Origin, reason: String) {
        self.count(&origin, 0);
        self.bytes += origin.sealed.len();
        self.refused.push((origin, reason));
    }

    fn take_readings(&mut self, origin: Origin, readings: Readings, names: &dyn Names) {
        let placement = Placement::of(readings.rows().iter().map(|row| &row.meta));
        let table = Table::of(origin.key.lane);
        let batch = self.batches.len() as u32;
        let before = self.slots.len();
        let mut known: HashMap<SeriesId, u32> = HashMap::new();
        for (row, reading) in readings.rows().iter().enumerate() {
            let place = match known.get(&reading.series) {
                Some(place) => *place,
                None => match self.series(&origin, reading, names) {
                    Ok(place) => {
                        known.insert(reading.series, place);
                        place
                    }
                    Err(reason) => {
                        self.slots.truncate(before);
                        return self.refuse(origin, reason);
                    }
                },
            };
            self.slots.push(Slot {
                table,
                hour: placement.place(&reading.meta),
                series: place,
                event_time: reading.meta.event_time,
                batch,
                row: row as u32,
            });
        }
        self.partitions
            .extend(placement.hours().iter().map(|hour| (table, *hour)));
        self.count(&origin, readings.len());
        self.bytes += readings.len() * size_of::<Row>() + readings.text_bytes();
        self.batches.push(Loaded { origin, readings });
    }

    /// The series' place among the names of this flush.
    fn series(&mut self, origin: &Origin, row: &Row, names: &dyn Names) -> Result<u32, String> {
        let id = row.series;
        let name = names
            .name(&origin.agent, origin.key.buffer, id)
            .ok_or_else(|| format!("series {} of {} is not defined", id.0, origin.key))?;
        if name.value_type != row.value_type {
            let (is, was) = (row.value_type, name.value_type);
            return Err(format!(
                "series {} of {} holds {is}, defined as {was}",
                id.0, origin.key
            ));
        }
        if let Some(place) = self.name_places.get(&name) {
            return Ok(*place);
        }
        let place = self.names.len() as u32;
        self.names.push(name.clone());
        self.name_places.insert(name, place);
        Ok(place)
    }

    /// Sorts everything into files.
    pub fn plan(self) -> FlushPlan {
        let Self {
            first,
            end,
            batches,
            gaps,
            refused,
            names,
            mut slots,
            sums,
            damaged,
            ..
        } = self;
        let mut by_rank: Vec<(SeriesName, u32)> = names
            .into_iter()
            .enumerate()
            .map(|(place, name)| (name, place as u32))
            .collect();
        by_rank.sort_unstable();
        let mut ranks = vec![0_u32; by_rank.len()];
        for (rank, (_, place)) in by_rank.iter().enumerate() {
            if let Some(slot) = ranks.get_mut(*place as usize) {
                *slot = rank as u32;
            }
        }
        for slot in &mut slots {
            slot.series = ranks.get(slot.series as usize).copied().unwrap_or(0);
        }
        slots.sort_unstable();
        let mut parts: Vec<Part> = Vec::new();
        for run in slots.chunk_by(|a, b| (a.table, a.hour) == (b.table, b.hour)) {
            let start = parts.last().map_or(0, |part| part.rows.end);
            if let Some(slot) = run.first() {
                let rows = start..start + run.len();
                parts.push(Part {
                    table: slot.table,
                    hour: slot.hour,
                    rows,
                });
            }
        }
        let names = by_rank.into_iter().map(|(name, _)| name).collect();
        FlushPlan {
            first,
            end,
            batches,
            gaps,
            refused,
            names,
            slots,
            parts,
            sums,
            damaged,
        }
    }
}

fn partitions_of(origin: &Origin, content: &Content) -> BTreeSet<(Table, Hour)> {
    match content {
        Content::Readings(readings) | Content::Named(readings, _) => {
            let placement = Placement::of(readings.rows().iter().map(|row| &row.meta));
            let table = Table::of(origin.key.lane);
            placement
                .hours()
                .iter()
                .map(|hour| (table, *hour))
                .collect()
        }
        Content::Gap(rows) => rows
            .iter()
            .map(|row| (Table::Gaps, Hour::of(row.event_first)))
            .collect(),
        Content::Definitions | Content::Refused { .. } => BTreeSet::new(),
    }
}

/// The rows of one file of readings, as a range of the plan's order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The table.
    pub table: Table,
    /// The hour it lies under.
    pub hour: Hour,
    /// Its rows in the plan's order.
    pub rows: Range<usize>,
}

/// One row of a plan.
#[derive(Clone, Copy, Debug)]
pub struct PlannedRow<'a> {
    /// The batch it came in.
    pub batch: &'a Loaded,
    /// Its place in the batch.
    pub row: u32,
    /// Its place among [`FlushPlan::names`].
    pub series: u32,
    /// The reading.
    pub reading: &'a Row,
}

/// Everything that a flush writes, in its final order.
#[derive(Debug)]
pub struct FlushPlan {
    first: u64,
    end: u64,
    batches: Vec<Loaded>,
    gaps: Vec<Gap>,
    refused: Vec<(Origin, String)>,
    names: Vec<SeriesName>,
    slots: Vec<Slot>,
    parts: Vec<Part>,
    sums: Sums,
    damaged: u64,
}

impl FlushPlan {
    /// The first entry.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// One past the last entry.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The names of the series, sorted.
    pub fn names(&self) -> &[SeriesName] {
        &self.names
    }

    /// The files of readings.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The declared losses, by entry.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// What cannot be written as rows, by entry.
    pub fn refused(&self) -> &[(Origin, String)] {
        &self.refused
    }

    /// How many entries are damaged, at most.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Count and hash sum of all batches, by lane.
    pub fn sums(&self) -> &Sums {
        &self.sums
    }

    /// The rows of one file, in its order.
    pub fn rows(&self, part: &Part) -> impl Iterator<Item = PlannedRow<'_>> {
        let slots = self.slots.get(part.rows.clone()).unwrap_or_default();
        slots.iter().filter_map(|slot| {
            let batch = self.batches.get(slot.batch as usize)?;
            let reading = batch.readings.rows().get(slot.row as usize)?;
            Some(PlannedRow {
                batch,
                row: slot.row,
                series: slot.series,
                reading,
            })
        })
    }

    /// Count and hash sum, by lane, of the batches whose first row lies in this file: every batch
    /// is counted in exactly one file.
    pub fn sums_of(&self, part: &Part) -> Sums {
        let mut sums = Sums::new();
        for row in self.rows(part).filter(|row| row.row == 0) {
            let origin = &row.batch.origin;
            let key = (origin.agent.clone(), origin.key.lane_key());
            sums.entry(key)
                .or_default()
                .add(origin.hash, row.batch.readings.len() as u64);
        }
        sums
    }
}
