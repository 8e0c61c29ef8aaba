//! A file's data: what it is now, what of it is durable, and what a power cut makes of the rest.
//!
//! After an fsync that failed the pages that it was to write count as clean: they can be read until
//! the power goes, and no later fsync writes them unless they are written anew.

use super::Survival;
use crate::dice::Dice;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes of a page: what a disk writes as one.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of a sector: what no disk tears.
pub const SECTOR_BYTES: usize = 512;

/// One page.
pub type Page = [u8; PAGE_BYTES];
/// Pages by their number; where there is none, there are zeros.
pub type Pages = BTreeMap<u64, Arc<Page>>;

/// What a file is, or would be: its length and its pages.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Image {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its data.
    pub pages: Pages,
}

impl Image {
    /// Cuts it to `bytes`, or gives it that length.
    fn resize(&mut self, bytes: u64) {
        if bytes < self.bytes {
            self.pages.split_off(&bytes.div_ceil(PAGE_BYTES as u64));
            let inside = (bytes % PAGE_BYTES as u64) as usize;
            if let Some(page) = self.pages.get_mut(&(bytes / PAGE_BYTES as u64)) {
                Arc::make_mut(page)[inside..].fill(0);
            }
        }
        self.bytes = bytes;
    }

    /// Its bytes, for tests.
    #[cfg(test)]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = vec![0; self.bytes as usize];
        for (number, page) in &self.pages {
            let begin = *number as usize * PAGE_BYTES;
            if begin < all.len() {
                let length = PAGE_BYTES.min(all.len() - begin);
                all[begin..begin + length].copy_from_slice(&page[..length]);
            }
        }
        all
    }
}

/// What a sync that has begun will have made durable.
#[derive(Debug)]
pub struct Snapshot {
    image: Image,
    dirty: BTreeSet<u64>,
    lost: BTreeSet<u64>,
    cuts: u64,
    number: u64,
}

/// A file.
#[derive(Default, Debug)]
pub struct Inode {
    now: Image,
    durable: Image,
    /// Pages that were written since they were last durable.
    dirty: BTreeSet<u64>,
    /// Pages that a failed sync left clean: the disk has what it had before.
    lost: BTreeSet<u64>,
    /// The least length that it was cut to since a sync.
    cut: Option<u64>,
    cuts: u64,
    /// Snapshots so far, and the newest that a sync made durable.
    snapshots: u64,
    durable_since: u64,
}

impl Inode {
    /// As it is now.
    pub fn now(&self) -> &Image {
        &self.now
    }

    /// What of it is durable.
    pub fn durable(&self) -> &Image {
        &self.durable
    }

    /// A file that is durable as it is.
    pub fn found(image: Image) -> Self {
        Self {
            now: image.clone(),
            durable: image,
            ..Self::default()
        }
    }

    /// Takes note that it has grown past the recorder's eyes.
    ///
    /// # Errors
    /// When it has shrunk.
    pub fn seen_with(&mut self, bytes: u64) -> Result<(), String> {
        if bytes < self.now.bytes {
            let known = self.now.bytes;
            return Err(format!(
                "a file of {known} bytes has {bytes}: a cut was missed"
            ));
        }
        self.now.bytes = bytes;
        Ok(())
    }

    /// Writes.
    pub fn write(&mut self, offset: u64, mut data: &[u8]) {
        let mut at = offset;
        while !data.is_empty() {
            let (number, inside) = (at / PAGE_BYTES as u64, (at % PAGE_BYTES as u64) as usize);
            let length = data.len().min(PAGE_BYTES - inside);
            let page = self.now.pages.entry(number);
            let page = page.or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[inside..inside + length].copy_from_slice(&data[..length]);
            self.dirty.insert(number);
            self.lost.remove(&number);
            data = &data[length..];
            at += length as u64;
        }
        self.now.bytes = self.now.bytes.max(at);
    }

