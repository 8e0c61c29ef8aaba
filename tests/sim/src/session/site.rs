//! An aggregator in the session world: ledger and receivers of `tributary-protocol` over a journal,
//! as the keeper drives them. It decides nothing that the ledger decides.

use super::oracle::Oracle;
use super::spool::Item;
use crate::dice::Dice;
use crate::net::ConnectionId;
use std::collections::BTreeMap;
use std::ops::Range;
use tributary_protocol::ids::{AgentId, AgentUuid, BatchKey, BufferId, Lane, LogId};
use tributary_protocol::ledger::{Admission, Ledger, Verdict};
use tributary_protocol::limits::{BATCH_BYTES_MAX, IN_FLIGHT_BYTES};
use tributary_protocol::message::{AgainReason, Hello, LaneHeld, RejectCode, Welcome};
use tributary_protocol::session::Receiver;

/// An entry of the journal.
#[derive(Clone, Debug)]
struct Entry {
    agent: usize,
    item: Item,
    /// Whether it came marked as in doubt.
    marked: bool,
    runs: Vec<Range<u64>>,
}

/// What a journal takes at once.
#[derive(Clone, Debug)]
enum Frame {
    Batches(Vec<Entry>),
    /// What an agent said that others hold, before it was greeted.
    Elsewhere(usize, Hello),
}

/// A batch in the frame that is being filled.
#[derive(Debug)]
struct Staged {
    agent: usize,
    admission: Admission,
    item: Item,
    marked: bool,
    /// Who waits for it, and under which name: perhaps a gap waits for a batch.
    waiting: Vec<(ConnectionId, Item)>,
}

/// One connection.
#[derive(Debug)]
pub struct Talk {
    /// Of the agent at this place.
    pub agent: usize,
    /// What it says.
    pub receiver: Receiver,
    /// When its acknowledgement was planned to leave.
    pub ack_at: Option<i64>,
}

/// What an aggregator loses with the power.
#[derive(Debug)]
pub struct Running {
    /// What is held.
    pub ledger: Ledger,
    book: BTreeMap<(usize, BufferId), u32>,
    /// Its connections.
    pub talks: BTreeMap<ConnectionId, Talk>,
    newest: BTreeMap<usize, ConnectionId>,
    staged: Vec<Staged>,
    /// Batches whose series were unknown in the session of a connection.
    unknown: BTreeMap<ConnectionId, Vec<BatchKey>>,
}

/// What a batch leads to at once.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet: it is in the frame. `now`: others wait for it, the frame is not to.
    Staged {
        /// Whether the frame is to be written now.
        now: bool,
    },
    /// Its connection has something to say.
    Answered,
    /// Its connection is to end.
    End(RejectCode),
}

/// An aggregator: what is on its disk, and its process.
#[derive(Debug)]
pub struct Site {
    /// Its place among all.
    place: usize,
    /// Its journal's name; another one whenever that was lost.
    log: LogId,
    /// Whether it may be one of several: it takes in what others hold, and batches in doubt.
    several: bool,
    /// Whether it never comes back.
    pub gone: bool,
    /// Who may talk to it.
    pub agents: Vec<AgentId>,
    /// Its frames.
    journal: Vec<Frame>,
    /// Its ledger as it was written down, and how many frames it knows.
    checkpoint: Option<(Vec<u8>, usize)>,
    /// Its process, while it has power.
    pub running: Option<Running>,
    /// Grows at every start.
    pub life: u64,
    /// Batches that it lets be under way.
    window: u32,
    /// Appends that will fail.
    pub failing: u32,
    /// Whether frames whose append fails stand on the disk, and the last of them.
    pub keeps_failed: bool,
    failed: Vec<Entry>,
    /// Frames that the disk did not keep, though it said so.
    pub lied: u32,
    /// Whether a frame is planned to be written, and until when that takes long.
    pub committing: bool,
    pub slow_until: i64,
}

fn recover(ledger: &mut Ledger, agent: &AgentId, Entry { item, runs, .. }: &Entry) -> bool {
    match item.gap {
        true => ledger.recover_gap(agent, item.key, (item.hash, runs)),
        false => ledger.recover(agent, item.key, item.hash),
    }
}

impl Site {
    /// A new aggregator for these agents, without power.
    pub fn new(place: usize, (agents, window): (usize, u32), several: bool) -> Self {
        let id = |place| {
            let uuid = AgentUuid([place as u8 + 1; 16]);
            AgentId::new("t", uuid).expect("the tenant's name is usable")
        };
        Self {
            place,
            log: LogId([7 + place as u8; 16]),
            several,
            gone: false,
            agents: (0..agents).map(id).collect(),
            journal: Vec::new(),
            checkpoint: None,
            running: None,
            life: 0,
            window,
            failing: 0,
            keeps_failed: false,
            failed: Vec::new(),
            lied: 0,
            committing: false,
            slow_until: 0,
        }
    }

