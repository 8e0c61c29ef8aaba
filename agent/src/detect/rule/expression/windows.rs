//! Aggregates of the last minutes of a series, in eight parts of the time: whatever comes, the work
//! of a reading and the memory are the same.

/// Parts of a window. The newest one is being filled, so that a window covers the last seven to
/// eight of them.
pub const PANES: usize = 8;

/// What came within a part: 40 bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pane {
    pub count: u32,
    pub mean: f64,
    /// The sum of squared distances from the mean.
    pub squares: f64,
    pub least: f64,
    pub greatest: f64,
}

impl Pane {
    pub const EMPTY: Self = Self {
        count: 0,
        mean: 0.0,
        squares: 0.0,
        least: f64::INFINITY,
        greatest: f64::NEG_INFINITY,
    };

    /// Both together: T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise
    /// algorithm for computing sample variances", 1979, equation 2.1.
    fn and(self, other: Self) -> Self {
        if self.count == 0 {
            return other;
        }
        if other.count == 0 {
            return self;
        }
        let (ours, theirs) = (f64::from(self.count), f64::from(other.count));
        let count = ours + theirs;
        let apart = other.mean - self.mean;
        Self {
            count: self.count.saturating_add(other.count),
            mean: self.mean + apart * (theirs / count),
            squares: self.squares + other.squares + apart * apart * (ours * theirs / count),
            least: self.least.min(other.least),
            greatest: self.greatest.max(other.greatest),
        }
    }
}

/// What of a window is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fold {
    Count,
    Sum,
    Mean,
    Min,
    Max,
    Range,
    Std,
}

impl Fold {
    pub const NAMES: [(&str, Self); 7] = [
        ("count", Self::Count),
        ("sum", Self::Sum),
        ("mean", Self::Mean),
        ("min", Self::Min),
        ("max", Self::Max),
        ("range", Self::Range),
        ("std", Self::Std),
    ];
}

/// A window that slides: 336 bytes.
#[derive(Clone, PartialEq, Debug)]
pub struct Panes {
    /// Which part of all time the newest is; nothing came when all are empty.
    pub newest: i64,
    pub panes: [Pane; PANES],
    /// Whether anything ever came.
    pub begun: bool,
}

impl Panes {
    pub const EMPTY: Self = Self {
        newest: 0,
        panes: [Pane::EMPTY; PANES],
        begun: false,
    };

    fn part(span: i64, time: i64) -> i64 {
        time.div_euclid((span / PANES as i64).max(1))
    }

    fn slot(part: i64) -> usize {
        part.rem_euclid(PANES as i64) as usize
    }

    /// Takes a value.
    pub fn push(&mut self, span: i64, time: i64, value: f64) {
        let part = Self::part(span, time);
        let passed = part.saturating_sub(self.newest);
        if !self.begun || passed >= PANES as i64 {
            self.panes = [Pane::EMPTY; PANES];
        } else if passed <= -(PANES as i64) {
            return;
        } else {
            for passed in 1..=passed {
                if let Some(pane) = self.panes.get_mut(Self::slot(self.newest + passed)) {
                    *pane = Pane::EMPTY;
                }
            }
        }
        self.newest = match self.begun {
            true => self.newest.max(part),
            false => part,
        };
        self.begun = true;
        if let Some(pane) = self.panes.get_mut(Self::slot(part)) {
            *pane = pane.and(Pane {
                count: 1,
                mean: value,
                squares: 0.0,
                least: value,
                greatest: value,
            });
        }
    }

    /// What is asked for, of what came within `span` before `time`; NaN where that is nothing.
    pub fn fold(&self, fold: Fold, span: i64, time: i64) -> f64 {
        let now = Self::part(span, time).max(self.newest);
        let oldest = now.saturating_sub(PANES as i64 - 1);
        let age = |place: usize| (Self::slot(self.newest) + PANES - place) % PANES;
        let panes = self.panes.iter().enumerate();
        let inside =
            |(place, _): &(usize, &Pane)| self.newest.saturating_sub(age(*place) as i64) >= oldest;
        let all = panes
            .filter(inside)
            .fold(Pane::EMPTY, |all, (_, pane)| all.and(*pane));
        let count = f64::from(all.count);
        match fold {
            Fold::Count => count,
            Fold::Sum => all.mean * count,
            _ if all.count == 0 => f64::NAN,
            Fold::Mean => all.mean,
            Fold::Min => all.least,
            Fold::Max => all.greatest,
            Fold::Range => all.greatest - all.least,
            Fold::Std => (all.squares / count).max(0.0).sqrt(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// It is what a list of the readings of seven to eight parts gives.
        #[test]
        fn it_is_that_of_the_readings_within(
            readings in proptest::collection::vec((0i64..300, -10i32..10), 1..120),
            later in 0i64..2_000,
        ) {
            let span = 800;
            let mut panes = Panes::EMPTY;
            let (mut time, mut all) = (-500, Vec::new());
            for (passed, value) in readings {
                time += passed;
                panes.push(span, time, f64::from(value));
                all.push((time, f64::from(value)));
                for now in [time, time + later] {
                    let from = (now.div_euclid(100) - 7) * 100;
                    let within = all.iter().filter(|(at, _)| *at >= from);
                    let within: Vec<f64> = within.map(|(_, value)| *value).collect();
                    let count = within.len() as f64;
                    let sum: f64 = within.iter().sum();
                    prop_assert_eq!(panes.fold(Fold::Count, span, now), count);
                    prop_assert!((panes.fold(Fold::Sum, span, now) - sum).abs() < 1e-9);
                    if within.is_empty() {
                        prop_assert!(panes.fold(Fold::Mean, span, now).is_nan());
                        continue;
                    }
                    let mean = sum / count;
                    let squares: f64 = within.iter().map(|v| (v - mean).powi(2)).sum();
                    let least = within.iter().copied().reduce(f64::min).unwrap();
                    let greatest = within.iter().copied().reduce(f64::max).unwrap();
                    prop_assert!((panes.fold(Fold::Mean, span, now) - mean).abs() < 1e-9);
                    prop_assert_eq!(panes.fold(Fold::Min, span, now), least);
                    prop_assert_eq!(panes.fold(Fold::Max, span, now), greatest);
                    prop_assert_eq!(panes.fold(Fold::Range, span, now), greatest - least);
                    let std = (squares / count).sqrt();
                    prop_assert!((panes.fold(Fold::Std, span, now) - std).abs() < 1e-6);
                }
            }
        }

        #[test]
        fn no_time_and_no_number_makes_it_panic(
            readings in proptest::collection::vec((any::<i64>(), any::<f64>()), 0..50),
            span in 1i64..i64::MAX,
        ) {
            let mut panes = Panes::EMPTY;
            for (time, value) in readings {
                panes.push(span, time, value);
                panes.fold(Fold::Std, span, time);
            }
        }
    }

    #[test]
    fn it_has_a_size() {
        assert_eq!(size_of::<Pane>(), 40);
        assert_eq!(size_of::<Panes>(), 336);
    }
}
