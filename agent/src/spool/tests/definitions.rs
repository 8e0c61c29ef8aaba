//! Definitions of series that are damaged on the disk: nothing that needs them waits, as long as
//! they lie there once.

use super::config;
use super::gap_log::{THIRD, files};
use super::giving_way::{FIRST, SECOND, acknowledge, open};
use crate::spool::repair::{Repaired, repair};
use crate::spool::{self, Opened};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use tributary_journal::limits::SEGMENT_HEADER_BYTES;
use tributary_journal::sim_disk::Salts;
use tributary_journal::{Disk, SimDisk, Survival};
use tributary_protocol::batch::{SealedBatch, Sealer, Spec};
use tributary_protocol::ids::{BatchKey, Lane};
use tributary_protocol::reading::ValueType;
use tributary_protocol::series::SeriesDef;
use tributary_uplink::Spool;

const FOLDERS: [&str; 2] = ["/spool/series", "/spool/series-copy"];
const DEFINED: u64 = 12;

fn key(number: u64) -> BatchKey {
    BatchKey {
        buffer: FIRST,
        lane: Lane::Series,
        number,
    }
}

/// Ten series in each.
static DEFINITIONS: LazyLock<Vec<SealedBatch>> = LazyLock::new(|| {
    let batch = |number| {
        let metric = |n| format!("metric-{number}-{n}");
        let define = |n| SeriesDef::new("press-7", &metric(n), Some("bar"), ValueType::F64);
        let definitions: Vec<_> = (0..10).map(|n| define(n).unwrap()).collect();
        let spec = Spec {
            key: key(number),
            sealed_at: 1,
            series_needed: 10 * number as u32,
            covers: Vec::new(),
        };
        let base = 10 * number as u32;
        Sealer::new().series(&spec, base, &definitions).unwrap()
    };
    (0..DEFINED).map(batch).collect()
});

fn defined() -> SimDisk {
    let disk = SimDisk::new(1);
    let mut opened = open(&disk, FIRST, &config(64));
    for batch in &*DEFINITIONS {
        opened.writer.append(vec![batch.clone()]).unwrap();
    }
    disk
}

/// Every definition below `end` is there at the first look, and sent as ever.
fn check(opened: &mut Opened, end: u64, what: &str) {
    let starts = opened.reader.lane_starts().into_iter();
    let start = starts.clone().find(|it| it.key == key(0).lane_key());
    let held = start.map_or(0..0, |start| start.first..start.end);
    assert!(held.start == 0 && held.end >= end, "{what}: {held:?}");
    for number in held {
        let batch = opened.reader.read(key(number)).unwrap();
        let sealed = &DEFINITIONS[number as usize];
        assert_eq!(batch.bytes(), sealed.bytes(), "{what}: {number}");
    }
}

