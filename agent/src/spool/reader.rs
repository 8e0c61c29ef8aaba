//! The spool as the uplink sees it: batches by name, and what leaves once it is acknowledged.

use super::gaps::Book;
use super::keeper::{SharedKeeper, first_held};
use super::shed::{gap_for, unknown_gap};
use super::twice::Stands;
use super::{CursorBody, LaneReader, lane_starts};
use crate::limits::{BATCH_READ_TRIES, SUSPECTS_MAX};
use crate::seal::Origin;
use std::collections::BTreeMap;
use tributary_journal::LogError;
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::{BatchKey, BufferId, Lane, LaneKey};
use tributary_protocol::session::{LaneStart, SenderCursor, Trim};
use tributary_uplink::{Save, Shed, Spool, SpoolError};

/// The spool as the uplink sees it.
#[derive(Debug)]
pub struct AgentSpool {
    pub(super) readers: BTreeMap<Lane, LaneReader>,
    keeper: SharedKeeper,
    pub(super) book: Book,
    /// Acknowledged since the cursor was handed on last.
    trims: BTreeMap<LaneKey, u64>,
    /// Batches that looked damaged, and how often.
    suspects: BTreeMap<BatchKey, u32>,
}

impl AgentSpool {
    pub(super) fn new(
        readers: BTreeMap<Lane, LaneReader>,
        keeper: SharedKeeper,
        book: Book,
    ) -> Self {
        Self {
            readers,
            keeper,
            book,
            trims: BTreeMap::new(),
            suspects: BTreeMap::new(),
        }
    }

    /// What is there, lane by lane; what was acknowledged is not said.
    pub fn lane_starts(&self) -> Vec<LaneStart> {
        lane_starts(&self.readers, &self.book, &CursorBody::default())
    }

    /// The end of what a lane's newest readable batch covers; of an older life when the newest has
    /// none. One that can be read another time is not passed over: its messages would be sealed
    /// again.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn newest_cover(&self, lane: Lane) -> Result<Option<Origin>, LogError> {
        let mut lives: BTreeMap<BufferId, (u64, u64)> = BTreeMap::new();
        let spans = self.readers.get(&lane).map(LaneReader::lives);
        let spans = spans.into_iter().flatten();
        let spans = spans.map(|span| (BufferId(span.life.0), span.first, span.end));
        let gaps = self.book.all().into_iter();
        let gaps = gaps.filter(|(key, _)| key.lane == lane);
        let gaps = gaps.map(|(key, numbers)| (key.buffer, numbers.start, numbers.end));
        for (buffer, first, end) in spans.chain(gaps) {
            let held = lives.entry(buffer).or_insert((first, end));
            *held = (held.0.min(first), held.1.max(end));
        }
        for (buffer, (first, end)) in lives.into_iter().rev() {
            let mut at = end;
            while at > first {
                at -= 1;
                let key = BatchKey {
                    buffer,
                    lane,
                    number: at,
                };
                let Some(batch) = self.read_surely(key)? else {
                    continue;
                };
                let ends = batch.covers().iter().map(Origin::behind);
                if let Some(end) = ends.max() {
                    return Ok(Some(end));
                }
                at = batch.numbers().start;
            }
        }
        Ok(None)
    }

    /// A batch, unless it is not there or looks damaged time after time: a disk that fails for a
    /// moment gives wrong bytes, too.
    fn read_surely(&self, key: BatchKey) -> Result<Option<SealedBatch>, LogError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.read_stored(key) {
                Ok(batch) => return Ok(Some(batch)),
                Err(ReadError::Missing) => return Ok(None),
                Err(_) if tries < BATCH_READ_TRIES => {}
                Err(ReadError::Damaged(_)) => return Ok(None),
                Err(ReadError::Disk(error)) => return Err(error),
            }
        }
    }

    fn read_stored(&self, key: BatchKey) -> Result<SealedBatch, ReadError> {
        if let Some(shed) = self.read_gap(key) {
            return shed;
        }
        let reader = self.readers.get(&key.lane).ok_or(ReadError::Missing)?;
        match reader.read(key) {
            Ok(Stands::Batch(batch)) => Ok(batch),
            Ok(Stands::Other(_, what)) => Err(ReadError::Damaged(what)),
            Ok(Stands::Nothing) => Err(ReadError::Missing),
            Err(LogError::Damaged { .. }) => Err(ReadError::Damaged("its frame".into())),
            // It may have been shed since.
            Err(LogError::Trimmed { .. }) => self.read_gap(key).unwrap_or(Err(ReadError::Missing)),
            Err(error) => Err(ReadError::Disk(error)),
        }
    }

    /// The gap that stands for a batch, if one does.
    fn read_gap(&self, key: BatchKey) -> Option<Result<SealedBatch, ReadError>> {
        let read = self.book.read(key)?;
        Some(read.map_err(|error| match error {
            LogError::Damaged { .. } => ReadError::Damaged("the gap that stands for it".into()),
            error => ReadError::Disk(error),
        }))
    }

    /// Whether a batch that looks damaged is to be read once more: a disk that fails for a moment
    /// gives wrong bytes, too, and a declared loss is for ever.
    fn may_pass(&mut self, key: BatchKey) -> bool {
        if self.suspects.len() >= SUSPECTS_MAX {
            self.suspects.clear();
        }
        let tries = self.suspects.entry(key).or_insert(0);
        *tries += 1;
        let may_pass = *tries < BATCH_READ_TRIES;
        if !may_pass {
            self.suspects.remove(&key);
        }
        may_pass
    }
}

