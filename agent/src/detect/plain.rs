//! The presets `sensitive`, `balanced` and `quiet`: occupancy gaps of a series's values and of what
//! they have beyond their time of the week, stuck values, and the policy over them.

use super::gap::{Gap, Novelty, Tuning, WARM};
use super::policy::Policy;
use super::preset::Preset;
use super::recent::Recent;
use super::series::{Judgement, Part};
use super::stuck::Stuck;
use super::weekly::Weekly;
use bytes::{Buf, BufMut};

/// The relative gap of a value that scores 1.
const THETA_VALUE: f64 = 0.0142;
/// The relative gap of a residual that scores 1.
const THETA_RESIDUAL: f64 = 0.0361;
/// By how much a stuck value is louder than what the policy asks for.
const STUCK_SCORE: f64 = 1.01;
/// Deviations from the recent mean that `quiet` asks of a gap.
const DEVIATIONS: f64 = 4.5;

/// The detector's state.
#[derive(Clone, PartialEq, Debug)]
pub struct Plain {
    policy: Policy,
    /// The greatest time so far: µs since 1970, UTC.
    newest: i64,
    recent: Recent,
    stuck: Stuck,
    weekly: Weekly,
    values: Gap<128>,
    residuals: Gap<64>,
    preset: Preset,
}

impl Plain {
    pub(super) fn new(preset: Preset) -> Self {
        Self {
            policy: Policy::default(),
            newest: i64::MIN,
            recent: Recent::default(),
            stuck: Stuck::default(),
            weekly: Weekly::default(),
            values: Gap::new(),
            residuals: Gap::new(),
            preset,
        }
    }

    pub(super) fn preset(&self) -> Preset {
        self.preset
    }

    /// What came before was of another time: from here on no time is before it.
    pub(super) fn forget_times(&mut self) {
        self.newest = i64::MIN;
    }

    pub(super) fn learns(&self) -> u32 {
        let missing = WARM - self.values.warmth();
        self.policy.learns().max(missing.into())
    }

    pub(super) fn step(&mut self, weekly: bool, time_us: i64, value: f64) -> Judgement {
        self.policy.tick();
        if !value.is_finite() || time_us < self.newest {
            return Judgement::NOTHING;
        }
        self.newest = time_us;
        let (of_values, of_residuals) = self.tunings();
        let novelty = self.values.step(&of_values, value);
        let (mut score, mut part) = (relative(novelty) / THETA_VALUE, Part::Value);
        if weekly {
            let residual = self.weekly.residual(time_us, value);
            let novelty = self.residuals.step(&of_residuals, residual);
            let gap = relative(novelty) / THETA_RESIDUAL;
            if gap > score {
                (score, part) = (gap, Part::Weekly);
            }
        }
        if self.preset == Preset::Quiet && self.recent.step(value).abs() < DEVIATIONS {
            score = 0.0;
        }
        if self.stuck.step(value) {
            let stuck = STUCK_SCORE * self.policy.loudness();
            if stuck > score {
                (score, part) = (stuck, Part::Stuck);
            }
        }
        let (severity, alert) = self.policy.rule(score);
        Judgement {
            severity,
            alert,
            part: (score > 0.0).then_some(part),
        }
    }

    /// Of the gap of values, and of residuals.
    fn tunings(&self) -> (Tuning, Tuning) {
        let (of_values, of_residuals) = match self.preset {
            Preset::Sensitive => (2_000, 4_000),
            _ => (20_000, 20_000),
        };
        let tuning = |decay, increment| Tuning {
            decay,
            increment,
            gather: 0,
        };
        (tuning(of_values, 4), tuning(of_residuals, 2))
    }
}

impl Plain {
    /// Appends its bytes, as in a checkpoint; the preset stands before them.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_i64_le(self.newest);
        self.policy.write(out);
        self.recent.write(out);
        self.stuck.write(out);
        self.weekly.write(out);
        self.values.write(out);
        self.residuals.write(out);
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub(super) fn read(preset: Preset, input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            newest: input.try_get_i64_le().ok()?,
            policy: Policy::read(input)?,
            recent: Recent::read(input)?,
            stuck: Stuck::read(input)?,
            weekly: Weekly::read(input)?,
            values: Gap::read(input)?,
            residuals: Gap::read(input)?,
            preset,
        })
    }
}

/// A gap relative to the span, 0 where there is none.
fn relative(novelty: Option<Novelty>) -> f64 {
    novelty.map_or(0.0, |gap| f64::from(gap.distance) / f64::from(gap.span))
}
