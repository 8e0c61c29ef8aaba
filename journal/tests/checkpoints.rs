//! Checkpoints: always a whole one, and the last two valid ones.

use std::path::Path;
use std::sync::Arc;
use tributary_journal::{CheckpointError, Checkpoints, Disk, OsDisk, SimDisk, Survival};

const DIR: &str = "/data/checkpoints";

fn open(disk: &SimDisk) -> Checkpoints {
    Checkpoints::open(Arc::new(disk.clone()), Path::new(DIR), "ledger").unwrap()
}

fn body(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(1000 * n as usize + 1)
}

/// How many checkpoints there are, and how many other files.
fn files(disk: &SimDisk) -> (usize, usize) {
    let names = disk.list(Path::new(DIR)).unwrap();
    let checkpoints = names.iter().filter(|name| name.ends_with(".ckpt")).count();
    (checkpoints, names.len() - checkpoints)
}

/// Which bodies are there, newest first.
fn found(disk: &SimDisk) -> Vec<u64> {
    let checkpoints = open(disk);
    let all = checkpoints.valid();
    assert_eq!(checkpoints.newest(), all.first().cloned());
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap());
    all.iter()
        .for_each(|checkpoint| assert_eq!(checkpoint.body, body(number(&checkpoint.body))));
    all.iter()
        .map(|checkpoint| number(&checkpoint.body))
        .collect()
}

#[test]
fn a_power_cut_at_any_operation_leaves_the_last_two() {
    for survival in [Survival::Nothing, Survival::RandomHalf(8), Survival::All] {
        for operations in 0..60 {
            let disk = SimDisk::new(1);
            let mut checkpoints = open(&disk);
            disk.power_off_after(operations);
            let mut written = 0;
            while checkpoints.write(&body(written + 1)).is_ok() {
                written += 1;
            }
            let disk = disk.crash(survival);
            let found = found(&disk);
            let mut expected: Vec<u64> = (1..=written).rev().take(2).collect();
            if found.first() == Some(&(written + 1)) {
                expected.insert(0, written + 1);
            }
            assert!(
                found.starts_with(&expected),
                "{found:?} of {written} after {operations}"
            );
            // And life goes on.
            open(&disk).write(&body(written + 2)).unwrap();
            assert_eq!(files(&disk).0, found.len().min(1) + 1);
            assert!(files(&disk).1 <= 2, "spare files for the next ones");
        }
    }
}

#[test]
fn what_an_open_found_after_a_kill_is_there_after_a_power_cut() {
    for operations in 0..60 {
        let disk = SimDisk::new(1);
        let mut checkpoints = open(&disk);
        disk.power_off_after(operations);
        let mut written = 0;
        while checkpoints.write(&body(written + 1)).is_ok() {
            written += 1;
        }
        let disk = disk.kill();
        let before = found(&disk);
        let after = found(&disk.crash(Survival::Nothing));
        assert_eq!(after, before, "{written} after {operations}");
    }
}

#[test]
fn a_checkpoint_whose_name_could_not_be_synced_leaves_nothing_behind() {
    let disk = SimDisk::new(1);
    let mut checkpoints = open(&disk);
    for n in 1..9 {
        disk.fail_dir_syncs(u32::from(n % 2 == 0));
        assert_eq!(checkpoints.write(&body(n)).is_err(), n % 2 == 0);
    }
    assert_eq!(files(&disk).0, 2);
    assert_eq!(found(&disk), [7, 5]);
}

#[test]
fn a_damaged_newest_one_gives_the_one_before_and_valid_ones_are_kept() {
    let disk = SimDisk::new(1);
    let mut checkpoints = open(&disk);
    checkpoints.write(&body(1)).unwrap();
    let second = checkpoints.write(&body(2)).unwrap();
    let path = format!("{DIR}/ledger-{second:020}.ckpt");
    for place in [0, 9, 13, 17, 25, 33, 40, 16_000] {
        let copy = SimDisk::new(1);
        for name in disk.list(Path::new(DIR)).unwrap() {
            let path = Path::new(DIR).join(name);
            copy.put(&path, &disk.contents(&path).unwrap());
        }
        copy.flip_bit(Path::new(&path), place, 3);
        assert_eq!(found(&copy), [1], "flipped at {place}");
        // The damaged one does not count as one of two.
        open(&copy).write(&body(3)).unwrap();
        assert_eq!(found(&copy), [3, 1]);
        open(&copy).write(&body(4)).unwrap();
        assert_eq!(found(&copy), [4, 3]);
        assert_eq!(files(&copy).0, 2);
    }
}

