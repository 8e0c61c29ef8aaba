//! TLS in front of the listener: what certificate is shown, and what is asked of clients. It reads
//! files and knows no socket; `stream` has one.

pub(super) mod handshakes;
pub(super) mod stream;

use crate::limits::CLIENT_CERTIFICATE_BYTES_MAX;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What ALPN calls MQTT. A client that names no protocol is as welcome.
const ALPN: &[u8] = b"mqtt";

/// Where to listen for TLS, and with what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsConfig {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Our certificate, and what leads from it to its authority: PEM.
    pub certificate: PathBuf,
    /// Its key: PEM.
    pub key: PathBuf,
    /// What is asked of clients.
    pub clients: Option<ClientCertificates>,
}

/// Certificates of clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertificates {
    /// Who signs them: PEM.
    pub ca: PathBuf,
    /// Which were taken back: PEM. With it, an authority of `ca` needs a list of its own.
    pub revoked: Option<PathBuf>,
    /// Whether a client must have one.
    pub required: bool,
    /// Where whoever has one may publish, without an entry in the file of users.
    pub publish: Vec<String>,
    /// Whether they may read what concerns devices that they may publish for.
    pub read: bool,
}

/// Why there is no TLS.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or bad.
    #[error("[source.listener.tls] `{key}`, {}: {reason}", path.display())]
    File {
        /// The setting.
        key: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Certificate and key are no pair.
    #[error(
        "[source.listener.tls]: the certificate in {} and the key in {} do not go together: \
         {reason}",
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
    #[error("[source.listener.tls]: {0}")]
    Setup(String),
}

/// Everything of the files, as rustls wants it.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub server: Arc<ServerConfig>,
    /// Until when our certificate is valid: seconds since 1970.
    pub not_after: i64,
    /// What tells one choice of authorities and revocations from another.
    pub trust: blake3::Hash,
}

fn file_error(key: &'static str, path: &Path, error: &pem::Error) -> TlsError {
    let reason = match error {
        pem::Error::Io(error) => format!("cannot be read: {error}"),
        pem::Error::NoItemsFound => format!("holds no {} in PEM", wanted(key)),
        error => format!("is not PEM: {error}"),
    };
    TlsError::File {
        key,
        path: path.to_owned(),
        reason,
    }
}

fn wanted(key: &str) -> &'static str {
    match key {
        "key" => "private key",
        "client_crl" => "certificate revocation list",
        _ => "certificate",
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(file_error(key, path, &pem::Error::NoItemsFound)),
        other => other.map_err(|error| file_error(key, path, &error)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| file_error("key", path, &error))
}

impl TlsConfig {
    /// The files that it names.
    pub fn files(&self) -> Vec<&Path> {
        let clients = self.clients.as_ref();
        let ca = clients.map(|clients| &clients.ca);
        let revoked = clients.and_then(|clients| clients.revoked.as_ref());
        let all = [Some(&self.certificate), Some(&self.key), ca, revoked];
        all.into_iter().flatten().map(PathBuf::as_path).collect()
    }

    /// Every file that is missing or bad, whether or not they go together.
    fn wrong_files(&self) -> Vec<TlsError> {
        let clients = self.clients.as_ref();
        let each = [
            certificates("certificate", &self.certificate).err(),
            private_key(&self.key).err(),
            clients.and_then(|clients| certificates("client_ca", &clients.ca).err()),
            clients.and_then(|clients| clients.revocations(&mut blake3::Hasher::new()).err()),
        ];
        each.into_iter().flatten().collect()
    }

    /// Reads the files.
    pub(super) fn load(&self) -> Result<Loaded, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates("certificate", &self.certificate)?;
        let key = private_key(&self.key)?;
        let not_after = chain.first().map_or(Ok(0), |first| self.not_after(first))?;
        let mut trust = blake3::Hasher::new();
        let verifier = match &self.clients {
            Some(clients) => clients.verifier(&provider, &mut trust)?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| TlsError::Setup(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| TlsError::Pair {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                reason: error.to_string(),
            })?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        if self.clients.is_some() {
            // A session that is taken up again would not have its certificate looked at again.
            server.send_tls13_tickets = 0;
        } else {
            // The client keeps the session; we keep one key for all.
            server.ticketer = rustls::crypto::ring::Ticketer::new()
                .map_err(|error| TlsError::Setup(error.to_string()))?;
            server.send_tls13_tickets = 1;
        }
        Ok(Loaded {
            server: Arc::new(server),
            not_after,
            trust: trust.finalize(),
        })
    }

    fn not_after(&self, der: &[u8]) -> Result<i64, TlsError> {
        let parsed = X509Certificate::from_der(der);
        let (_, certificate) = parsed.map_err(|error| TlsError::File {
            key: "certificate",
            path: self.certificate.clone(),
            reason: format!("holds no X.509 certificate: {error}"),
        })?;
        Ok(certificate.validity().not_after.timestamp())
    }
}

impl ClientCertificates {
    fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
        trust: &mut blake3::Hasher,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let wrong = |reason: String| TlsError::File {
            key: "client_ca",
            path: self.ca.clone(),
            reason,
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("client_ca", &self.ca)? {
            trust.update(&certificate);
            roots
                .add(certificate)
                .map_err(|error| wrong(format!("holds no authority: {error}")))?;
        }
        let builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let builder = builder.with_crls(self.revocations(trust)?);
        let builder = builder.only_check_end_entity_revocation();
        let builder = match self.required {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        builder.build().map_err(|error| wrong(error.to_string()))
    }

    fn revocations(
        &self,
        trust: &mut blake3::Hasher,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        let Some(path) = &self.revoked else {
            return Ok(Vec::new());
        };
        let lists = CertificateRevocationListDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let lists = lists.map_err(|error| file_error("client_crl", path, &error))?;
        if lists.is_empty() {
            return Err(file_error("client_crl", path, &pem::Error::NoItemsFound));
        }
        for list in &lists {
            trust.update(list);
        }
        Ok(lists)
    }
}

/// The TLS set-up as it is now: handshakes take what is newest.
#[derive(Debug)]
pub(super) struct Tls {
    config: TlsConfig,
    now: RwLock<Loaded>,
}

impl Tls {
    pub fn open(config: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self {
            config: config.clone(),
            now: RwLock::new(config.load()?),
        })
    }

    /// The same; on an error, everything that is wrong.
    pub fn check(config: &TlsConfig) -> Result<Self, Vec<TlsError>> {
        let wrong = config.wrong_files();
        if wrong.is_empty() {
            return Self::open(config).map_err(|error| vec![error]);
        }
        Err(wrong)
    }

    pub fn config(&self) -> &TlsConfig {
        &self.config
    }

    pub fn now(&self) -> Loaded {
        self.now
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the files again; on an error everything stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = self.config.load()?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }
}

/// A short stable word for why a handshake failed, as in metrics.
pub(super) fn failure(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as Certificate;
    use rustls::Error;
    match error {
        Error::InvalidMessage(_) => "no_tls",
        Error::NoCertificatesPresented => "certificate_missing",
        Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            "certificate_expired"
        }
        Error::InvalidCertificate(Certificate::Revoked) => "certificate_revoked",
        Error::InvalidCertificate(Certificate::UnknownIssuer) => "certificate_foreign",
        Error::InvalidCertificate(_) => "certificate_bad",
        Error::PeerIncompatible(_) => "incompatible",
        Error::AlertReceived(_) => "refused_by_client",
        Error::NoApplicationProtocol => "other_protocol",
        _ => "failed",
    }
}

const _: () = assert!(CLIENT_CERTIFICATE_BYTES_MAX < 64 * 1024);
