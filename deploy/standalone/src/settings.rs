//! What the one-machine deployment is told: `tributary.toml`, arguments above it, defaults below.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_agent::config::{brokers, changed};
use tributary_agent::decode::Rules;
use tributary_agent::detect;
use tributary_agent::forward::ForwardRules;
use tributary_agent::limits::CONFIG_BYTES_MAX;
use tributary_agent::source::BrokerConfig;
use tributary_settings::{Diagnostic, Document, Table};

/// What replaces settings begins with this.
const ENVIRONMENT_PREFIX: &str = "TRIBUTARY";

/// Where things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Everything durable lies below it, the lake in `lake`.
    pub data_dir: PathBuf,
    /// The MQTT listener.
    pub mqtt: SocketAddr,
    /// The HTTP side.
    pub console: SocketAddr,
    /// How messages are read: `[[decode]]`, as in the agent's own configuration.
    pub decode: Arc<Rules>,
    /// What judges readings: `[detect]`, as there.
    pub detect: detect::Settings,
    /// Which readings leave the agent as they are: `[[forward]]`, as there.
    pub forward: Arc<ForwardRules>,
    /// The user's brokers: `[[source.mqtt]]`, as there.
    pub brokers: Vec<BrokerConfig>,
}

impl Default for Settings {
    fn default() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            data_dir: "tributary-data".into(),
            mqtt: SocketAddr::new(loopback, 1883),
            console: SocketAddr::new(loopback, 8080),
            decode: Rules::builtin(),
            detect: detect::Settings::default(),
            forward: Arc::default(),
            brokers: Vec::new(),
        }
    }
}

/// The settings, and what is said of them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What is legal and hardly meant, a line each.
    pub warnings: Vec<String>,
    /// What was set, as it was written.
    written: Table,
}

impl Loaded {
    /// What of `now` needs a restart, where the machine was started with this.
    pub fn needs_restart(&self, now: &Self) -> Vec<String> {
        let (old, new) = (&self.settings, &now.settings);
        let parts = [
            ("machine.data_dir", old.data_dir == new.data_dir),
            ("machine.mqtt", old.mqtt == new.mqtt),
            ("machine.console", old.console == new.console),
            ("decode", old.decode == new.decode),
            ("detect.enabled", old.detect.enabled == new.detect.enabled),
            ("forward", old.forward == new.forward),
            ("capture", old.forward == new.forward),
            ("source.mqtt", old.brokers == new.brokers),
        ];
        changed(&parts, &self.written, &now.written)
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file can't be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{}: over {CONFIG_BYTES_MAX} bytes: is this the right file?", path.display())]
    Size {
        /// The file.
        path: PathBuf,
    },
    /// Settings are wrong.
    #[error("{}", listed(name, diagnostics))]
    Wrong {
        /// The file, or what stands for it.
        name: String,
        /// Each thing that is wrong.
        diagnostics: Vec<Diagnostic>,
    },
    /// An argument is wrong.
    #[error("{0}")]
    Argument(String),
}

fn listed(name: &str, diagnostics: &[Diagnostic]) -> String {
    let lines: Vec<_> = diagnostics
        .iter()
        .map(|wrong| format!("{name}: {wrong}"))
        .collect();
    lines.join("\n")
}

impl Settings {
    /// The settings of a file, if one is named, and of this process's environment.
    ///
    /// # Errors
    /// Everything that is wrong with them, at once.
    pub fn load(path: Option<&Path>) -> Result<Loaded, SettingsError> {
        let text = path.map_or(Ok(String::new()), read)?;
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            // The agent's and the aggregator's own variables begin like ours.
            .filter(|(name, _)| name.starts_with("TRIBUTARY__"));
        let name = path.map_or("settings".to_owned(), |path| path.display().to_string());
        let mut loaded =
            Self::parse(&text, environment).map_err(|diagnostics| SettingsError::Wrong {
                name: name.clone(),
                diagnostics,
            })?;
        for warning in &mut loaded.warnings {
            *warning = format!("{name}: {warning}");
        }
        Ok(loaded)
    }

