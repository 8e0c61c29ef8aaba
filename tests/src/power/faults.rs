//! One call of a real program fails: a write for want of room, an fsync with an I/O error. It may
//! end by that, and starts again then; in the end all is there.

use super::log::{Log, Op};
use super::recording::{self, Machine, Recorder};
use crate::limits::FAULT_READINGS;
use crate::process::{Process, wait_for};
use crate::shim::Shim;
use crate::site::{Site, backlog_gone};
use std::ffi::OsString;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tributary_sim::verify;

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

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What was to fail.
    pub fault: Option<Fault>,
    /// Whether it did.
    pub came: bool,
    /// How often the program ended by it.
    pub ended: u64,
    /// What was done to disks: how often anything could have failed.
    pub possible: [[u64; 2]; 2],
    /// Readings that were acknowledged.
    pub acknowledged: u64,
    /// Of those, how many are nowhere.
    pub lost: u64,
    /// Rows that are there twice, or that nobody published like that.
    pub doubled: u64,
    /// Readings that were declared lost, and declarations without a number.
    pub declared: u64,
}

impl Outcome {
    /// Whether nothing is lost without a word, and nothing doubled.
    pub fn is_clean(&self) -> bool {
        self.doubled == 0 && self.lost <= self.declared
    }
}

/// A program that is started again, without the fault, when it ends by itself.
struct Kept<'s> {
    site: &'s Site,
    machine: Machine,
    process: Process,
    ended: u64,
}

impl<'s> Kept<'s> {
    fn start(site: &'s Site, machine: Machine, environment: &[(&str, &std::ffi::OsStr)]) -> Self {
        let process = match machine {
            Machine::Agent => site.agent_with(environment),
            Machine::Aggregator => site.aggregator_with(environment),
        };
        Self {
            site,
            machine,
            process,
            ended: 0,
        }
    }

    /// Whether it is up; started again if it has ended.
    fn look(&mut self) -> bool {
        if self.process.has_ended() {
            self.ended += 1;
            let ended = self.ended;
            assert!(
                ended < 3,
                "it ends again without a fault\n{}",
                self.process.last_words()
            );
            *self = Self {
                ended,
                ..Self::start(self.site, self.machine, &[])
            };
        }
        self.process.is_up()
    }
}

/// Runs the system, with this fault if one is given, and says what came of it.
///
/// # Panics
/// When anything is not as it should be.
pub fn run(shim: &Shim, fault: Option<Fault>) -> Outcome {
    let site = recording::site("fault");
    let recorder = Recorder::new(shim, &site);
    let faulty = fault.map(|fault| {
        let word = match fault.failing {
            Failing::Write => "enospc",
            Failing::Sync => "eio",
        };
        let value = OsString::from(format!("{word}:{}", fault.number));
        (fault.machine, vec![("DISK_FAULT", value)])
    });
    let start = |machine| match &faulty {
        Some((of, more)) if *of == machine => {
            Mutex::new(Kept::start(&site, machine, &recorder.with(more)))
        }
        _ => Mutex::new(Kept::start(&site, machine, &recorder.with(&[]))),
    };
    let machines = [Machine::Aggregator, Machine::Agent].map(start);
    for machine in &machines {
        let up = || machine.lock().unwrap().look().then_some(());
        wait_for(
            "a start",
            || machine.lock().unwrap().process.last_words(),
            up,
        );
    }
    let done = AtomicBool::new(false);
    let summary = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for machine in &machines {
                    machine.lock().unwrap().look();
                }
                // tidy: sleep because a process that ends says so to nobody
                std::thread::sleep(crate::limits::POLL);
            }
        });
        let fleet = site.fleet(10, 10.0);
        fleet.acknowledged(FAULT_READINGS);
        let summary = fleet.end();
        done.store(true, Ordering::Relaxed);
        summary
    });
    let [aggregator, agent] = machines.map(|machine| machine.into_inner().unwrap());
    let mut ended = aggregator.ended + agent.ended;
    backlog_gone(&agent.process);
    // The fault may come while it ends, too.
    for kept in [agent, aggregator] {
        ended += u64::from(!kept.process.terminate().success());
    }
    super::cuts::drain(&site);

    let report = verify::compare(&site.lake(), &site.truth()).unwrap();
    assert_eq!(report.acknowledged, summary.counts.acknowledged);
    assert_eq!(report.unreadable, []);
    let (came, possible) = what_happened(&site, &Log::read(&recorder.log).unwrap());
    let outcome = Outcome {
        fault,
        came,
        ended,
        possible,
        acknowledged: report.acknowledged,
        lost: report.lost,
        doubled: report.duplicates + report.changed + report.foreign,
        declared: report.declared + report.declared_unknown,
    };
    assert!(outcome.is_clean(), "{outcome:#?}\n{report:#?}");
    outcome
}

/// Whether the fault came, and how many writes and syncs agent and aggregator did.
fn what_happened(site: &Site, log: &Log) -> (bool, [[u64; 2]; 2]) {
    let agent = site.path().join("agent");
    let agent = agent.to_str().unwrap();
    let (mut came, mut of_agent, mut counts) = (false, None, [[0; 2]; 2]);
    for (process, op) in log.ops() {
        let kind = match op {
            Op::Fault { .. } => {
                came = true;
                continue;
            }
            Op::MakeDir { path, .. } | Op::Root { path, .. } => {
                if path == agent {
                    of_agent.get_or_insert(process);
                }
                0
            }
            Op::Create { .. } | Op::Write { .. } | Op::Link { .. } => 0,
            Op::SyncBegin { .. } => 1,
            _ => continue,
        };
        counts[usize::from(of_agent != Some(process))][kind] += 1;
    }
    (came, counts)
}
