//! The uplink's shell: the connection, the clock, and the thread that waits for the disk. What is
//! dialled, said, sent and kept, and when, [`Uplink`] decides.

use crate::connection::{Connector, Identity, Net, Target};
use crate::control;
use crate::limits::{GOODBYE, HANDSHAKE_TIMEOUT, PROBE_AFTER, RECEIVE_WINDOW_BYTES, TICK};
use crate::link::{Do, Uplink};
use crate::progress;
use crate::saving::Saving;
use crate::spool::{Sealed, Spool};
use crate::status::Status;
use bytes::Bytes;
use futures_util::StreamExt;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tracing::debug;
use tributary_protocol::frame::{FrameKind, RawFrame, header};
use tributary_protocol::limits::ENDPOINTS_MAX;
use tributary_protocol::message::Message;
use tributary_protocol::session::{RouteTimes, Sender, Urgency};

/// What the uplink has to know.
#[derive(Clone, Debug)]
pub struct UplinkConfig {
    /// The aggregator.
    pub target: Target,
    /// Who stands in for it.
    pub others: Others,
    /// Who we are and whom we trust.
    pub identity: Identity,
    /// The agent's label.
    pub name: String,
    /// How long what is left may take to go out once nothing more comes in.
    pub drain_deadline: Duration,
}

/// Who stands in for the aggregator; nobody, as a rule.
#[derive(Clone, Debug, Default)]
pub struct Others {
    /// Them, in the order in which they are tried. With the aggregator itself, as many count as
    /// [`ENDPOINTS_MAX`].
    pub targets: Vec<Target>,
    /// When they are, and when it is looked for again.
    pub times: RouteTimes,
}

/// Runs until `sealed` is closed and everything is acknowledged, or the drain's deadline is over.
/// Returns whether all was acknowledged.
pub async fn run<S: Spool>(
    config: UplinkConfig,
    sender: Sender,
    spool: S,
    sealed: mpsc::Receiver<Sealed>,
    status: watch::Sender<Status>,
) -> bool {
    run_over(Net::default(), config, sender, spool, (sealed, status)).await
}

/// As [`run`], over another network than this machine's.
pub async fn run_over<S: Spool>(
    net: Net,
    config: UplinkConfig,
    sender: Sender,
    spool: S,
    (sealed, status): (mpsc::Receiver<Sealed>, watch::Sender<Status>),
) -> bool {
    let who = (config.target.address.as_str(), config.name.as_str());
    let core = Uplink::new(who, config.drain_deadline, (sender, spool), status);
    let Others { mut targets, times } = config.others;
    targets.truncate(ENDPOINTS_MAX - 1);
    let addresses: Vec<String> = targets.iter().map(|it| it.address.clone()).collect();
    targets.insert(0, config.target);
    let shell = Shell {
        core: core.or_to(&addresses, times, 0),
        saving: Saving::new(net.saves_in_place),
        connector: Connector::new(targets, config.identity, net),
        sealed: Some(sealed),
        link: None,
        probing: JoinSet::new(),
        probed: None,
        begun: Instant::now(),
    };
    shell.run().await
}

struct Shell<S> {
    core: Uplink<S>,
    connector: Connector,
    /// The queue of sealed batches, until it is closed.
    sealed: Option<mpsc::Receiver<Sealed>>,
    link: Option<Link>,
    /// The first of the list is being dialled beside the link; at most one at a time.
    probing: JoinSet<Result<Link, String>>,
    /// What came of that, until it takes the link's place.
    probed: Option<Link>,
    saving: Saving,
    begun: Instant,
}

