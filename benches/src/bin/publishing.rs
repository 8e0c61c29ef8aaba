//! What publishing an alert costs the thread that judges readings, which queues it, and the one
//! that hands it to all who subscribed and wakes them.
//!
//! `cargo run --release -p tributary-benches --bin publishing -- [--readers N] [--json]`. The
//! agent's own listener, with so many clients that subscribe to all alerts and take what comes, in
//! this process; the log behind it keeps nothing.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tributary_agent::source::hub::Keep;
use tributary_agent::source::{Hub, Listener, ListenerConfig, raise_open_files};
use tributary_agent::wal::{Append, Wal};
use tributary_journal::{Appended, CommitPolicy, Frame, LifeId, LogError};

/// Microseconds that a publication takes.
#[derive(Parser)]
struct Arguments {
    /// Clients that subscribe to every alert.
    #[arg(long, default_value_t = 1_000)]
    readers: usize,
    /// Alerts.
    #[arg(long, default_value_t = 200)]
    alerts: usize,
    /// Print one JSON object on the last line as well.
    #[arg(long)]
    json: bool,
}

/// Between two alerts: everybody has taken the one before, and waits.
const PAUSE: Duration = Duration::from_millis(50);
/// Alerts that come at once: as many as one record of the log may tell.
const AT_ONCE: usize = 32;
/// Bytes of an alert, about.
const ALERT_BYTES: usize = 900;

struct Taking(u64);

impl Append for Taking {
    fn append(&mut self, frame: &Frame) -> Result<Appended, LogError> {
        let first = self.0;
        self.0 += u64::from(frame.count());
        Ok(Appended {
            life: LifeId([1; 16]),
            first,
            count: frame.count(),
        })
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    raise_open_files();
    let runtime = tokio::runtime::Runtime::new()?;
    let hub = Hub::new();
    let readers = runtime.block_on(subscribed(&hub, arguments.readers))?;
    let topic = "tributary/alerts/site/pump/temperature";
    let mut alone = Vec::new();
    for _ in 0..arguments.alerts {
        std::thread::sleep(PAUSE);
        alone.push(measured(|| publish(&hub, topic)));
    }
    let mut behind = Vec::new();
    for _ in 0..arguments.alerts.div_ceil(AT_ONCE) {
        std::thread::sleep(PAUSE);
        publish(&hub, topic);
        behind.extend((1..AT_ONCE).map(|_| measured(|| publish(&hub, topic))));
    }
    let (publisher, dispatch) = hub.publisher();
    let hands_out = std::thread::spawn(|| dispatch.run(|_| {}));
    let mut queued = Vec::new();
    for _ in 0..arguments.alerts {
        std::thread::sleep(PAUSE);
        queued.push(measured(|| {
            publisher.publish(topic, alert(), Keep::Stands, None)
        }));
    }
    drop(publisher);
    ensure!(hands_out.join().is_ok(), "who hands out broke");
    drop(readers);
    let mut cases = Vec::new();
    println!(
        "| {} subscribers | µs | µs of the processor | most |",
        arguments.readers
    );
    println!("|---|---:|---:|---:|");
    for (what, mut times) in [
        ("queueing an alert, on the judging thread", queued),
        ("handing it out, beside it", alone),
        ("one right behind another", behind),
    ] {
        let (passed, spent) = (median(&mut times, 0), median(&mut times, 1));
        let most = times.iter().map(|time| time[0]).fold(0.0, f64::max);
        println!("| {what} | {passed:.0} | {spent:.0} | {most:.0} |");
        cases.push(json!({"what": what, "us": passed, "cpu_us": spent, "most_us": most}));
    }
    if arguments.json {
        println!("{}", json!({"readers": arguments.readers, "cases": cases}));
    }
    Ok(())
}

fn publish(hub: &Hub, topic: &str) {
    hub.publish(topic, alert(), Keep::Stands);
}

fn alert() -> bytes::Bytes {
    vec![b'x'; ALERT_BYTES].into()
}

/// Microseconds that passed, and that this thread took of the processor.
fn measured(act: impl FnOnce()) -> [f64; 2] {
    let spent = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    };
    let (began, before) = (Instant::now(), spent());
    act();
    [began.elapsed().as_secs_f64() * 1e6, spent() - before]
}

fn median(times: &mut [[f64; 2]], of: usize) -> f64 {
    let key = |time: &[f64; 2]| time.get(of).copied().unwrap_or_default();
    times.sort_by(|one, other| key(one).total_cmp(&key(other)));
    times.get(times.len() / 2).map_or(0.0, key)
}

/// A listener with so many clients that take every alert.
async fn subscribed(hub: &Hub, readers: usize) -> Result<JoinSet<()>> {
    let wal = Wal::start(Taking(0), CommitPolicy::low_latency())?;
    let config = ListenerConfig::open(SocketAddr::from(([127, 0, 0, 1], 0)), 1_000);
    let listener = Listener::bind(&config, wal.queue.clone()).await?;
    let listener = listener.publishing(hub.clone());
    let address = listener.local_address()?;
    let mut tasks = JoinSet::new();
    let mut committed = wal.committed;
    tasks.spawn(async move { while committed.recv().await.is_some() {} });
    tasks.spawn(listener.run(CancellationToken::new()));
    for number in 0..readers {
        let mut stream = subscribe(address, number).await?;
        tasks.spawn(async move {
            let mut taken = [0; 4_096];
            while stream.read(&mut taken).await.is_ok_and(|bytes| bytes > 0) {}
        });
    }
    Ok(tasks)
}

/// A client of MQTT 3.1.1 that subscribed to all alerts.
async fn subscribe(address: SocketAddr, number: usize) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let id = format!("reader-{number}");
    let length = id.len() as u8;
    let connect = [
        &[0x10, 12 + length, 0, 4],
        b"MQTT".as_slice(),
        &[4, 2, 0, 0, 0, length],
    ];
    stream
        .write_all(&[&connect.concat(), id.as_bytes()].concat())
        .await?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await?;
    ensure!(connack == [0x20, 2, 0, 0], "refused: {connack:02x?}");
    let filter = b"tributary/alerts/#";
    let length = filter.len() as u8;
    let head = [0x82, 5 + length, 0, 1, 0, length];
    stream
        .write_all(&[&head, filter.as_slice(), &[0]].concat())
        .await?;
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).await.context("no SUBACK")?;
    ensure!(suback == [0x90, 3, 0, 1, 0], "refused: {suback:02x?}");
    Ok(stream)
}
