//! A CSV file as a device: each column but the first a series, each row a moment.
//!
//! The whole file is checked before anything is published, then read again row by row, so that
//! memory does not grow with it. Values are published as they are written.

pub mod time;

use crate::limits::{CSV_COLUMNS_MAX, CSV_LINE_BYTES_MAX, TEXT_BYTES_MAX};
use crate::reading::{Reading, Series, Value, parse_json_number};
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A line is not what the header promises.
    #[error("{}, line {line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The device's name cannot be part of a topic.
    #[error(
        "`{0}` is not a usable device name: it becomes levels of an MQTT topic, so it must not be \
         empty, hold `+`, `#` or control characters, or begin with `$` or `tributary/`; choose one \
         with --device"
    )]
    Device(String),
}

/// What a file holds, as the check found it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The series, by number.
    pub series: Vec<Series>,
    /// Values that will be published.
    pub readings: u64,
    /// Empty cells: nothing was measured there.
    pub empty: u64,
}

/// A file that is being replayed.
#[derive(Debug)]
pub struct Replay {
    rows: Rows,
    next: VecDeque<Reading>,
    rate: Option<f64>,
    produced: u64,
}

impl Replay {
    /// Checks the file. `device` is its stem unless named; `rate` is messages a second, as fast as
    /// they are acknowledged unless given.
    ///
    /// # Errors
    /// When any line of it cannot be published.
    pub fn open(
        path: &Path,
        device: Option<&str>,
        rate: Option<f64>,
    ) -> Result<(Self, Contents), ReplayError> {
        let stem = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        let device = device.map(str::to_owned).or(stem).unwrap_or_default();
        let is_reserved = device.starts_with('$') || device.starts_with("tributary/");
        if device.is_empty() || is_reserved || !fits_topic(&device) {
            return Err(ReplayError::Device(device));
        }
        let mut rows = Rows::open(path)?;
        let mut contents = Contents {
            series: rows.series(&device),
            ..Contents::default()
        };
        let mut cells = VecDeque::new();
        while rows.read(&mut cells)? {
            contents.readings += cells.len() as u64;
            contents.empty += (rows.metrics.len() - cells.len()) as u64;
            cells.clear();
        }
        let rows = Rows::open(path)?;
        let mut replay = Self {
            rows,
            next: cells,
            rate,
            produced: 0,
        };
        replay.refill();
        Ok((replay, contents))
    }

    /// When the next reading is due: microseconds since the replay began. `None` when there is no
    /// more, or no room for it.
    pub fn poll_timeout(&self, room: usize) -> Option<u64> {
        (room > 0 && !self.is_done()).then(|| self.due_us())
    }

    fn due_us(&self) -> u64 {
        self.rate
            .map_or(0, |rate| (self.produced as f64 * 1e6 / rate) as u64)
    }

    /// Takes the readings that are due, at most `room`; the rest waits.
    pub fn produce(&mut self, elapsed_us: u64, room: usize, out: &mut VecDeque<Reading>) {
        for _ in 0..room {
            if self.due_us() > elapsed_us {
                break;
            }
            let Some(reading) = self.next.pop_front() else {
                break;
            };
            out.push_back(reading);
            self.produced += 1;
            if self.next.is_empty() {
                self.refill();
            }
        }
    }

    /// Messages a second, if limited.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Whether everything was produced.
    pub fn is_done(&self) -> bool {
        self.next.is_empty()
    }

    fn refill(&mut self) {
        while self.next.is_empty() {
            match self.rows.read(&mut self.next) {
                Ok(true) => {}
                Ok(false) => return,
                // Checked before: somebody changed the file meanwhile, and too few values tell.
                Err(error) => {
                    tracing::error!(%error, "the replay ends here");
                    return;
                }
            }
        }
    }
}

fn fits_topic(text: &str) -> bool {
    text.len() <= 256 && !text.contains(|c: char| matches!(c, '+' | '#') || c.is_control())
}

/// The rows of a file.
#[derive(Debug)]
struct Rows {
    path: PathBuf,
    file: BufReader<File>,
    metrics: Vec<String>,
    line: u64,
    text: String,
    seq: u64,
}

impl Rows {
    fn open(path: &Path) -> Result<Self, ReplayError> {
        let opened = File::open(path);
        let file = opened.map_err(|error| ReplayError::Io {
            path: path.to_owned(),
            error,
        })?;
        let mut rows = Self {
            path: path.to_owned(),
            file: BufReader::new(file),
            metrics: Vec::new(),
            line: 0,
            text: String::new(),
            seq: 0,
        };
        if !rows.read_line()? {
            return Err(rows.wrong("there is no header: the file is empty"));
        }
        let header = rows.text.strip_prefix('\u{feff}').unwrap_or(&rows.text);
        let names = split(header).ok_or_else(|| rows.wrong("a quote is not closed"))?;
        rows.metrics = names.into_iter().skip(1).collect();
        if rows.metrics.is_empty() || rows.metrics.len() > CSV_COLUMNS_MAX {
            return Err(rows.wrong(format!(
                "a time and 1 to {CSV_COLUMNS_MAX} further columns are expected, separated by \
                 commas"
            )));
        }
        let mut seen = HashSet::new();
        for name in &rows.metrics {
            if !seen.insert(name) {
                return Err(rows.wrong(format!("two columns are named `{name}`")));
            }
            if name.is_empty() || name.contains('/') || !fits_topic(name) {
                return Err(rows.wrong(format!(
                    "the column `{name}` cannot be the last level of a topic: name it without \
                     `/`, `+`, `#` and control characters"
                )));
            }
        }
        Ok(rows)
    }

