//! When which state has something to say although nothing comes: one entry a state at most.
//!
//! An entry is early or right, never late: it is moved when it is due earlier, and looked at again
//! when its time has come, so that a silence that every reading puts off costs nothing for each.

use std::collections::BTreeSet;

/// No time.
pub(super) const NEVER: i64 = i64::MAX;

/// Times, with the places of states.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Due(BTreeSet<(i64, u32)>);

impl Due {
    /// The earliest.
    pub fn first(&self) -> Option<(i64, u32)> {
        self.0.first().copied()
    }

    /// Moves a state's entry from `entered`, which becomes `due`. [`NEVER`] is no entry.
    pub fn put(&mut self, entered: &mut i64, due: i64, state: u32) {
        if *entered != NEVER {
            self.0.remove(&(*entered, state));
        }
        if due != NEVER {
            self.0.insert((due, state));
        }
        *entered = due;
    }
}
