//! What is in doubt, towards whom, and for how long.

use super::super::{LaneOut, LaneStart};
use super::*;
use crate::ids::BufferId;
use crate::limits::SENDER_HOLES_MAX;

const HOLD: i64 = 100;

fn lane(lane: Lane) -> LaneKey {
    LaneKey {
        buffer: BufferId::new(1, 1),
        lane,
    }
}

const fn journal(n: u8) -> Journal {
    Journal {
        place: super::super::Place(n as u64),
        log: LogId([n; 16]),
    }
}

fn telemetry() -> LaneKey {
    lane(Lane::Telemetry)
}

fn waiting(doubts: &Doubts, present: u8, now: i64) -> Vec<(u64, u64)> {
    let runs = doubts.waiting(LogId([present; 16]), now, telemetry());
    let runs = runs.into_iter().flat_map(|runs| runs.iter());
    runs.map(|run| (run.first, run.end)).collect()
}

fn is_elsewhere(doubts: &Doubts, present: u8, numbers: Range<u64>) -> bool {
    doubts.is_held_elsewhere(LogId([present; 16]), telemetry(), &numbers)
}

#[test]
fn it_waits_for_whom_it_was_sent_to_and_is_in_doubt_until_somebody_has_it() {
    let mut doubts = Doubts::new(HOLD);
    doubts.sent(journal(1), 5, telemetry(), 3..6);
    // To whom it was sent it may go at once, as if nothing were.
    assert_eq!(waiting(&doubts, 1, 5), []);
    assert!(!is_elsewhere(&doubts, 1, 3..6));
    assert_eq!(doubts.poll_timeout(LogId([1; 16]), 5), None);
    // Anybody else waits, and knows until when.
    assert_eq!(waiting(&doubts, 2, 104), [(3, 6)]);
    assert_eq!(doubts.poll_timeout(LogId([2; 16]), 5), Some(105));
    assert_eq!(waiting(&doubts, 2, 105), []);
    assert_eq!(doubts.poll_timeout(LogId([2; 16]), 105), None);
    assert!(is_elsewhere(&doubts, 2, 5..9) && !is_elsewhere(&doubts, 2, 6..9));
    // One session more with the first: it counts from there.
    doubts.sent(journal(1), 50, telemetry(), 8..9);
    assert_eq!(waiting(&doubts, 2, 149), [(3, 6), (8, 9)]);
    doubts.settled(telemetry(), &(3..6));
    doubts.settled(telemetry(), &(8..9));
    assert_eq!(doubts.sent_to().count(), 0);
    assert!(!is_elsewhere(&doubts, 2, 0..99));
}

#[test]
fn nobody_waits_for_a_journal_that_another_has_replaced() {
    let mut doubts = Doubts::new(HOLD);
    doubts.sent(journal(1), 0, telemetry(), 3..6);
    let mut new = journal(2);
    new.place = journal(1).place;
    doubts.meet(new);
    assert_eq!(waiting(&doubts, 2, 0), []);
    assert!(
        is_elsewhere(&doubts, 2, 3..4),
        "it may be in the sinks of the old one"
    );
    assert_eq!(doubts.sent_to().count(), 0);
    doubts.settled(telemetry(), &(0..9));
    assert!(doubts.gone().is_empty());
}

#[test]
fn nobody_waits_for_an_aggregator_that_is_not_on_the_list() {
    let mut doubts = Doubts::new(HOLD);
    doubts.sent(journal(1), 0, telemetry(), 3..6);
    doubts.sent(journal(2), 0, telemetry(), 7..8);
    doubts.keep_to(&[journal(2).place, journal(3).place]);
    assert_eq!(waiting(&doubts, 3, 0), [(7, 8)]);
    assert!(is_elsewhere(&doubts, 3, 3..6));
}

#[test]
fn definitions_are_never_in_doubt() {
    let mut doubts = Doubts::new(HOLD);
    doubts.sent(journal(1), 0, lane(Lane::Series), 0..9);
    doubts.taken_back(lane(Lane::Series), 0..9);
    assert_eq!((doubts.sent_to().count(), doubts.gone().len()), (0, 0));
}

