//! What a step showed: whether a rule was broken, and which of the things happened that a scope has
//! to have in it.

use crate::rule::Rule;

/// Something that has to happen somewhere in a scope, or the scope shows little.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Happened {
    /// A batch was held already.
    Replay,
    /// A second copy shared the outcome of the first.
    Shared,
    /// A batch of a fenced session was refused.
    Stale,
    /// A batch was held with another hash.
    Conflict,
    /// A batch was held with a hash that was not known any more, and it was another.
    Trusted,
    /// A frame was not written.
    Aborted,
    /// Numbers were declared lost.
    Declared,
    /// A gap found some of its numbers held as data.
    GapBesideData,
    /// What was trimmed was back after a loss of power.
    CameBack,
    /// A frame was durable that nobody was told of.
    Untold,
    /// A batch went out marked as in doubt.
    Marked,
    /// A batch waited for another aggregator, and for long enough.
    Waited,
    /// A run of `Welcome` named what was not acknowledged here.
    Learned,
}

impl Happened {
    /// Everything that can happen.
    pub const ALL: [Self; 13] = [
        Self::Replay,
        Self::Shared,
        Self::Stale,
        Self::Conflict,
        Self::Trusted,
        Self::Aborted,
        Self::Declared,
        Self::GapBesideData,
        Self::CameBack,
        Self::Untold,
        Self::Marked,
        Self::Waited,
        Self::Learned,
    ];
}

/// What a step showed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// The first rule that was broken.
    pub broken: Option<Rule>,
    /// What happened.
    pub happened: Vec<Happened>,
}

impl Seen {
    /// Notes that a rule must hold here.
    pub fn must(&mut self, rule: Rule, holds: bool) {
        if !holds {
            self.broken.get_or_insert(rule);
        }
    }

    /// Notes that something happened.
    pub fn note(&mut self, what: Happened) {
        self.happened.push(what);
    }
}
