//! What is to happen in a run: decided before it begins, drawn from a seed, and written as text,
//! one fault a line. Whoever is not there any more is not hit: a plan stays one when parts of it
//! go.

mod draw;
mod text;

pub use text::PlanError;

use crate::net::Side;
use std::fmt;

/// What kind of trouble a plan is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Profile {
    /// Nothing breaks but what always does: few faults of any kind.
    Plain,
    /// Links are cut, half open, stalled, refused.
    Links,
    /// Links that come and go while the backlog is large: islands of live data.
    Islands,
    /// Spools give way.
    Sheds,
    /// The aggregator loses power, and its disk fails.
    Sites,
    /// Agents lose power.
    Agents,
    /// Links that are no QUIC: batches come twice, or damaged.
    Unfaithful,
    /// An agent goes on twice.
    Clone,
    /// Everything at once, but clones and journals that go back.
    Mixed,
    /// The aggregator's journal goes back: its disk lied, or an older copy took its place.
    Tails,
    /// Several aggregators that can't be reached, are slow or die: agents go from one to another,
    /// and return.
    Failover,
    /// Aggregators whose journals are lost or go back, and some that are gone for good.
    LostJournal,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 12] = [
        Self::Plain,
        Self::Links,
        Self::Islands,
        Self::Sheds,
        Self::Sites,
        Self::Agents,
        Self::Unfaithful,
        Self::Clone,
        Self::Mixed,
        Self::Tails,
        Self::Failover,
        Self::LostJournal,
    ];

    /// Whether agents have a list of aggregators, and each of these takes in what others hold.
    pub fn knows_several(self) -> bool {
        matches!(self, Self::Failover | Self::LostJournal)
    }
}

/// One thing that breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The agent's connection ends, and both ends learn of it.
    Cut {
        /// Whose.
        agent: usize,
    },
    /// One end of the agent's connection takes it for lost; the other goes on.
    HalfOpen {
        /// Whose.
        agent: usize,
        /// The end that knows.
        knows: Side,
    },
    /// Nothing arrives at this side of the agent's link.
    Stall {
        /// Whose link.
        agent: usize,
        /// Where nothing arrives.
        to: Side,
        /// How long.
        us: i64,
    },
    /// Dials fail.
    Refuse {
        /// Whose.
        agent: usize,
        /// How long.
        us: i64,
    },
    /// Each next session is cut when it has lasted a while.
    Flap {
        /// Whose.
        agent: usize,
        /// How often.
        times: u32,
        /// How long each of them lasts.
        every_us: i64,
    },
    /// The next batches arrive twice.
    Double {
        /// Whose.
        agent: usize,
        /// How many.
        batches: u32,
    },
    /// The next batch is damaged on its way.
    Damage {
        /// Whose.
        agent: usize,
    },
    /// The spool gives up its oldest readings, and a gap stands for them.
    Shed {
        /// Whose.
        agent: usize,
        /// Numbers, at most.
        numbers: u64,
    },
    /// The agent loses power.
    CrashAgent {
        /// Which.
        agent: usize,
        /// Whether what it trimmed since its cursor was kept is back.
        back: bool,
        /// How long it is down.
        down_us: i64,
    },
    /// The agent goes on twice from here: a machine that was resumed twice.
    Clone {
        /// Which.
        agent: usize,
    },
    /// An aggregator loses power.
    CrashSite {
        /// Which.
        site: usize,
        /// Whether the frame that was being written is durable; nobody was told of it.
        kept: bool,
        /// How long it is down.
        down_us: i64,
    },
    /// The next appends of a journal fail.
    FailAppends {
        /// Whose.
        site: usize,
        /// How many.
        times: u32,
        /// Whether such a frame stands on the disk all the same, and is found after a loss of power
        /// if nothing was written behind it.
        kept: bool,
    },
    /// A journal takes long for each frame.
    SlowSite {
        /// Which aggregator's.
        site: usize,
        /// How long this goes on.
        us: i64,
    },
    /// An aggregator's disk lied: with the next loss of power the last frames are gone, though
    /// they were acknowledged. What an agent has still, it sends again; the rest it tells.
    LoseTail {
        /// Whose.
        site: usize,
        /// How many frames.
        frames: u32,
    },
    /// The aggregator loses power and its journal: it begins another one.
    LoseJournal {
        /// Which.
        site: usize,
        /// How long it is down.
        down_us: i64,
    },
    /// The aggregator never comes back, unless it is the last one that would.
    Gone {
        /// Which.
        site: usize,
    },
    /// Agent and aggregator can't reach each other.
    Part {
        /// Which agent.
        agent: usize,
        /// Which aggregator.
        site: usize,
        /// How long.
        us: i64,
    },
}

/// How large a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Agents.
    pub agents: usize,
    /// Aggregators.
    pub sites: usize,
    /// Batches that each of them seals.
    pub batches: u32,
    /// Microseconds between two of them.
    pub every_us: i64,
    /// Bytes of a batch, at most.
    pub batch_bytes: u64,
    /// Bytes a second that a link carries.
    pub rate: u64,
    /// Batches that the aggregator lets be under way.
    pub window: u32,
}

/// A run, before it begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Where everything comes from that the plan does not say.
    pub seed: u64,
    /// What it is about.
    pub profile: Profile,
    /// How large it is.
    pub shape: Shape,
    /// What breaks, and when: microseconds since the run began, ascending.
    pub faults: Vec<(i64, Fault)>,
    /// When everything is mended.
    pub heal_at: i64,
}

impl Plan {
    /// Whether it holds a fault like this.
    pub fn has(&self, like: impl Fn(&Fault) -> bool) -> bool {
        self.faults.iter().any(|(_, fault)| like(fault))
    }

    /// Whether an agent goes on twice in it.
    pub fn has_clone(&self) -> bool {
        self.has(|fault| matches!(fault, Fault::Clone { .. }))
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
