//! The aggregator as one thing: start it, ask it, stop it.
//!
//! It ends in the order in which a batch travels: ingest stops accepting and says goodbye, the
//! keeper answers what waits, the lake writes what is durable, HTTP goes last.

use crate::clock::Clock;
use crate::config::Config;
use crate::fanout::SinkStatus;
use crate::fanout::fed::Fed;
use crate::http::{self, Sources};
use crate::ingest::Ingest;
use crate::ingest::endpoint::{EndpointError, endpoint};
use crate::keeper::{Keeper, KeeperConfig, KeeperHandle, KeeperParts, KeeperStatus, StoreError};
use crate::lake::source::JournalFeed;
use crate::lake::{Lake, LakeConfig, LakeError, LakeHandle, LakeStatus};
use crate::limits::DRAIN_SECONDS_MAX;
use crate::restore::READY;
use crate::stopped::{lake_fits, lake_store};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tributary_journal::{DirLock, Disk, LockError, OsDisk};
use tributary_protocol::ids::LogId;

/// Why the aggregator does not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum AggregatorError {
    /// The data directory is somebody else's.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Journal and ledger do not open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lake does not open, or its last flush failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The lake's folder cannot be used.
    #[error("the lake's folder {}: {reason}", path.display())]
    LakeFolder {
        /// The folder.
        path: std::path::PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The journal is new, and the lake is not.
    #[error(
        "the journal is empty, and journal {other} wrote the lake in {}: agents that send again \
         what it has would fill it twice; put that journal back from a copy, or let \
         `tributary-aggregator restore` begin one that knows what the lake has",
        dir.display()
    )]
    AnotherLog {
        /// The lake's folder.
        dir: std::path::PathBuf,
        /// The journal that wrote it.
        other: LogId,
    },
    /// A restore was interrupted.
    #[error(
        "{} is there: a restore was interrupted; run `tributary-aggregator restore` again, it \
         goes on",
        dir.display()
    )]
    Unrestored {
        /// Its folder.
        dir: std::path::PathBuf,
    },
    /// The uplink does not listen.
    #[error(transparent)]
    Uplink(#[from] EndpointError),
    /// The HTTP address is taken.
    #[error(
        "HTTP address {addr} is in use: stop what listens there, or set another one as `address` \
         under [http] (port 0 takes a free one)"
    )]
    HttpInUse {
        /// The address.
        addr: SocketAddr,
    },
    /// The HTTP address cannot be listened on.
    #[error("cannot listen on HTTP address {addr}: {source}")]
    Http {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A thread or a random number could not be had.
    #[error("the system refuses {0}")]
    System(&'static str),
    /// A stage ended by a panic, or not in time.
    #[error(
        "the aggregator's {0} did not end as it should; what was acknowledged is in the journal"
    )]
    Stage(&'static str),
}

/// A running aggregator. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Running {
    uplink_addr: SocketAddr,
    http_addr: SocketAddr,
    log: LogId,
    keeper: KeeperHandle,
    lake: LakeHandle,
    sources: Sources,
    stop: CancellationToken,
    stages: Stages,
}

/// What has to end, in this order.
#[derive(Debug)]
struct Stages {
    ingest: JoinSet<()>,
    keeper_stop: CancellationToken,
    keeper: Option<JoinHandle<()>>,
    lake_stop: CancellationToken,
    lake: Option<JoinHandle<Result<u64, LakeError>>>,
    sinks: Fed,
    http_stop: CancellationToken,
    http: JoinSet<io::Result<()>>,
}

impl Drop for Stages {
    fn drop(&mut self) {
        self.keeper_stop.cancel();
        self.lake_stop.cancel();
        self.http_stop.cancel();
    }
}

/// That no restore is half done.
///
/// # Errors
/// [`AggregatorError::Unrestored`].
pub(crate) fn whole_journal(data_dir: &Path) -> Result<(), AggregatorError> {
    let dir = data_dir.join(READY);
    match dir.exists() {
        true => Err(AggregatorError::Unrestored { dir }),
        false => Ok(()),
    }
}

