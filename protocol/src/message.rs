//! What the two ends of a session say to each other beside batches: `Hello`, `Welcome`, `Ack`,
//! `Reject`, from and to FlatBuffers. Total on arbitrary bytes; decides nothing.

use crate::frame::{Frame, FrameError, FrameKind, frame};
use crate::generated::tributary::wire;
use crate::ids::{BatchKey, BufferId, HashSum, Lane, LaneKey, LogId, Session};
use crate::limits::{
    ACK_RANGES_MAX, CONTROL_FRAME_BYTES_MAX, FLATBUFFERS_DEPTH_MAX, FLATBUFFERS_TABLES_MAX,
    HELLO_ELSEWHERE_BYTES, HELLO_ELSEWHERE_MAX, HELLO_LANES_MAX, NAME_BYTES_MAX, NUMBER_MAX,
    WELCOME_RANGES_MAX,
};
use crate::ranges::Held;
use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, VerifierOptions};

mod read;
mod write;

/// The version of the session that this build speaks.
pub const PROTOCOL: u8 = 1;

/// One lane of one buffer that an agent still holds batches of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LaneState {
    /// Which.
    pub key: LaneKey,
    /// The lowest number still held.
    pub first: u64,
    /// One past the greatest number that is durable.
    pub end: u64,
    /// Whether more may follow: it is the buffer of the agent's present life.
    pub open: bool,
}

/// What another journal acknowledged of one lane.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Elsewhere {
    /// Which lane.
    pub key: LaneKey,
    /// Which journal; [`LogId::FORGOTTEN`] when nobody knows any more.
    pub log: LogId,
    /// Which numbers, ascending; a sum of nothing where the hashes are not known.
    pub ranges: Vec<Held>,
}

/// How an agent begins a session.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Hello {
    /// The agent's label; its identity is its certificate's.
    pub name: String,
    /// Name and version of the agent's software.
    pub software: String,
    /// What it still holds.
    pub lanes: Vec<LaneState>,
    /// What of it others acknowledged, as far as there is room for it.
    pub elsewhere: Vec<Elsewhere>,
}

/// What an aggregator holds of one lane.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LaneHeld {
    /// Which.
    pub key: LaneKey,
    /// Committed numbers with their hash sums, ascending.
    pub ranges: Vec<Held>,
    /// How many series of the buffer are known.
    pub series_known: u32,
}

/// How an aggregator answers a `Hello`; several pages of it when it holds many lanes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Welcome {
    /// The session that begins.
    pub session: Session,
    /// The life of the aggregator's journal.
    pub log: LogId,
    /// What is held of the lanes that the `Hello` named.
    pub lanes: Vec<LaneHeld>,
    /// Bytes of the largest batch that is taken.
    pub batch_bytes_max: u32,
    /// Bytes that may be sent and not yet acknowledged.
    pub in_flight_bytes: u32,
    /// Batches that may be sent and not yet acknowledged.
    pub in_flight_batches: u32,
    /// Name and version of the aggregator's software.
    pub software: String,
    /// Whether another page follows.
    pub more: bool,
    /// Whether it takes [batches in doubt](FrameKind::BatchInDoubt), and keeps that they were.
    pub takes_in_doubt: bool,
}

/// Batches [first, end) of a lane that are durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AckRange {
    /// The lane.
    pub key: LaneKey,
    /// The lowest number.
    pub first: u64,
    /// One past the greatest number.
    pub end: u64,
}

/// Why a batch is asked for again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum AgainReason {
    /// It uses series that are not known yet.
    SeriesUnknown = 1,
    /// It did not verify.
    Damaged = 2,
    /// There was no room to judge it now.
    Busy = 3,
    /// It would leave too many holes in its lane: send the lowest missing number first.
    Holes = 4,
}

/// A batch that is asked for again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Again {
    /// Which.
    pub key: BatchKey,
    /// Why.
    pub reason: AgainReason,
}

/// What became of batches: the only thing that lets an agent forget them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ack {
    /// Durable.
    pub ranges: Vec<AckRange>,
    /// Asked for again.
    pub again: Vec<Again>,
}

/// Why a session ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum RejectCode {
    /// No version of the protocol in common.
    Version = 1,
    /// The peer broke the protocol.
    Protocol = 2,
    /// A newer session of this agent has begun.
    Fenced = 3,
    /// The batch is held with another hash: a clone, or a disk that lied.
    Conflict = 4,
    /// The agent is not admitted (revoked, expired, unknown).
    Forbidden = 5,
    /// No room now; come back.
    Busy = 6,
    /// The aggregator is shutting down; come back.
    Closing = 7,
    /// More buffers than a ledger keeps of one agent.
    Buffers = 8,
}

impl RejectCode {
    /// Every code.
    pub const ALL: [Self; 8] = [
        Self::Version,
        Self::Protocol,
        Self::Fenced,
        Self::Conflict,
        Self::Forbidden,
        Self::Busy,
        Self::Closing,
        Self::Buffers,
    ];
}

