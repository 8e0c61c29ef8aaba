//! What of a chunk goes into which table. Pure: it knows no numbers that the database gives.

use super::super::chunk::Chunk;
use crate::lake::Table;
use crate::lake::load::{Content, GapRow, Names, Origin, SeriesName};
use crate::lake::sink::Item;
use serde_json::json;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use tributary_protocol::ids::{AgentId, SeriesId};
use tributary_protocol::reading::{Readings, Row, Value};
use tributary_protocol::series::SeriesDef;

/// A series, wherever it is from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SeriesKey {
    /// Whose it is.
    pub agent: AgentId,
    /// What it is called.
    pub name: SeriesName,
}

/// Rows of one batch that go into one table.
#[derive(Debug)]
pub struct PlannedRows<'a> {
    /// Where they go.
    pub table: Table,
    /// What they are in.
    pub readings: &'a Readings,
    /// Place in the batch, the row, and its series' place in [`Plan::series`].
    pub rows: Vec<(i32, &'a Row, usize)>,
}

/// What a batch brings.
#[derive(Debug)]
pub enum Brings<'a> {
    /// Readings, alerts or aggregates.
    Rows(PlannedRows<'a>),
    /// Declared losses.
    Gaps(Vec<&'a GapRow>),
    /// No row: definitions of series.
    Nothing,
}

/// A batch on its way.
#[derive(Debug)]
pub struct PlannedBatch<'a> {
    /// Which.
    pub origin: &'a Origin,
    /// What it is: `readings`, `gap`, `definitions`, `refused`.
    pub kind: &'static str,
    /// Its readings, also those that the target does not take.
    pub readings: usize,
    /// The numbers of its lane that it stands under.
    pub numbers: u64,
    /// What goes into tables.
    pub brings: Brings<'a>,
    /// What does not: the row, none if it is the whole batch; why; what it was.
    pub rejected: Vec<(Option<i32>, String, Vec<u8>)>,
}

/// A chunk, by table.
#[derive(Debug, Default)]
pub struct Plan<'a> {
    /// Batches, in the journal's order.
    pub batches: Vec<PlannedBatch<'a>>,
    /// Series that their rows are of, each once.
    pub series: Vec<SeriesKey>,
    /// Entries of the journal that cannot be read.
    pub damaged: Vec<Range<u64>>,
    places: HashMap<SeriesKey, usize>,
}

impl<'a> Plan<'a> {
    /// The plan of a chunk, or of some of its rows, by their places.
    pub fn of(chunk: &'a Chunk, only: Option<&Range<usize>>, names: &dyn Names) -> Self {
        let mut plan = Self::default();
        for (places, item) in chunk.items() {
            let wanted = |place: usize| only.is_none_or(|only| only.contains(&place));
            if only.is_some_and(|only| places.end <= only.start || only.end <= places.start) {
                continue;
            }
            let takes = |row: usize| {
                let place = places.start + row;
                wanted(place) && !chunk.refused().contains_key(&place)
            };
            match item {
                Item::Nothing(_) => {}
                Item::Damaged(entries) if takes(0) => plan.damaged.push(entries.clone()),
                Item::Damaged(_) => {}
                Item::Batch(batch) => {
                    let (origin, content) = &**batch;
                    let mut planned = plan.batch(origin, content, &takes, names);
                    let reasons = chunk.refused().range(places.clone());
                    for (place, reason) in reasons.filter(|(place, _)| wanted(**place)) {
                        planned.reject(place - places.start, content, reason);
                    }
                    plan.batches.push(planned);
                }
            }
        }
        plan
    }

