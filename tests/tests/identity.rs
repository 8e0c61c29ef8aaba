//! One identity on two machines, and what was kept apart for it: the way out of each, with real
//! programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tributary_protocol::batch::{SealedBatch, Sealer, Spec};
use tributary_protocol::ids::{BatchKey, Lane, SeriesId};
use tributary_protocol::reading::{Meta, Readings, Value};
use tributary_tests::programs::program;
use tributary_tests::site::{Site, backlog_gone};

const ROWS: u32 = 40;
/// 2026-11-20T20:00:00Z.
const EPOCH_US: i64 = 1_795_204_800_000_000;

/// What a command of the aggregator says about this site.
fn command(site: &Site, arguments: &[&str]) -> Output {
    let config = site.path().join("aggregator.toml");
    let mut command = Command::new(program("tributary-aggregator"));
    command.args(arguments).arg("--config").arg(config);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).into_owned()
}

/// What it says as JSON, a value a line.
fn lines(output: &Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// Readings of the first series of a buffer under a number that is held: what a clone would have
/// sealed, had it these values.
fn contrary(key: BatchKey, value: Value<'_>) -> SealedBatch {
    let mut block = Readings::new();
    for row in 0..ROWS {
        let meta = Meta {
            event_time: EPOCH_US + i64::from(row),
            received_time: EPOCH_US,
            ..Meta::default()
        };
        block.push(SeriesId(0), meta, value).unwrap();
    }
    let spec = Spec {
        key,
        sealed_at: EPOCH_US,
        series_needed: 1,
        covers: Vec::new(),
    };
    Sealer::new().readings(&spec, &mut block).unwrap()
}

/// Puts contraries to what is held into quarantine, one of each type; how many.
fn fill_quarantine(site: &Site, held: &serde_json::Value) -> usize {
    let text = |name: &str| held[name].as_str().unwrap().to_owned();
    let uuid = text("agent").split_once('/').unwrap().1.to_owned();
    let key = BatchKey {
        buffer: text("buffer").parse().unwrap(),
        lane: Lane::Telemetry,
        number: held["committed"][0]["first"].as_u64().unwrap(),
    };
    let values = [
        Value::F64(1.5),
        Value::F32(1.5),
        Value::I64(1),
        Value::Bool(true),
        Value::Str("on"),
    ];
    let dir = site.aggregator_dir().join("quarantine");
    for value in values {
        let batch = contrary(key, value);
        let name = format!(
            "{uuid}-{}-{}-{:020}-{:016x}.batch",
            key.buffer,
            key.lane,
            key.number,
            batch.hash().short()
        );
        std::fs::write(dir.join(name), batch.bytes()).unwrap();
    }
    values.len()
}

fn of_lane<'a>(report: &'a serde_json::Value, lane: &str) -> Vec<&'a serde_json::Value> {
    let lanes = report["lanes"].as_array().unwrap().iter();
    lanes.filter(|it| it["lane"] == lane).collect()
}

fn rows_of(lane: &serde_json::Value) -> u64 {
    lane["lake"]["rows"].as_u64().unwrap_or(0)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(dir).unwrap();
    let mut all: Vec<_> = all.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

#[test]
fn what_is_in_quarantine_reaches_the_lake_once_and_what_cannot_says_why() {
    let site = Site::new("quarantine");
    let (mut agent, aggregator) = (site.agent(), site.aggregator());
    agent.up();
    let fleet = site.fleet(20, 10.0);
    fleet.acknowledged(400);
    fleet.end();
    backlog_gone(&agent);
    let replay = ["quarantine", "replay", "--all", "--json"];
    // While it runs, it says who runs.
    let refused = command(&site, &replay);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(
        said(&refused).contains("another process"),
        "{}",
        said(&refused)
    );
    site.end(agent, aggregator);
    let (before, code) = site.audit();
    assert_eq!(code, Some(0), "{before:#}");
    let count = fill_quarantine(&site, of_lane(&before, "telemetry")[0]);

    let done = command(&site, &replay);
    assert_eq!(done.status.code(), Some(1), "some stay: {}", said(&done));
    let (taken, left): (Vec<_>, Vec<_>) = lines(&done)
        .into_iter()
        .partition(|it| it["replayed"] == true);
    assert_eq!((taken.len(), left.len()), (1, count - 1), "{}", said(&done));
    let why = |it: &serde_json::Value| it["why"].as_str().unwrap().contains("is defined as");
    assert!(left.iter().all(why), "{left:?}");
    assert_eq!(taken[0]["rows"], ROWS);
    let buffer = taken[0]["buffer"].as_str().unwrap();
    // Once more, and by name: nothing new.
    let again = lines(&command(&site, &replay));
    assert!(again.iter().all(|it| it["replayed"] == false));
    let name = taken[0]["file"].as_str().unwrap();
    let by_name = command(&site, &["quarantine", "replay", name]);
    assert!(
        said(&by_name).contains("nothing in quarantine"),
        "{}",
        said(&by_name)
    );
    assert_eq!(
        files(&site.aggregator_dir().join("quarantine")).len(),
        count - 1
    );

    let mut aggregator = site.aggregator();
    aggregator.up();
    assert!(aggregator.terminate().success());
    let (after, code) = site.audit();
    assert_eq!(code, Some(0), "{after:#}");
    let rows = |report: &serde_json::Value| -> u64 {
        of_lane(report, "telemetry").into_iter().map(rows_of).sum()
    };
    assert_eq!(rows(&after), rows(&before) + u64::from(ROWS));
    let own = of_lane(&after, "telemetry");
    let own = own.into_iter().find(|lane| lane["buffer"] == buffer);
    assert_eq!(own.map(rows_of), Some(u64::from(ROWS)));
    assert!(buffer.starts_with("0000000000000000"), "{buffer}");
}
