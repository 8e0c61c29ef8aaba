//! The MQTT listener's sockets and tasks: one task a connection, no decision in any of them.

use super::access::{Access, AccessError, Peer};
use super::assigned::{Assigned, NoRandomness};
use super::connection::{Audience, Connection, Now, Order};
use super::files;
use super::hub::Hub;
use super::registry::{Registry, Signal};
use super::sessions::Sessions;
use super::tls::handshakes::Handshakes;
use super::tls::stream::Stream;
use super::tls::{Tls, TlsConfig, TlsError};
use super::wills::Wills;
use crate::limits::{
    HANDSHAKES_MAX, LAST_READS_MAX, READ_BYTES, UNFINISHED_BYTES_ALLOWED,
    UNFINISHED_BYTES_HARD_MAX, UNFINISHED_BYTES_MAX, WRITE_TIMEOUT,
};
use crate::spool::RefuseNew;
use crate::wal::{Batch, Queue};
use bytes::Buf;
use metrics::{counter, gauge};
use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod admission;
mod counters;
mod departure;
mod doors;
mod reload;

use admission::{Admitting, Step, client_id_of, next_step};
use counters::Counters;
use doors::{Door, accept, serve_one};
pub use doors::{ListenerConfig, ListenerError, check};
pub use reload::Reload;
use reload::Watch;

/// A bound listener, not yet accepting.
#[derive(Debug)]
pub struct Listener {
    plain: Option<TcpListener>,
    tls: Option<TcpListener>,
    watch: Watch,
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
    hub: Hub,
    tasks: TaskTracker,
    access: Access,
    tls: Option<Tls>,
    handshakes: Arc<Handshakes>,
    assigned: Assigned,
    messages_per_s: u32,
    /// Bytes that unfinished packets hold, who clients are, and batches that wait for room in the
    /// queue.
    unfinished: AtomicUsize,
    counters: Counters,
}

