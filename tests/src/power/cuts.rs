//! Cuts the power at chosen operations of a recording, lets the real programs start on what is
//! left, and says whether all is there.

use super::disk::Disk;
use super::log::Op;
use super::recording::{self, FLEETS, Machine, Recording};
use super::recovery::recover;
use super::stored::Missing;
use super::tree::Tree;
use super::wire::Devices;
use super::{Names, Survival};
use crate::dice::Dice;
use crate::limits::CUTS_AT_ONCE;
use crate::site::Site;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};
use tributary_sim::verify::{self, Loss, Report};

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

    /// Whether that machine's does.
    pub fn has(self, machine: Machine) -> bool {
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
    /// Whether it goes again while the programs recover, by this seed.
    pub again: Option<u64>,
}

/// What came of one.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which cut.
    pub cut: Cut,
    /// How many records both had added when the power went again, if it did.
    pub again_at: Option<usize>,
    /// Readings that were acknowledged by then.
    pub acknowledged: u64,
    /// Those that were after it, when the devices were back.
    pub later: u64,
    /// Of both, how many are nowhere.
    pub lost: u64,
    /// Rows that are there more than once, of alerts too.
    pub doubled: u64,
    /// Rows that nobody published like that.
    pub altered: u64,
    /// What was declared lost.
    pub losses: Vec<Loss>,
    /// What was sealed, or heard, and is not in the lake as it was.
    pub missing: Missing,
    /// Batches that were set apart, whole, because they can't be rows.
    pub set_apart: u64,
    /// Messages that were kept as dead letters.
    pub letters: u64,
    /// Whether both programs started, drained and ended.
    pub is_started: bool,
    /// What the audit found.
    pub audit: Vec<String>,
    /// Files of the aggregator's journal that were there when the audit looked.
    pub journal: BTreeSet<OsString>,
    /// What a person would have had to mend, or what else is wrong.
    pub wrong: Option<String>,
}

impl Outcome {
    /// Whether nothing is lost, doubled, declared or to be mended, and the audit says so, too.
    pub fn is_clean(&self) -> bool {
        self.is_clean_but_for_the_audit() && self.audit.is_empty()
    }

    /// The same, whatever the audit found.
    pub fn is_clean_but_for_the_audit(&self) -> bool {
        self.lost + self.doubled + self.altered + self.set_apart + self.missing.told() == 0
            && self.missing.rows.is_empty()
            && self.losses.is_empty()
            && self.wrong.is_none()
    }

    /// Whether a person has to do something: start what does not start, do what a finding of the
    /// audit says, or put back what was set apart.
    pub fn wants_a_person(&self) -> bool {
        !self.is_started || !self.audit.is_empty() || self.set_apart > 0
    }

    /// Readings that were declared lost, as far as anybody knows.
    pub fn declared(&self) -> u64 {
        let known = self.losses.iter().filter_map(|loss| loss.readings);
        known.map(|readings| readings.max(0) as u64).sum()
    }
}

/// `count` cuts by dice: half of them right after an acknowledgement was heard, a quarter within a
/// sync, the others anywhere; over all ways to survive, and all victims. In one of four the power
/// goes a second time.
///
/// # Panics
/// When nothing was acknowledged.
pub fn choose(recording: &Recording, count: usize, seed: u64) -> Vec<Cut> {
    let mut dice = Dice::new(seed);
    let (mut acknowledged, mut syncing) = (Vec::new(), Vec::new());
    let mut devices = Devices::default();
    for (place, (_, op)) in recording.log.ops().enumerate() {
        if devices.apply(&op) {
            acknowledged.push(place + 1);
        }
        if matches!(op, Op::SyncBegin { .. }) {
            syncing.push(place + 1);
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
            let cut = Cut {
                at,
                survival: Survival::by_dice(number as u64, &mut dice),
                names: Names::by_dice(&mut dice),
                victims: Victims::ALL[number / 3 % 3],
                again: None,
            };
            match dice.below(4) {
                0 => cut.and_again(dice.bits()),
                _ => cut,
            }
        })
        .collect();
    cuts.sort_by_key(|cut| cut.at);
    cuts
}

/// What a cut leaves.
#[derive(Clone, Debug)]
pub struct Left {
    /// Which one.
    pub cut: Cut,
    /// On the agent's machine.
    pub agent: Tree,
    /// On the aggregator's.
    pub aggregator: Tree,
    /// What the devices knew by then.
    pub devices: Devices,
}

