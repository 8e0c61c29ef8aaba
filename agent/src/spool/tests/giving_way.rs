//! A full spool, over a disk that loses power at any operation and has no free block: under every
//! number that was sealed stands the batch or a gap, never both and never neither.

use super::config;
use super::gap_for;
use crate::seal::{Now, Waits};
use crate::spool::{self, AgentSpool, Opened, Policy, SpoolConfig};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tributary_journal::limits::{SEGMENT_HEADER_BYTES, WAL_SEGMENT_BYTES};
use tributary_journal::{Disk, SimDisk, Survival};
use tributary_protocol::batch::{Cover, GapReason, SealedBatch, Sealer, Spec};
use tributary_protocol::ids::{BatchKey, BufferId, Lane, LaneKey, SeriesId};
use tributary_protocol::ranges::{Held, HeldRanges};
use tributary_protocol::reading::{Meta, Readings, Value};
use tributary_protocol::session::{AckedTo, LaneCursor, SenderCursor, Trim};
use tributary_uplink::Spool;

const DIR: &str = "/spool";
pub(super) const FIRST: BufferId = BufferId([1; 16]);
pub(super) const SECOND: BufferId = BufferId([2; 16]);
/// Readings in batch `number`.
fn rows(number: u64) -> u32 {
    6 + number as u32 % 3
}

/// Batches of about 400 kB that nothing shortens: ten of them fill a segment.
pub(super) fn batches(buffer: BufferId, count: u64) -> Vec<SealedBatch> {
    let mut random = 0x1234_5678_9abc_def0u64;
    let mut sealer = Sealer::new();
    let batch = |number| {
        let mut readings = Readings::new();
        for row in 0..rows(number) {
            let text: String = (0..56_000)
                .map(|_| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    char::from(33 + (random % 94) as u8)
                })
                .collect();
            let meta = Meta {
                event_time: 1_000 * number as i64 + i64::from(row),
                ..Meta::default()
            };
            readings.push(SeriesId(0), meta, Value::Str(&text)).unwrap();
        }
        let key = key(buffer, number);
        let spec = Spec {
            key,
            sealed_at: 1,
            series_needed: 1,
            covers: vec![Cover {
                buffer,
                first: 10 * number,
                count: 10,
            }],
        };
        sealer.readings(&spec, &mut readings).unwrap()
    };
    (0..count).map(batch).collect()
}

pub(super) fn key(buffer: BufferId, number: u64) -> BatchKey {
    BatchKey {
        buffer,
        lane: Lane::Telemetry,
        number,
    }
}

pub(super) fn open(disk: &SimDisk, present: BufferId, config: &SpoolConfig) -> Opened {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    spool::open(&disk, Path::new(DIR), present, config).unwrap()
}

/// Two segments and the one ahead.
pub(super) fn tight(policy: Policy) -> SpoolConfig {
    let mut config = config(12);
    config.telemetry.policy = policy;
    config
}

/// What stands under each number of a buffer: readings delivered, or readings declared.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) delivered: BTreeMap<u64, u32>,
    pub(super) declared: BTreeMap<u64, Option<u32>>,
    /// Declarations.
    gaps: u64,
    /// Of all of them.
    bytes: u64,
}

impl Found {
    pub(super) fn of(reader: &mut AgentSpool, buffer: BufferId) -> Self {
        let mut found = Self::default();
        let lane = Lane::Telemetry;
        let key_of = LaneKey { buffer, lane };
        let Some(start) = reader
            .lane_starts()
            .into_iter()
            .find(|start| start.key == key_of)
        else {
            return found;
        };
        let mut at = start.first;
        while at < start.end {
            let batch = reader.read(key(buffer, at)).unwrap();
            let numbers = batch.numbers();
            found.gaps += u64::from(batch.gap().is_some());
            found.bytes += batch.bytes().len() as u64;
            match batch.gap() {
                None => {
                    found.delivered.insert(at, batch.rows());
                }
                Some(gap) => {
                    // One number that is damaged stands for itself.
                    let each = numbers.clone().zip(gap.each.iter().copied());
                    found.declared.extend(each);
                }
            }
            at = numbers.end.max(at + 1);
        }
        found
    }

    /// Every number below `end` once, with what it held.
    fn check(&self, end: u64) {
        for number in 0..end {
            let delivered = self.delivered.get(&number).copied();
            let declared = self.declared.get(&number).copied();
            let all = (delivered, declared);
            let right = [(Some(rows(number)), None), (None, Some(Some(rows(number))))];
            assert!(right.contains(&all), "number {number}: {all:?}");
        }
    }

    fn end(&self) -> u64 {
        let last = |last: Option<&u64>| last.map_or(0, |number| number + 1);
        last(self.delivered.keys().last()).max(last(self.declared.keys().last()))
    }
}

