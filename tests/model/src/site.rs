//! An aggregator in the model: the ledger of `tributary-protocol` over a journal, as the keeper
//! drives it. It decides nothing that the ledger decides.

use crate::item::{Item, lane_of};
use crate::link::Sent;
use crate::rule::Rule;
use crate::seen::{Happened, Seen};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::LazyLock;
use tributary_protocol::ids::{AgentId, AgentUuid, BatchHash, BufferId, HashSum, LogId, Session};
use tributary_protocol::ledger::{Admission, Ledger, Verdict};
use tributary_protocol::limits::{BATCH_BYTES_MAX, IN_FLIGHT_BYTES};
use tributary_protocol::message::{Hello, LaneHeld, Welcome};
use tributary_protocol::ranges::HeldRanges;

/// The one agent that there is.
static AGENT: LazyLock<AgentId> =
    LazyLock::new(|| AgentId::new("t", AgentUuid([1; 16])).expect("the tenant's name is usable"));

/// An entry of the journal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// What was stored.
    pub item: Item,
    /// The numbers that it took.
    pub runs: Vec<Range<u64>>,
    /// Whether it came marked as in doubt.
    pub marked: bool,
}

/// A batch in the frame that is being filled.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Staged {
    admission: Admission,
    sent: Sent,
    /// Who waits for it, and with what: perhaps a gap waits for a batch.
    waiting: Vec<(u8, Item)>,
}

/// What a batch leads to at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It is in the frame.
    Waits,
    /// It is held.
    Held,
    /// Its connection ends.
    End,
}

/// An aggregator.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Site {
    log: LogId,
    ledger: Ledger,
    journal: Vec<Entry>,
    staged: Vec<Staged>,
    /// The connection whose session counts.
    newest: Option<u8>,
}

fn entry_of(staged: &Staged) -> Entry {
    Entry {
        item: staged.sent.item,
        runs: staged.admission.runs().to_vec(),
        marked: staged.sent.marked,
    }
}

impl Site {
    /// A new aggregator, the journal of which begins with these.
    pub fn new(place: usize, journal: Vec<Entry>) -> Self {
        let mut site = Self {
            log: LogId([place as u8 + 1; 16]),
            ledger: Ledger::new(),
            journal,
            staged: Vec::new(),
            newest: None,
        };
        site.recover(&mut Seen::default());
        site
    }

    /// Its journal.
    pub fn journal(&self) -> &[Entry] {
        &self.journal
    }

    /// Whether something waits for a frame.
    pub fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    /// The connection whose session counts.
    pub fn newest(&self) -> Option<u8> {
        self.newest
    }

    fn recover(&mut self, seen: &mut Seen) {
        self.ledger = Ledger::new();
        for Entry { item, runs, .. } in &self.journal {
            let new = match item.gap {
                true => {
                    let gap = (item.hash(), runs.as_slice());
                    self.ledger.recover_gap(&AGENT, item.key(), gap)
                }
                false => self.ledger.recover(&AGENT, item.key(), item.hash()),
            };
            seen.must(Rule::I5, new);
        }
    }

    /// The power goes and comes. `kept`: the frame that was being written is durable all the same.
    pub fn crash(&mut self, kept: bool, seen: &mut Seen) {
        let staged = std::mem::take(&mut self.staged);
        if kept {
            seen.note(Happened::Untold);
            staged.iter().for_each(|it| self.store(entry_of(it), seen));
        }
        self.newest = None;
        self.recover(seen);
    }

    /// What is stored under a number, and whether as data.
    pub fn stored(&self, life: u64, number: u64) -> Option<&Entry> {
        let holds = |entry: &&Entry| {
            entry.item.life == life && entry.runs.iter().any(|run| run.contains(&number))
        };
        self.journal.iter().find(holds)
    }

    /// Whether all of these are stored.
    pub fn has_all(&self, life: u64, mut numbers: Range<u64>) -> bool {
        numbers.all(|number| self.stored(life, number).is_some())
    }

