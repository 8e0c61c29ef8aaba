//! The body of a batch of readings: its columns, one after the other.
//!
//! `[bytes of bits][bits][tokens]`, the tokens under zstd. Tokens, in this order: how many runs;
//! for each run the step to its series, and its length; for each its mark, and its form; then the
//! columns of time, of marks, of values, and the texts. `docs/wire.md` describes them.

use super::delays::{DelayReader, DelayWriter};
use super::marks::{self, STEADY};
use super::numbers::{Carry, NumberReader, NumberWriter};
use super::order::{Run, runs};
use super::states::{TextReader, TextWriter, read_bools, write_bools};
use super::symbols::{Flaw, SymbolReader, SymbolWriter, flaw};
use super::times::{TimeReader, TimeWriter};
use crate::ids::SeriesId;
use crate::limits::SERIES_MAX;
use crate::reading::{Meta, Readings, Row, ValueType};

/// Bits of a run's form that tell its value type.
const VALUE_TYPE: u8 = 0b111;

/// Scratch to write a body.
#[derive(Default)]
pub(super) struct ColumnWriter {
    symbols: SymbolWriter,
    runs: Vec<Run>,
    marks: Vec<u8>,
    forms: Vec<u8>,
    times: TimeWriter,
    delays: DelayWriter,
    numbers: NumberWriter,
    tokens: Vec<u8>,
}

impl ColumnWriter {
    /// The tokens and bits of `readings`, which are in order and whose first event time is `first`.
    ///
    /// # Errors
    /// The series whose rows differ in type.
    pub fn write(&mut self, readings: &Readings, first: i64) -> Result<(&[u8], &[u8]), SeriesId> {
        let rows = readings.rows();
        runs(rows, &mut self.runs)?;
        self.symbols.clear();
        self.write_runs();
        let head = self.symbols.tokens.len();
        self.marks.clear();
        self.marks.resize(self.runs.len(), 0);
        let out = &mut self.symbols;
        let times = self
            .times
            .write(rows, &self.runs, first, STEADY, &mut self.marks, out);
        self.delays.write(rows, &self.runs, times, first, out);
        marks::write(rows, &self.runs, &mut self.marks, out);
        self.write_values(readings);
        self.tokens.clear();
        let (before, after) = self.symbols.tokens.split_at(head);
        for part in [before, &self.marks, &self.forms, after] {
            self.tokens.extend_from_slice(part);
        }
        Ok((&self.tokens, self.symbols.finish_bits()))
    }

    fn write_runs(&mut self) {
        let out = &mut self.symbols;
        out.put(self.runs.len() as u64);
        let mut next = 0;
        for run in &self.runs {
            out.put(u64::from(run.series.0 - next));
            next = run.series.0.saturating_add(1);
        }
        let mut last = 0;
        for run in &self.runs {
            out.put_signed(run.len() as i64 - last);
            last = run.len() as i64;
        }
    }

    fn write_values(&mut self, readings: &Readings) {
        self.forms.clear();
        let mut carry = Carry::new();
        let mut texts = TextWriter::default();
        let out = &mut self.symbols;
        for run in &self.runs {
            let rows = readings.rows().get(run.start..run.end).unwrap_or_default();
            let form = match run.value_type {
                ValueType::Bool => write_bools(rows, out),
                ValueType::Str => {
                    texts.write(rows, readings, out);
                    0
                }
                numbers => self.numbers.write(numbers, rows, &mut carry, out),
            };
            self.forms.push(form | run.value_type.code());
        }
        texts.finish(out);
    }
}

/// What a body must agree with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// How many rows.
    pub rows: usize,
    /// Earliest and latest event time.
    pub event_first: i64,
    pub event_last: i64,
    /// Least series number that may not stand in here.
    pub series_end: u32,
}

/// Scratch to read a body.
#[derive(Default)]
pub(super) struct ColumnReader {
    runs: Vec<Run>,
    times: TimeReader,
    delays: DelayReader,
    numbers: NumberReader,
}

