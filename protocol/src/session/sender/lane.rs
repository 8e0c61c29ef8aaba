//! One lane of one buffer as its sender sees it: what is held, acknowledged, settled with this
//! session's ledger, and where live data begins. It decides nothing across lanes.

use super::acked::{Acked, WentBack};
use super::doubt::reach;
use super::{
    AckedTo, BatchHash, BatchKey, HashSum, Held, HeldRanges, Journal, Lane, LaneKey, LaneStart,
    Lookup, Notice, Place, key_of,
};
use crate::ids::LogId;
use crate::limits::{
    ISLAND_SKIP_BYTES_MIN, SENDER_HOLES_MAX, SENDER_HOLES_SMALLEST_FIRST, WELCOME_HASHES_MAX,
    WELCOME_RANGES_MAX,
};
use crate::ranges::UNKNOWN;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use tributary_planted::planted;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct LaneOut {
    /// The lowest number held, and one past the greatest.
    pub(super) first: u64,
    pub(super) end: u64,
    /// Everything below was trimmed once: it may be gone.
    trimmed: u64,
    /// Bytes held in all, about.
    pub(super) bytes: u64,
    /// Acknowledged, and by whom.
    pub(super) acked: Acked,
    /// What this session's ledger holds, or need not get: not sent again.
    pub(super) settled: HeldRanges,
    /// Numbers from here on are live, those below are backlog.
    pub(super) live_from: u64,
    /// Series that must be known before the next batch makes sense.
    pub(super) series_awaited: u32,
    /// Definitions that came before others that they build on: they go once those are there.
    pub(super) early: BTreeSet<u64>,
    /// Definitions that build on one that can't be read, and how many series they need: they go
    /// when the ledger knows so many.
    pub(super) stuck: BTreeMap<u64, u32>,
    /// Unreadable in the spool.
    pub(super) skipped: BTreeSet<u64>,
    /// Numbers that a gap stands for, by the first: it is sent under that one for all of them.
    gaps: BTreeMap<u64, u64>,
    series: bool,
}

impl LaneOut {
    pub(super) fn new(start: &LaneStart) -> Self {
        let mut lane = Self::empty(start.key, start.first);
        lane.end = start.end;
        lane.bytes = start.bytes;
        lane.acked = Acked::by_somebody(&start.acked);
        lane
    }

    pub(super) fn empty(key: LaneKey, first: u64) -> Self {
        Self {
            first,
            end: first,
            trimmed: first,
            bytes: 0,
            acked: Acked::default(),
            settled: HeldRanges::new(),
            live_from: 0,
            series_awaited: 0,
            early: BTreeSet::new(),
            stuck: BTreeMap::new(),
            skipped: BTreeSet::new(),
            gaps: BTreeMap::new(),
            series: key.lane == Lane::Series,
        }
    }

    /// Another ledger may lack what an earlier one acknowledged: of series it must have all.
    pub(super) fn begin_session(&mut self) {
        if self.series && planted!(Blind1) {
            self.series_awaited = 0;
            return;
        }
        self.settled = if self.series {
            HeldRanges::new()
        } else {
            self.acked.all().clone()
        };
        self.series_awaited = 0;
        self.early.clear();
        self.stuck.clear();
    }

    /// Settles those of the ledger's runs whose sums equal our own, and says which, and whether one
    /// is known to be another; the rest is sent again, and the verdict decides.
    pub(super) fn compare(
        &mut self,
        key: LaneKey,
        (journal, held): (Journal, &[Held]),
        look_up: &mut impl FnMut(BatchKey) -> Lookup,
    ) -> (HeldRanges, bool) {
        let (mut equal, mut differs) = (HeldRanges::new(), false);
        for run in held {
            let Some(ours) = self.unsettled_hashes(key, run, look_up) else {
                continue;
            };
            let known = self.settled.sum_within(run.first, run.end);
            let sum = ours
                .iter()
                .fold(HashSum::default(), |sum, (_, hash)| sum.with(*hash));
            if known.map(|known| known.and(sum)) == Some(run.sum) || planted!(TrimWithoutHash) {
                for (number, hash) in ours {
                    self.settle_all(journal, number..number + 1, hash);
                }
                equal.insert_run(*run);
            } else {
                differs = true;
            }
        }
        (equal, differs)
    }

