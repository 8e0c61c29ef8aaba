//! Which sensors have faults, when, which, and what they make of a value. Pure, by seed alone.
//!
//! One in [`FAULTY_GROUP_OF`] groups of five neighbours has faults, and in it the three sensors
//! with an analog course; all others are well for ever. The faults of a fleet are spread evenly
//! over time: sensor number `n` of them begins at the fraction `n * 0.618…` of an interval (a
//! golden ratio sequence), and again an interval later.
//!
//! Faults are sized by `sigma`, the deviation of the shape within a hundred readings: noise, and
//! how far it wanders meanwhile. A spike is 8 of it, a shift 5, a bearing's level rises by 4 and
//! its spread by 3, over 50 readings; a stuck sensor repeats its value; a dropout is 0.

use super::shape::{Kind, Shape, kind};
use crate::fault::{AFTERMATH_READINGS, FaultConfig, FaultKind, Mark};
use crate::limits::FAULTY_GROUP_OF;
use crate::reading::Value;
use crate::rng::Rng;

/// Neighbours of one group, as kinds cycle; the first three are analog.
const GROUP: u32 = 5;
const ANALOG: u32 = 3;
const GOLDEN: f64 = 0.618_033_988_749_894_8;

const SPIKE_SIGMAS: f64 = 8.0;
const LEVEL_SIGMAS: f64 = 5.0;
const BEARING_LEVEL_SIGMAS: f64 = 4.0;
const BEARING_SPREAD_SIGMAS: f64 = 3.0;
/// Readings until a bearing fault is fully there.
const BEARING_RAMP: f64 = 50.0;

const OF_LEVELS: [FaultKind; 4] = [
    FaultKind::Spike,
    FaultKind::Stuck,
    FaultKind::Level,
    FaultKind::Dropout,
];
const OF_VIBRATION: [FaultKind; 4] = [
    FaultKind::Bearing,
    FaultKind::Spike,
    FaultKind::Bearing,
    FaultKind::Level,
];

/// The faults of one sensor.
#[derive(Clone, Debug)]
pub(super) struct Injector {
    kinds: [FaultKind; 4],
    sigma: f64,
    decimals: f64,
    /// When the next fault begins: microseconds since the fleet began.
    next_us: u64,
    every_us: u64,
    begun: usize,
    current: Option<Current>,
    rng: Rng,
}

#[derive(Clone, Copy, Debug)]
struct Current {
    mark: Mark,
    /// The value as it was without the fault, when it began.
    held: f64,
    /// Up or down.
    sign: f64,
}

/// Groups of neighbours that have faults begin with this one.
fn first_group(seed: u64) -> u32 {
    (seed % u64::from(FAULTY_GROUP_OF)) as u32
}

/// Whether a sensor has faults, and its number among those that do.
fn number(seed: u64, index: u32) -> Option<u32> {
    let (group, place) = (index / GROUP, index % GROUP);
    let group = group.checked_sub(first_group(seed))?;
    let is_faulty = group.is_multiple_of(FAULTY_GROUP_OF) && place < ANALOG;
    is_faulty.then_some(group / FAULTY_GROUP_OF * ANALOG + place)
}

/// How many sensors of a fleet have faults.
pub(super) fn faulty(seed: u64, sensors: u32) -> u32 {
    let groups = sensors.div_ceil(GROUP);
    let Some(groups) = groups.checked_sub(first_group(seed)) else {
        return 0;
    };
    let whole = groups.div_ceil(FAULTY_GROUP_OF) * ANALOG;
    // The last group may be one with faults, and have too few sensors.
    let missing = (sensors..sensors.next_multiple_of(GROUP))
        .filter(|index| number(seed, *index).is_some())
        .count();
    whole - missing as u32
}

impl Injector {
    /// The faults of the sensor `index` in a fleet of which `faulty` have some; none for most.
    pub(super) fn new(
        seed: u64,
        index: u32,
        faulty: u32,
        config: &FaultConfig,
        shape: &Shape,
        period_us: u64,
    ) -> Option<Self> {
        let number = number(seed, index)?;
        let (sigma, decimals) = shape.spread(period_us)?;
        if config.per_minute <= 0.0 {
            return None;
        }
        // Faults have numbers of their own, so that what is well stays as it is without them.
        let mut rng = Rng::new(seed.rotate_left(32), u64::from(index));
        let offset = Rng::new(seed.rotate_left(32), u64::MAX).unit();
        let every_us = (f64::from(faulty) / config.per_minute * 60e6).max(1.0) as u64;
        let place = (f64::from(number) * GOLDEN + offset).fract();
        let after_us = u64::try_from(config.after.as_micros()).unwrap_or(u64::MAX);
        let kinds = match kind(index) {
            Kind::VibrationRms => OF_VIBRATION,
            _ => OF_LEVELS,
        };
        let begun = (rng.next() % kinds.len() as u64) as usize;
        Some(Self {
            kinds,
            sigma,
            decimals,
            next_us: after_us.saturating_add((place * every_us as f64) as u64),
            every_us,
            begun,
            current: None,
            rng,
        })
    }

