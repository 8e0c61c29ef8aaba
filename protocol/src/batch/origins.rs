//! Of which message each row of a batch is. Only a batch that covers messages of an earlier life
//! says so: others may hold some of them already, and then the rest has to be told apart.

use super::{BufferId, Cover, SealedBatch};
use std::ops::Range;

/// What a sealer is told of the messages of rows, beside what is covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Told<'a> {
    /// For each row, as it is given, the place of its message among those that are covered, counted
    /// through all covers; empty: it is not said.
    pub messages: &'a [u64],
    /// Whether other batches of the lane hold readings of the same messages, too.
    pub shared: bool,
}

impl SealedBatch {
    /// Whether it says of which message each row is.
    pub fn tells_messages(&self) -> bool {
        self.origins.is_some()
    }

    /// The message of each row, in their order, where it says so: its life, and its number there.
    pub fn messages(&self) -> Option<Vec<(BufferId, u64)>> {
        let end = count(&self.covers)?;
        let told = self.told_origins()?;
        let places = read(told, (self.head.rows as usize, end))?;
        let message = |place| message(&self.covers, place);
        places.into_iter().map(message).collect()
    }

    pub(super) fn told_origins(&self) -> Option<&[u8]> {
        let Range { start, end } = self.origins.clone()?;
        self.bytes.get(start as usize..end as usize)
    }

    /// Whether other batches of its lane hold readings of the messages that it covers, too.
    pub fn is_shared(&self) -> bool {
        self.shared
    }
}

/// How many messages are covered; nothing when they are too many to count.
pub(super) fn count(covers: &[Cover]) -> Option<u64> {
    let mut counts = covers.iter().map(|cover| cover.count);
    counts.try_fold(0, u64::checked_add)
}

/// The message at a place among those that are covered.
pub(super) fn message(covers: &[Cover], place: u64) -> Option<(BufferId, u64)> {
    let mut left = place;
    for cover in covers {
        if left < cover.count {
            return Some((cover.buffer, cover.first + left));
        }
        left -= cover.count;
    }
    None
}

/// Places as bytes.
pub(super) fn write(places: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * places.len());
    let mut before = 0;
    for place in places {
        let step = place.wrapping_sub(before) as i64;
        let mut rest = ((step << 1) ^ (step >> 63)) as u64;
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        before = *place;
    }
    bytes
}

/// What [`write`] wrote: `rows` places below `end`; nothing when they are other, or more, or fewer.
pub(super) fn read(bytes: &[u8], (rows, end): (usize, u64)) -> Option<Vec<u64>> {
    let mut places = Vec::with_capacity(rows.min(bytes.len()));
    let (mut value, mut shift, mut at) = (0u64, 0, 0u64);
    for byte in bytes {
        if shift > 63 || places.len() == rows {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let step = (value >> 1) ^ (value & 1).wrapping_neg();
            at = at.wrapping_add(step);
            if at >= end {
                return None;
            }
            places.push(at);
            (value, shift) = (0, 0);
        }
    }
    (shift == 0 && places.len() == rows).then_some(places)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_come_back(places in proptest::collection::vec(0u64..1 << 62, 0..60)) {
            let bytes = write(&places);
            let rows = places.len();
            prop_assert_eq!(read(&bytes, (rows, 1 << 62)), Some(places.clone()));
            prop_assert_eq!(read(&bytes, (rows + 1, 1 << 62)), None);
            if let Some(most) = places.iter().max() {
                prop_assert_eq!(read(&bytes, (rows, *most)), None);
                prop_assert_eq!(read(&bytes, (rows - 1, 1 << 62)), None);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, rows in 0usize..40, end: u64) {
            let read = read(&bytes, (rows, end));
            prop_assert!(read.is_none_or(|places| places.len() == rows));
        }
    }

    #[test]
    fn places_are_counted_through_all_covers() {
        let cover = |life, first, count| Cover {
            buffer: BufferId::new(life, 1),
            first,
            count,
        };
        let covers = [cover(1, 40, 3), cover(2, 9, 0), cover(3, 0, 5)];
        assert_eq!(count(&covers), Some(8));
        assert_eq!(message(&covers, 2), Some((BufferId::new(1, 1), 42)));
        assert_eq!(message(&covers, 3), Some((BufferId::new(3, 1), 0)));
        assert_eq!(message(&covers, 8), None);
        assert_eq!(count(&[cover(1, 0, u64::MAX), cover(2, 0, 1)]), None);
    }
}