impl Listener {
    /// Reads the users and certificates, and binds the addresses. Messages go to `queue`. How many
    /// connections it holds at once depends on the process's limit of open files:
    /// [`raise_open_files`](super::raise_open_files) first.
    ///
    /// # Errors
    /// [`ListenerError`] names the address or file and what to do.
    pub async fn bind(config: &ListenerConfig, queue: Queue) -> Result<Self, ListenerError> {
        let watch = Watch::new(config);
        let access = Access::open(config.users.as_deref(), config.certificate_grants()?)?;
        let tls = config.tls.as_ref().map(Tls::open).transpose()?;
        doors::warn(config, tls.as_ref());
        let shared = Arc::new(Shared {
            queue,
            registry: Registry::default(),
            sessions: Sessions::none(),
            wills: Wills::default(),
            refuse: RefuseNew::default(),
            hub: Hub::new(),
            tasks: TaskTracker::new(),
            access,
            tls,
            handshakes: Handshakes::new(HANDSHAKES_MAX),
            assigned: Assigned::new()?,
            messages_per_s: config.rate_limit_messages_per_s,
            unfinished: AtomicUsize::new(0),
            counters: Counters::new(),
        });
        Ok(Self {
            plain: doors::bind(config.address)?,
            tls: doors::bind(config.tls.as_ref().map(|tls| tls.address))?,
            watch,
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

    /// With what clients may subscribe to, instead of nothing.
    pub fn publishing(mut self, hub: Hub) -> Self {
        Arc::get_mut(&mut self.shared)
            .expect("nobody shares it before it runs")
            .hub = hub;
        self
    }

    /// Where clients connect: without TLS where they can, and otherwise with it.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let either = self.plain.as_ref().or(self.tls.as_ref());
        either.map_or(Err(io::ErrorKind::NotFound.into()), TcpListener::local_addr)
    }

    /// Where clients connect with TLS, if they can.
    ///
    /// # Errors
    /// What the system says.
    pub fn tls_address(&self) -> io::Result<Option<SocketAddr>> {
        self.tls.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// What has users and certificates read again.
    pub fn reload(&self) -> Reload {
        self.watch.reload()
    }

    /// Serves clients until `stop`; then reads nothing more, acknowledges what becomes durable,
    /// and returns when every connection has ended. Its caller bounds that wait, and ends the
    /// write-ahead log behind it.
    pub async fn run(self, stop: CancellationToken) {
        let watching = stop.child_token();
        let watch = self.watch.run(Arc::clone(&self.shared), watching.clone());
        self.shared.tasks.spawn(watch);
        let mut number = 0u64;
        loop {
            let (door, accepted) = tokio::select! {
                // All are cancel safe: an accepted socket is returned or not yet accepted.
                () = stop.cancelled() => break,
                () = self.shared.queue.ended() => break,
                accepted = accept(self.plain.as_ref()) => (Door::Plain, accepted),
                accepted = accept(self.tls.as_ref()) => (Door::Tls, accepted),
            };
            match accepted {
                Ok((socket, peer)) => {
                    number += 1;
                    serve_one(
                        &self.shared,
                        self.connections_max,
                        door,
                        socket,
                        peer,
                        number,
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of file descriptors: the backlog keeps who waits.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        watching.cancel();
        drop((self.plain, self.tls));
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
}

/// One connection's socket beside its core.
struct Task {
    stream: Stream,
    number: u64,
    core: Connection,
    signal: Arc<Signal>,
    shared: Arc<Shared>,
    /// Who is at the other end.
    peer: Peer,
    /// What the client is called among all.
    client: Option<Box<str>>,
    /// Decides whether the client is let in.
    admitting: Option<Admitting>,
    /// Bytes of who arrived, while that is decided.
    arriving: usize,
    /// Whether it was said that it publishes where it may not.
    told_refused: bool,
    /// What waits for room in the queue; nothing is read meanwhile.
    batch: Option<Batch>,
    /// Bytes of what the core holds, of the client's names and of `batch`, as they are counted in
    /// `Shared`.
    held: usize,
}

/// What a connection's task waits for.
enum Event {
    Readable,
    Writable,
    Resume,
    Told,
    Step(Step),
    Room(Option<crate::wal::Room>),
    Timeout,
    Stalled,
    /// There is more to deliver, and room for it.
    Deliver,
}

impl Task {
    fn new(
        stream: Stream,
        number: u64,
        signal: Arc<Signal>,
        shared: &Arc<Shared>,
        address: IpAddr,
    ) -> Self {
        let now = Instant::now().into_std();
        let audience = Audience {
            hub: shared.hub.clone(),
            signal: Arc::clone(&signal),
        };
        Self {
            stream,
            number,
            core: Connection::new(shared.assigned.of(number), shared.messages_per_s, now)
                .refusing(shared.refuse.clone())
                .reading(audience),
            signal,
            shared: Arc::clone(shared),
            peer: Peer {
                address,
                certificate: None,
            },
            client: None,
            admitting: None,
            arriving: 0,
            told_refused: false,
            batch: None,
            held: 0,
        }
    }

    /// The connection, from its first byte to its end.
    async fn run(&mut self) {
        gauge!("tributary_agent_mqtt_connections").increment(1);
        let shaken = match self.stream {
            Stream::Plain(_) => Ok(()),
            // Apart: an idle connection holds no room for it.
            Stream::Tls(_) => Box::pin(self.handshake()).await,
        };
        let reason = match shaken {
            Ok(()) => {
                let reason = self.serve().await;
                // Whoever is not waited for any more waits for nothing.
                (self.admitting, self.arriving) = (None, 0);
                self.depart().await;
                self.last_words().await;
                reason
            }
            Err(reason) => reason,
        };
        self.shared
            .unfinished
            .fetch_sub(self.held, Ordering::Relaxed);
        self.shared
            .registry
            .leave(self.number, self.client.as_deref());
        gauge!("tributary_agent_mqtt_connections").decrement(1);
        counter!("tributary_agent_mqtt_closed_total", "reason" => reason).increment(1);
    }

    async fn serve(&mut self) -> &'static str {
        loop {
            self.core.deliver();
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
        let writes = !self.core.outgoing().is_empty() || self.stream.holds();
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
            step = next_step(&mut self.admitting), if arriving => Event::Step(step),
            room = self.shared.queue.room(bytes), if self.batch.is_some() => Event::Room(room),
            _ = self.stream.readable(), if reads => Event::Readable,
            _ = self.stream.writable(), if writes => Event::Writable,
            // Behind what the client says: it may be that it wants no more of it.
            () = tokio::task::yield_now(), if self.core.wants_deliver() => Event::Deliver,
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
                self.core.handle_published();
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
            Event::Step(step) => {
                self.admitting = None;
                self.step(step);
            }
            Event::Room(room) => {
                match (room, self.batch.take()) {
                    (Some(room), Some(batch)) => self.shared.queue.push(batch, room),
                    _ => self.core.handle_order(Order::Abandon),
                }
                self.core.resume(now);
            }
            Event::Timeout => self.core.handle_timeout(now),
            Event::Writable | Event::Stalled | Event::Deliver => {}
        }
        self.count_held();
        let tally = self.core.take_tally();
        if tally.refused_topic > 0 {
            self.tell_refused();
        }
        self.shared.counters.add(tally);
        Ok(())
    }

    /// Says once that the client publishes where it may not: 3.1.1 is not told.
    fn tell_refused(&mut self) {
        let identity = self.signal.identity().filter(|_| !self.told_refused);
        if let (Some(identity), Some(client)) = (identity, &self.client) {
            let user = &identity.user;
            let client = client_id_of(client);
            tracing::warn!(
                ?user,
                ?client,
                "MQTT: publications beyond the user's filters"
            );
            self.told_refused = true;
        }
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
            self.arrive(arrival);
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
        // The registry knows it, too.
        let names = 2 * self.client.as_deref().map_or(0, str::len);
        let held = self.core.held_bytes() + self.arriving + names + waiting;
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
        self.stream.try_flush()
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
