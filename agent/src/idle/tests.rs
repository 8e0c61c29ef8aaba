//! The store as a process after the other sees it.

use super::*;
use std::path::PathBuf;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("idle")
    }

    fn open(&self, numbers: &[u64], next: u64) -> (IdleStore, IdleWriter) {
        self.open_beside(numbers, next, false)
    }

    fn open_beside(&self, numbers: &[u64], next: u64, others: bool) -> (IdleStore, IdleWriter) {
        let named = (numbers.to_vec(), next);
        open(&self.dir(), named, others, Meter::default()).unwrap()
    }
}

/// Rows that compress, and some that do not.
fn row(number: u64) -> Vec<u8> {
    let mixed = (0..900_u64).map(|i| (number + i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56);
    mixed
        .map(|byte| {
            if number.is_multiple_of(2) {
                byte as u8
            } else {
                7
            }
        })
        .collect()
}

fn held(store: &mut IdleStore, below: u64) -> Vec<u64> {
    (0..below).filter(|n| store.get(*n).is_some()).collect()
}

#[test]
fn rows_are_there_at_once_and_after_a_start_and_those_behind_its_checkpoint_are_not() {
    let place = Place::new();
    let (mut store, mut writer) = place.open(&[], 0);
    for number in 0..8 {
        store.put(number, row(number));
        assert_eq!(store.get(number), Some(row(number)), "it waits");
    }
    writer.write();
    assert_eq!(lock(&store.shared).waiting_bytes, 0);
    store.put(8, row(8));
    drop((store, writer));
    let (mut store, writer) = place.open(&[1, 2, 3], 6);
    let all: Vec<u64> = (0..6).collect();
    assert_eq!(held(&mut store, 10), all);
    assert_eq!(store.get(2), Some(row(2)));
    drop((store, writer));
    let (mut store, writer) = place.open_beside(&[], 6, true);
    assert_eq!(held(&mut store, 10), all, "another checkpoint names some");
    drop((store, writer));
    let (mut store, writer) = place.open(&[], 6);
    assert_eq!(held(&mut store, 10), [0; 0], "nothing is named");
    drop((store, writer));
}

#[test]
fn a_row_goes_when_neither_of_two_checkpoints_names_it() {
    let place = Place::new();
    let (mut store, mut writer) = place.open(&[], 0);
    (0..4).for_each(|number| store.put(number, row(number)));
    writer.write();
    writer.checkpointed(4);
    store.gone(1, 4);
    store.put(4, row(4));
    store.gone(2, 5);
    writer.write();
    writer.checkpointed(5);
    assert_eq!(
        held(&mut store, 9),
        [0, 1, 2, 3, 4],
        "the older one names both"
    );
    store.put(5, row(5));
    writer.write();
    writer.checkpointed(6);
    assert_eq!(
        held(&mut store, 9),
        [0, 2, 3, 4, 5],
        "2 may have gone behind it"
    );
    writer.checkpointed(6);
    assert_eq!(held(&mut store, 9), [0, 3, 4, 5]);
    drop((store, writer));
    // The process ended: what was gone by then and stayed goes with the second checkpoint.
    let (mut store, mut writer) = place.open(&[0, 4, 5], 6);
    writer.checkpointed(6);
    assert_eq!(
        held(&mut store, 9),
        [0, 3, 4, 5],
        "an older one may name it"
    );
    writer.checkpointed(6);
    assert_eq!(held(&mut store, 9), [0, 4, 5]);
}

#[test]
fn more_than_may_wait_is_lost_and_what_waits_is_not() {
    let place = Place::new();
    let (mut store, mut writer) = place.open(&[], 0);
    let many = IDLE_WAITING_BYTES_MAX / 900 + 100;
    (0..many as u64).for_each(|number| store.put(number, row(1)));
    assert!(lock(&store.shared).waiting_bytes <= IDLE_WAITING_BYTES_MAX);
    writer.write_due();
    let there = held(&mut store, many as u64);
    assert_eq!(there.len(), IDLE_WAITING_BYTES_MAX / 900);
    store.put(many as u64, vec![1; 900]);
    assert!(store.get(many as u64).is_some(), "there is room again");
}

#[test]
fn a_file_that_is_no_database_is_begun_anew() {
    let place = Place::new();
    let (mut store, mut writer) = place.open(&[], 0);
    store.put(0, row(0));
    writer.write();
    drop((store, writer));
    let db = place.dir().join("db");
    let bytes = fs::metadata(&db).unwrap().len();
    fs::write(&db, vec![0xaa; usize::try_from(bytes).unwrap()]).unwrap();
    let (mut store, mut writer) = place.open(&[0], 1);
    assert_eq!(store.get(0), None);
    store.put(1, row(1));
    writer.write();
    assert_eq!(store.get(1), Some(row(1)));
}

/// Set for the process that meets the disk that takes no more.
const DIR: &str = "TRIBUTARY_TEST_IDLE_DIR";
/// Rows that do not compress; more than the file may hold.
const MANY: u64 = 9_000;

/// A process whose files may not grow: sled's own threads are refused their writes.
#[test]
fn a_disk_that_takes_no_more_ends_what_is_kept_and_nothing_else() {
    let name = "idle::tests::a_disk_that_takes_no_more_ends_what_is_kept_and_nothing_else";
    if let Some(dir) = std::env::var_os(DIR) {
        return meet_the_end(Path::new(&dir));
    }
    let place = Place::new();
    // A refused write is an error, as on a disk that fails, and no signal.
    let script = "trap '' XFSZ && ulimit -f 4096 && exec \"$0\" \"$@\"";
    let child = std::process::Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(DIR, place.dir())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}");
    let kept = fs::read_to_string(place.dir().with_extension("kept")).unwrap();
    let kept: u64 = kept.parse().unwrap();
    assert!((500..MANY - 500).contains(&kept), "{kept}");
    // The next start has all that was durable, in the same place.
    let (mut store, mut writer) = place.open_beside(&[0], MANY, true);
    assert_eq!(held(&mut store, kept).len() as u64, kept);
    assert!(!place.0.path().join("idle.bad-1").exists());
    store.put(MANY, row(0));
    writer.write();
    assert!(writer.db.is_some() && store.get(MANY).is_some());
}

fn meet_the_end(dir: &Path) {
    let (mut store, mut writer) = open(dir, (vec![], 0), false, Meter::default()).unwrap();
    let mut kept = 0;
    for number in 0..MANY {
        store.put(number, row(2 * number));
        if number % 100 == 99 {
            writer.write();
            if writer.db.is_none() {
                break;
            }
            kept = number + 1;
        }
    }
    assert!(writer.db.is_none(), "the disk took {MANY} rows");
    // The stage goes on: it is refused what it hands over, and waits for nobody.
    store.put(MANY, row(0));
    assert_eq!(store.get(MANY), None);
    writer.write();
    writer.checkpointed(1);
    writer.checkpointed(2);
    fs::write(dir.with_extension("kept"), kept.to_string()).unwrap();
}
