//! What one subscription decides: when to connect and how, what to ask for, what is kept of what
//! comes, what may be acknowledged, when to give a connection up. Told the time, its randomness,
//! and what is durable; it owns no socket, clock, file or task.
//!
//! A message is acknowledged once everything that came up to it is durable, in the order of
//! receipt, and only on the connection that brought it: an end of the connection is an end of what
//! waits for an acknowledgement, since the broker delivers all of that again.

use super::acks::{Ack, Acks};
use super::filters;
use super::link::{Broken, Cause, Delivery, Granted, Plan, Welcome};
use super::retry::{Backoff, Versions};
use super::subscriptions::{Ask, Subscriptions};
use super::{BrokerConfig, Version};
use crate::decode::UserProperties;
use crate::limits::{
    BROKER_ANSWER_TIMEOUT, BROKER_CONNECT_TIMEOUT, BROKER_HELD_BYTES_MAX, BROKER_PACKET_BYTES,
    BROKER_SILENT_KEEP_ALIVES, BROKER_UNACKED_MAX, RECORD_BYTES_MAX, TOO_LARGE_HEAD_BYTES,
};
use crate::source::connection::Now;
use crate::wal::{Batch, Message, Qos, TooLarge};
use std::time::{Duration, Instant};

/// Why nothing is acknowledged, for people.
const REFUSED: &str = "the spool is full and refuses what is new (`drop-newest`): nothing more is \
                       acknowledged, the broker keeps what it sends";

/// What happened since it was last asked, for the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    pub messages: u64,
    pub payload_bytes: u64,
    pub acknowledged: u64,
    pub own_topic: u64,
    pub too_large: u64,
    /// Acknowledgements that a dead connection took along.
    pub stale: u64,
    pub sessions_lost: u64,
}

/// What to do when there is no connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Wait until then; with `room`, also until the queue to the log takes something.
    Wait { until: Instant, room: bool },
    /// Open this one.
    Open(Plan),
    /// Nothing more.
    Over,
}

/// Something that people should know, once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Notice {
    Good(String),
    Bad(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Closed { until: Instant, room: bool },
    Connecting { since: Instant },
    Open,
    Over,
}

/// One subscription's decisions.
#[derive(Debug)]
pub(super) struct Subscriber {
    own_keep_alive: Duration,
    packet_bytes: u32,
    /// One greater packet is let through on the next connection.
    raised: Option<u32>,
    session: u64,
    phase: Phase,
    generation: u64,
    versions: Versions,
    backoff: Backoff,
    subscriptions: Subscriptions,
    acks: Acks,
    /// Our number of the last message that was handed over.
    appended: u64,
    heard: Instant,
    give_up: Option<Broken>,
    /// There was a connection before.
    welcomed: bool,
    stopping: bool,
    disconnecting: bool,
    /// The spool takes nothing new.
    refused: bool,
    notices: Vec<Notice>,
    tally: Tally,
    problem: Option<String>,
}

impl Subscriber {
    /// A subscription that connects at once. `client_id` and what was subscribed to before come
    /// from what was kept.
    pub(super) fn new(
        config: &BrokerConfig,
        client_id: &str,
        subscriptions: Subscriptions,
        now: Instant,
    ) -> Self {
        let whose = format!("broker {}:{} {client_id}", config.host, config.port);
        Self {
            own_keep_alive: config.keep_alive,
            packet_bytes: config.packet_bytes_max,
            raised: None,
            session: Message::session_of(&whose),
            phase: Phase::Closed {
                until: now,
                room: false,
            },
            generation: 0,
            versions: Versions::new(config.protocol),
            backoff: Backoff::default(),
            subscriptions,
            acks: Acks::default(),
            appended: 0,
            heard: now,
            give_up: None,
            welcomed: false,
            stopping: false,
            disconnecting: false,
            refused: false,
            notices: Vec::new(),
            tally: Tally::default(),
            problem: Some("not yet connected".into()),
        }
    }

