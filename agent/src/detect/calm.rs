//! The preset `calm`: four occupancy gaps, whose novelties add up and leak away, against two brakes
//! that a series's own alerts put on. `docs/detection.md` says why, and what was tried besides.

use super::gap::{Gap, Novelty, Tuning, WARM};
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
/// Readings that are judged and never raised.
const MUTE: u8 = 200;

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
    stuck: Stuck,
    weekly: Weekly,
    values: Gap<128>,
    residuals: Gap<64>,
    means: Gap<32>,
    steps: Gap<32>,
    /// Readings, saturating.
    readings: u8,
    /// Readings since an alert, saturating.
    quiet: u8,
}

impl Calm {
    pub(super) fn new() -> Self {
        Self {
            newest: i64::MIN,
            short: f64::NAN,
            evidence: 0.0,
            fast: 0.0,
            slow: 0.0,
            stuck: Stuck::default(),
            weekly: Weekly::default(),
            values: Gap::new(),
            residuals: Gap::new(),
            means: Gap::new(),
            steps: Gap::new(),
            readings: 0,
            quiet: u8::MAX,
        }
    }

    pub(super) fn learns(&self) -> u32 {
        u32::from(MUTE.saturating_sub(self.readings))
    }

    pub(super) fn step(&mut self, weekly: bool, time_us: i64, value: f64) -> Judgement {
        self.readings = self.readings.saturating_add(1);
        self.quiet = self.quiet.saturating_add(1);
        self.fast *= FAST_FADE;
        self.slow = (self.slow - SLOW_FADE).max(0.0);
        if !value.is_finite() || time_us < self.newest {
            return Judgement::NOTHING;
        }
        self.newest = time_us;
        let (novelty, part) = self.novelty(weekly, time_us, value);
        let is_stuck = self.stuck.step(value);
        if self.readings <= WARM {
            return Judgement::NOTHING;
        }
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
        let (severity, alert) = self.rule(severity);
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

    fn rule(&mut self, severity: f64) -> (f64, bool) {
        let is_mute = self.readings <= MUTE;
        if severity < 1.0 {
            return (if is_mute { 0.0 } else { 0.5 * severity }, false);
        }
        if self.quiet <= COOL_DOWN {
            self.fast += FAST_HELD_BACK;
            return (0.0, false);
        }
        self.fast += 1.0;
        self.slow = (self.slow + 1.0).min(SLOW_MAX);
        self.quiet = 0;
        match is_mute {
            true => (0.0, false),
            false => (severity, true),
        }
    }
}

impl Calm {
    /// Appends its bytes, as in a checkpoint.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_i64_le(self.newest);
        for value in [self.short, self.evidence, self.fast, self.slow] {
            out.put_f64_le(value);
        }
        self.stuck.write(out);
        self.weekly.write(out);
        self.values.write(out);
        self.residuals.write(out);
        self.means.write(out);
        self.steps.write(out);
        out.put_slice(&[self.readings, self.quiet]);
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub(super) fn read(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            newest: input.try_get_i64_le().ok()?,
            short: input.try_get_f64_le().ok()?,
            evidence: input.try_get_f64_le().ok()?,
            fast: input.try_get_f64_le().ok()?,
            slow: input.try_get_f64_le().ok()?,
            stuck: Stuck::read(input)?,
            weekly: Weekly::read(input)?,
            values: Gap::read(input)?,
            residuals: Gap::read(input)?,
            means: Gap::read(input)?,
            steps: Gap::read(input)?,
            readings: input.try_get_u8().ok()?,
            quiet: input.try_get_u8().ok()?,
        })
    }
}