    fn series(&self, device: &str) -> Vec<Series> {
        let one = |metric: &String| Series {
            device: device.to_owned(),
            metric: metric.clone(),
            unit: None,
        };
        self.metrics.iter().map(one).collect()
    }

    /// Appends the readings of the next row; false at the end of the file.
    fn read(&mut self, out: &mut VecDeque<Reading>) -> Result<bool, ReplayError> {
        loop {
            if !self.read_line()? {
                return Ok(false);
            }
            if !self.text.is_empty() {
                break;
            }
        }
        let cells = split(&self.text).ok_or_else(|| self.wrong("a quote is not closed"))?;
        let mut cells = cells.into_iter();
        let at = cells.next().unwrap_or_default();
        let time_us = time::parse(&at).ok_or_else(|| {
            self.wrong(format!(
                "`{at}` is neither RFC 3339 nor YYYY-MM-DD HH:MM:SS"
            ))
        })?;
        if cells.len() != self.metrics.len() {
            let (is, wanted) = (cells.len() + 1, self.metrics.len() + 1);
            return Err(self.wrong(format!("{is} columns where the header names {wanted}")));
        }
        for (series, cell) in (0u32..).zip(cells) {
            if cell.len() > TEXT_BYTES_MAX {
                return Err(self.wrong(format!("a cell of more than {TEXT_BYTES_MAX} bytes")));
            }
            if let Some((value, written)) = value_of(cell) {
                out.push_back(Reading {
                    series,
                    seq: self.seq,
                    time_us,
                    value,
                    written,
                    fault: None,
                });
                self.seq += 1;
            }
        }
        Ok(true)
    }

    fn read_line(&mut self) -> Result<bool, ReplayError> {
        self.text.clear();
        self.line += 1;
        let mut limited = (&mut self.file).take(CSV_LINE_BYTES_MAX as u64 + 1);
        let read = limited.read_line(&mut self.text);
        let len = match read {
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Err(self.wrong("the line is not UTF-8"));
            }
            Err(error) => {
                return Err(ReplayError::Io {
                    path: self.path.clone(),
                    error,
                });
            }
        };
        if len > CSV_LINE_BYTES_MAX {
            return Err(self.wrong(format!("a line of more than {CSV_LINE_BYTES_MAX} bytes")));
        }
        let kept = self.text.trim_end_matches(['\n', '\r']).len();
        self.text.truncate(kept);
        Ok(len > 0)
    }

    fn wrong(&self, why: impl Into<String>) -> ReplayError {
        ReplayError::Line {
            path: self.path.clone(),
            line: self.line,
            why: why.into(),
        }
    }
}

/// The cells of one line; quotes as in RFC 4180, but no line break within them.
fn split(line: &str) -> Option<Vec<String>> {
    let mut cells = Vec::new();
    let mut rest = line;
    loop {
        let (cell, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_cell(quoted)?,
            None => match rest.split_once(',') {
                Some((cell, after)) => (cell.trim().to_owned(), Some(after)),
                None => (rest.trim().to_owned(), None),
            },
        };
        cells.push(cell);
        match after {
            Some(after) => rest = after,
            None => return Some(cells),
        }
    }
}

fn quoted_cell(mut rest: &str) -> Option<(String, Option<&str>)> {
    let mut cell = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        cell.push_str(part);
        if let Some(more) = after.strip_prefix('"') {
            cell.push('"');
            rest = more;
        } else if after.is_empty() {
            return Some((cell, None));
        } else {
            return Some((cell, Some(after.strip_prefix(',')?)));
        }
    }
}

/// What a cell says, and its own text where that can stand in JSON as it is. `None` when empty.
fn value_of(cell: String) -> Option<(Value, Option<Box<str>>)> {
    match cell.as_str() {
        "" => return None,
        "true" => return Some((Value::Bool(true), None)),
        "false" => return Some((Value::Bool(false), None)),
        _ => {}
    }
    if is_json_number(&cell)
        && let Some(value) = parse_json_number(&cell)
    {
        // An integer prints as it was written; the rest goes out in its own words.
        let written = !matches!(value, Value::I64(_));
        let written = written.then(|| cell.into_boxed_str());
        return Some((value, written));
    }
    // `+1`, `.5`, `1.`: numbers to people, but not to JSON.
    let numeric =
        cell.starts_with(['+', '-', '.']) || cell.starts_with(|c: char| c.is_ascii_digit());
    if numeric
        && let Ok(value) = cell.parse::<f64>()
        && value.is_finite()
        && cell.contains('.')
    {
        return Some((Value::F64(value), None));
    }
    Some((Value::Text(cell.into()), None))
}