    /// What is published of the value measured `elapsed_us` after the fleet began, at `time_us`.
    pub(super) fn apply(
        &mut self,
        value: Value,
        elapsed_us: u64,
        time_us: i64,
    ) -> (Value, Option<Mark>) {
        let Value::F64(exact) = value else {
            return (value, None);
        };
        if self.current.is_none() && elapsed_us >= self.next_us {
            self.begin(exact, elapsed_us, time_us);
        }
        let Some(mut current) = self.current else {
            return (value, None);
        };
        let mark = current.mark;
        let altered = match mark.is_faulty() {
            true => self.altered(&current, exact),
            false => exact,
        };
        current.mark.nth += 1;
        let is_over = current.mark.nth >= mark.kind.readings() + AFTERMATH_READINGS;
        self.current = (!is_over).then_some(current);
        (Value::F64(altered), Some(mark))
    }

    fn begin(&mut self, held: f64, elapsed_us: u64, first_us: i64) {
        let kind = self.kinds.get(self.begun % self.kinds.len()).copied();
        self.begun += 1;
        // What fell into a longer fault is left out.
        let behind = (elapsed_us - self.next_us) / self.every_us + 1;
        let step = behind.saturating_mul(self.every_us);
        self.next_us = self.next_us.saturating_add(step);
        let sign = if self.rng.next().is_multiple_of(2) {
            1.0
        } else {
            -1.0
        };
        self.current = kind.map(|kind| Current {
            mark: Mark {
                kind,
                first_us,
                nth: 0,
            },
            held,
            sign,
        });
    }