    /// Nothing is left of its journal: it begins another one.
    pub fn lose_journal(&mut self, remains: impl Fn(usize, BatchKey) -> bool, oracle: &mut Oracle) {
        self.lied = 0;
        self.failed.clear();
        self.checkpoint = None;
        let journal = std::mem::take(&mut self.journal);
        let LogId([first, ..]) = self.log;
        // Of three aggregators each has every third name.
        self.log = LogId([first.wrapping_add(3); 16]);
        journal
            .into_iter()
            .for_each(|frame| self.lose(frame, &remains, oracle));
    }

    fn lose(&self, frame: Frame, remains: &impl Fn(usize, BatchKey) -> bool, oracle: &mut Oracle) {
        let Frame::Batches(entries) = frame else {
            return;
        };
        for Entry {
            agent, item, runs, ..
        } in entries
        {
            for number in runs.into_iter().flatten() {
                let key = BatchKey { number, ..item.key };
                oracle.tail_lost(self.place, agent, key, remains(agent, key));
            }
        }
    }

    /// The journal takes a frame.
    fn append(&mut self, entries: Vec<Entry>, oracle: &mut Oracle) {
        for Entry {
            agent,
            item,
            marked,
            runs,
        } in &entries
        {
            oracle.appended(self.place, *agent, (item, *marked), runs);
        }
        self.journal.push(Frame::Batches(entries));
    }

    /// Starts from the journal, or from the checkpoint and what came behind it.
    pub fn start(&mut self, seed: u64, oracle: &mut Oracle) {
        self.life += 1;
        let from_all = Dice::of(seed, "recover", self.place as u64, self.life).one_in(3);
        let checkpoint = self.checkpoint.as_ref().filter(|_| !from_all);
        let (mut ledger, known) = match checkpoint {
            None => (Ledger::new(), 0),
            Some((bytes, frames)) => {
                let read = Ledger::read_checkpoint(bytes);
                (
                    read.expect("a checkpoint that was written is read"),
                    *frames,
                )
            }
        };
        let mut book = BTreeMap::new();
        for (at, frame) in self.journal.iter().enumerate() {
            match frame {
                Frame::Batches(entries) => {
                    for entry in entries {
                        let agent = &self.agents[entry.agent];
                        if at >= known && !recover(&mut ledger, agent, entry) {
                            let key = entry.item.key;
                            let what = || format!("{key} is recovered twice");
                            oracle.violate(super::Invariant::I5, what);
                        }
                        learn(&mut book, entry.agent, &entry.item);
                    }
                }
                Frame::Elsewhere(agent, hello) if at >= known => {
                    ledger.declare_elsewhere(&self.agents[*agent], hello, self.log);
                }
                Frame::Elsewhere(..) => {}
            }
        }
        oracle.begins(self.place, self.log);
        oracle.ledger(self.place, &self.agents, &ledger);
        self.running = Some(Running {
            ledger,
            book,
            talks: BTreeMap::new(),
            newest: BTreeMap::new(),
            staged: Vec::new(),
            unknown: BTreeMap::new(),
        });
    }

    /// The power goes. `kept`: the frame that was being written is durable all the same.
    /// `remains`: whether an agent can have again what it trimmed.
    pub fn crash(
        &mut self,
        kept: bool,
        remains: impl Fn(usize, BatchKey) -> bool,
        oracle: &mut Oracle,
    ) -> Vec<ConnectionId> {
        let Some(running) = self.running.take() else {
            return Vec::new();
        };
        for _ in 0..std::mem::take(&mut self.lied) {
            if let Some(frame) = self.journal.pop() {
                self.lose(frame, &remains, oracle);
            }
        }
        let frames = self.journal.len();
        self.checkpoint = self.checkpoint.take().filter(|(_, known)| *known <= frames);
        // A frame has the place of the one before it that failed.
        let mut entries = std::mem::take(&mut self.failed);
        if kept && !running.staged.is_empty() {
            entries = running.staged.iter().map(Staged::entry).collect();
        }
        if !entries.is_empty() {
            self.append(entries, oracle);
        }
        running.talks.into_keys().collect()
    }

