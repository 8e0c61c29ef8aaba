//! What judging costs: a reading in the default detector and in the whole stage, memory of a
//! series, a checkpoint of all.
//!
//! `cargo run --release -p tributary-benches --bin detection -- [--json]`. Each measure is a
//! process of its own, so that no memory of another is in it; each figure is the median of its
//! runs. Times are of the processor, kernel included.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use anyhow::{Context, Error, Result, ensure};
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tributary_agent::configuration::{Announcement, Configurations, InForce, Texts};
use tributary_agent::decode::{Rules, UserProperties};
use tributary_agent::detect::{Calm, FastMode, Preset, SeriesDetector, Settings};
use tributary_agent::idle;
use tributary_agent::judge::{Judge, Known};
use tributary_agent::seal::Origin;
use tributary_agent::wal::{Message, Qos, RecordKind};
use tributary_journal::{Disk, Meter, OsDisk};
use tributary_protocol::ids::BufferId;

/// Nanoseconds a reading, bytes a series.
#[derive(Parser)]
struct Arguments {
    /// Runs of each measure.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Readings, or messages, of each run that is timed.
    #[arg(long, default_value_t = 4_000_000)]
    readings: u64,
    /// Series of the measures of memory and checkpoints.
    #[arg(long, default_value_t = 100_000)]
    series: u64,
    /// Series that gave way, of the measure of those.
    #[arg(long, default_value_t = 1_000_000)]
    kept: u64,
    /// Print one JSON object on the last line as well.
    #[arg(long)]
    json: bool,
    /// Runs only this measure, in this process.
    #[arg(long, hide = true)]
    one: Option<String>,
}

/// What a figure is, its key, its digits.
type Figure = (&'static str, &'static str, usize);

/// Name, what it is, and its figures.
const MEASURES: [(&str, &str, &[Figure]); 7] = [
    (
        "detector",
        "the default detector alone, one series, its state in the cache",
        &[("ns a reading", "ns", 1)],
    ),
    (
        "detector-1000",
        "the same, 1,000 series in turn",
        &[("ns a reading", "ns", 1)],
    ),
    (
        "stage",
        "records of JSON messages of one reading, of 1,000 series in turn: parsing, repeats, \
         decoding, look-up, detector",
        &[("ns a message", "ns", 1), ("bytes a message", "bytes", 0)],
    ),
    (
        "memory",
        "the stage with all series, of ten a device; their names, repeats, last readings included",
        &[
            ("resident MiB of all series", "mib", 1),
            ("bytes a series", "bytes", 0),
        ],
    ),
    (
        "checkpoint",
        "of all series, 300 readings of each; what is read is another stage beside it",
        &[
            ("ms to write, on the judging thread", "write_ms", 1),
            ("ms to pack, beside it", "pack_ms", 1),
            ("ms to unpack and read", "read_ms", 1),
            ("MB", "mb", 2),
            ("MB packed, as it is stored", "packed_mb", 2),
            ("bytes a series", "bytes", 0),
            ("bytes a series, packed", "packed_bytes", 0),
            (
                "MiB more resident while it is written and packed, at most",
                "more_mib",
                1,
            ),
        ],
    ),
    (
        "idle",
        "20,000 series, 300 readings of each, of which 10,000 may be watched, in turn: with each \
         message one is taken back, from the disk, and another gives way",
        &[
            ("µs a message, on the judging thread", "us", 1),
            ("µs a row that is written, beside it", "write_us", 1),
            ("bytes of the file a series", "file_bytes", 0),
        ],
    ),
    (
        "kept",
        "so many series that gave way, each after 20 readings (`--kept`); opened again beside a \
         checkpoint that names them",
        &[
            ("series kept", "kept", 0),
            ("MB of the file", "file_mb", 1),
            ("resident MiB of all that are kept", "mib", 1),
            ("MB more of the checkpoint", "checkpoint_mb", 1),
            ("ms to open, checkpoint included", "open_ms", 0),
            (
                "resident MiB more while it is opened, at most",
                "open_mib",
                1,
            ),
            ("µs to take one back from the disk", "back_us", 1),
        ],
    ),
];

/// 2026-05-01T00:00:00Z.
const BEGIN_US: i64 = 1_777_593_600_000_000;
/// Readings of a series: ten a second.
const EVERY_US: i64 = 100_000;
/// Readings before anything is timed.
const WARM: u64 = 1_000;
const METRICS: u64 = 10;
/// Readings of each series where its memory is measured: all marks of its device are taken.
const MEMORY_READINGS: u64 = 8;
/// Readings of each series where what it has learned is written.
const LEARNED: u64 = 300;

