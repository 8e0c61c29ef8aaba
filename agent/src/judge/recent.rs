//! The last readings of a series, to show around an alert: 57 bytes, at any
//! address.

use bytes::{Buf, BufMut};

/// Readings that are kept.
pub const KEPT: usize = 5;

/// Values and how long before each the one before it was.
#[derive(Clone, PartialEq, Debug)]
pub struct Recent {
    /// The newest first, little endian.
    values: [[u8; 8]; KEPT],
    /// Microseconds from the reading before to this one, little endian.
    steps: [[u8; 4]; KEPT - 1],
    count: u8,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            values: [[0; 8]; KEPT],
            steps: [[0; 4]; KEPT - 1],
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
            *first = value.to_le_bytes();
        }
        if let Some(first) = self.steps.first_mut() {
            *first = step.to_le_bytes();
        }
        self.count = (self.count + 1).min(KEPT as u8);
    }

    /// The readings with their times, oldest first; the newest is of `time`.
    pub fn around(&self, time: i64) -> Vec<(i64, f64)> {
        let mut at = time;
        let mut around = Vec::with_capacity(KEPT);
        let steps = self.steps.iter().map(|step| u32::from_le_bytes(*step));
        let steps = steps.map(i64::from).chain([0]);
        for (value, step) in self.values.iter().zip(steps).take(self.count.into()) {
            around.push((at, f64::from_le_bytes(*value)));
            at = at.saturating_sub(step);
        }
        around.reverse();
        around
    }

    /// Appends its bytes, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(self.count);
        out.put_slice(self.values.as_flattened());
        out.put_slice(self.steps.as_flattened());
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
        let values = recent.values.as_flattened_mut();
        input.try_copy_to_slice(values).ok()?;
        let steps = recent.steps.as_flattened_mut();
        input.try_copy_to_slice(steps).ok()?;
        Some(recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_shown_with_their_times() {
        assert_eq!(size_of::<Recent>(), 57);
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
