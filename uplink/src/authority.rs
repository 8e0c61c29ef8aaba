//! A certificate authority for one machine or a trial: made once, it signs one agent and one
//! aggregator. What is enrolled for real comes from the aggregator's own authority.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tributary_protocol::ids::{AgentId, AgentUuid};

/// The trust domain of certificates for one machine.
pub const TRUST_DOMAIN: &str = "tributary.local";
/// The tenant of an agent on one machine.
pub const TENANT: &str = "default";

/// Years that a certificate for one machine is good for.
const YEARS: i32 = 10;

/// Where the files of an authority are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityFiles {
    /// The authority's certificate: what both ends trust.
    pub ca: PathBuf,
    /// The agent's certificate.
    pub agent_certificate: PathBuf,
    /// The agent's private key.
    pub agent_key: PathBuf,
    /// The aggregator's certificate.
    pub aggregator_certificate: PathBuf,
    /// The aggregator's private key.
    pub aggregator_key: PathBuf,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file or folder can't be made or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder is there, but not whole.
    #[error(
        "{} is missing: put it back, or remove the whole folder {} to start with a new identity \
         (what the old one still has to send stays in its buffer)",
        missing.display(), dir.display()
    )]
    Missing {
        /// The file.
        missing: PathBuf,
        /// The folder.
        dir: PathBuf,
    },
    /// A certificate can't be made.
    #[error("certificate for {subject}: {reason}")]
    Certificate {
        /// For whom.
        subject: &'static str,
        /// Why.
        reason: String,
    },
}

impl AuthorityFiles {
    fn at(dir: &Path) -> Self {
        Self {
            ca: dir.join("ca.pem"),
            agent_certificate: dir.join("agent.pem"),
            agent_key: dir.join("agent.key"),
            aggregator_certificate: dir.join("aggregator.pem"),
            aggregator_key: dir.join("aggregator.key"),
        }
    }

    fn all(&self) -> [&PathBuf; 5] {
        [
            &self.ca,
            &self.agent_certificate,
            &self.agent_key,
            &self.aggregator_certificate,
            &self.aggregator_key,
        ]
    }
}

/// The authority in `dir`, made there when the folder does not exist. The aggregator's certificate
/// is good for `localhost` and the loopback addresses; keys are readable by their owner alone.
///
/// # Errors
/// When the folder can't be made, or is not whole.
pub fn open_or_create(dir: &Path) -> Result<AuthorityFiles, AuthorityError> {
    let files = AuthorityFiles::at(dir);
    if !dir.exists() {
        create(dir)?;
    }
    let missing = files.all().into_iter().find(|path| !path.exists()).cloned();
    match missing {
        Some(missing) => Err(AuthorityError::Missing {
            missing,
            dir: dir.to_owned(),
        }),
        None => Ok(files),
    }
}

/// Makes all files beside `dir` first, so that the folder is there whole or not at all.
fn create(dir: &Path) -> Result<(), AuthorityError> {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let fresh = dir.with_file_name(name);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| AuthorityError::Io { path, source }
    };
    fs::create_dir_all(&fresh).map_err(io(&fresh))?;
    let pems = generate()?;
    for (file, pem, secret) in pems {
        let path = fresh.join(file);
        write_file(&path, &pem, secret).map_err(io(&path))?;
    }
    sync_dir(&fresh).map_err(io(&fresh))?;
    fs::rename(&fresh, dir).map_err(io(dir))?;
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty());
    sync_dir(parent.unwrap_or(Path::new("."))).map_err(io(dir))
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

fn write_file(path: &Path, pem: &str, secret: bool) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mode = if secret { 0o600 } else { 0o644 };
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()
}

/// (file name, PEM, whether it is a secret) of everything that the authority consists of.
fn generate() -> Result<[(&'static str, String, bool); 6], AuthorityError> {
    let ca_key = key("the authority")?;
    let mut ca = params("Tributary authority of this machine");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_pem = ca
        .self_signed(&ca_key)
        .map_err(failed("the authority"))?
        .pem();
    let ca_key_pem = ca_key.serialize_pem();
    let issuer = Issuer::new(ca, ca_key);

    let agent_key = key("the agent")?;
    let mut agent = params("agent");
    // The key is random, and so is its hash: an id that no other agent has.
    let hash = blake3_16(agent_key.public_key_raw());
    let id = AgentId::new(TENANT, AgentUuid(hash)).map_err(failed("the agent"))?;
    let uri = id
        .spiffe(TRUST_DOMAIN)
        .try_into()
        .map_err(failed("the agent"))?;
    agent.subject_alt_names = vec![SanType::URI(uri)];
    agent.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let agent_pem = agent
        .signed_by(&agent_key, &issuer)
        .map_err(failed("the agent"))?
        .pem();

    let server_key = key("the aggregator")?;
    let mut server = params("aggregator");
    let localhost = "localhost".try_into().map_err(failed("the aggregator"))?;
    server.subject_alt_names = vec![
        SanType::DnsName(localhost),
        SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
        SanType::IpAddress(std::net::Ipv6Addr::LOCALHOST.into()),
    ];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_pem = server
        .signed_by(&server_key, &issuer)
        .map_err(failed("the aggregator"))?
        .pem();
    Ok([
        ("ca.pem", ca_pem, false),
        ("ca.key", ca_key_pem, true),
        ("agent.pem", agent_pem, false),
        ("agent.key", agent_key.serialize_pem(), true),
        ("aggregator.pem", server_pem, false),
        ("aggregator.key", server_key.serialize_pem(), true),
    ])
}

fn failed<E: ToString>(subject: &'static str) -> impl Fn(E) -> AuthorityError {
    move |e| AuthorityError::Certificate {
        subject,
        reason: e.to_string(),
    }
}

fn key(subject: &'static str) -> Result<KeyPair, AuthorityError> {
    KeyPair::generate().map_err(failed(subject))
}

fn blake3_16(bytes: &[u8]) -> [u8; 16] {
    tributary_protocol::ids::BatchHash::of(bytes)
        .addend()
        .to_le_bytes()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    // A year of 365.2425 days is exact enough for a validity that begins a year early.
    let year = 1970 + i32::try_from(seconds / 31_556_952).unwrap_or(0);
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + YEARS, 1, 1);
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_made_once_and_its_keys_are_secret() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let dir = dir.path().join("pki");
        let files = open_or_create(&dir).expect("made");
        let before = fs::read(&files.ca).expect("readable");
        assert_eq!(open_or_create(&dir).expect("there"), files);
        assert_eq!(fs::read(&files.ca).expect("readable"), before);
        for name in ["ca.key", "agent.key", "aggregator.key"] {
            let mode = fs::metadata(dir.join(name))
                .expect("there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        fs::remove_file(&files.agent_key).expect("removed");
        let error = open_or_create(&dir).expect_err("not whole").to_string();
        assert!(error.contains("agent.key is missing"), "{error}");
    }
}
