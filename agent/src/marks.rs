//! Which message is a second copy of one that is in the log already.
//!
//! A function of the log: messages are judged in their order, and the same messages give the same
//! answers after a restart. A message is a repeat only on evidence; nothing is dropped because a
//! value repeats.
//!
//! 1. The device's number and the content are those of one of the device's last 64 messages; or
//! 2. QoS 1: DUP is set, and the newest of the session's last 128 messages with this packet id has
//!    this content: an older one was acknowledged before the id was used again; or
//! 3. QoS 2: DUP is set, and the session's message with this packet id that was not yet released
//!    has this content. Its release forgets it, so that no later message is taken for it; or
//! 4. a broker delivered it: as in 2, but of the last 8,192 messages of that session; or as a
//!    retained copy, whose content is that of the last message that the session had of its topic.
//!
//! The same number with other content is a device that counts from 0 again: kept. A message
//! without number and time whose content was seen in its session is kept and flagged, since
//! nothing tells a second copy from a second measurement.

use crate::limits::{
    DEVICE_MARKS, HELD_SESSIONS_MAX, MARKED_DEVICES_MAX, MARKED_SESSIONS_MAX, RECEIVE_MAX,
    SESSION_MARKS, UNRELEASED_CROWD, UNRELEASED_MAX,
};

mod broker;
mod checkpoint;
mod ring;
mod sessions;

use crate::decode::{Decoded, Reading};
use crate::wal::{Message, Qos};
use broker::BrokerMarks;
pub use checkpoint::MarksError;
use ring::{Keyed, Ring};
use sessions::Sessions;
use std::sync::Arc;
use tributary_planted::planted;
use tributary_protocol::reading::Flags;

/// What a message is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// What published it; `None` when it decoded to nothing.
    pub device: Option<&'a str>,
    /// The number that the device gave it.
    pub device_seq: Option<i64>,
    /// Whether the device gave it a time.
    pub has_time: bool,
    /// Hash over topic and payload.
    pub content: u64,
    /// The session that it came in.
    pub session: u64,
    /// Its packet id; 0 with QoS 0.
    pub packet_id: u16,
    /// Whether it came with QoS 2.
    pub exactly_once: bool,
    /// Whether the sender said that it may be a second delivery.
    pub dup: bool,
    /// Whether a broker delivered it.
    pub broker: bool,
    /// Whether it is a retained copy, when a broker delivered it.
    pub retain: bool,
    /// What it was published to.
    pub topic: &'a str,
}

impl<'a> Evidence<'a> {
    /// What a message says for itself: `decoded` to readings, of which `first` is the first.
    pub fn of(
        message: &Message<'a>,
        decoded: Option<&Decoded>,
        first: Option<&Reading<'a>>,
    ) -> Self {
        let has_time = |reading: &Reading<'_>| !reading.meta.flags.has(Flags::NO_DEVICE_TIME);
        Self {
            device: first.map(|reading| reading.device),
            device_seq: decoded.and_then(|decoded| decoded.device_seq),
            has_time: first.is_some_and(has_time),
            content: message.content_hash(),
            session: message.session,
            packet_id: message.packet_id,
            exactly_once: message.qos == Qos::ExactlyOnce,
            dup: message.dup,
            broker: message.broker,
            retain: message.retain,
            topic: message.topic,
        }
    }
}

/// What a message is taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judged {
    /// Not seen before.
    New,
    /// A second copy, on evidence: not stored again.
    Repeat(Reason),
    /// Kept, since nothing tells whether it is a second copy.
    MaybeRepeat,
}

/// The evidence for a repeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The device's own number, and the content.
    DeviceSeq,
    /// DUP, packet id and content.
    Dup,
    /// DUP, packet id and content of a QoS 2 message that was not yet released.
    Unreleased,
    /// A retained copy of the last one of its topic.
    Retained,
}

impl Reason {
    /// The reason in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeviceSeq => "device_seq",
            Self::Dup => "dup",
            Self::Unreleased => "unreleased",
            Self::Retained => "retained",
        }
    }
}

/// One message that was seen: the device's number or the packet id, and its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Mark {
    number: i64,
    content: u64,
}

impl Mark {
    /// Both in one word, of which a device has many: the number through the finalizer of SplitMix64
    /// (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), added to
    /// the content, which is a hash already. Two messages that differ are taken for one with a
    /// chance of 2^-64, as by their content alone. It stands in checkpoints: never change it.
    fn digest(self) -> u64 {
        let mut mixed = (self.number as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).wrapping_add(self.content)
    }
}

/// The [digests](Mark::digest) of a device's newest messages.
type Device = Ring<DEVICE_MARKS, u64>;

