//! The keeper: the one thread that owns ledger, books and journal.
//!
//! It collects what waits, judges each batch, appends all that are new in one frame (one
//! `fdatasync`), and only then says that they are durable. It reads no socket and decodes no rows.

pub mod books;
pub mod record;

mod judge;
mod quarantine;
mod snapshot;
mod status;
pub(crate) mod store;

pub use status::{AgentStatus, KeeperStatus, LaneStatus, StatusReport};
pub use store::{Recovered, StoreError};

use crate::clock;
use crate::lake::LakeStatus;
use crate::limits::{
    APPEND_RETRY_MS, BATCHES_HELD_BYTES_MAX, COMMIT_BATCHES_MAX, COMMIT_BYTES_MAX, KEEPER_QUEUE_MAX,
};
use books::Books;
use judge::{Judge, Step};
use quarantine::Quarantine;
use record::RecordKind;
use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tributary_journal::{Disk, Frame, LogConfig, LogReader};
use tributary_protocol::batch::{Gap, SealedBatch};
use tributary_protocol::ids::{AgentId, BufferId, Lane, LogId, SeriesId, Session};
use tributary_protocol::ledger::Admission;
use tributary_protocol::limits::{
    AGENT_BUFFERS_MAX, BATCH_BYTES_MAX, IN_FLIGHT_BATCHES, IN_FLIGHT_BYTES,
};
use tributary_protocol::message::{AgainReason, Hello, LaneHeld, Reject, Welcome};
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

enum Request {
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

/// The way to the keeper.
#[derive(Clone, Debug)]
pub struct KeeperHandle {
    requests: mpsc::Sender<Request>,
    status: Arc<KeeperStatus>,
}

impl KeeperHandle {
    /// Begins a session; nothing when the keeper has ended. `fence` is cancelled when a newer
    /// session of the agent begins.
    pub async fn open(
        &self,
        agent: AgentId,
        hello: Hello,
        fence: CancellationToken,
    ) -> Option<Welcome> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(Request::Open {
                agent,
                hello,
                fence,
                reply,
            })
            .await
            .ok()?;
        answer.await.ok()
    }

    /// Offers a batch; nothing when the keeper has ended.
    pub async fn offer(&self, offer: Offer) -> Option<Outcome> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(Request::Offer { offer, reply })
            .await
            .ok()?;
        answer.await.ok()
    }

    /// What is held; nothing when the keeper has ended.
    pub async fn report(&self) -> Option<StatusReport> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Status(reply)).await.ok()?;
        answer.await.ok()
    }

    /// What is known without asking.
    pub fn status(&self) -> &Arc<KeeperStatus> {
        &self.status
    }
}

/// Where and how the keeper keeps.
#[derive(Clone, Debug)]
pub struct KeeperConfig {
    /// Folder of journal, checkpoints and quarantine.
    pub dir: PathBuf,
    /// The journal's bounds.
    pub journal: LogConfig,
    /// The life that an empty journal begins.
    pub new_log: LogId,
}

/// What the other parts need of a keeper that was opened.
#[derive(Debug)]
pub struct KeeperParts {
    /// The life of the journal.
    pub log: LogId,
    /// A reader of the journal.
    pub reader: LogReader,
    /// The books.
    pub books: Books,
    /// One past the last durable entry, as it grows.
    pub durable: watch::Receiver<u64>,
    /// The way to the keeper.
    pub handle: KeeperHandle,
    /// What recovery found.
    pub recovered: Recovered,
}

/// The keeper, opened and not yet running.
pub struct Keeper {
    store: Store,
    judge: Judge,
    quarantine: Quarantine,
    requests: mpsc::Receiver<Request>,
    durable: watch::Sender<u64>,
    status: Arc<KeeperStatus>,
    lake: Option<Arc<LakeStatus>>,
    sessions: HashMap<AgentId, CancellationToken>,
    seen: status::Seen,
    frame: Frame,
    /// A segment was begun and no checkpoint has been written since.
    checkpoint_due: bool,
}

