//! What must hold, whatever broke. It keeps its own truth, and believes neither end: what was
//! sealed and given up it hears from the world, what is durable it counts itself.

mod several;
mod terms;

use super::spool::Item;
use crate::net::ConnectionId;
use std::collections::{BTreeMap, BTreeSet};
use tributary_protocol::ids::{AgentId, BatchHash, BatchKey, HashSum, Lane, LaneKey};
use tributary_protocol::ledger::Ledger;
use tributary_protocol::limits::{
    IN_FLIGHT_BATCHES, LEDGER_HASHES_MAX, LEDGER_HOLES_MAX, SENDER_HOLES_MAX,
};
use tributary_protocol::message::Ack;
use tributary_protocol::ranges::Held;

use several::Several;
pub use terms::{Invariant, Stats, Violation};

/// The numbers of an acknowledgement.
fn keys_of(ack: &Ack) -> impl Iterator<Item = BatchKey> {
    ack.ranges.iter().flat_map(|range| {
        let LaneKey { buffer, lane } = range.key;
        (range.first..range.end).map(move |number| BatchKey {
            buffer,
            lane,
            number,
        })
    })
}

/// What is durable under a number.
#[derive(Clone, Copy, Debug)]
struct Stored {
    hash: BatchHash,
    gap: bool,
    /// Which of its lane's batches it was.
    nth: u64,
}

/// A lane of an agent, by the agent's place.
type LaneOf = (usize, LaneKey);
/// A number of an agent's, by the agent's place.
type NumberOf = (usize, BatchKey);

/// What a journal holds.
#[derive(Debug, Default)]
struct Journal {
    durable: BTreeMap<LaneOf, BTreeMap<u64, Stored>>,
    /// How many batches of each lane were stored.
    batches: BTreeMap<LaneOf, u64>,
    /// How often it lost something.
    losses: u64,
}

impl Journal {
    fn stored(&self, agent: usize, key: BatchKey) -> Option<&Stored> {
        self.durable.get(&(agent, key.lane_key()))?.get(&key.number)
    }

    /// How many of these numbers are durable, and the sum of their hashes.
    fn sum(&self, lane: LaneOf, first: u64, end: u64) -> (u64, HashSum) {
        let lane = self.durable.get(&lane).into_iter();
        let stored = lane.flat_map(|lane| lane.range(first..end.max(first)));
        stored.fold((0, HashSum::default()), |(count, sum), (_, stored)| {
            (count + 1, sum.with(stored.hash))
        })
    }
}

/// The truth of one run.
#[derive(Debug, Default)]
pub struct Oracle {
    /// What was sealed under each number; twins seal different things under one.
    sealed: BTreeMap<(usize, BatchKey), Vec<BatchHash>>,
    /// What was given up: by the gap's hash, where it begins and how many numbers it has.
    given_up: BTreeMap<[u8; 32], (usize, BatchKey, u64)>,
    /// Every number that was given up.
    shed: BTreeSet<NumberOf>,
    /// By the places of their aggregators.
    journals: Vec<Journal>,
    /// What left a spool.
    trimmed: BTreeSet<NumberOf>,
    /// What a lying disk lost after it had left the spool, what a ledger took on trust of twins,
    /// and gaps that a doubled batch was acknowledged for.
    excused: BTreeSet<NumberOf>,
    /// What a journal lost and an agent may not know of yet, since an acknowledgement may be under
    /// way, or it did not come back there; and the aggregators that lost it, a bit each.
    lost: BTreeMap<NumberOf, u8>,
    /// What an agent knows to be lost, and has to send again.
    told: BTreeSet<NumberOf>,
    /// Where each connection was welcomed, and how often that journal had lost something.
    welcomes: BTreeMap<ConnectionId, (usize, u64)>,
    /// What was found durable on each connection: it may be acknowledged there.
    answered: BTreeMap<ConnectionId, BTreeMap<BatchKey, Vec<BatchHash>>>,
    /// Batches that came twice on a connection.
    doubled: BTreeSet<(ConnectionId, BatchKey)>,
    /// What was sent last under each number of a connection.
    sent: BTreeMap<(ConnectionId, BatchKey), Item>,
    /// Agents that go on twice.
    pub twins: BTreeSet<usize>,
    /// What is known where there may be several journals.
    several: Option<Several>,
    /// What was counted.
    pub stats: Stats,
    violation: Option<Violation>,
}