/// The only segment of a folder, without the blocks behind its frames.
fn segment(disk: &SimDisk, folder: &str) -> (PathBuf, u64) {
    let path = files(disk, folder).remove(0);
    let bytes = disk.contents(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    (path, end as u64 + 1)
}

#[test]
fn definitions_that_are_damaged_in_one_place_are_read_from_the_other() {
    for folder in FOLDERS {
        let whole = defined();
        let (path, end) = segment(&whole, folder);
        for offset in (SEGMENT_HEADER_BYTES..end).step_by(41) {
            let disk = whole.kill();
            disk.flip_bit(&path, offset, (offset % 8) as u8);
            let what = format!("{folder}, byte {offset}");
            check(&mut open(&disk, SECOND, &config(64)), DEFINED, &what);
            check(&mut open(&disk, THIRD, &config(64)), DEFINED, &what);
        }
    }
}

#[test]
fn definitions_whose_segment_is_gone_or_has_no_header_are_read_from_the_other() {
    for folder in FOLDERS {
        for is_gone in [false, true] {
            let disk = defined();
            let (path, _) = segment(&disk, folder);
            if is_gone {
                disk.remove(&path).unwrap();
            } else {
                let mut bytes = disk.contents(&path).unwrap();
                bytes[..SEGMENT_HEADER_BYTES as usize].fill(0);
                disk.put(&path, &bytes);
            }
            let what = format!("{folder}, gone: {is_gone}");
            let mut opened = open(&disk, SECOND, &config(64));
            check(&mut opened, DEFINED, &what);
            // The cursor lets go of both.
            acknowledge(&mut opened.reader);
            drop(opened);
            assert!(
                open(&disk, THIRD, &config(64)).sender.is_drained(),
                "{what}"
            );
            for folder in FOLDERS {
                assert_eq!(files(&disk, folder).len(), 0, "{what}: {folder}");
            }
        }
    }
}

#[test]
fn definitions_that_were_durable_are_there_whenever_the_power_fails_and_a_bit_flips() {
    let mut cuts = 0;
    for seed in 0..240u64 {
        let disk = SimDisk::new(seed);
        let mut opened = open(&disk, FIRST, &config(64));
        disk.power_off_after(1 + seed / 3);
        let stored = |batch: &&SealedBatch| opened.writer.append(vec![(*batch).clone()]).is_ok();
        let durable = DEFINITIONS.iter().take_while(stored).count() as u64;
        cuts += u64::from(durable < DEFINED);
        let survival = match seed % 3 {
            0 => Survival::Nothing,
            1 => Survival::RandomHalf(seed),
            _ => Survival::All,
        };
        let disk = disk.crash(survival);
        let folder = FOLDERS[(seed / 3 % 2) as usize];
        if durable > 0 {
            let (path, end) = segment(&disk, folder);
            let inside = end - SEGMENT_HEADER_BYTES;
            let offset = SEGMENT_HEADER_BYTES + seed * 7_919 % inside;
            disk.flip_bit(&path, offset, (seed % 8) as u8);
        }
        let what = format!("seed {seed}, {folder}");
        check(&mut open(&disk, SECOND, &config(64)), durable, &what);
    }
    assert!(cuts > 60, "{cuts} cuts");
}

#[test]
fn a_disk_that_takes_one_of_both_and_then_the_other_has_each_definition_once() {
    for failing in 1..12 {
        let disk = SimDisk::new(failing);
        let mut opened = open(&disk, FIRST, &config(64));
        let mut refused = 0;
        for batch in &*DEFINITIONS {
            disk.fail_writes(failing as u32);
            while opened.writer.append(vec![batch.clone()]).is_err() {
                refused += 1;
            }
        }
        check(&mut opened, DEFINED, "as it was written");
        drop(opened);
        // The copy is given up at its first error: the lane alone has all, both together, too.
        let without = |folder: Option<&str>| {
            let one = disk.kill();
            let gone = folder.into_iter().flat_map(|folder| files(&one, folder));
            gone.for_each(|it| one.remove(&it).unwrap());
            check(&mut open(&one, SECOND, &config(64)), DEFINED, "in the lane");
        };
        without(None);
        without(Some(FOLDERS[1]));
        assert!(failing < 5 || refused > 0, "{failing}");
    }
}

/// A folder that can't be one: the agent starts, and all is in the lane.
#[test]
fn a_copy_that_can_not_be_opened_holds_nothing_up() {
    let dir = tempfile::TempDir::new().unwrap();
    std::fs::write(dir.path().join("series-copy"), "no folder").unwrap();
    let disk: Arc<dyn Disk> = Arc::new(tributary_journal::OsDisk);
    for life in [FIRST, SECOND] {
        let mut opened = spool::open(&disk, dir.path(), life, &config(64)).unwrap();
        if life == FIRST {
            for batch in &*DEFINITIONS {
                opened.writer.append(vec![batch.clone()]).unwrap();
            }
        }
        check(&mut opened, DEFINED, "without a copy");
    }
}

#[test]
fn a_repair_names_definitions_that_lie_nowhere_whole_and_no_others() {
    let disk = defined();
    for (folder, is_lost) in FOLDERS.into_iter().zip([false, true]) {
        let (path, _) = segment(&disk, folder);
        let bytes = disk.contents(&path).unwrap();
        let needle = DEFINITIONS[4].bytes();
        let mut windows = bytes.windows(needle.len());
        let at = windows.position(|window| window == &needle[..]).unwrap();
        disk.flip_bit(&path, at as u64 + 60, 3);
        let ours: Arc<dyn Disk> = Arc::new(disk.fork(Salts::Other(9)));
        let repaired = repair(&ours, Path::new("/spool"), SECOND, &config(64)).unwrap();
        let series = match is_lost {
            true => vec![(key(4).lane_key(), 4..5)],
            false => Vec::new(),
        };
        let expected = Repaired {
            series,
            ..Repaired::default()
        };
        assert_eq!(repaired, expected, "{folder}");
    }
    // Nothing stands for them, and nothing else is lost.
    let mut opened = open(&disk, SECOND, &config(64));
    let known = spool::acknowledged(&(Arc::new(disk) as Arc<dyn Disk>), Path::new("/spool"));
    assert!(known.unwrap().sender.lanes.is_empty());
    assert!(opened.reader.read(key(3)).is_ok() && opened.reader.read(key(5)).is_ok());
    assert!(opened.reader.read(key(4)).is_err());
}