/// What is known of a session.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Client {
    /// Its newest QoS 1 messages.
    newest: Ring<SESSION_MARKS>,
    /// Its QoS 2 messages that it did not release yet, oldest first.
    unreleased: Vec<Mark>,
    /// Seconds that it is kept once its client is gone; 0: not at all.
    expiry_s: u32,
}

/// The marks of devices and sessions, each a bounded number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Marks {
    /// By name, which both of its places share.
    devices: Keyed<Arc<str>, Device>,
    sessions: Sessions,
    brokers: BrokerMarks,
}

impl Default for Marks {
    fn default() -> Self {
        Self::new()
    }
}

impl Marks {
    /// Nothing seen.
    pub fn new() -> Self {
        Self {
            devices: Keyed::new(MARKED_DEVICES_MAX),
            sessions: Sessions::new(MARKED_SESSIONS_MAX, HELD_SESSIONS_MAX),
            brokers: BrokerMarks::new(),
        }
    }

    /// Judges the next message of the log, and marks it.
    pub fn judge(&mut self, message: &Evidence<'_>) -> Judged {
        let by_device = self.judge_by_device(message);
        let by_session = match message.broker {
            true => self.brokers.judge(message),
            false => self.judge_by_session(message),
        };
        match (by_device, by_session) {
            (true, _) => Judged::Repeat(Reason::DeviceSeq),
            (false, Judged::MaybeRepeat) if message.device_seq.is_some() => Judged::New,
            (false, judged) => judged,
        }
    }

    fn judge_by_device(&mut self, message: &Evidence<'_>) -> bool {
        let (Some(device), Some(number)) = (message.device, message.device_seq) else {
            return false;
        };
        let mark = Mark {
            number,
            content: message.content,
        };
        let digest = mark.digest();
        let ring = self.devices.entry(device, || device.into());
        let seen = ring.contains(&digest);
        if !seen {
            ring.push(digest);
        }
        seen
    }

    fn judge_by_session(&mut self, message: &Evidence<'_>) -> Judged {
        if message.packet_id == 0 {
            return Judged::New;
        }
        let mark = Mark {
            number: i64::from(message.packet_id),
            content: message.content,
        };
        let blank = message.device_seq.is_none() && !message.has_time;
        let crowded = self.sessions.unreleased() >= UNRELEASED_CROWD;
        self.sessions.change(message.session, |client| {
            if message.exactly_once {
                let most = if crowded { RECEIVE_MAX } else { UNRELEASED_MAX };
                client.judge_exactly_once(mark, message.dup, blank, most)
            } else {
                client.judge_at_least_once(mark, message.dup, blank)
            }
        })
    }

    /// A session's QoS 2 message was released. Of one that is not known there is nothing to say.
    pub fn release(&mut self, session: u64, packet_id: u16) {
        let number = i64::from(packet_id);
        self.sessions.change_known(session, |client| {
            client.unreleased.retain(|mark| mark.number != number);
        });
    }

    /// A session is kept for this many seconds once its client is gone; 0: not at all.
    pub fn keep(&mut self, session: u64, expiry_s: u32) {
        let keep = |client: &mut Client| client.expiry_s = expiry_s;
        match expiry_s {
            0 => self.sessions.change_known(session, keep),
            _ => self.sessions.change(session, keep),
        }
    }

    /// The sessions that are kept, and for how many seconds; who was heard of last comes first.
    pub fn kept(&self) -> impl Iterator<Item = (u64, u32)> {
        let sessions = self.sessions.newest_first();
        sessions
            .map(|(session, client)| (session, client.expiry_s))
            .filter(|(_, expiry_s)| *expiry_s > 0)
    }
}

impl Client {
    fn judge_at_least_once(&mut self, mark: Mark, dup: bool, blank: bool) -> Judged {
        if dup && self.newest.newest(mark.number) == Some(mark) {
            return Judged::Repeat(Reason::Dup);
        }
        let judged = match blank && self.newest.contains_content(mark.content) {
            true => Judged::MaybeRepeat,
            false => Judged::New,
        };
        self.newest.push(mark);
        judged
    }

    fn judge_exactly_once(&mut self, mark: Mark, dup: bool, blank: bool, most: usize) -> Judged {
        let held = self.unreleased.iter_mut();
        if let Some(held) = held.into_iter().find(|held| held.number == mark.number) {
            if *held == mark && dup {
                return Judged::Repeat(Reason::Unreleased);
            }
            // A client that lost its state, or never had one: its id stands for this one now.
            let same = *held == mark;
            *held = mark;
            return match same && blank {
                true => Judged::MaybeRepeat,
                false => Judged::New,
            };
        }
        if planted!(ReleasedWhenReceived) {
            return Judged::New;
        }
        if self.unreleased.len() >= most {
            self.unreleased.remove(0);
        }
        self.unreleased.push(mark);
        Judged::New
    }
}

#[cfg(test)]
mod tests;
