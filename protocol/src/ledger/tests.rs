//! The ledger against a plain model, its bounds, and its checkpoint.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::ids::{AgentUuid, Lane, LogId};
use crate::limits::{
    HELLO_ELSEWHERE_MAX, LEDGER_ELSEWHERE_RUNS_MAX, LEDGER_LANE_RUNS_MAX, LEDGER_LOGS_MAX,
};
use crate::message::{Elsewhere, Hello, LaneState};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

mod folded;
mod messages;

fn agent(n: u8) -> AgentId {
    AgentId::new("acme", AgentUuid([n; 16])).unwrap()
}

fn key(number: u64) -> BatchKey {
    BatchKey {
        buffer: BufferId::new(1, 1),
        lane: Lane::Telemetry,
        number,
    }
}

fn hash(content: u64) -> BatchHash {
    BatchHash::of(&content.to_le_bytes())
}

fn fresh(ledger: &mut Ledger, session: Session, number: u64) -> Admission {
    match ledger.judge(session, &agent(1), key(number), hash(number)) {
        Verdict::Fresh(admission) => admission,
        other => panic!("{number}: {other:?}"),
    }
}

fn hold(ledger: &mut Ledger, session: Session, number: u64) {
    let admission = fresh(ledger, session, number);
    ledger.commit(admission);
}

#[test]
fn only_the_commit_makes_it_held() {
    let mut ledger = Ledger::new();
    let session = ledger.open_session(&agent(1), &[]);
    let admission = fresh(&mut ledger, session, 0);
    assert_eq!(ledger.held(&agent(1), key(0).lane_key()), []);
    assert_eq!(
        ledger.judge(session, &agent(1), key(0), hash(0)),
        Verdict::Pending
    );
    assert_eq!(
        ledger.judge(session, &agent(1), key(0), hash(9)),
        Verdict::Conflict
    );
    ledger.abort(admission);
    hold(&mut ledger, session, 0);
    let again = ledger.judge(session, &agent(1), key(0), hash(0));
    assert_eq!(again, Verdict::Replay { verified: true });
    assert_eq!(
        ledger.judge(session, &agent(1), key(0), hash(9)),
        Verdict::Conflict
    );
}

fn judge_gap(ledger: &mut Ledger, session: Session, numbers: Range<u64>) -> Verdict {
    let gap = (hash(1_000_000 + numbers.start), numbers.clone());
    ledger.judge_gap(session, &agent(1), key(numbers.start), gap)
}

#[test]
fn a_gap_over_what_is_held_changes_nothing() {
    let mut ledger = Ledger::new();
    let session = ledger.open_session(&agent(1), &[]);
    hold(&mut ledger, session, 0);
    let gap = judge_gap(&mut ledger, session, 0..1);
    assert_eq!(gap, Verdict::Replay { verified: false });
    // It shares the outcome of the data that is being written.
    let waiting = fresh(&mut ledger, session, 1);
    assert_eq!(judge_gap(&mut ledger, session, 1..2), Verdict::Pending);
    ledger.abort(waiting);
    let gap = judge_gap(&mut ledger, session, 1..2);
    assert!(matches!(gap, Verdict::Fresh(_)), "{gap:?}");
}

#[test]
fn a_gap_takes_the_numbers_that_nobody_holds() {
    let mut ledger = Ledger::new();
    let session = ledger.open_session(&agent(1), &[]);
    for number in [0, 3, 4] {
        hold(&mut ledger, session, number);
    }
    let waiting = fresh(&mut ledger, session, 6);
    let Verdict::Fresh(gap) = judge_gap(&mut ledger, session, 0..9) else {
        panic!("it takes some");
    };
    assert_eq!(gap.runs(), [1..3, 5..6, 7..9]);
    // Data under its numbers shares its outcome, and is a replay once it is held.
    let data = ledger.judge(session, &agent(1), key(2), hash(2));
    assert_eq!(data, Verdict::Pending);
    ledger.commit(gap);
    ledger.commit(waiting);
    for number in [2, 8] {
        let data = ledger.judge(session, &agent(1), key(number), hash(number));
        assert_eq!(data, Verdict::Replay { verified: false });
    }
    let data = ledger.judge(session, &agent(1), key(6), hash(6));
    assert_eq!(data, Verdict::Replay { verified: true });
    let again = judge_gap(&mut ledger, session, 0..9);
    assert_eq!(again, Verdict::Replay { verified: false });
    assert_eq!(ledger.total(&agent(1)).0, 9);
}

