//! Flips one bit of what stopped programs left on their disks, in each region of each kind of
//! file, lets them start, and says whether all is there but for what was in its frame, which is
//! declared lost.

use super::cuts::{Left, Outcome, carry_out};
use super::inode::{Image, PAGE_BYTES};
use super::recording::{Machine, Recording};
use super::tree::Tree;
use super::wire::Devices;
use super::{Names, Survival};
use crate::dice::Dice;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_sim::verify::Loss;

/// Bytes of a segment's header page, and where its header stands the second time.
const HEADER_BYTES: u64 = 4096;
const SECOND_HEADER: u64 = 2048;
const FRAME_HEAD_BYTES: u64 = 24;
/// Where an agent's declared losses are.
const GAPS: &str = "spool/gaps";
/// The folders of logs that there are.
const LOGS: [&str; 8] = [
    "agent/wal",
    "agent/deadletter",
    "agent/spool/telemetry",
    "agent/spool/alerts",
    "agent/spool/aggregates",
    "agent/spool/series",
    "agent/spool/gaps",
    "aggregator/journal",
];

/// What is known to come of a bit, whatever a program does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Promise {
    /// Everything is there, and nothing is declared: what it says stands elsewhere, too.
    Whole,
    /// What was in its frame is there or declared lost, and nothing else is; or, of batches of the
    /// journal whose definitions of series it had, set apart in `rejected/`.
    Declared,
    /// The last frame of a life of a log: nothing behind it says that it was durable, so it is
    /// taken for torn (docs/storage.md, what cannot be told). Programs start, but for an aggregator
    /// whose lake knows more than its journal; what is lost or doubled was in it.
    LastFrame,
    /// A batch in the journal that the lake has: its number is learnt from the lake's files, and it
    /// is not stored again. The audit says so as long as the segment is there.
    InLake,
    /// The first frame of a life of the agent's log, with the rules that messages are read by: the
    /// messages that need them are dead letters, for a person to put back.
    Rules,
    /// A flush of the lake that was under way: it is redone to the end that its files name.
    Intent,
    /// A file of the lake that counts: nobody reads it again but the audit, which says so if a row
    /// of it is another or is gone.
    Lake,
}

impl Promise {
    /// All there are.
    const ALL: [Self; 7] = [
        Self::Whole,
        Self::Declared,
        Self::LastFrame,
        Self::InLake,
        Self::Rules,
        Self::Intent,
        Self::Lake,
    ];
}

/// Makes sure that each promise and each log has a bit that puts it to the test.
///
/// # Panics
/// When one has none.
pub fn check_that_all_is_hit<'b>(bits: impl Iterator<Item = &'b Bit> + Clone) {
    for promise in Promise::ALL {
        let has = bits.clone().any(|bit| bit.promise == promise);
        assert!(has, "no bit puts {promise:?} to the test");
    }
    for log in LOGS {
        let region = format!("{log}/*.seg: ");
        let has = bits.clone().any(|bit| bit.region.starts_with(&region));
        assert!(has, "no bit is in {log}");
    }
}

/// Which log a frame is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The agent's messages.
    Wal,
    /// A lane's batches.
    Spool(String),
    /// The aggregator's.
    Journal,
    /// Another.
    Other,
}

/// A frame of a segment, and the entries in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Where it begins.
    pub at: u64,
    /// How long its payload is.
    pub bytes: u64,
    /// Its first entry.
    pub first: u64,
    /// How many there are.
    pub count: u64,
}

