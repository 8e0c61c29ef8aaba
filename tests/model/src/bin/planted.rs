//! Plants each bug of tests/planted in turn that a scope of the model can show, and checks
//! the one that is meant to, by the rule that is meant to. Ends with 1 if one is not found.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::{Duration, Instant};
use tributary_model::check::check;
use tributary_model::scope::{ISLANDS, ONE, Scope, THREE, TWIN, TWO_AGAIN};
use tributary_model::{Protocol, Rule};
use tributary_planted::Bug;

/// Within which a bug is to be found.
const LIMIT: Duration = Duration::from_secs(60);

/// What is meant to show a bug, and in which scope; nothing where it takes more than a scope has.
fn expected(bug: Bug) -> Option<(Rule, Scope)> {
    use Rule::*;
    match bug {
        Bug::HeldAtJudge | Bug::WelcomeSaysPending => Some((I6, ONE)),
        Bug::NoPending | Bug::GapOverData => Some((I5, ONE)),
        Bug::AbortKeepsPending => Some((I8, ONE)),
        Bug::GapSummedOnce => Some((I7, ONE)),
        Bug::TrimOverHoles => Some((I1, ONE)),
        // After a restart the sender takes the journal for one that went back.
        Bug::CursorCountsInFlight => Some((I6, ONE)),
        // Something must lie between two that are acknowledged.
        Bug::AckTooWide => Some((I6, THREE)),
        Bug::TrimWithoutHash => Some((I1, TWIN)),
        // Only bytes are kept.
        Bug::FlightKept => Some((I8, ISLANDS)),
        // Of one who had not seen the rules: the agent comes to the second ledger twice.
        Bug::Blind2 => Some((I13, TWO_AGAIN)),
        // Forty holes take more than a scope has; so do the others.
        _ => None,
    }
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |bug: &&Bug| wanted.is_empty() || wanted.contains(&format!("{bug:?}"));
    let bugs = Bug::ALL.iter().filter(chosen).copied();
    let bugs: Vec<_> = bugs.filter_map(|bug| Some((bug, expected(bug)?))).collect();
    if bugs.is_empty() {
        eprintln!(
            "no bug that a scope can show is called like that: {:?}",
            Bug::ALL
        );
        return ExitCode::from(2);
    }
    let missed = bugs
        .iter()
        .filter(|(bug, expected)| !is_found(*bug, *expected))
        .count();
    println!(
        "{} of {} planted bugs found",
        bugs.len() - missed,
        bugs.len()
    );
    ExitCode::from(u8::from(missed > 0))
}

/// Whether a bug is found as it should be; says how.
fn is_found(bug: Bug, (rule, scope): (Rule, Scope)) -> bool {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut model = Protocol::new(scope);
    model.bug = Some(bug);
    let began = Instant::now();
    let checked = check(model, threads);
    let took = began.elapsed();
    let states = checked.states;
    let Some(broken) = checked.broken else {
        println!("{bug:?}: not found in {states} states");
        return false;
    };
    let (name, steps) = (broken.rule.name(), broken.steps.len());
    println!(
        "{bug:?}: {name}, after {steps} steps of {}, {states} states, {:.1} s",
        scope.name,
        took.as_secs_f64()
    );
    if broken.rule != rule {
        println!("    expected {}", rule.name());
    }
    if took > LIMIT {
        println!("    that is too late");
    }
    broken.rule == rule && took <= LIMIT
}