/// A new life for an empty journal: later ones sort behind earlier ones.
pub(crate) fn new_log() -> Result<LogId, AggregatorError> {
    let mut random = [0; 8];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| AggregatorError::System("random numbers"))?;
    let life = u128::from(crate::clock::wall_us().unsigned_abs()) << 64;
    Ok(LogId(
        (life | u128::from(u64::from_le_bytes(random))).to_be_bytes(),
    ))
}

async fn bind_http(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), AggregatorError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => AggregatorError::HttpInUse { addr },
        _ => AggregatorError::Http { addr, source },
    };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Opens the lake; the keeper learns what the lake has and its journal lost.
async fn open_lake(
    config: &Config,
    (keeper, parts): (&mut Keeper, &KeeperParts),
    handle: &LakeHandle,
) -> Result<Lake, AggregatorError> {
    let store = lake_store(config, parts.log)?;
    lake_fits(config, &store, parts).await?;
    let found = store.find(&parts.unread).await?;
    keeper.take_in(found).map_err(StoreError::from)?;
    let feed = JournalFeed::new(parts.reader.clone(), parts.log);
    let lake_config = LakeConfig {
        flush_interval: config.flush_interval,
    };
    let names = Box::new(parts.books.clone());
    Ok(Lake::open(lake_config, store, Box::new(feed), names, handle).await?)
}

/// A thread that owns the data directory as long as it runs, so that nobody else opens it while
/// something is still written.
fn thread<T: Send + 'static>(
    name: &'static str,
    lock: Arc<DirLock>,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, AggregatorError> {
    let run = move || {
        let _lock = lock;
        run()
    };
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|_| AggregatorError::System("a thread"))
}

fn open_keeper(config: &Config) -> Result<(Keeper, KeeperParts), AggregatorError> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let keeper_config = KeeperConfig {
        dir: config.data_dir.clone(),
        journal: config.journal(),
        new_log: new_log()?,
    };
    let (keeper, parts) = Keeper::open(&disk, &keeper_config)?;
    tracing::info!(log = %parts.log, recovered = ?parts.recovered, "journal and ledger are open");
    Ok((keeper, parts))
}

/// Starts the aggregator; it runs until `stop`, or until it is [shut down](Running::shut_down).
///
/// # Errors
/// What does not open, where, and what to do; nothing runs then.
pub async fn start(config: Config, stop: CancellationToken) -> Result<Running, AggregatorError> {
    let metrics = http::recorder();
    // Ports first: who asks for a port that is taken learns it before anything is touched.
    let (listener, http_addr) = bind_http(config.http).await?;
    let endpoint = endpoint(config.uplink, &config.tls)?;
    let uplink_addr = endpoint
        .local_addr()
        .map_err(|source| EndpointError::Bind {
            addr: config.uplink,
            source,
        })?;
    let lock = Arc::new(DirLock::acquire(&config.data_dir)?);
    whole_journal(&config.data_dir)?;
    let (mut keeper, parts) = open_keeper(&config)?;
    let (lake_handle, requests) = LakeHandle::new();
    let lake = open_lake(&config, (&mut keeper, &parts), &lake_handle).await?;

    let sinks = Fed::start(&config.sinks, &parts, |run| {
        thread("sink", Arc::clone(&lock), run)
    })?;
    keeper.feed(sinks.statuses().to_vec());
    let lake_stop = CancellationToken::new();
    let runtime = tokio::runtime::Handle::current();
    let lake_thread = {
        let (runtime, stop, durable) = (runtime.clone(), lake_stop.clone(), parts.durable.clone());
        let run = move || runtime.block_on(lake.run(durable, requests, stop));
        thread("lake", Arc::clone(&lock), run)?
    };
    let keeper_stop = CancellationToken::new();
    let keeper_thread = {
        let (stop, lake) = (keeper_stop.clone(), Arc::clone(lake_handle.status()));
        thread("keeper", lock, move || keeper.run(&runtime, lake, &stop))?
    };
    let sources = Sources {
        log: parts.log,
        keeper: parts.handle.clone(),
        lake: Arc::clone(lake_handle.status()),
        sinks: sinks.statuses().to_vec(),
        clock: Clock::start(),
        metrics,
        stop: stop.clone(),
    };
    let http_stop = CancellationToken::new();
    let mut http = JoinSet::new();
    http.spawn(http::serve(listener, sources.clone(), http_stop.clone()));
    let mut ingest = JoinSet::new();
    let accept = Ingest::new(parts.handle.clone(), &config.trust_domain, stop.clone());
    ingest.spawn(accept.run(endpoint));
    tracing::info!(%uplink_addr, %http_addr, "the aggregator listens");
    Ok(Running {
        uplink_addr,
        http_addr,
        log: parts.log,
        keeper: parts.handle,
        lake: lake_handle,
        sources,
        stop,
        stages: Stages {
            ingest,
            keeper_stop,
            keeper: Some(keeper_thread),
            lake_stop,
            lake: Some(lake_thread),
            sinks,
            http_stop,
            http,
        },
    })
}

