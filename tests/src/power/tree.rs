//! Directories and files as they would be: written to a real directory, and compared with one.

use super::inode::{Image, PAGE_BYTES, Pages};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What stands below a directory; paths are relative, its own is empty.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tree {
    /// The directories, it among them.
    pub dirs: BTreeSet<PathBuf>,
    /// The sockets.
    pub sockets: BTreeSet<PathBuf>,
    /// The files.
    pub files: BTreeMap<PathBuf, Image>,
}

impl Tree {
    /// Makes all of it below `dir`, which is made, too. Where a file has zeros, it has a hole.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        for inside in &self.dirs {
            fs::create_dir_all(dir.join(inside))?;
        }
        for path in &self.sockets {
            // Nobody listens on it any more: what is left is its name.
            drop(UnixListener::bind(dir.join(path))?);
        }
        for (path, image) in &self.files {
            let mut options = OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600);
            let file = file.open(dir.join(path))?;
            file.set_len(image.bytes)?;
            for (number, page) in &image.pages {
                let begin = number * PAGE_BYTES as u64;
                let length = image.bytes.saturating_sub(begin).min(PAGE_BYTES as u64) as usize;
                if page.iter().any(|byte| *byte != 0) {
                    file.write_all_at(&page[..length], begin)?;
                }
            }
        }
        Ok(())
    }

    /// What stands below `dir`.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        let mut left = vec![PathBuf::new()];
        while let Some(inside) = left.pop() {
            for entry in fs::read_dir(dir.join(&inside))? {
                let entry = entry?;
                let path = inside.join(entry.file_name());
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    left.push(path);
                } else if kind.is_socket() {
                    tree.sockets.insert(path);
                } else {
                    tree.files.insert(path, read_image(&entry.path())?);
                }
            }
            tree.dirs.insert(inside);
        }
        Ok(tree)
    }

    /// The first thing in which `other` is not the same, in words.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if let Some(dir) = self.dirs.symmetric_difference(&other.dirs).next() {
            return Some(format!("the directory {} is in one alone", dir.display()));
        }
        let paths: BTreeSet<&PathBuf> = self.files.keys().chain(other.files.keys()).collect();
        paths.into_iter().find_map(|path| {
            let shown = path.display();
            let (Some(ours), Some(theirs)) = (self.files.get(path), other.files.get(path)) else {
                return Some(format!("the file {shown} is in one alone"));
            };
            if ours.bytes != theirs.bytes {
                let (ours, theirs) = (ours.bytes, theirs.bytes);
                return Some(format!("{shown} has {ours} bytes, and {theirs} there"));
            }
            let numbers: BTreeSet<&u64> = ours.pages.keys().chain(theirs.pages.keys()).collect();
            let differs = |number: &&u64| page(ours, **number) != page(theirs, **number);
            let number = numbers.into_iter().find(differs)?;
            Some(format!("{shown} differs in its page {number}"))
        })
    }
}

fn page(image: &Image, number: u64) -> &[u8] {
    let zeros = &[0; PAGE_BYTES];
    let page = image.pages.get(&number).map_or(zeros, |page| &**page);
    let left = image.bytes.saturating_sub(number * PAGE_BYTES as u64);
    &page[..left.min(PAGE_BYTES as u64) as usize]
}

fn read_image(path: &Path) -> io::Result<Image> {
    let mut file = File::open(path)?;
    let mut pages = Pages::new();
    let mut bytes = 0;
    loop {
        let mut page = [0; PAGE_BYTES];
        let mut filled = 0;
        while filled < PAGE_BYTES {
            match file.read(&mut page[filled..])? {
                0 => break,
                more => filled += more,
            }
        }
        if filled == 0 {
            return Ok(Image { bytes, pages });
        }
        if page.iter().any(|byte| *byte != 0) {
            pages.insert(bytes / PAGE_BYTES as u64, Arc::new(page));
        }
        bytes += filled as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_a_bit_is_a_difference() {
        let mut tree = Tree::default();
        for dir in ["", "a", "a/b"] {
            tree.dirs.insert(dir.into());
        }
        let mut pages = Pages::new();
        pages.insert(1, Arc::new([7; PAGE_BYTES]));
        let bytes = PAGE_BYTES as u64 + 100;
        tree.files.insert("a/b/c".into(), Image { bytes, pages });
        tree.sockets.insert("a/s".into());
        let dir = crate::programs::scratch("tree");
        tree.write(&dir.path().join("t")).unwrap();
        let back = Tree::read(&dir.path().join("t")).unwrap();
        assert_eq!(
            (tree.difference(&back), &back.sockets),
            (None, &tree.sockets)
        );
        // Behind the end is nothing.
        let written = fs::read(dir.path().join("t/a/b/c")).unwrap();
        assert_eq!(
            (written.len() as u64, written[0], written[4_195]),
            (bytes, 0, 7)
        );

        let image = tree.files.get_mut(Path::new("a/b/c")).unwrap();
        Arc::make_mut(image.pages.get_mut(&1).unwrap())[99] ^= 1;
        let said = tree.difference(&back).unwrap();
        assert!(said.contains("a/b/c differs"), "{said}");
        tree.files.clear();
        assert!(tree.difference(&back).unwrap().contains("in one alone"));
    }
}
