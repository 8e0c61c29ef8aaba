//! One file of a simulated disk: what it holds, and what of that is durable.

use super::Survival;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) const PAGE_BYTES: usize = 4096;
/// What a disk writes whole, or not at all.
const SECTOR_BYTES: usize = 512;
type Page = Arc<[u8; PAGE_BYTES]>;

#[derive(Clone, Default)]
pub(super) struct Content {
    pub pages: BTreeMap<u64, Page>,
    pub bytes: u64,
}

impl Content {
    fn page(&self, place: u64) -> Option<&Page> {
        self.pages.get(&place)
    }

    /// Takes those sectors of a page that survive.
    fn tear(&mut self, place: u64, page: &Page, survival: Survival, chance: &mut u64) {
        let none = || Arc::new([0; PAGE_BYTES]);
        let torn = Arc::make_mut(self.pages.entry(place).or_insert_with(none));
        let sectors = torn.chunks_exact_mut(SECTOR_BYTES);
        for (to, from) in sectors.zip(page.chunks_exact(SECTOR_BYTES)) {
            if survival.survives(chance) {
                to.copy_from_slice(from);
            }
        }
    }

    pub fn cut(&mut self, bytes: u64) {
        let whole = bytes.div_ceil(PAGE_BYTES as u64);
        self.pages.retain(|place, _| *place < whole);
        let inside = (bytes % PAGE_BYTES as u64) as usize;
        if inside > 0
            && let Some(page) = self.pages.get_mut(&(whole - 1))
            && let Some(tail) = Arc::make_mut(page).get_mut(inside..)
        {
            tail.fill(0);
        }
        self.bytes = bytes;
    }
}

/// A file, whatever its name.
#[derive(Clone, Default)]
pub(super) struct Inode {
    pub now: Content,
    pub synced: Content,
    /// Written since the last sync.
    pub dirty: BTreeSet<u64>,
    /// Pages below this one have their blocks.
    pub taken_pages: u64,
}

impl Inode {
    /// Flips a bit, on the medium.
    pub fn flip(&mut self, offset: u64, bit: u8) {
        let place = offset / PAGE_BYTES as u64;
        let inside = (offset % PAGE_BYTES as u64) as usize;
        let Self { now, synced, .. } = self;
        for content in [now, synced] {
            let page = content
                .pages
                .entry(place)
                .or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            if let Some(byte) = Arc::make_mut(page).get_mut(inside) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    pub fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let left = usize::try_from(self.now.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..wanted).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            let inside = (at % PAGE_BYTES as u64) as usize;
            let more = rest.len().min(PAGE_BYTES - inside);
            let page = self.now.page(at / PAGE_BYTES as u64);
            let from = page.and_then(|page| page.get(inside..inside + more));
            match (rest.get_mut(..more), from) {
                (Some(to), Some(from)) => to.copy_from_slice(from),
                (Some(to), None) => to.fill(0),
                (None, _) => {}
            }
            done += more;
        }
        done
    }

    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            let (place, inside) = (at / PAGE_BYTES as u64, (at % PAGE_BYTES as u64) as usize);
            let more = rest.len().min(PAGE_BYTES - inside);
            let page = self
                .now
                .pages
                .entry(place)
                .or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            let to = Arc::make_mut(page).get_mut(inside..inside + more);
            if let (Some(to), Some(from)) = (to, rest.get(..more)) {
                to.copy_from_slice(from);
            }
            self.dirty.insert(place);
            self.taken_pages = self.taken_pages.max(place + 1);
            done += more;
        }
        self.now.bytes = self.now.bytes.max(offset + bytes.len() as u64);
    }

    /// Whether a write up to `end` needs blocks that the file does not have.
    pub fn needs_blocks(&self, end: u64) -> bool {
        end.div_ceil(PAGE_BYTES as u64) > self.taken_pages
    }

    pub fn sync(&mut self) {
        for place in std::mem::take(&mut self.dirty) {
            match self.now.pages.get(&place) {
                Some(page) => self.synced.pages.insert(place, Arc::clone(page)),
                None => self.synced.pages.remove(&place),
            };
        }
        self.synced.cut(self.now.bytes);
    }

    /// What is found of it after a power cut.
    pub fn after_power_cut(&self, survival: Survival, chance: &mut u64) -> Self {
        let mut found = self.synced.clone();
        // Pages whose sync failed are not dirty any more, but they may still have got there.
        let differs = |place: &u64, page: &Page| {
            let synced = self.synced.page(*place);
            synced.is_none_or(|synced| synced != page)
        };
        let pages = self.now.pages.iter();
        let unsynced: Vec<_> = pages.filter(|(place, page)| differs(place, page)).collect();
        let last = unsynced.last().map(|(place, _)| **place);
        for (place, page) in unsynced {
            if Some(*place) == last && matches!(survival, Survival::RandomHalf(_)) {
                found.tear(*place, page, survival, chance);
            } else if survival.survives(chance) {
                found.pages.insert(*place, Arc::clone(page));
            }
        }
        let bytes = if self.now.bytes != found.bytes && survival.survives(chance) {
            self.now.bytes
        } else {
            found.bytes
        };
        found.cut(bytes);
        let taken_pages = bytes.div_ceil(PAGE_BYTES as u64);
        Self {
            now: found.clone(),
            synced: found,
            dirty: BTreeSet::new(),
            taken_pages,
        }
    }
}