/// Why a batch can't be read.
enum ReadError {
    /// Its bytes are not what was written.
    Damaged(String),
    /// It is not there.
    Missing,
    /// The disk, or the system, fails; it may be there another time.
    Disk(LogError),
}

impl Spool for AgentSpool {
    fn read(&mut self, key: BatchKey) -> Result<SealedBatch, SpoolError> {
        let failed = |reason: String, passing| SpoolError {
            key,
            reason,
            passing,
        };
        match self.read_stored(key) {
            Ok(batch) => Ok(batch),
            Err(ReadError::Disk(error)) => Err(failed(error.to_string(), true)),
            Err(ReadError::Missing) => Err(failed("it is not there".into(), false)),
            Err(ReadError::Damaged(what)) if self.may_pass(key) => Err(failed(what, true)),
            Err(ReadError::Damaged(what)) if key.lane == Lane::Series => {
                // Without its definitions nothing of the buffer can be named.
                Err(failed(format!("damaged: {what}"), false))
            }
            Err(ReadError::Damaged(what)) => {
                tracing::error!(%key, what, "a batch can't be read back: declared as a gap");
                metrics::counter!("tributary_agent_batches_damaged_total").increment(1);
                let gap = match self.book.numbers(key) {
                    // All that it stood for: nobody would ask for the others one by one.
                    Some(numbers) => unknown_gap(key.lane_key(), numbers),
                    None => gap_for(key, None),
                };
                gap.map_err(|error| failed(error.to_string(), false))
            }
        }
    }

    fn take_sheds(&mut self) -> Vec<Shed> {
        self.book.take_news()
    }

    fn trim(&mut self, trim: Trim) {
        self.book.acknowledge(trim.key, trim.below);
        self.trims.insert(trim.key, trim.below);
    }

    fn save(&mut self, cursor: &SenderCursor) -> Save {
        let body = CursorBody {
            sender: cursor.clone(),
            ..CursorBody::default()
        };
        for (key, below) in self.book.all_acked() {
            let held = first_held(&self.readers, &self.book, key).unwrap_or(below)..below;
            if let Some(first) = body.taken_back(key, &held) {
                self.book.take_back(key, first);
            }
        }
        let keeper = self.keeper.clone();
        let trims = std::mem::take(&mut self.trims);
        Box::new(move || keeper.lock().keep(body, trims))
    }
}
