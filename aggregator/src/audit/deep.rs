//! Every row of the lake, flush by flush: that its file is what its footer says, that no identity
//! is there twice, and that each batch has the rows that the journal says. It holds the identities
//! of one flush at a time, and of each lane the numbers.

use super::files::{guarded, read_footer};
use super::journal::Journal;
use super::lake::{Flush, Lake, PUT_BACK, Seen};
use super::report::{Finding, Findings, Span};
use super::{LaneId, Numbers, lane_of};
use crate::keeper::record::RecordKind;
use crate::lake::Table;
use crate::lake::columns::digest;
use crate::lake::file::Footer;
use crate::limits::{AUDIT_FILE_ROWS_MAX, AUDIT_FOREIGN_ROWS};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{RecordBatch, StringArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;
use tributary_protocol::ids::{BatchHash, Lane};
use tributary_protocol::ranges::HeldRanges;

const TWICE: &str = "take away the file that is a copy; where none is, two aggregators wrote \
                     what one should have";

/// The numbers of which the lake has rows.
#[derive(Default)]
pub(super) struct Rows {
    /// In files of this journal.
    own: Numbers,
    /// In those of others: what one held before, or another aggregator beside it.
    others: Numbers,
    /// Of both, those whose rows say that another batch may hold them as well.
    pub(super) in_doubt: Numbers,
    findings: Findings,
}

impl Rows {
    /// Reads every row of the files that are not read yet.
    pub(super) fn update(&mut self, lake: &mut Lake, journal: &Journal) {
        let dir = lake.dir.clone();
        for (flush, seen) in &mut lake.flushes {
            let files = std::mem::take(&mut seen.paths);
            if !files.is_empty() {
                self.read_flush(flush, (&dir, &files), journal);
            }
        }
    }

    /// The numbers of which the lake has rows of this journal, or a declared loss, or which were
    /// set apart.
    pub(super) fn numbers(&self, lake: &Lake) -> Numbers {
        let mut all = self.own.clone();
        for (lane, held) in lake.declared.iter().chain(&lake.set_apart) {
            for run in held.iter() {
                add(&mut all, lane, run.first, run.end);
            }
        }
        all
    }

    /// Of these numbers those of which files of other journals have nothing: no row, no
    /// declaration, and no place among what is set apart.
    pub(super) fn missing_in_others(
        &self,
        lake: &Lake,
        lane: &LaneId,
        of: &HeldRanges,
    ) -> Vec<Span> {
        let mut missing = of.clone();
        let there = [&self.others, &lake.others_without_rows];
        for run in there
            .iter()
            .filter_map(|of| of.get(lane))
            .flat_map(HeldRanges::iter)
        {
            missing.remove(run.first, run.end);
        }
        missing.iter().map(|run| (run.first, run.end)).collect()
    }

    pub(super) fn findings(&self) -> Findings {
        self.findings.clone()
    }

    /// Of a Parquet file that no flush wrote: how many rows it has, and how many of them under
    /// numbers that the lake has, too.
    pub(super) fn of_foreign(&self, path: &Path) -> Result<(u64, u64), String> {
        guarded(|| {
            let file = File::open(path).map_err(|error| error.to_string())?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(file)
                .and_then(|builder| builder.with_batch_size(AUDIT_FOREIGN_ROWS).build());
            let (mut all, mut twice) = (0, 0);
            let mut lanes = Lanes::default();
            for batch in reader.map_err(|error| error.to_string())? {
                let batch = batch.map_err(|error| error.to_string())?;
                all += batch.num_rows() as u64;
                // What has no such columns is nothing of the lake's.
                let _ = identities(&batch, |names, number, _, _| {
                    let lane = lanes.place(names);
                    let lane = lane.and_then(|place| lanes.all.get(place));
                    twice += u64::from(lane.is_some_and(|lane| self.has(lane, number)));
                });
            }
            Ok((all, twice))
        })
    }

    fn has(&self, lane: &LaneId, number: u64) -> bool {
        let mut of = [&self.own, &self.others].into_iter();
        of.any(|of| of.get(lane).is_some_and(|held| held.contains(number)))
    }

    fn read_flush(&mut self, flush: &Flush, (dir, files): (&Path, &[Seen]), journal: &Journal) {
        let (lanes, places) = places_of((dir, files), &mut self.findings);
        let own = flush.log == journal.log;
        let mut expected = match own {
            true => expected(flush, journal),
            false => HashMap::new(),
        };
        let shown = match files {
            [one] => dir.join(&*one.path).display().to_string(),
            _ => format!("the files of entries {}..{}", flush.first, flush.end),
        };
        for ((lane, number), (rows_of, in_doubt)) in places {
            let Some(lane) = lanes.all.get(lane) else {
                continue;
            };
            let all = expected.remove(&(lane.clone(), number));
            let mut wrong = rows_wrong(rows_of, all);
            if self.has(lane, number) {
                let what = "it is there twice: in an earlier flush, and".to_owned();
                wrong.push((what, TWICE));
            }
            let to = if own { &mut self.own } else { &mut self.others };
            add(to, lane, number, number + 1);
            if in_doubt {
                add(&mut self.in_doubt, lane, number, number + 1);
            }
            for (what, todo) in wrong {
                let (numbers, what) = (vec![(number, number + 1)], format!("{what} in {shown}"));
                self.findings.push(Finding::of(lane, numbers, what, todo));
            }
        }
    }
}

/// Rows of one flush, by lane and number: their places, and whether they are in doubt.
type Places = BTreeMap<(usize, u64), (Vec<i32>, bool)>;

/// The lanes of a flush, by the place at which they were met.
#[derive(Default)]
struct Lanes {
    all: Vec<LaneId>,
    places: HashMap<[String; 4], Option<usize>>,
}

impl Lanes {
    fn place(&mut self, names: [&str; 4]) -> Option<usize> {
        let names = names.map(str::to_owned);
        if let Some(known) = self.places.get(&names) {
            return *known;
        }
        let [tenant, agent, buffer, lane] = &names;
        let found = lane_of(&format!("{tenant}/{agent}"), buffer, lane).map(|lane| {
            let known = self.all.iter().position(|known| *known == lane);
            known.unwrap_or_else(|| {
                self.all.push(lane);
                self.all.len() - 1
            })
        });
        self.places.insert(names, found);
        found
    }
}

/// Adds numbers that may be there already.
fn add(numbers: &mut Numbers, lane: &LaneId, first: u64, end: u64) {
    let known = numbers.entry(lane.clone()).or_default();
    known.insert_missing(first, end, BatchHash([0; 32]));
}

/// Where the rows of each batch stand, as the files of a flush say.
fn places_of((dir, files): (&Path, &[Seen]), findings: &mut Findings) -> (Lanes, Places) {
    let mut lanes = Lanes::default();
    let mut places = Places::new();
    for seen in files {
        let path = dir.join(&*seen.path);
        let whole = read_footer(&path);
        let whole = whole.and_then(|(footer, _)| guarded(|| whole_file(&path, &footer)));
        let read = whole.and_then(|batch| match (batch, seen.table) {
            // Of declared losses the numbers are known already.
            (None, _) | (_, Table::Gaps) => Ok(()),
            (Some(batch), _) => identities(&batch, |names, batch, row, in_doubt| {
                if let Some(lane) = lanes.place(names) {
                    let (rows, any) = places.entry((lane, batch)).or_default();
                    rows.push(row);
                    *any |= in_doubt;
                }
            }),
        });
        if let Err(why) = read {
            let what = format!("{}: {why}", path.display());
            findings.push(Finding::general(what, PUT_BACK));
        }
    }
    (lanes, places)
}

/// What is wrong with the rows of a batch, of which there should be `all`, if that is known.
fn rows_wrong(mut rows: Vec<i32>, all: Option<u64>) -> Vec<(String, &'static str)> {
    let mut wrong = Vec::new();
    rows.sort_unstable();
    let before = rows.len();
    rows.dedup();
    let there = rows.len() as u64;
    if before > rows.len() {
        let twice = before - rows.len();
        wrong.push((format!("{twice} of its rows are there twice,"), TWICE));
    }
    let last = rows
        .last()
        .map_or(0, |row| u64::from(row.unsigned_abs()) + 1);
    let all = all.unwrap_or(last).max(last);
    if there != all {
        wrong.push((format!("{there} of its {all} rows are there,"), PUT_BACK));
    }
    wrong
}

/// How many rows each batch of a flush has, as far as the journal still holds it.
fn expected(flush: &Flush, journal: &Journal) -> HashMap<(LaneId, u64), u64> {
    let mut expected = HashMap::new();
    journal.batches(flush.first..flush.end, |read| {
        if read.kind == RecordKind::Batch && read.key.lane != Lane::Series {
            let rows = u64::from(read.batch.rows());
            expected.insert((read.lane, read.key.number), rows);
        }
    });
    expected
}

/// Hands over the identity of every row, and whether it is in doubt.
fn identities(
    batch: &RecordBatch,
    mut each: impl FnMut([&str; 4], u64, i32, bool),
) -> Result<(), String> {
    let text = |name: &str| -> Result<&StringArray, String> {
        let column = batch.column_by_name(name);
        let column = column.and_then(|column| column.as_string_opt::<i32>());
        column.ok_or_else(|| format!("it has no column `{name}`"))
    };
    let names = [
        text("tenant")?,
        text("agent")?,
        text("buffer")?,
        text("lane")?,
    ];
    let numbers = batch.column_by_name("batch");
    let numbers = numbers.and_then(|column| column.as_primitive_opt::<Int64Type>());
    let numbers = numbers.ok_or("it has no column `batch`")?;
    let places = batch.column_by_name("row");
    let places = places.and_then(|column| column.as_primitive_opt::<Int32Type>());
    let places = places.ok_or("it has no column `row`")?;
    // Files of earlier versions have no such column.
    let in_doubt = batch.column_by_name("in_doubt");
    let in_doubt = in_doubt.and_then(|column| column.as_boolean_opt());
    for i in 0..batch.num_rows() {
        let names = names.map(|column| column.value(i));
        let number = numbers.value(i).cast_unsigned();
        let in_doubt = in_doubt.is_some_and(|column| column.value(i));
        each(names, number, places.value(i), in_doubt);
    }
    Ok(())
}

/// All rows of a file, as one, if they are those that it was written with; nothing where there
/// are none.
fn whole_file(path: &Path, footer: &Footer) -> Result<Option<RecordBatch>, String> {
    let rows = usize::try_from(footer.rows).unwrap_or(usize::MAX);
    if rows > AUDIT_FILE_ROWS_MAX {
        return Err(format!("{rows} rows: no flush writes so many"));
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
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
