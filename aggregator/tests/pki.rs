//! Certificates made for tests: an authority, an aggregator, agents good and bad.

use rcgen::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_aggregator::TlsFiles;
use tributary_protocol::ids::AgentId;

pub const TRUST_DOMAIN: &str = "site.example";

pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, DER.
pub struct Client {
    pub certificate: rustls::pki_types::CertificateDer<'static>,
    pub key: rustls::pki_types::PrivateKeyDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// Files for an aggregator that trusts this authority.
    pub fn server(&self, dir: &Path) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |name: &str, text: &str| -> PathBuf {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        TlsFiles {
            ca: file("ca.pem", &self.pem),
            cert: file("aggregator.pem", &certificate.pem()),
            key: file("aggregator.key", &key.serialize_pem()),
        }
    }

    fn client(&self, change: impl FnOnce(&mut CertificateParams)) -> Client {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Client {
            certificate: certificate.der().clone(),
            key,
        }
    }

    /// A good agent.
    pub fn agent(&self, agent: &AgentId) -> Client {
        self.client(|params| params.subject_alt_names = vec![uri(&agent.spiffe(TRUST_DOMAIN))])
    }

    /// An agent whose certificate ended long ago.
    pub fn expired(&self, agent: &AgentId) -> Client {
        self.client(|params| {
            params.subject_alt_names = vec![uri(&agent.spiffe(TRUST_DOMAIN))];
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        })
    }

    /// Somebody of our authority who is no agent.
    pub fn nobody(&self) -> Client {
        self.client(|params| params.subject_alt_names = vec![uri("spiffe://other/acme/agent/1")])
    }

    /// How a client of this certificate connects, trusting this authority.
    pub fn connector(&self, client: &Client) -> quinn::Endpoint {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        let der = rustls::pki_types::pem::PemObject::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(der).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![client.certificate.clone()], client.key.clone_key())
            .unwrap();
        tls.alpn_protocols = vec![b"tributary/1".to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        endpoint
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}