#[test]
fn a_gap_counts_as_one_island() {
    let mut ledger = Ledger::new();
    let session = ledger.open_session(&agent(1), &[]);
    for island in 0..LEDGER_HOLES_MAX as u64 {
        hold(&mut ledger, session, 1 + island * 2);
    }
    let end = LEDGER_HOLES_MAX as u64 * 2;
    let far = judge_gap(&mut ledger, session, end + 3..end + 7);
    assert_eq!(far, Verdict::Refused(Refusal::Holes { take: 0 }));
    let Verdict::Fresh(all) = judge_gap(&mut ledger, session, 0..end + 7) else {
        panic!("it fills every hole");
    };
    assert_eq!(all.runs().len(), LEDGER_HOLES_MAX + 1);
    ledger.commit(all);
    assert_eq!(ledger.held(&agent(1), key(0).lane_key()).len(), 1);
}

#[test]
fn agents_and_buffers_are_apart() {
    let mut ledger = Ledger::new();
    let session = ledger.open_session(&agent(1), &[]);
    hold(&mut ledger, session, 0);
    let other = ledger.open_session(&agent(2), &[]);
    let verdict = ledger.judge(other, &agent(2), key(0), hash(5));
    assert!(matches!(verdict, Verdict::Fresh(_)), "{verdict:?}");
    let next_life = BatchKey {
        buffer: BufferId::new(2, 1),
        ..key(0)
    };
    let verdict = ledger.judge(session, &agent(1), next_life, hash(6));
    assert!(matches!(verdict, Verdict::Fresh(_)), "{verdict:?}");
}

#[test]
fn the_newest_session_fences_the_older() {
    let mut ledger = Ledger::new();
    let old = ledger.open_session(&agent(1), &[]);
    let new = ledger.open_session(&agent(1), &[]);
    let stale = ledger.judge(old, &agent(1), key(0), hash(0));
    assert_eq!(stale, Verdict::Stale { current: new });
    hold(&mut ledger, new, 0);
}

#[test]
fn holes_are_bounded_and_the_refusal_says_what_would_be_taken() {
    let mut ledger = Ledger::new();
    let session = ledger.open_session(&agent(1), &[]);
    for island in 0..LEDGER_HOLES_MAX as u64 {
        hold(&mut ledger, session, 1 + island * 2);
    }
    let far = LEDGER_HOLES_MAX as u64 * 2 + 7;
    let verdict = ledger.judge(session, &agent(1), key(far), hash(far));
    assert_eq!(verdict, Verdict::Refused(Refusal::Holes { take: 0 }));
    hold(&mut ledger, session, 0);
    hold(&mut ledger, session, far);
}

#[test]
fn pending_batches_count_as_holes_too() {
    let mut ledger = Ledger::new();
    let session = ledger.open_session(&agent(1), &[]);
    let waiting: Vec<_> = (0..LEDGER_HOLES_MAX as u64)
        .map(|i| fresh(&mut ledger, session, 1 + i * 2))
        .collect();
    let verdict = ledger.judge(session, &agent(1), key(999), hash(999));
    assert_eq!(verdict, Verdict::Refused(Refusal::Holes { take: 0 }));
    waiting
        .into_iter()
        .for_each(|admission| ledger.commit(admission));
}

#[test]
fn buffers_are_bounded_until_the_agent_drops_them() {
    let mut ledger = Ledger::new();
    let session = ledger.open_session(&agent(1), &[]);
    for life in 0..AGENT_BUFFERS_MAX as u64 {
        let key = BatchKey {
            buffer: BufferId::new(life, 0),
            ..key(0)
        };
        assert!(ledger.recover(&agent(1), key, hash(life)));
    }
    let next = BatchKey {
        buffer: BufferId::new(9_999, 0),
        ..key(0)
    };
    let verdict = ledger.judge(session, &agent(1), next, hash(1));
    assert_eq!(verdict, Verdict::Refused(Refusal::Buffers));
    let session = ledger.open_session(&agent(1), &[BufferId::new(3, 0)]);
    let verdict = ledger.judge(session, &agent(1), next, hash(1));
    assert!(matches!(verdict, Verdict::Fresh(_)), "{verdict:?}");
    // What was dropped is still known: an image that is restored doubles nothing.
    let old = BatchKey {
        buffer: BufferId::new(0, 0),
        ..key(0)
    };
    let verdict = ledger.judge(session, &agent(1), old, hash(0));
    assert_eq!(verdict, Verdict::Replay { verified: true });
}

