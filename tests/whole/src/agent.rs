//! An agent in one thread: the product's gateway over a disk that breaks, with its devices, as a
//! machine that loses power and is started again.

use crate::aimed::Aimed;
use crate::bits::Bits;
use crate::device::Device;
use crate::limits::{SEGMENT_BYTES, SPOOL_SEGMENT_BYTES};
use crate::oracle::Oracle;
use crate::plan::Shape;
use crate::site::EPOCH_US;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tributary_agent::config::Config;
use tributary_agent::decode::Rules;
use tributary_agent::gateway::{Gateway, Outside, Part, Sizes};
use tributary_agent::judge::KernelClock;
use tributary_agent::pipeline::{PipelineError, Settings};
use tributary_agent::seal::{Never, Now, StageError};
use tributary_agent::spool::LanePolicy;
use tributary_journal::sim_disk::Salts;
use tributary_journal::{Disk, LifeId, Log, LogConfig, LogKind, Open, SimDisk, Survival};
use tributary_protocol::ids::{BatchKey, Lane};
use tributary_uplink::Spool;
use tributary_world::dice::Dice;

/// How large its files are.
const SIZES: Sizes = Sizes {
    wal_segment_bytes: SEGMENT_BYTES,
    spool_segment_bytes: SEGMENT_BYTES,
    letter_segment_bytes: SEGMENT_BYTES,
    checkpoint_bytes_max: 4 * 1024,
};
/// Bytes that its write-ahead log may take.
const WAL_BYTES: u64 = 64 * SEGMENT_BYTES;
/// Of so many acknowledgements, the disk as it is at one of them is kept.
const SHADOW_EACH: u32 = 8;

/// Disks as they were while something was acknowledged.
type Shadows = Arc<Mutex<Vec<SimDisk>>>;

/// An agent: its disk, and its process.
pub struct Agent {
    place: usize,
    seed: u64,
    /// Its disk.
    pub disk: SimDisk,
    /// The bits of it that flipped.
    pub bits: Bits,
    /// What breaks of the folder in which it declares what it gives up.
    pub gaps: Aimed,
    /// Its process, while it runs.
    pub gateway: Option<Gateway>,
    /// Its devices.
    pub devices: Vec<Device>,
    /// Grows at every start.
    pub life: u64,
    /// What its clock is wrong by.
    pub clock_us: i64,
    /// Which rules it reads messages by, from the next start on.
    pub revision: u32,
    settings: Settings,
    sizes: Sizes,
    /// Until then its sealing stage has no turn: it waits for room, and the others go on.
    seals_from: i64,
    /// Of each lane of this life, up to where the oracle has seen it.
    spooled: BTreeMap<Lane, u64>,
    shadows: Shadows,
    doors: u64,
    draws: u64,
}

