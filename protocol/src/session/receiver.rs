//! The aggregator's end of one connection: a `Hello` first, then batches, and acknowledgements that
//! wait a little for each other. It judges no batch; the ledger does.

use super::Illegal;
use crate::ids::{BatchKey, Session};
use crate::limits::{ACK_COALESCE_BATCHES, ACK_COALESCE_US, ACK_RANGES_MAX};
use crate::message::{Ack, AckRange, Again, AgainReason, Hello, Message, Reject, RejectCode};
use tributary_planted::planted;

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReceiverState {
    /// Nothing said yet.
    Waiting,
    /// `Hello` is there; the ledger is asked to open the session.
    Opening,
    /// Batches are taken.
    Open,
    /// Over: fenced, rejected or lost.
    Closed,
}

/// What can happen to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceiverEvent {
    /// A `Hello` arrived.
    Hello,
    /// The ledger opened the session, and `Welcome` was written.
    Opened,
    /// A batch arrived.
    Batch,
    /// Fenced, rejected, or the connection is gone.
    End,
}

impl ReceiverState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Opening, Self::Open, Self::Closed];

    /// The state after `event`.
    ///
    /// # Errors
    /// [`Illegal`]: the peer broke the protocol.
    pub fn on(self, event: ReceiverEvent) -> Result<Self, Illegal> {
        match (self, event) {
            (Self::Waiting, ReceiverEvent::Hello) => Ok(Self::Opening),
            (Self::Opening, ReceiverEvent::Opened) => Ok(Self::Open),
            (Self::Open, ReceiverEvent::Batch) => Ok(Self::Open),
            (_, ReceiverEvent::End) => Ok(Self::Closed),
            (state, event) => Err(Illegal {
                state: state.name(),
                event: event.name(),
            }),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting for Hello",
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

impl ReceiverEvent {
    /// Every event.
    pub const ALL: [Self; 4] = [Self::Hello, Self::Opened, Self::Batch, Self::End];

    fn name(self) -> &'static str {
        match self {
            Self::Hello => "a Hello",
            Self::Opened => "an opened session",
            Self::Batch => "a batch",
            Self::End => "an end",
        }
    }
}

/// The aggregator's end of one connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Receiver {
    state: ReceiverState,
    session: Option<Session>,
    ack: Ack,
    /// Batches in `ack`, and when the oldest came into it.
    waiting: usize,
    since: Option<i64>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

impl Receiver {
    /// A connection on which nothing was said.
    pub fn new() -> Self {
        Self {
            state: ReceiverState::Waiting,
            session: None,
            ack: Ack::default(),
            waiting: 0,
            since: None,
        }
    }

    /// Where the connection stands.
    pub fn state(&self) -> ReceiverState {
        self.state
    }

    /// The session, once it is open.
    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// A message arrived on the control stream; the `Hello` is handed back to be answered.
    ///
    /// # Errors
    /// What to tell the peer before the connection is closed.
    pub fn on_message(&mut self, message: Message) -> Result<Hello, Reject> {
        match message {
            Message::Hello(hello) => {
                self.advance(ReceiverEvent::Hello)?;
                Ok(hello)
            }
            Message::Reject(_) => {
                self.end();
                Err(refuse(
                    RejectCode::Closing,
                    "the agent ended the session".to_owned(),
                ))
            }
            Message::Welcome(_) | Message::Ack(_) => {
                self.end();
                let detail = "an agent says Hello or Reject, and sends batches".to_owned();
                Err(refuse(RejectCode::Protocol, detail))
            }
        }
    }

    /// The ledger opened the session.
    ///
    /// # Errors
    /// When the connection ended meanwhile.
    pub fn on_opened(&mut self, session: Session) -> Result<(), Reject> {
        self.advance(ReceiverEvent::Opened)?;
        self.session = Some(session);
        Ok(())
    }

    /// A batch arrived; the session that it belongs to.
    ///
    /// # Errors
    /// When no session is open.
    pub fn on_batch(&mut self) -> Result<Session, Reject> {
        self.advance(ReceiverEvent::Batch)?;
        Ok(self.session.expect("a session that is open has its number"))
    }

    /// The connection is over.
    pub fn end(&mut self) {
        self.state = ReceiverState::Closed;
        self.ack = Ack::default();
        self.since = None;
    }

    fn advance(&mut self, event: ReceiverEvent) -> Result<(), Reject> {
        match self.state.on(event) {
            Ok(next) => {
                self.state = next;
                Ok(())
            }
            Err(illegal) => {
                self.end();
                Err(refuse(RejectCode::Protocol, illegal.to_string()))
            }
        }
    }

    /// A batch is durable, or was before: it is acknowledged soon.
    pub fn on_durable(&mut self, key: BatchKey, now: i64) {
        let lane = key.lane_key();
        let next = AckRange {
            key: lane,
            first: key.number,
            end: key.number + 1,
        };
        let grown = self
            .ack
            .ranges
            .iter_mut()
            .rev()
            .find(|range| range.key == lane);
        match grown {
            Some(range) if range.end == next.first => range.end = next.end,
            Some(range) if planted!(AckTooWide) && range.end < next.first => range.end = next.end,
            Some(range) if next.end == range.first => range.first = next.first,
            _ => self.ack.ranges.push(next),
        }
        self.count(now);
    }

    /// A batch could not be taken now.
    pub fn on_again(&mut self, key: BatchKey, reason: AgainReason, now: i64) {
        self.ack.again.push(Again { key, reason });
        self.count(now);
    }

    fn count(&mut self, now: i64) {
        if self.state != ReceiverState::Open {
            self.ack = Ack::default();
            return;
        }
        self.waiting += 1;
        self.since.get_or_insert(now);
    }

    /// When [`poll_ack`](Self::poll_ack) will have something, if nothing else happens: microseconds
    /// on the clock of `now`.
    pub fn poll_timeout(&self) -> Option<i64> {
        self.since
            .map(|since| since.saturating_add(ACK_COALESCE_US))
    }

    /// The acknowledgement that is due, if one is.
    pub fn poll_ack(&mut self, now: i64) -> Option<Ack> {
        let due = self.poll_timeout().is_some_and(|at| at <= now);
        let full = self.waiting >= ACK_COALESCE_BATCHES
            || self.ack.ranges.len() + self.ack.again.len() >= ACK_RANGES_MAX;
        if !due && !full {
            return None;
        }
        self.waiting = 0;
        self.since = None;
        Some(std::mem::take(&mut self.ack))
    }
}

fn refuse(code: RejectCode, detail: String) -> Reject {
    Reject {
        code,
        detail,
        retry_after_ms: 0,
        batch: None,
    }
}
