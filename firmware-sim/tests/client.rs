//! The client keeps its promises over real TCP: at least once, same id, same order, DUP.

use crate::server::{Act, Received, Server};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tributary_sim::client::{Progress, Protocol};
use tributary_sim::fault::{FaultConfig, FaultKind, Mark, Observer};
use tributary_sim::reading::Reading;
use tributary_sim::replay::Replay;
use tributary_sim::sim::{self, Publishing, RunConfig, RunSummary, SimError};
use tributary_sim::truth::{Event, Tail, TruthReader, faults};

fn config(server: &Server, truth: &Path) -> RunConfig {
    let publishing = Publishing {
        truth: Some(truth.to_owned()),
        ..Publishing::to(server.address.to_string())
    };
    RunConfig {
        sensors: 4,
        rate_hz: 1_000.0,
        connections: Some(1),
        started_ms: Some(1_700_000_000_000),
        ..RunConfig::new(publishing)
    }
}

/// Runs until the server has seen `count` publications, then stops.
async fn run_until(
    server: &mut Server,
    config: RunConfig,
    count: usize,
) -> Result<RunSummary, SimError> {
    let stop = CancellationToken::new();
    let running = sim::run(config, stop.clone(), Arc::new(Progress::default()));
    let stopping = async {
        server.received(count).await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(running, stopping);
    ended
}

/// What a truth ledger holds: (series, seq) published, acknowledged, refused.
#[derive(Default)]
struct Truth {
    published: Vec<(u32, u64)>,
    acknowledged: Vec<(u32, u64)>,
    refused: Vec<(u32, u64)>,
    series: BTreeMap<String, u32>,
}

fn truth(path: &Path) -> Truth {
    let mut truth = Truth::default();
    let tail = TruthReader::open(path)
        .unwrap()
        .read(|event| {
            match event {
                Event::Series {
                    series,
                    device,
                    metric,
                } => {
                    truth.series.insert(format!("{device}/{metric}"), series);
                }
                Event::Published(reading) => truth.published.push((reading.series, reading.seq)),
                Event::Acknowledged { series, seq } => truth.acknowledged.push((series, seq)),
                Event::Refused { series, seq } => truth.refused.push((series, seq)),
                Event::Faulty { .. } | Event::End { .. } => {}
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(tail, Tail::Whole);
    truth
}

/// The reading that a publication carries, as the truth names it.
fn key(truth: &Truth, received: &Received) -> (u32, u64) {
    let payload: serde_json::Value = serde_json::from_slice(&received.payload).unwrap();
    (
        truth.series[&received.topic],
        payload["seq"].as_u64().unwrap(),
    )
}

fn without_copies<T: Ord + Clone>(all: &[T]) -> BTreeSet<T> {
    let set: BTreeSet<T> = all.iter().cloned().collect();
    assert_eq!(set.len(), all.len(), "something stands there twice");
    set
}

/// Connections are cut in the middle, with acknowledgements held back.
async fn cut_again_and_again(protocol: Protocol) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    let decide = |connection, nth| match (connection, nth) {
        (0..5, 100) => Act::Cut,
        (0..5, n) if n % 3 == 1 || n > 80 => Act::Hold,
        (5.., n) if n % 7 == 2 => Act::Hold,
        (5.., n) if n % 7 == 5 => Act::AckHeld,
        _ => Act::Ack,
    };
    let mut server = Server::start(protocol, 64, decide).await;
    let mut config = config(&server, &path);
    config.publishing.protocol = protocol;
    // A server that holds an acknowledgement for ever must not hold the end.
    config.publishing.drain = Duration::from_millis(100);
    let summary = run_until(&mut server, config, 3_000).await.unwrap();
    let truth = truth(&path);
    let seen = server.seen.lock().unwrap();
    assert_eq!(summary.counts.reconnects, 5);
    assert!(
        seen.clients.iter().all(|id| *id == seen.clients[0]),
        "the client id is kept"
    );
    assert!(!seen.clean.contains(&true), "the session is kept");
    assert_eq!(seen.farewells, 1);

    let mut first_id = BTreeMap::new();
    let mut unanswered: Vec<&Received> = Vec::new();
    let mut resent = 0;
    for connection in 0..=5 {
        let on: Vec<&Received> = seen
            .received
            .iter()
            .filter(|r| r.connection == connection)
            .collect();
        let again: Vec<&&Received> = on.iter().take_while(|r| r.dup).collect();
        resent += again.len();
        assert!(
            on[again.len()..].iter().all(|r| !r.dup),
            "new ones come after old ones"
        );
        assert!(again.len() >= unanswered.len());
        for (old, new) in unanswered.iter().zip(&again) {
            assert_eq!(
                (old.pkid, &old.topic, &old.payload),
                (new.pkid, &new.topic, &new.payload)
            );
        }
        for one in &on {
            assert_eq!(
                *first_id.entry(key(&truth, one)).or_insert(one.pkid),
                one.pkid
            );
        }
        unanswered = on.into_iter().filter(|r| !r.acknowledged).collect();
    }
    assert_eq!(summary.counts.resent as usize, resent);
    assert!(resent > 100);

    let published = without_copies(&truth.published);
    let acknowledged = without_copies(&truth.acknowledged);
    let answered: BTreeSet<_> = seen
        .received
        .iter()
        .filter(|r| r.acknowledged)
        .map(|r| key(&truth, r))
        .collect();
    assert_eq!(
        acknowledged, answered,
        "the truth holds what was acknowledged, and only that"
    );
    assert!(first_id.keys().all(|key| published.contains(key)));
    let counts = summary.counts;
    assert_eq!(published.len() as u64, counts.published);
    assert_eq!(acknowledged.len() as u64, counts.acknowledged);
    assert_eq!(
        counts.published,
        counts.acknowledged + summary.unacknowledged
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_acknowledged_is_sent_again_as_it_was() {
    cut_again_and_again(Protocol::V311).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_for_mqtt_5() {
    cut_again_and_again(Protocol::V5).await;
}

#[tokio::test]
async fn the_first_publications_of_a_device_come_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    let mut server = Server::start(Protocol::V311, 64, |_, _| Act::Ack).await;
    let config = RunConfig {
        sensors: 40,
        connections: Some(3),
        ..config(&server, &path)
    };
    let summary = run_until(&mut server, config, 5_000).await.unwrap();
    assert!(summary.is_complete(), "{summary:?}");
    let truth = truth(&path);
    let mut next = BTreeMap::new();
    for received in &server.seen.lock().unwrap().received {
        let (series, seq) = key(&truth, received);
        let expected = next.entry(series).or_insert(0);
        assert_eq!(seq, *expected);
        *expected += 1;
    }
    assert_eq!(next.len(), 40);
    assert_eq!(server.seen.lock().unwrap().farewells, 3);
    let ids: HashSet<String> = server
        .seen
        .lock()
        .unwrap()
        .clients
        .iter()
        .cloned()
        .collect();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn a_receive_maximum_is_kept_and_a_refusal_is_final() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    let decide = |_, nth| match nth {
        17 => Act::Refuse,
        n if n < 17 && n % 8 == 7 => Act::AckHeld,
        n if n < 16 => Act::Hold,
        _ => Act::Ack,
    };
    let mut server = Server::start(Protocol::V5, 8, decide).await;
    let mut config = config(&server, &path);
    config.publishing.protocol = Protocol::V5;
    let summary = run_until(&mut server, config, 100).await.unwrap();
    let truth = truth(&path);
    let seen = server.seen.lock().unwrap();
    assert_eq!(
        seen.outstanding_max, 7,
        "the eighth is answered with the seven held back"
    );
    assert_eq!(truth.refused, [key(&truth, &seen.received[17])]);
    assert_eq!(summary.counts.refused, 1);
    assert_eq!(summary.counts.acknowledged + 1, summary.counts.published);
    assert!(!summary.is_complete());
    assert!(
        seen.received.iter().all(|r| !r.dup),
        "what was refused is not sent again"
    );
}

#[tokio::test]
async fn a_window_that_nobody_acknowledges_stops_the_sending_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    let mut server = Server::start(Protocol::V311, 64, |_, _| Act::Hold).await;
    let mut config = config(&server, &path);
    config.publishing.drain = Duration::ZERO;
    let summary = run_until(&mut server, config, 64).await.unwrap();
    assert_eq!((summary.counts.published, summary.unacknowledged), (64, 64));
    assert_eq!(server.seen.lock().unwrap().received.len(), 64);
    assert_eq!(truth(&path).published.len(), 64);
}

#[tokio::test]
async fn garbage_from_the_server_costs_only_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    let decide = |connection, nth| match (connection, nth) {
        (0, 20) => Act::Garbage,
        _ => Act::Ack,
    };
    let mut server = Server::start(Protocol::V311, 64, decide).await;
    let config = config(&server, &path);
    let summary = run_until(&mut server, config, 300).await.unwrap();
    assert_eq!(summary.counts.reconnects, 1);
    assert!(summary.is_complete());
}

#[tokio::test]
async fn at_qos_0_everything_leaves_and_nothing_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    let mut server = Server::start(Protocol::V311, 64, |_, _| Act::Ack).await;
    let mut config = config(&server, &path);
    config.publishing.qos = 0;
    let summary = run_until(&mut server, config, 500).await.unwrap();
    assert_eq!(
        (
            summary.counts.acknowledged,
            summary.unacknowledged,
            summary.unsent
        ),
        (0, 0, 0)
    );
    server.received(summary.counts.published as usize).await;
    let seen = server.seen.lock().unwrap();
    assert!(seen.received.iter().all(|r| r.pkid == 0 && !r.dup));
}

#[tokio::test]
async fn nobody_there_is_an_error_that_names_the_server() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut config = RunConfig::new(Publishing::to(address.to_string()));
    config.sensors = 1;
    config.duration = Some(Duration::from_millis(1));
    config.publishing.drain = Duration::from_millis(300);
    let error = sim::run(config, CancellationToken::new(), Arc::default())
        .await
        .unwrap_err();
    assert!(matches!(error, SimError::NeverConnected(_)));
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_replayed_file_goes_out_as_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("room.csv");
    let rows: String = (0..300)
        .map(|i| {
            format!(
                "2015-02-04T17:{:02}:{:02}Z,23.1{i},{i},true\n",
                i / 60,
                i % 60
            )
        })
        .collect();
    std::fs::write(
        &csv,
        format!("timestamp,temperature,light,occupancy\n{rows}"),
    )
    .unwrap();
    let server = Server::start(Protocol::V311, 64, |_, _| Act::Ack).await;
    let publishing = Publishing::to(server.address.to_string());
    let opened = Replay::open(&csv, None, None).unwrap();
    let stop = CancellationToken::new();
    let summary = sim::replay(publishing, opened, stop, Arc::default())
        .await
        .unwrap();
    assert!(summary.is_complete());
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen.received.len(), 900);
    let text = |n: usize| {
        std::str::from_utf8(&seen.received[n].payload)
            .unwrap()
            .to_owned()
    };
    assert_eq!(seen.received[30].topic, "room/temperature");
    assert_eq!(text(30), r#"{"value":23.110,"ts":1423069210000,"seq":30}"#);
    assert_eq!(text(31), r#"{"value":10,"ts":1423069210000,"seq":31}"#);
    assert_eq!(text(32), r#"{"value":true,"ts":1423069210000,"seq":32}"#);
}

/// Faulty readings as they were told: series, beginning of the fault, kind, event time.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<(u32, i64, FaultKind, i64)>>);

impl Observer for Told {
    fn writing(&self, reading: &Reading, mark: Mark, at: Instant) {
        assert!(at <= Instant::now());
        if mark.is_faulty() {
            let told = (reading.series, mark.first_us, mark.kind, reading.time_us);
            self.0.lock().unwrap().push(told);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_stand_in_the_truth_and_are_told_before_they_are_sent() {
    let mut server = Server::start(Protocol::V5, 64, |_, _| Act::Ack).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    let mut config = config(&server, &path);
    let told = Arc::new(Told::default());
    config.publishing.protocol = Protocol::V5;
    config.publishing.observer = Some(told.clone());
    (config.sensors, config.rate_hz) = (20, 100.0);
    config.faults = FaultConfig {
        per_minute: 600.0,
        after: Duration::ZERO,
    };
    let summary = run_until(&mut server, config, 5_000).await.unwrap();
    let injected = faults(&path).unwrap();
    assert!(injected.len() >= 3, "{injected:?}");
    assert_eq!(summary.counts.faults, injected.len() as u64);
    let names = truth(&path).series;
    let told = told.0.lock().unwrap();
    let mut count = 0;
    for fault in &injected {
        let series = names[&format!("{}/{}", fault.device, fault.metric)];
        let of_it = told.iter().filter(|(of, first_us, kind, _)| {
            (*of, *first_us, *kind) == (series, fault.first_us, fault.kind)
        });
        let times: Vec<i64> = of_it.map(|(.., time_us)| *time_us).collect();
        assert_eq!(times.len() as u64, fault.readings, "{fault}");
        assert_eq!(
            (times[0], *times.last().unwrap()),
            (fault.first_us, fault.last_us)
        );
        count += times.len();
    }
    assert_eq!(count, told.len(), "each faulty reading is told once");

    let listed = std::process::Command::new(env!("CARGO_BIN_EXE_tributary-sim"))
        .args(["faults", "--truth"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(listed.status.success());
    let text = String::from_utf8(listed.stdout).unwrap();
    let lines: Vec<String> = injected.iter().map(ToString::to_string).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), lines);
}
