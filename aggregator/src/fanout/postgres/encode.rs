//! Rows of a plan as COPY takes them, by table. Pure.

use super::batches::Taken;
use super::bigint;
use super::copy::{NoTime, Tuples};
use super::plan::{Brings, Plan, PlannedRows};
use crate::fanout::sink::SinkError;
use crate::lake::Table;
use std::ops::Range;
use tributary_protocol::reading::Value;

/// Rows for COPY, by table.
#[derive(Default)]
pub(super) struct Tables {
    reading: Tuples,
    alert: Tuples,
    aggregate: Tuples,
    gap: Tuples,
    rejected: Tuples,
}

impl Tables {
    pub(super) fn each(self) -> [(&'static str, Tuples); 5] {
        [
            ("reading", self.reading),
            ("alert", self.alert),
            ("aggregate", self.aggregate),
            ("gap", self.gap),
            ("rejected", self.rejected),
        ]
    }

    fn readings(
        &mut self,
        batch: i64,
        planned: &PlannedRows<'_>,
        series: &[i64],
    ) -> Result<(), NoTime> {
        for (place, row, at) in &planned.rows {
            let out = match planned.table {
                Table::Alerts => &mut self.alert,
                Table::Aggregates => &mut self.aggregate,
                Table::Readings | Table::Gaps => &mut self.reading,
            };
            let is_reading = matches!(planned.table, Table::Readings | Table::Gaps);
            out.begin(if is_reading { 12 } else { 7 });
            out.i64(batch);
            out.i32(*place);
            out.i64(series.get(*at).copied().unwrap_or_default());
            out.time(row.meta.event_time)?;
            out.time(row.meta.received_time)?;
            let value = planned.readings.value(row);
            if is_reading {
                values(out, value);
                out.i32(row.meta.quality);
                match row.meta.device_seq {
                    Some(number) => out.i64(number),
                    None => out.null(),
                }
                out.i16(i16::from(row.meta.flags.0));
            } else {
                document(out, value);
            }
        }
        Ok(())
    }
}

/// The value in the column of its type, nothing in the others.
fn values(out: &mut Tuples, value: Value<'_>) {
    match value {
        Value::F64(x) => out.f64(x),
        Value::F32(x) => out.f64(crate::lake::columns::widen(x)),
        _ => out.null(),
    }
    match value {
        Value::I64(x) => out.i64(x),
        _ => out.null(),
    }
    match value {
        Value::Bool(x) => out.bool(x),
        _ => out.null(),
    }
    match value {
        Value::Str(x) => out.text(x),
        _ => out.null(),
    }
}

/// JSON as JSON, and what is none as it came.
fn document(out: &mut Tuples, value: Value<'_>) {
    let text = match value {
        Value::Str(text) => text.to_owned(),
        other => format!("{other:?}"),
    };
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => {
            out.json(&text);
            out.null();
        }
        Err(_) => {
            out.null();
            out.text(&text);
        }
    }
}

pub(super) fn encode(
    plan: &Plan<'_>,
    log: &str,
    taken: &[Taken],
    series: &[i64],
) -> Result<Tables, SinkError> {
    let mut tables = Tables::default();
    let refused = |error: NoTime| SinkError::Refused(error.to_string());
    let journal = u128::from_str_radix(&log.replace('-', ""), 16)
        .unwrap_or(0)
        .to_be_bytes();
    for (batch, taken) in plan.batches.iter().zip(taken) {
        let origin = batch.origin;
        let reject = |tables: &mut Tables, row: Option<i32>, reason: &str, payload: &[u8]| {
            let out = &mut tables.rejected;
            out.begin(10);
            out.text(origin.agent.tenant());
            out.bytes(&origin.agent.uuid().0);
            out.bytes(&origin.key.buffer.0);
            out.text(origin.key.lane.name());
            out.i64(bigint(origin.key.number));
            match row {
                Some(row) => out.i32(row),
                None => out.null(),
            }
            out.bytes(&journal);
            out.i64(bigint(origin.entry));
            out.text(&reason.replace('\0', "\u{fffd}"));
            out.bytes(payload);
        };
        let id = match taken {
            Taken::Fresh(id) => *id,
            Taken::There => continue,
            Taken::Contradicted(reason) => {
                reject(&mut tables, None, reason, &origin.sealed);
                continue;
            }
        };
        for (row, reason, payload) in &batch.rejected {
            reject(&mut tables, *row, reason, payload);
        }
        match &batch.brings {
            Brings::Nothing => {}
            Brings::Rows(rows) => tables.readings(id, rows, series).map_err(refused)?,
            Brings::Gaps(rows) => {
                for row in rows {
                    let out = &mut tables.gap;
                    out.begin(10);
                    out.i64(id);
                    out.bytes(&journal);
                    out.i64(bigint(origin.entry));
                    out.i64(bigint(row.first));
                    out.i64(bigint(row.count));
                    match row.readings {
                        Some(count) => out.i64(bigint(count)),
                        None => out.null(),
                    }
                    out.time(row.event_first).map_err(refused)?;
                    out.time(row.event_last).map_err(refused)?;
                    out.text(&row.reason);
                    out.text(&row.detail);
                }
            }
        }
    }
    for entries in &plan.damaged {
        damaged(&mut tables.gap, &journal, entries).map_err(refused)?;
    }
    Ok(tables)
}

/// Entries of the journal that nobody can read: whose they were is not known.
fn damaged(out: &mut Tuples, journal: &[u8], entries: &Range<u64>) -> Result<(), NoTime> {
    out.begin(10);
    out.null();
    out.bytes(journal);
    out.i64(bigint(entries.start));
    out.i64(bigint(entries.start));
    out.i64(bigint(entries.end.saturating_sub(entries.start)));
    out.null();
    out.time(0)?;
    out.time(0)?;
    out.text("damaged");
    let (from, to) = (entries.start, entries.end);
    out.text(&format!("entries {from}..{to} of the journal"));
    Ok(())
}
