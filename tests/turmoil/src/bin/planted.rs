//! Plants bugs of tests/planted in turn, those that a link, a restart or a failed sync shows soon,
//! and runs seeds until one shows it: by the check that is meant to, and not with the same plan
//! without the bug. Ends with 1 if one is not found.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::{Duration, Instant};
use tributary_planted::{Bug, plant};
use tributary_turmoil::limits::PLANTED_SEEDS;
use tributary_turmoil::oracle::Broken;
use tributary_turmoil::plan::Plan;
use tributary_turmoil::run;

/// Within which a bug is to be found.
const LIMIT: Duration = Duration::from_secs(60);

/// Whether this is meant to show that bug.
type Meant = fn(&Broken) -> bool;

/// What is meant to show a bug, if these seeds are.
fn expected(bug: Bug) -> Option<Meant> {
    let meant: Meant = match bug {
        Bug::HeldAtJudge | Bug::TrimOverHoles | Bug::CursorCountsInFlight => {
            |it| matches!(it, Broken::Lost(..))
        }
        Bug::AnsweredBeforeSync => |it| matches!(it, Broken::Lost(..)),
        Bug::SentBeforeSaved | Bug::MarkNotKept => |it| matches!(it, Broken::Unmarked(..)),
        _ => return None,
    };
    Some(meant)
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let chosen = |bug: &&Bug| match wanted.is_empty() {
        true => expected(**bug).is_some(),
        false => wanted.contains(&format!("{bug:?}")),
    };
    let bugs: Vec<Bug> = Bug::ALL.iter().filter(chosen).copied().collect();
    if bugs.is_empty() {
        eprintln!("no bug is called like that: {:?}", Bug::ALL);
        return ExitCode::from(2);
    }
    let found = bugs.iter().filter(|bug| is_found(**bug)).count();
    println!("{found} of {} planted bugs found", bugs.len());
    ExitCode::from(u8::from(found < bugs.len()))
}

/// Whether a bug is found as it should be; says how.
fn is_found(bug: Bug) -> bool {
    let planted = |seed: u64| {
        // All of a run is on this thread.
        plant(Some(bug));
        let broken = run(&Plan::draw(seed)).err();
        plant(None);
        broken.map(|broken| (seed, broken))
    };
    let began = Instant::now();
    let mut seeds = (1..=PLANTED_SEEDS).take_while(|_| began.elapsed() < LIMIT);
    let Some((seed, broken)) = seeds.find_map(planted) else {
        println!("{bug:?}: not found in {PLANTED_SEEDS} seeds, or in {LIMIT:?}");
        return false;
    };
    println!(
        "{bug:?}: seed {seed}, {broken}, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    // One that is asked for by name may show as it likes.
    if !expected(bug).is_none_or(|meant| meant(&broken)) {
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
