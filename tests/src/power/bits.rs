//! Flips one bit of what stopped programs left on their disks, in each region of each kind of
//! file, lets them start, and says whether all is there or declared lost.

use super::cuts::{Left, Outcome, carry_out};
use super::inode::{Image, PAGE_BYTES};
use super::recording::{Machine, Recording};
use super::tree::Tree;
use super::{Names, Survival};
use crate::dice::Dice;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a segment's header page, and where its header stands the second time.
const HEADER_BYTES: u64 = 4096;
const SECOND_HEADER: u64 = 2048;
const FRAME_HEAD_BYTES: u64 = 24;

/// What is known to come of a bit, whatever a program does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Promise {
    /// Everything is there, declared lost, or set apart in `rejected/`: of batches whose
    /// definitions of series are damaged.
    Declared,
    /// The last frame of a life of a log: nothing behind it says that it was durable, so it is
    /// taken for torn (docs/storage.md, what cannot be told). Programs start, but for an aggregator
    /// whose lake knows more than its journal.
    LastFrame,
    /// A batch in the journal that the lake has: the ledger no longer knows it, so that it is
    /// stored again if its acknowledgement did not last at the agent.
    InLake,
    /// The first frame of a life of the agent's log, with the rules that messages are read by: the
    /// messages that need them are dead letters, for a person to put back.
    Rules,
    /// A flush of the lake that was under way: the aggregator refuses to start, and says which file
    /// to put back.
    Intent,
    /// A file of the lake that counts: nobody reads it again, and its reader finds what it finds.
    Lake,
}

/// One bit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bit {
    /// On whose disk.
    pub machine: Machine,
    /// In which file.
    pub path: PathBuf,
    /// What kind of file it is, and which region of it.
    pub region: String,
    /// Which byte.
    pub offset: u64,
    /// Which bit of it.
    pub bit: u8,
    /// What must come of it.
    pub promise: Promise,
}

/// What both machines hold when everything that was done to them survives, after so many
/// operations.
#[derive(Debug)]
pub struct Stopped {
    left: Left,
}

impl Stopped {
    /// Both machines after so many operations of a recording.
    ///
    /// # Panics
    /// When the recording can't be replayed.
    pub fn after(recording: &Recording, operations: usize) -> Self {
        let mut disk = recording.disk();
        for place in 0..operations {
            disk.apply(&recording.log.op(place).1).unwrap();
        }
        Self {
            left: Left::of(recording, &disk, super::cuts::Cut::nobody(operations)),
        }
    }

    /// A bit of each region of each kind of file.
    pub fn bits(&self, seed: u64) -> Vec<Bit> {
        let mut dice = Dice::unasked(seed);
        let position = lake_position(&self.left.aggregator);
        let mut bits = Vec::new();
        for (machine, tree) in [
            (Machine::Agent, &self.left.agent),
            (Machine::Aggregator, &self.left.aggregator),
        ] {
            let mut kinds: BTreeMap<String, Vec<&PathBuf>> = BTreeMap::new();
            for (path, image) in &tree.files {
                if !image.pages.is_empty() {
                    kinds.entry(kind(machine, path)).or_default().push(path);
                }
            }
            for (kind, paths) in kinds {
                // The newest by name, and another.
                let other = dice.below(paths.len() as u64) as usize;
                let mut chosen = vec![paths[paths.len() - 1], paths[other]];
                chosen.dedup();
                for path in chosen {
                    let mut later = paths.iter().filter(|other| **other > path);
                    let is_newest = !later.any(|other| life_of(other) == life_of(path));
                    let image = &tree.files[path];
                    for (region, offset, promise) in regions(path, image, is_newest, &mut dice) {
                        let entry = entry_at(image, offset);
                        let is_in_lake = machine == Machine::Aggregator
                            && path.starts_with("journal")
                            && entry.is_some_and(|entry| entry < position);
                        let has_rules = machine == Machine::Agent
                            && path.starts_with("wal")
                            && entry == Some(0);
                        let promise = match promise {
                            Promise::Declared if is_in_lake => Promise::InLake,
                            Promise::Declared if has_rules => Promise::Rules,
                            promise => promise,
                        };
                        bits.push(Bit {
                            machine,
                            path: path.clone(),
                            region: format!("{kind}: {region}"),
                            offset,
                            bit: dice.below(8) as u8,
                            promise,
                        });
                    }
                }
            }
        }
        bits
    }

    /// Flips it, starts the programs, and looks.
    pub fn flip(&self, recording: &Recording, bit: &Bit) -> Outcome {
        let mut left = self.left.clone();
        let tree = match bit.machine {
            Machine::Agent => &mut left.agent,
            Machine::Aggregator => &mut left.aggregator,
        };
        flip(tree, bit);
        let promise = bit.promise;
        carry_out(recording, &left, &|outcome| outcome.keeps(promise))
    }
}

impl Outcome {
    /// Whether that promise is kept.
    pub fn keeps(&self, promise: Promise) -> bool {
        let is_told = self.lost <= self.declared || self.is_of_unknown_size || self.is_set_apart;
        match promise {
            Promise::Declared => is_told && self.doubled == 0 && self.wrong.is_none(),
            Promise::InLake => is_told && self.wrong.is_none(),
            Promise::Rules => self.is_started && self.doubled == 0,
            Promise::LastFrame => self.is_started || self.is_refused("log_rolled_back"),
            Promise::Intent => self.is_clean() || self.is_refused("is no marker of the lake"),
            // What its reader finds is the reader's: that programs started is what counts.
            Promise::Lake => self.is_started,
        }
    }
}