/// Has everything acknowledged, and the cursor say so.
pub(super) fn acknowledge(reader: &mut AgentSpool) {
    for start in reader.lane_starts() {
        let run = Held {
            first: start.first,
            end: start.end,
            sum: tributary_protocol::ids::HashSum::default(),
        };
        reader.trim(Trim {
            key: start.key,
            below: start.end,
        });
        let mut acked = HeldRanges::new();
        acked.insert_run(run);
        let lane = LaneCursor {
            key: start.key,
            by: AckedTo::Somebody,
            acked: acked.iter().copied().collect(),
        };
        reader.save(&SenderCursor {
            lanes: vec![lane],
            ..SenderCursor::default()
        })();
    }
}

#[test]
fn the_backlog_is_what_is_held_whatever_was_given_up() {
    let disk = SimDisk::new(1);
    let config = tight(Policy::DropOldest);
    let mut opened = open(&disk, FIRST, &config);
    for batch in batches(FIRST, 130) {
        opened.writer.append(vec![batch.clone()]).unwrap();
        let bytes = batch.bytes().len() as u64;
        opened.sender.on_sealed(batch.key(), bytes);
        for shed in opened.reader.take_sheds() {
            opened.sender.on_shed(shed.key, shed.numbers, shed.bytes);
        }
    }
    let found = Found::of(&mut opened.reader, FIRST);
    found.check(130);
    assert!(found.declared.len() > 90, "{}", found.declared.len());
    let held = found.delivered.len() as u64 + found.gaps;
    assert_eq!(opened.sender.backlog(), (held, found.bytes));
    drop(opened);
    assert_eq!(open(&disk, SECOND, &config).sender.backlog().0, held);
}

#[test]
fn the_oldest_gives_way_behind_a_gap_whenever_the_power_fails() {
    let batches = batches(FIRST, 130);
    let config = tight(Policy::DropOldest);
    let (mut cuts, mut shed) = (0, 0);
    for seed in 0..60u64 {
        let disk = SimDisk::new(seed);
        let mut opened = open(&disk, FIRST, &config);
        disk.power_off_after(20 + seed * 6);
        let stored = |batch: &&SealedBatch| opened.writer.append(vec![(*batch).clone()]).is_ok();
        let durable = batches.iter().take_while(stored).count() as u64;
        cuts += usize::from(durable < batches.len() as u64);
        let survival = match seed % 3 {
            0 => Survival::Nothing,
            1 => Survival::RandomHalf(seed),
            _ => Survival::All,
        };
        let disk = disk.crash(survival);
        let mut opened = open(&disk, SECOND, &config);
        let found = Found::of(&mut opened.reader, FIRST);
        found.check(durable);
        assert!(found.end() <= durable + 1, "seed {seed}");
        shed += found.declared.len();
        // What is covered is found again, also where all of it was given up.
        let covered = opened.covered.least().map(|origin| origin.number);
        assert_eq!(covered.unwrap_or(0), 10 * found.end(), "seed {seed}");
        // The sender knows of all that, and nothing of it is left once it is acknowledged.
        let held = found.delivered.len() as u64 + found.gaps;
        assert_eq!(opened.sender.backlog().0, held, "seed {seed}");
        acknowledge(&mut opened.reader);
        drop(opened);
        let third = open(&disk, BufferId([3; 16]), &config);
        assert!(third.sender.is_drained(), "seed {seed}");
    }
    assert!(
        cuts > 30 && shed > 500,
        "{cuts} cuts, {shed} numbers given up"
    );
}

#[test]
fn on_a_disk_without_a_free_block_the_oldest_gives_way_all_the_same() {
    let batches = batches(FIRST, 200);
    let disk = SimDisk::new(1);
    let mut opened = open(&disk, FIRST, &config(64));
    for (i, batch) in batches.iter().enumerate() {
        // Others take all that is free, and all that becomes so.
        disk.set_full(i >= 75);
        opened.writer.append(vec![batch.clone()]).unwrap();
    }
    let found = Found::of(&mut opened.reader, FIRST);
    found.check(200);
    assert!(found.declared.len() > 100, "{}", found.declared.len());
    assert!(found.delivered.len() >= 60, "{}", found.delivered.len());
    let telemetry = |disk: &SimDisk| disk.list(Path::new("/spool/telemetry")).unwrap().len();
    assert!(telemetry(&disk) >= 8, "no block was given back");
}

