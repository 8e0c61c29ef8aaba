//! A cursor that knows less than memory did, half of it damaged, or none: nothing is declared that
//! was acknowledged, and what is lost stays known until it is declared.

use super::gap_log::{BATCHES, THIRD, by, files, given_up, save};
use super::giving_way::{FIRST, Found, SECOND, acknowledge, batches, key, open, tight};
use crate::limits::{CLOCK_SANE_FROM_US, CURSOR_SLOT_BYTES};
use crate::seal::Now;
use crate::spool::{Opened, Policy, SpoolConfig, acknowledged};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tributary_journal::limits::SEGMENT_HEADER_BYTES;
use tributary_journal::sim_disk::Salts;
use tributary_journal::{Disk, SimDisk, Survival};
use tributary_protocol::batch::GapReason;
use tributary_protocol::ids::{BufferId, HashSum, LogId};
use tributary_protocol::ranges::Held;
use tributary_protocol::session::{AckedTo, Journal, LaneCursor, Place, SenderCursor, Trim};
use tributary_uplink::Spool;

const CURSOR: &str = "/spool/cursor";

fn tightest() -> SpoolConfig {
    tight(Policy::DropOldest)
}

/// Everything below this number is acknowledged, as memory knows.
fn trim(opened: &mut Opened, below: u64) {
    opened.reader.trim(Trim {
        key: key(FIRST, 0).lane_key(),
        below,
    });
}

fn append(opened: &mut Opened, numbers: std::ops::Range<usize>) {
    for batch in &BATCHES[numbers] {
        opened.writer.append(vec![batch.clone()]).unwrap();
    }
}

/// Numbers that opening the spool declared to be lost.
fn damaged(opened: &Opened) -> Vec<u64> {
    let gaps = opened.reader.book.all().into_iter();
    let is_damaged = |number: &u64| {
        let gap = opened.reader.book.read(key(FIRST, *number));
        let reason = gap.unwrap().unwrap().gap().unwrap().reason;
        reason == GapReason::Damaged
    };
    let numbers = gaps.flat_map(|(_, numbers)| numbers);
    numbers.filter(is_damaged).collect()
}

/// It gives way within the second before the cursor says so, all of its segment or a part of it
/// acknowledged, on a disk that is full or not; then the power fails.
#[test]
fn what_gives_way_as_acknowledged_is_in_the_cursor_before() {
    for (acked, is_full) in [(11, false), (8, false), (11, true), (8, true), (20, false)] {
        let disk = SimDisk::new(1);
        let mut opened = open(&disk, FIRST, &tightest());
        append(&mut opened, 0..3);
        save(&mut opened, vec![by(AckedTo::Somebody, (0, 2))]);
        append(&mut opened, 3..20);
        trim(&mut opened, acked);
        disk.set_full(is_full);
        append(&mut opened, 20..40);
        let spans = opened.reader.lane_starts();
        assert_eq!(opened.reader.book.acked(spans[0].key), acked);
        drop(opened);
        let disk = disk.crash(Survival::Nothing);
        let opened = open(&disk, SECOND, &tightest());
        assert_eq!(damaged(&opened), [0; 0], "{acked}, {is_full}");
        let first = opened.reader.lane_starts()[0].first;
        assert!(first >= acked, "nothing gave way");
    }
}

/// Acknowledged by an earlier life's batches, it gives way before anybody saved a cursor: what it
/// covered is in no batch any more, and is not sealed again.
#[test]
fn what_gives_way_as_acknowledged_stays_covered() {
    let disk = SimDisk::new(1);
    let mut config = tightest();
    config.telemetry.max_age = Some(Duration::from_secs(3_600));
    let now = |hours: i64| Now {
        monotonic: hours * 3_600_000_000,
        wall: CLOCK_SANE_FROM_US + hours * 3_600_000_000,
    };
    let mut opened = open(&disk, FIRST, &config);
    opened.writer.tick(now(0)).unwrap();
    append(&mut opened, 0..3);
    drop(opened);
    let mut opened = open(&disk, SECOND, &config);
    let covered = opened.covered.least();
    assert_eq!(covered.map(|origin| origin.number), Some(30));
    trim(&mut opened, 3);
    opened.writer.tick(now(1)).unwrap();
    opened.writer.tick(now(3)).unwrap();
    let starts = opened.reader.lane_starts();
    assert!(
        starts.iter().all(|start| start.key.buffer != FIRST),
        "{starts:?}"
    );
    drop(opened);
    let opened = open(&disk, THIRD, &config);
    assert_eq!(opened.covered.least(), covered);
}

/// What the disk fails to read for a moment is neither damaged nor passed over.
#[test]
fn a_read_that_fails_at_the_start_takes_no_cover_back() {
    let disk = SimDisk::new(1);
    let config = tightest();
    let mut opened = open(&disk, FIRST, &config);
    append(&mut opened, 0..3);
    drop(opened);
    let covered = open(&disk.fork(Salts::Same), SECOND, &config).covered;
    let covered = covered.least();
    for good in 0..80 {
        let disk = disk.fork(Salts::Same);
        disk.fail_reads_behind(good, 1);
        let opened = open(&disk, SECOND, &config);
        assert_eq!(opened.covered.least(), covered, "read {good}");
    }
}

