//! `agent.toml`: every setting, its default and its bounds. It is read whole or not at all, and
//! everything wrong with it is said at once.
//!
//! Nothing here opens what is configured. `TRIBUTARY_AGENT__SECTION__KEY` replaces a setting.

use crate::decode::Rules;
use crate::detect;
use crate::forward::ForwardRules;
use crate::limits::{
    CONFIG_BYTES_MAX, CONFIG_ERRORS_MAX, MAX_AGE_HOURS, RESERVE_BYTES, WRITE_GB_PER_DAY_MAX,
};
use crate::source::{BrokerConfig, ListenerConfig};
use crate::spool::{LanePolicy, Policy, SpoolConfig};
use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tributary_journal::{CommitPolicy, WearBudget};
use tributary_protocol::ids::is_name;
use tributary_settings::{ByteSize, Diagnostic, Document, Section, Table};

mod broker;
mod listener;
mod restart;
mod uplink;

pub use broker::brokers;
pub use restart::{NeedsRestart, changed};
pub use uplink::UplinkSettings;

/// What replaces settings begins with this.
pub const ENVIRONMENT_PREFIX: &str = "TRIBUTARY_AGENT";

/// All settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `[agent]`
    pub agent: AgentConfig,
    /// `[source.listener]`
    pub listener: ListenerConfig,
    /// `[[decode]]`
    pub decode: Arc<Rules>,
    /// `[[source.mqtt]]`
    pub brokers: Vec<BrokerConfig>,
    /// `[wal]`
    pub wal: WalSettings,
    /// `[detect]`
    pub detect: detect::Settings,
    /// `[[forward]]`
    pub forward: Arc<ForwardRules>,
    /// `[spool]`
    pub spool: SpoolSettings,
    /// `[uplink]`
    pub uplink: UplinkSettings,
    /// `[http]`
    pub http: HttpSettings,
}

/// All settings, and what is said of them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What is legal and hardly meant, a line each.
    pub warnings: Vec<String>,
    /// What was set, as it was written.
    pub written: Table,
}

/// `[agent]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentConfig {
    /// Where everything lies that must survive.
    pub data_dir: PathBuf,
    /// What people call this agent.
    pub name: String,
    /// Bytes of the file system that are left free for others.
    pub reserve_bytes: u64,
}

/// How the write-ahead log trades latency against wear.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalProfile {
    /// 20 ms.
    Default,
    /// As soon as the previous fdatasync returned.
    LowLatency,
    /// 100 ms.
    SdCard,
}

impl WalProfile {
    const NAMES: [(&str, Self); 3] = [
        ("default", Self::Default),
        ("low-latency", Self::LowLatency),
        ("sd-card", Self::SdCard),
    ];

    fn max_delay_ms(self) -> u64 {
        match self {
            Self::Default => 20,
            Self::LowLatency => 0,
            Self::SdCard => 100,
        }
    }
}

/// `[wal]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalSettings {
    /// The profile that gives the other defaults.
    pub profile: WalProfile,
    /// How long a message waits for others before it is written.
    pub max_delay: Duration,
    /// Bytes that the log may take.
    pub quota_bytes: u64,
    /// GB (10^9 bytes) a day that all of the agent's writes may cost the device.
    pub max_write_gb_per_day: Option<u32>,
}

impl WalSettings {
    /// When the log's frames close.
    pub fn commit_policy(&self) -> CommitPolicy {
        let max_delay_us = i64::try_from(self.max_delay.as_micros()).unwrap_or(i64::MAX);
        CommitPolicy {
            max_delay_us,
            wear: self.max_write_gb_per_day.map(WearBudget::gb_per_day),
            ..CommitPolicy::default()
        }
    }
}

/// `[spool]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpoolSettings {
    /// What the lane of readings may take, and what gives way. Definitions of series and dead
    /// letters have 64 MiB each beside it (`limits.rs`), the write-ahead log has its own quota.
    pub telemetry: LanePolicy,
    /// The same for what happens to clients.
    pub events: LanePolicy,
    /// The same for alerts.
    pub alerts: LanePolicy,
    /// The same for aggregates.
    pub aggregates: LanePolicy,
    /// How long readings wait to be sealed while connected.
    pub seal_delay: Duration,
}

