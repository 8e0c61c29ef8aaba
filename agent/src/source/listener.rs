//! The MQTT listener's sockets and tasks: one task a connection, no decision in any of them.

use super::connection::{Admission, Connection, Now, Order, Tally};
use super::files;
use super::registry::{Registry, Signal};
use super::sessions::Sessions;
use super::wills::Wills;
use crate::limits::{
    ACCEPT_BACKLOG, CLOSE_TIMEOUT, LAST_READS_MAX, READ_BYTES, UNFINISHED_BYTES_ALLOWED,
    UNFINISHED_BYTES_HARD_MAX, UNFINISHED_BYTES_MAX, WRITE_TIMEOUT,
};
use crate::spool::RefuseNew;
use crate::wal::{Batch, Queue};
use bytes::Buf;
use metrics::{Counter, counter, gauge};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod admission;
mod departure;

use admission::{Admitting, admit, admitted};
use departure::{publish_later, publish_will};

/// Where to listen, and how much to take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerConfig {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Messages a second that one client may publish.
    pub rate_limit_messages_per_s: u32,
}

/// Why the listener cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// Somebody else has the port.
    #[error(
        "MQTT: {address} is in use: another broker or agent runs here; stop it, or set \
         `address` in [source.listener] to another port"
    )]
    InUse {
        /// The address that was wanted.
        address: SocketAddr,
    },
    /// The address cannot be used.
    #[error("MQTT: cannot listen on {address}: {source}; see `address` in [source.listener]")]
    Bind {
        /// The address that was wanted.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// A bound listener, not yet accepting.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    connections_max: usize,
    shared: Arc<Shared>,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    queue: Queue,
    registry: Registry,
    sessions: Sessions,
    wills: Wills,
    refuse: RefuseNew,
    tasks: TaskTracker,
    epoch: u64,
    messages_per_s: u32,
    /// Bytes that unfinished packets hold, and batches that wait for room in the queue.
    unfinished: AtomicUsize,
    counters: Counters,
}

impl Listener {
    /// Binds the address. Messages go to `queue`. How many connections it holds at once depends
    /// on the process's limit of open files: [`raise_open_files`](super::raise_open_files) first.
    ///
    /// # Errors
    /// [`ListenerError`] names the address and what to do.
    pub async fn bind(config: &ListenerConfig, queue: Queue) -> Result<Self, ListenerError> {
        let address = config.address;
        let socket = listen(address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenerError::InUse { address },
            _ => ListenerError::Bind { address, source },
        })?;
        let shared = Arc::new(Shared {
            queue,
            registry: Registry::default(),
            sessions: Sessions::none(),
            wills: Wills::default(),
            refuse: RefuseNew::default(),
            tasks: TaskTracker::new(),
            epoch: unix_us() as u64,
            messages_per_s: config.rate_limit_messages_per_s,
            unfinished: AtomicUsize::new(0),
            counters: Counters::new(),
        });
        Ok(Self {
            socket,
            connections_max: files::connections_max(),
            shared,
        })
    }

    /// With the sessions that were there before, instead of none.
    pub fn with_sessions(mut self, sessions: Sessions) -> Self {
        Arc::get_mut(&mut self.shared)
            .expect("nobody shares it before it runs")
            .sessions = sessions;
        self
    }

    /// With somebody who says when new publications are to be refused.
    pub fn refusing(mut self, refuse: RefuseNew) -> Self {
        Arc::get_mut(&mut self.shared)
            .expect("nobody shares it before it runs")
            .refuse = refuse;
        self
    }

    /// The address that is bound.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves clients until `stop`; then reads nothing more, acknowledges what becomes durable,
    /// and returns when every connection has ended. Its caller bounds that wait, and ends the
    /// write-ahead log behind it.
    pub async fn run(self, stop: CancellationToken) {
        let mut number = 0u64;
        loop {
            let accepted = tokio::select! {
                // All are cancel safe: an accepted socket is returned or not yet accepted.
                () = stop.cancelled() => break,
                () = self.shared.queue.ended() => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    number += 1;
                    self.admit(stream, number);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of file descriptors: the backlog keeps who waits.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.socket);
        let Shared {
            tasks,
            registry,
            wills,
            queue,
            ..
        } = &*self.shared;
        registry.order_all(Order::ShutDown);
        wills.publish_all();
        tasks.close();
        tokio::select! {
            () = tasks.wait() => return,
            () = queue.ended() => {}
        }
        registry.order_all(Order::Abandon);
        tasks.wait().await;
    }

    fn admit(&self, stream: TcpStream, number: u64) {
        counter!("tributary_agent_mqtt_connections_total").increment(1);
        let Some(signal) = self.shared.registry.enter(number, self.connections_max) else {
            counter!("tributary_agent_mqtt_closed_total", "reason" => "too_many").increment(1);
            return;
        };
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move {
            let now = Instant::now().into_std();
            let core = Connection::new(number, shared.epoch, shared.messages_per_s, now);
            let core = core.refusing(shared.refuse.clone());
            gauge!("tributary_agent_mqtt_connections").increment(1);
            let mut task = Task {
                stream,
                number,
                core,
                signal,
                shared,
                client: None,
                admitting: None,
                batch: None,
                held: 0,
            };
            let reason = task.serve().await;
            task.depart().await;
            task.last_words().await;
            task.shared
                .unfinished
                .fetch_sub(task.held, Ordering::Relaxed);
            task.shared.registry.leave(number, task.client.as_deref());
            gauge!("tributary_agent_mqtt_connections").decrement(1);
            counter!("tributary_agent_mqtt_closed_total", "reason" => reason).increment(1);
        });
    }
}

