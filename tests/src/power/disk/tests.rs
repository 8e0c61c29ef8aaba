//! Short histories written by hand, and long ones by dice, each held against what must be.

use super::*;

const ROOT: &str = "/r";

struct History {
    disk: Disk,
    syncs: u64,
    inodes: u64,
}

impl History {
    fn new() -> Self {
        let mut disk = Disk::new(&[ROOT]);
        let root = Op::Root {
            path: ROOT,
            inode: 1,
        };
        disk.apply(&root).unwrap();
        Self {
            disk,
            syncs: 0,
            inodes: 1,
        }
    }

    fn apply(&mut self, op: Op<'_>) {
        self.disk.apply(&op).unwrap();
    }

    fn create(&mut self, path: &str) -> u64 {
        self.inodes += 1;
        let inode = self.inodes;
        self.apply(Op::Create { path, inode });
        inode
    }

    fn write(&mut self, inode: u64, offset: u64, data: &[u8]) {
        let size_before = self.disk.file(inode).unwrap().now().bytes;
        self.apply(Op::Write {
            inode,
            offset,
            data,
            size_before,
        });
    }

    fn begin(&mut self, inode: u64, kind: SyncKind) -> SyncId {
        let id = (0, self.syncs);
        self.syncs += 1;
        let size_before = match self.disk.file(inode) {
            Ok(file) => file.now().bytes,
            Err(_) => 0,
        };
        self.apply(Op::SyncBegin {
            inode,
            kind,
            id,
            size_before,
        });
        id
    }

    fn sync(&mut self, inode: u64) {
        let id = self.begin(inode, SyncKind::Whole);
        self.apply(Op::SyncEnd { id });
    }

    fn after(&self, survival: Survival, names: Names) -> BTreeMap<String, Vec<u8>> {
        let tree = self.disk.after_power_cut(ROOT, survival, names);
        let files = tree.files.iter();
        files
            .map(|(path, image)| (path.display().to_string(), image.to_vec()))
            .collect()
    }

    fn strictly(&self) -> BTreeMap<String, Vec<u8>> {
        self.after(Survival::Nothing, Names::ByDirectory)
    }
}

fn files(of: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    let owned = |(name, data): &(&str, &[u8])| ((*name).to_owned(), data.to_vec());
    of.iter().map(owned).collect()
}

#[test]
fn a_file_needs_its_data_and_its_name_synced() {
    let mut history = History::new();
    let a = history.create("/r/a");
    history.write(a, 0, b"data");
    history.sync(a);
    assert_eq!(history.strictly(), files(&[]));
    // The journal of a file system takes the name along.
    let journaled = history.after(Survival::Nothing, Names::Journal);
    assert_eq!(journaled, files(&[("a", b"data")]));
    history.sync(1);
    assert_eq!(history.strictly(), files(&[("a", b"data")]));
    let b = history.create("/r/b");
    history.write(b, 0, b"more");
    history.sync(1);
    assert_eq!(history.strictly(), files(&[("a", b"data"), ("b", b"")]));
}

#[test]
fn sync_file_range_makes_nothing_durable() {
    let mut history = History::new();
    let a = history.create("/r/a");
    history.sync(1);
    history.write(a, 0, b"data");
    let id = history.begin(a, SyncKind::Range);
    history.apply(Op::SyncEnd { id });
    assert_eq!(history.strictly(), files(&[("a", b"")]));
}

#[test]
fn a_sync_that_did_not_end_made_nothing_durable() {
    let mut history = History::new();
    let a = history.create("/r/a");
    history.sync(1);
    history.write(a, 0, b"data");
    history.begin(a, SyncKind::Whole);
    assert_eq!(history.strictly(), files(&[("a", b"")]));
}

#[test]
fn a_rename_is_one_step_and_durable_with_its_directory() {
    let mut history = History::new();
    let (old, new) = (history.create("/r/a"), history.create("/r/a.new"));
    history.write(old, 0, b"old");
    history.write(new, 0, b"new");
    history.sync(old);
    history.sync(new);
    history.sync(1);
    let rename = Op::Rename {
        from: "/r/a.new",
        to: "/r/a",
    };
    history.apply(rename);
    let before = files(&[("a", b"old"), ("a.new", b"new")]);
    let behind = files(&[("a", b"new")]);
    assert_eq!(history.strictly(), before);
    for seed in 0..20 {
        let half = history.after(Survival::Half(seed), Names::ByDirectory);
        assert!(half == before || half == behind, "{half:?}");
    }
    history.sync(1);
    assert_eq!(history.strictly(), behind);
}

#[test]
fn what_a_name_that_moved_left_behind_does_not_come_back() {
    let mut history = History::new();
    for (path, inode) in [("/r/x", 100), ("/r/y", 101)] {
        history.apply(Op::MakeDir { path, inode });
    }
    history.sync(1);
    history.create("/r/x/a");
    let rename = Op::Rename {
        from: "/r/x/a",
        to: "/r/y/b",
    };
    history.apply(rename);
    history.sync(101);
    history.sync(100);
    assert_eq!(history.strictly(), files(&[("y/b", b"")]));
}

#[test]
fn a_directory_that_was_never_durable_takes_all_in_it_along() {
    let mut history = History::new();
    history.apply(Op::MakeDir {
        path: "/r/x",
        inode: 100,
    });
    let a = history.create("/r/x/a");
    history.write(a, 0, b"data");
    history.sync(a);
    history.sync(100);
    assert_eq!(history.strictly(), files(&[]));
    history.sync(1);
    assert_eq!(history.strictly(), files(&[("x/a", b"data")]));
}

