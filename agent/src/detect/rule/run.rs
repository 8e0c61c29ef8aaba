//! A run of one value, within a tolerance: since when, and how many readings.

use super::RunLimit;

/// A run: 24 bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Run {
    /// The value that it began with; NaN before the first.
    pub value: f64,
    pub began: i64,
    /// Readings, saturating.
    pub readings: u32,
}

impl Run {
    pub const NONE: Self = Self {
        value: f64::NAN,
        began: 0,
        readings: 0,
    };

    /// Takes a value; whether the run goes on.
    pub fn step(&mut self, tolerance: f64, time: i64, value: f64) -> bool {
        // NaN, before the first value, is near nothing.
        let goes_on = (value - self.value).abs() <= tolerance;
        if goes_on {
            self.readings = self.readings.saturating_add(1);
        } else {
            *self = Self {
                value,
                began: time,
                readings: 1,
            };
        }
        goes_on
    }

    /// How long the run is, in seconds or readings as `limit` has it, and the limit, once it is
    /// reached. One reading is no run.
    pub fn too_long(&self, limit: RunLimit, time: i64) -> Option<(f64, f64)> {
        let (length, most) = match limit {
            RunLimit::Span(span) => (seconds(time.saturating_sub(self.began)), seconds(span)),
            RunLimit::Readings(readings) => (f64::from(self.readings), f64::from(readings)),
        };
        (self.readings > 1 && length >= most).then_some((length, most))
    }
}

pub(super) fn seconds(span: i64) -> f64 {
    span as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_of_one_value_and_counts_from_where_it_began() {
        assert_eq!(size_of::<Run>(), 24);
        let mut run = Run::NONE;
        assert!(!run.step(0.5, 0, 10.0));
        assert_eq!(
            run.too_long(RunLimit::Span(0), 9_000_000),
            None,
            "one reading"
        );
        assert!(run.step(0.5, 1_000_000, 10.5));
        assert!(run.step(0.5, 2_000_000, 9.5));
        assert_eq!(run.too_long(RunLimit::Readings(4), 2_000_000), None);
        assert_eq!(
            run.too_long(RunLimit::Readings(3), 2_000_000),
            Some((3.0, 3.0))
        );
        assert_eq!(
            run.too_long(RunLimit::Span(2_000_000), 2_500_000),
            Some((2.5, 2.0))
        );
        assert!(!run.step(0.5, 3_000_000, 9.4));
        assert_eq!(run.too_long(RunLimit::Readings(2), 3_000_000), None);
    }
}
