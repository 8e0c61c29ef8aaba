//! Seeds of the second tier of the simulation, and that a seed is a run.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;
use std::time::Duration;
use tributary_turmoil::limits::BREAKS_S;
use tributary_turmoil::oracle::{Broken, Counts};
use tributary_turmoil::plan::{Fault, Plan};
use tributary_turmoil::{Outcome, run};

/// Seeds: enough that everything happens.
const SEEDS: u64 = 12;

fn outcome(plan: &Plan) -> Outcome {
    run(plan).unwrap_or_else(|what| panic!("{what}\n{plan:#?}"))
}

fn plan<const N: usize>(seed: u64, faults: [(u64, Fault, u64); N]) -> Plan {
    let ms = Duration::from_millis;
    let faults = faults.map(|(begins, fault, lasts)| (ms(begins), fault, ms(lasts)));
    let faults = faults.into();
    Plan { seed, faults }
}

#[test]
fn over_real_quic_whatever_breaks_every_batch_is_stored_once_or_marked_and_all_drains() {
    let mut all = Counts::default();
    let (mut restarts, mut power_cuts) = (0, 0);
    for seed in 0..SEEDS {
        let outcome = outcome(&Plan::draw(seed));
        all += outcome.counts;
        restarts += outcome.restarts;
        power_cuts += outcome.power_cuts;
    }
    // It shows nothing unless all of it happened.
    assert!(restarts > 4 && power_cuts > 4, "{restarts}, {power_cuts}");
    let often = [all.elsewhere, all.in_doubt, all.twice, all.gaps];
    assert!(often.iter().all(|times| *times > 4), "{all:?}");
}

/// Its home is gone for long enough: what is sealed from then on goes to the next of the list at
/// once, what was under way later and marked; and it comes home.
#[test]
fn an_agent_goes_elsewhere_and_comes_home() {
    let outcome = outcome(&plan(7, [(10_000, Fault::Island(0), 30_000)]));
    let Counts {
        elsewhere, sealed, ..
    } = outcome.counts;
    assert!((10..60).contains(&elsewhere), "{:?}", outcome.counts);
    assert_eq!(sealed, 2 * 61);
    // Home, elsewhere, home again; and the other agent's.
    assert!(outcome.sessions >= 4, "{outcome:?}");
}

#[test]
fn the_same_seed_sends_the_same_datagrams_at_the_same_times() {
    let mut hashes = Vec::new();
    for seed in [3, 5, 8] {
        let plan = Plan::draw(seed);
        let first = outcome(&plan);
        // On another thread, where hash maps have other seeds; and in another process.
        let same = plan.clone();
        let again = std::thread::spawn(move || outcome(&same)).join().unwrap();
        let differs = first.datagrams.differs(&again.datagrams);
        assert_eq!(differs, None, "{plan:#?}");
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
    // Mended and broken again within a moment in which nothing arrives, and that for each of the
    // list.
    let (heals, moment) = (Duration::from_secs(BREAKS_S), Duration::from_nanos(1));
    let faults = [0, 1, 2].into_iter().flat_map(|site| {
        let gone = Fault::Partition(0, site);
        [
            (Duration::ZERO, gone, heals),
            (heals + moment, gone, moment),
        ]
    });
    let mut faults: Vec<_> = faults.collect();
    faults.sort_by_key(|(begins, _, _)| *begins);
    let plan = Plan { seed: 1, faults };
    assert_eq!(run(&plan).unwrap_err(), Broken::NotDrained);
}

/// Found by seed 1016 when there was one aggregator: a process begins when all else is drained, and
/// has sealed definitions that its uplink was not told of yet.
#[test]
fn what_a_process_has_sealed_as_it_began_is_waited_for() {
    let ends = Fault::CrashAgent(1);
    let outcome = outcome(&plan(1016, [(59_000, ends, 900)]));
    assert_eq!(outcome.restarts, 1);
    assert_eq!(outcome.counts.sealed, 2 * 61 + 1);
}
