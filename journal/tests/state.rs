//! The state database: what was committed is there, and what is broken is set aside.

use crate::log_damage::Random;
use std::fs;
use std::path::Path;
use tributary_journal::limits::STATE_VERIFY_BYTES_MAX;
use tributary_journal::state_db::Opened;
use tributary_journal::{Batch, StateDb, StateDbError};

fn open(dir: &Path) -> Opened {
    StateDb::open(dir).unwrap()
}

fn put(db: &mut StateDb, pairs: &[(&str, &str)]) {
    let mut batch = Batch::new();
    for (key, value) in pairs {
        batch.put(key.as_bytes(), value.as_bytes()).unwrap();
    }
    db.apply(&mut batch).unwrap();
    assert!(batch.is_empty());
}

fn keys(db: &StateDb, prefix: &str) -> Vec<String> {
    let found = db.scan_prefix(prefix.as_bytes()).unwrap();
    found
        .into_iter()
        .map(|(key, _)| String::from_utf8(key).unwrap())
        .collect()
}

#[test]
fn what_was_committed_is_there_after_reopening_and_what_was_not_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    let mut opened = open(&dir);
    assert!(opened.fresh && opened.set_aside.is_none());
    put(
        &mut opened.db,
        &[("a/1", "one"), ("a/2", "two"), ("b/1", "three")],
    );
    opened.db.commit().unwrap();
    put(&mut opened.db, &[("a/3", "lost")]);
    drop(opened);
    let opened = open(&dir);
    assert!(!opened.fresh && opened.set_aside.is_none());
    assert_eq!(keys(&opened.db, "a/"), ["a/1", "a/2"]);
    assert_eq!(opened.db.get(b"b/1").unwrap(), Some(b"three".to_vec()));
    assert!(opened.db.file_bytes() > 0);
}

/// What kill -9 leaves: the files as they are right after a commit, the database still open.
#[test]
fn a_commit_is_in_the_files_when_it_returns() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    let mut db = open(&dir).db;
    for n in 0..40 {
        put(&mut db, &[(&format!("key/{n:04}"), &"v".repeat(n * 50))]);
        db.commit().unwrap();
        let copy = temp.path().join(format!("copy-{n}"));
        fs::create_dir_all(copy.join("blobs")).unwrap();
        for name in ["db", "conf", "ready"] {
            fs::copy(dir.join(name), copy.join(name)).unwrap();
        }
        assert_eq!(
            fs::read_dir(dir.join("blobs")).unwrap().count(),
            0,
            "no page is a blob"
        );
        let opened = open(&copy);
        assert!(!opened.fresh);
        assert_eq!(keys(&opened.db, "key/").len(), n + 1);
    }
}

#[test]
fn reads_see_what_is_applied_before_it_is_committed() {
    let temp = tempfile::tempdir().unwrap();
    let mut db = open(&temp.path().join("state")).db;
    put(&mut db, &[("k/b", "1"), ("k/d", "2"), ("l", "3")]);
    db.commit().unwrap();
    put(&mut db, &[("k/a", "4"), ("k/b", "5"), ("k/e", "6")]);
    let mut batch = Batch::new();
    batch.delete(b"k/d").unwrap();
    db.apply(&mut batch).unwrap();
    for committed in [false, true] {
        assert_eq!(
            keys(&db, "k/"),
            ["k/a", "k/b", "k/e"],
            "committed: {committed}"
        );
        assert_eq!(db.get(b"k/b").unwrap(), Some(b"5".to_vec()));
        assert_eq!(db.get(b"k/d").unwrap(), None);
        assert_eq!(keys(&db, ""), ["k/a", "k/b", "k/e", "l"]);
        db.commit().unwrap();
    }
}

#[test]
fn keys_and_values_are_bounded() {
    let mut batch = Batch::new();
    assert!(matches!(
        batch.put(b"", b""),
        Err(StateDbError::KeyBytes(0))
    ));
    assert!(matches!(
        batch.put(&[1; 65], b""),
        Err(StateDbError::KeyBytes(65))
    ));
    assert!(matches!(
        batch.delete(&[1; 65]),
        Err(StateDbError::KeyBytes(65))
    ));
    assert!(matches!(
        batch.put(b"k", &[1; 2049]),
        Err(StateDbError::ValueBytes(2049))
    ));
    assert!(batch.is_empty());
    batch.put(&[1; 64], &[1; 2048]).unwrap();
    assert_eq!(batch.len(), 1);
}

#[test]
fn a_second_opener_is_told_so_and_nothing_is_set_aside() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    let first = open(&dir);
    assert!(matches!(
        StateDb::open(&dir),
        Err(StateDbError::Busy { .. })
    ));
    drop(first);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn an_unfinished_snapshot_is_removed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    let mut opened = open(&dir);
    put(&mut opened.db, &[("k", "v")]);
    opened.db.commit().unwrap();
    drop(opened);
    fs::write(dir.join("snap.00000000000000FF.generating"), b"torn").unwrap();
    let opened = open(&dir);
    assert!(!opened.fresh);
    assert_eq!(keys(&opened.db, ""), ["k"]);
}

