//! The shell of a client: one task that owns a TCP connection, its clock and its backoff.
//!
//! While there is no connection the devices go on measuring, until the queue is full. What is sent
//! next is the outbox's decision, not made here.

use super::wire::{self, Incoming, Protocol, Topic};
use super::{Outbox, Progress, Qos, Source, Transmit};
use crate::fault::Observer;
use crate::limits::{
    BACKOFF_MS_MAX, BACKOFF_MS_MIN, CONNECT_TIMEOUT_S, FAREWELL_TIMEOUT_S, KEEP_ALIVE_S,
    WRITE_BYTES_TARGET,
};
use crate::reading::Series;
use crate::rng::Rng;
use crate::truth::{Event, TruthError, TruthSender};
use bytes::BytesMut;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// What the clients of one run share.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `host:port` of the server.
    pub server: String,
    /// The version of MQTT.
    pub protocol: Protocol,
    /// The quality of service.
    pub qos: Qos,
    /// When the run began: what the times of sources count from.
    pub began: Instant,
    /// How long the end waits for outstanding acknowledgements.
    pub drain: Duration,
    /// Who is told of readings that have to do with faults, if anybody.
    pub observer: Option<Arc<dyn Observer>>,
}

/// How a client ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientEnd {
    /// Readings that were sent and not acknowledged.
    pub unacknowledged: u64,
    /// Readings that were measured and never sent.
    pub unsent: u64,
}

/// A series as the client needs it.
#[derive(Debug)]
struct Route {
    topic: Topic,
    unit: Option<String>,
}

/// The topics of a run, by series.
#[derive(Clone, Debug)]
pub struct Routes {
    routes: Arc<[Route]>,
    numbered: bool,
}

impl Routes {
    /// The topics of these series, and whether readings say their numbers.
    pub fn new(series: &[Series], numbered: bool) -> Self {
        let route = |one: &Series| Route {
            topic: Topic::new(one.topic()),
            unit: one.unit.clone(),
        };
        Self {
            routes: series.iter().map(route).collect(),
            numbered,
        }
    }
}

/// An open connection, after CONNACK.
struct Link {
    stream: TcpStream,
    input: BytesMut,
    receive_max: u16,
    session_present: bool,
}

/// Why a connection is over.
enum Over {
    /// All is done, or the time to end has come.
    Done,
    Lost(String),
}

/// Why the loop woke.
enum Wake {
    Read(usize),
    Wrote,
    Clock,
    Stop,
    Lost(String),
}

/// One MQTT client with the devices behind it.
pub struct Client<S> {
    config: ClientConfig,
    client_id: String,
    source: S,
    routes: Routes,
    outbox: Outbox,
    truth: TruthSender,
    events: Vec<Event>,
    progress: Arc<Progress>,
    stop: CancellationToken,
    /// Once the end has begun: when to give up waiting.
    deadline: Option<Instant>,
    opened: u64,
    failures: u32,
    jitter: Rng,
    payload: Vec<u8>,
    last_write: Instant,
    last_read: Instant,
    last_ping: Instant,
}