#[test]
fn what_blocks_goes_on_once_something_is_acknowledged() {
    let batches = batches(FIRST, 60);
    let disk = SimDisk::new(1);
    let mut opened = open(&disk, FIRST, &tight(Policy::Block));
    let mut blocked = 0;
    disk.set_full(false);
    for batch in &batches {
        if let Err(error) = opened.writer.append(vec![batch.clone()]) {
            assert!(error.is_full());
            // The disk is full from the first time on, and it is the quota all the same.
            assert_eq!(Waits::of(&error), Waits::Quota, "{error}");
            disk.set_full(true);
            blocked += 1;
            acknowledge(&mut opened.reader);
            opened.writer.append(vec![batch.clone()]).unwrap();
        }
    }
    assert!(blocked >= 2, "{blocked}");
    assert!(Found::of(&mut opened.reader, FIRST).declared.is_empty());
}

/// A lane with one full segment and one ahead, on a disk that others took: until it would take no
/// more, and all of that acknowledged.
fn full_and_drained(policy: Policy, batches: &mut std::slice::Iter<'_, SealedBatch>) -> Opened {
    let disk = SimDisk::new(1);
    let mut config = config(64);
    config.telemetry.policy = policy;
    let mut opened = open(&disk, FIRST, &config);
    let refuse = opened.writer.refuse_new();
    for batch in batches.by_ref() {
        let appended = opened.writer.append(vec![batch.clone()]);
        disk.set_full(true);
        opened.writer.tick(LONG_AGO).unwrap();
        if refuse.is_on() || appended.is_err() {
            break;
        }
    }
    acknowledge(&mut opened.reader);
    opened
}

const LONG_AGO: Now = Now {
    monotonic: 0,
    wall: 0,
};

#[test]
fn what_blocks_goes_on_in_its_own_blocks_though_others_took_the_disk() {
    let batches = batches(FIRST, 60);
    let mut left = batches.iter();
    let mut opened = full_and_drained(Policy::Block, &mut left);
    // The one that did not fit comes again.
    let first = batches.len() - left.len() - 1;
    let mut blocked = 0;
    for batch in &batches[first..] {
        while let Err(error) = opened.writer.append(vec![batch.clone()]) {
            assert!(error.is_full());
            blocked += 1;
            assert!(blocked < 100, "wedged at {}", batch.key().number);
            acknowledge(&mut opened.reader);
        }
    }
    assert!(blocked >= 3, "{blocked}");
    assert!(Found::of(&mut opened.reader, FIRST).declared.is_empty());
}

#[test]
fn what_refuses_takes_again_in_its_own_blocks_though_others_took_the_disk() {
    let batches = batches(FIRST, 60);
    let mut left = batches.iter();
    let mut opened = full_and_drained(Policy::DropNewest, &mut left);
    let refuse = opened.writer.refuse_new();
    let mut refused = 0;
    for batch in left {
        opened.writer.tick(LONG_AGO).unwrap();
        if refuse.is_on() {
            refused += 1;
            acknowledge(&mut opened.reader);
            opened.writer.tick(LONG_AGO).unwrap();
        }
        assert!(!refuse.is_on(), "refuses for ever");
        let stored = opened.writer.append(vec![batch.clone()]).unwrap();
        assert!(stored.iter().all(|batch| batch.gap().is_none()));
    }
    assert!(refused >= 3, "{refused}");
}

#[test]
fn the_newest_gives_way_and_is_refused_at_the_door() {
    let batches = batches(FIRST, 60);
    let disk = SimDisk::new(1);
    let mut opened = open(&disk, FIRST, &tight(Policy::DropNewest));
    let refuse = opened.writer.refuse_new();
    let now = Now {
        monotonic: 0,
        wall: 0,
    };
    let mut refused_from = None;
    for batch in &batches {
        opened.writer.append(vec![batch.clone()]).unwrap();
        opened.writer.tick(now).unwrap();
        if refuse.is_on() {
            refused_from.get_or_insert(batch.key().number);
        }
    }
    let found = Found::of(&mut opened.reader, FIRST);
    found.check(60);
    let kept = found.delivered.len() as u64;
    // The oldest are kept; of those at the end, the smaller ones may still have found room.
    let last = *found.delivered.keys().last().unwrap();
    assert!((kept - 1..kept + 4).contains(&last), "{last} of {kept}");
    // It was refused while there was still room for what was on its way.
    let refused_from = refused_from.unwrap();
    assert!(
        (kept - 5..kept).contains(&refused_from),
        "{refused_from} of {kept}"
    );
    acknowledge(&mut opened.reader);
    opened.writer.tick(now).unwrap();
    assert!(!refuse.is_on(), "there is room again");
}

