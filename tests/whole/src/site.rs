//! An aggregator in one thread: its keeper by turns, its conversations, its lake by steps, over a
//! disk and a store that break. What is due when the parts say; who of them is first, dice say.

use crate::bits::Bits;
use crate::limits::{JOURNAL_SEGMENTS, SEGMENT_BYTES};
use crate::oracle::Oracle;
use crate::plan::Shape;
use crate::store::{NEVER_WAITS, SimStore};
use bytes::Bytes;
use futures_util::FutureExt;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tributary_aggregator::clock::Now;
use tributary_aggregator::ingest::identity::Identity;
use tributary_aggregator::ingest::talk::{End, Talk};
use tributary_aggregator::keeper::{Keeper, KeeperConfig, KeeperParts, Outcome};
use tributary_aggregator::lake::commit::LakeStore;
use tributary_aggregator::lake::source::JournalFeed;
use tributary_aggregator::lake::{Lake, LakeConfig, LakeHandle};
use tributary_aggregator::limits::FLUSH_RETRY_MS;
use tributary_journal::{Disk, LogConfig, LogKind, SimDisk};
use tributary_protocol::ids::{AgentId, BatchHash, BatchKey, LogId};
use tributary_protocol::message::{Hello, Message, Reject, RejectCode, Welcome};
use tributary_world::dice::Dice;
use tributary_world::net::ConnectionId;

/// Where it keeps.
const DIR: &str = "/aggregator";
/// Its certificates are valid for ever.
const NOT_AFTER: i64 = i64::MAX / 4;

/// A part of the aggregator that wants a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Judges, makes durable, answers.
    Keeper,
    /// One conversation.
    Talk(ConnectionId),
    /// Reads the journal, and flushes.
    Lake,
}

/// What a turn led to on a connection.
#[derive(Debug)]
pub enum Said {
    /// It is said.
    Message(Message),
    /// The connection ends, with a word about it or without.
    End(Option<Reject>),
}

/// A batch that was offered, and where the answer will be.
struct Asked {
    id: ConnectionId,
    key: BatchKey,
    count: u64,
    hash: BatchHash,
    answer: oneshot::Receiver<Outcome>,
}

type AskedAll = Arc<Mutex<Vec<Asked>>>;

/// An answer that had been given when the power went: it may have left.
#[derive(Clone, Copy, Debug)]
pub struct Escaped {
    /// On which connection.
    pub id: ConnectionId,
    /// For which batch.
    pub key: BatchKey,
    /// So many numbers of it.
    pub count: u64,
    /// With this hash.
    pub hash: BatchHash,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Talking {
    agent: usize,
    talk: Talk,
    fence: CancellationToken,
    hello: Option<Hello>,
    /// With the keeper's turn at which it was asked.
    opening: Option<(oneshot::Receiver<Welcome>, u64)>,
    /// Came, and was not looked at.
    control: VecDeque<Bytes>,
    batches: VecDeque<Bytes>,
    /// Something happened that it wants to look at.
    woken: bool,
}

/// What it loses with the power.
struct Process {
    keeper: Keeper,
    parts: KeeperParts,
    lake: Lake,
    /// Of the lake: how it stands.
    handle: LakeHandle,
    keeper_at: i64,
    lake_at: Option<i64>,
    talks: BTreeMap<ConnectionId, Talking>,
    asked: AskedAll,
    escaped: Arc<Mutex<Vec<Escaped>>>,
    /// One past the last entry that the oracle has seen.
    seen: u64,
}

/// An aggregator: disk, store, and its process.
pub struct Site {
    /// Its disk.
    pub disk: SimDisk,
    /// The bits of it that flipped.
    pub bits: Bits,
    /// Its lake's store, which is elsewhere.
    pub store: SimStore,
    agents: Vec<AgentId>,
    process: Option<Process>,
    /// Grows at every start.
    pub life: u64,
    seed: u64,
    flush_us: i64,
    segment_bytes: u64,
    /// What its clock is wrong by.
    pub clock_us: i64,
    /// Microseconds that a turn of the keeper takes, at most.
    pub slow_us: i64,
    draws: u64,
}

/// Microseconds since 1970 when runs begin: 2026-11-20T20:00:00Z.
pub const EPOCH_US: i64 = 1_795_204_800_000_000;

/// The agent at a place.
pub fn agent_id(place: usize) -> AgentId {
    let uuid = tributary_protocol::ids::AgentUuid([place as u8 + 1; 16]);
    AgentId::new("acme", uuid).expect("the tenant's name is usable")
}

impl Site {
    /// A new aggregator for the agents of such a run, without power.
    pub fn new(seed: u64, shape: &Shape) -> Self {
        Self {
            disk: SimDisk::new(seed ^ 0x517e),
            bits: Bits::default(),
            store: SimStore::new(seed),
            agents: (0..shape.agents).map(agent_id).collect(),
            process: None,
            life: 0,
            seed,
            flush_us: shape.flush_us,
            segment_bytes: shape.journal,
            clock_us: 0,
            slow_us: 2_000,
            draws: 0,
        }
    }