impl<S: Source> Client<S> {
    /// A client that publishes what `source` measures, under a client id of its own that stays the
    /// same over reconnects. It ends after `stop`, or when the source is exhausted.
    pub fn new(
        config: ClientConfig,
        client_id: String,
        source: S,
        routes: Routes,
        truth: TruthSender,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> Self {
        let spread = client_id.bytes().fold(0u64, |sum, byte| {
            sum.wrapping_mul(0x0100_0000_01b3)
                .wrapping_add(u64::from(byte))
        });
        let now = config.began;
        Self {
            outbox: Outbox::new(config.qos),
            config,
            client_id,
            source,
            routes,
            truth,
            events: Vec::new(),
            progress,
            stop,
            deadline: None,
            opened: 0,
            failures: 0,
            jitter: Rng::new(spread, 0),
            payload: Vec::with_capacity(256),
            last_write: now,
            last_read: now,
            last_ping: now,
        }
    }

    /// Runs until the end: connects, publishes, connects again; after `stop` waits for what is
    /// outstanding, at most as long as configured, and says goodbye.
    ///
    /// # Errors
    /// When the truth ledger can no longer be written. The network's troubles are no errors.
    pub async fn run(mut self) -> Result<ClientEnd, TruthError> {
        loop {
            let (config, id) = (self.config.clone(), self.client_id.clone());
            // Ids that an earlier run left unreleased would swallow publications of this one.
            let afresh = config.qos == Qos::ExactlyOnce && self.opened == 0;
            let over = match self.meanwhile(open(config, id, afresh)).await? {
                None => Over::Done,
                Some(Err(why)) => Over::Lost(why),
                Some(Ok(link)) => self.serve(link).await?,
            };
            let Over::Lost(why) = over else { break };
            tracing::debug!(client = self.client_id, why, "connection lost");
            self.progress.note_trouble(why);
            let pause = tokio::time::sleep(self.backoff());
            if self.meanwhile(pause).await?.is_none() {
                break;
            }
        }
        let events = std::mem::take(&mut self.events);
        self.truth.send(events).await?;
        Ok(ClientEnd {
            unacknowledged: self.outbox.in_flight() as u64,
            unsent: self.outbox.queued() as u64,
        })
    }

    /// Waits for `work` while the devices go on measuring. `None` when there is nothing left to
    /// work for.
    async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, TruthError> {
        let mut work = pin!(work);
        loop {
            self.advance();
            if self.is_over() {
                return Ok(None);
            }
            self.hand_over_truth().await?;
            let (wake_at, stop, ending) = (self.wake_at(), &self.stop, self.deadline.is_some());
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                () = sleep_until(wake_at) => {}
                () = stop.cancelled(), if !ending => {}
            }
        }
    }

    /// One connection, from CONNACK to its end.
    async fn serve(&mut self, mut link: Link) -> Result<Over, TruthError> {
        self.greet(&link);
        let mut out = BytesMut::with_capacity(WRITE_BYTES_TARGET);
        let over = loop {
            self.advance();
            if let Err(why) = self.take_packets(&mut link.input) {
                break Over::Lost(why);
            }
            self.fill(&mut out);
            self.hand_over_truth().await?;
            if self.is_over() && (out.is_empty() || self.is_late()) {
                farewell(&mut link.stream, out).await;
                break Over::Done;
            }
            match self.next_event(&mut link, &mut out).await {
                Wake::Read(0) => break Over::Lost("the server closed the connection".to_owned()),
                Wake::Read(_) => self.last_read = Instant::now(),
                Wake::Wrote => self.last_write = Instant::now(),
                Wake::Clock | Wake::Stop => {}
                Wake::Lost(why) => break Over::Lost(why),
            }
            if self.is_silent() {
                break Over::Lost("the server is silent".to_owned());
            }
        };
        self.outbox.disconnected();
        self.progress.connected.fetch_sub(1, Ordering::Relaxed);
        Ok(over)
    }

    /// The only place where a connection waits. Cancel safe: a read or write that did not finish
    /// has moved no byte, and the rest are timers.
    async fn next_event(&self, link: &mut Link, out: &mut BytesMut) -> Wake {
        let (mut reader, mut writer) = link.stream.split();
        let lost = |error: std::io::Error| Wake::Lost(error.to_string());
        tokio::select! {
            read = reader.read_buf(&mut link.input) => read.map_or_else(lost, Wake::Read),
            wrote = writer.write_buf(out), if !out.is_empty() => {
                wrote.map_or_else(lost, |_| Wake::Wrote)
            }
            () = sleep_until(self.wake_at().min(self.alive_at())) => Wake::Clock,
            () = self.stop.cancelled(), if self.deadline.is_none() => Wake::Stop,
        }
    }

    fn greet(&mut self, link: &Link) {
        self.outbox
            .connected(link.receive_max, link.session_present);
        let now = Instant::now();
        (self.last_read, self.last_write, self.last_ping) = (now, now, now);
        self.progress.connected.fetch_add(1, Ordering::Relaxed);
        Progress::add(&self.progress.opened, 1);
        if self.opened > 0 {
            Progress::add(&self.progress.reconnects, 1);
        }
        self.opened += 1;
    }

