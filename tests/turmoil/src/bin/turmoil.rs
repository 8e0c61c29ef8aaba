//! Runs seeds of the simulation over real QUIC, `turmoil SEEDS FROM`: ends with 1 at the first that
//! does not hold, and says which it was and what broke. `turmoil --trace SEED` prints every
//! datagram of one, and last the hash of all of them.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use tributary_turmoil::plan::Plan;
use tributary_turmoil::{Outcome, run};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |word: &String| word.parse::<u64>().ok();
    let ended = match words.as_slice() {
        [trace, seed] if trace == "--trace" => number(seed).map(print),
        [seeds, from] => number(seeds)
            .zip(number(from))
            .map(|(seeds, from)| all(seeds, from)),
        _ => None,
    };
    ended.unwrap_or_else(|| {
        eprintln!("usage: turmoil SEEDS FROM | turmoil --trace SEED");
        ExitCode::from(2)
    })
}

fn outcome(seed: u64) -> Option<Outcome> {
    let plan = Plan::draw(seed);
    match run(&plan) {
        Ok(outcome) => Some(outcome),
        Err(what) => {
            println!("seed {seed}: {what}\n{plan:#?}");
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

fn all(seeds: u64, from: u64) -> ExitCode {
    let (mut datagrams, mut sealed, mut restarts) = (0, 0, 0);
    for seed in from..from.saturating_add(seeds) {
        let Some(outcome) = outcome(seed) else {
            return ExitCode::from(1);
        };
        datagrams += outcome.datagrams.0.len();
        sealed += outcome.sealed;
        restarts += outcome.restarts;
    }
    println!(
        "{seeds} seeds from {from}: {sealed} batches, {datagrams} datagrams, {restarts} restarts"
    );
    ExitCode::SUCCESS
}
