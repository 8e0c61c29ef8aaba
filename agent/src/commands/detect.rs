//! `tributary-agent detect`: series out of CSV files through the gateway's own detectors.

use crate::config::{Config, ConfigError};
use crate::decode::time_of;
use crate::detect::{
    Change, DeviceSlot, FastMode, Judgement, Part, Place, Preset, RuleChange, RuleEngine,
    RuleEvent, Sample, SeriesDetector, SeriesSlot, Settings, StateGroup,
};
use clap::Args;
use csv::{ByteRecord, ReaderBuilder, Writer};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Run the detectors over CSV files, row by row, as the gateway does over readings.
///
/// Every `timestamp,value` file below --input is written to the same place below --output, with a
/// column `anomaly_score` from 0 to 1: 0.5 or more is an alert. A file with more columns is a
/// machine, each a channel of it, and its score is that of an abnormal state. Times are RFC 3339,
/// with a space for the T and UTC where none is said, or a number of s, ms, µs or ns since 1970.
/// With an agent's --config its preset holds, and its rules judge each row, too: one with which a
/// rule raises an alert scores at least 0.5. For rules a file's device is its path without `.csv`,
/// and a column's name is its metric. A file that can't be gone through to its end is named with
/// the line, and nothing is written for it; the others are. Exit codes: 0 well, 1 a file could not
/// be read or written, 2 usage or configuration.
#[derive(Args, Debug)]
pub struct DetectArguments {
    /// The folder whose `.csv` files are read.
    #[arg(long, value_name = "DIR")]
    input: PathBuf,
    /// The folder to write to; made if it is not there.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// How easily a series alerts: sensitive, balanced, quiet or calm [default: what --config says,
    /// or calm]
    #[arg(long, value_name = "PRESET", value_parser = preset)]
    preset: Option<Preset>,
    /// Say of every alert why it was raised.
    #[arg(long)]
    explain: bool,
}

fn preset(text: &str) -> Result<Preset, String> {
    let found = Preset::NAMES.iter().find(|(name, _)| *name == text);
    found.map(|(_, preset)| *preset).ok_or_else(|| {
        let names = Preset::NAMES.map(|(name, _)| name);
        format!("expected one of {}", names.join(", "))
    })
}

/// Why a file could not be gone through.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// The file system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// What is written would lie in what is read.
    #[error("{}: lies in the folder that is read: choose another --output", .0.display())]
    Same(PathBuf),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A row that is none.
    #[error(
        "{}, line {line}: {why}; mend or remove that line: nothing is written for this file",
        path.display()
    )]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Some files; why is said of each.
    #[error("{bad} of {all} files could not be gone through: they are named above")]
    Files {
        /// How many.
        bad: usize,
        /// Of how many.
        all: usize,
    },
}

impl DetectError {
    /// Whether it is about one file, and says nothing of the others.
    fn is_of_a_file(&self) -> bool {
        match self {
            Self::Io { path, .. } => path != Path::new(STANDARD_OUTPUT),
            Self::Row { .. } => true,
            Self::Same(_) | Self::Config(_) | Self::Files { .. } => false,
        }
    }
}

/// Stands for its path in an error.
const STANDARD_OUTPUT: &str = "standard output";

/// What was gone through.
#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    files: u64,
    rows: u64,
    alerts: u64,
    /// Rows without a number.
    missing: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.rows += other.rows;
        self.alerts += other.alerts;
        self.missing += other.missing;
    }
}

/// Goes through every file. What is wrong with one is said there and then, and the next one is
/// gone through.
///
/// # Errors
/// How many files can't be read or written, or that nothing can be gone through at all.
pub fn run(
    arguments: &DetectArguments,
    config: Option<&Path>,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), DetectError> {
    let mut settings = match config {
        Some(path) => Config::load(Some(path))?.detect,
        None => Settings::default(),
    };
    if config.is_some() && settings.fast == FastMode::Windows {
        note(
            notes,
            "rows are judged one by one, however close they are: `detect.fast` is for gateways",
        )?;
    }
    settings.preset = arguments.preset.unwrap_or(settings.preset);
    apart(&arguments.input, &arguments.output)?;
    let mut files = Vec::new();
    find(&arguments.input, &mut files)?;
    files.sort();
    let (mut counts, mut bad) = (Counts::default(), 0);
    for file in &files {
        let place = file.strip_prefix(&arguments.input).unwrap_or(file);
        let to = arguments.output.join(place);
        let mut pass = Pass {
            explains: arguments.explain,
            settings: &settings,
            device: place.with_extension("").display().to_string(),
            from: file,
            to: &to,
            line: 0,
        };
        match pass.run(out) {
            Ok(of_file) => counts += of_file,
            Err(error) if error.is_of_a_file() => {
                bad += 1;
                note(notes, &error.to_string())?;
            }
            Err(error) => return Err(error),
        }
    }
    let Counts {
        files: good,
        rows,
        alerts,
        missing,
    } = counts;
    let counted =
        format!("{good} files, {rows} rows ({missing} without a number), {alerts} alerts");
    note(notes, &counted)?;
    match bad {
        0 => Ok(()),
        bad => Err(DetectError::Files {
            bad,
            all: files.len(),
        }),
    }
}

