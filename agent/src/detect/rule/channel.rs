//! A series that rules look at, and where its readings go.

use crate::detect::watched::Subject;
use std::sync::Arc;

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

/// How a series's slot stands to what is watched.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Bound {
    Unknown,
    /// No rule is for it.
    Free,
    /// There was no room; how often room had been made then.
    Refused(u64),
    /// The place of its channel, and which one that is.
    Channel(u32, u64),
}

impl Channel {
    /// Bytes of a channel, of its entries in maps, and of its name.
    pub fn bytes(&self) -> usize {
        let name = self.subject.text().len() + 2 * size_of::<usize>();
        let entries = size_of::<Bound>() + 2 * size_of::<(Arc<str>, u32)>();
        size_of::<Option<Self>>() + size_of_val(&*self.feeds) + name + entries
    }
}