/// A database with a thousand keys, closed.
fn filled(dir: &Path) -> Vec<u8> {
    let mut opened = open(dir);
    for n in 0..1000 {
        put(&mut opened.db, &[(&format!("key/{n:04}"), &"v".repeat(n))]);
        if n % 100 == 0 {
            opened.db.commit().unwrap();
        }
    }
    opened.db.commit().unwrap();
    drop(opened);
    fs::read(dir.join("db")).unwrap()
}

#[test]
fn a_corrupt_database_is_set_aside_and_an_empty_one_opens() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    let good = filled(&dir);
    for round in 1..=4 {
        fs::write(dir.join("db"), vec![0xa5; good.len()]).unwrap();
        let mut opened = open(&dir);
        assert!(opened.fresh);
        let aside = opened.set_aside.expect("it is kept for people");
        assert_eq!(aside, temp.path().join(format!("state.bad-{round}")));
        assert!(aside.join("db").exists());
        put(&mut opened.db, &[("rebuilt", "yes")]);
        opened.db.commit().unwrap();
    }
    // The database and the last two set aside.
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 3);
}

#[test]
fn a_database_beyond_bounds_is_set_aside() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    filled(&dir);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(dir.join("db"))
        .unwrap();
    file.set_len(65 << 20).unwrap();
    let opened = open(&dir);
    assert!(opened.fresh && opened.set_aside.is_some());
}

#[test]
fn a_creation_that_was_interrupted_is_a_fresh_one() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    drop(
        sled::Config::new()
            .path(&dir)
            .segment_size(512 * 1024)
            .open()
            .unwrap(),
    );
    let opened = open(&dir);
    assert!(opened.fresh && opened.set_aside.is_none());
}

/// Whatever happens to its file: it opens, and gives what was written or nothing.
#[test]
fn flipped_and_cut_files_always_open() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    let good = filled(&dir);
    let mut random = Random::new(77);
    let (mut aside, mut kept) = (0, 0);
    for round in 0..30 {
        fs::remove_dir_all(&dir).unwrap();
        fs::create_dir_all(dir.join("blobs")).unwrap();
        let mut bytes = good.clone();
        if round % 3 == 0 {
            bytes.truncate(random.below(bytes.len() as u64) as usize);
        } else {
            for _ in 0..=random.below(20) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
        }
        fs::write(dir.join("db"), bytes).unwrap();
        fs::write(dir.join("ready"), b"").unwrap();
        let opened = open(&dir);
        assert_eq!(opened.fresh, opened.set_aside.is_some());
        for (key, value) in opened.db.scan_prefix(b"").unwrap() {
            let n: usize = String::from_utf8(key).unwrap()[4..].parse().unwrap();
            assert_eq!(value, "v".repeat(n).into_bytes(), "round {round}");
        }
        aside += usize::from(opened.fresh);
        kept += usize::from(!opened.fresh);
    }
    assert!(aside > 0, "{aside} set aside, {kept} kept");
}

/// Values that no cache holds, and no open reads.
fn filled_beyond_what_an_open_reads(dir: &Path) {
    let mut db = open(dir).db;
    for part in 0..40_u64 {
        let mut batch = Batch::new();
        for n in 0..200 {
            let key = (part * 200 + n).to_be_bytes();
            batch.put(&key, &[part as u8; 1_500]).unwrap();
        }
        db.apply(&mut batch).unwrap();
        db.commit().unwrap();
    }
    assert!(db.file_bytes() > STATE_VERIFY_BYTES_MAX);
}

#[test]
fn a_database_that_a_commit_found_damaged_is_set_aside_at_the_next_open() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("state");
    filled_beyond_what_an_open_reads(&dir);
    let mut db = open(&dir).db;
    let whole = fs::read(dir.join("db")).unwrap();
    let mut bytes = whole.clone();
    bytes[512 * 1024..]
        .iter_mut()
        .for_each(|byte| *byte ^= 0xff);
    fs::write(dir.join("db"), &bytes).unwrap();
    let mut batch = Batch::new();
    for n in 0..8_000_u64 {
        batch.put(&n.to_be_bytes(), b"new").unwrap();
    }
    db.apply(&mut batch).unwrap();
    assert!(matches!(db.commit(), Err(StateDbError::Sled { .. })));
    assert!(matches!(db.commit(), Err(StateDbError::Failed { .. })));
    drop(db);
    // Whatever stands there by now.
    fs::write(dir.join("db"), &whole).unwrap();
    let mut opened = open(&dir);
    assert!(opened.fresh && opened.set_aside.is_some());
    put(&mut opened.db, &[("k", "v")]);
    opened.db.commit().unwrap();
    drop(opened);
    assert!(open(&dir).set_aside.is_none());
}