fn note(notes: &mut dyn Write, text: &str) -> Result<(), DetectError> {
    writeln!(notes, "{text}").map_err(|error| DetectError::Io {
        path: "standard error".into(),
        error,
    })
}

/// Makes the folder that is written to, unless it is the one that is read, or lies in it: a file
/// would be overwritten while it is read, or read again.
fn apart(input: &Path, output: &Path) -> Result<(), DetectError> {
    let failed = |path: &Path, error| DetectError::Io {
        path: path.to_owned(),
        error,
    };
    let from = input.canonicalize().map_err(|error| failed(input, error))?;
    std::fs::create_dir_all(output).map_err(|error| failed(output, error))?;
    let to = output
        .canonicalize()
        .map_err(|error| failed(output, error))?;
    match to.starts_with(from) {
        true => Err(DetectError::Same(output.to_owned())),
        false => Ok(()),
    }
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), DetectError> {
    let failed = |error| DetectError::Io {
        path: folder.to_owned(),
        error,
    };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if entry.file_type().map_err(failed)?.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|end| end == "csv") {
            files.push(path);
        }
    }
    Ok(())
}

/// What judges the rows of a file.
struct Judge {
    /// The columns behind the time.
    names: Vec<String>,
    detector: Detector,
    rules: RuleEngine,
    events: Vec<RuleEvent>,
}

enum Detector {
    /// One series.
    Series(Box<SeriesDetector>),
    /// The channels of one machine.
    Group(StateGroup),
}

impl Judge {
    /// What is for a file with these columns behind the time.
    fn of(names: Vec<String>, settings: &Settings) -> Self {
        let detector = match names.len() {
            0 | 1 => Detector::Series(Box::new(SeriesDetector::new(settings.preset))),
            channels => Detector::Group(StateGroup::new(channels)),
        };
        Self {
            names,
            detector,
            rules: RuleEngine::new(Arc::clone(&settings.rules)),
            events: Vec::new(),
        }
    }

    /// What the detector makes of a row: its severity, and why it is an alert if it is one.
    fn detect(&mut self, weekly: bool, time: i64, values: &[f64]) -> (f64, Option<String>) {
        match &mut self.detector {
            Detector::Series(detector) => {
                let value = values.first().copied().unwrap_or(f64::NAN);
                let judged = detector.step(weekly, time, value);
                let why = judged.alert.then(|| explain(&judged, value));
                (judged.severity, why)
            }
            Detector::Group(group) => {
                let row = group.step(values);
                let why = match row.change {
                    Change::None => None,
                    Change::Ended => Some("the abnormal state is over".to_owned()),
                    Change::Began => group.farthest().map(|(channel, deviations)| {
                        let name = self.names.get(channel).map_or("", String::as_str);
                        format!(
                            "an abnormal state begins: {name} is {deviations:.1} deviations off"
                        )
                    }),
                };
                (f64::from(row.severity()), why)
            }
        }
    }

    /// What rules raise with a row.
    fn rules(&mut self, device: &str, time: i64, values: &[f64]) -> Option<String> {
        for (slot, (metric, value)) in (0..).zip(self.names.iter().zip(values)) {
            let place = Place {
                series: SeriesSlot(slot),
                device: DeviceSlot(0),
                device_name: device,
                metric,
                unit: "",
            };
            let sample = Sample {
                event_time: time,
                received_time: time,
                value: *value,
                late: false,
                trusted: true,
            };
            self.rules.step(&place, &sample, &mut self.events);
        }
        let raised = self.events.drain(..);
        let raised = raised.filter(|event| event.change == RuleChange::Raised);
        let said: Vec<String> = raised
            .map(|event| format!("rule {}: {}", event.rule, event.text))
            .collect();
        (!said.is_empty()).then(|| said.join("; "))
    }
}

