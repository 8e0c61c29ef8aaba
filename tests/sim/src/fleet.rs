//! Many seeds on many threads, until one of them fails. Which seeds are run depends on the count
//! alone; which failure is told is that of the lowest seed among those that were run.

use crate::plan::{Plan, Profile};
use crate::session::{self, Stats, Violation};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Seeds to run.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// The first.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// On how many threads.
    pub threads: usize,
    /// What they are about, if not whatever they draw.
    pub profile: Option<Profile>,
}

impl Sweep {
    /// The plan of a seed.
    pub fn plan(&self, seed: u64) -> Plan {
        match self.profile {
            None => Plan::draw(seed),
            Some(profile) => Plan::draw_as(seed, profile),
        }
    }
}

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
    /// The failure of the lowest seed.
    pub found: Option<Found>,
}

impl Swept {
    /// What was excused more often than its causes in the plans can explain.
    pub fn excess(&self) -> Option<String> {
        let Stats {
            stored,
            excused,
            trusted,
            confused,
            gone,
            unaware,
            with_it,
            ..
        } = self.stats;
        let bounds = [
            (excused, 50, "lost by a disk that lied"),
            (trusted, 10_000, "taken on trust of twins"),
            (gone, 4, "gone with a journal"),
            (
                unaware,
                4,
                "lost by a journal to which its agent did not come back",
            ),
            (with_it, 4, "with an aggregator that is gone for good"),
            (confused, 1_000, "acknowledged for another batch"),
        ];
        let mut bounds = bounds.into_iter();
        let over = bounds.find(|(times, share, _)| times * share > stored);
        over.map(|(times, share, what)| {
            format!("{times} of {stored} numbers were {what}, more than one of {share}")
        })
    }

    fn and(self, other: Self) -> Self {
        let mut found: Vec<Found> = self.found.into_iter().chain(other.found).collect();
        found.sort_by_key(|found| found.plan.seed);
        Self {
            runs: self.runs + other.runs,
            stats: self.stats.and(other.stats),
            found: found.into_iter().next(),
        }
    }
}

/// Runs seeds until all are done, or one fails.
pub fn sweep(sweep: &Sweep) -> Swept {
    sweep_until(sweep, &|| {}, &|| false)
}

/// As [`sweep`]; panics with whatever a thread did outside of a run. `begin` is called on each
/// thread, and it ends early when `enough` says so.
pub fn sweep_until(
    sweep: &Sweep,
    begin: &(impl Fn() + Sync),
    enough: &(impl Fn() -> bool + Sync),
) -> Swept {
    let run = |seed| {
        let plan = sweep.plan(seed);
        let outcome = session::run(&plan, false);
        let found = outcome.violation;
        let found = found.map(|violation| Found { plan, violation });
        Swept {
            runs: 1,
            stats: outcome.stats,
            found,
        }
    };
    let seeds = Seeds {
        from: sweep.from,
        count: sweep.seeds,
        threads: sweep.threads,
    };
    seeds.run(
        run,
        Swept::and,
        |swept| swept.found.is_some(),
        begin,
        enough,
    )
}

/// Seeds to run, whatever a run is.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// The first.
    pub from: u64,
    /// How many.
    pub count: u64,
    /// On how many threads.
    pub threads: usize,
}

impl Seeds {
    /// Runs them until one is found, or it is enough, and takes together what came of all; panics
    /// with whatever a thread did outside of a run. `begin` is called on each thread.
    pub fn run<T: Default + Send>(
        self,
        run: impl Fn(u64) -> T + Sync,
        and: impl Fn(T, T) -> T + Sync,
        found: impl Fn(&T) -> bool + Sync,
        begin: &(impl Fn() + Sync),
        enough: &(impl Fn() -> bool + Sync),
    ) -> T {
        let next = AtomicU64::new(0);
        let over = AtomicBool::new(false);
        let work = || {
            begin();
            let mut all = T::default();
            while !over.load(Ordering::Relaxed) && !enough() {
                let place = next.fetch_add(1, Ordering::Relaxed);
                if place >= self.count {
                    break;
                }
                let one = run(self.from.wrapping_add(place));
                if found(&one) {
                    over.store(true, Ordering::Relaxed);
                }
                all = and(all, one);
            }
            all
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads.max(1))
                .map(|_| scope.spawn(work))
                .collect();
            // A panic outside of a run is nobody's finding: it must not count as seeds that hold.
            let done = threads.into_iter().map(|thread| {
                let joined = thread.join();
                joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            done.fold(T::default(), &and)
        })
    }
}
