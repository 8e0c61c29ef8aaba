//! Power cuts of the real programs, replayed from a recording: a few of them, a few bits of what
//! was left, and a few calls that fail. `cargo xtask prove power-cuts` makes a longer recording,
//! and cuts it at 540 places.

use std::sync::Arc;
use tributary_tests::power::bits::Stopped;
use tributary_tests::power::cuts::{Cut, Syncs, Victims, choose, replay};
use tributary_tests::power::faults::{self, Failing, Fault};
use tributary_tests::power::recording::{Machine, Recording, Scale};
use tributary_tests::power::{Names, Survival};
use tributary_tests::shim::Shim;

fn cuts_lose_nothing(recording: &Recording) {
    let cuts = choose(recording, 18, 20_26);
    let outcomes = replay(recording, &cuts, Syncs::Work, |outcome| {
        assert!(outcome.is_clean(), "{outcome:#?}");
    });
    let acknowledged: u64 = outcomes.iter().map(|outcome| outcome.acknowledged).sum();
    assert!(
        acknowledged > 0,
        "no reading was at stake: nothing is proven"
    );
}

/// What would say that all is well whatever is lost proves nothing.
fn a_disk_that_ignores_syncs_is_found_out(recording: &Recording) {
    let cut = Cut {
        at: recording.log.len(),
        survival: Survival::Nothing,
        names: Names::ByDirectory,
        victims: Victims::Both,
        again: None,
    };
    for outcome in replay(recording, &[cut], Syncs::AreIgnored, |_| {}) {
        assert!(outcome.acknowledged > 0, "{outcome:#?}");
        assert_eq!(outcome.lost, outcome.acknowledged, "{outcome:#?}");
    }
}

fn bits_hide_no_loss(recording: &Recording) {
    let stopped = Stopped::after(recording, recording.backlog_at);
    let bits = stopped.bits(1);
    let of = |word: &'static str| bits.iter().filter(move |bit| bit.region.contains(word));
    for log in ["agent/wal", "agent/spool/telemetry", "aggregator/journal"] {
        for region in [
            "header",
            "second header",
            "frame's header",
            "frame's payload",
        ] {
            let region = format!("{log}/*.seg: {region}");
            assert!(bits.iter().any(|bit| bit.region == region), "no {region}");
        }
    }
    for bit in of("journal")
        .chain(of("wal").step_by(3))
        .chain(of("spool").step_by(7))
    {
        let outcome = stopped.flip(recording, bit);
        assert!(outcome.keeps(recording, bit), "{bit:#?}\n{outcome:#?}");
    }
    let (stopped, lost) = stopped.with_a_gap();
    let bits = stopped.bits_of_gaps(1, &lost);
    assert!(!bits.is_empty(), "no bit of a declared loss");
    let mut declared = 0;
    for bit in &bits {
        let outcome = stopped.flip(recording, bit);
        assert!(outcome.keeps(recording, bit), "{bit:#?}\n{outcome:#?}");
        declared += outcome.losses.len();
    }
    assert!(declared > 0, "none of them is declared again");
}

#[test]
fn power_cuts_lose_and_double_nothing_and_bits_hide_no_loss() {
    let recording = Recording::make(&Scale {
        seconds: 4,
        sensors: 30,
        fills_segments: false,
        kills: [400, 300],
        fault: None,
    });
    cuts_lose_nothing(&recording);
    a_disk_that_ignores_syncs_is_found_out(&recording);
    bits_hide_no_loss(&recording);
}

#[test]
fn calls_that_fail_once_lose_and_double_nothing() {
    let shim = Arc::new(Shim::compile("disk"));
    for (machine, failing, number) in [
        (Machine::Agent, Failing::Write, 60),
        (Machine::Agent, Failing::Sync, 30),
        (Machine::Aggregator, Failing::Write, 30),
        (Machine::Aggregator, Failing::Sync, 20),
    ] {
        let fault = Fault {
            machine,
            failing,
            number,
        };
        let outcome = faults::run(&shim, fault);
        assert!(outcome.came, "{outcome:#?}");
        assert_eq!(outcome.cut.is_some(), failing == Failing::Sync);
        if let Some(cut) = outcome.cut {
            assert!(cut.is_clean(), "{cut:#?}");
        }
    }
}
