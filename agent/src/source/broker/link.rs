//! One connection to a broker by rumqttc: its options, its events and its errors in the same words
//! for both versions of MQTT. It decides nothing, and lives no longer than the connection.
//!
//! A connection has an event loop of its own. rumqttc's keeps, over its own reconnects, events read
//! from the dead connection, topic aliases, requests, and what the last broker said of keep alive
//! and session; here all that goes with the connection, and the handle that acknowledges with it.

mod v4;
mod v5;

use super::acks::Ack;
use super::{BrokerConfig, Version, tls};
use crate::limits::{BROKER_CONNECT_TIMEOUT, BROKER_SEND_BUFFER_BYTES, PASSWORD_FILE_BYTES_MAX};
use crate::source::hub::Published;
use bytes::Bytes;
use rumqttc::tokio_rustls::rustls::ClientConfig;
use rumqttc::{NetworkOptions, TlsConfiguration, Transport};
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Which connection to open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// Which one it is, counted from 1.
    pub generation: u64,
    /// What it speaks.
    pub version: Version,
    /// Bytes of the greatest packet that it takes.
    pub packet_bytes_max: u32,
}

/// What the broker said when it took the connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Welcome {
    /// It still knew the session.
    pub session_present: bool,
    /// Seconds that it keeps the session, if it said so.
    pub session_expiry_s: Option<u32>,
    /// The greatest QoS that it takes or gives, if not 2.
    pub qos_max: Option<u8>,
    /// It has no wildcards.
    pub no_wildcards: bool,
    /// It has no shared subscriptions.
    pub no_shared: bool,
    /// It retains nothing.
    pub no_retained: bool,
    /// Bytes of the greatest packet that it takes, if it said so.
    pub packet_bytes_max: Option<u32>,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Delivery {
    pub topic: Bytes,
    pub payload: Bytes,
    /// User properties, as [`UserProperties::write`] gives them.
    pub properties: Vec<u8>,
    pub packet_id: u16,
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
}

/// What became of a filter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Granted {
    /// With this QoS.
    Qos(u8),
    /// It was refused; why, where the broker said so.
    Refused(String),
}

/// What happened on a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// The broker took it.
    Welcome(Welcome),
    /// A message came.
    Delivery(Delivery),
    /// SUBSCRIBE was answered, filter by filter.
    Granted(Vec<Granted>),
    /// The broker answered a ping.
    Pong,
    /// It said something else.
    Other,
    /// A publication left, with this packet id.
    Published(u16),
    /// The broker answered a publication; why it refused it, if it did.
    Answered(u16, Option<String>),
    /// An acknowledgement left.
    AckSent,
    /// DISCONNECT left.
    DisconnectSent,
    /// Something else left.
    Sent,
}

/// Why a connection ended, or did not come about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Broken {
    pub cause: Cause,
    /// What is known, for people.
    pub words: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Broken {
    pub(super) fn new(cause: Cause, words: impl fmt::Display) -> Self {
        Self {
            cause,
            words: words.to_string(),
        }
    }
}

/// The kind of an end, as metrics name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// No certificate, key or password could be read.
    Files,
    /// Nobody answers there.
    Unreachable,
    /// TLS did not come about.
    Tls,
    /// The broker does not take this client.
    Refused,
    /// It does not speak this version.
    Version,
    /// It said nothing for too long.
    Silent,
    /// It closed.
    Closed,
    /// Another client came with this client identifier.
    TakenOver,
    /// It sent a packet of this many bytes.
    TooLarge(usize),
    /// It sent what is no MQTT.
    Malformed,
    /// Nothing moved although it should.
    Watchdog,
    /// What it sent had no room here.
    Room,
}

impl Cause {
    /// The cause in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Refused => "refused",
            Self::Version => "version",
            Self::Silent => "silent",
            Self::Closed => "closed",
            Self::TakenOver => "taken_over",
            Self::TooLarge(_) => "too_large",
            Self::Malformed => "malformed",
            Self::Watchdog => "watchdog",
            Self::Room => "room",
        }
    }
}

/// The end of a connection that is polled.
pub(super) enum Link {
    V5(Box<rumqttc::v5::EventLoop>),
    V4(Box<rumqttc::EventLoop>),
}

/// The end of a connection that asks for something to be sent.
pub(super) enum Handle {
    V5(rumqttc::v5::AsyncClient),
    V4(rumqttc::AsyncClient),
}

/// What both versions need to know beyond the plan.
struct Access {
    client_id: String,
    credentials: Option<(String, String)>,
    tls: Option<Arc<ClientConfig>>,
}

impl Access {
    fn transport(&self) -> Transport {
        match &self.tls {
            Some(tls) => Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(tls))),
            None => Transport::tcp(),
        }
    }
}