    /// Takes back what the ledger does not hold although it, or the one that it replaced,
    /// acknowledged it. `equal`: those of its runs that were compared.
    pub(super) fn confirm(
        &mut self,
        (journal, held): (Journal, &[Held]),
        equal: HeldRanges,
    ) -> Vec<WentBack> {
        let (mut named, mut sure) = (HeldRanges::new(), equal);
        for run in held {
            named.insert_run(*run);
            // What is gone from here can't be compared by being sent: its number has to do.
            let end = run.end.min(self.first);
            if run.first < end && !sure.contains(run.first) {
                let whole = (end == run.end).then_some(run.sum);
                sure.insert_run(Held {
                    end,
                    sum: whole.unwrap_or_default(),
                    ..*run
                });
            }
        }
        // A ledger that names so many runs may have more.
        let cut = held.last().filter(|_| held.len() >= WELCOME_RANGES_MAX);
        let listed_to = cut.map_or(u64::MAX, |last| last.end);
        if planted!(TakenBackByNobody) {
            return Vec::new();
        }
        let lost = self.acked.confirm(journal, (&named, &sure), listed_to);
        for (first, end) in lost.iter().flat_map(|lost| &lost.numbers) {
            self.settled.remove(*first, *end);
        }
        lost
    }

    /// What was taken back and is trimmed may still be there: it is held once more, from the lowest
    /// number on that is there, at most [`WELCOME_HASHES_MAX`] numbers back. What is missing above
    /// it is [skipped](Self::skip) when its turn comes.
    pub(super) fn reclaim(
        &mut self,
        key: LaneKey,
        lost: &WentBack,
        look_up: &mut impl FnMut(BatchKey) -> Lookup,
    ) {
        let from = self.first.saturating_sub(WELCOME_HASHES_MAX);
        let lost = lost.numbers.iter();
        let mut trimmed = lost.flat_map(|(first, end)| *first.max(&from)..*end.min(&self.first));
        let lowest = trimmed.find(|number| look_up(key_of(key, *number)) != Lookup::Gone);
        let lowest = lowest.filter(|_| !planted!(ReclaimNothing));
        self.first = lowest.unwrap_or(self.first);
    }

    /// A batch can't be read. What was trimmed once is gone then, and nothing waits for it; whether
    /// that is so.
    pub(super) fn skip(&mut self, number: u64) -> bool {
        if number >= self.trimmed {
            self.skipped.insert(number);
            return false;
        }
        self.settled.insert_missing(number, number + 1, UNKNOWN);
        self.acked.let_go(number);
        true
    }

    /// The hashes of the run's batches that are not settled; `None` when they cannot be had.
    fn unsettled_hashes(
        &self,
        key: LaneKey,
        run: &Held,
        look_up: &mut impl FnMut(BatchKey) -> Lookup,
    ) -> Option<Vec<(u64, BatchHash)>> {
        let missing = self.settled.missing(run.first, run.end);
        let count: u64 = missing.iter().map(|(first, end)| end - first).sum();
        let held_here = missing
            .iter()
            .all(|(first, end)| *first >= self.first && *end <= self.end);
        if count > WELCOME_HASHES_MAX || !held_here {
            return None;
        }
        let numbers = missing.into_iter().flat_map(|(first, end)| first..end);
        numbers
            .map(|number| Some((number, look_up(key_of(key, number)).hash()?)))
            .collect()
    }

    /// What people should hear of what was taken back.
    pub(super) fn went_back(&self, lane: LaneKey, lost: WentBack) -> Notice {
        let (mut ranges, mut again) = (Vec::new(), 0);
        for (first, end) in lost.numbers {
            if first < self.first {
                ranges.push(first..end.min(self.first));
            }
            again += end.saturating_sub(first.max(self.first));
        }
        Notice::WentBack {
            log: lost.log,
            lane,
            ranges,
            again,
        }
    }

    /// The ledger has all of these, by this batch or by others.
    pub(super) fn settle_all(&mut self, journal: Journal, numbers: Range<u64>, hash: BatchHash) {
        self.settled
            .insert_missing(numbers.start, numbers.end, hash);
        let numbers = (numbers.start, numbers.end);
        self.acked.insert(journal, numbers, hash);
    }

    /// A gap stands for these numbers from now on.
    pub(super) fn shed(&mut self, numbers: &Range<u64>) {
        self.gaps.insert(numbers.start, numbers.end);
        self.first = self.first.min(numbers.start);
        self.end = self.end.max(numbers.end);
    }

    /// The numbers of the gap that stands for this one.
    fn gap_at(&self, number: u64) -> Option<Range<u64>> {
        let (first, end) = self.gaps.range(..=number).next_back()?;
        (number < *end).then_some(*first..*end)
    }

    /// Decides where live data begins: at the end of what is there, if skipping the rest is worth
    /// a hole; otherwise all is sent in its order.
    pub(super) fn split_backlog(&mut self, present: bool) {
        let worth_a_hole = self.left_of(&self.settled).1 > ISLAND_SKIP_BYTES_MIN;
        let room = self.settled.holes() < SENDER_HOLES_MAX || planted!(Island41);
        self.live_from = match present {
            false => u64::MAX,
            true if worth_a_hole && room => self.end,
            true => 0,
        };
    }

