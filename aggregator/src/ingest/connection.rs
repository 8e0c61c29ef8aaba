//! One agent's connection: its streams, its sockets' time-outs, and its share of the budget.
//!
//! What is said and when is decided in [`talk`](super::talk); what becomes of a batch, the keeper
//! says. Here events are turned into calls.

use super::Ingest;
use super::identity::Identity;
use super::stream::{ReadStream, StreamError, read};
use super::talk::{End, Talk, bad, reject};
use crate::clock::Clock;
use crate::keeper::{Outcome, Sign};
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
use tributary_protocol::frame::{HEADER_BYTES, LENGTH_OFFSET};
use tributary_protocol::ids::{AgentId, BatchKey};
use tributary_protocol::limits::CONTROL_FRAME_BYTES_MAX;
use tributary_protocol::message::{Hello, Message, Reject, RejectCode};

type Control = FramedRead<quinn::RecvStream, LengthDelimitedCodec>;
type Waiting = FuturesUnordered<BoxFuture<'static, (BatchKey, Option<Outcome>)>>;

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
    agent: AgentId,
    quic: quinn::Connection,
    send: quinn::SendStream,
    control: Control,
    talk: Talk,
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
        ingest,
        agent: agent.clone(),
        quic,
        send,
        control: FramedRead::new(recv, codec()),
        talk: Talk::new(identity, clock.told()),
        clock,
        fence,
        share: Arc::new(Semaphore::new(CONNECTION_READING_BYTES_MAX)),
        reading: JoinSet::new(),
        waiting: FuturesUnordered::new(),
    };
    let end = connection.run().await;
    connection.talk.end();
    match end {
        Err(End::Rejected(reject)) => {
            tracing::info!(%agent, code = ?reject.code, detail = reject.detail, "session ended");
            metrics::counter!("tributary_aggregator_rejects_total").increment(1);
            let is_fenced = reject.code == RejectCode::Fenced;
            if connection.say_goodbye(reject).await && is_fenced {
                // Whoever hears that is no connection that its agent gave up.
                let status = connection.ingest.keeper.status();
                status.saw(&agent, Sign::Fenced, clock.told().wall_us);
            }
        }
        Ok(()) | Err(End::Gone) => tracing::debug!(%agent, "connection gone"),
    }
}

impl Connection {
    async fn run(&mut self) -> Result<(), End> {
        let limit = Duration::from_secs(HANDSHAKE_SECONDS_MAX);
        let first = tokio::time::timeout(limit, self.control.next()).await;
        let first = first.map_err(|_| End::Rejected(reject(RejectCode::Protocol, "no Hello")))?;
        // A connection is served once its handshake is complete.
        self.talk.on_confirmed(self.clock.told())?;
        self.on_control(first).await?;
        self.say_all().await?;
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
                    self.talk.on_outcome(key, outcome, self.clock.told())?;
                    if self.reading.is_empty() && self.waiting.is_empty() {
                        self.talk.rest();
                    }
                }
                Event::Time => {}
            }
            self.say_all().await?;
        }
    }

    /// The only place where a connection waits. Cancel safe: framed reads keep partial frames,
    /// `accept_uni` and `join_next` lose nothing, outcomes stay in their set, and times are
    /// computed anew. In this order: ends first, then what gives answers, then what brings more;
    /// everything before the streams is bounded by the window, so that none waits for ever.
    async fn next_event(&mut self) -> Event {
        let busy = self.reading.len() + self.waiting.len() >= UNI_STREAMS_MAX as usize;
        let now = self.clock.told();
        let takes = self.talk.takes_batches(now) && !busy;
        let wake = self.talk.poll_timeout(now);
        tokio::select! {
            biased;
            () = self.fence.cancelled() => Event::Fenced,
            () = self.ingest.stop.cancelled() => Event::Stopping,
            Some(outcome) = self.waiting.next() => Event::Outcome(outcome),
            Some(read) = self.reading.join_next() => {
                Event::Read(read.unwrap_or(Err(StreamError::Reset)))
            }
            message = self.control.next() => Event::Control(message),
            stream = self.quic.accept_uni(), if takes => {
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
        match self.talk.on_control(bytes, self.clock.told())? {
            Some(hello) => self.open_session(hello).await,
            None => Ok(()),
        }
    }

    async fn open_session(&mut self, hello: Hello) -> Result<(), End> {
        let (agent, fence) = (self.agent.clone(), self.fence.clone());
        let opened = self.ingest.keeper.open(agent, hello, fence).await;
        self.talk.on_opened(opened)
    }

    /// A stream was read.
    fn on_stream(&mut self, read: Result<ReadStream, StreamError>) -> Result<(), End> {
        let ReadStream { bytes, permit } = match read {
            Ok(read) => read,
            Err(StreamError::Reset) => return Ok(()),
            Err(error) => return Err(bad(error)),
        };
        let mut offer = self.talk.on_batch(bytes, self.clock.told())?;
        offer.permit = Some(permit);
        let (key, keeper) = (offer.batch.key(), self.ingest.keeper.clone());
        self.waiting
            .push(Box::pin(async move { (key, keeper.offer(offer).await) }));
        Ok(())
    }

    async fn say_all(&mut self) -> Result<(), End> {
        while let Some(message) = self.talk.poll(self.clock.told()) {
            self.say(&message).await?;
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

    /// Says why, and gives the agent the time to read it before the connection is closed; whether
    /// it arrived.
    async fn say_goodbye(&mut self, reject: Reject) -> bool {
        let code = reject.code as u32;
        let detail: Bytes = reject.detail.clone().into();
        let mut arrived = false;
        if self.say(&Message::Reject(reject)).await.is_ok() && self.send.finish().is_ok() {
            let limit = Duration::from_secs(2);
            let stopped = tokio::time::timeout(limit, self.send.stopped()).await;
            arrived = matches!(stopped, Ok(Ok(None)));
        }
        self.quic.close(code.into(), &detail);
        arrived
    }
}
