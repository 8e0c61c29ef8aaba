//! What comes after a power cut: the programs start on what is left, the devices come back, and
//! the power may go once more meanwhile, of what is under way then.

use super::cuts::{Cut, Left, Victims};
use super::devices::play_on;
use super::log::Log;
use super::recording::{Machine, Recorder, Recording};
use super::wire::Devices;
use super::{Names, Survival};
use crate::dice::Dice;
use crate::limits::{PATIENCE, POLL, RECOVERY_RECORDS_MAX};
use crate::process::Process;
use crate::site::{Site, backlog_gone};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What came of it.
#[derive(Debug)]
pub struct Recovered {
    /// What the devices knew in the end.
    pub devices: Devices,
    /// Messages that were kept as dead letters.
    pub letters: u64,
    /// How many records both had added when the power went again, if it did.
    pub again_at: Option<usize>,
}

/// Both programs.
struct Both {
    agent: Process,
    aggregator: Process,
}

impl Both {
    fn of(&mut self, machine: Machine) -> &mut Process {
        match machine {
            Machine::Agent => &mut self.agent,
            Machine::Aggregator => &mut self.aggregator,
        }
    }

    /// The power of these goes, whoever of them had more to do; what was recorded by then.
    fn lose_power(&mut self, cut: &[Machine], recorder: &Recorder) -> Log {
        // Nobody is amid a record while we have the lock.
        let file = File::open(&recorder.log).unwrap();
        file.lock().unwrap();
        for machine in cut {
            let ended = self.of(*machine).kill_now();
            assert_eq!(ended.signal(), Some(9), "{machine:?}: {ended}");
        }
        Log::read(&recorder.log).unwrap()
    }

    fn is_drained(&self) -> bool {
        self.agent.status().is_some_and(|status| {
            status.pointer("/uplink/connected") == Some(&true.into())
                && status.pointer("/uplink/backlog_batches") == Some(&0.into())
        })
    }
}

/// Lets everything come to its end on a site whose directories are what a cut left.
///
/// # Panics
/// When a program does not start, or anything does not come to its end.
pub fn recover(recording: &Recording, left: &Left, site: &Site) -> Recovered {
    let mut devices = left.devices.clone();
    let seed = left.cut.at as u64;
    let stop = AtomicBool::new(false);
    let (letters, again_at) = std::thread::scope(|scope| {
        let (all, mqtt) = (&recording.devices, site.mqtt);
        let (devices, stop) = (&mut devices, &stop);
        let playing = scope.spawn(move || play_on(devices, all, mqtt, seed, stop));
        // However this ends, the devices are not waited for longer.
        let _stopped = Stop(stop);
        let (mut both, again_at) = match left.cut.again {
            Some(seed) => go_again(recording, site, seed, &|| playing.is_finished()),
            None => (start(site), None),
        };
        both.aggregator.up();
        both.agent.up();
        wait_for_devices(&both.agent, &|| playing.is_finished());
        if let Err(panicked) = playing.join() {
            std::panic::resume_unwind(panicked);
        }
        backlog_gone(&both.agent);
        let letters = both.agent.counter("tributary_agent_dead_letters_total", "");
        site.end(both.agent, both.aggregator);
        (letters, again_at)
    });
    Recovered {
        devices,
        letters,
        again_at,
    }
}

struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn start(site: &Site) -> Both {
    let (aggregator, agent) = (site.aggregator(), site.agent());
    Both { agent, aggregator }
}

fn wait_for_devices(agent: &Process, is_over: &dyn Fn() -> bool) {
    crate::process::wait_for("devices", || agent.state(), || is_over().then_some(()));
}

/// Starts both under the recorder; the power of one or both goes at some record of it, or once all
/// is done, and what is left of that is started again.
fn go_again(
    recording: &Recording,
    site: &Site,
    seed: u64,
    is_over: &dyn Fn() -> bool,
) -> (Both, Option<usize>) {
    let mut dice = Dice::unasked(seed);
    let victims = Victims::ALL[dice.below(3) as usize];
    let recorder = Recorder::new(&recording.shim, site);
    let mut disk = recorder.disk(site);
    let dies = |machine: Machine, at: u64| match victims.has(machine) {
        true => vec![("DISK_KILL_AT", OsString::from(at.to_string()))],
        false => Vec::new(),
    };
    // Half of them early: the programs are still starting then.
    let within = [RECOVERY_RECORDS_MAX, RECOVERY_RECORDS_MAX / 10][dice.below(2) as usize];
    let mut at = || 1 + dice.below(within);
    let (agent_dies, aggregator_dies) =
        (dies(Machine::Agent, at()), dies(Machine::Aggregator, at()));
    let mut both = Both {
        aggregator: site.aggregator_with(&recorder.with(&aggregator_dies)),
        agent: site.agent_with(&recorder.with(&agent_dies)),
    };
    let machines = [Machine::Agent, Machine::Aggregator];
    let cut: Vec<Machine> = machines
        .into_iter()
        .filter(|one| victims.has(*one))
        .collect();
    wait_for_a_kill(&mut both, &cut, is_over);
    let log = both.lose_power(&cut, &recorder);
    for (place, (_, op)) in log.ops().enumerate() {
        let applied = disk.apply(&op);
        applied.unwrap_or_else(|why| panic!("operation {place} of the recovery: {why}"));
    }
    let survival = Survival::by_dice(dice.below(3), &mut dice);
    let names = Names::by_dice(&mut dice);
    for machine in cut {
        let root = site.root(machine);
        let tree = disk.after_power_cut(root.to_str().unwrap(), survival, names);
        std::fs::remove_dir_all(&root).unwrap();
        tree.write(&root).unwrap();
        *both.of(machine) = match machine {
            Machine::Agent => site.agent(),
            Machine::Aggregator => site.aggregator(),
        };
    }
    (both, Some(log.len()))
}

/// Until the first of them is killed, or all is done.
fn wait_for_a_kill(both: &mut Both, cut: &[Machine], is_over: &dyn Fn() -> bool) {
    let begun = Instant::now();
    let is_cut = |both: &mut Both| cut.iter().any(|one| both.of(*one).has_ended());
    while !(is_cut(both) || is_over() && both.is_drained()) {
        assert!(begun.elapsed() < PATIENCE, "{}", both.agent.state());
        // tidy: sleep because a process that is killed says so to nobody
        std::thread::sleep(POLL);
    }
}

impl Cut {
    /// The same, and the power goes again while the programs recover.
    pub fn and_again(self, seed: u64) -> Self {
        Self {
            again: Some(seed),
            ..self
        }
    }
}
