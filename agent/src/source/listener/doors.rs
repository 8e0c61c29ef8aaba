//! Where clients come in, plain or with TLS: the addresses, what has to be right before they are
//! bound, and the way from an accepted socket to a stream.

use super::super::access::acl::{FilterError, Grants};
use super::super::access::{Certificate, store, user_of};
use super::super::tls::failure;
use super::super::tls::stream::{HandshakeError, TlsStream};
use super::{
    AccessError, NoRandomness, Shared, Stream, Task, Tls, TlsConfig, TlsError, sleep_until,
};
use crate::limits::ACCEPT_BACKLOG;
use metrics::counter;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

/// Where to listen, for whom, and how much to take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerConfig {
    /// The address without TLS, if there is to be one; port 0 takes a free one.
    pub address: Option<SocketAddr>,
    /// TLS, if there is to be any.
    pub tls: Option<TlsConfig>,
    /// The file of users; without one nobody needs a password.
    pub users: Option<PathBuf>,
    /// Messages a second that one client may publish.
    pub rate_limit_messages_per_s: u32,
}

impl ListenerConfig {
    /// A listener without TLS that lets everybody in.
    pub fn open(address: SocketAddr, rate_limit_messages_per_s: u32) -> Self {
        Self {
            address: Some(address),
            tls: None,
            users: None,
            rate_limit_messages_per_s,
        }
    }

    /// What those may do who come with a certificate and have no entry among the users.
    pub(super) fn certificate_grants(&self) -> Result<Grants, ListenerError> {
        let clients = self.tls.as_ref().and_then(|tls| tls.clients.as_ref());
        let publish = clients.map_or(&[][..], |clients| &clients.publish);
        let read = clients.is_some_and(|clients| clients.read);
        let grants = Grants::parse(publish, read);
        grants.map_err(|(filter, source)| ListenerError::Filter { filter, source })
    }
}

/// Why the listener cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// Somebody else has the port.
    #[error(
        "MQTT: {address} is in use: another broker or agent runs here; stop it, or set \
         `address` below [source.listener] to another port"
    )]
    InUse {
        /// The address that was wanted.
        address: SocketAddr,
    },
    /// The address cannot be used.
    #[error("MQTT: cannot listen on {address}: {source}; see `address` below [source.listener]")]
    Bind {
        /// The address that was wanted.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The users cannot be known.
    #[error("MQTT: {0}")]
    Access(#[from] AccessError),
    /// There can be no TLS.
    #[error("MQTT: {0}")]
    Tls(#[from] TlsError),
    /// Clients without a name cannot be given one.
    #[error("MQTT: {0}")]
    Randomness(#[from] NoRandomness),
    /// A filter for those with certificates is none.
    #[error("MQTT: `publish` in [source.listener.tls]: {filter:?} {source}")]
    Filter {
        /// The filter.
        filter: String,
        /// Why.
        source: FilterError,
    },
}

/// Reads what the configuration names, and says everything that is wrong; then what is right but
/// unwise.
///
/// # Errors
/// One text for each thing that is wrong.
pub fn check(config: &ListenerConfig) -> Result<Vec<String>, Vec<String>> {
    let mut wrong = Vec::new();
    let users = config.users.as_deref().map(store::load).transpose();
    wrong.extend(users.err().map(|error| error.to_string()));
    let grants = config.certificate_grants();
    wrong.extend(grants.err().map(|error| error.to_string()));
    match config.tls.as_ref().map(Tls::check).transpose() {
        Ok(tls) if wrong.is_empty() => Ok(unwise(config, tls.as_ref())),
        Ok(_) => Err(wrong),
        Err(errors) => {
            wrong.extend(errors.iter().map(TlsError::to_string));
            Err(wrong)
        }
    }
}

/// Warns of what is unwise.
pub(super) fn warn(config: &ListenerConfig, tls: Option<&Tls>) {
    for warning in unwise(config, tls) {
        tracing::warn!("{warning}");
    }
}

fn unwise(config: &ListenerConfig, tls: Option<&Tls>) -> Vec<String> {
    let mut warnings = Vec::new();
    let remote = config.address.filter(|address| !address.ip().is_loopback());
    if let Some(address) = remote {
        warnings.push(match config.users {
            Some(_) => format!(
                "MQTT: passwords cross the network unencrypted to {address}: use \
                 [source.listener.tls]"
            ),
            None => format!(
                "MQTT: whoever reaches {address} may publish: use [source.listener.tls] and \
                 `users`"
            ),
        });
    }
    let key = config.tls.as_ref().map(|tls| (&tls.key, 0o007));
    let users = config.users.as_ref().map(|users| (users, 0o007));
    for (path, mode) in [key, users].into_iter().flatten() {
        if is_open(path, mode) {
            let path = path.display();
            warnings.push(format!(
                "{path} is open to every user of this machine: chmod o= {path}"
            ));
        }
    }
    warnings.extend(tls.and_then(expiry_warning));
    warnings
}

fn is_open(path: &Path, mode: u32) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & mode != 0)
}

fn expiry_warning(tls: &Tls) -> Option<String> {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    let left_s = tls.now().not_after - i64::try_from(since.as_secs()).ok()?;
    let path = tls.config().certificate.display();
    (left_s <= 0).then(|| format!("{path} is not valid any more: clients will refuse it"))
}

/// Binds an address, if there is one.
pub(super) fn bind(address: Option<SocketAddr>) -> Result<Option<TcpListener>, ListenerError> {
    let Some(address) = address else {
        return Ok(None);
    };
    match listen(address) {
        Ok(socket) => Ok(Some(socket)),
        Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
            Err(ListenerError::InUse { address })
        }
        Err(source) => Err(ListenerError::Bind { address, source }),
    }
}

