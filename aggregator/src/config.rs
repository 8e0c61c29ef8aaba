//! `aggregator.toml`: every setting, its default and its bounds. It is read whole or not at all,
//! and everything wrong with it is said at once.
//!
//! Nothing here opens what is configured. `TRIBUTARY_AGGREGATOR__SECTION__KEY` replaces a setting.

mod sinks;

pub use sinks::{SinkConfig, Target};

use crate::ingest::endpoint::TlsFiles;
use crate::limits::CONFIG_BYTES_MAX;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tributary_journal::limits::segment_bytes;
use tributary_journal::{LogConfig, LogKind};
use tributary_protocol::ids::is_name;
use tributary_settings::{ByteSize, Diagnostic, Document, Section};

/// What replaces settings begins with this.
pub const ENVIRONMENT_PREFIX: &str = "TRIBUTARY_AGGREGATOR";

/// Bytes that the journal may take, at least.
pub const JOURNAL_QUOTA_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// All settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `aggregator.data_dir`: where everything lies that must survive; the lake below it.
    pub data_dir: PathBuf,
    /// `uplink.address`: where agents connect; UDP. Port 0 takes a free one, `[::]` takes IPv4 too.
    pub uplink: SocketAddr,
    /// `uplink.ca`, `uplink.certificate`, `uplink.key`: PEM files.
    pub tls: TlsFiles,
    /// `uplink.trust_domain`: the first part of agents' names, `spiffe://<trust domain>/…`.
    pub trust_domain: String,
    /// `http.address`: health, metrics and status; TCP. Port 0 takes a free one.
    pub http: SocketAddr,
    /// `journal.quota_bytes`.
    pub journal_quota_bytes: u64,
    /// `journal.reserve_bytes`: what is left free on its disk.
    pub journal_reserve_bytes: u64,
    /// `lake.flush_interval_ms`: how long a batch waits for its Parquet file, at most.
    pub flush_interval: Duration,
    /// `sinks.*`: where readings go beside the lake.
    pub sinks: Vec<SinkConfig>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is too long to be one.
    #[error("{}: over {CONFIG_BYTES_MAX} bytes: is this the right file?", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Settings are wrong.
    #[error("{}", listed(path.as_deref(), diagnostics))]
    Wrong {
        /// The file, if there is one.
        path: Option<PathBuf>,
        /// Everything that is wrong.
        diagnostics: Vec<Diagnostic>,
    },
}

fn listed(path: Option<&Path>, diagnostics: &[Diagnostic]) -> String {
    let name = path.map_or("configuration".into(), |path| path.display().to_string());
    diagnostics
        .iter()
        .enumerate()
        .fold(String::new(), |mut text, (i, wrong)| {
            let end = if i == 0 { "" } else { "\n" };
            // Writing to a text cannot fail.
            let _ = write!(text, "{end}{name}: {wrong}");
            text
        })
}