/// A file that is written, removed unless it comes to its name.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // It is not there once it was renamed.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A file that is gone through.
struct Pass<'a> {
    explains: bool,
    settings: &'a Settings,
    /// What rules take the file for.
    device: String,
    from: &'a Path,
    to: &'a Path,
    line: u64,
}

impl Pass<'_> {
    fn wrong(&self, why: impl Into<String>) -> DetectError {
        self.wrong_at(self.line, why)
    }

    fn wrong_at(&self, line: u64, why: impl Into<String>) -> DetectError {
        DetectError::Row {
            path: self.from.to_owned(),
            line,
            why: why.into(),
        }
    }

    /// Goes through the file. What is written has its name only once it is whole.
    fn run(&mut self, out: &mut dyn Write) -> Result<Counts, DetectError> {
        let to = self.to;
        let failed = |path: &Path, error| DetectError::Io {
            path: path.to_owned(),
            error,
        };
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        }
        let partial = Partial(to.with_added_extension("partial"));
        let file = File::create(&partial.0).map_err(|error| failed(&partial.0, error))?;
        let counts = self.rows(file, out)?;
        std::fs::rename(&partial.0, to).map_err(|error| failed(to, error))?;
        Ok(counts)
    }

    /// Judges every row, into `written`.
    fn rows(&mut self, written: File, out: &mut dyn Write) -> Result<Counts, DetectError> {
        let failed = |path: &Path, error| DetectError::Io {
            path: path.to_owned(),
            error,
        };
        let (from, to) = (self.from, self.to);
        let file = File::open(from).map_err(|error| failed(from, error))?;
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .from_reader(BufReader::new(file));
        let mut writer = Writer::from_writer(BufWriter::new(written));
        let (mut row, mut judge) = (ByteRecord::new(), None);
        let mut counts = Counts {
            files: 1,
            ..Counts::default()
        };
        loop {
            self.line += 1;
            let read = reader.read_byte_record(&mut row);
            if !read.map_err(|error| self.unread(error))? {
                break;
            }
            // Behind a cell with line breaks, rows are not lines.
            self.line = row.position().map_or(self.line, csv::Position::line);
            match &mut judge {
                None => {
                    let names = row.iter().skip(1);
                    let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
                    judge = Some(Judge::of(names.map(name).collect(), self.settings));
                    row.push_field(b"anomaly_score");
                }
                Some(judge) => {
                    let (severity, why) = self.judge(judge, &row, &mut counts)?;
                    counts.rows += 1;
                    if let Some(why) = why {
                        counts.alerts += 1;
                        self.explain(&why, out)?;
                    }
                    let score = severity / (1.0 + severity);
                    row.push_field(format!("{score:.6}").as_bytes());
                }
            }
            let wrote = writer.write_byte_record(&row);
            wrote.map_err(|error| failed(to, error.into()))?;
        }
        writer.flush().map_err(|error| failed(to, error))?;
        Ok(counts)
    }

    /// Why no row can be read.
    fn unread(&self, error: csv::Error) -> DetectError {
        match error.into_kind() {
            csv::ErrorKind::Io(error) => DetectError::Io {
                path: self.from.to_owned(),
                error,
            },
            csv::ErrorKind::UnequalLengths {
                expected_len,
                len,
                pos,
            } => {
                let line = pos.map_or(self.line, |place| place.line());
                let why = format!("it has {len} cells, and the first line {expected_len}");
                self.wrong_at(line, why)
            }
            other => self.wrong(format!("{other:?}")),
        }
    }

    /// The severity of a row, and why it is an alert if it is one.
    fn judge(
        &self,
        judge: &mut Judge,
        row: &ByteRecord,
        counts: &mut Counts,
    ) -> Result<(f64, Option<String>), DetectError> {
        let (time, values) = cells(row).map_err(|why| self.wrong(why))?;
        counts.missing += values.iter().filter(|value| !value.is_finite()).count() as u64;
        let (severity, why) = judge.detect(self.settings.weekly, time, &values);
        let Some(ruled) = judge.rules(&self.device, time, &values) else {
            return Ok((severity, why));
        };
        let why = why.into_iter().chain([ruled]).collect::<Vec<_>>();
        Ok((severity.max(1.0), Some(why.join("; "))))
    }

    fn explain(&self, why: &str, out: &mut dyn Write) -> Result<(), DetectError> {
        if !self.explains {
            return Ok(());
        }
        let said = writeln!(out, "{}:{}: {why}", self.from.display(), self.line);
        said.map_err(|error| DetectError::Io {
            path: STANDARD_OUTPUT.into(),
            error,
        })
    }
}