    fn dice(&mut self, purpose: &str) -> Dice {
        self.draws += 1;
        Dice::of(self.seed, purpose, u64::MAX, self.draws)
    }

    fn told(&self, now: i64) -> Now {
        Now {
            at: now,
            wall_us: EPOCH_US + now + self.clock_us,
        }
    }

    /// Whether its process runs.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Starts its process.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start(&mut self, now: i64, oracle: &mut Oracle) -> Result<(), String> {
        self.life += 1;
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let config = KeeperConfig {
            dir: Path::new(DIR).to_owned(),
            journal: LogConfig {
                segment_bytes: self.segment_bytes,
                quota_bytes: JOURNAL_SEGMENTS * SEGMENT_BYTES,
                reserve_bytes: 0,
                kind: LogKind::Journal,
            },
            new_log: LogId([7; 16]),
        };
        self.store.begin_life();
        let (mut keeper, parts) =
            Keeper::open(&disk, &config).map_err(|error| error.to_string())?;
        oracle.recovered(&parts.recovered);
        let (handle, _) = LakeHandle::new();
        let lake_config = LakeConfig {
            flush_interval: Duration::from_micros(self.flush_us as u64),
        };
        let store = LakeStore::new(Arc::new(self.store.clone()), None, parts.log);
        let found = store.find(&parts.unread).now_or_never().expect(NEVER_WAITS);
        let found = found.map_err(|error| error.to_string())?;
        keeper.take_in(found).map_err(|error| error.to_string())?;
        let feed = Box::new(JournalFeed::new(parts.reader.clone(), parts.log));
        let names = Box::new(parts.books.clone());
        let opened = Lake::open(lake_config, store, feed, names, &handle);
        let opened = opened.now_or_never().expect(NEVER_WAITS);
        let lake = match opened {
            Ok(lake) => lake,
            Err(error) => {
                if error.is_final() {
                    oracle.stuck(&error.to_string());
                }
                return Err(error.to_string());
            }
        };
        keeper.follow(Arc::clone(handle.status()));
        let (asked, escaped) = (AskedAll::default(), Arc::default());
        self.disk.on_off(drain(&asked, &escaped));
        let mut process = Process {
            keeper,
            parts,
            lake,
            handle,
            keeper_at: now,
            lake_at: Some(now),
            talks: BTreeMap::new(),
            asked,
            escaped,
            seen: 0,
        };
        // The power may have gone meanwhile: then the next one is looked at.
        if !self.disk.is_off() {
            process.tell(oracle, true);
        }
        self.process = Some(process);
        Ok(())
    }

    /// Its process is gone, however: what it had answered, and the connections that end with it.
    pub fn bury(&mut self) -> (Vec<Escaped>, Vec<ConnectionId>) {
        let Some(process) = self.process.take() else {
            return (Vec::new(), Vec::new());
        };
        let escaped = std::mem::take(&mut *lock(&process.escaped));
        (escaped, process.talks.into_keys().collect())
    }

    /// An agent's connection stands.
    pub fn connected(&mut self, id: ConnectionId, agent: usize, now: i64) -> bool {
        let (told, name) = (self.told(now), self.agents[agent].clone());
        let Some(process) = &mut self.process else {
            return false;
        };
        let identity = Identity {
            agent: name,
            not_after: NOT_AFTER,
        };
        let mut talk = Talk::new(identity, told);
        let confirmed = talk.on_confirmed(told);
        let talking = Talking {
            agent,
            talk,
            fence: CancellationToken::new(),
            hello: None,
            opening: None,
            control: VecDeque::new(),
            batches: VecDeque::new(),
            woken: false,
        };
        process.talks.insert(id, talking);
        confirmed.is_ok()
    }

    /// A connection is over.
    pub fn lost(&mut self, id: ConnectionId) {
        if let Some(process) = &mut self.process {
            process.forget(id);
        }
    }

    /// Something came on a control stream.
    pub fn hear(&mut self, id: ConnectionId, bytes: Bytes) {
        self.wake(id, |talking| talking.control.push_back(bytes));
    }

