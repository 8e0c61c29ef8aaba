//! The whole proof: a recording, many cuts of it, bits of its files, single calls that fail; and
//! the rows of its table.

use super::Survival;
use super::bits::{Promise, Stopped};
use super::cuts::{self, Outcome, Syncs, choose, replay};
use super::faults::{self, Failing, Fault};
use super::recording::{Machine, Recording, Scale};
use crate::limits::{CUTS_AT_ONCE, PROOF_RUN_SECONDS, PROOF_SENSORS};
use crate::shim::Shim;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

/// A part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Power cuts.
    Cuts,
    /// Flipped bits.
    Bits,
    /// Calls that fail.
    Faults,
}

/// A row of the table. All counts but `runs` and `repairs` are of readings.
#[derive(Clone, Default, Debug)]
pub struct Row {
    /// What was done.
    pub fault: String,
    /// How often.
    pub runs: u64,
    /// Acknowledged before it, over all runs.
    pub acknowledged: u64,
    /// Declared lost.
    pub declared: u64,
    /// In `rejected/`, or dead letters: whole, but what says how to read them is damaged.
    pub set_apart: u64,
    /// Nowhere, and not declared.
    pub lost: u64,
    /// There twice, or not as published.
    pub doubled: u64,
    /// Runs in which a person would have had to mend something.
    pub repairs: u64,
    /// Whether `lost`, `doubled` and `repairs` must be 0.
    pub is_promised: bool,
}

impl Row {
    /// Whether it is as promised.
    pub fn is_well(&self) -> bool {
        !self.is_promised || self.lost + self.doubled + self.repairs == 0
    }

    /// It as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "fault": self.fault,
            "runs": self.runs,
            "acknowledged": self.acknowledged,
            "declared": self.declared,
            "set_apart": self.set_apart,
            "lost": self.lost,
            "doubled": self.doubled,
            "repairs": self.repairs,
        })
    }

    fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        self.acknowledged += outcome.acknowledged;
        self.declared += outcome.declared;
        let missing = outcome.lost.saturating_sub(outcome.declared);
        match (outcome.is_set_apart, outcome.is_of_unknown_size) {
            (true, _) => self.set_apart += missing,
            // Of a gap that does not say how many it stands for, nobody knows more.
            (_, true) => self.declared += missing,
            _ => self.lost += missing,
        }
        self.doubled += outcome.doubled;
        self.repairs += u64::from(outcome.wrong.is_some());
    }
}

/// Rows by what was done, in order.
#[derive(Default)]
struct Table(BTreeMap<String, Row>);

impl Table {
    fn row(&mut self, fault: String, is_promised: bool) -> &mut Row {
        let row = self.0.entry(fault.clone()).or_default();
        (row.fault, row.is_promised) = (fault, is_promised);
        row
    }
}

/// Runs these parts; says how it gets on.
///
/// # Panics
/// When nothing can be proven.
pub fn run(parts: &[Part], cuts: usize, seed: u64) -> Vec<Row> {
    let begun = Instant::now();
    let mut rows = Vec::new();
    if parts.iter().any(|part| *part != Part::Faults) {
        let recording = Recording::make(&Scale {
            seconds: PROOF_RUN_SECONDS,
            sensors: PROOF_SENSORS,
            fills_segments: true,
            kills: [3_000, 1_500],
        });
        let operations = recording.log.len();
        eprintln!(
            "{operations} operations recorded after {:?}",
            begun.elapsed()
        );
        if parts.contains(&Part::Cuts) {
            rows.extend(cut(&recording, cuts, seed));
            eprintln!("{cuts} cuts after {:?}", begun.elapsed());
        }
        if parts.contains(&Part::Bits) {
            rows.extend(flip(&recording, seed));
            eprintln!("bits after {:?}", begun.elapsed());
        }
    }
    if parts.contains(&Part::Faults) {
        rows.extend(fail());
        eprintln!("faults after {:?}", begun.elapsed());
    }
    rows
}