/// Each reading is judged, however fast its series is.
fn by_readings() -> Settings {
    Settings {
        fast: FastMode::Readings,
        ..Settings::default()
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(name) = &arguments.one {
        println!("{}", one(name, &arguments)?);
        return Ok(());
    }
    let mut told = Vec::new();
    for (name, about, figures) in MEASURES {
        let runs = (0..arguments.rounds).map(|_| child(name, &arguments));
        let runs = runs.collect::<Result<Vec<Value>>>()?;
        println!("{name}: {about}");
        let mut rows = Vec::new();
        for (what, key, digits) in figures {
            let values = runs.iter().filter_map(|run| run.get(*key)?.as_f64());
            let mut values: Vec<f64> = values.collect();
            values.sort_by(f64::total_cmp);
            let at = |place: usize| values.get(place).copied();
            let spread = (at(values.len() / 2), at(0), values.last().copied());
            let (Some(median), Some(min), Some(max)) = spread else {
                anyhow::bail!("{name} gave no `{key}`");
            };
            println!("  {what:<28}{median:.digits$} ({min:.digits$} to {max:.digits$})");
            rows.push(
                json!({"what": what, "digits": digits, "median": median, "min": min,
                "max": max}),
            );
        }
        told.push(json!({"measure": name, "about": about, "rows": rows}));
    }
    let state = size_of::<Calm>();
    println!("state of the default detector: {state} bytes");
    if arguments.json {
        println!(
            "{}",
            json!({"measures": told, "state_bytes": state, "series": arguments.series})
        );
    }
    Ok(())
}

/// Runs a measure in a process of its own.
fn child(name: &str, arguments: &Arguments) -> Result<Value> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--one", name])
        .args(["--readings", &arguments.readings.to_string()])
        .args(["--series", &arguments.series.to_string()])
        .args(["--kept", &arguments.kept.to_string()])
        .output()
        .context("running this program again")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}: {said}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("what {name} gave"))
}

fn one(name: &str, arguments: &Arguments) -> Result<Value> {
    match name {
        "detector" => Ok(detector(1, arguments.readings)),
        "detector-1000" => Ok(detector(1_000, arguments.readings)),
        "stage" => stage(arguments.readings),
        "memory" => memory(arguments.series),
        "checkpoint" => checkpoint(arguments.series),
        "idle" => idle_series(),
        "kept" => kept(arguments.kept),
        _ => anyhow::bail!("no such measure"),
    }
}

/// Slow waves with noise on them: hardly anything is unusual.
struct Values(u64);

impl Values {
    fn next(&mut self, reading: u64) -> f64 {
        // xorshift; Marsaglia 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let noise = (self.0 >> 11) as f64 / (1_u64 << 53) as f64;
        20.0 + (reading as f64 / 40.0).sin() + noise
    }
}

fn detector(series: usize, readings: u64) -> Value {
    let mut detectors: Vec<SeriesDetector> = Vec::new();
    detectors.resize_with(series, || SeriesDetector::new(Preset::default()));
    let mut values = Values(1);
    let values: Vec<f64> = (0..1 << 16).map(|reading| values.next(reading)).collect();
    let run = |detectors: &mut Vec<SeriesDetector>, from: u64, to: u64| {
        let mut alerts = 0_u64;
        let mut time = BEGIN_US + EVERY_US * from as i64;
        let mut left = (to - from) * series as u64;
        for value in values.iter().cycle() {
            time += EVERY_US;
            for detector in detectors.iter_mut() {
                alerts += u64::from(detector.step(true, time, black_box(*value)).alert);
            }
            left = left.saturating_sub(series as u64);
            if left == 0 {
                break;
            }
        }
        black_box(alerts)
    };
    run(&mut detectors, 0, WARM);
    let each = readings / series as u64;
    let begun = cpu_ns();
    run(&mut detectors, WARM, WARM + each);
    let ns = (cpu_ns() - begun) as f64;
    json!({"ns": ns / (each * series as u64) as f64})
}

/// A stage, and the log that it is told.
struct Told {
    judge: Judge,
    number: u64,
    said: usize,
    out: Vec<tributary_agent::judge::Said>,
}

const BUFFER: BufferId = BufferId([7; 16]);

