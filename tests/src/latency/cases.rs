//! The cases: what the agent has to do besides, while it is measured how long alerts take.

use super::Clock;
use super::cpu::Cpu;
use super::figures;
use super::load::{Load, Place, Plan, WARM_READINGS};
use super::subscriber::{Seen, Subscriber};
use crate::limits::{BACKLOG_BYTES, FILLERS, SYNC_DELAY_MS};
use crate::mqtt::Raw;
use crate::process::{Process, wait_for};
use crate::shim::Shim;
use crate::site::Site;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What is going on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Case {
    /// The aggregator acknowledges everything.
    Connected,
    /// There is none.
    Offline,
    /// It comes back, and takes a backlog.
    Backlog,
    /// It acknowledges, and every fsync of the agent takes long.
    SlowDisk,
    /// It acknowledges, and fast series are judged by the second, as is the default.
    Windows,
}

impl Case {
    /// In the order in which they are told.
    pub const ALL: [Self; 5] = [
        Self::Connected,
        Self::Offline,
        Self::Backlog,
        Self::SlowDisk,
        Self::Windows,
    ];

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Offline => "offline",
            Self::Backlog => "backlog",
            Self::SlowDisk => "slow-disk",
            Self::Windows => "windows",
        }
    }

    fn has_aggregator(self) -> bool {
        matches!(self, Self::Connected | Self::SlowDisk | Self::Windows)
    }

    fn settings(self) -> &'static str {
        match self {
            Self::Windows => BY_SECONDS,
            _ => BY_READINGS,
        }
    }

    /// One reading of so many is a spike. One that is told twice, as a mean and as a peak to peak,
    /// is rarer: more alerts a second would be summed up. It shares no divisor with the number of
    /// series either, or some would have their next spike while the alert of the last one stands.
    fn spike_every(self, amount: &Amount) -> u64 {
        match self {
            Self::Windows => 2 * amount.spike_every - 1,
            _ => amount.spike_every,
        }
    }

    /// Readings of a series before which nothing is planted.
    fn warm_readings(self) -> u64 {
        match self {
            Self::Windows => WARM_READINGS_BY_SECONDS,
            _ => WARM_READINGS,
        }
    }

    /// What an alert says of a reading: its series, and its time or the second that it is in.
    fn place(self, (series, time): Place) -> Place {
        match self {
            Self::Windows => (series, time - time.rem_euclid(SECOND_US)),
            _ => (series, time),
        }
    }
}

const SECOND_US: i64 = 1_000_000;
/// At ten a second: half a minute until its pace is known, and then 130 seconds.
const WARM_READINGS_BY_SECONDS: u64 = 1_600;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// The load.
    pub plan: Plan,
    /// One reading of so many is a spike.
    pub spike_every: u64,
    /// Spikes, at least.
    pub spikes: u64,
}

/// What came of one case, or of a part of it.
#[derive(Debug, Default)]
pub struct Outcome {
    planted: usize,
    /// Alerts about something else than what was planted.
    others: usize,
    held_back: u64,
    seen: Vec<(i64, Seen)>,
    cpu: Cpu,
    seconds: f64,
    made: u64,
    behind_us: u64,
    /// Samples of how many readings were not acknowledged.
    unacknowledged: Vec<u64>,
    /// Bytes of the backlog, and the seconds that it took to fill; 0 where there is none.
    backlog: (u64, f64),
    rounds: u64,
    load_average: String,
}

/// The decoding rule by which a backlog comes; doubles of 53 bits that nothing makes smaller.
const BACKLOG_RULE: &str = "[[decode]]\ntopic = \"backlog/{device}/{metric}\"\nformat = \"f32le\"\n\
     rate_hz = 1000\nscale = 0.12345678901234567\n";
/// What is timed is a reading's alert; without this it would be that of the second that it is in.
/// Its devices' clock is this machine's, whoever keeps it.
pub const BY_READINGS: &str = "[detect]\nfast = \"readings\"\nclock = \"plausible\"\n";
const BY_SECONDS: &str = "[detect]\nclock = \"plausible\"\n";
/// Alerts that were only counted.
const HELD_BACK: &str = "tributary_agent_alerts_held_back_total";
/// Samples of one of its messages.
const SAMPLES: usize = 16_000;
/// What is left of a backlog when it counts as gone, of its bytes.
const GONE: u64 = 100;
/// How often it is looked how things stand.
const LOOK: Duration = Duration::from_millis(100);
/// Times for which a backlog is filled and drained, at most.
const ROUNDS_MAX: u64 = 8;

/// Runs a case, and tells what came of it, as JSON.
///
/// # Panics
/// When something is not as it should be: a reading that is not acknowledged, a process that ends.
pub fn run(case: Case, amount: &Amount) -> Value {
    let mut all = Outcome::default();
    loop {
        all.add(round(case, amount));
        // A backlog may be gone before there were enough.
        if case != Case::Backlog || all.planted as u64 >= amount.spikes || all.rounds >= ROUNDS_MAX
        {
            return all.tell(case);
        }
    }
}