#[test]
fn a_replay_beyond_the_kept_hashes_is_told_apart() {
    let mut ledger = Ledger::new();
    let session = ledger.open_session(&agent(1), &[]);
    for number in 0..=LEDGER_HASHES_MAX as u64 {
        hold(&mut ledger, session, number);
    }
    let first = ledger.judge(session, &agent(1), key(0), hash(0));
    assert_eq!(first, Verdict::Replay { verified: false });
    let second = ledger.judge(session, &agent(1), key(1), hash(1));
    assert_eq!(second, Verdict::Replay { verified: true });
}

#[derive(Clone, Debug)]
enum Step {
    Send { number: u64, content: u64 },
    Gap { first: u64, count: u64 },
    Settle { durable: bool },
    Restart,
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u64..24, 0u64..2).prop_map(|(number, salt)| Step::Send {
            number,
            // Mostly the honest content; now and then another.
            content: if salt == 0 { number } else { number + 1_000 },
        }),
        2 => (0u64..20, 1u64..6).prop_map(|(first, count)| Step::Gap { first, count }),
        3 => any::<bool>().prop_map(|durable| Step::Settle { durable }),
        1 => Just(Step::Restart),
        1 => Just(Step::Reconnect),
    ]
}

fn round_trip(ledger: &Ledger) -> Ledger {
    let mut bytes = Vec::new();
    ledger.write_checkpoint(&mut bytes);
    let back = Ledger::read_checkpoint(&bytes).unwrap();
    let mut again = Vec::new();
    back.write_checkpoint(&mut again);
    assert_eq!(bytes, again);
    back
}

