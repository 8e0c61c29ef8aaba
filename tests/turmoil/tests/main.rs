//! Seeds of the second tier of the simulation, and that a seed is a run.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;
use std::time::Duration;
use tributary_turmoil::limits::BREAKS_S;
use tributary_turmoil::oracle::Broken;
use tributary_turmoil::plan::{Fault, Plan};
use tributary_turmoil::{Outcome, run};

/// Seeds: enough that everything happens.
const SEEDS: u64 = 12;

fn outcome(seed: u64) -> Outcome {
    let plan = Plan::draw(seed);
    run(&plan).unwrap_or_else(|what| panic!("{what}\n{plan:#?}"))
}

#[test]
fn over_real_quic_whatever_breaks_every_batch_is_stored_once_and_all_drains() {
    let outcomes: Vec<Outcome> = (0..SEEDS).map(outcome).collect();
    let restarts: u64 = outcomes.iter().map(|outcome| outcome.restarts).sum();
    // It shows nothing unless both ends were started again.
    assert!(restarts > 4, "{outcomes:#?}");
}

#[test]
fn the_same_seed_sends_the_same_datagrams_at_the_same_times() {
    let mut hashes = Vec::new();
    for seed in [3, 5, 8] {
        let first = outcome(seed);
        // On another thread, where hash maps have other seeds; and in another process.
        let again = std::thread::spawn(move || outcome(seed)).join().unwrap();
        let differs = first.datagrams.differs(&again.datagrams);
        assert_eq!(differs, None, "{:#?}", Plan::draw(seed));
        assert_eq!(first, again);
        let other = Command::new(env!("CARGO_BIN_EXE_turmoil"))
            .args(["--trace", &seed.to_string()])
            .output()
            .unwrap();
        let said = String::from_utf8(other.stdout).unwrap();
        assert_eq!(said.lines().last(), Some(&*first.datagrams.hash()));
        hashes.push(first.datagrams.hash());
    }
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 3, "each run is another");
}

#[test]
fn what_stays_broken_is_noticed_since_it_does_not_drain() {
    // Mended and broken again within a moment in which nothing arrives.
    let (heals, moment) = (Duration::from_secs(BREAKS_S), Duration::from_nanos(1));
    let faults = vec![
        (Duration::ZERO, Fault::Partition(0), heals),
        (heals + moment, Fault::Partition(0), moment),
    ];
    let plan = Plan { seed: 1, faults };
    assert_eq!(run(&plan).unwrap_err(), Broken::NotDrained);
}
