//! Ingest over real QUIC: honest agents are served, whoever sends garbage is told so and goes.

use crate::keeper::agent;
use crate::pki::{Authority, Client, TRUST_DOMAIN};
use crate::sealed::{BUFFER, key, readings, series, spoiled};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tributary_aggregator::lake::file::rows;
use tributary_aggregator::{AggregatorError, Config, Running, start};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::frame::{FrameKind, HEADER_BYTES, RawFrame, frame};
use tributary_protocol::ids::*;
use tributary_protocol::limits::BATCH_BYTES_MAX;
use tributary_protocol::message::*;

/// An aggregator on free ports, with its authority.
pub struct Site {
    pub dir: TempDir,
    authority: Authority,
    pub running: Running,
}

fn config(dir: &Path, authority: &Authority) -> Config {
    let mut config = Config::new(dir.join("data"), authority.server(dir));
    config.uplink = "127.0.0.1:0".parse().unwrap();
    config.http = "127.0.0.1:0".parse().unwrap();
    config.trust_domain = TRUST_DOMAIN.to_owned();
    config.journal_quota_bytes = 64 << 20;
    config.journal_reserve_bytes = 0;
    config
}

pub async fn site() -> Site {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new();
    let running = start(config(dir.path(), &authority), CancellationToken::new())
        .await
        .unwrap();
    Site {
        dir,
        authority,
        running,
    }
}

impl Site {
    pub async fn restart(self) -> Self {
        self.restart_after(|_| ()).await
    }

    /// Ends, has something done to the data directory, and starts again.
    async fn restart_after(self, change: impl FnOnce(&Path)) -> Self {
        let Self {
            dir,
            authority,
            running,
        } = self;
        running.shut_down().await.unwrap();
        change(&dir.path().join("data"));
        let config = config(dir.path(), &authority);
        let running = start(config, CancellationToken::new()).await.unwrap();
        Self {
            dir,
            authority,
            running,
        }
    }

    async fn connect(&self, client: &Client) -> Result<quinn::Connection, quinn::ConnectionError> {
        let endpoint = self.authority.connector(client);
        endpoint
            .connect(self.running.uplink_addr(), "localhost")
            .unwrap()
            .await
    }

    /// An agent with an open session.
    pub async fn agent(&self, n: u8) -> Agent {
        let client = self.authority.agent(&agent(n));
        let mut agent = Agent::of(self.connect(&client).await.unwrap()).await;
        agent.say(&hello()).await;
        let Some(Message::Welcome(welcome)) = agent.hear().await else {
            panic!("no Welcome")
        };
        agent.welcome = Some(welcome);
        agent
    }
}

fn hello() -> Message {
    let lane = |lane: Lane| LaneState {
        key: LaneKey {
            buffer: BUFFER,
            lane,
        },
        first: 0,
        end: 100,
        open: true,
    };
    let lanes = [Lane::Series, Lane::Telemetry, Lane::Alerts]
        .map(lane)
        .into();
    Message::Hello(Hello {
        name: "gate".into(),
        software: "test".into(),
        lanes,
        elsewhere: Vec::new(),
    })
}

/// A client with a control stream, and nothing that keeps it from sending what it likes.
pub struct Agent {
    connection: quinn::Connection,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    welcome: Option<Welcome>,
}

impl Agent {
    async fn of(connection: quinn::Connection) -> Self {
        let (send, recv) = connection.open_bi().await.unwrap();
        Self {
            connection,
            send,
            recv,
            welcome: None,
        }
    }

    async fn say(&mut self, message: &Message) {
        self.send
            .write_all(&message.encode().unwrap())
            .await
            .unwrap();
    }

    /// The next message; nothing when the connection is over.
    async fn hear(&mut self) -> Option<Message> {
        let mut head = [0; HEADER_BYTES];
        self.recv.read_exact(&mut head).await.ok()?;
        let length = u32::from_le_bytes(head[4..8].try_into().unwrap()) as usize;
        let mut whole = head.to_vec();
        whole.resize(HEADER_BYTES + length, 0);
        self.recv
            .read_exact(&mut whole[HEADER_BYTES..])
            .await
            .ok()?;
        Some(Message::parse(&RawFrame(whole.into()).verify().unwrap()).unwrap())
    }

    async fn send_raw(&self, bytes: &[u8]) {
        let mut stream = self.connection.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.finish().unwrap();
    }

    pub async fn send(&self, batch: &SealedBatch) {
        self.send_raw(&frame(FrameKind::Batch, batch.bytes()).unwrap())
            .await;
    }