/// Makes ready for a connection: it opens when it is polled. Certificates and password are read
/// anew for each, so that they can be replaced while the agent runs.
///
/// # Errors
/// A file that cannot be read, or holds something else.
pub(super) fn open(
    plan: &Plan,
    config: &BrokerConfig,
    client_id: &str,
) -> Result<(Handle, Link), Broken> {
    let tls = config.tls.as_ref().map(tls::client_config).transpose();
    let tls = tls.map_err(|error| Broken::new(Cause::Files, error))?;
    let access = Access {
        client_id: client_id.to_owned(),
        credentials: credentials(config)?,
        tls: tls.map(Arc::new),
    };
    Ok(match plan.version {
        Version::V5 => v5::open(plan, config, &access),
        Version::V4 => v4::open(plan, config, &access),
    })
}

/// User and password; the password is in nothing that is logged.
fn credentials(config: &BrokerConfig) -> Result<Option<(String, String)>, Broken> {
    let Some(user) = &config.user else {
        return Ok(None);
    };
    let password = match &config.password_file {
        Some(path) => read_password(path)
            .map_err(|why| Broken::new(Cause::Files, format!("{}: {why}", path.display())))?,
        None => String::new(),
    };
    Ok(Some((user.clone(), password)))
}

/// The first line of a file.
pub(super) fn read_password(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read = file
        .take(PASSWORD_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text);
    let length = read.map_err(|error| error.to_string())?;
    if length as u64 > PASSWORD_FILE_BYTES_MAX {
        return Err(format!(
            "over {PASSWORD_FILE_BYTES_MAX} bytes: is this the right file?"
        ));
    }
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err("its first line, the password, is empty".into());
    }
    Ok(line.to_owned())
}

impl Link {
    /// What happens next. Not cancel safe: who drops this before it is done drops the link, too.
    pub(super) async fn poll(&mut self) -> Result<Heard, Broken> {
        match self {
            Self::V5(events) => events.poll().await.map(v5::heard).map_err(v5::broken),
            Self::V4(events) => events.poll().await.map(v4::heard).map_err(v4::broken),
        }
    }

    /// Takes what the broker wants of keep alive no further than `own`: an absent or longer one
    /// would let a dead link pass for a quiet one.
    pub(super) fn keep_alive_at_most(&mut self, own: std::time::Duration) {
        let Self::V5(events) = self else {
            return;
        };
        let theirs = events.options.keep_alive();
        if theirs.is_zero() || theirs > own {
            events.options.set_keep_alive(own);
        }
    }
}

impl Handle {
    /// Asks for an acknowledgement to be sent; `false` when no more can be asked for now.
    pub(super) fn try_ack(&self, ack: Ack) -> bool {
        match self {
            Self::V5(client) => v5::try_ack(client, ack),
            Self::V4(client) => v4::try_ack(client, ack),
        }
    }

    /// Asks for these filters, all with QoS 1; `false` when that can't be asked for now.
    pub(super) fn try_subscribe(&self, filters: &[String]) -> bool {
        match self {
            Self::V5(client) => v5::try_subscribe(client, filters),
            Self::V4(client) => v4::try_subscribe(client, filters),
        }
    }

    /// Asks for an end of what was subscribed to.
    pub(super) fn try_unsubscribe(&self, filter: &str) -> bool {
        match self {
            Self::V5(client) => client.try_unsubscribe(filter).is_ok(),
            Self::V4(client) => client.try_unsubscribe(filter).is_ok(),
        }
    }

    /// Asks for a publication with QoS 1; `false` when that can't be asked for now.
    pub(super) fn try_publish(&self, message: &Published, retain: bool) -> bool {
        let (topic, payload) = (&*message.topic, message.payload.clone());
        match self {
            Self::V5(client) => v5::try_publish(client, topic, payload, retain),
            Self::V4(client) => v4::try_publish(client, topic, payload, retain),
        }
    }

    /// Asks for DISCONNECT, which ends no session, behind everything asked for before.
    pub(super) fn try_disconnect(&self) -> bool {
        match self {
            Self::V5(client) => client.try_disconnect().is_ok(),
            Self::V4(client) => client.try_disconnect().is_ok(),
        }
    }
}

/// The socket of either version.
fn network_options() -> NetworkOptions {
    let mut options = NetworkOptions::new();
    options.set_tcp_nodelay(true);
    options.set_tcp_send_buffer_size(BROKER_SEND_BUFFER_BYTES);
    options.set_connection_timeout(BROKER_CONNECT_TIMEOUT.as_secs());
    options
}

/// What an I/O error says of a connection.
fn io_cause(kind: std::io::ErrorKind) -> Cause {
    use std::io::ErrorKind as Kind;
    match kind {
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Cause::Closed,
        Kind::UnexpectedEof | Kind::NotConnected => Cause::Closed,
        Kind::InvalidData => Cause::Tls,
        _ => Cause::Unreachable,
    }
}
