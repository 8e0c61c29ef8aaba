//! The preset `calm`: four occupancy gaps, whose novelties add up and leak away, against two brakes
//! that a series's own alerts put on. While a series is young most values are new, so a novelty
//! must also be far from the recent mean. `docs/detection.md` says why, and what was tried besides.

use super::gap::{Gap, Novelty, Tuning, WARM};
use super::recent::{follow, weight};
use super::series::{Judgement, Part};
use super::stuck::Stuck;
use super::weekly::{Weekly, bucket};
use bytes::{Buf, BufMut};

const VALUES: Tuning = tuning(20_000, 4, 0);
const RESIDUALS: Tuning = tuning(3_050, 1, 6);
const MEANS: Tuning = tuning(18_000, 1, 0);
const STEPS: Tuning = tuning(7_000, 1, 0);

const fn tuning(decay: u16, increment: u8, gather: u8) -> Tuning {
    Tuning {
        decay,
        increment,
        gather,
    }
}

/// The gap that counts 1: of values by their span,
const THETA_VALUE: f64 = 0.031;
/// of residuals by how sparse it is there,
const THETA_RESIDUAL: f64 = 0.88;
/// of short means by their span,
const THETA_MEAN: f64 = 0.04;
/// and of steps by theirs.
const THETA_STEP: f64 = 0.047;
/// The weight of a new value in the short mean.
const SHORT: f64 = 0.059_5;
/// What is left of the evidence with the next reading.
const LEAK: f64 = 0.989_5;
/// What one reading adds at most.
const EVIDENCE_MAX: f64 = 6.0;
/// The fast brake: by how much an alert puts it on,
const FAST: f64 = 1.2;
/// what is left of it with the next reading,
const FAST_FADE: f64 = 0.994_609_177_511_036_3; // exp(-1/185)
/// and what an alert that is held back adds.
const FAST_HELD_BACK: f64 = 0.22;
/// The slow brake: by how much an alert puts it on,
const SLOW: f64 = 0.33;
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
const DEVIATIONS: f64 = 4.6;
/// Two-hour buckets of the week (nearly four days) from which residuals are asked for none.
const WEEK_KNOWN: u32 = 46;
/// Returns of two-hour buckets (a day) at first, of which residuals say nothing.
const RETURNS_NEW: u8 = 12;
/// Times the usual step that a step counts at most.
const PACES_MAX: f64 = 1e12;
/// What an alert that is too near counts of one that is raised.
const NEAR: f64 = 0.75;

/// The detector's state: 768 bytes.
#[derive(Clone, PartialEq, Debug)]
pub struct Calm {
    /// The greatest time so far: µs since 1970, UTC.
    newest: i64,
    /// The mean of the last readings; NaN before the first.
    short: f64,
    slow: f64,
    evidence: f32,
    fast: f32,
    /// The recent mean, while young,
    mean: f64,
    /// and the deviation from it.
    deviation: f32,
    /// The root of the recent mean square of steps.
    pace: f32,
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
    /// Times that a bucket of the week came again, saturating,
    returns: u8,
    /// and the last one.
    bucket: u8,
}