impl Outcome {
    fn is_refused(&self, word: &str) -> bool {
        self.wrong
            .as_ref()
            .is_some_and(|wrong| wrong.contains(word))
    }
}

fn flip(tree: &mut Tree, bit: &Bit) {
    let image = tree.files.get_mut(&bit.path).expect("a file that is there");
    let number = bit.offset / PAGE_BYTES as u64;
    let page = image.pages.entry(number);
    let page = page.or_insert_with(|| Arc::new([0; PAGE_BYTES]));
    Arc::make_mut(page)[(bit.offset % PAGE_BYTES as u64) as usize] ^= 1 << bit.bit;
}

/// A name for what the file is for.
fn kind(machine: Machine, path: &Path) -> String {
    let machine = match machine {
        Machine::Agent => "agent",
        Machine::Aggregator => "aggregator",
    };
    let mut parts: Vec<String> = path
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    let name = parts.pop().unwrap_or_default();
    // Of the lake, the table alone; and nothing that is different in each run.
    parts.retain(|part| !part.contains('=') && part.len() < 26);
    let ending = match name.rsplit_once('.') {
        Some((_, ending)) if ending.len() < 10 => format!("*.{ending}"),
        _ if name.len() > 20 => "*".to_owned(),
        _ => name,
    };
    parts.push(ending);
    format!("{machine}/{}", parts.join("/"))
}

/// Places of a file that are worth a bit, each with what must come of it.
fn regions(
    path: &Path,
    image: &Image,
    is_newest: bool,
    dice: &mut Dice,
) -> Vec<(&'static str, u64, Promise)> {
    let mut found = Vec::new();
    let ending = path.extension().and_then(|ending| ending.to_str());
    let promise = match ending {
        Some("parquet") => Promise::Lake,
        Some("intent") => Promise::Intent,
        _ => Promise::Declared,
    };
    if ending != Some("seg") {
        let first = *image.pages.keys().next().expect("it has data") * PAGE_BYTES as u64;
        let last = last_byte(image);
        found.push((
            "beginning",
            first + dice.below(16.min(last - first + 1)),
            promise,
        ));
        found.push(("middle", first + dice.below(last - first + 1), promise));
        found.push(("end", last, promise));
        return found;
    }
    found.push(("header", dice.below(64), promise));
    found.push(("second header", SECOND_HEADER + dice.below(64), promise));
    let frames = frames(image);
    // Batches that need a damaged definition of series wait for a person, however long.
    let waits = path.starts_with("spool/series");
    let Some(last) = frames.len().checked_sub(1).filter(|_| !waits) else {
        return found;
    };
    let mut places = vec![0, dice.below(frames.len() as u64) as usize, last];
    places.dedup();
    for place in places {
        let (offset, bytes) = frames[place];
        let promise = match is_newest && place == last {
            true => Promise::LastFrame,
            false => promise,
        };
        found.push((
            "frame's header",
            offset + dice.below(FRAME_HEAD_BYTES),
            promise,
        ));
        let inside = offset + FRAME_HEAD_BYTES + dice.below(bytes.max(1));
        found.push(("frame's payload", inside, promise));
    }
    found
}

fn last_byte(image: &Image) -> u64 {
    let (number, page) = image.pages.iter().next_back().expect("it has data");
    let inside = page.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    (number * PAGE_BYTES as u64 + inside as u64).min(image.bytes - 1)
}

fn bytes_at<const N: usize>(image: &Image, offset: u64) -> [u8; N] {
    std::array::from_fn(|i| {
        let at = offset + i as u64;
        let page = image.pages.get(&(at / PAGE_BYTES as u64));
        page.map_or(0, |page| page[(at % PAGE_BYTES as u64) as usize])
    })
}

/// The life that a segment is of: its name begins with it.
fn life_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.split('-').next()
}

/// The first entry of the frame of a segment that this byte is in, if it is in one.
fn entry_at(image: &Image, offset: u64) -> Option<u64> {
    let frames = frames(image);
    let (frame, _) = frames.iter().rfind(|(frame, _)| *frame <= offset)?;
    Some(u64::from_le_bytes(bytes_at(image, frame + 16)))
}

/// Every entry of the journal below is in the lake: what its markers of finished flushes say.
fn lake_position(aggregator: &Tree) -> u64 {
    let ends = aggregator.files.keys().filter_map(|path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".done")?;
        name.rsplit_once('-')?.1.parse().ok()
    });
    ends.max().unwrap_or(0)
}

/// Where the frames of a segment are, and how long their payloads: docs/storage.md, Frame.
fn frames(image: &Image) -> Vec<(u64, u64)> {
    let salt = u64::from_le_bytes(bytes_at(image, 40));
    let mark = u32::from_le_bytes(*b"TFRM") ^ (salt >> 32) as u32;
    let (mut at, mut found) = (HEADER_BYTES, Vec::new());
    while at + FRAME_HEAD_BYTES < image.bytes {
        if u32::from_le_bytes(bytes_at(image, at)) != mark {
            break;
        }
        let bytes = u64::from(u32::from_le_bytes(bytes_at(image, at + 8)));
        found.push((at, bytes));
        at = (at + FRAME_HEAD_BYTES + bytes).next_multiple_of(8);
    }
    found
}

/// Both machines with everything, for a cut of nobody's power.
impl super::cuts::Cut {
    fn nobody(at: usize) -> Self {
        Self {
            at,
            survival: Survival::All,
            names: Names::ByDirectory,
            victims: super::cuts::Victims::Both,
        }
    }
}
