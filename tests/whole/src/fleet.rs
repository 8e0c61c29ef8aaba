//! Many seeds of the whole on many threads, until one of them fails.

use crate::oracle::{Stats, Violation};
use crate::plan::{Plan, Profile};
use crate::world;
use std::collections::BTreeMap;
use tributary_world::fleet::Seeds;

/// A run that shows something that must not be.
#[derive(Clone, Debug)]
pub struct Found {
    /// What was run.
    pub plan: Plan,
    /// What must not be.
    pub violation: Violation,
}

/// What came of a sweep.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// How many seeds were run.
    pub runs: u64,
    /// What happened in them.
    pub stats: Stats,
    /// How often their plans had each kind of fault.
    pub faults: BTreeMap<String, u64>,
    /// The failure of the lowest seed.
    pub found: Option<Found>,
}

impl Swept {
    /// Both together.
    fn and(self, other: Self) -> Self {
        let mut found: Vec<Found> = self.found.into_iter().chain(other.found).collect();
        found.sort_by_key(|found| found.plan.seed);
        let mut faults = self.faults;
        for (kind, count) in other.faults {
            *faults.entry(kind).or_default() += count;
        }
        Self {
            runs: self.runs + other.runs,
            stats: self.stats.and(other.stats),
            faults,
            found: found.into_iter().next(),
        }
    }
}

/// The plan of a seed, about this if anything is given.
pub fn plan(seed: u64, profile: Option<Profile>) -> Plan {
    match profile {
        None => Plan::draw(seed),
        Some(profile) => Plan::draw_as(seed, profile),
    }
}

/// Runs seeds until all are done, one fails, or it is enough. `begin` is called on each thread.
pub fn sweep(
    seeds: Seeds,
    profile: Option<Profile>,
    begin: &(impl Fn() + Sync),
    enough: &(impl Fn() -> bool + Sync),
) -> Swept {
    let run = |seed| {
        let plan = plan(seed, profile);
        let outcome = world::run(&plan, false);
        let found = outcome.violation;
        let mut faults = BTreeMap::new();
        for (_, fault) in &plan.faults {
            *faults.entry(fault.kind()).or_default() += 1;
        }
        Swept {
            runs: 1,
            stats: outcome.stats,
            faults,
            found: found.map(|violation| Found { plan, violation }),
        }
    };
    let is_found = |swept: &Swept| swept.found.is_some();
    seeds.run(run, Swept::and, is_found, begin, enough)
}
