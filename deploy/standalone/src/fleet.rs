//! The demo's fleet, and who may end it: the clock, or a signal.

use crate::demo::DemoArguments;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tributary_sim::client::Progress;
use tributary_sim::sim::{self, Publishing, RunConfig, RunSummary, SimError};

/// SIGTERM and Ctrl-C.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes them over.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for either. Cancel safe.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The running fleet.
pub struct Fleet {
    running: JoinHandle<Result<RunSummary, SimError>>,
    /// What it has done so far.
    pub progress: Arc<Progress>,
    stop: CancellationToken,
}

impl Fleet {
    /// Starts it towards the agent at `mqtt`.
    #[allow(
        clippy::disallowed_methods,
        reason = "whoever has the fleet waits for it"
    )]
    pub fn start(arguments: &DemoArguments, mqtt: SocketAddr, truth: PathBuf) -> Self {
        let mut publishing = Publishing::to(mqtt.to_string());
        publishing.truth = Some(truth);
        publishing.qos = arguments.qos;
        let mut config = RunConfig::new(publishing);
        config.sensors = arguments.sensors;
        config.rate_hz = arguments.rate;
        config.duration = arguments.duration;
        config.seed = arguments.seed;
        let stop = CancellationToken::new();
        let progress = Arc::new(Progress::default());
        let running = tokio::spawn(sim::run(config, stop.clone(), Arc::clone(&progress)));
        Self {
            running,
            progress,
            stop,
        }
    }

    /// Waits until it has ended: after its time, or after [`stop`](Self::stop), and once everything
    /// is acknowledged or the wait for that is over. Cancel safe.
    pub async fn ended(&mut self) -> anyhow::Result<RunSummary> {
        Ok((&mut self.running).await??)
    }

    /// Nothing more is measured.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}