#[test]
fn a_full_or_failing_disk_keeps_what_is_there() {
    let disk = SimDisk::new(1);
    let mut checkpoints = open(&disk);
    checkpoints.write(&body(1)).unwrap();
    disk.set_full(true);
    assert!(matches!(
        checkpoints.write(&body(9)),
        Err(CheckpointError::Io { .. })
    ));
    disk.set_full(false);
    disk.fail_next_sync();
    assert!(checkpoints.write(&body(3)).is_err());
    disk.fail_writes(1);
    assert!(checkpoints.write(&body(4)).is_err());
    assert_eq!(found(&disk), [1]);
    assert_eq!(files(&disk).0, 1);
    checkpoints.write(&body(5)).unwrap();
    assert_eq!(found(&disk.crash(Survival::Nothing)), [5, 1]);
}

#[test]
fn a_full_disk_takes_every_checkpoint_that_room_was_taken_for() {
    let disk = SimDisk::new(1);
    let mut checkpoints = open(&disk);
    let like = |n: u64, words: usize| n.to_le_bytes().repeat(words);
    checkpoints.prepare(8 * 1_200);
    disk.set_full(true);
    // From the first on, and then each over the oldest, whatever was in it.
    for n in 1..30 {
        let words = 10 + (n as usize * 337) % 1_190;
        checkpoints.write(&like(n, words)).unwrap();
        assert_eq!(checkpoints.newest().unwrap().body, like(n, words));
        assert_eq!(files(&disk).0, n.min(2) as usize);
    }
    assert_eq!(files(&disk), (2, 1));
    // Longer than what there is: the two before stay, and so it is once there is room.
    assert!(checkpoints.write(&like(30, 9_000)).is_err());
    let firsts = |checkpoints: &Checkpoints| -> Vec<u8> {
        let kept = checkpoints.valid();
        kept.iter().map(|checkpoint| checkpoint.body[0]).collect()
    };
    assert_eq!(firsts(&checkpoints), [29, 28]);
    disk.set_full(false);
    checkpoints.prepare(8 * 9_000);
    for n in 31..34 {
        checkpoints.write(&like(n, 1_000)).unwrap();
    }
    disk.set_full(true);
    for n in 34..40 {
        checkpoints.write(&like(n, 9_000)).unwrap();
    }
    let disk = disk.crash(Survival::Nothing);
    disk.set_full(true);
    let mut checkpoints = open(&disk);
    // A power cut brings back an older one, whose file then takes the next.
    assert!(firsts(&checkpoints).starts_with(&[39, 38]));
    checkpoints.write(&like(40, 9_000)).unwrap();
    assert_eq!(firsts(&checkpoints), [40, 39]);
}

#[test]
fn names_are_checked_and_kept_apart() {
    let disk = SimDisk::new(1);
    let all: Arc<dyn Disk> = Arc::new(disk.clone());
    for bad in ["", "a/b", "a-b", "a.b"] {
        let opened = Checkpoints::open(Arc::clone(&all), Path::new(DIR), bad);
        assert!(matches!(opened, Err(CheckpointError::Name(_))), "{bad}");
    }
    let mut ledger = open(&disk);
    let mut marks = Checkpoints::open(all, Path::new(DIR), "ledger_marks").unwrap();
    for n in 1..5 {
        ledger.write(&body(n)).unwrap();
        marks.write_parts(&[&body(n), b"", b"tail"]).unwrap();
    }
    assert_eq!(found(&disk), [4, 3]);
    assert_eq!(
        marks.newest().unwrap().body,
        [body(4), b"tail".to_vec()].concat()
    );
}

#[test]
fn real_files_work() {
    let temp = tempfile::tempdir().unwrap();
    let open = || Checkpoints::open(Arc::new(OsDisk), &temp.path().join("c"), "wal").unwrap();
    for n in 1..6 {
        open().write(&body(n * 100)).unwrap();
    }
    let bodies: Vec<_> = open()
        .valid()
        .into_iter()
        .map(|checkpoint| checkpoint.body)
        .collect();
    assert_eq!(bodies, [body(500), body(400)]);
}

#[test]
fn one_that_its_caller_can_not_read_is_not_one_of_the_two() {
    let disk = SimDisk::new(1);
    let mut checkpoints = open(&disk);
    for number in 1..=2 {
        checkpoints.write(&body(number)).unwrap();
    }
    let unread = checkpoints.newest().unwrap().sequence;
    checkpoints.discard(unread).unwrap();
    checkpoints.discard(unread).unwrap();
    assert_eq!(found(&disk), [1]);
    checkpoints.write(&body(3)).unwrap();
    assert_eq!(found(&disk), [3, 1], "what can be read stays");
    checkpoints.write(&body(4)).unwrap();
    assert_eq!(found(&disk), [4, 3]);
}
