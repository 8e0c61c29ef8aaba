//! One client's connection, as decisions: it is told bytes, the time and what is durable, and
//! says what to append, what to send and when to ask again. It owns no socket, clock or task.
//!
//! A publication is acknowledged once everything that its client published up to it is durable,
//! in the order of receipt: what was received stands in the log. What the agent itself publishes is
//! delivered to clients that subscribed.

use super::access::acl::Rights;
use super::codec::{self, Answer, Fault, Header, Packet, Version, read_header, read_packet};
use super::intake::Skipping;
use super::rate::Bucket;
use crate::limits::{
    ARRIVAL_TIMEOUT, CONNECT_BYTES_MAX, CONNECT_TIMEOUT, OUTGOING_BYTES_MAX, PACKET_BYTES_MAX,
    UNACKED_BYTES_MAX, UNACKED_MESSAGES_MAX,
};
use crate::spool::RefuseNew;
use crate::wal::{Batch, Message};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

mod arrival;
mod publication;
mod reading;

use arrival::Pending;
pub(super) use arrival::{Admission, Arrival, Will};
use publication::{Aliases, Unacked};
use reading::Reading;
pub(super) use reading::{Audience, Parked};

/// What happened since it was last asked, for the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally {
    pub messages: u64,
    pub payload_bytes: u64,
    pub acknowledged: u64,
    pub refused_topic: u64,
    pub too_large: u64,
    /// Publications for which the spool had no room.
    pub turned_away: u64,
    pub subscribed: u64,
    pub subscriptions_refused: u64,
    pub deliveries: u64,
    pub deliveries_acknowledged: u64,
    /// Deliveries that are more than their client takes.
    pub deliveries_too_large: u64,
}

/// When bytes came: for deadlines, and as the received time of what they hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub instant: Instant,
    /// µs since 1970, UTC, at millisecond resolution.
    pub unix_us: i64,
}

/// What the server wants of a connection; the greater, the stronger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Order {
    /// The process ends: what was taken in is still acknowledged.
    ShutDown = 1,
    /// Too much memory is held by unfinished packets.
    Busy = 2,
    /// Its user is gone, or may now do something else.
    Revoked = 4,
    /// Another connection came with the same client identifier.
    TakenOver = 3,
    /// The log has ended: nothing will be acknowledged any more.
    Abandon = 5,
}

impl Order {
    /// Every order.
    pub(super) const ALL: [Self; 5] = [
        Self::ShutDown,
        Self::Busy,
        Self::Revoked,
        Self::TakenOver,
        Self::Abandon,
    ];
}

#[derive(Debug)]
enum Phase {
    /// CONNECT is awaited.
    New,
    /// Somebody decides whether the client is let in; nothing is read.
    Arriving(Box<Pending>),
    Open,
    /// Nothing is read any more; it ends when all is acknowledged.
    Draining,
    /// It ends when what is to be sent is sent; the word says why.
    Over(&'static str),
}

/// One client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// What its client is called if it has no name of its own.
    assigned: u128,
    phase: Phase,
    version: Version,
    session: u64,
    /// What its client may do; everything where nobody has to say who they are.
    rights: Option<Box<Rights>>,
    arrived: Option<Box<Arrival>>,
    /// The beginning of a packet whose end has not come.
    tail: Vec<u8>,
    skipping: Option<Box<Skipping>>,
    /// Consumption of the tail stopped, though whole packets may stand in it.
    stopped: bool,
    unacked: VecDeque<Unacked>,
    unacked_bytes: usize,
    /// QoS 1 publications that are not yet acknowledged.
    in_flight: usize,
    /// QoS 2 publications that are not yet released.
    unreleased: Vec<u16>,
    aliases: Aliases,
    will: Option<Box<Will>>,
    /// `None` until the client is let in.
    session_expiry_s: Option<u32>,
    appended: u64,
    durable: u64,
    out: BytesMut,
    heard: Instant,
    keep_alive: Option<Duration>,
    rate: Bucket,
    refuse: RefuseNew,
    /// What there is to subscribe to.
    audience: Option<Audience>,
    /// What its client reads, if it subscribed.
    reading: Option<Box<Reading>>,
    reasons: bool,
    answer_bytes_max: usize,
    receive_max: u16,
    tally: Tally,
}