impl ColumnReader {
    /// The readings in these tokens and bits.
    pub fn read(
        &mut self,
        tokens: &[u8],
        bits: &[u8],
        expected: Expected,
    ) -> Result<Readings, Flaw> {
        let mut from = SymbolReader::new(tokens, bits);
        self.read_runs(expected, &mut from)?;
        let marks = from.take(self.runs.len())?;
        let forms = from.take(self.runs.len())?;
        self.read_types(forms)?;
        let mut rows = self.blank_rows(expected.rows);
        let first = expected.event_first;
        let times = self
            .times
            .read(&mut rows, &self.runs, first, STEADY, marks, &mut from)?;
        self.delays
            .read(&mut rows, &self.runs, times, first, &mut from)?;
        marks::read(&mut rows, &self.runs, marks, &mut from)?;
        let texts = self.read_values(&mut rows, forms, &mut from)?;
        from.finish()?;
        self.check_times(&rows, expected)?;
        Ok(Readings::from_parts(rows, texts))
    }

    fn read_runs(&mut self, expected: Expected, from: &mut SymbolReader<'_>) -> Result<(), Flaw> {
        from.column = "runs";
        let count = from.next_max(expected.rows)?;
        self.runs.clear();
        let mut next = 0u64;
        for _ in 0..count {
            let series = next + from.next_max(SERIES_MAX)? as u64;
            if series >= u64::from(expected.series_end) {
                return from.flaw("names a series beyond those that the head says are needed");
            }
            next = series + 1;
            let series = SeriesId(series as u32);
            self.runs.push(Run {
                series,
                value_type: ValueType::F64,
                start: 0,
                end: 0,
            });
        }
        let (mut start, mut len) = (0, 0i64);
        for run in &mut self.runs {
            len = len.wrapping_add(from.next_signed()?);
            let left = expected.rows - start;
            let Some(rows) = usize::try_from(len)
                .ok()
                .filter(|len| (1..=left).contains(len))
            else {
                return from.flaw("has a run that is empty, or longer than the batch");
            };
            (run.start, run.end) = (start, start + rows);
            start += rows;
        }
        if start != expected.rows {
            from.flaw("does not hold all rows")
        } else {
            Ok(())
        }
    }

    fn read_types(&mut self, forms: &[u8]) -> Result<(), Flaw> {
        for (run, form) in self.runs.iter_mut().zip(forms) {
            let Some(value_type) = ValueType::from_code(form & VALUE_TYPE) else {
                return flaw("forms", "names a value type that does not exist");
            };
            let known = match value_type {
                ValueType::Bool => 0b1000,
                ValueType::Str => 0,
                _ => !VALUE_TYPE,
            };
            if form & !VALUE_TYPE & !known != 0 {
                return flaw("forms", "has a form that means nothing");
            }
            run.value_type = value_type;
        }
        Ok(())
    }

    fn blank_rows(&self, count: usize) -> Vec<Row> {
        let mut rows = Vec::with_capacity(count);
        for run in &self.runs {
            let (series, value_type) = (run.series, run.value_type);
            let blank = Row {
                meta: Meta::default(),
                series,
                value_type,
                bits: 0,
            };
            rows.resize(run.end, blank);
        }
        rows
    }

    fn read_values(
        &mut self,
        rows: &mut [Row],
        forms: &[u8],
        from: &mut SymbolReader<'_>,
    ) -> Result<Vec<Box<str>>, Flaw> {
        let mut carry = Carry::new();
        let mut texts = TextReader::default();
        from.column = "values";
        for (run, form) in self.runs.iter().zip(forms) {
            let rows = rows.get_mut(run.start..run.end).unwrap_or_default();
            match run.value_type {
                ValueType::Bool => read_bools(*form, rows, from)?,
                ValueType::Str => texts.read(rows, from)?,
                _ => self.numbers.read(run, *form, rows, &mut carry, from)?,
            }
        }
        texts.finish(from)
    }

    /// Checks that rows are in the decoded order, and within the time that the head tells.
    fn check_times(&self, rows: &[Row], expected: Expected) -> Result<(), Flaw> {
        let (mut least, mut most) = (i64::MAX, i64::MIN);
        for run in &self.runs {
            let mut last = i64::MIN;
            for row in rows.get(run.start..run.end).unwrap_or_default() {
                if row.meta.event_time < last {
                    return flaw("event time", "goes backwards within a run");
                }
                last = row.meta.event_time;
                least = least.min(last);
            }
            most = most.max(last);
        }
        if (least, most) != (expected.event_first, expected.event_last) {
            return flaw("event time", "does not span what the head says");
        }
        Ok(())
    }
}
