//! A series that rules look at, and where its readings go.

use crate::detect::watched::Subject;

/// A state that a series's readings go to, and as which of those that it looks at together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Feed {
    pub state: u32,
    pub input: u8,
}

/// A series that rules look at.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Channel {
    pub subject: Subject,
    /// In the order of the rules.
    pub feeds: Box<[Feed]>,
    /// Which one it is, of all that ever were.
    pub id: u64,
    /// When it was forgotten, in the order of forgetting; 0 while it is at hand.
    pub forgotten: u64,
}
