//! Opening a log: which segments there are, where each life ends, and what is damaged.
//!
//! Reads every header, and scans the newest segment of each life only: an older one ends where
//! the next one's header says it begins. Believes only what is durable. Never refuses for damage;
//! never appends to what it found. The rules are in `docs/storage.md`, "Recovery".

use crate::disk::{Disk, DiskFile, read_surely};
use crate::limits::{DAMAGES_MAX, SEGMENT_HEADER_BYTES, SPARES_SHORT_MAX};
use crate::log::format::{HeaderFault, SegmentHeader, parse_segment_name, segment_name};
use crate::log::quarantine;
use crate::log::scan::{Behind, Scan};
use crate::log::settle::{Last, settle};
use crate::log::state::{Segment, SegmentKey, Shared, State, parse_spare_name};
use crate::log::{Damage, LifeId, LogConfig, LogError, Open, Recovery};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use tributary_planted::planted;

/// A segment without a readable header: nothing in it can be verified.
struct Headless {
    key: SegmentKey,
    bytes: u64,
}

/// What the names and headers in a directory say.
#[derive(Default)]
struct Found {
    segments: BTreeMap<SegmentKey, Segment>,
    headless: Vec<Headless>,
    spares: Vec<String>,
    next_spare: u64,
}

impl Found {
    /// All segments, with a readable header or without.
    fn names(&self) -> BTreeSet<SegmentKey> {
        let headless = self.headless.iter().map(|headless| headless.key);
        self.segments.keys().copied().chain(headless).collect()
    }

    /// Whether readers meet what is missing between two segments here: one with a header stands
    /// before it, and behind it one, or the end of the life that goes on.
    fn is_met(&self, (life, first): SegmentKey, goes_on: bool) -> bool {
        let before = self.segments.range((life, 0)..(life, first)).next();
        let after = self.segments.range(behind(life, first)).next();
        before.is_some() && (goes_on || after.is_some())
    }
}

pub(crate) fn recover(
    disk: Arc<dyn Disk>,
    dir: &Path,
    config: LogConfig,
    open: Open,
) -> Result<(Shared, Recovery), LogError> {
    disk.create_dir_all(dir)
        .map_err(|error| LogError::io("making", dir, error))?;
    let mut found = read_headers(&*disk, dir, &config)?;
    let going_on = choose_life(&found, open)?;
    let mut recovery = Recovery::default();
    end_where_next_begins(&mut found);
    let floor = set_headless_aside(&*disk, dir, &found, going_on, &mut recovery);
    let mut lives: Vec<LifeId> = found.segments.keys().map(|(life, _)| *life).collect();
    lives.dedup();
    for life in lives {
        scan_newest(
            &*disk,
            dir,
            life,
            life == going_on,
            &mut found,
            &mut recovery,
        )?;
    }
    let mut newest = found
        .segments
        .range_mut((going_on, 0)..=(going_on, u64::MAX))
        .next_back();
    let next = newest
        .as_ref()
        .map_or(0, |(_, segment)| segment.end)
        .max(floor);
    if let Some((_, segment)) = newest.as_mut() {
        // Numbers that a lost segment may have used are not given again; they read as damaged.
        segment.end = next;
    }
    let Found {
        segments,
        spares,
        next_spare,
        ..
    } = found;
    let state = State {
        segments,
        spares,
        next_spare,
        names_unsynced: false,
        waiting: None,
        life: going_on,
        next,
        short: false,
    };
    let shared = Shared::new(disk, dir, config, state);
    prepare(&shared)?;
    recovery.lives = shared.lock().lives();
    Ok((shared, recovery))
}

fn read_headers(disk: &dyn Disk, dir: &Path, config: &LogConfig) -> Result<Found, LogError> {
    let names = disk
        .list(dir)
        .map_err(|error| LogError::io("listing", dir, error))?;
    let mut found = Found::default();
    for name in names {
        if let Some(number) = parse_spare_name(&name) {
            found.next_spare = found.next_spare.max(number.saturating_add(1));
            keep_spare(disk, dir, name, config, &mut found.spares)?;
        } else if let Some(key) = parse_segment_name(&name) {
            read_header(disk, dir, key, config, &mut found)?;
        }
    }
    Ok(found)
}

/// Keeps a spare segment of the right size, and removes any other.
fn keep_spare(
    disk: &dyn Disk,
    dir: &Path,
    name: String,
    config: &LogConfig,
    spares: &mut Vec<String>,
) -> Result<(), LogError> {
    let path = dir.join(&name);
    let bytes = disk.open(&path).and_then(|file| file.len());
    let right = bytes.is_ok_and(|bytes| bytes == config.segment_bytes);
    if right && spares.len() < SPARES_SHORT_MAX {
        spares.push(name);
        return Ok(());
    }
    disk.remove(&path)
        .map_err(|error| LogError::io("removing", &path, error))
}

