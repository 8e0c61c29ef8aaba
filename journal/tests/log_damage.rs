//! Flipped bits, failing syncs, recycled segments, and arbitrary bytes.

use crate::small_log::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_journal::sim_disk::Salts;
use tributary_journal::{
    Disk, Log, LogConfig, LogError, LogReader, LogWriter, Open, SegmentInfo, SimDisk, Survival,
    copy_path, is_kept, keep_copy, was_told,
};

/// Where the frames of `append_many(_, _, 300)` stand: header, kind, two length bytes, padding.
const FRAME: u64 = (24 + 3 + 300_u64).next_multiple_of(8);
const FRAMES_AT: u64 = 4096;

/// A small generator of test data: xorshift64* (Vigna 2016).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Reads all there is, and lists what was reported as damaged.
fn read_around(reader: &LogReader, life: tributary_journal::LifeId) -> (Vec<u64>, Vec<u64>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let span = reader
        .lives()
        .into_iter()
        .find(|span| span.life == life)
        .unwrap();
    let mut next = span.first;
    while next < span.end {
        let mut out = Vec::new();
        match reader.read(life, next, 2000, &mut out) {
            Ok(()) => {
                next = out.last().unwrap().number + 1;
                for entry in &out {
                    assert_eq!(entry.bytes[..8], entry.number.to_le_bytes());
                }
                good.extend(out.iter().map(|entry| entry.number));
            }
            Err(LogError::Damaged { numbers, .. }) => {
                assert_eq!(numbers.start, next);
                bad.extend(numbers.clone());
                next = numbers.end;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (good, bad)
}

fn newest(reader: &LogReader) -> SegmentInfo {
    reader.segments().pop().unwrap()
}

/// Twenty frames in the newest segment.
fn twenty() -> (SimDisk, PathBuf) {
    let disk = SimDisk::new(3);
    let mut log = open(&disk, Open::NewLife(life(1)));
    append_many(&mut log.writer, 20, 300);
    (disk.clone(), newest(&log.reader).path)
}

#[test]
fn a_flip_in_any_frame_of_the_newest_segment_is_damage_and_costs_that_frame_alone() {
    for hurt in 0..20_u64 {
        for place in (0..FRAME - 8).filter(|place| *place < 40 || place % 7 == 0) {
            let (disk, path) = twenty();
            disk.flip_bit(&path, FRAMES_AT + hurt * FRAME + place, (place % 8) as u8);
            let disk = disk.crash(Survival::All);
            let log = open(&disk, Open::NewLife(life(2)));
            let (good, bad) = read_around(&log.reader, life(1));
            if hurt == 19 {
                // Nothing behind it: it cannot be told from a frame that was being written.
                assert_eq!((good.len(), bad.len()), (19, 0));
                assert!(log.recovery.damage.is_empty());
                continue;
            }
            assert_eq!(bad, [hurt], "place {place}");
            assert_eq!(good.len(), 19);
            let damage = &log.recovery.damage[0];
            assert_eq!(
                (damage.numbers.clone(), damage.bytes),
                (hurt..hurt + 1, FRAME)
            );
            assert_eq!(log.recovery.torn_bytes, 0);
            let aside = disk.list(&dir().join("quarantine")).unwrap();
            assert_eq!(aside.len(), 1);
            let copy = disk
                .contents(&dir().join("quarantine").join(&aside[0]))
                .unwrap();
            assert_eq!(copy.len() as u64, FRAME);
            if place % 40 != 0 {
                continue;
            }
            // It is reported again, copied once, and older segments are still never appended to.
            let again = open(&disk, Open::NewLife(life(3)));
            assert_eq!(again.recovery.damage, log.recovery.damage);
            assert_eq!(disk.list(&dir().join("quarantine")).unwrap().len(), 1);
        }
    }
}

/// The copy of what is damaged is whole wherever the power goes while it is made, or made again.
#[test]
fn a_copy_that_was_interrupted_is_made_again() {
    let (disk, path) = twenty();
    let hurt = 5;
    let at = FRAMES_AT + hurt * FRAME;
    disk.flip_bit(&path, at + 40, 1);
    let disk = disk.crash(Survival::All);
    let segment = path.file_name().unwrap().to_str().unwrap();
    for survival in [Survival::Nothing, Survival::RandomHalf(3), Survival::All] {
        for operations in 0..30 {
            let disk = disk.fork(Salts::Same);
            disk.power_off_after(operations);
            let new = Open::NewLife(life(2));
            let _ = Log::open(Arc::new(disk.clone()), dir(), config(), new);
            let disk = disk.crash(survival);
            let _ = open(&disk, Open::NewLife(life(3)));
            let kept = is_kept(&disk, dir(), segment, (at, FRAME)).unwrap();
            assert!(kept, "after {operations} operations, {survival:?}");
        }
    }
    for bytes in [b"bytes", b"bytes", b"other"] {
        keep_copy(&disk, dir(), "name", bytes).unwrap();
        assert_eq!(disk.contents(&copy_path(dir(), "name", 0)).unwrap(), bytes);
    }
}

#[test]
fn damage_that_was_told_is_not_told_again() {
    let (disk, _) = headless(&[0, 3]);
    let recovery = open(&disk, Open::NewLife(life(2))).recovery;
    let told: Vec<_> = recovery.unmet().cloned().collect();
    assert_eq!(told.len(), 2);
    for left in [1, 0] {
        was_told(&disk, dir(), &told[left]).unwrap();
        let log = open(&disk, Open::NewLife(life(5 - left as u8)));
        assert_eq!(log.recovery.unmet().count(), left);
    }
    assert_eq!(disk.list(&dir().join("quarantine")).unwrap().len(), 2);
}

#[test]
fn the_header_of_a_later_frame_proves_that_the_one_before_was_durable() {
    let (disk, path) = twenty();
    for hurt in [18, 19] {
        disk.flip_bit(&path, FRAMES_AT + hurt * FRAME + 100, 1);
    }
    let mut disk = disk;
    for _ in 0..3 {
        disk = disk.crash(Survival::All);
        let log = open(&disk, Open::SameLife { if_empty: life(1) });
        assert_eq!(log.recovery.damage[0].numbers, 18..19);
        assert_eq!(log.recovery.torn_bytes, FRAME);
        assert_eq!(
            log.writer.next_number(),
            19,
            "18 was acknowledged: it is not given again"
        );
    }
}

#[test]
fn damage_in_a_sealed_segment_is_found_by_reading_and_costs_no_more() {
    let disk = SimDisk::new(3);
    let mut log = open(&disk, Open::NewLife(life(1)));
    append_many(&mut log.writer, 100, 300);
    let second = log.reader.segments()[1].clone();
    disk.flip_bit(&second.path, FRAMES_AT + 3 * FRAME + 99, 5);
    let last = second.end - second.first - 1;
    disk.flip_bit(&second.path, FRAMES_AT + last * FRAME + 99, 5);
    let expected = vec![second.first + 3, second.end - 1];
    assert_eq!(read_around(&log.reader, life(1)).1, expected);
    let log = open(&disk.crash(Survival::All), Open::NewLife(life(2)));
    assert!(
        log.recovery.damage.is_empty(),
        "sealed segments are not scanned at open"
    );
    let (good, bad) = read_around(&log.reader, life(1));
    assert_eq!((good.len(), bad), (98, expected));
    // Reading from behind the damage does not stumble over it.
    let mut out = Vec::new();
    log.reader
        .clone()
        .read(life(1), second.first + 4, 1, &mut out)
        .unwrap();
    assert_eq!(out[0].number, second.first + 4);
}

#[test]
fn a_segment_without_header_costs_its_numbers_and_they_are_not_given_again() {
    for which in [0, 1, 2] {
        let disk = SimDisk::new(3);
        let same = Open::SameLife { if_empty: life(1) };
        let mut log = open(&disk, same);
        append_many(&mut log.writer, 90, 300);
        let segments = log.reader.segments();
        assert_eq!(segments.len(), 3);
        let hurt = segments[which].clone();
        disk.flip_bit(&hurt.path, 33, 0);
        disk.flip_bit(&hurt.path, 2048 + 33, 0);
        let mut disk = disk.crash(Survival::All);
        for _ in 0..3 {
            let mut log = open(&disk, same);
            assert!(log.writer.next_number() >= 90);
            let (good, bad) = read_around(&log.reader, life(1));
            assert!(good.iter().all(|number| !bad.contains(number)));
            let lost = hurt.first..hurt.end;
            assert!(good.iter().all(|number| !lost.contains(number)));
            let kept = 90 - (hurt.end - hurt.first);
            assert!(
                good.len() as u64 >= kept,
                "{which}: {} of {kept}",
                good.len()
            );
            append_many(&mut log.writer, 1, 300);
            disk = disk.crash(Survival::Nothing);
        }
        assert_eq!(disk.list(&dir().join("quarantine")).unwrap().len(), 1);
    }
}

/// A life of four segments, of which these have lost their headers.
fn headless(which: &[usize]) -> (SimDisk, Vec<SegmentInfo>) {
    let disk = SimDisk::new(3);
    let mut log = open(&disk, Open::NewLife(life(1)));
    append_many(&mut log.writer, 140, 300);
    let segments = log.reader.segments();
    assert_eq!(segments.len(), 4);
    for hurt in which {
        disk.flip_bit(&segments[*hurt].path, 33, 0);
        disk.flip_bit(&segments[*hurt].path, 2048 + 33, 0);
    }
    (disk.crash(Survival::All), segments)
}

#[test]
fn damage_that_no_reader_meets_is_told_at_every_open() {
    for which in [&[0][..], &[3], &[0, 1], &[2, 3], &[0, 3], &[0, 1, 2, 3]] {
        let (disk, segments) = headless(which);
        let first = open(&disk, Open::NewLife(life(2))).recovery;
        let unmet: Vec<_> = first.unmet().cloned().collect();
        assert_eq!(unmet.len(), which.len());
        for (damage, hurt) in unmet.iter().zip(which) {
            let segment = &segments[*hurt];
            let end = match hurt {
                3 => segment.first,
                _ => segment.end,
            };
            assert_eq!(
                (damage.life, &damage.numbers),
                (life(1), &(segment.first..end))
            );
            assert_eq!((damage.offset, damage.bytes), (0, segment.bytes));
        }
        // Whoever was told may have ended before anybody declared it.
        for later in [disk.kill(), disk.crash(Survival::Nothing)] {
            for id in 3..6 {
                let log = open(&later, Open::NewLife(life(id)));
                let again: Vec<_> = log.recovery.unmet().cloned().collect();
                assert_eq!(again, unmet);
            }
        }
    }
}

#[test]
fn damage_that_readers_meet_is_not_told_again_when_it_is_trimmed() {
    let (disk, segments) = headless(&[1, 2]);
    let log = open(&disk, Open::NewLife(life(2)));
    assert_eq!(log.recovery.unmet().count(), 0);
    let numbers: Vec<_> = log
        .recovery
        .damage
        .iter()
        .map(|d| d.numbers.clone())
        .collect();
    let expected = [
        segments[1].first..segments[1].end,
        segments[2].first..segments[2].end,
    ];
    assert_eq!(numbers, expected);
    let (good, bad) = read_around(&log.reader, life(1));
    assert_eq!(
        bad,
        (expected[0].start..expected[1].end).collect::<Vec<_>>()
    );
    assert_eq!(good.len() + bad.len(), 140);
    log.reader.trim(life(1), 140).unwrap();
    let log = open(&disk, Open::NewLife(life(3)));
    assert_eq!(log.recovery.damage, []);
}

#[test]
fn a_name_without_a_header_says_where_the_segment_before_it_ends() {
    let disk = SimDisk::new(3);
    let mut log = open(&disk, Open::NewLife(life(1)));
    append_many(&mut log.writer, 5, 300);
    // A frame that was refused, whole in its segment, and another one with its number behind it.
    disk.fail_syncs(2);
    let refused = frame(&[b"refused, and never to be seen"]);
    assert!(log.writer.append(&refused).is_err());
    disk.fail_syncs(0);
    append_many(&mut log.writer, 5, 300);
    let segments = log.reader.segments();
    assert_eq!((segments.len(), segments[1].first), (2, 5));
    disk.flip_bit(&segments[1].path, 33, 0);
    disk.flip_bit(&segments[1].path, 2048 + 33, 0);
    // The last frame before it is damaged: that one was durable is what the name proves.
    disk.flip_bit(&segments[0].path, FRAMES_AT + 4 * FRAME + 99, 0);
    let log = open(&disk.kill(), Open::NewLife(life(2)));
    assert_eq!(
        read_around(&log.reader, life(1)),
        (vec![0, 1, 2, 3], vec![4])
    );
    assert_eq!(log.recovery.unmet().next().unwrap().numbers, 5..5);
}

#[test]
fn a_failed_sync_moves_the_frame_with_its_number_and_nothing_is_doubled() {
    for survival in [Survival::Nothing, Survival::RandomHalf(5), Survival::All] {
        for before in [0, 1, 5] {
            let disk = SimDisk::new(3);
            let mut log = open(&disk, Open::NewLife(life(1)));
            append_many(&mut log.writer, before, 300);
            disk.fail_next_sync();
            append_many(&mut log.writer, 1, 300);
            append_many(&mut log.writer, 3, 300);
            let log = open(&disk.crash(survival), Open::NewLife(life(2)));
            assert_numbered(&read_all(&log.reader, life(1), 0, 999), 0, before + 4);
            assert!(log.recovery.damage.is_empty());
        }
    }
}

/// A frame that does not fit has a segment begun, whose name could not be made durable; one that
/// would still fit into the segment before goes into none that readers and recovery end there.
#[test]
fn behind_a_segment_whose_name_failed_nothing_is_written_to_the_one_before() {
    for times in 1..6 {
        let disk = SimDisk::new(3);
        let mut log = open(&disk, Open::NewLife(life(1)));
        let (small, large) = (frame(&[&[1; 40]]), frame(&[&[2; 3_000]]));
        // What is left takes small ones, and no large one.
        let mut held = (SEGMENT - FRAMES_AT - 3_000) / 72 + 1;
        for _ in 0..held {
            log.writer.append(&small).unwrap();
        }
        assert_eq!(log.reader.segments().len(), 1);
        disk.fail_dir_syncs(times);
        held += u64::from(log.writer.append(&large).is_ok());
        for _ in 0..6 {
            held += u64::from(log.writer.append(&small).is_ok());
            let mut out = Vec::new();
            log.reader.read(life(1), 0, 1 << 20, &mut out).unwrap();
            assert_eq!(out.len() as u64, held, "{times}");
        }
        let log = open(&disk.crash(Survival::All), Open::NewLife(life(2)));
        let mut out = Vec::new();
        log.reader.read(life(1), 0, 1 << 20, &mut out).unwrap();
        assert_eq!(out.len() as u64, held, "{times}");
    }
}

#[test]
fn when_the_new_segment_fails_too_nothing_counts_until_it_is_appended_again() {
    for survival in [Survival::Nothing, Survival::RandomHalf(9), Survival::All] {
        let disk = SimDisk::new(3);
        let mut log = open(&disk, Open::NewLife(life(1)));
        append_many(&mut log.writer, 2, 300);
        for _ in 0..5 {
            disk.fail_syncs(2);
            let refused = log
                .writer
                .append(&frame(&[b"refused, and never to be seen"]));
            assert!(matches!(refused, Err(LogError::Io { .. })));
            assert_eq!(log.reader.end(life(1)), Some(2), "readers do not see it");
        }
        disk.fail_syncs(0);
        append_many(&mut log.writer, 2, 300);
        let log = open(&disk.crash(survival), Open::NewLife(life(2)));
        assert_numbered(&read_all(&log.reader, life(1), 0, 999), 0, 4);
    }
}

#[test]
fn a_segment_that_failed_is_never_written_again() {
    let disk = SimDisk::new(3);
    let mut log = open(&disk, Open::NewLife(life(1)));
    append_many(&mut log.writer, 2, 300);
    disk.fail_next_sync();
    append_many(&mut log.writer, 1, 300);
    disk.set_full(true);
    let mut next = 3;
    while log.writer.append(&frame(&[&entry(next, 300)])).is_ok() {
        next += 1;
    }
    log.writer
        .append_reserved(&frame(&[&entry(next, 300)]))
        .unwrap();
    let spares = || {
        let names = disk.list(dir()).unwrap();
        names.iter().filter(|name| name.ends_with(".spare")).count()
    };
    let segments = log.reader.segments();
    assert_eq!((spares(), segments[1].first), (0, 2));
    log.reader.trim(life(1), 2).unwrap();
    assert_eq!(spares(), 0, "the failed segment is removed");
    log.reader.trim(life(1), segments[2].first).unwrap();
    assert_eq!(spares(), 1, "the next one is recycled");
}

/// Bytes of segments and spares that are there.
fn bytes_there(disk: &SimDisk) -> u64 {
    let names = disk.list(dir()).unwrap();
    let bytes = |name: &String| disk.contents(&dir().join(name)).unwrap().len() as u64;
    names.iter().map(bytes).sum()
}

#[test]
fn a_trim_whose_names_could_not_be_synced_loses_no_room() {
    for full in [false, true] {
        let disk = SimDisk::new(3);
        let mut log = open(&disk, Open::NewLife(life(1)));
        append_many(&mut log.writer, 120, 300);
        if full {
            // The last segment allowed is in use: what is trimmed is recycled.
            disk.set_full(true);
            while log.writer.append(&frame(&[&[7; 300]])).is_ok() {}
            log.writer.append_reserved(&frame(&[&[7; 300]])).unwrap();
        }
        let below = |place: usize| log.reader.segments()[place].first;
        let (second, third) = (below(1), below(2));
        disk.fail_dir_syncs(3);
        for _ in 0..3 {
            let failed = log.reader.trim(life(1), second);
            assert!(matches!(failed, Err(LogError::Io { .. })));
            assert_eq!(log.writer.bytes(), bytes_there(&disk));
        }
        log.reader.trim(life(1), second).unwrap();
        assert_eq!(log.writer.bytes(), bytes_there(&disk));
        log.reader.trim(life(1), third).unwrap();
        assert_eq!(log.writer.bytes(), bytes_there(&disk));
        if full {
            // What was recycled is written again, and nothing of before comes back.
            let next = log.writer.next_number();
            while log.writer.append_reserved(&frame(&[&[8; 300]])).is_ok() {}
            assert!(log.writer.next_number() > next + 20);
            let end = log.writer.next_number();
            let log = open(&disk.crash(Survival::Nothing), Open::NewLife(life(2)));
            assert_eq!(
                (log.recovery.lives[0].first, log.recovery.lives[0].end),
                (third, end)
            );
        }
    }
}

#[test]
fn what_a_failed_trim_recycled_is_written_without_another_trim() {
    let disk = SimDisk::new(3);
    let mut log = open(&disk, Open::NewLife(life(1)));
    append_many(&mut log.writer, 120, 300);
    disk.set_full(true);
    while log.writer.append_reserved(&frame(&[&[7; 300]])).is_ok() {}
    disk.fail_dir_syncs(1);
    let below = log.reader.segments()[1].first;
    assert!(log.reader.trim(life(1), below).is_err());
    log.writer.append_reserved(&frame(&[&[8; 300]])).unwrap();
    assert_eq!(log.writer.bytes(), bytes_there(&disk));
}

#[test]
fn a_trim_after_one_that_failed_leaves_no_hole() {
    for operations in 0..6 {
        for seed in 0..16 {
            let disk = SimDisk::new(3);
            let mut log = open(&disk, Open::NewLife(life(1)));
            append_many(&mut log.writer, 200, 300);
            let segments = log.reader.segments();
            disk.fail_dir_syncs(1);
            assert!(log.reader.trim(life(1), segments[1].first).is_err());
            disk.power_off_after(operations);
            let _ = log.reader.trim(life(1), segments[3].first);
            let disk = disk.crash(Survival::RandomHalf(seed));
            let log = open(&disk, Open::NewLife(life(2)));
            let first = log.recovery.lives[0].first;
            assert_numbered(&read_all(&log.reader, life(1), first, 9999), first, 200);
        }
    }
}

/// Fills a life with frames of one size, trims it, and lets the next life use its blocks again.
#[test]
fn recycled_segments_never_bring_back_old_frames() {
    for crash_after in 0..40 {
        for survival in [
            Survival::Nothing,
            Survival::RandomHalf(crash_after),
            Survival::All,
        ] {
            let disk = SimDisk::new(crash_after);
            let mut log = open(&disk, Open::NewLife(life(1)));
            append_many(&mut log.writer, 80, 300);
            // Without room the writer takes what trimming hands it.
            disk.set_full(true);
            let fill = |writer: &mut LogWriter| loop {
                let next = writer.next_number();
                if writer.append(&frame(&[&entry(next, 300)])).is_err() {
                    break;
                }
            };
            fill(&mut log.writer);
            let next = log.writer.next_number();
            log.writer
                .append_reserved(&frame(&[&entry(next, 300)]))
                .unwrap();
            let end = log.writer.next_number();
            let names = |disk: &SimDisk| disk.list(dir()).unwrap();
            let before = names(&disk);
            log.reader.trim(life(1), end).unwrap();
            assert!(
                names(&disk).iter().any(|name| name.ends_with(".spare")),
                "{before:?}"
            );
            drop(log);
            // A new life, with frames of the same size at the same places.
            let mut log = open(&disk, Open::NewLife(life(2)));
            disk.power_off_after(crash_after);
            let mut acked = 0;
            while log
                .writer
                .append_reserved(&frame(&[&entry(acked, 300)]))
                .is_ok()
            {
                acked += 1;
            }
            let disk = disk.crash(survival);
            let log = open(&disk, Open::NewLife(life(3)));
            let end = log.reader.end(life(2)).unwrap_or(0);
            assert!(end == acked || end == acked + 1, "{end} of {acked}");
            if end > 0 {
                assert_numbered(&read_all(&log.reader, life(2), 0, 999), 0, end);
            }
        }
    }
}

#[test]
fn a_frame_of_another_segment_is_void_however_valid() {
    let (disk, path) = twenty();
    let bytes = disk.contents(&path).unwrap();
    let mut log = open(&disk, Open::NewLife(life(2)));
    append_many(&mut log.writer, 3, 300);
    let target = newest(&log.reader).path;
    // Old frames stand exactly where the next ones of this segment would.
    let mut forged = disk.contents(&target).unwrap();
    let from = (FRAMES_AT + 3 * FRAME) as usize;
    let until = (FRAMES_AT + 20 * FRAME) as usize;
    forged[from..until].copy_from_slice(&bytes[from..until]);
    disk.put(&target, &forged);
    let log = open(&disk, Open::NewLife(life(3)));
    assert_eq!(log.reader.end(life(2)), Some(3));
    assert!(log.recovery.damage.is_empty());
}

/// A hundred thousand mutations of good bytes: opening and reading never panic, never give an
/// entry that was not written, and never refuse for damage.
#[test]
fn recovery_is_total_on_arbitrary_bytes() {
    let config = LogConfig {
        segment_bytes: 8192,
        ..config()
    };
    let disk = SimDisk::new(3);
    let mut log = try_open(&disk, config, Open::NewLife(life(1))).unwrap();
    append_many(&mut log.writer, 20, 100);
    let path = newest(&log.reader).path;
    let good = disk.contents(&path).unwrap();
    let mut random = Random::new(0x7219_5eed);
    let disk = SimDisk::new(1);
    for round in 0..100_000_u32 {
        let mut bytes = good.clone();
        mutate(&mut bytes, &mut random);
        disk.put(&path, &bytes);
        match try_open(&disk, config, Open::SameLife { if_empty: life(1) }) {
            Ok(log) => read_whatever(&log.reader),
            Err(LogError::NewerVersion { .. } | LogError::Foreign { .. }) => {}
            Err(error) => panic!("round {round}: {error}"),
        }
        if round % 32 == 0 {
            clean(&disk, &dir().join("quarantine"));
        }
        clean(&disk, dir());
    }
}

/// Whatever comes back was written once.
fn read_whatever(reader: &LogReader) {
    let span = reader.lives()[0];
    let mut out = Vec::new();
    let _ = reader.read(life(1), span.first, 1 << 20, &mut out);
    for entry in out {
        assert_eq!(entry.bytes[..8], entry.number.to_le_bytes());
    }
}

fn clean(disk: &SimDisk, dir: &Path) {
    for name in disk.list(dir).unwrap_or_default() {
        disk.remove(&dir.join(name)).unwrap();
    }
    disk.sync_dir(dir).unwrap();
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let used = FRAMES_AT + 21 * 128;
    for _ in 0..=random.below(4) {
        let at = random.below(used) as usize;
        let span = random.below(600) as usize;
        if at >= bytes.len() {
            continue;
        }
        let end = (at + span).min(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at..end].fill(0),
            3 => bytes[at..end]
                .iter_mut()
                .for_each(|byte| *byte = random.next() as u8),
            4 => bytes.truncate(at),
            _ => {
                let from = random.below(bytes.len() as u64) as usize;
                let span = span.min(bytes.len() - from).min(bytes.len() - at);
                bytes.copy_within(from..from + span, at);
            }
        }
    }
}
