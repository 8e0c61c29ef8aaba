//! The disk of a recording: fed with its operations one after the other, it says what is on it
//! after a power cut.
//!
//! Data is durable after an fsync or fdatasync of its file that began later and has ended;
//! `sync_file_range` makes nothing durable. A name is durable after an fsync of its directory; on
//! a disk with a journal also after any later fsync or fdatasync, and those that are not survive
//! up to one of them. A length that grew by fallocate counts as data. An fsync that fails leaves
//! its pages clean.

use super::inode::{Image, Inode, Snapshot};
use super::log::{Op, SyncId, SyncKind};
use super::tree::Tree;
use super::{Names, Survival};
use crate::dice::Dice;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

type Place = usize;

#[derive(Default, Debug)]
struct Dir {
    now: BTreeMap<String, Place>,
    durable: BTreeMap<String, Place>,
}

#[derive(Debug)]
enum Node {
    Dir(Dir),
    File(Inode),
    Socket,
}

#[derive(Clone, Debug)]
enum Change {
    Link {
        dir: Place,
        name: String,
        node: Place,
    },
    Unlink {
        dir: Place,
        name: String,
    },
    Rename {
        from: (Place, String),
        to: (Place, String),
        node: Place,
    },
}

impl Change {
    fn dirs(&self) -> [Place; 2] {
        match self {
            Self::Link { dir, .. } | Self::Unlink { dir, .. } => [*dir; 2],
            Self::Rename { from, to, .. } => [from.0, to.0],
        }
    }

    fn apply(&self, mut names: impl FnMut(Place, &str, Option<Place>)) {
        match self {
            Self::Link { dir, name, node } => names(*dir, name, Some(*node)),
            Self::Unlink { dir, name } => names(*dir, name, None),
            Self::Rename { from, to, node } => {
                names(from.0, &from.1, None);
                names(to.0, &to.1, Some(*node));
            }
        }
    }
}

/// A change of names that no fsync of its directory has made durable.
#[derive(Debug)]
struct Pending {
    number: u64,
    change: Change,
    /// A sync that began later has ended: on a disk with a journal it is durable.
    is_journaled: bool,
}

#[derive(Debug)]
enum Syncing {
    Dir(Place),
    File(Place, Box<Snapshot>),
    Nothing,
}

/// The disk, after so many operations.
#[derive(Default, Debug)]
pub struct Disk {
    nodes: Vec<Node>,
    roots: BTreeMap<String, Place>,
    by_inode: HashMap<u64, Place>,
    pending: Vec<Pending>,
    changes: u64,
    syncing: HashMap<SyncId, (u64, Syncing)>,
}

fn set(names: &mut BTreeMap<String, Place>, name: &str, node: Option<Place>) {
    match node {
        Some(node) => names.insert(name.to_owned(), node),
        None => names.remove(name),
    };
}

impl Disk {
    /// A disk on which these directories are what was recorded; each is there from the beginning,
    /// or once it is made.
    pub fn new(roots: &[&str]) -> Self {
        let mut disk = Self::default();
        for root in roots {
            let place = disk.add(Node::Dir(Dir::default()));
            disk.roots.insert((*root).to_owned(), place);
        }
        disk
    }

