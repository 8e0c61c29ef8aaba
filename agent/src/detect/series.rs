//! The detector of one series, by its preset.

use super::calm::Calm;
use super::plain::Plain;
use super::preset::Preset;
use bytes::{Buf, BufMut};

/// The part of a detector that gave the greatest score.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The value is far from all that were visited lately.
    Value,
    /// What it has beyond its time of the week is.
    Weekly,
    /// The mean of the last readings is.
    Mean,
    /// The step from the reading before is.
    Step,
    /// The value repeats for much longer than ever.
    Stuck,
}

impl Part {
    /// Its name in alerts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Weekly => "weekly",
            Self::Mean => "mean",
            Self::Step => "step",
            Self::Stuck => "stuck",
        }
    }
}

/// What a detector makes of a reading.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Judgement {
    /// 1 or more on an alert, 0 where one is held back, below a half otherwise.
    pub severity: f64,
    /// Whether an alert is raised.
    pub alert: bool,
    /// The part that spoke, if one did.
    pub part: Option<Part>,
}

impl Judgement {
    /// Nothing is said.
    pub(super) const NOTHING: Self = Self {
        severity: 0.0,
        alert: false,
        part: None,
    };

    /// The severity as a score from 0 to 1; an alert has a half or more.
    pub fn score(&self) -> f64 {
        self.severity / (1.0 + self.severity)
    }
}

/// The detector of a series: at most 768 bytes of state. In place: all series of an agent have the
/// same preset, and nearly all agents the largest.
#[derive(Clone, PartialEq, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum SeriesDetector {
    /// The presets `sensitive`, `balanced` and `quiet`.
    Plain(Plain),
    /// The preset `calm`.
    Calm(Calm),
}

/// The place of `calm` in bytes that were written before steps were measured by their own size: its
/// state was of another layout, and is given up.
const CALM_BEFORE: u8 = 3;
/// How long that was.
const CALM_BEFORE_BYTES: usize = 754;
/// And the place from then on.
const CALM: u8 = 4;

const STATE_BYTES_MAX: usize = 768;
const _: () = assert!(size_of::<Plain>() <= STATE_BYTES_MAX);
const _: () = assert!(size_of::<Calm>() <= STATE_BYTES_MAX);

impl SeriesDetector {
    /// A detector that has seen nothing.
    pub fn new(preset: Preset) -> Self {
        match preset {
            Preset::Calm => Self::Calm(Calm::new()),
            plain => Self::Plain(Plain::new(plain)),
        }
    }

    /// Values that it learns from before it alerts.
    pub const LEARNS: u32 = super::policy::LEARNING;

    /// Values that it still needs before it alerts.
    pub fn learns(&self) -> u32 {
        match self {
            Self::Plain(plain) => plain.learns(),
            Self::Calm(calm) => calm.learns(),
        }
    }

    /// What came before was of another time, since a clock was set: from here on no time is before
    /// it.
    pub fn forget_times(&mut self) {
        match self {
            Self::Plain(plain) => plain.forget_times(),
            Self::Calm(calm) => calm.forget_times(),
        }
    }

    /// Appends its bytes, as in a checkpoint: the preset's place among
    /// [`NAMES`](Preset::NAMES), and 4 of `calm` (1 byte), then the detector.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Plain(plain) => {
                let preset = plain.preset();
                let place = Preset::NAMES.iter().position(|(_, known)| *known == preset);
                out.put_u8(place.unwrap_or_default() as u8);
                plain.write(out);
            }
            Self::Calm(calm) => {
                out.put_u8(CALM);
                calm.write(out);
            }
        }
    }

    /// Takes its bytes off the front of `input`; `None` when they are none. What `calm` wrote in
    /// another layout makes one that has seen nothing.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        match input.try_get_u8().ok()? {
            CALM => Calm::read(input).map(Self::Calm),
            CALM_BEFORE => {
                *input = input.get(CALM_BEFORE_BYTES..)?;
                Some(Self::new(Preset::Calm))
            }
            place => {
                let preset = Preset::NAMES.get(usize::from(place))?.1;
                Plain::read(preset, input).map(Self::Plain)
            }
        }
    }

    /// What it was made by.
    pub fn preset(&self) -> Preset {
        match self {
            Self::Plain(plain) => plain.preset(),
            Self::Calm(_) => Preset::Calm,
        }
    }

    /// Judges a reading. `weekly`: whether its clock is trusted to tell the time of the week. A
    /// value that is no number, or whose time is before one that was seen, changes no model and
    /// scores nothing.
    pub fn step(&mut self, weekly: bool, time_us: i64, value: f64) -> Judgement {
        match self {
            Self::Plain(plain) => plain.step(weekly, time_us, value),
            Self::Calm(calm) => calm.step(weekly, time_us, value),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_calm_one_of_the_layout_before_is_given_up_and_what_follows_is_read() {
        let mut bytes = vec![CALM_BEFORE];
        bytes.resize(1 + CALM_BEFORE_BYTES, 7);
        bytes.push(9);
        let mut input = bytes.as_slice();
        let read = SeriesDetector::read(&mut input).unwrap();
        assert_eq!((read.preset(), read.learns()), (Preset::Calm, 100));
        assert_eq!(input, [9]);
        assert!(SeriesDetector::read(&mut &bytes[..CALM_BEFORE_BYTES]).is_none());
    }

    proptest! {
        #[test]
        fn one_that_was_written_and_read_judges_on_as_if_it_had_not_been(
            seed in any::<u64>(),
            place in 0..Preset::NAMES.len(),
            before in 0usize..600,
        ) {
            let value = |i: usize| {
                let mixed = (i as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52;
                (i as f64 / 40.0).sin() * 10.0 + mixed as f64 / 400.0
            };
            let mut detector = SeriesDetector::new(Preset::NAMES[place].1);
            for i in 0..before {
                detector.step(true, i as i64 * 1_000_000, value(i));
            }
            let mut bytes = Vec::new();
            detector.write(&mut bytes);
            let mut input = bytes.as_slice();
            let mut read = SeriesDetector::read(&mut input).unwrap();
            prop_assert!(input.is_empty());
            let mut again = Vec::new();
            read.write(&mut again);
            prop_assert_eq!(&again, &bytes);
            for i in before..before + 200 {
                let time_us = i as i64 * 1_000_000;
                let judged = read.step(true, time_us, value(i));
                prop_assert_eq!(judged, detector.step(true, time_us, value(i)));
            }
            for length in 0..bytes.len() {
                prop_assert!(SeriesDetector::read(&mut &bytes[..length]).is_none());
            }
        }

        #[test]
        fn no_bytes_make_one_that_panics(
            mut bytes in proptest::collection::vec(any::<u8>(), 900..901),
            place in 0..Preset::NAMES.len(),
            values in proptest::collection::vec(any::<f64>(), 300),
        ) {
            bytes[0] = if place == 3 { CALM } else { place as u8 };
            if let Some(mut detector) = SeriesDetector::read(&mut bytes.as_slice()) {
                for (i, value) in values.into_iter().enumerate() {
                    detector.step(true, i as i64, value);
                }
            }
        }
    }
}
