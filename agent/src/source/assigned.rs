//! Identifiers for clients that come without one: 128 bits that nobody can guess, so that nobody
//! takes over the session, or the connection, of a client that was told its own.

use rustls::crypto::ring;
use std::fmt;

/// What they are made from: random, of this process alone.
#[derive(Clone)]
pub(super) struct Assigned([u8; 32]);

impl fmt::Debug for Assigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Assigned")
    }
}

/// The system has no randomness.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the system gives no random numbers, which identifiers of clients are made from")]
pub struct NoRandomness;

impl Assigned {
    pub(super) fn new() -> Result<Self, NoRandomness> {
        let mut key = [0; 32];
        let random = ring::default_provider().secure_random;
        random.fill(&mut key).map_err(|_| NoRandomness)?;
        Ok(Self(key))
    }

    /// The identifier of the connection with this number: a keyed hash, which tells nothing of
    /// another one's to whoever does not know the key.
    pub(super) fn of(&self, number: u64) -> u128 {
        let hash = blake3::keyed_hash(&self.0, &number.to_le_bytes());
        let (first, _) = hash.as_bytes().split_first_chunk().expect("32 bytes");
        u128::from_le_bytes(*first)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_are_the_same_nor_alike_and_no_two_processes_give_the_same() {
        let (one, other) = (Assigned::new().unwrap(), Assigned::new().unwrap());
        let mut all = HashSet::new();
        for number in 0..1_000 {
            let next = one.of(number);
            assert_eq!(next, one.of(number));
            // 64 differ on average, with a standard deviation below 6.
            let differ = (next ^ one.of(number + 1)).count_ones();
            assert!((10..118).contains(&differ), "{differ} bits");
            assert!(all.insert(next) && all.insert(other.of(number)));
        }
        assert!(!format!("{one:?}").contains(|c: char| c.is_ascii_digit()));
    }
}
