//! That all drains: from any state, with everything mended, in a bounded number of steps.

use crate::limits::HEAL_STEPS_MAX;
use crate::rule::Rule;
use crate::scope::Scope;
use crate::seen::Seen;
use crate::world::{Action, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The name of the property.
pub const NAME: &str = "I8: from here all drains once nothing breaks any more";

/// What is done until all is drained, and the rule that is broken on the way; [`Rule::I8`] when it
/// comes to no end, or not everything stands in a journal then.
pub fn healing(world: &World, scope: &Scope) -> (Vec<Action>, Result<(), Rule>) {
    let mut world = world.clone();
    world.mend();
    let mut done = Vec::new();
    let healed = catch_unwind(AssertUnwindSafe(|| heal(&mut world, scope, &mut done)));
    (done, healed.unwrap_or(Err(Rule::I15)))
}

fn heal(world: &mut World, scope: &Scope, done: &mut Vec<Action>) -> Result<(), Rule> {
    while done.len() < HEAL_STEPS_MAX {
        let next = world.goes_on().first().copied();
        let drained = world.agent().is_drained() && !world.agent().has_untold();
        let next = match next {
            None if drained => return is_whole(world).then_some(()).ok_or(Rule::I8),
            None if world.agent().link.is_none() => Action::Dial(0),
            // Something is left, and nothing goes on.
            None => return Err(Rule::I8),
            Some(next) => next,
        };
        let mut seen = Seen::default();
        world.apply(next, scope, &mut seen);
        done.push(next);
        if let Some(rule) = seen.broken {
            return Err(rule);
        }
    }
    Err(Rule::I8)
}

/// Whether every number that was sealed is in a journal.
fn is_whole(world: &World) -> bool {
    let mut numbers = world.agent().numbers();
    numbers.all(|(life, number)| {
        let mut sites = world.sites().iter();
        sites.any(|site| site.stored(life, number).is_some())
    })
}
