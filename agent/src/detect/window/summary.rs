//! What is kept of the readings of a pane, a session or a count: enough for an aggregate, and to be
//! put together with others.

use super::quantiles::{Quantiles, Values};
use crate::detect::state_error::{StateError, read_bool};
use bytes::{Buf, BufMut};
use std::cmp::Ordering;

/// A reading, as windows take it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Item {
    pub time: i64,
    pub value: f64,
    pub trusted: bool,
    pub late: bool,
}

/// Readings, summed up.
#[derive(Clone)]
pub(super) struct Summary {
    pub count: u64,
    /// Readings that were late while it was open: not in it.
    pub late: u64,
    mean: f64,
    /// The sum of squares of the distances from the mean.
    squares: f64,
    pub min: f64,
    pub max: f64,
    /// Time and value of the first reading by event time, of the same time the first that came.
    pub first: (i64, f64),
    /// Likewise of the last one, the last that came.
    pub last: (i64, f64),
    /// Whether all times are believed.
    pub trusted: bool,
    values: Values,
}

impl Summary {
    pub fn new() -> Self {
        Self {
            count: 0,
            late: 0,
            mean: 0.0,
            squares: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            first: (i64::MAX, 0.0),
            last: (i64::MIN, 0.0),
            trusted: true,
            values: Values::new(),
        }
    }

    /// Bytes, itself included.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.values.bytes()
    }

    /// Takes a reading that is not late. Mean and squares: Welford, Technometrics 1962.
    pub fn add(&mut self, item: &Item, has_room: bool) {
        let value = item.value;
        self.count += 1;
        let count = self.count as f64;
        let before = value - self.mean;
        // Neither the distance of two great values nor their sum is finite for sure.
        self.mean = match before.is_finite() {
            true => self.mean + before / count,
            false => self.mean - self.mean / count + value / count,
        };
        self.squares += before * (value - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if item.time < self.first.0 {
            self.first = (item.time, value);
        }
        if item.time >= self.last.0 {
            self.last = (item.time, value);
        }
        self.trusted &= item.trusted;
        self.values.add(value, has_room);
    }

    /// Takes all readings of another: those of other times. Chan et al., 1979.
    pub fn merge(&mut self, other: &Self) {
        self.late += other.late;
        if other.count == 0 {
            return;
        }
        let (ours, theirs) = (self.count as f64, other.count as f64);
        self.count += other.count;
        let share = theirs / self.count as f64;
        let apart = other.mean - self.mean;
        self.mean = match apart.is_finite() {
            true => self.mean + apart * share,
            false => self.mean * (1.0 - share) + other.mean * share,
        };
        self.squares += other.squares + apart * apart * ours * share;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if other.first.0 < self.first.0 {
            self.first = other.first;
        }
        if other.last.0 >= self.last.0 {
            self.last = other.last;
        }
        self.trusted &= other.trusted;
        self.values.merge(&other.values);
    }

    /// The mean, which is never outside of the values.
    pub fn mean(&self) -> f64 {
        self.mean.clamp(self.min, self.max)
    }

    /// The standard deviation of the readings themselves. Where its square is no double, the
    /// greatest double.
    pub fn std(&self) -> f64 {
        let variance = self.squares / self.count.max(1) as f64;
        match variance.is_finite() {
            true => variance.max(0.0).sqrt(),
            false => f64::MAX,
        }
    }

    pub fn quantiles(&self) -> Option<Quantiles> {
        self.values.quantiles((self.min, self.max))
    }

    /// Appends the summary to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.count);
        out.put_u64_le(self.late);
        for number in [self.mean, self.squares, self.min, self.max] {
            out.put_f64_le(number);
        }
        for (time, value) in [self.first, self.last] {
            out.put_i64_le(time);
            out.put_f64_le(value);
        }
        out.put_u8(u8::from(self.trusted));
        self.values.write(out);
    }

    /// The summary at the front of `input`, which is moved behind it.
    pub fn read(input: &mut &[u8]) -> Result<Self, StateError> {
        let (count, late) = (input.try_get_u64_le()?, input.try_get_u64_le()?);
        if count.max(late) >= 1 << 53 {
            return Err(StateError::Field("count of readings"));
        }
        let [mean, squares, min, max] = [
            input.try_get_f64_le()?,
            input.try_get_f64_le()?,
            input.try_get_f64_le()?,
            input.try_get_f64_le()?,
        ];
        // With readings, it has bounds in order; what is no number is in no order.
        let ordered = min.partial_cmp(&max).is_some_and(Ordering::is_le);
        if count > 0 && !ordered {
            return Err(StateError::Field("bounds of readings"));
        }
        Ok(Self {
            count,
            late,
            mean,
            squares,
            min,
            max,
            first: (input.try_get_i64_le()?, input.try_get_f64_le()?),
            last: (input.try_get_i64_le()?, input.try_get_f64_le()?),
            trusted: read_bool(input)?,
            values: Values::read(input)?,
        })
    }
}
