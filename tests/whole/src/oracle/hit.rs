//! What flipped bits took: messages of a write-ahead log, batches of a spool, entries of the
//! journal. Only these may be missing, and only where something is declared.

use super::gaps::Declared;
use super::spooled::Content;
use super::{Name, Oracle};
use crate::bits::Hit;
use crate::plan::Node;
use crate::site::EPOCH_US;
use crate::store::SimStore;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use tributary_agent::gateway::Committed;
use tributary_agent::wal::Record;
use tributary_protocol::ids::{BatchKey, BufferId, Lane, LaneKey};

/// What bits took so far.
#[derive(Debug, Default)]
pub(super) struct Hits {
    /// Readings that an agent's log or spool cannot give any more.
    pub names: BTreeSet<Name>,
    /// Readings in dead letters.
    pub letters: BTreeSet<Name>,
    /// Agents of whose files bits flipped.
    pub agents: BTreeSet<usize>,
    /// Agents of which a bit took the first frame of a life of the log: it says by which rules
    /// messages were read, and without it they are dead letters.
    pub unruled: BTreeSet<usize>,
    /// Entries of the journal.
    pub entries: BTreeSet<u64>,
    /// Buffers of which one of these held definitions.
    pub undefined: BTreeSet<(usize, BufferId)>,
    /// Numbers that these held.
    pub numbers: BTreeSet<(usize, LaneKey, u64)>,
    /// Readings of the messages of each agent's log.
    logged: BTreeMap<(usize, BufferId, u64), Name>,
}

/// The number behind this in a text of JSON.
fn number(json: &str, name: &str) -> Option<i64> {
    let (_, rest) = json.split_once(&format!("\"{name}\":"))?;
    let end = rest.find(|letter: char| !letter.is_ascii_digit());
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

impl Oracle {
    /// Messages are durable in an agent's log.
    pub fn logged(&mut self, agent: usize, committed: &[Committed]) {
        for record in committed {
            let parsed = Record::parse(record.kind, &record.bytes);
            let Ok(Record::Message(message) | Record::Refused(message)) = parsed else {
                continue;
            };
            let json = String::from_utf8_lossy(message.payload);
            let time = number(&json, "ts").map_or(EPOCH_US, |ms| ms * 1_000);
            let Some((device, metric)) = message.topic.split_once('/') else {
                continue;
            };
            let name = self.name_of((agent, device), metric, (number(&json, "seq"), time));
            if let Some(name) = name {
                let origin = (agent, record.origin.buffer, record.origin.number);
                self.hits.logged.insert(origin, name);
            }
        }
    }

    /// A bit flipped on a machine's disk.
    pub fn flipped(&mut self, node: Node, hit: &Hit) {
        self.stats.flips += 1;
        self.stats.hit += hit.lost.len() as u64;
        match node {
            Node::Site => self.site_hit(hit),
            Node::Agent(place) => self.agent_hit(place, hit),
        }
    }

    fn agent_hit(&mut self, agent: usize, hit: &Hit) {
        self.hits.agents.insert(agent);
        let lane = Lane::ALL
            .into_iter()
            .find(|lane| hit.dir.ends_with(lane.name()));
        for (life, number) in &hit.lost {
            let (buffer, number) = (BufferId(life.0), *number);
            if let Some(lane) = lane {
                let key = BatchKey {
                    buffer,
                    lane,
                    number,
                };
                if let Some(Content::Readings(names, _)) = self.spooled.get(&(agent, key)) {
                    self.hits.names.extend(names.iter().cloned());
                }
            } else if hit.dir.ends_with("wal") {
                let name = self.hits.logged.get(&(agent, buffer, number));
                self.hits.names.extend(name.cloned());
                if number == 0 {
                    self.hits.unruled.insert(agent);
                }
            }
        }
    }

    /// Dead letters of an agent, as its disk has them at the end.
    pub fn letters(&mut self, agent: usize, letters: &[Bytes]) {
        if !self.hits.unruled.contains(&agent) {
            return;
        }
        for letter in letters {
            let text = String::from_utf8_lossy(letter);
            // No two readings have the same value.
            let value = number(&text, "value").map(|value| format!("i64 {value}"));
            let mut published = self.published.iter();
            let found = published
                .find(|(name, it)| name.agent == agent && value.as_ref() == Some(&it.value));
            self.hits
                .letters
                .extend(found.map(|(name, _)| name.clone()));
        }
    }

    /// Definitions behind some that were hit go on from those: without them an aggregator that
    /// reads its journal can't understand these either, and asks for them again.
    pub(super) fn undefined_hits(&mut self) {
        let mut broken = BTreeSet::new();
        for (number, entry) in (0_u64..).zip(&self.entries) {
            let (agent, lane) = (entry.agent, entry.key.lane_key());
            if lane.lane != Lane::Series || !self.hits.undefined.contains(&(agent, lane.buffer)) {
                continue;
            }
            if self.hits.entries.contains(&number) {
                broken.insert((agent, lane));
            } else if broken.contains(&(agent, lane)) {
                self.hits.entries.insert(number);
                let numbers = entry.numbers.iter().cloned().flatten();
                let numbers = numbers.map(|number| (agent, lane, number));
                self.hits.numbers.extend(numbers);
            }
        }
    }

    fn site_hit(&mut self, hit: &Hit) {
        for (_, number) in &hit.lost {
            self.hits.entries.insert(*number);
            let Some(entry) = self.entries.get(*number as usize) else {
                continue;
            };
            let (agent, lane) = (entry.agent, entry.key.lane_key());
            if lane.lane == Lane::Series {
                self.hits.undefined.insert((agent, lane.buffer));
            }
            let numbers = entry.numbers.iter().cloned().flatten();
            let numbers = numbers.map(|number| (agent, lane, number));
            self.hits.numbers.extend(numbers);
        }
    }

    /// Readings that stood in these entries of the journal may be missing.
    pub(super) fn entries_declared(&self, entries: std::ops::Range<u64>, declared: &mut Declared) {
        for number in entries.filter(|number| self.hits.entries.contains(number)) {
            let Some(entry) = self.entries.get(number as usize) else {
                continue;
            };
            let key = (entry.agent, entry.key);
            if let Some(Content::Readings(names, _)) = self.spooled.get(&key) {
                declared.maybe.extend(names.iter().cloned());
            }
        }
    }

    /// Batches that lie whole beside the lake's tables, since a bit took their definitions.
    pub(super) fn set_apart(&mut self, store: &SimStore, declared: &mut Declared) {
        for (path, list) in store.objects("rejected") {
            let list = String::from_utf8_lossy(&list).into_owned();
            let spooled = self.spooled.iter();
            let named = spooled.filter(|((agent, key), _)| {
                let undefined = self.hits.undefined.contains(&(*agent, key.buffer));
                undefined && list.contains(&format!("\"{key}\""))
            });
            let mut batches = 0;
            for (_, content) in named {
                batches += 1;
                if let Content::Readings(names, _) = content {
                    declared.maybe.extend(names.iter().cloned());
                }
            }
            let listed = list.matches("\"batch\"").count();
            if path.ends_with(".json") && listed != batches {
                self.odd(&format!(
                    "{listed} batches could not be written as rows: {path}"
                ));
            }
        }
    }

    /// Whether a bit took what the journal held under this number.
    pub(super) fn is_hit(&self, (agent, lane): (usize, LaneKey), number: u64) -> bool {
        self.hits.numbers.contains(&(agent, lane, number))
    }
}
