//! The preset `calm`: four occupancy gaps, whose novelties add up and leak away, against two brakes
//! that a series's own alerts put on. While a series is young most values are new, so a novelty
//! must also be far from the recent mean. `docs/detection.md` says why, and what was tried besides.

use super::gap::{Gap, Novelty, Tuning, WARM};
use super::recent::follow;
use super::series::{Judgement, Part};
use super::stuck::Stuck;
use super::weekly::Weekly;
use bytes::{Buf, BufMut};

const VALUES: Tuning = tuning(20_000, 4, 0);
const RESIDUALS: Tuning = tuning(4_000, 2, 8);
const MEANS: Tuning = tuning(2_400, 1, 0);
const STEPS: Tuning = tuning(7_000, 1, 0);

const fn tuning(decay: u16, increment: u8, gather: u8) -> Tuning {
    Tuning {
        decay,
        increment,
        gather,
    }
}

/// The gap that counts 1: of values by their span,
const THETA_VALUE: f64 = 0.026;
/// of residuals by how sparse it is there,
const THETA_RESIDUAL: f64 = 0.6;
/// of short means by their span, outside it
const THETA_MEAN: f64 = 0.04;
/// and inside,
const THETA_MEAN_INSIDE: f64 = 0.08;
/// and of steps by their span.
const THETA_STEP: f64 = 0.045;
/// The weight of a new value in the short mean.
const SHORT: f64 = 0.115;
/// What is left of the evidence with the next reading.
const LEAK: f64 = 0.993;
/// What one reading adds at most.
const EVIDENCE_MAX: f64 = 10.0;
/// The fast brake: by how much an alert puts it on,
const FAST: f64 = 0.9;
/// what is left of it with the next reading,
const FAST_FADE: f64 = 0.996_879_877_730_208_1; // exp(-1/320)
/// and what an alert that is held back adds.
const FAST_HELD_BACK: f64 = 0.5;
/// The slow brake: by how much an alert puts it on,
const SLOW: f64 = 0.43;
/// what each reading takes off,
const SLOW_FADE: f64 = 1.0 / 100_000.0;
/// and how many alerts it counts at most.
const SLOW_MAX: f64 = 16.0;
/// The evidence that a stuck value is at least.
const STUCK: f64 = 1.01;
/// Readings after an alert without another.
const COOL_DOWN: u8 = 30;
/// Readings after which a series is no longer young.
const YOUNG: u16 = 5_000;
/// Deviations from the recent mean that a novelty is asked for at first; none once not young.
const DEVIATIONS: f64 = 4.5;
/// Two-hour buckets of the week (three days) from which residuals are asked for none.
const WEEK_KNOWN: u32 = 36;
/// What an alert that is too near counts of one that is raised.
const NEAR: f64 = 0.5;

/// The detector's state: 768 bytes.
#[derive(Clone, PartialEq, Debug)]
pub struct Calm {
    /// The greatest time so far: µs since 1970, UTC.
    newest: i64,
    /// The mean of the last readings; NaN before the first.
    short: f64,
    evidence: f64,
    fast: f64,
    slow: f64,
    /// The recent mean, while young,
    mean: f64,
    /// and the deviation from it.
    deviation: f32,
    stuck: Stuck,
    weekly: Weekly,
    values: Gap<128>,
    residuals: Gap<64>,
    means: Gap<32>,
    steps: Gap<32>,
    /// Readings that were judged, saturating.
    age: u16,
    /// Readings since an alert, saturating,
    quiet: u8,
    /// and since one that was too near.
    hushed: u8,
}

impl Calm {
    pub(super) fn new() -> Self {
        Self {
            newest: i64::MIN,
            short: f64::NAN,
            evidence: 0.0,
            fast: 0.0,
            slow: 0.0,
            mean: 0.0,
            deviation: 0.0,
            stuck: Stuck::default(),
            weekly: Weekly::default(),
            values: Gap::new(),
            residuals: Gap::new(),
            means: Gap::new(),
            steps: Gap::new(),
            age: 0,
            quiet: u8::MAX,
            hushed: u8::MAX,
        }
    }

    /// What came before was of another time: from here on no time is before it.
    pub(super) fn forget_times(&mut self) {
        self.newest = i64::MIN;
    }

    pub(super) fn learns(&self) -> u32 {
        u32::from(u16::from(WARM).saturating_sub(self.age))
    }