impl Told {
    fn new(place: &Path, settings: &Settings) -> Result<Self> {
        let mut told = Self {
            judge: Judge::new(b"bench", configurations(place, InForce::default())?),
            number: 0,
            said: 0,
            out: Vec::new(),
        };
        let hash = Rules::builtin().hash();
        told.record(RecordKind::Configuration, &Announcement(hash).write());
        // The version, then the text: see `judge::announce`.
        let text = [&[1], settings.text().as_bytes()].concat();
        told.record(RecordKind::Detection, &text);
        Ok(told)
    }

    fn record(&mut self, kind: RecordKind, bytes: &[u8]) {
        let origin = Origin {
            buffer: BUFFER,
            number: self.number,
        };
        self.number += 1;
        let now = BEGIN_US;
        self.judge
            .record(origin, kind.code(), bytes, now, &mut self.out);
        self.said += self.out.len();
        self.out.clear();
    }
}

fn configurations(place: &Path, in_force: InForce) -> Result<Configurations> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let texts = Texts::open(disk, place)?;
    Ok(Configurations::new(texts, Rules::builtin(), in_force))
}

/// The record of a message with one reading.
fn message(series: u64, reading: u64, values: &mut Values, out: &mut Vec<u8>) -> Result<usize> {
    let time = BEGIN_US + EVERY_US * reading as i64;
    let (device, metric) = (series / METRICS, series % METRICS);
    let topic = format!("plant/d{device:05}/metric{metric}");
    let payload = format!(
        "{{\"ts\":{time},\"value\":{:.3}}}",
        values.next(reading + 37 * series)
    );
    let from = out.len();
    Message {
        // As many connections as the bench of latency has.
        session: Message::session_of(&format!("d{}", device % 200)),
        qos: Qos::AtLeastOnce,
        dup: false,
        retain: false,
        v5: false,
        will: false,
        broker: false,
        packet_id: u16::try_from(reading % 60_000 + 1)?,
        received_time: time + 1_000,
        topic: &topic,
        properties: UserProperties::default(),
        payload: payload.as_bytes(),
    }
    .write(out);
    Ok(out.len() - from)
}

/// Messages that are made at once, before those of them are timed.
const BLOCK: u64 = 50_000;

fn stage(messages: u64) -> Result<Value> {
    let place = tributary_ground::below_target("detection-").map_err(Error::msg)?;
    let mut told = Told::new(place.path(), &by_readings())?;
    let mut values = Values(1);
    let (mut ns, mut bytes, series) = (0, 0, 1_000);
    let (mut block, mut ends) = (Vec::new(), Vec::new());
    let mut made = 0;
    let warm = 300 * series;
    while made < warm + messages {
        block.clear();
        ends.clear();
        for number in made..made + BLOCK {
            message(number % series, number / series, &mut values, &mut block)?;
            ends.push(block.len());
        }
        let begun = cpu_ns();
        let mut from = 0;
        for to in &ends {
            let record = block.get(from..*to).context("a record that was written")?;
            told.record(RecordKind::Message, record);
            from = *to;
        }
        if made >= warm {
            ns += cpu_ns() - begun;
            bytes += block.len() as u64;
        }
        made += BLOCK;
    }
    let timed = (made - warm) as f64;
    let judged = told.judge.counts().judged;
    ensure!(judged == made, "{judged} of {made} readings were judged");
    Ok(json!({"ns": ns as f64 / timed, "bytes": bytes as f64 / timed, "said": told.said}))
}

/// A stage that knows so many series, from so many readings of each.
fn full(place: &Path, series: u64, readings: u64) -> Result<Told> {
    let settings = Settings {
        series_max: usize::try_from(series)?,
        ..by_readings()
    };
    let mut told = Told::new(place, &settings)?;
    let (mut values, mut record) = (Values(1), Vec::new());
    for reading in 0..readings {
        for series in 0..series {
            record.clear();
            message(series, reading, &mut values, &mut record)?;
            told.record(RecordKind::Message, &record);
        }
    }
    let watched = told.judge.watched() as u64;
    ensure!(watched == series, "{watched} series are watched");
    Ok(told)
}