/// One connection's socket beside its core.
struct Task {
    stream: TcpStream,
    number: u64,
    core: Connection,
    signal: Arc<Signal>,
    shared: Arc<Shared>,
    client: Option<Box<str>>,
    /// Decides whether the client is let in.
    admitting: Option<Admitting>,
    /// What waits for room in the queue; nothing is read meanwhile.
    batch: Option<Batch>,
    /// Bytes of the core's unfinished packet and of `batch`, as they are counted in `Shared`.
    held: usize,
}

/// What a connection's task waits for.
enum Event {
    Readable,
    Writable,
    Resume,
    Told,
    Admitted(Admission),
    Room(Option<crate::wal::Room>),
    Timeout,
    Stalled,
}

impl Task {
    async fn serve(&mut self) -> &'static str {
        loop {
            if let Err(error) = self.flush() {
                return broken(&error);
            }
            if let Some(reason) = self.core.is_over() {
                return reason;
            }
            match self.next_event().await {
                Event::Stalled => return "stalled",
                event => {
                    if let Err(error) = self.apply(event) {
                        return broken(&error);
                    }
                }
            }
        }
    }

    /// Cancel safe, each branch by itself: readiness stays, [`Signal::told`] keeps what was told,
    /// and room that was not granted was not taken.
    async fn next_event(&mut self) -> Event {
        if self.batch.is_none() && self.core.wants_resume() {
            return Event::Resume;
        }
        let now = Instant::now();
        let reads = self.batch.is_none() && self.core.wants_read(now.into_std());
        let writes = !self.core.outgoing().is_empty();
        let stalled = writes.then(|| now + WRITE_TIMEOUT);
        let due = self
            .core
            .poll_timeout(now.into_std())
            .map(Instant::from_std);
        let due = due.filter(|_| self.batch.is_none());
        let wake = due.into_iter().chain(stalled).min();
        let bytes = self.batch.as_ref().map_or(0, Batch::len_bytes);
        let arriving = self.admitting.is_some();
        tokio::select! {
            biased;
            () = self.signal.told() => Event::Told,
            admission = admitted(&mut self.admitting), if arriving => Event::Admitted(admission),
            room = self.shared.queue.room(bytes), if self.batch.is_some() => Event::Room(room),
            _ = self.stream.readable(), if reads => Event::Readable,
            _ = self.stream.writable(), if writes => Event::Writable,
            () = sleep_until(wake), if wake.is_some() => {
                if due == wake { Event::Timeout } else { Event::Stalled }
            }
        }
    }

    fn apply(&mut self, event: Event) -> io::Result<()> {
        let now = Instant::now().into_std();
        match event {
            Event::Readable => {
                self.read()?;
            }
            Event::Resume => self.take(&[]),
            Event::Told => {
                self.core.handle_durable(self.signal.durable_upto(), now);
                if let Some(order) = self.signal.take_order() {
                    if order == Order::TakenOver {
                        self.last_reads()?;
                    }
                    if matches!(order, Order::Busy | Order::Abandon) {
                        // What waits for room was never acknowledged: it may be sent again.
                        self.batch = None;
                    }
                    self.core.handle_order(order);
                }
            }
            Event::Admitted(admission) => {
                self.admitting = None;
                let mut batch = Batch::new();
                self.core
                    .handle_admission(admission, wall_now(), &mut batch);
                self.after_read(batch);
            }
            Event::Room(room) => {
                match (room, self.batch.take()) {
                    (Some(room), Some(batch)) => self.shared.queue.push(batch, room),
                    _ => self.core.handle_order(Order::Abandon),
                }
                self.core.resume(now);
            }
            Event::Timeout => self.core.handle_timeout(now),
            Event::Writable | Event::Stalled => {}
        }
        self.count_held();
        self.shared.counters.add(self.core.take_tally());
        Ok(())
    }

    /// One read, and everything that follows from it; gives how many bytes it was.
    fn read(&mut self) -> io::Result<usize> {
        thread_local! {
            // One a thread instead of one a connection: an idle connection holds none.
            static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let length = match self.stream.try_read(scratch) {
                Ok(0) => {
                    self.core.handle_end();
                    return Ok(0);
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) => return Err(error),
            };
            self.take(scratch.get(..length).unwrap_or_default());
            Ok(length)
        })
    }

    /// Takes what the client had sent before it came anew: its last words, and maybe its leave.
    fn last_reads(&mut self) -> io::Result<()> {
        for _ in 0..LAST_READS_MAX {
            let now = Instant::now().into_std();
            if self.batch.is_some() || !self.core.wants_read(now) {
                break;
            }
            if self.read()? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Gives the core what came, and the log what the core makes of it.
    fn take(&mut self, bytes: &[u8]) {
        let mut batch = Batch::new();
        self.core.handle_bytes(bytes, wall_now(), &mut batch);
        self.after_read(batch);
    }

    fn after_read(&mut self, mut batch: Batch) {
        if let Some(arrival) = self.core.take_arrival() {
            self.client = Some(arrival.client_id.clone());
            let (shared, signal) = (Arc::clone(&self.shared), Arc::clone(&self.signal));
            self.admitting = Some(Box::pin(admit(shared, signal, self.number, arrival)));
        }
        if batch.is_empty() {
            return;
        }
        batch.tell(self.signal.clone(), self.core.appended());
        match self.shared.queue.try_room(batch.len_bytes()) {
            Some(room) => self.shared.queue.push(batch, room),
            None => {
                batch.shrink();
                self.batch = Some(batch);
            }
        }
    }

    /// Keeps the sum of what connections hold beside the queue; who may not hold its part ends.
    fn count_held(&mut self) {
        let before = self.held;
        let sum = self.recount();
        if self.held > before && !may_hold(self.held, sum) {
            // What waits for room was never acknowledged: it will be sent again.
            self.batch = None;
            self.core.handle_order(Order::Busy);
            self.recount();
        }
    }

    /// Brings this connection's part of the sum up to date; gives the sum.
    fn recount(&mut self) -> usize {
        let waiting = self.batch.as_ref().map_or(0, Batch::held_bytes);
        let held = self.core.held_bytes() + waiting;
        let all = &self.shared.unfinished;
        if held == self.held {
            return all.load(Ordering::Relaxed);
        }
        // Added first: the sum never falls below zero.
        all.fetch_add(held, Ordering::Relaxed);
        let sum = all.fetch_sub(self.held, Ordering::Relaxed) - self.held;
        self.held = held;
        sum
    }

    /// Sends what the socket takes.
    fn flush(&mut self) -> io::Result<()> {
        let out = self.core.outgoing();
        while !out.is_empty() {
            match self.stream.try_write(out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => out.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        // An idle connection holds no buffer.
        *out = bytes::BytesMut::new();
        Ok(())
    }

    /// The connection is over: hands over what it still holds, says what is to be said of a client
    /// that was lost, and that nothing more comes from here.
    async fn depart(&mut self) {
        // Nobody sends it again where it came with QoS 0.
        if let Some(batch) = self.batch.take()
            && let Some(room) = self.shared.queue.room(batch.len_bytes()).await
        {
            self.shared.queue.push(batch, room);
        }
        let (session, expiry_s) = (self.core.session(), self.core.session_expiry_s());
        if let Some(will) = self.core.take_will() {
            // Section 3.1.3.2.2 [5]: whichever comes first.
            let delay = will
                .delay
                .min(Duration::from_secs(expiry_s.unwrap_or(0).into()));
            let waiting = (delay > Duration::ZERO).then(|| self.shared.wills.wait(session));
            let shared = Arc::clone(&self.shared);
            match waiting.flatten() {
                Some(fate) => {
                    let later = publish_later(shared, session, will, delay, fate);
                    self.shared.tasks.spawn(later);
                }
                None => publish_will(&shared, &will).await,
            }
        }
        if self.client.is_some() {
            self.shared.sessions.close(session, expiry_s);
        }
        self.signal.silence();
    }

    /// Sends what is left, for a while: the connection is over.
    async fn last_words(&mut self) {
        let sent = tokio::time::timeout(CLOSE_TIMEOUT, async {
            while !self.core.outgoing().is_empty() {
                self.stream.writable().await?;
                self.flush()?;
            }
            io::Result::Ok(())
        });
        // Whether the peer still took them changes nothing: the socket closes now.
        let _ = sent.await;
    }
}

/// A socket that keeps whole fleets waiting which come at once: a connection that finds no place
/// tries again only after a second.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG)
}

/// Whether a connection may hold `held` bytes beside the queue when all together hold `sum`. Who
/// holds little outlives who holds much, but all have a bound.
fn may_hold(held: usize, sum: usize) -> bool {
    let most = if sum <= UNFINISHED_BYTES_MAX {
        usize::MAX
    } else if sum <= UNFINISHED_BYTES_HARD_MAX {
        READ_BYTES
    } else {
        UNFINISHED_BYTES_ALLOWED
    };
    held <= most
}

async fn sleep_until(wake: Option<Instant>) {
    if let Some(wake) = wake {
        tokio::time::sleep_until(wake).await;
    }
}

fn broken(error: &io::Error) -> &'static str {
    tracing::debug!(%error, "an MQTT connection broke");
    "broken"
}

fn wall_now() -> Now {
    Now {
        instant: Instant::now().into_std(),
        unix_us: unix_us(),
    }
}

/// Now, by the wall clock: µs since 1970, UTC, at millisecond resolution, so that equal stamps
/// of one read compress.
pub(super) fn unix_us() -> i64 {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis() * 1_000).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis() * 1_000).unwrap_or(i64::MAX),
    }
}

