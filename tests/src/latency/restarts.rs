//! How long it takes from a SIGKILL, and from the start behind it, until the first alert about a
//! reading that was made after the start. The load goes on; its clients come back by themselves.

use super::cases::{Amount, BY_READINGS, Clients, cpu, load_average};
use super::cpu::Cpu;
use super::figures;
use super::load::WARM_READINGS;
use crate::dice::Dice;
use crate::process::wait_for;
use crate::site::Site;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Milliseconds from one first alert to the next SIGKILL: so long, and up to as long again, so that
/// it comes anywhere between two checkpoints.
const BETWEEN_MS: u64 = 5_000;
/// One reading of so many is a spike, from a restart on until an alert comes; has no divisor in
/// common with numbers of series that are round.
const SPIKE_EVERY: u64 = 101;

/// Kills and restarts the agent so often, and tells what came of it, as JSON.
///
/// # Panics
/// When no alert comes, or a process ends by itself.
pub fn run(amount: &Amount, restarts: u64, seed: u64) -> Value {
    let mut dice = Dice::new(seed);
    let site = Site::new("restarts").aggregating("").with(BY_READINGS);
    let dir = site.path().join("agent");
    let site = site.storing(&dir, "");
    let mut agent = site.agent();
    agent.up();
    let mut aggregator = site.aggregator();
    aggregator.up();
    let clients = Clients::start(&site, &agent, amount.plan, WARM_READINGS);
    let (load_average, begun) = (load_average(), Instant::now());
    let before = Cpu::now(&agent, Some(&aggregator));
    let (mut since_kill, mut since_start, mut since_up) = (Vec::new(), Vec::new(), Vec::new());
    // The agent's own time goes with each of its lives.
    let mut agent_cpu = 0.0;
    for _ in 0..restarts {
        // tidy: sleep because a crash comes at any time
        std::thread::sleep(Duration::from_millis(BETWEEN_MS + dice.below(BETWEEN_MS)));
        let used = Cpu::now(&agent, None).agent;
        agent_cpu += used;
        let killed = clients.now();
        agent.kill();
        let started = clients.now();
        agent = site.agent();
        clients.load.spike_every(SPIKE_EVERY);
        let first = || {
            let alerts = clients.subscriber.alerts();
            let new = alerts.iter().filter(|((_, made), _)| *made >= started);
            new.map(|(_, seen)| seen.came).min()
        };
        let came = wait_for("an alert after a restart", || agent.state(), first);
        clients.load.spike_every(0);
        since_kill.push(came - killed);
        since_start.push(came - started);
        agent.up();
        let all = || {
            let up = clients.load.shared.up.load(Ordering::Relaxed);
            (up == amount.plan.connections as u64).then_some(())
        };
        wait_for("all clients", || agent.state(), all);
        since_up.push(clients.load.shared.last_up.load(Ordering::Relaxed) - started);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let mut used = Cpu::now(&agent, Some(&aggregator)).since(&before);
    used.agent += agent_cpu;
    let made = clients.made();
    clients.load.end();
    clients.subscriber.end();
    agent.kill();
    json!({
        "case": "restarts",
        "since_kill": figures::of(&since_kill),
        "since_start": figures::of(&since_start),
        "clients_up": figures::of(&since_up),
        "restarts": restarts,
        "seconds": seconds,
        "readings": made,
        "cpu": cpu(&used),
        "load_average": load_average,
    })
}
