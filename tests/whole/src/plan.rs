//! What is to happen in a run of the whole: decided before it begins, drawn from a seed, written as
//! text, one fault a line. Whoever is not there any more is not hit.

mod draw;
mod shrink;
mod text;

pub use shrink::shrink;

use std::fmt;
use tributary_agent::spool::Policy;
use tributary_journal::Survival;
use tributary_journal::sim_disk::{After, FileClass};
use tributary_world::net::Side;

/// What kind of trouble a plan is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Profile {
    /// Few faults of any kind.
    Plain,
    /// Links are cut, half open, stalled, refused.
    Links,
    /// Power cuts and kills of the aggregator.
    Sites,
    /// The aggregator's disk fails, and is full.
    SiteDisk,
    /// The lake's store fails, and the power goes at its changes.
    Stores,
    /// Power cuts and kills of agents.
    Agents,
    /// Disks of agents fail, and are full.
    AgentDisk,
    /// Connections of devices are cut.
    Doors,
    /// Rules that change from one life of an agent to the next.
    Rules,
    /// Everything at once.
    Mixed,
    /// Spools that are too small for how long nothing leaves them.
    Spools,
    /// Bits flip on the disks of agents.
    AgentBits,
    /// Bits flip on the aggregator's disk.
    SiteBits,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 13] = [
        Self::Plain,
        Self::Links,
        Self::Sites,
        Self::SiteDisk,
        Self::Stores,
        Self::Agents,
        Self::AgentDisk,
        Self::Doors,
        Self::Rules,
        Self::Mixed,
        Self::Spools,
        Self::AgentBits,
        Self::SiteBits,
    ];
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Node {
    /// The agent at this place.
    Agent(usize),
    /// The aggregator.
    Site,
}

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// The machine loses power.
    Power(Survival),
    /// It is killed, and the machine goes on.
    Kill,
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
    /// The next batches arrive twice: the link is no QUIC.
    Double {
        /// Whose.
        agent: usize,
        /// How many.
        batches: u32,
    },
    /// A process ends.
    Down {
        /// Whose.
        node: Node,
        /// When: as so many operations of its disk.
        after: After,
        /// How.
        how: How,
        /// How long it is down.
        down_us: i64,
    },
    /// The next syncs of a disk fail.
    FailSyncs {
        /// Whose.
        node: Node,
        /// How many.
        times: u32,
    },
    /// The next syncs of directories fail.
    FailDirSyncs {
        /// Whose.
        node: Node,
        /// How many.
        times: u32,
    },
    /// The next writes fail.
    FailWrites {
        /// Whose.
        node: Node,
        /// How many.
        times: u32,
    },
    /// The next writes to an agent's log of gaps fail.
    FailGaps {
        /// Whose.
        agent: usize,
        /// How many.
        times: u32,
    },
    /// An agent's process ends as it writes to its log of gaps.
    GapsDown {
        /// Whose.
        agent: usize,
        /// At which write from now on, which is not made.
        write: u32,
        /// How.
        how: How,
        /// How long it is down.
        down_us: i64,
    },
    /// The disk has no room.
    Full {
        /// Whose.
        node: Node,
        /// How long.
        us: i64,
    },
    /// A bit flips.
    Flip {
        /// On whose disk.
        node: Node,
        /// In what.
        class: FileClass,
    },
    /// A wall clock jumps.
    Clock {
        /// Whose.
        node: Node,
        /// By so much; back when it is less than nothing.
        us: i64,
    },
    /// The connection of a device is cut.
    DoorCut {
        /// Whose.
        agent: usize,
        /// Which.
        device: usize,
    },
    /// An agent reads by other rules from its next start on.
    Rules {
        /// Which.
        agent: usize,
    },
    /// The keeper takes long for each turn.
    Slow {
        /// How long this goes on.
        us: i64,
    },
    /// The next changes of the store are not made.
    StoreRefuses {
        /// How many.
        times: u32,
    },
    /// The next changes of the store are made, and reported as failed.
    StoreUnheard {
        /// How many.
        times: u32,
    },
    /// The aggregator loses power at a change of its store.
    StorePower {
        /// At which from now on.
        changes: u64,
        /// Whether it is made.
        made: bool,
        /// How long it is down.
        down_us: i64,
    },
}

impl Fault {
    /// What breaks, and of whom: as it is written, without numbers.
    pub fn kind(&self) -> String {
        let text = self.to_string();
        let mut words = text.split_whitespace();
        let what = words.next().unwrap_or_default();
        let whose = words.next().unwrap_or_default();
        let whose = whose.trim_end_matches(|letter: char| letter.is_ascii_digit());
        match self {
            Self::Flip { class, .. } => format!("{what} {whose} {class:?}"),
            _ => format!("{what} {whose}").trim_end().to_owned(),
        }
    }
}

/// How large a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Agents.
    pub agents: usize,
    /// Batches that each of them makes up; none: they are whole, and have devices.
    pub made: u32,
    /// Devices of each of them.
    pub devices: usize,
    /// Messages that each device publishes.
    pub messages: u32,
    /// Microseconds between two batches, or messages.
    pub every_us: i64,
    /// Bytes a second that a link carries.
    pub rate: u64,
    /// Microseconds that an entry of the journal waits for its flush, at most.
    pub flush_us: i64,
    /// Bytes of a segment of the journal.
    pub journal: u64,
    /// Small segments of each lane of the spool; none: as large as ever.
    pub spool: u64,
    /// What gives way when they are full.
    pub policy: Policy,
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
}
