//! Runs plans of the session world: many seeds on all cores until one of them fails, or one seed or
//! plan with what happened in it. `SEED=7 sim` replays a seed, `sim --plan found/x.plan` a plan;
//! `--lines COUNT` shows more of it.
//!
//! `sim [--seeds COUNT] [--from SEED] [--threads COUNT] [--profile NAME]` runs seeds, and says how
//! many it ran a minute. Ends with 1 when something must not be; then with a smaller plan, as text.
//! With `--table SEEDS` each profile gets so many, and the last line is what came of each, as JSON.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Instant;
use tributary_world::fleet::{Found, Sweep, sweep};
use tributary_world::limits::THREADS_MAX;
use tributary_world::plan::{Plan, Profile};
use tributary_world::session::{self, Stats};
use tributary_world::shrink::shrink;

fn main() -> ExitCode {
    // What panics is caught, judged and told.
    std::panic::set_hook(Box::new(|_| {}));
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(2)
        }
    }
}

/// What the command line asks for.
struct Asked {
    plan: Option<String>,
    /// Lines of what happened in a run that is replayed.
    lines: usize,
    sweep: Sweep,
    /// Every profile in turn.
    table: bool,
}

fn asked() -> Result<Asked, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut asked = Asked {
        plan: None,
        lines: 60,
        sweep: Sweep {
            from: 0,
            seeds: 10_000,
            threads: cores.min(THREADS_MAX),
            profile: None,
        },
        table: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|error| format!("{name} {value}: {error}"))
        };
        match name.as_str() {
            "--plan" => asked.plan = Some(value),
            "--seeds" => asked.sweep.seeds = number()?,
            "--table" => (asked.table, asked.sweep.seeds) = (true, number()?),
            "--lines" => asked.lines = number()? as usize,
            "--from" => asked.sweep.from = number()?,
            "--threads" => asked.sweep.threads = (number()? as usize).clamp(1, THREADS_MAX),
            "--profile" => {
                let known = Profile::ALL.into_iter().find(|it| it.to_string() == value);
                let names = || Profile::ALL.map(|it| it.to_string()).join(", ");
                let known = known.ok_or_else(|| format!("--profile {value}: one of {}", names()));
                asked.sweep.profile = Some(known?);
            }
            _ => {
                return Err(format!(
                    "`{name}` is no option: --plan, --lines, --seeds, --table, --from, --threads, \
                     --profile"
                ));
            }
        }
    }
    Ok(asked)
}

fn run() -> Result<bool, String> {
    let asked = asked()?;
    if let Some(path) = asked.plan {
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let plan: Plan = text.parse().map_err(|error| format!("{path}: {error}"))?;
        return Ok(replay(&plan, asked.lines));
    }
    if let Ok(text) = std::env::var("SEED") {
        let seed = text
            .parse()
            .map_err(|error| format!("SEED={text}: {error}"))?;
        return Ok(replay(&asked.sweep.plan(seed), asked.lines));
    }
    Ok(match asked.table {
        true => run_table(asked.sweep),
        false => run_seeds(&asked.sweep).is_some(),
    })
}

/// Every profile, each with seeds of its own.
fn run_table(sweep: Sweep) -> bool {
    let mut rows = Vec::new();
    for (place, profile) in (0..).zip(Profile::ALL) {
        let Some(stats) = run_seeds(&Sweep {
            from: sweep.from.wrapping_add(place * sweep.seeds),
            profile: Some(profile),
            ..sweep
        }) else {
            return false;
        };
        // The sweep ends with the first batch that is nowhere without an excuse, or is there twice
        // unmarked, or wants a person to drain: here is none. What had left the spool and was lost
        // by a disk that lied, or with a journal, no agent can bring back.
        rows.push(format!(
            "{{\"profile\":\"{profile}\",\"runs\":{},\"acknowledged\":{},\"declared\":{},\
             \"excused\":{},\"lost\":0,\"doubled\":0,\"repairs\":0}}",
            sweep.seeds,
            stats.stored,
            stats.declared,
            stats.excused + stats.gone + stats.unaware + stats.with_it
        ));
    }
    println!("[{}]", rows.join(","));
    true
}

/// One plan, with what happened in it.
fn replay(plan: &Plan, lines: usize) -> bool {
    print!("{plan}");
    let outcome = session::run(plan, true);
    let skip = outcome.lines.len().saturating_sub(lines);
    let shown = outcome.lines.iter().skip(skip);
    shown.for_each(|line| println!("{}", cut(line)));
    println!("trace {} {:?}", outcome.trace, outcome.stats);
    match outcome.violation {
        None => {
            println!("all holds");
            true
        }
        Some(violation) => {
            println!("{violation}");
            false
        }
    }
}

/// A line that a terminal shows.
fn cut(line: &str) -> String {
    line.chars().take(240).collect()
}

/// What happened in them; `None`, and why, when something must not be.
fn run_seeds(sweep_of: &Sweep) -> Option<Stats> {
    let Sweep {
        from,
        seeds,
        threads,
        ..
    } = sweep_of;
    println!("{seeds} seeds from {from} on {threads} threads");
    let began = Instant::now();
    let done = sweep(sweep_of);
    let seconds = began.elapsed().as_secs_f64();
    let a_minute = done.runs as f64 * 60.0 / seconds.max(1e-9);
    println!(
        "{} runs in {seconds:.1} s: {a_minute:.0} a minute",
        done.runs
    );
    println!("{:?}", done.stats);
    let Some(Found { plan, violation }) = done.found else {
        if done.runs < *seeds {
            println!("only {} of {seeds} seeds were run", done.runs);
            return None;
        }
        if let Some(excess) = done.excess() {
            println!("{excess}");
            return None;
        }
        println!("all holds");
        return Some(done.stats);
    };
    println!("SEED={} {violation}", plan.seed);
    let same = |plan: &Plan| {
        let found = session::run(plan, false).violation;
        found.is_some_and(|found| found.invariant == violation.invariant)
    };
    let small = shrink(&plan, same);
    println!(
        "of {} faults {} are needed:",
        plan.faults.len(),
        small.faults.len()
    );
    print!("{small}");
    None
}
