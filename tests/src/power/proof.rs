//! The whole proof: a recording, many cuts of it, bits of its files, single calls that fail; and
//! the rows of its table.

use super::Survival;
use super::bits::{Bit, Promise, Stopped, check_that_all_is_hit};
use super::cuts::{Cut, Outcome, Syncs, Victims, choose, replay};
use super::faults::{self, Failing, Fault, Faulted};
use super::recording::{Machine, Recording, Scale};
use crate::limits::{CUTS_AT_ONCE, PROOF_RUN_SECONDS, PROOF_SENSORS};
use crate::shim::Shim;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

/// Kinds of rows.
const POWER_CUT: &str = "power cut";
const CALL: &str = "failing call";

/// A part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Power cuts.
    Cuts,
    /// Flipped bits.
    Bits,
    /// Writes, creations and growths that find no room.
    Enospc,
    /// Syncs that fail, each with a power cut behind it.
    Eio,
}

impl Part {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Cuts, Self::Bits, Self::Enospc, Self::Eio];

    /// As it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuts => "cuts",
            Self::Bits => "bits",
            Self::Enospc => "enospc",
            Self::Eio => "eio",
        }
    }
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Power cuts.
    pub cuts: usize,
    /// Where they come, and which bits are flipped.
    pub seed: u64,
    /// One run of so many: for a look whether it holds.
    pub every: usize,
}

/// A row of the table. All counts but `runs`, `told`, `repairs` and `broken` are of readings.
#[derive(Clone, Default, Debug)]
pub struct Row {
    /// What kind of thing breaks: a row of the crash matrix.
    pub kind: &'static str,
    /// What was done.
    pub fault: String,
    /// How often: each of these is one fault, and stands in no other row.
    pub runs: u64,
    /// Acknowledged before it and after it, over all runs.
    pub acknowledged: u64,
    /// Not in the lake, and a gap there says so.
    pub declared: u64,
    /// Not in the lake, for a cause of which the documents say that it may: and it was that cause.
    pub excused: u64,
    /// In `rejected/`, or dead letters: whole, but what says how to read them is damaged.
    pub set_apart: u64,
    /// Nowhere, and nothing says so.
    pub lost: u64,
    /// There more than once.
    pub doubled: u64,
    /// There with another content than was published, or never published.
    pub altered: u64,
    /// Alerts and aggregates that were sealed or heard, and are not there as they were.
    pub told: u64,
    /// Runs in which a person would have had to do something.
    pub repairs: u64,
    /// Runs in which it was not as promised.
    pub broken: u64,
}

impl Row {
    /// It as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "kind": self.kind,
            "fault": self.fault,
            "runs": self.runs,
            "acknowledged": self.acknowledged,
            "declared": self.declared,
            "excused": self.excused,
            "set_apart": self.set_apart,
            "lost": self.lost,
            "doubled": self.doubled,
            "altered": self.altered,
            "told": self.told,
            "repairs": self.repairs,
            "broken": self.broken,
        })
    }

    /// Counts a run. `may_miss`: the documents say that what the fault was in may be missing.
    fn add(&mut self, outcome: &Outcome, is_kept: bool, may_miss: bool) {
        self.runs += 1;
        self.acknowledged += outcome.acknowledged + outcome.later;
        let is_of_unknown_size = outcome.losses.iter().any(|loss| loss.readings.is_none());
        self.declared += outcome.declared();
        let missing = outcome.lost.saturating_sub(outcome.declared());
        // That all of it was in the frame of the fault is looked at before: it is kept then.
        *match is_kept {
            true if outcome.set_apart > 0 => &mut self.set_apart,
            // Of a gap that does not say how many it stands for, nobody knows more.
            true if is_of_unknown_size => &mut self.declared,
            true if may_miss => &mut self.excused,
            _ => &mut self.lost,
        } += missing;
        self.doubled += outcome.doubled;
        self.altered += outcome.altered;
        self.told += outcome.missing.told();
        self.repairs += u64::from(outcome.wants_a_person());
        self.broken += u64::from(!is_kept);
    }
}

