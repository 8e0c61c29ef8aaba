//! Certificates of a site, and bad ones to put in their place. `tributary_uplink::authority` makes
//! the good ones; what is wrong on purpose is made here.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};
use std::path::{Path, PathBuf};
use tributary_protocol::ids::{AgentId, AgentUuid};
use tributary_uplink::authority::{self, TENANT, TRUST_DOMAIN};

/// The files that one end is configured with.
#[derive(Clone, Debug)]
pub struct End {
    /// Whom it trusts.
    pub ca: PathBuf,
    /// Its certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl End {
    fn at(dir: &Path) -> Self {
        let [ca, certificate, key] = ["ca.pem", "own.pem", "own.key"].map(|name| dir.join(name));
        Self {
            ca,
            certificate,
            key,
        }
    }

    /// Puts the contents of another end's files into ours.
    pub fn become_like(&self, other: &Self) {
        std::fs::create_dir_all(self.ca.parent().unwrap()).unwrap();
        for (from, to) in [
            (&other.ca, &self.ca),
            (&other.certificate, &self.certificate),
            (&other.key, &self.key),
        ] {
            std::fs::copy(from, to).unwrap();
        }
    }
}

/// The certificates of a site: the ends' configured files, and what can be put into them.
#[derive(Clone, Debug)]
pub struct Pki {
    /// What the agent is configured with; good at first.
    pub agent: End,
    /// What the aggregator is configured with; good.
    pub aggregator: End,
    /// A good agent.
    pub good: End,
    /// An agent of an authority that the aggregator doesn't know, and that trusts only that.
    pub foreign: End,
    /// An agent of the right authority, whose certificate is over.
    pub expired: End,
}

impl Pki {
    /// Makes them all below `dir`.
    pub fn create(dir: &Path) -> Self {
        let pki = dir.join("pki");
        std::fs::create_dir_all(&pki).unwrap();
        let files = authority::open_or_create(&pki.join("foreign")).unwrap();
        let foreign = End {
            ca: files.ca,
            certificate: files.agent_certificate,
            key: files.agent_key,
        };
        let (good, expired, aggregator) = own_authority(&pki);
        let agent = End::at(&pki.join("agent"));
        agent.become_like(&good);
        Self {
            agent,
            aggregator,
            good,
            foreign,
            expired,
        }
    }
}

/// (good agent, the same agent with a certificate that is over, aggregator) of one authority.
fn own_authority(dir: &Path) -> (End, End, End) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let end = |name: &str, params: CertificateParams| {
        let end = End::at(&dir.join(name));
        std::fs::create_dir_all(end.ca.parent().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(&end.ca, &ca_pem).unwrap();
        std::fs::write(&end.certificate, certificate.pem()).unwrap();
        std::fs::write(&end.key, key.serialize_pem()).unwrap();
        end
    };
    let id = AgentId::new(TENANT, AgentUuid([7; 16])).unwrap();
    let uri = id.spiffe(TRUST_DOMAIN);
    let mut agent = CertificateParams::default();
    agent.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    agent.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut over = agent.clone();
    (over.not_before, over.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut aggregator = CertificateParams::new(names).unwrap();
    aggregator.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (
        end("good", agent),
        end("expired", over),
        end("aggregator", aggregator),
    )
}
