//! MQTT 3.1.1 and 5 as a server needs it: packets from bytes, and answers to bytes.
//!
//! Reading is our own and borrows from the input: rumqttc's reader takes an owned, refcounted copy
//! of each packet and a `String` of each topic, refuses passwords that are no UTF-8 and MQTT 5
//! DISCONNECTs without a body, and passes U+0000. So bytes from a socket never reach it, and no
//! fault in it can end this process. Writing goes through rumqttc's packet types, but for
//! publications of our own. The tests hold both readers, and both writers, against each other.
//!
//! Section numbers are those of the OASIS standards; `[3.1.1]` and `[5]` where they differ.

mod connect;
mod cursor;
mod deliver;
mod packet;
mod properties;
mod write;

pub(super) use connect::{Connect, Refusal, read_connect};
pub(super) use deliver::{Deliver, deliver};
pub(super) use packet::{Asked, Packet, Publish, read_packet, read_publish};
pub(super) use write::{Answer, write};

use crate::limits::{PACKET_BYTES_MAX, TOPIC_ALIASES_MAX};

/// The two versions of MQTT that are spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V4,
    /// MQTT 5, protocol level 5.
    V5,
}

/// What is wrong with what a client sent. MQTT 5 is told by the code, 3.1.1 by the closed socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// Bytes that are no packet.
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    /// A packet that may not stand here, or says what it may not say.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// More unacknowledged publications than were announced.
    #[error("receive maximum exceeded")]
    ReceiveMaximum,
    /// An alias beyond what was granted, or that stands for nothing.
    #[error("topic alias {0}: {TOPIC_ALIASES_MAX} are granted, each to be given a topic first")]
    TopicAlias(u16),
    /// More than a connection may keep.
    #[error("quota exceeded: {0}")]
    Quota(&'static str),
    /// A packet beyond the announced size.
    #[error("packet of {0} bytes; at most {PACKET_BYTES_MAX} are taken")]
    TooLarge(usize),
}

impl Fault {
    /// The MQTT 5 reason code (section 2.4).
    pub fn code(self) -> u8 {
        match self {
            Self::Malformed(_) => 0x81,
            Self::Protocol(_) => 0x82,
            Self::ReceiveMaximum => 0x93,
            Self::TopicAlias(_) => 0x94,
            Self::TooLarge(_) => 0x95,
            Self::Quota(_) => 0x97,
        }
    }

    /// A short stable word, as in metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Protocol(_) => "protocol_error",
            Self::ReceiveMaximum => "receive_maximum",
            Self::TopicAlias(_) => "topic_alias",
            Self::TooLarge(_) => "packet_too_large",
            Self::Quota(_) => "quota",
        }
    }
}

/// The fixed header of a packet (section 2.1.1 \[5\], 2.2 \[3.1.1\]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Type and flags.
    pub first: u8,
    /// Bytes of the fixed header itself.
    pub head: usize,
    /// Bytes behind the fixed header.
    pub body: usize,
}

impl Header {
    /// The packet's type.
    pub fn kind(self) -> u8 {
        self.first >> 4
    }

    /// The packet's flags.
    pub fn flags(self) -> u8 {
        self.first & 0x0f
    }

    /// Bytes of the whole packet.
    pub fn whole(self) -> usize {
        self.head + self.body
    }
}

/// The fixed header that `bytes` begins with; `None` when it is not all there yet.
pub(super) fn read_header(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let Some((first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    match cursor::variable_length(rest)? {
        Some((body, length)) => Ok(Some(Header {
            first: *first,
            head: 1 + length,
            body,
        })),
        None => Ok(None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
pub(super) mod tests;