    fn parse(
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, Vec<Diagnostic>> {
        let mut document = Document::parse(text, ENVIRONMENT_PREFIX, environment);
        let defaults = Self::default();
        let settings = {
            let mut root = document.root();
            let mut machine = root.section("machine");
            let detect = detect::Settings::read(&mut root.section("detect"));
            Self {
                data_dir: machine.or("data_dir", defaults.data_dir),
                mqtt: machine.read("mqtt", address).unwrap_or(defaults.mqtt),
                console: machine.read("console", address).unwrap_or(defaults.console),
                decode: Rules::read(&mut root),
                forward: ForwardRules::read(&mut root, &detect),
                detect,
                brokers: brokers(&mut root.section("source")),
            }
        };
        let warnings = document.warnings();
        let written = document.written().clone();
        match document.finish() {
            wrong if wrong.is_empty() => Ok(Loaded {
                settings,
                warnings: warnings.iter().map(ToString::to_string).collect(),
                written,
            }),
            wrong => Err(wrong),
        }
    }
}

fn address(text: String) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| format!("is \"{text}\"; expected an address and port, as 127.0.0.1:1883"))?;
    if !address.ip().is_loopback() {
        return Err(format!(
            "is {address}; nobody has to say who they are here, so only loopback addresses are \
             allowed: others come to `tributary-agent` with users and TLS"
        ));
    }
    Ok(address)
}

/// An address given as an argument.
///
/// # Errors
/// Why it is none.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    address(text.to_owned())
}

fn read(path: &Path) -> Result<String, SettingsError> {
    let failed = |source| SettingsError::Read {
        path: path.to_owned(),
        source,
    };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > CONFIG_BYTES_MAX {
        return Err(SettingsError::Size {
            path: path.to_owned(),
        });
    }
    std::fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_is_named_with_its_line_and_the_nearest_right_one() {
        let text = "[machine]\nmqtt = \"127.0.0.1:2883\"\nconsol = \"127.0.0.1:1\"\n";
        let wrong = Settings::parse(text, std::iter::empty()).unwrap_err();
        let text = listed("t.toml", &wrong);
        assert!(
            text.contains("line 3") && text.contains("`machine.console`"),
            "{text}"
        );
    }

    #[test]
    fn brokers_are_read_as_the_agent_reads_them() {
        let text = "[[source.mqtt]]\naddress = \"127.0.0.1:1884\"\ntopics = [\"plant/#\"]\n";
        let settings = Settings::parse(text, std::iter::empty()).unwrap().settings;
        assert_eq!(settings.brokers[0].port, 1884);
        let wrong = Settings::parse("[[source.mqtt]]\nport = 1\n", std::iter::empty());
        let text = listed("t", &wrong.unwrap_err());
        assert!(text.contains("source.mqtt"), "{text}");
    }

    #[test]
    fn only_loopback_until_somebody_is_authenticated() {
        let text = "[machine]\nmqtt = \"0.0.0.0:1883\"\n";
        let wrong = Settings::parse(text, std::iter::empty()).unwrap_err();
        assert!(listed("t", &wrong).contains("loopback"), "{wrong:?}");
    }

    #[test]
    fn defaults_hold_where_nothing_is_said() {
        let loaded = Settings::parse("", std::iter::empty()).unwrap();
        assert_eq!(loaded.settings, Settings::default());
    }

    #[test]
    fn what_needs_a_restart_is_named_and_what_is_hardly_meant_is_said() {
        let parse = |text| Settings::parse(text, std::iter::empty()).unwrap();
        let before = parse("[machine]\nmqtt = \"127.0.0.1:1883\"\n");
        assert!(
            before
                .needs_restart(&parse("[detect]\npreset = \"quiet\"\n"))
                .is_empty()
        );
        let now = parse("[machine]\nmqtt = \"127.0.0.1:2\"\n[[forward]]\nwhat = \"aggregates\"\n");
        assert_eq!(
            before.needs_restart(&now),
            [
                "[machine] mqtt changed: needs a restart",
                "[[forward]] changed: needs a restart",
            ]
        );
        let [warning] = now.warnings.as_slice() else {
            panic!("{:?}", now.warnings);
        };
        assert!(
            warning.starts_with("line 3: `forward[0]` has no effect"),
            "{warning}"
        );
    }
}
