//! Definitions of series: what is sent before what, and what again.

use super::*;
use crate::ids::{HashSum, LaneKey};
use crate::message::{AckRange, Again};
use crate::ranges::Held;

const BUFFER: BufferId = BufferId([1; 16]);

fn key(lane: Lane, number: u64) -> BatchKey {
    BatchKey {
        buffer: BUFFER,
        lane,
        number,
    }
}

/// A batch of definitions: one each.
fn definition(number: u64) -> Outgoing {
    Outgoing {
        series_needed: number as u32,
        series_after: number as u32 + 1,
        ..outgoing(key(Lane::Series, number), 10)
    }
}

fn readings(number: u64, series_needed: u32) -> Outgoing {
    Outgoing {
        series_needed,
        ..outgoing(key(Lane::Telemetry, number), 10)
    }
}

fn ack(durable: &[BatchKey], unknown: &[BatchKey]) -> Ack {
    let range = |key: &BatchKey| AckRange {
        key: key.lane_key(),
        first: key.number,
        end: key.number + 1,
    };
    let again = |key: &BatchKey| Again {
        key: *key,
        reason: AgainReason::SeriesUnknown,
    };
    Ack {
        ranges: durable.iter().map(range).collect(),
        again: unknown.iter().map(again).collect(),
    }
}

/// A session whose ledger holds so many batches of definitions, and knows so many series.
fn meet(held: u64, series_known: u32, definitions: u64) -> Sender {
    let mut sender = Sender::new(BUFFER, Vec::new());
    (0..definitions).for_each(|number| sender.on_sealed(key(Lane::Series, number), 10));
    sender.on_connected("a", "b").unwrap();
    let hash = |number| definition(number).hash;
    let sum = (0..held).fold(HashSum::default(), |sum, number| sum.with(hash(number)));
    let run = Held {
        first: 0,
        end: held,
        sum,
    };
    let welcome = Welcome {
        lanes: vec![LaneHeld {
            key: key(Lane::Series, 0).lane_key(),
            ranges: (held > 0).then_some(run).into_iter().collect(),
            series_known,
        }],
        ..welcome_of_nothing()
    };
    sender
        .on_welcome(welcome, |key| Some(hash(key.number)))
        .unwrap();
    sender
}

/// Everything that may be sent, sent; which definitions and which readings that were.
fn send(sender: &mut Sender, series_needed: u32) -> (Vec<u64>, Vec<u64>) {
    let (mut definitions, mut others) = (Vec::new(), Vec::new());
    while let Some((next, urgency)) = sender.poll_send() {
        match next.lane {
            Lane::Series if sender.offer(&definition(next.number), urgency) => {
                definitions.push(next.number);
            }
            Lane::Series => {}
            _ if sender.offer(&readings(next.number, series_needed), urgency) => {
                others.push(next.number);
            }
            _ => {}
        }
    }
    (definitions, others)
}

#[test]
fn definitions_that_overtake_each_other_go_again_alone() {
    let mut sender = meet(0, 0, 4);
    sender.on_sealed(key(Lane::Telemetry, 0), 10);
    assert_eq!(send(&mut sender, 4), (vec![0, 1, 2, 3], vec![]));
    // The third and the fourth came before the second.
    let of = |number| key(Lane::Series, number);
    sender
        .on_ack(&ack(&[of(0), of(1)], &[of(2), of(3)]))
        .unwrap();
    // The fourth has nothing to build on before the third is there.
    assert_eq!(send(&mut sender, 4), (vec![2], vec![]));
    sender.on_ack(&ack(&[of(2)], &[])).unwrap();
    assert_eq!(send(&mut sender, 4), (vec![3], vec![]));
    sender.on_ack(&ack(&[of(3)], &[])).unwrap();
    assert_eq!(send(&mut sender, 4), (vec![], vec![0]));
}

