//! Cuts the power at chosen operations of a recording, lets the real programs start on what is
//! left, and says whether all is there.

use super::disk::Disk;
use super::log::Op;
use super::recording::{self, FLEETS, Machine, Recording};
use super::tree::Tree;
use super::{Names, Survival};
use crate::dice::Dice;
use crate::limits::CUTS_AT_ONCE;
use crate::process::Process;
use crate::site::{Site, backlog_gone};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};
use tributary_sim::verify::{self, Report};

/// Whose power goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Victims {
    /// The gateway's.
    Agent,
    /// The aggregator's.
    Aggregator,
    /// Both.
    Both,
}

impl Victims {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Aggregator, Self::Both];

    fn has(self, machine: Machine) -> bool {
        match self {
            Self::Agent => machine == Machine::Agent,
            Self::Aggregator => machine == Machine::Aggregator,
            Self::Both => true,
        }
    }
}

/// One power cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// How many operations were done.
    pub at: usize,
    /// What is left of what was not synced. A machine whose power stays has everything.
    pub survival: Survival,
    /// What makes names durable.
    pub names: Names,
    /// Whose power goes.
    pub victims: Victims,
}

/// What came of one.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which cut.
    pub cut: Cut,
    /// Readings that were acknowledged by then.
    pub acknowledged: u64,
    /// Of those, how many are nowhere.
    pub lost: u64,
    /// Rows that are there twice, of alerts too, or that nobody published like that.
    pub doubled: u64,
    /// Readings that were declared lost, and declarations that do not say how many.
    pub declared: u64,
    /// Whether batches were set apart, whole, because they can't be rows: readings of them are not
    /// in the lake's tables, and not lost.
    pub is_set_apart: bool,
    /// Whether one of those declarations does not say how many.
    pub is_of_unknown_size: bool,
    /// Whether both programs started, drained and ended.
    pub is_started: bool,
    /// What a person would have had to mend, or what else is wrong.
    pub wrong: Option<String>,
}

impl Outcome {
    /// Whether nothing is lost, doubled, declared or to be mended.
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.declared == 0 && self.wrong.is_none()
    }
}

/// `count` cuts by dice: half of them right after an acknowledgement was written down, a quarter
/// within a sync, the others anywhere; over all ways to survive, and all victims.
pub fn choose(recording: &Recording, count: usize, seed: u64) -> Vec<Cut> {
    let mut dice = Dice::new(seed);
    let (mut acknowledged, mut syncing) = (Vec::new(), Vec::new());
    let fleets = recording.fleets();
    let mut truths = BTreeSet::new();
    for (place, (_, op)) in recording.log.ops().enumerate() {
        match op {
            Op::Create { path, inode } if path.starts_with(&fleets) => {
                truths.insert(inode);
            }
            Op::Create { inode, .. } => {
                truths.remove(&inode);
            }
            Op::Write { inode, .. } if truths.contains(&inode) => acknowledged.push(place + 1),
            Op::SyncBegin { .. } => syncing.push(place + 1),
            _ => {}
        }
    }
    let mut cuts: Vec<Cut> = (0..count)
        .map(|number| {
            let any = |dice: &mut Dice, of: &[usize]| of[dice.below(of.len() as u64) as usize];
            let at = match number / 9 % 4 {
                0 | 1 => any(&mut dice, &acknowledged),
                2 => any(&mut dice, &syncing),
                _ => dice.below(recording.log.len() as u64 + 1) as usize,
            };
            let survival = match number % 3 {
                0 => Survival::Nothing,
                1 => Survival::Half(dice.bits()),
                _ => Survival::All,
            };
            let names = match dice.below(2) {
                0 => Names::ByDirectory,
                _ => Names::Journal,
            };
            let victims = Victims::ALL[number / 3 % 3];
            Cut {
                at,
                survival,
                names,
                victims,
            }
        })
        .collect();
    cuts.sort_by_key(|cut| cut.at);
    cuts
}

/// What a cut leaves.
#[derive(Clone, Debug)]
pub struct Left {
    cut: Cut,
    /// On the agent's machine.
    pub agent: Tree,
    /// On the aggregator's.
    pub aggregator: Tree,
    /// How the truth of each fleet began by then.
    truths: Tree,
}

impl Left {
    /// What it leaves on this disk.
    pub fn of(recording: &Recording, disk: &Disk, cut: Cut) -> Self {
        let of = |machine: Machine, seed: u64| {
            let survival = match (cut.victims.has(machine), cut.survival) {
                (false, _) => Survival::All,
                (true, Survival::Half(half)) => Survival::Half(half ^ seed),
                (true, survival) => survival,
            };
            disk.after_power_cut(&recording.root(machine), survival, cut.names)
        };
        let fleets = recording.fleets();
        Self {
            cut,
            agent: of(Machine::Agent, 0),
            aggregator: of(Machine::Aggregator, 1),
            truths: disk.after_power_cut(&fleets, Survival::All, cut.names),
        }
    }
}