impl Oracle {
    /// For so many aggregators; `several`: each of them may be one of several.
    pub fn new(sites: usize, several: bool) -> Self {
        Self {
            journals: (0..sites).map(|_| Journal::default()).collect(),
            several: several.then(Several::default),
            ..Self::default()
        }
    }

    /// The first thing that must not be.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Notes something that must not be; the first counts.
    pub fn violate(&mut self, invariant: Invariant, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation {
                invariant,
                what: what(),
            });
        }
    }

    /// A batch became durable in a spool.
    pub fn sealed(&mut self, agent: usize, item: &Item) {
        self.stats.sealed += 1;
        let hashes = self.sealed.entry((agent, item.key)).or_default();
        hashes.push(item.hash);
    }

    /// A spool gave up numbers, as the plan has it.
    pub fn given_up(&mut self, agent: usize, gap: &Item) {
        self.note_given_up();
        let numbers = gap.key.number..gap.end();
        let keys = numbers.map(|number| BatchKey { number, ..gap.key });
        self.shed.extend(keys.map(|key| (agent, key)));
        self.given_up
            .insert(gap.hash.0, (agent, gap.key, gap.count));
    }

    /// The journal at `site` holds this from now on, under these numbers; `marked`: as in doubt.
    pub fn appended(
        &mut self,
        site: usize,
        agent: usize,
        (item, marked): (&Item, bool),
        runs: &[std::ops::Range<u64>],
    ) {
        let lane = (agent, item.key.lane_key());
        let batches = self.journals[site].batches.entry(lane).or_default();
        *batches += u64::from(!item.gap);
        let nth = *batches;
        for number in runs.iter().cloned().flatten() {
            let key = BatchKey { number, ..item.key };
            if item.gap {
                self.stats.declared += 1;
                let cause = self.given_up.get(&item.hash.0);
                let covers = cause.is_some_and(|(of, first, count)| {
                    *of == agent
                        && first.lane_key() == key.lane_key()
                        && (first.number..first.number + count).contains(&number)
                });
                if !covers {
                    self.violate(Invariant::I3, || {
                        format!("{key} is declared lost, and nothing in the plan gave it up")
                    });
                }
            } else {
                self.stats.stored += 1;
                let known = self.sealed.get(&(agent, key));
                if !known.is_some_and(|hashes| hashes.contains(&item.hash)) {
                    self.violate(Invariant::I2, || {
                        format!("{key} is stored, and nobody sealed it")
                    });
                }
            }
            let stored = Stored {
                hash: item.hash,
                gap: item.gap,
                nth,
            };
            let lane = self.journals[site].durable.entry(lane).or_default();
            if lane.insert(number, stored).is_some() {
                self.violate(Invariant::I5, || format!("{key} is in the journal twice"));
            }
            self.took(site, (agent, key), item.gap, marked);
        }
    }

    /// A journal at `site` lost this. `remains`: its agent trimmed it, and can have it again.
    pub fn tail_lost(&mut self, site: usize, agent: usize, key: BatchKey, remains: bool) {
        let journal = &mut self.journals[site];
        if let Some(lane) = journal.durable.get_mut(&(agent, key.lane_key())) {
            lane.remove(&key.number);
        }
        journal.losses += 1;
        self.note_lost(site, (agent, key));
        let elsewhere = self.is_stored(agent, key);
        let excused = self.trimmed.contains(&(agent, key)) && !remains && !elsewhere;
        if excused {
            self.excuse(agent, key);
        }
        if !excused || self.several.is_some() {
            *self.lost.entry((agent, key)).or_default() |= 1 << site;
        }
    }

    /// What was trimmed is gone for good.
    pub fn gone(&mut self, agent: usize, key: BatchKey) {
        let told = self.told.remove(&(agent, key));
        if self.is_stored(agent, key) {
            return;
        }
        // It may come back, and go again before its agent comes to who lost it.
        let lost = match &self.several {
            None => self.lost.remove(&(agent, key)).is_some(),
            Some(_) => self.lost.contains_key(&(agent, key)),
        };
        if lost || told {
            self.excuse(agent, key);
        }
    }

    /// A sender asks for what its spool has not. That may be only what was trimmed, and what a disk
    /// lost since.
    pub fn asked_for(&mut self, agent: usize, key: BatchKey) {
        match (
            self.trimmed.contains(&(agent, key)),
            self.is_stored(agent, key),
        ) {
            (true, false) => self.excuse(agent, key),
            // Another aggregator may have it, of which the agent has not heard.
            (true, true) if self.several.is_some() => {}
            _ => self.violate(Invariant::I1, || format!("{key} is asked for and gone")),
        }
    }

    fn excuse(&mut self, agent: usize, key: BatchKey) {
        let new = u64::from(self.excused.insert((agent, key)));
        match &self.several {
            None => self.stats.excused += new,
            Some(_) => self.stats.gone += new,
        }
    }

    /// The aggregator at `site` answers a `Hello` on this connection.
    pub fn greets(&mut self, site: usize, id: ConnectionId) {
        self.welcomes.insert(id, (site, self.journals[site].losses));
    }

    /// An agent heard the last page of `Welcome`: it knows what was lost before, and what it still
    /// has of that it is to send again.
    /// `has`: what is in its spool.
    pub fn greeted(&mut self, agent: usize, id: ConnectionId, has: impl Fn(BatchKey) -> bool) {
        self.met(agent, id);
        let Some((site, losses)) = self.welcomes.get(&id).copied() else {
            return;
        };
        if losses != self.journals[site].losses {
            return;
        }
        // It may lose its own copy, too, before it has sent it.
        let known = self.lost.extract_if(.., |(of, _), at| {
            let here = *of == agent && *at & (1 << site) != 0;
            *at &= if here { !(1 << site) } else { u8::MAX };
            here && *at == 0
        });
        let known: Vec<NumberOf> = known.map(|(number, _)| number).collect();
        self.told.extend(known);
        self.returns(agent, site, has);
    }

    /// What an agent had trimmed is in its spool again.
    pub fn came_back(&mut self, agent: usize, item: &Item) {
        self.stats.came_back += 1;
        for number in item.key.number..item.end() {
            let key = BatchKey { number, ..item.key };
            self.trimmed.remove(&(agent, key));
            self.excused.remove(&(agent, key));
        }
    }

    /// A batch was judged as held, and the ledger did not know its hash any more. Of an honest
    /// agent it is the same; of twins one loses what the other had under that number, which may be
    /// only where so many batches of the lane came behind it that no ledger keeps its hash.
    pub fn trusted(&mut self, site: usize, agent: usize, item: &Item) {
        let journal = &self.journals[site];
        let Some(stored) = journal.stored(agent, item.key).copied() else {
            return;
        };
        // A gap is held to nothing: what it stands for may have arrived.
        if item.gap || stored.gap || stored.hash == item.hash {
            return;
        }
        let batches = journal.batches.get(&(agent, item.key.lane_key()));
        let behind = batches.map_or(0, |batches| batches - stored.nth);
        if !self.twins.contains(&agent) || behind < LEDGER_HASHES_MAX as u64 {
            let key = item.key;
            self.violate(Invariant::I1, || {
                format!("{key} is taken for another, with {behind} batches behind that one")
            });
        }
        self.stats.trusted += 1;
        self.excused.insert((agent, item.key));
    }

    /// What is durable under a number, wherever it is.
    fn stored(&self, agent: usize, key: BatchKey) -> impl Iterator<Item = &Stored> {
        let journals = self.journals.iter();
        journals.filter_map(move |journal| journal.stored(agent, key))
    }

    /// Whose journals have something under a number.
    fn holders(&self, agent: usize, key: BatchKey) -> impl Iterator<Item = usize> {
        let journals = self.journals.iter().enumerate();
        let has = journals.filter(move |(_, journal)| journal.stored(agent, key).is_some());
        has.map(|(site, _)| site)
    }

    fn is_stored(&self, agent: usize, key: BatchKey) -> bool {
        self.stored(agent, key).next().is_some()
    }

    /// A `Welcome` says that these are held.
    pub fn welcomed(&mut self, site: usize, agent: usize, lane: LaneKey, held: &[Held]) {
        for run in held {
            let (count, sum) = self.journals[site].sum((agent, lane), run.first, run.end);
            if count != run.end - run.first {
                self.violate(Invariant::I6, || {
                    let Held { first, end, .. } = run;
                    format!("Welcome names {lane:?} {first}..{end}, of which {count} are durable")
                });
            } else if sum != run.sum {
                self.violate(Invariant::I7, || {
                    format!("another sum of {lane:?} in Welcome")
                });
            }
        }
    }

    /// The aggregator is about to say on this connection that it holds the batch.
    pub fn answered(&mut self, site: usize, agent: usize, id: ConnectionId, item: &Item) {
        let lane = (agent, item.key.lane_key());
        let (count, _) = self.journals[site].sum(lane, item.key.number, item.end());
        if count != item.count && !self.is_elsewhere(agent, item) {
            self.violate(Invariant::I6, || {
                format!(
                    "{} is acknowledged, and {count} of {} are durable",
                    item.key, item.count
                )
            });
        }
        let of_connection = self.answered.entry(id).or_default();
        of_connection.entry(item.key).or_default().push(item.hash);
    }

    /// An acknowledgement leaves.
    pub fn acknowledged(&mut self, id: ConnectionId, ack: &Ack) {
        let answered = self.answered.get(&id);
        let mut keys = keys_of(ack);
        let early = keys.find(|key| !answered.is_some_and(|answered| answered.contains_key(key)));
        if let Some(key) = early {
            self.violate(Invariant::I6, || {
                format!("{key} is acknowledged before it is durable")
            });
        }
    }

    /// A batch leaves an agent.
    pub fn sent(&mut self, id: ConnectionId, item: &Item) {
        self.sent.insert((id, item.key), *item);
    }

    /// A link that is no QUIC brings a batch twice.
    pub fn doubled(&mut self, id: ConnectionId, key: BatchKey) {
        self.doubled.insert((id, key));
    }

    /// An agent hears an acknowledgement, of which it knows only the numbers. It must be of what
    /// the agent sent last under each; a link that doubles batches can bring one of a batch behind
    /// which a gap was sent under the same number.
    pub fn heard(&mut self, (agent, id): (usize, ConnectionId), ack: &Ack) {
        let sent = keys_of(ack).filter_map(|key| self.sent.get(&(id, key)));
        let answered = self.answered.get(&id);
        let meant = |item: &Item| {
            let hashes = answered.and_then(|answered| answered.get(&item.key));
            hashes.is_some_and(|hashes| hashes.contains(&item.hash))
        };
        let confused: Vec<Item> = sent.filter(|item| !meant(item)).copied().collect();
        for item in confused {
            if !self.doubled.contains(&(id, item.key)) {
                let key = item.key;
                self.violate(Invariant::I6, || {
                    format!("{key} is acknowledged for another batch")
                });
            }
            self.stats.confused += 1;
            let numbers = item.key.number..item.end();
            let keys = numbers.map(|number| BatchKey { number, ..item.key });
            self.excused.extend(keys.map(|key| (agent, key)));
        }
    }

    /// Something left a spool. `remains`: it can be had again for a while.
    pub fn trimmed(&mut self, agent: usize, item: &Item, remains: bool) {
        for number in item.key.number..item.end() {
            let key = BatchKey { number, ..item.key };
            self.trimmed.insert((agent, key));
            // Data may stand where a gap was declared, and a gap where data came late.
            let is_it = |kept: &Stored| kept.gap || item.gap || kept.hash == item.hash;
            let well = self.stored(agent, key).any(is_it);
            if !well && self.lost.contains_key(&(agent, key)) {
                // An acknowledgement from before the loss.
                if !remains {
                    self.gone(agent, key);
                }
            } else if !well && !self.excused.contains(&(agent, key)) {
                let kept: Vec<Stored> = self.stored(agent, key).copied().collect();
                self.violate(Invariant::I1, || {
                    format!("{key} left the spool, and no journal holds it ({kept:?})")
                });
            }
        }
    }

    /// A batch was judged as held or being written with another hash.
    pub fn conflict(&mut self, agent: usize, key: BatchKey) {
        self.stats.conflicts += 1;
        if !self.twins.contains(&agent) {
            self.violate(Invariant::I11, || {
                format!("a conflict for {key} of an honest agent")
            });
        }
    }

    /// Holes of a lane after something was committed.
    pub fn holes(&mut self, lane: LaneKey, holes: usize) {
        self.stats.holes = self.stats.holes.max(holes as u64);
        if holes > LEDGER_HOLES_MAX || holes > SENDER_HOLES_MAX + IN_FLIGHT_BATCHES {
            self.violate(Invariant::I10, || format!("{holes} holes in {lane:?}"));
        }
    }

    /// What a sender has under way.
    pub fn under_way(&mut self, batches: usize) {
        if batches > IN_FLIGHT_BATCHES {
            self.violate(Invariant::I10, || format!("{batches} batches under way"));
        }
    }

    /// The ledger of an aggregator that started, or of one at the end of the run.
    pub fn ledger(&mut self, site: usize, agents: &[AgentId], ledger: &Ledger) {
        for (place, agent) in agents.iter().enumerate() {
            let lanes = ledger.lanes(agent);
            let held: BTreeMap<LaneKey, (u64, HashSum)> = lanes
                .iter()
                .map(|lane| (lane.key, (lane.held.count(), lane.held.sum())))
                .collect();
            let journal = &self.journals[site];
            let of_agent = journal.durable.keys().filter(|(of, _)| *of == place);
            let all: BTreeSet<LaneKey> = of_agent
                .map(|(_, key)| *key)
                .chain(held.keys().copied())
                .collect();
            for key in all {
                let (count, sum) = held.get(&key).copied().unwrap_or_default();
                let (durable, right) = self.journals[site].sum((place, key), 0, u64::MAX);
                if count != durable {
                    self.violate(Invariant::I6, || {
                        format!("the ledger holds {count} of {key:?}, the journal {durable}")
                    });
                } else if sum != right {
                    self.violate(Invariant::I7, || {
                        format!("another sum of {key:?} in the ledger")
                    });
                }
            }
            self.elsewhere_of(place, &lanes);
        }
    }

    /// The end of a run: `left` says whether a number is still in a spool of the agent, `gone`
    /// whether a machine never comes back.
    pub fn finish(&mut self, left: impl Fn(usize, BatchKey) -> bool, gone: impl Fn(usize) -> bool) {
        let sealed = std::mem::take(&mut self.sealed);
        for ((agent, key), hashes) in &sealed {
            let mut holders = self.holders(*agent, *key);
            let has_some = holders.next().is_some_and(&gone);
            let with_it = has_some && holders.all(&gone) && !left(*agent, *key);
            drop(holders);
            self.stats.with_it += u64::from(with_it);
            let right =
                |stored: &Stored| stored.gap || hashes.iter().all(|sealed| *sealed == stored.hash);
            let in_order = self.is_stored(*agent, *key) && self.stored(*agent, *key).all(right);
            // What one twin gave up may stand in the journal as the other's.
            let twin = self.twins.contains(agent);
            let given_up = twin && self.shed.contains(&(*agent, *key));
            let in_order = in_order || given_up || self.excused.contains(&(*agent, *key));
            // The agent did not come back to the aggregator that lost it.
            let unaware = self.several.is_some() && self.lost.contains_key(&(*agent, *key));
            self.stats.unaware += u64::from(unaware && !in_order);
            let in_order = in_order || unaware;
            // Definitions of the present buffer, and what twins contest, stay where they are.
            let is_series = key.lane == Lane::Series;
            if !in_order && !((twin || is_series) && left(*agent, *key)) {
                self.violate(Invariant::I4, || format!("{key} is nowhere at the end"));
            }
        }
        self.sealed = sealed;
        self.finish_several();
    }
}
