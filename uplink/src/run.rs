//! The uplink's shell: connects, greets, sends what the sender says, and hands back what the
//! aggregator acknowledged, for as long as there is something to send.

use crate::backoff;
use crate::connection::{Connector, Identity, Target};
use crate::control;
use crate::limits::{
    BACKOFF_MIN, BUSY_WAIT_MAX, GOODBYE, HANDSHAKE_TIMEOUT, NOTICE_RANGES_MAX, PROBE_AFTER,
    RECEIVE_WINDOW_BYTES, TICK,
};
use crate::saving::Saving;
use crate::spool::{Sealed, Spool};
use crate::status::{Status, look};
use bytes::Bytes;
use futures_util::StreamExt;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tracing::{debug, error, info, warn};
use tributary_protocol::frame::{FrameKind, RawFrame, header};
use tributary_protocol::message::{Ack, AgainReason, Message, Reject, RejectCode, Welcome};
use tributary_protocol::session::{Notice, Outgoing, Place, Sender, Urgency};

/// What the uplink has to know.
#[derive(Clone, Debug)]
pub struct UplinkConfig {
    /// The aggregator.
    pub target: Target,
    /// Who we are and whom we trust.
    pub identity: Identity,
    /// The agent's label.
    pub name: String,
    /// How long what is left may take to go out once nothing more comes in.
    pub drain_deadline: Duration,
}

/// What software we are, as the other end sees it.
const SOFTWARE: &str = concat!("tributary ", env!("CARGO_PKG_VERSION"));

/// Runs until `sealed` is closed and everything is acknowledged, or the drain's deadline is over.
/// Returns whether all was acknowledged.
pub async fn run<S: Spool>(
    config: UplinkConfig,
    mut sender: Sender,
    spool: S,
    sealed: mpsc::Receiver<Sealed>,
    status: watch::Sender<Status>,
) -> bool {
    sender.keep_to(&[Place::of(&config.target.address)]);
    let connector = Connector::new(config.target.clone(), config.identity.clone());
    let mut uplink = Uplink {
        config,
        connector,
        sender,
        spool,
        sealed: Intake {
            queue: sealed,
            closed_at: None,
        },
        status,
        saving: Saving::default(),
        hold: (None, 0),
        acked: false,
    };
    uplink.run().await
}

/// The queue of sealed batches, and when it was closed.
struct Intake {
    queue: mpsc::Receiver<Sealed>,
    closed_at: Option<Instant>,
}

impl Intake {
    /// The next sealed batch; pending for ever once the queue is closed. Cancel safe.
    async fn next(&mut self) -> Option<Sealed> {
        if self.closed_at.is_some() {
            return std::future::pending().await;
        }
        let next = self.queue.recv().await;
        if next.is_none() {
            self.closed_at = Some(Instant::now());
        }
        next
    }
}

struct Uplink<S> {
    config: UplinkConfig,
    connector: Connector,
    sender: Sender,
    spool: S,
    sealed: Intake,
    status: watch::Sender<Status>,
    saving: Saving,
    /// Nothing is sent before this, because the aggregator had no room; and how often in a row.
    hold: (Option<Instant>, u32),
    /// Whether this session acknowledged anything.
    acked: bool,
}

/// One open session.
struct Link {
    connection: Connection,
    read: FramedRead<RecvStream, LengthDelimitedCodec>,
    write: SendStream,
    /// One task for each batch on its way into the connection; bounded by the sender's window.
    sending: JoinSet<Result<(), String>>,
    /// What the connection's own count was when it was last added to the status.
    udp_counted: u64,
    silence: Silence,
}

/// Whether the other end is heard from while it owes us an answer.
struct Silence {
    datagrams: u64,
    since: Instant,
    probes: u32,
}

impl Silence {
    /// Told how many datagrams have come, and whether batches are on their way; says whether it is
    /// time to make the other end say something.
    fn is_too_long(&mut self, datagrams: u64, waiting: bool, now: Instant) -> bool {
        if datagrams != self.datagrams || !waiting {
            self.datagrams = datagrams;
            self.since = now;
            return false;
        }
        let too_long = now.duration_since(self.since) >= PROBE_AFTER;
        if too_long {
            self.since = now;
            self.probes = self.probes.wrapping_add(1);
        }
        too_long
    }
}

/// What ends a session.
enum End {
    Drained,
    Again,
    Lost(String),
}

/// What can happen while a session is open.
enum Event {
    Sealed(Sealed),
    Closed,
    Message(Result<Message, String>),
    Sent(Result<(), String>),
    Tick,
}

