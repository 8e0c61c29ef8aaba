//! Seeds, and plans.

use tributary_agent::spool::Policy;
use tributary_whole::oracle::Stats;
use tributary_whole::plan::{Fault, Plan, Profile};
use tributary_whole::world::{self, Outcome};
use tributary_world::net::Side;

/// Seeds of each profile: `.ci/run` runs many more.
const SEEDS: u64 = 2;

fn run(plan: &Plan) -> Outcome {
    let outcome = world::run(plan, false);
    if let Some(violation) = &outcome.violation {
        panic!("{violation}\n{plan}");
    }
    outcome
}

fn run_all(profiles: &[Profile]) -> Stats {
    let mut stats = Stats::default();
    for profile in profiles {
        for seed in 0..SEEDS {
            stats = stats.and(run(&Plan::draw_as(seed, *profile)).stats);
        }
    }
    stats
}

#[test]
fn whatever_breaks_at_the_aggregator_what_was_acknowledged_is_in_the_lake_once() {
    let stats = run_all(&Profile::ALL[..5]);
    // It shows nothing unless all of this happened.
    let happened = [stats.rows, stats.entries, stats.fenced, stats.lake_errors];
    assert!(happened.iter().all(|times| *times > 0), "{stats:?}");
}

#[test]
fn whatever_breaks_at_agents_what_was_acknowledged_is_in_the_lake_once() {
    let stats = run_all(&Profile::ALL[5..10]);
    let happened = [stats.told, stats.rows, stats.shadows, stats.doors_cut];
    assert!(happened.iter().all(|times| *times > 0), "{stats:?}");
    assert!(stats.agent_starts > 12, "{stats:?}");
}

/// A gap excuses the readings of the batches that it stands for, and no other.
#[test]
fn a_spool_that_gives_way_declares_what_is_missing_and_one_that_blocks_loses_nothing() {
    for (policy, gives) in Policy::NAMES {
        let mut stats = Stats::default();
        for seed in 0..SEEDS {
            let mut plan = Plan::draw_as(seed, Profile::Spools);
            plan.shape.policy = gives;
            // Nothing leaves it for long enough.
            let until = plan.heal_at;
            let stall = |agent| Fault::Stall {
                agent,
                to: Side::Site,
                us: until,
            };
            plan.faults = (0..plan.shape.agents)
                .map(|agent| (1_000_000, stall(agent)))
                .chain(plan.faults)
                .collect();
            stats = stats.and(run(&plan).stats);
        }
        let Stats {
            declared, named, ..
        } = stats;
        assert_eq!(declared > 0, gives != Policy::Block, "{policy} {stats:?}");
        assert_eq!(named > 0, gives == Policy::DropOldest, "{policy} {stats:?}");
    }
}

#[test]
fn bits_that_flip_cost_what_they_hit_and_no_more() {
    let profiles = [Profile::AgentBits, Profile::SiteBits];
    let mut stats = Stats::default();
    for profile in profiles {
        for seed in 0..3 * SEEDS {
            stats = stats.and(run(&Plan::draw_as(seed, profile)).stats);
        }
    }
    assert!(stats.flips > 12 && stats.hit > 0, "{stats:?}");
}

/// A bit took the first frame of a life of the log, which says by which rules its messages are
/// read: they are whole, among the dead letters.
#[test]
fn messages_whose_rules_a_bit_took_lie_among_the_dead_letters() {
    let text = "whole 1 seed 1002 profile AgentBits agents 1 made 0 devices 1 messages 19 every \
                41438 rate 254700 flush 1383611 journal 32768 spool 100 policy drop-oldest heal \
                7046791\n\
                at 159377 halfopen agent0 knows agent\n\
                at 337005 power agent0 after 0 operations survival nothing down 2595545\n\
                at 1692853 flip agent0 class FrameHeader\n";
    let stats = run(&text.parse().unwrap()).stats;
    assert!(stats.hit > 0 && stats.named > 0, "{stats:?}");
}

