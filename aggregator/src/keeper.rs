//! The keeper: the one thread that owns ledger, books and journal.
//!
//! It collects what waits, judges each batch, appends all that are new in one frame (one
//! `fdatasync`), and only then says that they are durable. It reads no socket and decodes no rows.
//! What is done when is decided in [turns](Keeper::turn), which are told the time; the thread only
//! waits between them.

pub mod books;
pub mod record;

mod handle;
mod judge;
mod mend;
mod quarantine;
mod readmit;
pub mod reseal;
mod snapshot;
mod status;
pub(crate) mod store;
mod turn;
mod twins;

pub use handle::{Checked, KeeperHandle, Offer, Outcome, Untaken};
pub use readmit::{Disputed, Readmitted};
pub use status::{AgentStatus, KeeperStatus, LaneStatus, StatusReport};
pub use store::{Recovered, StoreError};
pub use twins::{Sign, TwinStatus};

use crate::clock::{Clock, Now};
use crate::fanout::SinkStatus;
use crate::lake::LakeStatus;
use crate::limits::{BATCHES_HELD_BYTES_MAX, COMMIT_BYTES_MAX};
use books::Books;
use handle::Request;
use judge::Judge;
use quarantine::Quarantine;
use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;
use store::Store;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tributary_journal::{Disk, Frame, LogConfig, LogReader};
use tributary_protocol::ids::{AgentId, BufferId, LogId};
use tributary_protocol::limits::{
    AGENT_BUFFERS_MAX, BATCH_BYTES_MAX, IN_FLIGHT_BATCHES, IN_FLIGHT_BYTES,
};
use tributary_protocol::message::{Hello, LaneHeld, Welcome};
use turn::{Hold, Staged};

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
    /// Journal entries that it could not read, in runs, with some between them perhaps. Whoever has
    /// a lake [finds](crate::lake::commit::LakeStore::find) what it has of them, and has it
    /// [taken in](Keeper::take_in).
    pub unread: Vec<Range<u64>>,
}

