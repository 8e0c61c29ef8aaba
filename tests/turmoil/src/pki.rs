//! Certificates whose sizes are always the same: Ed25519, and serial numbers that are given.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, SerialNumber,
};
use std::path::{Path, PathBuf};
use tributary_aggregator::TlsFiles;
use tributary_protocol::ids::AgentId;
use tributary_uplink::Identity;
use tributary_uplink::authority::TRUST_DOMAIN;

type Made<T> = Result<T, Box<dyn std::error::Error>>;

/// The name of the aggregator.
pub const SERVER_NAME: &str = "site";

/// Files for an aggregator and its agents.
pub struct Pki {
    /// The aggregator's.
    pub site: TlsFiles,
    /// Each agent's.
    pub agents: Vec<Identity>,
    // They go with it.
    _dir: tempfile::TempDir,
}

fn keep(dir: &Path, name: &str, text: &str) -> Made<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

fn numbered(mut params: CertificateParams, number: u64) -> CertificateParams {
    params.serial_number = Some(SerialNumber::from(number));
    params
}

impl Pki {
    /// An authority, and certificates of it.
    pub fn new(agents: &[AgentId]) -> Made<Self> {
        let dir = tempfile::tempdir()?;
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = numbered(CertificateParams::default(), 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = keep(dir.path(), "ca.pem", &params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);
        let signed = |name: &str, params: CertificateParams| -> Made<(PathBuf, PathBuf)> {
            let key = KeyPair::generate_for(&PKCS_ED25519)?;
            let certificate = params.signed_by(&key, &issuer)?;
            let at = |kind: &str, text: &str| keep(dir.path(), &format!("{name}.{kind}"), text);
            Ok((
                at("pem", &certificate.pem())?,
                at("key", &key.serialize_pem())?,
            ))
        };
        let mut params = numbered(CertificateParams::new(vec![SERVER_NAME.to_owned()])?, 2);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (cert, key) = signed("site", params)?;
        let mut identities = Vec::new();
        for (agent, number) in agents.iter().zip(3..) {
            let mut params = numbered(CertificateParams::default(), number);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.subject_alt_names = vec![SanType::URI(agent.spiffe(TRUST_DOMAIN).try_into()?)];
            let (certificate, key) = signed(&format!("agent{number}"), params)?;
            identities.push(Identity {
                ca: ca.clone(),
                certificate,
                key,
            });
        }
        let site = TlsFiles { ca, cert, key };
        Ok(Self {
            site,
            agents: identities,
            _dir: dir,
        })
    }
}