/// Rows by what was done, in order.
#[derive(Default)]
struct Table(BTreeMap<String, Row>);

impl Table {
    fn row(&mut self, kind: &'static str, fault: String) -> &mut Row {
        let row = self.0.entry(fault.clone()).or_default();
        (row.kind, row.fault) = (kind, fault);
        row
    }
}

/// Runs a part; says how it gets on.
///
/// # Panics
/// When nothing can be proven.
pub fn run(part: Part, extent: Extent) -> Vec<Row> {
    let begun = Instant::now();
    let rows = match part {
        Part::Cuts => cut(&recording(), extent),
        Part::Bits => flip(&recording(), extent),
        Part::Enospc => fail(Failing::Write, extent),
        Part::Eio => fail(Failing::Sync, extent),
    };
    eprintln!("{} after {:?}", part.name(), begun.elapsed());
    rows
}

fn recording() -> Recording {
    let begun = Instant::now();
    let recording = Recording::make(&Scale {
        seconds: PROOF_RUN_SECONDS,
        sensors: PROOF_SENSORS,
        fills_segments: true,
        kills: [3_000, 1_500],
        fault: None,
    });
    let operations = recording.log.len();
    let after = begun.elapsed();
    eprintln!("{operations} operations recorded after {after:?}");
    recording
}

fn cut(recording: &Recording, extent: Extent) -> Vec<Row> {
    let mut table = Table::default();
    let chosen = choose(recording, extent.cuts, extent.seed);
    let chosen: Vec<Cut> = chosen.into_iter().step_by(extent.every).collect();
    let outcomes = replay(recording, &chosen, Syncs::Work, |outcome| {
        if let Some(records) = outcome.again_at {
            eprintln!("power went again after {records} records");
        }
        if !outcome.is_clean() {
            eprintln!("{outcome:#?}");
        }
    });
    for outcome in &outcomes {
        let survives = match outcome.cut.survival {
            Survival::Nothing => "nothing unsynced survives",
            Survival::Half(_) => "a half of it survives",
            Survival::All => "all of it survives",
        };
        let whose = whose(outcome.cut.victims);
        let again = match outcome.cut.again {
            Some(_) => ", and power goes again",
            None => "",
        };
        let row = table.row(POWER_CUT, format!("{whose} power: {survives}{again}"));
        row.add(outcome, outcome.is_clean(), false);
    }
    table.0.into_values().collect()
}

fn whose(victims: Victims) -> &'static str {
    match victims {
        Victims::Agent => "the agent's",
        Victims::Aggregator => "the aggregator's",
        Victims::Both => "both machines'",
    }
}

fn flip(recording: &Recording, extent: Extent) -> Vec<Row> {
    let mut table = Table::default();
    let all = states(recording, extent.seed);
    check_that_all_is_hit(all.iter().flat_map(|(_, bits)| bits));
    for (stopped, bits) in all {
        let bits: Vec<Bit> = bits.into_iter().step_by(extent.every).collect();
        let outcomes = at_once(&bits, |bit| (bit.clone(), stopped.flip(recording, bit)));
        for (bit, mut outcome) in outcomes {
            let is_kept = outcome.keeps(recording, &bit);
            if !is_kept {
                eprintln!("{bit:#?}\n{outcome:#?}");
            }
            let kind = match bit.promise {
                Promise::Whole | Promise::Declared => {
                    bit.region.split(": ").next().unwrap_or_default()
                }
                Promise::LastFrame => "the last frame of a log",
                Promise::InLake => "a batch of the journal that the lake has",
                Promise::Rules => "the rules in the agent's log",
                Promise::Lake => "a Parquet file that counts",
                Promise::Intent => "what says that a flush of the lake is under way",
            };
            let row = table.row("bit", format!("one bit: {kind}"));
            if bit.promise == Promise::Rules && outcome.lost > 0 {
                // What misses its rules is a dead letter.
                outcome.set_apart += outcome.letters;
            }
            let may_miss = matches!(bit.promise, Promise::LastFrame | Promise::Lake);
            row.add(&outcome, is_kept, may_miss);
        }
    }
    table.0.into_values().collect()
}

