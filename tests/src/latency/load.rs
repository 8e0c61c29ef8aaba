//! The load: readings at a steady rate over many connections, one a message, made by one thread.
//! Each has as its time when it was made, just before it is handed to its socket. Every so often
//! one is a spike. A connection that is down keeps its readings until it is back.

use super::Clock;
use super::device::Device;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How much, and what of it is unusual.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Connections.
    pub connections: usize,
    /// Series, each of one connection.
    pub series: u64,
    /// Readings a second, over all.
    pub rate: u64,
}

/// Readings of a series before which nothing is planted: the detector must know it, and hardly
/// raise anything by itself any more.
pub const WARM_READINGS: u64 = 600;
/// How often a reading is made.
const TICK: Duration = Duration::from_millis(1);
/// Looks of a connection that is down until it tries again: 50 ms.
const RETRY_TICKS: u64 = 50;
/// How far from everything else the first spike of a series is. The next one is below, the ones
/// behind that four times as far: what came once is not unusual.
const SPIKE: f64 = 20.0;

/// A series and the time of a reading: what an alert tells of it.
pub type Place = (u32, i64);

/// What the load did so far, and what it is told.
#[derive(Debug, Default)]
pub struct Shared {
    /// Readings made.
    pub made: AtomicU64,
    /// Readings acknowledged.
    pub acknowledged: AtomicU64,
    /// Connections that are up.
    pub up: AtomicU64,
    /// When a connection came up last.
    pub last_up: AtomicI64,
    /// How long the thread was behind its own pace at most, in µs.
    pub behind_us: AtomicU64,
    /// One reading of so many is a spike; 0: none.
    spike_every: AtomicU64,
    stop: AtomicBool,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    /// See there.
    pub shared: Arc<Shared>,
    running: JoinHandle<HashSet<Place>>,
}

impl Load {
    /// Begins to publish to `address`.
    pub fn start(address: SocketAddr, plan: Plan, clock: Clock) -> Self {
        let shared = Arc::new(Shared::default());
        let maker = Maker::new(address, plan, clock, Arc::clone(&shared));
        let running = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || maker.run())
            .expect("a thread can be started");
        Self { shared, running }
    }

    /// Makes one reading of `every` a spike from now on; none if that is 0. Where `every` and the
    /// number of series have no common divisor, each series has its turn.
    pub fn spike_every(&self, every: u64) {
        self.shared.spike_every.store(every, Ordering::Relaxed);
    }

    /// Ends it; the spikes that it planted.
    ///
    /// # Panics
    /// When its thread did.
    pub fn end(self) -> HashSet<Place> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.running.join().expect("the load's thread")
    }
}

/// The device and the metric of a series, as a topic.
fn topic(series: u64, connections: usize) -> String {
    let connections = connections as u64;
    format!(
        "plant/d{:04}/m{}",
        series % connections,
        series / connections
    )
}

/// The series of a device and a metric.
pub fn series_of(device: &str, metric: &str, plan: &Plan) -> Option<u32> {
    let device: u32 = device.strip_prefix("plant/d")?.parse().ok()?;
    let metric = metric.strip_suffix(".peak_to_peak").unwrap_or(metric);
    let metric: u32 = metric.strip_prefix('m')?.parse().ok()?;
    Some(metric * plan.connections as u32 + device)
}

struct Maker {
    plan: Plan,
    clock: Clock,
    shared: Arc<Shared>,
    devices: Vec<Device>,
    topics: Vec<String>,
    /// How far the next spike of each series is.
    spikes: Vec<f64>,
    made: u64,
    next_spike: u64,
    noise: u64,
    planted: HashSet<Place>,
}

impl Maker {
    fn new(address: SocketAddr, plan: Plan, clock: Clock, shared: Arc<Shared>) -> Self {
        let device = |number| Device::new(address, format!("d{number:04}"));
        Self {
            devices: (0..plan.connections).map(device).collect(),
            topics: (0..plan.series)
                .map(|series| topic(series, plan.connections))
                .collect(),
            spikes: vec![SPIKE; plan.series as usize],
            plan,
            clock,
            shared,
            made: 0,
            next_spike: 0,
            noise: 0x9E37_79B9_7F4A_7C15,
            planted: HashSet::new(),
        }
    }

    fn run(mut self) -> HashSet<Place> {
        let begun = Instant::now();
        let mut ticks = 0_u64;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = begun.elapsed();
            let due = now.as_micros() as u64 * self.plan.rate / 1_000_000;
            let behind = due.saturating_sub(self.made) * 1_000_000 / self.plan.rate;
            self.shared.behind_us.fetch_max(behind, Ordering::Relaxed);
            while self.made < due {
                self.make();
            }
            self.look(ticks);
            ticks += 1;
            // tidy: sleep because a load is paced by time
            std::thread::sleep(TICK.saturating_sub(begun.elapsed() - now));
        }
        self.planted
    }

    /// Makes the next reading.
    fn make(&mut self) {
        let every = self.shared.spike_every.load(Ordering::Relaxed);
        if every == 0 {
            self.next_spike = self.made + 1;
        }
        let is_spike = every > 0 && self.made >= self.next_spike;
        let series = self.made % self.plan.series;
        let mut value = 20.0 + self.uniform();
        if is_spike {
            let spike = &mut self.spikes[series as usize];
            value += *spike;
            *spike *= if *spike < 0.0 { -4.0 } else { -1.0 };
            self.next_spike = self.made + every;
        }
        let number = (series % self.plan.connections as u64) as usize;
        let device = &mut self.devices[number];
        device.listen();
        let time = self.clock.now();
        let payload = format!("{{\"ts\":{time},\"value\":{value:.3}}}");
        device.publish(self.topics[series as usize].as_bytes(), payload.as_bytes());
        if is_spike {
            self.planted.insert((series as u32, time));
        }
        self.made += 1;
    }

    /// A number from -1 to 1 (xorshift; Marsaglia 2003).
    fn uniform(&mut self) -> f64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        (self.noise >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// Sees to connections that are down, or whose sockets took not everything.
    fn look(&mut self, ticks: u64) {
        let (mut up, mut acknowledged) = (0, 0);
        for (number, device) in self.devices.iter_mut().enumerate() {
            if device.is_behind() {
                device.send();
            } else if !device.is_up() {
                if (number as u64 + ticks).is_multiple_of(RETRY_TICKS) {
                    device.connect();
                }
                device.listen();
            }
            up += u64::from(device.is_up());
            acknowledged += device.acknowledged;
        }
        if up > self.shared.up.load(Ordering::Relaxed) {
            let now = self.clock.now();
            self.shared.last_up.store(now, Ordering::Relaxed);
        }
        self.shared.up.store(up, Ordering::Release);
        self.shared.made.store(self.made, Ordering::Relaxed);
        self.shared
            .acknowledged
            .store(acknowledged, Ordering::Relaxed);
    }
}
