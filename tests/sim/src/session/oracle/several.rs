//! What an oracle knows beside where there may be several journals: which of them took what and
//! marked it, what agents said of them, and which losses somebody has to be told of.

use super::{BatchKey, ConnectionId, Invariant, Item, LaneKey, LaneOf, NumberOf, Oracle};
use std::collections::{BTreeMap, BTreeSet};
use tributary_protocol::ids::{Lane, LogId};
use tributary_protocol::ledger::LaneSummary;
use tributary_protocol::message::{Ack, Hello};
use tributary_protocol::ranges::{Held, HeldRanges, UNKNOWN};
use tributary_protocol::session::{AckedTo, Notice, SenderCursor};

/// Which journals took a number at any time.
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    /// The aggregators, a bit each.
    sites: u8,
    /// The journal that took it as data and unmarked.
    unmarked: Option<LogId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Several {
    /// The journals' names, by the places of their aggregators.
    logs: BTreeMap<usize, LogId>,
    took: BTreeMap<NumberOf, Took>,
    /// What a journal lost at any time.
    lost: BTreeSet<NumberOf>,
    /// Whether anything was ever lost or given up: hash sums of parts are not known then.
    unclean: bool,
    /// The lowest and the greatest number that an agent sent to each journal.
    reach: BTreeMap<LaneOf, BTreeMap<LogId, (u64, u64)>>,
    /// The journals that each agent met.
    met: BTreeMap<usize, BTreeSet<LogId>>,
    /// What was acknowledged to an agent since it started.
    acked: BTreeSet<NumberOf>,
    /// What only one aggregator ever had, and lost: of that an agent is to say that it is gone when
    /// it comes there.
    alone: BTreeMap<NumberOf, usize>,
    to_tell: BTreeSet<NumberOf>,
    /// And what it said.
    told: BTreeSet<NumberOf>,
    /// The journal that answered on each connection, and the lanes that its agent named there.
    hellos: BTreeMap<ConnectionId, (LogId, BTreeSet<LaneKey>)>,
}

impl Several {
    /// Whether no other aggregator ever had it.
    fn is_alone(&self, number: NumberOf, site: usize) -> bool {
        self.took
            .get(&number)
            .is_some_and(|took| took.sites == 1 << site)
    }

    /// Whether this was sent to another journal than `log`, or lies between numbers that were.
    fn may_be_elsewhere(&self, agent: usize, log: LogId, item: &Item) -> bool {
        let of_lane = self.reach.get(&(agent, item.key.lane_key()));
        let mut others = of_lane.into_iter().flatten().filter(|(of, _)| **of != log);
        others.any(|(_, (low, high))| *low < item.end() && item.key.number <= *high)
    }
}

fn keys_of(item: &Item) -> impl Iterator<Item = BatchKey> {
    let key = item.key;
    (key.number..item.end()).map(move |number| BatchKey { number, ..key })
}

impl Oracle {
    /// An aggregator starts with this journal.
    pub fn begins(&mut self, site: usize, log: LogId) {
        if let Some(several) = &mut self.several {
            several.logs.insert(site, log);
        }
    }

    /// A spool gave something up: a gap may be acknowledged for what arrived.
    pub(super) fn note_given_up(&mut self) {
        if let Some(several) = &mut self.several {
            several.unclean = true;
        }
    }

    /// A number became durable at `site`.
    pub(super) fn took(&mut self, site: usize, number: NumberOf, gap: bool, marked: bool) {
        let Some(several) = &mut self.several else {
            return;
        };
        let log = several.logs.get(&site).copied();
        let took = several.took.entry(number).or_default();
        took.sites |= 1 << site;
        let (agent, key) = number;
        if gap || key.lane == Lane::Series {
            return;
        }
        let other = took.unmarked.filter(|other| !marked && Some(*other) != log);
        if !marked {
            took.unmarked = log;
        }
        self.stats.twice += u64::from(self.stored(agent, key).count() > 1);
        if let Some(other) = other {
            let what = || format!("{key} is unmarked in two journals, one of them {other:?}");
            self.violate(Invariant::I13, what);
        }
    }

    /// A number is not durable any more where it was.
    pub(super) fn note_lost(&mut self, site: usize, number: NumberOf) {
        let Some(several) = &mut self.several else {
            return;
        };
        several.lost.insert(number);
        several.unclean = true;
        if several.is_alone(number, site) {
            several.alone.insert(number, site);
        }
    }

    /// Whether all of a gap is held by some journal, or was: a ledger takes nothing that it knows
    /// to be elsewhere.
    pub(super) fn is_elsewhere(&self, agent: usize, item: &Item) -> bool {
        let Some(several) = &self.several else {
            return false;
        };
        let known = |key| self.is_stored(agent, key) || several.lost.contains(&(agent, key));
        item.gap && keys_of(item).all(known)
    }

