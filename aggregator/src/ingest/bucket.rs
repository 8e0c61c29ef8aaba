//! A token bucket for one agent's bytes. Pure: it is told the time.

use crate::limits::{AGENT_BURST_BYTES, AGENT_BYTES_PER_SECOND, ROW_BYTES_CHARGED};

/// How many bytes an agent may still send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// May be negative: what came is charged whole.
    bytes: i64,
    at: i64,
}

impl Bucket {
    /// A full bucket at this time (microseconds on any clock that does not go back).
    pub fn new(now: i64) -> Self {
        Self {
            bytes: AGENT_BURST_BYTES as i64,
            at: now,
        }
    }

    /// Charges a batch: what it had, or what its rows cost behind ingest if that is more.
    pub fn take_batch(&mut self, bytes: usize, rows: u32, now: i64) {
        let of_rows = (rows as usize).saturating_mul(ROW_BYTES_CHARGED);
        self.take(bytes.max(of_rows), now);
    }

    /// Charges what came.
    pub fn take(&mut self, bytes: usize, now: i64) {
        let passed = now.saturating_sub(self.at).max(0);
        let gained = i128::from(passed) * i128::from(AGENT_BYTES_PER_SECOND) / 1_000_000;
        let full = AGENT_BURST_BYTES as i64;
        let gained = i64::try_from(gained).unwrap_or(full);
        self.bytes = self
            .bytes
            .saturating_add(gained)
            .min(full)
            .saturating_sub(bytes as i64);
        self.at = now.max(self.at);
    }

    /// When the next batch may be read; a time in the past when it may be now.
    pub fn ready_at(&self) -> i64 {
        let owed = i128::from(self.bytes.saturating_neg().max(0));
        let wait = owed * 1_000_000 / i128::from(AGENT_BYTES_PER_SECOND);
        self.at
            .saturating_add(i64::try_from(wait).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_the_rate_holds() {
        let mut bucket = Bucket::new(0);
        bucket.take(AGENT_BURST_BYTES as usize, 0);
        assert_eq!(bucket.ready_at(), 0);
        bucket.take(AGENT_BYTES_PER_SECOND as usize, 0);
        assert_eq!(bucket.ready_at(), 1_000_000);
        bucket.take(0, 3_000_000);
        assert_eq!(bucket.ready_at(), 3_000_000);
    }

    #[test]
    fn rows_cost_however_few_bytes_they_had() {
        let mut bucket = Bucket::new(0);
        let rows = 20_000;
        for _ in 0..1_000 {
            bucket.take_batch(120, rows, 0);
        }
        let cost = 1_000 * u64::from(rows) * ROW_BYTES_CHARGED as u64 - AGENT_BURST_BYTES;
        let wait = cost * 1_000_000 / AGENT_BYTES_PER_SECOND;
        assert_eq!(bucket.ready_at() as u64, wait);
        assert!(wait > 1_000_000, "it charges nothing to speak of");
    }

    #[test]
    fn a_clock_at_its_ends_does_no_harm() {
        let mut bucket = Bucket::new(i64::MIN);
        bucket.take(usize::MAX, i64::MAX);
        bucket.take(usize::MAX, i64::MIN);
        assert!(bucket.ready_at() > 0);
    }
}
