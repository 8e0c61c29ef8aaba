//! Runs seeds of the simulation over real QUIC, `turmoil --seeds COUNT --from SEED`, and with
//! `--within SECONDS` those that begin in time, `--at-least COUNT` of them.
//!
//! Ends with 1 at the first that does not hold, and says which it was and what broke. With `SEED=…`
//! in the environment it runs that one. `turmoil --trace SEED` prints every datagram of one, and
//! last the hash of all of them.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::{Duration, Instant};
use tributary_turmoil::oracle::Counts;
use tributary_turmoil::plan::Plan;
use tributary_turmoil::{Outcome, run};

/// What is to be run.
struct Asked {
    seeds: u64,
    from: u64,
    within: Option<Duration>,
    at_least: u64,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |word: &String| word.parse::<u64>().ok();
    if let [trace, seed] = words.as_slice()
        && trace == "--trace"
        && let Some(seed) = number(seed)
    {
        return print(seed);
    }
    let only = std::env::var("SEED").ok().and_then(|seed| number(&seed));
    match asked(&words) {
        Some(_) if let Some(seed) = only => all(&Asked {
            seeds: 1,
            from: seed,
            within: None,
            at_least: 1,
        }),
        Some(asked) => all(&asked),
        None => {
            eprintln!(
                "usage: turmoil --seeds COUNT --from SEED [--within SECONDS \
                 --at-least COUNT] | turmoil --trace SEED"
            );
            ExitCode::from(2)
        }
    }
}

fn asked(words: &[String]) -> Option<Asked> {
    let mut asked = Asked {
        seeds: 1,
        from: 0,
        within: None,
        at_least: 1,
    };
    for pair in words.chunks(2) {
        let [name, value] = pair else { return None };
        let value: u64 = value.parse().ok()?;
        match name.as_str() {
            "--seeds" => asked.seeds = value,
            "--from" => asked.from = value,
            "--at-least" => asked.at_least = value,
            "--within" => asked.within = Some(Duration::from_secs(value)),
            _ => return None,
        }
    }
    Some(asked)
}

fn outcome(seed: u64) -> Option<Outcome> {
    let plan = Plan::draw(seed);
    match run(&plan) {
        Ok(outcome) => Some(outcome),
        Err(what) => {
            println!("SEED={seed}: {what}\n{plan:#?}");
            None
        }
    }
}

fn print(seed: u64) -> ExitCode {
    let Some(outcome) = outcome(seed) else {
        return ExitCode::from(1);
    };
    for datagram in &outcome.datagrams.0 {
        println!("{datagram}");
    }
    println!("{}", outcome.datagrams.hash());
    ExitCode::SUCCESS
}

fn all(asked: &Asked) -> ExitCode {
    let begun = Instant::now();
    let (mut counts, mut broken) = (Counts::default(), 0);
    let (mut seeds, mut datagrams, mut sessions, mut restarts, mut cuts) = (0, 0, 0, 0, 0);
    for seed in asked.from..asked.from.saturating_add(asked.seeds) {
        if asked.within.is_some_and(|within| begun.elapsed() > within) {
            break;
        }
        let Some(outcome) = outcome(seed) else {
            broken += 1;
            break;
        };
        seeds += 1;
        datagrams += outcome.datagrams.0.len();
        sessions += outcome.sessions;
        restarts += outcome.restarts;
        cuts += outcome.power_cuts;
        counts += outcome.counts;
        if seeds % 100 == 0 {
            println!("{seeds} seeds hold");
        }
    }
    let Counts {
        sealed,
        elsewhere,
        in_doubt,
        twice,
        gaps,
    } = counts;
    println!(
        "{seeds} seeds from {}: {datagrams} datagrams, {sessions} sessions, {restarts} restarts, \
         {cuts} power cuts",
        asked.from
    );
    println!(
        "{sealed} batches: {elsewhere} held by another than the agent's own aggregator, {in_doubt} \
         in doubt, {twice} in two journals, {gaps} under gaps; {broken} runs \
         with one lost, or twice unmarked"
    );
    if broken == 0 && seeds < asked.at_least {
        println!("only {seeds} of {} seeds were run", asked.at_least);
        return ExitCode::from(1);
    }
    let seconds = begun.elapsed().as_secs();
    println!(
        "{{\"runs\":{seeds},\"acknowledged\":{sealed},\"declared\":{gaps},\"lost\":{broken},\
         \"doubled\":{broken},\"repairs\":{broken},\"seconds\":{seconds}}}"
    );
    ExitCode::from(u8::from(broken > 0))
}
