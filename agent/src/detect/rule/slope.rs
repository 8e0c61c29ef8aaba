//! How fast a value changes, over a span of time: from the newest point that is at least the span
//! old. Ten points at most, an eighth of the span apart, so that work and memory are bounded
//! however fast readings come.

use crate::limits::RATE_POINTS;

/// Points between two ends of the span.
const PARTS: i64 = 8;
// One that is old enough, those of the span, and one to come.
const _: () = assert!(RATE_POINTS == PARTS as usize + 2);

/// What a rate is measured from: 168 bytes.
#[derive(Clone, Debug)]
pub(super) struct Slope {
    /// Times ascending, values beside them; only the first `len` are there.
    points: [(i64, f64); RATE_POINTS],
    len: u8,
}

/// Equal points, whatever stood in the places behind them.
impl PartialEq for Slope {
    fn eq(&self, other: &Self) -> bool {
        self.points() == other.points()
    }
}

impl Slope {
    pub fn new() -> Self {
        Self {
            points: [(0, 0.0); RATE_POINTS],
            len: 0,
        }
    }

    /// The points, oldest first.
    pub fn points(&self) -> &[(i64, f64)] {
        self.points.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Points as they were; `None` where there are too many or they do not ascend.
    pub fn of(points: &[(i64, f64)]) -> Option<Self> {
        let mut slope = Self::new();
        let ascend = points.windows(2).all(|two| match two {
            [(a, _), (b, _)] => a < b,
            _ => true,
        });
        slope
            .points
            .get_mut(..points.len())?
            .copy_from_slice(points);
        slope.len = points.len() as u8;
        ascend.then_some(slope)
    }

    /// Takes a value that is no older than any before; the change a second since the newest point
    /// that is `span` microseconds old, and when that was.
    pub fn step(&mut self, span: i64, time: i64, value: f64) -> Option<(f64, i64)> {
        let old_enough = |point: &(i64, f64)| time.saturating_sub(point.0) >= span;
        let passed = self.points().iter().take_while(|point| old_enough(point));
        let passed = passed.count().saturating_sub(1);
        self.drop_first(passed);
        let rate = self.points().first().filter(|point| old_enough(point));
        let rate = rate.map(|(from, before)| {
            let seconds = time.saturating_sub(*from) as f64 / 1e6;
            ((value - before) / seconds, *from)
        });
        // Rounded up, so that no more of them are within the span.
        let apart = span.saturating_add(PARTS - 1) / PARTS;
        let newest = self.points().last();
        let is_far = newest.is_none_or(|(newest, _)| time.saturating_sub(*newest) >= apart);
        if is_far {
            if usize::from(self.len) == RATE_POINTS {
                self.drop_first(1);
            }
            if let Some(point) = self.points.get_mut(usize::from(self.len)) {
                *point = (time, value);
                self.len += 1;
            }
        }
        rate
    }

    fn drop_first(&mut self, count: usize) {
        let count = count.min(usize::from(self.len));
        self.points.rotate_left(count);
        self.len -= count as u8;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_measured_over_the_span_or_since_the_reading_before() {
        assert_eq!(size_of::<Slope>(), 168);
        let mut slope = Slope::new();
        // 2 a second, ten readings a second, a span of one second.
        let rates: Vec<_> = (0..40)
            .map(|i| slope.step(1_000_000, i * 100_000, i as f64 * 0.2))
            .collect();
        assert!(rates[..10].iter().all(Option::is_none));
        for rate in rates[10..].iter().flatten() {
            assert!((rate.0 - 2.0).abs() < 1e-9, "{rate:?}");
        }
        assert!(rates[10..].iter().all(Option::is_some));
        // Readings that are further apart than the span.
        let mut slope = Slope::new();
        assert_eq!(slope.step(1_000_000, 0, 0.0), None);
        assert_eq!(slope.step(1_000_000, 10_000_000, 50.0), Some((5.0, 0)));
        assert_eq!(
            slope.step(1_000_000, 20_000_000, 50.0),
            Some((0.0, 10_000_000))
        );
    }

    proptest! {
        /// However readings come, the rate is that to one of them, less than an eighth of the span
        /// before the newest that is a span old.
        #[test]
        fn the_rate_is_to_a_reading_about_a_span_ago(
            steps in proptest::collection::vec(0i64..400, 1..200),
            span in 8i64..2_000,
        ) {
            let mut slope = Slope::new();
            let mut time = 0;
            let mut seen: Vec<i64> = Vec::new();
            for step in steps {
                time += step;
                let rate = slope.step(span, time, time as f64);
                let oldest = seen.iter().find(|at| time - **at >= span);
                prop_assert_eq!(rate.is_some(), oldest.is_some() && time - seen[0] >= span);
                if let Some((rate, from)) = rate {
                    prop_assert!(seen.contains(&from));
                    prop_assert!((rate - 1e6).abs() < 1e-3);
                    let newest = seen.iter().rev().find(|at| time - **at >= span).unwrap();
                    prop_assert!(newest - from < span / 8 + 1);
                }
                seen.push(time);
                prop_assert!(slope.points().len() <= RATE_POINTS);
                prop_assert_eq!(Slope::of(slope.points()), Some(slope.clone()));
            }
        }
    }
}
