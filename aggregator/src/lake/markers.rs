//! Intents and done markers: their names, what is in them, and how progress follows from their
//! names alone. Pure; [`commit`](super::commit) puts and reads them.

use super::LakeError;
use super::file::LaneSum;
use serde::{Deserialize, Serialize};
use tributary_protocol::ids::{BatchHash, HashSum, LogId};

/// The layout of [`Intent`] and [`Done`]; fields are only added.
pub const MARKER_VERSION: u32 = 1;

/// A file that a flush writes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path below the lake.
    pub path: String,
    /// How many rows it has.
    pub rows: u64,
    /// Their digest.
    pub digest: String,
}

/// What a flush is going to write. It fixes the end before anything else is visible.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Intent {
    /// The layout.
    pub version: u32,
    /// The journal.
    pub log: String,
    /// First entry.
    pub first: u64,
    /// One past the last entry.
    pub end: u64,
    /// What made it.
    pub software: String,
    /// The files.
    pub files: Vec<FileEntry>,
}

/// What stands between what a marker says and its checksum, which ends it.
const CHECK: &str = ",\"check\":\"";

/// A marker as text that ends with its checksum: BLAKE3 over all before it. An earlier version
/// reads it as it reads any text with one field more.
pub fn to_text<T: Serialize + Marked>(marker: &T) -> Vec<u8> {
    let mut text = serde_json::to_vec(marker).expect("a marker has only strings and numbers");
    let check = BatchHash::of(text.strip_suffix(b"}").unwrap_or(&text));
    text.truncate(text.len().saturating_sub(1));
    text.extend_from_slice(format!("{CHECK}{check}\"}}").as_bytes());
    text
}

impl Intent {
    /// Reads an intent of the flush that begins at `first`.
    ///
    /// # Errors
    /// [`LakeError::Marker`] when it is another's, or of a later layout.
    pub fn read(path: &str, text: &[u8], (log, first): (LogId, u64)) -> Result<Told, LakeError> {
        let check = checked(text);
        if check == Some(false) {
            return Ok(Told::Damaged("its checksum is wrong".to_owned()));
        }
        let intent: Self = match parse(path, text, log) {
            Ok(intent) => intent,
            // As it was written: then it is not ours, and no damage.
            Err(error) if check == Some(true) => return Err(error),
            Err(error) => return Ok(Told::Damaged(error.to_string())),
        };
        let Self {
            first: says, end, ..
        } = intent;
        if says != first || end <= first {
            return Ok(Told::Damaged(format!("it names the entries {says}..{end}")));
        }
        Ok(match check {
            Some(_) => Told::Surely(intent),
            None => Told::Perhaps(intent),
        })
    }
}

/// Whether a text is what its checksum says; nothing where it has none.
fn checked(text: &[u8]) -> Option<bool> {
    let check = text.len().checked_sub(CHECK.len() + 66)?;
    let (said, check) = text.split_at_checked(check)?;
    let check = check.strip_prefix(CHECK.as_bytes())?.strip_suffix(b"\"}")?;
    Some(BatchHash::of(said).to_string().as_bytes() == check)
}

/// What the text of an intent tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// This; its checksum says so.
    Surely(Intent),
    /// This, unless a bit has flipped: it has no checksum, as those of earlier versions.
    Perhaps(Intent),
    /// Nothing, and why.
    Damaged(String),
}

/// What a flush, or a row of flushes folded into one marker, has written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Done {
    /// The layout.
    pub version: u32,
    /// The journal.
    pub log: String,
    /// First entry.
    pub first: u64,
    /// One past the last entry.
    pub end: u64,
    /// How many batches were in it, series included.
    pub batches: u64,
    /// How many readings.
    pub rows: u64,
    /// Hash sum of the batches, 32 hexadecimal digits.
    pub hash_sum: String,
    /// The same by lane; empty once folded: the files' footers have it.
    pub lanes: Vec<LaneSum>,
    /// How many files.
    pub files: u64,
}

impl Done {
    /// Reads a done marker; those of earlier versions have no checksum.
    ///
    /// # Errors
    /// [`LakeError::Marker`] when it is damaged, another's, or of a later layout.
    pub fn read(path: &str, text: &[u8], log: LogId) -> Result<Self, LakeError> {
        if checked(text) == Some(false) {
            return Err(LakeError::Marker {
                path: path.to_owned(),
                reason: "its checksum is wrong".to_owned(),
            });
        }
        parse(path, text, log)
    }

    fn sum(&self) -> HashSum {
        HashSum(u128::from_str_radix(&self.hash_sum, 16).unwrap_or(0))
    }

    /// Both as one, if `next` begins where this ends.
    pub fn fold(&self, next: &Self) -> Option<Self> {
        (self.end == next.first && self.log == next.log).then(|| Self {
            version: MARKER_VERSION,
            log: self.log.clone(),
            first: self.first,
            end: next.end,
            batches: self.batches + next.batches,
            rows: self.rows + next.rows,
            hash_sum: format!("{:032x}", self.sum().and(next.sum()).0),
            lanes: Vec::new(),
            files: self.files + next.files,
        })
    }
}

/// The folder of a journal's markers.
pub fn folder(log: LogId) -> String {
    format!("_tributary/{log}")
}

