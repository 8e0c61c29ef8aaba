//! Runs one scope to its end, and says what came of it.

use crate::limits::THREADS_MAX;
use crate::model::Protocol;
use crate::rule::Rule;
use crate::scope::Scope;
use crate::seen::Happened;
use crate::world::Action;
use stateright::{Checker, Expectation, HasDiscoveries, Model};
use std::time::{Duration, Instant};

/// What came of a scope.
#[derive(Debug)]
pub struct Checked {
    /// Different states that were reached.
    pub states: usize,
    /// Steps from one to another.
    pub steps: usize,
    /// Steps of the longest way that was gone.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// The first rule that does not hold, and the steps to where it does not.
    pub broken: Option<Broken>,
    /// What never happened, though the scope is there for it.
    pub missing: Vec<String>,
}

/// A rule that does not hold.
#[derive(Debug)]
pub struct Broken {
    /// Which.
    pub rule: Rule,
    /// The steps to where it does not.
    pub steps: Vec<Action>,
    /// What was done from there so that all drains.
    pub healing: Vec<Action>,
}

/// Checks all of a scope on that many threads.
pub fn check(model: Protocol, threads: usize) -> Checked {
    let began = Instant::now();
    let scope = model.scope;
    let checker = model.checker().threads(threads.clamp(1, THREADS_MAX));
    let checker = checker.finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    let (model, found) = (checker.model(), checker.discoveries());
    let properties = model.properties();
    let mut always = properties
        .iter()
        .filter(|it| it.expectation == Expectation::Always);
    let broken = always.find_map(|property| {
        let path = found.get(property.name)?.clone();
        let last = path.last_state();
        let (healing, healed) = match last.broken() {
            Some(rule) => (Vec::new(), Err(rule)),
            None => model.healing(last),
        };
        Some(Broken {
            rule: healed.err().unwrap_or(Rule::I8),
            steps: path.into_actions(),
            healing,
        })
    });
    let sometimes = properties
        .iter()
        .filter(|it| it.expectation == Expectation::Sometimes);
    let unseen = sometimes.filter(|property| !found.contains_key(property.name));
    let mut missing: Vec<String> = unseen.map(|property| property.name.to_owned()).collect();
    let never = expected(&scope)
        .into_iter()
        .filter(|what| model.counts.of(*what) == 0);
    missing.extend(never.map(|what| format!("{what:?}")));
    Checked {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
        broken,
        missing,
    }
}

/// What has to happen in a scope.
fn expected(scope: &Scope) -> Vec<Happened> {
    let left = &scope.left;
    let of = |there: bool, what: &[Happened]| if there { what.to_vec() } else { Vec::new() };
    let mut all = of(left.losses > 0, &[Happened::Replay, Happened::Stale]);
    all.extend(of(left.losses > 0, &[Happened::Shared]));
    all.extend(of(left.losses > 0, &[Happened::Learned]));
    all.extend(of(left.failed_appends > 0, &[Happened::Aborted]));
    all.extend(of(
        left.sheds > 0,
        &[Happened::Declared, Happened::GapBesideData],
    ));
    all.extend(of(left.agent_crashes > 0, &[Happened::CameBack]));
    all.extend(of(left.site_crashes > 0, &[Happened::Untold]));
    all.extend(of(scope.twin, &[Happened::Conflict, Happened::Trusted]));
    all.extend(of(scope.sites > 1, &[Happened::Marked, Happened::Waited]));
    all
}
