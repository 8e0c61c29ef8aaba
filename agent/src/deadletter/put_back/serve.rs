//! The running agent's side: takes letters out of their log, and hands them to the write-ahead log
//! as records, behind whatever the sources do.

use super::{LetterId, LetterRange, PutBack, PutBackRecord};
use crate::deadletter::Letter;
use crate::limits::{PUT_BACK_RANGES_MAX, REPLAY_STEP_BYTES};
use crate::spool::RefuseNew;
use crate::wal::{Batch, Queue, RecordKind};
use PutBackError::{Refusing, Stopped};
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
    refuse: RefuseNew,
}

/// Why not all was put back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PutBackError {
    /// The log takes nothing any more: the agent ends.
    #[error("the agent stops; what was put back by now stays so, ask again for the rest")]
    Stopped,
    /// What it gave would be given up at once, and declared lost.
    #[error(
        "the spool is full and refuses what is new (`drop-newest`): letters are safer where they \
         are; what was put back by now stays so, ask again for the rest once there is room"
    )]
    Refusing,
}

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
            refuse: RefuseNew::default(),
        }
    }

    /// The same, which puts nothing back while `refuse` says that what is new is refused.
    #[must_use]
    pub fn refusing(mut self, refuse: RefuseNew) -> Self {
        self.refuse = refuse;
        self
    }

    /// Whether these letters can be remembered as put back, one range more for each, at most.
    pub fn has_room_for(&self, ranges: usize) -> bool {
        self.state.with(|done| done.ranges()) + ranges <= PUT_BACK_RANGES_MAX
    }

    /// Puts these letters back, and waits until each is durable and was read. Not cancel safe:
    /// what was handed to the log goes its way all the same, and asking again is sound.
    ///
    /// # Errors
    /// See [`PutBackError`].
    pub async fn put_back(&self, wanted: &[LetterRange]) -> Result<Outcome, PutBackError> {
        let (failed, gone) = (self.state.failed(), self.state.gone());
        let mut filling = Filling::default();
        for (life, numbers) in wanted.iter().filter_map(LetterRange::read) {
            self.range(life, numbers, &mut filling).await?;
        }
        self.hand_over(&mut filling).await?;
        let outcome = &mut filling.outcome;
        outcome.dead_again = self.state.failed().saturating_sub(failed);
        let gone = self.state.gone().saturating_sub(gone);
        outcome.gone += gone;
        outcome.put_back = outcome.put_back.saturating_sub(gone);
        self.state.want_checkpoint();
        Ok(filling.outcome)
    }

    async fn range(
        &self,
        life: LifeId,
        mut numbers: Range<u64>,
        filling: &mut Filling,
    ) -> Result<(), PutBackError> {
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

    async fn letter(&self, entry: &Entry, filling: &mut Filling) -> Result<(), PutBackError> {
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
    async fn hand_over(&self, filling: &mut Filling) -> Result<(), PutBackError> {
        let Some(last) = filling.last.take() else {
            return Ok(());
        };
        if self.refuse.is_on() {
            return Err(Refusing);
        }
        let mut changes = self.state.changes();
        let room = self.queue.room(filling.batch.len_bytes()).await;
        let room = room.ok_or(Stopped)?;
        *self.state.awaited() = Some(last);
        self.queue.push(std::mem::take(&mut filling.batch), room);
        while self.state.awaited().is_some() {
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| Stopped)?,
                () = self.queue.ended() => return Err(Stopped),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Done, Taken};
    use super::*;
    use crate::deadletter::DeadLetters;
    use crate::decode::UserProperties;
    use crate::limits::WAL_SEGMENT_BYTES;
    use crate::seal::Origin;
    use crate::wal::Wal;
    use std::path::Path;
    use std::sync::Arc;
    use tributary_journal::{CommitPolicy, Disk, Log, LogConfig, LogKind, Open, SimDisk};
    use tributary_protocol::ids::BufferId;

    /// The letters of one message, a putter for them, and the log that it writes to.
    fn one_letter(refuse: &RefuseNew) -> (LetterRange, Putter, PutBack, Wal) {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let buffer = BufferId::new(1, 1);
        let mut dead = DeadLetters::open(&disk, Path::new("/dead"), buffer, 0).unwrap();
        let letter = Letter {
            origin: Origin { buffer, number: 0 },
            received_time: 1,
            word: "json",
            reason: "why",
            will: false,
            topic: "a/b",
            properties: UserProperties::NONE,
            payload: b"{",
        };
        dead.push(&letter, None).unwrap();
        dead.flush().unwrap();
        let config = LogConfig {
            segment_bytes: WAL_SEGMENT_BYTES,
            quota_bytes: 4 * WAL_SEGMENT_BYTES,
            reserve_bytes: 0,
            kind: LogKind::Wal,
        };
        let life = LifeId(buffer.0);
        let log = Log::open(disk, Path::new("/wal"), config, Open::NewLife(life)).unwrap();
        let wal = Wal::start(log.writer, CommitPolicy::default()).unwrap();
        let state = PutBack::new(Done::default());
        let putter = Putter::new(dead.reader().clone(), wal.queue.clone(), state.clone());
        let putter = putter.refusing(refuse.clone());
        (LetterRange::new(life, 0..1), putter, state, wal)
    }

    #[tokio::test]
    async fn nothing_is_put_back_while_what_is_new_is_refused() {
        let refuse = RefuseNew::default();
        let (range, putter, state, _wal) = one_letter(&refuse);
        refuse.set(true);
        let refused = putter.put_back(std::slice::from_ref(&range)).await;
        assert_eq!(refused, Err(Refusing));
        assert_eq!(state.with(|done| done.ranges()), 0);
    }

    #[tokio::test]
    async fn a_letter_that_went_meanwhile_is_told_and_nobody_waits_for_it() {
        let (range, putter, state, mut wal) = one_letter(&RefuseNew::default());
        let stage = async {
            let frame = wal.committed.recv().await.unwrap();
            let (_, _, bytes) = frame.records().next().unwrap();
            let letter = PutBackRecord::read(bytes).unwrap().letter;
            state.take_in(letter, Taken::Gone);
            // A checkpoint forgets what is held no more before anybody looks.
            state.with(|done| done.keep_only(&[]));
        };
        let wanted = [range];
        let (outcome, ()) = tokio::join!(putter.put_back(&wanted), stage);
        let outcome = outcome.unwrap();
        assert_eq!((outcome.put_back, outcome.gone), (0, 1));
    }
}
