//! Drives a run: sources, clients and the truth ledger, from the first connection to the summary.

use crate::client::{Client, ClientConfig, ClientEnd, Progress, Protocol, Qos, Routes, Source};
use crate::fault::{FaultConfig, Observer};
use crate::fleet::{self, Fleet, FleetConfig, FleetError};
use crate::limits::{CONNECTIONS_DEFAULT_MAX, CONNECTIONS_MAX, DRAIN_S_DEFAULT};
use crate::reading::{Counts, Series};
use crate::replay::{Replay, ReplayError};
use crate::truth::{Header, Source as TruthSource, TruthError, TruthSender, TruthWriter};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How a run speaks to its server, and where it writes its truth.
#[derive(Clone, Debug)]
pub struct Publishing {
    /// `host:port` of the MQTT server.
    pub mqtt: String,
    /// The version of MQTT.
    pub protocol: Protocol,
    /// Quality of service: 0, 1 or 2.
    pub qos: u8,
    /// First part of the client ids; the number of the connection follows.
    pub client_id: String,
    /// The truth ledger, if one is kept.
    pub truth: Option<PathBuf>,
    /// Whether each event is written there at once, for who wants to know what stood when.
    pub prompt_truth: bool,
    /// Whether readings say the device's numbers for them.
    pub numbered: bool,
    /// How long the end waits for outstanding acknowledgements.
    pub drain: Duration,
    /// Who is told of readings that have to do with faults when they are written, if anybody.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Publishing {
    /// MQTT 3.1.1 at QoS 1, without a truth ledger.
    pub fn to(mqtt: impl Into<String>) -> Self {
        Self {
            mqtt: mqtt.into(),
            protocol: Protocol::V311,
            qos: 1,
            client_id: "tributary-sim".to_owned(),
            truth: None,
            prompt_truth: false,
            numbered: true,
            drain: Duration::from_secs(DRAIN_S_DEFAULT),
            observer: None,
        }
    }
}

/// A run of a fleet.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// How it speaks.
    pub publishing: Publishing,
    /// How many sensors.
    pub sensors: u32,
    /// Readings a second of each.
    pub rate_hz: f64,
    /// How long they measure; until `stop` when `None`.
    pub duration: Option<Duration>,
    /// What they measure.
    pub seed: u64,
    /// Connections that they share; by their number when `None`.
    pub connections: Option<usize>,
    /// First level of the topics, without its number.
    pub site: String,
    /// When the fleet begins, in milliseconds since 1970; now when `None`. Given, two runs publish
    /// the same bytes, as far as no device was held up.
    pub started_ms: Option<i64>,
    /// Which faults the sensors have.
    pub faults: FaultConfig,
}

impl RunConfig {
    /// 1,000 sensors at 10 Hz below `plant-1/…`, until stopped.
    pub fn new(publishing: Publishing) -> Self {
        Self {
            publishing,
            sensors: 1_000,
            rate_hz: 10.0,
            duration: None,
            seed: 1,
            connections: None,
            site: "plant".to_owned(),
            started_ms: None,
            faults: FaultConfig::NONE,
        }
    }
}

impl RunConfig {
    fn fleet(&self, started_ms: i64) -> FleetConfig {
        FleetConfig {
            seed: self.seed,
            sensors: self.sensors,
            rate_hz: self.rate_hz,
            started_ms,
            site: self.site.clone(),
            faults: self.faults,
        }
    }

    /// The series that it publishes, by number.
    ///
    /// # Errors
    /// When a number of the configuration is out of range.
    pub fn series(&self) -> Result<Vec<Series>, FleetError> {
        fleet::series(&self.fleet(0))
    }
}

/// What a run has done.
#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
    /// Readings that were sent, and not acknowledged when the time was up. 0 at QoS 0.
    pub unacknowledged: u64,
    /// Readings that were measured, and not sent when the time was up.
    pub unsent: u64,
    /// Connections that were shared.
    pub connections: u64,
    /// Seconds from the beginning to the last acknowledgement or the end of the wait for it.
    pub elapsed_s: f64,
}

impl RunSummary {
    /// Whether all that was measured was also taken.
    pub fn is_complete(&self) -> bool {
        self.unacknowledged == 0 && self.unsent == 0 && self.counts.refused == 0
    }
}

