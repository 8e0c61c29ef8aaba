//! The agent, top to bottom in the order a reading travels: the sources, the write-ahead log with
//! the judging stage beside it, the sealing stage, the uplink. It ends in the same order: the
//! sources stop, and each queue closes behind them.

mod answers;
mod beside;
mod clock;
mod forward;
pub(crate) mod guard;
pub(crate) mod judging;
mod kernel;
pub(crate) mod publish;
pub(crate) mod sealing;
pub(crate) mod storage;

use crate::catalogue::LatestView;
use crate::config::Config;
use crate::configuration;
use crate::control::Desk;
use crate::deadletter::{self, put_back::Putter};
use crate::decode::Rules;
use crate::detect;
use crate::forward::{Forward, ForwardRules};
use crate::judge::{self, KernelClock, Rejudge, Watchers};
use crate::limits;
use crate::seal::{JudgeWriter, Origin, Pause, SealConfig, SealStage, Sleep, StageError, Waits};
use crate::source::hub::Publisher;
use crate::source::{
    BrokerConfig, BrokerStatus, Brokers, Hub, Listener, ListenerConfig, ListenerError, Reload,
    Sessions,
};
use crate::spool::{self, RefuseNew, SpoolConfig};
use crate::wal::{Queue, Replay, StorageState, Wal, WalError};
use beside::{answer_commands, give_up_after};
use clock::Clock;
use forward::forward;
use judging::deciding::JudgingCore;
use sealing::Sealing;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use storage::Storage;
#[cfg(test)]
pub(crate) use storage::greatest_life_seen;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use tributary_journal::{
    CheckpointError, CommitPolicy, CursorError, DirLock, Disk, LifeId, LockError, LogError,
    LogReader, OsDisk, Wear,
};
use tributary_uplink::{Status, UplinkConfig};

/// Everything that a running agent has to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where everything durable lies.
    pub data_dir: PathBuf,
    /// What people call this agent; a part of what its alerts are named by.
    pub name: String,
    /// The MQTT listener.
    pub listener: ListenerConfig,
    /// How messages are read.
    pub rules: Arc<Rules>,
    /// The brokers to subscribe to.
    pub brokers: Vec<BrokerConfig>,
    /// When frames of the write-ahead log close.
    pub wal: CommitPolicy,
    /// Bytes that the write-ahead log may take.
    pub wal_quota_bytes: u64,
    /// What judges readings.
    pub detect: detect::Settings,
    /// Which readings leave as they are.
    pub forward: Arc<ForwardRules>,
    /// What sealed readings may take, and what gives way; and how many bytes of the file system
    /// are left free.
    pub spool: SpoolConfig,
    /// How long a first reading waits until its batch is sealed.
    pub seal_delay: Duration,
    /// The way to the aggregator; without one, everything stays in the spool.
    pub uplink: Option<UplinkConfig>,
    /// How long what another aggregator may hold waits for it, in microseconds.
    pub failover_hold_us: i64,
    /// How long what is left may take to go out once it is told to stop.
    pub drain_deadline: Duration,
}

impl Settings {
    /// The settings that a configuration asks for.
    pub fn from_config(config: &Config) -> Self {
        Self {
            data_dir: config.agent.data_dir.clone(),
            name: config.agent.name.clone(),
            listener: config.listener.clone(),
            rules: Arc::clone(&config.decode),
            brokers: config.brokers.clone(),
            wal: config.wal.commit_policy(),
            wal_quota_bytes: config.wal.quota_bytes,
            detect: config.detect.clone(),
            forward: Arc::clone(&config.forward),
            spool: SpoolConfig {
                telemetry: config.spool.telemetry,
                events: config.spool.events,
                alerts: config.spool.alerts,
                aggregates: config.spool.aggregates,
                reserve_bytes: config.agent.reserve_bytes,
            },
            seal_delay: config.spool.seal_delay,
            uplink: config
                .uplink
                .config(&config.agent.name, limits::DRAIN_DEADLINE),
            failover_hold_us: config.uplink.failover_hold_us,
            drain_deadline: limits::DRAIN_DEADLINE,
        }
    }
}