impl Connection {
    /// A connection whose client is called `assigned`, which nobody can guess, if it has no name.
    pub(super) fn new(assigned: u128, messages_per_s: u32, now: Instant) -> Self {
        Self {
            assigned,
            phase: Phase::New,
            version: Version::V4,
            session: 0,
            rights: None,
            arrived: None,
            tail: Vec::new(),
            skipping: None,
            stopped: false,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            in_flight: 0,
            unreleased: Vec::new(),
            aliases: Aliases::default(),
            will: None,
            session_expiry_s: None,
            appended: 0,
            durable: 0,
            out: BytesMut::new(),
            heard: now,
            keep_alive: None,
            rate: Bucket::new(messages_per_s, now),
            refuse: RefuseNew::default(),
            audience: None,
            reading: None,
            reasons: true,
            answer_bytes_max: usize::MAX,
            receive_max: u16::MAX,
            tally: Tally::default(),
        }
    }

    /// With somebody who says when new publications are to be refused.
    pub(super) fn refusing(self, refuse: RefuseNew) -> Self {
        Self { refuse, ..self }
    }

    /// Takes bytes from the client; what is to be made durable is added to `batch`.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8], now: Now, batch: &mut Batch) {
        if !matches!(self.phase, Phase::New) {
            self.heard = now.instant;
        }
        self.stopped = false;
        let before = self.appended;
        if self.tail.is_empty() {
            let used = self.consume(bytes, now, batch);
            self.tail
                .extend_from_slice(bytes.get(used..).unwrap_or_default());
        } else {
            let mut held = std::mem::take(&mut self.tail);
            held.extend_from_slice(bytes);
            let used = self.consume(&held, now, batch);
            if used < held.len() {
                held.drain(..used);
                self.tail = held;
            }
        }
        if matches!(self.phase, Phase::Over(_)) {
            self.tail = Vec::new();
        }
        self.rate.take((self.appended - before) as u32, now.instant);
        self.release();
    }

    /// Everything up to the client's message `upto` is durable.
    pub(super) fn handle_durable(&mut self, upto: u64, now: Instant) {
        let was_full = self.is_full();
        self.durable = self.durable.max(upto);
        self.release();
        if was_full {
            self.resume(now);
        }
    }

    /// The client was not listened to until now: its silence does not count.
    pub(super) fn resume(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
    }

    fn disconnect(
        &mut self,
        with_will: bool,
        session_expiry_s: Option<u32>,
        now: Now,
        batch: &mut Batch,
    ) -> Result<(), Fault> {
        if let Some(expiry_s) = session_expiry_s {
            self.change_session(expiry_s, now, batch)?;
        }
        if !with_will {
            self.will = None;
        }
        self.over("disconnected");
        Ok(())
    }

    /// The client closed its end.
    pub(super) fn handle_end(&mut self) {
        self.over("closed_by_client");
    }

    /// The server wants something.
    pub(super) fn handle_order(&mut self, order: Order) {
        match order {
            Order::TakenOver => self.end(0x8e, "taken_over"),
            Order::Busy if matches!(self.phase, Phase::Arriving(_)) => self.turn_away("memory"),
            Order::Busy => self.end(0x97, "memory"),
            Order::Revoked => {
                // It may not say this any more either.
                self.will = None;
                self.end(0x87, "revoked");
            }
            Order::Abandon => {
                self.will = None;
                self.end(0x8b, "log_ended");
            }
            Order::ShutDown if matches!(self.phase, Phase::Open) => {
                // That the agent ends says nothing about its devices.
                self.will = None;
                self.phase = Phase::Draining;
                self.tail = Vec::new();
                self.release();
            }
            Order::ShutDown => self.over("shutdown"),
        }
    }

    /// A time from [`poll_timeout`](Self::poll_timeout) has come, or any other.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::New if now >= self.heard_deadline(CONNECT_TIMEOUT) => self.over("no_connect"),
            Phase::Arriving(_) if now >= self.heard_deadline(ARRIVAL_TIMEOUT) => {
                self.turn_away("arrival");
            }
            Phase::Open => {
                let limit = self.keep_alive.filter(|_| !self.is_full());
                if limit.is_some_and(|limit| now >= self.heard_deadline(limit)) {
                    self.end(0x8d, "keep_alive");
                }
            }
            _ => {}
        }
    }

    fn heard_deadline(&self, limit: Duration) -> Instant {
        self.heard + limit
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, or reading to be tried again.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        match self.phase {
            Phase::New => Some(self.heard_deadline(CONNECT_TIMEOUT)),
            // Nothing is read meanwhile: it was heard of last by its CONNECT.
            Phase::Arriving(_) => Some(self.heard_deadline(ARRIVAL_TIMEOUT)),
            Phase::Open if self.is_full() => None,
            Phase::Open => {
                let silent = self.keep_alive.map(|limit| self.heard_deadline(limit));
                let blocked = self.rate.blocked_until(now);
                silent.into_iter().chain(blocked).min()
            }
            Phase::Draining | Phase::Over(_) => None,
        }
    }

    /// Whether there is more to do with what came than there was room for: hand it no bytes, again.
    pub(super) fn wants_resume(&self) -> bool {
        self.stopped && matches!(self.phase, Phase::Open) && !self.is_full()
    }

    /// Whether the client should be listened to.
    pub(super) fn wants_read(&self, now: Instant) -> bool {
        let reading = matches!(self.phase, Phase::New | Phase::Open) && !self.stopped;
        reading && !self.is_full() && self.rate.blocked_until(now).is_none()
    }

    /// Whether as much is on its way to the disk, or to the client, as may be.
    fn is_full(&self) -> bool {
        self.unacked_bytes >= UNACKED_BYTES_MAX
            || self.unacked.len() >= UNACKED_MESSAGES_MAX
            || self.out.len() >= OUTGOING_BYTES_MAX
    }

    /// What is to be sent; the sender takes off what it has sent.
    pub(super) fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Why it is over; the socket closes once what is outgoing is sent.
    pub(super) fn is_over(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Over(reason) => Some(reason),
            _ => None,
        }
    }

    /// What was counted, once.
    pub(super) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// The number of the last message that was handed over.
    pub(super) fn appended(&self) -> u64 {
        self.appended
    }

    /// Bytes of memory that an unfinished packet, names, aliases and a will hold.
    pub(super) fn held_bytes(&self) -> usize {
        let skipping = self.skipping.as_deref().map_or(0, Skipping::held_bytes);
        let will = self.will.as_deref().map_or(0, Will::held_bytes);
        let names = self.rights().map_or(0, |rights| rights.client_id.len());
        self.tail.capacity() + skipping + will + names + self.aliases.held_bytes()
    }

    /// Takes whole packets off the front of `bytes`; gives how many bytes they were.
    fn consume(&mut self, bytes: &[u8], now: Now, batch: &mut Batch) -> usize {
        let mut used = 0;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            match self.phase {
                Phase::New => {}
                // It is taken once the client is let in.
                Phase::Arriving(_) => break,
                Phase::Open if self.is_full() => {
                    self.stopped = true;
                    break;
                }
                Phase::Open => {}
                Phase::Draining | Phase::Over(_) => return bytes.len(),
            }
            match self.step(rest, now, batch) {
                Ok(Some(taken)) => used += taken,
                Ok(None) => break,
                Err(fault) => self.end(fault.code(), fault.reason()),
            }
        }
        used
    }

    /// Takes one packet, or a piece of one that is skipped; `None` when more must come.
    fn step(&mut self, rest: &[u8], now: Now, batch: &mut Batch) -> Result<Option<usize>, Fault> {
        if let Some(skipping) = &mut self.skipping {
            let taken = skipping.take(rest);
            if skipping.is_whole() {
                self.finish_skipping(now, batch)?;
            }
            return Ok(Some(taken));
        }
        let Some(header) = read_header(rest)? else {
            return Ok(None);
        };
        if matches!(self.phase, Phase::New) {
            if header.kind() != 1 {
                return Err(Fault::Protocol("the first packet is not CONNECT"));
            }
            if header.whole() > CONNECT_BYTES_MAX {
                return Err(Fault::TooLarge(header.whole()));
            }
        } else if header.whole() > PACKET_BYTES_MAX {
            return self.begin_skipping(header).map(Some);
        }
        let Some(body) = rest.get(header.head..header.whole()) else {
            return Ok(None);
        };
        match self.phase {
            Phase::New => self.connect(header, body, now),
            _ => self.packet(header, body, now, batch)?,
        }
        Ok(Some(header.whole()))
    }

    /// MQTT 5 was told the limit; 3.1.1 could not be, and would send the same again for ever.
    fn begin_skipping(&mut self, header: Header) -> Result<usize, Fault> {
        let qos = (header.flags() >> 1) & 3;
        if self.version == Version::V5 || header.kind() != 3 || qos == 3 {
            return Err(Fault::TooLarge(header.whole()));
        }
        self.skipping = Some(Box::new(Skipping::new(header)));
        Ok(header.head)
    }

    fn finish_skipping(&mut self, now: Now, batch: &mut Batch) -> Result<(), Fault> {
        let Some(skipped) = self.skipping.take() else {
            return Ok(());
        };
        let (publish, payload_bytes) = skipped.finish()?;
        self.too_large(&publish, payload_bytes, now, batch)
    }

    fn packet(
        &mut self,
        header: Header,
        body: &[u8],
        now: Now,
        batch: &mut Batch,
    ) -> Result<(), Fault> {
        match read_packet(self.version, header, body)? {
            Packet::Publish(publish) => self.publish(publish, now, batch)?,
            Packet::PubRel { packet_id } => self.release_one(packet_id, batch),
            Packet::PubAck { packet_id } => self.delivered(packet_id)?,
            Packet::Subscribe {
                packet_id,
                id,
                filters,
            } => self.subscribe(packet_id, id, &filters, now, batch),
            Packet::Unsubscribe { packet_id, filters } => {
                self.unsubscribe(packet_id, &filters, now, batch);
            }
            Packet::PingReq => self.answer(&Answer::Pong),
            Packet::Disconnect {
                with_will,
                session_expiry_s,
            } => self.disconnect(with_will, session_expiry_s, now, batch)?,
        }
        Ok(())
    }

    fn answer(&mut self, answer: &Answer<'_>) {
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        if self.try_answer(answer) {
            return;
        }
        if let Answer::SubAck {
            packet_id, codes, ..
        } = answer
        {
            // Section 3.9.2.1.2 [5]: it may fit without the reason.
            self.try_answer(&Answer::SubAck {
                packet_id: *packet_id,
                codes: codes.clone(),
                reason: None,
            });
        }
    }

    /// Section 3.1.2.11.4 \[5\]: what is more than the client takes is not sent.
    fn try_answer(&mut self, answer: &Answer<'_>) -> bool {
        let before = self.out.len();
        codec::write(self.version, answer, &mut self.out);
        let fits = self.out.len() - before <= self.answer_bytes_max;
        if !fits {
            self.out.truncate(before);
        }
        fits
    }

    /// Nothing is owed any more.
    fn drained(&mut self) {
        if matches!(self.phase, Phase::Draining) {
            self.end(0x8b, "shutdown");
        }
    }

    /// Ends the connection with a word to the client, where it speaks MQTT 5 and was let in.
    fn end(&mut self, code: u8, reason: &'static str) {
        if !matches!(self.phase, Phase::New | Phase::Arriving(_) | Phase::Over(_)) {
            self.answer(&Answer::Disconnect { code });
        }
        self.over(reason);
    }

    fn over(&mut self, reason: &'static str) {
        if matches!(self.phase, Phase::Arriving(_)) {
            // Section 3.1.2.5: a will is of a client that was let in.
            self.will = None;
        }
        if self.is_over().is_none() {
            self.phase = Phase::Over(reason);
        }
        self.tail = Vec::new();
        self.skipping = None;
        self.arrived = None;
        self.aliases = Aliases::default();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