/// The rules of a revision: each puts its own name before a device's.
fn rules(revision: u32) -> Arc<Rules> {
    let text = format!(
        "[[decode]]\ntopic = \"{{device}}/{{metric}}\"\ndevice = \"r{revision}/{{device}}\"\n"
    );
    Rules::parse(&text).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

/// How long a batch of a spool that is to be full soon waits for more readings.
const SEAL_DELAY: Duration = Duration::from_millis(200);
/// Microseconds that a sealing stage waits for room, at most.
const WAIT_US_MAX: i64 = 60_000_000;

/// Lanes of a spool, definitions first.
const LANES: [Lane; 3] = [Lane::Series, Lane::Telemetry, Lane::Events];

fn settings(shape: &Shape) -> Settings {
    let config = Config::parse("[agent]\ndata_dir = \"/data\"\n", []);
    let config = config.unwrap_or_else(|wrong| panic!("{wrong:?}"));
    let mut settings = Settings::from_config(&config);
    settings.wal_quota_bytes = WAL_BYTES;
    settings.spool.reserve_bytes = 0;
    if shape.spool > 0 {
        let spool = &mut settings.spool;
        let lane = |lane: &LanePolicy| LanePolicy {
            quota_bytes: shape.spool * SPOOL_SEGMENT_BYTES,
            ..*lane
        };
        spool.telemetry = LanePolicy {
            policy: shape.policy,
            ..lane(&spool.telemetry)
        };
        spool.events = lane(&spool.events);
        spool.alerts = lane(&spool.alerts);
        spool.aggregates = lane(&spool.aggregates);
        settings.seal_delay = SEAL_DELAY;
    }
    settings
}

impl Agent {
    /// An agent with these devices, without power.
    pub fn new(seed: u64, place: usize, devices: Vec<Device>, shape: &Shape) -> Self {
        let sizes = match shape.spool {
            0 => SIZES,
            _ => Sizes {
                spool_segment_bytes: SPOOL_SEGMENT_BYTES,
                ..SIZES
            },
        };
        Self {
            place,
            seed,
            disk: SimDisk::new(seed ^ (place as u64 + 1)),
            bits: Bits::default(),
            gaps: Aimed::at("/data/spool/gaps"),
            gateway: None,
            devices,
            life: 0,
            clock_us: 0,
            revision: 1,
            settings: settings(shape),
            sizes,
            seals_from: 0,
            spooled: BTreeMap::new(),
            shadows: Shadows::default(),
            doors: 0,
            draws: 0,
        }
    }

    fn dice(&mut self, purpose: &str) -> Dice {
        self.draws += 1;
        Dice::of(self.seed, purpose, self.place as u64, self.draws)
    }

    fn told(&self, now: i64) -> Now {
        Now {
            monotonic: now,
            wall: EPOCH_US + now + self.clock_us,
        }
    }

    /// Starts its process.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start(&mut self, now: i64, oracle: &mut Oracle) -> Result<(), String> {
        self.life += 1;
        self.settings.rules = rules(self.revision);
        oracle.revised(self.place, self.revision);
        let disk: Arc<dyn Disk> = Arc::new(self.gaps.on(self.disk.clone()));
        let (shadowed, shadows) = (self.disk.clone(), Arc::clone(&self.shadows));
        let count = AtomicU32::new(0);
        let outside = Outside {
            pause: Arc::new(Never),
            heard: Arc::new(move |_, _| {
                let times = count.fetch_add(1, Ordering::Relaxed);
                if times.is_multiple_of(SHADOW_EACH) {
                    let mut shadows = shadows.lock().unwrap_or_else(PoisonError::into_inner);
                    shadows.push(shadowed.fork(Salts::Other(7)));
                }
            }),
            kernel: KernelClock::default(),
        };
        let opened = Gateway::open(&disk, &self.settings, self.sizes, outside, self.told(now));
        let gateway = self
            .gateway
            .insert(opened.map_err(|error| error.to_string())?);
        // What it found there of earlier lives may be news.
        for lane in gateway.uplink().spool().lane_starts() {
            for number in lane.first..lane.end {
                let key = BatchKey {
                    buffer: lane.key.buffer,
                    lane: lane.key.lane,
                    number,
                };
                let is_news = LANES.contains(&key.lane) && !oracle.is_spooled(self.place, key);
                if let Some(Ok(batch)) = is_news.then(|| gateway.uplink().spool().read(key)) {
                    oracle.spooled(self.place, &batch);
                }
            }
        }
        self.spooled.clear();
        Ok(())
    }

    /// Its process is gone, however.
    pub fn bury(&mut self, now: i64, oracle: &mut Oracle) {
        self.gateway = None;
        self.shadows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        for device in &mut self.devices {
            device.agent_gone(now, oracle);
        }
    }

    /// When a part of it or a device wants a turn.
    pub fn due(&mut self, now: i64) -> Option<i64> {
        let told = self.told(now);
        let is_up = self.gateway.is_some();
        let devices = self.devices.iter().filter_map(|it| it.due(is_up));
        let mut at = devices.min();
        if let Some(gateway) = &mut self.gateway {
            let from = self.seals_from;
            let parts = gateway.due(told).into_iter();
            let parts = parts.map(|(part, at)| match part {
                Part::Seal => at.max(from),
                _ => at,
            });
            let parts = parts.min();
            at = at.into_iter().chain(parts).min();
        }
        at
    }

    /// Gives the devices theirs, and then one part of the process that is due a turn.
    ///
    /// # Errors
    /// What ends the process.
    pub fn turn(&mut self, now: i64, oracle: &mut Oracle) -> Result<Option<Part>, PipelineError> {
        let told = self.told(now);
        for place in 0..self.devices.len() {
            let is_up = self.gateway.is_some();
            if self.devices[place].due(is_up).is_some_and(|at| at <= now) {
                let gateway = self.gateway.as_mut();
                self.devices[place].turn(gateway, (now, told, &mut self.doors), oracle);
            }
        }
        let mut dice = self.dice("part");
        let Some(gateway) = &mut self.gateway else {
            return Ok(None);
        };
        let mut due = gateway.due(told);
        let waits = self.seals_from > now;
        due.retain(|(part, at)| *at <= now && !(waits && *part == Part::Seal));
        if due.is_empty() {
            return Ok(None);
        }
        let (part, _) = due[dice.below(due.len() as u64) as usize];
        let turned = gateway.turn(part, told);
        let seen = gateway.tap();
        self.look_at_shadows(&seen.committed, oracle);
        oracle.logged(self.place, &seen.committed);
        if let Err(PipelineError::Stage(StageError::Storage(error))) = &turned
            && error.is_full()
        {
            self.seals_from = now + dice.us(1, WAIT_US_MAX);
        }
        turned?;
        if part == Part::Seal {
            self.hear_spool(oracle);
        }
        let Some(gateway) = self.gateway.as_mut().filter(|_| !self.disk.is_off()) else {
            return Ok(Some(part));
        };
        for device in &mut self.devices {
            device.listen(gateway, now);
        }
        oracle.stats.commits += u64::from(part == Part::Commit);
        Ok(Some(part))
    }

    /// Shows the oracle what is durable in the spool now.
    fn hear_spool(&mut self, oracle: &mut Oracle) {
        let Some(gateway) = &mut self.gateway else {
            return;
        };
        let buffer = gateway.present();
        for lane in LANES {
            let next = self.spooled.entry(lane).or_default();
            loop {
                let key = BatchKey {
                    buffer,
                    lane,
                    number: *next,
                };
                let Ok(batch) = gateway.uplink().spool().read(key) else {
                    break;
                };
                oracle.spooled(self.place, &batch);
                *next = batch.numbers().end;
            }
        }
    }

    /// Whatever was acknowledged is in the log of a machine that lost power at that instant.
    fn look_at_shadows(
        &mut self,
        committed: &[tributary_agent::gateway::Committed],
        oracle: &mut Oracle,
    ) {
        let shadows =
            std::mem::take(&mut *self.shadows.lock().unwrap_or_else(PoisonError::into_inner));
        for shadow in shadows {
            oracle.stats.shadows += 1;
            let Some(last) = committed.last().map(|it| it.origin) else {
                oracle.early("an answer was given in a turn that made nothing durable");
                continue;
            };
            let disk: Arc<dyn Disk> = Arc::new(shadow.crash(Survival::Nothing));
            let config = LogConfig {
                segment_bytes: SEGMENT_BYTES,
                quota_bytes: 2 * WAL_BYTES,
                reserve_bytes: 0,
                kind: LogKind::Wal,
            };
            let life = Open::NewLife(LifeId([0xff; 16]));
            let log = Log::open(disk, Path::new("/data/wal"), config, life);
            let lives = log.map(|log| log.reader.lives()).unwrap_or_default();
            let held = lives.iter().find(|span| span.life.0 == last.buffer.0);
            if held.is_none_or(|span| span.end <= last.number) {
                oracle.early(&format!(
                    "{last:?} was acknowledged, and the log of a machine that loses power then \
                     has {held:?}"
                ));
            }
        }
    }

    /// Whether its devices have said everything and heard of it, and its sealing stage may work.
    pub fn is_done(&self, now: i64) -> bool {
        self.seals_from <= now && self.devices.iter().all(Device::is_done)
    }
}