impl Config {
    /// Settings for a data directory with certificates, everything else by default.
    pub fn new(data_dir: PathBuf, tls: TlsFiles) -> Self {
        Self {
            data_dir,
            uplink: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7443),
            tls,
            trust_domain: "tributary.local".to_owned(),
            http: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            journal_quota_bytes: 4 * 1024 * 1024 * 1024,
            journal_reserve_bytes: 64 * 1024 * 1024,
            flush_interval: Duration::from_secs(5),
            sinks: Vec::new(),
        }
    }

    /// Where the lake lies.
    pub fn lake_dir(&self) -> PathBuf {
        self.data_dir.join("lake")
    }

    /// The journal's bounds.
    pub fn journal(&self) -> LogConfig {
        LogConfig {
            segment_bytes: segment_bytes(self.journal_quota_bytes),
            quota_bytes: self.journal_quota_bytes,
            reserve_bytes: self.journal_reserve_bytes,
            kind: LogKind::Journal,
        }
    }

    /// Reads the file, if one is named, and the environment.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let text = path.map_or(Ok(String::new()), read_file)?;
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self::parse(&text, environment).map_err(|diagnostics| ConfigError::Wrong {
            path: path.map(Into::into),
            diagnostics,
        })
    }

    /// Reads settings from a text, and from environment variables.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut document = Document::parse(text, ENVIRONMENT_PREFIX, environment);
        let config = {
            let mut root = document.root();
            let data_dir = "/var/lib/tributary-aggregator".into();
            let data_dir = root.section("aggregator").or("data_dir", data_dir);
            let mut uplink = root.section("uplink");
            let defaults = Self::new(data_dir, tls(&mut uplink));
            let trust_domain = uplink.read("trust_domain", trust_domain);
            let mut journal = root.section("journal");
            let quota = journal.read("quota_bytes", |ByteSize(bytes)| match bytes {
                JOURNAL_QUOTA_BYTES_MIN.. => Ok(bytes),
                _ => Err(format!(
                    "is {bytes}; expected at least {JOURNAL_QUOTA_BYTES_MIN} (64 MiB)"
                )),
            });
            let reserve = journal
                .optional::<ByteSize>("reserve_bytes")
                .map(|size| size.0);
            let flush_ms =
                root.section("lake")
                    .within("flush_interval_ms", (100, 3_600_000), 5_000);
            Self {
                uplink: address(&mut uplink, defaults.uplink),
                http: address(&mut root.section("http"), defaults.http),
                trust_domain: trust_domain.unwrap_or(defaults.trust_domain),
                journal_quota_bytes: quota.unwrap_or(defaults.journal_quota_bytes),
                journal_reserve_bytes: reserve.unwrap_or(defaults.journal_reserve_bytes),
                flush_interval: Duration::from_millis(flush_ms),
                sinks: sinks::read(root.section("sinks")),
                data_dir: defaults.data_dir,
                tls: defaults.tls,
            }
        };
        let wrong = document.finish();
        if wrong.is_empty() {
            Ok(config)
        } else {
            Err(wrong)
        }
    }
}

fn tls(uplink: &mut Section) -> TlsFiles {
    let mut file = |name: &'static str, default: &str| {
        uplink.or(name, Path::new("/etc/tributary").join(default))
    };
    TlsFiles {
        ca: file("ca", "ca.pem"),
        cert: file("certificate", "aggregator.pem"),
        key: file("key", "aggregator.key"),
    }
}

fn trust_domain(name: String) -> Result<String, String> {
    match is_name(&name) && !name.contains('/') {
        true => Ok(name),
        false => Err(format!(
            "is `{name}`; expected a name without `/`, like `example.org`"
        )),
    }
}

fn address(section: &mut Section, default: SocketAddr) -> SocketAddr {
    let read = section.read("address", |text: String| {
        text.parse().map_err(|_| {
            format!("is `{text}`; expected an IP address and a port, like `{default}`")
        })
    });
    read.unwrap_or(default)
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(CONFIG_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLong {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = Config::parse("", []).unwrap();
        assert_eq!(config.uplink.port(), 7443);
        assert_eq!(config.http, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(
            config.lake_dir(),
            Path::new("/var/lib/tributary-aggregator/lake")
        );
    }

    #[test]
    fn the_documented_file_says_the_defaults() {
        let documented = Config::parse(include_str!("../aggregator.toml"), []);
        assert_eq!(documented, Config::parse("", []));
    }

    #[test]
    fn every_wrong_setting_is_named_with_line_reason_and_nearest_name() {
        let text = "[uplink]\naddres = \"x\"\ntrust_domain = \"a/b\"\n\n\
                    [http]\naddress = \"8080\"\n[journal]\nquota_bytes = 5\n[lak]\n";
        let diagnostics = Config::parse(text, []).unwrap_err();
        let said = listed(Some(Path::new("aggregator.toml")), &diagnostics);
        for part in [
            "aggregator.toml: line 2: `uplink.addres` is not known; did you mean `uplink.address`?",
            "line 3: `uplink.trust_domain` is `a/b`",
            "line 6: `http.address` is `8080`; expected an IP address and a port",
            "line 8: `journal.quota_bytes` is 5; expected at least 67108864",
            "line 9: `lak` is not known; did you mean `lake`?",
        ] {
            assert!(said.contains(part), "{part}\nis not in\n{said}");
        }
    }

    #[test]
    fn the_environment_replaces_the_file() {
        let name = "TRIBUTARY_AGGREGATOR__LAKE__FLUSH_INTERVAL_MS".to_owned();
        let config = Config::parse(
            "[lake]\nflush_interval_ms = 900\n",
            [(name, "250".to_owned())],
        );
        assert_eq!(config.unwrap().flush_interval, Duration::from_millis(250));
    }
}