    pub(super) fn step(&mut self, weekly: bool, time_us: i64, value: f64) -> Judgement {
        self.quiet = self.quiet.saturating_add(1);
        self.hushed = self.hushed.saturating_add(1);
        self.fast *= FAST_FADE;
        self.slow = (self.slow - SLOW_FADE).max(0.0);
        if !value.is_finite() || time_us < self.newest {
            return Judgement::NOTHING;
        }
        self.newest = time_us;
        self.age = self.age.saturating_add(1);
        let (novelty, part) = self.novelty(weekly, time_us, value);
        let farness = self.farness(value);
        let is_stuck = self.stuck.step(value);
        if self.age <= WARM.into() {
            return Judgement::NOTHING;
        }
        let knows_the_week = part == Part::Weekly && self.weekly.known() >= WEEK_KNOWN;
        let far = if knows_the_week { 1.0 } else { farness };
        let novelty = novelty * far * far;
        self.evidence = LEAK * self.evidence + novelty.min(EVIDENCE_MAX);
        let brakes = (1.0 + FAST * self.fast) * (1.0 + SLOW * self.slow);
        let mut severity = if novelty > 0.0 {
            self.evidence / brakes
        } else {
            0.0
        };
        let mut part = (novelty > 0.0).then_some(part);
        if is_stuck && severity < STUCK {
            (severity, part) = (STUCK, Some(Part::Stuck));
        }
        let (severity, alert) = self.rule(severity, far < 1.0 && !is_stuck);
        Judgement {
            severity,
            alert,
            part,
        }
    }

    /// The greatest novelty, and the part that it is of.
    fn novelty(&mut self, weekly: bool, time_us: i64, value: f64) -> (f64, Part) {
        let by_span = |found: Option<Novelty>, theta: f64| {
            found.map_or(0.0, |gap| {
                f64::from(gap.distance) / (theta * f64::from(gap.span))
            })
        };
        let mut greatest = (0.0, Part::Value);
        let mut take = |score: f64, part: Part| {
            if score > greatest.0 {
                greatest = (score, part);
            }
        };
        take(
            by_span(self.values.step(&VALUES, value), THETA_VALUE),
            Part::Value,
        );
        if weekly {
            let residual = self.weekly.residual(time_us, value);
            let found = self.residuals.step(&RESIDUALS, residual);
            let score = found.map_or(0.0, |gap| {
                f64::from(gap.distance) / (THETA_RESIDUAL * f64::from(gap.sparsity))
            });
            take(score, Part::Weekly);
        }
        self.short = match self.short.is_nan() {
            true => value,
            false => self.short + SHORT * (value - self.short),
        };
        let found = self.means.step(&MEANS, self.short);
        let inside = found.is_some_and(|gap| gap.inside);
        let theta = if inside {
            THETA_MEAN_INSIDE
        } else {
            THETA_MEAN
        };
        take(by_span(found, theta), Part::Mean);
        let before = self.stuck.before();
        let step = if before.is_nan() { 0.0 } else { value - before };
        take(
            by_span(self.steps.step(&STEPS, step), THETA_STEP),
            Part::Step,
        );
        greatest
    }

    /// How far the value is from the recent mean, of what is asked for at this age: 1 at most.
    fn farness(&mut self, value: f64) -> f64 {
        if self.age >= YOUNG {
            return 1.0;
        }
        let mut variance = f64::from(self.deviation) * f64::from(self.deviation);
        let off = follow(&mut self.mean, &mut variance, self.age.into(), value);
        self.deviation = (variance.sqrt() as f32).min(f32::MAX);
        let asked = DEVIATIONS * (f64::from(YOUNG - self.age) / f64::from(YOUNG));
        if off.abs() < asked {
            off.abs() / asked
        } else {
            1.0
        }
    }

    /// Rules on a severity: what is said, and whether an alert is raised. One that is too near is
    /// not, and puts the brakes on by half.
    fn rule(&mut self, severity: f64, is_near: bool) -> (f64, bool) {
        if severity < 1.0 {
            return (0.5 * severity, false);
        }
        let (since, counts) = match is_near {
            true => (&mut self.hushed, NEAR),
            false => (&mut self.quiet, 1.0),
        };
        if *since <= COOL_DOWN {
            self.fast += counts * FAST_HELD_BACK;
            return (0.0, false);
        }
        *since = 0;
        self.fast += counts;
        self.slow = (self.slow + counts).min(SLOW_MAX);
        match is_near {
            true => (0.0, false),
            false => (severity, true),
        }
    }
}

