//! The fleet: many devices, one metric each, as a pure function of a seed and of the ticks asked.
//!
//! It owns no clock and no socket. It is told how much time has passed, and hands out the readings
//! that are due. Faults stand between a shape's sample and the reading made of it, in
//! `Sensor::measure`, so that the truth holds what was really published.

mod injector;
mod shape;

use crate::fault::FaultConfig;
use crate::limits::{CELL_SENSORS, FAULTS_PER_MINUTE_MAX, PERIOD_S_MAX, RATE_HZ_MAX, SENSORS_MAX};
use crate::reading::{Reading, Series};
use crate::rng::Rng;
use injector::Injector;
use shape::Shape;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// What makes a fleet.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// Two fleets of one seed (and otherwise equal configuration) measure the same.
    pub seed: u64,
    /// How many sensors.
    pub sensors: u32,
    /// Readings a second of each sensor.
    pub rate_hz: f64,
    /// Milliseconds since 1970 at which the fleet begins to measure.
    pub started_ms: i64,
    /// First level of the topics, without its number: `plant` gives `plant-1/…`.
    pub site: String,
    /// Which faults it has.
    pub faults: FaultConfig,
}

/// Why a fleet cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FleetError {
    /// The number of sensors is out of range.
    #[error("{0} sensors: choose 1 to {SENSORS_MAX}")]
    Sensors(u32),
    /// The rate is out of range.
    #[error("{0} readings a second: choose more than 1/{PERIOD_S_MAX} and at most {RATE_HZ_MAX}")]
    Rate(f64),
    /// The number of faults is out of range.
    #[error("{0} faults a minute: choose 0 to {FAULTS_PER_MINUTE_MAX}")]
    Faults(f64),
    /// The site is no level of a topic.
    #[error(
        "`{0}` is not a usable site: it becomes a level of MQTT topics, so it must not be empty \
         and must not hold `/`, `+`, `#` or control characters"
    )]
    Site(String),
}

/// One device with one metric.
#[derive(Clone, Debug)]
pub struct Sensor {
    index: u32,
    shape: Shape,
    faults: Option<Injector>,
    clock: Rng,
    seq: u64,
}

impl Sensor {
    fn new(config: &FleetConfig, index: u32, faulty: u32, period_us: u64) -> Self {
        let mut rng = Rng::new(config.seed, u64::from(index));
        let clock = Rng::seeded(rng.next());
        let shape = Shape::new(index, rng);
        let (seed, faults) = (config.seed, &config.faults);
        Self {
            index,
            faults: Injector::new(seed, index, faulty, faults, &shape, period_us),
            shape,
            clock,
            seq: 0,
        }
    }

    /// The reading of the tick at `nominal_us` (since 1970), `elapsed_us` after the fleet began,
    /// with period `period_us`.
    fn measure(&mut self, nominal_us: i64, elapsed_us: u64, period_us: u64) -> Reading {
        let time_us = (nominal_us.div_euclid(1_000) - self.jitter_ms(period_us)) * 1_000;
        let value = self.shape.sample(time_us, period_us);
        let (value, fault) = match &mut self.faults {
            Some(faults) => faults.apply(value, elapsed_us, time_us),
            None => (value, None),
        };
        let seq = self.seq;
        self.seq += 1;
        Reading {
            series: self.index,
            seq,
            time_us,
            value,
            written: None,
            fault,
        }
    }

    /// How far the device's clock is behind the tick: mostly not at all, and always less than half
    /// a period, so that its times increase.
    fn jitter_ms(&mut self, period_us: u64) -> i64 {
        let draw = self.clock.next();
        let most = (period_us / 4_000).min(3);
        if most == 0 || !draw.is_multiple_of(5) {
            return 0;
        }
        ((draw >> 8) % (most + 1)) as i64
    }
}

/// A fleet, or the part of it that shares one connection.
#[derive(Clone, Debug)]
pub struct Fleet {
    sensors: Vec<Sensor>,
    first: u32,
    due: BinaryHeap<Reverse<(u64, u32, u64)>>,
    period_us: u64,
    started_us: i64,
    seed: u64,
}

impl Fleet {
    /// All sensors.
    ///
    /// # Errors
    /// When a number of the configuration is out of range.
    pub fn new(config: &FleetConfig) -> Result<Self, FleetError> {
        Self::part(config, 0, config.sensors)
    }

    /// The sensors `first..end`; they measure the same in whatever part they stand.
    ///
    /// # Errors
    /// When a number of the configuration is out of range.
    pub fn part(config: &FleetConfig, first: u32, end: u32) -> Result<Self, FleetError> {
        check(config)?;
        let end = end.min(config.sensors);
        let period_us = ((1e6 / config.rate_hz).round() as u64).max(1_000);
        let faulty = injector::faulty(config.seed, config.sensors);
        let sensors = (first..end)
            .map(|index| Sensor::new(config, index, faulty, period_us))
            .collect();
        let started_us = config.started_ms.saturating_mul(1_000);
        let due = (first..end)
            .map(|index| Reverse((phase_us(config.seed, index, period_us), index, 0)))
            .collect();
        Ok(Self {
            sensors,
            first,
            due,
            period_us,
            started_us,
            seed: config.seed,
        })
    }