    fn store(&mut self, entry: Entry, seen: &mut Seen) {
        let Entry { item, runs, .. } = &entry;
        let own = item.numbers();
        let within = |run: &Range<u64>| own.start <= run.start && run.end <= own.end;
        seen.must(Rule::I3, runs.iter().all(within));
        let mut numbers = runs.iter().cloned().flatten();
        let twice = numbers.any(|number| self.stored(item.life, number).is_some());
        seen.must(Rule::I5, !twice);
        if item.gap {
            seen.note(Happened::Declared);
            let data = |entry: &&Entry| !entry.item.gap && entry.item.life == item.life;
            let mut data = self.journal.iter().filter(data);
            if data.any(|entry| own.contains(&entry.item.number)) {
                seen.note(Happened::GapBesideData);
            }
        }
        self.journal.push(entry);
    }

    /// A greeting is answered. `several`: the ledger is one of several, and takes in what others
    /// hold.
    pub fn welcome(
        &mut self,
        link: u8,
        hello: &Hello,
        (window, several): (u32, bool),
        seen: &mut Seen,
    ) -> Welcome {
        let mut announced: Vec<BufferId> = hello.lanes.iter().map(|lane| lane.key.buffer).collect();
        announced.dedup();
        let session = self.ledger.open_session(&AGENT, &announced);
        if several {
            let left_out = self.ledger.declare_elsewhere(&AGENT, hello, self.log);
            seen.must(Rule::I10, left_out == 0);
        }
        let mut lanes = Vec::new();
        for state in &hello.lanes {
            let ranges = self.ledger.held(&AGENT, state.key);
            let life = state.key.buffer.life();
            for run in &ranges {
                seen.must(Rule::I6, self.has_all(life, run.first..run.end));
                seen.must(Rule::I7, self.sum(life, run.first..run.end) == run.sum);
            }
            lanes.push(LaneHeld {
                key: state.key,
                ranges,
                series_known: 0,
            });
        }
        self.newest = Some(link);
        Welcome {
            session,
            log: self.log,
            lanes,
            batch_bytes_max: BATCH_BYTES_MAX as u32,
            in_flight_bytes: IN_FLIGHT_BYTES as u32,
            in_flight_batches: window,
            software: String::new(),
            more: false,
            takes_in_doubt: several,
        }
    }

    fn judge(&mut self, session: Session, item: Item) -> Verdict {
        let (key, hash) = (item.key(), item.hash());
        match item.gap {
            true => {
                let gap = (hash, item.numbers());
                self.ledger.judge_gap(session, &AGENT, key, gap)
            }
            false => self.ledger.judge(session, &AGENT, key, hash),
        }
    }

    /// Whether a batch of this session is refused for good, and changes nothing.
    pub fn refuses(&self, session: Session, item: Item) -> bool {
        let mut site = self.clone();
        let stale = matches!(site.judge(session, item), Verdict::Stale { .. });
        stale && site == *self
    }

    /// A batch arrived on `link`. `waits`: somebody there would hear what becomes of it.
    pub fn offer(
        &mut self,
        (link, session): (u8, Session),
        sent: Sent,
        waits: bool,
        seen: &mut Seen,
    ) -> Step {
        let waiting = waits.then_some((link, sent.item));
        match self.judge(session, sent.item) {
            Verdict::Fresh(admission) => {
                let waiting = waiting.into_iter().collect();
                self.staged.push(Staged {
                    admission,
                    sent,
                    waiting,
                });
                Step::Waits
            }
            Verdict::Pending => {
                seen.note(Happened::Shared);
                let first = self.first_of(sent.item);
                // Nothing of it is being written: nobody will ever answer.
                seen.must(Rule::I8, first.is_some());
                if let Some(first) = first {
                    first.waiting.extend(waiting);
                }
                Step::Waits
            }
            Verdict::Replay { verified } => {
                seen.note(Happened::Replay);
                let stored = self.stored(sent.item.life, sent.item.number);
                if !verified && stored.is_some_and(|entry| entry.item.foreign) {
                    seen.note(Happened::Trusted);
                }
                Step::Held
            }
            Verdict::Conflict => {
                seen.note(Happened::Conflict);
                let stored = self.stored(sent.item.life, sent.item.number);
                let contested = stored.is_some_and(|entry| entry.item.foreign);
                seen.must(Rule::I11, contested);
                Step::End
            }
            Verdict::Stale { .. } => {
                seen.note(Happened::Stale);
                seen.must(Rule::I11, self.newest != Some(link));
                Step::End
            }
            Verdict::Refused(_) => {
                seen.must(Rule::I11, false);
                Step::End
            }
        }
    }

