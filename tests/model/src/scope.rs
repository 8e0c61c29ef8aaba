//! How large a model is: what there is of everything, and how often what may break.

/// The bounds of one exhaustive search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// What it is called.
    pub name: &'static str,
    /// Aggregators, each with a journal and a ledger.
    pub sites: usize,
    /// Batches that the agent seals, of all its lives.
    pub batches: u64,
    /// Bytes of each: many of them make it worth a hole to send live data first.
    pub batch_bytes: u64,
    /// Batches that an aggregator lets be under way.
    pub window: u32,
    /// Whether another machine sealed a batch under the first number of all, and it was stored.
    pub twin: bool,
    /// How often what may happen.
    pub left: Left,
}

/// How often something may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Left {
    /// Connections that the agent begins.
    pub dials: u8,
    /// Connections that are lost.
    pub losses: u8,
    /// Losses of the agent's power.
    pub agent_crashes: u8,
    /// Losses of an aggregator's power.
    pub site_crashes: u8,
    /// Frames that a journal does not take.
    pub failed_appends: u8,
    /// Times that the spool gives way to new data.
    pub sheds: u8,
}

impl Left {
    /// Nothing but connections.
    const fn dials(dials: u8) -> Self {
        Self {
            dials,
            losses: 0,
            agent_crashes: 0,
            site_crashes: 0,
            failed_appends: 0,
            sheds: 0,
        }
    }
}

/// One aggregator, two batches, and once everything that breaks.
pub const ONE: Scope = Scope {
    name: "one ledger",
    sites: 1,
    batches: 2,
    batch_bytes: 0,
    window: 2,
    twin: false,
    left: Left {
        losses: 1,
        agent_crashes: 1,
        site_crashes: 1,
        failed_appends: 1,
        sheds: 1,
        ..Left::dials(2)
    },
};

/// As many batches as it takes for one to lie between two others.
pub const THREE: Scope = Scope {
    name: "one ledger, three batches",
    batches: 3,
    window: 3,
    left: Left {
        losses: 1,
        site_crashes: 1,
        sheds: 1,
        ..Left::dials(2)
    },
    ..ONE
};

/// Batches that are worth a hole: what is sealed last is sent first.
pub const ISLANDS: Scope = Scope {
    name: "one ledger, live data first",
    batches: 3,
    batch_bytes: 150_000,
    left: Left {
        losses: 1,
        agent_crashes: 1,
        site_crashes: 1,
        ..Left::dials(2)
    },
    ..ONE
};

/// Another machine with the same identity was there before.
pub const TWIN: Scope = Scope {
    name: "one ledger, a twin was there",
    twin: true,
    left: Left {
        losses: 1,
        agent_crashes: 1,
        site_crashes: 1,
        sheds: 1,
        ..Left::dials(2)
    },
    ..ONE
};

/// Two aggregators between which the agent goes as it likes.
pub const TWO: Scope = Scope {
    name: "two ledgers",
    sites: 2,
    left: Left {
        losses: 1,
        agent_crashes: 1,
        ..Left::dials(2)
    },
    ..ONE
};

/// The same with a connection more.
pub const TWO_AGAIN: Scope = Scope {
    name: "two ledgers, three connections",
    left: Left {
        dials: 3,
        ..TWO.left
    },
    ..TWO
};

/// What `.ci/run` checks.
pub const CHECKED: [Scope; 5] = [ONE, THREE, ISLANDS, TWIN, TWO];

/// What `cargo xtask prove model` checks beside that.
pub const PROVED: [Scope; 5] = [
    Scope {
        name: "one ledger, three connections",
        left: Left {
            dials: 3,
            ..ONE.left
        },
        ..ONE
    },
    Scope {
        name: "one ledger, three batches, an agent without power",
        left: Left {
            agent_crashes: 1,
            site_crashes: 0,
            ..THREE.left
        },
        ..THREE
    },
    Scope {
        name: "two ledgers, once everything that breaks",
        left: Left {
            losses: 1,
            agent_crashes: 1,
            site_crashes: 1,
            sheds: 1,
            ..Left::dials(2)
        },
        ..TWO
    },
    Scope {
        name: "two ledgers, there and back, and data given up",
        left: Left {
            losses: 2,
            sheds: 1,
            ..Left::dials(3)
        },
        ..TWO
    },
    Scope {
        name: "two ledgers, three connections, an agent without power",
        left: Left {
            losses: 1,
            agent_crashes: 1,
            sheds: 1,
            ..Left::dials(3)
        },
        ..TWO
    },
];
