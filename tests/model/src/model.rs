//! The model as the checker sees it: states, steps, and what must hold in every state.

use crate::heal;
use crate::limits::{BATCHES_MAX, SITES_MAX};
use crate::rule::Rule;
use crate::scope::Scope;
use crate::seen::{Happened, Seen};
use crate::world::{Action, World};
use stateright::{Model, Property};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "planted")]
use tributary_planted::Bug;

/// How often each thing happened, in all steps that were taken.
#[derive(Debug, Default)]
pub struct Counts([AtomicU64; Happened::ALL.len()]);

impl Counts {
    fn add(&self, what: Happened) {
        if let Some(count) = self.0.get(what as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often this happened.
    pub fn of(&self, what: Happened) -> u64 {
        let count = self.0.get(what as usize);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// A scope, and what is counted on the way.
#[derive(Debug)]
pub struct Protocol {
    /// How large it is.
    pub scope: Scope,
    /// What happened.
    pub counts: Counts,
    /// The mistake that is made.
    #[cfg(feature = "planted")]
    pub bug: Option<Bug>,
}

impl Protocol {
    /// This scope, without a mistake.
    pub fn new(scope: Scope) -> Self {
        assert!(scope.sites <= SITES_MAX && scope.batches <= BATCHES_MAX);
        Self {
            scope,
            counts: Counts::default(),
            #[cfg(feature = "planted")]
            bug: None,
        }
    }

    /// The checker's threads are its own: each makes the mistake.
    fn arm(&self) {
        #[cfg(feature = "planted")]
        tributary_planted::plant(self.bug);
    }

    /// What is done until all is drained, and the rule that is broken on the way.
    pub fn healing(&self, world: &World) -> (Vec<Action>, Result<(), Rule>) {
        self.arm();
        heal::healing(world, &self.scope)
    }

    /// Whether everything drains from here once nothing breaks any more.
    fn drains(&self, world: &World) -> bool {
        self.arm();
        // Whose number another machine took never gets rid of it.
        self.scope.twin || world.broken().is_some() || self.healing(world).1.is_ok()
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        self.arm();
        vec![World::new(&self.scope)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.arm();
        world.actions(&self.scope, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        self.arm();
        let mut next = world.clone();
        let mut seen = Seen::default();
        let step = || next.apply(action, &self.scope, &mut seen);
        let done = catch_unwind(AssertUnwindSafe(step));
        seen.must(Rule::I15, done.is_ok());
        for site in next.sites() {
            seen.broken = seen.broken.or_else(|| site.disagrees());
        }
        seen.must(Rule::I13, marks(&next));
        next.note(seen.broken);
        seen.happened.iter().for_each(|what| self.counts.add(*what));
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = always();
        properties.extend(sometimes(&self.scope));
        properties
    }
}

/// Whether each batch that two journals have is marked in one of them.
fn marks(world: &World) -> bool {
    let [first, second] = world.sites() else {
        return true;
    };
    let entries = first.journal().iter().filter(|entry| !entry.item.gap);
    let mut both = entries.filter_map(|entry| {
        let other = second.stored(entry.item.life, entry.item.number)?;
        (other.item == entry.item).then_some((entry, other))
    });
    both.all(|(entry, other)| entry.marked || other.marked)
}

fn always() -> Vec<Property<Protocol>> {
    fn keeps<const RULE: usize>(_: &Protocol, world: &World) -> bool {
        world.broken() != Rule::ALL.get(RULE).copied()
    }
    let drains = |model: &Protocol, world: &World| model.drains(world);
    let holds: [fn(&Protocol, &World) -> bool; Rule::ALL.len()] = [
        keeps::<0>, keeps::<1>, keeps::<2>, keeps::<3>, keeps::<4>, keeps::<5>, keeps::<6>,
        keeps::<7>, keeps::<8>, keeps::<9>,
    ];
    let rules = Rule::ALL.iter().zip(holds);
    let mut all: Vec<_> = rules
        .map(|(rule, holds)| Property::always(rule.name(), holds))
        .collect();
    all.push(Property::always(heal::NAME, drains));
    all
}

/// What has to be found in a scope that could have it.
fn sometimes(scope: &Scope) -> Vec<Property<Protocol>> {
    let mut all: Vec<Property<Protocol>> = vec![
        Property::sometimes(
            "all is sealed, and all is acknowledged",
            |model, world: &World| {
                let all = world.agent().sealed() == model.scope.batches;
                all && world.agent().is_drained()
            },
        ),
        Property::sometimes("a lane has a hole", |_, world: &World| {
            world.sites().iter().any(|site| site.holes() > 0)
        }),
    ];
    if scope.left.agent_crashes > 0 && scope.left.site_crashes > 0 && !scope.twin {
        let drained = |_: &Protocol, world: &World| {
            let left = world.left();
            let crashed = left.agent_crashes == 0 && left.site_crashes == 0;
            crashed && world.agent().sealed() > 0 && world.agent().is_drained()
        };
        all.push(Property::sometimes(
            "all is drained after each lost power",
            drained,
        ));
    }
    all
}
