//! What connections may hold while the queue takes nothing, and how many there may be.

use super::*;
use crate::limits::{CONNECTIONS_MAX, WAL_QUEUE_BYTES_MAX};
use crate::source::codec::Version;
use crate::source::codec::tests::{connect, publish};
use crate::wal::{Append, Room, Wal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tributary_journal::{Appended, CommitPolicy, Frame, LifeId, LogError};

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

struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    wal: Wal,
    tasks: JoinSet<()>,
}

async fn serve(connections_max: usize) -> Server {
    serve_with(connections_max, Sessions::none()).await
}

async fn serve_with(connections_max: usize, sessions: Sessions) -> Server {
    let config = ListenerConfig::open("127.0.0.1:0".parse().unwrap(), 1_000_000);
    serve_as(config, connections_max, sessions).await
}

async fn serve_as(config: ListenerConfig, connections_max: usize, sessions: Sessions) -> Server {
    let wal = Wal::start(Taking(0), CommitPolicy::low_latency()).unwrap();
    let listener = Listener::bind(&config, wal.queue.clone()).await.unwrap();
    let mut listener = listener.with_sessions(sessions);
    listener.connections_max = connections_max;
    let address = listener.local_address().unwrap();
    let shared = Arc::clone(&listener.shared);
    let mut tasks = JoinSet::new();
    tasks.spawn(listener.run(CancellationToken::new()));
    Server {
        address,
        shared,
        wal,
        tasks,
    }
}

impl Server {
    fn fill_queue(&self) -> Room {
        self.shared.queue.try_room(WAL_QUEUE_BYTES_MAX).unwrap()
    }

    fn unfinished(&self) -> usize {
        self.shared.unfinished.load(Ordering::Relaxed)
    }

    /// Waits until what is counted is what it should be.
    async fn holds(&self, right: impl Fn(usize) -> bool) {
        while !right(self.unfinished()) {
            tokio::task::yield_now().await;
        }
    }

    async fn client(&self, id: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream
            .write_all(&connect(Version::V5, id, 60))
            .await
            .unwrap();
        let mut head = [0; 2];
        stream.read_exact(&mut head).await.unwrap();
        let mut rest = vec![0; usize::from(head[1])];
        stream.read_exact(&mut rest).await.unwrap();
        assert_eq!((head[0], rest[1]), (0x20, 0), "let in");
        stream
    }

    async fn end(mut self) {
        self.tasks.shutdown().await;
        self.wal.queue.close();
        drop(self.wal.committed);
        let thread = self.wal.thread;
        tokio::task::spawn_blocking(move || thread.join().unwrap())
            .await
            .unwrap();
    }
}

/// One read: 2,000 small messages, 56 kB in a batch; and a ping, answered behind them.
async fn burst(stream: &mut TcpStream) -> [u8; 2] {
    let mut bytes = publish(Version::V5, 0, 0, "a", b"").repeat(2_000);
    assert!(bytes.len() + 2 <= READ_BYTES);
    bytes.extend([0xc0, 0]);
    stream.write_all(&bytes).await.unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

/// What a client that is called `a` holds while it is idle.
const NAME_BYTES: usize = 2;

/// An MQTT 5 CONNECT that wants a session, of somebody with these names.
fn connect_as(id: &str, user: &str, password: &str) -> Vec<u8> {
    let mut body = [&[0, 4], b"MQTT".as_slice(), &[5, 0xc0, 0, 60]].concat();
    body.extend([5, 0x11, 0, 0, 2, 88]);
    for text in [id, user, password] {
        body.extend((text.len() as u16).to_be_bytes());
        body.extend(text.as_bytes());
    }
    let length = [body.len() as u8 | 0x80, (body.len() >> 7) as u8];
    [&[0x10], &length[..], &body].concat()
}

/// Who waits to be let in is counted with all that it said of itself, and then with its name.
#[tokio::test]
async fn who_arrives_is_counted_until_it_is_decided() {
    let sessions = Sessions::new();
    let server = serve_with(8, sessions.clone()).await;
    let (id, user) = ("i".repeat(200), "u".repeat(250));
    let hello = connect_as(&id, &user, &"p".repeat(1_000));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    // Its identifier four times, and its user; the password is gone before the wait for the log.
    let names = 4 * 200 + 250;
    server
        .holds(|bytes| (names..names + 200).contains(&bytes))
        .await;
    sessions.replayed([], std::time::Instant::now());
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!((answer[0], answer[3]), (0x20, 0));
    server.holds(|bytes| bytes == 2 * 200).await;
    drop(stream);
    server.holds(|bytes| bytes == 0).await;
    server.end().await;
}

#[tokio::test]
async fn beyond_the_bound_nobody_who_says_much_of_itself_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users.toml");
    std::fs::write(&users, "").unwrap();
    let config = ListenerConfig {
        users: Some(users),
        ..ListenerConfig::open("127.0.0.1:0".parse().unwrap(), 1_000_000)
    };
    let server = serve_as(config, 8, Sessions::none()).await;
    let others = UNFINISHED_BYTES_HARD_MAX;
    server
        .shared
        .unfinished
        .fetch_add(others, Ordering::Relaxed);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let hello = connect_as(&"i".repeat(250), &"u".repeat(250), &"p".repeat(1_000));
    stream.write_all(&hello).await.unwrap();
    let mut last = Vec::new();
    stream.read_to_end(&mut last).await.unwrap();
    // It may come again: nobody has looked at its password.
    assert_eq!(last, [0x20, 3, 0, 0x89, 0]);
    server.holds(|bytes| bytes == others).await;
    server.end().await;
}

