//! The last readings of a series, to show around an alert: 64 bytes.

use bytes::{Buf, BufMut};

/// Readings that are kept.
pub const KEPT: usize = 5;

/// Values and how long before each the one before it was.
#[derive(Clone, PartialEq, Debug)]
pub struct Recent {
    /// The newest first.
    values: [f64; KEPT],
    /// Microseconds from the reading before to this one.
    steps: [u32; KEPT - 1],
    count: u8,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            values: [0.0; KEPT],
            steps: [0; KEPT - 1],
            count: 0,
        }
    }
}

impl Recent {
    /// Takes a reading, `step` microseconds behind the one before. Behind a pause that the steps
    /// can't hold, what was before is forgotten.
    pub fn push(&mut self, step: i64, value: f64) {
        let step = match u32::try_from(step) {
            Ok(step) => step,
            Err(_) => {
                self.count = 0;
                0
            }
        };
        self.values.rotate_right(1);
        self.steps.rotate_right(1);
        if let Some(first) = self.values.first_mut() {
            *first = value;
        }
        if let Some(first) = self.steps.first_mut() {
            *first = step;
        }
        self.count = (self.count + 1).min(KEPT as u8);
    }

    /// The readings with their times, oldest first; the newest is of `time`.
    pub fn around(&self, time: i64) -> Vec<(i64, f64)> {
        let mut at = time;
        let mut around = Vec::with_capacity(KEPT);
        let steps = self.steps.iter().map(|step| i64::from(*step)).chain([0]);
        for (value, step) in self.values.iter().zip(steps).take(self.count.into()) {
            around.push((at, *value));
            at = at.saturating_sub(step);
        }
        around.reverse();
        around
    }

    /// Appends its bytes, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(self.count);
        self.values.iter().for_each(|value| out.put_f64_le(*value));
        self.steps.iter().for_each(|step| out.put_u32_le(*step));
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let count = input
            .try_get_u8()
            .ok()
            .filter(|count| usize::from(*count) <= KEPT)?;
        let mut recent = Self {
            count,
            ..Self::default()
        };
        for value in &mut recent.values {
            *value = input.try_get_f64_le().ok()?;
        }
        for step in &mut recent.steps {
            *step = input.try_get_u32_le().ok()?;
        }
        Some(recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_shown_with_their_times() {
        assert_eq!(size_of::<Recent>(), 64);
        let mut recent = Recent::default();
        assert_eq!(recent.around(0), []);
        for i in 1..=7_i32 {
            recent.push(i64::from(i) * 10, f64::from(i));
        }
        let shown = [(100, 3.0), (140, 4.0), (190, 5.0), (250, 6.0), (320, 7.0)];
        assert_eq!(recent.around(320), shown);
        recent.push(i64::from(u32::MAX) + 1, 9.0);
        assert_eq!(recent.around(1 << 40), [(1 << 40, 9.0)]);
    }
}