/// The end of a session, said by either end.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Reject {
    /// Why.
    pub code: RejectCode,
    /// For people.
    pub detail: String,
    /// Milliseconds to wait before coming back; 0: as the sender sees fit.
    pub retry_after_ms: u32,
    /// The batch that is meant, if one is.
    pub batch: Option<BatchKey>,
}

/// A message of the control stream.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// From the agent, first.
    Hello(Hello),
    /// From the aggregator, first.
    Welcome(Welcome),
    /// From the aggregator.
    Ack(Ack),
    /// From either end.
    Reject(Reject),
}

/// Why bytes are no message.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageError {
    /// The frame around it is not good.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// FlatBuffers' verifier refuses it.
    #[error("{kind:?} message refused by the verifier: {reason}")]
    Verifier {
        /// The message's kind.
        kind: FrameKind,
        /// What the verifier says.
        reason: String,
    },
    /// A field holds what it may not.
    #[error("{kind:?} message: {field} is {what}")]
    Field {
        /// The message's kind.
        kind: FrameKind,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A batch where a message is expected.
    #[error("a batch on the control stream, which carries messages only")]
    Batch,
    /// The peer speaks no version that this build speaks.
    #[error("the peer speaks protocol {min} to {max}; this build speaks {PROTOCOL}")]
    Protocol {
        /// The peer's lowest.
        min: u8,
        /// The peer's greatest.
        max: u8,
    },
}

impl Message {
    /// The message as a whole frame.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] for a message beyond [`CONTROL_FRAME_BYTES_MAX`]; what this crate's
    /// state machines build stays below it.
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        let mut builder = FlatBufferBuilder::with_capacity(1024);
        let kind = write::message(&mut builder, self);
        let payload = builder.finished_data();
        if payload.len() > CONTROL_FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(payload.len()));
        }
        frame(kind, payload)
    }

    /// The message in a frame that arrived whole.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(frame: &Frame) -> Result<Self, MessageError> {
        read::message(frame.kind, &frame.payload)
    }
}

impl Hello {
    /// Adds what a journal acknowledged of a lane, if there is room for all or some of it: the
    /// newest first, since what is left out is taken for a hole, or sent again.
    pub(crate) fn push_elsewhere(&mut self, mut elsewhere: Elsewhere) {
        let surplus = elsewhere.ranges.len().saturating_sub(self.ranges_left());
        elsewhere.ranges.drain(..surplus);
        if !elsewhere.ranges.is_empty() && self.elsewhere.len() < HELLO_ELSEWHERE_MAX {
            self.elsewhere.push(elsewhere);
        }
    }

    /// For how many ranges of one more lane and journal there is room.
    fn ranges_left(&self) -> usize {
        let cost = |it: &Elsewhere| ELSEWHERE_BYTES + ELSEWHERE_RANGE_BYTES * it.ranges.len();
        let taken: usize = self.elsewhere.iter().map(cost).sum();
        let room = HELLO_ELSEWHERE_BYTES.saturating_sub(taken + ELSEWHERE_BYTES);
        room / ELSEWHERE_RANGE_BYTES
    }

    /// Whether it names all that others acknowledged: there was room for more.
    pub(crate) fn names_all_elsewhere(&self) -> bool {
        self.elsewhere.len() < HELLO_ELSEWHERE_MAX && self.ranges_left() > 0
    }
}

/// Bytes that a lane and a journal take in a `Hello`, at most, and each range of it.
const ELSEWHERE_BYTES: usize = 64;
const ELSEWHERE_RANGE_BYTES: usize = 32;

impl Welcome {
    /// The same answer in pages that fit a control frame each.
    pub fn pages(mut self) -> Vec<Self> {
        // A lane costs at most 64 bytes and 32 for each range; half the frame leaves room.
        const PAGE_BYTES: usize = CONTROL_FRAME_BYTES_MAX / 2;
        let lanes = std::mem::take(&mut self.lanes);
        let mut pages = vec![Self {
            more: true,
            ..self.clone()
        }];
        let mut bytes = 0;
        for mut lane in lanes {
            // What is left out is only sent again.
            lane.ranges.truncate(WELCOME_RANGES_MAX);
            let cost = 64 + 32 * lane.ranges.len();
            if bytes + cost > PAGE_BYTES && bytes > 0 {
                pages.push(Self {
                    more: true,
                    ..self.clone()
                });
                bytes = 0;
            }
            bytes += cost;
            if let Some(page) = pages.last_mut() {
                page.lanes.push(lane);
            }
        }
        if let Some(last) = pages.last_mut() {
            last.more = false;
        }
        pages
    }
}

fn options() -> VerifierOptions {
    VerifierOptions {
        max_depth: FLATBUFFERS_DEPTH_MAX,
        max_tables: FLATBUFFERS_TABLES_MAX,
        max_apparent_size: 2 * CONTROL_FRAME_BYTES_MAX,
        ..VerifierOptions::default()
    }
}

#[cfg(test)]
mod tests;
