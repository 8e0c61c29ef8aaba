//! One QUIC connection to an aggregator: who we are, whom we trust, and how the transport is set.

use crate::limits::{
    HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE, RECEIVE_WINDOW_BYTES, SEND_WINDOW_BYTES,
    STREAM_RECEIVE_WINDOW_BYTES, UDP_BUFFER_BYTES,
};
use crate::progress;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, EndpointConfig, TokioRuntime, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The protocol's name in the TLS handshake.
pub const ALPN: &[u8] = b"tributary/1";

/// Where an aggregator is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host and port, as in `aggregator.example.org:7443`.
    pub address: String,
    /// The name that its certificate must carry; the host when absent.
    pub server_name: Option<String>,
}

impl Target {
    fn name(&self) -> &str {
        let host = self
            .address
            .rsplit_once(':')
            .map_or(&*self.address, |(host, _)| host);
        self.server_name
            .as_deref()
            .unwrap_or(host.trim_matches(['[', ']']))
    }
}

/// Who we are and whom we trust: paths of PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate authority that signed the aggregator's certificate.
    pub ca: PathBuf,
    /// Our certificate, and what is needed to reach the authority.
    pub certificate: PathBuf,
    /// Our private key.
    pub key: PathBuf,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file with a certificate or key is missing or bad.
    #[error("{what} {}: {reason}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not go together.
    #[error(
        "the certificate in {} and the key in {} do not go together: {reason}",
        certificate.display(), key.display()
    )]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        reason: String,
    },
    /// TLS itself cannot be set up.
    #[error("TLS set-up: {0}")]
    Tls(String),
    /// The socket can't be had.
    #[error("UDP socket for the uplink: {0}")]
    Socket(#[from] std::io::Error),
    /// The list is shorter.
    #[error("no aggregator stands at place {0} of the list")]
    Nobody(usize),
    /// The name can't be resolved.
    #[error("{address} can't be resolved: {reason}")]
    Resolve {
        /// The address.
        address: String,
        /// What the resolver says.
        reason: String,
    },
    /// Nobody answers in time.
    #[error("no answer from {0} within {HANDSHAKE_TIMEOUT:?}: is UDP let through?")]
    Timeout(String),
    /// The handshake failed.
    #[error("{address}: {reason}")]
    Handshake {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
}

fn file_error(what: &'static str, path: &Path, reason: impl ToString) -> ConnectError {
    ConnectError::File {
        what,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
/// When the file can't be read, or holds none.
pub fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let iter = CertificateDer::pem_file_iter(path).map_err(|e| file_error(what, path, e))?;
    let found: Vec<_> = iter
        .collect::<Result<_, _>>()
        .map_err(|e| file_error(what, path, e))?;
    if found.is_empty() {
        return Err(file_error(what, path, "it holds no certificate in PEM"));
    }
    Ok(found)
}

/// The private key in a PEM file.
///
/// # Errors
/// When the file can't be read, or holds none.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ConnectError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| file_error("private key", path, e))
}

/// The authorities in a PEM file, as roots of trust.
///
/// # Errors
/// When the file can't be read, or holds none that can be used.
pub fn roots(path: &Path) -> Result<RootCertStore, ConnectError> {
    let what = "certificate authority";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, path)? {
        roots
            .add(certificate)
            .map_err(|e| file_error(what, path, e))?;
    }
    Ok(roots)
}

fn tls(identity: &Identity) -> Result<rustls::ClientConfig, ConnectError> {
    let tls = |e: rustls::Error| ConnectError::Tls(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_root_certificates(roots(&identity.ca)?)
        .with_client_auth_cert(
            certificates("certificate", &identity.certificate)?,
            private_key(&identity.key)?,
        )
        .map_err(|error| ConnectError::Pair {
            certificate: identity.certificate.clone(),
            key: identity.key.clone(),
            reason: error.to_string(),
        })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Whether these files are there and go together.
///
/// # Errors
/// Every file that is missing or bad; where none is, what does not go together.
pub fn check(identity: &Identity) -> Result<(), Vec<ConnectError>> {
    let each = [
        roots(&identity.ca).err(),
        certificates("certificate", &identity.certificate).err(),
        private_key(&identity.key).err(),
    ];
    let mut wrong: Vec<_> = each.into_iter().flatten().collect();
    if wrong.is_empty() {
        wrong.extend(tls(identity).err());
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn transport(last_rtt: Option<Duration>) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
        .send_window(SEND_WINDOW_BYTES)
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(STREAM_RECEIVE_WINDOW_BYTES))
        // The aggregator opens no stream; it answers on the one that we open.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(progress::Counting));
    if let Some(rtt) = last_rtt {
        // A first flight that is lost costs one timeout: of the link's size, not of a guess.
        transport.initial_rtt(rtt.clamp(Duration::from_millis(1), Duration::from_secs(1)));
    }
    transport
}

/// What the uplink has of the machine, beside its clock.
#[derive(Clone)]
pub struct Net {
    /// An endpoint of QUIC from which this address can be reached.
    pub open: Arc<dyn Fn(SocketAddr) -> std::io::Result<Endpoint> + Send + Sync>,
    /// Any 64 bits.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Whether the cursor is kept where the connection is driven, and not on a thread that may
    /// wait: for disks that never wait.
    pub saves_in_place: bool,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            open: Arc::new(endpoint),
            random: Arc::new(|| RandomState::new().hash_one(())),
            saves_in_place: false,
        }
    }
}

