//! An aggregator whose journal is another one than before, or knows less than it acknowledged.

use super::*;
use crate::ids::HashSum;
use crate::limits::{FAILOVER_HOLD_US, SENDER_LOGS_MAX, WELCOME_RANGES_MAX};
use crate::message::Elsewhere;
use crate::ranges::Held;
use std::ops::Range;

const BUFFER: BufferId = BufferId([1; 16]);
const OLD: LogId = LogId([1; 16]);
const NEW: LogId = LogId([2; 16]);

fn key(number: u64) -> BatchKey {
    BatchKey {
        buffer: BUFFER,
        lane: Lane::Telemetry,
        number,
    }
}

fn hash(key: BatchKey) -> BatchHash {
    BatchHash::of(&key.number.to_le_bytes())
}

fn range(first: u64, end: u64) -> Held {
    let sum = (first..end).fold(HashSum::default(), |sum, number| {
        sum.with(hash(key(number)))
    });
    Held { first, end, sum }
}

fn welcome(log: LogId, ranges: Vec<Held>) -> Welcome {
    let held = LaneHeld {
        key: key(0).lane_key(),
        ranges,
        series_known: 0,
    };
    Welcome {
        log,
        lanes: vec![held],
        ..welcome_of_nothing()
    }
}

fn meet(sender: &mut Sender, log: LogId, ranges: Vec<Held>) {
    meet_with(sender, log, ranges, 4);
}

/// As [`meet`], with a spool that has what is not below this number.
fn meet_with(sender: &mut Sender, log: LogId, ranges: Vec<Held>, first: u64) {
    sender.on_connected("a", "b").unwrap();
    let welcome = welcome(log, ranges);
    let hash_of = |key: BatchKey| (key.number >= first).then(|| hash(key));
    sender.on_welcome(welcome, hash_of).unwrap();
}

/// Sends whatever may be sent, and has all of it acknowledged; the numbers, as they went.
fn send_all(sender: &mut Sender) -> Vec<u64> {
    let mut sent = Vec::new();
    while let Some((key, urgency)) = sender.poll_send() {
        assert!(sender.offer(&outgoing(key, 40_000), urgency));
        sender.on_ack(&acked(key.number, key.number + 1)).unwrap();
        sent.push(key.number);
    }
    sent
}

fn acked(first: u64, end: u64) -> Ack {
    let range = crate::message::AckRange {
        key: key(0).lane_key(),
        first,
        end,
    };
    Ack {
        ranges: vec![range],
        again: Vec::new(),
    }
}

/// Sends until so many live batches are on their way, and what of the backlog has its share.
fn send_live(sender: &mut Sender, count: usize) {
    let mut live = 0;
    while live < count {
        let (next, urgency) = sender.poll_send().unwrap();
        live += usize::from(urgency == Urgency::Live);
        assert!(sender.offer(&outgoing(next, 40_000), urgency));
    }
}

/// An agent with ten batches of backlog, and two live ones that the log acknowledged.
fn with_an_island(log: LogId) -> Sender {
    let mut sender = Sender::new(BUFFER, Vec::new());
    (0..10).for_each(|number| sender.on_sealed(key(number), 40_000));
    meet(&mut sender, log, Vec::new());
    (10..12).for_each(|number| sender.on_sealed(key(number), 40_000));
    send_live(&mut sender, 2);
    // What of the backlog is on its way as well is lost with the connection.
    sender.on_ack(&acked(10, 12)).unwrap();
    sender.on_lost();
    sender
}

#[test]
fn what_a_replaced_journal_acknowledged_is_sent_to_the_new_one() {
    let mut sender = with_an_island(OLD);
    assert_eq!(sender.backlog().0, 10);
    meet(&mut sender, NEW, Vec::new());
    assert_eq!(sender.backlog().0, 12, "nobody holds them any more");
    let mut sent = send_all(&mut sender);
    sent.sort_unstable();
    assert_eq!(sent, (0..12).collect::<Vec<_>>());
    assert_eq!(sender.poll_trims().len(), 1);
    assert!(sender.is_drained());
}