/// The ledger holds the numbers of definitions that it cannot read any more.
#[test]
fn definitions_that_a_ledger_lost_go_again_with_all_before_them() {
    for series_known in [0, 2, 3] {
        let mut sender = meet(3, series_known, 4);
        sender.on_sealed(key(Lane::Telemetry, 0), 10);
        assert_eq!(send(&mut sender, 4), (vec![3], vec![]));
        sender.on_ack(&ack(&[], &[key(Lane::Series, 3)])).unwrap();
        assert_eq!(send(&mut sender, 4), (vec![0, 1, 2, 3], vec![]));
        // And when that is of no use, all of them once more, but not for each that waits.
        let unknown: Vec<_> = (1..4).map(|number| key(Lane::Series, number)).collect();
        sender
            .on_ack(&ack(&[key(Lane::Series, 0)], &unknown))
            .unwrap();
        assert_eq!(send(&mut sender, 4), (vec![1], vec![]));
    }
}

#[test]
fn readings_whose_series_a_ledger_lost_have_all_defined_again_once() {
    let mut sender = meet(3, 3, 3);
    (0..3).for_each(|number| sender.on_sealed(key(Lane::Telemetry, number), 10));
    assert_eq!(send(&mut sender, 3), (vec![], vec![0, 1, 2]));
    let of = |number| key(Lane::Telemetry, number);
    sender.on_ack(&ack(&[], &[of(0)])).unwrap();
    assert_eq!(send(&mut sender, 3), (vec![0, 1, 2], vec![]));
    sender.on_ack(&ack(&[], &[of(1), of(2)])).unwrap();
    assert_eq!(send(&mut sender, 3), (vec![], vec![]));
    let defined: Vec<_> = (0..3).map(|number| key(Lane::Series, number)).collect();
    sender.on_ack(&ack(&defined, &[])).unwrap();
    assert_eq!(send(&mut sender, 3), (vec![], vec![0, 1, 2]));
}

/// Buffers with many definitions that nobody waits for, and alerts.
#[test]
fn alerts_go_before_definitions_and_those_only_as_far_as_a_batch_needs_them() {
    let mut sender = meet(0, 0, 9);
    sender.on_sealed(key(Lane::Alerts, 0), 10);
    sender.on_sealed(key(Lane::Telemetry, 0), 10);
    let (alert, urgency) = sender.poll_send().unwrap();
    assert_eq!((alert.lane, urgency), (Lane::Alerts, Urgency::Alert));
    assert!(sender.offer(&outgoing(alert, 10), urgency));
    // The readings need three series: these come, and an alert before the fourth.
    let (reading, urgency) = sender.poll_send().unwrap();
    assert!(reading.lane == Lane::Telemetry && !sender.offer(&readings(0, 3), urgency));
    for number in 0..3 {
        let (next, urgency) = sender.poll_send().unwrap();
        assert_eq!(
            (next, urgency),
            (key(Lane::Series, number), Urgency::Series)
        );
        assert!(sender.offer(&definition(number), urgency));
    }
    sender.on_sealed(key(Lane::Alerts, 1), 10);
    assert_eq!(
        sender.poll_send(),
        Some((key(Lane::Alerts, 1), Urgency::Alert))
    );
    assert!(sender.offer(&outgoing(key(Lane::Alerts, 1), 10), Urgency::Alert));
    let defined: Vec<_> = (0..3).map(|number| key(Lane::Series, number)).collect();
    sender.on_ack(&ack(&defined, &[])).unwrap();
    let (next, urgency) = sender.poll_send().unwrap();
    assert_eq!((next, urgency), (key(Lane::Telemetry, 0), Urgency::Live));
    assert!(sender.offer(&readings(0, 3), urgency));
    // What nothing waits for comes when there is nothing else.
    assert_eq!(send(&mut sender, 3), ((3..9).collect(), vec![]));
}

/// A ledger knows as many series of this buffer, and they are others: readings would be misread.
#[test]
fn series_that_another_defined_are_not_known() {
    let mut sender = Sender::new(BUFFER, Vec::new());
    (0..2).for_each(|number| sender.on_sealed(key(Lane::Series, number), 10));
    sender.on_sealed(key(Lane::Telemetry, 0), 10);
    sender.on_connected("a", "b").unwrap();
    let welcome = Welcome {
        lanes: vec![LaneHeld {
            key: key(Lane::Series, 0).lane_key(),
            ranges: vec![Held {
                first: 0,
                end: 2,
                sum: HashSum(9),
            }],
            series_known: 2,
        }],
        ..welcome_of_nothing()
    };
    let hash_of = |key: BatchKey| Some(definition(key.number).hash);
    sender.on_welcome(welcome, hash_of).unwrap();
    assert_eq!(send(&mut sender, 2), (vec![0, 1], vec![]));
}

