//! The QUIC endpoint: TLS with client certificates, limits against abusive peers, socket buffers.
//! It accepts nothing by itself.

use super::reset::endpoint_config;
use crate::limits::{
    BIDI_STREAMS_MAX, CRYPTO_BUFFER_BYTES, IDLE_SECONDS_MAX, INCOMING_BUFFER_BYTES,
    INCOMING_BUFFER_TOTAL_BYTES, INCOMING_MAX, RECEIVE_WINDOW_BYTES, SOCKET_BUFFER_BYTES,
    STREAM_WINDOW_BYTES, UNI_STREAMS_MAX,
};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The protocol's name in TLS.
pub const ALPN: &[u8] = b"tributary/1";

/// Where certificates and keys lie, as PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// CA that agents' certificates must come from.
    pub ca: PathBuf,
    /// Our certificate, and what leads from it to the agents' trust.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A PEM file cannot be used.
    #[error("{what} {}: {reason}", path.display())]
    Pem {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The pieces do not fit each other.
    #[error("certificate {} and key do not make a TLS server: {reason}", cert.display())]
    Tls {
        /// The certificate.
        cert: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The address is taken.
    #[error(
        "uplink address {addr}/udp is in use: stop what listens there, or set another one as \
         `address` under [uplink] (port 0 takes a free one)"
    )]
    InUse {
        /// The address.
        addr: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on uplink address {addr}/udp: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, EndpointError> {
    let wrong = |reason: String| EndpointError::Pem {
        what,
        path: path.to_owned(),
        reason,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong(error.to_string()))?
        .collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("it holds no CERTIFICATE".to_owned()));
    }
    Ok(found)
}

fn private_key(files: &TlsFiles) -> Result<PrivateKeyDer<'static>, EndpointError> {
    PrivateKeyDer::from_pem_file(&files.key).map_err(|error| EndpointError::Pem {
        what: "key",
        path: files.key.clone(),
        reason: error.to_string(),
    })
}

/// TLS 1.3 with a client certificate of our CA required.
///
/// # Errors
/// Which file cannot be used, and why.
pub fn tls_config(files: &TlsFiles) -> Result<rustls::ServerConfig, EndpointError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = |reason: String| EndpointError::Tls {
        cert: files.cert.clone(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA", &files.ca)? {
        roots.add(certificate).map_err(|error| EndpointError::Pem {
            what: "CA",
            path: files.ca.clone(),
            reason: error.to_string(),
        })?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| tls(error.to_string()))?;
    let chain = certificates("certificate", &files.cert)?;
    let key = private_key(files)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| tls(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| tls(error.to_string()))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = Duration::from_secs(IDLE_SECONDS_MAX);
    transport
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS_MAX))
        .datagram_receive_buffer_size(None)
        .crypto_buffer_size(CRYPTO_BUFFER_BYTES)
        .max_idle_timeout(Some(
            idle.try_into().expect("a minute fits QUIC's idle timeout"),
        ));
    transport
}

/// How an aggregator with these files listens, whatever the socket.
///
/// # Errors
/// Which file cannot be used, and why.
pub fn configs(files: &TlsFiles) -> Result<(EndpointConfig, ServerConfig), EndpointError> {
    let tls = tls_config(files)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| EndpointError::Tls {
        cert: files.cert.clone(),
        reason: error.to_string(),
    })?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport()))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL_BYTES)
        .migration(true);
    let key = private_key(files)?;
    Ok((endpoint_config(key.secret_der()), config))
}

/// An endpoint that listens on `addr`.
///
/// # Errors
/// What cannot be used, and what to do.
pub fn endpoint(addr: SocketAddr, files: &TlsFiles) -> Result<Endpoint, EndpointError> {
    let (endpoint_config, server_config) = configs(files)?;
    let bind = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => EndpointError::InUse { addr },
        _ => EndpointError::Bind { addr, source },
    };
    let socket = socket(addr).map_err(bind)?;
    let runtime = Arc::new(TokioRuntime);
    Endpoint::new(endpoint_config, Some(server_config), socket, runtime).map_err(bind)
}

fn socket(addr: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    let (receive, send) = (socket.recv_buffer_size()?, socket.send_buffer_size()?);
    // Linux reports twice what it grants.
    if receive < SOCKET_BUFFER_BYTES || send < SOCKET_BUFFER_BYTES {
        tracing::warn!(
            receive,
            send,
            wanted = SOCKET_BUFFER_BYTES,
            "the system clamps the UDP socket's buffers: packets will be lost at many agents; \
             raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}
