//! The log when nothing breaks, and when it is full.

use crate::small_log::*;
use std::path::Path;
use std::sync::Arc;
use tributary_journal::{
    DirLock, Disk, Entry, Log, LogConfig, LogError, LogKind, LogReader, Open, OsDisk, SimDisk,
    Survival,
};

#[test]
fn what_is_appended_is_read_back_from_anywhere() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk, Open::NewLife(life(1)));
    append_many(&mut log.writer, 200, 700);
    assert!(log.reader.segments().len() > 8);
    for from in [0, 1, 22, 23, 100, 199] {
        for max_bytes in [1, 1000, 1 << 20] {
            let entries = read_all(&log.reader.clone(), life(1), from, max_bytes);
            assert_numbered(&entries, from, 200);
        }
    }
    let mut out = Vec::new();
    log.reader.read(life(1), 5, 1500, &mut out).unwrap();
    assert_eq!(out.len(), 3, "as many as make up 1,500 bytes");
    log.reader.read(life(1), 200, 1500, &mut out).unwrap();
    log.reader.read(life(1), 500, 1500, &mut out).unwrap();
    assert_eq!(out.len(), 3, "nothing is at the end or beyond");
}

#[test]
fn entries_of_one_frame_are_numbered_on_and_may_be_read_in_parts() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk, Open::NewLife(life(1)));
    for at in 0..20_u64 {
        let entries: Vec<Vec<u8>> = (0..7).map(|i| entry(at * 7 + i, 50)).collect();
        let parts: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        assert_eq!(log.writer.append(&frame(&parts)).unwrap().first, at * 7);
    }
    assert_numbered(&read_all(&log.reader, life(1), 0, 120), 0, 140);
    assert_numbered(&read_all(&log.reader, life(1), 45, 1), 45, 140);
}

#[test]
fn one_append_is_one_write_and_one_sync() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk, Open::NewLife(life(1)));
    append_many(&mut log.writer, 1, 100);
    let before = disk.counts();
    append_many(&mut log.writer, 10, 100);
    let after = disk.counts();
    assert_eq!(
        (after.writes - before.writes, after.syncs - before.syncs),
        (10, 10)
    );
    assert_eq!(after.operations - before.operations, 20, "and nothing else");
}

#[test]
fn a_new_life_starts_at_zero_and_older_ones_stay_readable() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk, Open::NewLife(life(1)));
    append_many(&mut log.writer, 5, 100);
    let mut log = open(&disk, Open::NewLife(life(2)));
    assert_eq!(log.writer.next_number(), 0);
    append_many(&mut log.writer, 3, 100);
    let spans: Vec<_> = log
        .reader
        .lives()
        .iter()
        .map(|s| (s.life, s.first, s.end))
        .collect();
    assert_eq!(spans, [(life(1), 0, 5), (life(2), 0, 3)]);
    assert_numbered(&read_all(&log.reader, life(1), 0, 999), 0, 5);
    let again = try_open(&disk, config(), Open::NewLife(life(1)));
    assert!(matches!(again, Err(LogError::LifeExists { .. })));
}

#[test]
fn a_life_without_entries_leaves_nothing_behind() {
    let disk = SimDisk::new(1);
    for n in 1..50 {
        open(&disk, Open::NewLife(life(n)));
    }
    assert_eq!(disk.list(dir()).unwrap().len(), 1, "one spare segment");
}

#[test]
fn the_same_life_goes_on_numbering_even_when_all_is_trimmed() {
    let disk = SimDisk::new(1);
    let same = Open::SameLife { if_empty: life(9) };
    let mut log = open(&disk, same);
    append_many(&mut log.writer, 60, 700);
    log.reader.trim(life(9), 60).unwrap();
    let mut end = 60;
    for _ in 0..3 {
        let mut log = open(
            &disk.crash(Survival::All),
            Open::SameLife { if_empty: life(1) },
        );
        assert_eq!(
            (log.writer.life(), log.writer.next_number()),
            (life(9), end)
        );
        log.reader.trim(life(9), end).unwrap();
        let disk = disk.crash(Survival::Nothing);
        let reopened = open(&disk, same);
        assert_eq!(
            reopened.writer.next_number(),
            end,
            "trimming must not forget the life"
        );
        drop(reopened);
        append_many(&mut log.writer, 0, 1);
        end += 0;
    }
}

