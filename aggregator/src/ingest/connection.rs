//! One agent's connection: `Hello`, then batches in any order, acknowledged together.
//!
//! The state machine of the protocol crate says what is allowed and when an acknowledgement is
//! due; the keeper says what becomes of a batch. Here events are turned into calls.

use super::Ingest;
use super::bucket::Bucket;
use super::identity::Identity;
use super::stream::{ReadStream, StreamError, read};
use crate::clock::{Clock, wall_us};
use crate::keeper::{Checked, Offer, Outcome};
use crate::limits::{CONNECTION_READING_BYTES_MAX, HANDSHAKE_SECONDS_MAX, UNI_STREAMS_MAX};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tributary_protocol::batch::{Content, Decoder, SealedBatch};
use tributary_protocol::frame::{FrameKind, HEADER_BYTES, LENGTH_OFFSET, RawFrame};
use tributary_protocol::ids::{BatchKey, SeriesId};
use tributary_protocol::limits::CONTROL_FRAME_BYTES_MAX;
use tributary_protocol::message::{Hello, Message, Reject, RejectCode};
use tributary_protocol::reading::{Readings, ValueType};
use tributary_protocol::session::{Receiver, ReceiverState};

type Control = FramedRead<quinn::RecvStream, LengthDelimitedCodec>;
type Waiting = FuturesUnordered<BoxFuture<'static, (BatchKey, Option<Outcome>)>>;

/// Why a connection ended.
#[derive(Debug)]
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

fn reject(code: RejectCode, detail: impl ToString) -> Reject {
    Reject {
        code,
        detail: detail.to_string(),
        retry_after_ms: 0,
        batch: None,
    }
}

enum Event {
    Fenced,
    Stopping,
    Control(Option<Result<BytesMut, std::io::Error>>),
    Stream(quinn::RecvStream),
    Read(Result<ReadStream, StreamError>),
    Outcome((BatchKey, Option<Outcome>)),
    /// An acknowledgement is due, or the agent may send again.
    Time,
    Gone,
}

/// One connection's state.
pub struct Connection {
    ingest: Ingest,
    identity: Identity,
    quic: quinn::Connection,
    send: quinn::SendStream,
    control: Control,
    receiver: Receiver,
    /// There while batches come: it is larger than all the rest.
    decoder: Option<Decoder>,
    bucket: Bucket,
    clock: Clock,
    fence: CancellationToken,
    /// Of the batches that are being read.
    share: Arc<Semaphore>,
    reading: JoinSet<Result<ReadStream, StreamError>>,
    waiting: Waiting,
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .little_endian()
        .length_field_offset(LENGTH_OFFSET)
        .length_field_type::<u32>()
        .length_adjustment(HEADER_BYTES as isize)
        .num_skip(0)
        .max_frame_length(CONTROL_FRAME_BYTES_MAX)
        .new_codec()
}

/// Serves one agent from its control stream to its end.
pub async fn serve(ingest: Ingest, identity: Identity, quic: quinn::Connection) {
    let agent = identity.agent.clone();
    let limit = Duration::from_secs(HANDSHAKE_SECONDS_MAX);
    let Ok(Ok((send, recv))) = tokio::time::timeout(limit, quic.accept_bi()).await else {
        quic.close((RejectCode::Protocol as u32).into(), b"no control stream");
        return;
    };
    let clock = Clock::start();
    let fence = ingest.stop.child_token();
    let mut connection = Connection {
        bucket: Bucket::new(clock.now()),
        ingest,
        identity,
        quic: quic.clone(),
        send,
        control: FramedRead::new(recv, codec()),
        receiver: Receiver::new(),
        decoder: None,
        clock,
        fence,
        share: Arc::new(Semaphore::new(CONNECTION_READING_BYTES_MAX)),
        reading: JoinSet::new(),
        waiting: FuturesUnordered::new(),
    };
    let end = connection.run().await;
    connection.receiver.end();
    match end {
        Err(End::Rejected(reject)) => {
            tracing::info!(%agent, code = ?reject.code, detail = reject.detail, "session ended");
            metrics::counter!("tributary_aggregator_rejects_total").increment(1);
            connection.say_goodbye(reject).await;
        }
        Ok(()) | Err(End::Gone) => tracing::debug!(%agent, "connection gone"),
    }
}