    fn altered(&mut self, current: &Current, exact: f64) -> f64 {
        let shifted = |sigmas: f64| exact + sigmas * self.sigma;
        let altered = match current.mark.kind {
            FaultKind::Spike => shifted(current.sign * SPIKE_SIGMAS),
            FaultKind::Level => shifted(current.sign * LEVEL_SIGMAS),
            FaultKind::Stuck => return current.held,
            FaultKind::Dropout => return 0.0,
            FaultKind::Bearing => {
                let ramp = (f64::from(current.mark.nth + 1) / BEARING_RAMP).min(1.0);
                let spread = BEARING_SPREAD_SIGMAS * self.rng.normal().abs();
                shifted(ramp * (BEARING_LEVEL_SIGMAS + spread))
            }
        };
        (altered.max(0.0) * self.decimals).round() / self.decimals
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::fleet::{Fleet, FleetConfig};
    use crate::reading::Reading;
    use std::collections::{BTreeMap, VecDeque};
    use std::time::Duration;

    fn config(sensors: u32, per_minute: f64) -> FleetConfig {
        FleetConfig {
            seed: 7,
            sensors,
            rate_hz: 10.0,
            started_ms: 1_700_000_000_000,
            site: "plant".to_owned(),
            faults: FaultConfig {
                per_minute,
                after: Duration::from_secs(12),
            },
        }
    }

    fn readings(config: &FleetConfig, seconds: u64, step_us: u64) -> Vec<Reading> {
        let mut fleet = Fleet::new(config).unwrap();
        let mut out = VecDeque::new();
        for now in (0..=seconds * 1_000_000).step_by(step_us as usize) {
            assert_eq!(fleet.produce(now, usize::MAX, &mut out), 0);
        }
        out.into()
    }

    /// Of each fault, by series and beginning: kind and readings.
    fn faults(readings: &[Reading]) -> BTreeMap<(u32, i64), (FaultKind, u32)> {
        let mut found = BTreeMap::new();
        for reading in readings {
            let Some(mark) = reading.fault.filter(Mark::is_faulty) else {
                continue;
            };
            let fault = found
                .entry((reading.series, mark.first_us))
                .or_insert((mark.kind, 0));
            assert_eq!((fault.0, fault.1), (mark.kind, mark.nth));
            fault.1 += 1;
        }
        found
    }

    #[test]
    fn faults_come_so_often_from_then_on_and_of_every_kind() {
        let all = readings(&config(1_000, 60.0), 132, 100_000);
        let found = faults(&all);
        // One a second, give or take the edges of the spread.
        assert!((115..=125).contains(&found.len()), "{}", found.len());
        let first = found.keys().map(|(_, at)| *at).min().unwrap();
        let begins = 1_700_000_000_000_000 + 12_000_000;
        assert!(
            (begins - 3_000..begins + 2_000_000).contains(&first),
            "{}",
            first - begins
        );
        let mut by_kind = BTreeMap::<_, u32>::new();
        for (kind, readings) in found.values() {
            *by_kind.entry(*kind).or_default() += 1;
            assert!(*readings <= kind.readings());
        }
        assert_eq!(by_kind.len(), FaultKind::ALL.len(), "{by_kind:?}");
        assert!(by_kind.values().all(|count| *count >= 10), "{by_kind:?}");
        let whole = found.values().filter(|(kind, n)| *n == kind.readings());
        assert!(whole.count() > 80);
    }

    #[test]
    fn what_has_no_fault_is_as_it_is_without_any() {
        let (with, without) = (config(200, 600.0), config(200, 0.0));
        let (with, without) = (
            readings(&with, 60, 250_000),
            readings(&without, 60, 250_000),
        );
        assert_eq!(with.len(), without.len());
        let mut sensors = BTreeMap::<u32, bool>::new();
        for (ill, well) in with.iter().zip(&without) {
            assert_eq!(well.fault, None);
            assert_eq!(
                (ill.series, ill.seq, ill.time_us),
                (well.series, well.seq, well.time_us)
            );
            let is_faulty = ill.fault.is_some_and(|mark| mark.is_faulty());
            *sensors.entry(ill.series).or_default() |= is_faulty;
            if !is_faulty {
                assert_eq!(ill.value, well.value);
            }
        }
        let ill = sensors.values().filter(|ill| **ill).count();
        assert_eq!(ill as u32, faulty(7, 200), "a stated share has faults");
        assert_eq!(ill, 200 / 5 / FAULTY_GROUP_OF as usize * 3);
    }

    #[test]
    fn one_seed_gives_one_plan_in_whatever_part_and_whenever_it_is_asked() {
        let config = config(100, 300.0);
        let all = readings(&config, 40, 10_000);
        assert_eq!(all, readings(&config, 40, 1_000_000));
        let mut part = VecDeque::new();
        let mut fleet = Fleet::part(&config, 37, 80).unwrap();
        fleet.produce(40_000_000, usize::MAX, &mut part);
        let of_part = all.into_iter().filter(|one| (37..80).contains(&one.series));
        assert_eq!(Vec::from(part), of_part.collect::<Vec<_>>());
    }

    #[test]
    fn the_count_of_those_with_faults_is_that_of_the_rule() {
        for seed in 0..9 {
            for sensors in 0..70 {
                let by_rule = (0..sensors).filter(|index| number(seed, *index).is_some());
                let numbers: Vec<_> = by_rule.filter_map(|index| number(seed, index)).collect();
                assert_eq!(
                    numbers.len() as u32,
                    faulty(seed, sensors),
                    "{sensors} of {seed}"
                );
                assert!(
                    numbers
                        .iter()
                        .zip(0..)
                        .all(|(number, place)| *number == place)
                );
            }
        }
    }

    /// The values of a series around one of its faults, and without it.
    fn around(kind: FaultKind) -> (Vec<f64>, Vec<f64>, f64) {
        let with = config(1_000, 60.0);
        let ill = readings(&with, 90, 1_000_000);
        let well = readings(&config(1_000, 0.0), 90, 1_000_000);
        let found = faults(&ill);
        // Long enough before the end.
        let mut of_kind = found
            .iter()
            .filter(|((_, at), fault)| fault.0 == kind && *at < 1_700_000_060_000_000);
        let ((series, first_us), _) = of_kind.next().unwrap();
        let values = |all: &[Reading]| -> Vec<f64> {
            let of = all
                .iter()
                .filter(|one| one.series == *series && one.time_us >= *first_us);
            let value = |one: &Reading| match one.value {
                Value::F64(x) => x,
                _ => f64::NAN,
            };
            of.take(kind.readings() as usize + 5).map(value).collect()
        };
        let sensor = Shape::new(*series, Rng::new(with.seed, u64::from(*series)));
        (
            values(&ill),
            values(&well),
            sensor.spread(100_000).unwrap().0,
        )
    }

    #[test]
    fn each_fault_is_what_its_name_says() {
        let off = |kind| -> Vec<f64> {
            let (ill, well, sigma) = around(kind);
            ill.iter()
                .zip(&well)
                .map(|(ill, well)| (ill - well) / sigma)
                .collect()
        };
        let near = |x: f64, to: f64| (x.abs() - to).abs() < 0.2;
        let spike = off(FaultKind::Spike);
        assert!(
            near(spike[0], 8.0) && spike[1..].iter().all(|x| *x == 0.0),
            "{spike:?}"
        );
        let level = off(FaultKind::Level);
        assert!(level[..100].iter().all(|x| near(*x, 5.0)), "{level:?}");
        assert_eq!(level[100..], [0.0; 5]);
        let (stuck, ..) = around(FaultKind::Stuck);
        assert!(stuck[..100].iter().all(|x| *x == stuck[0]), "{stuck:?}");
        assert!(stuck[100..].iter().any(|x| *x != stuck[0]), "{stuck:?}");
        let (dropout, ..) = around(FaultKind::Dropout);
        assert_eq!(dropout[..3], [0.0; 3]);
        assert!(dropout[3] > 0.0);
        let bearing = off(FaultKind::Bearing);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        assert!(bearing[0].abs() < 1.0, "{bearing:?}");
        let (early, late) = (mean(&bearing[..25]), mean(&bearing[50..150]));
        assert!(
            early < late / 2.0 && (5.0..8.0).contains(&late),
            "{early} {late}"
        );
        let least = bearing[50..150].iter().copied().fold(f64::MAX, f64::min);
        let most = bearing[50..150].iter().copied().fold(f64::MIN, f64::max);
        assert!(most - least > 4.0, "{least} to {most}");
    }
}