#[test]
fn trimming_frees_whole_segments_of_that_life_alone() {
    let disk = SimDisk::new(1);
    let mut old = open(&disk, Open::NewLife(life(1)));
    append_many(&mut old.writer, 100, 700);
    let mut log = open(&disk, Open::NewLife(life(2)));
    append_many(&mut log.writer, 100, 700);
    let segments = log.reader.segments();
    let cut = segments
        .iter()
        .filter(|s| s.life == life(2))
        .nth(2)
        .unwrap()
        .first;
    let freed = log.reader.trim(life(2), cut + 1).unwrap();
    assert_eq!(freed, 2 * SEGMENT);
    assert_eq!(log.reader.lives()[1].first, cut);
    assert_numbered(&read_all(&log.reader, life(1), 0, 9999), 0, 100);
    let gone = log.reader.read(life(2), 0, 1, &mut Vec::new());
    assert!(matches!(gone, Err(LogError::Trimmed { first, .. }) if first == cut));
    log.reader.trim(life(1), 100).unwrap();
    assert_eq!(log.reader.lives().len(), 1);
    log.reader.trim(life(2), 100).unwrap();
    assert!(
        log.writer.bytes() <= 2 * SEGMENT,
        "drained: {} bytes",
        log.writer.bytes()
    );
    assert_eq!(disk.list(dir()).unwrap().len(), 2);
}

#[test]
fn the_quota_holds_and_keeps_one_segment_for_gaps() {
    let disk = SimDisk::new(1);
    let config = LogConfig {
        quota_bytes: 4 * SEGMENT,
        ..config()
    };
    let mut log = try_open(&disk, config, Open::NewLife(life(1))).unwrap();
    let entry_frame = |n| frame(&[&entry(n, 4000)]);
    let full = loop {
        let next = log.writer.next_number();
        match log.writer.append(&entry_frame(next)) {
            Ok(_) => assert!(log.writer.bytes() <= config.quota_bytes),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(full, LogError::Full { .. }) && full.is_full(),
        "{full}"
    );
    let end = log.writer.next_number();
    let before = disk.counts();
    assert!(log.writer.append(&entry_frame(end)).is_err());
    assert_eq!(disk.counts(), before, "nothing is written when it is full");
    // The gap record comes first, in room that is there; then its segments go.
    log.writer.append_reserved(&entry_frame(end)).unwrap();
    assert!(log.writer.bytes() <= config.quota_bytes);
    let second = log.reader.segments()[1].first;
    log.reader.trim(life(1), second).unwrap();
    append_many(&mut log.writer, 2, 4000);
    assert_numbered(
        &read_all(&log.reader, life(1), second, 1 << 20),
        second,
        end + 3,
    );
}

#[test]
fn a_full_disk_stops_rolling_but_not_trimming_or_opening() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk, Open::NewLife(life(1)));
    append_many(&mut log.writer, 30, 4000);
    disk.set_full(true);
    let full = loop {
        let next = log.writer.next_number();
        if let Err(error) = log.writer.append(&frame(&[&entry(next, 4000)])) {
            break error;
        }
    };
    assert!(matches!(full, LogError::NoSpace { .. }), "{full}");
    let end = log.writer.next_number();
    let disk = disk.crash(Survival::Nothing);
    disk.set_full(true);
    let mut log = open(&disk, Open::NewLife(life(2)));
    assert_numbered(&read_all(&log.reader, life(1), 0, 1 << 20), 0, end);
    assert!(log.writer.append(&frame(&[b"x"])).unwrap_err().is_full());
    log.writer
        .append_reserved(&frame(&[&entry(0, 4000)]))
        .unwrap();
    // Trimming hands its first segment to the writer: no new block is needed.
    log.reader.trim(life(1), end).unwrap();
    append_many_reserved(&mut log.writer, 4);
    assert_numbered(&read_all(&log.reader, life(2), 0, 1 << 20), 0, 5);
    disk.set_full(false);
    append_many(&mut log.writer, 30, 4000);
}