/// RFC 8259, section 6.
fn is_json_number(text: &str) -> bool {
    let digits = |text: &mut &str| {
        let len = text.bytes().take_while(u8::is_ascii_digit).count();
        *text = text.get(len..).unwrap_or("");
        len
    };
    let mut rest = text.strip_prefix('-').unwrap_or(text);
    let leading_zero = rest.starts_with('0');
    let whole = digits(&mut rest);
    if whole == 0 || (leading_zero && whole > 1) {
        return false;
    }
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        if digits(&mut rest) == 0 {
            return false;
        }
    }
    if let Some(after) = rest.strip_prefix(['e', 'E']) {
        rest = after.strip_prefix(['+', '-']).unwrap_or(after);
        if digits(&mut rest) == 0 {
            return false;
        }
    }
    rest.is_empty()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn replay(text: &str) -> Result<(Vec<Reading>, Contents), ReplayError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("room-7.csv");
        std::fs::write(&path, text).unwrap();
        let (mut replay, contents) = Replay::open(&path, None, None)?;
        let mut out = VecDeque::new();
        while replay.poll_timeout(2).is_some() {
            replay.produce(0, 2, &mut out);
        }
        assert_eq!(out.len() as u64, contents.readings);
        Ok((out.into(), contents))
    }

    #[test]
    fn a_real_file_keeps_its_numbers_as_they_are_written() {
        let (readings, contents) = replay(
            "timestamp,voltage,light,occupancy,note\n\
             2007-02-01T00:00:00Z,243.150,426,true,\"on, \"\"high\"\"\"\n\
             2007-02-01 00:01:00,1e3,429.5,false,\n",
        )
        .unwrap();
        assert_eq!(contents.empty, 1);
        assert_eq!(contents.series[1].topic(), "room-7/light");
        let mut json = Vec::new();
        readings[0].write_json(None, true, &mut json);
        let text = String::from_utf8(json).unwrap();
        assert_eq!(text, r#"{"value":243.150,"ts":1170288000000,"seq":0}"#);
        let values: Vec<Value> = readings.iter().map(|r| r.value.clone()).collect();
        assert_eq!(
            values,
            [
                Value::F64(243.15),
                Value::I64(426),
                Value::Bool(true),
                Value::Text("on, \"high\"".into()),
                Value::F64(1000.0),
                Value::F64(429.5),
                Value::Bool(false),
            ]
        );
        let seqs: Vec<u64> = readings.iter().map(|r| r.seq).collect();
        assert_eq!(
            seqs,
            [0, 1, 2, 3, 4, 5, 6],
            "the device counts, not the series"
        );
    }

    #[test]
    fn odd_numbers_stay_numbers_and_words_stay_words() {
        let rows = [
            (".5", Value::F64(0.5)),
            ("1.", Value::F64(1.0)),
            ("-0", Value::F64(-0.0)),
            ("-0.0", Value::F64(-0.0)),
            ("007", Value::Text("007".into())),
            ("NaN", Value::Text("NaN".into())),
            ("1e999", Value::Text("1e999".into())),
            ("9223372036854775807", Value::I64(i64::MAX)),
            (
                "9223372036854775808",
                Value::F64(9_223_372_036_854_775_808.0),
            ),
        ];
        for (text, expected) in rows {
            let (readings, _) = replay(&format!("t,v\n2020-01-01 00:00:00,{text}\n")).unwrap();
            assert_eq!(readings[0].value, expected, "{text}");
            let mut json = Vec::new();
            readings[0].write_json(None, true, &mut json);
            serde_json::from_slice::<serde_json::Value>(&json).expect(text);
        }
    }

    #[test]
    fn a_bad_line_is_named_before_anything_is_published() {
        for (text, line, why) in [
            ("", 1, "empty"),
            ("timestamp\n", 1, "further columns"),
            ("t,a/b\n", 1, "`a/b`"),
            (
                "t,v\n2020-01-01 00:00:00,1\nyesterday,2\n",
                3,
                "`yesterday`",
            ),
            ("t,v,v\n", 1, "two columns"),
            ("t,v\n2020-01-01 00:00:00,1,2\n", 2, "3 columns"),
            ("t,v\n2020-01-01 00:00:00,\"1\n", 2, "quote"),
        ] {
            let error = replay(text).unwrap_err().to_string();
            assert!(
                error.contains(&format!("line {line}")) && error.contains(why),
                "{error}"
            );
        }
    }

    #[test]
    fn a_rate_spreads_the_readings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        std::fs::write(
            &path,
            "t,v\n".to_owned() + &"2020-01-01 00:00:00,1\n".repeat(10),
        )
        .unwrap();
        let (mut replay, _) = Replay::open(&path, Some("plant-9/x"), Some(10.0)).unwrap();
        let mut out = VecDeque::new();
        replay.produce(450_000, 100, &mut out);
        assert_eq!((out.len(), replay.poll_timeout(1)), (5, Some(500_000)));
        assert_eq!(replay.poll_timeout(0), None);
    }
}