/// A batch in the frame that is being filled.
struct Staged {
    admission: Admission,
    kind: RecordKind,
    offer: Offer,
    replies: Vec<oneshot::Sender<Outcome>>,
}

impl Keeper {
    /// Opens journal and ledger.
    ///
    /// # Errors
    /// As [`StoreError`] says; nothing was changed then.
    pub fn open(
        disk: &Arc<dyn Disk>,
        config: &KeeperConfig,
    ) -> Result<(Self, KeeperParts), StoreError> {
        let (store, ledger, books, recovered) =
            Store::open(disk, &config.dir, config.journal, config.new_log)?;
        let quarantine_dir = config.dir.join("quarantine");
        let quarantine = Quarantine::open(&quarantine_dir).map_err(|source| {
            tributary_journal::LogError::Io {
                doing: "opening",
                path: quarantine_dir,
                source,
            }
        })?;
        let (sender, requests) = mpsc::channel(KEEPER_QUEUE_MAX);
        let (durable, durable_receiver) = watch::channel(store.end());
        let status = Arc::<KeeperStatus>::default();
        status.set_end(store.end());
        status.set_damaged(recovered.damaged);
        let handle = KeeperHandle {
            requests: sender,
            status: Arc::clone(&status),
        };
        let parts = KeeperParts {
            log: store.log(),
            reader: store.reader(),
            books: books.clone(),
            durable: durable_receiver,
            handle,
            recovered,
        };
        let keeper = Self {
            store,
            judge: Judge::new(ledger, books),
            quarantine,
            requests,
            durable,
            status,
            lake: None,
            sessions: HashMap::new(),
            seen: status::Seen::default(),
            frame: Frame::new(),
            checkpoint_due: false,
        };
        Ok((keeper, parts))
    }