    /// The agent starts: what it knew and did not keep, it knows no more.
    pub fn forgets(&mut self, agent: usize) {
        if let Some(several) = &mut self.several {
            several.acked.retain(|(of, _)| *of != agent);
            several.to_tell.retain(|(of, _)| *of != agent);
        }
    }

    /// A batch leaves an agent. `marked`: as in doubt; `old`: it was sealed before the agent
    /// started.
    pub fn sent_to(
        &mut self,
        (agent, id): (usize, ConnectionId),
        item: &Item,
        (marked, old): (bool, bool),
    ) {
        let Some(several) = &mut self.several else {
            return;
        };
        let Some(log) = several.hellos.get(&id).map(|(log, _)| *log) else {
            return;
        };
        let met = several.met.entry(agent).or_default();
        // Of what a life left nobody knows how much was sent.
        let after_a_start = old && met.iter().any(|other| *other != log);
        let mut keys = keys_of(item);
        let lost = keys.any(|key| several.lost.contains(&(agent, key)));
        let cause = after_a_start || lost || several.may_be_elsewhere(agent, log, item);
        let reach = several
            .reach
            .entry((agent, item.key.lane_key()))
            .or_default();
        let (low, high) = reach.entry(log).or_insert((u64::MAX, 0));
        (*low, *high) = ((*low).min(item.key.number), (*high).max(item.end() - 1));
        self.stats.marked += u64::from(marked);
        if marked && !cause {
            let key = item.key;
            let what = || format!("{key} is marked, and no other journal can have it");
            self.violate(Invariant::I13, what);
        }
    }

    /// An agent hears what was stored of what it sent. `present`: whether it was sealed since the
    /// agent started.
    pub fn credited(
        &mut self,
        (agent, id): (usize, ConnectionId),
        ack: &Ack,
        present: impl Fn(BatchKey) -> bool,
    ) {
        let Some(several) = &mut self.several else {
            return;
        };
        let keys = super::keys_of(ack).filter(|key| {
            let gap = self.sent.get(&(id, *key)).is_some_and(|item| item.gap);
            !gap && key.lane != Lane::Series && present(*key)
        });
        several.acked.extend(keys.map(|key| (agent, key)));
    }

    /// An agent was welcomed.
    pub(super) fn met(&mut self, agent: usize, id: ConnectionId) {
        if let Some(several) = &mut self.several
            && let Some((log, _)) = several.hellos.get(&id)
        {
            several.met.entry(agent).or_default().insert(*log);
        }
    }

    /// An agent has come to this aggregator since it lost something. `has`: what is in its spool.
    pub(super) fn returns(&mut self, agent: usize, site: usize, has: impl Fn(BatchKey) -> bool) {
        let Some(several) = &mut self.several else {
            return;
        };
        let here = several
            .alone
            .extract_if(.., |(of, _), at| *of == agent && *at == site);
        let here: Vec<NumberOf> = here.map(|(number, _)| number).collect();
        let gone = here.into_iter().filter(|number| {
            let acked = several.acked.contains(number) && !several.told.contains(number);
            acked && !has(number.1) && several.is_alone(*number, site)
        });
        let gone: Vec<NumberOf> = gone.collect();
        let gone = gone
            .into_iter()
            .filter(|(of, key)| !self.is_stored(*of, *key));
        let gone: Vec<NumberOf> = gone.collect();
        if let Some(several) = &mut self.several {
            several.to_tell.extend(gone);
        }
    }

    /// An agent tells what is lost.
    pub fn told(&mut self, agent: usize, notices: &[Notice]) {
        let Some(several) = &mut self.several else {
            return;
        };
        for Notice::WentBack { lane, ranges, .. } in notices {
            for number in ranges.iter().cloned().flatten() {
                let LaneKey { buffer, lane } = *lane;
                let key = BatchKey {
                    buffer,
                    lane,
                    number,
                };
                several.to_tell.remove(&(agent, key));
                several.told.insert((agent, key));
                self.stats.told += 1;
            }
        }
    }

    /// An agent says `hello` to the ledger of this journal, which had no room for so much of it.
    pub fn greeting(
        &mut self,
        log: LogId,
        (agent, id): (usize, ConnectionId),
        hello: &Hello,
        left_out: u64,
    ) {
        if left_out > 0 {
            let what = || format!("a ledger has no room for {left_out} numbers of others");
            self.violate(Invariant::I10, what);
        }
        for said in &hello.elsewhere {
            self.credit(agent, said.key, (said.log, &said.ranges));
        }
        if let Some(several) = &mut self.several {
            let lanes = hello.lanes.iter().map(|lane| lane.key).collect();
            several.hellos.insert(id, (log, lanes));
        }
    }

    /// What an agent knows to be acknowledged.
    pub fn credits(&mut self, agent: usize, cursor: &SenderCursor) {
        for known in &cursor.lanes {
            if let AckedTo::Journal(journal) = known.by {
                self.credit(agent, known.key, (journal.log, &known.acked));
            }
        }
    }