/// The keeper, opened and not yet running.
pub struct Keeper {
    store: Store,
    judge: Judge,
    quarantine: Quarantine,
    requests: mpsc::Receiver<Request>,
    /// Taken out of `requests` by whoever waited for it.
    taken: Option<Request>,
    durable: watch::Sender<u64>,
    status: Arc<KeeperStatus>,
    lake: Option<Arc<LakeStatus>>,
    sinks: Vec<Arc<SinkStatus>>,
    sessions: HashMap<AgentId, CancellationToken>,
    seen: status::Seen,
    frame: Frame,
    /// The batches in `frame`.
    staged: Vec<Staged>,
    hold: Option<Hold>,
    /// When to tidy, if nothing is asked until then.
    tidy_at: Option<i64>,
    /// A segment was begun and no checkpoint has been written since.
    checkpoint_due: bool,
    /// The thread's, for the histogram of commits alone: nothing is decided by it.
    timer: Option<Clock>,
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
        let quarantine = Quarantine::open(disk, &quarantine_dir).map_err(|source| {
            tributary_journal::LogError::Io {
                doing: "opening",
                path: quarantine_dir,
                source,
            }
        })?;
        let (handle, requests) = KeeperHandle::new();
        let (durable, durable_receiver) = watch::channel(store.end());
        let status = Arc::clone(handle.status());
        status.set_end(store.end());
        status.set_damaged(recovered.damaged);
        let parts = KeeperParts {
            log: store.log(),
            reader: store.reader(),
            books: books.clone(),
            durable: durable_receiver,
            handle,
            recovered,
            unread: store.unread().to_vec(),
        };
        let keeper = Self {
            store,
            judge: Judge::new(ledger, books),
            quarantine,
            requests,
            taken: None,
            durable,
            status,
            lake: None,
            sinks: Vec::new(),
            sessions: HashMap::new(),
            seen: status::Seen::default(),
            frame: Frame::new(),
            staged: Vec::new(),
            hold: None,
            tidy_at: None,
            checkpoint_due: false,
            timer: None,
        };
        Ok((keeper, parts))
    }

    /// Segments go only once they are in this lake; without one they stay.
    pub fn follow(&mut self, lake: Arc<LakeStatus>) {
        self.lake = Some(lake);
    }

    /// Segments go only once they are in these sinks, too; where the journal has no room left,
    /// those that are not required do not count.
    pub fn feed(&mut self, sinks: Vec<Arc<SinkStatus>>) {
        self.sinks = sinks;
    }

    /// Runs on the calling thread until `stop`, then answers what waits and ends. Segments go only
    /// once they are in the lake.
    pub fn run(
        mut self,
        runtime: &tokio::runtime::Handle,
        lake: Arc<LakeStatus>,
        stop: &CancellationToken,
    ) {
        let clock = Clock::start();
        self.timer = Some(clock);
        self.follow(lake);
        loop {
            let until = self.turn(clock.told());
            if runtime.block_on(self.wait(clock, until, stop)).is_break() {
                return self.end(clock.told());
            }
        }
    }

    /// The only place where whoever runs the keeper waits: for a request, or for this time, which a
    /// [turn](Self::turn) said. Breaks when it is over. Cancel safe: a request stays in its channel
    /// until it is taken.
    pub async fn wait(
        &mut self,
        clock: Clock,
        until: i64,
        stop: &CancellationToken,
    ) -> ControlFlow<()> {
        let holds = self.hold.is_some();
        tokio::select! {
            biased;
            request = self.requests.recv(), if !holds => {
                self.taken = request;
                match self.taken {
                    Some(_) => ControlFlow::Continue(()),
                    None => ControlFlow::Break(()),
                }
            }
            () = stop.cancelled() => ControlFlow::Break(()),
            () = clock.sleep_until(until) => ControlFlow::Continue(()),
        }
    }

    fn open_session(
        &mut self,
        agent: AgentId,
        hello: &Hello,
        fence: CancellationToken,
        now: Now,
    ) -> Welcome {
        let mut announced: Vec<BufferId> = hello.lanes.iter().map(|lane| lane.key.buffer).collect();
        announced.dedup();
        let session = self.judge.ledger.open_session(&agent, &announced);
        self.declare_elsewhere(&agent, hello);
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
            takes_in_doubt: true,
        };
        self.seen.note(&agent, hello, now.wall_us);
        self.look_for_twins(&agent, hello, now);
        if let Some(older) = self.sessions.insert(agent, fence) {
            older.cancel();
        }
        welcome
    }

    /// Takes in what others hold. It is not in the journal: each session begins with it. An agent
    /// that knows of no others says nothing here, not even what it has trimmed: whatever is missing
    /// below that was lost. What it said before it has taken back.
    fn declare_elsewhere(&mut self, agent: &AgentId, hello: &Hello) {
        if hello.elsewhere.is_empty() {
            return self.judge.ledger.nothing_is_elsewhere(agent, hello);
        }
        let own = self.store.log();
        let left_out = self.judge.ledger.declare_elsewhere(agent, hello, own);
        if left_out > 0 {
            tracing::warn!(%agent, left_out, "of what other aggregators hold not all is kept: the \
                rest counts as missing here");
        }
    }

    /// Whether the agent fills a buffer that only a second machine, or an older disk, has.
    fn look_for_twins(&self, agent: &AgentId, hello: &Hello, now: Now) {
        let open = hello.lanes.iter().filter(|lane| lane.open);
        if let Some(buffer) = open.map(|lane| lane.key.buffer).max() {
            let other = self.judge.ledger.another_of_life(agent, buffer);
            self.status.fills(agent, (buffer, other), now.wall_us);
        }
    }

    fn report(&self) -> StatusReport {
        status::report(
            &self.judge.ledger,
            &self.judge.books,
            &self.seen,
            self.quarantine.files(),
            &self.status,
        )
    }
}

const _: () = assert!(COMMIT_BYTES_MAX < BATCHES_HELD_BYTES_MAX);
