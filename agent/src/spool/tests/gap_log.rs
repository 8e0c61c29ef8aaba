//! A log of gaps that is damaged, and frames that are: whatever is gone from the spool was
//! acknowledged or is declared, once, and nothing else is.

use super::giving_way::{FIRST, Found, SECOND, acknowledge, batches, key, open, tight};
use crate::seal::Origin;
use crate::spool::{CursorBody, Opened, Policy, acknowledged};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use tributary_journal::limits::SEGMENT_HEADER_BYTES;
use tributary_journal::{Cursor, Disk, SimDisk, Survival};
use tributary_protocol::batch::{GapReason, SealedBatch};
use tributary_protocol::ids::{BufferId, HashSum, Lane, LogId};
use tributary_protocol::ranges::Held;
use tributary_protocol::session::{AckedTo, Journal, LaneCursor, Place, SenderCursor, Trim};
use tributary_uplink::Spool;

pub(super) const THIRD: BufferId = BufferId([3; 16]);
const SEALED: u64 = 60;
/// They take long to make.
pub(super) static BATCHES: LazyLock<Vec<SealedBatch>> = LazyLock::new(|| batches(FIRST, SEALED));

/// An agent that was offline for long: most of its readings were given up, behind gaps.
pub(super) fn given_up() -> (SimDisk, Opened) {
    let disk = SimDisk::new(1);
    let mut opened = open(&disk, FIRST, &tight(Policy::DropOldest));
    for batch in &*BATCHES {
        opened.writer.append(vec![batch.clone()]).unwrap();
    }
    (disk, opened)
}

pub(super) fn files(disk: &SimDisk, folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(folder);
    let names = disk.list(folder).unwrap().into_iter();
    let segments = names.filter(|name| name.ends_with(".seg"));
    segments.map(|name| folder.join(name)).collect()
}

/// Every number below `end` is there or declared, and never both.
fn check(opened: &mut Opened, end: u64) -> Found {
    let found = Found::of(&mut opened.reader, FIRST);
    for number in 0..end {
        let delivered = found.delivered.contains_key(&number);
        let declared = found.declared.contains_key(&number);
        assert!(
            delivered != declared,
            "number {number}: {delivered}, {declared}"
        );
    }
    found
}

#[test]
fn what_a_damaged_log_of_gaps_declared_is_declared_again() {
    type Spoil = fn(&SimDisk, &Path, usize);
    let spoiled: [(&str, Spoil); 4] = [
        ("a bit in the first frame", |disk, gaps, _| {
            disk.flip_bit(gaps, SEGMENT_HEADER_BYTES + 40, 3);
        }),
        ("a bit in the last frame", |disk, gaps, len| {
            disk.flip_bit(gaps, len as u64 - 20, 3);
        }),
        ("no header", |disk, gaps, _| {
            let mut bytes = disk.contents(gaps).unwrap();
            bytes[..SEGMENT_HEADER_BYTES as usize].fill(0);
            disk.put(gaps, &bytes);
        }),
        ("no file", |disk, gaps, _| disk.remove(gaps).unwrap()),
    ];
    for (what, spoil) in spoiled {
        let (disk, opened) = given_up();
        drop(opened);
        // Cuts off what stands behind the frames.
        drop(open(&disk, SECOND, &tight(Policy::DropOldest)));
        let gaps = files(&disk, "/spool/gaps").remove(0);
        let len = disk.contents(&gaps).unwrap().len();
        spoil(&disk, &gaps, len);
        let mut opened = open(&disk, THIRD, &tight(Policy::DropOldest));
        let found = check(&mut opened, SEALED);
        let unknown = found
            .declared
            .values()
            .filter(|readings| readings.is_none());
        assert!(unknown.count() >= 8, "{what}");
        if what.starts_with("a bit in the first") || what == "no header" {
            assert!(!opened.damage.is_empty(), "{what}");
        }
        drop(opened);
        // Once, however often it starts; and nothing is left when it is acknowledged.
        let mut again = open(&disk, BufferId([4; 16]), &tight(Policy::DropOldest));
        assert_eq!(check(&mut again, SEALED).declared, found.declared, "{what}");
        acknowledge(&mut again.reader);
        drop(again);
        let last = open(&disk, BufferId([5; 16]), &tight(Policy::DropOldest));
        assert!(last.sender.is_drained(), "{what}");
    }
}

pub(super) fn by(by: AckedTo, (first, end): (u64, u64)) -> LaneCursor {
    let sum = HashSum::default();
    LaneCursor {
        key: key(FIRST, 0).lane_key(),
        by,
        acked: vec![Held { first, end, sum }],
    }
}

/// What the sender knows, written as the uplink has it written.
pub(super) fn save(opened: &mut Opened, lanes: Vec<LaneCursor>) {
    let cursor = SenderCursor {
        lanes,
        ..SenderCursor::default()
    };
    opened.reader.save(&cursor)();
}

#[test]
fn what_was_acknowledged_is_not_declared_though_the_log_of_gaps_is_gone() {
    let journal = Journal {
        place: Place(1),
        log: LogId([1; 16]),
    };
    // A journal that went back said so when it did.
    for whose in [AckedTo::Journal(journal), AckedTo::Nobody] {
        let (disk, mut opened) = given_up();
        save(&mut opened, vec![by(whose, (0, 5))]);
        drop(opened);
        for gaps in files(&disk, "/spool/gaps") {
            disk.remove(&gaps).unwrap();
        }
        let mut opened = open(&disk, SECOND, &tight(Policy::DropOldest));
        let found = Found::of(&mut opened.reader, FIRST);
        let least = found.declared.keys().next();
        assert_eq!(least, Some(&5), "{whose:?}");
    }
}