/// One open connection.
struct Link {
    connection: Connection,
    read: FramedRead<RecvStream, LengthDelimitedCodec>,
    write: SendStream,
    /// When the other end has to have answered our greeting.
    greeted_by: Instant,
    /// One task for each batch on its way into the connection; bounded by the sender's window.
    sending: JoinSet<Result<(), String>>,
    /// What the connection's own count was when it was last added to the status.
    udp_counted: u64,
    /// The same of what [moved](progress::moved).
    moved: u64,
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

/// What can happen.
enum Event {
    Sealed(Option<Sealed>),
    Message(Result<Message, String>),
    Sent(Result<(), String>),
    Probed(Result<Link, String>),
    Saved(bool),
    Time,
}

impl<S: Spool> Shell<S> {
    async fn run(mut self) -> bool {
        loop {
            let now = self.now();
            let random = self.connector.random();
            match self.core.poll(now, random) {
                Do::Dial => self.dial().await,
                Do::Probe => self.probe(),
                Do::Adopt => self.link = self.probed.take(),
                Do::Say(message) => self.say(&message).await,
                Do::Send(batch, urgency) => {
                    if let Some(link) = &mut self.link {
                        let kind = self.core.sender().frame_kind(batch.key());
                        let sending = (link.connection.clone(), kind, batch.bytes().clone());
                        link.sending.spawn(send_batch(sending, urgency));
                    }
                }
                Do::Leave(goodbye) => self.leave(&goodbye).await,
                Do::Hang => self.hang(),
                Do::Save(save) => self.saving.begin(save),
                Do::Wait(at) => {
                    self.measure();
                    let event = self.next_event(at).await;
                    self.apply(event);
                }
                Do::Done(drained) => return drained,
            }
        }
    }

    fn now(&self) -> i64 {
        since(self.begun)
    }

    /// Waits for whatever comes first. Cancel safe: each branch is a receive that loses nothing
    /// when it is dropped. In this order: what is heard makes room, and it ends for a while when
    /// the window is full; so does what was sent. What is sealed is bounded by the spool alone, and
    /// is no reason to hear later, nor is another aggregator. Time is only for when nothing else
    /// is.
    async fn next_event(&mut self, at: i64) -> Event {
        let until = self.begun + Duration::from_micros(at.max(0).unsigned_abs());
        let Self {
            link,
            sealed,
            saving,
            probing,
            ..
        } = self;
        let (mut message, mut sent) = (None, None);
        if let Some(Link {
            read,
            connection,
            sending,
            ..
        }) = link
        {
            message = Some(hear(read, connection));
            sent = Some(sending);
        }
        tokio::select! {
            biased;
            message = or_never(message) => Event::Message(message),
            sent = ended(sent) => Event::Sent(sent),
            sealed = or_never(sealed.as_mut().map(mpsc::Receiver::recv)) => Event::Sealed(sealed),
            kept = saving.ended() => Event::Saved(kept),
            probed = ended(Some(probing)) => Event::Probed(probed),
            () = tokio::time::sleep_until(until) => Event::Time,
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Sealed(Some(sealed)) => self.core.sealed(sealed),
            Event::Sealed(None) => self.close(),
            Event::Message(Ok(message)) => self.core.message(message, self.now()),
            Event::Message(Err(problem)) | Event::Sent(Err(problem)) => self.lose(problem),
            Event::Saved(kept) => self.core.saved(kept, self.now()),
            Event::Probed(Ok(link)) => {
                self.probed = Some(link);
                self.core.probed(self.now(), self.now());
            }
            Event::Probed(Err(problem)) => self.core.probe_failed(problem, self.now()),
            Event::Sent(Ok(())) | Event::Time => {}
        }
    }

    /// Nothing more will be sealed.
    fn close(&mut self) {
        self.sealed = None;
        self.core.closed(self.now());
    }

    /// Connects, taking in what is sealed meanwhile.
    async fn dial(&mut self) {
        let connected = self.reach().await;
        let since = self.now();
        let linked = match connected {
            Ok(connection) => Link::open(connection, Instant::now() + HANDSHAKE_TIMEOUT).await,
            Err(problem) => Err(problem),
        };
        match linked {
            Ok(link) => {
                self.link = Some(link);
                self.core.dialled(since);
            }
            Err(problem) => self.core.lost(problem),
        }
    }

    /// Connects to the first of the list, while the link stands.
    fn probe(&mut self) {
        let connector = self.connector.clone();
        self.probed = None;
        self.probing.spawn(async move {
            let connection = connector.connect(0).await.map_err(|e| e.to_string())?;
            Link::open(connection, Instant::now() + HANDSHAKE_TIMEOUT).await
        });
    }