/// Where the intent of the flush that begins at `first` lies.
pub fn intent_path(log: LogId, first: u64) -> String {
    format!("{}/{first:020}.intent", folder(log))
}

/// Where the done marker of `[first, end)` lies.
pub fn done_path(log: LogId, first: u64, end: u64) -> String {
    format!("{}/{first:020}-{end:020}.done", folder(log))
}

/// What a file in the markers' folder is, by its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MarkerName {
    /// An intent that begins here.
    Intent(u64),
    /// A done marker of these entries.
    Done(u64, u64),
}

impl MarkerName {
    /// The marker with this file name, if it is one.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(first) = name.strip_suffix(".intent") {
            return number(first).map(Self::Intent);
        }
        let (first, end) = name.strip_suffix(".done")?.split_once('-')?;
        let (first, end) = (number(first)?, number(end)?);
        (first < end).then_some(Self::Done(first, end))
    }
}

fn number(text: &str) -> Option<u64> {
    (text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// How far a lake has come, as its markers tell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Everything below is in the lake.
    pub position: u64,
    /// The chain of done markers up to it.
    pub chain: Vec<(u64, u64)>,
    /// A flush that begins at the position was begun and not finished.
    pub open: bool,
    /// Markers that no longer say anything.
    pub obsolete: Vec<MarkerName>,
}

/// Progress from the markers' names: from 0, always the longest step that begins where the last one
/// ended. A folded marker is such a longest step; those that it replaced are obsolete.
pub fn progress(names: &[MarkerName]) -> Progress {
    let mut found = Progress::default();
    loop {
        let from = found.position;
        let steps = names.iter().filter_map(|name| match name {
            MarkerName::Done(first, end) if *first == from => Some(*end),
            _ => None,
        });
        let Some(end) = steps.max() else { break };
        found.chain.push((from, end));
        found.position = end;
    }
    found.open = names.contains(&MarkerName::Intent(found.position));
    let said = |name: &MarkerName| match name {
        MarkerName::Intent(first) => *first >= found.position,
        MarkerName::Done(first, end) => {
            *end > found.position || found.chain.contains(&(*first, *end))
        }
    };
    found.obsolete = names.iter().filter(|name| !said(name)).copied().collect();
    found
}

/// Reads a marker's text.
///
/// # Errors
/// [`LakeError::Marker`] when it is not one of this journal, or of a later layout.
pub fn parse<'a, T>(path: &str, text: &'a [u8], log: LogId) -> Result<T, LakeError>
where
    T: Deserialize<'a> + Marked,
{
    let wrong = |reason: String| LakeError::Marker {
        path: path.to_owned(),
        reason,
    };
    let marker: T = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
    let (version, of) = marker.mark();
    if version > MARKER_VERSION {
        return Err(wrong(format!(
            "layout {version}, this build knows {MARKER_VERSION}"
        )));
    }
    if of != log.to_string() {
        return Err(wrong(format!("it belongs to journal {of}")));
    }
    Ok(marker)
}

/// What every marker says.
pub trait Marked {
    /// Layout and journal.
    fn mark(&self) -> (u32, &str);
}

impl Marked for Intent {
    fn mark(&self) -> (u32, &str) {
        (self.version, &self.log)
    }
}

impl Marked for Done {
    fn mark(&self) -> (u32, &str) {
        (self.version, &self.log)
    }
}

#[cfg(test)]
mod tests {
    use super::MarkerName::{Done, Intent};
    use super::*;

    #[test]
    fn names_come_back() {
        let log = LogId([7; 16]);
        let base = |path: String| path.rsplit_once('/').map(|(_, name)| name.to_owned());
        let intent = base(intent_path(log, 12)).and_then(|name| MarkerName::parse(&name));
        assert_eq!(intent, Some(Intent(12)));
        let done = base(done_path(log, 12, 90)).and_then(|name| MarkerName::parse(&name));
        assert_eq!(done, Some(Done(12, 90)));
        for bad in [
            "x.intent",
            "1.intent",
            "00000000000000000001.done",
            "notes.txt",
        ] {
            assert_eq!(MarkerName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn progress_is_the_chain_from_zero() {
        assert_eq!(progress(&[]).position, 0);
        assert!(progress(&[Intent(0)]).open);
        let chained = progress(&[Done(5, 9), Intent(9), Intent(0), Done(0, 5)]);
        assert_eq!((chained.position, chained.open), (9, true));
        assert_eq!(chained.obsolete, [Intent(0)]);
        let torn = progress(&[Done(5, 9)]);
        assert_eq!(
            torn.position, 0,
            "a step without the one before it is no progress"
        );
    }

    #[test]
    fn a_fold_replaces_what_it_covers_wherever_it_was_interrupted() {
        let all = [Done(0, 5), Done(5, 9), Done(9, 12), Done(0, 9), Intent(12)];
        for missing in [vec![], vec![Done(0, 5)], vec![Done(0, 5), Done(5, 9)]] {
            let left: Vec<_> = all
                .iter()
                .copied()
                .filter(|n| !missing.contains(n))
                .collect();
            let found = progress(&left);
            assert_eq!(found.position, 12);
            assert_eq!(found.chain, [(0, 9), (9, 12)]);
            assert!(!found.obsolete.contains(&Done(0, 9)));
        }
    }
}
