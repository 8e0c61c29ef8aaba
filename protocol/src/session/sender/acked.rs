//! Which numbers of a lane were acknowledged, and to which journal: what one of them lost, another
//! may still hold. It sends nothing and knows no spool.

use super::{BatchHash, Held, HeldRanges};
use crate::ids::LogId;
use crate::limits::SENDER_LOGS_MAX;
use crate::ranges::UNKNOWN;
use tributary_planted::planted;

/// Where an aggregator is reached, told apart by the shell: of two journals that were met at one
/// place the later has replaced the earlier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Place(pub u64);

impl Place {
    /// The place with this address.
    pub fn of(address: &str) -> Self {
        Self(BatchHash::of(address.as_bytes()).short())
    }
}

/// A journal, and where it was met last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Journal {
    /// Where.
    pub place: Place,
    /// Which.
    pub log: LogId,
}

/// To whom numbers are acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AckedTo {
    /// It is not known any more.
    Somebody,
    /// This journal.
    Journal(Journal),
    /// To nobody any more: its journal lost it, so it is sent again, in doubt.
    Nobody,
}

/// What a journal does not hold although it, or the one that it replaced, acknowledged it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct WentBack {
    pub(super) log: LogId,
    /// Numbers that nobody else acknowledged.
    pub(super) numbers: Vec<(u64, u64)>,
}

/// What is acknowledged of one lane.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Acked {
    /// By anybody.
    all: HeldRanges,
    /// By journals whose names are forgotten.
    somebody: HeldRanges,
    /// By each journal; which was met first stands first.
    journals: Vec<(Journal, HeldRanges)>,
}

impl Acked {
    /// What was acknowledged, to whom is not known.
    pub(super) fn by_somebody(runs: &[Held]) -> Self {
        let mut acked = Self::default();
        runs.iter().for_each(|run| acked.all.insert_known(*run));
        acked.somebody = acked.all.clone();
        acked
    }

    /// What is known to be acknowledged to `journal`, from before a restart.
    pub(super) fn recall(&mut self, journal: Journal, runs: &[Held]) {
        for run in runs {
            if !planted!(Blind3) {
                self.somebody.remove(run.first, run.end);
            }
            self.all.insert_known(*run);
            self.journal(journal).insert_known(*run);
        }
    }

    /// This one is gone, whoever acknowledged it.
    pub(super) fn let_go(&mut self, number: u64) {
        self.all.insert_missing(number, number + 1, UNKNOWN);
        self.somebody.insert_missing(number, number + 1, UNKNOWN);
    }

    /// By anybody.
    pub(super) fn all(&self) -> &HeldRanges {
        &self.all
    }

    /// By whom, journals in the order in which they were met.
    pub(super) fn by_whom(&self) -> impl Iterator<Item = (AckedTo, &HeldRanges)> {
        let journals = self.journals.iter();
        let journals = journals.map(|(journal, held)| (AckedTo::Journal(*journal), held));
        std::iter::once((AckedTo::Somebody, &self.somebody))
            .chain(journals)
            .filter(|(_, held)| !held.is_empty())
    }

    /// These numbers are acknowledged, by this batch or by others. A gap is acknowledged by a
    /// ledger that holds its numbers or knows who does: those that somebody has are not the
    /// acker's.
    pub(super) fn insert(&mut self, journal: Journal, (first, end): (u64, u64), hash: BatchHash) {
        let new = match end - first > 1 && !planted!(GapCreditsAll) {
            true => self.all.missing(first, end),
            false => vec![(first, end)],
        };
        self.all.insert_missing(first, end, hash);
        let of = self.journal(journal);
        for (first, end) in new {
            of.insert_missing(first, end, hash);
        }
    }

    /// Whether any of these is acknowledged, and not by `log`.
    pub(super) fn is_elsewhere(&self, log: LogId, (first, end): (u64, u64)) -> bool {
        let of = self.journals.iter().find(|(known, _)| known.log == log);
        let here = of.map(|(_, held)| held);
        let mut all = self.all.within(first, end).into_iter();
        all.any(|(first, end)| here.is_none_or(|held| !held.missing(first, end).is_empty()))
    }