/// A bit took the definitions of series from the journal: batches that need them lie whole beside
/// the lake's tables.
#[test]
fn batches_whose_definitions_a_bit_took_lie_beside_the_tables() {
    let text = "whole 1 seed 49 profile SiteBits agents 2 made 0 devices 3 messages 29 every \
                193677 rate 52135 flush 2957573 journal 32768 spool 0 policy drop-oldest heal \
                11817089\n\
                at 4951924 power site after 3 syncs survival nothing down 738\n\
                at 5401219 flip site class FramePayload\n";
    let stats = run(&text.parse().unwrap()).stats;
    assert!(stats.hit > 0 && stats.named > 0, "{stats:?}");
}

#[test]
fn the_same_plan_is_the_same_run() {
    let mut traces = Vec::new();
    for profile in [Profile::Mixed, Profile::Stores, Profile::Rules] {
        let plan = Plan::draw_as(77, profile);
        // On another thread, where hash maps have other seeds; and watched, which changes nothing.
        let again = std::thread::scope(|scope| {
            let other = scope.spawn(|| world::run(&plan, true));
            other.join().unwrap()
        });
        let first = run(&plan);
        assert_eq!(first.trace, again.trace, "{plan}");
        assert_eq!(first.stats, again.stats, "{plan}");
        assert!(!again.lines.is_empty() && first.lines.is_empty());
        traces.push(first.trace.to_string());
    }
    traces.sort();
    traces.dedup();
    assert_eq!(traces.len(), 3, "each run is another");
}

/// Faults that a plan does not have do not happen.
#[test]
fn without_a_fault_nothing_is_lost_fenced_or_started_twice() {
    for (seed, profile) in [
        (1, Profile::Plain),
        (2, Profile::Links),
        (3, Profile::Sites),
    ] {
        let mut plan = Plan::draw_as(seed, profile);
        plan.faults.clear();
        let stats = run(&plan).stats;
        let odd = [
            stats.declared,
            stats.unsaid,
            stats.lake_errors,
            stats.fenced,
            stats.failed_starts,
            stats.escaped,
            stats.doors_cut,
        ];
        assert_eq!(odd, [0; 7], "{stats:?}");
        assert_eq!(stats.rows, stats.readings, "also what QoS 0 may lose");
        assert_eq!(stats.site_starts, 1);
        assert_eq!(stats.agent_starts, plan.shape.agents as u64);
        assert_eq!(stats.sessions, plan.shape.agents as u64);
    }
}

/// Batches of an earlier life went, acknowledged, from a disk without room, before the cursor of
/// the next one said what they covered: their messages were sealed again.
#[test]
fn what_went_as_acknowledged_is_not_sealed_again() {
    let text = "whole 1 seed 1795833811 profile AgentDisk agents 1 made 0 devices 2 messages 21 \
                every 179983 rate 1000000000 flush 8291726 journal 32768 spool 0 policy \
                drop-oldest heal 17690803\n\
                at 3297713 failsyncs agent0 times 2\n\
                at 4077646 full agent0 for 1092617\n";
    run(&text.parse().unwrap());
}

/// The journal began a segment whose name could not be made durable, and went on in the one before:
/// readers and the next open end that one where the name says.
#[test]
fn nothing_is_written_before_a_segment_that_could_not_be_begun() {
    let text = "whole 1 seed 50984 profile SiteDisk agents 1 made 76 devices 0 messages 0 every \
                230401 rate 1000000000 flush 2156715 journal 32768 spool 0 policy drop-oldest \
                heal 30130828\n\
                at 16955874 faildirsyncs site times 2\n";
    run(&text.parse().unwrap());
}

/// Definitions that go on from some that a bit took can't be understood either, and come again.
#[test]
fn definitions_behind_some_that_a_bit_took_come_again() {
    let text = "whole 1 seed 1795843569 profile SiteBits agents 1 made 0 devices 1 messages 33 \
                every 94737 rate 1000000000 flush 387416 journal 12288 spool 100 policy \
                drop-oldest heal 10965989\n\
                at 877357 power agent0 after 1 syncs survival nothing down 48873\n\
                at 2833320 halfopen agent0 knows site\n\
                at 5461213 flip site class FrameHeader\n\
                at 6164184 power site after 0 operations survival nothing down 513\n";
    run(&text.parse().unwrap());
}