proptest! {
    /// A number is stored once, with the content committed first, whatever is sent in whatever
    /// order, and whenever the process restarts from its checkpoint.
    #[test]
    fn what_is_stored_is_stored_once(steps in proptest::collection::vec(step(), 0..200)) {
        let mut ledger = Ledger::new();
        let mut session = ledger.open_session(&agent(1), &[]);
        let mut stored: BTreeMap<u64, u64> = BTreeMap::new();
        let mut pending: Vec<(Vec<u64>, u64, Admission)> = Vec::new();
        let is_gap = |content: u64| content >= 1_000_000;
        for step in steps {
            match step {
                Step::Send { number, content } => {
                    let waiting = pending.iter().find(|(n, ..)| n.contains(&number));
                    let waiting = waiting.map(|(_, content, _)| *content);
                    match ledger.judge(session, &agent(1), key(number), hash(content)) {
                        Verdict::Fresh(admission) => {
                            prop_assert!(!stored.contains_key(&number) && waiting.is_none());
                            pending.push((vec![number], content, admission));
                        }
                        Verdict::Pending => {
                            prop_assert!(waiting.is_some_and(|w| w == content || is_gap(w)));
                        }
                        Verdict::Replay { verified } => {
                            let held = stored.get(&number).copied().unwrap();
                            prop_assert_eq!(verified, !is_gap(held));
                            prop_assert!(held == content || is_gap(held));
                        }
                        Verdict::Conflict => {
                            let held = stored.get(&number).copied().or(waiting);
                            prop_assert!(held.is_some_and(|held| held != content));
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                Step::Gap { first, count } => {
                    let numbers = first..first + count;
                    let waiting = |n: &u64| pending.iter().any(|(p, ..)| p.contains(n));
                    let open = numbers.clone().filter(|n| !stored.contains_key(n));
                    let absent: Vec<u64> = open.clone().filter(|n| !waiting(n)).collect();
                    match judge_gap(&mut ledger, session, numbers) {
                        Verdict::Fresh(admission) => {
                            let runs = admission.runs().iter().cloned().flatten();
                            prop_assert_eq!(runs.collect::<Vec<_>>(), absent.clone());
                            pending.push((absent, 1_000_000 + first, admission));
                        }
                        Verdict::Pending => prop_assert!(absent.is_empty() && open.count() > 0),
                        Verdict::Replay { .. } => prop_assert_eq!(open.count(), 0),
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                Step::Settle { durable } => for (numbers, content, admission) in pending.drain(..) {
                    if durable {
                        ledger.commit(admission);
                        for number in numbers {
                            prop_assert!(stored.insert(number, content).is_none());
                        }
                    } else {
                        ledger.abort(admission);
                    }
                },
                Step::Restart => {
                    for (.., admission) in pending.drain(..) {
                        ledger.abort(admission);
                    }
                    ledger = round_trip(&ledger);
                    session = ledger.open_session(&agent(1), &[key(0).buffer]);
                }
                Step::Reconnect => {
                    for (.., admission) in pending.drain(..) {
                        ledger.abort(admission);
                    }
                    session = ledger.open_session(&agent(1), &[key(0).buffer]);
                }
            }
            let held: BTreeSet<u64> = ledger
                .held(&agent(1), key(0).lane_key())
                .iter()
                .flat_map(|run| run.first..run.end)
                .collect();
            prop_assert_eq!(held, stored.keys().copied().collect::<BTreeSet<_>>());
        }
        let sum = stored.values().fold(HashSum::default(), |sum, c| sum.with(hash(*c)));
        prop_assert_eq!(ledger.total(&agent(1)), (stored.len() as u64, sum));
    }
}

#[test]
fn whatever_the_journal_gives_back_can_be_checkpointed_and_read() {
    let mut ledger = Ledger::new();
    // More buffers than are open at once, and a lane with more holes than would be accepted.
    for life in 0..2 * AGENT_BUFFERS_MAX as u64 {
        let key = BatchKey {
            buffer: BufferId::new(life, 0),
            ..key(0)
        };
        assert!(ledger.recover(&agent(1), key, hash(life)));
    }
    for island in 0..4 * LEDGER_HOLES_MAX as u64 {
        assert!(ledger.recover(&agent(2), key(1 + 2 * island), hash(island)));
    }
    let mut back = round_trip(&ledger);
    assert_eq!(back, ledger);
    // What fills one of too many holes is taken, another island is not.
    let session = back.open_session(&agent(2), &[]);
    let fill = back.judge(session, &agent(2), key(2), hash(2));
    assert!(matches!(fill, Verdict::Fresh(_)), "{fill:?}");
    let island = back.judge(session, &agent(2), key(9_999), hash(2));
    assert_eq!(island, Verdict::Refused(Refusal::Holes { take: 0 }));
}

#[test]
fn what_is_aborted_leaves_nothing() {
    let mut ledger = Ledger::new();
    let session = ledger.open_session(&agent(1), &[]);
    let before = ledger.clone();
    for life in 0..10 * AGENT_BUFFERS_MAX as u64 {
        let key = BatchKey {
            buffer: BufferId::new(life, 0),
            ..key(0)
        };
        match ledger.judge(session, &agent(1), key, hash(0)) {
            Verdict::Fresh(admission) => ledger.abort(admission),
            other => panic!("life {life}: {other:?}"),
        }
    }
    assert_eq!(ledger, before);
}

#[test]
fn a_damaged_checkpoint_is_refused_without_a_panic() {
    let mut ledger = Ledger::new();
    for n in 0..4u8 {
        let session = ledger.open_session(&agent(n), &[]);
        for number in [0, 1, 2, 5, 6, 9] {
            if let Verdict::Fresh(a) = ledger.judge(session, &agent(n), key(number), hash(number)) {
                ledger.commit(a);
            }
        }
    }
    let mut good = Vec::new();
    ledger.write_checkpoint(&mut good);
    for end in 0..good.len() {
        assert!(Ledger::read_checkpoint(&good[..end]).is_err(), "{end}");
    }
    let mut random = 1_u64;
    for _ in 0..100_000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let mut bad = good.clone();
        let at = (random >> 33) as usize % bad.len();
        bad[at] = (random >> 20) as u8;
        let _ = Ledger::read_checkpoint(&bad);
    }
}

/// The newest version of a checkpoint. What each version can say, this build must write as it did
/// and read for ever.
const VERSION: u32 = 4;

/// What stands in the golden checkpoint of a version.
fn golden(version: u32) -> Ledger {
    let mut ledger = Ledger::new();
    for of in [1, 2] {
        for number in [0, 1, 5] {
            assert!(ledger.recover(&agent(of), key(number), hash(number)));
        }
        let gap = (hash(77), std::slice::from_ref(&(2..4)));
        assert!(ledger.recover_gap(&agent(of), key(2), gap));
    }
    if version > 1 {
        let hello = elsewhere(1, &[(LogId([7; 16]), 6, 9), (LogId([8; 16]), 20, 21)]);
        assert_eq!(ledger.declare_elsewhere(&agent(2), &hello, OWN), 0);
    }
    if version > 2 {
        let entry = ledger.agents.get_mut(&agent(1)).unwrap();
        entry.folded.set_older(OlderLanes {
            lanes: 2,
            count: 300,
            sum: HashSum(7),
        });
    }
    if version > 3 {
        messages::fill(&mut ledger);
    }
    ledger
}

const OWN: LogId = LogId([1; 16]);

/// A Hello of one lane of which numbers from `first` on are left, and others hold these.
fn elsewhere(first: u64, others: &[(LogId, u64, u64)]) -> Hello {
    let lane = LaneState {
        key: key(0).lane_key(),
        first,
        end: 1_000,
        open: true,
    };
    let others = others.iter().map(|(log, first, end)| Elsewhere {
        key: key(0).lane_key(),
        log: *log,
        ranges: vec![Held {
            first: *first,
            end: *end,
            sum: (*first..*end).fold(HashSum::default(), |sum, n| sum.with(hash(n))),
        }],
    });
    Hello {
        lanes: vec![lane],
        elsewhere: others.collect(),
        ..Hello::default()
    }
}

#[test]
fn what_others_hold_is_no_hole_and_no_loss_and_welcome_all_the_same() {
    let mut ledger = Ledger::new();
    let session = ledger.open_session(&agent(1), &[]);
    let other = LogId([7; 16]);
    // Each second number, as many as there may be holes, and below all that nothing is left.
    let islands: Vec<_> = (0..60).map(|i| (other, 101 + 2 * i, 102 + 2 * i)).collect();
    let hello = elsewhere(100, &islands);
    assert_eq!(ledger.declare_elsewhere(&agent(1), &hello, OWN), 0);
    for number in (100..400).filter(|number| *number > 220 || number % 2 == 0) {
        hold(&mut ledger, session, number);
    }
    let lane = &ledger.lanes(&agent(1))[0];
    assert!(lane.held.iter().len() > 60, "runs apart, and yet no hole");
    assert_eq!((lane.floor, lane.elsewhere.len()), (100, 1));
    // All that there may be fit, since neither the others nor what lies below are holes.
    let most = LEDGER_HOLES_MAX as u64;
    (0..most).for_each(|i| hold(&mut ledger, session, 500 + 2 * i));
    // A gap takes what nobody holds.
    let gap = judge_gap(&mut ledger, session, 219..222);
    assert_eq!(gap, Verdict::Replay { verified: false });
    match judge_gap(&mut ledger, session, 390..402) {
        Verdict::Fresh(admission) => {
            assert_eq!(admission.runs(), std::slice::from_ref(&(400..402)));
            ledger.abort(admission);
        }
        other => panic!("{other:?}"),
    }
    // It comes after all: it is taken, and is elsewhere no more.
    hold(&mut ledger, session, 219);
    let others = &ledger.lanes(&agent(1))[0].elsewhere;
    assert_eq!(others.len(), 1);
    assert!(!others[0].1.contains(219) && others[0].1.contains(217));
    assert_eq!(
        round_trip(&ledger).lanes(&agent(1)),
        ledger.lanes(&agent(1))
    );
}

#[test]
fn what_the_ledger_itself_holds_and_its_own_journal_are_not_elsewhere() {
    let mut ledger = Ledger::new();
    let session = ledger.open_session(&agent(1), &[]);
    (0..5).for_each(|number| hold(&mut ledger, session, number));
    let hello = elsewhere(0, &[(LogId([7; 16]), 3, 7), (OWN, 8, 9)]);
    assert_eq!(ledger.declare_elsewhere(&agent(1), &hello, OWN), 0);
    let others = &ledger.lanes(&agent(1))[0].elsewhere;
    let runs: Vec<_> = others[0].1.iter().map(|run| (run.first, run.end)).collect();
    assert_eq!((others.len(), runs), (1, vec![(5, 7)]));
    // Said twice, it is known once; and a lane that is over and was never held costs nothing.
    assert_eq!(ledger.declare_elsewhere(&agent(1), &hello, OWN), 0);
    assert_eq!(ledger.lanes(&agent(1))[0].elsewhere.len(), 1);
    let mut stranger = Ledger::new();
    stranger.declare_elsewhere(&agent(1), &hello, OWN);
    assert_eq!(stranger.lanes(&agent(1)).len(), 1);
    stranger.declare_elsewhere(&agent(1), &Hello::default(), OWN);
    assert_eq!(stranger.lanes(&agent(1)), []);
}

/// The other journal was lost, and its agent gave up what it was to send again: the gap has to be
/// stored, or the loss would stand nowhere.
#[test]
fn what_an_agent_does_not_name_any_more_is_not_elsewhere() {
    let mut ledger = Ledger::new();
    let session = ledger.open_session(&agent(1), &[]);
    let (lost, other) = (LogId([7; 16]), LogId([8; 16]));
    let hello = elsewhere(2, &[(lost, 4, 7), (other, 8, 9)]);
    ledger.declare_elsewhere(&agent(1), &hello, OWN);
    ledger.declare_elsewhere(&agent(1), &elsewhere(2, &[(other, 8, 9)]), OWN);
    let lane = &ledger.lanes(&agent(1))[0];
    assert_eq!(lane.elsewhere.len(), 1, "{lane:?}");
    match judge_gap(&mut ledger, session, 4..9) {
        Verdict::Fresh(admission) => {
            assert_eq!(admission.runs(), std::slice::from_ref(&(4..8)));
            ledger.abort(admission);
        }
        verdict => panic!("{verdict:?}"),
    }
    // Where it may have had no room for all that it knows, what it does not name may still be so.
    let many: Vec<_> = (0..HELLO_ELSEWHERE_MAX as u64)
        .map(|n| (other, 10 + n, 11 + n))
        .collect();
    ledger.declare_elsewhere(&agent(1), &elsewhere(2, &many), OWN);
    let others = &ledger.lanes(&agent(1))[0].elsewhere;
    assert!(
        others[0].1.contains(8) && others[0].1.contains(521),
        "{others:?}"
    );
}

#[test]
fn what_is_said_to_be_elsewhere_is_bounded_by_lane_agent_and_journal() {
    let mut ledger = Ledger::new();
    // Journals that take turns, number by number: no holes, and many runs.
    let logs = LEDGER_LOGS_MAX as u64 + 3;
    let log = |n: u64| LogId([(n % logs) as u8 + 2; 16]);
    let many: Vec<_> = (10..710).map(|n| (log(n), n, n + 1)).collect();
    let left_out = ledger.declare_elsewhere(&agent(1), &elsewhere(0, &many), OWN);
    let others = &ledger.lanes(&agent(1))[0].elsewhere;
    let runs: usize = others.iter().map(|(_, runs)| runs.iter().len()).sum();
    assert_eq!(runs, LEDGER_LANE_RUNS_MAX);
    let numbers: u64 = others.iter().map(|(_, runs)| runs.count()).sum();
    assert_eq!(left_out, 700 - numbers);
    assert_eq!(others.len(), LEDGER_LOGS_MAX + 1);
    // One that leaves each second number out: as many holes as there may be.
    let islands: Vec<_> = (0..99)
        .map(|i| (log(0), 2_001 + 2 * i, 2_002 + 2 * i))
        .collect();
    let mut apart = Ledger::new();
    let left_out = apart.declare_elsewhere(&agent(1), &elsewhere(0, &islands), OWN);
    assert_eq!(left_out, 99 - LEDGER_HOLES_MAX as u64);
    // Many lanes: the agent's bound, and what is drained gives way.
    let lane = |n: u64| LaneKey {
        buffer: BufferId::new(n, 1),
        lane: Lane::Telemetry,
    };
    let mut declare = |lives: Range<u64>| {
        let mut hello = elsewhere(0, &[]);
        for n in lives {
            for (_, first, end) in islands.iter().take(60) {
                hello.elsewhere.push(Elsewhere {
                    key: lane(n),
                    log: LogId([7; 16]),
                    ranges: vec![Held {
                        first: *first,
                        end: *end,
                        sum: HashSum(1),
                    }],
                });
            }
            hello.lanes.push(LaneState {
                key: lane(n),
                ..hello.lanes[0]
            });
        }
        ledger.declare_elsewhere(&agent(1), &hello, OWN)
    };
    assert!(declare(100..200) > 0);
    assert_eq!(declare(200..250), 0);
    let lanes = ledger.lanes(&agent(1));
    let all = lanes.iter().flat_map(|lane| &lane.elsewhere);
    let all: usize = all.map(|(_, runs)| runs.iter().len()).sum();
    assert!(all <= LEDGER_ELSEWHERE_RUNS_MAX, "{all}");
}

/// A lane is not announced any more, its buffer is: what others hold of it gives way, and nothing
/// is folded, since more may come.
#[test]
fn a_lane_that_gives_way_in_an_open_buffer_is_not_folded() {
    let mut ledger = Ledger::new();
    let buffer = key(0).buffer;
    let session = ledger.open_session(&agent(1), &[buffer]);
    let admission = fresh(&mut ledger, session, 0);
    ledger.commit(admission);
    ledger.declare_elsewhere(&agent(1), &elsewhere(0, &[(LogId([7; 16]), 5, 9)]), OWN);
    let mut hello = elsewhere(0, &[]);
    hello.lanes[0].key.lane = Lane::Events;
    let run = |n: u64| Held {
        first: 2 * n,
        end: 2 * n + 1,
        sum: HashSum(1),
    };
    hello.elsewhere.push(Elsewhere {
        key: hello.lanes[0].key,
        log: LogId([7; 16]),
        ranges: (0..=LEDGER_ELSEWHERE_RUNS_MAX as u64).map(run).collect(),
    });
    let session = ledger.open_session(&agent(1), &[buffer]);
    ledger.declare_elsewhere(&agent(1), &hello, OWN);
    let lanes = ledger.lanes(&agent(1));
    let lane = lanes.iter().find(|lane| lane.key == key(0).lane_key());
    assert_eq!(lane.unwrap().elsewhere, []);
    let next = ledger.open_session(&agent(1), &[buffer]);
    assert!(next > session);
    assert!(
        ledger.agents[&agent(1)]
            .lanes
            .contains_key(&key(0).lane_key())
    );
    let admission = fresh(&mut ledger, next, 1);
    ledger.commit(admission);
    assert_eq!(ledger.held(&agent(1), key(0).lane_key())[0].end, 2);
}

#[test]
fn an_aborted_batch_leaves_what_is_elsewhere() {
    let mut ledger = Ledger::new();
    let session = ledger.open_session(&agent(1), &[]);
    let hello = elsewhere(3, &[(LogId([7; 16]), 5, 9)]);
    ledger.declare_elsewhere(&agent(1), &hello, OWN);
    let before = ledger.clone();
    let admission = fresh(&mut ledger, session, 3);
    ledger.abort(admission);
    assert_eq!(ledger, before);
}

#[test]
fn what_the_journal_lost_is_held_again_with_its_sum() {
    let mut ledger = Ledger::new();
    for number in [0, 1, 4] {
        assert!(ledger.recover(&agent(1), key(number), hash(number)));
    }
    let sum = |numbers: Range<u64>| numbers.map(hash).fold(HashSum::default(), HashSum::with);
    let lost = |first, end| Held {
        first,
        end,
        sum: sum(first..end),
    };
    ledger.recover_run(&agent(1), key(0).lane_key(), lost(2, 4));
    let all = [lost(0, 5)];
    assert_eq!(ledger.held(&agent(1), key(0).lane_key()), all);
    // What is held already stays as it is.
    ledger.recover_run(&agent(1), key(0).lane_key(), lost(1, 5));
    assert_eq!(ledger.held(&agent(1), key(0).lane_key()), all);
    let session = ledger.open_session(&agent(1), &[]);
    let verdict = ledger.judge(session, &agent(1), key(2), hash(2));
    assert_eq!(verdict, Verdict::Replay { verified: false });
}

/// `GOLDEN=new cargo test -p tributary-protocol` writes files that are missing; none is changed.
#[test]
fn golden_checkpoints_stay_as_they_are() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for version in 1..=VERSION {
        let path = folder.join(format!("ledger-{version}.hex"));
        let mut bytes = Vec::new();
        golden(version).write_checkpoint(&mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if !path.exists() && std::env::var_os("GOLDEN").is_some_and(|value| value == "new") {
            std::fs::write(&path, format!("{hex}\n")).unwrap();
        }
        let held = std::fs::read_to_string(&path).unwrap();
        assert_eq!(held.trim(), hex, "encoding of version {version} changed");
        let held = held.trim().as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let held: Vec<u8> = held.map(byte).collect();
        assert_eq!(
            Ledger::read_checkpoint(&held),
            Ok(golden(version)),
            "{version}"
        );
    }
}