impl Connection {
    async fn run(&mut self) -> Result<(), End> {
        let limit = Duration::from_secs(HANDSHAKE_SECONDS_MAX);
        let first = tokio::time::timeout(limit, self.control.next()).await;
        let first = first.map_err(|_| End::Rejected(reject(RejectCode::Protocol, "no Hello")))?;
        self.on_control(first).await?;
        loop {
            match self.next_event().await {
                Event::Fenced if self.ingest.stop.is_cancelled() => {
                    return Err(reject(RejectCode::Closing, "shutting down").into());
                }
                Event::Fenced => {
                    let detail = "a newer session of this agent has begun";
                    return Err(reject(RejectCode::Fenced, detail).into());
                }
                Event::Stopping => {
                    return Err(reject(RejectCode::Closing, "shutting down").into());
                }
                Event::Gone => return Err(End::Gone),
                Event::Control(message) => self.on_control(message).await?,
                Event::Stream(stream) => {
                    let budget = Arc::clone(&self.ingest.budget);
                    let share = Arc::clone(&self.share);
                    self.reading.spawn(read(stream, share, budget));
                }
                Event::Read(read) => self.on_stream(read)?,
                Event::Outcome((key, outcome)) => {
                    self.on_outcome(key, outcome)?;
                    if self.reading.is_empty() && self.waiting.is_empty() {
                        self.decoder = None;
                    }
                }
                Event::Time => {}
            }
            self.send_acks().await?;
        }
    }

    /// The only place where a connection waits. Cancel safe: framed reads keep partial frames,
    /// `accept_uni` and `join_next` lose nothing, outcomes stay in their set, and times are
    /// computed anew.
    async fn next_event(&mut self) -> Event {
        let busy = self.reading.len() + self.waiting.len() >= UNI_STREAMS_MAX as usize;
        let open = self.receiver.state() == ReceiverState::Open;
        let now = self.clock.now();
        let throttled = self.bucket.ready_at() > now;
        let wake = [
            self.receiver.poll_timeout(),
            throttled.then(|| self.bucket.ready_at()),
        ];
        let wake = wake.into_iter().flatten().min();
        tokio::select! {
            () = self.fence.cancelled() => Event::Fenced,
            () = self.ingest.stop.cancelled() => Event::Stopping,
            Some(outcome) = self.waiting.next() => Event::Outcome(outcome),
            Some(read) = self.reading.join_next() => {
                Event::Read(read.unwrap_or(Err(StreamError::Reset)))
            }
            message = self.control.next() => Event::Control(message),
            stream = self.quic.accept_uni(), if open && !busy && !throttled => {
                stream.map_or(Event::Gone, Event::Stream)
            }
            () = self.clock.sleep_until(wake.unwrap_or_default()), if wake.is_some() => Event::Time,
        }
    }

    async fn on_control(
        &mut self,
        bytes: Option<Result<BytesMut, std::io::Error>>,
    ) -> Result<(), End> {
        let bytes = match bytes {
            None => return Err(End::Gone),
            Some(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Err(reject(RejectCode::Protocol, error).into());
            }
            Some(Err(_)) => return Err(End::Gone),
            Some(Ok(bytes)) => bytes.freeze(),
        };
        let frame = RawFrame(bytes).verify();
        let frame = frame.map_err(|error| reject(RejectCode::Protocol, error))?;
        let message = Message::parse(&frame).map_err(|error| {
            let version = matches!(
                error,
                tributary_protocol::message::MessageError::Protocol { .. }
            );
            let code = if version {
                RejectCode::Version
            } else {
                RejectCode::Protocol
            };
            reject(code, error)
        })?;
        if matches!(message, Message::Reject(_)) {
            self.receiver.end();
            return Err(End::Gone);
        }
        let hello = self.receiver.on_message(message)?;
        self.open_session(hello).await
    }