#[test]
fn what_is_too_old_gives_way() {
    let disk = SimDisk::new(1);
    let mut config = config(64);
    config.telemetry.max_age = Some(Duration::from_secs(3_600));
    let mut opened = open(&disk, FIRST, &config);
    let hour = 3_600_000_000;
    let now = |hours: i64| Now {
        monotonic: hours * hour,
        wall: crate::limits::CLOCK_SANE_FROM_US + hours * hour,
    };
    opened.writer.tick(now(0)).unwrap();
    for batch in batches(FIRST, 30) {
        opened.writer.append(vec![batch]).unwrap();
    }
    opened.writer.tick(now(1)).unwrap();
    assert_eq!(Found::of(&mut opened.reader, FIRST).declared.len(), 0);
    opened.writer.tick(now(2)).unwrap();
    let found = Found::of(&mut opened.reader, FIRST);
    found.check(30);
    // The segment that is being written stays, whatever its age.
    assert!((10..30).contains(&found.declared.len()), "{found:?}");
    let gap = opened.reader.read(key(FIRST, 0)).unwrap();
    assert_eq!(gap.gap().unwrap().detail, "older than 1 h");
}

/// A repair declared a batch in the middle of a segment: it is declared once, as it was.
#[test]
fn a_segment_gives_way_around_a_gap_that_stands_in_it() {
    let disk = SimDisk::new(7);
    let config = tight(Policy::DropOldest);
    let mut opened = open(&disk, FIRST, &config);
    let batches = batches(FIRST, 40);
    for batch in &batches[..8] {
        opened.writer.append(vec![batch.clone()]).unwrap();
    }
    let gap = gap_for(key(FIRST, 3), None).unwrap();
    opened.writer.declare(&gap).unwrap();
    for batch in &batches[8..] {
        opened.writer.append(vec![batch.clone()]).unwrap();
    }
    let sheds = opened.reader.take_sheds().into_iter();
    let given_up: Vec<u64> = sheds.flat_map(|shed| shed.numbers).collect();
    assert!(given_up.starts_with(&[0, 1, 2, 4, 5]), "{given_up:?}");
    drop(opened);
    let mut opened = open(&disk, SECOND, &config);
    let found = Found::of(&mut opened.reader, FIRST);
    for number in given_up {
        let rows = batches[number as usize].rows();
        assert_eq!(found.declared[&number], Some(rows), "{number}");
    }
    assert_eq!(
        opened.reader.read(key(FIRST, 3)).unwrap().bytes(),
        gap.bytes()
    );
    assert_eq!(found.delivered.len() + found.declared.len(), 40);
}

#[test]
fn acknowledged_numbers_are_not_declared() {
    let disk = SimDisk::new(1);
    let mut opened = open(&disk, FIRST, &tight(Policy::DropOldest));
    let batches = batches(FIRST, 40);
    let mut all = batches.iter();
    for batch in all.by_ref().take(7) {
        opened.writer.append(vec![batch.clone()]).unwrap();
    }
    opened.reader.trim(Trim {
        key: key(FIRST, 0).lane_key(),
        below: 5,
    });
    for batch in all {
        opened.writer.append(vec![batch.clone()]).unwrap();
    }
    let gap = opened.reader.read(key(FIRST, 5)).unwrap();
    assert_eq!(gap.numbers().start, 5);
    assert_eq!(gap.gap().unwrap().reason, GapReason::Shed);
}

#[test]
fn a_segment_without_a_header_is_declared_until_it_is_acknowledged() {
    for damaged in [0, 1] {
        let disk = SimDisk::new(1);
        let mut opened = open(&disk, FIRST, &config(64));
        for batch in batches(FIRST, 15) {
            opened.writer.append(vec![batch]).unwrap();
        }
        let segments = opened.reader.readers[&Lane::Telemetry].segments();
        assert_eq!(segments.len(), 2);
        drop(opened);
        let segment = &segments[damaged];
        let mut bytes = disk.contents(&segment.path).unwrap();
        bytes[..SEGMENT_HEADER_BYTES as usize].fill(0);
        disk.put(&segment.path, &bytes);
        let mut opened = open(&disk, SECOND, &config(64));
        let found = Found::of(&mut opened.reader, FIRST);
        for number in 0..15 {
            let lost = (segment.first..segment.end).contains(&number);
            assert_eq!(
                found.declared.get(&number),
                lost.then_some(&None),
                "{number}"
            );
            assert_eq!(found.delivered.contains_key(&number), !lost, "{number}");
        }
        // Where nobody knows how many there were, as many as can have been.
        let most = WAL_SEGMENT_BYTES / spool::BATCH_BYTES_LEAST + segment.first + 1;
        assert_eq!(found.end(), if damaged == 0 { 15 } else { most });
        acknowledge(&mut opened.reader);
        drop(opened);
        let mut third = open(&disk, BufferId([3; 16]), &config(64));
        assert!(third.sender.is_drained());
        // By and by nothing names the lane any more.
        for _ in 0..3 {
            third.reader.save(&third.sender.cursor())();
        }
        drop(third);
        let fourth = open(&disk, BufferId([4; 16]), &config(64));
        assert!(fourth.sender.is_drained(), "declared once more");
    }
}
