//! QoS 2, from the publisher's side: over real TCP, with a server that cuts wherever it hurts, and
//! with Mosquitto behind something that cuts.

use crate::server::{Act, Server};
use bytes::Bytes;
use rumqttc::{AsyncClient, EventLoop, Incoming, MqttOptions, QoS};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tributary_sim::client::{Progress, Protocol};
use tributary_sim::sim::{self, Publishing, RunConfig, RunSummary};
use tributary_sim::truth::{Event, Tail, TruthReader};

const POLL: Duration = Duration::from_millis(5);

fn config(server: &str, protocol: Protocol, truth: &Path) -> RunConfig {
    let publishing = Publishing {
        truth: Some(truth.to_owned()),
        qos: 2,
        protocol,
        ..Publishing::to(server)
    };
    RunConfig {
        sensors: 4,
        rate_hz: 500.0,
        connections: Some(1),
        ..RunConfig::new(publishing)
    }
}

/// (published, acknowledged, refused), as the truth ledger counts them.
fn truth(path: &Path) -> (u64, u64, u64) {
    let (mut published, mut acknowledged, mut refused) = (0, 0, 0);
    let tail = TruthReader::open(path).unwrap().read(|event| {
        match event {
            Event::Published(_) => published += 1,
            Event::Acknowledged { .. } => acknowledged += 1,
            Event::Refused { .. } => refused += 1,
            Event::Series { .. } | Event::Faulty { .. } | Event::End { .. } => {}
        }
        Ok(())
    });
    assert_eq!(tail.unwrap(), Tail::Whole);
    (published, acknowledged, refused)
}

/// Runs until the server has seen `count` publications, then stops.
async fn run_until(server: &mut Server, config: RunConfig, count: usize) -> RunSummary {
    let stop = CancellationToken::new();
    let running = sim::run(config, stop.clone(), Arc::new(Progress::default()));
    let stopping = async {
        server.received(count).await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(running, stopping);
    ended.unwrap()
}

/// The first connection of MQTT 3.1.1 only ends an older session.
fn first_that_is_kept(protocol: Protocol) -> usize {
    match protocol {
        Protocol::V311 => 1,
        Protocol::V5 => 0,
    }
}

/// Cut before PUBREC, after PUBREC, before PUBCOMP, with answers held back in between: with the
/// session kept, a receiver hands on every publication once.
async fn cut_wherever_it_hurts(protocol: Protocol) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    let first = first_that_is_kept(protocol);
    let publication = move |connection: usize, nth: usize| match (connection - first, nth) {
        (0 | 2 | 4, 100) => Act::Cut,
        (0..6, n) if n % 5 == 1 => Act::Hold,
        _ => Act::Ack,
    };
    let release = move |connection: usize, nth: usize| match (connection - first, nth) {
        (1 | 3 | 5, 60) => Act::Cut,
        (0..6, n) if n % 3 == 1 => Act::Hold,
        _ => Act::Ack,
    };
    let mut server = Server::start_with(protocol, 64, publication, release).await;
    let address = server.address.to_string();
    let summary = run_until(&mut server, config(&address, protocol, &path), 2_000).await;
    assert!(summary.is_complete(), "{summary:?}");
    assert_eq!(summary.counts.reconnects, 6);
    assert!(summary.counts.resent > 0);
    let (published, acknowledged, refused) = truth(&path);
    assert_eq!(
        (published, acknowledged, refused),
        (published, published, 0)
    );

    let seen = server.seen.lock().unwrap();
    assert!(seen.clean[0] && !seen.clean[first + 1..].contains(&true));
    let delivered: Vec<(&str, &[u8])> = seen
        .delivered
        .iter()
        .map(|place| &seen.received[*place])
        .map(|one| (&*one.topic, &*one.payload))
        .collect();
    let distinct: BTreeSet<_> = delivered.iter().collect();
    assert_eq!(distinct.len(), delivered.len(), "handed on twice");
    assert_eq!(delivered.len() as u64, published);
    assert!(
        seen.releases.len() as u64 > published,
        "no release was ever sent again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_hands_everything_on_once_wherever_the_connection_is_cut() {
    cut_wherever_it_hurts(Protocol::V311).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_for_mqtt_5() {
    cut_wherever_it_hurts(Protocol::V5).await;
}

#[tokio::test]
async fn a_refused_publication_is_done_with_and_never_released() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    let decide = |_, nth| if nth == 17 { Act::Refuse } else { Act::Ack };
    let mut server = Server::start(Protocol::V5, 8, decide).await;
    let address = server.address.to_string();
    let summary = run_until(&mut server, config(&address, Protocol::V5, &path), 200).await;
    let (published, acknowledged, refused) = truth(&path);
    assert_eq!((acknowledged + 1, refused), (published, 1));
    assert_eq!((summary.counts.refused, summary.unacknowledged), (1, 0));
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen.releases.len() as u64, acknowledged);
    assert!(seen.received.iter().all(|one| !one.dup));
}