impl<S: Spool> Uplink<S> {
    async fn run(&mut self) -> bool {
        let mut failures = 0;
        loop {
            if self.is_over() {
                return self.close().await;
            }
            match self.connect().await {
                Ok(link) => {
                    let ended = self.session(link).await;
                    // Only an acknowledgement shows that coming back at once is of any use.
                    failures = if std::mem::take(&mut self.acked) {
                        0
                    } else {
                        failures + 1
                    };
                    match ended {
                        End::Drained => return self.close().await,
                        End::Again => {}
                        End::Lost(problem) => self.disconnected(problem),
                    }
                }
                Err(problem) => {
                    failures += 1;
                    self.disconnected(problem);
                }
            }
            self.wait(backoff::wait(
                failures,
                RandomState::new().hash_one(failures),
            ))
            .await;
        }
    }

    /// Whether nothing more comes in, and nothing is left or there is no time left for it.
    fn is_over(&self) -> bool {
        self.sealed.closed_at.is_some_and(|at| {
            self.sender.is_drained() || at.elapsed() >= self.config.drain_deadline
        })
    }

    async fn close(&mut self) -> bool {
        self.saving.finish(&mut self.spool, &self.sender).await;
        self.sender.is_drained()
    }

    /// Waits, and takes in what is sealed meanwhile. Draining waits no longer than it may.
    async fn wait(&mut self, wait: Duration) {
        let wait = if self.sealed.closed_at.is_some() {
            wait.min(BACKOFF_MIN)
        } else {
            wait
        };
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = tokio::time::sleep(TICK) => self.look(),
                sealed = self.sealed.next() => match sealed {
                    Some(sealed) => self.on_sealed(sealed),
                    None => return,
                },
            }
        }
    }

    fn on_sealed(&mut self, sealed: Sealed) {
        self.sender.on_sealed(sealed.key, sealed.bytes);
        self.look();
    }

    fn look(&mut self) {
        look(&mut self.sender, &mut self.spool, &self.status);
    }

    fn disconnected(&mut self, problem: String) {
        self.sender.on_lost();
        let changed = self.status.borrow().problem.as_ref() != Some(&problem);
        if changed {
            warn!(target = self.config.target.address, problem, "uplink down");
        }
        self.status.send_modify(|status| {
            status.connected = false;
            status.problem = Some(problem);
        });
        self.look();
    }

    /// Connects and greets, taking in what is sealed while there is no connection.
    async fn connect(&mut self) -> Result<Link, String> {
        let connection = self.reach().await?;
        let greeting = async {
            let (send, receive) = connection.open_bi().await.map_err(|e| e.to_string())?;
            let mut link = Link {
                connection: connection.clone(),
                read: FramedRead::new(receive, control::codec()),
                write: send,
                sending: JoinSet::new(),
                udp_counted: 0,
                silence: Silence {
                    datagrams: 0,
                    since: Instant::now(),
                    probes: 0,
                },
            };
            self.greet(&mut link).await?;
            Ok(link)
        };
        let greeted = tokio::time::timeout(HANDSHAKE_TIMEOUT, greeting).await;
        let link = greeted.unwrap_or_else(|_| Err("no Welcome in time".to_owned()))?;
        self.trim();
        info!(
            target = self.config.target.address,
            session = self.sender.session().map_or(0, |session| session.0),
            "uplink up"
        );
        self.status.send_modify(|status| {
            status.connected = true;
            status.problem = None;
            status.sessions += 1;
        });
        Ok(link)
    }

    /// A connection; gives up when it is time to end.
    async fn reach(&mut self) -> Result<Connection, String> {
        let Self {
            connector,
            sealed,
            sender,
            spool,
            status,
            ..
        } = self;
        let mut connecting = std::pin::pin!(connector.connect());
        loop {
            look(sender, spool, status);
            tokio::select! {
                connected = &mut connecting => return connected.map_err(|e| e.to_string()),
                sealed = sealed.next() => {
                    if let Some(sealed) = sealed {
                        sender.on_sealed(sealed.key, sealed.bytes);
                    }
                }
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    async fn greet(&mut self, link: &mut Link) -> Result<(), String> {
        let place = Place::of(&self.config.target.address);
        let hello = self
            .sender
            .on_connected_to(place, &self.config.name, SOFTWARE);
        let hello = Message::Hello(hello.map_err(|e| e.to_string())?);
        say(&mut link.write, &hello).await?;
        loop {
            match hear(&mut link.read, &link.connection).await? {
                Message::Welcome(page) => {
                    let more = page.more;
                    self.welcome(page)?;
                    if !more {
                        return Ok(());
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn welcome(&mut self, page: Welcome) -> Result<(), String> {
        let spool = &mut self.spool;
        let hash_of = |key| spool.read(key).ok().map(|batch| batch.hash());
        let taken = self.sender.on_welcome(page, hash_of);
        self.sender
            .poll_notices()
            .iter()
            .for_each(|it| self.tell(it));
        taken.map_err(|e| e.to_string())
    }

    /// What the aggregator acknowledged once and does not hold.
    fn tell(&self, notice: &Notice) {
        let Notice::WentBack {
            log,
            lane,
            ranges,
            again,
        } = notice;
        let gone: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let (buffer, lane) = (lane.buffer, lane.lane.name());
        // The first few: the aggregator's operator looks for them in its sinks.
        let first: Vec<_> = ranges.iter().take(NOTICE_RANGES_MAX).collect();
        match gone {
            0 => warn!(%log, %buffer, lane, again, "the aggregator lost batches that it had \
                acknowledged; they are still here, and are sent again"),
            _ => error!(%log, %buffer, lane, gone, ?first, again, "the aggregator lost batches \
                that it had acknowledged and that are gone from here: look for them in what it \
                had written, or restore its journal"),
        }
        self.status.send_modify(|status| {
            status.went_back_again += again;
            status.went_back_gone += gone;
        });
    }

    /// One session, until it is lost or nothing is left to do.
    async fn session(&mut self, mut link: Link) -> End {
        loop {
            self.fill(&mut link);
            self.measure(&mut link);
            if self.is_over() {
                self.leave(&mut link).await;
                return End::Drained;
            }
            if self.sender.wants_new_session() {
                self.leave(&mut link).await;
                self.sender.on_lost();
                return End::Again;
            }
            let event = self.next_event(&mut link).await;
            if let Err(problem) = self.apply(event) {
                link.connection.close(VarInt::from_u32(0), b"");
                return End::Lost(problem);
            }
        }
    }

    /// Waits for whatever comes first. Cancel safe: each branch is a receive that loses nothing
    /// when it is dropped.
    async fn next_event(&mut self, link: &mut Link) -> Event {
        tokio::select! {
            message = hear(&mut link.read, &link.connection) => Event::Message(message),
            Some(sent) = link.sending.join_next() => {
                Event::Sent(sent.unwrap_or_else(|e| Err(e.to_string())))
            }
            sealed = self.sealed.next() => sealed.map_or(Event::Closed, Event::Sealed),
            () = tokio::time::sleep(TICK) => Event::Tick,
        }
    }

    fn apply(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Sealed(sealed) => self.on_sealed(sealed),
            Event::Closed | Event::Tick | Event::Sent(Ok(())) => {}
            Event::Sent(Err(problem)) => return Err(problem),
            Event::Message(message) => match message? {
                Message::Ack(ack) => {
                    self.sender.on_ack(&ack).map_err(|e| e.to_string())?;
                    self.acked |= !ack.ranges.is_empty();
                    self.hold_back(&ack);
                    self.trim();
                }
                other => return Err(unexpected(&other)),
            },
        }
        let saving = &mut self.saving;
        saving.look(Instant::now(), &mut self.spool, &self.sender);
        Ok(())
    }

    /// An aggregator without room is not asked again at once, but ever less often.
    fn hold_back(&mut self, ack: &Ack) {
        let refused = ack
            .again
            .iter()
            .any(|again| again.reason == AgainReason::Busy);
        if !refused {
            self.hold = (None, 0);
            return;
        }
        let (_, times) = self.hold;
        let wait = backoff::wait(times, u64::MAX).min(BUSY_WAIT_MAX);
        self.hold = (Some(Instant::now() + wait), times.saturating_add(1));
    }

    fn trim(&mut self) {
        for trim in self.sender.poll_trims() {
            self.spool.trim(trim);
        }
        self.saving.want(Instant::now());
    }

    /// Sends as much as the window allows.
    fn fill(&mut self, link: &mut Link) {
        self.look();
        if self.hold.0.is_some_and(|until| until > Instant::now()) {
            return;
        }
        while let Some((key, urgency)) = self.sender.poll_send() {
            let batch = match self.spool.read(key) {
                Ok(batch) => batch,
                Err(error) if error.passing => {
                    warn!(%error, "tried again soon");
                    self.hold = (Some(Instant::now() + BACKOFF_MIN), self.hold.1);
                    return;
                }
                Err(error) => {
                    warn!(%error, "passed over");
                    self.sender.skip(key);
                    self.status.send_modify(|status| status.unreadable += 1);
                    continue;
                }
            };
            let bytes = batch.bytes().len() as u64;
            // It may be a gap that stands for more than what was asked for.
            let numbers = batch.numbers();
            let outgoing = Outgoing {
                key: batch.key(),
                count: numbers.end - numbers.start,
                bytes,
                hash: batch.hash(),
                series_needed: batch.series_needed(),
                series_after: batch.series_needed().saturating_add(batch.rows()),
            };
            if self.sender.offer(&outgoing, urgency) {
                let connection = link.connection.clone();
                link.sending
                    .spawn(send_batch(connection, batch.bytes().clone(), urgency));
                self.status
                    .send_modify(|status| status.batch_bytes_sent += bytes);
            }
        }
    }

    fn measure(&mut self, link: &mut Link) {
        let stats = link.connection.stats();
        let sent = stats.udp_tx.bytes;
        let waiting = self.sender.in_flight() > 0;
        let heard = stats.udp_rx.datagrams;
        if link.silence.is_too_long(heard, waiting, Instant::now()) {
            // An aggregator that was started again answers any packet with a reset; without one we
            // would wait for the keep-alive. A window that grows by a byte is such a packet.
            let window = RECEIVE_WINDOW_BYTES.saturating_add(link.silence.probes);
            link.connection.set_receive_window(VarInt::from_u32(window));
        }
        let rtt = link.connection.rtt();
        self.connector.remember_rtt(rtt);
        let more = sent - link.udp_counted;
        link.udp_counted = sent;
        let sender = &self.sender;
        self.status.send_modify(|status| {
            status.udp_bytes_sent += more;
            status.rtt_us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
            status.show_backlog(sender);
        });
    }

    /// Ends a session on our own account.
    async fn leave(&mut self, link: &mut Link) {
        let reject = Reject {
            code: RejectCode::Closing,
            detail: "the agent ends the session".to_owned(),
            retry_after_ms: 0,
            batch: None,
        };
        let said = async {
            say(&mut link.write, &Message::Reject(reject)).await?;
            link.write.finish().map_err(|e| e.to_string())?;
            link.write.stopped().await.map_err(|e| e.to_string())
        };
        // Until it has arrived, or not for long.
        if !matches!(tokio::time::timeout(GOODBYE, said).await, Ok(Ok(_))) {
            debug!("the session ended without a word");
        }
        link.connection.close(VarInt::from_u32(0), b"closing");
        self.status.send_modify(|status| status.connected = false);
    }
}

async fn say(stream: &mut SendStream, message: &Message) -> Result<(), String> {
    let bytes = message.encode().map_err(|e| e.to_string())?;
    stream.write_all(&bytes).await.map_err(|e| e.to_string())
}

/// The next message. Cancel safe: what has arrived stays in the reader's buffer.
async fn hear(
    read: &mut FramedRead<RecvStream, LengthDelimitedCodec>,
    connection: &Connection,
) -> Result<Message, String> {
    let bytes = match read.next().await {
        Some(Ok(bytes)) => bytes,
        Some(Err(error)) => return Err(why_closed(connection).unwrap_or(error.to_string())),
        None => return Err(why_closed(connection).unwrap_or("closed by the peer".to_owned())),
    };
    let frame = RawFrame(bytes.freeze())
        .verify()
        .map_err(|e| e.to_string())?;
    Message::parse(&frame).map_err(|e| e.to_string())
}

fn why_closed(connection: &Connection) -> Option<String> {
    connection.close_reason().map(|reason| reason.to_string())
}

fn unexpected(message: &Message) -> String {
    match message {
        Message::Reject(reject) => {
            format!(
                "refused by the aggregator ({:?}): {}",
                reject.code, reject.detail
            )
        }
        other => format!("the aggregator broke the protocol: {other:?}"),
    }
}

async fn send_batch(connection: Connection, bytes: Bytes, urgency: Urgency) -> Result<(), String> {
    let head = header(FrameKind::Batch, &bytes).map_err(|e| e.to_string())?;
    let mut stream = connection.open_uni().await.map_err(|e| e.to_string())?;
    let _ = stream.set_priority(urgency as i32);
    let mut parts = [Bytes::copy_from_slice(&head), bytes];
    stream
        .write_all_chunks(&mut parts)
        .await
        .map_err(|e| e.to_string())?;
    stream.finish().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_owes_an_answer_is_probed_once_for_each_silence() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut silence = Silence {
            datagrams: 0,
            since: begun,
            probes: 0,
        };
        assert!(!silence.is_too_long(3, true, at(5_000)), "heard just now");
        assert!(!silence.is_too_long(3, true, at(5_900)));
        assert!(silence.is_too_long(3, true, at(6_100)));
        assert!(!silence.is_too_long(3, true, at(6_200)), "probed just now");
        assert!(silence.is_too_long(3, true, at(7_200)));
        assert!(
            !silence.is_too_long(3, false, at(60_000)),
            "nothing is owed"
        );
    }
}
