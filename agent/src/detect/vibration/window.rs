//! The window that a series is filling: samples one after the other, without a hole.

/// Microseconds by which a sample may come apart from where it should, however fast they come:
/// times are rounded to the microsecond.
const ROUNDED: i64 = 2;

/// What became of a window with a sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Grown {
    /// It has one more.
    More,
    /// It is full.
    Full,
    /// The sample did not go on where the last one was: the window begins anew with it.
    Anew,
}

/// Samples on their way to a window: 40 bytes, and 8 a sample.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Window {
    pub samples: Vec<f64>,
    /// When the first one was taken: microseconds since 1970.
    pub first: i64,
    /// When the last one was.
    pub last: i64,
}

impl Window {
    /// Takes a sample; `length` are full.
    pub fn push(&mut self, length: usize, time: i64, value: f64) -> Grown {
        let goes_on = self.goes_on(time);
        if !goes_on {
            self.samples.clear();
        }
        if self.samples.is_empty() {
            self.first = time;
        }
        self.last = time;
        self.samples.push(value);
        match goes_on {
            _ if self.samples.len() >= length => Grown::Full,
            true => Grown::More,
            false => Grown::Anew,
        }
    }

    /// Whether a sample is where the next one should be.
    fn goes_on(&self, time: i64) -> bool {
        let passed = time.saturating_sub(self.last);
        match self.samples.len() {
            0 => true,
            1 => passed > 0,
            _ => {
                let apart = passed as f64 - self.interval();
                passed > 0 && apart.abs() <= (self.interval() / 2.0).max(ROUNDED as f64)
            }
        }
    }

    /// Microseconds from one sample to the next.
    fn interval(&self) -> f64 {
        let intervals = self.samples.len().saturating_sub(1).max(1);
        self.last.saturating_sub(self.first) as f64 / intervals as f64
    }

    /// Samples a second.
    pub fn rate_hz(&self) -> f64 {
        1e6 / self.interval()
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.samples.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_of_samples_without_a_hole() {
        assert_eq!(size_of::<Window>(), 40);
        let mut window = Window::default();
        // 25.6 kHz: 39.0625 µs, rounded.
        let time = |i: i64| (i as f64 * 39.0625).round() as i64;
        for i in 0..63 {
            assert_eq!(window.push(64, time(i), 0.0), Grown::More, "{i}");
        }
        assert_eq!(window.push(64, time(63), 0.0), Grown::Full);
        assert!(
            (window.rate_hz() - 25_600.0).abs() < 10.0,
            "{}",
            window.rate_hz()
        );
        window.clear();
        for i in 0..10 {
            window.push(64, time(i), 0.0);
        }
        for (next, anew) in [(time(11), true), (time(12), false), (time(5), true)] {
            assert_eq!(window.push(64, next, 0.0) == Grown::Anew, anew, "{next}");
        }
        // The fastest there may be: a microsecond each.
        let mut window = Window::default();
        assert!((0..100).all(|i| window.push(1_000, i, 0.0) == Grown::More));
        assert_eq!(
            window.push(1_000, 99, 0.0),
            Grown::Anew,
            "twice the same time"
        );
        window.push(1_000, i64::MAX, 0.0);
        window.push(1_000, i64::MIN, 0.0);
        assert!(!window.samples.is_empty());
    }
}
