//! How far a sink is behind, and whether that is a matter of concern. Pure: it is told the time.
//!
//! The verdict is of the kind that Burrow (LinkedIn) made known: no thresholds, only what position
//! and end did in a window of samples.

use crate::limits::{LAG_SAMPLE_US, LAG_SAMPLES_MAX};
use serde::Serialize;
use std::collections::VecDeque;

/// What to make of a sink's lag.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It has had all at some moment of the window, or comes closer.
    #[default]
    Ok,
    /// It moves, and falls behind.
    Warn,
    /// It does not move, though there is more.
    Stall,
    /// It does not move, and failed last.
    Stop,
}

impl Verdict {
    /// As a number: the greater the graver.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// One look.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: i64,
    end: u64,
    position: u64,
}

/// A sink's newest samples.
#[derive(Clone, Debug, Default)]
pub struct Lag {
    samples: VecDeque<Sample>,
    /// Ends of the journal with the times at which they were reached, as long as the sink is
    /// behind them.
    ends: VecDeque<(i64, u64)>,
}

impl Lag {
    /// A look at the journal's end and at the sink's position.
    pub fn note(&mut self, at: i64, end: u64, position: u64) {
        while self.ends.front().is_some_and(|(_, end)| *end <= position) {
            self.ends.pop_front();
        }
        if end > position && self.ends.back().is_none_or(|(_, known)| *known < end) {
            self.ends.push_back((at, end));
            if self.ends.len() > LAG_SAMPLES_MAX {
                self.thin();
            }
        }
        let fresh = self
            .samples
            .back()
            .is_none_or(|it| at - it.at >= LAG_SAMPLE_US);
        if fresh {
            self.samples.push_back(Sample { at, end, position });
        }
        while self.samples.len() > LAG_SAMPLES_MAX {
            self.samples.pop_front();
        }
    }

    /// Every other end goes, but the oldest and the newest: times become coarser, not wrong.
    fn thin(&mut self) {
        let last = self.ends.len() - 1;
        let mut place = 0;
        self.ends.retain(|_| {
            let keep = place % 2 == 0 || place == last;
            place += 1;
            keep
        });
    }

    /// Microseconds since the oldest entry became durable that the sink does not have; at most so
    /// many, by what was sampled.
    pub fn behind_us(&self, now: i64, position: u64) -> i64 {
        let oldest = self.ends.iter().find(|(_, end)| *end > position);
        oldest.map_or(0, |(at, _)| now.saturating_sub(*at))
    }

    /// What to make of it; `failing` if the sink's last step failed.
    pub fn verdict(&self, failing: bool) -> Verdict {
        let (Some(oldest), Some(newest)) = (self.samples.front(), self.samples.back()) else {
            return Verdict::Ok;
        };
        let lag = |it: &Sample| it.end.saturating_sub(it.position);
        if self.samples.iter().any(|it| lag(it) == 0) && !failing {
            return Verdict::Ok;
        }
        if newest.position == oldest.position && lag(newest) > 0 {
            return match (failing, self.samples.len()) {
                (true, _) => Verdict::Stop,
                (false, 1) => Verdict::Ok,
                (false, _) => Verdict::Stall,
            };
        }
        match lag(newest) > lag(oldest) {
            true => Verdict::Warn,
            false => Verdict::Ok,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(looks: &[(u64, u64)]) -> Lag {
        let mut lag = Lag::default();
        for (second, (end, position)) in looks.iter().enumerate() {
            lag.note(second as i64 * LAG_SAMPLE_US, *end, *position);
        }
        lag
    }

    #[test]
    fn each_course_has_its_verdict() {
        type Course = (&'static str, &'static [(u64, u64)], bool, Verdict);
        let courses: [Course; 6] = [
            (
                "all there once",
                &[(10, 5), (20, 20), (40, 21)],
                false,
                Verdict::Ok,
            ),
            (
                "comes closer",
                &[(10, 0), (20, 15), (30, 28)],
                false,
                Verdict::Ok,
            ),
            (
                "falls behind",
                &[(10, 5), (30, 6), (60, 7)],
                false,
                Verdict::Warn,
            ),
            (
                "stands",
                &[(10, 5), (30, 5), (60, 5)],
                false,
                Verdict::Stall,
            ),
            ("stands and fails", &[(10, 5), (30, 5)], true, Verdict::Stop),
            ("nothing to do", &[(10, 10), (10, 10)], true, Verdict::Ok),
        ];
        for (what, looks, failing, verdict) in courses {
            assert_eq!(after(looks).verdict(failing), verdict, "{what}");
        }
    }

    #[test]
    fn seconds_behind_count_from_when_it_became_durable() {
        let lag = after(&[(10, 10), (20, 10), (30, 12)]);
        assert_eq!(lag.behind_us(5 * LAG_SAMPLE_US, 12), 4 * LAG_SAMPLE_US);
        assert_eq!(lag.behind_us(5 * LAG_SAMPLE_US, 20), 3 * LAG_SAMPLE_US);
        assert_eq!(lag.behind_us(5 * LAG_SAMPLE_US, 30), 0);
    }

    #[test]
    fn a_long_lag_is_bounded_in_memory_and_keeps_its_beginning() {
        let mut lag = Lag::default();
        for second in 0..100_000 {
            lag.note(second * LAG_SAMPLE_US, second as u64 + 1, 0);
        }
        assert!(lag.ends.len() <= LAG_SAMPLES_MAX + 1);
        assert_eq!(
            lag.behind_us(100_000 * LAG_SAMPLE_US, 0),
            100_000 * LAG_SAMPLE_US
        );
    }
}