fn read_header(
    disk: &dyn Disk,
    dir: &Path,
    key: SegmentKey,
    config: &LogConfig,
    found: &mut Found,
) -> Result<(), LogError> {
    let path = dir.join(segment_name(key.0, key.1));
    let opened = disk.open(&path).and_then(|file| Ok((file.len()?, file)));
    let (bytes, file) = opened.map_err(|error| LogError::io("opening", &path, error))?;
    let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
    // A page that cannot be read is a damaged one.
    let read = read_surely(&*file, &mut page, 0).unwrap_or(0);
    match SegmentHeader::decode(page.get(..read).unwrap_or_default()) {
        Err(HeaderFault::Newer(version)) => Err(LogError::NewerVersion { path, version }),
        Ok(header) if header.kind != config.kind.code() => Err(LogError::Foreign {
            path,
            kind: header.kind,
            expected: config.kind,
        }),
        Ok(header) if (header.life, header.first) == key => {
            let segment = Segment {
                bytes,
                end: key.1,
                limit: bytes,
                key: header.key(),
                created_us: header.created_us,
                index: Vec::new(),
                failed: false,
                settled: bytes < header.segment_bytes,
            };
            found.segments.insert(key, segment);
            Ok(())
        }
        Ok(_) | Err(HeaderFault::Damaged) => {
            found.headless.push(Headless { key, bytes });
            Ok(())
        }
    }
}

fn choose_life(found: &Found, open: Open) -> Result<LifeId, LogError> {
    let headless = found.headless.iter().map(|headless| headless.key.0);
    let mut lives = found.segments.keys().map(|(life, _)| *life).chain(headless);
    match open {
        Open::NewLife(life) if lives.any(|held| held == life) => Err(LogError::LifeExists { life }),
        Open::NewLife(life) => Ok(life),
        Open::SameLife { if_empty } => Ok(lives.max().unwrap_or(if_empty)),
    }
}

/// The next segment with a header says where one ends: what is missing between them is read as
/// damaged. Behind the last one even a name without a header does.
fn end_where_next_begins(found: &mut Found) {
    let names = found.names();
    let mut next: Option<SegmentKey> = None;
    for ((life, first), segment) in found.segments.iter_mut().rev() {
        let name = || names.range(behind(*life, *first)).next().copied();
        if let Some((_, end)) = next.filter(|(of, _)| of == life).or_else(name) {
            segment.end = end;
        }
        next = Some((*life, *first));
    }
}

/// The keys of that life's segments behind the one that begins at `first`.
fn behind(life: LifeId, first: u64) -> RangeInclusive<SegmentKey> {
    (life, first.saturating_add(1))..=(life, u64::MAX)
}

/// Reports segments without a header and moves them to quarantine. One at the end of the life
/// that goes on stays where it is until a segment behind it exists: its name is what keeps its
/// numbers from being given again. Returns the number from which that life must go on.
fn set_headless_aside(
    disk: &dyn Disk,
    dir: &Path,
    found: &Found,
    going_on: LifeId,
    recovery: &mut Recovery,
) -> u64 {
    let mut floor = 0;
    // Those that an open before this one moved aside, and that no reader meets: its caller may
    // have ended before it could declare them.
    quarantine::unmet(disk, dir)
        .into_iter()
        .for_each(|damage| note(recovery, damage));
    let names = found.names();
    for Headless { key, bytes } in &found.headless {
        let (life, first) = *key;
        let goes_on = life == going_on;
        let next = names.range(behind(life, first)).next();
        let end = match next {
            Some((_, next)) => *next,
            // An entry takes two bytes at least, so it held at most that many numbers.
            None if goes_on => first.saturating_add(*bytes / 2),
            None => first,
        };
        let damage = Damage {
            life,
            numbers: first..end,
            segment: segment_name(life, first),
            offset: 0,
            bytes: *bytes,
        };
        if goes_on && next.is_none() {
            floor = floor.max(end);
        } else if let Err(error) = quarantine::take(disk, dir, &damage, found.is_met(*key, goes_on))
        {
            let (log, segment) = (dir.display(), &damage.segment);
            tracing::warn!(%log, segment, %error, "a damaged segment could not be moved aside");
        }
        note(recovery, damage);
    }
    floor
}

fn note(recovery: &mut Recovery, damage: Damage) {
    let Damage {
        life,
        numbers,
        segment,
        offset,
        bytes,
    } = &damage;
    tracing::warn!(%life, ?numbers, segment, offset, bytes, "damage in a log");
    if recovery.damage.len() < DAMAGES_MAX {
        recovery.damage.push(damage);
    }
}

/// What scanning a segment to its end found.
struct Scanned {
    end: u64,
    limit: u64,
    torn_bytes: u64,
    /// The rest is ours and not readable: it must not be cut off.
    keep_tail: bool,
    last: Last,
    damage: Vec<Damage>,
}

