//! Which letters were put back: ranges of numbers by life of their log, which is what is left of
//! whole selections. Plain values.

use bytes::{Buf, BufMut};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use tributary_journal::{LifeId, LifeSpan};

/// What a dead letter is called for ever: its place in the log of dead letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LetterId {
    /// The life of the log.
    pub life: LifeId,
    /// The number in it.
    pub number: u64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.life, self.number)
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` names no letter: expected 32 digits, `-`, and a number");
        let (life, number) = text.split_once('-').ok_or_else(wrong)?;
        Ok(Self {
            life: life_of(life).ok_or_else(wrong)?,
            number: number.parse().map_err(|_| wrong())?,
        })
    }
}

fn life_of(text: &str) -> Option<LifeId> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = is_hex.then(|| u128::from_str_radix(text, 16).ok())??;
    Some(LifeId(id.to_be_bytes()))
}

/// Letters of one life that stand side by side.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LetterRange {
    life: String,
    first: u64,
    end: u64,
}

impl LetterRange {
    /// The letters `numbers` of `life`.
    pub fn new(life: LifeId, numbers: Range<u64>) -> Self {
        Self {
            life: life.to_string(),
            first: numbers.start,
            end: numbers.end,
        }
    }

    /// The life and the numbers; `None` when that is no life.
    pub fn read(&self) -> Option<(LifeId, Range<u64>)> {
        Some((life_of(&self.life)?, self.first..self.end))
    }
}

/// Letters that were put back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Done {
    /// Ranges that neither overlap nor touch, ascending.
    lives: BTreeMap<LifeId, Vec<Range<u64>>>,
}

impl Done {
    /// Whether this letter was put back.
    pub fn holds(&self, letter: LetterId) -> bool {
        let ranges = self.lives.get(&letter.life);
        ranges.is_some_and(|ranges| {
            let place = ranges.partition_point(|range| range.end <= letter.number);
            ranges
                .get(place)
                .is_some_and(|range| range.contains(&letter.number))
        })
    }

    /// Notes that this letter was put back.
    pub fn insert(&mut self, letter: LetterId) {
        self.insert_range(letter.life, letter.number..letter.number.saturating_add(1));
    }

    /// Notes that these letters were put back.
    pub fn insert_range(&mut self, life: LifeId, mut new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        let ranges = self.lives.entry(life).or_default();
        let from = ranges.partition_point(|range| range.end < new.start);
        let to = ranges.partition_point(|range| range.start <= new.end);
        for touched in ranges.drain(from..to.max(from)) {
            new = new.start.min(touched.start)..new.end.max(touched.end);
        }
        ranges.insert(from, new);
    }

    /// How many ranges there are: what it takes.
    pub fn ranges(&self) -> usize {
        self.lives.values().map(Vec::len).sum()
    }

    /// Forgets letters that are held no more.
    pub fn keep_only(&mut self, held: &[LifeSpan]) {
        self.lives.retain(|life, ranges| {
            let Some(span) = held.iter().find(|span| span.life == *life) else {
                return false;
            };
            ranges.retain(|range| range.end > span.first);
            !ranges.is_empty()
        });
    }

    /// Appends its bytes, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.lives.len() as u32);
        for (life, ranges) in &self.lives {
            out.put_slice(&life.0);
            out.put_u32_le(ranges.len() as u32);
            for range in ranges {
                out.put_u64_le(range.start);
                out.put_u64_le(range.end);
            }
        }
    }

    /// Takes its bytes off the front of `input`; `None` when they end too early.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let mut done = Self::default();
        for _ in 0..input.try_get_u32_le().ok()? {
            let (life, rest) = input.split_first_chunk()?;
            let life = LifeId(*life);
            *input = rest;
            for _ in 0..input.try_get_u32_le().ok()? {
                let first = input.try_get_u64_le().ok()?;
                let end = input.try_get_u64_le().ok()?;
                done.insert_range(life, first..end);
            }
        }
        Some(done)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn id(life: u8, number: u64) -> LetterId {
        LetterId {
            life: LifeId([life; 16]),
            number,
        }
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let letter = id(0xab, 17);
        assert_eq!(letter.to_string().parse(), Ok(letter));
        for text in [
            "",
            "17",
            "ab-17",
            &format!("{}x", id(1, 1)),
            &format!("-{}", id(1, 1)),
        ] {
            assert!(text.parse::<LetterId>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_holds_what_a_set_would(
            numbers in proptest::collection::vec((0u8..3, 0u64..40, 0u64..5), 0..40),
            first in 0u64..40,
        ) {
            let (mut done, mut set) = (Done::default(), BTreeSet::new());
            for (life, start, length) in numbers {
                done.insert_range(LifeId([life; 16]), start..start + length);
                set.extend((start..start + length).map(|number| (life, number)));
            }
            let mut bytes = Vec::new();
            done.write(&mut bytes);
            let mut input = bytes.as_slice();
            prop_assert_eq!(Done::read(&mut input), Some(done.clone()));
            prop_assert!(input.is_empty());
            let held = |done: &Done| {
                let all = (0..3u8).flat_map(|life| (0..50).map(move |number| (life, number)));
                all.filter(|(life, number)| done.holds(id(*life, *number))).collect::<BTreeSet<_>>()
            };
            prop_assert_eq!(held(&done), set.clone());
            let runs = set.iter().filter(|(life, number)| {
                number.checked_sub(1).is_none_or(|before| !set.contains(&(*life, before)))
            });
            prop_assert_eq!(done.ranges(), runs.count());
            // Letters of other lives are gone, and of this one below `first`, range by range.
            let span = LifeSpan { life: LifeId([1; 16]), first, end: 50 };
            done.keep_only(&[span]);
            for (life, number) in held(&done) {
                prop_assert!(life == 1 && set.contains(&(life, number)));
            }
            for (life, number) in set {
                prop_assert!(life != 1 || number < first || done.holds(id(life, number)));
            }
        }
    }
}