/// The frame that a bit is in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hit {
    /// Which log.
    pub kind: Kind,
    /// Which life of it.
    pub life: String,
    /// Which frame.
    pub frame: Frame,
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
    /// The frame that it is in, if it is in one.
    pub hit: Option<Hit>,
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
        let (mut disk, mut devices) = (recording.disk(), Devices::default());
        for place in 0..operations {
            let (_, op) = recording.log.op(place);
            disk.apply(&op).unwrap();
            devices.apply(&op);
        }
        let cut = super::cuts::Cut::nobody(operations);
        Self {
            left: Left::of(recording, &disk, &devices, cut),
        }
    }

    /// The same once the agent has started alone on a segment of readings whose headers are both
    /// damaged: what was in it stands in `spool/gaps` as lost. And what that was.
    ///
    /// # Panics
    /// When there is no such segment, or nothing is declared.
    pub fn with_a_gap(mut self) -> (Self, Hit) {
        let agent = &mut self.left.agent;
        let of_readings = |(path, image): &(&PathBuf, &mut Image)| {
            path.starts_with("spool/telemetry") && !frames(image).is_empty()
        };
        let mut segments = agent.files.iter_mut().filter(of_readings);
        let (path, image) = segments.next_back().expect("a segment of readings");
        let life = life_of(path).expect("it is of a life").to_owned();
        let first = frames(image)[0].first;
        let hit = Hit {
            kind: Kind::Spool("telemetry".to_owned()),
            life,
            // Nobody knows how many there were: as many as can have been are declared.
            frame: Frame {
                at: 0,
                bytes: image.bytes,
                first,
                count: image.bytes,
            },
        };
        for header in [0, SECOND_HEADER] {
            flip_at(image, header, 0);
        }
        let site = super::recording::site("gap");
        let dir = site.root(Machine::Agent);
        agent.write(&dir).unwrap();
        let mut alone = site.agent();
        alone.up();
        alone.kill();
        *agent = Tree::read(&dir).unwrap();
        let is_gap =
            |(path, image): (&PathBuf, &Image)| path.starts_with(GAPS) && !frames(image).is_empty();
        assert!(agent.files.iter().any(is_gap), "nothing is declared");
        (self, hit)
    }

    /// Bits of the declared losses alone, where this is known to be lost: it stays declared.
    pub fn bits_of_gaps(&self, seed: u64, lost: &Hit) -> Vec<Bit> {
        let bits = self.bits(seed).into_iter();
        let gaps = bits.filter(|bit| bit.machine == Machine::Agent && bit.path.starts_with(GAPS));
        let of_the_loss = |bit| Bit {
            hit: Some(lost.clone()),
            promise: Promise::Declared,
            ..bit
        };
        gaps.map(of_the_loss).collect()
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
                // The newest by name, another, and where a life of the agent's log begins.
                let other = dice.below(paths.len() as u64) as usize;
                let begins = |path: &&&PathBuf| {
                    path.starts_with("wal")
                        && frames(&tree.files[**path])
                            .first()
                            .is_some_and(|frame| frame.first == 0)
                };
                let mut chosen = vec![paths[paths.len() - 1], paths[other]];
                chosen.extend(paths.iter().find(begins));
                chosen.sort();
                chosen.dedup();
                for path in chosen {
                    let mut later = paths.iter().filter(|other| **other > path);
                    let is_newest = !later.any(|other| life_of(other) == life_of(path));
                    let image = &tree.files[path];
                    for (region, offset, promise) in regions(path, image, is_newest, &mut dice) {
                        let hit = hit(machine, path, image, offset);
                        let entry = hit.as_ref().map(|hit| hit.frame.first);
                        let kind_of = hit.as_ref().map(|hit| &hit.kind);
                        let is_in_lake = kind_of == Some(&Kind::Journal)
                            && entry.is_some_and(|entry| entry < position);
                        let has_rules = kind_of == Some(&Kind::Wal) && entry == Some(0);
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
                            hit,
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
        carry_out(recording, &left, &|outcome| outcome.keeps(recording, bit))
    }
}

impl Outcome {
    /// Whether the promise of that bit is kept. Each excuse is held against its cause: what is lost
    /// or doubled was in the frame of the bit, and a loss is declared for that.
    pub fn keeps(&self, recording: &Recording, bit: &Bit) -> bool {
        let within = self.is_within(recording, bit);
        let is_told = self.wrong.is_none() && self.is_declared(bit);
        let agrees = self.audit_agrees(bit);
        match bit.promise {
            Promise::Whole => agrees && self.is_clean_but_for_the_audit(),
            Promise::Declared => is_told && within && self.doubled + self.altered == 0 && agrees,
            Promise::InLake => {
                // Once the ledger's checkpoints are past it, nobody needs the segment any more.
                let is_gone = bit
                    .path
                    .file_name()
                    .is_none_or(|it| !self.journal.contains(it));
                is_told
                    && within
                    && self.doubled + self.altered == 0
                    && (is_gone || !self.audit.is_empty())
            }
            Promise::Rules => {
                let is_once = self.doubled + self.altered == 0;
                self.is_started && is_once && self.lost <= self.letters && agrees
            }
            Promise::LastFrame if self.is_started => within && self.altered == 0 && agrees,
            Promise::LastFrame => {
                // Only what the lake knows better than a journal: and the audit says it, too.
                let is_journal = bit.hit.as_ref().is_some_and(Hit::is_of_the_journal);
                is_journal && self.is_refused("log_rolled_back") && !self.audit.is_empty()
            }
            Promise::Intent => self.is_clean(),
            Promise::Lake => self.is_started && (self.is_clean() || self.is_named(bit)),
        }
    }

    /// Whether the audit finds nothing but the damage itself. A damaged journal is one, with what
    /// the lake declares of it and what nobody can compare any more.
    fn audit_agrees(&self, bit: &Bit) -> bool {
        let is_journal = bit.hit.as_ref().is_some_and(Hit::is_of_the_journal);
        let names_it = |finding: &String| bit.is_named_in(finding);
        self.audit.iter().all(names_it) || is_journal && self.is_named(bit)
    }

    /// Whether the audit names the damaged file.
    fn is_named(&self, bit: &Bit) -> bool {
        self.audit.iter().any(|finding| bit.is_named_in(finding))
    }

    /// Whether no more is lost or doubled than was in the frame of the bit, or needs it.
    fn is_within(&self, recording: &Recording, bit: &Bit) -> bool {
        let Some(hit) = &bit.hit else {
            return self.lost + self.doubled + self.altered + self.missing.told() == 0;
        };
        let rows = &recording.stored.rows;
        let numbers = hit.frame.numbers();
        let batches = self.missing.batches();
        let (limit, is_missing_there) = match &hit.kind {
            // A message is a reading.
            Kind::Wal => (hit.frame.count, batches.is_empty()),
            Kind::Spool(lane) => {
                let is_it = |(buffer, of, batch): &(&str, &str, i64)| {
                    *buffer == hit.life && of == lane && numbers.contains(batch)
                };
                let there = batches.iter().all(is_it);
                (rows.rows_of(&hit.life, lane, &numbers), there)
            }
            Kind::Journal => {
                let count = hit.frame.count + self.set_apart;
                (rows.rows_of_greatest(count), batches.len() as u64 <= count)
            }
            Kind::Other => (0, batches.is_empty()),
        };
        let is_set_apart_there = self.set_apart == 0 || hit.kind == Kind::Journal;
        let alerts = self.missing.alerts.len() as u64;
        is_missing_there && is_set_apart_there && self.lost.max(self.doubled).max(alerts) <= limit
    }

    /// Whether what is declared lost is what the bit was in, and all that is lost is declared.
    fn is_declared(&self, bit: &Bit) -> bool {
        let is_of_it = |loss: &Loss| {
            let Some(hit) = &bit.hit else {
                return false;
            };
            let numbers = hit.frame.numbers();
            let is_in = numbers.start <= loss.first && loss.first + loss.count <= numbers.end;
            match &hit.kind {
                Kind::Wal => loss
                    .readings
                    .is_none_or(|readings| readings <= hit.frame.count as i64),
                Kind::Spool(lane) => loss.buffer == hit.life && loss.lane == *lane && is_in,
                Kind::Journal => loss.lane.is_empty() && is_in,
                Kind::Other => false,
            }
        };
        // A batch whose declaration is lost, and its messages are not: they are sealed again, under
        // another name.
        let rows_gone = match bit.path.starts_with(GAPS) {
            true => self.missing.told() > 0,
            false => !self.missing.rows.is_empty(),
        };
        let is_gone = self.lost > 0 || rows_gone;
        let has_unknown = self.losses.iter().any(|loss| loss.readings.is_none());
        let is_enough = has_unknown || self.set_apart > 0 || self.lost <= self.declared();
        let is_said = !is_gone || !self.losses.is_empty() || self.set_apart > 0;
        self.losses.iter().all(is_of_it) && is_said && is_enough
    }

    fn is_refused(&self, word: &str) -> bool {
        self.wrong
            .as_ref()
            .is_some_and(|wrong| wrong.contains(word))
    }
}

impl Hit {
    fn is_of_the_journal(&self) -> bool {
        self.kind == Kind::Journal
    }
}

impl Bit {
    fn is_named_in(&self, finding: &str) -> bool {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| finding.contains(name))
    }
}