    /// When the next reading is due: microseconds since the fleet began.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due_us, ..))| *due_us)
    }

    /// Takes the readings that are due at `elapsed_us`, at most `room` of them, in order of time.
    /// Returns how many devices were due beyond that: they measure nothing in this tick.
    pub fn produce(&mut self, elapsed_us: u64, room: usize, out: &mut VecDeque<Reading>) -> u64 {
        let (mut taken, mut late) = (0, 0);
        while let Some(mut top) = self.due.peek_mut() {
            let Reverse((due_us, index, tick)) = *top;
            if due_us > elapsed_us {
                break;
            }
            let phase = phase_us(self.seed, index, self.period_us);
            let next_us = phase.saturating_add((tick + 1).saturating_mul(self.period_us));
            *top = Reverse((next_us, index, tick + 1));
            drop(top);
            let place = index.checked_sub(self.first).map(|i| i as usize);
            let sensor = place.and_then(|i| self.sensors.get_mut(i));
            let sensor = sensor.expect("only sensors of this part are scheduled");
            if taken < room {
                let nominal_us = self.started_us.saturating_add_unsigned(due_us);
                out.push_back(sensor.measure(nominal_us, due_us, self.period_us));
                taken += 1;
            } else {
                late += 1;
            }
        }
        late
    }
}

/// When in its period a sensor measures. Neighbours share it, as points polled in one cycle do.
fn phase_us(seed: u64, index: u32, period_us: u64) -> u64 {
    let cell = u64::from(index / CELL_SENSORS);
    Rng::new(!seed, cell).next() % period_us
}

fn check(config: &FleetConfig) -> Result<(), FleetError> {
    if config.sensors == 0 || config.sensors > SENSORS_MAX {
        return Err(FleetError::Sensors(config.sensors));
    }
    let rate = config.rate_hz;
    if !(rate > 1.0 / PERIOD_S_MAX && rate <= RATE_HZ_MAX) {
        return Err(FleetError::Rate(rate));
    }
    let faults = config.faults.per_minute;
    if !(0.0..=FAULTS_PER_MINUTE_MAX).contains(&faults) {
        return Err(FleetError::Faults(faults));
    }
    let site = &config.site;
    let wrong = |c: char| matches!(c, '/' | '+' | '#') || c.is_control();
    if site.is_empty() || site.len() > 128 || site.contains(wrong) {
        return Err(FleetError::Site(site.clone()));
    }
    Ok(())
}

const MACHINES: [&str; 6] = ["pump", "motor", "fan", "press", "mixer", "conveyor"];
const SENSORS_PER_SITE: u32 = 500;