/// A host and port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// `[http]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpSettings {
    /// Where `/healthz`, `/readyz` and `/metrics` are.
    pub address: SocketAddr,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{}: over {CONFIG_BYTES_MAX} bytes: is this the right file?", path.display())]
    Size {
        /// The file.
        path: PathBuf,
    },
    /// Settings are wrong.
    #[error("{}", listed(path.as_deref(), diagnostics))]
    Wrong {
        /// The file, if there is one.
        path: Option<PathBuf>,
        /// Each thing that is wrong.
        diagnostics: Vec<Diagnostic>,
    },
}

fn named(path: Option<&Path>) -> String {
    path.map_or("configuration".into(), |path| path.display().to_string())
}

fn listed(path: Option<&Path>, diagnostics: &[Diagnostic]) -> String {
    let name = named(path);
    let shown = diagnostics.iter().take(CONFIG_ERRORS_MAX);
    let mut lines: Vec<String> = shown.map(|error| format!("{name}: {error}")).collect();
    let more = diagnostics.len() - lines.len();
    if more > 0 {
        lines.push(format!("{name}: and {more} more"));
    }
    lines.join("\n")
}

impl Config {
    /// Reads the file at `path` (or, without one, only defaults) and this process's environment.
    ///
    /// # Errors
    /// [`ConfigError`], whose text holds one line for each thing that is wrong.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_all(path).map(|loaded| loaded.config)
    }

    /// The same, and what is said of it.
    ///
    /// # Errors
    /// As there.
    pub fn load_all(path: Option<&Path>) -> Result<Loaded, ConfigError> {
        let text = path.map_or(Ok(String::new()), read_file)?;
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let mut loaded =
            Self::parse_all(&text, environment).map_err(|diagnostics| ConfigError::Wrong {
                path: path.map(Into::into),
                diagnostics,
            })?;
        for warning in &mut loaded.warnings {
            *warning = format!("{}: {warning}", named(path));
        }
        Ok(loaded)
    }

    /// Reads settings from a text, and from environment variables.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Diagnostic>> {
        Self::parse_all(text, environment).map(|loaded| loaded.config)
    }

    /// The same, and what is said of it.
    ///
    /// # Errors
    /// As there.
    pub fn parse_all(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, Vec<Diagnostic>> {
        let mut document = Document::parse(text, ENVIRONMENT_PREFIX, environment);
        let config = {
            let mut root = document.root();
            let mut source = root.section("source");
            let detect = detect::Settings::read(&mut root.section("detect"));
            Self {
                agent: agent(&mut root.section("agent")),
                listener: listener::read(&mut source.section("listener")),
                decode: Rules::read(&mut root),
                brokers: brokers(&mut source),
                wal: wal(&mut root.section("wal")),
                forward: ForwardRules::read(&mut root, &detect),
                detect,
                spool: spool(&mut root.section("spool")),
                uplink: uplink::uplink(&mut root.section("uplink")),
                http: HttpSettings {
                    address: address_or(&mut root.section("http"), loopback(9464)),
                },
            }
        };
        let warnings = document.warnings();
        let written = document.written().clone();
        match document.finish() {
            wrong if wrong.is_empty() => Ok(Loaded {
                config,
                warnings: warnings.iter().map(ToString::to_string).collect(),
                written,
            }),
            wrong => Err(wrong),
        }
    }
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let read = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(read)?;
    let mut text = String::new();
    let length = file
        .take(CONFIG_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(read)?;
    if length as u64 > CONFIG_BYTES_MAX {
        return Err(ConfigError::Size {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

fn agent(section: &mut Section) -> AgentConfig {
    let name = section.read("name", |name: String| match is_name(&name) {
        true => Ok(name),
        false => Err("is not usable: expected 1 to 256 bytes without control characters".into()),
    });
    AgentConfig {
        data_dir: section.or("data_dir", "/var/lib/tributary-agent".into()),
        name: name.unwrap_or_else(|| "agent".into()),
        reserve_bytes: bytes(section, "reserve_bytes", (0, RESERVE_BYTES)),
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// `address`, with a default.
fn address_or(section: &mut Section, default: SocketAddr) -> SocketAddr {
    let read = section.read("address", |text: String| {
        text.parse().map_err(|_| {
            format!("is \"{text}\"; expected an IP address and port, like `{default}`")
        })
    });
    read.unwrap_or(default)
}

fn wal(section: &mut Section) -> WalSettings {
    let profile = section.read("profile", |name: String| {
        let found = WalProfile::NAMES.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, profile)| *profile)
            .ok_or_else(|| format!("is \"{name}\"; expected `default`, `low-latency` or `sd-card`"))
    });
    let profile = profile.unwrap_or(WalProfile::Default);
    let max_delay_ms = section.within("max_delay_ms", (0, 250), profile.max_delay_ms());
    let wear = section.read("max_write_gb_per_day", |gb: u64| match u32::try_from(gb) {
        Ok(gb @ 1..=WRITE_GB_PER_DAY_MAX) => Ok(gb),
        _ => Err(format!("is {gb}; expected 1 to {WRITE_GB_PER_DAY_MAX}")),
    });
    WalSettings {
        profile,
        max_delay: Duration::from_millis(max_delay_ms),
        quota_bytes: quota(section, 16 << 20, 256 << 20),
        max_write_gb_per_day: wear,
    }
}

/// A size: the least that is allowed, and the default.
fn bytes(section: &mut Section, name: &'static str, (least, default): (u64, u64)) -> u64 {
    let read = section.read(name, |ByteSize(bytes)| match bytes >= least {
        true => Ok(bytes),
        false => Err(format!(
            "is {bytes} bytes; expected at least {} MiB",
            least >> 20
        )),
    });
    read.unwrap_or(default)
}

fn quota(section: &mut Section, least: u64, default: u64) -> u64 {
    bytes(section, "quota_bytes", (least, default))
}

fn spool(section: &mut Section) -> SpoolSettings {
    let defaults = SpoolConfig::default();
    let quota_bytes = quota(section, 64 << 20, defaults.telemetry.quota_bytes);
    let seal_delay_ms = section.within("seal_delay_ms", (10, 600_000), 1_000);
    let mut lanes = section.section("lanes");
    let telemetry = LanePolicy {
        quota_bytes,
        ..defaults.telemetry
    };
    SpoolSettings {
        telemetry: lane(&mut lanes.section("telemetry"), 64 << 20, telemetry),
        events: lane(&mut lanes.section("events"), 8 << 20, defaults.events),
        alerts: lane(&mut lanes.section("alerts"), 8 << 20, defaults.alerts),
        aggregates: lane(
            &mut lanes.section("aggregates"),
            8 << 20,
            defaults.aggregates,
        ),
        seal_delay: Duration::from_millis(seal_delay_ms),
    }
}

/// `[spool.lanes.<lane>]`: what it may hold, and what gives way.
fn lane(section: &mut Section, least: u64, default: LanePolicy) -> LanePolicy {
    let policy = section.read("policy", |name: String| {
        let found = Policy::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, policy)| *policy).ok_or_else(|| {
            format!("is \"{name}\"; expected `block`, `drop-oldest` or `drop-newest`")
        })
    });
    let hours = section.read("max_age_hours", |hours: u64| match hours {
        1..=MAX_AGE_HOURS => Ok(hours),
        _ => Err(format!("is {hours}; expected 1 to {MAX_AGE_HOURS}")),
    });
    LanePolicy {
        policy: policy.unwrap_or(default.policy),
        quota_bytes: quota(section, least, default.quota_bytes),
        max_age: hours.map(|hours| Duration::from_secs(hours * 3_600)),
    }
}

fn endpoint(text: &str, like: &str) -> Result<Endpoint, String> {
    let wrong = || {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        let without = scheme.map_or(String::new(), |scheme| format!(", without `{scheme}://`"));
        format!("holds \"{text}\"; expected host and port, like `{like}`{without}")
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']').ok_or_else(wrong)?,
        None if host.contains(':') => return Err(wrong()),
        None => host,
    };
    let port = port
        .parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(wrong)?;
    let usable = !host.is_empty() && !host.contains(['/', ' ', '@']);
    if usable {
        Ok(Endpoint {
            host: host.into(),
            port,
        })
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