#[test]
fn a_log_goes_on_in_its_own_blocks_while_others_take_every_free_one() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk, Open::NewLife(life(1)));
    append_many(&mut log.writer, 30, 4000);
    disk.set_full(true);
    let mut trimmed = 0;
    for _ in 0..100 {
        let next = log.writer.next_number();
        let appended = log.writer.append(&frame(&[&entry(next, 4000)]));
        assert_eq!(log.reader.is_short(), appended.is_err());
        if appended.is_err() {
            // What is trimmed is kept, also beyond the one spare that there was: the disk would
            // not give it back.
            let oldest = log.reader.segments().remove(0);
            trimmed += 1;
            assert_eq!(log.reader.trim(life(1), oldest.end).unwrap(), 0);
        }
    }
    assert!(trimmed > 20, "{trimmed} segments were trimmed");
    assert!(!log.writer.can_roll() || !log.reader.is_short());
    disk.set_full(false);
    append_many(&mut log.writer, 30, 4000);
}

#[test]
fn segments_are_prepared_ahead_and_given_back() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk, Open::NewLife(life(1)));
    log.writer.prepare(9).unwrap();
    assert_eq!(log.writer.bytes(), 2 * SEGMENT);
    disk.set_full(true);
    assert!(log.writer.can_roll());
    assert!(log.writer.give_back());
    assert!(!log.writer.give_back(), "one is always kept");
    assert!(log.writer.append(&frame(&[b"x"])).unwrap_err().is_full());
}

fn append_many_reserved(writer: &mut tributary_journal::LogWriter, count: u64) {
    for _ in 0..count {
        let next = writer.next_number();
        writer
            .append_reserved(&frame(&[&entry(next, 4000)]))
            .unwrap();
    }
}

#[test]
fn the_reserve_of_free_space_is_left_alone() {
    let disk = SimDisk::new(1);
    let config = LogConfig {
        reserve_bytes: 1 << 20,
        ..config()
    };
    disk.set_free_bytes((1 << 20) + SEGMENT - 1);
    let mut log = try_open(&disk, config, Open::NewLife(life(1))).unwrap();
    let full = log.writer.append(&frame(&[b"x"])).unwrap_err();
    assert!(matches!(full, LogError::NoSpace { .. }));
    disk.set_free_bytes(1 << 30);
    log.writer.append(&frame(&[b"x"])).unwrap();
}

#[test]
fn wrong_configurations_and_foreign_segments_are_refused() {
    let disk = SimDisk::new(1);
    let small = LogConfig {
        segment_bytes: 100,
        ..config()
    };
    let how = Open::NewLife(life(1));
    assert!(matches!(
        try_open(&disk, small, how),
        Err(LogError::SegmentBytes { .. })
    ));
    let tight = LogConfig {
        quota_bytes: SEGMENT,
        ..config()
    };
    assert!(matches!(
        try_open(&disk, tight, how),
        Err(LogError::QuotaBytes { .. })
    ));
    let mut log = open(&disk, how);
    append_many(&mut log.writer, 1, 10);
    assert!(matches!(
        log.writer.append(&frame(&[])),
        Err(LogError::FrameEmpty)
    ));
    let large = frame(&[&[0; SEGMENT as usize]]);
    assert!(matches!(
        log.writer.append(&large),
        Err(LogError::FrameBytes { .. })
    ));
    let wal = LogConfig {
        kind: LogKind::Wal,
        ..config()
    };
    let foreign = try_open(&disk, wal, Open::NewLife(life(2)));
    assert!(matches!(foreign, Err(LogError::Foreign { kind: 2, .. })));
}

