//! Who a certificate says its holder is. It checks no signature: rustls did, against our CA.

use crate::limits::CERTIFICATE_BYTES_MAX;
use tributary_protocol::ids::AgentId;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// An agent, as its certificate names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The agent.
    pub agent: AgentId,
    /// The certificate's validity ends: seconds since 1970, UTC.
    pub not_after: i64,
}

/// Why a certificate names no agent of ours.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    /// None was sent.
    #[error("the peer sent no certificate")]
    Missing,
    /// Too large to be looked at.
    #[error("a certificate of {0} bytes; at most {CERTIFICATE_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not X.509.
    #[error("the peer's certificate cannot be parsed: {0}")]
    Parse(String),
    /// No URI, or several.
    #[error(
        "the certificate has {0} SAN URIs; expected one, \
         spiffe://<trust domain>/<tenant>/agent/<uuid>"
    )]
    Uris(usize),
    /// The URI is something else.
    #[error(
        "`{uri}` names no agent of trust domain `{trust_domain}`: expected \
         spiffe://{trust_domain}/<tenant>/agent/<uuid>"
    )]
    Uri {
        /// The URI.
        uri: String,
        /// What is ours.
        trust_domain: String,
    },
}

/// The agent that a certificate names.
///
/// # Errors
/// What is wrong with it.
pub fn identity(der: &[u8], trust_domain: &str) -> Result<Identity, IdentityError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(IdentityError::TooLarge(der.len()));
    }
    let parse = |error: String| IdentityError::Parse(error);
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| parse(error.to_string()))?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| parse(error.to_string()))?;
    let names = names.map(|extension| extension.value.general_names.as_slice());
    let uris = names
        .unwrap_or_default()
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    let uris: Vec<&str> = uris.collect();
    let [uri] = uris.as_slice() else {
        return Err(IdentityError::Uris(uris.len()));
    };
    let agent = agent_of(uri, trust_domain).ok_or_else(|| IdentityError::Uri {
        uri: uri.chars().take(256).collect(),
        trust_domain: trust_domain.to_owned(),
    })?;
    Ok(Identity {
        agent,
        not_after: certificate.validity().not_after.timestamp(),
    })
}

fn agent_of(uri: &str, trust_domain: &str) -> Option<AgentId> {
    let (domain, agent) = AgentId::from_spiffe(uri).ok()?;
    (domain == trust_domain).then_some(agent)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_an_agent_of_our_trust_domain_is_one() {
        let uuid = "00112233-4455-6677-8899-aabbccddeeff";
        let good = agent_of(
            &format!("spiffe://site.example/acme/agent/{uuid}"),
            "site.example",
        );
        assert_eq!(
            good.unwrap().to_string(),
            "acme/00112233445566778899aabbccddeeff"
        );
        for bad in [
            format!("spiffe://site.example.evil/acme/agent/{uuid}"),
            format!("spiffe://other/acme/agent/{uuid}"),
            format!("https://site.example/acme/agent/{uuid}"),
            format!("spiffe://site.example/acme/aggregator/{uuid}"),
            format!("spiffe://site.example/acme/agent/{uuid}/x"),
            format!("spiffe://site.example//agent/{uuid}"),
            "spiffe://site.example/acme/agent/7".to_owned(),
        ] {
            assert_eq!(agent_of(&bad, "site.example"), None, "{bad}");
        }
        assert!(matches!(
            identity(b"garbage", "x"),
            Err(IdentityError::Parse(_))
        ));
    }
}
