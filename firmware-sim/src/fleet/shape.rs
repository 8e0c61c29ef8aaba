//! What real sensors of five kinds look like: a slow course, noise, quantised by a converter.
//!
//! Only additions, multiplications and roots are used, so that every machine computes the same
//! bits. Nothing here knows time of its own or devices.

use crate::reading::Value;
use crate::rng::Rng;
use std::sync::{Arc, OnceLock};

/// What a sensor measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Temperature,
    Pressure,
    VibrationRms,
    State,
    Counter,
}

/// The kind of the sensor `index`: they cycle.
pub(super) fn kind(index: u32) -> Kind {
    match index % 5 {
        0 => Kind::Temperature,
        1 => Kind::Pressure,
        2 => Kind::VibrationRms,
        3 => Kind::State,
        _ => Kind::Counter,
    }
}

impl Kind {
    pub(super) fn metric_and_unit(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Temperature => ("temperature", Some("°C")),
            Self::Pressure => ("pressure", Some("bar")),
            Self::VibrationRms => ("vibration_rms", Some("mm/s")),
            Self::State => ("state", None),
            Self::Counter => ("counter", Some("pcs")),
        }
    }
}

/// Values after which a counter of the kind found in meters starts again.
const COUNTER_MODULI: [i64; 3] = [1 << 16, 1_000_000, 1 << 31];
/// Seconds in which an analog course forgets where it was, whatever the rate.
const TIME_CONSTANT_S: f64 = 300.0;
/// Mean seconds between two restarts of a device with a counter.
const RESTART_S: f64 = 1_800.0;
/// Mean seconds in each state, with the state that mostly follows.
const STATES: [(&str, f64, usize); 3] =
    [("running", 180.0, 1), ("idle", 60.0, 0), ("fault", 15.0, 1)];
/// How often leaving `running` means a fault.
const FAULT_SHARE: f64 = 0.1;

#[derive(Clone, Debug)]
enum Course {
    Analog {
        base: f64,
        daily: f64,
        wander: f64,
        noise: f64,
        decimals: f64,
    },
    State {
        at: usize,
    },
    Counter {
        count: f64,
        per_s: f64,
        modulus: i64,
    },
}

/// One sensor's course and where it is in it.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    course: Course,
    /// Slow deviation from the base, first order autoregressive, in units of `wander`.
    drift: f64,
    phase_day: f64,
    rng: Rng,
}

impl Shape {
    pub(super) fn new(index: u32, mut rng: Rng) -> Self {
        let course = match kind(index) {
            Kind::Temperature => Course::Analog {
                base: rng.between(18.0, 70.0),
                daily: rng.between(1.0, 5.0),
                wander: 0.8,
                noise: 0.03,
                decimals: 100.0,
            },
            Kind::Pressure => Course::Analog {
                base: rng.between(2.0, 8.0),
                daily: 0.05,
                wander: 0.12,
                noise: 0.004,
                decimals: 1_000.0,
            },
            Kind::VibrationRms => Course::Analog {
                base: rng.between(1.2, 4.0),
                daily: 0.02,
                wander: 0.15,
                noise: 0.06,
                decimals: 1_000_000.0,
            },
            Kind::State => Course::State { at: 0 },
            Kind::Counter => Course::Counter {
                count: rng.between(0.0, 40_000.0).floor(),
                per_s: rng.between(0.2, 25.0),
                modulus: modulus(rng.next()),
            },
        };
        let drift = rng.normal();
        let phase_day = rng.unit();
        Self {
            course,
            drift,
            phase_day,
            rng,
        }
    }

    /// Of an analog course: its deviation within a hundred readings (noise, and how far it wanders
    /// meanwhile), and the steps of its converter in one unit.
    pub(super) fn spread(&self, period_us: u64) -> Option<(f64, f64)> {
        let Course::Analog {
            wander,
            noise,
            decimals,
            ..
        } = self.course
        else {
            return None;
        };
        let wandered = (100.0 * period_us as f64 / 1e6 / TIME_CONSTANT_S).min(1.0);
        let variance = noise * noise + wander * wander * wandered;
        Some((variance.sqrt(), decimals))
    }

    /// The next value, measured at `time_us`, `period_us` after the one before.
    pub(super) fn sample(&mut self, time_us: i64, period_us: u64) -> Value {
        let period_s = period_us as f64 / 1e6;
        match &mut self.course {
            Course::Analog {
                base,
                daily,
                wander,
                noise,
                decimals,
            } => {
                let keep = 1.0 - (period_s / TIME_CONSTANT_S).min(1.0);
                self.drift = keep * self.drift + (1.0 - keep * keep).sqrt() * self.rng.normal();
                let day = (time_us as f64 / 86_400e6 + self.phase_day).fract();
                let exact =
                    *base + *daily * wave(day) + *wander * self.drift + *noise * self.rng.normal();
                Value::F64((exact.max(0.0) * *decimals).round() / *decimals)
            }
            Course::State { at } => {
                let (_, mean_s, next) = STATES.get(*at).copied().unwrap_or(STATES[0]);
                if self.rng.unit() < period_s / mean_s {
                    let breaks = *at == 0 && self.rng.unit() < FAULT_SHARE;
                    *at = if breaks { 2 } else { next };
                }
                Value::Text(state_text(*at))
            }
            Course::Counter {
                count,
                per_s,
                modulus,
            } => {
                if self.rng.unit() < period_s / RESTART_S {
                    *count = 0.0;
                }
                *count += (*per_s * period_s * (1.0 + 0.3 * self.rng.normal())).max(0.0);
                if *count >= *modulus as f64 {
                    *count -= *modulus as f64;
                }
                Value::I64(*count as i64)
            }
        }
    }
}

fn modulus(draw: u64) -> i64 {
    COUNTER_MODULI
        .get((draw % 3) as usize)
        .copied()
        .unwrap_or(i64::MAX)
}

/// A sine by parabolas over one turn (within 6 % of the real one).
fn wave(turn: f64) -> f64 {
    let x = 2.0 * turn - 1.0;
    -4.0 * x * (1.0 - x.abs())
}

fn state_text(at: usize) -> Arc<str> {
    static TEXTS: OnceLock<[Arc<str>; 3]> = OnceLock::new();
    let texts = TEXTS.get_or_init(|| STATES.map(|(name, ..)| Arc::from(name)));
    texts.get(at).unwrap_or(&texts[0]).clone()
}
