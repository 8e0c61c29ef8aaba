//! What must hold, whatever broke. It keeps its own truth: what devices published and what they
//! were told, what agents sent, what stands in the journal, what the aggregator said; and at the
//! end it reads the lake's files by itself.

mod end;
mod gaps;
mod hit;
mod journal;
mod spooled;

use journal::{Entry, Held};
use std::collections::{BTreeMap, BTreeSet};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::{BatchHash, BatchKey, BufferId, LaneKey};
use tributary_protocol::series::SeriesBook;
use tributary_world::dice::Dice;
pub use tributary_world::session::{Invariant, Violation};

/// What a device published, by its own number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name {
    /// Place of the agent.
    pub agent: usize,
    /// The device.
    pub device: String,
    /// What it measured.
    pub metric: String,
    /// The device's own number for it.
    pub seq: i64,
}

/// What is known of a published reading.
#[derive(Clone, Debug)]
struct Published {
    time_us: i64,
    value: String,
    /// QoS 0: it may be lost.
    loose: bool,
    /// It says a number of its own: a repeat is told from it.
    numbered: bool,
    /// The device was told that it is taken in.
    told: bool,
    /// The rules by which it may have been read; none where rules are none.
    revisions: BTreeSet<u32>,
}

/// How often something happened: a run in which nothing did shows nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Events.
    pub events: u64,
    /// Readings published, or made up.
    pub readings: u64,
    /// Readings that a device was told of.
    pub told: u64,
    /// Readings in the lake.
    pub rows: u64,
    /// Readings that are missing, and declared lost.
    pub declared: u64,
    /// Of them those whose own batch is declared lost.
    pub named: u64,
    /// Entries of the journal.
    pub entries: u64,
    /// Entries that were durable though nobody was told.
    pub unsaid: u64,
    /// Turns of the keeper.
    pub turns: u64,
    /// Steps of the lake.
    pub steps: u64,
    /// Steps that the store failed.
    pub lake_errors: u64,
    /// Turns of the agents' commit threads.
    pub commits: u64,
    /// Sessions that were fenced.
    pub fenced: u64,
    /// Sessions.
    pub sessions: u64,
    /// Starts of the aggregator, and of agents.
    pub site_starts: u64,
    /// See there.
    pub agent_starts: u64,
    /// Starts that failed.
    pub failed_starts: u64,
    /// Acknowledgements that were given as the power went.
    pub escaped: u64,
    /// Disks that were looked at as they were when something was acknowledged.
    pub shadows: u64,
    /// Connections of devices that were cut.
    pub doors_cut: u64,
    /// Bits that flipped, and entries of logs that they took.
    pub flips: u64,
    /// See there.
    pub hit: u64,
    /// Rows of the tables of alerts and of aggregates.
    pub judged: u64,
}

impl Stats {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            readings: self.readings + other.readings,
            told: self.told + other.told,
            rows: self.rows + other.rows,
            declared: self.declared + other.declared,
            named: self.named + other.named,
            entries: self.entries + other.entries,
            unsaid: self.unsaid + other.unsaid,
            turns: self.turns + other.turns,
            steps: self.steps + other.steps,
            lake_errors: self.lake_errors + other.lake_errors,
            commits: self.commits + other.commits,
            fenced: self.fenced + other.fenced,
            sessions: self.sessions + other.sessions,
            site_starts: self.site_starts + other.site_starts,
            agent_starts: self.agent_starts + other.agent_starts,
            failed_starts: self.failed_starts + other.failed_starts,
            escaped: self.escaped + other.escaped,
            shadows: self.shadows + other.shadows,
            doors_cut: self.doors_cut + other.doors_cut,
            flips: self.flips + other.flips,
            hit: self.hit + other.hit,
            judged: self.judged + other.judged,
        }
    }
}

/// A lane of an agent, by the agent's place.
type LaneOf = (usize, LaneKey);

/// What a plan may lose; nothing else is excused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Causes {
    /// A spool gives way: an agent's disk has no room for a while, or its lanes have little.
    pub gives_way: bool,
    /// What comes is refused while a spool is full.
    pub refuses: bool,
}

