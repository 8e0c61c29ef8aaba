//! When what goes down, and when it comes back: agent, aggregator and the link between them, each
//! on a course of its own, drawn from a seed.
//!
//! Pure. It is told how much time has passed, and says what is due; it kills nothing.

use crate::limits::{ABRUPT_MS, ABRUPT_OF, AGENT, AGGREGATOR, LINK, Span};
use std::time::Duration;
use tributary_sim::rng::Rng;

/// What can go down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The agent's process.
    Agent,
    /// The aggregator's process.
    Aggregator,
    /// The link between the two.
    Link,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It dies now, or is cut.
    Down(Part),
    /// It is started now, or mended.
    Up(Part),
}

/// One part's alternation.
#[derive(Clone, Debug)]
struct Course {
    part: Part,
    rng: Rng,
    is_up: bool,
    /// When it changes, if ever.
    at: Option<Duration>,
}

impl Course {
    fn new(part: Part, seed: u64) -> Self {
        let mut rng = Rng::new(seed, 0x0c4a_0500 + part as u64);
        let first = draw(&mut rng, part.span().first_ms);
        Self {
            part,
            rng,
            is_up: true,
            at: Some(first),
        }
    }

    fn turn(&mut self, now: Duration, calm: bool) -> Step {
        self.is_up = !self.is_up;
        let Span { up_ms, down_ms, .. } = self.part.span();
        // Some lives end while whoever lives is still starting.
        let abrupt = self.part != Part::Link && self.rng.below(ABRUPT_OF) == 0;
        let stays = match (self.is_up, abrupt) {
            (false, _) => down_ms,
            (true, true) => ABRUPT_MS,
            (true, false) => up_ms,
        };
        let until = now + draw(&mut self.rng, stays);
        self.at = (!calm || !self.is_up).then_some(until);
        match self.is_up {
            true => Step::Up(self.part),
            false => Step::Down(self.part),
        }
    }
}

impl Part {
    fn span(self) -> Span {
        match self {
            Self::Agent => AGENT,
            Self::Aggregator => AGGREGATOR,
            Self::Link => LINK,
        }
    }
}

fn draw(rng: &mut Rng, (least_ms, most_ms): (u64, u64)) -> Duration {
    Duration::from_millis(least_ms + rng.below(most_ms - least_ms + 1))
}

/// The three courses. Everything is up at first.
#[derive(Clone, Debug)]
pub struct Plan {
    courses: [Course; 3],
    calm: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let parts = [Part::Agent, Part::Aggregator, Part::Link];
        Self {
            courses: parts.map(|part| Course::new(part, seed)),
            calm: false,
        }
    }

    /// When [`next_step`](Self::next_step) has something to say, if ever.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.courses.iter().filter_map(|course| course.at).min()
    }

    /// What is due at `now`, if anything; to be asked until it says nothing.
    pub fn next_step(&mut self, now: Duration) -> Option<Step> {
        let calm = self.calm;
        let due = self.courses.iter_mut();
        let due = due.filter(|course| course.at.is_some_and(|at| at <= now));
        let course = due.min_by_key(|course| course.at)?;
        Some(course.turn(now, calm))
    }

    /// From now on nothing goes down, and what is down comes back at once.
    pub fn calm(&mut self, now: Duration) {
        self.calm = true;
        for course in &mut self.courses {
            course.at = (!course.is_up).then_some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(seed: u64, until: Duration) -> Vec<(Duration, Step)> {
        let mut plan = Plan::new(seed);
        let mut steps = Vec::new();
        while let Some(now) = plan.poll_timeout().filter(|now| *now < until) {
            steps.push((now, plan.next_step(now).unwrap()));
        }
        steps
    }

    #[test]
    fn a_seed_is_a_plan_and_another_seed_another_one() {
        let minute = Duration::from_secs(60);
        assert_eq!(steps(7, minute), steps(7, minute));
        assert_ne!(steps(7, minute), steps(8, minute));
    }

    #[test]
    fn in_a_minute_everything_goes_down_again_and_again_and_in_ten_seconds_once() {
        for seed in 0..200 {
            for (part, in_a_minute) in [(Part::Agent, 8), (Part::Aggregator, 5), (Part::Link, 3)] {
                let downs = |seconds| {
                    let steps = steps(seed, Duration::from_secs(seconds));
                    let downs = steps.iter().filter(|(_, step)| *step == Step::Down(part));
                    downs.count()
                };
                assert!(downs(10) >= 1, "seed {seed}: {part:?}");
                assert!(downs(60) >= in_a_minute, "seed {seed}: {part:?}");
            }
        }
    }

    #[test]
    fn each_part_goes_down_and_up_by_turns() {
        let mut is_up = [true; 3];
        for (_, step) in steps(3, Duration::from_secs(600)) {
            let (part, up) = match step {
                Step::Down(part) => (part, false),
                Step::Up(part) => (part, true),
            };
            assert_eq!(is_up[part as usize], !up);
            is_up[part as usize] = up;
        }
    }

    #[test]
    fn when_it_calms_down_what_is_down_comes_back_at_once_and_stays() {
        for seed in 0..100 {
            let mut plan = Plan::new(seed);
            let mut down = Vec::new();
            let mut now = Duration::ZERO;
            for _ in 0..seed % 40 {
                now = plan.poll_timeout().unwrap();
                match plan.next_step(now).unwrap() {
                    Step::Down(part) => down.push(part),
                    Step::Up(part) => down.retain(|other| *other != part),
                }
            }
            plan.calm(now);
            while let Some(at) = plan.poll_timeout() {
                assert_eq!(at, now);
                let Some(Step::Up(part)) = plan.next_step(now) else {
                    panic!("seed {seed}: something went down");
                };
                down.retain(|other| *other != part);
            }
            assert_eq!(down, []);
        }
    }
}