    /// Gives it another length.
    pub fn truncate(&mut self, bytes: u64) {
        if bytes < self.now.bytes {
            let tail = bytes / PAGE_BYTES as u64;
            self.dirty.split_off(&bytes.div_ceil(PAGE_BYTES as u64));
            self.lost.split_off(&bytes.div_ceil(PAGE_BYTES as u64));
            if self.now.pages.contains_key(&tail) && !bytes.is_multiple_of(PAGE_BYTES as u64) {
                self.dirty.insert(tail);
                self.lost.remove(&tail);
            }
            self.cut = Some(self.cut.map_or(bytes, |cut| cut.min(bytes)));
            self.cuts += 1;
        }
        self.now.resize(bytes);
    }

    /// What a sync that begins now will cover.
    pub fn snapshot(&mut self) -> Snapshot {
        self.snapshots += 1;
        Snapshot {
            image: self.now.clone(),
            dirty: self.dirty.clone(),
            lost: self.lost.clone(),
            cuts: self.cuts,
            number: self.snapshots,
        }
    }

    /// The sync has succeeded. One that began later, and ended before it, has covered all of it.
    pub fn synced(&mut self, snapshot: Snapshot) {
        if snapshot.number < self.durable_since {
            return;
        }
        self.durable_since = snapshot.number;
        for number in snapshot.dirty {
            let (then, now) = (
                snapshot.image.pages.get(&number),
                self.now.pages.get(&number),
            );
            let is_same = match (then, now) {
                (Some(then), Some(now)) => Arc::ptr_eq(then, now),
                (then, now) => then.is_none() && now.is_none(),
            };
            if is_same {
                self.dirty.remove(&number);
            }
        }
        self.durable = self.but_for(snapshot.image, &snapshot.lost);
        if self.cuts == snapshot.cuts {
            self.cut = None;
        }
    }

    /// A sync has failed: what it was to write is never written.
    pub fn sync_failed(&mut self) {
        self.lost.append(&mut self.dirty);
    }

    /// `image`, with those of its pages that were lost as they are on the disk.
    fn but_for(&self, mut image: Image, lost: &BTreeSet<u64>) -> Image {
        for number in lost {
            match self.durable.pages.get(number) {
                Some(page) => image.pages.insert(*number, Arc::clone(page)),
                None => image.pages.remove(number),
            };
        }
        let bytes = image.bytes;
        image.bytes = u64::MAX;
        image.resize(bytes);
        image
    }

    /// What the power cut leaves of it.
    pub fn after_power_cut(&self, survival: Survival, dice: &mut Dice) -> Image {
        match survival {
            Survival::Nothing => self.durable.clone(),
            Survival::All => self.but_for(self.now.clone(), &self.lost),
            Survival::Half(_) => self.half(dice),
        }
    }

    /// Of its unsynced cut, length and pages each with a chance of one half; a quarter of those
    /// pages torn between two sectors, or several.
    fn half(&self, dice: &mut Dice) -> Image {
        let mut image = self.durable.clone();
        let mut last = u64::MAX;
        if let Some(cut) = self.cut {
            if dice.below(2) == 0 {
                image.resize(cut.min(image.bytes));
            } else {
                // What was written behind a cut that did not take place went nowhere.
                last = cut / PAGE_BYTES as u64;
            }
        }
        let grown = self.now.bytes > image.bytes && last == u64::MAX;
        if grown && dice.below(2) == 0 {
            image.bytes = self.now.bytes;
        }
        for number in self.dirty.range(..last) {
            let Some(page) = self.now.pages.get(number) else {
                continue;
            };
            match dice.below(8) {
                0..4 => {}
                4..7 => {
                    image.pages.insert(*number, Arc::clone(page));
                }
                _ => tear(&mut image, *number, page, dice),
            }
        }
        let bytes = image.bytes;
        image.bytes = u64::MAX;
        image.resize(bytes);
        image
    }
}