/// The bits to flip, and in what: three times of the run, and where it has what is there for a
/// moment only.
fn states(recording: &Recording, seed: u64) -> Vec<(Stopped, Vec<Bit>)> {
    let operations = recording.log.len();
    let at = [recording.backlog_at, operations / 2, operations * 3 / 4];
    let of = |(seed, operations)| {
        let stopped = Stopped::after(recording, operations);
        let bits = stopped.bits(seed);
        (stopped, bits)
    };
    let mut all: Vec<_> = (seed..).zip(at).map(of).collect();
    for (promise, at) in [
        (Promise::Rules, recording.trims_at()),
        (Promise::Intent, recording.flushes_at()),
    ] {
        let (stopped, mut bits) = of((seed + 3, at));
        bits.retain(|bit| bit.promise == promise);
        all.push((stopped, bits));
    }
    let (stopped, lost) = Stopped::after(recording, recording.backlog_at).with_a_gap();
    let bits = stopped.bits_of_gaps(seed + 4, &lost);
    all.push((stopped, bits));
    all
}

fn fail(failing: Failing, extent: Extent) -> Vec<Row> {
    let shim = Arc::new(Shim::compile("disk"));
    let possible = faults::possible(&shim);
    let mut all = Vec::new();
    for (machine, possible) in [Machine::Agent, Machine::Aggregator]
        .into_iter()
        .zip(possible)
    {
        let of = |number| Fault {
            machine,
            failing,
            number,
        };
        all.extend((1..=possible[failing as usize]).map(of));
    }
    eprintln!("{} calls can fail", all.len());
    let all: Vec<Fault> = all.into_iter().step_by(extent.every).collect();
    let outcomes = at_once(&all, |fault| {
        let run = AssertUnwindSafe(|| faults::run(&shim, *fault));
        (*fault, catch_unwind(run).ok())
    });
    let mut table = Table::default();
    for (fault, outcome) in outcomes {
        add_fault(&mut table, fault, outcome);
    }
    table.0.into_values().collect()
}

fn add_fault(table: &mut Table, fault: Fault, outcome: Option<Faulted>) {
    let of = match fault.machine {
        Machine::Agent => "the agent's",
        Machine::Aggregator => "the aggregator's",
    };
    let what = match fault.failing {
        Failing::Write => "write or growth finds no room",
        Failing::Sync => "fsync fails",
    };
    let name = format!("one of {of} calls: {what}");
    let Some(outcome) = outcome else {
        eprintln!("{fault:?}: it panicked, as said above");
        let row = table.row(CALL, name);
        (row.runs, row.repairs, row.broken) = (row.runs + 1, row.repairs + 1, row.broken + 1);
        return;
    };
    if !outcome.came {
        eprintln!("{fault:?}: the run ended before that call: it counts nowhere");
        return;
    }
    let row = table.row(CALL, name);
    row.runs += 1;
    row.acknowledged += outcome.acknowledged;
    if let Some(cut) = outcome.cut {
        if !cut.is_clean() {
            eprintln!("{fault:?}\n{cut:#?}");
        }
        // The call is counted: this is a power cut, of the same run.
        let name = format!(
            "{} power, behind an fsync of {of} that failed",
            whose(cut.cut.victims)
        );
        let row = table.row(POWER_CUT, name);
        row.add(&cut, cut.is_clean(), false);
    }
}

/// Does it for each, several at once.
fn at_once<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, work) = (AtomicUsize::new(0), &work);
    let (done, results) = sync_channel(all.len());
    std::thread::scope(|scope| {
        for _ in 0..CUTS_AT_ONCE {
            let (done, next) = (done.clone(), &next);
            scope.spawn(move || {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Whoever started us counts what it gets.
                    let _ = done.send(work(one));
                }
            });
        }
        drop(done);
        let results: Vec<R> = results.iter().collect();
        assert_eq!(results.len(), all.len());
        results
    })
}