#[test]
fn runs_and_journals_are_bounded_and_none_is_forgotten() {
    let mut doubts = Doubts::new(HOLD);
    for n in 0..200 {
        doubts.sent(journal(1), 0, telemetry(), 10 * n..10 * n + 1 + n % 7);
    }
    let runs = waiting(&doubts, 2, 0);
    assert_eq!(runs.len(), DOUBT_RUNS_MAX);
    for n in 0..200 {
        let held = |(first, end): &(u64, u64)| *first <= 10 * n && 10 * n + 1 + n % 7 <= *end;
        assert!(runs.iter().any(held), "{n}");
    }
    // What is taken out of the middle is in doubt no more, though it leaves a run more.
    doubts.settled(telemetry(), &(5..6));
    let left = waiting(&doubts, 2, 0);
    assert!(left.len() == DOUBT_RUNS_MAX + 1 && !is_elsewhere(&doubts, 2, 5..6));
    let left = |runs: Vec<(u64, u64)>| runs.iter().map(|(first, end)| end - first).sum::<u64>();
    assert_eq!(left(waiting(&doubts, 2, 0)), left(runs) - 1);
    let mut doubts = Doubts::new(HOLD);
    let logs = SENDER_LOGS_MAX as u8 + 2;
    for n in 0..logs {
        let number = u64::from(n);
        doubts.sent(
            journal(n + 1),
            i64::from(n),
            telemetry(),
            number..number + 1,
        );
    }
    assert_eq!(doubts.sent_to().count(), SENDER_LOGS_MAX);
    for n in 0..u64::from(logs) {
        assert!(is_elsewhere(&doubts, 99, n..n + 1));
    }
    // Whose names are forgotten is nobody's own, and replaced by nobody.
    doubts.meet(journal(1));
    assert!(is_elsewhere(&doubts, 1, 0..1) && is_elsewhere(&doubts, 2, 1..2));
    let waits = waiting(&doubts, 1, 0).into_iter();
    let waits: u64 = waits.map(|(first, end)| end - first).sum();
    assert_eq!(waits, u64::from(logs));
    doubts.retain(|_| false);
    assert_eq!(doubts.sent_to().count(), 0);
}

#[test]
fn what_waits_is_passed_over_only_while_there_is_room_for_holes() {
    let held = |numbers: &[u64]| {
        let mut held = HeldRanges::new();
        for number in numbers {
            held.insert_missing(*number, number + 1, UNKNOWN);
        }
        held
    };
    let waits = held(&[10, 20, 30]);
    // Nothing is held: each run that waits is a hole, and two fit.
    assert_eq!(reach(&held(&[]), &[&waits], 2), 30);
    assert_eq!(reach(&held(&[]), &[&waits], 3), u64::MAX);
    // Two holes are there by themselves: of four, two are left.
    assert_eq!(reach(&held(&[0, 2, 4]), &[&waits], 4), 30);
    assert_eq!(reach(&held(&[0, 2, 4]), &[&waits], 3), 20);
    assert_eq!(reach(&held(&[0, 2, 4]), &[&waits], 2), 10);
    // What waits and is held meanwhile is no hole; one that is there because it waits counts once.
    assert_eq!(reach(&held(&[0, 20]), &[&held(&[1, 20, 30])], 2), 30);
    let passed: Vec<u64> = (0..40).filter(|number| *number != 10).collect();
    assert_eq!(reach(&held(&passed), &[&held(&[10])], 1), u64::MAX);
}

/// As [`reach`] says, a lane goes no further than that.
#[test]
fn a_lane_goes_no_further_than_its_ledger_has_room_for_holes() {
    let start = LaneStart {
        key: telemetry(),
        first: 0,
        end: 200,
        bytes: 200,
        acked: Vec::new(),
    };
    let mut of = LaneOut::new(&start);
    let mut waits = HeldRanges::new();
    for number in 0..SENDER_HOLES_MAX as u64 + 5 {
        waits.insert_missing(2 * number + 1, 2 * number + 2, UNKNOWN);
    }
    let mut sent = Vec::new();
    while let Some(number) = of.next(None, &[&waits], |_| false) {
        of.settle_all(journal(1), number..number + 1, UNKNOWN);
        sent.push(number);
    }
    let passed = 0..=SENDER_HOLES_MAX as u64;
    assert_eq!(sent, passed.map(|number| 2 * number).collect::<Vec<_>>());
    assert_eq!(of.settled.holes(), SENDER_HOLES_MAX);
    assert_eq!(of.next(None, &[], |_| false), Some(1));
}