    /// A batch came.
    pub fn batch(&mut self, id: ConnectionId, bytes: Bytes) {
        self.wake(id, |talking| talking.batches.push_back(bytes));
    }

    fn wake(&mut self, id: ConnectionId, take: impl FnOnce(&mut Talking)) {
        let process = self.process.as_mut();
        if let Some(talking) = process.and_then(|it| it.talks.get_mut(&id)) {
            take(talking);
            talking.woken = true;
        }
    }

    /// What wants a turn, and when.
    pub fn due(&self, now: i64) -> Vec<(i64, Part)> {
        let Some(process) = &self.process else {
            return Vec::new();
        };
        let mut due = vec![(process.keeper_at, Part::Keeper)];
        due.extend(process.lake_at.map(|at| (at, Part::Lake)));
        let told = self.told(now);
        for (id, talking) in &process.talks {
            let at = match talking.woken {
                true => Some(now),
                false => talking.talk.poll_timeout(told),
            };
            due.extend(at.map(|at| (at, Part::Talk(*id))));
        }
        due
    }

    /// Gives a part its turn; what it led to.
    pub fn turn(&mut self, part: Part, now: i64, oracle: &mut Oracle) -> Vec<(ConnectionId, Said)> {
        let told = self.told(now);
        let slow_us = self.slow_us;
        let wait = self.dice("turn").us(1, slow_us.max(2));
        let Some(process) = &mut self.process else {
            return Vec::new();
        };
        match part {
            Part::Keeper => {
                process.keeper_turn(told, wait, oracle);
                if !self.disk.is_off() {
                    process.tell(oracle, false);
                }
                Vec::new()
            }
            Part::Lake => {
                process.lake_turn(now, oracle);
                Vec::new()
            }
            Part::Talk(id) => {
                let said = process.talk_turn(id, told, wait, oracle);
                said.into_iter().map(|said| (id, said)).collect()
            }
        }
    }

    /// Whether all that is durable is in the lake, and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.process.as_ref().is_some_and(|process| {
            let end = *process.parts.durable.borrow();
            lock(&process.asked).is_empty() && process.handle.status().position() == end
        })
    }

    /// What stands in the way of that.
    pub fn left(&self) -> String {
        match &self.process {
            None => "it is down".to_owned(),
            Some(process) => format!(
                "the lake at {} of {}, {} asked, {:?} {:?}",
                process.handle.status().position(),
                *process.parts.durable.borrow(),
                lock(&process.asked).len(),
                process.parts.handle.status().trouble(),
                process.handle.status().trouble(),
            ),
        }
    }
}

/// Takes every answer that was given, when the power goes: these may leave.
fn drain(asked: &AskedAll, escaped: &Arc<Mutex<Vec<Escaped>>>) -> impl FnOnce() + Send + 'static {
    let (asked, escaped) = (Arc::clone(asked), Arc::clone(escaped));
    move || {
        for asked in lock(&asked).iter_mut() {
            if asked.answer.try_recv() == Ok(Outcome::Durable) {
                lock(&escaped).push(Escaped {
                    id: asked.id,
                    key: asked.key,
                    count: asked.count,
                    hash: asked.hash,
                });
            }
        }
    }
}

impl Process {
    /// Nobody waits any more for what was asked on this connection.
    fn forget(&mut self, id: ConnectionId) {
        self.talks.remove(&id);
        lock(&self.asked).retain(|asked| asked.id != id);
    }

    fn keeper_turn(&mut self, now: Now, wait: i64, oracle: &mut Oracle) {
        let until = self.keeper.turn(now);
        oracle.stats.turns += 1;
        self.keeper_at = until.max(now.at + 1);
        self.talks.values_mut().for_each(|it| it.woken = true);
        let end = *self.parts.durable.borrow();
        if end > self.handle.status().position() {
            let at = now.at + wait;
            self.lake_at = Some(self.lake_at.map_or(at, |known| known.min(at)));
        }
    }

    /// Shows the oracle what is durable now; `all`: from the first entry on.
    fn tell(&mut self, oracle: &mut Oracle, all: bool) {
        let end = *self.parts.durable.borrow();
        if all {
            let position = self.handle.status().position();
            self.seen = oracle.reopened(&self.parts, end, position);
        }
        if self.seen < end {
            oracle.appended(&self.parts, self.seen..end);
            self.seen = end;
        }
    }

