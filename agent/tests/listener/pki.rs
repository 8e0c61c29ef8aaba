//! Certificates for tests: an authority, a server, and devices that should and should not get in.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rumqttc::tokio_rustls::rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion, crypto::ring, version,
};
use std::path::PathBuf;
use std::sync::Arc;
use tributary_agent::source::tls::{ClientCertificates, TlsConfig};

/// A certificate and its key, in PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

pub struct Pki {
    pub dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    ca: String,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Pki {
    pub fn new() -> Self {
        Self::of("authority of a test")
    }

    pub fn of(authority: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut ca = params(authority);
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = ca.self_signed(&key).unwrap().pem();
        let pki = Self {
            dir: tempfile::tempdir().unwrap(),
            issuer: Issuer::new(ca, key),
            ca: pem,
        };
        pki.write("ca.pem", &pki.ca);
        pki.put_server();
        pki
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Makes a new certificate for the server, and puts it in the place of the old one.
    pub fn put_server(&self) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut server = CertificateParams::new(names).unwrap();
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let pair = self.sign(server);
        self.write("server.pem", &pair.certificate);
        self.write("server.key", &pair.key);
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair {
            certificate,
            key: key.serialize_pem(),
        }
    }

    pub fn device(&self, name: &str) -> Pair {
        self.sign(params(name))
    }

    pub fn numbered(&self, name: &str, serial: u64) -> Pair {
        let mut device = params(name);
        device.serial_number = Some(SerialNumber::from(serial));
        self.sign(device)
    }

    pub fn expired(&self, name: &str) -> Pair {
        let mut device = params(name);
        device.not_before = date_time_ymd(2001, 1, 1);
        device.not_after = date_time_ymd(2002, 1, 1);
        self.sign(device)
    }

    /// A list of what was taken back.
    pub fn put_revoked(&self, serials: &[u64]) {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap();
        self.write("revoked.pem", &list.pem().unwrap());
    }

    /// TLS of the listener, which asks no client for a certificate.
    pub fn tls(&self) -> TlsConfig {
        TlsConfig {
            address: "127.0.0.1:0".parse().unwrap(),
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            clients: None,
        }
    }

    /// TLS of the listener, which asks every client for a certificate.
    pub fn mutual_tls(&self, publish: &str) -> TlsConfig {
        let clients = ClientCertificates {
            ca: self.path("ca.pem"),
            revoked: None,
            required: true,
            publish: vec![publish.to_owned()],
            read: false,
        };
        TlsConfig {
            clients: Some(clients),
            ..self.tls()
        }
    }

    /// What a client uses.
    pub fn client(&self, pair: Option<&Pair>) -> Arc<ClientConfig> {
        self.client_of(pair, &[&version::TLS13, &version::TLS12])
    }

    pub fn client_of(
        &self,
        pair: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let Some(pair) = pair else {
            return Arc::new(builder.with_no_client_auth());
        };
        let chain = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        Arc::new(builder.with_client_auth_cert(vec![chain], key).unwrap())
    }
}
