//! One agent's conversation: `Hello`, then batches in any order, acknowledged together. Pure: it is
//! told what came, what became of it, and the time, and says what to ask of the keeper, what to
//! say, and when it wants to be asked again. It owns no stream, no clock and no share of a budget.

use super::bucket::Bucket;
use super::identity::Identity;
use crate::clock::Now;
use crate::keeper::{Checked, Offer, Outcome};
use bytes::Bytes;
use std::collections::VecDeque;
use tributary_protocol::batch::{Content, Decoder, SealedBatch};
use tributary_protocol::frame::{FrameKind, RawFrame};
use tributary_protocol::ids::{BatchKey, SeriesId};
use tributary_protocol::message::{Hello, Message, MessageError, Reject, RejectCode, Welcome};
use tributary_protocol::reading::{Readings, ValueType};
use tributary_protocol::session::{Receiver, ReceiverState};

/// Why a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// The agent, or the network, ended it.
    Gone,
    /// We did, and say why.
    Rejected(Reject),
}

impl From<Reject> for End {
    fn from(reject: Reject) -> Self {
        Self::Rejected(reject)
    }
}

/// A refusal that says why.
pub(super) fn reject(code: RejectCode, detail: impl ToString) -> Reject {
    Reject {
        code,
        detail: detail.to_string(),
        retry_after_ms: 0,
        batch: None,
    }
}

fn closing() -> End {
    reject(RejectCode::Closing, "shutting down").into()
}

/// One agent's conversation.
pub struct Talk {
    identity: Identity,
    receiver: Receiver,
    /// There while batches come: it is larger than all the rest.
    decoder: Option<Decoder>,
    bucket: Bucket,
    /// The handshake is complete: what comes was sent by who holds the key, and now.
    confirmed: bool,
    /// Came before that.
    early: Option<Hello>,
    /// Pages of the answer to `Hello` that are not said yet.
    welcome: VecDeque<Welcome>,
}

impl Talk {
    /// A conversation with this agent in which nothing was said.
    pub fn new(identity: Identity, now: Now) -> Self {
        Self {
            identity,
            receiver: Receiver::new(),
            decoder: None,
            bucket: Bucket::new(now.at),
            confirmed: false,
            early: None,
            welcome: VecDeque::new(),
        }
    }

    /// The handshake is complete. Whoever records what an agent once sent can send it again up to
    /// here, so that no session begins before: it would end the one that the agent has. Gives the
    /// `Hello` that waited for it, to be [opened](Self::on_opened).
    ///
    /// # Errors
    /// Why the conversation ends.
    pub fn on_confirmed(&mut self, now: Now) -> Result<Option<Hello>, End> {
        self.confirmed = true;
        if self.early.is_some() {
            self.check_expiry(now)?;
        }
        Ok(self.early.take())
    }

    /// A frame came on the control stream. Gives the `Hello` that is to be
    /// [opened](Self::on_opened).
    ///
    /// # Errors
    /// Why the conversation ends.
    pub fn on_control(&mut self, bytes: Bytes, now: Now) -> Result<Option<Hello>, End> {
        let frame = RawFrame(bytes).verify();
        let frame = frame.map_err(|error| reject(RejectCode::Protocol, error))?;
        let message = Message::parse(&frame).map_err(|error| {
            let code = match error {
                MessageError::Protocol { .. } => RejectCode::Version,
                _ => RejectCode::Protocol,
            };
            reject(code, error)
        })?;
        if matches!(message, Message::Reject(_)) {
            self.receiver.end();
            return Err(End::Gone);
        }
        let hello = self.receiver.on_message(message)?;
        self.check_expiry(now)?;
        if !self.confirmed {
            self.early = Some(hello);
            return Ok(None);
        }
        Ok(Some(hello))
    }

    /// What the keeper made of the `Hello`; nothing when it has ended.
    ///
    /// # Errors
    /// Why the conversation ends.
    pub fn on_opened(&mut self, welcome: Option<Welcome>) -> Result<(), End> {
        let welcome = welcome.ok_or_else(closing)?;
        self.receiver.on_opened(welcome.session)?;
        self.welcome = welcome.pages().into();
        Ok(())
    }