/// A socket that keeps whole fleets waiting which come at once: a connection that finds no place
/// tries again only after a second.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG)
}

/// The next client, if there is such a door. Cancel safe.
pub(super) async fn accept(door: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match door {
        Some(door) => door.accept().await,
        None => std::future::pending().await,
    }
}

/// Which way a client came.
#[derive(Clone, Copy, Debug)]
pub(super) enum Door {
    Plain,
    Tls,
}

/// Takes an accepted socket, if there may be one more connection.
pub(super) fn serve_one(
    shared: &Arc<Shared>,
    connections_max: usize,
    door: Door,
    socket: TcpStream,
    address: SocketAddr,
    number: u64,
) {
    counter!("tributary_agent_mqtt_connections_total").increment(1);
    let Some(signal) = shared.registry.enter(number, connections_max) else {
        counter!("tributary_agent_mqtt_closed_total", "reason" => "too_many").increment(1);
        return;
    };
    let stream = match (door, &shared.tls) {
        (Door::Tls, Some(tls)) => TlsStream::new(socket, tls.now()).map(Stream::Tls),
        _ => Ok(Stream::Plain(socket)),
    };
    match stream {
        Ok(stream) => {
            let mut task = Task::new(stream, number, signal, shared, address.ip());
            shared.tasks.spawn(async move { task.run().await });
        }
        Err(error) => {
            tracing::error!(%error, "MQTT: TLS cannot begin");
            shared.registry.leave(number, None);
        }
    }
}

impl Task {
    /// Comes to terms with the client within the time that it has for CONNECT, too; or why not, as
    /// a short stable word. One without TLS has nothing to come to terms about.
    pub(super) async fn handshake(&mut self) -> Result<(), &'static str> {
        let Stream::Tls(stream) = &mut self.stream else {
            return Ok(());
        };
        let place = self.shared.handshakes.begin(self.number);
        let deadline = self.core.poll_timeout(Instant::now().into_std());
        let result = tokio::select! {
            // Whatever is told to a client that has said nothing yet ends it.
            () = self.signal.told() => Err("shutdown"),
            () = place.given_up() => Err("handshakes"),
            () = sleep_until(deadline.map(Instant::from_std)) => Err("no_handshake"),
            done = stream.handshake() => done.map_err(|error| failed(&error)),
        };
        drop(place);
        let word = result.err().unwrap_or("ok");
        counter!("tributary_agent_mqtt_tls_handshakes_total", "result" => word).increment(1);
        if result.is_err() {
            stream.refuse().await;
        }
        self.peer.certificate = stream.certificate().map(|der| {
            Box::new(Certificate {
                name: user_of(der).map(Into::into),
                trust: stream.trust(),
            })
        });
        result
    }
}

fn failed(error: &HandshakeError) -> &'static str {
    let reason = match error {
        HandshakeError::Socket(_) => "broken",
        HandshakeError::Tls(error) => failure(error),
    };
    if reason.starts_with("certificate") {
        tracing::info!(%error, "MQTT: a client's certificate is refused");
    } else {
        tracing::debug!(%error, "MQTT: a TLS handshake failed");
    }
    reason
}
