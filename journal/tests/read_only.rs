//! A view beside the owner: it reads what is durable, changes not a byte, and survives whatever
//! the owner does meanwhile.

use crate::small_log::{SEGMENT, append_many, assert_numbered, config, dir, life, open, read_all};
use std::collections::BTreeMap;
use std::sync::Arc;
use tributary_journal::{
    Checkpoints, Disk, Log, LogConfig, LogError, LogReader, Open, ReadOnlyDisk, SimDisk,
};

fn view(disk: &SimDisk) -> LogReader {
    let view = ReadOnlyDisk::new(Arc::new(disk.clone()));
    let config = LogConfig {
        quota_bytes: u64::MAX,
        ..config()
    };
    let how = Open::SameLife { if_empty: life(0) };
    Log::open(Arc::new(view), dir(), config, how)
        .unwrap()
        .reader
}

fn everything(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list(dir()).unwrap().into_iter();
    names
        .map(|name| (name.clone(), disk.contents(&dir().join(name)).unwrap()))
        .collect()
}

#[test]
fn it_reads_what_the_owner_wrote_and_changes_nothing() {
    let disk = SimDisk::new(1);
    let mut owner = open(&disk, Open::NewLife(life(1)));
    append_many(&mut owner.writer, 40, 1_000);
    let before = everything(&disk);
    let reader = view(&disk);
    assert_numbered(&read_all(&reader, life(1), 0, 10_000), 0, 40);
    assert_eq!(everything(&disk), before);
    // The owner goes on; a second look sees more, the first one does not.
    append_many(&mut owner.writer, 5, 1_000);
    assert_numbered(&read_all(&view(&disk), life(1), 0, 10_000), 0, 45);
    assert_numbered(&read_all(&reader, life(1), 0, 10_000), 0, 40);
    // A torn end, a spare of another size and what is damaged stay as they are, too.
    disk.put(&dir().join("00000000000000000099.spare"), b"short");
    let newest = everything(&disk)
        .into_keys()
        .filter(|name| name.ends_with(".seg"))
        .max()
        .unwrap();
    disk.flip_bit(&dir().join(newest), 5_000, 1);
    let before = everything(&disk);
    view(&disk);
    assert_eq!(everything(&disk), before);
}

#[test]
fn what_the_owner_trims_and_recycles_meanwhile_is_never_given_out_as_something_else() {
    let disk = SimDisk::new(2);
    let mut owner = open(&disk, Open::NewLife(life(1)));
    append_many(&mut owner.writer, 60, 1_000);
    let reader = view(&disk);
    let oldest = reader.segments().remove(0);
    let mut entries = Vec::new();
    reader.read(life(1), 0, 1, &mut entries).unwrap();
    owner.reader.trim(life(1), 60).unwrap();
    append_many(&mut owner.writer, 4 * SEGMENT / 1_000, 1_000);
    assert!(disk.open(&oldest.path).is_err(), "it is trimmed");
    // The file it has open was recycled, or the one it opens is gone: it says so, or gives what
    // it still holds, which is right.
    for from in 0..60 {
        let mut entries = Vec::new();
        match reader.read(life(1), from, 1, &mut entries) {
            Ok(()) => assert_numbered(&entries, from, from + 1),
            Err(LogError::Damaged { .. } | LogError::Trimmed { .. } | LogError::Io { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn an_empty_or_missing_log_is_empty() {
    let disk = SimDisk::new(3);
    assert_eq!(view(&disk).segments(), []);
    assert!(disk.list(dir()).is_err(), "it was not made");
}

#[test]
fn checkpoints_are_read_and_nothing_is_cleared_away() {
    let disk = SimDisk::new(4);
    let owner: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut checkpoints = Checkpoints::open(owner, dir(), "c").unwrap();
    checkpoints.write(b"one").unwrap();
    disk.put(&dir().join("c-00000000000000000002.tmp"), b"being written");
    let before = everything(&disk);
    let view = Arc::new(ReadOnlyDisk::new(Arc::new(disk.clone())));
    let held = Checkpoints::open(view, dir(), "c")
        .unwrap()
        .newest()
        .unwrap();
    assert_eq!(held.body, b"one");
    assert_eq!(everything(&disk), before);
}