    /// A `Hello` is answered; who is fenced by it.
    pub fn welcome(
        &mut self,
        id: ConnectionId,
        hello: &Hello,
        oracle: &mut Oracle,
    ) -> Option<(Welcome, Option<ConnectionId>)> {
        let running = self.running.as_mut()?;
        let place = running.talks.get(&id)?.agent;
        let agent = &self.agents[place];
        let mut announced: Vec<BufferId> = hello.lanes.iter().map(|lane| lane.key.buffer).collect();
        announced.dedup();
        let session = running.ledger.open_session(agent, &announced);
        oracle.stats.sessions += 1;
        if self.several {
            let left_out = running.ledger.declare_elsewhere(agent, hello, self.log);
            oracle.greeting(self.log, (place, id), hello, left_out);
            oracle.elsewhere_of(place, &running.ledger.lanes(agent));
            self.journal.push(Frame::Elsewhere(place, hello.clone()));
        }
        let mut lanes = Vec::new();
        for lane in &hello.lanes {
            let ranges = running.ledger.held(agent, lane.key);
            oracle.welcomed(self.place, place, lane.key, &ranges);
            let known = running.book.get(&(place, lane.key.buffer));
            lanes.push(LaneHeld {
                key: lane.key,
                ranges,
                series_known: known.copied().unwrap_or(0),
            });
        }
        let fenced = running.newest.insert(place, id);
        let welcome = Welcome {
            session,
            log: self.log,
            lanes,
            batch_bytes_max: BATCH_BYTES_MAX as u32,
            in_flight_bytes: IN_FLIGHT_BYTES as u32,
            in_flight_batches: self.window,
            software: "world".to_owned(),
            more: false,
            takes_in_doubt: self.several,
        };
        Some((welcome, fenced))
    }

    /// Whether no connection of this agent's is newer.
    fn is_newest(&self, id: ConnectionId, agent: usize) -> bool {
        let newest = self.running.as_ref().and_then(|it| it.newest.get(&agent));
        newest == Some(&id)
    }

    /// A batch arrived; `marked`: as in doubt.
    pub fn offer(
        &mut self,
        id: ConnectionId,
        (item, marked): (Item, bool),
        now: i64,
        oracle: &mut Oracle,
    ) -> Option<Step> {
        let running = self.running.as_mut()?;
        let talk = running.talks.get_mut(&id)?;
        let place = talk.agent;
        let agent = &self.agents[place];
        let session = match talk.receiver.on_batch() {
            Ok(session) => session,
            Err(reject) => {
                oracle.violate(super::Invariant::I11, || {
                    format!("refused: {}", reject.detail)
                });
                return Some(Step::End(reject.code));
            }
        };
        let verdict = match item.gap {
            true => {
                let numbers = item.key.number..item.end();
                let gap = (item.hash, numbers);
                running.ledger.judge_gap(session, agent, item.key, gap)
            }
            false => running.ledger.judge(session, agent, item.key, item.hash),
        };
        match verdict {
            Verdict::Fresh(admission) => {
                Some(self.examine(id, admission, (item, marked), now, oracle))
            }
            Verdict::Pending => {
                oracle.stats.shared += 1;
                share(running, place, id, item, oracle);
                Some(Step::Staged { now: false })
            }
            Verdict::Replay { verified } => {
                oracle.stats.replays += 1;
                if !verified {
                    oracle.trusted(self.place, place, &item);
                }
                oracle.answered(self.place, place, id, &item);
                talk.receiver.on_durable(item.key, now);
                Some(Step::Answered)
            }
            Verdict::Conflict => {
                oracle.conflict(place, item.key);
                Some(Step::End(RejectCode::Conflict))
            }
            Verdict::Stale { .. } => {
                oracle.stats.stale += 1;
                if self.is_newest(id, place) {
                    oracle.violate(super::Invariant::I11, || format!("{} is stale", item.key));
                }
                Some(Step::End(RejectCode::Fenced))
            }
            Verdict::Refused(refusal) => {
                oracle.violate(super::Invariant::I11, || format!("{}: {refusal}", item.key));
                Some(Step::End(RejectCode::Protocol))
            }
        }
    }

    /// A batch that the ledger would take: are its series known?
    fn examine(
        &mut self,
        id: ConnectionId,
        admission: Admission,
        (item, marked): (Item, bool),
        now: i64,
        oracle: &mut Oracle,
    ) -> Step {
        let Some(running) = &mut self.running else {
            return Step::Answered;
        };
        let Some(talk) = running.talks.get_mut(&id) else {
            running.ledger.abort(admission);
            return Step::Answered;
        };
        let agent = talk.agent;
        let known = running.book.get(&(agent, item.key.buffer));
        if item.series_needed > known.copied().unwrap_or(0) {
            running.ledger.abort(admission);
            oracle.stats.unknown += 1;
            let asked = running.unknown.entry(id).or_default();
            // Definitions overtake each other on their way; nothing else is sent before them.
            let honest = !oracle.twins.contains(&agent);
            if honest && item.key.lane != Lane::Series && asked.contains(&item.key) {
                oracle.violate(super::Invariant::I11, || {
                    format!(
                        "the series of {} are asked for twice in a session",
                        item.key
                    )
                });
            }
            asked.push(item.key);
            talk.receiver
                .on_again(item.key, AgainReason::SeriesUnknown, now);
            return Step::Answered;
        }
        running.staged.push(Staged {
            agent,
            admission,
            item,
            marked,
            waiting: vec![(id, item)],
        });
        // Whatever uses these definitions may be waiting right behind them.
        Step::Staged {
            now: item.key.lane == Lane::Series,
        }
    }

