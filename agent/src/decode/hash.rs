//! A 64-bit hash over a message, kept in checkpoints: it must give the same for ever.
//!
//! Not a proof of anything: it only tells a repeat from other content where the device's sequence
//! number is equal too. Folded multiplication over 8-byte words, as in wyhash.

const K0: u64 = 0xa076_1d64_78bd_642f;
const K1: u64 = 0xe703_7ed1_a0b4_28db;

fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

fn absorb(mut state: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state ^ K0, u64::from_le_bytes(*word) ^ K1);
    }
    let mut tail = [0u8; 8];
    for (to, from) in tail.iter_mut().zip(rest) {
        *to = *from;
    }
    // The length tells a tail of zeros from none, and a topic's end from a payload's start.
    fold(
        state ^ K1 ^ bytes.len() as u64,
        u64::from_le_bytes(tail) ^ K0,
    )
}

/// The hash of a message: topic and payload, and where one ends.
pub fn message_hash(topic: &str, payload: &[u8]) -> u64 {
    absorb(absorb(K1, topic.as_bytes()), payload)
}

#[cfg(test)]
mod tests {
    use super::message_hash;

    #[test]
    fn it_gives_the_same_for_ever() {
        // These values stand in checkpoints on disk: never change them.
        assert_eq!(message_hash("", b""), GOLDEN_EMPTY);
        assert_eq!(
            message_hash("plant/pump/t", b"{\"value\":21.5,\"seq\":7}"),
            GOLDEN_VALUE
        );
    }

    const GOLDEN_EMPTY: u64 = 2302960717771869484;
    const GOLDEN_VALUE: u64 = 362248247360968917;

    #[test]
    fn where_the_topic_ends_counts_and_so_does_every_bit() {
        assert_ne!(message_hash("ab", b"c"), message_hash("a", b"bc"));
        assert_ne!(message_hash("a", b"\0"), message_hash("a", b""));
        let base = *b"{\"value\":21.5,\"ts\":1700000000,\"seq\":7}";
        let mut seen = std::collections::HashSet::from([message_hash("t", &base)]);
        for bit in 0..base.len() * 8 {
            let mut other = base;
            if let Some(byte) = other.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            assert!(seen.insert(message_hash("t", &other)), "bit {bit}");
        }
    }
}