fn memory(series: u64) -> Result<Value> {
    let place = tributary_ground::below_target("detection-").map_err(Error::msg)?;
    // What the first series takes along is not theirs.
    drop(black_box(full(place.path(), 1, MEMORY_READINGS)?));
    let before = resident_bytes("VmRSS:")?;
    let told = full(place.path(), series, MEMORY_READINGS)?;
    let bytes = resident_bytes("VmRSS:")?.saturating_sub(before) as f64;
    drop(black_box(told));
    Ok(json!({"mib": bytes / f64::from(1 << 20), "bytes": bytes / series as f64}))
}

fn checkpoint(series: u64) -> Result<Value> {
    let place = tributary_ground::below_target("detection-").map_err(Error::msg)?;
    let told = full(place.path(), series, LEARNED)?;
    let before = resident_bytes("VmRSS:")?;
    let begun = cpu_ns();
    let known = told.judge.known().context("the stage has seen something")?;
    let write_ms = (cpu_ns() - begun) as f64 / 1e6;
    let begun = cpu_ns();
    let packed = known.pack()?;
    let pack_ms = (cpu_ns() - begun) as f64 / 1e6;
    let more = resident_bytes("VmHWM:")?.saturating_sub(before) as f64;
    let bytes = known.body.len() as f64;
    drop(known);
    let begun = cpu_ns();
    let configurations = configurations(place.path(), InForce::default())?;
    let known = Known::unpack(&packed)?;
    let read = Judge::read_checkpoint(b"bench", |_| configurations, &known.body)?;
    let read_ms = (cpu_ns() - begun) as f64 / 1e6;
    ensure!(read.watched() == told.judge.watched(), "all is read");
    Ok(json!({
        "write_ms": write_ms,
        "pack_ms": pack_ms,
        "more_mib": more / f64::from(1 << 20),
        "read_ms": read_ms,
        "mb": bytes / 1e6,
        "packed_mb": packed.len() as f64 / 1e6,
        "bytes": bytes / series as f64,
        "packed_bytes": packed.len() as f64 / series as f64,
    }))
}

/// Series that may be watched while twice as many speak, and messages between two writes.
const WATCHED: u64 = 10_000;
const BETWEEN_WRITES: u64 = 2_000;

fn idle_series() -> Result<Value> {
    let place = tributary_ground::below_target("detection-").map_err(Error::msg)?;
    let dir = place.path().join("idle");
    let settings = Settings {
        series_max: usize::try_from(WATCHED)?,
        ..Settings::default()
    };
    let mut told = Told::new(place.path(), &settings)?;
    let opened = idle::open(&dir, told.judge.idle(), false, Meter::default());
    let (rows, mut writer) = opened.context("a store in a new place")?;
    told.judge = told.judge.keeping(Box::new(rows));
    let (mut values, mut record) = (Values(1), Vec::new());
    let mut ready = Vec::new();
    // One half learns, and then the other, to which it gives way.
    for half in [0..WATCHED, WATCHED..2 * WATCHED] {
        for reading in 0..LEARNED {
            for series in half.clone() {
                record.clear();
                message(series, reading, &mut values, &mut record)?;
                told.record(RecordKind::Message, &record);
                if reading == 0 && series.is_multiple_of(BETWEEN_WRITES) {
                    writer.write();
                }
            }
        }
    }
    let (mut ns, mut write_ns, mut written) = (0, 0, 0);
    // So far apart that each may give way to another: there are so many turns a second.
    for reading in (1..=3).map(|round| LEARNED + 200 * round) {
        for first in (0..2 * WATCHED).step_by(usize::try_from(BETWEEN_WRITES)?) {
            ready.clear();
            for series in first..first + BETWEEN_WRITES {
                let mut record = Vec::new();
                message(series, reading, &mut values, &mut record)?;
                ready.push(record);
            }
            let begun = cpu_ns();
            for record in &ready {
                told.record(RecordKind::Message, record);
            }
            ns += cpu_ns() - begun;
            let begun = cpu_ns();
            writer.write();
            write_ns += cpu_ns() - begun;
            written += BETWEEN_WRITES;
        }
    }
    let counts = told.judge.counts();
    ensure!(
        counts.lost == 0 && counts.taken_back == written,
        "{counts:?}"
    );
    let bytes = std::fs::metadata(dir.join("db"))?.len() as f64;
    let us = |ns: i64| ns as f64 / 1e3 / written as f64;
    Ok(json!({
        "us": us(ns),
        "write_us": us(write_ns),
        "file_bytes": bytes / (WATCHED + written) as f64,
    }))
}

/// Readings of each series before it gives way.
const BEFORE_IT_GIVES_WAY: u64 = 20;