/// The truth of one run.
#[derive(Debug, Default)]
pub struct Oracle {
    seed: u64,
    causes: Causes,
    published: BTreeMap<Name, Published>,
    /// Those without a number of their own, by agent, device and time.
    unnumbered: BTreeMap<(usize, String, i64), Name>,
    revisions: BTreeMap<usize, u32>,
    /// What agents sealed and sent under each number: data, or the gap that took its place.
    sealed: BTreeMap<(usize, BatchKey), Vec<BatchHash>>,
    /// What stood under the numbers of the spools, as far as it was seen.
    spooled: BTreeMap<(usize, BatchKey), spooled::Content>,
    /// The definitions of the spools.
    books: BTreeMap<(usize, BufferId), SeriesBook>,
    /// What flipped bits took.
    hits: hit::Hits,
    /// The journal's entries, by number.
    entries: Vec<Entry>,
    /// What is durable of each lane, by number.
    held: BTreeMap<LaneOf, BTreeMap<u64, Held>>,
    /// What the aggregator said that it holds, and at which turn of its keeper.
    said: BTreeMap<LaneOf, BTreeMap<u64, u64>>,
    /// What it had answered as its power went: it is looked for when it is open again.
    promised: BTreeMap<LaneOf, BTreeSet<u64>>,
    /// What was counted.
    pub stats: Stats,
    violation: Option<Violation>,
}

impl Oracle {
    /// Of a run in which nothing happened.
    pub fn new(seed: u64, causes: Causes) -> Self {
        Self {
            seed,
            causes,
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

    /// The lake does not go on, and nothing that failed is the reason.
    pub fn stuck(&mut self, why: &str) {
        self.violate(Invariant::I15, || format!("the lake is stuck: {why}"));
    }

    /// An answer was given before what it promises was durable.
    pub fn early(&mut self, what: &str) {
        self.violate(Invariant::I14, || what.to_owned());
    }

    /// Something that nobody says who works.
    pub fn odd(&mut self, what: &str) {
        self.violate(Invariant::I15, || what.to_owned());
    }

    /// An agent reads messages by these rules from now on.
    pub fn revised(&mut self, agent: usize, revision: u32) {
        self.revisions.insert(agent, revision);
        let waiting = self.published.iter_mut();
        let waiting = waiting.filter(|(name, it)| name.agent == agent && !it.told);
        for (_, published) in waiting {
            published.revisions.insert(revision);
        }
    }

    /// A device has a reading to publish.
    pub fn published(
        &mut self,
        name: Name,
        time_us: i64,
        value: String,
        (qos, numbered): (u8, bool),
    ) {
        self.stats.readings += 1;
        let revisions = self.revisions.get(&name.agent).copied();
        let published = Published {
            time_us,
            value,
            loose: qos == 0,
            numbered,
            told: false,
            revisions: revisions.into_iter().collect(),
        };
        if !numbered {
            let key = (name.agent, name.device.clone(), time_us);
            self.unnumbered.insert(key, name.clone());
        }
        self.published.insert(name, published);
    }

    /// A device was told that its reading is taken in.
    pub fn told(&mut self, name: &Name) {
        self.stats.told += 1;
        if let Some(published) = self.published.get_mut(name) {
            published.told = true;
        }
    }

    /// An agent that is made up made up a reading; gives its value.
    pub fn made(
        &mut self,
        agent: usize,
        (device, metric): (&str, &str),
        seq: i64,
        time_us: i64,
    ) -> i64 {
        self.stats.readings += 1;
        self.stats.told += 1;
        let value = Dice::of(self.seed, "made", agent as u64, seq as u64).bits() as i64;
        let name = Name {
            agent,
            device: device.to_owned(),
            metric: metric.to_owned(),
            seq,
        };
        let published = Published {
            time_us,
            value: format!("i64 {value}"),
            loose: false,
            numbered: true,
            told: true,
            revisions: BTreeSet::new(),
        };
        self.published.insert(name, published);
        value
    }

    /// An agent has, or sends, this batch.
    pub fn sealed(&mut self, agent: usize, batch: &SealedBatch) {
        let hashes = self.sealed.entry((agent, batch.key())).or_default();
        if !hashes.contains(&batch.hash()) {
            hashes.push(batch.hash());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