    async fn ack(&mut self) -> Ack {
        match self.hear().await {
            Some(Message::Ack(ack)) => ack,
            other => panic!("no Ack but {other:?}"),
        }
    }

    /// Acknowledged numbers of the lane, until there are `count`.
    pub async fn acked(&mut self, lane: Lane, count: usize) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        while found.len() < count {
            let ack = self.ack().await;
            assert_eq!(ack.again, [], "asked for again");
            for range in ack.ranges.iter().filter(|range| range.key.lane == lane) {
                found.extend(range.first..range.end);
            }
        }
        found
    }

    async fn rejected(&mut self) -> Reject {
        loop {
            match self.hear().await {
                Some(Message::Reject(reject)) => return reject,
                Some(_) => {}
                None => panic!("it went without a word"),
            }
        }
    }
}

pub async fn http(addr: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Identities of all rows below a folder; panics on a second copy.
pub fn lake_rows(dir: &Path, found: &mut BTreeSet<(i64, i32)>) {
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int32Type, Int64Type};
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            lake_rows(&path, found);
            continue;
        }
        let name = path.display().to_string();
        for batch in rows(&name, &Bytes::from(std::fs::read(&path).unwrap())).unwrap() {
            let numbers = batch
                .column_by_name("batch")
                .unwrap()
                .as_primitive::<Int64Type>();
            let places = batch
                .column_by_name("row")
                .unwrap()
                .as_primitive::<Int32Type>();
            for i in 0..batch.num_rows() {
                assert!(
                    found.insert((numbers.value(i), places.value(i))),
                    "a row twice"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_is_sent_is_acknowledged_and_lies_in_the_lake_once_however_often_it_is_sent() {
    let mut site = site().await;
    for life in 0..2 {
        let mut agent = site.agent(1).await;
        let held = &agent.welcome.as_ref().unwrap().lanes[1];
        assert_eq!(
            held.ranges.iter().map(|run| run.end).max(),
            (life == 1).then_some(20)
        );
        for _ in 0..2 {
            agent.send(&series(0, 0, 3)).await;
            agent.acked(Lane::Series, 1).await;
            for number in 0..20 {
                agent.send(&readings(number, 3, 100, 0)).await;
            }
            assert_eq!(agent.acked(Lane::Telemetry, 20).await, (0..20).collect());
        }
        assert_eq!(site.running.flush().await, Ok(21));
        let mut found = BTreeSet::new();
        lake_rows(&site.dir.path().join("data/lake/readings"), &mut found);
        assert_eq!(found.len(), 2_000);
        site = site.restart().await;
    }
    let status = http(site.running.http_addr(), "/api/v1/status").await;
    for part in [
        "\"agents_total\":1",
        "\"journal_end\":21",
        "\"position\":21",
        "[[0,20]]",
    ] {
        assert!(status.contains(part), "{part} is not in {status}");
    }
    assert!(
        http(site.running.http_addr(), "/healthz")
            .await
            .contains("200 OK")
    );
    assert!(
        http(site.running.http_addr(), "/readyz")
            .await
            .contains("\"ready\":true")
    );
    let metrics = http(site.running.http_addr(), "/metrics").await;
    for name in [
        "batches_total",
        "commit_seconds_bucket",
        "lake_rows_total",
        "ready 1",
    ] {
        assert!(
            metrics.contains(&format!("tributary_aggregator_{name}")),
            "{name}: {metrics}"
        );
    }
    site.running.shut_down().await.unwrap();
}

#[tokio::test]
async fn an_aggregator_starts_with_what_its_lake_has_and_its_journal_lost() {
    let site = site().await;
    let mut agent = site.agent(1).await;
    agent.send(&series(0, 0, 3)).await;
    agent.acked(Lane::Series, 1).await;
    let batches: Vec<_> = (0..5).map(|n| readings(n, 3, 100, 0)).collect();
    for batch in &batches {
        agent.send(batch).await;
        agent.acked(Lane::Telemetry, 1).await;
    }
    let bad = batches[2].bytes().clone();
    let site = site
        .restart_after(|data| {
            let mut hit = 0;
            for entry in std::fs::read_dir(data.join("journal")).unwrap() {
                let path = entry.unwrap().path();
                let Ok(mut bytes) = std::fs::read(&path) else {
                    continue;
                };
                if let Some(at) = bytes.windows(bad.len()).position(|here| here == bad) {
                    bytes[at + bad.len() / 2] ^= 1;
                    std::fs::write(&path, bytes).unwrap();
                    hit += 1;
                }
            }
            assert_eq!(hit, 1);
        })
        .await;
    assert_eq!(site.running.keeper().damaged(), 1);
    let mut agent = site.agent(1).await;
    let held = agent.welcome.as_ref().unwrap().lanes[1].ranges[0];
    let hashes = batches.iter().map(SealedBatch::hash);
    let sum = hashes.fold(HashSum::default(), HashSum::with);
    assert_eq!((held.first, held.end, held.sum), (0, 5, sum));
    for batch in &batches {
        agent.send(batch).await;
    }
    assert_eq!(agent.acked(Lane::Telemetry, 5).await, (0..5).collect());
    assert_eq!(site.running.keeper().batches(), 0, "none of it was new");
    site.running.flush().await.unwrap();
    let mut found = BTreeSet::new();
    lake_rows(&site.dir.path().join("data/lake/readings"), &mut found);
    assert_eq!(found.len(), 500);
    site.running.shut_down().await.unwrap();
}

#[tokio::test]
async fn certificates_of_others_expired_ones_and_those_that_name_no_agent_are_refused() {
    let site = site().await;
    let foreign = Authority::new().agent(&agent(1));
    let bad = [
        foreign,
        site.authority.expired(&agent(1)),
        site.authority.nobody(),
    ];
    for client in bad {
        // With TLS 1.3 the client learns of its refusal only after its own handshake.
        if let Ok(connection) = site.connect(&client).await {
            let mut agent = Agent::of(connection).await;
            // The stream may be gone before anything could be written.
            let _ = agent.send.write_all(&hello().encode().unwrap()).await;
            assert_eq!(agent.hear().await, None, "somebody was welcomed");
            agent.connection.closed().await;
        }
    }
    assert_eq!(site.running.keeper().batches(), 0);
    site.agent(1).await;
}

#[tokio::test]
async fn garbage_is_answered_and_harms_nobody_else() {
    let site = site().await;
    let mut honest = site.agent(2).await;
    honest.send(&series(0, 0, 3)).await;
    honest.acked(Lane::Series, 1).await;

    let good = frame(FrameKind::Batch, readings(0, 3, 10, 0).bytes()).unwrap();
    let mut wrong_sum = good.to_vec();
    *wrong_sum.last_mut().unwrap() ^= 1;
    let mut trailing = good.to_vec();
    trailing.push(0);
    let mut huge = good.to_vec();
    huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let over = vec![0; BATCH_BYTES_MAX + 1];
    let streams = [
        ("cut short", good[..good.len() - 1].to_vec()),
        ("cut short", b"TB".to_vec()),
        ("damaged on the way", wrong_sum),
        ("after the end", trailing),
        ("at most", huge),
        ("at most", frame(FrameKind::Batch, &over).unwrap().to_vec()),
        ("no frame of Tributary", vec![0; HEADER_BYTES]),
        (
            "on a stream for batches",
            hello().encode().unwrap().to_vec(),
        ),
        (
            "refused",
            frame(FrameKind::Batch, b"no flatbuffer, but long enough")
                .unwrap()
                .to_vec(),
        ),
    ];
    for (complaint, bytes) in streams {
        let mut agent = site.agent(1).await;
        // It may be told off before everything is written.
        let mut stream = agent.connection.open_uni().await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.finish();
        let reject = agent.rejected().await;
        assert_eq!(reject.code, RejectCode::Protocol);
        let close_enough = reject.detail.contains(complaint) || complaint == "refused";
        assert!(
            close_enough,
            "`{}` does not say `{complaint}`",
            reject.detail
        );
        agent.connection.closed().await;
    }

    let welcome = honest.welcome.clone().unwrap();
    let control = [
        vec![0xff; 64],
        Message::Welcome(welcome).encode().unwrap().to_vec(),
    ];
    for bytes in control {
        let client = site.authority.agent(&agent(1));
        let mut agent = Agent::of(site.connect(&client).await.unwrap()).await;
        agent.send.write_all(&bytes).await.unwrap();
        assert_eq!(agent.rejected().await.code, RejectCode::Protocol);
    }

    honest.send(&readings(0, 3, 10, 0)).await;
    assert_eq!(honest.acked(Lane::Telemetry, 1).await, BTreeSet::from([0]));
    assert_eq!(site.running.keeper().batches(), 2);
}

#[tokio::test]
async fn agents_that_only_announce_batches_hold_up_nobody_else() {
    let site = site().await;
    let mut header = frame(FrameKind::Batch, &vec![0; BATCH_BYTES_MAX])
        .unwrap()
        .to_vec();
    header.truncate(HEADER_BYTES + 1);
    // More together than all batches that are read, verified or committed may have.
    let (mut open, mut agents) = (Vec::new(), Vec::new());
    for n in 0..8 {
        let stalled = site.agent(n).await;
        for _ in 0..16 {
            let mut stream = stalled.connection.open_uni().await.unwrap();
            stream.write_all(&header).await.unwrap();
            open.push(stream);
        }
        agents.push(stalled);
    }
    let mut honest = site.agent(99).await;
    honest.send(&series(0, 0, 3)).await;
    honest.acked(Lane::Series, 1).await;
    honest.send(&readings(0, 3, 10, 0)).await;
    honest.acked(Lane::Telemetry, 1).await;
}

#[tokio::test]
async fn a_bomb_is_asked_for_again_twice_and_then_kept_apart() {
    let site = site().await;
    let mut agent = site.agent(1).await;
    let bomb = spoiled(0, "does not state the size");
    for _ in 0..2 {
        agent.send(&bomb).await;
        let again = Again {
            key: bomb.key(),
            reason: AgainReason::Damaged,
        };
        assert_eq!(agent.ack().await.again, [again]);
    }
    agent.send(&bomb).await;
    assert_eq!(agent.acked(Lane::Telemetry, 1).await, BTreeSet::from([0]));
    site.running.flush().await.unwrap();
    assert_eq!(site.running.lake().refused(), 1);
    let rejected = site.dir.path().join("data/lake/rejected");
    let kept = std::fs::read_dir(rejected)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let kept = kept.filter(|path| path.extension().is_some_and(|ending| ending == "batches"));
    let kept: Vec<_> = kept.map(|path| std::fs::read(path).unwrap()).collect();
    assert_eq!(kept, [bomb.bytes().to_vec()]);
}

#[tokio::test]
async fn a_batch_before_its_series_is_asked_for_again() {
    let site = site().await;
    let mut agent = site.agent(1).await;
    let early = readings(0, 3, 10, 0);
    agent.send(&early).await;
    let again = Again {
        key: key(Lane::Telemetry, 0),
        reason: AgainReason::SeriesUnknown,
    };
    assert_eq!(
        agent.ack().await,
        Ack {
            ranges: vec![],
            again: vec![again]
        }
    );
    agent.send(&series(0, 0, 3)).await;
    agent.acked(Lane::Series, 1).await;
    agent.send(&early).await;
    assert_eq!(agent.acked(Lane::Telemetry, 1).await, BTreeSet::from([0]));
}

#[tokio::test]
async fn the_newest_session_of_an_agent_ends_the_older_one() {
    let site = site().await;
    let mut old = site.agent(1).await;
    let mut new = site.agent(1).await;
    assert_eq!(old.rejected().await.code, RejectCode::Fenced);
    new.send(&series(0, 0, 1)).await;
    new.acked(Lane::Series, 1).await;
}

#[tokio::test]
async fn shutting_down_says_so_and_writes_the_lake() {
    let site = site().await;
    let mut agent = site.agent(1).await;
    agent.send(&series(0, 0, 3)).await;
    agent.acked(Lane::Series, 1).await;
    agent.send(&readings(0, 3, 10, 0)).await;
    agent.acked(Lane::Telemetry, 1).await;
    let lake = std::sync::Arc::clone(site.running.lake());
    let goodbye = async move { agent.rejected().await.code };
    let (down, goodbye) = tokio::join!(site.running.shut_down(), goodbye);
    down.unwrap();
    assert_eq!(goodbye, RejectCode::Closing);
    assert_eq!(lake.position(), 2);
}

#[tokio::test]
async fn a_port_in_use_and_a_directory_in_use_are_named() {
    let site = site().await;
    let dir = TempDir::new().unwrap();
    let stop = CancellationToken::new;
    let mut taken = config(dir.path(), &site.authority);
    taken.http = site.running.http_addr();
    let error = start(taken.clone(), stop()).await.unwrap_err();
    assert!(
        matches!(error, AggregatorError::HttpInUse { .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains(&taken.http.to_string()),
        "{error}"
    );
    taken.http = "127.0.0.1:0".parse().unwrap();
    taken.uplink = site.running.uplink_addr();
    let error = start(taken.clone(), stop()).await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("{}/udp is in use", taken.uplink)),
        "{error}"
    );
    taken.uplink = "127.0.0.1:0".parse().unwrap();
    taken.data_dir = site.dir.path().join("data");
    let error = start(taken, stop()).await.unwrap_err();
    assert!(matches!(error, AggregatorError::Lock(_)), "{error}");
}