impl Calm {
    pub(super) fn new() -> Self {
        Self {
            newest: i64::MIN,
            short: f64::NAN,
            slow: 0.0,
            evidence: 0.0,
            fast: 0.0,
            mean: 0.0,
            deviation: 0.0,
            pace: 0.0,
            stuck: Stuck::default(),
            weekly: Weekly::default(),
            values: Gap::new(),
            residuals: Gap::new(),
            means: Gap::new(),
            steps: Gap::new(),
            age: 0,
            quiet: u8::MAX,
            hushed: u8::MAX,
            returns: 0,
            bucket: u8::MAX,
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
        self.fast = (f64::from(self.fast) * FAST_FADE) as f32;
        self.slow = (self.slow - SLOW_FADE).max(0.0);
        if !value.is_finite() || time_us < self.newest {
            return Judgement::NOTHING;
        }
        self.newest = time_us;
        self.age = self.age.saturating_add(1);
        let bucket = weekly.then(|| bucket(time_us));
        let (novelty, part) = self.novelty(bucket, value);
        let farness = self.farness(value);
        let is_stuck = self.stuck.step(value);
        if self.age <= WARM.into() {
            return Judgement::NOTHING;
        }
        let knows_the_week = part == Part::Weekly && self.weekly.known() >= WEEK_KNOWN;
        let far = if knows_the_week { 1.0 } else { farness };
        let novelty = novelty * far * far;
        let evidence = LEAK * f64::from(self.evidence) + novelty.min(EVIDENCE_MAX);
        self.evidence = evidence as f32;
        let brakes = (1.0 + FAST * f64::from(self.fast)) * (1.0 + SLOW * self.slow);
        let mut severity = if novelty > 0.0 {
            f64::from(self.evidence) / brakes
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
    fn novelty(&mut self, bucket: Option<usize>, value: f64) -> (f64, Part) {
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
        if let Some(bucket) = bucket {
            self.visit(bucket);
            let residual = self.weekly.residual_at(bucket, value);
            let found = self.residuals.step(&RESIDUALS, residual);
            let score = found.map_or(0.0, |gap| {
                f64::from(gap.distance) / (THETA_RESIDUAL * f64::from(gap.sparsity))
            });
            // The first returns are of a kind of their own: before, all was within one visit.
            if !(1..=RETURNS_NEW).contains(&self.returns) {
                take(score, Part::Weekly);
            }
        }
        self.short = match self.short.is_nan() {
            true => value,
            false => self.short + SHORT * (value - self.short),
        };
        let found = self.means.step(&MEANS, self.short);
        take(by_span(found, THETA_MEAN), Part::Mean);
        let before = self.stuck.before();
        let step = if before.is_nan() { 0.0 } else { value - before };
        let stride = self.stride(step);
        let found = self.steps.step(&STEPS, stride);
        take(by_span(found, THETA_STEP), Part::Step);
        greatest
    }

    /// Counts it when another bucket of the week begins, and it was visited before.
    fn visit(&mut self, bucket: usize) {
        let comes_again = usize::from(self.bucket) != bucket && self.weekly.knows(bucket);
        self.returns = self.returns.saturating_add(u8::from(comes_again));
        self.bucket = bucket as u8;
    }

    /// How large a step is beside those of this series lately. A root keeps one that is huge from
    /// making all others small: they stay apart in the gap's bins.
    fn stride(&mut self, step: f64) -> f64 {
        let pace = f64::from(self.pace);
        let weight = weight(self.age.into());
        let square = (1.0 - weight) * pace * pace + weight * step * step;
        self.pace = (square.sqrt() as f32).min(f32::MAX);
        if pace == 0.0 {
            return 0.0;
        }
        let paces = (step / pace).clamp(-PACES_MAX, PACES_MAX);
        ((1.0 + paces.abs()).sqrt() - 1.0).copysign(paces)
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
    /// not, and puts the brakes on by less.
    fn rule(&mut self, severity: f64, is_near: bool) -> (f64, bool) {
        if severity < 1.0 {
            return (0.5 * severity, false);
        }
        let (since, counts) = match is_near {
            true => (&mut self.hushed, NEAR),
            false => (&mut self.quiet, 1.0),
        };
        if *since <= COOL_DOWN {
            self.fast += (counts * FAST_HELD_BACK) as f32;
            return (0.0, false);
        }
        *since = 0;
        self.fast += counts as f32;
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
        for value in [self.short, self.slow, self.mean] {
            out.put_f64_le(value);
        }
        for value in [self.evidence, self.fast, self.deviation, self.pace] {
            out.put_f32_le(value);
        }
        self.stuck.write(out);
        self.weekly.write(out);
        self.values.write(out);
        self.residuals.write(out);
        self.means.write(out);
        self.steps.write(out);
        out.put_u16_le(self.age);
        out.put_slice(&[self.quiet, self.hushed, self.returns, self.bucket]);
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub(super) fn read(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            newest: input.try_get_i64_le().ok()?,
            short: input.try_get_f64_le().ok()?,
            slow: input.try_get_f64_le().ok()?,
            mean: input.try_get_f64_le().ok()?,
            evidence: input.try_get_f32_le().ok()?,
            fast: input.try_get_f32_le().ok()?,
            deviation: input.try_get_f32_le().ok()?,
            pace: input.try_get_f32_le().ok()?,
            stuck: Stuck::read(input)?,
            weekly: Weekly::read(input)?,
            values: Gap::read(input)?,
            residuals: Gap::read(input)?,
            means: Gap::read(input)?,
            steps: Gap::read(input)?,
            age: input.try_get_u16_le().ok()?,
            quiet: input.try_get_u8().ok()?,
            hushed: input.try_get_u8().ok()?,
            returns: input.try_get_u8().ok()?,
            bucket: input.try_get_u8().ok()?,
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
    fn an_alert_that_is_too_near_puts_the_brakes_on_by_less() {
        let mut calm = Calm::new();
        assert_eq!(calm.rule(2.0, true), (0.0, false));
        assert_eq!((calm.fast, calm.slow), (NEAR as f32, NEAR));
        assert_eq!(calm.rule(2.0, true), (0.0, false));
        let fast = NEAR as f32 + (NEAR * FAST_HELD_BACK) as f32;
        assert_eq!((calm.fast, calm.slow), (fast, NEAR), "within its cool-down");
        assert_eq!(calm.rule(2.0, false), (2.0, true), "which is its own");
        assert_eq!((calm.fast, calm.slow), (fast + 1.0, NEAR + 1.0));
    }

    #[test]
    fn a_step_that_is_huge_leaves_the_others_apart() {
        let mut calm = Calm::new();
        let steps = |row: u64| noise(row) + if row == 3_000 { 1e6 } else { 0.0 };
        for row in 0..6_000 {
            calm.age = calm.age.saturating_add(1);
            calm.stride(steps(row));
        }
        let strides = [1.0, 10.0].map(|step| calm.clone().stride(step));
        assert!(strides[0] > 0.0 && strides[1] > strides[0], "{strides:?}");
        assert_eq!(calm.clone().stride(-10.0), -strides[1]);
    }

    #[test]
    fn residuals_of_the_first_day_that_comes_again_say_nothing() {
        const BUCKET_US: i64 = 7_200_000_000;
        // Low in the first hour of its bucket, high in the second: a mean forgets the first.
        let halves =
            |reading: i64| if reading % 8 < 4 { 0.0 } else { 60.0 } + noise(reading as u64);
        let mut calm = Calm::new();
        let judged = (0..96 * 8).map(|reading| {
            let judged = calm.step(true, reading * BUCKET_US / 8, halves(reading));
            judged.part == Some(Part::Weekly)
        });
        let weekly = judged.skip(84 * 8).filter(|is_weekly| *is_weekly).count();
        assert_eq!(weekly, 0);
        assert_eq!(calm.returns, RETURNS_NEW);
    }

    #[test]
    fn no_value_makes_a_deviation_that_is_no_number() {
        let mut calm = Calm::new();
        for (row, value) in (0..).zip([1e300, -1e300, 0.0, f64::MAX, f64::MIN, 1.0, 2.0]) {
            calm.step(true, row, value);
            assert!(
                calm.deviation.is_finite() && calm.pace.is_finite(),
                "{value}"
            );
        }
    }
}
