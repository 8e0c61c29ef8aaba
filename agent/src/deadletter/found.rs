//! Which messages the log of dead letters held already when it was opened: a replay brings them
//! once more, and each is kept once.

use super::Letter;
use crate::limits::{LETTERS_COMPARED, LETTERS_STEP, LETTERS_STEP_BYTES};
use crate::seal::Origin;
use std::collections::BTreeMap;
use std::ops::Range;
use tributary_journal::{Entry, LifeId, LogError, LogReader};

/// Messages by their origin, those side by side together: where only dead letters came, they are
/// one run, and where readings came between them, those were sealed before long.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// By the first of a run: the number behind its last.
    runs: BTreeMap<Origin, u64>,
}

impl Found {
    /// What a replay may bring again: the letters whose message no lane covers, `covered` being the
    /// first such message.
    ///
    /// Letters are nearly in the order of their messages, but one that could not be sealed comes
    /// behind others that are newer. So it is these letters that are looked for, and no letter is
    /// taken for known because a newer one is. A letter is durable before a lane covers its
    /// message: behind the first covered one, going back, there are none that are not, but for the
    /// one that was written as its lane was sealed. `LETTERS_COMPARED` are looked at.
    pub(super) fn read(reader: &LogReader, covered: Option<Origin>) -> Self {
        let mut found = Self::default();
        let mut below = 0;
        for span in reader.lives().into_iter().rev() {
            let mut end = span.end;
            while end > span.first {
                let first = span.first.max(end.saturating_sub(LETTERS_STEP));
                for entry in letters(reader, span.life, first..end).iter().rev() {
                    let letter = Letter::read(&entry.bytes);
                    let origin = letter.map(|letter| letter.origin);
                    match origin.filter(|origin| covered.is_none_or(|to| *origin >= to)) {
                        Some(origin) => {
                            found.insert(origin);
                            below = 0;
                        }
                        None => below += 1,
                    }
                }
                if below >= LETTERS_COMPARED {
                    return found;
                }
                end = first;
            }
        }
        found
    }

    pub(crate) fn holds(&self, origin: Origin) -> bool {
        let run = self.runs.range(..=origin).next_back();
        run.is_some_and(|(first, end)| first.buffer == origin.buffer && origin.number < *end)
    }

    fn insert(&mut self, origin: Origin) {
        if self.holds(origin) {
            return;
        }
        let Origin { buffer, number } = origin;
        let next = Origin {
            buffer,
            number: number + 1,
        };
        let end = self.runs.remove(&next).unwrap_or(next.number);
        let before = self.runs.range_mut(..origin).next_back();
        match before.filter(|(first, end)| first.buffer == buffer && **end == number) {
            Some((_, before)) => *before = end,
            None => {
                self.runs.insert(origin, end);
            }
        }
    }
}

/// The letters of one life with these numbers, as far as they can be read.
pub(super) fn letters(reader: &LogReader, life: LifeId, mut numbers: Range<u64>) -> Vec<Entry> {
    let mut all = Vec::new();
    while !numbers.is_empty() {
        let mut entries = Vec::new();
        let read = reader.read(life, numbers.start, LETTERS_STEP_BYTES, &mut entries);
        entries.retain(|entry| entry.number < numbers.end);
        numbers.start = match (read, entries.last()) {
            (Ok(()), Some(last)) => last.number + 1,
            (Err(LogError::Damaged { numbers: bad, .. }), _) => bad.end.max(numbers.start + 1),
            _ => numbers.end,
        };
        all.append(&mut entries);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_protocol::ids::BufferId;

    #[test]
    fn runs_hold_exactly_what_was_put_in() {
        let at = |life, number| Origin {
            buffer: BufferId::new(life, 1),
            number,
        };
        let mut found = Found::default();
        for number in [7, 5, 6, 9, 5, 0, 8] {
            found.insert(at(1, number));
        }
        found.insert(at(2, 10));
        let held: Vec<u64> = (0..20).filter(|n| found.holds(at(1, *n))).collect();
        assert_eq!(held, [0, 5, 6, 7, 8, 9]);
        assert_eq!(found.runs.len(), 3);
        let held: Vec<u64> = (0..20).filter(|n| found.holds(at(2, *n))).collect();
        assert_eq!(held, [10]);
    }
}
