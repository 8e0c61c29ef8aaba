//! The dead letters in a data directory, read beside the agent that may be running on it: without
//! its lock, and without changing anything.

use super::put_back::{Done, LetterId, LetterRange};
use super::{Letter, OpenError, Tally, dropped};
use crate::checkpoint::Checkpoint;
use crate::decode::Filter;
use crate::limits::{LETTERS_READ, WAL_SEGMENT_BYTES};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_journal::{
    CheckpointError, Checkpoints, Entry, LifeId, Log, LogConfig, LogError, LogKind, LogReader,
    Open, OsDisk, ReadOnlyDisk,
};

/// How often a look is tried anew because the agent removed what was being looked at.
const TRIES: u32 = 8;

/// Which letters.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Those with one of these words for their reason; empty: any.
    pub reasons: Vec<String>,
    /// Those on these topics.
    pub topic: Option<Filter>,
    /// Exactly these; empty: any.
    pub ids: Vec<LetterId>,
    /// No more than this.
    pub limit: Option<usize>,
    /// The oldest first, instead of the newest.
    pub oldest_first: bool,
}

impl Selection {
    fn takes(&self, id: LetterId, letter: &Letter<'_>) -> bool {
        let reason = self.reasons.is_empty() || self.reasons.iter().any(|r| r == letter.word);
        let named = self.ids.is_empty() || self.ids.contains(&id);
        let topic = self.topic.as_ref();
        reason && named && topic.is_none_or(|filter| filter.is_for(letter.topic))
    }
}

/// Why there is nothing to be seen.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// No agent was ever here.
    #[error(
        "{}: no agent's data is there; name its folder with --data-dir or --config",
        dir.display()
    )]
    NoData {
        /// The directory.
        dir: PathBuf,
    },
    /// The letters can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The checkpoints can't be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// What was given up can't be read.
    #[error(transparent)]
    Dropped(#[from] OpenError),
}

/// What a walk through the letters could not show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unseen {
    /// Gone while they were looked for: the agent made room.
    pub gone: u64,
    /// Damaged.
    pub unreadable: u64,
}

/// A look at a data directory.
#[derive(Debug)]
pub struct View {
    letters: LogReader,
    done: Done,
    dropped: Option<Tally>,
}

impl View {
    /// Looks at the letters in `data_dir`.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn open(data_dir: &Path) -> Result<Self, ViewError> {
        let dir = data_dir.join("deadletter");
        if !dir.is_dir() {
            let dir = data_dir.to_owned();
            return Err(ViewError::NoData { dir });
        }
        let disk = Arc::new(ReadOnlyDisk::new(Arc::new(OsDisk)));
        let mut tries = 0;
        let letters = loop {
            let config = LogConfig {
                segment_bytes: WAL_SEGMENT_BYTES,
                quota_bytes: u64::MAX,
                reserve_bytes: 0,
                kind: LogKind::DeadLetter,
            };
            let how = Open::SameLife {
                if_empty: LifeId([0; 16]),
            };
            match Log::open(disk.clone(), &dir, config, how) {
                Ok(opened) => break opened.reader,
                // A segment went between its name and its header.
                Err(LogError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound && tries < TRIES =>
                {
                    tries += 1;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let dropped = dropped::look(disk.clone(), &dir)?;
        let checkpoints = Checkpoints::open(disk, &data_dir.join("checkpoint"), "agent")?;
        let held = checkpoints.newest();
        let read = held.and_then(|held| Checkpoint::read(&held.body).ok());
        Ok(Self {
            letters,
            done: read
                .map(|checkpoint| checkpoint.put_back)
                .unwrap_or_default(),
            dropped,
        })
    }

    /// What was given up for lack of room, since the agent was first started here.
    pub fn dropped(&self) -> Option<Tally> {
        self.dropped
    }

    /// Whether a letter was put back, as far as the newest checkpoint knows.
    pub fn was_put_back(&self, id: LetterId) -> bool {
        self.done.holds(id)
    }

    /// Shows the selected letters to `each`, until it breaks.
    pub fn walk(
        &self,
        selection: &Selection,
        mut each: impl FnMut(LetterId, &Letter<'_>) -> ControlFlow<()>,
    ) -> Unseen {
        let mut unseen = Unseen::default();
        let mut left = selection.limit.unwrap_or(usize::MAX);
        for (life, numbers) in self.pieces(selection.oldest_first) {
            let mut entries = self.piece(life, numbers, &mut unseen);
            if !selection.oldest_first {
                entries.reverse();
            }
            for entry in entries {
                let id = LetterId {
                    life: entry.life,
                    number: entry.number,
                };
                let Some(letter) = Letter::read(&entry.bytes) else {
                    unseen.unreadable += 1;
                    continue;
                };
                if !selection.takes(id, &letter) {
                    continue;
                }
                if left == 0 || each(id, &letter).is_break() {
                    return unseen;
                }
                left -= 1;
            }
        }
        unseen
    }

    /// The selected letters' names, those side by side together.
    pub fn ranges(&self, selection: &Selection) -> (Vec<LetterRange>, Unseen) {
        let mut ids = Vec::new();
        let unseen = self.walk(selection, |id, _| {
            ids.push(id);
            ControlFlow::Continue(())
        });
        ids.sort_unstable();
        let mut ranges: Vec<(LifeId, Range<u64>)> = Vec::new();
        for id in ids {
            match ranges.last_mut() {
                Some((life, numbers)) if *life == id.life && numbers.end == id.number => {
                    numbers.end += 1;
                }
                _ => ranges.push((id.life, id.number..id.number + 1)),
            }
        }
        let ranges = ranges.into_iter();
        (
            ranges
                .map(|(life, numbers)| LetterRange::new(life, numbers))
                .collect(),
            unseen,
        )
    }

    /// All letters, a bounded number at a time.
    fn pieces(&self, oldest_first: bool) -> Vec<(LifeId, Range<u64>)> {
        let mut pieces = Vec::new();
        for span in self.letters.lives() {
            let mut first = span.first;
            while first < span.end {
                let end = (first + LETTERS_READ).min(span.end);
                pieces.push((span.life, first..end));
                first = end;
            }
        }
        if !oldest_first {
            pieces.reverse();
        }
        pieces
    }

    fn piece(&self, life: LifeId, mut numbers: Range<u64>, unseen: &mut Unseen) -> Vec<Entry> {
        let mut all = Vec::new();
        while !numbers.is_empty() {
            let mut entries = Vec::new();
            match self.letters.read(life, numbers.start, 1, &mut entries) {
                Ok(()) => {
                    let Some(last) = entries.last() else {
                        break;
                    };
                    numbers.start = last.number + 1;
                    all.append(&mut entries);
                }
                Err(error) => {
                    let end = match &error {
                        LogError::Damaged { numbers: bad, .. } => bad.end.max(numbers.start + 1),
                        LogError::Trimmed { first, .. } => (*first).max(numbers.start + 1),
                        _ => numbers.end,
                    };
                    let end = end.min(numbers.end);
                    let count = end - numbers.start;
                    match self.is_held(life, numbers.start) {
                        true => unseen.unreadable += count,
                        false => unseen.gone += count,
                    }
                    numbers.start = end;
                }
            }
        }
        all
    }

    /// Whether the file that held a letter is still there.
    fn is_held(&self, life: LifeId, number: u64) -> bool {
        let segments = self.letters.segments();
        let mut of = segments
            .iter()
            .filter(|s| s.life == life && s.first <= number);
        of.next_back().is_some_and(|segment| segment.path.exists())
    }
}
