//! The listener with real sockets and real clients, in front of a real log or of one that the
//! test holds back. Nothing here waits for time to pass: each step waits for an answer.

use rumqttc::mqttbytes::v4;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tributary_agent::source::{Hub, Listener, ListenerConfig, ListenerError, Reload, Sessions};
use tributary_agent::wal::{Append, CommittedFrame, Record, Replay, StorageState, Wal};
use tributary_journal::{
    Appended, CommitPolicy, Frame, LifeId, Log, LogConfig, LogError, LogKind, Open, Opened, OsDisk,
};

mod access;
mod crowd;
pub mod pki;
mod reading;
mod sessions;
mod statements;

const LIFE: LifeId = LifeId([1; 16]);

/// A log that is only as durable as the test lets it be: each frame waits for a word.
pub(crate) struct Gate {
    reached: mpsc::Sender<u32>,
    verdicts: mpsc::Receiver<Result<(), LogError>>,
    next: u64,
}

impl Append for Gate {
    fn append(&mut self, frame: &Frame) -> Result<Appended, LogError> {
        // A test that has ended, or lets go, lets everything through.
        let _ = self.reached.send(frame.count());
        self.verdicts.recv().unwrap_or(Ok(()))?;
        let first = self.next;
        self.next += u64::from(frame.count());
        Ok(Appended {
            life: LIFE,
            first,
            count: frame.count(),
        })
    }
}

pub(crate) struct Held {
    reached: Arc<Mutex<mpsc::Receiver<u32>>>,
    verdicts: mpsc::Sender<Result<(), LogError>>,
}

impl Held {
    /// A frame stands at the gate; how many records it holds.
    pub(crate) async fn reached(&self) -> u32 {
        let reached = Arc::clone(&self.reached);
        tokio::task::spawn_blocking(move || reached.lock().unwrap().recv().unwrap())
            .await
            .unwrap()
    }

    pub(crate) fn open(&self) {
        self.verdicts.send(Ok(())).unwrap();
    }
}

pub(crate) fn gate() -> (Gate, Held) {
    let (reached, reached_receiver) = mpsc::channel();
    let (verdicts_sender, verdicts) = mpsc::channel();
    let reached_receiver = Arc::new(Mutex::new(reached_receiver));
    (
        Gate {
            reached,
            verdicts,
            next: 0,
        },
        Held {
            reached: reached_receiver,
            verdicts: verdicts_sender,
        },
    )
}

struct Server {
    address: std::net::SocketAddr,
    tls: Option<std::net::SocketAddr>,
    reload: Reload,
    hub: Hub,
    wal: Wal,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn serve(writer: impl Append) -> Server {
    serve_with(writer, Sessions::none()).await
}

async fn serve_with(writer: impl Append, sessions: Sessions) -> Server {
    serve_at(writer, sessions, 1_000_000).await
}

/// At so many messages a second for each client.
async fn serve_at(writer: impl Append, sessions: Sessions, messages_per_s: u32) -> Server {
    let config = ListenerConfig::open("127.0.0.1:0".parse().unwrap(), messages_per_s);
    serve_as(writer, &config, sessions).await
}

async fn serve_as(writer: impl Append, config: &ListenerConfig, sessions: Sessions) -> Server {
    let wal = Wal::start(writer, CommitPolicy::low_latency()).unwrap();
    let listener = Listener::bind(config, wal.queue.clone()).await.unwrap();
    let hub = Hub::new();
    let listener = listener.with_sessions(sessions).publishing(hub.clone());
    let address = listener.local_address().unwrap();
    let tls = listener.tls_address().unwrap();
    let reload = listener.reload();
    let stop = CancellationToken::new();
    let task = tokio::spawn(listener.run(stop.clone()));
    Server {
        address,
        tls,
        reload,
        hub,
        wal,
        stop,
        task,
    }
}

impl Server {
    /// Ends the listener and the log, and gives what was committed and not yet taken.
    async fn end(mut self) -> Vec<CommittedFrame> {
        self.stop.cancel();
        self.task.await.unwrap();
        self.wal.queue.close();
        let mut frames = Vec::new();
        while let Some(frame) = self.wal.committed.recv().await {
            frames.push(frame);
        }
        let thread = self.wal.thread;
        tokio::task::spawn_blocking(move || thread.join().unwrap())
            .await
            .unwrap();
        frames
    }
}

/// Takes what is committed as it comes, so that any number of frames may.
fn taken(server: Server) -> (Server, JoinHandle<Vec<CommittedFrame>>) {
    let mut committed = server.wal.committed;
    let taking = tokio::spawn(async move {
        let mut frames = Vec::new();
        while let Some(frame) = committed.recv().await {
            frames.push(frame);
        }
        frames
    });
    let (nothing, committed) = tokio::sync::mpsc::channel(1);
    drop(nothing);
    let wal = Wal {
        committed,
        ..server.wal
    };
    (Server { wal, ..server }, taking)
}

/// Topics and payloads of frames, checking that numbers have no hole.
fn messages(frames: &[CommittedFrame]) -> Vec<(String, Vec<u8>)> {
    let mut next = 0;
    let mut found = Vec::new();
    for (number, kind, bytes) in frames.iter().flat_map(CommittedFrame::records) {
        assert_eq!(number, next);
        next += 1;
        let Ok(Record::Message(m)) = Record::parse(kind, bytes) else {
            panic!("no message")
        };
        found.push((m.topic.to_owned(), m.payload.to_vec()));
    }
    found
}

/// A client of nothing but bytes.
struct Raw(TcpStream);

impl Raw {
    async fn open(server: &Server) -> Self {
        Self(TcpStream::connect(server.address).await.unwrap())
    }

