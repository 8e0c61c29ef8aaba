//! What the aggregator has durably, read from its journal by the journal's own reader, and what it
//! says that it has.

use super::{Invariant, Oracle};
use crate::site::{Escaped, agent_id};
use std::ops::Range;
use tributary_aggregator::keeper::record::{self, RecordKind};
use tributary_aggregator::keeper::{KeeperParts, Recovered};
use tributary_journal::{Entry as Stored, LifeId};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::{BatchHash, BatchKey, HashSum, LaneKey};
use tributary_protocol::limits::LEDGER_HOLES_MAX;
use tributary_protocol::message::{Ack, Welcome};

/// An entry of the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub agent: usize,
    pub key: BatchKey,
    hash: BatchHash,
    pub numbers: Vec<Range<u64>>,
    gap: bool,
    in_doubt: bool,
}

/// What is durable under a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub hash: BatchHash,
    pub gap: bool,
}

/// Bytes that are read of the journal at once.
const READ_BYTES: usize = 256 * 1024;

/// How an error of a disk without power ends.
const NO_POWER: &str = "the power is off";

fn parse(stored: Stored) -> Result<Entry, String> {
    let number = stored.number;
    let kind = RecordKind::from_code(stored.kind).ok_or(format!("entry {number} of no kind"))?;
    let record = record::parse(kind, stored.bytes).map_err(|error| error.to_string())?;
    let batch = SealedBatch::open(record.sealed).map_err(|error| error.to_string())?;
    let agents = (0..crate::limits::AGENTS_MAX).map(agent_id);
    let agent = agents.into_iter().position(|id| id == record.agent);
    let numbers = match kind {
        RecordKind::Gap => record.runs,
        _ => vec![batch.numbers()],
    };
    Ok(Entry {
        agent: agent.ok_or("an agent that is not there")?,
        key: batch.key(),
        hash: batch.hash(),
        numbers,
        gap: kind == RecordKind::Gap,
        in_doubt: record.in_doubt,
    })
}

impl Oracle {
    fn read(&mut self, parts: &KeeperParts, entries: Range<u64>) -> Vec<(u64, Entry)> {
        let life = LifeId(parts.log.0);
        let mut found = Vec::new();
        let mut from = entries.start;
        while from < entries.end {
            let mut stored = Vec::new();
            let read = parts.reader.read(life, from, READ_BYTES, &mut stored);
            if read.is_err() && self.hits.entries.contains(&from) {
                from += 1;
                continue;
            }
            if let Err(error) = read {
                if error.to_string().ends_with(NO_POWER) {
                    // A read that sets damaged bytes aside writes, and the power goes in it: what
                    // the next process finds is looked at.
                    return found;
                }
                self.violate(Invariant::I6, || format!("entry {from}: {error}"));
                return found;
            }
            let Some(last) = stored.last().map(|it| it.number) else {
                self.violate(Invariant::I6, || format!("entry {from} is not there"));
                return found;
            };
            from = last + 1;
            for stored in stored.into_iter().filter(|it| entries.contains(&it.number)) {
                let number = stored.number;
                match parse(stored) {
                    Ok(entry) => found.push((number, entry)),
                    Err(error) => {
                        self.violate(Invariant::I6, || format!("entry {number}: {error}"));
                    }
                }
            }
        }
        found
    }

    /// What opening the journal found.
    pub fn recovered(&mut self, recovered: &Recovered) {
        self.stats.site_starts += 1;
        self.undefined_hits();
        let hit = self.hits.entries.len() as u64;
        if recovered.doubled > 0 || recovered.damaged > hit {
            self.violate(Invariant::I5, || format!("recovery found {recovered:?}"));
        }
    }

    /// The journal was opened: whatever was durable is there. Gives up to where it was looked at.
    pub fn reopened(&mut self, parts: &KeeperParts, end: u64, position: u64) -> u64 {
        let known = self.entries.len() as u64;
        if end < known {
            self.violate(Invariant::I6, || {
                format!("the journal ends at {end}, and {known} entries were durable")
            });
            return end;
        }
        let first = parts.reader.lives().first().map_or(end, |span| span.first);
        if first > position {
            self.violate(Invariant::I1, || {
                format!("the journal begins at {first}, and the lake has come to {position}")
            });
            return end;
        }
        for (number, entry) in self.read(parts, first.min(known)..known) {
            if self.entries[number as usize] != entry {
                self.violate(Invariant::I6, || format!("entry {number} is another"));
            }
        }
        self.stats.unsaid += end - known;
        self.take(parts, known..end);
        self.keeps_promises();
        end
    }

    /// The journal holds these, too.
    pub fn appended(&mut self, parts: &KeeperParts, entries: Range<u64>) {
        self.take(parts, entries);
    }

    fn take(&mut self, parts: &KeeperParts, entries: Range<u64>) {
        for (number, entry) in self.read(parts, entries) {
            if number != self.entries.len() as u64 {
                self.violate(Invariant::I6, || format!("entry {number} out of order"));
                return;
            }
            self.stats.entries += 1;
            self.hold(&entry);
            self.entries.push(entry);
        }
    }

