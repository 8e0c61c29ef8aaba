//! What a ledger does not hold because others do: no holes, and no loss. It is what an agent says
//! when it begins a session; whether it is true shows when ledgers are compared.

use super::{AgentLedger, Ledger};
use crate::ids::{AgentId, LaneKey, LogId};
use crate::limits::{
    AGENT_LANES_MAX, LEDGER_ELSEWHERE_RUNS_MAX, LEDGER_HOLES_MAX, LEDGER_LANE_RUNS_MAX,
    LEDGER_LOGS_MAX,
};
use crate::message::{Elsewhere, Hello};
use crate::ranges::{Held, HeldRanges, UNKNOWN};
use std::collections::BTreeSet;
use std::ops::Range;
use tributary_planted::planted;

/// What of one lane others hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Covered {
    /// By journal, apart from what is held here; which was named first stands first.
    by_log: Vec<(LogId, HeldRanges)>,
    /// Everything below was acknowledged by somebody.
    floor: u64,
}

impl Covered {
    pub(super) fn from_parts(by_log: Vec<(LogId, HeldRanges)>, floor: u64) -> Self {
        Self { by_log, floor }
    }

    pub(super) fn by_log(&self) -> &[(LogId, HeldRanges)] {
        &self.by_log
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_log.is_empty() && self.floor == 0
    }

    /// Whether what is held has the same holes without it.
    pub(super) fn fills_no_hole(&self, held: &HeldRanges) -> bool {
        self.by_log.is_empty() && held.first_missing(0, self.floor).is_none()
    }

    fn runs(&self) -> usize {
        self.by_log.iter().map(|(_, runs)| runs.iter().len()).sum()
    }

    /// Adds it to what is held, without sums.
    pub(super) fn add_to(&self, held: &mut HeldRanges) {
        held.insert_missing(0, self.floor, UNKNOWN);
        for run in self.by_log.iter().flat_map(|(_, runs)| runs.iter()) {
            held.insert_missing(run.first, run.end, UNKNOWN);
        }
    }

    /// Those of these numbers that a journal is known to hold taken away. What is only known to
    /// be below the floor stays: a gap may speak of it.
    pub(super) fn without(&self, numbers: Vec<Range<u64>>) -> Vec<Range<u64>> {
        let mut left = numbers;
        for (_, runs) in &self.by_log {
            let missing = left.iter();
            let missing = missing.flat_map(|run| runs.missing(run.start, run.end));
            left = missing.map(|(first, end)| first..end).collect();
        }
        left
    }

    /// These are held here from now on.
    pub(super) fn take_out(&mut self, numbers: &Range<u64>) {
        for (_, runs) in &mut self.by_log {
            runs.remove(numbers.start, numbers.end);
        }
        self.by_log.retain(|(_, runs)| !runs.is_empty());
    }

    /// Takes in what `log` holds and this ledger does not, in no more than `most` runs, and with no
    /// more holes between all of it than a lane may have. How many numbers found no room.
    fn add(&mut self, log: LogId, ranges: &[Held], held: &HeldRanges, most: usize) -> u64 {
        let mut left_out = 0;
        let mut all = held.clone();
        self.add_to(&mut all);
        // The newest first: they are the ones that would be holes.
        for run in ranges.iter().rev() {
            let missing = held.missing(run.first, run.end);
            if self.knows(log, &missing) {
                continue;
            }
            let holes = all.holes();
            let new = all.insert_missing(run.first, run.end, UNKNOWN);
            let opens = all.holes() > LEDGER_HOLES_MAX && all.holes() > holes;
            if opens || self.runs() + missing.len() > most {
                new.iter().for_each(|(first, end)| all.remove(*first, *end));
                left_out += missing.iter().map(|(first, end)| end - first).sum::<u64>();
                continue;
            }
            let whole = missing == [(run.first, run.end)];
            let runs = self.of(log);
            for (first, end) in missing {
                let sum = if whole { run.sum } else { Default::default() };
                runs.insert_known(Held { first, end, sum });
            }
        }
        self.by_log.retain(|(_, runs)| !runs.is_empty());
        left_out
    }

    fn knows(&self, log: LogId, numbers: &[(u64, u64)]) -> bool {
        let of = self.by_log.iter().find(|(known, _)| *known == log);
        let mut numbers = numbers.iter();
        numbers.all(|(first, end)| {
            of.is_some_and(|(_, runs)| runs.first_missing(*first, *end).is_none())
        })
    }

    fn of(&mut self, log: LogId) -> &mut HeldRanges {
        let known = self.by_log.iter().position(|(known, _)| *known == log);
        let full = known.is_none() && self.by_log.len() >= LEDGER_LOGS_MAX;
        // Of more journals than these the names are not kept.
        let log = if full { LogId::FORGOTTEN } else { log };
        let at = known.or_else(|| self.by_log.iter().position(|(known, _)| *known == log));
        let at = at.unwrap_or_else(|| {
            self.by_log.push((log, HeldRanges::new()));
            self.by_log.len() - 1
        });
        let (_, runs) = self.by_log.get_mut(at).expect("found or pushed just now");
        runs
    }
}