fn scan_newest(
    disk: &dyn Disk,
    dir: &Path,
    life: LifeId,
    goes_on: bool,
    found: &mut Found,
    recovery: &mut Recovery,
) -> Result<(), LogError> {
    let names = found.names();
    let segments = &mut found.segments;
    let mut of_life = segments.range_mut((life, 0)..=(life, u64::MAX));
    let Some((key, segment)) = of_life.next_back() else {
        return Ok(());
    };
    let (key, alone) = (*key, of_life.next_back().is_none());
    if names.range(behind(life, key.1)).next().is_some() {
        // A successor without a header: where this one ends is known all the same.
        return Ok(());
    }
    let name = segment_name(life, key.1);
    let path = dir.join(&name);
    let file = disk
        .open(&path)
        .map_err(|error| LogError::io("opening", &path, error))?;
    let scanned = scan(&*file, key, segment, &name);
    if (!segment.settled || scanned.keep_tail) && !planted!(Blind6) {
        let settled = settle(&*file, segment.key, &scanned.last);
        settled.map_err(|error| LogError::io("making durable the end of", &path, error))?;
    }
    segment.end = scanned.end;
    segment.limit = scanned.limit;
    recovery.torn_bytes += scanned.torn_bytes;
    for damage in &scanned.damage {
        quarantine::copy(disk, dir, &name, &*file, damage.offset, damage.bytes);
        note(recovery, damage.clone());
    }
    // Alone, it says nothing; behind others, or where numbering goes on, it says where.
    if scanned.end == key.1 && scanned.damage.is_empty() && alone && !goes_on {
        disk.remove(&path)
            .map_err(|error| LogError::io("removing", &path, error))?;
        segments.remove(&key);
    } else if !scanned.keep_tail && scanned.limit < segment.bytes {
        // Never written to again: give back what was preallocated. Not durable, and need not be.
        let cut = file.truncate(scanned.limit);
        cut.map_err(|error| LogError::io("shortening", &path, error))?;
        segment.bytes = scanned.limit;
    }
    Ok(())
}

/// Walks the frames of the newest segment of a life, and fills its index.
fn scan(
    file: &dyn DiskFile,
    (life, first): SegmentKey,
    segment: &mut Segment,
    name: &str,
) -> Scanned {
    let mut scan = Scan::new(file, segment.key, segment.bytes);
    let mut found = Scanned {
        end: first,
        limit: SEGMENT_HEADER_BYTES,
        torn_bytes: 0,
        keep_tail: false,
        last: Last::Nothing,
        damage: Vec::new(),
    };
    let damage = |numbers, offset, bytes| Damage {
        life,
        numbers,
        segment: name.to_owned(),
        offset,
        bytes,
    };
    let mut at = SEGMENT_HEADER_BYTES;
    loop {
        let frame = scan
            .frame_at(at)
            .filter(|frame| frame.header.first >= found.end);
        let frame = match frame {
            Some(frame) => frame,
            None => match scan.behind(at, found.end) {
                Behind::Frame(frame) => frame,
                Behind::Header { at: torn, header } => {
                    let numbers = found.end..header.first;
                    found.damage.push(damage(numbers, at, torn - at));
                    found.end = header.first;
                    found.limit = torn;
                    found.torn_bytes = header.frame_bytes();
                    found.keep_tail = true;
                    found.last = Last::Header { at: torn, header };
                    return found;
                }
                Behind::Nothing if scan.unreadable => {
                    let unknown = found.end..found.end;
                    found
                        .damage
                        .push(damage(unknown, at, segment.bytes.saturating_sub(at)));
                    found.keep_tail = true;
                    return found;
                }
                Behind::Nothing => {
                    found.torn_bytes = scan.header_at(at).map_or(0, |torn| torn.frame_bytes());
                    return found;
                }
            },
        };
        if frame.at > at || frame.header.first > found.end {
            found
                .damage
                .push(damage(found.end..frame.header.first, at, frame.at - at));
        }
        segment.mark(frame.header.first, frame.at);
        found.end = frame.header.end();
        at = frame.next_at();
        found.limit = at;
        found.last = Last::Frame(frame);
    }
}

/// Has a spare segment ready, so that a full disk shows before it is needed; opening does not
/// depend on that. Makes the names durable: where one segment ends is what the next one's says.
fn prepare(shared: &Shared) -> Result<(), LogError> {
    let mut state = shared.lock();
    if state.spares.is_empty()
        && let Err(error) = shared.make_spare(&mut state)
    {
        let log = shared.dir.display();
        tracing::warn!(%log, %error, "no segment could be prepared");
    }
    let synced = shared.disk.sync_dir(&shared.dir);
    synced.map_err(|error| LogError::io("syncing the names in", &shared.dir, error))
}