    /// Runs on the calling thread until `stop`, then answers what waits and ends. Segments go only
    /// once they are in the lake.
    pub fn run(
        mut self,
        runtime: &tokio::runtime::Handle,
        lake: Arc<LakeStatus>,
        stop: &CancellationToken,
    ) {
        self.lake = Some(lake);
        while let ControlFlow::Continue(first) =
            runtime.block_on(next_request(&mut self.requests, stop))
        {
            match first {
                Some(request) => self.group(request),
                None => self.tidy(),
            }
        }
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            self.group(request);
        }
    }

    /// Deals with everything that waits: one frame, as a rule.
    fn group(&mut self, first: Request) {
        let mut staged: Vec<Staged> = Vec::new();
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(request) = next {
            match request {
                Request::Open {
                    agent,
                    hello,
                    fence,
                    reply,
                } => {
                    // Whoever asked may have gone.
                    let _ = reply.send(self.open_session(agent, &hello, fence));
                }
                Request::Offer { offer, reply } => self.offer(offer, reply, &mut staged),
                Request::Status(reply) => {
                    let _ = reply.send(self.report());
                }
            }
            taken += 1;
            let full = taken >= COMMIT_BATCHES_MAX || self.frame.len_bytes() >= COMMIT_BYTES_MAX;
            next = if full {
                None
            } else {
                self.requests.try_recv().ok()
            };
        }
        self.append(&mut staged);
    }

    fn offer(&mut self, offer: Offer, reply: oneshot::Sender<Outcome>, staged: &mut Vec<Staged>) {
        let (admission, kind) = match self.judge.judge(&offer) {
            Step::Append(admission, kind) => (admission, kind),
            Step::Answer(outcome) => {
                let _ = reply.send(outcome);
                return;
            }
            Step::Quarantine(outcome, reason) => {
                self.quarantine.keep(&offer.agent, &offer.batch, &reason);
                let _ = reply.send(outcome);
                return;
            }
            Step::Share => {
                let (key, numbers) = (offer.batch.key(), offer.batch.numbers());
                let taken = |run: &Range<u64>| run.start < numbers.end && numbers.start < run.end;
                // Whatever is pending shares one frame, so any of it tells the outcome of all.
                let same = |it: &&mut Staged| {
                    it.offer.agent == offer.agent
                        && it.offer.batch.key().lane_key() == key.lane_key()
                        && it.admission.runs().iter().any(taken)
                };
                let first = staged.iter_mut().find(same);
                first
                    .expect("what is pending stands in this frame")
                    .replies
                    .push(reply);
                return;
            }
        };
        let mut header = record::header(&offer.agent, clock::wall_us());
        if kind == RecordKind::Gap {
            header.extend(record::runs(admission.runs()));
        }
        let sealed = offer.batch.bytes().clone();
        if !self.frame.fits(header.len() + sealed.len()) {
            self.append(staged);
        }
        self.frame
            .push_parts(kind.code(), &[&header, &sealed])
            .expect("a record fits an empty frame, see limits");
        let series = matches!(offer.content, Checked::Series { .. });
        staged.push(Staged {
            admission,
            kind,
            offer,
            replies: vec![reply],
        });
        if series {
            // Whatever uses these definitions may be waiting right behind them.
            self.append(staged);
        }
    }

    /// Makes the frame durable, and tells everybody; or nobody.
    fn append(&mut self, staged: &mut Vec<Staged>) {
        if self.frame.is_empty() {
            return;
        }
        let began = std::time::Instant::now();
        let result = self.store.append(&self.frame);
        self.frame.clear();
        match result {
            Ok(_) => {
                metrics::histogram!("tributary_aggregator_commit_seconds")
                    .record(began.elapsed().as_secs_f64());
                self.status.set_trouble(None);
                self.committed(staged);
            }
            Err(error) => self.failed(staged, &error),
        }
    }

    fn committed(&mut self, staged: &mut Vec<Staged>) {
        let (mut rows, mut bytes) = (0, 0);
        let end = self.store.end();
        let count = staged.len() as u64;
        let mut told = Vec::with_capacity(staged.len());
        for Staged {
            admission,
            kind,
            offer,
            replies,
        } in staged.drain(..)
        {
            if kind == RecordKind::Quarantined {
                let reason = "it does not verify; its number is held as quarantined";
                self.quarantine.keep(&offer.agent, &offer.batch, reason);
            }
            if let Some(gap) = offer.batch.gap() {
                count_gap(gap, admission.runs());
            }
            // Rows of the lane `series` are definitions, not readings.
            if offer.batch.key().lane != Lane::Series {
                rows += u64::from(offer.batch.rows());
            }
            bytes += offer.batch.bytes().len() as u64;
            self.judge.commit(&offer, admission, kind);
            let buffer = offer.batch.key().buffer;
            self.judge.books.touch(&offer.agent, buffer, end);
            told.extend(replies);
        }
        metrics::counter!("tributary_aggregator_batches_total").increment(count);
        metrics::counter!("tributary_aggregator_readings_total").increment(rows);
        metrics::counter!("tributary_aggregator_batch_bytes_total").increment(bytes);
        self.status.add(count, rows, bytes);
        self.status.set_end(end);
        self.durable.send_replace(end);
        // Last, so that whoever hears of it finds it everywhere.
        for reply in told {
            // Whoever offered it may have gone.
            let _ = reply.send(Outcome::Durable);
        }
        if self.store.segment_began() {
            self.checkpoint_due = true;
            self.tidy();
        }
    }

    /// Nothing of the frame counts. Whoever sent it is asked again, not at once: a disk that is
    /// full stays full for a while.
    fn failed(&mut self, staged: &mut Vec<Staged>, error: &tributary_journal::LogError) {
        tracing::error!(%error, batches = staged.len(), "the journal cannot be written");
        metrics::counter!("tributary_aggregator_append_errors_total").increment(1);
        self.status.set_trouble(Some(error.to_string()));
        self.tidy();
        std::thread::sleep(Duration::from_millis(APPEND_RETRY_MS));
        for Staged {
            admission, replies, ..
        } in staged.drain(..)
        {
            self.judge.ledger.abort(admission);
            for reply in replies {
                let _ = reply.send(Outcome::Again(AgainReason::Busy));
            }
        }
    }

    /// Writes the checkpoint that is due, and gives up what it and the lake no longer need.
    fn tidy(&mut self) {
        if self.checkpoint_due {
            let in_lake = self.lake.as_ref().map_or(0, |lake| lake.position());
            // Behind this checkpoint, the one that is newest now is the older one.
            let below = in_lake.min(self.store.newest_checkpoint());
            self.judge.books.drop_retired(below);
            match self.store.checkpoint(&self.judge.ledger, &self.judge.books) {
                Ok(()) => self.checkpoint_due = false,
                Err(error) => {
                    tracing::error!(%error, "no checkpoint: the journal is not trimmed meanwhile");
                    metrics::counter!("tributary_aggregator_checkpoint_errors_total").increment(1);
                }
            }
        }
        self.trim();
    }

    fn trim(&self) {
        let Some(lake) = &self.lake else { return };
        if let Err(error) = self.store.trim(lake.position()) {
            tracing::error!(%error, "the journal cannot be trimmed");
        }
    }

    fn open_session(&mut self, agent: AgentId, hello: &Hello, fence: CancellationToken) -> Welcome {
        let mut announced: Vec<BufferId> = hello.lanes.iter().map(|lane| lane.key.buffer).collect();
        announced.dedup();
        let session = self.judge.ledger.open_session(&agent, &announced);
        // An agent that names as many buffers as it may has perhaps more.
        if announced.len() < AGENT_BUFFERS_MAX {
            self.judge.books.announce(&agent, &announced);
        }
        let lanes = hello.lanes.iter().map(|lane| LaneHeld {
            key: lane.key,
            ranges: self.judge.ledger.held(&agent, lane.key),
            series_known: self.judge.books.len(&agent, lane.key.buffer),
        });
        let welcome = Welcome {
            session,
            log: self.store.log(),
            lanes: lanes.collect(),
            batch_bytes_max: BATCH_BYTES_MAX as u32,
            in_flight_bytes: IN_FLIGHT_BYTES as u32,
            in_flight_batches: IN_FLIGHT_BATCHES as u32,
            software: concat!("tributary-aggregator ", env!("CARGO_PKG_VERSION")).to_owned(),
            more: false,
            // The journal has no place for it yet.
            takes_in_doubt: false,
        };
        self.seen.note(&agent, hello, clock::wall_us());
        if let Some(older) = self.sessions.insert(agent, fence) {
            older.cancel();
        }
        welcome
    }

    fn report(&self) -> StatusReport {
        status::report(
            &self.judge.ledger,
            &self.judge.books,
            &self.seen,
            self.quarantine.files(),
        )
    }
}