    /// Writes the frame; who has something to say then.
    pub fn commit(&mut self, now: i64, seed: u64, oracle: &mut Oracle) -> Vec<ConnectionId> {
        let Some(running) = &mut self.running else {
            return Vec::new();
        };
        let staged = std::mem::take(&mut running.staged);
        if staged.is_empty() {
            return Vec::new();
        }
        let fails = self.failing > 0;
        self.failing = self.failing.saturating_sub(1);
        let entries: Vec<Entry> = staged.iter().map(Staged::entry).collect();
        self.failed.clear();
        if fails && self.keeps_failed {
            self.failed = entries;
        } else if !fails {
            self.append(entries, oracle);
        }
        let told = self.settle(staged, !fails, now, oracle);
        let frames = self.journal.len();
        let nth = u64::from(self.place as u32) << 32 | self.life;
        if Dice::of(seed, "checkpoint", nth, frames as u64).one_in(6)
            && let Some(running) = &self.running
        {
            let mut bytes = Vec::new();
            running.ledger.write_checkpoint(&mut bytes);
            self.checkpoint = Some((bytes, frames));
        }
        told
    }

    /// The frame is durable, or not: the ledger is told, and so is who waits.
    fn settle(
        &mut self,
        staged: Vec<Staged>,
        durable: bool,
        now: i64,
        oracle: &mut Oracle,
    ) -> Vec<ConnectionId> {
        let mut told = Vec::new();
        let Some(running) = &mut self.running else {
            return told;
        };
        for Staged {
            agent,
            admission,
            item,
            waiting,
            ..
        } in staged
        {
            if !durable {
                oracle.stats.aborted += 1;
                running.ledger.abort(admission);
            } else {
                running.ledger.commit(admission);
                learn(&mut running.book, agent, &item);
                let key = item.key.lane_key();
                // Of several each has holes where others hold: they are looked at with those.
                if !self.several {
                    let runs = running.ledger.held(&self.agents[agent], key);
                    let from_zero = runs.first().is_some_and(|run| run.first == 0);
                    oracle.holes(key, runs.len() - usize::from(from_zero));
                }
            }
            for (id, item) in waiting {
                told.extend(running.answer((self.place, id, item), durable, now, oracle));
            }
        }
        told
    }

    /// The connection is over.
    pub fn end(&mut self, id: ConnectionId) {
        if let Some(running) = &mut self.running {
            running.talks.remove(&id);
            running.unknown.remove(&id);
        }
    }

    /// Whether nothing waits for a frame.
    pub fn is_idle(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.staged.is_empty())
    }
}

impl Staged {
    fn entry(&self) -> Entry {
        Entry {
            agent: self.agent,
            item: self.item,
            marked: self.marked,
            runs: self.admission.runs().to_vec(),
        }
    }
}

impl Running {
    /// Tells who waited what became of it, if the connection is still there.
    fn answer(
        &mut self,
        (site, id, item): (usize, ConnectionId, Item),
        durable: bool,
        now: i64,
        oracle: &mut Oracle,
    ) -> Option<ConnectionId> {
        let talk = self.talks.get_mut(&id)?;
        if durable {
            oracle.answered(site, talk.agent, id, &item);
            talk.receiver.on_durable(item.key, now);
        } else {
            talk.receiver.on_again(item.key, AgainReason::Busy, now);
        }
        Some(id)
    }
}

fn learn(book: &mut BTreeMap<(usize, BufferId), u32>, agent: usize, item: &Item) {
    if item.key.lane == Lane::Series {
        let known = book.entry((agent, item.key.buffer)).or_default();
        *known = (*known).max(item.series_after);
    }
}

/// The first copy, or a gap for it, is in this very frame: both share its outcome.
fn share(running: &mut Running, agent: usize, id: ConnectionId, item: Item, oracle: &mut Oracle) {
    let numbers = item.key.number..item.end();
    let taken = |run: &Range<u64>| run.start < numbers.end && numbers.start < run.end;
    let first = running.staged.iter_mut().find(|staged| {
        staged.agent == agent
            && staged.item.key.lane_key() == item.key.lane_key()
            && staged.admission.runs().iter().any(taken)
    });
    match first {
        Some(first) => first.waiting.push((id, item)),
        None => oracle.violate(super::Invariant::I8, || {
            format!(
                "{} is pending, and nothing of it is being written",
                item.key
            )
        }),
    }
}
