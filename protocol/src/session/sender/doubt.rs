//! Which numbers another journal than the present one may hold although it did not acknowledge
//! them: they were sent there, and what became of them nobody heard. They wait for that
//! aggregator for a while; then they go to the present one, marked as in doubt. It sends nothing.

use super::{Journal, LaneKey, Place};
use crate::ids::{Lane, LogId};
use crate::limits::{DOUBT_RUNS_MAX, SENDER_LOGS_MAX};
use crate::ranges::{HeldRanges, UNKNOWN};
use std::collections::BTreeMap;
use std::ops::Range;

type Lanes = BTreeMap<LaneKey, HeldRanges>;

/// What one journal may hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Doubt {
    /// Which; [`LogId::FORGOTTEN`] for several.
    journal: Journal,
    /// When the last session with it ended, or the agent began.
    since: i64,
    lanes: Lanes,
}

/// What may be held by others.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Doubts {
    /// How long to wait for them, in microseconds.
    pub(super) hold_us: i64,
    /// The oldest first.
    of: Vec<Doubt>,
    /// What nobody will ever hear of: acknowledged and then lost by its journal, or sent to one
    /// that another has replaced. It waits for nobody.
    gone: Lanes,
}

impl Doubts {
    pub(super) fn new(hold_us: i64) -> Self {
        Self {
            hold_us,
            of: Vec::new(),
            gone: Lanes::new(),
        }
    }

    /// These were sent to `journal`, which did not say until `now` what became of them.
    pub(super) fn sent(&mut self, journal: Journal, now: i64, lane: LaneKey, numbers: Range<u64>) {
        // Definitions go to every ledger that lacks them.
        if lane.lane == Lane::Series || numbers.is_empty() {
            return;
        }
        let known = self.of.iter().position(|of| of.journal.log == journal.log);
        let at = known.unwrap_or_else(|| {
            if self.of.len() >= SENDER_LOGS_MAX {
                self.join_oldest();
            }
            self.of.push(Doubt {
                journal,
                since: now,
                lanes: Lanes::new(),
            });
            self.of.len() - 1
        });
        let doubt = self.of.get_mut(at).expect("found or pushed just now");
        doubt.journal.place = journal.place;
        doubt.since = doubt.since.max(now);
        add(&mut doubt.lanes, lane, numbers);
    }

    /// The agent began now.
    pub(super) fn begin(&mut self, now: i64) {
        let of = self.of.iter_mut();
        of.for_each(|of| of.since = of.since.max(now));
    }

    /// The two oldest become one whose name is forgotten: whatever is met, it is another.
    fn join_oldest(&mut self) {
        let oldest = self.of.remove(0);
        let Some(next) = self.of.first_mut() else {
            return;
        };
        next.journal.log = LogId::FORGOTTEN;
        next.since = next.since.max(oldest.since);
        for (lane, runs) in oldest.lanes {
            let runs = runs.iter();
            runs.for_each(|run| add(&mut next.lanes, lane, run.first..run.end));
        }
    }

    /// These were acknowledged, by a journal that does not hold them any more.
    pub(super) fn taken_back(&mut self, lane: LaneKey, numbers: Range<u64>) {
        if lane.lane != Lane::Series && !numbers.is_empty() {
            add(&mut self.gone, lane, numbers);
        }
    }

    /// Somebody acknowledged these: what others hold of them matters no more. It may leave more
    /// runs than are told apart when something is added, as many as a ledger keeps holes: closing
    /// them would bring back what was settled.
    pub(super) fn settled(&mut self, lane: LaneKey, numbers: &Range<u64>) {
        for lanes in self.every() {
            let Some(runs) = lanes.get_mut(&lane) else {
                continue;
            };
            runs.remove(numbers.start, numbers.end);
            if runs.is_empty() {
                lanes.remove(&lane);
            }
        }
        self.of.retain(|of| !of.lanes.is_empty());
    }

    /// Lanes that are not held any more.
    pub(super) fn retain(&mut self, held: impl Fn(&LaneKey) -> bool) {
        for lanes in self.every() {
            lanes.retain(|lane, _| held(lane));
        }
        self.of.retain(|of| !of.lanes.is_empty());
    }

    fn every(&mut self) -> impl Iterator<Item = &mut Lanes> {
        let of = self.of.iter_mut().map(|of| &mut of.lanes);
        of.chain([&mut self.gone])
    }

    /// A session with `journal` begins: nobody waits any more for those that it replaced.
    pub(super) fn meet(&mut self, journal: Journal) {
        self.give_up(|of| of.log != journal.log && of.place == journal.place);
    }

    /// Nobody waits for an aggregator that is met at none of these places.
    pub(super) fn keep_to(&mut self, places: &[Place]) {
        self.give_up(|of| !places.contains(&of.place));
    }

