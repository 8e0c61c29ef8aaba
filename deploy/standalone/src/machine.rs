//! Agent and aggregator of one machine, started in one process: the agent's uplink goes over
//! loopback QUIC with certificates of the machine's own authority.

use crate::limits::{DRAIN_DEADLINE, PORTS, SEAL_DELAY, SPOOL_QUOTA_BYTES, WAL_QUOTA_BYTES};
use crate::settings::Settings;
use anyhow::Context;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_util::sync::CancellationToken;
use tributary_agent::config::UplinkSettings;
use tributary_agent::pipeline::{self, Agent, StartError};
use tributary_agent::source::{ListenerConfig, ListenerError};
use tributary_agent::spool::SpoolConfig;
use tributary_aggregator::{AggregatorError, Config, Running, TlsFiles};
use tributary_uplink::authority::{self, AuthorityFiles};
use tributary_uplink::{Identity, Others, Target, UplinkConfig};

/// A running machine.
pub struct Machine {
    /// The agent.
    pub agent: Agent,
    /// The aggregator.
    pub aggregator: Running,
    agent_stop: CancellationToken,
}

/// Where the lake of a data directory is.
pub fn lake_dir(settings: &Settings) -> PathBuf {
    settings.data_dir.join("lake")
}

/// An address that nobody listens on, TCP or UDP, and that the system gives to no client: it stays
/// free while the process that has it is down. Each call gives another one.
pub fn free_address(ip: IpAddr) -> std::io::Result<SocketAddr> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let width = u32::from(PORTS.end - PORTS.start);
    // Demos at the same time begin at different places, far from each other.
    let first = std::process::id().wrapping_mul(2_654_435_761) >> 8;
    for _ in 0..width {
        let place = first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % width;
        let port = u32::from(PORTS.start) + place;
        let address = SocketAddr::new(ip, u16::try_from(port).unwrap_or(PORTS.start));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(ErrorKind::AddrNotAvailable.into())
}

/// Starts both.
pub async fn start(settings: &Settings) -> anyhow::Result<Machine> {
    let data_dir = &settings.data_dir;
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("data directory {}", data_dir.display()))?;
    // Before anything that counts: the agent looks its counters up once.
    tributary_aggregator::http::recorder();
    tributary_agent::measured::describe();
    let files = authority::open_or_create(&data_dir.join("pki"))?;
    // Asked for before anything is opened, so that a port in use costs nothing.
    drop(
        TcpListener::bind(settings.console).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => in_use("HTTP", settings.console, "--console"),
            _ => anyhow::Error::new(error).context(format!("HTTP on {}", settings.console)),
        })?,
    );
    // The agent first: who finds the console ready finds MQTT, too.
    let uplink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    let uplink = uplink.context("no free port for the uplink")?;
    let agent_stop = CancellationToken::new();
    let agent = start_agent(settings, &files, uplink, agent_stop.clone()).await?;
    let aggregator = start_aggregator(settings, &files, uplink).await?;
    Ok(Machine {
        agent,
        aggregator,
        agent_stop,
    })
}

/// Starts the aggregator alone, listening for the agent at `uplink`.
pub async fn start_aggregator(
    settings: &Settings,
    files: &AuthorityFiles,
    uplink: SocketAddr,
) -> anyhow::Result<Running> {
    let tls = TlsFiles {
        ca: files.ca.clone(),
        cert: files.aggregator_certificate.clone(),
        key: files.aggregator_key.clone(),
    };
    let mut config = Config::new(settings.data_dir.clone(), tls);
    config.uplink = uplink;
    config.trust_domain = authority::TRUST_DOMAIN.to_owned();
    config.http = settings.console;
    match tributary_aggregator::start(config, CancellationToken::new()).await {
        Err(AggregatorError::HttpInUse { addr }) => Err(in_use("HTTP", addr, "--console")),
        other => Ok(other?),
    }
}

const AGENT_NAME: &str = "standalone";

/// Starts the agent alone, sending to `uplink`.
pub async fn start_agent(
    settings: &Settings,
    files: &AuthorityFiles,
    uplink: SocketAddr,
    stop: CancellationToken,
) -> anyhow::Result<Agent> {
    let mut spool = SpoolConfig::default();
    spool.telemetry.quota_bytes = SPOOL_QUOTA_BYTES;
    let settings = pipeline::Settings {
        data_dir: settings.data_dir.join("agent"),
        name: AGENT_NAME.to_owned(),
        listener: ListenerConfig::open(
            settings.mqtt,
            tributary_agent::limits::RATE_LIMIT_MESSAGES_PER_S,
        ),
        rules: settings.decode.clone(),
        brokers: settings.brokers.clone(),
        wal: tributary_journal::CommitPolicy::default(),
        wal_quota_bytes: WAL_QUOTA_BYTES,
        detect: settings.detect.clone(),
        forward: settings.forward.clone(),
        spool,
        seal_delay: SEAL_DELAY,
        uplink: Some(UplinkConfig {
            target: Target {
                address: uplink.to_string(),
                server_name: None,
            },
            others: Others::default(),
            identity: Identity {
                ca: files.ca.clone(),
                certificate: files.agent_certificate.clone(),
                key: files.agent_key.clone(),
            },
            name: AGENT_NAME.to_owned(),
            drain_deadline: DRAIN_DEADLINE,
        }),
        failover_hold_us: UplinkSettings::default().failover_hold_us,
        drain_deadline: DRAIN_DEADLINE,
    };
    match pipeline::start(settings, stop).await {
        Err(StartError::Listener(ListenerError::InUse { address })) => {
            Err(in_use("MQTT", address, "--mqtt"))
        }
        other => Ok(other?),
    }
}

fn in_use(what: &str, address: SocketAddr, argument: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "{address}, for {what}, is in use: stop what listens there, or choose another address \
         with {argument}"
    )
}

impl Machine {
    /// Ends the agent once everything is acknowledged, then the aggregator once everything is in
    /// the lake. Whether both came to their end.
    pub async fn drain(self) -> anyhow::Result<bool> {
        self.agent_stop.cancel();
        let summary = self.agent.join().await?;
        self.aggregator.shut_down().await?;
        Ok(summary.drained)
    }
}