/// The time and the values of a row; what is no value is not a number.
fn cells(row: &ByteRecord) -> Result<(i64, Vec<f64>), String> {
    let mut texts = row.iter().map(std::str::from_utf8);
    let mut next = || texts.next().map(|text| text.map(str::trim));
    let not_utf8 = |_| "a cell that is not UTF-8".to_owned();
    let time = next().ok_or("it is empty")?.map_err(not_utf8)?;
    let time = time_of(time).map_err(|why| format!("its time `{time}` {why}"))?;
    let mut values = Vec::new();
    while let Some(value) = next() {
        values.push(match value.map_err(not_utf8)? {
            "" => f64::NAN,
            value => value
                .parse()
                .map_err(|_| format!("`{value}` is no number"))?,
        });
    }
    match values.is_empty() {
        true => Err("it has a time and no value".to_owned()),
        false => Ok((time, values)),
    }
}

fn explain(judged: &Judgement, value: f64) -> String {
    let why = match judged.part {
        Some(Part::Value) => "far from every value that was seen lately",
        Some(Part::Weekly) => "far from what is usual at this time of the week",
        Some(Part::Mean) => "part of a mean that is far from every one that was seen lately",
        Some(Part::Step) => "a step unlike every one that was seen lately",
        Some(Part::Stuck) => "the same value for much longer than ever before",
        None => "nothing",
    };
    format!("{value} is {why}: severity {:.2}", judged.severity)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    /// Goes through one file of this content: what was written, and what was said.
    fn judged(content: &str) -> Result<(String, String), DetectError> {
        judged_with(content, None)
    }

    /// The same, with a configuration.
    fn judged_with(content: &str, text: Option<&str>) -> Result<(String, String), DetectError> {
        noted(content, text).map(|(written, said, _)| (written, said))
    }

    /// The same, and what was noted.
    fn noted(content: &str, text: Option<&str>) -> Result<(String, String, String), DetectError> {
        let dir = tempfile::tempdir().unwrap();
        let config = text.map(|text| {
            let path = dir.path().join("agent.toml");
            std::fs::write(&path, text).unwrap();
            path
        });
        let arguments = DetectArguments {
            input: dir.path().join("in"),
            output: dir.path().join("out"),
            preset: Some(Preset::Sensitive),
            explain: true,
        };
        std::fs::create_dir_all(arguments.input.join("deep")).unwrap();
        std::fs::write(arguments.input.join("deep/a.csv"), content).unwrap();
        std::fs::write(arguments.input.join("note.txt"), "no series").unwrap();
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        run(&arguments, config.as_deref(), &mut out, &mut notes)?;
        let written = std::fs::read_to_string(arguments.output.join("deep/a.csv")).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ok((written, text(out), text(notes)))
    }

    #[test]
    fn it_says_that_rows_are_judged_one_by_one_where_a_gateway_would_not() {
        let of = |text| noted("timestamp,value\n1,2\n", text).unwrap().2;
        let counted = "1 files, 1 rows (0 without a number), 0 alerts\n";
        assert_eq!(of(None), counted);
        assert_eq!(of(Some("[detect]\nfast = \"readings\"\n")), counted);
        let said = of(Some("[detect]\n"));
        assert!(said.starts_with("rows are judged one by one, "), "{said}");
        assert!(said.ends_with(counted), "{said}");
    }

    #[test]
    fn a_spike_is_found_told_and_written_where_it_was() {
        let mut content = String::from("timestamp,value\n");
        for i in 0..300 {
            let value = if i == 250 { 900 } else { i % 7 };
            content += &format!("{},{value}\n", 1_700_000_000 + i);
        }
        let (written, said) = judged(&content).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines[0], "timestamp,value,anomaly_score");
        assert_eq!(lines.len(), 301);
        let score = |line: &str| line.rsplit(',').next().unwrap().parse::<f64>().unwrap();
        let alerts: Vec<usize> = (1..301).filter(|at| score(lines[*at]) >= 0.5).collect();
        assert_eq!(alerts, [251]);
        assert!(
            lines[251].starts_with("1700000250,900,0.9"),
            "{}",
            lines[251]
        );
        assert!(
            said.contains("deep/a.csv:252: 900 is far from every value"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1);
    }

    #[test]
    fn columns_beside_each_other_are_a_machine() {
        let mut content = String::from("timestamp,load,heat\n");
        for i in 0..900u32 {
            let noise = f64::from(i.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
            let heat = if i < 700 { noise } else { noise + 5.0 };
            content += &format!("2026-01-01 00:{:02}:{:02},{noise},{heat}\n", i / 60, i % 60);
        }
        let (written, said) = judged(&content).unwrap();
        assert!(written.starts_with("timestamp,load,heat,anomaly_score\n"));
        assert!(said.contains("an abnormal state begins: heat is"), "{said}");
    }

    #[test]
    fn rules_of_a_configuration_judge_each_row() {
        let rules = "[[detect.rule]]\nname = \"hot\"\nkind = \"range\"\ndevice = \"deep/a\"\n\
                     metric = \"heat\"\nmin = 0\nmax = 9\n";
        let content = "timestamp,heat\n0,1\n1,12\n2,13\n3,1\n4,11\n";
        let (written, said) = judged_with(content, Some(rules)).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines[2..4], ["1,12,0.500000", "2,13,0.000000"]);
        assert_eq!(lines[5], "4,11,0.500000");
        assert_eq!(said.matches("rule hot: ").count(), 2, "{said}");
        let wrong = judged_with(content, Some("[detect]\npreset = 3\n")).unwrap_err();
        assert!(wrong.to_string().contains("agent.toml: line 2"), "{wrong}");
    }

    #[test]
    fn a_file_that_is_wrong_is_named_with_its_line_and_holds_up_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in"), dir.path().join("out"));
        let head = "timestamp,\"a\nvalue\"\n2026-01-01 00:00:00,\n";
        let wrong = [
            ("a.csv", "yesterday,1", "its time `yesterday`"),
            ("b.csv", "2026-01-01 00:00:01,one", "`one` is no number"),
            (
                "c.csv",
                "2026-01-01 00:00:01",
                "it has 1 cells, and the first line 2",
            ),
        ];
        std::fs::create_dir_all(&input).unwrap();
        for (name, row, _) in wrong {
            std::fs::write(input.join(name), format!("{head}{row}\n")).unwrap();
        }
        std::fs::create_dir(input.join("d.csv")).unwrap();
        std::fs::write(input.join("good.csv"), head).unwrap();
        std::fs::create_dir_all(output.join("a.csv.partial")).unwrap();
        std::fs::write(output.join("b.csv"), "of a run before").unwrap();
        let arguments = DetectArguments {
            input,
            output: output.clone(),
            preset: None,
            explain: false,
        };
        let mut notes = Vec::new();
        let error = run(&arguments, None, &mut Vec::new(), &mut notes).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("3 of 4 files could not be gone through"),
            "{error}"
        );
        let notes = String::from_utf8(notes).unwrap();
        assert!(notes.contains("a.csv.partial: "), "{notes}");
        for (name, _, why) in &wrong[1..] {
            let said = format!("{name}, line 4: {why}");
            assert!(
                notes.contains(&said) && notes.contains("mend or remove"),
                "{notes}"
            );
        }
        assert!(
            notes.ends_with("1 files, 1 rows (1 without a number), 0 alerts\n"),
            "{notes}"
        );
        let mut written: Vec<_> = std::fs::read_dir(&output).unwrap().collect();
        written.retain(|entry| entry.as_ref().unwrap().file_type().unwrap().is_file());
        assert_eq!(
            written.len(),
            2,
            "good.csv, and b.csv as it was: {written:?}"
        );
        let before = std::fs::read_to_string(output.join("b.csv")).unwrap();
        assert_eq!(before, "of a run before");
    }

    #[test]
    fn a_file_without_rows_and_rows_without_numbers_are_gone_through() {
        assert!(judged("").is_ok(), "an empty file holds no rows");
        assert!(judged("timestamp,value\n0,NaN\n1,inf\n-1,2\n").is_ok());
    }

    #[test]
    fn nothing_is_written_over_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.csv"), "timestamp,value\n0,1\n").unwrap();
        for output in [dir.path().to_owned(), dir.path().join("deeper")] {
            let arguments = DetectArguments {
                input: dir.path().to_owned(),
                output,
                preset: None,
                explain: false,
            };
            let error = run(&arguments, None, &mut Vec::new(), &mut Vec::new()).unwrap_err();
            assert!(matches!(error, DetectError::Same(_)), "{error}");
        }
        let kept = std::fs::read_to_string(dir.path().join("a.csv")).unwrap();
        assert_eq!(kept, "timestamp,value\n0,1\n");
    }
}