/// Each sector of the page with a chance of one half.
fn tear(image: &mut Image, number: u64, page: &Page, dice: &mut Dice) {
    let torn = image.pages.entry(number);
    let torn = Arc::make_mut(torn.or_insert_with(|| Arc::new([0; PAGE_BYTES])));
    let sectors = torn.chunks_mut(SECTOR_BYTES).zip(page.chunks(SECTOR_BYTES));
    for (old, new) in sectors {
        if dice.below(2) == 0 {
            old.copy_from_slice(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sync(inode: &mut Inode) {
        let snapshot = inode.snapshot();
        inode.synced(snapshot);
    }

    fn after(inode: &Inode, survival: Survival) -> Vec<u8> {
        let mut dice = Dice::new(1);
        inode.after_power_cut(survival, &mut dice).to_vec()
    }

    #[test]
    fn only_what_a_sync_found_when_it_began_is_durable_when_it_ends() {
        let mut inode = Inode::default();
        inode.write(0, &[1; 5_000]);
        let snapshot = inode.snapshot();
        inode.write(4_999, &[2; 2]);
        assert!(after(&inode, Survival::Nothing).is_empty());
        inode.synced(snapshot);
        assert_eq!(after(&inode, Survival::Nothing), [1; 5_000]);
        let mut all = [1; 5_001];
        all[4_999..].fill(2);
        assert_eq!(after(&inode, Survival::All), all);
        sync(&mut inode);
        assert_eq!(after(&inode, Survival::Nothing), all);
    }

    #[test]
    fn a_sync_that_ends_after_a_later_one_takes_nothing_back() {
        let mut inode = Inode::default();
        inode.write(0, &[1; 100]);
        let early = inode.snapshot();
        inode.write(0, &[2; 100]);
        let late = inode.snapshot();
        inode.synced(late);
        inode.synced(early);
        assert_eq!(after(&inode, Survival::Nothing), [2; 100]);
    }

    #[test]
    fn what_a_failed_sync_was_to_write_is_durable_only_if_it_is_written_anew() {
        let mut inode = Inode::default();
        inode.write(0, &[1; 8_192]);
        sync(&mut inode);
        inode.write(0, &[2; 8_192]);
        inode.write(8_192, &[2; 100]);
        inode.sync_failed();
        assert_eq!(inode.now().to_vec(), [2; 8_292]);
        inode.write(4_096, &[3; 1]);
        sync(&mut inode);
        let mut left = vec![1; 4_096];
        left.push(3);
        left.extend([2; 4_095]);
        left.extend([0; 100]);
        for survival in [Survival::Nothing, Survival::Half(1), Survival::All] {
            assert_eq!(after(&inode, survival), left, "{survival:?}");
        }
        inode.write(8_192, &[2; 100]);
        sync(&mut inode);
        assert_eq!(after(&inode, Survival::Nothing)[8_192..], [2; 100]);
    }

    #[test]
    fn what_a_cut_took_away_does_not_come_back_as_zeros_or_as_data() {
        let mut inode = Inode::default();
        inode.write(0, &[1; 8_192]);
        sync(&mut inode);
        inode.truncate(100);
        assert_eq!(after(&inode, Survival::Nothing), [1; 8_192]);
        inode.truncate(8_192);
        let mut cut = [0; 8_192];
        cut[..100].fill(1);
        assert_eq!(after(&inode, Survival::All), cut);
        sync(&mut inode);
        assert_eq!(after(&inode, Survival::Nothing), cut);
    }

    #[test]
    fn of_the_unsynced_a_half_survives_and_some_of_it_is_torn_within_a_page() {
        let mut inode = Inode::default();
        let pages = 4_000;
        inode.write(0, &vec![1; pages * PAGE_BYTES]);
        sync(&mut inode);
        inode.write(0, &vec![2; pages * PAGE_BYTES]);
        let found = after(&inode, Survival::Half(7));
        let of = |page: &[u8]| (page.contains(&1), page.contains(&2));
        let count = |what| {
            let pages = found.chunks(PAGE_BYTES);
            pages.filter(|page| of(page) == what).count()
        };
        let (old, new, torn) = (
            count((true, false)),
            count((false, true)),
            count((true, true)),
        );
        assert_eq!(old + new + torn, pages);
        assert!((1_800..2_200).contains(&old), "{old}");
        assert!((400..600).contains(&torn), "{torn}");
        let sectors = found.chunks(SECTOR_BYTES);
        assert!(sectors.clone().all(|sector| of(sector) != (true, true)));
    }

    #[test]
    fn a_file_that_shrank_unseen_is_a_fault_of_the_recording() {
        let mut inode = Inode::default();
        inode.seen_with(9).unwrap();
        assert_eq!(after(&inode, Survival::All), [0; 9]);
        inode.seen_with(8).unwrap_err();
    }
}