    fn add(&mut self, node: Node) -> Place {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn dir(&self, place: Place) -> Result<&Dir, String> {
        match &self.nodes[place] {
            Node::Dir(dir) => Ok(dir),
            _ => Err("no directory where one should be".to_owned()),
        }
    }

    fn file(&mut self, inode: u64) -> Result<&mut Inode, String> {
        let place = *self
            .by_inode
            .get(&inode)
            .ok_or_else(|| format!("inode {inode} was never made"))?;
        match &mut self.nodes[place] {
            Node::File(file) => Ok(file),
            _ => Err(format!("inode {inode} is no file")),
        }
    }

    /// The directory that a path is in, and the name there.
    fn resolve<'p>(&self, path: &'p str) -> Result<(Place, &'p str), String> {
        let under = |root: &&String| {
            let rest = path.strip_prefix(root.as_str());
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        let root = self.roots.keys().find(under);
        let root = root.ok_or_else(|| format!("{path} is under no root"))?;
        let mut at = self.roots[root];
        let mut parts = path[root.len()..]
            .split('/')
            .filter(|part| !part.is_empty());
        let mut name = parts.next().ok_or_else(|| format!("{path} is a root"))?;
        for next in parts {
            let inside = self.dir(at)?.now.get(name);
            at = *inside.ok_or_else(|| format!("{path}: no {name} is known"))?;
            name = next;
        }
        Ok((at, name))
    }

    fn known(&self, path: &str) -> Result<(Place, String, Place), String> {
        let (dir, name) = self.resolve(path)?;
        let node = self.dir(dir)?.now.get(name);
        let node = *node.ok_or_else(|| format!("{path} is not known"))?;
        Ok((dir, name.to_owned(), node))
    }

    fn change(&mut self, change: Change) {
        change.apply(|dir, name, node| {
            if let Node::Dir(dir) = &mut self.nodes[dir] {
                set(&mut dir.now, name, node);
            }
        });
        self.pending.push(Pending {
            number: self.changes,
            change,
            is_journaled: false,
        });
        self.changes += 1;
    }

    fn make(&mut self, path: &str, inode: u64, node: Node) -> Result<(), String> {
        if let Some(root) = self.roots.get(path) {
            self.by_inode.insert(inode, *root);
            return Ok(());
        }
        let node = self.name(path, node)?;
        self.by_inode.insert(inode, node);
        Ok(())
    }

    fn name(&mut self, path: &str, node: Node) -> Result<Place, String> {
        let (dir, name) = self.resolve(path)?;
        let name = name.to_owned();
        let node = self.add(node);
        self.change(Change::Link { dir, name, node });
        Ok(node)
    }

    /// The next operation takes place.
    ///
    /// # Errors
    /// When it can't: the recording missed something.
    pub fn apply(&mut self, op: &Op<'_>) -> Result<(), String> {
        match *op {
            Op::Root { path, inode } => {
                let root = self.roots.get(path);
                let root = *root.ok_or_else(|| format!("{path} is no root"))?;
                self.by_inode.insert(inode, root);
            }
            Op::Create { path, inode } => self.make(path, inode, Node::File(Inode::default()))?,
            Op::MakeDir { path, inode } => self.make(path, inode, Node::Dir(Dir::default()))?,
            Op::Write {
                inode,
                offset,
                data,
                size_before,
            } => {
                let file = self.file(inode)?;
                file.seen_with(size_before)?;
                file.write(offset, data);
            }
            Op::Truncate {
                inode,
                length,
                size_before,
            } => {
                let file = self.file(inode)?;
                file.seen_with(size_before)?;
                file.truncate(length);
            }
            Op::SyncBegin {
                inode,
                kind,
                id,
                size_before,
            } => self.sync_begins(inode, kind, id, size_before)?,
            Op::SyncEnd { id } => self.sync_ends(id)?,
            Op::Rename { from, to } => {
                let (dir, name, node) = self.known(from)?;
                let (to_dir, to_name) = self.resolve(to)?;
                self.change(Change::Rename {
                    from: (dir, name),
                    to: (to_dir, to_name.to_owned()),
                    node,
                });
            }
            Op::Remove { path } => {
                let (dir, name, _) = self.known(path)?;
                self.change(Change::Unlink { dir, name });
            }
            Op::Link { from, to } => {
                let (_, _, node) = self.known(from)?;
                let (dir, name) = self.resolve(to)?;
                let name = name.to_owned();
                self.change(Change::Link { dir, name, node });
            }
            Op::Bind { path } => {
                self.name(path, Node::Socket)?;
            }
            Op::Fault { what: "EIO", inode } => {
                let node = self
                    .by_inode
                    .get(&inode)
                    .map(|place| &mut self.nodes[*place]);
                if let Some(Node::File(file)) = node {
                    file.sync_failed();
                }
            }
            Op::Fault { .. } | Op::Connect { .. } | Op::Said { .. } | Op::Heard { .. } => {}
        }
        Ok(())
    }

    fn sync_begins(
        &mut self,
        inode: u64,
        kind: SyncKind,
        id: SyncId,
        size_before: u64,
    ) -> Result<(), String> {
        let place = *self
            .by_inode
            .get(&inode)
            .ok_or_else(|| format!("inode {inode} is synced and was never made"))?;
        let syncing = match (&mut self.nodes[place], kind) {
            (_, SyncKind::Range) => Syncing::Nothing,
            (Node::Dir(_), _) => Syncing::Dir(place),
            (Node::Socket, _) => return Err("a socket is synced".to_owned()),
            (Node::File(file), _) => {
                file.seen_with(size_before)?;
                Syncing::File(place, Box::new(file.snapshot()))
            }
        };
        self.syncing.insert(id, (self.changes, syncing));
        Ok(())
    }

    fn sync_ends(&mut self, id: SyncId) -> Result<(), String> {
        let (changes, syncing) = self
            .syncing
            .remove(&id)
            .ok_or("a sync ends that never began")?;
        match syncing {
            Syncing::Nothing => return Ok(()),
            Syncing::Dir(place) => self.dir_synced(place, changes),
            Syncing::File(place, snapshot) => {
                if let Node::File(file) = &mut self.nodes[place] {
                    file.synced(*snapshot);
                }
            }
        }
        for pending in &mut self.pending {
            pending.is_journaled |= pending.number < changes;
        }
        Ok(())
    }

    /// Its names are durable, and with a name that came from another directory, or went there, that
    /// one's earlier ones.
    fn dir_synced(&mut self, place: Place, changes: u64) {
        let mut dirs = BTreeSet::from([place]);
        let mut taken = BTreeSet::new();
        for pending in self.pending.iter().rev() {
            let touched = pending.change.dirs();
            if pending.number < changes && touched.iter().any(|dir| dirs.contains(dir)) {
                dirs.extend(touched);
                taken.insert(pending.number);
            }
        }
        let nodes = &mut self.nodes;
        self.pending.retain(|pending| {
            let is_durable = taken.contains(&pending.number);
            if is_durable {
                pending.change.apply(|dir, name, node| {
                    if let Node::Dir(dir) = &mut nodes[dir] {
                        set(&mut dir.durable, name, node);
                    }
                });
            }
            !is_durable
        });
    }

    /// What stands below a root after the power went.
    ///
    /// # Panics
    /// When there is no such root.
    pub fn after_power_cut(&self, root: &str, survival: Survival, names: Names) -> Tree {
        let mut dice = Dice::unasked(match survival {
            Survival::Half(seed) => seed,
            Survival::Nothing | Survival::All => 0,
        });
        let dirs = self.nodes.iter().map(|node| match node {
            Node::Dir(dir) => dir.durable.clone(),
            _ => BTreeMap::new(),
        });
        let mut dirs: Vec<BTreeMap<String, Place>> = dirs.collect();
        let mut journal_goes_on = true;
        for pending in &self.pending {
            let survives = match (survival, names) {
                (Survival::All, _) => true,
                (Survival::Nothing, Names::ByDirectory) => false,
                (Survival::Nothing, Names::Journal) => pending.is_journaled,
                (Survival::Half(_), Names::ByDirectory) => dice.below(2) == 0,
                (Survival::Half(_), Names::Journal) => {
                    journal_goes_on &= pending.is_journaled || dice.below(4) != 0;
                    pending.is_journaled || journal_goes_on
                }
            };
            if survives {
                let apply = |dir: Place, name: &str, node| set(&mut dirs[dir], name, node);
                pending.change.apply(apply);
            }
        }
        let mut tree = Tree::default();
        let mut left = vec![(PathBuf::new(), self.roots[root])];
        while let Some((path, place)) = left.pop() {
            match &self.nodes[place] {
                Node::File(file) => {
                    let image = file.after_power_cut(survival, &mut dice);
                    tree.files.insert(path, image);
                }
                Node::Socket => {
                    tree.sockets.insert(path);
                }
                Node::Dir(_) => {
                    let inside = dirs[place].iter();
                    left.extend(inside.map(|(name, node)| (path.join(name), *node)));
                    tree.dirs.insert(path);
                }
            }
        }
        tree
    }

    /// What stands below a root now, as whoever reads it sees it.
    ///
    /// # Panics
    /// When there is no such root.
    pub fn now(&self, root: &str) -> Tree {
        let mut tree = Tree::default();
        let mut left = vec![(PathBuf::new(), self.roots[root])];
        while let Some((path, place)) = left.pop() {
            match &self.nodes[place] {
                Node::File(file) => {
                    tree.files.insert(path, file.now().clone());
                }
                Node::Socket => {
                    tree.sockets.insert(path);
                }
                Node::Dir(dir) => {
                    let inside = dir.now.iter();
                    left.extend(inside.map(|(name, node)| (path.join(name), *node)));
                    tree.dirs.insert(path);
                }
            }
        }
        tree
    }

    /// What of a file is durable, by the number of its inode.
    pub fn durable(&self, inode: u64) -> Option<&Image> {
        match &self.nodes[*self.by_inode.get(&inode)?] {
            Node::File(file) => Some(file.durable()),
            _ => None,
        }
    }

    /// Takes a root for what stands in `dir` now, all of it durable.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn found(&mut self, root: &str, dir: &Path) -> io::Result<()> {
        let tree = Tree::read(dir)?;
        let mut places = BTreeMap::from([(PathBuf::new(), self.roots[root])]);
        // A folder comes before what is in it.
        for path in tree.dirs.iter().filter(|path| path.parent().is_some()) {
            let node = self.add(Node::Dir(Dir::default()));
            self.hang(&places, path, node);
            places.insert(path.clone(), node);
            let inode = fs::metadata(dir.join(path))?.ino();
            self.by_inode.insert(inode, node);
        }
        for (path, image) in tree.files {
            let node = self.add(Node::File(Inode::found(image)));
            self.hang(&places, &path, node);
            let inode = fs::metadata(dir.join(&path))?.ino();
            self.by_inode.insert(inode, node);
        }
        for path in &tree.sockets {
            let node = self.add(Node::Socket);
            self.hang(&places, path, node);
        }
        Ok(())
    }

    /// Gives a node its name, durably.
    fn hang(&mut self, places: &BTreeMap<PathBuf, Place>, path: &Path, node: Place) {
        let parent = path.parent().and_then(|parent| places.get(parent));
        let name = path.file_name().and_then(|name| name.to_str());
        let (Some(parent), Some(name)) = (parent, name) else {
            return;
        };
        if let Node::Dir(dir) = &mut self.nodes[*parent] {
            dir.now.insert(name.to_owned(), node);
            dir.durable.insert(name.to_owned(), node);
        }
    }
}

#[cfg(test)]
mod tests;