#[test]
fn opening_reads_headers_and_one_segment() {
    let disk = SimDisk::new(1);
    let config = LogConfig {
        quota_bytes: 200 * SEGMENT,
        ..config()
    };
    let mut log = try_open(&disk, config, Open::NewLife(life(1))).unwrap();
    while log.reader.segments().len() < 128 {
        append_many(&mut log.writer, 1, 4000);
    }
    let disk = disk.crash(Survival::All);
    let before = disk.counts().bytes_read;
    try_open(&disk, config, Open::NewLife(life(2))).unwrap();
    let read = disk.counts().bytes_read - before;
    assert!(
        read <= 128 * 4096 + 2 * SEGMENT,
        "{read} bytes read at open"
    );
}

#[test]
fn a_reader_on_another_thread_sees_only_what_is_durable() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk, Open::NewLife(life(1)));
    let reader = log.reader.clone();
    let tail = std::thread::spawn(move || {
        let mut out: Vec<Entry> = Vec::new();
        while out.len() < 500 {
            reader
                .read(life(1), out.len() as u64, 3000, &mut out)
                .unwrap();
            std::thread::yield_now();
        }
        out
    });
    append_many(&mut log.writer, 500, 300);
    assert_numbered(&tail.join().unwrap(), 0, 500);
}

#[test]
fn real_files_keep_what_was_appended() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("a/b/spool");
    let config = LogConfig {
        segment_bytes: 1 << 20,
        quota_bytes: 1 << 26,
        ..config()
    };
    let open = |how| Log::open(Arc::new(OsDisk), &dir, config, how).unwrap();
    let mut log = open(Open::NewLife(life(1)));
    append_many(&mut log.writer, 60, 50_000);
    let segment = log.reader.segments()[0].clone();
    assert_eq!(std::fs::metadata(&segment.path).unwrap().len(), 1 << 20);
    drop(log);
    let mut log = open(Open::NewLife(life(2)));
    assert_eq!(log.recovery.lives[0].end, 60);
    assert_eq!((log.recovery.torn_bytes, log.recovery.damage.len()), (0, 0));
    assert_numbered(&read_all(&log.reader, life(1), 0, 1 << 20), 0, 60);
    append_many(&mut log.writer, 1, 10);
    assert!(log.reader.trim(life(1), 60).unwrap() > 2 << 20);
    assert_eq!(
        std::fs::read_dir(&dir).unwrap().count(),
        2,
        "the active and a spare segment"
    );
    assert!(OsDisk.free_bytes(&dir).unwrap() > 0);
    assert!(OsDisk.create(&dir.join("x"), 10).is_ok());
    assert!(
        OsDisk.create(&dir.join("x"), 10).is_err(),
        "a file is never overwritten"
    );
}

#[test]
fn a_directory_has_one_owner() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let lock = DirLock::acquire(&dir).unwrap();
    let error = DirLock::acquire(&dir).unwrap_err().to_string();
    let pid = std::process::id().to_string();
    assert!(
        error.contains("another process") && error.contains(&pid),
        "{error}"
    );
    drop(lock);
    DirLock::acquire(&dir).unwrap();
}

#[test]
fn readers_can_be_sent_and_estimates_shrink_with_reading() {
    fn sendable<T: Send + Sync>(_: &T) {}
    let disk = SimDisk::new(1);
    let mut log = open(&disk, Open::NewLife(life(1)));
    append_many(&mut log.writer, 100, 1000);
    let reader: &LogReader = &log.reader;
    sendable(reader);
    let all = reader.bytes_from(life(1), 0);
    let half = reader.bytes_from(life(1), 50);
    assert!(
        all >= 100_000 && half > all / 3 && half < all * 2 / 3,
        "{all} {half}"
    );
    assert_eq!(reader.bytes_from(life(1), 100), 0);
    assert_eq!(reader.end(life(1)), Some(100));
    assert_eq!(reader.end(life(2)), None);
    assert!(
        Path::new(DIR)
            .join(reader.segments()[0].path.file_name().unwrap())
            .starts_with(DIR)
    );
}