fn round(case: Case, amount: &Amount) -> Outcome {
    // The settings of storage are the defaults, but for room for a backlog.
    let site = Site::new(case.name()).aggregating("");
    let dir = site.path().join("agent");
    let site = site.storing(&dir, "[spool]\nquota_bytes = \"3 GiB\"\n");
    let (site, backlog) = match case {
        Case::Backlog => fill(site),
        _ => (site.with(case.settings()), (0, 0.0)),
    };
    let shim = (case == Case::SlowDisk).then(|| Shim::compile("slow"));
    let delay = SYNC_DELAY_MS.to_string();
    let mut agent = match &shim {
        None => site.agent(),
        Some(shim) => site.agent_with(&[
            ("LD_PRELOAD", shim.library.as_os_str()),
            ("SLOW_SYNC_MS", OsStr::new(&delay)),
        ]),
    };
    agent.up();
    let mut aggregator = case.has_aggregator().then(|| up(&site));
    let clients = Clients::start(&site, &agent, amount.plan, case.warm_readings());

    let mut outcome = Outcome {
        backlog,
        rounds: 1,
        load_average: load_average(),
        ..Outcome::default()
    };
    let held_back_before = agent.counter(HELD_BACK, "");
    let spike_every = case.spike_every(amount);
    let (from, made) = clients.begin(spike_every);
    let begun = Instant::now();
    if case == Case::Backlog {
        aggregator = Some(up(&site));
    }
    let before = Cpu::now(&agent, aggregator.as_ref());
    let enough = made + amount.spikes * spike_every;
    loop {
        // tidy: sleep because the load is paced by time
        std::thread::sleep(LOOK);
        assert!(agent.is_up(), "the agent lives");
        outcome.unacknowledged.push(clients.unacknowledged());
        let is_over = match case {
            Case::Backlog => agent.number("/uplink/backlog_bytes") < backlog.0 / GONE,
            _ => clients.made() >= enough,
        };
        if is_over {
            break;
        }
    }
    clients.load.spike_every(0);
    outcome.seconds = begun.elapsed().as_secs_f64();
    outcome.cpu = Cpu::now(&agent, aggregator.as_ref()).since(&before);
    outcome.made = clients.made() - made;
    clients.settle(&agent);
    outcome.held_back = agent.counter(HELD_BACK, "") - held_back_before;
    clients.end(case, from, &mut outcome);
    agent.kill();
    outcome
}

fn up(site: &Site) -> Process {
    let mut aggregator = site.aggregator();
    aggregator.up();
    aggregator
}

/// Those who publish and who subscribes.
pub struct Clients {
    clock: Clock,
    /// Who publishes.
    pub load: Load,
    /// Who subscribes.
    pub subscriber: Subscriber,
}

impl Clients {
    /// Starts them, and waits until the detectors know every series.
    ///
    /// # Panics
    /// When they are not served.
    pub fn start(site: &Site, agent: &Process, plan: Plan, warm_readings: u64) -> Self {
        let clock = Clock::start();
        let subscriber = Subscriber::start(site.mqtt, plan, clock);
        let load = Load::start(site.mqtt, plan, clock);
        let clients = Self {
            clock,
            load,
            subscriber,
        };
        // In parts: a wait is as long as any other.
        let mut warm = 0;
        while warm < warm_readings {
            warm = warm_readings.min(warm + WARM_READINGS);
            let is_warm = || {
                let is_up = clients.subscriber.is_up();
                (is_up && clients.acknowledged() >= plan.series * warm).then_some(())
            };
            wait_for("series to be known", || agent.state(), is_warm);
        }
        clients
    }

    /// Begins to plant; the time, and how many readings were made by then.
    pub fn begin(&self, spike_every: u64) -> (i64, u64) {
        self.load.shared.behind_us.store(0, Ordering::Relaxed);
        let from = self.clock.now();
        let made = self.made();
        self.load.spike_every(spike_every);
        (from, made)
    }

    /// The time by their clock.
    pub fn now(&self) -> i64 {
        self.clock.now()
    }

    /// Readings that were made.
    pub fn made(&self) -> u64 {
        self.load.shared.made.load(Ordering::Relaxed)
    }

