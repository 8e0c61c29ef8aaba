//! Plants bugs of tests/planted in turn, those that a link, a restart or a failed sync shows soon,
//! and runs seeds until one shows it: by the check that is meant to, and not with the same plan
//! without the bug. Ends with 1 if one is not found.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use tributary_planted::{Bug, plant};
use tributary_turmoil::limits::PLANTED_SEEDS;
use tributary_turmoil::oracle::Broken;
use tributary_turmoil::plan::Plan;
use tributary_turmoil::run;

/// Whether this is meant to show that bug.
type Meant = fn(&Broken) -> bool;

/// Bugs, and what is meant to show each.
const EXPECTED: [(Bug, Meant); 4] = [
    (Bug::HeldAtJudge, |it| matches!(it, Broken::Lost(..))),
    // What cannot be is refused by a panic, which ends the process.
    (Bug::AbortKeepsPending, |it| matches!(it, Broken::Run(_))),
    (Bug::TrimOverHoles, |it| matches!(it, Broken::Lost(..))),
    (Bug::CursorCountsInFlight, |it| {
        matches!(it, Broken::Lost(..))
    }),
];

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let chosen =
        |(bug, _): &&(Bug, Meant)| wanted.is_empty() || wanted.contains(&format!("{bug:?}"));
    let bugs: Vec<_> = EXPECTED.iter().filter(chosen).collect();
    let found = bugs.iter().filter(|(bug, meant)| is_found(*bug, *meant));
    let (found, all) = (found.count(), bugs.len());
    println!("{found} of {all} planted bugs found");
    ExitCode::from(u8::from(found < all || all == 0))
}

/// Whether a bug is found as it should be; says how.
fn is_found(bug: Bug, meant: Meant) -> bool {
    let planted = |seed: u64| {
        // All of a run is on this thread.
        plant(Some(bug));
        let broken = run(&Plan::draw(seed)).err();
        plant(None);
        broken.map(|broken| (seed, broken))
    };
    let Some((seed, broken)) = (1..=PLANTED_SEEDS).find_map(planted) else {
        println!("{bug:?}: not found in {PLANTED_SEEDS} seeds");
        return false;
    };
    println!("{bug:?}: seed {seed}, {broken}");
    if !meant(&broken) {
        println!("    another check was meant to find it");
        return false;
    }
    match run(&Plan::draw(seed)) {
        Ok(_) => true,
        Err(broken) => {
            println!("    the same without the bug: {broken}");
            false
        }
    }
}
