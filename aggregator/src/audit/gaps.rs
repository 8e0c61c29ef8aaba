//! The lake's table of declared losses, row by row.

use super::LaneId;
use super::files::guarded;
use super::lane_of;
use super::report::GapReport;
use crate::limits::AUDIT_GAPS_LISTED_MAX;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use std::fs::File;
use std::path::Path;

/// Declared losses of a lane: the first, and how many more there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Declared {
    pub(super) listed: Vec<GapReport>,
    pub(super) more: u64,
}

impl Declared {
    pub(super) fn push(&mut self, gap: GapReport) {
        match self.listed.len() < AUDIT_GAPS_LISTED_MAX {
            true => self.listed.push(gap),
            false => self.more += 1,
        }
    }
}

/// A row of the table of declared losses.
pub(super) enum Gap {
    Of(Box<LaneId>, GapReport),
    /// Entries of the journal: the first, and how many.
    Journal(u64, u64),
}

/// All rows of a file of it.
pub(super) fn gap_rows(path: &Path) -> Result<Vec<Gap>, String> {
    guarded(|| {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
        let rows = reader
            .get_row_iter(None)
            .map_err(|error| error.to_string())?;
        let mut gaps = Vec::new();
        for row in rows {
            let row = row.map_err(|error| error.to_string())?;
            let gap = gap_row(&row).map_err(|error| error.to_string())?;
            gaps.push(gap.ok_or("a row names a lane that can't be")?);
        }
        Ok(gaps)
    })
}

/// By the place of each column: columns are only added, at the end.
fn gap_row(row: &parquet::record::Row) -> parquet::errors::Result<Option<Gap>> {
    let text = |at| row.get_string(at).map(String::as_str);
    let whole = |at| row.get_long(at).map(i64::cast_unsigned);
    let (tenant, agent) = (text(0)?, text(1)?);
    if agent.is_empty() {
        return Ok(Some(Gap::Journal(whole(5)?, whole(6)?)));
    }
    let lane = lane_of(&format!("{tenant}/{agent}"), text(2)?, text(3)?);
    let gap = GapReport {
        batch: whole(4)?,
        first: whole(5)?,
        count: whole(6)?,
        // Null where nobody knows.
        readings: whole(7).ok(),
        reason: text(10)?.to_owned(),
        detail: text(11)?.to_owned(),
    };
    Ok(lane.map(|lane| Gap::Of(Box::new(lane), gap)))
}
