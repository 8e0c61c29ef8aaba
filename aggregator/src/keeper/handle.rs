//! The way to the keeper: what may be asked of it, from any task or from none, and what it answers.
//! It decides nothing.

use super::{KeeperStatus, StatusReport};
use crate::limits::KEEPER_QUEUE_MAX;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::{AgentId, SeriesId, Session};
use tributary_protocol::message::{AgainReason, Hello, Reject, Welcome};
use tributary_protocol::reading::ValueType;
use tributary_protocol::series::SeriesDef;

/// What ingest found in a batch by decoding it.
#[derive(Clone, PartialEq, Debug)]
pub enum Checked {
    /// Readings of these series.
    Readings {
        /// Each series once, with the type of its values.
        types: Vec<(SeriesId, ValueType)>,
    },
    /// Definitions.
    Series {
        /// Number of the first.
        base: u32,
        /// The definitions.
        defs: Vec<SeriesDef>,
    },
    /// A declared loss.
    Gap,
    /// It does not decode.
    Bad(String),
}

impl Checked {
    /// Readings of these series, each run with its type. What a batch names itself is compared with
    /// its own names here; the rest the keeper compares with its book.
    pub fn readings(batch: &SealedBatch, types: Vec<(SeriesId, ValueType)>) -> Self {
        let names = batch.names();
        if names.is_empty() {
            return Self::Readings { types };
        }
        let wrong = types.iter().find(|(series, value_type)| {
            let name = names.get(series.0 as usize);
            name.is_none_or(|name| name.value_type != *value_type)
        });
        match wrong {
            None => Self::Readings { types: Vec::new() },
            Some((series, value_type)) => Self::Bad(format!(
                "series {} holds {value_type}, named in the batch as something else",
                series.0
            )),
        }
    }
}

/// A batch that arrived whole.
#[derive(Debug)]
pub struct Offer {
    /// The session it came in.
    pub session: Session,
    /// Who sent it.
    pub agent: AgentId,
    /// The batch.
    pub batch: SealedBatch,
    /// What is in it.
    pub content: Checked,
    /// Whether its agent sent it to another aggregator first, and was not told what became of it.
    pub in_doubt: bool,
    /// Its share of the budget, given back when it is dealt with.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// What became of an offered batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is in the journal: acknowledge it.
    Durable,
    /// Ask for it again.
    Again(AgainReason),
    /// End the session, and say why.
    Reject(Reject),
}

/// What somebody asks of the keeper.
pub(super) enum Request {
    Open {
        agent: AgentId,
        hello: Hello,
        fence: CancellationToken,
        reply: oneshot::Sender<Welcome>,
    },
    Offer {
        offer: Offer,
        reply: oneshot::Sender<Outcome>,
    },
    Status(oneshot::Sender<StatusReport>),
}

/// A request, and where its answer will be.
type Asked<T> = (Request, oneshot::Receiver<T>);

fn open(agent: AgentId, hello: Hello, fence: CancellationToken) -> Asked<Welcome> {
    let (reply, answer) = oneshot::channel();
    let request = Request::Open {
        agent,
        hello,
        fence,
        reply,
    };
    (request, answer)
}

fn offer(offer: Offer) -> Asked<Outcome> {
    let (reply, answer) = oneshot::channel();
    (Request::Offer { offer, reply }, answer)
}

/// The keeper takes nothing: as much waits as may, or it has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the keeper takes no request: {KEEPER_QUEUE_MAX} wait already, or it has ended")]
pub struct Untaken;

/// The way to the keeper.
#[derive(Clone, Debug)]
pub struct KeeperHandle {
    requests: mpsc::Sender<Request>,
    status: Arc<KeeperStatus>,
}

impl KeeperHandle {
    /// A handle, and what the keeper needs of it.
    pub(super) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(KEEPER_QUEUE_MAX);
        let status = Arc::default();
        (Self { requests, status }, receiver)
    }

    async fn ask<T>(&self, (request, answer): Asked<T>) -> Option<T> {
        self.requests.send(request).await.ok()?;
        answer.await.ok()
    }

    fn try_ask<T>(&self, (request, answer): Asked<T>) -> Result<oneshot::Receiver<T>, Untaken> {
        self.requests.try_send(request).map_err(|_| Untaken)?;
        Ok(answer)
    }

    /// Begins a session; nothing when the keeper has ended. `fence` is cancelled when a newer
    /// session of the agent begins.
    pub async fn open(
        &self,
        agent: AgentId,
        hello: Hello,
        fence: CancellationToken,
    ) -> Option<Welcome> {
        self.ask(open(agent, hello, fence)).await
    }

    /// As [`open`](Self::open), for whoever has no runtime: hands it in and does not wait. What
    /// comes of it is there after a turn of the keeper.
    ///
    /// # Errors
    /// [`Untaken`].
    pub fn try_open(
        &self,
        agent: AgentId,
        hello: Hello,
        fence: CancellationToken,
    ) -> Result<oneshot::Receiver<Welcome>, Untaken> {
        self.try_ask(open(agent, hello, fence))
    }

    /// Offers a batch; nothing when the keeper has ended.
    pub async fn offer(&self, batch: Offer) -> Option<Outcome> {
        self.ask(offer(batch)).await
    }

    /// As [`offer`](Self::offer), without waiting: see [`try_open`](Self::try_open).
    ///
    /// # Errors
    /// [`Untaken`].
    pub fn try_offer(&self, batch: Offer) -> Result<oneshot::Receiver<Outcome>, Untaken> {
        self.try_ask(offer(batch))
    }

    /// What is held; nothing when the keeper has ended.
    pub async fn report(&self) -> Option<StatusReport> {
        let (reply, answer) = oneshot::channel();
        self.ask((Request::Status(reply), answer)).await
    }

    /// As [`report`](Self::report), without waiting: see [`try_open`](Self::try_open).
    ///
    /// # Errors
    /// [`Untaken`].
    pub fn try_report(&self) -> Result<oneshot::Receiver<StatusReport>, Untaken> {
        let (reply, answer) = oneshot::channel();
        self.try_ask((Request::Status(reply), answer))
    }

    /// What is known without asking.
    pub fn status(&self) -> &Arc<KeeperStatus> {
        &self.status
    }
}