/// The series of every sensor of the fleet, by index.
///
/// # Errors
/// When a number of the configuration is out of range.
pub fn series(config: &FleetConfig) -> Result<Vec<Series>, FleetError> {
    check(config)?;
    let one = |index: u32| {
        let machine = MACHINES.get((index / 5) as usize % MACHINES.len()).copied();
        let (metric, unit) = shape::kind(index).metric_and_unit();
        Series {
            device: format!(
                "{}-{}/{}-{index:04}",
                config.site,
                index / SENSORS_PER_SITE + 1,
                machine.unwrap_or("device")
            ),
            metric: metric.to_owned(),
            unit: unit.map(str::to_owned),
        }
    };
    Ok((0..config.sensors).map(one).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::reading::Value;
    use std::collections::HashMap;

    fn config(sensors: u32, rate_hz: f64) -> FleetConfig {
        let site = "plant".to_owned();
        FleetConfig {
            seed: 7,
            sensors,
            rate_hz,
            started_ms: 1_700_000_000_000,
            site,
            faults: FaultConfig::NONE,
        }
    }

    /// The payloads of the first `elapsed_us`, asked for in steps.
    fn payloads(config: &FleetConfig, elapsed_us: u64, step_us: u64) -> Vec<(String, Vec<u8>)> {
        let mut fleet = Fleet::new(config).unwrap();
        let table = series(config).unwrap();
        let mut readings = VecDeque::new();
        for now in (0..=elapsed_us).step_by(step_us as usize) {
            assert_eq!(fleet.produce(now, usize::MAX, &mut readings), 0);
        }
        let mut all = Vec::new();
        for reading in readings {
            let series = &table[reading.series as usize];
            let mut out = Vec::new();
            reading.write_json(series.unit.as_deref(), true, &mut out);
            all.push((series.topic(), out));
        }
        all
    }

    #[test]
    fn one_seed_gives_the_same_bytes_whenever_it_is_asked() {
        let config = config(40, 10.0);
        let fine = payloads(&config, 2_000_000, 10_000);
        assert_eq!(fine, payloads(&config, 2_000_000, 500_000));
        assert_eq!(fine.len(), 800);
        let other = FleetConfig { seed: 8, ..config };
        assert_ne!(fine, payloads(&other, 2_000_000, 10_000));
    }

    #[test]
    fn a_part_measures_what_the_whole_does() {
        let config = config(40, 10.0);
        let mut whole = VecDeque::new();
        Fleet::new(&config)
            .unwrap()
            .produce(3_000_000, usize::MAX, &mut whole);
        let mut part = VecDeque::new();
        Fleet::part(&config, 10, 25)
            .unwrap()
            .produce(3_000_000, usize::MAX, &mut part);
        let expected: Vec<_> = whole
            .into_iter()
            .filter(|r| (10..25).contains(&r.series))
            .collect();
        assert_eq!(Vec::from(part), expected);
    }

    #[test]
    fn device_clocks_strictly_increase_and_sequences_have_no_hole() {
        for rate in [0.5, 1.0, 10.0, 33.3, 999.0, 1000.0] {
            let mut readings = VecDeque::new();
            let mut fleet = Fleet::new(&config(10, rate)).unwrap();
            fleet.produce((300.0 / rate * 1e6) as u64, usize::MAX, &mut readings);
            assert!(readings.len() >= 2_990, "{} at {rate} Hz", readings.len());
            let mut last: HashMap<u32, (u64, i64)> = HashMap::new();
            for reading in readings {
                assert_eq!(reading.time_us % 1_000, 0);
                if let Some((seq, time)) =
                    last.insert(reading.series, (reading.seq, reading.time_us))
                {
                    assert_eq!(reading.seq, seq + 1);
                    assert!(
                        reading.time_us > time,
                        "{rate} Hz: {} after {time}",
                        reading.time_us
                    );
                } else {
                    assert_eq!(reading.seq, 0);
                }
            }
        }
    }

    #[test]
    fn without_room_a_device_measures_nothing_and_says_so() {
        let mut fleet = Fleet::new(&config(16, 10.0)).unwrap();
        let mut readings = VecDeque::new();
        let late = fleet.produce(1_000_000, 100, &mut readings);
        assert_eq!((readings.len(), late), (100, 60));
        readings.clear();
        assert_eq!(fleet.produce(2_000_000, 1_000, &mut readings), 0);
        let first: Vec<u64> = readings
            .iter()
            .filter(|r| r.series == 0)
            .map(|r| r.seq)
            .collect();
        assert_eq!(
            first.first().copied(),
            Some(7),
            "the sequence goes on where it was"
        );
    }

    #[test]
    fn the_kinds_cycle_and_look_like_what_they_are() {
        let config = config(10, 10.0);
        let mut readings = VecDeque::new();
        Fleet::new(&config)
            .unwrap()
            .produce(1_200_000_000, usize::MAX, &mut readings);
        let of = |series: u32| -> Vec<Value> {
            readings
                .iter()
                .filter(|r| r.series == series)
                .map(|r| r.value.clone())
                .collect()
        };
        let floats = |series| -> Vec<f64> {
            of(series)
                .iter()
                .map(|v| if let Value::F64(x) = v { *x } else { f64::NAN })
                .collect()
        };
        for temperature in floats(0) {
            assert!((-40.0..150.0).contains(&temperature));
            assert_eq!((temperature * 100.0).round() / 100.0, temperature);
        }
        assert!(floats(1).iter().all(|bar| (0.0..20.0).contains(bar)));
        assert!(floats(2).iter().all(|rms| (0.0..50.0).contains(rms)));
        let states: Vec<Value> = of(3);
        let changes = states.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(states.iter().all(|v| matches!(v, Value::Text(_))));
        assert!(
            (1..200).contains(&changes),
            "{changes} changes of state in 20 minutes"
        );
        let counts: Vec<i64> = of(4)
            .iter()
            .map(|v| if let Value::I64(x) = v { *x } else { -1 })
            .collect();
        assert!(counts.iter().all(|n| *n >= 0) && counts.last() > Some(&0));
        let resets = counts.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!(resets < 20, "{resets} resets");
        assert_eq!(
            series(&config).unwrap()[7].topic(),
            "plant-1/motor-0007/vibration_rms"
        );
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        assert!(Fleet::new(&config(0, 1.0)).is_err());
        for rate in [0.0, -1.0, f64::NAN, 1000.5, 1e-9] {
            assert!(Fleet::new(&config(1, rate)).is_err(), "{rate}");
        }
        for per_minute in [-1.0, f64::NAN, 1e9] {
            let mut config = config(1, 1.0);
            config.faults.per_minute = per_minute;
            assert!(Fleet::new(&config).is_err(), "{per_minute}");
        }
        assert!(
            series(&FleetConfig {
                site: "a/b".into(),
                ..config(1, 1.0)
            })
            .is_err()
        );
    }
}
