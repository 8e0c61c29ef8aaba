//! Passwords: as they come, and as they are kept. Argon2id by RFC 9106, in PHC strings.

use crate::limits::{
    ARGON2_LANES, ARGON2_LANES_MAX, ARGON2_MEMORY_KIB, ARGON2_MEMORY_KIB_MAX, ARGON2_PASSES,
    ARGON2_PASSES_MAX, PASSWORD_BYTES_MAX,
};
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use std::fmt;
use zeroize::Zeroize;

/// A password as it came: never shown, and wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl Password {
    /// Takes the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it can be one: neither empty nor longer than any.
    pub fn is_usable(&self) -> bool {
        (1..=PASSWORD_BYTES_MAX).contains(&self.0.len())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Why a password's hash is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HashError {
    /// Not a PHC string with salt and hash.
    #[error("is no PHC string with salt and hash, as `tributary-agent user passwd` writes it")]
    Format,
    /// Another function.
    #[error("is made by `{0}`; only argon2id, argon2i and argon2d are known")]
    Function(String),
    /// Too cheap to be one, or so dear that it would stop the gateway.
    #[error(
        "asks for m={memory_kib},t={passes},p={lanes}; at most \
         m={ARGON2_MEMORY_KIB_MAX},t={ARGON2_PASSES_MAX},p={ARGON2_LANES_MAX} are computed here"
    )]
    Cost {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
    /// The system gives no random salt, or the function fails.
    #[error("cannot be made: {0}")]
    Make(String),
}

/// A password as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Hashed(PasswordHash);

impl fmt::Debug for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashed")
    }
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, ARGON2_LANES, None);
    let params = params.expect("parameters that limits.rs relates are good");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

impl Hashed {
    /// Hashes a password with a new salt. Takes tens of milliseconds, on purpose.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn of(password: &Password) -> Result<Self, HashError> {
        let made = argon2().hash_password(password.bytes());
        made.map(Self)
            .map_err(|error| HashError::Make(error.to_string()))
    }

    /// Reads a PHC string; its parameters must be affordable.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        let hash = PasswordHash::new(text).map_err(|_| HashError::Format)?;
        let function = hash.algorithm.as_str();
        if Algorithm::try_from(function).is_err() {
            return Err(HashError::Function(function.to_owned()));
        }
        if hash.salt.is_none() || hash.hash.is_none() {
            return Err(HashError::Format);
        }
        let params = Params::try_from(&hash).map_err(|_| HashError::Format)?;
        let (memory_kib, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
        if memory_kib > ARGON2_MEMORY_KIB_MAX
            || passes > ARGON2_PASSES_MAX
            || lanes > ARGON2_LANES_MAX
        {
            return Err(HashError::Cost {
                memory_kib,
                passes,
                lanes,
            });
        }
        Ok(Self(hash))
    }

    /// Whether this is the password. Takes tens of milliseconds, on purpose.
    pub fn is(&self, password: &Password) -> bool {
        argon2().verify_password(password.bytes(), &self.0).is_ok()
    }
}

impl fmt::Display for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::new(text.as_bytes().to_vec())
    }

    #[test]
    fn a_hash_knows_its_password_and_no_other() {
        let hashed = Hashed::of(&password("correct horse")).unwrap();
        let text = hashed.to_string();
        assert!(text.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{text}");
        let read = Hashed::parse(&text).unwrap();
        assert!(read == hashed);
        assert!(read.is(&password("correct horse")));
        assert!(!read.is(&password("correct horsf")));
        assert!(!read.is(&password("")));
        let again = Hashed::of(&password("correct horse")).unwrap();
        assert!(again != hashed, "a salt of its own");
    }

    #[test]
    fn hashes_that_others_made_are_taken_within_bounds() {
        // From the argon2 command line tool: echo -n password | argon2 somesalt -id -t 2 -k 8192
        let text = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$\
                    CTFhFdXPJO1aFaMaO6Mm5c8y7cJHApz8ArZHAHRk0Uk";
        assert!(Hashed::parse(text).is_ok());
        for (text, error) in [
            ("", HashError::Format),
            ("secret", HashError::Format),
            ("$argon2id$v=19$m=7168,t=5,p=1", HashError::Format),
            (
                "$argon2id$v=19$m=7168,t=5,p=1$c29tZXNhbHQ",
                HashError::Format,
            ),
        ] {
            assert_eq!(Hashed::parse(text).unwrap_err(), error, "{text}");
        }
        let bcrypt = text.replace("argon2id", "scrypt");
        assert!(matches!(
            Hashed::parse(&bcrypt),
            Err(HashError::Function(_))
        ));
        let dear = text.replace("65536", "4194304");
        let error = Hashed::parse(&dear).unwrap_err();
        assert!(matches!(
            error,
            HashError::Cost {
                memory_kib: 4_194_304,
                ..
            }
        ));
    }

    #[test]
    fn nothing_shows_a_password() {
        let secret = password("hunter2");
        assert_eq!(format!("{secret:?}"), "Password");
        assert_eq!(format!("{:?}", Hashed::of(&secret).unwrap()), "Hashed");
    }
}
