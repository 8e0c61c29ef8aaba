//! What becomes of a panic in sled.

use super::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A panic of sled's is every open database's: tests with one of their own wait for each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn one() -> Batch {
    let mut batch = Batch::new();
    batch.put(b"k", b"v").unwrap();
    batch
}

#[test]
fn a_commit_that_panics_is_an_error_and_the_next_open_begins_anew() {
    let (temp, _alone) = (tempfile::tempdir().unwrap(), alone());
    let dir = temp.path().join("state");
    let mut db = StateDb::open(&dir).unwrap().db;
    db.apply(&mut one()).unwrap();
    db.commit().unwrap();
    db.apply(&mut one()).unwrap();
    let broken = db.commit_by(|tree, _| {
        assert!(is_guarded());
        tree.insert("k", "half of it").unwrap();
        panic!("as sled does on what it finds")
    });
    assert!(matches!(broken, Err(StateDbError::Unusable { .. })));
    assert!(matches!(db.commit(), Err(StateDbError::Failed { .. })));
    assert!(!is_guarded());
    drop(db);
    let opened = StateDb::open(&dir).unwrap();
    assert!(opened.fresh && opened.set_aside.is_some());
    assert_eq!(opened.db.get(b"k").unwrap(), None);
}

#[test]
fn a_disk_that_fails_leaves_the_database_where_it_is() {
    let (temp, _alone) = (tempfile::tempdir().unwrap(), alone());
    let dir = temp.path().join("state");
    let mut db = StateDb::open(&dir).unwrap().db;
    db.apply(&mut one()).unwrap();
    let refused = db.commit_by(|_, _| Err(io::Error::other("refused").into()));
    assert!(matches!(refused, Err(StateDbError::Sled { .. })));
    drop(db);
    let opened = StateDb::open(&dir).unwrap();
    assert!(!opened.fresh && opened.set_aside.is_none());
}

#[test]
fn only_the_thread_that_reads_is_guarded() {
    let (temp, _alone) = (tempfile::tempdir().unwrap(), alone());
    let mut db = StateDb::open(&temp.path().join("state")).unwrap().db;
    db.apply(&mut one()).unwrap();
    db.commit().unwrap();
    let mut seen = Vec::new();
    let visited = db.visit_keys_from(b"a", |_| {
        let named = |name: &str| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(is_guarded).unwrap().join().unwrap()
        };
        seen = vec![is_guarded(), named("other"), named("sled-io-1")];
        ControlFlow::Continue(())
    });
    visited.unwrap();
    assert_eq!(seen, [true, false, false]);
    // sled's own threads are while a database is opened.
    let opened = guarded::guarded_open(db.dir.as_path(), || {
        let named = |name: &str| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(is_guarded).unwrap().join().unwrap()
        };
        Ok([is_guarded(), named("other"), named("sled-io-1")])
    });
    assert_eq!(opened.unwrap(), [true, false, true]);
}

#[test]
fn a_panic_of_one_of_sleds_own_threads_has_the_next_start_begin_anew() {
    let (temp, _alone) = (tempfile::tempdir().unwrap(), alone());
    let dirs = ["closed", "held", "read"].map(|name| temp.path().join(name));
    let panics = |name: &str| {
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(note_panic).unwrap().join().unwrap();
    };
    let [closed, held, read] = dirs.each_ref().map(|dir| {
        let mut db = StateDb::open(dir).unwrap().db;
        db.apply(&mut one()).unwrap();
        db.commit().unwrap();
        db
    });
    panics("other");
    assert!(!dirs.iter().any(|dir| damaged::is_marked(dir)));
    drop(closed);
    // Who still reads keeps sled's threads.
    let reader = read.reader();
    drop(read);
    panics("sled-io-3");
    drop((held, reader));
    let opened = dirs.each_ref().map(|dir| StateDb::open(dir).unwrap());
    let anew = opened
        .each_ref()
        .map(|it| it.fresh && it.set_aside.is_some());
    assert_eq!(anew, [false, true, true]);
}