    async fn connected(server: &Server, level: u8, id: &str) -> Self {
        let mut raw = Self::open(server).await;
        let mut body = [&[0, 4], b"MQTT".as_slice(), &[level, 2, 0, 60]].concat();
        body.extend((level == 5).then_some(0));
        body.extend([0, id.len() as u8]);
        body.extend(id.as_bytes());
        raw.send(&[&[0x10, body.len() as u8], body.as_slice()].concat())
            .await;
        let answer = raw.packet().await.unwrap();
        assert_eq!((answer[0], answer[3]), (0x20, 0), "{answer:02x?}");
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn publish(&mut self, qos: u8, id: u16, topic: &str, payload: &[u8]) {
        let mut packet = v4::Publish::new(topic, rumqttc::mqttbytes::qos(qos).unwrap(), payload);
        packet.pkid = id;
        let mut out = bytes::BytesMut::new();
        packet.write(&mut out).unwrap();
        self.send(&out).await;
    }

    /// The next packet; `None` when the server has closed.
    async fn packet(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 2];
        match self.0.read_exact(&mut packet).await {
            Ok(_) => {}
            Err(_) => return None,
        }
        assert!(packet[1] < 128, "only short answers");
        let mut body = vec![0; usize::from(packet[1])];
        self.0.read_exact(&mut body).await.unwrap();
        packet.extend(body);
        Some(packet)
    }
}

#[tokio::test]
async fn a_publication_is_acknowledged_only_when_it_is_durable() {
    let (writer, held) = gate();
    let server = serve(writer).await;
    let mut raw = Raw::connected(&server, 4, "a").await;
    raw.publish(1, 7, "plant/t", b"1").await;
    assert_eq!(held.reached().await, 1);
    // The frame stands at the gate: whatever else is answered, this is not.
    for _ in 0..3 {
        raw.send(&[0xc0, 0]).await;
        assert_eq!(raw.packet().await.unwrap(), [0xd0, 0]);
    }
    held.open();
    assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 7]);
    drop((raw, held));
    assert_eq!(
        messages(&server.end().await),
        [("plant/t".into(), b"1".to_vec())]
    );
}

