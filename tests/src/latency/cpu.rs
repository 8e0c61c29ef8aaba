//! Processor time: of processes, and of everything on the machine.

use crate::process::Process;

/// Seconds of processor time since some start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// This process: the load and the subscriber.
    pub clients: f64,
    /// The agent.
    pub agent: f64,
    /// The aggregator, where there is one.
    pub aggregator: f64,
    /// Everything, these included.
    pub machine: f64,
}

impl Cpu {
    /// As it is now.
    pub fn now(agent: &Process, aggregator: Option<&Process>) -> Self {
        Self {
            clients: of(std::process::id()),
            agent: of(agent.id()),
            aggregator: aggregator.map_or(0.0, |process| of(process.id())),
            machine: machine(),
        }
    }

    /// What was used since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            clients: self.clients - before.clients,
            agent: self.agent - before.agent,
            aggregator: self.aggregator - before.aggregator,
            machine: self.machine - before.machine,
        }
    }

    /// What others used, who have no part in it.
    pub fn others(&self) -> f64 {
        (self.machine - self.clients - self.agent - self.aggregator).max(0.0)
    }
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// User and system time of a process, see proc_pid_stat(5).
fn of(id: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let times = fields.split(' ').skip(11).take(2);
    seconds(times.filter_map(|time| time.parse::<u64>().ok()).sum())
}

/// Everything but idle and waiting for disks, see proc_stat(5).
fn machine() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let times = text.lines().next().unwrap_or_default().split_whitespace();
    let times: Vec<u64> = times.skip(1).filter_map(|time| time.parse().ok()).collect();
    // User, nice, system; idle, iowait; irq, softirq, steal. Guests are within user.
    let busy = times.iter().enumerate().take(8);
    seconds(
        busy.filter(|(at, _)| !matches!(at, 3 | 4))
            .map(|(_, time)| time)
            .sum(),
    )
}
