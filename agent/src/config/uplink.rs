//! `[uplink]`: to which aggregators an agent goes, and how long it puts up with what.

use super::{Endpoint, endpoint};
use crate::limits::UPLINK_SECONDS;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tributary_protocol::limits::{
    ENDPOINTS_MAX, FAILOVER_AFTER_US, FAILOVER_HOLD_US, RETURN_AFTER_US,
};
use tributary_protocol::session::RouteTimes;
use tributary_settings::{Section, Setting, Value};
use tributary_uplink::{Identity, Others, Target, UplinkConfig};

/// `[uplink]`; without endpoints nothing is sent, and the spool keeps everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UplinkSettings {
    /// The aggregators, the preferred one first.
    pub endpoints: Vec<Endpoint>,
    /// Who signs the aggregators' certificates: of several authorities any.
    pub ca: PathBuf,
    /// The agent's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The names that the aggregators' certificates must hold: none, for each its host; one, for
    /// all; or one for each.
    pub server_names: Vec<String>,
    /// When another aggregator is tried, and the first looked for again.
    pub times: RouteTimes,
    /// How long what another may hold waits for it.
    pub failover_hold_us: i64,
}

impl Default for UplinkSettings {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            ca: PathBuf::new(),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            server_names: Vec::new(),
            times: RouteTimes::default(),
            failover_hold_us: FAILOVER_HOLD_US,
        }
    }
}

impl UplinkSettings {
    /// What the uplink of an agent that people call `name` has to know; none where nothing is
    /// sent.
    pub fn config(&self, name: &str, drain_deadline: Duration) -> Option<UplinkConfig> {
        let target = |(at, endpoint): (usize, &Endpoint)| Target {
            address: endpoint.to_string(),
            server_name: match self.server_names.as_slice() {
                [one] => Some(one.clone()),
                each => each.get(at).cloned(),
            },
        };
        let mut targets = self.endpoints.iter().enumerate().map(target);
        Some(UplinkConfig {
            target: targets.next()?,
            others: Others {
                targets: targets.collect(),
                times: self.times,
            },
            identity: Identity {
                ca: self.ca.clone(),
                certificate: self.certificate.clone(),
                key: self.key.clone(),
            },
            name: name.to_owned(),
            drain_deadline,
        })
    }
}

/// A text, or several.
struct Texts(Vec<String>);

impl Setting for Texts {
    const EXPECTED: &'static str = "a text, or a list of texts";
    fn read(value: &Value) -> Option<Self> {
        let one = || String::read(value).map(|text| vec![text]);
        Vec::read(value).or_else(one).map(Self)
    }
}

pub(super) fn uplink(section: &mut Section) -> UplinkSettings {
    let default = UplinkSettings::default();
    let endpoints = section.read("endpoints", |Texts(texts)| endpoints(&texts));
    let endpoints = endpoints.unwrap_or_default();
    let mut file = |name: &'static str| {
        let path = section.optional::<PathBuf>(name);
        if path.is_none() && !endpoints.is_empty() {
            section.wrong(
                name,
                "is missing: with endpoints, the path of a PEM file is needed",
            );
        }
        path.unwrap_or_default()
    };
    let (ca, certificate, key) = (file("ca"), file("certificate"), file("key"));
    let count = endpoints.len();
    let server_names = section.read("server_name", |Texts(names)| match names.len() {
        1 => Ok(names),
        // What is wrong with the endpoints is said already.
        len if len == count || count == 0 => Ok(names),
        len => Err(format!(
            "holds {len} names for {count} endpoints; expected one for all, or one for each"
        )),
    });
    let mut time = |name, default: i64| {
        let default = u64::try_from(default / 1_000_000).unwrap_or(0);
        section.within(name, UPLINK_SECONDS, default) as i64 * 1_000_000
    };
    UplinkSettings {
        endpoints,
        ca,
        certificate,
        key,
        server_names: server_names.unwrap_or_default(),
        times: RouteTimes {
            failover_after_us: time("failover_after_s", FAILOVER_AFTER_US),
            return_after_us: time("return_after_s", RETURN_AFTER_US),
        },
        failover_hold_us: time("failover_hold_s", default.failover_hold_us),
    }
}

/// At most as many as the session knows of, each another one.
fn endpoints(texts: &[String]) -> Result<Vec<Endpoint>, String> {
    if texts.len() > ENDPOINTS_MAX {
        let count = texts.len();
        return Err(format!("holds {count} endpoints; at most {ENDPOINTS_MAX}"));
    }
    let mut seen = BTreeSet::new();
    let one = |text: &String| {
        let found = endpoint(text, "aggregator:7443")?;
        match seen.insert(found.to_string().to_ascii_lowercase()) {
            true => Ok(found),
            false => Err(format!(
                "names {found} twice; each aggregator stands in the list once"
            )),
        }
    };
    texts.iter().map(one).collect()
}