/// The cursor that says so was written by an earlier life, and nobody has acknowledged it since.
#[test]
fn what_an_earlier_life_heard_of_gives_way_without_a_gap() {
    let disk = SimDisk::new(1);
    let mut opened = open(&disk, FIRST, &tightest());
    append(&mut opened, 0..8);
    save(&mut opened, vec![by(AckedTo::Somebody, (0, 8))]);
    drop(opened);
    let mut opened = open(&disk, SECOND, &tightest());
    for batch in batches(SECOND, 22) {
        opened.writer.append(vec![batch]).unwrap();
    }
    let lane = key(FIRST, 0).lane_key();
    let starts = opened.reader.lane_starts();
    assert!(
        starts.iter().all(|start| start.key != lane),
        "nothing gave way"
    );
    assert_eq!(opened.reader.book.of(lane), [], "declared as given up");
}

/// A cursor with a hole was on its way when the hole was filled and all of the life gave way.
#[test]
fn a_late_cursor_does_not_forget_what_filled_a_hole_of_it() {
    let disk = SimDisk::new(1);
    let mut opened = open(&disk, FIRST, &tightest());
    append(&mut opened, 0..6);
    drop(opened);
    let mut opened = open(&disk, SECOND, &tightest());
    let lane = |runs: &[(u64, u64)]| {
        let sum = HashSum::default();
        let acked = runs.iter().map(|&(first, end)| Held { first, end, sum });
        LaneCursor {
            key: key(FIRST, 0).lane_key(),
            by: AckedTo::Somebody,
            acked: acked.collect(),
        }
    };
    let cursor = SenderCursor {
        lanes: vec![lane(&[(0, 2), (4, 6)])],
        ..SenderCursor::default()
    };
    let under_way = opened.reader.save(&cursor);
    trim(&mut opened, 6);
    for batch in batches(SECOND, 22) {
        opened.writer.append(vec![batch]).unwrap();
    }
    let starts = opened.reader.lane_starts();
    assert_eq!(starts.len(), 1, "FIRST did not give way: {starts:?}");
    under_way();
    drop(opened);
    let opened = open(&disk, THIRD, &tightest());
    assert_eq!(damaged(&opened), [0; 0]);
}

/// A cursor that was on its way when it gave way knows less, and comes behind it.
#[test]
fn a_cursor_that_was_on_its_way_takes_nothing_back() {
    let disk = SimDisk::new(1);
    let mut opened = open(&disk, FIRST, &tightest());
    append(&mut opened, 0..20);
    let cursor = SenderCursor {
        lanes: vec![by(AckedTo::Somebody, (0, 2))],
        ..SenderCursor::default()
    };
    let under_way = opened.reader.save(&cursor);
    trim(&mut opened, 11);
    append(&mut opened, 20..40);
    under_way();
    drop(opened);
    let opened = open(&disk, SECOND, &tightest());
    assert_eq!(damaged(&opened), [0; 0]);
}

#[test]
fn whichever_slot_of_the_cursor_is_damaged_what_went_was_acknowledged() {
    for slot in [0, 1] {
        let disk = SimDisk::new(1);
        let mut opened = open(&disk, FIRST, &tightest());
        append(&mut opened, 0..20);
        for acked in [3, 15] {
            trim(&mut opened, acked);
            save(&mut opened, vec![by(AckedTo::Somebody, (0, acked))]);
        }
        assert!(opened.reader.lane_starts()[0].first > 3, "nothing went");
        drop(opened);
        disk.flip_bit(Path::new(CURSOR), slot * CURSOR_SLOT_BYTES + 60, 3);
        let opened = open(&disk, SECOND, &tightest());
        assert_eq!(damaged(&opened), [0; 0], "slot {slot}");
    }
}

#[test]
fn without_a_cursor_that_can_be_read_nothing_is_declared_then_or_later() {
    type Spoil = fn(&SimDisk);
    let spoiled: [Spoil; 2] = [
        |disk| {
            for slot in [0, 1] {
                disk.flip_bit(Path::new(CURSOR), slot * CURSOR_SLOT_BYTES + 60, 3);
            }
        },
        |disk| disk.remove(Path::new(CURSOR)).unwrap(),
    ];
    for spoil in spoiled {
        let disk = SimDisk::new(1);
        let mut opened = open(&disk, FIRST, &tightest());
        append(&mut opened, 0..20);
        trim(&mut opened, 15);
        for _ in 0..2 {
            save(&mut opened, vec![by(AckedTo::Somebody, (0, 15))]);
        }
        drop(opened);
        spoil(&disk);
        for life in 2..5 {
            let present = BufferId([life; 16]);
            let mut opened = open(&disk, present, &tightest());
            assert_eq!(damaged(&opened), [0; 0], "life {life}");
            let start = opened.reader.lane_starts()[0].clone();
            assert!(start.first > 0, "nothing went");
            let cursor = opened.sender.cursor();
            opened.reader.save(&cursor)();
        }
        // What is lost from then on is declared.
        let mut last = open(&disk, BufferId([5; 16]), &tightest());
        let first = last.reader.lane_starts()[0].first;
        let cursor = last.sender.cursor();
        last.reader.save(&cursor)();
        drop(last);
        for segment in files(&disk, "/spool/telemetry") {
            disk.remove(&segment).unwrap();
        }
        let last = open(&disk, BufferId([6; 16]), &tightest());
        assert_eq!(damaged(&last), (first..20).collect::<Vec<_>>());
    }
}