    fn acknowledged(&self) -> u64 {
        self.load.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Readings that are not acknowledged.
    pub fn unacknowledged(&self) -> u64 {
        self.made().saturating_sub(self.acknowledged())
    }

    /// Waits until everything that was made by now is acknowledged, and so is judged.
    fn settle(&self, agent: &Process) {
        let made = self.made();
        let state = || {
            format!(
                "{} unacknowledged\n{}",
                self.unacknowledged(),
                agent.state()
            )
        };
        wait_for("acknowledgements", state, || {
            (self.acknowledged() >= made).then_some(())
        });
        // The last alerts are on their way: what does not come now counts as not raised.
        std::thread::sleep(LAST_ALERTS); // tidy: sleep because nobody says that no more will come
    }

    /// Ends them; what came of what was planted since `from`.
    fn end(self, case: Case, from: i64, outcome: &mut Outcome) {
        outcome.behind_us = self.load.shared.behind_us.load(Ordering::Relaxed);
        let planted = self.load.end();
        let told = planted
            .iter()
            .map(|reading| (case.place(*reading), reading.1));
        let told: HashMap<Place, i64> = told.collect();
        for (place, seen) in self.subscriber.alerts().iter() {
            match told.get(place) {
                Some(made) => outcome.seen.push((*made, *seen)),
                None => outcome.others += usize::from(place.1 >= from),
            }
        }
        outcome.planted = planted.len();
        self.subscriber.end();
    }
}

const LAST_ALERTS: Duration = Duration::from_secs(3);

/// Fills a spool while nobody takes anything, without detection, and stops the agent. Gives the
/// bytes, and the seconds that it took.
fn fill(site: Site) -> (Site, (u64, f64)) {
    let site = site.with(&format!("[detect]\nenabled = false\n{BACKLOG_RULE}"));
    let mut agent = site.agent();
    agent.up();
    let begun = Instant::now();
    let full = AtomicBool::new(false);
    let address = site.mqtt;
    std::thread::scope(|scope| {
        for filler in 0..FILLERS {
            let full = &full;
            scope.spawn(move || {
                let mut raw = Raw::connected(address, &format!("filler-{filler}"));
                let mut noise = 0x2545_F491_4F6C_DD1D ^ (filler << 32 | 1);
                while !full.load(Ordering::Relaxed) {
                    let payload = samples(&mut noise);
                    raw.publish(&format!("backlog/f{filler}/x"), &payload);
                }
            });
        }
        while agent.number("/uplink/backlog_bytes") < BACKLOG_BYTES {
            assert!(agent.is_up(), "the agent lives");
            // tidy: sleep because another process says nothing by itself: it has to be asked again
            std::thread::sleep(LOOK);
        }
        full.store(true, Ordering::Relaxed);
    });
    let bytes = agent.number("/uplink/backlog_bytes");
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("backlog: {bytes} bytes in {seconds:.1} s");
    agent.kill();
    let settings = format!("{BY_READINGS}{BACKLOG_RULE}");
    (site.with(&settings), (bytes, seconds))
}

/// A message of noise from -1 to 1.
fn samples(noise: &mut u64) -> Vec<u8> {
    let mut payload = Vec::with_capacity(4 * SAMPLES);
    for _ in 0..SAMPLES {
        // xorshift; Marsaglia 2003.
        *noise ^= *noise << 13;
        *noise ^= *noise >> 7;
        *noise ^= *noise << 17;
        let sample = (*noise >> 40) as f32 / (1 << 23) as f32 - 1.0;
        payload.extend(sample.to_le_bytes());
    }
    payload
}

impl Outcome {
    /// Takes in another round.
    fn add(&mut self, other: Self) {
        self.planted += other.planted;
        self.others += other.others;
        self.held_back += other.held_back;
        self.seen.extend(other.seen);
        self.cpu = Cpu {
            clients: self.cpu.clients + other.cpu.clients,
            agent: self.cpu.agent + other.cpu.agent,
            aggregator: self.cpu.aggregator + other.cpu.aggregator,
            machine: self.cpu.machine + other.cpu.machine,
        };
        self.seconds += other.seconds;
        self.made += other.made;
        self.behind_us = self.behind_us.max(other.behind_us);
        self.unacknowledged.extend(other.unacknowledged);
        self.backlog.0 += other.backlog.0;
        self.backlog.1 += other.backlog.1;
        self.rounds += other.rounds;
        self.load_average = other.load_average;
    }

    fn tell(&self, case: Case) -> Value {
        let part = |of: fn(&(i64, Seen)) -> i64| {
            let all: Vec<i64> = self.seen.iter().map(of).collect();
            figures::of(&all)
        };
        let waiting: u64 = self.unacknowledged.iter().sum();
        let waiting = waiting as f64 / self.unacknowledged.len().max(1) as f64;
        let rate = self.made as f64 / self.seconds;
        json!({
            "case": case.name(),
            "latency": part(|(made, seen)| seen.came - made),
            "judged": part(|(made, seen)| seen.judged - made),
            "delivered": part(|(_, seen)| seen.came - seen.judged),
            "planted": self.planted,
            "others": self.others,
            "held_back": self.held_back,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "readings": self.made,
            "rate": rate,
            // Little's law.
            "acknowledged_ms": waiting / rate * 1_000.0,
            "behind_ms": self.behind_us as f64 / 1_000.0,
            "backlog_bytes": self.backlog.0 / self.rounds,
            "fill_seconds": self.backlog.1 / self.rounds as f64,
            "cpu": cpu(&self.cpu),
            "load_average": self.load_average,
        })
    }
}

/// Seconds of processor time, as JSON.
pub fn cpu(cpu: &Cpu) -> Value {
    json!({
        "clients": cpu.clients,
        "agent": cpu.agent,
        "aggregator": cpu.aggregator,
        "others": cpu.others(),
    })
}

/// Processes that ran or wanted to, over the last minute.
pub fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