impl Running {
    /// Where agents connect.
    pub fn uplink_addr(&self) -> SocketAddr {
        self.uplink_addr
    }

    /// Where HTTP listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The life of the journal: part of the lake's file names.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// What was accepted since the start.
    pub fn keeper(&self) -> &Arc<KeeperStatus> {
        self.keeper.status()
    }

    /// The way to the keeper, to ask it.
    pub fn handle(&self) -> &KeeperHandle {
        &self.keeper
    }

    /// What was written into the lake since the start.
    pub fn lake(&self) -> &Arc<LakeStatus> {
        self.lake.status()
    }

    /// What was written into the other sinks since the start.
    pub fn sinks(&self) -> &[Arc<SinkStatus>] {
        self.stages.sinks.statuses()
    }

    /// The routes of the HTTP side, for whoever serves them elsewhere too.
    pub fn router(&self) -> axum::Router {
        http::router(self.sources.clone())
    }

    /// Writes everything that is durable into the lake; the position that it has reached.
    ///
    /// # Errors
    /// Why it could not be written.
    pub async fn flush(&self) -> Result<u64, String> {
        self.lake.flush().await
    }

    /// Waits until `stop`, then ends everything in order: what was acknowledged is in the lake.
    ///
    /// # Errors
    /// When the last flush failed, or a stage did not end: the journal has it all the same.
    pub async fn stopped(self) -> Result<(), AggregatorError> {
        self.stop.cancelled().await;
        self.shut_down().await
    }

    /// Ends everything in order.
    ///
    /// # Errors
    /// As [`stopped`](Self::stopped).
    pub async fn shut_down(mut self) -> Result<(), AggregatorError> {
        self.stop.cancel();
        let limit = Duration::from_secs(DRAIN_SECONDS_MAX);
        let drained = tokio::time::timeout(limit, self.stages.end()).await;
        drained.map_err(|_| AggregatorError::Stage("drain"))?
    }
}

impl Stages {
    async fn end(&mut self) -> Result<(), AggregatorError> {
        while self.ingest.join_next().await.is_some() {}
        self.keeper_stop.cancel();
        if let Some(thread) = self.keeper.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                return Err(AggregatorError::Stage("keeper"));
            }
        }
        self.lake_stop.cancel();
        let flushed = match self.lake.take() {
            None => Ok(()),
            Some(thread) => match tokio::task::spawn_blocking(move || thread.join()).await {
                Ok(Ok(flushed)) => flushed.map(|_| ()).map_err(AggregatorError::Lake),
                _ => Err(AggregatorError::Stage("lake")),
            },
        };
        if !self.sinks.end().await {
            return Err(AggregatorError::Stage("sinks"));
        }
        self.http_stop.cancel();
        while self.http.join_next().await.is_some() {}
        flushed
    }
}
