//! A token bucket for each client: a second's worth may come at once. Told the time.

use std::time::{Duration, Instant};

/// What one client may still publish.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    per_second: f64,
    /// Below 0 after a read that held more than was left: the debt delays the next one.
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self {
            per_second,
            tokens: per_second,
            at: now,
        }
    }

    /// Takes for `messages` that came.
    pub(super) fn take(&mut self, messages: u32, now: Instant) {
        self.refill(now);
        self.tokens -= f64::from(messages);
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second);
        self.at = self.at.max(now);
    }

    /// When the client may go on; `None`: now.
    pub(super) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        let missing = (1.0 - self.tokens) / self.per_second;
        let free_at = self.at + Duration::from_secs_f64(missing.max(0.0));
        (free_at > now).then_some(free_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_comes_at_once_and_a_debt_waits() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, start);
        bucket.take(99, start);
        assert_eq!(bucket.blocked_until(start), None);
        bucket.take(101, start);
        // 100 beyond: a second for the debt, and the time of one token.
        let free_at = bucket
            .blocked_until(start)
            .map(|at| (at - start).as_millis());
        assert_eq!(free_at, Some(1_010));
        let later = start + Duration::from_millis(1_011);
        assert_eq!(bucket.blocked_until(later), None);
        bucket.take(1, later + Duration::from_secs(60));
        assert_eq!(
            bucket.blocked_until(later + Duration::from_secs(60)),
            None,
            "full again"
        );
    }
}
