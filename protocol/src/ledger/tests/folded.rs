//! Lanes of earlier lives: folded, and judged as before.

use super::super::folded::VISITED;
use super::*;
use crate::limits::{AGENT_FOLDED_MAX, LEDGER_FOLDED_HASHES_MAX};

fn life(life: u64) -> BufferId {
    BufferId::new(life, 7)
}

fn of(life_of: u64, lane: Lane, number: u64) -> BatchKey {
    BatchKey {
        buffer: life(life_of),
        lane,
        number,
    }
}

fn content(key: BatchKey) -> BatchHash {
    BatchHash::of(format!("{key}").as_bytes())
}

/// The agent begins another life, and delivers so many batches of each lane.
fn live(ledger: &mut Ledger, at: u64, batches: u64) -> Session {
    let session = ledger.open_session(&agent(1), &[life(at)]);
    for lane in Lane::ALL {
        for number in 0..batches {
            let key = of(at, lane, number);
            match ledger.judge(session, &agent(1), key, content(key)) {
                Verdict::Fresh(admission) => ledger.commit(admission),
                other => panic!("{key}: {other:?}"),
            }
        }
    }
    session
}

fn open_lanes(ledger: &Ledger) -> usize {
    ledger.agents[&agent(1)].lanes.len()
}

#[test]
fn an_agent_that_restarts_for_years_is_never_refused() {
    let mut ledger = Ledger::new();
    let lives = AGENT_LANES_MAX as u64 / 5 + 100;
    for at in 1..=lives {
        live(&mut ledger, at, 1);
    }
    assert_eq!(open_lanes(&ledger), 5, "those of the present life");
    assert_eq!(ledger.total(&agent(1)).0, 5 * lives);
    assert_eq!(ledger.lanes(&agent(1)).len() as u64, 5 * lives);
}

