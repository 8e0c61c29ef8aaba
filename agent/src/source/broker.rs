//! The user's own broker as a source: a subscription by rumqttc, with a persistent session, QoS 1,
//! and acknowledgements only for what is durable.
//!
//! Alerts go to it where it is configured: `outgoing` holds what it has not acknowledged.
//!
//! `subscriber` decides everything for one broker, and is told events, times and what is durable;
//! `task` owns the connection and decides nothing; `link` alone names rumqttc. What is promised
//! begins with the broker's delivery: what it keeps in memory only, it can lose.

mod acks;
pub(crate) mod filters;
mod known;
mod link;
mod outgoing;
mod retry;
mod status;
mod subscriber;
mod subscriptions;
mod task;
mod tls;

pub use status::BrokerStatus;
pub use tls::TlsError;

use super::hub::Hub;
use super::registry::Signal;
use crate::spool::RefuseNew;
use crate::wal::Queue;
use known::Store;
use outgoing::Outgoing;
use status::Counters;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use subscriber::Subscriber;
use subscriptions::Subscriptions;
use task::{Intake, Task};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tributary_journal::{CursorError, Disk};

/// Which versions of MQTT a source may speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// 5, and 3.1.1 with a broker that does not take it.
    Auto,
    /// 5 only.
    V5,
    /// 3.1.1 only.
    V4,
}

/// The version that a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    V5,
    V4,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Self::V5 => "5",
            Self::V4 => "3.1.1",
        }
    }
}

/// Files and names of TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// Who signs the broker's certificate.
    pub ca: PathBuf,
    /// The agent's certificate and its key, where the broker asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the broker's certificate must hold, if not the host.
    pub server_name: Option<String>,
}

/// One broker to subscribe to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerConfig {
    /// What metrics and logs call it.
    pub name: String,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Topic filters.
    pub topics: Vec<String>,
    /// Who the agent is there; made once and kept when left out.
    pub client_id: Option<String>,
    /// Which versions may be spoken.
    pub protocol: Protocol,
    /// User name.
    pub user: Option<String>,
    /// The file whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// TLS; none without.
    pub tls: Option<TlsFiles>,
    /// Seconds that the broker is asked to keep the session while the agent is away (MQTT 5).
    pub session_expiry_s: u32,
    /// Messages that the broker may send before the first of them is acknowledged (MQTT 5).
    pub receive_maximum: u16,
    /// Time between two pings.
    pub keep_alive: Duration,
    /// Bytes of the greatest packet.
    pub packet_bytes_max: u32,
    /// Whether the agent publishes its alerts there.
    pub alerts: bool,
}

impl BrokerConfig {
    /// Where the broker is, for people.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Looks at the files that a connection will read.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), CheckError> {
        if let Some(path) = &self.password_file {
            link::read_password(path).map_err(|why| CheckError::Password {
                path: path.clone(),
                why,
            })?;
        }
        if let Some(files) = &self.tls {
            tls::client_config(files)?;
        }
        Ok(())
    }
}

/// Why a source cannot connect.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The password cannot be read.
    #[error("password_file {}: {why}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Every broker that the agent subscribes to, not yet connected.
pub struct Brokers {
    tasks: Vec<Task>,
    stop: CancellationToken,
}

impl fmt::Debug for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.tasks.iter().map(|task| task.config.name.as_str());
        f.debug_list().entries(names).finish()
    }
}

impl Brokers {
    /// Makes ready for `configs`. Messages go to `queue`; what has to be known at the next start
    /// lies in `dir`.
    ///
    /// # Errors
    /// When `dir` cannot be read or written.
    pub fn open(
        configs: &[BrokerConfig],
        disk: &Arc<dyn Disk>,
        dir: &Path,
        queue: &Queue,
    ) -> Result<Self, CursorError> {
        let stop = CancellationToken::new();
        let mut tasks = Vec::new();
        if configs.is_empty() {
            return Ok(Self { tasks, stop });
        }
        let made = disk.create_dir_all(dir);
        made.map_err(|source| CursorError::Io {
            doing: "making the folder of",
            path: dir.to_owned(),
            source,
        })?;
        let identity = known::identity(disk, dir)?;
        for config in configs {
            let own = || known::client_id(identity, &config.name);
            let client_id = config.client_id.clone().unwrap_or_else(own);
            let address = config.address();
            let (store, known) = Store::open(disk, dir, &address, &client_id)?;
            let subscriptions =
                Subscriptions::new(config.topics.clone(), config.session_expiry_s, known);
            let now = tokio::time::Instant::now().into_std();
            let core = Subscriber::new(config, &client_id, subscriptions, now);
            let status = BrokerStatus {
                name: config.name.clone(),
                address,
                client_id: client_id.clone(),
                problem: core.problem().map(str::to_owned),
                ..BrokerStatus::default()
            };
            tasks.push(Task {
                config: config.clone(),
                client_id,
                core,
                store: Some(store),
                queue: queue.clone(),
                refuse: RefuseNew::default(),
                signal: Arc::new(Signal::default()),
                status: watch::Sender::new(status),
                counters: Counters::new(&config.name),
                intake: Intake::default(),
                stop: stop.clone(),
                untold: false,
                outgoing: Outgoing::default(),
            });
        }
        Ok(Self { tasks, stop })
    }

    /// The same, which leave with their brokers what the spool would refuse.
    pub fn refusing(mut self, refuse: &RefuseNew) -> Self {
        for task in &mut self.tasks {
            task.refuse = refuse.clone();
        }
        self
    }

    /// The same, which publish the alerts of `hub` where the configuration says so.
    pub fn publishing(mut self, hub: &Hub) -> Self {
        for task in &mut self.tasks {
            if task.config.alerts {
                task.outgoing = Outgoing::of(hub.alerts(task.signal.clone()));
            }
        }
        self
    }

    /// How each stands, in the order of the configuration.
    pub fn statuses(&self) -> Vec<watch::Receiver<BrokerStatus>> {
        let statuses = self.tasks.iter().map(|task| task.status.subscribe());
        statuses.collect()
    }

    /// Subscribes until `stop`; then takes nothing more, acknowledges what becomes durable, and
    /// returns when every connection has ended. Its caller bounds that wait, and ends the
    /// write-ahead log behind it. No state of a broker ends it.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        for task in self.tasks {
            tasks.spawn(task.run());
        }
        let ended = async {
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
        };
        let mut ended = std::pin::pin!(ended);
        tokio::select! {
            () = stop.cancelled() => {}
            () = &mut ended => return,
        }
        self.stop.cancel();
        ended.await;
    }
}
