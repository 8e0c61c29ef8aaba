//! Whether a machine is in an abnormal state: a group of channels whose short means have left what
//! was usual for them, together. `docs/detection.md`, STATE.

use bytes::{Buf, BufMut};

/// The weight of a new value in a short mean.
const SHORT: f32 = 0.02;
/// Rows over which the baseline is the plain mean.
const LEARNING: u32 = 400;
/// The weight of a new value in the baseline after that.
const LONG: f32 = 0.0005;
/// The score from which on the baseline stands still.
const STILL: f32 = 3.0;
/// The score with which a state begins.
const BEGIN: f32 = 0.864;
/// The part of it below which it is over,
const END: f32 = BEGIN / 2.0;
/// once so many rows stay there.
const END_ROWS: u32 = 60;
/// Deviations that one channel counts at most.
const DEVIATIONS_MAX: f32 = 100.0;

/// One channel: 12 bytes.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Channel {
    /// The short mean; NaN before the first value.
    short: f32,
    mean: f32,
    variance: f32,
}

/// What became of the state with a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing.
    None,
    /// It begins.
    Began,
    /// It is over.
    Ended,
}

/// A row's score, and what it changed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Row {
    /// The root mean square of the channels' deviations; a state begins at 0.864.
    pub score: f32,
    /// What it changed.
    pub change: Change,
}

impl Row {
    /// The score, 1 being where a state begins.
    pub fn severity(&self) -> f32 {
        self.score / BEGIN
    }
}

/// The channels of one machine: 12 bytes each, and 16 more.
#[derive(Clone, PartialEq, Debug)]
pub struct StateGroup {
    channels: Box<[Channel]>,
    rows: u32,
    /// Rows below the end, while the state lasts.
    calm: u32,
    score: f32,
    in_state: bool,
}

impl StateGroup {
    /// A group of so many channels, of which nothing is known.
    pub fn new(channels: usize) -> Self {
        let fresh = Channel {
            short: f32::NAN,
            ..Channel::default()
        };
        Self {
            channels: vec![fresh; channels].into(),
            rows: 0,
            calm: 0,
            score: 0.0,
            in_state: false,
        }
    }

    /// Rows that it still learns from.
    pub fn learns(&self) -> u32 {
        LEARNING.saturating_sub(self.rows)
    }

    /// Whether the machine is in an abnormal state.
    pub fn is_in_state(&self) -> bool {
        self.in_state
    }

    /// The channel that is farthest from what was usual, and its deviations.
    pub fn farthest(&self) -> Option<(usize, f32)> {
        let all = self.channels.iter().map(Channel::deviations).enumerate();
        all.max_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// The score, 1 being where a state begins.
    pub fn severity(&self) -> f32 {
        self.score / BEGIN
    }

    /// Appends its bytes, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.rows);
        out.put_u32_le(self.calm);
        out.put_f32_le(self.score);
        out.put_u8(u8::from(self.in_state));
        for channel in &self.channels {
            for part in [channel.short, channel.mean, channel.variance] {
                out.put_f32_le(part);
            }
        }
    }

    /// Takes the bytes of a group of so many channels off the front of `input`; `None` when they
    /// are none.
    pub fn read(channels: usize, input: &mut &[u8]) -> Option<Self> {
        let mut group = Self::new(channels);
        group.rows = input.try_get_u32_le().ok()?;
        group.calm = input.try_get_u32_le().ok()?;
        group.score = input.try_get_f32_le().ok()?;
        group.in_state = input.try_get_u8().ok()? != 0;
        for channel in &mut group.channels {
            channel.short = input.try_get_f32_le().ok()?;
            channel.mean = input.try_get_f32_le().ok()?;
            channel.variance = input.try_get_f32_le().ok()?;
        }
        Some(group)
    }

    /// Takes a row: the value of each channel, in their order. What is no number, or missing,
    /// leaves its channel as it is.
    pub fn step(&mut self, values: &[f64]) -> Row {
        self.rows = self.rows.saturating_add(1);
        let weight = if self.rows <= LEARNING {
            1.0 / self.rows as f32
        } else if self.score < STILL {
            LONG
        } else {
            0.0
        };
        for (channel, value) in self.channels.iter_mut().zip(values) {
            let value = *value as f32;
            if value.is_finite() {
                channel.take(value, weight);
            }
        }
        let sum: f32 = self.channels.iter().map(|c| c.deviations().powi(2)).sum();
        let count = self.channels.len().max(1) as f32;
        self.score = if self.rows <= LEARNING {
            0.0
        } else {
            (sum / count).sqrt()
        };
        let change = self.change();
        Row {
            score: self.score,
            change,
        }
    }

    fn change(&mut self) -> Change {
        if !self.in_state {
            self.in_state = self.score >= BEGIN;
            self.calm = 0;
            return if self.in_state {
                Change::Began
            } else {
                Change::None
            };
        }
        self.calm = if self.score < END { self.calm + 1 } else { 0 };
        if self.calm < END_ROWS {
            return Change::None;
        }
        self.in_state = false;
        Change::Ended
    }
}

impl Channel {
    fn take(&mut self, value: f32, weight: f32) {
        if self.short.is_nan() {
            self.short = value;
            self.mean = value;
            return;
        }
        self.short += SHORT * (value - self.short);
        let distance = value - self.mean;
        self.mean += weight * distance;
        self.variance = (1.0 - weight) * (self.variance + weight * distance * distance);
    }

    fn deviations(&self) -> f32 {
        let distance = (self.short - self.mean).abs();
        let deviations = distance / self.variance.sqrt();
        match deviations.is_nan() {
            // Nothing known, or a channel that never changed.
            true => 0.0,
            false => deviations.min(DEVIATIONS_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three channels with some noise, the second one shifted by so many deviations.
    fn row(i: u32, shift: f64) -> [f64; 3] {
        let noise = |k: u32| {
            f64::from((i.wrapping_mul(2_654_435_761).wrapping_mul(k)) >> 16) / 65_536.0 - 0.5
        };
        [noise(1), 10.0 + noise(3) + shift, 100.0 * noise(7)]
    }

    #[test]
    fn a_channel_has_12_bytes() {
        assert_eq!(size_of::<Channel>(), 12);
    }

    #[test]
    fn a_shift_begins_a_state_and_its_end_ends_it() {
        let mut group = StateGroup::new(3);
        let quiet = (0..3_000).filter(|i| group.step(&row(*i, 0.0)).change != Change::None);
        assert_eq!(quiet.count(), 0);
        let began = (3_000..3_200).find(|i| group.step(&row(*i, 3.0)).change == Change::Began);
        assert!(began.is_some() && group.is_in_state());
        assert_eq!(group.farthest().map(|(channel, _)| channel), Some(1));
        let ended = (3_200..4_000).find(|i| group.step(&row(*i, 0.0)).change == Change::Ended);
        assert!(ended.is_some_and(|at| at > 3_260), "{ended:?}");
    }

    #[test]
    fn nothing_is_said_while_it_learns_nor_of_what_is_no_number() {
        let mut group = StateGroup::new(2);
        for i in 0..400 {
            let row = group.step(&[f64::from(i % 5), f64::NAN]);
            assert_eq!((row.score, row.change), (0.0, Change::None));
        }
        assert_eq!(group.learns(), 0);
        let row = group.step(&[f64::INFINITY, f64::NAN]);
        assert!(row.score.is_finite());
    }
}