impl Calm {
    /// Appends its bytes, as in a checkpoint.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_i64_le(self.newest);
        for value in [self.short, self.evidence, self.fast, self.slow, self.mean] {
            out.put_f64_le(value);
        }
        out.put_f32_le(self.deviation);
        self.stuck.write(out);
        self.weekly.write(out);
        self.values.write(out);
        self.residuals.write(out);
        self.means.write(out);
        self.steps.write(out);
        out.put_u16_le(self.age);
        out.put_slice(&[self.quiet, self.hushed]);
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub(super) fn read(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            newest: input.try_get_i64_le().ok()?,
            short: input.try_get_f64_le().ok()?,
            evidence: input.try_get_f64_le().ok()?,
            fast: input.try_get_f64_le().ok()?,
            slow: input.try_get_f64_le().ok()?,
            mean: input.try_get_f64_le().ok()?,
            deviation: input.try_get_f32_le().ok()?,
            stuck: Stuck::read(input)?,
            weekly: Weekly::read(input)?,
            values: Gap::read(input)?,
            residuals: Gap::read(input)?,
            means: Gap::read(input)?,
            steps: Gap::read(input)?,
            age: input.try_get_u16_le().ok()?,
            quiet: input.try_get_u8().ok()?,
            hushed: input.try_get_u8().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise from -1 to 1, the same at each call.
    fn noise(row: u64) -> f64 {
        let mixed = (row ^ 0x5851).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 11) as f64 / 2f64.powi(52) - 1.0
    }

    /// Judges the values, a second apart; the rows that were raised.
    fn raised(calm: &mut Calm, from: u64, values: impl Iterator<Item = f64>) -> Vec<u64> {
        let judged = (from..).zip(values).map(|(row, value)| {
            let judged = calm.step(true, row as i64 * 1_000_000, value);
            (row, judged.alert)
        });
        let alerts = judged.filter(|(_, alert)| *alert);
        alerts.map(|(row, _)| row).collect()
    }

    #[test]
    fn its_state_is_what_is_said() {
        assert_eq!(size_of::<Calm>(), 768);
    }

    #[test]
    fn what_wanders_is_no_alert_while_it_is_young_and_what_is_far_is_one() {
        let mut calm = Calm::new();
        assert_eq!(calm.learns(), 100);
        // It climbs by 20 deviations of its noise: most of its values are new.
        let climbs = |row: u64| row as f64 / 100.0 + noise(row);
        let alerts = raised(&mut calm, 0, (0..1_500).map(climbs));
        assert!(alerts.is_empty(), "{alerts:?}");
        assert_eq!(calm.learns(), 0);
        let spike = climbs(1_500) + 60.0;
        assert_eq!(raised(&mut calm, 1_500, [spike].into_iter()), [1_500]);
    }

    #[test]
    fn a_value_between_two_states_is_an_alert_once_the_series_is_not_young() {
        let states = |row: u64| 10.0 * (row % 2) as f64 + 0.3 * noise(row);
        let mut calm = Calm::new();
        raised(&mut calm, 0, (0..1_000).map(states));
        let mut old = calm.clone();
        // The mean itself: as near as can be.
        assert!(raised(&mut calm, 1_000, [5.0].into_iter()).is_empty());
        raised(&mut old, 1_000, (1_000..6_000).map(states));
        assert_eq!(raised(&mut old, 6_000, [5.0].into_iter()), [6_000]);
    }

    #[test]
    fn an_alert_that_is_too_near_puts_the_brakes_on_by_half() {
        let mut calm = Calm::new();
        assert_eq!(calm.rule(2.0, true), (0.0, false));
        assert_eq!((calm.fast, calm.slow), (0.5, 0.5));
        assert_eq!(calm.rule(2.0, true), (0.0, false));
        assert_eq!((calm.fast, calm.slow), (0.75, 0.5), "within its cool-down");
        assert_eq!(calm.rule(2.0, false), (2.0, true), "which is its own");
        assert_eq!((calm.fast, calm.slow), (1.75, 1.5));
    }

    #[test]
    fn no_value_makes_a_deviation_that_is_no_number() {
        let mut calm = Calm::new();
        for (row, value) in (0..).zip([1e300, -1e300, 0.0, f64::MAX, f64::MIN, 1.0, 2.0]) {
            calm.step(true, row, value);
            assert!(calm.deviation.is_finite(), "{value}");
        }
    }
}