    /// Lets the devices measure what is due, or begins the end.
    fn advance(&mut self) {
        if self.deadline.is_some() {
            return;
        }
        if self.stop.is_cancelled() || self.source.is_done() {
            self.deadline = Some(Instant::now() + self.config.drain);
            return;
        }
        let elapsed = self.config.began.elapsed().as_micros();
        let elapsed_us = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let room = self.outbox.room();
        if self
            .source
            .poll_timeout(room)
            .is_some_and(|due_us| due_us <= elapsed_us)
        {
            let late = self
                .source
                .produce(elapsed_us, room, self.outbox.queue_mut());
            Progress::add(&self.progress.late_ticks, late);
        }
    }

    /// Puts what may be sent now into one write.
    fn fill(&mut self, out: &mut BytesMut) {
        let now = Instant::now();
        if self.ping_at() <= now {
            wire::put_ping(out);
            self.last_ping = now;
        }
        let (mut published, mut resent, mut faults) = (0, 0, 0);
        let (protocol, qos) = (self.config.protocol, self.config.qos);
        while out.len() < WRITE_BYTES_TARGET {
            let (pkid, dup, reading) = match self.outbox.poll_transmit() {
                None => break,
                Some(Transmit::Publish { pkid, dup, reading }) => (pkid, dup, reading),
                Some(Transmit::Release { pkid }) => {
                    wire::put_release(protocol, pkid, out);
                    continue;
                }
            };
            let route = self.routes.routes.get(reading.series as usize);
            let route = route.expect("a source measures only series that it named");
            self.payload.clear();
            reading.write_json(
                route.unit.as_deref(),
                self.routes.numbered,
                &mut self.payload,
            );
            let publication = wire::Publication {
                topic: &route.topic,
                payload: &self.payload,
                qos,
                pkid,
                dup,
            };
            wire::put_publish(protocol, &publication, out);
            if dup {
                resent += 1;
                continue;
            }
            published += 1;
            if self.truth.keeps() {
                self.events.push(Event::Published(reading.clone()));
            }
            let Some(mark) = reading.fault else { continue };
            faults += u64::from(mark.nth == 0);
            if self.truth.keeps() && mark.is_faulty() {
                let (series, seq, kind) = (reading.series, reading.seq, mark.kind);
                self.events.push(Event::Faulty { series, seq, kind });
            }
            if let Some(observer) = &self.config.observer {
                // Before the socket takes it: what that makes it wait counts as latency, too.
                observer.writing(reading, mark, std::time::Instant::now());
            }
        }
        Progress::add(&self.progress.faults, faults);
        Progress::add(&self.progress.published, published);
        Progress::add(&self.progress.resent, resent);
    }

    /// Takes in what the server said.
    fn take_packets(&mut self, input: &mut BytesMut) -> Result<(), String> {
        let (mut acknowledged, mut refused) = (0, 0);
        let result = loop {
            let packet = wire::take_packet(self.config.protocol, input);
            let (done, no) = match packet {
                Ok(Some(Incoming::PubAck { pkid, refused })) => {
                    (self.outbox.acknowledged(pkid), refused)
                }
                Ok(Some(Incoming::PubRec { pkid, refused })) => match refused {
                    true => (self.outbox.acknowledged(pkid), true),
                    false => (self.outbox.received(pkid), false),
                },
                Ok(Some(Incoming::PubComp { pkid })) => {
                    self.outbox.completed(pkid);
                    continue;
                }
                Ok(Some(Incoming::Disconnect(why))) => {
                    break Err(format!("the server ended the connection: {why}"));
                }
                Ok(Some(_)) => continue,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            };
            let Some(done) = done else {
                tracing::debug!("an acknowledgement of nothing that waits for one");
                continue;
            };
            let (series, seq) = (done.series, done.seq);
            *(if no { &mut refused } else { &mut acknowledged }) += 1;
            if self.truth.keeps() {
                self.events.push(match no {
                    true => Event::Refused { series, seq },
                    false => Event::Acknowledged { series, seq },
                });
            }
        };
        if acknowledged > 0 {
            self.failures = 0;
        }
        Progress::add(&self.progress.acknowledged, acknowledged);
        Progress::add(&self.progress.refused, refused);
        result
    }

    async fn hand_over_truth(&mut self) -> Result<(), TruthError> {
        if !self.truth.is_due(self.events.len()) {
            return Ok(());
        }
        self.truth.send(std::mem::take(&mut self.events)).await
    }

    fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Whether the end has begun, and nothing is outstanding or the time is up.
    fn is_over(&self) -> bool {
        self.deadline.is_some() && (self.outbox.is_empty() || self.is_late())
    }