/// As [`with_an_island`], and four batches before are acknowledged and trimmed: 0 to 4 are gone, 4
/// to 14 wait, 14 is the island.
fn with_a_past(log: LogId) -> Sender {
    let mut sender = Sender::new(BUFFER, Vec::new());
    meet(&mut sender, log, Vec::new());
    (0..4).for_each(|number| sender.on_sealed(key(number), 40_000));
    assert_eq!(send_all(&mut sender), [0, 1, 2, 3]);
    assert_eq!(sender.poll_trims().len(), 1);
    sender.on_lost();
    (4..14).for_each(|number| sender.on_sealed(key(number), 40_000));
    meet(&mut sender, log, vec![range(0, 4)]);
    sender.on_sealed(key(14), 40_000);
    send_live(&mut sender, 1);
    sender.on_ack(&acked(14, 15)).unwrap();
    assert_eq!(sender.poll_notices(), []);
    sender.on_lost();
    sender
}

fn went_back(log: LogId, gone: Range<u64>, again: u64) -> Notice {
    Notice::WentBack {
        log,
        lane: key(0).lane_key(),
        ranges: vec![gone],
        again,
    }
}

#[test]
fn what_a_replaced_journal_acknowledged_and_is_trimmed_is_told_once() {
    let mut sender = with_a_past(OLD);
    meet(&mut sender, NEW, Vec::new());
    assert_eq!(sender.poll_notices(), [went_back(OLD, 0..4, 1)]);
    sender.on_lost();
    meet(&mut sender, NEW, Vec::new());
    assert_eq!(sender.poll_notices(), []);
    assert_eq!(sender.backlog().0, 11);
    // The cursor says that they were held once: who finds them nowhere takes them for no loss that
    // nobody was told of.
    let lanes = sender.cursor().lanes;
    let nobody = lanes.iter().filter(|lane| lane.by == AckedTo::Nobody);
    let nobody: Vec<_> = nobody.flat_map(|lane| &lane.acked).collect();
    assert!(nobody.iter().any(|run| run.first == 0 && run.end >= 4));
}

#[test]
fn a_journal_that_went_back_gets_again_what_it_lacks() {
    let mut sender = with_a_past(OLD);
    meet(&mut sender, OLD, vec![range(0, 2)]);
    assert_eq!(sender.poll_notices(), [went_back(OLD, 2..4, 1)]);
    assert_eq!(sender.backlog().0, 11);
    assert!(send_all(&mut sender).contains(&14));
}

/// What was trimmed is often still there: a spool gives it up by segments.
#[test]
fn what_a_journal_lost_is_sent_again_as_far_as_the_spool_has_it() {
    for (log, held) in [(OLD, vec![range(0, 2)]), (NEW, Vec::new())] {
        let mut sender = with_a_past(OLD);
        meet_with(&mut sender, log, held, 3);
        let gone = if log == OLD { 2..3 } else { 0..3 };
        assert_eq!(sender.poll_notices(), [went_back(OLD, gone, 2)]);
        let mut sent = send_all(&mut sender);
        sent.sort_unstable();
        assert_eq!(sent, (3..15).collect::<Vec<_>>());
        assert_eq!(sender.poll_trims().len(), 1);
    }
    // It goes with its segment before it is sent: that is told, and nothing waits for it.
    let mut sender = with_a_past(OLD);
    meet_with(&mut sender, OLD, vec![range(0, 2)], 2);
    assert_eq!(sender.poll_notices().len(), 1);
    sender.skip(key(2));
    assert_eq!(sender.poll_notices(), [went_back(OLD, 2..3, 0)]);
    let sent = send_all(&mut sender);
    assert!(sent.contains(&3) && !sent.contains(&2));
    assert!(sender.is_drained());
    assert_eq!(sender.poll_trims().len(), 1);
    // What lies between and is not lost is not sent.
    let mut sender = with_a_past(OLD);
    meet_with(&mut sender, OLD, vec![range(0, 1), range(2, 3)], 0);
    assert_eq!(sender.poll_notices().len(), 1);
    let sent = send_all(&mut sender);
    assert!(sent.contains(&1) && sent.contains(&3) && !sent.contains(&2));
}