#[tokio::test]
async fn what_is_received_but_never_confirmed_ends_as_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    let release = |_, _| Act::Hold;
    let mut server = Server::start_with(Protocol::V311, 64, |_, _| Act::Ack, release).await;
    let address = server.address.to_string();
    let mut config = config(&address, Protocol::V311, &path);
    config.publishing.drain = Duration::from_millis(50);
    let summary = run_until(&mut server, config, 64).await;
    // The window is full of ids that are not free again.
    assert_eq!(summary.counts.published, 64);
    assert_eq!(summary.counts.acknowledged, 64);
    assert_eq!(summary.unacknowledged, 0);
}

/// Mosquitto in a folder of its own; nothing where it is not installed.
struct Mosquitto {
    child: std::process::Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Mosquitto {
    fn start() -> Option<Self> {
        let programs = [
            "/usr/sbin/mosquitto",
            "/usr/local/sbin/mosquitto",
            "mosquitto",
        ];
        let installed = |name: &&str| Command::new(name).arg("-h").output().is_ok();
        let program = programs.into_iter().find(installed)?;
        let dir = tempfile::tempdir().unwrap();
        loop {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let config = format!(
                "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\n\
                 max_queued_messages 0\nmax_inflight_messages 0\n",
                address.port()
            );
            let file = dir.path().join("mosquitto.conf");
            std::fs::write(&file, config).unwrap();
            let mut child = Command::new(program)
                .arg("-c")
                .arg(&file)
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            loop {
                if child.try_wait().unwrap().is_some() {
                    // Somebody else took the port meanwhile.
                    break;
                }
                if std::net::TcpStream::connect(address).is_ok() {
                    let _dir = dir;
                    return Some(Self {
                        child,
                        address,
                        _dir,
                    });
                }
                // tidy: sleep because another process says nothing by itself
                std::thread::sleep(POLL);
            }
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Carries connections to `target`, and cuts those of `cut` after some bytes of either direction,
/// wherever in a packet that is.
async fn cutting(listener: TcpListener, target: SocketAddr, cut: Range<usize>) {
    let mut carrying = JoinSet::new();
    for connection in 0.. {
        let (near, _) = listener.accept().await.unwrap();
        let far = TcpStream::connect(target).await.unwrap();
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        let [up, down] = match connection {
            n if !cut.contains(&n) => [usize::MAX; 2],
            n if n % 2 == 0 => [1_000 + 577 * n, usize::MAX],
            n => [usize::MAX, 40 + 61 * n],
        };
        carrying.spawn(async move {
            tokio::select! {
                () = carry(near_in, far_out, up) => {}
                () = carry(far_in, near_out, down) => {}
            }
        });
    }
}

/// Carries so many bytes, or until either side ends.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut left: usize) {
    let mut bytes = [0; 4_096];
    while left > 0 {
        let Ok(count @ 1..) = from.read(&mut bytes).await else {
            return;
        };
        let count = count.min(left);
        left -= count;
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Everything that a subscriber gets, as (topic, payload), until it has `count` of it.
async fn subscribed(mut events: EventLoop, count: watch::Receiver<usize>) -> Vec<(String, Bytes)> {
    let mut all = Vec::new();
    while all.len() < *count.borrow() {
        if let rumqttc::Event::Incoming(Incoming::Publish(one)) = events.poll().await.unwrap() {
            all.push((one.topic, one.payload));
        }
    }
    all
}

async fn through_mosquitto(protocol: Protocol) {
    const CUTS: usize = 24;
    let Some(mosquitto) = Mosquitto::start() else {
        eprintln!("left out: mosquitto is not installed");
        return;
    };
    let mut options = MqttOptions::new("watcher", "127.0.0.1", mosquitto.address.port());
    options.set_clean_session(true);
    let (watcher, mut events) = AsyncClient::new(options, 16);
    watcher.subscribe("#", QoS::ExactlyOnce).await.unwrap();
    while !matches!(
        events.poll().await.unwrap(),
        rumqttc::Event::Incoming(Incoming::SubAck(_))
    ) {}
    let (expected, count) = watch::channel(usize::MAX);
    let mut tasks = JoinSet::new();
    tasks.spawn(subscribed(events, count));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut cutter = JoinSet::new();
    let first = first_that_is_kept(protocol);
    cutter.spawn(cutting(listener, mosquitto.address, first..first + CUTS));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("truth");
    let (stop, progress) = (CancellationToken::new(), Arc::new(Progress::default()));
    let config = config(&address.to_string(), protocol, &path);
    let running = sim::run(config, stop.clone(), Arc::clone(&progress));
    let stopping = async {
        while progress.counts().reconnects < CUTS as u64 {
            // tidy: sleep because counts are not awaited, only read
            tokio::time::sleep(POLL).await;
        }
        stop.cancel();
    };
    let (summary, ()) = tokio::join!(running, stopping);
    let summary = summary.unwrap();
    assert!(summary.is_complete(), "{summary:?}");
    assert!(summary.counts.resent > 0, "{summary:?}");
    // The watcher may have to be woken to see that it has all.
    expected.send_replace(summary.counts.published as usize + 1);
    watcher
        .publish("last", QoS::ExactlyOnce, false, "")
        .await
        .unwrap();
    let all = tasks.join_next().await.unwrap().unwrap();
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "handed on twice");
    assert_eq!(all.len() as u64, summary.counts.published + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_hands_everything_on_once_though_the_connection_is_cut() {
    through_mosquitto(Protocol::V311).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_does_so_with_mqtt_5() {
    through_mosquitto(Protocol::V5).await;
}