/// Whether syncs make anything durable: a disk on which they don't shows that a loss is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Syncs {
    /// They do.
    Work,
    /// They don't.
    AreIgnored,
}

/// Replays the cuts, which are in order, several at once; tells each outcome as it comes.
///
/// # Panics
/// When the recording can't be replayed.
pub fn replay(
    recording: &Recording,
    cuts: &[Cut],
    syncs: Syncs,
    mut told: impl FnMut(&Outcome),
) -> Vec<Outcome> {
    let is_well = |outcome: &Outcome| syncs == Syncs::AreIgnored || outcome.is_clean();
    let (to_do, given) = sync_channel::<Left>(1);
    let (done, outcomes) = sync_channel(cuts.len());
    let given = Mutex::new(given);
    std::thread::scope(|scope| {
        for _ in 0..CUTS_AT_ONCE {
            let (done, given) = (done.clone(), &given);
            scope.spawn(move || {
                while let Some(left) = next(given) {
                    // Whoever started us counts what it gets.
                    let _ = done.send(carry_out(recording, &left, &is_well));
                }
            });
        }
        drop(done);
        scope.spawn(move || {
            let mut disk = recording.disk();
            let mut at = 0;
            for cut in cuts {
                while at < cut.at {
                    let (_, op) = recording.log.op(at);
                    if syncs == Syncs::Work || !matches!(op, Op::SyncEnd { .. }) {
                        disk.apply(&op).unwrap();
                    }
                    at += 1;
                }
                to_do.send(Left::of(recording, &disk, *cut)).unwrap();
            }
        });
        let all: Vec<Outcome> = outcomes.iter().inspect(|outcome| told(outcome)).collect();
        assert_eq!(all.len(), cuts.len());
        all
    })
}

fn next(given: &Mutex<Receiver<Left>>) -> Option<Left> {
    given.lock().unwrap().recv().ok()
}

/// Starts the programs on what is left, and looks; the site is kept unless it `is_well`.
pub fn carry_out(
    recording: &Recording,
    left: &Left,
    is_well: &dyn Fn(&Outcome) -> bool,
) -> Outcome {
    let mut outcome = Outcome {
        cut: left.cut,
        acknowledged: 0,
        lost: 0,
        doubled: 0,
        declared: 0,
        is_set_apart: false,
        is_of_unknown_size: false,
        is_started: false,
        wrong: None,
    };
    let site = recording::site("cut");
    let looked = catch_unwind(AssertUnwindSafe(|| {
        left.agent.write(&site.path().join("agent")).unwrap();
        let aggregator = site.path().join("aggregator");
        left.aggregator.write(&aggregator).unwrap();
        left.truths.write(&site.path().join("begun")).unwrap();
        drain(&site);
        outcome.is_started = true;
        outcome.is_set_apart = site.lake().join("rejected").exists();
        outcome.doubled += alerts_told_twice(&site);
        for (fleet, truth) in FLEETS.iter().zip(&recording.truths) {
            let begun = site.path().join("begun").join(format!("{fleet}.truth"));
            let by_then = site.path().join(format!("{fleet}.truth"));
            if std::fs::metadata(&begun).map_or(0, |file| file.len()) < TRUTH_HEADER_BYTES {
                continue;
            }
            truth.write_as_of(&begun, &by_then);
            let report = verify::compare(&site.lake(), &by_then).unwrap();
            outcome.add(&report);
        }
    }));
    if let Err(panicked) = looked {
        let text = panicked.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panicked.downcast_ref::<&str>().copied());
        outcome.wrong = Some(text.unwrap_or("a panic without words").to_owned());
    }
    if !is_well(&outcome) {
        site.keep();
    }
    outcome
}

/// How many rows of alerts say what another one says.
pub fn alerts_told_twice(site: &Site) -> u64 {
    let alerts = verify::alerts(&site.lake()).unwrap();
    let twice = alerts.windows(2).filter(|pair| pair[0] == pair[1]);
    twice.count() as u64
}

/// A truth ledger that is shorter has nothing in it.
const TRUTH_HEADER_BYTES: u64 = 64;

/// Starts both ends, waits until the agent has nothing more, and ends them.
pub fn drain(site: &Site) {
    let (mut aggregator, mut agent): (Process, Process) = (site.aggregator(), site.agent());
    aggregator.up();
    agent.up();
    backlog_gone(&agent);
    site.end(agent, aggregator);
}

impl Outcome {
    fn add(&mut self, report: &Report) {
        self.acknowledged += report.acknowledged;
        self.lost += report.lost;
        self.doubled += report.duplicates + report.changed + report.foreign;
        // Each fleet's comparison sees them all.
        self.declared = self.declared.max(report.declared + report.declared_unknown);
        self.is_of_unknown_size |= report.declared_unknown > 0;
        let truth = report.truth_tail.as_ref();
        let wrong = truth.cloned().or_else(|| {
            let unreadable = report.unreadable.first()?;
            Some(format!("{unreadable:?}"))
        });
        self.wrong = self.wrong.take().or(wrong);
    }
}
