//! One call of a real program fails: a write or growth for want of room, an fsync with an I/O
//! error. It may end by that, and starts again then; in the end all is there, nothing is declared.
//! After an fsync that failed the power goes as well: what it was to write is not on the disk, and
//! no later fsync has put it there.

use super::cuts::{Cut, Left, Outcome, Victims, carry_out};
use super::log::{Log, Op};
use super::recording::{Machine, Recording, Scale};
use super::wire::Devices;
use super::{Names, Survival};
use crate::dice::Dice;
use crate::limits::{CUT_SOON_AFTER, FAULT_SECONDS, FAULT_SENSORS};
use crate::shim::Shim;
use std::ffi::OsString;
use std::sync::Arc;

/// What fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failing {
    /// A write, a creation, a growth: no space left.
    Write,
    /// An fsync or fdatasync: I/O error.
    Sync,
}

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Whose.
    pub machine: Machine,
    /// What.
    pub failing: Failing,
    /// Which one of its process.
    pub number: u64,
}

impl Fault {
    /// As the recorder is told it.
    pub fn word(self) -> OsString {
        let word = match self.failing {
            Failing::Write => "enospc",
            Failing::Sync => "eio",
        };
        OsString::from(format!("{word}:{}", self.number))
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Faulted {
    /// Whether it failed.
    pub came: bool,
    /// How often the program ended by it.
    pub ended: u64,
    /// Readings that were acknowledged in the run, all of which are in its lake.
    pub acknowledged: u64,
    /// What came of the power cut behind it, if there was one.
    pub cut: Option<Outcome>,
}

fn scale(fault: Option<Fault>) -> Scale {
    Scale {
        seconds: FAULT_SECONDS,
        sensors: FAULT_SENSORS,
        fills_segments: false,
        kills: [0, 0],
        fault,
    }
}

/// How often something can fail, as [agent, aggregator] and in each as [writes, syncs]: what they
/// do in a run in which nothing does.
///
/// # Panics
/// When anything is not as it should be.
pub fn possible(shim: &Arc<Shim>) -> [[u64; 2]; 2] {
    let recording = Recording::make_with(shim, &scale(None));
    let agent = recording.root(Machine::Agent);
    count(&recording.log, &agent)
}

/// Runs the system with this fault, and cuts the power if it was an fsync's.
///
/// # Panics
/// When anything acknowledged is lost in the run, doubled or declared lost, or the audit finds
/// something; what a cut brings out is in what it gives.
pub fn run(shim: &Arc<Shim>, fault: Fault) -> Faulted {
    let recording = Recording::make_with(shim, &scale(Some(fault)));
    let is_it = |op: &Op<'_>| matches!(op, Op::Fault { .. });
    let came = recording.log.ops().position(|(_, op)| is_it(&op));
    let cut = came.filter(|_| fault.failing == Failing::Sync);
    Faulted {
        came: came.is_some(),
        ended: recording.ended,
        acknowledged: recording.devices.acknowledged_count(),
        cut: cut.map(|place| cut_behind(&recording, fault, place)),
    }
}

/// Power goes behind the operation at `place`: half of the time soon, else anywhere.
fn cut_behind(recording: &Recording, fault: Fault, place: usize) -> Outcome {
    let mut dice = Dice::unasked(fault.number);
    let left = recording.log.len() - place;
    let within = [left, left.min(CUT_SOON_AFTER)][dice.below(2) as usize];
    let both = dice.below(2) == 0;
    let cut = Cut {
        at: place + 1 + dice.below(within as u64) as usize,
        survival: Survival::by_dice(fault.number, &mut dice),
        names: Names::by_dice(&mut dice),
        victims: match fault.machine {
            _ if both => Victims::Both,
            Machine::Agent => Victims::Agent,
            Machine::Aggregator => Victims::Aggregator,
        },
        again: None,
    };
    let (mut disk, mut devices) = (recording.disk(), Devices::default());
    for number in 0..cut.at {
        let (_, op) = recording.log.op(number);
        disk.apply(&op).unwrap();
        devices.apply(&op);
    }
    let left = Left::of(recording, &disk, &devices, cut);
    carry_out(recording, &left, &Outcome::is_clean)
}

/// How many writes and syncs agent and aggregator did.
fn count(log: &Log, agent: &str) -> [[u64; 2]; 2] {
    let (mut of_agent, mut counts) = (None, [[0; 2]; 2]);
    for (process, op) in log.ops() {
        let kind = match op {
            Op::MakeDir { path, .. } | Op::Root { path, .. } => {
                if path == agent {
                    of_agent.get_or_insert(process);
                }
                0
            }
            Op::Truncate {
                length,
                size_before,
                ..
            } if length > size_before => 0,
            Op::Create { .. } | Op::Write { .. } | Op::Link { .. } => 0,
            Op::SyncBegin { .. } => 1,
            _ => continue,
        };
        counts[usize::from(of_agent != Some(process))][kind] += 1;
    }
    counts
}
