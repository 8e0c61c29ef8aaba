//! The running agent's side: takes letters out of their log, and hands them to the write-ahead log
//! as records, behind whatever the sources do.

use super::{LetterId, LetterRange, PutBack, PutBackRecord};
use crate::deadletter::Letter;
use crate::limits::{PUT_BACK_RANGES_MAX, REPLAY_STEP_BYTES};
use crate::wal::{Batch, Queue, RecordKind};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use tributary_journal::{Entry, LifeId, LogError, LogReader};

/// What became of the letters that were to be put back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Put back: durable in the log, and read by the present rules.
    pub put_back: u64,
    /// Of these, dead letters again, each with its reason.
    pub dead_again: u64,
    /// Put back before: not once more.
    pub before: u64,
    /// Only the head is here: there is nothing to put back.
    pub only_head: u64,
    /// Gone meanwhile, to make room.
    pub gone: u64,
    /// Damaged.
    pub unreadable: u64,
}

/// Puts letters back.
#[derive(Clone, Debug)]
pub struct Putter {
    letters: LogReader,
    queue: Queue,
    state: PutBack,
}

/// The log takes nothing any more: the agent ends.
#[derive(Debug, thiserror::Error)]
#[error("the agent stops; what was put back by now stays so, ask again for the rest")]
pub struct Stopped;

/// A batch for the log, the last letter in it, and what was done so far.
#[derive(Default)]
struct Filling {
    batch: Batch,
    last: Option<LetterId>,
    outcome: Outcome,
}

impl Putter {
    /// A putter for the letters of this log.
    pub fn new(letters: LogReader, queue: Queue, state: PutBack) -> Self {
        Self {
            letters,
            queue,
            state,
        }
    }

    /// Whether these letters can be remembered as put back, one range more for each, at most.
    pub fn has_room_for(&self, ranges: usize) -> bool {
        self.state.with(|done| done.ranges()) + ranges <= PUT_BACK_RANGES_MAX
    }

    /// Puts these letters back, and waits until each is durable and was read. Not cancel safe:
    /// what was handed to the log goes its way all the same, and asking again is sound.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn put_back(&self, wanted: &[LetterRange]) -> Result<Outcome, Stopped> {
        let failed = self.state.failed();
        let mut filling = Filling::default();
        for (life, numbers) in wanted.iter().filter_map(LetterRange::read) {
            self.range(life, numbers, &mut filling).await?;
        }
        self.hand_over(&mut filling).await?;
        filling.outcome.dead_again = self.state.failed().saturating_sub(failed);
        self.state.want_checkpoint();
        Ok(filling.outcome)
    }

    async fn range(
        &self,
        life: LifeId,
        mut numbers: Range<u64>,
        filling: &mut Filling,
    ) -> Result<(), Stopped> {
        while !numbers.is_empty() {
            let letters = self.letters.clone();
            let start = numbers.start;
            let read = tokio::task::spawn_blocking(move || {
                let mut entries = Vec::new();
                let read = letters.read(life, start, REPLAY_STEP_BYTES, &mut entries);
                read.map(|()| entries)
            });
            match read.await.map_err(|_| Stopped)? {
                Ok(entries) => {
                    let Some(last) = entries.last() else {
                        filling.outcome.gone += numbers.end - start;
                        return Ok(());
                    };
                    let end = last.number + 1;
                    for entry in entries
                        .iter()
                        .filter(|entry| numbers.contains(&entry.number))
                    {
                        self.letter(entry, filling).await?;
                    }
                    numbers.start = end;
                }
                Err(LogError::Trimmed { first, .. }) => {
                    let end = first.max(start + 1).min(numbers.end);
                    filling.outcome.gone += end - start;
                    numbers.start = end;
                }
                Err(LogError::Damaged { numbers: bad, .. }) => {
                    let end = bad.end.max(start + 1).min(numbers.end);
                    filling.outcome.unreadable += end - start;
                    numbers.start = end;
                }
                Err(error) => {
                    tracing::warn!(%error, "dead letters can't be read");
                    filling.outcome.unreadable += numbers.end - start;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn letter(&self, entry: &Entry, filling: &mut Filling) -> Result<(), Stopped> {
        let id = LetterId {
            life: entry.life,
            number: entry.number,
        };
        let outcome = &mut filling.outcome;
        let Some(letter) = Letter::read(&entry.bytes) else {
            outcome.unreadable += 1;
            return Ok(());
        };
        if self.state.with(|done| done.holds(id)) {
            outcome.before += 1;
        } else if !letter.is_whole() {
            outcome.only_head += 1;
        } else {
            outcome.put_back += 1;
            let record = PutBackRecord::of(id, &letter).write();
            if filling.batch.len_bytes() + record.len() > REPLAY_STEP_BYTES {
                self.hand_over(filling).await?;
            }
            filling.batch.control(RecordKind::PutBack, &record);
            filling.last = Some(id);
        }
        Ok(())
    }

    /// Hands the batch to the log, and waits until the last letter in it was read: one batch at a
    /// time is in the way of the sources, and records are read in their order.
    async fn hand_over(&self, filling: &mut Filling) -> Result<(), Stopped> {
        let Some(last) = filling.last.take() else {
            return Ok(());
        };
        let mut changes = self.state.changes();
        let room = self.queue.room(filling.batch.len_bytes()).await;
        let room = room.ok_or(Stopped)?;
        self.queue.push(std::mem::take(&mut filling.batch), room);
        while !self.state.with(|done| done.holds(last)) {
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| Stopped)?,
                () = self.queue.ended() => return Err(Stopped),
            }
        }
        Ok(())
    }
}