fn cut(recording: &Recording, count: usize, seed: u64) -> Vec<Row> {
    let mut table = Table::default();
    let chosen = choose(recording, count, seed);
    let outcomes = replay(recording, &chosen, Syncs::Work, |outcome| {
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
        let whose = match outcome.cut.victims {
            cuts::Victims::Agent => "the agent's",
            cuts::Victims::Aggregator => "the aggregator's",
            cuts::Victims::Both => "both machines'",
        };
        let row = table.row(format!("{whose} power: {survives}"), true);
        row.add(outcome);
        // In a power cut nothing has to be declared lost: each declaration is a loss.
        row.lost += outcome.declared;
    }
    table.0.into_values().collect()
}

fn flip(recording: &Recording, seed: u64) -> Vec<Row> {
    let mut table = Table::default();
    let operations = recording.log.len();
    let states = [recording.backlog_at, operations / 2, operations * 3 / 4];
    for (state, operations) in (0..).zip(states) {
        let stopped = Stopped::after(recording, operations);
        let bits = stopped.bits(seed + state);
        let outcomes = at_once(&bits, |bit| (bit.clone(), stopped.flip(recording, bit)));
        for (bit, outcome) in outcomes {
            if !outcome.keeps(bit.promise) {
                eprintln!("{bit:#?}\n{outcome:#?}");
            }
            let kind = match bit.promise {
                Promise::Declared => bit.region.split(": ").next().unwrap_or_default(),
                Promise::LastFrame => "the last frame of a log",
                Promise::InLake => "a batch of the journal that the lake has",
                Promise::Rules => "the rules in the agent's log",
                Promise::Lake => "a Parquet file that counts",
                Promise::Intent => "what says that a flush of the lake is under way",
            };
            let is_promised = bit.promise == Promise::Declared;
            let row = table.row(format!("one bit: {kind}"), is_promised);
            let mut outcome = outcome;
            // What misses its rules is a dead letter.
            outcome.is_set_apart |= bit.promise == Promise::Rules;
            row.add(&outcome);
            // Its reader found something: that is no repair.
            row.repairs -= u64::from(outcome.is_started && outcome.wrong.is_some());
        }
    }
    table.0.into_values().collect()
}

fn fail() -> Vec<Row> {
    let shim = Shim::compile("disk");
    let possible = faults::run(&shim, None).possible;
    let mut all = Vec::new();
    for (machine, possible) in [Machine::Agent, Machine::Aggregator]
        .into_iter()
        .zip(possible)
    {
        for (failing, count) in [Failing::Write, Failing::Sync].into_iter().zip(possible) {
            all.extend((1..=count).map(|number| Fault {
                machine,
                failing,
                number,
            }));
        }
    }
    eprintln!("{} calls can fail", all.len());
    let outcomes = at_once(&all, |fault| {
        let run = AssertUnwindSafe(|| faults::run(&shim, Some(*fault)));
        (*fault, catch_unwind(run).ok())
    });
    let mut table = Table::default();
    for (fault, outcome) in outcomes {
        let whose = match fault.machine {
            Machine::Agent => "the agent's",
            Machine::Aggregator => "the aggregator's",
        };
        let what = match fault.failing {
            Failing::Write => "write finds no room",
            Failing::Sync => "fsync fails",
        };
        let row = table.row(format!("one of {whose} calls: {what}"), true);
        let Some(outcome) = outcome else {
            eprintln!("{fault:?}: it panicked, as said above");
            (row.runs, row.repairs) = (row.runs + 1, row.repairs + 1);
            continue;
        };
        if !outcome.came {
            continue;
        }
        row.runs += 1;
        row.acknowledged += outcome.acknowledged;
        row.declared += outcome.declared;
        row.lost += outcome.lost.saturating_sub(outcome.declared);
        row.doubled += outcome.doubled;
    }
    table.0.into_values().collect()
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
