//! `[[source.mqtt]]`: the brokers that the agent subscribes to.

use super::endpoint;
use crate::decode::hardly_meant;
use crate::limits::{
    BROKER_FILTERS_MAX, BROKER_KEEP_ALIVE_S, BROKER_PACKET_BYTES, BROKER_RECEIVE_MAX,
    BROKER_SESSION_EXPIRY_S, BROKERS_MAX, CLIENT_ID_BYTES_MAX,
};
use crate::source::broker::filters;
use crate::source::broker::{BrokerConfig, Protocol, TlsFiles};
use std::path::PathBuf;
use std::time::Duration;
use tributary_protocol::ids::is_name;
use tributary_settings::{ByteSize, Section};

/// Every `[[source.mqtt]]` below `source`.
pub fn brokers(source: &mut Section) -> Vec<BrokerConfig> {
    let mut brokers: Vec<BrokerConfig> = Vec::new();
    for (place, mut section) in source.sections("mqtt").into_iter().enumerate() {
        let broker = broker(&mut section);
        if place == BROKERS_MAX {
            section.wrong_section(format!("is one too many: at most {BROKERS_MAX}"));
        }
        // One that has no address is wrong already.
        let Some(broker) = broker else {
            continue;
        };
        if brokers.iter().any(|other| other.name == broker.name) {
            section.wrong(
                "name",
                format!(
                    "\"{}\" is the name of another [[source.mqtt]], too: it tells their sessions \
                     and metrics apart, and is the address when left out",
                    broker.name
                ),
            );
        }
        let same = |other: &&BrokerConfig| {
            other.address() == broker.address() && other.client_id == broker.client_id
        };
        if broker.client_id.is_some() && brokers.iter().any(|other| same(&other)) {
            section.wrong(
                "client_id",
                "is that of another [[source.mqtt]] at this broker: each would end the other's \
                 connection",
            );
        }
        brokers.push(broker);
    }
    brokers
}

fn broker(section: &mut Section) -> Option<BrokerConfig> {
    let address = section.read("address", |text: String| endpoint(&text, "broker:1883"));
    if address.is_none() && !section.was_read("address") {
        section.wrong(
            "address",
            "is missing: host and port of the broker, like `broker:1883`",
        );
    }
    let name = section.read("name", |name: String| match is_name(&name) {
        true => Ok(name),
        false => Err("is not usable: expected 1 to 256 bytes without control characters".into()),
    });
    let (keep_least, keep_alive, keep_most) = BROKER_KEEP_ALIVE_S;
    let keep_alive = section.within(
        "keep_alive_s",
        (keep_least.into(), keep_most.into()),
        keep_alive.into(),
    );
    let (receive_least, receive, receive_most) = BROKER_RECEIVE_MAX;
    let receive = section.within(
        "receive_maximum",
        (receive_least.into(), receive_most.into()),
        receive.into(),
    );
    let expiry = section.within(
        "session_expiry_s",
        (0, u32::MAX.into()),
        BROKER_SESSION_EXPIRY_S.into(),
    );
    let topics = topics(section);
    let client_id = client_id(section);
    let protocol = protocol(section);
    let packet_bytes_max = packet_bytes_max(section);
    qos(section);
    let (user, password_file) = login(section);
    let tls = section.has("tls").then(|| tls(&mut section.section("tls")));
    let alerts = section.or("alerts", false);
    let address = address?;
    Some(BrokerConfig {
        name: name.unwrap_or_else(|| address.to_string()),
        host: address.host,
        port: address.port,
        topics,
        client_id,
        protocol,
        user,
        password_file,
        tls: tls.flatten(),
        session_expiry_s: u32::try_from(expiry).unwrap_or(u32::MAX),
        receive_maximum: u16::try_from(receive).unwrap_or(receive_least),
        keep_alive: Duration::from_secs(keep_alive),
        packet_bytes_max,
        alerts,
    })
}

fn topics(section: &mut Section) -> Vec<String> {
    let read = section.read("topics", |filters: Vec<String>| {
        if filters.is_empty() || filters.len() > BROKER_FILTERS_MAX {
            let count = filters.len();
            return Err(format!(
                "holds {count} topic filters; expected 1 to {BROKER_FILTERS_MAX}"
            ));
        }
        for (place, filter) in filters.iter().enumerate() {
            if let Some(why) = filters::wrong(filter) {
                return Err(format!("holds the filter {filter:?}, which {why}"));
            }
            if filters.iter().take(place).any(|other| other == filter) {
                return Err(format!("holds the filter {filter:?} twice"));
            }
        }
        Ok(filters)
    });
    let topics: Vec<String> = read.unwrap_or_else(|| vec!["#".into()]);
    if let Some(why) = topics.iter().find_map(|filter| hardly_meant(filter)) {
        section.warn("topics", why);
    }
    topics
}

fn client_id(section: &mut Section) -> Option<String> {
    section.read("client_id", |id: String| {
        if id.is_empty() || id.len() > CLIENT_ID_BYTES_MAX || id.contains(char::is_control) {
            return Err(format!(
                "is not usable: expected 1 to {CLIENT_ID_BYTES_MAX} bytes without control \
                 characters"
            ));
        }
        Ok(id)
    })
}

fn protocol(section: &mut Section) -> Protocol {
    let read = section.read("protocol", |name: String| match name.as_str() {
        "auto" => Ok(Protocol::Auto),
        "5" => Ok(Protocol::V5),
        "3.1.1" => Ok(Protocol::V4),
        _ => Err(format!("is \"{name}\"; expected `auto`, `5` or `3.1.1`")),
    });
    read.unwrap_or(Protocol::Auto)
}

fn packet_bytes_max(section: &mut Section) -> u32 {
    let (least, default, most) = BROKER_PACKET_BYTES;
    let read = section.read("packet_bytes_max", |ByteSize(bytes)| {
        let fits = u32::try_from(bytes).ok();
        fits.filter(|bytes| (least..=most).contains(bytes))
            .ok_or_else(|| {
                format!(
                    "is {bytes} bytes; expected {} KiB to {} MiB",
                    least >> 10,
                    most >> 20
                )
            })
    });
    read.unwrap_or(default)
}

/// Only 1: said, so that nobody wonders.
fn qos(section: &mut Section) {
    section.read("qos", |qos: u64| match qos {
        1 => Ok(()),
        _ => Err(format!(
            "is {qos}; only 1 is possible: 0 would lose what is under way, and 2 adds nothing to \
             what the agent recognises as delivered twice"
        )),
    });
}

fn login(section: &mut Section) -> (Option<String>, Option<PathBuf>) {
    let user = section.optional::<String>("user");
    let password_file = section.optional::<PathBuf>("password_file");
    if password_file.is_some() && user.is_none() {
        section.wrong("user", "is missing: MQTT takes no password without a user");
    }
    (user, password_file)
}

fn tls(section: &mut Section) -> Option<TlsFiles> {
    let ca = section.optional::<PathBuf>("ca");
    let certificate = section.optional::<PathBuf>("certificate");
    let key = section.optional::<PathBuf>("key");
    let server_name = section.optional::<String>("server_name");
    if ca.is_none() && !section.was_read("ca") {
        section.wrong(
            "ca",
            "is missing: a PEM file with who signs the broker's certificate; for a public \
             authority that of the system, like /etc/ssl/certs/ca-certificates.crt",
        );
    }
    if certificate.is_some() != key.is_some() {
        let missing = if key.is_none() { "key" } else { "certificate" };
        section.wrong(missing, "is missing: certificate and key go together");
    }
    Some(TlsFiles {
        ca: ca?,
        identity: certificate.zip(key),
        server_name,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