    /// What `log` acknowledged.
    pub(super) fn by_log(&self, log: LogId) -> HeldRanges {
        let of = self.journals.iter().find(|(known, _)| known.log == log);
        of.map(|(_, held)| held.clone()).unwrap_or_default()
    }

    /// What this journal acknowledged.
    fn journal(&mut self, journal: Journal) -> &mut HeldRanges {
        let known = self.journals.iter();
        let known = known
            .enumerate()
            .find(|(_, (known, _))| known.log == journal.log);
        let at = known.map(|(at, _)| at).unwrap_or_else(|| {
            if self.journals.len() >= SENDER_LOGS_MAX {
                let (_, oldest) = self.journals.remove(0);
                oldest
                    .iter()
                    .for_each(|run| self.somebody.insert_known(*run));
            }
            self.journals.push((journal, HeldRanges::new()));
            self.journals.len() - 1
        });
        let (known, held) = self.journals.get_mut(at).expect("found or pushed just now");
        known.place = journal.place;
        held
    }

    /// Takes in what `journal` says it holds, of the numbers below `listed_to`. `named`: what it
    /// names; `sure`: what it names and is what we mean by it. What a journal acknowledged and does
    /// not name is taken back; so is what a journal acknowledged that it replaced, but for what
    /// it surely has as well.
    pub(super) fn confirm(
        &mut self,
        journal: Journal,
        (named, sure): (&HeldRanges, &HeldRanges),
        listed_to: u64,
    ) -> Vec<WentBack> {
        let mut taken_back = Vec::new();
        let mut taken_over = Vec::new();
        for (known, held) in &mut self.journals {
            let same = known.log == journal.log;
            if same {
                known.place = journal.place;
            }
            if known.place != journal.place || (!same && planted!(MeetKeepsOld)) {
                continue;
            }
            let confirmed = if same { named } else { sure };
            let (mut numbers, end) = (Vec::new(), held.end().min(listed_to));
            for (first, end) in held.within(0, end) {
                numbers.extend(confirmed.missing(first, end));
                taken_over.extend(confirmed.within(first, end));
            }
            if same {
                let lost = numbers.iter();
                lost.for_each(|(first, end)| held.remove(*first, *end));
            } else {
                held.remove(0, end);
            }
            taken_back.push((known.log, numbers));
        }
        for run in self.somebody.iter() {
            taken_over.extend(sure.within(run.first, run.end));
        }
        for (first, end) in &taken_over {
            self.take_over(journal, (*first, *end), sure);
        }
        self.journals.retain(|(_, held)| !held.is_empty());
        let lost = taken_back.into_iter().map(|(log, numbers)| WentBack {
            log,
            numbers: self.forget(numbers),
        });
        lost.filter(|lost| !lost.numbers.is_empty()).collect()
    }

    /// The journal holds these numbers: with its own sums where they are whole runs of it.
    fn take_over(&mut self, journal: Journal, (first, end): (u64, u64), sure: &HeldRanges) {
        let whole = sure.iter().find(|run| (run.first, run.end) == (first, end));
        let sum = whole.map_or_else(Default::default, |run| run.sum);
        self.somebody.remove(first, end);
        self.journal(journal).insert_known(Held { first, end, sum });
    }

    /// Takes back those of these numbers that nobody acknowledged any more; which they are.
    fn forget(&mut self, numbers: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
        let mut left = numbers;
        let others = self.journals.iter().map(|(_, held)| held);
        for held in others.chain([&self.somebody]) {
            let missing = left.iter();
            left = missing
                .flat_map(|(first, end)| held.missing(*first, *end))
                .collect();
        }
        for (first, end) in &left {
            self.all.remove(*first, *end);
        }
        left
    }
}
