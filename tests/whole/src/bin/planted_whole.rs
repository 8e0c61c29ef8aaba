//! Plants each bug of tests/planted that only the whole can show, and runs seeds until one shows
//! it: within a minute, by an invariant that is meant to, and not with the same plan without the
//! bug. Ends with 1 if not.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::{Duration, Instant};
use tributary_planted::{Bug, plant};
use tributary_whole::fleet::sweep;
use tributary_whole::limits::THREADS_MAX;
use tributary_whole::oracle::Invariant;
use tributary_whole::plan::Profile;
use tributary_whole::world;
use tributary_world::fleet::Seeds;

/// Within which a bug is to be found.
const LIMIT: Duration = Duration::from_secs(60);

/// What is meant to show a bug.
fn expected(bug: Bug) -> &'static [Invariant] {
    use Invariant::*;
    match bug {
        Bug::HeardBeforeSync => &[I14],
        Bug::AnsweredBeforeSync => &[I6],
        Bug::SharedAtOnce => &[I6],
        Bug::SyncSkipped => &[I14, I6],
        Bug::NewRulesOnReplay => &[I2],
        Bug::MarksNotReplayed | Bug::ReleasedWhenReceived => &[I1],
        Bug::CheckpointAhead => &[I1],
        Bug::Blind8 => &[I15],
        Bug::Blind10 => &[I1, I3],
        Bug::Blind12 => &[I1],
        Bug::MarksForgotten => &[I1],
        Bug::BufferKept => &[I15],
        Bug::BeyondDurable => &[I1, I3],
        Bug::TrimmedBeyondLake => &[I1],
        Bug::NoIntent | Bug::DoneBeforeFiles | Bug::RedoneToAnotherEnd => &[I1, I15],
        // Those of the session have their own world: here, whatever shows them.
        _ => &[],
    }
}

/// What the plans are about that look for it, where the mix of all comes to it late.
fn about(bug: Bug) -> Option<Profile> {
    match bug {
        Bug::SharedAtOnce | Bug::Blind7 => Some(Profile::SiteDisk),
        Bug::Blind5 => Some(Profile::AgentDisk),
        Bug::Blind6 => Some(Profile::Sites),
        Bug::Blind9 => Some(Profile::Stores),
        Bug::Blind8 => Some(Profile::SiteBits),
        Bug::Blind10 => Some(Profile::Spools),
        Bug::Blind11 => Some(Profile::Agents),
        Bug::Blind12 => Some(Profile::AgentBits),
        _ => None,
    }
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let named = |bug: &&Bug| wanted.contains(&format!("{bug:?}"));
    let bugs: Vec<Bug> = match wanted.as_slice() {
        [] => Bug::OF_THE_WHOLE.to_vec(),
        // Others may be looked for, too, by name.
        _ => Bug::ALL.iter().filter(named).copied().collect(),
    };
    if bugs.is_empty() {
        eprintln!("no bug is called like that: {:?}", Bug::ALL);
        return ExitCode::from(2);
    }
    let missed = bugs.iter().filter(|bug| !is_found(**bug)).count();
    let (found, all) = (bugs.len() - missed, bugs.len());
    println!("{found} of {all} planted bugs of the whole found");
    ExitCode::from(u8::from(missed > 0))
}

/// Whether a bug is found as it should be; says how.
fn is_found(bug: Bug) -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let all = Seeds {
        from: 1,
        count: u64::MAX,
        threads: cores.min(THREADS_MAX),
    };
    let began = Instant::now();
    let enough = || began.elapsed() >= LIMIT;
    let swept = sweep(all, about(bug), &|| plant(Some(bug)), &enough);
    let seconds = began.elapsed().as_secs_f64();
    let Some(found) = swept.found else {
        println!("{bug:?}: not found in {} seeds, {seconds:.1} s", swept.runs);
        return false;
    };
    let (seed, violation) = (found.plan.seed, &found.violation);
    println!("{bug:?}: seed {seed}, {violation}, {seconds:.1} s");
    let meant = expected(bug);
    if !meant.is_empty() && !meant.contains(&violation.invariant) {
        println!("    expected one of {meant:?}: the oracle sees something else");
        return false;
    }
    // On this thread nothing is planted.
    match world::run(&found.plan, false).violation {
        None => true,
        Some(violation) => {
            println!("    the same without the bug: {violation}");
            false
        }
    }
}