/// One that is unreadable, for good or for now, costs none of those before it.
#[test]
fn what_can_not_be_read_hides_nothing_that_a_journal_lost() {
    for unread in [Lookup::Gone, Lookup::Unread] {
        let mut sender = with_a_past(OLD);
        sender.on_connected("a", "b").unwrap();
        let look_up = |key: BatchKey| match key.number {
            2 => unread,
            _ => Lookup::There(hash(key)),
        };
        let welcome = welcome(NEW, Vec::new());
        sender.on_welcome(welcome, look_up).unwrap();
        let told = Notice::WentBack {
            log: OLD,
            lane: key(0).lane_key(),
            ranges: Vec::new(),
            again: 5,
        };
        assert_eq!(sender.poll_notices(), [told]);
        if unread == Lookup::Gone {
            sender.skip(key(2));
            assert_eq!(sender.poll_notices(), [went_back(NEW, 2..3, 0)]);
        }
        let mut sent = send_all(&mut sender);
        sent.sort_unstable();
        let there = |number: &u64| *number != 2 || unread == Lookup::Unread;
        assert_eq!(sent, (0..15).filter(there).collect::<Vec<_>>());
        assert!(sender.is_drained());
    }
    // Also where nothing can be read at the moment.
    let mut sender = with_a_past(OLD);
    sender.on_connected("a", "b").unwrap();
    let welcome = welcome(NEW, Vec::new());
    sender.on_welcome(welcome, |_| Lookup::Unread).unwrap();
    assert!(send_all(&mut sender).contains(&0));
}

#[test]
fn a_journal_that_was_restored_gets_nothing_again() {
    let mut sender = with_a_past(OLD);
    meet(&mut sender, NEW, vec![range(0, 4), range(14, 15)]);
    assert_eq!(sender.poll_notices(), []);
    assert_eq!(sender.backlog().0, 10);
    // What was on its way to the old one may be in its sinks, and is said to be in doubt.
    let by: Vec<_> = sender.cursor().lanes.iter().map(|lane| lane.by).collect();
    let log = NEW;
    let place = Place::default();
    assert_eq!(
        by,
        [AckedTo::Journal(Journal { place, log }), AckedTo::Nobody]
    );
    // What it names and is not what we mean by it is offered once more, and judged.
    let other = Held {
        sum: HashSum(7),
        ..range(14, 15)
    };
    let mut sender = with_a_past(OLD);
    meet(&mut sender, NEW, vec![range(0, 4), other]);
    assert!(send_all(&mut sender).contains(&14));
}

#[test]
fn a_restart_forgets_not_who_acknowledged() {
    let sender = with_a_past(OLD);
    let cursor = sender.cursor();
    let start = LaneStart {
        key: key(0).lane_key(),
        first: 4,
        end: 15,
        bytes: 440_000,
        acked: cursor.acked(key(0).lane_key()).iter().copied().collect(),
    };
    let mut sender = Sender::new(BufferId([2; 16]), vec![start]);
    sender.recall(&cursor);
    assert_eq!(sender.cursor(), cursor);
    meet(&mut sender, NEW, Vec::new());
    assert_eq!(sender.poll_notices(), [went_back(OLD, 0..4, 1)]);
    assert!(send_all(&mut sender).contains(&14));
}

#[test]
fn another_aggregator_replaces_nobody() {
    let mut sender = with_a_past(OLD);
    let hello = sender.on_connected_to(Place::of("b:7443"), "a", "b");
    // It hears what the first has, with its sums: all of it that it may take for holes.
    let elsewhere = Elsewhere {
        key: key(0).lane_key(),
        log: OLD,
        ranges: vec![range(0, 4), range(14, 15)],
    };
    let hello = hello.unwrap();
    assert_eq!((hello.lanes.len(), hello.elsewhere), (1, vec![elsewhere]));
    let welcome = welcome(NEW, Vec::new());
    sender.on_welcome(welcome, |key| Some(hash(key))).unwrap();
    assert_eq!(sender.poll_notices(), []);
    // What is on its way to the first waits for it, and the rest goes.
    let sent = send_all(&mut sender);
    assert!(!sent.contains(&14) && !sent.is_empty() && !sender.is_drained());
    sender.on_time(FAILOVER_HOLD_US);
    assert!(!send_all(&mut sender).contains(&14));
    assert!(sender.is_drained());
}