fn kept(series: u64) -> Result<Value> {
    let place = tributary_ground::below_target("detection-").map_err(Error::msg)?;
    let dir = place.path().join("idle");
    let settings = Settings {
        series_max: usize::try_from(WATCHED)?,
        series_kept_max: usize::try_from(series)?,
        ..by_readings()
    };
    let mut told = Told::new(place.path(), &settings)?;
    let opened = idle::open(&dir, told.judge.idle(), false, Meter::default());
    let (rows, mut writer) = opened.context("a store in a new place")?;
    told.judge = told.judge.keeping(Box::new(rows));
    let (mut values, mut record, mut before) = (Values(1), Vec::new(), (0, 0));
    for spoken in 0..series + WATCHED {
        // One behind the other: so many may give way a second.
        let first = spoken * BEFORE_IT_GIVES_WAY;
        for reading in first..first + BEFORE_IT_GIVES_WAY {
            record.clear();
            message(spoken, reading, &mut values, &mut record)?;
            told.record(RecordKind::Message, &record);
        }
        if spoken + 1 == WATCHED {
            let known = told.judge.known().context("the stage has seen something")?;
            before = (resident_bytes("VmRSS:")?, known.body.len());
        }
        if spoken.is_multiple_of(BETWEEN_WRITES) {
            writer.write();
        }
    }
    writer.write();
    let counts = told.judge.counts();
    let known = told.judge.known().context("the stage has seen something")?;
    ensure!(known.rows == series && counts.lost == 0, "{counts:?}");
    let packed = known.pack()?;
    let checkpoint_mb = (known.body.len() - before.1) as f64 / 1e6;
    drop(known);
    let bytes = resident_bytes("VmRSS:")?.saturating_sub(before.0) as f64;
    drop((told, writer));
    let resident = resident_bytes("VmRSS:")?;
    // The peak begins anew, see proc_pid_clear_refs(5).
    std::fs::write("/proc/self/clear_refs", "5").context("/proc/self/clear_refs")?;
    let begun = cpu_ns();
    let known = Known::unpack(&packed)?;
    let configurations = configurations(place.path(), InForce::default())?;
    let judge = Judge::read_checkpoint(b"bench", |_| configurations, &known.body)?;
    drop(known);
    let opened = idle::open(&dir, judge.idle(), false, Meter::default());
    let open_ms = (cpu_ns() - begun) as f64 / 1e6;
    let more = resident_bytes("VmHWM:")?.saturating_sub(resident) as f64;
    let (rows, _writer) = opened.context("the store again")?;
    let mut told = Told {
        judge: judge.keeping(Box::new(rows)),
        number: 2 + (series + WATCHED) * BEFORE_IT_GIVES_WAY,
        said: 0,
        out: Vec::new(),
    };
    let back_us = taken_back_us(&mut told, series)?;
    Ok(json!({
        "kept": series,
        "file_mb": std::fs::metadata(dir.join("db"))?.len() as f64 / 1e6,
        "mib": bytes / f64::from(1 << 20),
        "checkpoint_mb": checkpoint_mb,
        "open_ms": open_ms,
        "open_mib": more / f64::from(1 << 20),
        "back_us": back_us,
    }))
}

/// µs until one that gave way is judged again, of some of them.
fn taken_back_us(told: &mut Told, series: u64) -> Result<f64> {
    const EVERY: u64 = 997;
    let (mut values, mut record, mut ns) = (Values(1), Vec::new(), 0);
    for spoken in (0..series).step_by(usize::try_from(EVERY)?) {
        record.clear();
        let reading = (series + WATCHED) * BEFORE_IT_GIVES_WAY;
        message(spoken, reading, &mut values, &mut record)?;
        let begun = cpu_ns();
        told.record(RecordKind::Message, &record);
        ns += cpu_ns() - begun;
    }
    let counts = told.judge.counts();
    ensure!(counts.taken_back == series.div_ceil(EVERY), "{counts:?}");
    Ok(ns as f64 / 1e3 / counts.taken_back as f64)
}

/// Processor time of this thread: who else runs is not in it.
fn cpu_ns() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Resident memory of this process, now (`VmRSS:`) or at most (`VmHWM:`), see proc_pid_status(5).
fn resident_bytes(which: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix(which));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib
        .and_then(|kib| kib.trim().parse().ok())
        .with_context(|| format!("no {which} in /proc/self/status"))?;
    Ok(kib * 1024)
}