/// A full disk: the agent starts, goes on, and has all acknowledged; at the first start with room
/// it is declared.
#[test]
fn what_finds_no_room_to_be_declared_is_declared_once_there_is() {
    for without_header in [false, true] {
        let (disk, mut opened) = given_up();
        save(&mut opened, vec![by(AckedTo::Somebody, (0, 5))]);
        drop(opened);
        let gaps = Path::new("/spool/gaps");
        for name in disk.list(gaps).unwrap() {
            disk.remove(&gaps.join(name)).unwrap();
        }
        if without_header {
            let segment = files(&disk, "/spool/telemetry").remove(0);
            let mut bytes = disk.contents(&segment).unwrap();
            bytes[..SEGMENT_HEADER_BYTES as usize].fill(0);
            disk.put(&segment, &bytes);
        }
        disk.set_full(true);
        let mut opened = open(&disk, SECOND, &tightest());
        assert_eq!(damaged(&opened), [0; 0], "there was room");
        let first = opened.reader.lane_starts()[0].first;
        for _ in 0..2 {
            acknowledge(&mut opened.reader);
            save(&mut opened, Vec::new());
        }
        drop(opened);
        disk.set_full(false);
        let mut opened = open(&disk, THIRD, &tightest());
        assert_eq!(damaged(&opened), (5..first).collect::<Vec<_>>());
        acknowledge(&mut opened.reader);
        drop(opened);
        let last = open(&disk, BufferId([4; 16]), &tightest());
        assert!(last.sender.is_drained(), "declared twice");
    }
}

/// An aggregator that lost its journal says so between an acknowledgement and the cursor.
#[test]
fn what_was_taken_back_since_does_not_go() {
    let disk = SimDisk::new(1);
    let mut opened = open(&disk, FIRST, &tightest());
    append(&mut opened, 0..20);
    trim(&mut opened, 20);
    let journal = Journal {
        place: Place(1),
        log: LogId([1; 16]),
    };
    let lanes = vec![
        by(AckedTo::Journal(journal), (0, 4)),
        by(AckedTo::Nobody, (4, 20)),
    ];
    save(&mut opened, lanes);
    append(&mut opened, 20..21);
    assert!(opened.reader.read(key(FIRST, 4)).is_ok());
    drop(opened);
    let mut opened = open(&disk, SECOND, &tightest());
    assert_eq!(opened.sender.backlog().0, 21 - 4);
    let found = Found::of(&mut opened.reader, FIRST);
    assert_eq!(found.declared.len(), 0);
}

/// More was acknowledged, by more journals and in more runs, than a slot holds.
#[test]
fn a_cursor_that_left_something_out_declares_nothing() {
    let disk = SimDisk::new(1);
    let mut opened = open(&disk, FIRST, &tightest());
    append(&mut opened, 0..20);
    trim(&mut opened, 15);
    let sum = HashSum::default();
    let many = |life: u8| LaneCursor {
        key: key(BufferId([life; 16]), 0).lane_key(),
        by: AckedTo::Somebody,
        acked: (0..200)
            .map(|i| Held {
                first: 2 * i,
                end: 2 * i + 1,
                sum,
            })
            .collect(),
    };
    let mut lanes: Vec<_> = (10..60).map(many).collect();
    lanes.push(by(AckedTo::Somebody, (0, 15)));
    save(&mut opened, lanes);
    drop(opened);
    let over: Arc<dyn Disk> = Arc::new(disk.clone());
    let written = acknowledged(&over, Path::new("/spool")).unwrap();
    assert!(written.ends.is_empty() && written.sender.lanes.len() < 51);
    for present in [SECOND, THIRD] {
        let mut opened = open(&disk, present, &tightest());
        assert_eq!(damaged(&opened), [0; 0]);
        assert!(opened.reader.lane_starts()[0].first > 0, "nothing went");
        let cursor = opened.sender.cursor();
        opened.reader.save(&cursor)();
    }
    let mut opened = open(&disk, SECOND, &tightest());
    assert_eq!(damaged(&opened), [0; 0]);
    let first = opened.reader.lane_starts()[0].first;
    assert!(
        Found::of(&mut opened.reader, FIRST)
            .delivered
            .contains_key(&first)
    );
}
