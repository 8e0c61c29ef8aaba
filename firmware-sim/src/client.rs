//! The MQTT client: what it promises, and the parts it is made of.
//!
//! [`Outbox`] decides, without clock or socket, what is sent next and with which packet id; the
//! wire module is the bytes of both protocol versions; [`Client`] owns the connection. A reading is
//! published at least once: it keeps its packet id until its PUBACK comes, and after a lost
//! connection it is sent again, in order, with DUP set. At QoS 2 it is so until PUBREC; from then
//! on only PUBREL is sent, until PUBCOMP. Nothing here subscribes.

mod connection;
mod outbox;
mod wire;

pub use connection::{Client, ClientConfig, ClientEnd, Routes};
pub use outbox::{Outbox, Transmit};
pub use wire::{Protocol, WireError};

use crate::fleet::Fleet;
use crate::reading::{Counts, Reading};
use crate::replay::Replay;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The quality of service that is published with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// 0: sent once, never acknowledged.
    AtMostOnce,
    /// 1: sent until its PUBACK comes.
    AtLeastOnce,
    /// 2: sent until its PUBREC comes, then released until its PUBCOMP comes.
    ExactlyOnce,
}

impl Qos {
    /// By its number, when there is one of that number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Where a client gets its readings from. Times are microseconds since the run began.
pub trait Source: Send + Sync + 'static {
    /// When it has something to do, if ever; `room` is how many readings could be taken.
    fn poll_timeout(&self, room: usize) -> Option<u64>;
    /// Takes what is due at `elapsed_us`, at most `room` readings. Returns how many devices were
    /// due and measured nothing for want of room.
    fn produce(&mut self, elapsed_us: u64, room: usize, out: &mut VecDeque<Reading>) -> u64;
    /// Whether there will never be more.
    fn is_done(&self) -> bool;
}

impl Source for Fleet {
    fn poll_timeout(&self, _room: usize) -> Option<u64> {
        Self::poll_timeout(self)
    }

    fn produce(&mut self, elapsed_us: u64, room: usize, out: &mut VecDeque<Reading>) -> u64 {
        Self::produce(self, elapsed_us, room, out)
    }

    fn is_done(&self) -> bool {
        false
    }
}

impl Source for Replay {
    fn poll_timeout(&self, room: usize) -> Option<u64> {
        Self::poll_timeout(self, room)
    }

    fn produce(&mut self, elapsed_us: u64, room: usize, out: &mut VecDeque<Reading>) -> u64 {
        Self::produce(self, elapsed_us, room, out);
        0
    }

    fn is_done(&self) -> bool {
        Self::is_done(self)
    }
}

/// What a run has done so far; readable at any time, from anywhere.
#[derive(Debug, Default)]
pub struct Progress {
    published: AtomicU64,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    resent: AtomicU64,
    faults: AtomicU64,
    reconnects: AtomicU64,
    late_ticks: AtomicU64,
    connected: AtomicU64,
    opened: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Progress {
    /// Readings put on the wire, each counted once.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Readings whose PUBACK came; at QoS 2, whose PUBREC came.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Connections that are open now.
    pub fn connected(&self) -> u64 {
        self.connected.load(Ordering::Relaxed)
    }

    /// Connections opened since the run began.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// All counts.
    pub fn counts(&self) -> Counts {
        Counts {
            published: self.published(),
            acknowledged: self.acknowledged(),
            refused: self.refused.load(Ordering::Relaxed),
            resent: self.resent.load(Ordering::Relaxed),
            faults: self.faults.load(Ordering::Relaxed),
            reconnects: self.reconnects.load(Ordering::Relaxed),
            late_ticks: self.late_ticks.load(Ordering::Relaxed),
        }
    }

    /// Why a connection was lost or could not be opened, the last time one was.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().map_or(None, |text| text.clone())
    }

    fn note_trouble(&self, text: String) {
        if let Ok(mut held) = self.trouble.lock() {
            *held = Some(text);
        }
    }

    fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}