/// Counts what is lost by a gap that took these numbers.
fn count_gap(gap: &Gap, runs: &[Range<u64>]) {
    let reason = gap.reason.name();
    for part in gap.parts(runs) {
        metrics::counter!("tributary_aggregator_gap_batches_total", "reason" => reason)
            .increment(part.count);
        match part.readings {
            Some(readings) => {
                let name = "tributary_aggregator_gap_readings_total";
                metrics::counter!(name, "reason" => reason).increment(readings);
            }
            None => {
                let name = "tributary_aggregator_gaps_of_unknown_size_total";
                metrics::counter!(name, "reason" => reason).increment(1);
            }
        }
    }
}

/// The only place where the keeper waits: for a request, or for a second without one. Cancel safe:
/// a request stays in its channel until it is taken.
async fn next_request(
    requests: &mut mpsc::Receiver<Request>,
    stop: &CancellationToken,
) -> ControlFlow<(), Option<Request>> {
    tokio::select! {
        biased;
        request = requests.recv() => {
            request.map_or(ControlFlow::Break(()), |request| ControlFlow::Continue(Some(request)))
        }
        () = stop.cancelled() => ControlFlow::Break(()),
        () = tokio::time::sleep(Duration::from_secs(1)) => ControlFlow::Continue(None),
    }
}

const _: () = assert!(COMMIT_BYTES_MAX < BATCHES_HELD_BYTES_MAX);