/// Why a run did not take place or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The configuration is wrong.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The file cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A setting is out of range.
    #[error("{0}")]
    Setting(String),
    /// The truth ledger cannot be written.
    #[error(transparent)]
    Truth(#[from] TruthError),
    /// No connection was ever opened.
    #[error("no MQTT server was reached: {0}")]
    NeverConnected(String),
    /// A task of ours ended by a panic.
    #[error("a task of the run broke: {0}")]
    Broken(#[from] tokio::task::JoinError),
}

/// Runs a fleet until its duration is over or `stop` is cancelled, then waits for outstanding
/// acknowledgements, closes the truth ledger and sums up. `progress` can be read meanwhile.
///
/// # Errors
/// When a setting is out of range, no connection was ever opened, or the truth ledger cannot be
/// written.
pub async fn run(
    config: RunConfig,
    stop: CancellationToken,
    progress: Arc<Progress>,
) -> Result<RunSummary, SimError> {
    let fleet = config.fleet(config.started_ms.unwrap_or_else(now_ms));
    let series = fleet::series(&fleet)?;
    let connections = connections(&config)?;
    let parts = parts(config.sensors, connections)
        .map(|(first, end)| Fleet::part(&fleet, first, end))
        .collect::<Result<Vec<_>, _>>()?;
    let header = Header {
        source: TruthSource::Fleet,
        qos: config.publishing.qos,
        protocol: config.publishing.protocol.level(),
        numbered: config.publishing.numbered,
        seed: config.seed,
        started_ms: fleet.started_ms,
        rate_hz: config.rate_hz,
        sensors: config.sensors,
    };
    let limit = config.duration;
    drive(
        &config.publishing,
        &header,
        &series,
        parts,
        limit,
        stop,
        progress,
    )
    .await
}

/// Publishes a file that was [opened](Replay::open), then sums up like [`run`]. The second half of
/// `opened` is what the check found.
///
/// # Errors
/// As [`run`], and when the file changed after it was checked.
pub async fn replay(
    publishing: Publishing,
    opened: (Replay, crate::replay::Contents),
    stop: CancellationToken,
    progress: Arc<Progress>,
) -> Result<RunSummary, SimError> {
    let (replay, contents) = opened;
    let header = Header {
        source: TruthSource::Replay,
        qos: publishing.qos,
        protocol: publishing.protocol.level(),
        numbered: publishing.numbered,
        seed: 0,
        started_ms: now_ms(),
        rate_hz: replay.rate().unwrap_or(0.0),
        sensors: 0,
    };
    let expected = contents.readings;
    let stopped = stop.clone();
    let summary = drive(
        &publishing,
        &header,
        &contents.series,
        vec![replay],
        None,
        stop,
        progress,
    )
    .await?;
    let sent = summary.counts.published + summary.unsent;
    if sent < expected && !stopped.is_cancelled() {
        return Err(SimError::Setting(format!(
            "the file changed while it was replayed: {sent} of {expected} values were there"
        )));
    }
    Ok(summary)
}

async fn drive<S: Source>(
    publishing: &Publishing,
    header: &Header,
    series: &[Series],
    sources: Vec<S>,
    limit: Option<Duration>,
    stop: CancellationToken,
    progress: Arc<Progress>,
) -> Result<RunSummary, SimError> {
    let qos = check_publishing(publishing)?;
    let (truth, writing) = match &publishing.truth {
        None => (TruthSender::nowhere(), None),
        Some(path) => {
            let mut writer = TruthWriter::create(path, header)?;
            writer.name(series)?;
            let (sender, writing) = writer.spawn(publishing.prompt_truth);
            (sender, Some(writing))
        }
    };
    let config = ClientConfig {
        server: publishing.mqtt.clone(),
        protocol: publishing.protocol,
        qos,
        began: Instant::now(),
        drain: publishing.drain,
        observer: publishing.observer.clone(),
    };
    let (began, connections) = (config.began, sources.len() as u64);
    let routes = Routes::new(series, publishing.numbered);
    let stop = stop.child_token();
    let mut clients = JoinSet::new();
    for (number, source) in sources.into_iter().enumerate() {
        let id = format!("{}-{number}", publishing.client_id);
        let (routes, truth) = (routes.clone(), truth.clone());
        let (progress, stop) = (progress.clone(), stop.clone());
        let client = Client::new(config.clone(), id, source, routes, truth, progress, stop);
        clients.spawn(client.run());
    }
    drop(truth);
    let joined = join(clients, limit, &stop).await;
    let elapsed_s = began.elapsed().as_secs_f64();
    // The writer's own error says more than the clients' "it is gone".
    if let Some(writing) = writing {
        writing.await??;
    }
    let end = joined?;
    if progress.opened() == 0 {
        let why = progress
            .trouble()
            .unwrap_or_else(|| "the run ended before".to_owned());
        return Err(SimError::NeverConnected(why));
    }
    let counts = progress.counts();
    let ClientEnd {
        unacknowledged,
        unsent,
    } = end;
    Ok(RunSummary {
        counts,
        unacknowledged,
        unsent,
        connections,
        elapsed_s,
    })
}

/// Waits for all clients; stops them when the time is over or one of them cannot go on.
async fn join(
    mut clients: JoinSet<Result<ClientEnd, TruthError>>,
    limit: Option<Duration>,
    stop: &CancellationToken,
) -> Result<ClientEnd, SimError> {
    let over = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let mut over = std::pin::pin!(over);
    let mut sum = ClientEnd::default();
    let mut failed = None;
    loop {
        let joined = tokio::select! {
            joined = clients.join_next() => joined,
            () = &mut over, if !stop.is_cancelled() => {
                stop.cancel();
                continue;
            }
        };
        match joined {
            None => return failed.map_or(Ok(sum), Err),
            Some(Ok(Ok(end))) => {
                sum.unacknowledged += end.unacknowledged;
                sum.unsent += end.unsent;
            }
            Some(Ok(Err(error))) => {
                stop.cancel();
                failed = Some(SimError::Truth(error));
            }
            Some(Err(error)) => {
                stop.cancel();
                failed = Some(SimError::Broken(error));
            }
        }
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(0)
}

fn check_publishing(publishing: &Publishing) -> Result<Qos, SimError> {
    let server = &publishing.mqtt;
    let port = server.rsplit_once(':').and_then(|(host, port)| {
        port.parse::<u16>()
            .ok()
            .filter(|port| !host.is_empty() && *port != 0)
    });
    if port.is_none() {
        return Err(SimError::Setting(format!(
            "`{server}` is no MQTT server: expected HOST:PORT, as in 127.0.0.1:1883"
        )));
    }
    Qos::from_number(publishing.qos).ok_or_else(|| {
        let number = publishing.qos;
        SimError::Setting(format!("QoS {number}: choose 0, 1 or 2"))
    })
}

/// As told; else one for each of few sensors, one for 16 of many, and never more than the default.
fn connections(config: &RunConfig) -> Result<usize, SimError> {
    let sensors = config.sensors as usize;
    match config.connections {
        Some(count) if count == 0 || count > CONNECTIONS_MAX => Err(SimError::Setting(format!(
            "{count} connections: choose 1 to {CONNECTIONS_MAX}"
        ))),
        Some(count) => Ok(count.min(sensors)),
        None => Ok(sensors
            .min(64)
            .max(sensors.div_ceil(16))
            .min(CONNECTIONS_DEFAULT_MAX)),
    }
}

/// Contiguous ranges of sensors of nearly equal size, so that neighbours share a connection.
fn parts(sensors: u32, connections: usize) -> impl Iterator<Item = (u32, u32)> {
    let (sensors, connections) = (u64::from(sensors), connections as u64);
    let edge = move |i: u64| u32::try_from(i * sensors / connections).unwrap_or(u32::MAX);
    (0..connections).map(move |i| (edge(i), edge(i + 1)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn every_sensor_stands_in_exactly_one_part() {
        for (sensors, connections) in [(1, 1), (7, 3), (1_000, 64), (1_000_000, 256), (5, 5)] {
            let all: Vec<(u32, u32)> = parts(sensors, connections).collect();
            assert_eq!(all.len(), connections);
            assert!(all.iter().all(|(first, end)| first < end));
            assert!(all.windows(2).all(|pair| pair[0].1 == pair[1].0));
            assert_eq!((all[0].0, all.last().unwrap().1), (0, sensors));
        }
    }

    #[test]
    fn connections_are_shared_where_sensors_are_many() {
        let of = |sensors, connections| {
            let config = RunConfig {
                sensors,
                connections,
                ..RunConfig::new(Publishing::to("a:1"))
            };
            connections_or_zero(&config)
        };
        assert_eq!(of(3, None), 3);
        assert_eq!(of(1_000, None), 64);
        assert_eq!(of(100_000, None), 256);
        assert_eq!(of(10, Some(40)), 10);
        assert_eq!(of(10, Some(0)), 0);
    }

    fn connections_or_zero(config: &RunConfig) -> usize {
        connections(config).unwrap_or(0)
    }

    #[test]
    fn a_server_without_a_port_is_a_wrong_setting() {
        for bad in [
            "localhost",
            "localhost:",
            ":1883",
            "localhost:mqtt",
            "h:0",
            "h:70000",
        ] {
            assert!(check_publishing(&Publishing::to(bad)).is_err(), "{bad}");
        }
        assert!(check_publishing(&Publishing::to("[::1]:1883")).is_ok());
    }
}