    /// The batch in the frame that has some of these numbers.
    fn first_of(&mut self, item: Item) -> Option<&mut Staged> {
        let numbers = item.numbers();
        let taken = |run: &Range<u64>| run.start < numbers.end && numbers.start < run.end;
        self.staged.iter_mut().find(|staged| {
            staged.sent.item.life == item.life && staged.admission.runs().iter().any(taken)
        })
    }

    /// Nobody waits on this connection any more.
    pub fn forget(&mut self, link: u8) {
        for staged in &mut self.staged {
            staged.waiting.retain(|(waits, _)| *waits != link);
        }
    }

    /// The frame is written, or it is not; who is to be told, of what.
    pub fn append(&mut self, taken: bool, seen: &mut Seen) -> Vec<(u8, Item)> {
        let staged = std::mem::take(&mut self.staged);
        if taken {
            staged.iter().for_each(|it| self.store(entry_of(it), seen));
        } else {
            seen.note(Happened::Aborted);
        }
        let mut told = Vec::new();
        for Staged {
            admission, waiting, ..
        } in staged
        {
            match taken {
                true => self.ledger.commit(admission),
                false => self.ledger.abort(admission),
            }
            told.extend(waiting);
        }
        told
    }

    fn hash_at(&self, life: u64, number: u64) -> Option<BatchHash> {
        Some(self.stored(life, number)?.item.hash())
    }

    /// The sum of what is stored under these numbers.
    fn sum(&self, life: u64, numbers: Range<u64>) -> HashSum {
        let hashes = numbers.filter_map(|number| self.hash_at(life, number));
        hashes.fold(HashSum::default(), HashSum::with)
    }

    /// What of the ledger is not what the journal holds.
    pub fn disagrees(&self) -> Option<Rule> {
        let lanes = self.ledger.lanes(&AGENT);
        let mut held: BTreeMap<_, HeldRanges> = BTreeMap::new();
        for lane in lanes {
            held.insert(lane.key, lane.held);
        }
        let mut lives: Vec<u64> = self.journal.iter().map(|entry| entry.item.life).collect();
        lives.extend(held.keys().map(|key| key.buffer.life()));
        lives.sort_unstable();
        lives.dedup();
        for life in lives {
            let held = held.remove(&lane_of(life)).unwrap_or_default();
            let entries = self.journal.iter().filter(|entry| entry.item.life == life);
            let numbers = entries.flat_map(|entry| entry.runs.iter().cloned().flatten());
            let numbers: Vec<u64> = numbers.collect();
            let all = numbers.iter().all(|number| held.contains(*number));
            if !all || held.count() != numbers.len() as u64 {
                return Some(Rule::I6);
            }
            if held.sum() != self.sum(life, 0..held.end()) {
                return Some(Rule::I7);
            }
        }
        None
    }

    /// Holes in what is held of any lane.
    pub fn holes(&self) -> usize {
        let lanes = self.ledger.lanes(&AGENT);
        lanes
            .iter()
            .map(|lane| lane.held.holes())
            .max()
            .unwrap_or(0)
    }
}
