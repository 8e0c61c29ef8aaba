//! What must hold, by name, what a run counts, and how a violation is told. It judges nothing.

use std::fmt;

/// What an oracle holds the product to. Numbers are never used again; those left out are for the
/// world of whole agents and aggregators.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Invariant {
    /// What left a spool is in a journal, as it was sealed or declared; what a journal lost after
    /// that is told.
    I1,
    /// Nothing is in the journal that nobody sealed or gave up.
    I2,
    /// Nothing is declared lost without a cause in the plan.
    I3,
    /// At the end each lane is held without a hole, and each ledger that knows of others sees none.
    I4,
    /// A number is in a journal once: data or gap.
    I5,
    /// The ledger never goes back: whatever was said to be held is durable, and stays so.
    I6,
    /// Hash sums agree: ledger and journal, and what an agent knows of them.
    I7,
    /// When all is mended, all drains.
    I8,
    /// Bounds: holes, batches under way.
    I10,
    /// An honest agent is never refused on its newest connection.
    I11,
    /// A batch that two journals took is marked as in doubt in one of them, and none is marked
    /// without a cause.
    I13,
    /// An answer is durable at the instant at which it is given.
    I14,
    /// No panic.
    I15,
}

/// Something that must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// What does not hold.
    pub invariant: Invariant,
    /// How it shows.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.what)
    }
}

/// How often something happened: a run in which nothing did shows nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Batches sealed.
    pub sealed: u64,
    /// Numbers held as data.
    pub stored: u64,
    /// Numbers held as declared losses.
    pub declared: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Batches that were held already.
    pub replays: u64,
    /// Batches whose first copy was being written.
    pub shared: u64,
    /// Batches of a session that another had fenced.
    pub stale: u64,
    /// Batches whose series were unknown.
    pub unknown: u64,
    /// Batches whose append failed.
    pub aborted: u64,
    /// Batches held with another hash.
    pub conflicts: u64,
    /// Starts of agents and of the aggregator.
    pub restarts: u64,
    /// Batches that came back after they were trimmed.
    pub came_back: u64,
    /// Holes of a lane, the most that there were.
    pub holes: u64,
    /// Numbers that a lying disk lost after they had left the spool.
    pub excused: u64,
    /// Batches of a twin that were acknowledged for another content under their number, whose hash
    /// the ledger did not know any more.
    pub trusted: u64,
    /// Acknowledgements of a doubled batch that were taken for those of a gap under its number.
    pub confused: u64,
    /// Sessions with another aggregator than the one before.
    pub switches: u64,
    /// Batches that were sent marked as in doubt.
    pub marked: u64,
    /// Batches that two journals took.
    pub twice: u64,
    /// Numbers that a journal took with it when it was lost, after they had left the spool.
    pub gone: u64,
    /// Numbers that a journal lost whose agent did not come back there, so that nobody noticed.
    pub unaware: u64,
    /// Numbers that an aggregator alone had that is gone for good, and no agent has any more.
    pub with_it: u64,
    /// Numbers of which an agent said that they are lost.
    pub told: u64,
    /// Events.
    pub events: u64,
}

impl Stats {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            sealed: self.sealed + other.sealed,
            stored: self.stored + other.stored,
            declared: self.declared + other.declared,
            sessions: self.sessions + other.sessions,
            replays: self.replays + other.replays,
            shared: self.shared + other.shared,
            stale: self.stale + other.stale,
            unknown: self.unknown + other.unknown,
            aborted: self.aborted + other.aborted,
            conflicts: self.conflicts + other.conflicts,
            restarts: self.restarts + other.restarts,
            came_back: self.came_back + other.came_back,
            holes: self.holes.max(other.holes),
            excused: self.excused + other.excused,
            trusted: self.trusted + other.trusted,
            confused: self.confused + other.confused,
            switches: self.switches + other.switches,
            marked: self.marked + other.marked,
            twice: self.twice + other.twice,
            gone: self.gone + other.gone,
            unaware: self.unaware + other.unaware,
            with_it: self.with_it + other.with_it,
            told: self.told + other.told,
            events: self.events + other.events,
        }
    }
}