impl Left {
    /// What it leaves on this disk, with these devices.
    pub fn of(recording: &Recording, disk: &Disk, devices: &Devices, cut: Cut) -> Self {
        let of = |machine: Machine, seed: u64| {
            let survival = match (cut.victims.has(machine), cut.survival) {
                (false, _) => Survival::All,
                (true, Survival::Half(half)) => Survival::Half(half ^ seed),
                (true, survival) => survival,
            };
            disk.after_power_cut(&recording.root(machine), survival, cut.names)
        };
        Self {
            cut,
            agent: of(Machine::Agent, 0),
            aggregator: of(Machine::Aggregator, 1),
            devices: devices.clone(),
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
            let (mut disk, mut devices) = (recording.disk(), Devices::default());
            let mut at = 0;
            for cut in cuts {
                while at < cut.at {
                    let (_, op) = recording.log.op(at);
                    if syncs == Syncs::Work || !matches!(op, Op::SyncEnd { .. }) {
                        disk.apply(&op).unwrap();
                    }
                    devices.apply(&op);
                    at += 1;
                }
                let left = Left::of(recording, &disk, &devices, *cut);
                to_do.send(left).unwrap();
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

/// Starts the programs on what is left, has the devices come back, and looks; the site is kept
/// unless it `is_well`.
pub fn carry_out(
    recording: &Recording,
    left: &Left,
    is_well: &dyn Fn(&Outcome) -> bool,
) -> Outcome {
    let mut outcome = Outcome {
        cut: left.cut,
        again_at: None,
        acknowledged: left.devices.acknowledged_count(),
        later: 0,
        lost: 0,
        doubled: 0,
        altered: 0,
        losses: Vec::new(),
        missing: Missing::default(),
        set_apart: 0,
        letters: 0,
        is_started: false,
        audit: Vec::new(),
        journal: BTreeSet::new(),
        wrong: None,
    };
    let site = recording::site("cut");
    let looked = catch_unwind(AssertUnwindSafe(|| {
        left.agent.write(&site.root(Machine::Agent)).unwrap();
        left.aggregator
            .write(&site.root(Machine::Aggregator))
            .unwrap();
        let recovered = recover(recording, left, &site);
        outcome.is_started = true;
        outcome.letters = recovered.letters;
        outcome.again_at = recovered.again_at;
        outcome.later = recovered.devices.acknowledged_count() - outcome.acknowledged;
        outcome.look(recording, &recovered.devices, &site);
    }));
    if let Err(panicked) = looked {
        let text = panicked.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panicked.downcast_ref::<&str>().copied());
        outcome.wrong = Some(text.unwrap_or("a panic without words").to_owned());
        if !outcome.is_started {
            // Whoever does not start has an audit all the same.
            let looked = AssertUnwindSafe(|| outcome.look_at_the_audit(&site));
            let audited = catch_unwind(looked);
            if audited.is_err() {
                outcome.audit.clear();
            }
        }
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

impl Outcome {
    /// Compares the lake with what the devices know, and with what the recorded run had stored.
    fn look(&mut self, recording: &Recording, devices: &Devices, site: &Site) {
        let lake = site.lake();
        for (fleet, truth) in FLEETS.iter().zip(&recording.truths) {
            let by_then = site.path().join(format!("{fleet}.truth"));
            truth.write_as_of(devices, &by_then);
            self.add(&verify::compare(&lake, &by_then).unwrap());
        }
        // What can't be read is wrong, but what else there is is looked at.
        match recording.stored.look(self.cut.at, &lake) {
            Ok(missing) => self.missing = missing,
            Err(why) => self.wrong = Some(why),
        }
        match verify::losses(&lake) {
            Ok(losses) => self.losses = losses,
            Err(why) => self.wrong = Some(why),
        }
        self.doubled += match self.wrong {
            None => alerts_told_twice(site).max(self.missing.twice.len() as u64),
            Some(_) => 0,
        };
        self.look_at_the_audit(site);
    }

    fn look_at_the_audit(&mut self, site: &Site) {
        let (report, code) = site.audit();
        let findings = report["findings"].as_array().cloned().unwrap_or_default();
        let words = findings.iter().map(|finding| finding["what"].to_string());
        self.audit = words.collect();
        let journal = site.root(Machine::Aggregator).join("journal");
        let files = std::fs::read_dir(journal).unwrap();
        self.journal = files.map(|file| file.unwrap().file_name()).collect();
        assert_eq!(code == Some(0), self.audit.is_empty(), "{report:#}");
        let lanes = report["lanes"].as_array().into_iter().flatten();
        let spans = lanes.flat_map(|lane| lane["set_apart"].as_array().into_iter().flatten());
        let count = |span: &serde_json::Value| Some(span[1].as_u64()? - span[0].as_u64()?);
        self.set_apart = spans.filter_map(count).sum();
    }

    fn add(&mut self, report: &Report) {
        self.lost += report.lost;
        self.doubled += report.duplicates;
        self.altered += report.changed + report.foreign;
        let truth = report.truth_tail.as_ref();
        let wrong = truth.cloned().or_else(|| {
            let unreadable = report.unreadable.first()?;
            Some(format!("{unreadable:?}"))
        });
        self.wrong = self.wrong.take().or(wrong);
    }
}
