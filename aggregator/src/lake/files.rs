//! The files of a flush, as bytes: one for each table and hour, and what cannot be written as rows.
//! A function of the plan alone; where they go to is the business of [`commit`](super::commit).

use super::columns::{aggregates_columns, alerts_columns, gaps_columns, readings_columns};
use super::commit::PlannedFile;
use super::file::{EncodedFile, Span, encode};
use super::load::{FlushPlan, Gap, Origin, sums_of_gaps};
use super::partition::Hour;
use super::{LakeError, Table};
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;

/// Encodes every file of a plan.
pub(super) fn files_of(span: Span, plan: &FlushPlan) -> Result<Vec<PlannedFile>, LakeError> {
    let mut files = Vec::new();
    let path = |table: Table, hour: Hour| {
        let (log, first, end) = (span.log, span.first, span.end);
        format!(
            "{}/{hour}/{log}-{first:020}-{end:020}.parquet",
            table.name()
        )
    };
    for part in plan.parts() {
        let rows = match part.table {
            Table::Alerts => alerts_columns(plan, part)?,
            Table::Aggregates => aggregates_columns(plan, part)?,
            Table::Readings | Table::Gaps => readings_columns(plan, part)?,
        };
        let file = encode(span, part.table, &rows, &plan.sums_of(part))?;
        files.push(PlannedFile {
            path: path(part.table, part.hour),
            file,
        });
    }
    let mut gaps: BTreeMap<Hour, Vec<&Gap>> = BTreeMap::new();
    for gap in plan.gaps() {
        gaps.entry(Hour::of(gap.1.event_first))
            .or_default()
            .push(gap);
    }
    for (hour, gaps) in gaps {
        let sums = sums_of_gaps(&gaps);
        let file = encode(span, Table::Gaps, &gaps_columns(&gaps)?, &sums)?;
        files.push(PlannedFile {
            path: path(Table::Gaps, hour),
            file,
        });
    }
    files.extend(rejected_files(span, plan.refused()).into_iter().flatten());
    Ok(files)
}

/// What cannot be written as rows is kept as it came, one batch behind the other, with a list of
/// what lies where, and why, beside it.
fn rejected_files(span: Span, refused: &[(Origin, String)]) -> Option<[PlannedFile; 2]> {
    if refused.is_empty() {
        return None;
    }
    let name = format!("rejected/{}-{:020}-{:020}", span.log, span.first, span.end);
    let (mut batches, mut notes) = (BytesMut::new(), Vec::with_capacity(refused.len()));
    for (origin, reason) in refused {
        notes.push(serde_json::json!({
            "entry": origin.entry,
            "agent": origin.agent.to_string(),
            "batch": origin.key.to_string(),
            "hash": origin.hash.to_string(),
            "reason": reason,
            "offset": batches.len(),
            "bytes": origin.sealed.len(),
        }));
        batches.extend_from_slice(&origin.sealed);
    }
    let kept = |ending: &str, bytes: Bytes| {
        let digest = tributary_protocol::ids::BatchHash::of(&bytes).to_string();
        let file = EncodedFile {
            bytes,
            rows: 0,
            digest,
        };
        PlannedFile {
            path: format!("{name}.{ending}"),
            file,
        }
    };
    let list = serde_json::Value::Array(notes).to_string();
    Some([
        kept("batches", batches.freeze()),
        kept("json", Bytes::from(list)),
    ])
}