impl Ledger {
    /// As [`declare_elsewhere`](Self::declare_elsewhere), where an agent names no others: what it
    /// said before was taken back.
    pub fn nothing_is_elsewhere(&mut self, agent: &AgentId, hello: &Hello) {
        if let Some(entry) = self.agents.get_mut(agent) {
            let keys: Vec<LaneKey> = hello.lanes.iter().map(|state| state.key).collect();
            keys.into_iter().for_each(|key| entry.forget_elsewhere(key));
        }
    }

    /// Takes in what an agent says, beginning a session, that others acknowledged: its numbers are
    /// no holes here, and no gap takes them; data under them is welcome all the same. What it said
    /// before and names no more was taken back, if it had room to name all. `own` is the journal of
    /// this ledger. Called once [the session](Self::open_session) is open. How many
    /// numbers found no room: they count as holes.
    pub fn declare_elsewhere(&mut self, agent: &AgentId, hello: &Hello, own: LogId) -> u64 {
        let entry = self.agents.entry(agent.clone()).or_default();
        let announced: BTreeSet<LaneKey> = hello.lanes.iter().map(|state| state.key).collect();
        entry.forget_unannounced(&announced);
        for state in hello.lanes.iter().filter(|state| state.first > 0) {
            entry.open(state.key.buffer);
            entry.changed(state.key.buffer);
            if let Some(covered) = entry.covered_mut(state.key) {
                let below = if planted!(FloorTooHigh) {
                    state.end
                } else {
                    state.first
                };
                covered.floor = covered.floor.max(below);
            }
        }
        if hello.names_all_elsewhere() {
            announced
                .iter()
                .for_each(|key| entry.forget_elsewhere(*key));
        }
        let others = hello.elsewhere.iter().filter(|it| it.log != own);
        let mut left_out = 0;
        let mut room = entry.room_elsewhere(hello, &announced);
        for Elsewhere { key, log, ranges } in others {
            entry.open(key.buffer);
            entry.changed(key.buffer);
            let held = entry.lanes.get(key).map(|lane| lane.held.clone());
            let Some(covered) = entry.covered_mut(*key) else {
                left_out += ranges.iter().map(|run| run.end - run.first).sum::<u64>();
                continue;
            };
            let before = covered.runs();
            let most = LEDGER_LANE_RUNS_MAX.min(before + room);
            left_out += covered.add(*log, ranges, &held.unwrap_or_default(), most);
            room = room.saturating_sub(covered.runs().saturating_sub(before));
            entry.drop_if_blank(*key);
        }
        left_out
    }
}

impl AgentLedger {
    /// Forgets lanes of which nothing is held, and which the agent has no more.
    fn forget_unannounced(&mut self, announced: &BTreeSet<LaneKey>) {
        self.lanes.retain(|key, lane| {
            let blank = lane.held.is_empty() && lane.pending.is_empty();
            !blank || announced.contains(key)
        });
    }

    /// Forgets what others were said to hold of a lane.
    fn forget_elsewhere(&mut self, key: LaneKey) {
        let lane = self.lanes.get_mut(&key);
        let Some(lane) = lane.filter(|lane| !lane.elsewhere.by_log.is_empty()) else {
            return;
        };
        lane.elsewhere.by_log.clear();
        self.changed(key.buffer);
        self.drop_if_blank(key);
    }

    /// What is elsewhere of a lane, if there is room for one more.
    fn covered_mut(&mut self, key: LaneKey) -> Option<&mut Covered> {
        let full = self.lanes.len() >= AGENT_LANES_MAX && !self.lanes.contains_key(&key);
        (!full).then(|| &mut self.lanes.entry(key).or_default().elsewhere)
    }

    /// For how many more runs there is room. Of lanes that the agent has no more they are given up
    /// first: nothing comes there that could leave a hole.
    fn room_elsewhere(&mut self, hello: &Hello, announced: &BTreeSet<LaneKey>) -> usize {
        let said: usize = hello.elsewhere.iter().map(|it| it.ranges.len()).sum();
        let runs = |entry: &Self| -> usize {
            let lanes = entry.lanes.values();
            lanes.map(|lane| lane.elsewhere.runs()).sum()
        };
        if runs(self) + said > LEDGER_ELSEWHERE_RUNS_MAX {
            let drained = self.lanes.keys().filter(|key| !announced.contains(key));
            for key in drained.copied().collect::<Vec<_>>() {
                // Through the one door: a buffer that is not folded stays so.
                self.forget_elsewhere(key);
            }
        }
        LEDGER_ELSEWHERE_RUNS_MAX.saturating_sub(runs(self))
    }
}
