//! Cursor slots: the last value written, whatever happens.

use std::path::Path;
use std::sync::Arc;
use tributary_journal::{Cursor, CursorError, Disk, OsDisk, SimDisk, Survival};

const PATH: &str = "/data/cursor";

fn open(disk: &SimDisk) -> (Cursor, Option<Vec<u8>>) {
    Cursor::open(Arc::new(disk.clone()), Path::new(PATH)).unwrap()
}

fn value(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(1 + n as usize % 400)
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_last_value_or_the_one_in_flight() {
    for survival in [Survival::Nothing, Survival::RandomHalf(3), Survival::All] {
        for operations in 0..40 {
            let disk = SimDisk::new(1);
            disk.power_off_after(operations);
            let mut written = 0;
            if let Ok((mut cursor, None)) = Cursor::open(Arc::new(disk.clone()), Path::new(PATH)) {
                while cursor.write(&value(written + 1)).is_ok() {
                    written += 1;
                }
            }
            let found = open(&disk.crash(survival)).1;
            let before = (written > 0).then(|| value(written));
            let possible = found == before || found == Some(value(written + 1));
            assert!(possible, "after {operations} operations, {written} written");
        }
    }
}

#[test]
fn values_alternate_between_slots_and_damage_to_one_gives_the_other() {
    let disk = SimDisk::new(1);
    let (mut cursor, none) = open(&disk);
    assert_eq!(none, None);
    for n in 1..=7 {
        cursor.write(&value(n)).unwrap();
    }
    assert_eq!(open(&disk).1, Some(value(7)));
    // The seventh value stands in slot 1.
    disk.flip_bit(Path::new(PATH), 4096 + 30, 2);
    let (mut cursor, found) = open(&disk);
    assert_eq!(found, Some(value(6)));
    assert!(cursor.damaged());
    cursor.write(&value(8)).unwrap();
    assert_eq!(open(&disk.crash(Survival::Nothing)).1, Some(value(8)));
}

#[test]
fn a_full_disk_does_not_stop_it() {
    let disk = SimDisk::new(1);
    let (mut cursor, _) = open(&disk);
    disk.set_full(true);
    for n in 1..50 {
        cursor.write(&value(n)).unwrap();
        assert_eq!(open(&disk.crash_copy()).1, Some(value(n)));
    }
    let before = disk.counts();
    cursor.write(b"x").unwrap();
    let after = disk.counts();
    assert_eq!(
        (after.writes - before.writes, after.syncs - before.syncs),
        (1, 1)
    );
}

/// A look at what a power cut would leave, without one.
trait CrashCopy {
    fn crash_copy(&self) -> SimDisk;
}

impl CrashCopy for SimDisk {
    fn crash_copy(&self) -> SimDisk {
        let copy = SimDisk::new(0);
        copy.put(Path::new(PATH), &self.contents(Path::new(PATH)).unwrap());
        copy
    }
}

#[test]
fn a_failed_sync_replaces_the_file_and_the_failed_value_never_wins() {
    for survival in [Survival::Nothing, Survival::RandomHalf(4), Survival::All] {
        let disk = SimDisk::new(1);
        let (mut cursor, _) = open(&disk);
        cursor.write(&value(1)).unwrap();
        disk.fail_next_sync();
        cursor.write(&value(2)).unwrap();
        disk.fail_syncs(2);
        assert!(matches!(
            cursor.write(&value(3)),
            Err(CursorError::Io { .. })
        ));
        let before = disk.counts().operations;
        cursor.write(&value(4)).unwrap();
        let operations = disk.counts().operations - before;
        assert!(operations >= 5, "a new file: {operations} operations");
        assert_eq!(open(&disk.crash(survival)).1, Some(value(4)));
    }
}

#[test]
fn a_sync_that_fails_on_a_full_disk_finds_a_file_ready() {
    let disk = SimDisk::new(1);
    let (mut cursor, _) = open(&disk);
    cursor.write(&value(1)).unwrap();
    disk.set_full(true);
    disk.fail_next_sync();
    cursor.write(&value(2)).unwrap();
    assert_eq!(open(&disk.crash_copy()).1, Some(value(2)));
    // The file that lay ready is in use; the next one needs blocks.
    disk.fail_next_sync();
    assert!(cursor.write(&value(3)).is_err());
    disk.set_full(false);
    cursor.write(&value(4)).unwrap();
    disk.set_full(true);
    disk.fail_next_sync();
    cursor.write(&value(5)).unwrap();
    assert_eq!(open(&disk.crash(Survival::Nothing)).1, Some(value(5)));
}

#[test]
fn a_file_that_took_the_place_of_another_holds_its_value_twice() {
    for slot in [0, 1] {
        let disk = SimDisk::new(1);
        let (mut cursor, _) = open(&disk);
        cursor.write(&value(1)).unwrap();
        disk.fail_next_sync();
        cursor.write(&value(2)).unwrap();
        disk.flip_bit(Path::new(PATH), slot * 4096 + 30, 2);
        assert_eq!(open(&disk).1, Some(value(2)));
    }
}

#[test]
fn slots_keep_the_size_they_were_made_with() {
    let disk = SimDisk::new(1);
    let open = |bytes| Cursor::open_sized(Arc::new(disk.clone()), Path::new(PATH), bytes);
    let (mut cursor, _) = open(64 * 1024).unwrap();
    let large = vec![7; 64 * 1024 - 24];
    cursor.write(&large).unwrap();
    let (mut cursor, found) = open(4096).unwrap();
    assert_eq!(found, Some(large.clone()));
    cursor.write(&large).unwrap();
    let too_long = [large, vec![0]].concat();
    assert!(matches!(
        cursor.write(&too_long),
        Err(CursorError::TooLong { .. })
    ));
    for wrong in [0, 100, 4097, 2 << 20] {
        assert!(
            matches!(open(wrong), Err(CursorError::SlotBytes(_))),
            "{wrong}"
        );
    }
}

#[test]
fn any_bytes_are_opened() {
    let mut random = crate::log_damage::Random::new(11);
    let good = SimDisk::new(1);
    let (mut cursor, _) = open(&good);
    cursor.write(&value(1)).unwrap();
    cursor.write(&value(2)).unwrap();
    let bytes = good.contents(Path::new(PATH)).unwrap();
    let disk = SimDisk::new(1);
    for _ in 0..5000 {
        let mut bytes = bytes.clone();
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            let end = (at + random.below(5000) as usize).min(bytes.len());
            bytes[at..end]
                .iter_mut()
                .for_each(|byte| *byte = random.next() as u8);
        }
        if random.below(3) == 0 {
            bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
        }
        disk.put(Path::new(PATH), &bytes);
        let (mut cursor, found) = open(&disk);
        assert!(found.is_none_or(|found| found == value(1) || found == value(2)));
        cursor.write(&value(3)).unwrap();
        assert_eq!(open(&disk).1, Some(value(3)));
    }
}

#[test]
fn real_files_work() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("state/cursor");
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    for n in 1..10 {
        let (mut cursor, found) = Cursor::open(Arc::clone(&disk), &path).unwrap();
        assert_eq!(found, (n > 1).then(|| value(n - 1)));
        cursor.write(&value(n)).unwrap();
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 8192);
}