impl Frame {
    /// The numbers of its entries.
    fn numbers(&self) -> std::ops::Range<i64> {
        self.first as i64..(self.first + self.count) as i64
    }
}

/// The frame that this byte of a segment is in.
fn hit(machine: Machine, path: &Path, image: &Image, offset: u64) -> Option<Hit> {
    let frame = frames(image)
        .into_iter()
        .rfind(|frame| frame.at <= offset)?;
    let mut parts = path.iter().filter_map(|part| part.to_str());
    let kind = match (machine, parts.next(), parts.next()) {
        (Machine::Agent, Some("wal"), _) => Kind::Wal,
        (Machine::Agent, Some("spool"), Some("gaps")) => Kind::Other,
        (Machine::Agent, Some("spool"), Some(lane)) => Kind::Spool(lane.to_owned()),
        (Machine::Aggregator, Some("journal"), _) => Kind::Journal,
        _ => Kind::Other,
    };
    Some(Hit {
        kind,
        life: life_of(path)?.to_owned(),
        frame,
    })
}

fn flip(tree: &mut Tree, bit: &Bit) {
    let image = tree.files.get_mut(&bit.path).expect("a file that is there");
    flip_at(image, bit.offset, bit.bit);
}

fn flip_at(image: &mut Image, offset: u64, bit: u8) {
    let page = image.pages.entry(offset / PAGE_BYTES as u64);
    let page = page.or_insert_with(|| Arc::new([0; PAGE_BYTES]));
    Arc::make_mut(page)[(offset % PAGE_BYTES as u64) as usize] ^= 1 << bit;
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
        _ => Promise::Whole,
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
    // What lies there twice is all there, the last frame of a life too.
    let is_twice = path.starts_with("spool/series") || path.starts_with("spool/series-copy");
    let Some(last) = frames.len().checked_sub(1) else {
        return found;
    };
    let mut places = vec![0, dice.below(frames.len() as u64) as usize, last];
    places.dedup();
    for place in places {
        let Frame { at, bytes, .. } = frames[place];
        let promise = match is_newest && place == last {
            _ if is_twice => Promise::Whole,
            true => Promise::LastFrame,
            false => Promise::Declared,
        };
        found.push(("frame's header", at + dice.below(FRAME_HEAD_BYTES), promise));
        let inside = at + FRAME_HEAD_BYTES + dice.below(bytes.max(1));
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

/// Every entry of the journal below is in the lake: what its markers of finished flushes say.
fn lake_position(aggregator: &Tree) -> u64 {
    let ends = aggregator.files.keys().filter_map(|path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".done")?;
        name.rsplit_once('-')?.1.parse().ok()
    });
    ends.max().unwrap_or(0)
}

/// Where the frames of a segment are, and how long their payloads: docs/storage.md, Frame.
pub fn frames(image: &Image) -> Vec<Frame> {
    let salt = u64::from_le_bytes(bytes_at(image, 40));
    let mark = u32::from_le_bytes(*b"TFRM") ^ (salt >> 32) as u32;
    let (mut at, mut found) = (HEADER_BYTES, Vec::new());
    while at + FRAME_HEAD_BYTES < image.bytes {
        if u32::from_le_bytes(bytes_at(image, at)) != mark {
            break;
        }
        let bytes = u64::from(u32::from_le_bytes(bytes_at(image, at + 8)));
        found.push(Frame {
            at,
            bytes,
            first: u64::from_le_bytes(bytes_at(image, at + 16)),
            count: u64::from(u32::from_le_bytes(bytes_at(image, at + 12))),
        });
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
            again: None,
        }
    }
}