/// What connects, again and again: certificates are read afresh each time.
#[derive(Clone)]
pub struct Connector {
    targets: Vec<Target>,
    identity: Identity,
    /// The round trip to one of them.
    last_rtt: Option<(usize, Duration)>,
    net: Net,
}

impl Connector {
    /// A connector; nothing is opened or read yet.
    pub fn new(targets: Vec<Target>, identity: Identity, net: Net) -> Self {
        Self {
            net,
            targets,
            identity,
            last_rtt: None,
        }
    }

    /// Any 64 bits.
    pub fn random(&self) -> u64 {
        (self.net.random)()
    }

    /// Remembers the round trip to this one for the next first flight.
    pub fn remember_rtt(&mut self, at: usize, rtt: Duration) {
        self.last_rtt = Some((at, rtt));
    }

    /// A connection to this one, whose handshake is complete. With TLS 1.3 the aggregator may still
    /// refuse our certificate: only its `Welcome` means success.
    ///
    /// # Errors
    /// What stood in the way.
    pub async fn connect(&self, at: usize) -> Result<quinn::Connection, ConnectError> {
        let target = self.targets.get(at).ok_or(ConnectError::Nobody(at))?;
        let crypto = QuicClientConfig::try_from(tls(&self.identity)?)
            .map_err(|e| ConnectError::Tls(e.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        let last_rtt = self.last_rtt.filter(|(of, _)| *of == at);
        config.transport_config(Arc::new(transport(last_rtt.map(|(_, rtt)| rtt))));
        let resolving = tokio::time::timeout(HANDSHAKE_TIMEOUT, resolve(&target.address));
        let address = resolving.await.unwrap_or_else(|_| {
            let reason = "the resolver does not answer".to_owned();
            Err(ConnectError::Resolve {
                address: target.address.clone(),
                reason,
            })
        })?;
        let endpoint = (self.net.open)(address)?;
        let failed = |reason: String| ConnectError::Handshake {
            address: target.address.clone(),
            reason,
        };
        let connecting = endpoint
            .connect_with(config, address, target.name())
            .map_err(|e| failed(e.to_string()))?;
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Err(_) => Err(ConnectError::Timeout(target.address.clone())),
            Ok(Err(e)) => Err(failed(e.to_string())),
            Ok(Ok(connection)) => Ok(connection),
        }
    }
}

async fn resolve(address: &str) -> Result<SocketAddr, ConnectError> {
    let failed = |reason: String| ConnectError::Resolve {
        address: address.to_owned(),
        reason,
    };
    let mut found = tokio::net::lookup_host(address)
        .await
        .map_err(|e| failed(e.to_string()))?;
    found.next().ok_or_else(|| failed("no address".to_owned()))
}

fn endpoint(peer: SocketAddr) -> std::io::Result<Endpoint> {
    let local: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = udp_socket(local)?;
    let runtime = Arc::new(TokioRuntime);
    Endpoint::new(EndpointConfig::default(), None, socket, runtime)
}

/// A UDP socket with buffers that hold a burst; warns when the system grants less.
///
/// # Errors
/// When it can't be bound.
pub fn udp_socket(local: SocketAddr) -> Result<std::net::UdpSocket, std::io::Error> {
    let domain = socket2::Domain::for_address(local);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    socket.set_recv_buffer_size(UDP_BUFFER_BYTES)?;
    socket.set_send_buffer_size(UDP_BUFFER_BYTES)?;
    let granted = socket.recv_buffer_size()?.min(socket.send_buffer_size()?);
    if granted < UDP_BUFFER_BYTES {
        tracing::warn!(
            granted,
            wanted = UDP_BUFFER_BYTES,
            "UDP buffers are small: raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    Ok(socket.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::authority;

    #[test]
    fn every_missing_file_is_named_and_both_of_a_pair_that_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| authority::open_or_create(&dir.path().join(name)).unwrap();
        let (ours, other) = (of("ours"), of("other"));
        let mut identity = Identity {
            ca: ours.ca.clone(),
            certificate: ours.agent_certificate.clone(),
            key: ours.agent_key.clone(),
        };
        check(&identity).unwrap();
        identity.key = other.agent_key.clone();
        let wrong = check(&identity).unwrap_err();
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        let said = wrong[0].to_string();
        for path in [&identity.certificate, &identity.key] {
            assert!(said.contains(&path.display().to_string()), "{said}");
        }
        let missing = dir.path().join("missing");
        identity.ca = missing.join("ca.pem");
        identity.certificate = missing.join("agent.pem");
        identity.key = missing.join("agent.key");
        let said = format!("{:?}", check(&identity).unwrap_err());
        for name in ["ca.pem", "agent.pem", "agent.key"] {
            assert!(said.contains(name), "{said}");
        }
    }
}
