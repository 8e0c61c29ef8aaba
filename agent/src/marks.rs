//! Which message is a second copy of one that is in the log already.
//!
//! A function of the log: messages are judged in their order, and the same messages give the same
//! answers after a restart. A message is a repeat only on evidence; nothing is dropped because a
//! value repeats.
//!
//! 1. The device's number and the content are those of one of the device's last 64 messages; or
//! 2. DUP is set, and packet id and content are those of one of the session's last 128 messages.
//!
//! The same number with other content is a device that counts from 0 again: kept. A message
//! without number, time and DUP whose content was seen in its session is kept and flagged, since
//! nothing tells a second copy from a second measurement.

use crate::limits::{DEVICE_MARKS, MARKED_DEVICES_MAX, MARKED_SESSIONS_MAX, SESSION_MARKS};

mod checkpoint;
mod ring;

pub use checkpoint::MarksError;
use ring::{Keyed, Ring};

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
    /// Whether the sender said that it may be a second delivery.
    pub dup: bool,
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
}

impl Reason {
    /// The reason in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeviceSeq => "device_seq",
            Self::Dup => "dup",
        }
    }
}

/// One message that was seen: the device's number or the packet id, and its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Mark {
    number: i64,
    content: u64,
}

/// The marks of devices and sessions, each a bounded number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Marks {
    devices: Keyed<Box<str>, Ring<DEVICE_MARKS>>,
    sessions: Keyed<u64, Ring<SESSION_MARKS>>,
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
            sessions: Keyed::new(MARKED_SESSIONS_MAX),
        }
    }

    /// Judges the next message of the log, and marks it.
    pub fn judge(&mut self, message: &Evidence<'_>) -> Judged {
        let by_device = self.judge_by_device(message);
        let by_session = self.judge_by_session(message);
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
        let ring = self.devices.entry(device, || device.into());
        let seen = ring.contains(mark);
        if !seen {
            ring.push(mark);
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
        let ring = self.sessions.entry(&message.session, || message.session);
        if message.dup && ring.contains(mark) {
            return Judged::Repeat(Reason::Dup);
        }
        let blank = message.device_seq.is_none() && !message.has_time && !message.dup;
        let judged = match blank && ring.contains_content(mark.content) {
            true => Judged::MaybeRepeat,
            false => Judged::New,
        };
        ring.push(mark);
        judged
    }
}

#[cfg(test)]
mod tests;
