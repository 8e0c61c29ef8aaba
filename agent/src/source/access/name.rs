//! Whom a client's certificate names. It checks no signature: rustls did, against the CA.

use super::users::is_user_name;
use crate::limits::CLIENT_CERTIFICATE_BYTES_MAX;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a certificate names nobody.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Too large to be looked at.
    #[error("a certificate of {0} bytes; at most {CLIENT_CERTIFICATE_BYTES_MAX} are read")]
    TooLarge(usize),
    /// Not X.509.
    #[error("it cannot be parsed: {0}")]
    Parse(String),
    /// No name, or none that a user can have.
    #[error("it has no URI, no DNS name and no common name that a user can have")]
    Nobody,
}

/// The user that a certificate names: the first URI among its alternative names; without one, the
/// first DNS name there; without alternative names of these kinds, the subject's common name.
///
/// # Errors
/// Why it names nobody. A name that nobody can have is not passed over for the next one.
pub fn user_of(der: &[u8]) -> Result<String, NameError> {
    if der.len() > CLIENT_CERTIFICATE_BYTES_MAX {
        return Err(NameError::TooLarge(der.len()));
    }
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| NameError::Parse(error.to_string()))?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| NameError::Parse(error.to_string()))?;
    let names = names.map(|extension| extension.value.general_names.as_slice());
    let names = names.unwrap_or_default();
    let uri = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let dns = names.iter().find_map(|name| match name {
        GeneralName::DNSName(dns) => Some(*dns),
        _ => None,
    });
    let mut common = certificate.subject().iter_common_name();
    let common = common.next().and_then(|name| name.as_str().ok());
    let name = uri.or(dns).or(common).filter(|name| is_user_name(name));
    name.map(str::to_owned).ok_or(NameError::Nobody)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn der(common: Option<&str>, names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_most_exact_name_counts() {
        let uri = || SanType::URI("spiffe://example.org/pump/7".try_into().unwrap());
        let dns = || SanType::DnsName("pump-7.example.org".try_into().unwrap());
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        let all = der(Some("pump-7"), vec![dns(), uri()]);
        assert_eq!(user_of(&all).unwrap(), "spiffe://example.org/pump/7");
        let named = der(Some("pump-7"), vec![dns()]);
        assert_eq!(user_of(&named).unwrap(), "pump-7.example.org");
        assert_eq!(
            user_of(&der(Some("pump-7"), vec![address])).unwrap(),
            "pump-7"
        );
        assert_eq!(user_of(&der(None, vec![])), Err(NameError::Nobody));
    }

    #[test]
    fn hostile_names_are_nobody() {
        for name in ["a\nb", "", "a\u{0}", &"x".repeat(300)] {
            assert_eq!(
                user_of(&der(Some(name), vec![])),
                Err(NameError::Nobody),
                "{name:?}"
            );
        }
        for bytes in [&b""[..], b"0", &[0x30; 100]] {
            assert!(matches!(user_of(bytes), Err(NameError::Parse(_))));
        }
        let large = vec![0; CLIENT_CERTIFICATE_BYTES_MAX + 1];
        assert_eq!(user_of(&large), Err(NameError::TooLarge(large.len())));
    }
}
