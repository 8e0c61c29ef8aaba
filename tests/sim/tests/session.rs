//! The session world: what it found once, some seeds of each profile, and that a seed is a run.

use tributary_world::fleet::{Sweep, sweep_until};
use tributary_world::plan::{Plan, Profile};
use tributary_world::session::{self, Outcome, Stats};

/// Seeds of each profile: enough that everything happens; `.ci/run` runs many more.
const SEEDS: u64 = 4;

fn run(plan: &Plan) -> Outcome {
    let outcome = session::run(plan, false);
    if let Some(violation) = &outcome.violation {
        panic!("{violation}\n{plan}");
    }
    outcome
}

#[test]
fn whatever_breaks_every_batch_is_stored_once_and_all_drains() {
    let mut stats = Stats::default();
    for profile in Profile::ALL {
        for seed in 0..SEEDS {
            stats = stats.and(run(&Plan::draw_as(seed, profile)).stats);
        }
    }
    // It shows nothing unless all of this happened.
    let Stats {
        declared,
        replays,
        shared,
        stale,
        unknown,
        aborted,
        conflicts,
        came_back,
        holes,
        ..
    } = stats;
    let happened = [
        declared, replays, shared, stale, unknown, aborted, conflicts, came_back,
    ];
    assert!(happened.iter().all(|times| *times > 0), "{stats:?}");
    assert!(holes > 16, "{stats:?}");
    assert!(
        declared * 50 < stats.stored,
        "more than 2 % are excused: {stats:?}"
    );
    assert_eq!((stats.trusted, stats.confused), (0, 0), "{stats:?}");
}

/// A disk lied to the aggregator. What is lost of that is what no spool has any more.
#[test]
fn a_tail_that_a_journal_lost_is_sent_again_as_far_as_it_is_there() {
    let mut stats = Stats::default();
    for seed in 0..60 {
        stats = stats.and(run(&Plan::draw_as(seed, Profile::Tails)).stats);
    }
    let Stats {
        excused,
        stored,
        came_back,
        ..
    } = stats;
    assert!(excused > 0 && came_back > 0, "{stats:?}");
    assert!(excused * 50 < stored, "more than 2 % are gone: {stats:?}");
}

/// The disk lied, the agent knew and had it still; then it lost power and its trimmed segment,
/// before it had sent it again. Nobody has it any more, which the journal's loss excuses.
#[test]
fn a_tail_that_is_lost_at_both_ends_is_excused() {
    for seed in [900_091_064, 2_000_956] {
        let stats = run(&Plan::draw_as(seed, Profile::Tails)).stats;
        assert!(stats.excused > 0, "{seed}: {stats:?}");
    }
}

/// Agents with a list of aggregators: they go away, return, and leave some behind for good.
#[test]
fn between_several_aggregators_what_two_took_is_marked_and_all_drains() {
    let mut stats = Stats::default();
    for seed in 0..24 {
        stats = stats.and(run(&Plan::draw_as(seed, Profile::Failover)).stats);
    }
    let Stats {
        switches,
        marked,
        twice,
        stored,
        gone,
        ..
    } = stats;
    assert!(switches > 4 && marked > 0 && twice > 0, "{stats:?}");
    assert!(twice * 20 < stored, "{stats:?}");
    assert_eq!(gone, 0, "no journal was lost: {stats:?}");
}

/// What a journal took with it goes again as long as it is somewhere, and the rest is told.
#[test]
fn what_a_lost_journal_had_is_sent_again_or_told_wherever_its_agents_are() {
    let mut stats = Stats::default();
    for seed in 0..24 {
        stats = stats.and(run(&Plan::draw_as(seed, Profile::LostJournal)).stats);
    }
    let Stats {
        switches,
        marked,
        gone,
        told,
        ..
    } = stats;
    let happened = [switches, marked, gone, told];
    assert!(happened.iter().all(|times| *times > 0), "{stats:?}");
}

/// A ledger that was told once what another journal had must not take a gap for known when that one
/// was lost and its agent says no more that it has it: the loss would stand nowhere.
#[test]
fn a_gap_of_what_another_journal_lost_is_stored() {
    let text = include_str!("../found/a_gap_of_what_another_journal_lost.plan");
    let stats = run(&text.parse().unwrap()).stats;
    assert!(stats.declared > 0, "{stats:?}");
}

/// Definitions overtake each other wherever many are on their way. When one that did had all of its
/// buffer sent again, ten of these seeds had 19,621 replays.
#[test]
fn definitions_that_overtake_each_other_are_not_all_sent_again() {
    let mut stats = Stats::default();
    for seed in 1..=5 {
        stats = stats.and(run(&Plan::draw_as(seed, Profile::Islands)).stats);
    }
    assert!(stats.unknown > 100, "{stats:?}");
    assert!(stats.replays * 100 < stats.stored, "{stats:?}");
}

#[test]
fn the_same_plan_is_the_same_run() {
    let mut traces = Vec::new();
    for profile in Profile::ALL {
        let plan = Plan::draw_as(77, profile);
        // On another thread, where hash maps have other seeds; and watched, which changes nothing.
        let again = std::thread::scope(|scope| {
            let other = scope.spawn(|| session::run(&plan, true));
            other.join().unwrap()
        });
        let first = session::run(&plan, false);
        assert_eq!(first.trace, again.trace, "{plan}");
        assert_eq!(first.stats, again.stats, "{plan}");
        assert!(!again.lines.is_empty() && first.lines.is_empty());
        traces.push(first.trace.to_string());
    }
    traces.sort();
    traces.dedup();
    assert_eq!(traces.len(), Profile::ALL.len(), "each run is another");
}

/// A ledger folds a buffer that its agent announces no more. When a twin sends other batches under
/// those numbers, they are no repeats.
#[test]
fn twins_are_told_apart_once_their_buffer_is_folded() {
    let text = include_str!("../found/a_twin_after_its_buffer_was_folded.plan");
    let stats = run(&text.parse().unwrap()).stats;
    assert_eq!((stats.trusted, stats.conflicts > 0), (0, true), "{stats:?}");
}

/// An acknowledgement names numbers, no hashes. Over QUIC each batch arrives once in a connection,
/// and that is enough; where batches are doubled it is not. As above: allowed while it happens.
#[test]
fn an_ack_of_a_doubled_batch_is_still_taken_for_its_gaps() {
    let text = include_str!("../found/an_ack_of_a_doubled_batch.plan");
    let outcome = run(&text.parse().unwrap());
    assert!(outcome.stats.confused > 0, "{:?}", outcome.stats);
}

/// Faults that a plan does not have do not happen, and what is made up by the world is no fault.
#[test]
fn without_a_fault_nothing_is_lost_refused_or_said_twice() {
    for seed in 0..SEEDS {
        let mut plan = Plan::draw_as(seed, Profile::Plain);
        plan.faults.clear();
        let stats = run(&plan).stats;
        let Stats {
            declared,
            shared,
            stale,
            aborted,
            conflicts,
            excused,
            trusted,
            confused,
            ..
        } = stats;
        let odd = [
            declared, shared, stale, aborted, conflicts, excused, trusted, confused,
        ];
        assert_eq!(odd, [0; 8], "{stats:?}");
        assert_eq!(stats.sessions, plan.shape.agents as u64, "{stats:?}");
    }
}

#[test]
#[should_panic(expected = "outside of a run")]
fn a_thread_that_panics_is_no_seed_that_holds() {
    let sweep = Sweep {
        from: 0,
        seeds: 2,
        threads: 1,
        profile: None,
    };
    sweep_until(&sweep, &|| panic!("outside of a run"), &|| false);
}