/// Counters that are added to for each read: looked up once.
struct Counters {
    messages: Counter,
    payload_bytes: Counter,
    acknowledged: Counter,
    refused_topic: Counter,
    too_large: Counter,
    turned_away: Counter,
    subscriptions_refused: Counter,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counters")
    }
}

impl Counters {
    fn new() -> Self {
        Self {
            messages: counter!("tributary_agent_mqtt_messages_total"),
            payload_bytes: counter!("tributary_agent_mqtt_payload_bytes_total"),
            acknowledged: counter!("tributary_agent_mqtt_acknowledged_total"),
            refused_topic: counter!("tributary_agent_mqtt_refused_topic_total"),
            too_large: counter!("tributary_agent_mqtt_too_large_total"),
            turned_away: counter!("tributary_agent_mqtt_turned_away_total"),
            subscriptions_refused: counter!("tributary_agent_mqtt_subscriptions_refused_total"),
        }
    }

    fn add(&self, tally: Tally) {
        let pairs = [
            (&self.messages, tally.messages),
            (&self.payload_bytes, tally.payload_bytes),
            (&self.acknowledged, tally.acknowledged),
            (&self.refused_topic, tally.refused_topic),
            (&self.too_large, tally.too_large),
            (&self.turned_away, tally.turned_away),
            (&self.subscriptions_refused, tally.subscriptions_refused),
        ];
        for (counter, count) in pairs.into_iter().filter(|(_, count)| *count > 0) {
            counter.increment(count);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
