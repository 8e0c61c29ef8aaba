//! Plants each bug of tests/planted in turn, and runs seeds until one shows it: within a minute, by
//! an invariant that is meant to, and not with the same plan without the bug. Ends with 1 if not.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::{Duration, Instant};
use tributary_planted::{Bug, plant};
use tributary_world::fleet::{Sweep, sweep_until};
use tributary_world::limits::THREADS_MAX;
use tributary_world::session::{self, Invariant};

/// Within which a bug is to be found.
const LIMIT: Duration = Duration::from_secs(60);

/// What is meant to show a bug.
fn expected(bug: Bug) -> &'static [Invariant] {
    use Invariant::*;
    match bug {
        Bug::HeldAtJudge => &[I6, I7],
        Bug::NoPending => &[I5],
        Bug::WelcomeSaysPending => &[I6],
        Bug::AbortKeepsPending => &[I8],
        Bug::GapSummedOnce => &[I7],
        Bug::FlightKept => &[I8],
        Bug::FoldForgetsHashes => &[I1],
        Bug::TakenBackByNobody => &[I1, I4],
        Bug::ReclaimNothing => &[I4],
        Bug::GapOverData => &[I5],
        Bug::AckTooWide => &[I6],
        Bug::TrimWithoutHash => &[I1],
        Bug::Island41 => &[I10, I11],
        Bug::TrimOverHoles => &[I1],
        Bug::CursorCountsInFlight => &[I1, I4, I6],
        Bug::MarkAlways => &[I13],
        Bug::MeetKeepsOld => &[I1, I4],
        Bug::GapCreditsAll => &[I1, I4, I6],
        Bug::FloorTooHigh | Bug::ElsewhereUnsaid => &[I4, I11],
        Bug::DoubtAcked => &[I1, I6],
        // Whose author did not know what is looked at.
        Bug::Blind2 => &[I13],
        Bug::Blind1 | Bug::Blind3 | Bug::Blind4 => &[I1, I2, I3, I4, I5, I6, I7, I8, I10, I11, I15],
        // Those of the whole are not this world's to find.
        _ => &[],
    }
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let ours = |bug: &&Bug| !expected(**bug).is_empty();
    let chosen = |bug: &&Bug| wanted.is_empty() || wanted.contains(&format!("{bug:?}"));
    let bugs: Vec<Bug> = Bug::ALL
        .iter()
        .filter(ours)
        .filter(chosen)
        .copied()
        .collect();
    if bugs.is_empty() {
        eprintln!("no bug is called like that: {:?}", Bug::ALL);
        return ExitCode::from(2);
    }
    let missed = bugs.iter().filter(|bug| !is_found(**bug)).count();
    println!(
        "{} of {} planted bugs found",
        bugs.len() - missed,
        bugs.len()
    );
    ExitCode::from(u8::from(missed > 0))
}

/// Whether a bug is found as it should be; says how.
fn is_found(bug: Bug) -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let all = Sweep {
        from: 1,
        seeds: u64::MAX,
        threads: cores.min(THREADS_MAX),
        profile: None,
    };
    let began = Instant::now();
    let swept = sweep_until(&all, &|| plant(Some(bug)), &|| began.elapsed() >= LIMIT);
    let seconds = began.elapsed().as_secs_f64();
    let Some(found) = swept.found else {
        println!("{bug:?}: not found in {} seeds, {seconds:.1} s", swept.runs);
        return false;
    };
    let (seed, violation) = (found.plan.seed, &found.violation);
    println!("{bug:?}: seed {seed}, {violation}, {seconds:.1} s");
    if !expected(bug).contains(&violation.invariant) {
        println!(
            "    expected one of {:?}: the oracle sees something else",
            expected(bug)
        );
        return false;
    }
    // On this thread nothing is planted.
    match session::run(&found.plan, false).violation {
        None => true,
        Some(violation) => {
            println!("    the same without the bug: {violation}");
            false
        }
    }
}
