//! What is lost and found no room to be declared: the cursor goes on saying so, until it is.

use super::CursorBody;
use std::collections::BTreeMap;
use std::ops::Range;
use tributary_protocol::ids::{BatchHash, LaneKey};
use tributary_protocol::ranges::HeldRanges;

/// Of each lane what is owed, and what is known of its other numbers.
#[derive(Debug, Default)]
pub(super) struct Owed(BTreeMap<LaneKey, (HeldRanges, HeldRanges)>);

impl Owed {
    /// These are lost, and not declared.
    pub(super) fn owe(&mut self, body: &CursorBody, key: LaneKey, numbers: Range<u64>) {
        if numbers.is_empty() {
            return;
        }
        let of = self.0.entry(key);
        let (owed, _) = of.or_insert_with(|| (HeldRanges::new(), body.accounted(key)));
        owed.insert_missing(numbers.start, numbers.end, BatchHash([0; 32]));
    }

    /// Makes a cursor say of the lanes what the one before said: a start finds them missing.
    pub(super) fn stays_in(&mut self, body: &mut CursorBody) {
        for (key, (owed, known)) in &mut self.0 {
            for run in body.accounted(*key).iter() {
                known.insert_missing(run.first, run.end, BatchHash([0; 32]));
            }
            for run in owed.iter() {
                known.remove(run.first, run.end);
                body.takes_out(*key, run.first..run.end);
            }
            for run in known.iter() {
                body.knows_acked(*key, run.first..run.end);
            }
            let end = body.ends.entry(*key).or_default();
            *end = owed.end().max(*end);
        }
    }
}