    /// A stream came that carried this: what to offer the keeper. Whatever is wrong with it ends
    /// the conversation, because QUIC delivers bytes as they were sent.
    ///
    /// # Errors
    /// Why the conversation ends.
    pub fn on_batch(&mut self, bytes: Bytes, now: Now) -> Result<Offer, End> {
        metrics::counter!("tributary_aggregator_received_bytes_total")
            .increment(bytes.len() as u64);
        let received = bytes.len();
        self.check_expiry(now)?;
        let frame = RawFrame(bytes).verify().map_err(bad)?;
        let in_doubt = frame.kind == FrameKind::BatchInDoubt;
        if frame.kind != FrameKind::Batch && !in_doubt {
            return Err(bad(format!("{:?} on a stream for batches", frame.kind)));
        }
        let batch = SealedBatch::open(frame.payload).map_err(bad)?;
        self.bucket.take_batch(received, batch.rows(), now.at);
        let session = self.receiver.on_batch()?;
        let content = self.check(&batch);
        Ok(Offer {
            session,
            agent: self.identity.agent.clone(),
            batch,
            content,
            in_doubt,
            permit: None,
        })
    }

    /// Decodes the batch, so that nothing enters the journal that no sink can read.
    fn check(&mut self, batch: &SealedBatch) -> Checked {
        match batch.decode(self.decoder.get_or_insert_default()) {
            Ok(Content::Readings(readings)) => Checked::readings(batch, types_of(&readings)),
            Ok(Content::Series { base, defs }) => Checked::Series { base, defs },
            Ok(Content::Gap(_)) => Checked::Gap,
            Err(error) => Checked::Bad(error.to_string()),
        }
    }

    /// What the keeper made of a batch; nothing when it has ended.
    ///
    /// # Errors
    /// Why the conversation ends.
    pub fn on_outcome(
        &mut self,
        key: BatchKey,
        outcome: Option<Outcome>,
        now: Now,
    ) -> Result<(), End> {
        match outcome {
            Some(Outcome::Durable) => self.receiver.on_durable(key, now.at),
            Some(Outcome::Again(reason)) => self.receiver.on_again(key, reason, now.at),
            Some(Outcome::Reject(reject)) => return Err(reject.into()),
            None => return Err(closing()),
        }
        Ok(())
    }

    /// The next thing to say, in this order and no other.
    pub fn poll(&mut self, now: Now) -> Option<Message> {
        let page = self.welcome.pop_front().map(Message::Welcome);
        page.or_else(|| self.receiver.poll_ack(now.at).map(Message::Ack))
    }

    /// When there will be something to say or batches are taken again, if nothing else happens.
    pub fn poll_timeout(&self, now: Now) -> Option<i64> {
        let ready_at = self.bucket.ready_at();
        let throttled = (ready_at > now.at).then_some(ready_at);
        let times = [self.receiver.poll_timeout(), throttled];
        times.into_iter().flatten().min()
    }

    /// Whether a batch may come now: a session is open, and the agent is within its rate.
    pub fn takes_batches(&self, now: Now) -> bool {
        self.receiver.state() == ReceiverState::Open && self.bucket.ready_at() <= now.at
    }

    /// No batch is under way: lets go of what decoding needs.
    pub fn rest(&mut self) {
        self.decoder = None;
    }

    /// It is over.
    pub fn end(&mut self) {
        self.receiver.end();
        self.welcome.clear();
    }

    fn check_expiry(&self, now: Now) -> Result<(), Reject> {
        if now.wall_us / 1_000_000 > self.identity.not_after {
            let detail = "the certificate has expired while connected: connect with a new one";
            return Err(reject(RejectCode::Forbidden, detail));
        }
        Ok(())
    }
}

/// What is wrong with what came on a stream.
pub(super) fn bad(error: impl ToString) -> End {
    metrics::counter!("tributary_aggregator_damaged_batches_total").increment(1);
    End::Rejected(reject(RejectCode::Protocol, error))
}

/// Each run of a series with its type; rows are grouped by series.
fn types_of(readings: &Readings) -> Vec<(SeriesId, ValueType)> {
    let mut types: Vec<(SeriesId, ValueType)> = readings
        .rows()
        .iter()
        .map(|row| (row.series, row.value_type))
        .collect();
    types.dedup();
    types
}