#[tokio::test]
async fn a_frame_that_storage_refuses_is_not_acknowledged_until_it_is_taken() {
    let (writer, held) = gate();
    let mut server = serve(writer).await;
    let mut raw = Raw::connected(&server, 4, "a").await;
    raw.publish(1, 7, "plant/t", b"1").await;
    assert_eq!(held.reached().await, 1);
    let full = LogError::Full {
        dir: "wal".into(),
        quota_bytes: 1,
        held_bytes: 1,
    };
    held.verdicts.send(Err(full)).unwrap();
    server
        .wal
        .state
        .wait_for(|state| *state == StorageState::Full)
        .await
        .unwrap();
    let failed = std::io::Error::other("fdatasync");
    let failed = LogError::Io {
        doing: "syncing",
        path: "wal".into(),
        source: failed,
    };
    assert_eq!(held.reached().await, 1, "the same frame again");
    held.verdicts.send(Err(failed)).unwrap();
    server
        .wal
        .state
        .wait_for(|state| *state == StorageState::Failed)
        .await
        .unwrap();
    raw.send(&[0xc0, 0]).await;
    assert_eq!(raw.packet().await.unwrap(), [0xd0, 0]);
    assert_eq!(held.reached().await, 1);
    held.open();
    assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 7]);
    assert_eq!(*server.wal.state.borrow(), StorageState::Ok);
    drop((raw, held));
    assert_eq!(server.end().await.len(), 1, "written once");
}

#[tokio::test]
async fn what_waits_during_a_commit_goes_into_one_frame() {
    let (writer, held) = gate();
    let server = serve(writer).await;
    let mut clients = Vec::new();
    for i in 0..10 {
        clients.push(Raw::connected(&server, 4, &format!("c{i}")).await);
    }
    clients[0].publish(1, 1, "a/0", b"first").await;
    assert_eq!(held.reached().await, 1);
    for (i, client) in clients.iter_mut().enumerate() {
        client.publish(1, 2, &format!("a/{i}"), b"x").await;
        // Answered behind the publication: it is in the queue now.
        client.send(&[0xc0, 0]).await;
        assert_eq!(client.packet().await.unwrap(), [0xd0, 0]);
    }
    held.open();
    assert_eq!(held.reached().await, 10);
    held.open();
    assert_eq!(clients[0].packet().await.unwrap(), [0x40, 2, 0, 1]);
    for client in &mut clients {
        assert_eq!(client.packet().await.unwrap(), [0x40, 2, 0, 2]);
    }
    drop((clients, held));
    assert_eq!(server.end().await.len(), 2);
}

#[tokio::test]
async fn the_newer_of_two_clients_with_one_name_stays() {
    let (writer, held) = gate();
    let server = serve(writer).await;
    let mut older = Raw::connected(&server, 5, "same").await;
    let mut newer = Raw::connected(&server, 5, "same").await;
    assert_eq!(older.packet().await.unwrap(), [0xe0, 1, 0x8e]);
    assert_eq!(older.packet().await, None);
    newer.send(&[0xc0, 0]).await;
    assert_eq!(newer.packet().await.unwrap(), [0xd0, 0]);
    // The older one's end did not take the newer one's name away.
    let mut newest = Raw::connected(&server, 4, "same").await;
    assert_eq!(newer.packet().await.unwrap(), [0xe0, 1, 0x8e]);
    newest.send(&[0xc0, 0]).await;
    assert_eq!(newest.packet().await.unwrap(), [0xd0, 0]);
    drop((held, newest));
    server.end().await;
}

#[tokio::test]
async fn garbage_and_halves_end_their_connection_and_no_other() {
    let (writer, held) = gate();
    let server = serve(writer).await;
    let mut good = Raw::connected(&server, 4, "good").await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[0x10, 0xff, 0xff, 0xff, 0xff],
    ] {
        let mut raw = Raw::open(&server).await;
        raw.send(garbage).await;
        assert_eq!(raw.packet().await, None, "{garbage:02x?}");
    }
    // Half a CONNECT, half a PUBLISH, and gone.
    let mut half = Raw::open(&server).await;
    half.send(&[0x10, 20, 0, 4, b'M']).await;
    drop(half);
    let mut half = Raw::connected(&server, 4, "half").await;
    half.send(&[0x32, 20, 0, 4, b'a']).await;
    drop(half);
    good.send(&[0xc0, 0]).await;
    assert_eq!(good.packet().await.unwrap(), [0xd0, 0]);
    drop((good, held));
    assert!(
        server.end().await.is_empty(),
        "no half message came through"
    );
}