    fn batch(
        &mut self,
        origin: &'a Origin,
        content: &'a Content,
        takes: &dyn Fn(usize) -> bool,
        names: &dyn Names,
    ) -> PlannedBatch<'a> {
        let planned = |kind, readings, numbers, brings| PlannedBatch {
            origin,
            kind,
            readings,
            numbers,
            brings,
            rejected: Vec::new(),
        };
        let whole = |reason: &str| {
            let mut refused = planned("refused", 0, 1, Brings::Nothing);
            let sealed = origin.sealed.to_vec();
            refused.rejected.push((None, reason.to_owned(), sealed));
            refused
        };
        match content {
            Content::Definitions => planned("definitions", 0, 1, Brings::Nothing),
            Content::Refused { reason } => whole(reason),
            Content::Gap(rows) => {
                let numbers = rows.iter().map(|row| row.taken).sum();
                let taken = rows.iter().enumerate().filter(|(row, _)| takes(*row));
                let taken = taken.map(|(_, row)| row).collect();
                planned("gap", 0, numbers, Brings::Gaps(taken))
            }
            Content::Readings(readings) => {
                let name = |id| names.name(&origin.agent, origin.key.buffer, id);
                match self.rows(origin, readings, takes, &name) {
                    Ok(rows) => planned("readings", readings.len(), 1, Brings::Rows(rows)),
                    Err(reason) => whole(&reason),
                }
            }
            Content::Named(readings, own) => {
                match self.rows(origin, readings, takes, &|id| inline(own, id)) {
                    Ok(rows) => planned("readings", readings.len(), 1, Brings::Rows(rows)),
                    Err(reason) => whole(&reason),
                }
            }
        }
    }

    fn rows(
        &mut self,
        origin: &Origin,
        readings: &'a Readings,
        takes: &dyn Fn(usize) -> bool,
        name: &dyn Fn(SeriesId) -> Option<SeriesName>,
    ) -> Result<PlannedRows<'a>, String> {
        let mut known: HashMap<SeriesId, usize> = HashMap::new();
        let mut rows = Vec::with_capacity(readings.len());
        for (at, row) in readings.rows().iter().enumerate() {
            let series = match known.get(&row.series) {
                Some(place) => *place,
                None => {
                    let name = name(row.series).filter(|name| name.value_type == row.value_type);
                    let name = name.ok_or_else(|| {
                        let (id, kind) = (row.series.0, row.value_type);
                        format!("series {id} of {} is not defined as {kind}", origin.key)
                    })?;
                    let place = self.place(&origin.agent, name);
                    known.insert(row.series, place);
                    place
                }
            };
            if takes(at) {
                rows.push((i32::try_from(at).unwrap_or(i32::MAX), row, series));
            }
        }
        Ok(PlannedRows {
            table: Table::of(origin.key.lane),
            readings,
            rows,
        })
    }

    fn place(&mut self, agent: &AgentId, name: SeriesName) -> usize {
        let agent = agent.clone();
        let key = SeriesKey { agent, name };
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        let place = self.series.len();
        self.series.push(key.clone());
        self.places.insert(key, place);
        place
    }
}

impl PlannedBatch<'_> {
    /// Keeps what the target did not take, whole, so that nothing is lost by it.
    fn reject(&mut self, row: usize, content: &Content, reason: &str) {
        let payload = match content {
            Content::Readings(readings) | Content::Named(readings, _) => {
                readings.rows().get(row).map(|reading| {
                    let meta = &reading.meta;
                    let value = match readings.value(reading) {
                        Value::F64(x) => json!({"f64": x, "bits": format!("{:016x}", x.to_bits())}),
                        Value::F32(x) => json!({"f32": x, "bits": format!("{:08x}", x.to_bits())}),
                        Value::I64(x) => json!({"i64": x}),
                        Value::Bool(x) => json!({"bool": x}),
                        Value::Str(x) => json!({"str": x}),
                    };
                    let whole = json!({
                        "series": reading.series.0, "event_time": meta.event_time,
                        "received_time": meta.received_time, "quality": meta.quality,
                        "device_seq": meta.device_seq, "flags": meta.flags.0, "value": value,
                    });
                    whole.to_string().into_bytes()
                })
            }
            Content::Gap(rows) => rows.get(row).map(|gap| {
                let whole = json!({
                    "first": gap.first, "count": gap.count, "readings": gap.readings,
                    "event_first": gap.event_first, "event_last": gap.event_last,
                    "reason": gap.reason, "detail": gap.detail,
                });
                whole.to_string().into_bytes()
            }),
            Content::Definitions | Content::Refused { .. } => None,
        };
        let row = i32::try_from(row).unwrap_or(i32::MAX);
        self.rejected
            .push((Some(row), reason.to_owned(), payload.unwrap_or_default()));
    }
}

fn inline(own: &Arc<[SeriesDef]>, id: SeriesId) -> Option<SeriesName> {
    let def = own.get(id.0 as usize)?;
    Some(SeriesName {
        device: Arc::clone(&def.device),
        metric: Arc::clone(&def.metric),
        unit: def.unit.clone().unwrap_or_else(|| "".into()),
        value_type: def.value_type,
    })
}