/// What a batch costs does not depend on how many buffers an agent still has.
#[test]
fn a_batch_looks_at_few_lanes_however_many_there_are() {
    use crate::limits::AGENT_BUFFERS_MAX;
    use crate::session::sender::index::VISITED;
    let start = |life: u64, lane: Lane| LaneStart {
        key: LaneKey {
            buffer: BufferId::new(life, 0),
            lane,
        },
        first: 0,
        end: 5,
        bytes: 1_000,
        acked: Vec::new(),
    };
    let lives = AGENT_BUFFERS_MAX as u64 - 1;
    let starts = (0..lives).flat_map(|life| Lane::ALL.map(|lane| start(life, lane)));
    let mut starts: Vec<_> = starts.collect();
    starts.retain(|start| start.key.lane != Lane::Alerts && start.key.lane != Lane::Events);
    let present = BufferId::new(lives, 0);
    let mut sender = Sender::new(present, starts);
    sender.on_connected("a", "b").unwrap();
    sender.on_welcome(welcome_of_nothing(), |_| None).unwrap();
    sender.poll_trims();
    for number in 0..200 {
        let alert = BatchKey {
            buffer: present,
            lane: Lane::Alerts,
            number,
        };
        VISITED.set(0);
        sender.on_sealed(alert, 10);
        let mut sent = Vec::new();
        for _ in 0..3 {
            let (next, urgency) = sender.poll_send().unwrap();
            assert!(sender.offer(&outgoing(next, 10), urgency));
            sent.push(next);
        }
        sender.on_ack(&ack(&sent, &[])).unwrap();
        sender.poll_trims();
        assert!(sender.backlog().0 > 0 && !sender.wants_new_session());
        assert!(VISITED.get() < 40, "{} lanes", VISITED.get());
    }
}

/// The lowest of the definitions can't be read: those that build on it are not sent for nothing.
#[test]
fn definitions_behind_one_that_can_not_be_read_wait_until_it_is_known() {
    for known in [0, 3] {
        let mut sender = meet(0, known, 3);
        (0..2).for_each(|number| sender.on_sealed(key(Lane::Telemetry, number), 10));
        sender.on_sealed(key(Lane::Events, 0), 10);
        let (first, urgency) = sender.poll_send().unwrap();
        assert!(sender.offer(&outgoing(first, 10), urgency), "it needs none");
        sender.skip(key(Lane::Series, 0));
        let (definitions, others) = send(&mut sender, 3);
        if known == 0 {
            assert_eq!((definitions, others), (vec![], vec![]));
            assert_eq!(sender.poll_send(), None);
            continue;
        }
        // The ledger was believed, and lost them all the same.
        assert_eq!((definitions, others), (vec![1, 2], vec![0, 1]));
        let of = |number| key(Lane::Series, number);
        for unknown in [&[of(1), of(2)][..], &[key(Lane::Telemetry, 0)]] {
            sender.on_ack(&ack(&[], unknown)).unwrap();
            assert_eq!(send(&mut sender, 3), (vec![], vec![]));
        }
        // Another session, whose ledger knows them.
        sender.on_ack(&ack(&[first], &[])).unwrap();
        sender.on_lost();
        sender.on_connected("a", "b").unwrap();
        let welcome = Welcome {
            lanes: vec![LaneHeld {
                key: of(0).lane_key(),
                ranges: Vec::new(),
                series_known: 3,
            }],
            ..welcome_of_nothing()
        };
        sender.on_welcome(welcome, |_| None).unwrap();
        assert_eq!(send(&mut sender, 3), (vec![1, 2], vec![0, 1]));
    }
}