#[test]
fn what_is_folded_is_judged_as_before() {
    let mut ledger = Ledger::new();
    live(&mut ledger, 1, 3);
    let total = ledger.total(&agent(1));
    let session = live(&mut ledger, 2, 1);
    let key = of(1, Lane::Telemetry, 1);
    let verdict = |ledger: &mut Ledger, hash| ledger.judge(session, &agent(1), key, hash);
    let again = verdict(&mut ledger, content(key));
    assert_eq!(again, Verdict::Replay { verified: true });
    assert_eq!(verdict(&mut ledger, hash(9)), Verdict::Conflict, "a twin's");
    let gap = |ledger: &mut Ledger, numbers: Range<u64>| {
        let key = of(1, Lane::Telemetry, numbers.start);
        ledger.judge_gap(session, &agent(1), key, (hash(5), numbers))
    };
    let covered = gap(&mut ledger, 0..3);
    assert_eq!(covered, Verdict::Replay { verified: false });
    let held = ledger.held(&agent(1), key.lane_key());
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].first, held[0].end), (0, 3));
    assert_eq!(open_lanes(&ledger), 5, "none of that opened it");
    let with_both = ledger.total(&agent(1));
    assert_eq!(with_both.0, total.0 + 5);
    // It goes on after all, and is folded again.
    match gap(&mut ledger, 1..5) {
        Verdict::Fresh(admission) => {
            assert_eq!(admission.runs(), std::slice::from_ref(&(3..5)));
            ledger.commit(admission);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(open_lanes(&ledger), 10);
    ledger.open_session(&agent(1), &[life(2)]);
    assert_eq!(open_lanes(&ledger), 5);
    assert_eq!(ledger.held(&agent(1), key.lane_key())[0].end, 5);
    assert_eq!(ledger.total(&agent(1)).0, with_both.0 + 2);
}

#[test]
fn a_lane_with_a_hole_or_a_batch_under_way_is_not_folded() {
    let mut ledger = Ledger::new();
    live(&mut ledger, 1, 1);
    let session = ledger.open_session(&agent(1), &[life(1)]);
    let (hole, under_way) = (of(1, Lane::Telemetry, 2), of(1, Lane::Events, 1));
    let Verdict::Fresh(admission) = ledger.judge(session, &agent(1), hole, content(hole)) else {
        panic!("it leaves a hole");
    };
    ledger.commit(admission);
    let pending = ledger.judge(session, &agent(1), under_way, content(under_way));
    ledger.open_session(&agent(1), &[life(2)]);
    assert_eq!(open_lanes(&ledger), 2);
    let Verdict::Fresh(admission) = pending else {
        panic!("{pending:?}");
    };
    ledger.commit(admission);
    let session = ledger.open_session(&agent(1), &[life(2)]);
    assert_eq!(open_lanes(&ledger), 1);
    // Its hashes are known as those of the folded ones are.
    let twin = ledger.judge(session, &agent(1), hole, hash(9));
    assert_eq!(twin, Verdict::Conflict);
}

/// Which hashes are known of lanes that the agent has no more, and what is said without one.
#[test]
fn twins_of_the_newest_lanes_are_told_apart_and_older_ones_counted() {
    let mut ledger = Ledger::new();
    let lives = 2 + LEDGER_FOLDED_HASHES_MAX as u64 / (5 * LEDGER_HASHES_MAX as u64);
    for at in 1..=lives + 1 {
        live(&mut ledger, at, LEDGER_HASHES_MAX as u64);
    }
    let mut ledger = round_trip(&ledger);
    let session = ledger.open_session(&agent(1), &[life(lives + 1)]);
    let mut told = |at: u64| {
        let key = of(at, Lane::Telemetry, 0);
        ledger.judge(session, &agent(1), key, hash(9))
    };
    assert_eq!(told(lives), Verdict::Conflict);
    assert_eq!(told(1), Verdict::Replay { verified: false });
    let entry = &ledger.agents[&agent(1)].folded;
    let kept = |key| ledger.agents[&agent(1)].recent(key).count();
    let kept: usize = entry.lanes().map(|(key, _)| kept(*key)).sum();
    assert_eq!(kept, LEDGER_FOLDED_HASHES_MAX);
}

/// Of the ledger's checkpoint.
fn version(ledger: &Ledger) -> u8 {
    let mut bytes = Vec::new();
    ledger.write_checkpoint(&mut bytes);
    assert_eq!(bytes[1], 0);
    bytes[0]
}

#[test]
fn folded_lanes_survive_a_checkpoint_and_need_no_newer_version() {
    let mut ledger = Ledger::new();
    for at in 1..=9 {
        live(&mut ledger, at, at);
    }
    ledger.open_session(&agent(1), &[life(9)]);
    assert_eq!(version(&ledger), 1, "nothing in it is new");
    let back = round_trip(&ledger);
    assert_eq!(back.lanes(&agent(1)), ledger.lanes(&agent(1)));
    assert_eq!(
        back.agents[&agent(1)].folded,
        ledger.agents[&agent(1)].folded
    );
    assert_eq!((back.lanes(&agent(1)).len(), open_lanes(&back)), (45, 5));
    // What is elsewhere does, and what became a sum.
    let mut told = ledger.clone();
    told.declare_elsewhere(&agent(1), &elsewhere(0, &[(LogId([7; 16]), 5, 9)]), OWN);
    assert_eq!(version(&told), 2);
    let entry = told.agents.get_mut(&agent(1)).unwrap();
    entry.folded.set_older(OlderLanes {
        lanes: 1,
        ..OlderLanes::default()
    });
    assert_eq!(version(&told), 3);
}

#[test]
fn of_more_folded_lanes_than_there_is_room_for_the_oldest_become_a_sum() {
    let mut ledger = Ledger::new();
    let lives = 1_000..1_000 + AGENT_FOLDED_MAX as u64 / 5 + 9;
    for at in lives.clone() {
        for lane in Lane::ALL {
            let key = of(at, lane, 0);
            let gap = (content(key), std::slice::from_ref(&(0..1)));
            assert!(ledger.recover_gap(&agent(1), key, gap));
        }
    }
    ledger.open_session(&agent(1), &[life(lives.end - 1)]);
    let before = ledger.older(&agent(1)).lanes;
    // The storage is replaced, and lives are counted from 1 again: what is newer is kept.
    let mut session = Session(0);
    (1..=8).for_each(|at| session = live(&mut ledger, at, 1));
    let older = ledger.older(&agent(1));
    assert_eq!((older.lanes - before, older.lanes), (40, older.count));
    for (at, verified) in [(1, true), (7, true), (lives.end - 1, false)] {
        let key = of(at, Lane::Alerts, 0);
        let verdict = ledger.judge(session, &agent(1), key, content(key));
        assert_eq!(verdict, Verdict::Replay { verified }, "{at}");
    }
    // What is so old is not known to have been there.
    let key = of(lives.start, Lane::Alerts, 0);
    match ledger.judge(session, &agent(1), key, content(key)) {
        Verdict::Fresh(admission) => ledger.abort(admission),
        other => panic!("{other:?}"),
    }
    let (count, sum) = ledger.total(&agent(1));
    let all = lives.clone().chain(1..=8);
    let all = all.flat_map(|at| Lane::ALL.map(|lane| of(at, lane, 0)));
    let all = all.fold(HashSum::default(), |sum, key| sum.with(content(key)));
    assert_eq!((count, sum), (5 * (lives.end - lives.start + 8), all));
    assert_eq!(round_trip(&ledger).total(&agent(1)), (count, sum));
}

/// What a batch costs does not depend on the lanes of earlier lives.
#[test]
fn a_batch_looks_at_no_lane_of_another_life() {
    let mut ledger = Ledger::new();
    let all: Vec<BufferId> = (0..AGENT_BUFFERS_MAX as u64).map(life).collect();
    for buffer in &all {
        for lane in Lane::ALL {
            let key = BatchKey {
                buffer: *buffer,
                lane,
                number: 3,
            };
            assert!(ledger.recover(&agent(1), key, content(key)));
        }
    }
    let session = ledger.open_session(&agent(1), &all);
    assert_eq!(open_lanes(&ledger), 5 * AGENT_BUFFERS_MAX);
    VISITED.set(0);
    for number in 4..14 {
        let key = of(17, Lane::Telemetry, number);
        for durable in [false, true] {
            match ledger.judge(session, &agent(1), key, content(key)) {
                Verdict::Fresh(admission) if durable => ledger.commit(admission),
                Verdict::Fresh(admission) => ledger.abort(admission),
                other => panic!("{other:?}"),
            }
        }
    }
    let new = of(18, Lane::Telemetry, 9);
    let Verdict::Fresh(admission) = ledger.judge(session, &agent(1), new, content(new)) else {
        panic!("it is new");
    };
    ledger.abort(admission);
    assert!(VISITED.get() <= 11 * 5, "{} lanes", VISITED.get());
}

/// Lanes that nobody can fold cost nothing when a session opens, and little in a replay.
#[test]
fn a_session_looks_at_no_lane_that_did_not_change() {
    let lives = 2_000;
    let mut ledger = Ledger::new();
    VISITED.set(0);
    for at in 1..=lives {
        for (lane, number) in Lane::ALL
            .into_iter()
            .flat_map(|lane| [(lane, 3), (lane, 5)])
        {
            let key = of(at, lane, number);
            assert!(ledger.recover(&agent(1), key, content(key)));
        }
    }
    let replay = VISITED.get() as u64;
    assert!(replay <= lives * 10, "{replay} lanes");
    ledger.open_session(&agent(1), &[life(lives)]);
    assert_eq!(open_lanes(&ledger) as u64, 5 * lives, "each has a hole");
    VISITED.set(0);
    ledger.open_session(&agent(1), &[life(lives)]);
    assert_eq!(VISITED.get(), 0);
    // A batch after all, of one of them.
    let late = of(7, Lane::Alerts, 4);
    let session = Session(2);
    let Verdict::Fresh(admission) = ledger.judge(session, &agent(1), late, content(late)) else {
        panic!("it fills the hole");
    };
    ledger.commit(admission);
    VISITED.set(0);
    ledger.open_session(&agent(1), &[life(lives)]);
    assert_eq!(VISITED.get(), 5);
    assert_eq!(open_lanes(&ledger) as u64, 5 * lives - 1);
    let mut bytes = Vec::new();
    ledger.write_checkpoint(&mut bytes);
    let mut back = Ledger::read_checkpoint(&bytes).unwrap();
    VISITED.set(0);
    back.open_session(&agent(1), &[life(lives)]);
    assert_eq!(VISITED.get(), 0);
}

#[test]
fn the_hash_of_a_lane_with_a_hole_is_known_once_it_is_drained() {
    let mut ledger = Ledger::new();
    let of = |number| of(1, Lane::Telemetry, number);
    for number in [0, 2] {
        assert!(ledger.recover(&agent(1), of(number), content(of(number))));
    }
    let session = ledger.open_session(&agent(1), &[life(2)]);
    let twin = |ledger: &mut Ledger| ledger.judge(session, &agent(1), of(2), hash(9));
    assert_eq!(twin(&mut ledger), Verdict::Conflict);
    // It goes on, and knows what it knew.
    match ledger.judge(session, &agent(1), of(4), content(of(4))) {
        Verdict::Fresh(admission) => ledger.commit(admission),
        other => panic!("{other:?}"),
    }
    assert_eq!(twin(&mut ledger), Verdict::Conflict);
    let known = ledger.agents[&agent(1)].recent(of(0).lane_key());
    assert_eq!(
        known.map(|(number, _)| *number).collect::<Vec<_>>(),
        [0, 2, 4]
    );
}

/// Every life delivers some of its batches itself and leaves the rest, with holes, to the next
/// ones; one of long ago comes last of all.
fn many_lives(
    ledger: &mut Ledger,
    (seed, lives, batches): (u64, u64, u64),
) -> (Vec<BatchKey>, Vec<BufferId>) {
    let mut random = seed * 2 + 1;
    let mut below = move |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    let mut journal = Vec::new();
    let mut announced = Vec::new();
    for at in 1..=lives {
        announced = (at.saturating_sub(3).max(1)..=at).map(life).collect();
        announced.extend((at > 9 && at < lives).then_some(life(lives * 3 / 4)));
        let session = ledger.open_session(&agent(1), &announced);
        let of_one = lives * 3 / 4;
        let late = (at + 1 == lives).then_some(of_one);
        let own = (at != of_one).then_some(at);
        for from in own.into_iter().chain([at.saturating_sub(2)]).chain(late) {
            if from == 0 || (from == of_one && late.is_none()) {
                continue;
            }
            for lane in Lane::ALL {
                for number in 0..below(batches) {
                    let key = of(from, lane, number + below(3) * u64::from(from % 3 == 0));
                    match ledger.judge(session, &agent(1), key, content(key)) {
                        Verdict::Fresh(admission) => {
                            ledger.commit(admission);
                            journal.push(key);
                        }
                        Verdict::Replay { .. } => {}
                        other => panic!("{key}: {other:?}"),
                    }
                }
            }
        }
    }
    (journal, announced)
}

/// Who reads the journal back, from its beginning or from any checkpoint, knows what the live one
/// knew, to the byte, once the agent is back.
#[test]
fn a_replay_ends_with_what_the_live_ledger_knows() {
    // The last of them: much is folded, older and younger, when the one of long ago comes.
    let all = [
        (1, 20, 60),
        (2, 60, 60),
        (3, 90, 60),
        (4, 400, 60),
        (5, 1_300, 3),
    ];
    for (seed, lives, batches) in all {
        let mut live = Ledger::new();
        let (journal, announced) = many_lives(&mut live, (seed, lives, batches));
        let at_end = |ledger: &mut Ledger| {
            ledger.open_session(&agent(1), &announced);
            let mut bytes = Vec::new();
            ledger.write_checkpoint(&mut bytes);
            bytes
        };
        let expected = at_end(&mut live);
        for checkpoint_at in [0, journal.len() / 3, journal.len() - 1] {
            let (before, after) = journal.split_at(checkpoint_at);
            let mut back = Ledger::new();
            for key in before {
                assert!(back.recover(&agent(1), *key, content(*key)));
            }
            back = round_trip(&back);
            for key in after {
                assert!(back.recover(&agent(1), *key, content(*key)));
            }
            assert_eq!(live.lanes(&agent(1)), back.lanes(&agent(1)), "{seed}");
            let recent = |ledger: &Ledger| {
                let entry = &ledger.agents[&agent(1)];
                let keys = ledger.lanes(&agent(1)).into_iter().map(|lane| lane.key);
                let recent = keys.map(|key| (key, entry.recent(key).copied().collect::<Vec<_>>()));
                recent
                    .filter(|(_, recent)| !recent.is_empty())
                    .collect::<Vec<_>>()
            };
            let bytes = at_end(&mut back);
            assert_eq!(recent(&live), recent(&back), "{seed}");
            assert!(bytes == expected, "{seed}: the checkpoint is another");
        }
    }
}
