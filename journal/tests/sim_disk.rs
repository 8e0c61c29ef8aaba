//! The simulated disk itself: a test that trusts a disk which does not break shows nothing.

use crate::small_log::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tributary_journal::sim_disk::{After, FileClass, Salts};
use tributary_journal::{Checkpoints, Cursor, Disk, DiskFile, Open, SimDisk, Survival};

const FILE: &str = "/a";

fn file_of(disk: &SimDisk, bytes: u64) -> Box<dyn DiskFile> {
    let file = disk.create(Path::new(FILE), bytes).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    file
}

fn found(disk: &SimDisk) -> Vec<u8> {
    disk.contents(Path::new(FILE)).unwrap()
}

#[test]
fn a_sync_that_lies_keeps_nothing_and_a_true_one_makes_up_for_it() {
    for (lies, kept) in [(1, 0), (0, 7)] {
        let disk = SimDisk::new(1);
        let file = file_of(&disk, 4096);
        disk.lie_syncs(lies);
        file.write_at(&[7; 100], 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(disk.lied(), lies > 0);
        assert_eq!(found(&disk.crash(Survival::Nothing))[0], kept);
    }
    let disk = SimDisk::new(1);
    let file = file_of(&disk, 4096);
    disk.lie_syncs(1);
    file.write_at(&[7; 100], 0).unwrap();
    file.sync_data().unwrap();
    file.sync_data().unwrap();
    let after = disk.crash(Survival::Nothing);
    assert_eq!(found(&after)[99], 7);
    assert!(!after.lied(), "what is there now is what is there");
}

#[test]
fn a_sync_of_a_directory_lies_about_its_names() {
    let disk = SimDisk::new(1);
    disk.lie_syncs(1);
    disk.create(Path::new(FILE), 0).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    assert!(disk.lied() && disk.kill().lied(), "the machine goes on");
    let after = disk.crash(Survival::Nothing);
    assert!(after.open(Path::new(FILE)).is_err());
}

#[test]
fn reads_fail_as_often_as_planned() {
    let disk = SimDisk::new(1);
    let file = file_of(&disk, 4096);
    disk.fail_reads(2);
    let read = || file.read_at(&mut [0; 10], 0).is_ok();
    assert_eq!([read(), read(), read()], [false, false, true]);
    disk.fail_reads(5);
    disk.heal();
    assert!(file.read_at(&mut [0; 10], 0).is_ok());
}

#[test]
fn the_last_page_of_a_file_is_torn_by_sectors() {
    let mut torn = 0;
    let mut whole_before = 0;
    for seed in 0..50 {
        let disk = SimDisk::new(1);
        let file = file_of(&disk, 8192);
        file.write_at(&[7; 8192], 0).unwrap();
        let after = found(&disk.crash(Survival::RandomHalf(seed)));
        let sectors: Vec<u8> = after.chunks(512).map(|sector| sector[0]).collect();
        for sector in after.chunks(512) {
            assert!(
                sector.iter().all(|byte| *byte == sector[0]),
                "within a sector"
            );
        }
        let kinds = |sectors: &[u8]| sectors.iter().collect::<BTreeSet<_>>().len();
        assert_eq!(kinds(&sectors[..8]), 1, "a page that is not the last");
        whole_before += usize::from(sectors[0] == 7);
        torn += usize::from(kinds(&sectors[8..]) == 2);
    }
    assert!(
        torn > 40 && (10..40).contains(&whole_before),
        "{torn} {whole_before}"
    );
    for (survival, byte) in [(Survival::Nothing, 0), (Survival::All, 7)] {
        let disk = SimDisk::new(1);
        file_of(&disk, 4096).write_at(&[7; 4096], 0).unwrap();
        assert!(found(&disk.crash(survival)).iter().all(|it| *it == byte));
    }
}

#[test]
fn the_power_goes_at_the_operation_that_was_named() {
    let steps = |after| {
        let disk = SimDisk::new(1);
        let file = file_of(&disk, 4096);
        disk.power_off(after);
        let done = |result: std::io::Result<()>| result.is_ok();
        let steps = [
            done(file.write_at(&[1], 0)),
            done(file.sync_data()),
            done(disk.rename(Path::new(FILE), Path::new("/b"))),
            done(disk.sync_dir(Path::new("/"))),
            done(disk.rename(Path::new("/b"), Path::new(FILE))),
        ];
        assert_eq!(disk.is_off(), steps.contains(&false));
        steps.into_iter().take_while(|done| *done).count()
    };
    assert_eq!(steps(After::Between), 0);
    assert_eq!(steps(After::Operations(1)), 0);
    assert_eq!(steps(After::Operations(3)), 2);
    assert_eq!(steps(After::Syncs(1)), 1);
    assert_eq!(steps(After::Syncs(2)), 3);
    assert_eq!(steps(After::Renames(1)), 2);
    assert_eq!(steps(After::Renames(2)), 4);
    assert_eq!(steps(After::Renames(3)), 5);
}

#[test]
fn whoever_waits_for_the_power_hears_of_it_once_within_the_call() {
    let heard = Arc::new(AtomicU32::new(0));
    let disk = SimDisk::new(1);
    let file = file_of(&disk, 4096);
    let (count, same) = (Arc::clone(&heard), disk.clone());
    disk.on_off(move || {
        // The lock is free: the disk can be asked.
        count.fetch_add(u32::from(same.is_off()), Ordering::Relaxed);
    });
    disk.power_off(After::Operations(2));
    file.write_at(&[1], 0).unwrap();
    assert_eq!(heard.load(Ordering::Relaxed), 0);
    assert!(file.write_at(&[1], 0).is_err());
    assert_eq!(heard.load(Ordering::Relaxed), 1);
    assert!(file.write_at(&[1], 0).is_err());
    disk.crash(Survival::All);
    assert_eq!(heard.load(Ordering::Relaxed), 1);
    for cut in [
        |disk: &SimDisk| drop(disk.kill()),
        |disk: &SimDisk| {
            drop(disk.crash(Survival::Nothing));
        },
    ] {
        let disk = SimDisk::new(1);
        let heard = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&heard);
        disk.on_off(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        cut(&disk);
        assert_eq!(heard.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn both_copies_of_a_disk_go_on_by_themselves() {
    let disk = SimDisk::new(1);
    let file = file_of(&disk, 4096);
    file.write_at(&[1], 0).unwrap();
    disk.rename(Path::new(FILE), Path::new("/b")).unwrap();
    let copy = disk.fork(Salts::Other(5));
    file.write_at(&[2], 0).unwrap();
    let twin = copy.open(Path::new("/b")).unwrap();
    twin.write_at(&[3], 1).unwrap();
    twin.sync_data().unwrap();
    assert_eq!(disk.contents(Path::new("/b")).unwrap()[..2], [2, 0]);
    assert_eq!(copy.contents(Path::new("/b")).unwrap()[..2], [1, 3]);
    // What was not synced when it was taken is not durable in either; the name of neither is, and
    // the file is one file under both of its names.
    assert_eq!(found(&copy.crash(Survival::Nothing))[..2], [1, 3]);
    assert_eq!(found(&disk.crash(Survival::Nothing))[..2], [0, 0]);
}

#[test]
fn a_machine_that_was_resumed_twice_draws_the_same_salts() {
    let disk = SimDisk::new(1);
    disk.stamp().unwrap();
    let (twin, other) = (disk.fork(Salts::Same), disk.fork(Salts::Other(9)));
    let salt = |disk: &SimDisk| disk.stamp().unwrap().salt;
    let ours = salt(&disk);
    assert_eq!(salt(&twin), ours);
    assert_ne!(salt(&other), ours);
}

#[test]
fn each_class_of_region_is_hit_and_no_other() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk, Open::NewLife(life(1))).writer;
    append_many(&mut log, 20, 300);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut kept = Checkpoints::open(Arc::clone(&shared), Path::new("/c"), "state").unwrap();
    kept.write(&[9; 1000]).unwrap();
    let (mut cursor, _) = Cursor::open(shared, Path::new("/c/cursor")).unwrap();
    cursor.write(b"a value").unwrap();
    disk.put(Path::new("/c/marker"), b"text");
    for class in FileClass::ALL {
        let mut places = BTreeSet::new();
        for seed in 0..200 {
            let copy = disk.fork(Salts::Same);
            let hit = copy
                .flip(class, seed)
                .unwrap_or_else(|| panic!("no {class:?}"));
            let (before, after) = (disk.contents(&hit.path), copy.contents(&hit.path));
            let (before, after) = (before.unwrap(), after.unwrap());
            let differ = |at: &usize| before[*at] != after[*at];
            let differing: Vec<usize> = (0..before.len()).filter(differ).collect();
            assert_eq!(differing, [hit.offset as usize]);
            places.insert((hit.path, hit.offset));
        }
        let name = |wanted: &str| {
            let has =
                |(path, _): &(std::path::PathBuf, u64)| path.to_string_lossy().contains(wanted);
            places.iter().all(has)
        };
        let offsets = places.iter().map(|(_, offset)| *offset);
        match class {
            FileClass::SegmentHeader => {
                assert!(name(".seg") && offsets.clone().all(|at| at < 4096));
                assert!(offsets.clone().any(|at| at > 2048), "the copy, too");
            }
            FileClass::FrameHeader | FileClass::FramePayload => {
                assert!(name(".seg") && offsets.clone().all(|at| at >= 4096));
            }
            FileClass::CheckpointHeader => {
                assert!(name(".ckpt") && offsets.clone().all(|at| at < 40));
            }
            FileClass::CheckpointBody => {
                assert!(name(".ckpt") && offsets.clone().all(|at| (40..1040).contains(&at)));
            }
            FileClass::CursorSlot => assert!(name("cursor")),
            FileClass::Other => {
                let known = |name: &str| [".seg", ".ckpt"].iter().any(|end| name.ends_with(end));
                let names = places.iter().map(|(path, _)| path.to_string_lossy());
                assert!(names.clone().all(|name| !known(&name)), "{places:?}");
                assert!(names.clone().any(|name| name.ends_with("marker")));
            }
        }
        assert!(places.len() > 3, "{class:?}: {places:?}");
    }
    assert!(SimDisk::new(1).flip(FileClass::FrameHeader, 0).is_none());
}