#[tokio::test]
async fn what_waits_for_the_queue_is_counted_until_it_is_taken() {
    let server = serve(8).await;
    let mut stream = server.client("a").await;
    server.holds(|bytes| bytes == NAME_BYTES).await;
    let room = server.fill_queue();
    assert_eq!(burst(&mut stream).await, [0xd0, 0]);
    let waiting = server.unfinished();
    assert!((50_000..70_000).contains(&waiting), "{waiting}");
    drop(room);
    // Read again, so what waited has been handed over.
    stream.write_all(&[0xc0, 0]).await.unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!((answer, server.unfinished()), ([0xd0, 0], NAME_BYTES));
    drop(stream);
    server.holds(|bytes| bytes == 0).await;
    server.end().await;
}

/// Fire and forget, as `mosquitto_pub` does, while the log takes nothing.
#[tokio::test]
async fn the_last_words_before_a_leave_wait_for_the_queue() {
    let mut server = serve(8).await;
    let mut stream = server.client("a").await;
    let room = server.fill_queue();
    let mut bytes = publish(Version::V5, 0, 0, "a", b"last");
    bytes.extend([0xe0, 0]);
    stream.write_all(&bytes).await.unwrap();
    let mut unread = Vec::new();
    // The connection holds them; it does not close before they are handed over.
    assert!(poll_once(stream.read_to_end(&mut unread)).await.is_none());
    drop(room);
    stream.read_to_end(&mut unread).await.unwrap();
    let frame = server.wal.committed.recv().await.unwrap();
    assert_eq!(frame.count, 1);
    server.end().await;
}

/// What a future gives now, if it does.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = tokio::task::yield_now() => None,
    }
}

#[tokio::test]
async fn beyond_the_bound_who_holds_much_of_it_is_closed_and_holds_nothing() {
    let server = serve(8).await;
    let mut stream = server.client("a").await;
    server.holds(|bytes| bytes == NAME_BYTES).await;
    let room = server.fill_queue();
    let others = UNFINISHED_BYTES_MAX - 10_000;
    server
        .shared
        .unfinished
        .fetch_add(others, Ordering::Relaxed);
    assert_eq!(burst(&mut stream).await, [0xd0, 0], "answered first");
    let mut last = Vec::new();
    stream.read_to_end(&mut last).await.unwrap();
    assert_eq!(last, [0xe0, 1, 0x97]);
    server.holds(|bytes| bytes == others).await;
    drop(room);
    server.end().await;
}

#[tokio::test]
async fn beyond_the_limit_of_connections_the_next_is_closed_at_once() {
    let server = serve(1).await;
    let first = server.client("a").await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(second.read(&mut [0; 1]).await.unwrap(), 0);
    drop(first);
    server.end().await;
}

#[test]
fn all_connections_together_hold_a_bounded_sum() {
    let (soft, hard) = (UNFINISHED_BYTES_MAX, UNFINISHED_BYTES_HARD_MAX);
    assert!(may_hold(350_000, soft));
    assert!(!may_hold(READ_BYTES + 1, soft + 1));
    assert!(may_hold(READ_BYTES, soft + 1) && may_hold(READ_BYTES, hard));
    assert!(!may_hold(UNFINISHED_BYTES_ALLOWED + 1, hard + 1));
    assert!(may_hold(UNFINISHED_BYTES_ALLOWED, usize::MAX));
    // One after the other, each takes the most that it may: as in a flood of readers.
    for part in [350_000, READ_BYTES, UNFINISHED_BYTES_ALLOWED] {
        let mut sum = 0;
        for _ in 0..CONNECTIONS_MAX {
            sum += if may_hold(part, sum + part) { part } else { 0 };
        }
        assert!(sum <= hard, "{sum} in parts of {part}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_small() {
    let server = serve(8).await;
    let signal = server.shared.registry.enter(9, 8).unwrap();
    let socket = TcpStream::connect(server.address).await.unwrap();
    let stream = Stream::Plain(socket);
    let mut task = Task::new(stream, 9, signal, &server.shared, server.address.ip());
    let one = async move { task.run().await };
    let bytes = size_of_val(&one);
    assert!(
        bytes <= 1_536,
        "a connection's task has {bytes} bytes: TLS is in a box of its own"
    );
    drop(one);
    server.end().await;
}
