//! The oracle is shown journals, greetings and gaps that are wrong, and says so.

use super::journal::Held;
use super::spooled::Content;
use super::{Causes, Invariant, Name, Oracle};
use crate::lake::GapRow;
use crate::site::agent_id;
use crate::store::SimStore;
use tributary_protocol::ids::{
    BatchHash, BatchKey, BufferId, HashSum, Lane, LaneKey, LogId, Session,
};
use tributary_protocol::message::{LaneHeld, Welcome};
use tributary_protocol::ranges::Held as Run;

const LANE: LaneKey = LaneKey {
    buffer: BufferId([3; 16]),
    lane: Lane::Telemetry,
};

fn key(number: u64) -> BatchKey {
    BatchKey {
        buffer: LANE.buffer,
        lane: LANE.lane,
        number,
    }
}

/// An oracle of a journal that holds these numbers of the lane.
fn holding(numbers: impl IntoIterator<Item = u64>, gap: bool) -> Oracle {
    let causes = Causes {
        gives_way: true,
        ..Causes::default()
    };
    let mut oracle = Oracle::new(1, causes);
    let held = Held {
        hash: BatchHash([1; 32]),
        gap,
    };
    let lane = oracle.held.entry((0, LANE)).or_default();
    lane.extend(numbers.into_iter().map(|number| (number, held)));
    oracle
}

fn found(oracle: &Oracle) -> Option<Invariant> {
    oracle.violation().map(|it| it.invariant)
}

#[test]
fn a_number_that_is_nowhere_at_the_end_is_missed() {
    for (numbers, missed) in [(vec![0, 1, 2], None), (vec![0, 2], Some(Invariant::I4))] {
        let mut oracle = holding(numbers, true);
        oracle.finish(&SimStore::new(1));
        assert_eq!(found(&oracle), missed);
    }
}

fn welcome(sum: HashSum) -> Welcome {
    let range = Run {
        first: 0,
        end: 2,
        sum,
    };
    Welcome {
        session: Session(1),
        log: LogId([7; 16]),
        lanes: vec![LaneHeld {
            key: LANE,
            ranges: vec![range],
            series_known: 0,
        }],
        batch_bytes_max: 1,
        in_flight_bytes: 1,
        in_flight_batches: 1,
        software: String::new(),
        more: false,
        takes_in_doubt: false,
    }
}

#[test]
fn a_greeting_of_another_sum_is_seen() {
    let hash = BatchHash([1; 32]);
    let right = HashSum::default().with(hash).with(hash);
    for (sum, wrong) in [(right, None), (right.with(hash), Some(Invariant::I7))] {
        let mut oracle = holding([0, 1], false);
        oracle.welcomed(0, &welcome(sum), 0);
        assert_eq!(found(&oracle), wrong);
    }
}

#[test]
fn a_lane_of_more_holes_than_a_ledger_keeps_is_seen() {
    let holes = tributary_protocol::limits::LEDGER_HOLES_MAX as u64;
    for (holes, wrong) in [(holes, None), (holes + 1, Some(Invariant::I10))] {
        let mut oracle = holding((0..holes).map(|nth| 2 * nth + 1), false);
        oracle.has_few_holes((0, LANE));
        assert_eq!(found(&oracle), wrong);
    }
}

fn gap(reason: &str, readings: Option<i64>) -> GapRow {
    GapRow {
        agent: agent_id(0).uuid().to_string(),
        buffer: LANE.buffer.to_string(),
        lane: LANE.lane.name().to_owned(),
        first: 0,
        count: 2,
        readings,
        reason: reason.to_owned(),
    }
}

fn name(seq: i64) -> Name {
    Name {
        agent: 0,
        device: "a0d0".to_owned(),
        metric: "m0".to_owned(),
        seq,
    }
}

#[test]
fn a_gap_says_how_many_readings_stood_under_its_numbers_and_they_are_not_held() {
    for (reason, readings, held_as_gap, wrong) in [
        ("shed", Some(3), true, None),
        ("shed", Some(2), true, Some(Invariant::I3)),
        ("shed", None, true, Some(Invariant::I3)),
        ("damaged", None, true, Some(Invariant::I3)),
        ("damaged", Some(3), true, Some(Invariant::I3)),
        ("refused", Some(3), true, Some(Invariant::I3)),
        ("shed", Some(3), false, Some(Invariant::I5)),
    ] {
        let mut oracle = holding([0, 1], held_as_gap);
        let two = Content::Readings(vec![name(1), name(2)], 0);
        oracle.spooled.insert((0, key(0)), two);
        oracle
            .spooled
            .insert((0, key(1)), Content::Readings(Vec::new(), 1));
        let declared = oracle.declared_in(&[gap(reason, readings)]);
        assert_eq!(found(&oracle), wrong, "{reason} {readings:?} {held_as_gap}");
        assert_eq!(declared.names.len(), 2);
    }
}

#[test]
fn only_what_stood_under_a_gap_is_excused() {
    for (seq, wrong) in [(1, None), (3, Some(Invariant::I1))] {
        let mut oracle = holding([0, 1], true);
        oracle.published(name(seq), 5, "i64 1".to_owned(), (1, true));
        oracle.told(&name(seq));
        let two = Content::Readings(vec![name(1), name(2)], 0);
        oracle.spooled.insert((0, key(0)), two);
        oracle
            .spooled
            .insert((0, key(1)), Content::Readings(Vec::new(), 0));
        let declared = oracle.declared_in(&[gap("shed", Some(2))]);
        oracle.compare(&[], &declared);
        assert_eq!(found(&oracle), wrong, "{seq}");
    }
}
