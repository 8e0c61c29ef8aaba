//! The demo's fleet, and who may end it: the clock, or a signal.

use crate::alerts::{Alerts, Watch};
use crate::demo::DemoArguments;
use crate::limits::{FAULTS_AFTER, FAULTS_AFTER_READINGS};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tributary_sim::client::Progress;
use tributary_sim::fault::FaultConfig;
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

/// Which faults the fleet has.
fn faults(arguments: &DemoArguments) -> FaultConfig {
    let learning = Duration::try_from_secs_f64(FAULTS_AFTER_READINGS / arguments.rate);
    let after = FAULTS_AFTER.max(learning.unwrap_or(Duration::MAX));
    FaultConfig {
        per_minute: arguments.faults,
        after: arguments.faults_after.unwrap_or(after),
    }
}

/// The running fleet.
pub struct Fleet {
    running: JoinHandle<Result<RunSummary, SimError>>,
    /// What it has done so far.
    pub progress: Arc<Progress>,
    /// What the subscriber to alerts has seen.
    pub alerts: Arc<Watch>,
    stop: CancellationToken,
}

impl Fleet {
    /// Starts it towards the agent at `mqtt`, and the subscriber to the alerts about it.
    ///
    /// # Errors
    /// When a setting is out of range.
    #[allow(
        clippy::disallowed_methods,
        reason = "whoever has the fleet waits for it"
    )]
    pub fn start(
        arguments: &DemoArguments,
        mqtt: SocketAddr,
        truth: PathBuf,
    ) -> anyhow::Result<(Self, Alerts)> {
        let mut publishing = Publishing::to(mqtt.to_string());
        publishing.truth = Some(truth);
        publishing.qos = arguments.qos;
        let mut config = RunConfig::new(publishing);
        config.sensors = arguments.sensors;
        config.rate_hz = arguments.rate;
        config.duration = arguments.duration;
        config.seed = arguments.seed;
        config.faults = faults(arguments);
        let started_ms = config.started_ms.get_or_insert_with(sim::now_ms);
        let started_us = started_ms.saturating_mul(1_000);
        let alerts = Alerts::start(mqtt, &config.series()?, started_us);
        config.publishing.observer = Some(alerts.watch.clone());
        let stop = CancellationToken::new();
        let progress = Arc::new(Progress::default());
        let running = tokio::spawn(sim::run(config, stop.clone(), Arc::clone(&progress)));
        let fleet = Self {
            running,
            progress,
            alerts: Arc::clone(&alerts.watch),
            stop,
        };
        Ok((fleet, alerts))
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
