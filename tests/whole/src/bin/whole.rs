//! Runs the whole by seeds: `--seeds N --from N --threads N --profile P`, or one of them:
//! `SEED=N`, or `--plan FILE`. Ends with 1 and the seed when something must not be; then with a
//! smaller plan, as text.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::{Duration, Instant};
use tributary_whole::fleet::{self, sweep};
use tributary_whole::limits::THREADS_MAX;
use tributary_whole::plan::{Plan, Profile, shrink};
use tributary_whole::world;
use tributary_world::fleet::Seeds;

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
    seeds: Seeds,
    profile: Option<Profile>,
    /// Seeds begin for so long, at most.
    within: Duration,
    /// So many have to be run.
    at_least: u64,
}

fn profile(name: &str) -> Result<Profile, String> {
    let known = Profile::ALL.into_iter().find(|it| it.to_string() == name);
    let names = || Profile::ALL.map(|it| it.to_string()).join(", ");
    known.ok_or_else(|| format!("--profile {name}: one of {}", names()))
}

fn asked() -> Result<Asked, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut asked = Asked {
        plan: None,
        lines: 60,
        seeds: Seeds {
            from: 0,
            count: 1_000,
            threads: cores.min(THREADS_MAX),
        },
        profile: None,
        within: Duration::MAX,
        at_least: 1,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        let number = || {
            let number = value.parse::<u64>();
            number.map_err(|error| format!("{name} {value}: {error}"))
        };
        match name.as_str() {
            "--plan" => asked.plan = Some(value),
            "--lines" => asked.lines = number()? as usize,
            "--seeds" => asked.seeds.count = number()?,
            "--from" => asked.seeds.from = number()?,
            "--threads" => asked.seeds.threads = (number()? as usize).clamp(1, THREADS_MAX),
            "--profile" => asked.profile = Some(profile(&value)?),
            "--within" => asked.within = Duration::from_secs(number()?),
            "--at-least" => asked.at_least = number()?,
            _ => {
                return Err(format!(
                    "`{name}` is no option: --plan, --lines, --seeds, --from, --threads, \
                     --profile, --within, --at-least"
                ));
            }
        }
    }
    Ok(asked)
}

fn run() -> Result<bool, String> {
    let asked = asked()?;
    if let Some(path) = &asked.plan {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        let plan: Plan = text.parse().map_err(|error| format!("{path}: {error}"))?;
        return Ok(replay(&plan, asked.lines));
    }
    if let Ok(text) = std::env::var("SEED") {
        let seed = text.parse();
        let seed = seed.map_err(|error| format!("SEED={text}: {error}"))?;
        return Ok(replay(&fleet::plan(seed, asked.profile), asked.lines));
    }
    Ok(run_seeds(&asked))
}

/// One plan, with what happened in it.
fn replay(plan: &Plan, lines: usize) -> bool {
    print!("{plan}");
    let outcome = world::run(plan, true);
    let skip = outcome.lines.len().saturating_sub(lines);
    for line in outcome.lines.iter().skip(skip) {
        println!("{}", line.chars().take(240).collect::<String>());
    }
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

/// Whether nothing must not be in any of the seeds; says what, and why.
fn run_seeds(asked: &Asked) -> bool {
    let Seeds {
        from,
        count,
        threads,
    } = asked.seeds;
    println!("at most {count} seeds of the whole from {from} on {threads} threads");
    let began = Instant::now();
    let enough = || began.elapsed() >= asked.within;
    let done = sweep(asked.seeds, asked.profile, &|| {}, &enough);
    let seconds = began.elapsed().as_secs_f64();
    let a_minute = done.runs as f64 * 60.0 / seconds.max(1e-9);
    println!("{:?}", done.stats);
    println!("{:?}", done.faults);
    println!(
        "{} runs in {seconds:.1} s: {a_minute:.0} a minute",
        done.runs
    );
    // A run that shows anything that must not be is in no row.
    let broken = u64::from(done.found.is_some());
    let (told, declared) = (done.stats.told, done.stats.declared);
    let row = format!(
        "{{\"runs\":{},\"acknowledged\":{told},\"declared\":{declared},\"lost\":{broken},\
         \"doubled\":{broken},\"repairs\":{broken},\"seconds\":{}}}",
        done.runs, seconds as u64
    );
    let Some(found) = done.found else {
        let is_enough = done.runs >= asked.at_least;
        match is_enough {
            true => println!("all holds\n{row}"),
            false => println!("only {} of {} seeds were run", done.runs, asked.at_least),
        }
        return is_enough;
    };
    println!("SEED={} {}", found.plan.seed, found.violation);
    let invariant = found.violation.invariant;
    let same = |plan: &Plan| {
        let found = world::run(plan, false).violation;
        found.is_some_and(|found| found.invariant == invariant)
    };
    let small = shrink(&found.plan, same);
    println!(
        "of {} faults {} are needed:",
        found.plan.faults.len(),
        small.faults.len()
    );
    print!("{small}");
    false
}