    /// When the devices, or the deadline of the end, want attention.
    fn wake_at(&self) -> Instant {
        let idle = Duration::from_secs(3_600);
        self.deadline.unwrap_or_else(|| {
            let due = self.source.poll_timeout(self.outbox.room());
            let due = due
                .map(Duration::from_micros)
                .and_then(|d| self.config.began.checked_add(d));
            due.unwrap_or_else(|| Instant::now() + idle)
        })
    }

    fn ping_at(&self) -> Instant {
        let quiet = self.last_write.min(self.last_read).max(self.last_ping);
        quiet + Duration::from_secs(u64::from(KEEP_ALIVE_S)) / 2
    }

    fn silent_at(&self) -> Instant {
        self.last_read + Duration::from_secs(u64::from(KEEP_ALIVE_S)) * 3 / 2
    }

    fn alive_at(&self) -> Instant {
        self.ping_at().min(self.silent_at())
    }

    fn is_silent(&self) -> bool {
        self.silent_at() <= Instant::now()
    }

    /// Doubled with each failure; half of it fixed, half by lot, so that a fleet does not return
    /// as one.
    fn backoff(&mut self) -> Duration {
        let doubled = BACKOFF_MS_MIN << self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let half = doubled.min(BACKOFF_MS_MAX) / 2;
        Duration::from_millis(half + self.jitter.next() % (half + 1))
    }
}

/// Opens a connection, up to CONNACK; `afresh` without anything that an earlier one left behind.
async fn open(config: ClientConfig, client_id: String, afresh: bool) -> Result<Link, String> {
    let limit = Duration::from_secs(CONNECT_TIMEOUT_S);
    let server = config.server.clone();
    let opening = async {
        if afresh && config.protocol == Protocol::V311 {
            // A clean session would end with the connection: one that ends at once, and then one
            // that is kept (MQTT 3.1.1, 3.1.2.4).
            let mut link = connect(&config, &client_id, true).await?;
            farewell(&mut link.stream, BytesMut::new()).await;
        }
        let clean_start = afresh && config.protocol == Protocol::V5;
        connect(&config, &client_id, clean_start).await
    };
    let opened = timeout(limit, opening).await.unwrap_or_else(|_| {
        Err(format!(
            "neither connected nor greeted within {CONNECT_TIMEOUT_S} s"
        ))
    });
    opened.map_err(|why| format!("{server}: {why}"))
}

async fn connect(config: &ClientConfig, client_id: &str, clean: bool) -> Result<Link, String> {
    let stream = TcpStream::connect(&config.server)
        .await
        .map_err(|e| e.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    handshake(stream, config.protocol, client_id, clean).await
}

async fn handshake(
    mut stream: TcpStream,
    protocol: Protocol,
    client_id: &str,
    clean: bool,
) -> Result<Link, String> {
    let mut out = BytesMut::new();
    wire::put_connect(protocol, client_id, clean, &mut out);
    stream.write_all(&out).await.map_err(|e| e.to_string())?;
    let mut input = BytesMut::with_capacity(4_096);
    loop {
        match wire::take_packet(protocol, &mut input).map_err(|e| e.to_string())? {
            Some(Incoming::ConnAck {
                refused: None,
                receive_max,
                session_present,
            }) => {
                return Ok(Link {
                    stream,
                    input,
                    receive_max,
                    session_present,
                });
            }
            Some(Incoming::ConnAck {
                refused: Some(why), ..
            }) => {
                return Err(format!("the server refused the connection: {why}"));
            }
            Some(_) => return Err("the server did not begin with CONNACK".to_owned()),
            None => {}
        }
        if stream
            .read_buf(&mut input)
            .await
            .map_err(|e| e.to_string())?
            == 0
        {
            return Err("the server closed the connection before CONNACK".to_owned());
        }
    }
}

/// Says goodbye; a server that does not listen is left.
async fn farewell(stream: &mut TcpStream, mut out: BytesMut) {
    wire::put_disconnect(&mut out);
    let leaving = async {
        stream.write_all(&out).await?;
        stream.shutdown().await
    };
    match timeout(Duration::from_secs(FAREWELL_TIMEOUT_S), leaving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "DISCONNECT did not leave"),
        Err(_) => tracing::debug!("DISCONNECT did not leave in time"),
    }
}