    /// This ledger does not know what others hold: what is still here of it may be sent, too.
    pub(super) fn unsettle_elsewhere(&mut self, journal: Journal) {
        if !self.series {
            self.settled = self.acked.by_log(journal.log);
        }
    }

    /// What others than this ledger acknowledged, and it has to know so as to see no hole there:
    /// what lies below all that is held here it knows from `Hello`.
    pub(super) fn elsewhere(&self, place: Place) -> Vec<(LogId, Vec<Held>)> {
        let others = self.acked.by_whom().filter_map(|(by, held)| match by {
            AckedTo::Journal(journal) if journal.place == place => None,
            AckedTo::Journal(journal) => Some((journal.log, held)),
            AckedTo::Somebody | AckedTo::Nobody => Some((LogId::FORGOTTEN, held)),
        });
        let above = others.map(|(log, held)| {
            let above = held.iter().filter(|run| run.end >= self.first);
            (log, above.copied().collect())
        });
        above.collect()
    }

    /// The number to send next. `live`: only live or only backlog numbers, and whether the buffer
    /// is the present one. `waiting`: what waits for another ledger.
    pub(super) fn next(
        &self,
        live: Option<(bool, bool)>,
        waiting: &[&HeldRanges],
        under_way: impl Fn(&Range<u64>) -> bool,
    ) -> Option<u64> {
        let (from, to) = match live {
            None => (self.first, self.end),
            Some((true, true)) => (self.first.max(self.live_from), self.end),
            Some((true, false)) => return None,
            Some((false, true)) => (self.first, self.end.min(self.live_from)),
            Some((false, false)) => (self.first, self.end),
        };
        let to = match waiting {
            [] => to,
            waiting => to.min(reach(&self.settled, waiting, SENDER_HOLES_MAX)),
        };
        if from >= to {
            return None;
        }
        let mut missing = self.settled.missing(from, to);
        for runs in waiting {
            let parts = missing.iter();
            missing = parts
                .flat_map(|(first, end)| runs.missing(*first, *end))
                .collect();
        }
        let backlog = matches!(live, Some((false, _)));
        if backlog && self.settled.holes() > SENDER_HOLES_SMALLEST_FIRST {
            missing.sort_by_key(|(first, end)| end - first);
        }
        missing
            .into_iter()
            .find_map(|(first, end)| self.next_of(first..end, &under_way))
    }

    /// The first of these numbers that may be sent. A gap waits until nothing that it stands for is
    /// under way: what arrives after all is no loss then.
    fn next_of(
        &self,
        numbers: Range<u64>,
        under_way: &impl Fn(&Range<u64>) -> bool,
    ) -> Option<u64> {
        let mut at = numbers.start;
        while at < numbers.end {
            let batch = self.gap_at(at).unwrap_or(at..at + 1);
            if !under_way(&batch) && !self.skipped.contains(&batch.start) {
                return Some(batch.start);
            }
            at = batch.end;
        }
        None
    }

    /// How far the spool may be trimmed, if further than before.
    pub(super) fn trim(&mut self) -> Option<u64> {
        let below = self
            .acked
            .all()
            .first_missing(self.first, self.end)
            .unwrap_or(self.end);
        let below = match planted!(TrimOverHoles) {
            true => self.acked.all().end(),
            false => below,
        };
        if below <= self.first {
            return None;
        }
        self.bytes = self.share(self.batches_in(below, self.end));
        self.gaps.retain(|_, end| *end > below);
        self.first = below;
        self.trimmed = self.trimmed.max(below);
        Some(below)
    }

    /// Batches held and not acknowledged, and their bytes, about.
    pub(super) fn unacknowledged(&self) -> (u64, u64) {
        self.left_of(self.acked.all())
    }

    /// Batches that are held and are not in `done`, and their bytes, about.
    fn left_of(&self, done: &HeldRanges) -> (u64, u64) {
        let missing = done.missing(self.first, self.end);
        let batches = missing
            .iter()
            .map(|(first, end)| self.batches_in(*first, *end));
        let batches = batches.sum();
        (batches, self.share(batches))
    }

    /// How many batches these numbers are: a gap is one, however many it stands for.
    fn batches_in(&self, first: u64, end: u64) -> u64 {
        let from = self.gaps.range(..=first).next_back();
        let from = from.map_or(first, |(gap_first, _)| *gap_first);
        let (mut batches, mut at) = (0, first);
        for (gap_first, gap_end) in self.gaps.range(from..end.max(from)) {
            let (from, to) = (at.max(*gap_first), end.min(*gap_end));
            if from < to {
                batches += from - at + 1;
                at = to;
            }
        }
        batches + end.saturating_sub(at)
    }

    /// The bytes of so many of the batches that are held, as if all were alike.
    fn share(&self, batches: u64) -> u64 {
        let all = self.batches_in(self.first, self.end).max(1);
        let bytes = u128::from(self.bytes) * u128::from(batches) / u128::from(all);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}