#[tokio::test(start_paused = true)]
async fn who_never_finishes_connect_is_closed() {
    let (writer, held) = gate();
    let server = serve(writer).await;
    let begun = tokio::time::Instant::now();
    let mut raw = Raw::open(&server).await;
    raw.send(&[0x10, 20, 0, 4]).await;
    assert_eq!(raw.packet().await, None);
    // The clock is the test's: it jumps to the only deadline there is.
    assert_eq!(begun.elapsed().as_secs(), 5);
    drop(held);
    server.end().await;
}

#[tokio::test]
async fn an_oversized_message_is_kept_as_a_head_and_acknowledged_on_3_1_1() {
    let (writer, held) = gate();
    let server = serve(writer).await;
    let mut raw = Raw::connected(&server, 4, "cam").await;
    let large = vec![b'x'; 3_000_000];
    raw.publish(1, 9, "plant/cam", &large).await;
    assert_eq!(held.reached().await, 1);
    held.open();
    assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 9]);
    drop((raw, held));
    let frames = server.end().await;
    let (_, kind, bytes) = frames[0].records().next().unwrap();
    let Ok(Record::TooLarge(large)) = Record::parse(kind, bytes) else {
        panic!("no head")
    };
    assert_eq!(large.payload_bytes, 3_000_000);
    assert_eq!(
        (large.message.topic, large.message.payload.len()),
        ("plant/cam", 1_024)
    );
}

#[tokio::test]
async fn an_end_acknowledges_what_was_taken_in() {
    let (writer, held) = gate();
    let server = serve(writer).await;
    let mut raw = Raw::connected(&server, 5, "a").await;
    // MQTT 5: no properties behind the packet id.
    raw.send(&[0x32, 7, 0, 1, b'a', 0, 7, 0, b'1']).await;
    assert_eq!(held.reached().await, 1);
    server.stop.cancel();
    held.open();
    assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 7]);
    assert_eq!(raw.packet().await.unwrap(), [0xe0, 1, 0x8b]);
    assert_eq!(raw.packet().await, None);
    drop(held);
    assert_eq!(server.end().await.len(), 1);
}

#[tokio::test]
async fn an_end_does_not_wait_for_storage_that_is_full() {
    let (writer, held) = gate();
    let mut server = serve(writer).await;
    let mut raw = Raw::connected(&server, 4, "a").await;
    raw.publish(1, 7, "a", b"1").await;
    held.reached().await;
    let full = || LogError::Full {
        dir: "wal".into(),
        quota_bytes: 1,
        held_bytes: 1,
    };
    (0..1_000).for_each(|_| held.verdicts.send(Err(full())).unwrap());
    server
        .wal
        .state
        .wait_for(|state| *state == StorageState::Full)
        .await
        .unwrap();
    server.wal.queue.close();
    assert!(
        server.wal.committed.recv().await.is_none(),
        "the stage ends, and nothing is claimed"
    );
    drop(raw);
    server.end().await;
}

#[tokio::test]
async fn a_port_in_use_says_which_and_what_to_do() {
    let (writer, held) = gate();
    let server = serve(writer).await;
    let config = ListenerConfig::open(server.address, 1);
    let error = Listener::bind(&config, server.wal.queue.clone())
        .await
        .unwrap_err();
    assert!(matches!(error, ListenerError::InUse { .. }));
    assert!(
        error.to_string().contains(&server.address.to_string()),
        "{error}"
    );
    drop(held);
    server.end().await;
}

fn open_log(dir: &Path, life: LifeId) -> Opened {
    let config = LogConfig {
        segment_bytes: 64 * 1024,
        quota_bytes: 4 * 1024 * 1024,
        reserve_bytes: 0,
        kind: LogKind::Wal,
    };
    Log::open(Arc::new(OsDisk), dir, config, Open::NewLife(life)).unwrap()
}