    async fn reach(&mut self) -> Result<Connection, String> {
        let Self {
            connector,
            sealed,
            core,
            saving,
            begun,
            ..
        } = self;
        let mut connecting = std::pin::pin!(connector.connect(core.at()));
        loop {
            core.look();
            tokio::select! {
                biased;
                connected = &mut connecting => return connected.map_err(|e| e.to_string()),
                next = or_never(sealed.as_mut().map(mpsc::Receiver::recv)) => match next {
                    Some(next) => core.sealed(next),
                    None => {
                        *sealed = None;
                        core.closed(since(*begun));
                    }
                },
                kept = saving.ended() => core.saved(kept, since(*begun)),
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    async fn say(&mut self, message: &Message) {
        let Some(link) = &mut self.link else { return };
        let said = tokio::time::timeout_at(link.greeted_by, say(&mut link.write, message));
        let said = said.await;
        if let Err(problem) = said.unwrap_or_else(|_| Err("no Welcome in time".to_owned())) {
            self.lose(problem);
        }
    }

    fn lose(&mut self, problem: String) {
        self.hang();
        self.core.lost(problem);
    }

    fn hang(&mut self) {
        if let Some(link) = self.link.take() {
            link.connection.close(VarInt::from_u32(0), b"");
        }
    }

    fn measure(&mut self) {
        let Some(link) = &mut self.link else { return };
        let stats = link.connection.stats();
        let sent = stats.udp_tx.bytes;
        let waiting = self.core.sender().in_flight() > 0;
        let heard = stats.udp_rx.datagrams;
        if link.silence.is_too_long(heard, waiting, Instant::now()) {
            // An aggregator that was started again answers any packet with a reset; without one we
            // would wait for the keep-alive. A window that grows by a byte is such a packet.
            let window = RECEIVE_WINDOW_BYTES.saturating_add(link.silence.probes);
            link.connection.set_receive_window(VarInt::from_u32(window));
        }
        let rtt = link.connection.rtt();
        self.connector.remember_rtt(self.core.at(), rtt);
        let moved = progress::moved(&link.connection);
        if moved > link.moved {
            link.moved = moved;
            self.core.moved(since(self.begun));
        }
        let more = sent - link.udp_counted;
        link.udp_counted = sent;
        self.core.status().send_modify(|status| {
            status.udp_bytes_sent += more;
            status.rtt_us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        });
    }

    /// Ends a session on our own account.
    async fn leave(&mut self, goodbye: &Message) {
        let Some(mut link) = self.link.take() else {
            return;
        };
        let said = async {
            say(&mut link.write, goodbye).await?;
            link.write.finish().map_err(|e| e.to_string())?;
            link.write.stopped().await.map_err(|e| e.to_string())
        };
        // Until it has arrived, or not for long.
        if !matches!(tokio::time::timeout(GOODBYE, said).await, Ok(Ok(_))) {
            debug!("the session ended without a word");
        }
        link.connection.close(VarInt::from_u32(0), b"closing");
    }
}

impl Link {
    async fn open(connection: Connection, greeted_by: Instant) -> Result<Self, String> {
        let opened = tokio::time::timeout_at(greeted_by, connection.open_bi()).await;
        let opened = opened.map_err(|_| "no stream in time".to_owned())?;
        let (write, receive) = opened.map_err(|e| e.to_string())?;
        Ok(Self {
            connection,
            read: FramedRead::new(receive, control::codec()),
            write,
            greeted_by,
            sending: JoinSet::new(),
            udp_counted: 0,
            moved: 0,
            silence: Silence {
                datagrams: 0,
                since: Instant::now(),
                probes: 0,
            },
        })
    }
}

fn since(begun: Instant) -> i64 {
    i64::try_from(begun.elapsed().as_micros()).unwrap_or(i64::MAX)
}

/// What the future gives, if there is one. Cancel safe if it is.
async fn or_never<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// How the next of these went that was under way. Cancel safe.
async fn ended<T: 'static>(
    under_way: Option<&mut JoinSet<Result<T, String>>>,
) -> Result<T, String> {
    if let Some(under_way) = under_way
        && let Some(sent) = under_way.join_next().await
    {
        return sent.unwrap_or_else(|e| Err(e.to_string()));
    }
    std::future::pending().await
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

async fn send_batch(
    (connection, kind, bytes): (Connection, FrameKind, Bytes),
    urgency: Urgency,
) -> Result<(), String> {
    let head = header(kind, &bytes).map_err(|e| e.to_string())?;
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