#[test]
fn a_life_that_is_gone_altogether_is_declared_as_far_as_it_is_known_to_have_gone() {
    let (disk, mut opened) = given_up();
    save(&mut opened, vec![by(AckedTo::Somebody, (20, 30))]);
    drop(opened);
    for file in files(&disk, "/spool/gaps")
        .into_iter()
        .chain(files(&disk, "/spool/telemetry"))
    {
        disk.remove(&file).unwrap();
    }
    let opened = open(&disk, SECOND, &tight(Policy::DropOldest));
    let start = opened.reader.lane_starts().remove(0);
    assert_eq!((start.first, start.end), (0, SEALED));
    for number in (0..20).chain(30..SEALED) {
        let gap = opened
            .reader
            .book
            .read(key(FIRST, number))
            .unwrap()
            .unwrap();
        assert_eq!(gap.gap().unwrap().reason, GapReason::Damaged, "{number}");
    }
    assert!(opened.reader.book.read(key(FIRST, 25)).is_none());
    assert_eq!(opened.sender.backlog().0, 2);
}

/// The sender forgets a buffer of which all is acknowledged, and its cursor does, while the files
/// are still there.
#[test]
fn what_goes_at_last_is_not_declared_whenever_the_power_fails() {
    let mut cuts = 0;
    for after in 0..24 {
        let (disk, opened) = given_up();
        drop(opened);
        let mut opened = open(&disk, SECOND, &tight(Policy::DropOldest));
        disk.power_off_after(after);
        let lane = key(FIRST, 0).lane_key();
        opened.reader.trim(Trim {
            key: lane,
            below: SEALED,
        });
        save(&mut opened, Vec::new());
        drop(opened);
        let disk = disk.crash(Survival::RandomHalf(after));
        let over: Arc<dyn Disk> = Arc::new(disk.clone());
        let written = acknowledged(&over, Path::new("/spool")).unwrap();
        let still_there = files(&disk, "/spool/telemetry").len();
        cuts += usize::from(!written.ends.is_empty() && still_there > 0);
        let opened = open(&disk, THIRD, &tight(Policy::DropOldest));
        for numbers in opened.reader.book.of(lane) {
            let gap = opened.reader.book.read(key(FIRST, numbers.start));
            let reason = gap.unwrap().unwrap().gap().unwrap().reason;
            assert_eq!(reason, GapReason::Shed, "power off after {after}");
        }
    }
    assert!(cuts > 0, "the power never failed between");
}

/// A gap that is damaged while the agent runs: what stands for it stands for all that it did.
#[test]
fn a_gap_that_cannot_be_read_back_any_more_stands_for_all_that_it_stood_for() {
    let (disk, mut opened) = given_up();
    let numbers = opened.reader.book.numbers(key(FIRST, 0)).unwrap();
    assert!(numbers.end > 5, "{numbers:?}");
    for gaps in files(&disk, "/spool/gaps") {
        disk.flip_bit(&gaps, SEGMENT_HEADER_BYTES + 40, 3);
    }
    let mut read = |number| {
        loop {
            match opened.reader.read(key(FIRST, number)) {
                Ok(batch) => return batch,
                Err(error) => assert!(error.passing, "{error:?}"),
            }
        }
    };
    let gap = read(0);
    assert_eq!(gap.numbers(), numbers);
    assert_eq!(gap.gap().unwrap().reason, GapReason::Damaged);
    assert_eq!(read(3), gap, "the same each time");
}

/// The last frame of a lane looks torn once a bit of it flips; but the cursor was written when it
/// was there, and says that its messages are covered.
#[test]
fn a_last_frame_that_is_lost_is_declared_where_the_cursor_knows_that_it_was_there() {
    let disk = SimDisk::new(1);
    let mut opened = open(&disk, FIRST, &tight(Policy::DropOldest));
    for batch in &BATCHES[..5] {
        opened.writer.append(vec![batch.clone()]).unwrap();
    }
    let covered = Origin {
        buffer: FIRST,
        number: 50,
    };
    opened.covered.advance(Lane::Telemetry, covered);
    save(&mut opened, vec![by(AckedTo::Somebody, (0, 2))]);
    drop(opened);
    let segment = files(&disk, "/spool/telemetry").remove(0);
    let bytes = disk.contents(&segment).unwrap();
    let needle = &BATCHES[4].bytes()[..];
    let at = bytes.windows(needle.len()).position(|it| it == needle);
    disk.flip_bit(&segment, at.unwrap() as u64 + 60, 1);
    let mut opened = open(&disk, SECOND, &tight(Policy::DropOldest));
    let found = check(&mut opened, 5);
    assert_eq!(found.declared, BTreeMap::from([(4, None)]));
    assert_eq!(opened.covered.least(), Some(covered), "sealed again beside");
    // Two batches, and the gap.
    assert_eq!(opened.sender.backlog().0, 3);
}

/// A cursor that an earlier version wrote says nothing of how far lanes went.
#[test]
fn a_cursor_without_ends_is_read() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let path = Path::new("/cursor");
    let body = CursorBody {
        sender: SenderCursor {
            lanes: vec![by(AckedTo::Somebody, (0, 5))],
            ..SenderCursor::default()
        },
        ..CursorBody::default()
    };
    let bytes = body.write();
    let (mut cursor, _) = Cursor::open_sized(disk, path, 4096).unwrap();
    cursor.write(&bytes).unwrap();
    assert_eq!(CursorBody::read(&bytes).unwrap(), body);
}