/// Publishes with rumqttc's client until all is acknowledged.
async fn publish_v4(server: &Server, count: u32) {
    let mut options = rumqttc::MqttOptions::new("v4", "127.0.0.1", server.address.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = rumqttc::AsyncClient::new(options, 16);
    let sender = tokio::spawn(async move {
        for i in 0..count {
            let qos = rumqttc::QoS::AtLeastOnce;
            client
                .publish("v4/n", qos, false, i.to_string())
                .await
                .unwrap();
        }
        client
    });
    let mut acks = 0;
    while acks < count {
        use rumqttc::{Event, Packet};
        acks += u32::from(matches!(
            events.poll().await.unwrap(),
            Event::Incoming(Packet::PubAck(_))
        ));
    }
    sender.await.unwrap();
}

async fn publish_v5(server: &Server, count: u32) {
    use rumqttc::v5;
    let mut options = v5::MqttOptions::new("v5", "127.0.0.1", server.address.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = v5::AsyncClient::new(options, 16);
    let sender = tokio::spawn(async move {
        for i in 0..count {
            let qos = v5::mqttbytes::QoS::AtLeastOnce;
            client
                .publish("v5/n", qos, false, i.to_string())
                .await
                .unwrap();
        }
        client
    });
    let mut acks = 0;
    while acks < count {
        let event = events.poll().await.unwrap();
        acks += u32::from(matches!(
            event,
            v5::Event::Incoming(v5::Incoming::PubAck(_))
        ));
    }
    sender.await.unwrap();
}

/// A folder in which what is synced is durable.
pub(crate) fn on_disk() -> tempfile::TempDir {
    let dir = tributary_ground::scratch(Path::new(env!("CARGO_TARGET_TMPDIR")), "listener-");
    dir.unwrap_or_else(|why| panic!("{why}"))
}

#[tokio::test]
async fn what_real_clients_heard_acknowledged_is_on_disk_in_order() {
    const COUNT: u32 = 500;
    let dir = on_disk();
    let opened = open_log(dir.path(), LIFE);
    let server = serve(opened.writer).await;
    let (server, taking) = taken(server);
    tokio::join!(publish_v4(&server, COUNT), publish_v5(&server, COUNT));
    server.end().await;
    let live = messages(&taking.await.unwrap());

    // A later life reads them back the same, and goes on behind.
    let opened = open_log(dir.path(), LifeId([2; 16]));
    let mut replay = Replay::new(opened.reader, None);
    let mut replayed = Vec::new();
    while let Some(step) = replay.next_step().unwrap() {
        let Some(Ok(Record::Message(m))) = step.record() else {
            panic!("{step:?}")
        };
        replayed.push((m.topic.to_owned(), m.payload.to_vec()));
    }
    assert_eq!(replayed, live);
    for topic in ["v4/n", "v5/n"] {
        let of_topic = replayed.iter().filter(|(t, _)| t == topic);
        let payloads: Vec<String> = of_topic
            .map(|(_, p)| String::from_utf8(p.clone()).unwrap())
            .collect();
        assert_eq!(
            payloads,
            (0..COUNT).map(|i| i.to_string()).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn a_flood_is_read_no_faster_than_it_becomes_durable() {
    const MESSAGES: u32 = 8_000;
    let (writer, held) = gate();
    let mut server = serve(writer).await;
    let mut raw = Raw::connected(&server, 4, "flood").await;
    let flooding = tokio::spawn(async move {
        for i in 0..MESSAGES {
            raw.publish(0, 0, "a", format!("{i:01000}").as_bytes())
                .await;
        }
        raw
    });
    let mut frames = Vec::new();
    let mut taken = 0;
    while taken < MESSAGES {
        taken += held.reached().await;
        held.open();
        frames.push(server.wal.committed.recv().await.unwrap());
    }
    // At most what one connection may have under way, and one read beyond it.
    let most = frames.iter().map(|frame| frame.count).max().unwrap();
    assert!(
        most <= (256 + 17) * 1024 / 1_000,
        "{most} messages of 1 kB in one frame"
    );
    let payloads = messages(&frames).into_iter().map(|(_, payload)| payload);
    assert!(payloads.eq((0..MESSAGES).map(|i| format!("{i:01000}").into_bytes())));
    drop((flooding.await.unwrap(), held));
    server.end().await;
}