    fn hold(&mut self, entry: &Entry) {
        let Entry {
            agent, key, hash, ..
        } = *entry;
        let sent = self.sealed.get(&(agent, key));
        if !sent.is_some_and(|hashes| hashes.contains(&hash)) {
            self.violate(Invariant::I2, || {
                format!("{key} is in the journal, and nobody sent it")
            });
        }
        // There is one aggregator, and no image of a disk: only a bit has messages sealed twice.
        if entry.in_doubt && !self.hits.agents.contains(&agent) {
            self.violate(Invariant::I5, || {
                format!("{key} is in doubt, and nobody else has its messages")
            });
        }
        let lane = self.held.entry((agent, key.lane_key())).or_default();
        let held = Held {
            hash,
            gap: entry.gap,
        };
        let mut twice = None;
        for number in entry.numbers.iter().cloned().flatten() {
            let hit = self.hits.numbers.contains(&(agent, key.lane_key(), number));
            if lane.insert(number, held).is_some() && !hit {
                twice = Some(number);
            }
        }
        if let Some(number) = twice {
            self.violate(Invariant::I5, || {
                format!("{number} of {key} is in the journal twice")
            });
        }
        self.has_few_holes((agent, key.lane_key()));
    }

    /// No lane has more holes than a ledger keeps.
    pub(super) fn has_few_holes(&mut self, of: (usize, LaneKey)) {
        let mut numbers = self.held.get(&of).into_iter().flat_map(|lane| lane.keys());
        let mut next = numbers.next().copied().unwrap_or(0);
        let mut holes = usize::from(next > 0);
        for number in numbers {
            holes += usize::from(*number > next + 1);
            next = *number;
        }
        if holes > LEDGER_HOLES_MAX {
            self.violate(Invariant::I10, || format!("{holes} holes in {:?}", of.1));
        }
    }

    /// How many of these numbers are durable, and the sum of their hashes.
    fn sum(&self, lane: (usize, LaneKey), numbers: Range<u64>) -> (u64, HashSum) {
        let held = self.held.get(&lane).into_iter();
        let held = held.flat_map(|lane| lane.range(numbers.clone()));
        held.fold((0, HashSum::default()), |(count, sum), (_, held)| {
            (count + 1, sum.with(held.hash))
        })
    }

    /// A `Welcome` says that these are held; it answers what was asked at this turn of the keeper.
    pub fn welcomed(&mut self, agent: usize, welcome: &Welcome, asked_at: u64) {
        self.stats.sessions += 1;
        for lane in &welcome.lanes {
            let of = (agent, lane.key);
            for run in &lane.ranges {
                let (count, sum) = self.sum(of, run.first..run.end);
                if count != run.end - run.first {
                    self.violate(Invariant::I6, || {
                        let (first, end) = (run.first, run.end);
                        format!(
                            "Welcome names {:?} {first}..{end}, of which {count} are durable",
                            lane.key
                        )
                    });
                } else if sum != run.sum && !(run.first..run.end).any(|it| self.is_hit(of, it)) {
                    self.violate(Invariant::I7, || {
                        format!("another sum of {:?} in Welcome", lane.key)
                    });
                }
            }
            let said = self.said.get(&of).into_iter().flatten();
            let mut said = said.filter(|(_, at)| **at <= asked_at);
            let names = |number: u64| {
                let mut ranges = lane.ranges.iter();
                ranges.any(|run| (run.first..run.end).contains(&number))
            };
            let missing = |number: u64| !names(number) && !self.is_hit(of, number);
            if let Some((number, _)) = said.find(|(number, _)| missing(**number)) {
                let number = *number;
                self.violate(Invariant::I6, || {
                    format!(
                        "{number} of {:?} was acknowledged, and Welcome does not name it",
                        lane.key
                    )
                });
            }
        }
    }

    fn is_said(&mut self, of: (usize, LaneKey), numbers: Range<u64>, how: &str) {
        let count = numbers.end - numbers.start;
        let (durable, _) = self.sum(of, numbers.clone());
        if durable != count {
            self.violate(Invariant::I6, || {
                format!(
                    "{numbers:?} of {:?} {how}, and {durable} of {count} are durable",
                    of.1
                )
            });
        }
        let turn = self.stats.turns;
        let said = self.said.entry(of).or_default();
        for number in numbers {
            said.entry(number).or_insert(turn);
        }
    }

    /// An acknowledgement leaves.
    pub fn acknowledged(&mut self, agent: usize, ack: &Ack) {
        for range in &ack.ranges {
            let of = (agent, range.key);
            self.is_said(of, range.first..range.end, "are acknowledged");
        }
    }

    /// Answers that had been given when the power went: what they promise is on the disk.
    pub fn has_escaped(&mut self, agent: usize, escaped: &Escaped) {
        self.stats.escaped += 1;
        let numbers = escaped.key.number..escaped.key.number + escaped.count;
        let lane = self.promised.entry((agent, escaped.key.lane_key()));
        lane.or_default().extend(numbers);
    }

    /// Whatever was answered as the power went is durable.
    fn keeps_promises(&mut self) {
        let turn = self.stats.turns;
        for (of, numbers) in std::mem::take(&mut self.promised) {
            for number in numbers {
                let there = self.sum(of, number..number + 1).0 == 1;
                if !there {
                    self.violate(Invariant::I6, || {
                        format!(
                            "{number} of {:?} was answered as the power went, and is gone",
                            of.1
                        )
                    });
                }
                let said = self.said.entry(of).or_default();
                said.entry(number).or_insert(turn);
            }
        }
    }

    /// Whether a number of a lane holds readings.
    pub(super) fn is_data(&self, of: (usize, LaneKey), number: u64) -> bool {
        let held = self.held.get(&of).and_then(|lane| lane.get(&number));
        held.is_some_and(|held| !held.gap)
    }
}