    /// Nobody waits any more for these journals; what they may hold stays in doubt.
    fn give_up(&mut self, whom: impl Fn(Journal) -> bool) {
        let given_up = |of: &Doubt| of.journal.log != LogId::FORGOTTEN && whom(of.journal);
        let (given_up, of): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.of).into_iter().partition(given_up);
        self.of = of;
        for (lane, runs) in given_up.into_iter().flat_map(|of| of.lanes) {
            let runs = runs.iter();
            runs.for_each(|run| add(&mut self.gone, lane, run.first..run.end));
        }
    }

    /// What of a lane waits for another journal than `present`.
    pub(super) fn waiting(&self, present: LogId, now: i64, lane: LaneKey) -> Vec<&HeldRanges> {
        let waits = |of: &&Doubt| of.journal.log != present && now < self.ends(of);
        let of = self.of.iter().filter(waits);
        of.filter_map(|of| of.lanes.get(&lane)).collect()
    }

    /// Whether anything waits for another journal than `present`.
    pub(super) fn any_waits(&self, present: LogId, now: i64) -> bool {
        let mut of = self.of.iter();
        of.any(|of| of.journal.log != present && now < self.ends(of))
    }

    fn ends(&self, of: &Doubt) -> i64 {
        of.since.saturating_add(self.hold_us)
    }

    /// When the next of them have waited long enough.
    pub(super) fn poll_timeout(&self, present: LogId, now: i64) -> Option<i64> {
        let others = self.of.iter().filter(|of| of.journal.log != present);
        others
            .map(|of| self.ends(of))
            .filter(|end| *end > now)
            .min()
    }

    /// Whether another journal than `present` may hold any of these.
    pub(super) fn is_held_elsewhere(
        &self,
        present: LogId,
        lane: LaneKey,
        numbers: &Range<u64>,
    ) -> bool {
        let others = self.of.iter().filter(|of| of.journal.log != present);
        let others = others.map(|of| &of.lanes).chain([&self.gone]);
        others
            .filter_map(|lanes| lanes.get(&lane))
            .any(|runs| !runs.within(numbers.start, numbers.end).is_empty())
    }

    /// How many another journal than `present` may hold.
    pub(super) fn count(&self, present: LogId) -> u64 {
        let others = self.of.iter().filter(|of| of.journal.log != present);
        let others = others.map(|of| &of.lanes).chain([&self.gone]);
        let mut all = Lanes::new();
        for (lane, runs) in others.flatten() {
            let held = all.entry(*lane).or_default();
            let runs = runs.iter();
            runs.for_each(|run| {
                held.insert_missing(run.first, run.end, UNKNOWN);
            });
        }
        let runs = all.values().flat_map(HeldRanges::iter);
        runs.map(|run| run.end - run.first).sum()
    }

    /// The journals that may hold something.
    pub(super) fn sent_to(&self) -> impl Iterator<Item = Journal> {
        self.of.iter().map(|of| of.journal)
    }

    /// What waits for nobody and is in doubt all the same.
    pub(super) fn gone(&self) -> &BTreeMap<LaneKey, HeldRanges> {
        &self.gone
    }
}

fn add(lanes: &mut Lanes, lane: LaneKey, numbers: Range<u64>) {
    let runs = lanes.entry(lane).or_default();
    runs.insert_missing(numbers.start, numbers.end, UNKNOWN);
    bound(runs);
}

/// Closes the smallest holes while there are too many runs: a number more in doubt costs a wait.
fn bound(runs: &mut HeldRanges) {
    while runs.iter().len() > DOUBT_RUNS_MAX {
        let pairs = runs.iter().zip(runs.iter().skip(1));
        let holes = pairs.map(|(run, next)| (next.first - run.end, run.end, next.first));
        let Some((_, first, end)) = holes.min() else {
            return;
        };
        runs.insert_missing(first, end, UNKNOWN);
    }
}

/// How far a lane may be sent past what waits: each run of it that is passed over is a hole at the
/// ledger, of which there are few. `settled`: what the ledger holds; `waiting`: see
/// [`Doubts::waiting`]; `holes_max`: how many holes there may be.
pub(super) fn reach(settled: &HeldRanges, waiting: &[&HeldRanges], holes_max: usize) -> u64 {
    let mut waits = HeldRanges::new();
    for run in waiting.iter().flat_map(|runs| runs.iter()) {
        waits.insert_missing(run.first, run.end, UNKNOWN);
    }
    let holes = settled.missing(0, settled.end()).into_iter();
    let others = holes.filter(|(first, end)| waits.first_missing(*first, *end).is_some());
    let room = holes_max.saturating_sub(others.count());
    settled
        .iter()
        .for_each(|run| waits.remove(run.first, run.end));
    let next = waits.iter().nth(room);
    next.map_or(u64::MAX, |run| run.first)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