    /// An agent takes these for acknowledged by a journal: what that held at some time, or took for
    /// another's under a gap.
    fn credit(&mut self, agent: usize, lane: LaneKey, (log, runs): (LogId, &[Held])) {
        let Some(several) = &self.several else {
            return;
        };
        let site = several.logs.iter().find(|(_, of)| **of == log);
        let Some(journal) = site.and_then(|(site, _)| self.journals.get(*site)) else {
            return;
        };
        let key = |number| BatchKey {
            buffer: lane.buffer,
            lane: lane.lane,
            number,
        };
        for run in runs {
            let (_, sum) = journal.sum((agent, lane), run.first, run.end);
            let unknown = |number: &u64| {
                let of = (agent, key(*number));
                // Of a gap it credits the acker with what it knows to be nobody else's.
                let by_gap = self.shed.contains(&of) && !several.acked.contains(&of);
                let excused = several.lost.contains(&of) || by_gap;
                journal.stored(agent, of.1).is_none() && !excused
            };
            let unknown = (run.first..run.end).find(unknown);
            let differs = sum != run.sum && !several.unclean;
            if let Some(number) = unknown {
                let what = || format!("{} counts as {log:?}'s, which never had it", key(number));
                return self.violate(Invariant::I6, what);
            }
            if differs {
                let what = || format!("an agent's sum of {lane:?} at {log:?} is another");
                return self.violate(Invariant::I7, what);
            }
        }
    }

    /// What a ledger takes to be held by others is, or was; and it has few holes beside.
    pub fn elsewhere_of(&mut self, agent: usize, lanes: &[LaneSummary]) {
        let Some(several) = &self.several else {
            return;
        };
        let mut wrong = None;
        let mut holes = Vec::new();
        for lane in lanes {
            let LaneKey { buffer, lane: of } = lane.key;
            let key = |number| BatchKey {
                buffer,
                lane: of,
                number,
            };
            let known = |number: &u64| {
                let number = (agent, key(*number));
                self.is_stored(agent, number.1) || several.lost.contains(&number)
            };
            let elsewhere = lane.elsewhere.iter().flat_map(|(_, runs)| runs.iter());
            let elsewhere = elsewhere.flat_map(|run| run.first..run.end);
            let unknown = (0..lane.floor).chain(elsewhere).find(|n| !known(n));
            wrong = wrong.or(unknown.map(key));
            holes.push((lane.key, covered(lane).holes()));
        }
        if let Some(key) = wrong {
            let what = || format!("a ledger takes {key} to be elsewhere, and nobody has it");
            self.violate(Invariant::I4, what);
        }
        for (lane, holes) in holes {
            self.holes(lane, holes);
        }
    }

    /// The end of a run: the ledger to which an agent goes, `lanes` of it, has no hole in what the
    /// agent named there.
    pub fn sees_no_hole(&mut self, (agent, id): (usize, ConnectionId), lanes: &[LaneSummary]) {
        let Some(several) = &self.several else {
            return;
        };
        let named = several.hellos.get(&id).into_iter();
        let named = named.flat_map(|(_, lanes)| lanes);
        let named = named.filter(|key| key.lane != Lane::Series);
        let blank = HeldRanges::new();
        let mut hole = None;
        for LaneKey { buffer, lane } in named.copied() {
            let there = lanes
                .iter()
                .find(|it| (it.key.buffer, it.key.lane) == (buffer, lane));
            let covered = there.map_or_else(|| blank.clone(), covered);
            let key = |number| BatchKey {
                buffer,
                lane,
                number,
            };
            let sealed = self.sealed.range((agent, key(0))..=(agent, key(u64::MAX)));
            let missing = sealed.map(|(number, _)| *number).find(|(agent, key)| {
                let number = (*agent, *key);
                let excused = self.excused.contains(&number) || several.lost.contains(&number);
                !covered.contains(key.number) && !excused
            });
            hole = hole.or(missing);
        }
        if let Some((_, key)) = hole {
            let what = || format!("{key} is a hole of the ledger that its agent goes to");
            self.violate(Invariant::I4, what);
        }
    }

    /// The end of a run.
    pub(super) fn finish_several(&mut self) {
        let untold = self.several.as_ref().and_then(|it| it.to_tell.first());
        if let Some((_, key)) = untold.copied() {
            let what = || format!("{key} is lost, its agent knew who had it, and told nobody");
            self.violate(Invariant::I1, what);
        }
    }
}

/// What is held of a lane, here or by others.
fn covered(lane: &LaneSummary) -> HeldRanges {
    let mut covered = lane.held.clone();
    covered.insert_missing(0, lane.floor, UNKNOWN);
    for run in lane.elsewhere.iter().flat_map(|(_, runs)| runs.iter()) {
        covered.insert_missing(run.first, run.end, UNKNOWN);
    }
    covered
}