/// More journals than are told apart: nothing is forgotten but their names.
#[test]
fn the_oldest_of_many_journals_becomes_somebody() {
    let mut sender = Sender::new(BUFFER, Vec::new());
    for life in 0..SENDER_LOGS_MAX as u8 + 2 {
        sender
            .on_connected_to(Place(u64::from(life)), "a", "b")
            .unwrap();
        let welcome = welcome(LogId([life; 16]), Vec::new());
        sender.on_welcome(welcome, |key| Some(hash(key))).unwrap();
        sender.on_sealed(key(u64::from(life)), 40_000);
        assert_eq!(send_all(&mut sender), [u64::from(life)]);
        sender.on_lost();
    }
    let lanes = sender.cursor().lanes;
    let by = |lane: &LaneCursor| (lane.by == AckedTo::Somebody, lane.acked.clone());
    assert_eq!(lanes.len(), SENDER_LOGS_MAX + 1);
    assert_eq!(lanes.first().map(by), Some((true, vec![range(0, 2)])));
    assert!(sender.is_drained());
    // Somebody's are nobody's to take back.
    sender.on_connected_to(Place(0), "a", "b").unwrap();
    let welcome = welcome(LogId([99; 16]), Vec::new());
    sender.on_welcome(welcome, |_| None).unwrap();
    assert_eq!(sender.poll_notices(), []);
}

/// A Welcome names so many runs at most: what stands behind the last of them is not known to be
/// lost.
#[test]
fn what_a_welcome_has_no_room_for_is_not_lost() {
    let runs = WELCOME_RANGES_MAX as u64;
    let mut sender = Sender::new(BUFFER, Vec::new());
    meet(&mut sender, OLD, Vec::new());
    (0..2 * runs + 9).for_each(|number| sender.on_sealed(key(number), 40));
    send_all(&mut sender);
    sender.poll_trims();
    sender.on_lost();
    let ranges = (0..runs).map(|run| range(2 * run, 2 * run + 1)).collect();
    meet_with(&mut sender, OLD, ranges, u64::MAX);
    let notices = sender.poll_notices();
    let [Notice::WentBack { ranges, again, .. }] = notices.as_slice() else {
        panic!("{notices:?}");
    };
    assert_eq!((ranges.len() as u64, *again), (runs - 1, 0));
}

/// A gap stands for what another journal holds, too. Who acknowledged it does not hold that.
#[test]
fn a_gap_that_is_acknowledged_credits_nobody_with_what_another_has() {
    let mut sender = with_an_island(OLD);
    sender.on_shed(key(0).lane_key(), 0..12, 0);
    sender.on_time(FAILOVER_HOLD_US);
    sender.on_connected_to(Place(9), "a", "b").unwrap();
    let elsewhere = welcome(LogId([9; 16]), Vec::new());
    sender.on_welcome(elsewhere, |_| None).unwrap();
    let gap = Outgoing {
        count: 12,
        ..outgoing(key(0), 150)
    };
    let (next, urgency) = sender.poll_send().unwrap();
    assert_eq!(next, key(0));
    assert!(sender.offer(&gap, urgency));
    sender.on_ack(&acked(0, 1)).unwrap();
    assert!(sender.is_drained());
    sender.on_lost();
    // The first lost its journal: nobody has the island any more.
    sender.on_connected_to(Place::default(), "a", "b").unwrap();
    let replaced = welcome(NEW, Vec::new());
    sender.on_welcome(replaced, |_| None).unwrap();
    let lost = Notice::WentBack {
        log: OLD,
        lane: key(0).lane_key(),
        ranges: Vec::new(),
        again: 2,
    };
    assert_eq!(sender.poll_notices(), [lost]);
    assert!(!sender.is_drained());
}
