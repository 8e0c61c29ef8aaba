//! The writer's part of replacing a batch whose messages the aggregator holds under another buffer:
//! what is to be replaced, what it holds, and the gap that stands for it. What is left of it is
//! sealed elsewhere.

use super::shed::{self, lane_key};
use super::{ONE_ENTRY, READ_STEP_BYTES, SpoolWriter};
use tributary_journal::{LifeId, LogError};
use tributary_protocol::batch::{Content, Cover, Decoder, SealedBatch};
use tributary_protocol::ids::{BatchKey, BufferId, Lane};
use tributary_protocol::series::SeriesDef;
use tributary_uplink::Shed;

impl SpoolWriter {
    /// The next batch that is to be replaced, and which of its messages are held.
    pub fn next_covered(&mut self) -> Option<(BatchKey, Vec<Cover>)> {
        self.gaps.book.next_asked()
    }

    /// Tells once more of the gap that stands for a batch; `false` when none does.
    pub fn tell_again(&mut self, key: BatchKey) -> bool {
        let Some(numbers) = self.gaps.book.numbers(key) else {
            return false;
        };
        self.gaps.book.tell(Shed {
            key: key.lane_key(),
            numbers,
            bytes: 0,
        });
        true
    }

    /// A batch for which a gap can be made to stand.
    ///
    /// # Errors
    /// Why not.
    pub fn read_covered(&mut self, key: BatchKey) -> Result<SealedBatch, String> {
        if !self.gaps.book.has_room() {
            return Err("too many declared losses wait already".into());
        }
        let log = self.lanes.get(&key.lane).ok_or("its lane is not kept")?;
        let (life, mut entries) = (LifeId(key.buffer.0), Vec::new());
        let read = log.reader.read(life, key.number, ONE_ENTRY, &mut entries);
        read.map_err(|error| error.to_string())?;
        let entry = entries.into_iter().find(|entry| entry.number == key.number);
        let entry = entry.ok_or("it is not there")?;
        let batch = SealedBatch::open(entry.bytes).map_err(|error| error.to_string())?;
        match batch.key() == key {
            true => Ok(batch),
            false => Err(format!("{} stands there", batch.key())),
        }
    }

    /// What the series of a buffer are called, as far as the spool has it.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn definitions(&mut self, buffer: BufferId) -> Result<Vec<SeriesDef>, String> {
        let log = self.lanes.get(&Lane::Series).ok_or("no lane of series")?;
        let (mut names, mut decoder) = (Vec::new(), Decoder::new());
        let spans = log.reader.lives().into_iter();
        for span in spans.filter(|span| lane_key(span.life, Lane::Series).buffer == buffer) {
            let mut next = span.first;
            while next < span.end {
                let mut entries = Vec::new();
                let read = log
                    .reader
                    .read(span.life, next, READ_STEP_BYTES, &mut entries);
                read.map_err(|error| error.to_string())?;
                let Some(last) = entries.last() else { break };
                next = last.number + 1;
                for entry in entries {
                    let batch = SealedBatch::open(entry.bytes);
                    let content = batch.and_then(|batch| batch.decode(&mut decoder));
                    match content.map_err(|error| error.to_string())? {
                        Content::Series { base, defs } if base as usize == names.len() => {
                            names.extend(defs);
                        }
                        _ => return Err("its definitions are not whole".into()),
                    }
                }
            }
        }
        Ok(names)
    }

    /// Makes a gap without readings durable that stands for this batch, and tells of it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn declare_repeat(&mut self, batch: &SealedBatch) -> Result<(), LogError> {
        let gap = shed::repeat(batch, &mut self.sealer);
        let gap = gap.expect("what a sealed batch says, a gap may say");
        self.gaps.append(&gap)?;
        self.gaps.prepare();
        let bytes = batch.bytes().len().saturating_sub(gap.bytes().len());
        self.gaps.book.tell(Shed {
            key: batch.key().lane_key(),
            numbers: batch.numbers(),
            bytes: bytes as u64,
        });
        Ok(())
    }
}