    fn lake_turn(&mut self, now: i64, oracle: &mut Oracle) {
        let step = self.lake.step(now).now_or_never().expect(NEVER_WAITS);
        oracle.stats.steps += 1;
        self.lake_at = match step {
            Ok(at) => at.map(|at| at.max(now + 1)),
            Err(error) if error.is_final() => {
                oracle.stuck(&error.to_string());
                None
            }
            Err(_) => {
                oracle.stats.lake_errors += 1;
                Some(now + FLUSH_RETRY_MS as i64 * 1_000)
            }
        };
    }

    fn talk_turn(
        &mut self,
        id: ConnectionId,
        now: Now,
        wait: i64,
        oracle: &mut Oracle,
    ) -> Vec<Said> {
        let Some(talking) = self.talks.get_mut(&id) else {
            return Vec::new();
        };
        talking.woken = false;
        let mut asking = false;
        let mut ask = Ask {
            id,
            parts: &self.parts,
            asked: &self.asked,
            any: &mut asking,
        };
        let ended = talking.take_all(&mut ask, now, oracle);
        if asking {
            self.keeper_at = self.keeper_at.min(now.at + wait);
        }
        let mut said: Vec<Said> = Vec::new();
        while let Some(message) = talking.talk.poll(now) {
            said.push(Said::Message(message));
        }
        if let Err(end) = ended {
            talking.talk.end();
            self.forget(id);
            said.push(Said::End(match end {
                End::Gone => None,
                End::Rejected(reject) => Some(reject),
            }));
        }
        said
    }
}

/// The way to the keeper.
struct Ask<'a> {
    id: ConnectionId,
    parts: &'a KeeperParts,
    asked: &'a AskedAll,
    any: &'a mut bool,
}

impl Talking {
    /// Deals with everything that happened to it.
    fn take_all(&mut self, ask: &mut Ask<'_>, now: Now, oracle: &mut Oracle) -> Result<(), End> {
        if self.fence.is_cancelled() {
            oracle.stats.fenced += 1;
            let detail = "a newer session of this agent has begun".to_owned();
            return Err(End::Rejected(Reject {
                code: RejectCode::Fenced,
                detail,
                retry_after_ms: 0,
                batch: None,
            }));
        }
        if let Some((opening, asked_at)) = &mut self.opening
            && let Ok(welcome) = opening.try_recv()
        {
            oracle.welcomed(self.agent, &welcome, *asked_at);
            self.opening = None;
            self.talk.on_opened(Some(welcome))?;
        }
        self.outcomes(ask, now)?;
        while let Some(bytes) = self.control.pop_front() {
            if let Some(hello) = self.talk.on_control(bytes, now)? {
                self.hello = Some(hello);
            }
        }
        if let Some(hello) = self.hello.take() {
            let agent = agent_id(self.agent);
            let opening = ask
                .parts
                .handle
                .try_open(agent, hello.clone(), self.fence.clone());
            match opening {
                Ok(opening) => self.opening = Some((opening, oracle.stats.turns)),
                Err(_) => self.hello = Some(hello),
            }
            *ask.any = true;
        }
        while self.talk.takes_batches(now) {
            let Some(bytes) = self.batches.pop_front() else {
                break;
            };
            self.offer(bytes, ask, now)?;
        }
        Ok(())
    }

    fn outcomes(&mut self, ask: &Ask<'_>, now: Now) -> Result<(), End> {
        let mut answered = Vec::new();
        lock(ask.asked).retain_mut(|asked| {
            if asked.id != ask.id {
                return true;
            }
            match asked.answer.try_recv() {
                Ok(outcome) => answered.push((asked.key, Some(outcome))),
                Err(oneshot::error::TryRecvError::Closed) => answered.push((asked.key, None)),
                Err(oneshot::error::TryRecvError::Empty) => return true,
            }
            false
        });
        answered
            .into_iter()
            .try_for_each(|(key, outcome)| self.talk.on_outcome(key, outcome, now))
    }

    fn offer(&mut self, bytes: Bytes, ask: &mut Ask<'_>, now: Now) -> Result<(), End> {
        let offer = self.talk.on_batch(bytes, now)?;
        let (key, hash) = (offer.batch.key(), offer.batch.hash());
        let numbers = offer.batch.numbers();
        let answer = ask.parts.handle.try_offer(offer);
        let answer = answer.expect("an agent's window is smaller than the keeper's queue");
        *ask.any = true;
        lock(ask.asked).push(Asked {
            id: ask.id,
            key,
            count: numbers.end - numbers.start,
            hash,
            answer,
        });
        Ok(())
    }
}