    async fn open_session(&mut self, hello: Hello) -> Result<(), End> {
        self.check_expiry()?;
        let agent = self.identity.agent.clone();
        let opened = self
            .ingest
            .keeper
            .open(agent, hello, self.fence.clone())
            .await;
        let welcome = opened.ok_or_else(|| reject(RejectCode::Closing, "shutting down"))?;
        let session = welcome.session;
        for page in welcome.pages() {
            self.say(&Message::Welcome(page)).await?;
        }
        self.receiver.on_opened(session)?;
        Ok(())
    }

    fn check_expiry(&self) -> Result<(), Reject> {
        let now = wall_us() / 1_000_000;
        if now > self.identity.not_after {
            let detail = "the certificate has expired while connected: connect with a new one";
            return Err(reject(RejectCode::Forbidden, detail));
        }
        Ok(())
    }

    /// A stream was read: whatever is wrong with what it carried ends the connection, because QUIC
    /// delivers bytes as they were sent.
    fn on_stream(&mut self, read: Result<ReadStream, StreamError>) -> Result<(), End> {
        let ReadStream { bytes, permit } = match read {
            Ok(read) => read,
            Err(StreamError::Reset) => return Ok(()),
            Err(error) => return Err(self.bad(error)),
        };
        metrics::counter!("tributary_aggregator_received_bytes_total")
            .increment(bytes.len() as u64);
        let received = bytes.len();
        self.check_expiry()?;
        let frame = RawFrame(bytes).verify().map_err(|error| self.bad(error))?;
        if frame.kind != FrameKind::Batch {
            return Err(self.bad(format!("{:?} on a stream for batches", frame.kind)));
        }
        let batch = open(frame.payload).map_err(|error| self.bad(error))?;
        let now = self.clock.now();
        self.bucket.take_batch(received, batch.rows(), now);
        let session = self.receiver.on_batch()?;
        let key = batch.key();
        let content = self.check(&batch);
        let agent = self.identity.agent.clone();
        let offer = Offer {
            session,
            agent,
            batch,
            content,
            permit: Some(permit),
        };
        let keeper = self.ingest.keeper.clone();
        self.waiting
            .push(Box::pin(async move { (key, keeper.offer(offer).await) }));
        Ok(())
    }

    fn bad(&self, error: impl ToString) -> End {
        metrics::counter!("tributary_aggregator_damaged_batches_total").increment(1);
        End::Rejected(reject(RejectCode::Protocol, error))
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

    fn on_outcome(&mut self, key: BatchKey, outcome: Option<Outcome>) -> Result<(), End> {
        let now = self.clock.now();
        match outcome {
            Some(Outcome::Durable) => self.receiver.on_durable(key, now),
            Some(Outcome::Again(reason)) => self.receiver.on_again(key, reason, now),
            Some(Outcome::Reject(reject)) => return Err(reject.into()),
            None => return Err(reject(RejectCode::Closing, "shutting down").into()),
        }
        Ok(())
    }

    async fn send_acks(&mut self) -> Result<(), End> {
        while let Some(ack) = self.receiver.poll_ack(self.clock.now()) {
            self.say(&Message::Ack(ack)).await?;
        }
        Ok(())
    }

    async fn say(&mut self, message: &Message) -> Result<(), End> {
        let bytes = message
            .encode()
            .expect("what the state machines build fits a frame");
        let limit = Duration::from_secs(HANDSHAKE_SECONDS_MAX);
        match tokio::time::timeout(limit, self.send.write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            // It does not read what it is told.
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    /// Says why, and gives the agent the time to read it before the connection is closed.
    async fn say_goodbye(&mut self, reject: Reject) {
        let code = reject.code as u32;
        let detail: Bytes = reject.detail.clone().into();
        if self.say(&Message::Reject(reject)).await.is_ok() && self.send.finish().is_ok() {
            let limit = Duration::from_secs(2);
            // Whether it was read or not: the connection ends.
            let _ = tokio::time::timeout(limit, self.send.stopped()).await;
        }
        self.quic.close(code.into(), &detail);
    }
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

fn open(payload: Bytes) -> Result<SealedBatch, String> {
    SealedBatch::open(payload).map_err(|error| error.to_string())
}
