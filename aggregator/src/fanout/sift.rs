//! Which rows of a refused chunk are refused: by halves. Pure.
//!
//! k rows of n cost about 2 k log2(n / k) attempts. Where a chunk has more than
//! [`SINK_REFUSED_MAX`], its first half is looked at alone; what a single batch has of them is
//! found whatever it costs, for nothing else would ever let the sink go on.

use crate::limits::SINK_REFUSED_MAX;
use std::ops::Range;

/// A search under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sift {
    /// Runs of rows to be attempted; the last one next.
    todo: Vec<Range<usize>>,
    found: Vec<(usize, String)>,
    most: usize,
}

/// What the search is at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sifted {
    /// These rows are to be attempted.
    Attempt(Range<usize>),
    /// These are the rows, with the reasons; none if it is not a matter of single rows.
    Done(Vec<(usize, String)>),
    /// Too many for a chunk that can be halved.
    TooMany,
}

impl Sift {
    /// A search among so many rows that were refused together; whether their chunk can be halved.
    pub fn new(rows: usize, reason: String, divisible: bool) -> Self {
        let mut sift = Self {
            todo: Vec::new(),
            found: Vec::new(),
            most: if divisible { SINK_REFUSED_MAX } else { rows },
        };
        sift.split(0..rows, reason);
        sift
    }

    fn split(&mut self, rows: Range<usize>, reason: String) {
        let middle = rows.start + rows.len() / 2;
        match rows.len() {
            0 => {}
            1 => self.found.push((rows.start, reason)),
            _ => self.todo.extend([middle..rows.end, rows.start..middle]),
        }
    }

    /// What is next.
    pub fn next(&self) -> Sifted {
        if self.found.len() > self.most {
            return Sifted::TooMany;
        }
        match self.todo.last() {
            Some(rows) => Sifted::Attempt(rows.clone()),
            None => Sifted::Done(self.found.clone()),
        }
    }

    /// The rows that were next are taken.
    pub fn taken(&mut self) {
        self.todo.pop();
    }

    /// They are refused.
    pub fn refused(&mut self, reason: String) {
        if let Some(rows) = self.todo.pop() {
            self.split(rows, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn exactly_the_refused_rows_are_found(
            rows in 1_usize..3_000,
            bad in proptest::collection::btree_set(0_usize..3_000, 1..20),
        ) {
            let bad: BTreeSet<usize> = bad.into_iter().map(|row| row % rows).collect();
            let mut sift = Sift::new(rows, "bad".to_owned(), false);
            let mut attempts = 0;
            let found = loop {
                match sift.next() {
                    Sifted::Attempt(rows) => {
                        attempts += 1;
                        match bad.range(rows).next() {
                            None => sift.taken(),
                            Some(_) => sift.refused("bad".to_owned()),
                        }
                    }
                    Sifted::Done(found) => break found,
                    Sifted::TooMany => panic!("there are {}", bad.len()),
                }
            };
            let found: BTreeSet<usize> = found.into_iter().map(|(row, _)| row).collect();
            prop_assert_eq!(&found, &bad);
            prop_assert!(attempts <= 2 * bad.len() * 12, "{} attempts", attempts);
        }
    }

    #[test]
    fn of_a_chunk_that_can_be_halved_not_every_row_is_asked_for() {
        let mut sift = Sift::new(1_000_000, "bad".to_owned(), true);
        let mut attempts = 0;
        while let Sifted::Attempt(_) = sift.next() {
            attempts += 1;
            sift.refused("bad".to_owned());
        }
        assert_eq!(sift.next(), Sifted::TooMany);
        assert!(attempts < 4 * SINK_REFUSED_MAX, "{attempts}");
    }
}