#[test]
fn an_inode_that_the_system_gives_again_is_another_file() {
    let mut history = History::new();
    let a = history.create("/r/a");
    history.write(a, 0, b"old");
    history.sync(a);
    history.sync(1);
    history.apply(Op::Remove { path: "/r/a" });
    history.apply(Op::Create {
        path: "/r/b",
        inode: a,
    });
    history.write(a, 0, b"new");
    history.sync(a);
    assert_eq!(history.strictly(), files(&[("a", b"old")]));
    history.sync(1);
    assert_eq!(history.strictly(), files(&[("b", b"new")]));
}

#[test]
fn what_the_recording_missed_is_said() {
    let mut history = History::new();
    let unknown = Op::Remove { path: "/r/a" };
    history.disk.apply(&unknown).unwrap_err();
    let write = Op::Write {
        inode: 77,
        offset: 0,
        data: b"",
        size_before: 0,
    };
    history.disk.apply(&write).unwrap_err();
    let end = Op::SyncEnd { id: (9, 9) };
    history.disk.apply(&end).unwrap_err();
}

#[test]
fn names_survive_one_by_one_or_up_to_one_of_them() {
    let mut history = History::new();
    let letters = ["a", "b", "c", "d"];
    for letter in letters {
        history.create(&format!("/r/{letter}"));
    }
    let is_prefix = |names| {
        let of_seed = |seed| {
            let found = history.after(Survival::Half(seed), names);
            letters.iter().zip(found.keys()).all(|(a, b)| a == b)
        };
        (0..100).map(of_seed).collect::<BTreeSet<bool>>()
    };
    assert_eq!(is_prefix(Names::Journal), BTreeSet::from([true]));
    let both = BTreeSet::from([false, true]);
    assert_eq!(is_prefix(Names::ByDirectory), both);
    // With a sync of anything the journal has all that was named before.
    let e = history.create("/r/e");
    history.sync(e);
    for seed in 0..20 {
        let found = history.after(Survival::Half(seed), Names::Journal);
        assert_eq!(found.len(), 5, "{found:?}");
    }
}

/// The journal's own disk in memory and this model, told the same: what each keeps when nothing
/// unsynced survives, and when all does, must be the same.
#[test]
fn it_keeps_what_the_disk_of_the_journals_tests_keeps() {
    use std::path::Path;
    use tributary_journal::sim_disk::{SimDisk, Survival as SimSurvival};
    use tributary_journal::{Disk as _, DiskFile};

    for seed in 0..200 {
        let mut dice = Dice::unasked(seed);
        let (sim, mut history) = (SimDisk::new(seed), History::new());
        sim.create_dir_all(Path::new(ROOT)).unwrap();
        let mut open: BTreeMap<String, (u64, Box<dyn DiskFile>)> = BTreeMap::new();
        for _ in 0..60 {
            let path = format!("/r/{}", dice.below(4));
            let other = format!("/r/{}", dice.below(4));
            match dice.below(8) {
                0 if !open.contains_key(&path) => {
                    let file = sim.create(Path::new(&path), 0).unwrap();
                    open.insert(path.clone(), (history.create(&path), file));
                }
                1 => {
                    sim.sync_dir(Path::new(ROOT)).unwrap();
                    history.sync(1);
                }
                2 if open.contains_key(&path) && path != other => {
                    sim.rename(Path::new(&path), Path::new(&other)).unwrap();
                    let (from, to) = (&*path, &*other);
                    history.apply(Op::Rename { from, to });
                    let file = open.remove(&path).unwrap();
                    open.insert(other, file);
                }
                3 if open.contains_key(&path) => {
                    sim.remove(Path::new(&path)).unwrap();
                    history.apply(Op::Remove { path: &path });
                    open.remove(&path);
                }
                4 => {
                    if let Some((inode, file)) = open.get(&path) {
                        let length = dice.below(12_000);
                        // It cuts and never grows.
                        let length = length.min(file.len().unwrap());
                        file.truncate(length).unwrap();
                        let size_before = history.disk.file(*inode).unwrap().now().bytes;
                        history.apply(Op::Truncate {
                            inode: *inode,
                            length,
                            size_before,
                        });
                    }
                }
                5 => {
                    if let Some((inode, file)) = open.get(&path) {
                        file.sync_data().unwrap();
                        let inode = *inode;
                        history.sync(inode);
                    }
                }
                _ => {
                    if let Some((inode, file)) = open.get(&path) {
                        let data = vec![dice.bits() as u8; dice.below(9_000) as usize + 1];
                        let offset = dice.below(9_000);
                        file.write_at(&data, offset).unwrap();
                        let inode = *inode;
                        history.write(inode, offset, &data);
                    }
                }
            }
        }
        for (ours, theirs) in [
            (Survival::Nothing, SimSurvival::Nothing),
            (Survival::All, SimSurvival::All),
        ] {
            let found = history.after(ours, Names::ByDirectory);
            let after = sim.crash(theirs);
            let mut expected = BTreeMap::new();
            for name in after.list(Path::new(ROOT)).unwrap() {
                let file = after.open(&Path::new(ROOT).join(&name)).unwrap();
                let mut bytes = vec![0; file.len().unwrap() as usize];
                file.read_at(&mut bytes, 0).unwrap();
                expected.insert(name, bytes);
            }
            assert_eq!(found, expected, "seed {seed}, {ours:?}");
        }
    }
}