/// Why an agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the data directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The data directory can't be made.
    #[error("data directory {}: {source}", path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A log can't be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The dead letters can't be opened.
    #[error(transparent)]
    DeadLetters(#[from] deadletter::OpenError),
    /// The spool can't be opened.
    #[error(transparent)]
    Spool(#[from] spool::OpenError),
    /// The life's counter can't be kept.
    #[error(transparent)]
    Life(#[from] CursorError),
    /// The decoding rules can't be kept.
    #[error(transparent)]
    Configuration(#[from] configuration::KeepError),
    /// Checkpoints can't be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The listener can't be bound.
    #[error(transparent)]
    Listener(#[from] ListenerError),
    /// The write-ahead log's thread can't be started.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The system gives no thread.
    #[error("no thread for {what}: {source}")]
    Thread {
        /// For what.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// Why an agent ended otherwise than it was told to.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The sealing stage broke.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The log could not be replayed.
    #[error("replaying the write-ahead log: {0}")]
    Replay(#[from] LogError),
    /// A stage panicked.
    #[error("{0} ended by a panic: a broken invariant; what is durable is kept")]
    Panic(&'static str),
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// Where clients connect: without TLS where they can, and otherwise with it.
    pub mqtt: SocketAddr,
    /// How each subscription to a broker stands.
    pub brokers: Vec<watch::Receiver<BrokerStatus>>,
    /// Where clients connect with TLS, if they can.
    pub mqtt_tls: Option<SocketAddr>,
    /// What has users and certificates read again.
    pub reload: Reload,
    /// What has readings judged by other settings.
    pub rejudge: Rejudge,
    /// What is asked which series are watched.
    pub watchers: Watchers,
    /// How the uplink stands.
    pub uplink: watch::Receiver<Status>,
    /// Whether messages can be made durable.
    pub storage: watch::Receiver<StorageState>,
    /// What sealed readings wait for.
    pub waits: watch::Receiver<Waits>,
    /// What the budget of writes does to the delay of commits.
    pub wear: watch::Receiver<Wear>,
    /// The newest value of each series.
    pub latest: LatestView,
    /// Where the agent publishes for its clients, and the user's brokers.
    pub hub: Hub,
    stages: JoinSet<Ended>,
    /// Ends all of them.
    stop: CancellationToken,
    wal: JoinHandle<()>,
    /// One owner for the data directory, until the last stage is over.
    lock: DirLock,
}

/// How one stage ended.
enum Ended {
    Listener,
    Deadline,
    Judging,
    Publishing,
    Keeping,
    Sealing(Result<(), PipelineError>),
    Uplink { drained: bool },
    Control,
}

/// How an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Whether everything was acknowledged by the aggregator; the rest stays in the spool.
    pub drained: bool,
}

/// Opens the agent's storage, and starts every stage. The listener takes messages at once; what
/// the log held before is replayed ahead of them.
///
/// # Errors
/// See [`StartError`].
pub async fn start(settings: Settings, stop: CancellationToken) -> Result<Agent, StartError> {
    let data_dir = settings.data_dir.clone();
    std::fs::create_dir_all(&data_dir).map_err(|source| StartError::DataDir {
        path: data_dir.clone(),
        source,
    })?;
    let lock = DirLock::acquire(&data_dir)?;
    crate::source::raise_open_files();
    let storage = Storage::open(&settings)?;
    Box::pin(start_stages(settings, storage, lock, stop)).await
}

/// Where clients connect, and where they do so with TLS.
fn addresses(listener: &Listener) -> Result<(SocketAddr, Option<SocketAddr>), StartError> {
    let unknown = |source| StartError::Thread {
        what: "the listener's address",
        source,
    };
    let either = listener.local_address().map_err(unknown)?;
    Ok((either, listener.tls_address().map_err(unknown)?))
}

async fn start_stages(
    settings: Settings,
    storage: Storage,
    lock: DirLock,
    stop: CancellationToken,
) -> Result<Agent, StartError> {
    let latest = storage.stores.catalogue.view();
    let deadline = settings.drain_deadline;
    let (sealed, sealed_in) = mpsc::channel(tributary_uplink::limits::SEALED_QUEUE);
    let pause = Arc::new(Sleep::default());
    let waiting: Arc<dyn Pause> = pause.clone();
    let (config, stores) = (seal_config(&settings, &storage, waiting), storage.stores);
    let (refuse, letters) = (stores.spool.refuse_new(), stores.dead.reader().clone());
    // What is replayed ends here, before anything of this life is in the log.
    let kernel = kernel::ask();
    let judging = JudgingCore::new(storage.judge, kernel, &stores, &config);
    let stage = SealStage::new(&config, stores, sealed);
    let replay = replay(&storage.wal_reader, stage.position());
    let wal = Wal::start_metered(storage.wal, settings.wal, storage.meter)?;
    let tap = wal.queue.tap();
    let sessions = Sessions::new();
    // The first records of this life, before any message: their texts are durable.
    let wall = Clock::new().now().wall;
    announce(&wal.queue, (&settings, &config), (kernel, wall));
    let hub = publish::begin(&settings.name);
    let sources = open_sources(&settings, &wal.queue, &sessions, &refuse, &hub).await?;
    let (mqtt, mqtt_tls) = addresses(&sources.0)?;
    let (reload, brokers) = (sources.0.reload(), sources.1.statuses());
    let rejudge = Rejudge::new(wal.queue.clone());
    let (status, status_out) = watch::channel(Status::of(&storage.sender));
    let putter = Putter::new(letters, wal.queue.clone(), stage.put_back()).refusing(refuse);
    let (waits, mut stages) = (stage.waits(), JoinSet::new());
    let (watchers, asked) = Watchers::new();
    let told = (
        publish::said(hand_out(&mut stages, &hub)),
        guard::file(&settings.data_dir),
        asked,
    );
    let judged = judging::start(judging, &mut stages, tap, &wal.queue, told);
    // Ends the sources when the agent is told to stop, or can't go on.
    let listening = stop.child_token();
    let desk = Desk::new(&hub, &wal.queue, &watchers, &status_out);
    answer_commands(&mut stages, &settings.data_dir, (putter, desk), &stop);
    stages.spawn(listen(sources, wal.queue, listening.clone(), deadline));
    stages.spawn(give_up_after(stop.clone(), deadline, pause));
    let sealing = Sealing::new((stage, replay), (wal.committed, judged), sessions);
    stages.spawn_blocking(move || sealing.run_to_end(&storage.damage, &listening));
    // Ends behind the sealing stage, with the last checkpoint of what is judged.
    stages.spawn_blocking(move || keep(storage.writer));
    let (sender, reader) = (held_for(storage.sender, &settings), storage.reader);
    stages.spawn(forward(settings.uplink, sender, reader, sealed_in, status));
    Ok(Agent {
        mqtt,
        brokers,
        mqtt_tls,
        reload,
        rejudge,
        watchers,
        uplink: status_out,
        storage: wal.state,
        waits,
        wear: wal.wear,
        latest,
        hub,
        stages,
        stop,
        wal: wal.thread,
        lock,
    })
}

/// A sender that keeps what may be at one aggregator from the others for as long as is configured.
fn held_for(
    mut sender: tributary_protocol::session::Sender,
    settings: &Settings,
) -> tributary_protocol::session::Sender {
    sender.hold_for(settings.failover_hold_us);
    sender
}

/// What the log of a life begins with.
pub(crate) fn announce(
    queue: &Queue,
    (settings, config): (&Settings, &SealConfig),
    (kernel, wall): (KernelClock, i64),
) {
    configuration::announce(queue, settings.rules.hash());
    let told = judge::announce(queue, &settings.detect);
    // Windows are those that the log says.
    let told = told && crate::forward::announce(queue, &config.forward);
    debug_assert!(told, "nothing else was handed to the queue");
    judge::begin(queue, wall, kernel);
}

/// Hands out what the judging stage publishes, on a thread that ends behind that stage.
fn hand_out(stages: &mut JoinSet<Ended>, hub: &Hub) -> Publisher {
    let (publisher, dispatch) = hub.publisher();
    stages.spawn_blocking(move || {
        dispatch.run(publish::handed_out());
        Ended::Publishing
    });
    publisher
}

fn keep(writer: Option<JudgeWriter>) -> Ended {
    if let Some(writer) = writer {
        writer.run();
    }
    Ended::Keeping
}

/// What the log holds from here on.
pub(crate) fn replay(wal: &LogReader, from: Option<Origin>) -> Replay {
    let from = from.map(|origin| (LifeId(origin.buffer.0), origin.number));
    Replay::new(wal.clone(), from)
}

/// The sources, both of which publish what `hub` is told, and neither of which takes what the spool
/// refuses. Nothing comes in before they [run](listen).
async fn open_sources(
    settings: &Settings,
    queue: &Queue,
    sessions: &Sessions,
    refuse: &RefuseNew,
    hub: &Hub,
) -> Result<(Listener, Brokers), StartError> {
    let listener = Listener::bind(&settings.listener, queue.clone()).await?;
    let listener = listener.with_sessions(sessions.clone());
    let listener = listener.refusing(refuse.clone()).publishing(hub.clone());
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let dir = settings.data_dir.join("broker");
    let brokers = Brokers::open(&settings.brokers, &disk, &dir, queue)?;
    Ok((listener, brokers.refusing(refuse).publishing(hub)))
}

pub(crate) fn seal_config(
    settings: &Settings,
    storage: &Storage,
    pause: Arc<dyn Pause>,
) -> SealConfig {
    // Where nothing is judged, no window stands for a reading: all leave as they are.
    let forward = match &storage.judge {
        Some(_) => Forward::new(&settings.forward, &settings.detect),
        None => Forward::default(),
    };
    SealConfig {
        present: storage.present,
        delay_us: i64::try_from(settings.seal_delay.as_micros()).unwrap_or(i64::MAX),
        checkpoint_bytes_max: storage.sizes.checkpoint_bytes_max,
        wal_quota_bytes: settings.wal_quota_bytes,
        pause,
        rules: Arc::clone(&settings.rules),
        forward,
    }
}

/// Serves MQTT and subscribes to brokers until `stop`, and then closes the log's queue behind the
/// last connection.
async fn listen(
    (listener, brokers): (Listener, Brokers),
    queue: Queue,
    stop: CancellationToken,
    drain_deadline: Duration,
) -> Ended {
    let deadline = async {
        stop.cancelled().await;
        tokio::time::sleep(drain_deadline).await;
    };
    let serving = async { tokio::join!(listener.run(stop.clone()), brokers.run(stop.clone())) };
    tokio::select! {
        ((), ()) = serving => {}
        () = deadline => info!("connections that did not end in time are dropped"),
    }
    queue.close();
    Ended::Listener
}

impl Agent {
    /// Waits until every stage is over: after `stop`, once everything is sealed and acknowledged,
    /// or the drain's deadline is over. A stage that panics ends the others as `stop` does: nothing
    /// stays up that takes nothing.
    ///
    /// # Errors
    /// When a stage broke. What is durable is kept, and found again at the next start.
    pub async fn join(mut self) -> Result<Summary, PipelineError> {
        let mut summary = Summary { drained: false };
        let mut failed = None;
        let mut open = 4;
        while open > 0
            && let Some(ended) = self.stages.join_next().await
        {
            open -= usize::from(matches!(
                ended,
                Ok(Ended::Listener | Ended::Keeping | Ended::Sealing(_) | Ended::Uplink { .. })
            ));
            match ended {
                Ok(Ended::Control | Ended::Judging | Ended::Publishing | Ended::Keeping) => {}
                Ok(Ended::Deadline) => info!("the time to drain is over"),
                Ok(Ended::Listener) => info!("listener closed"),
                Ok(Ended::Sealing(Ok(()))) => info!("everything is sealed"),
                Ok(Ended::Sealing(Err(error))) => {
                    error!(%error, "the sealing stage broke");
                    failed = Some(error);
                }
                Ok(Ended::Uplink { drained }) => summary.drained = drained,
                // Which one it was is not known: all are waited for.
                Err(error) => {
                    error!(%error, "a stage ended by a panic: the agent ends");
                    failed = Some(PipelineError::Panic("a stage"));
                    self.stop.cancel();
                }
            }
        }
        // It ended when its queue closed, or when nobody took its frames any more.
        drop(self.stages);
        let wal = self.wal;
        let joined = tokio::task::spawn_blocking(move || wal.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            failed = Some(PipelineError::Panic("the write-ahead log"));
        }
        drop(self.lock);
        failed.map_or(Ok(summary), Err)
    }
}

/// Where an agent keeps its files when nothing is configured.
pub fn default_data_dir() -> &'static Path {
    Path::new("/var/lib/tributary-agent")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
