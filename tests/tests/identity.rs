//! One identity on two machines, and what was kept apart for it: the way out of each, with real
//! programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tributary_protocol::batch::{SealedBatch, Sealer, Spec};
use tributary_protocol::ids::{BatchKey, Lane, SeriesId};
use tributary_protocol::reading::{Meta, Readings, Value};
use tributary_tests::process::{Process, wait_for};
use tributary_tests::programs::program;
use tributary_tests::site::{Site, assert_clean, backlog_gone, free_address};

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

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for path in files(from) {
        let there = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &there),
            false if path.is_file() => drop(std::fs::copy(&path, there).unwrap()),
            // The control socket.
            false => {}
        }
    }
}

/// The agent of the site on another machine: a copy of its disk and of its configuration. Where it
/// listens, and its process.
fn clone_of_the_agent(site: &Site) -> (std::net::SocketAddr, PathBuf, Process) {
    let (mqtt, http) = (free_address(), free_address());
    let (ours, dir) = (site.path().join("agent"), site.path().join("copy"));
    copy(&ours, &dir);
    let text = std::fs::read_to_string(site.path().join("agent.toml")).unwrap();
    let text = text
        .replace(&format!("{ours:?}"), &format!("{dir:?}"))
        .replace(&site.mqtt.to_string(), &mqtt.to_string())
        .replace(&site.agent_http.to_string(), &http.to_string());
    let config = site.path().join("copy.toml");
    std::fs::write(&config, text).unwrap();
    let log = site.path().join("copy.log");
    let arguments = ["run", "--config", config.to_str().unwrap()];
    let process = Process::start(&program("tributary-agent"), &arguments, &log, http);
    (mqtt, config, process)
}

#[test]
fn two_machines_from_copies_of_one_disk_are_said_by_aggregator_agent_and_audit() {
    let site = Site::new("clone");
    let (mut agent, mut aggregator) = (site.agent(), site.aggregator());
    agent.up();
    aggregator.up();
    let fleet = site.fleet(20, 10.0);
    fleet.acknowledged(200);
    fleet.end();
    backlog_gone(&agent);
    agent.kill();
    let status = aggregator.status().unwrap();
    assert_eq!(status["twins_total"], 0, "{status:#}");
    let (mqtt, config, mut copy) = clone_of_the_agent(&site);
    let mut agent = site.agent();
    agent.up();
    copy.up();
    // Both fill a buffer of the same life.
    for mqtt in [site.mqtt, mqtt] {
        let fleet = site.fleet_at(mqtt, 20, 10.0);
        fleet.acknowledged(200);
        fleet.end();
    }
    let twins = || aggregator.status()?.pointer("/twins/0").cloned();
    wait_for(
        "both to take turns",
        || aggregator.state(),
        || {
            let seen = twins()?;
            let many = |sign: &str| seen[sign].as_u64().is_some_and(|count| count >= 2);
            (many("turns") && many("fenced")).then_some(())
        },
    );
    wait_for(
        "both to say so",
        || agent.state(),
        || {
            let all = [&agent, &copy].into_iter().all(|it| {
                let fenced = it
                    .status()
                    .and_then(|it| it["uplink"]["fenced_last_hour"].as_u64());
                fenced.is_some_and(|count| count > 0)
            });
            all.then_some(())
        },
    );
    let mut status = Command::new(program("tributary-agent"));
    status.args(["status", "--config"]).arg(config);
    let text = said(&status.output().unwrap());
    assert!(
        text.contains("another machine with this agent's identity"),
        "{text}"
    );
    let name = "tributary_aggregator_identity_signs_total";
    assert!(aggregator.counter(name, "sign=\"turns\"") >= 2);
    assert!(copy.terminate().success());
    site.end(agent, aggregator);
    let log = std::fs::read_to_string(site.path().join("aggregator.log")).unwrap();
    assert!(log.contains("one identity on two machines"), "{log}");
    let (report, code) = site.audit();
    assert_eq!(code, Some(0), "both are whole: {report:#}");
    let alarm = report["alarms"][0]["what"].as_str().unwrap();
    assert!(alarm.contains("stand under more than one name"), "{alarm}");
}

#[test]
fn a_lost_journal_is_noticed_and_restored_from_the_lake_without_a_row_twice() {
    let site = Site::new("restore");
    let (mut agent, aggregator) = (site.agent(), site.aggregator());
    agent.up();
    let fleet = site.fleet(20, 10.0);
    fleet.acknowledged(400);
    let summary = fleet.end();
    backlog_gone(&agent);
    assert!(aggregator.terminate().success());
    for part in ["journal", "ledger"] {
        std::fs::remove_dir_all(site.aggregator_dir().join(part)).unwrap();
    }
    assert!(
        !site.aggregator().ended().success(),
        "it does not begin anew unseen"
    );
    let log = std::fs::read_to_string(site.path().join("aggregator.log")).unwrap();
    assert!(log.contains("tributary-aggregator restore"), "{log}");
    let restored = command(&site, &["restore", "--json"]);
    assert_eq!(
        lines(&restored)[0]["restored"],
        "begun",
        "{}",
        said(&restored)
    );
    let again = command(&site, &["restore"]);
    assert_eq!(again.status.code(), Some(0));
    assert!(
        said(&again).contains("nothing to restore"),
        "{}",
        said(&again)
    );
    let mut aggregator = site.aggregator();
    aggregator.up();
    backlog_gone(&agent);
    let proof = site.settle(agent, aggregator);
    assert_clean(&proof, &summary);
    let (report, code) = site.audit();
    assert_eq!(code, Some(0), "{report:#}");
}