    /// What to do without a connection. Opening one begins it.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        match self.phase {
            Phase::Over => Step::Over,
            Phase::Closed { until, room } if until > now || room => Step::Wait { until, room },
            _ => {
                self.generation += 1;
                self.phase = Phase::Connecting { since: now };
                self.heard = now;
                Step::Open(Plan {
                    generation: self.generation,
                    version: self.versions.now(),
                    packet_bytes_max: self.raised.unwrap_or(self.packet_bytes),
                })
            }
        }
    }

    /// The queue to the log takes something again.
    pub(super) fn handle_room(&mut self) {
        if let Phase::Closed { room, .. } = &mut self.phase {
            *room = false;
        }
    }

    /// The broker took the connection.
    pub(super) fn handle_welcome(&mut self, welcome: &Welcome, now: Instant) {
        self.phase = Phase::Open;
        self.heard = now;
        self.versions.connected();
        self.problem = None;
        let version = self.versions.now();
        let had = self.subscriptions.welcome(welcome, version);
        let session = match (welcome.session_present, had) {
            (true, _) => "its session goes on",
            (false, false) => "a new session",
            (false, true) => "its session is lost",
        };
        let said = format!("connected over MQTT {}, {session}", version.name());
        if had && !welcome.session_present {
            self.tally.sessions_lost += 1;
            self.notices.push(Notice::Bad(format!(
                "{said}: what was published since the last connection, and was not delivered, the \
                 broker no longer has; see docs/brokers.md on persistence and session expiry"
            )));
        } else {
            self.notices.push(Notice::Good(said));
        }
        if !std::mem::replace(&mut self.welcomed, true) {
            self.notices.push(Notice::Good(
                "how much it queues for an absent or slow agent before it drops messages cannot be \
                 seen: Mosquitto's defaults are too little, docs/brokers.md has what to set"
                    .into(),
            ));
        }
        let wants = self.subscriptions.needs_not_met(welcome);
        self.notices.extend(wants.into_iter().map(Notice::Bad));
        if self.stopping {
            self.disconnecting = true;
        }
    }

    /// SUBSCRIBE was answered. Whether what is known of the session changed.
    pub(super) fn handle_granted(&mut self, granted: &[Granted], now: Instant) -> bool {
        self.heard = now;
        let (changed, problems) = self.subscriptions.granted(granted);
        if let Some(problem) = problems.first() {
            self.problem = Some(problem.clone());
        }
        self.notices.extend(problems.into_iter().map(Notice::Bad));
        changed
    }

    /// A message came; what is to be made durable is added to `batch`.
    pub(super) fn handle_delivery(&mut self, delivery: &Delivery, now: Now, batch: &mut Batch) {
        self.heard = now.instant;
        if self.stopping || self.give_up.is_some() {
            // Never acknowledged: it comes again.
            return;
        }
        if delivery.topic.is_empty() {
            // A topic alias, though we allow none.
            self.give_up = Some(Broken::new(Cause::Malformed, "a message without a topic"));
            return;
        }
        if self.acks.len() >= BROKER_UNACKED_MAX {
            self.give_up = Some(Broken::new(
                Cause::Malformed,
                "more unacknowledged messages than there are packet ids",
            ));
            return;
        }
        self.versions.understood();
        let topic = String::from_utf8_lossy(&delivery.topic);
        if filters::is_own(&topic) {
            self.tally.own_topic += 1;
        } else {
            self.append(&topic, delivery, now, batch);
        }
        if delivery.qos > 0 {
            let ack = Ack {
                generation: self.generation,
                packet_id: delivery.packet_id,
                qos: delivery.qos,
            };
            self.acks.push(self.appended, ack);
        }
    }

    fn append(&mut self, topic: &str, delivery: &Delivery, now: Now, batch: &mut Batch) {
        let payload_bytes = delivery.payload.len();
        let message = Message {
            session: self.session,
            qos: Qos::from_code(delivery.qos).unwrap_or(Qos::AtLeastOnce),
            dup: delivery.dup,
            retain: delivery.retain,
            v5: self.versions.now() == Version::V5,
            will: false,
            broker: true,
            packet_id: delivery.packet_id,
            received_time: now.unix_us,
            topic,
            properties: UserProperties::read(&delivery.properties).unwrap_or_default(),
            payload: &delivery.payload,
        };
        self.appended += 1;
        self.tally.messages += 1;
        self.tally.payload_bytes += payload_bytes as u64;
        if message.record_bytes() <= RECORD_BYTES_MAX {
            batch.message(&message);
            return;
        }
        self.tally.too_large += 1;
        if payload_bytes + topic.len() >= self.packet_bytes as usize {
            self.raised = None;
        }
        let head = delivery.payload.get(..TOO_LARGE_HEAD_BYTES);
        batch.too_large(&TooLarge {
            message: Message {
                payload: head.unwrap_or_default(),
                ..message
            },
            payload_bytes: u32::try_from(payload_bytes).unwrap_or(u32::MAX),
        });
    }

    /// The broker said anything else; with `pong`, that it is well.
    pub(super) fn handle_heard(&mut self, pong: bool, now: Instant) {
        self.heard = now;
        if pong {
            self.backoff.reset();
        }
    }

    /// The broker refuses the agent's alerts.
    pub(super) fn handle_unpublished(&mut self, why: &str) {
        self.notices.push(Notice::Bad(format!(
            "an alert is refused: {why}; let the agent publish below tributary/alerts/ there, or \
             leave out `alerts`; others that are refused are counted"
        )));
    }

    /// An acknowledgement left.
    pub(super) fn handle_ack_sent(&mut self) {
        self.tally.acknowledged += 1;
        self.backoff.reset();
    }

    /// Everything up to our message `upto` is durable.
    pub(super) fn handle_durable(&mut self, upto: u64) {
        self.acks.durable(upto);
    }

    /// Whether the spool refuses what is new, `held_bytes` of which wait here. Nothing of that is
    /// handed over then: unlike a client, which goes on without it, a broker keeps what is not
    /// acknowledged. Whether that is news.
    pub(super) fn handle_refusing(&mut self, refusing: bool, held_bytes: usize) -> bool {
        if self.stopping && refusing && held_bytes > 0 {
            // It comes again at the next start. Nobody waits for room until then.
            self.handle_log_end();
        }
        if std::mem::replace(&mut self.refused, refusing) == refusing {
            return false;
        }
        let notice = match refusing {
            true => Notice::Bad(REFUSED.into()),
            false => Notice::Good("there is room again: what the broker kept is taken".into()),
        };
        self.notices.push(notice);
        if refusing {
            self.problem = Some(REFUSED.into());
        } else if self.problem.as_deref() == Some(REFUSED) {
            self.problem = None;
        }
        true
    }

    /// Whether nothing may be handed over.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// So many bytes of messages wait for room in the queue to the log.
    pub(super) fn handle_held(&mut self, bytes: usize) {
        if bytes > BROKER_HELD_BYTES_MAX {
            self.give_up.get_or_insert(Broken::new(
                Cause::Room,
                "storage takes nothing: the broker keeps what it sends until there is room",
            ));
        }
    }

    /// A time from [`poll_timeout`](Self::poll_timeout) has come, or any other.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let late = |since: Instant, limit: Duration| now >= since + limit;
        let words = match self.phase {
            // The library has a limit of its own: this one is for when it does not keep it.
            Phase::Connecting { since } if late(since, 2 * BROKER_CONNECT_TIMEOUT) => {
                "no connection came about, and no error"
            }
            Phase::Open if late(self.heard, self.silence_max()) => "nothing was heard for long",
            Phase::Open if self.subscriptions.is_late(now) => "SUBSCRIBE was never answered",
            _ => return,
        };
        self.give_up
            .get_or_insert(Broken::new(Cause::Watchdog, words));
    }

    fn silence_max(&self) -> Duration {
        self.own_keep_alive * BROKER_SILENT_KEEP_ALIVES
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, while there is a connection.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Connecting { since } => Some(since + 2 * BROKER_CONNECT_TIMEOUT),
            Phase::Open => {
                let silent = self.heard + self.silence_max();
                let asked = self.subscriptions.asked_at();
                let answer = asked.map_or(silent, |at| at + BROKER_ANSWER_TIMEOUT);
                Some(silent.min(answer))
            }
            Phase::Closed { .. } | Phase::Over => None,
        }
    }

    /// Why the connection has to go, if it has to.
    pub(super) fn gives_up(&mut self) -> Option<Broken> {
        self.give_up.take()
    }

    /// The connection is over, or did not come about.
    pub(super) fn handle_broken(&mut self, broken: &Broken, now: Instant, random: u64) {
        let open = self.phase == Phase::Open;
        self.tally.stale += self.acks.abandon() as u64;
        self.give_up = None;
        self.subscriptions.disconnected();
        if self.stopping {
            self.phase = Phase::Over;
            return;
        }
        if let Cause::TooLarge(bytes) = broken.cause {
            self.too_large(bytes);
        }
        let other = self.versions.broken(broken.cause, open);
        let wait = self.backoff.next_wait(random);
        self.phase = Phase::Closed {
            until: now + wait,
            room: broken.cause == Cause::Room,
        };
        let mut said = broken.words.clone();
        if broken.cause == Cause::TakenOver {
            said = "another client came with this client identifier: give each its own `client_id`"
                .into();
        }
        if other {
            said = format!("{said}; MQTT {} is tried", self.versions.now().name());
        }
        let lost = if open { "connection lost: " } else { "" };
        self.notices.push(Notice::Bad(format!(
            "{lost}{said}; again in {:.1} s",
            wait.as_secs_f64()
        )));
        self.problem = Some(said);
    }

    /// Without this, the packet would end each connection for ever.
    fn too_large(&mut self, bytes: usize) {
        let most = BROKER_PACKET_BYTES.2;
        let let_through = u32::try_from(bytes).ok().filter(|bytes| *bytes <= most - 8);
        self.raised = let_through.map(|bytes| bytes + 8);
        if let_through.is_none() {
            self.notices.push(Notice::Bad(format!(
                "a packet of {bytes} bytes stands before all others in this session, and more than \
                 {most} are never taken: remove the session at the broker, and limit its packets"
            )));
        }
    }

    /// The agent ends: nothing more is taken, what becomes durable is still acknowledged.
    pub(super) fn handle_stop(&mut self) {
        self.stopping = true;
        match self.phase {
            Phase::Open => self.disconnecting = true,
            _ => self.phase = Phase::Over,
        }
    }

    /// The log has ended: nothing will become durable any more.
    pub(super) fn handle_log_end(&mut self) {
        self.stopping = true;
        self.tally.stale += self.acks.abandon() as u64;
        self.phase = Phase::Over;
    }

    /// DISCONNECT left.
    pub(super) fn handle_disconnected(&mut self) {
        self.phase = Phase::Over;
    }

    /// Whether nothing more is taken.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether nothing more is to be done.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// The acknowledgement that may be sent next, until it is [`acked`](Self::acked).
    pub(super) fn due_ack(&self) -> Option<Ack> {
        let ack = self.acks.due().filter(|_| self.phase == Phase::Open)?;
        debug_assert_eq!(
            ack.generation, self.generation,
            "a dead one's are abandoned"
        );
        Some(ack)
    }

    /// The one that was due is on its way.
    pub(super) fn acked(&mut self) {
        self.acks.sent();
    }

    /// What to ask the broker for next, until it is [`asked`](Self::asked).
    pub(super) fn due_ask(&self) -> Option<Ask> {
        match self.phase {
            Phase::Open if !self.stopping => self.subscriptions.due(),
            _ => None,
        }
    }

    /// What was due was asked for.
    pub(super) fn asked(&mut self, ask: &Ask, now: Instant) {
        self.subscriptions.asked(ask, now);
    }

    /// Whether DISCONNECT is to be sent now, once.
    pub(super) fn take_disconnect(&mut self) -> bool {
        let now = self.disconnecting && self.acks.len() == 0;
        self.disconnecting &= !now;
        now
    }

    /// What people should know, once.
    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// What was counted, once.
    pub(super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Our number of the last message that was handed over.
    pub(super) fn appended(&self) -> u64 {
        self.appended
    }

    /// What stands in the way, for the status.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Whether there is a connection, by which version.
    pub(super) fn connected(&self) -> Option<Version> {
        (self.phase == Phase::Open).then(|| self.versions.now())
    }

    /// Which connection it is, counted from 1.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// How many messages wait to be acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.acks.len()
    }

    /// What is known of the session, to be kept.
    pub(super) fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
