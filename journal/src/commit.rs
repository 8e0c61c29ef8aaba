//! When a group commit closes: pure, told the time, owning no clock and no file.
//!
//! One commit costs the device about 8.7 KB whatever it holds, so the delay is what decides about
//! wear. A budget is kept as a bucket that holds an hour of it: while more than half of that is
//! left the configured delay holds, below it grows in proportion, up to 250 ms at nothing left.
//! Bursts of hours pass at full speed; what lasts settles where it meets the budget.

use crate::limits::{
    COMMIT_COST_BYTES, COMMIT_DELAY_SD_CARD_US, COMMIT_DELAY_US, COMMIT_DELAY_US_MAX, FRAME_BYTES,
    FRAME_READINGS,
};

const DAY_US: i64 = 86_400_000_000;
const BUCKETS_PER_DAY: u64 = 24;

/// How much may be written to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WearBudget {
    /// Bytes a day, what the file system adds included.
    pub bytes_per_day: u64,
}

impl WearBudget {
    /// A budget of so many GB (10^9 bytes) a day: the setting `max_write_gb_per_day`.
    pub fn gb_per_day(gb: u32) -> Self {
        Self {
            bytes_per_day: u64::from(gb) * 1_000_000_000,
        }
    }
}

/// When a frame closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitPolicy {
    /// Microseconds that the oldest entry waits. At zero a frame closes as soon as the commit
    /// before it returned.
    pub max_delay_us: i64,
    /// Bytes of payload at which a frame closes.
    pub frame_bytes: usize,
    /// Readings at which a frame closes.
    pub frame_readings: u32,
    /// What may be written to the device, if that is limited.
    pub wear: Option<WearBudget>,
}

impl Default for CommitPolicy {
    fn default() -> Self {
        Self {
            max_delay_us: COMMIT_DELAY_US,
            frame_bytes: FRAME_BYTES,
            frame_readings: FRAME_READINGS,
            wear: None,
        }
    }
}

impl CommitPolicy {
    /// The profile `low-latency`: commit after commit.
    pub fn low_latency() -> Self {
        Self {
            max_delay_us: 0,
            ..Self::default()
        }
    }

    /// The profile `sd-card`: few commits.
    pub fn sd_card() -> Self {
        Self {
            max_delay_us: COMMIT_DELAY_SD_CARD_US,
            ..Self::default()
        }
    }
}

/// What the wear budget does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wear {
    /// There is no budget, or it is met without waiting.
    Within,
    /// Commits wait longer, so that it is met.
    Stretched {
        /// Microseconds that the oldest entry waits now.
        delay_us: i64,
    },
    /// Waiting as long as is allowed is not enough: say so.
    Exceeded,
}

/// The frame that is being filled.
#[derive(Clone, Copy, Default, Debug)]
struct Filling {
    bytes: usize,
    readings: u32,
    oldest_us: i64,
}

/// What is left of the wear budget.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    budget: WearBudget,
    left_bytes: u64,
    filled_us: Option<i64>,
    exceeded: bool,
}

impl Bucket {
    fn capacity(&self) -> u64 {
        (self.budget.bytes_per_day / BUCKETS_PER_DAY).max(1)
    }

    fn spend(&mut self, bytes: u64, now_us: i64) {
        // A clock that jumps back gives nothing; one that jumps ahead gives one bucket at most.
        let elapsed_us = now_us
            .saturating_sub(self.filled_us.unwrap_or(now_us))
            .max(0);
        let earned = u128::from(self.budget.bytes_per_day) * elapsed_us as u128 / DAY_US as u128;
        let capacity = self.capacity();
        let earned = u64::try_from(earned).unwrap_or(capacity);
        self.left_bytes = self.left_bytes.saturating_add(earned).min(capacity);
        self.filled_us = Some(now_us);
        if bytes >= self.left_bytes {
            self.exceeded = true;
        } else if self.left_bytes > capacity / 10 {
            self.exceeded = false;
        }
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
    }

    /// The delay that the budget asks for, where `base_us` is configured.
    fn delay_us(&self, base_us: i64) -> i64 {
        let half = (self.capacity() / 2).max(1);
        let missing = half.saturating_sub(self.left_bytes);
        let span = u128::from(
            COMMIT_DELAY_US_MAX
                .saturating_sub(base_us)
                .max(0)
                .unsigned_abs(),
        );
        let more = span * u128::from(missing) / u128::from(half);
        base_us.saturating_add(i64::try_from(more).unwrap_or(COMMIT_DELAY_US_MAX))
    }
}

/// The group commit of one log: tell it of entries and commits, ask it when to close.
#[derive(Clone, Debug)]
pub struct GroupCommit {
    policy: CommitPolicy,
    filling: Option<Filling>,
    in_flight: bool,
    bucket: Option<Bucket>,
}

impl GroupCommit {
    /// An empty frame under this policy.
    pub fn new(policy: CommitPolicy) -> Self {
        let bucket = policy.wear.map(|budget| {
            let empty = Bucket {
                budget,
                left_bytes: 0,
                filled_us: None,
                exceeded: false,
            };
            Bucket {
                left_bytes: empty.capacity(),
                ..empty
            }
        });
        Self {
            policy,
            filling: None,
            in_flight: false,
            bucket,
        }
    }

    /// An entry of `bytes` bytes that holds `readings` readings came at `now_us`.
    pub fn on_entry(&mut self, bytes: usize, readings: u32, now_us: i64) {
        let new = Filling {
            bytes: 0,
            readings: 0,
            oldest_us: now_us,
        };
        let filling = self.filling.get_or_insert(new);
        filling.bytes = filling.bytes.saturating_add(bytes);
        filling.readings = filling.readings.saturating_add(readings);
    }

    /// When the frame closes by itself; `None` while there is no entry, or a commit is running.
    pub fn poll_timeout(&self) -> Option<i64> {
        let filling = self.filling.filter(|_| !self.in_flight)?;
        if self.is_large(&filling) {
            return Some(filling.oldest_us);
        }
        Some(filling.oldest_us.saturating_add(self.delay_us()))
    }

    /// Whether the frame closes now. Never while a commit is running: one frame is in flight.
    pub fn should_close(&self, now_us: i64) -> bool {
        self.poll_timeout().is_some_and(|at| at <= now_us)
    }

    /// The frame was closed, and its commit began: entries from now on belong to the next one.
    /// Need not be called by who adds no entries until [`on_committed`](Self::on_committed).
    pub fn on_closed(&mut self) {
        self.filling = None;
        self.in_flight = true;
    }

    /// The commit returned at `now_us`, after writing `bytes` bytes of frame. To be called after
    /// a failed commit, too: it was written all the same.
    pub fn on_committed(&mut self, bytes: usize, now_us: i64) {
        if !std::mem::take(&mut self.in_flight) {
            self.filling = None;
        }
        self.on_write(COMMIT_COST_BYTES.saturating_add(bytes as u64), now_us);
    }

    /// Something else was written to the same device (state, checkpoints, spools): it counts.
    pub fn on_write(&mut self, device_bytes: u64, now_us: i64) {
        if let Some(bucket) = &mut self.bucket {
            bucket.spend(device_bytes, now_us);
        }
    }

    /// Microseconds that the oldest entry waits at present.
    pub fn delay_us(&self) -> i64 {
        let base_us = self.policy.max_delay_us;
        self.bucket
            .map_or(base_us, |bucket| bucket.delay_us(base_us))
    }

    /// What the wear budget does at present.
    pub fn wear(&self) -> Wear {
        let delay_us = self.delay_us();
        match self.bucket {
            Some(bucket) if bucket.exceeded => Wear::Exceeded,
            Some(_) if delay_us > self.policy.max_delay_us => Wear::Stretched { delay_us },
            _ => Wear::Within,
        }
    }

    fn is_large(&self, filling: &Filling) -> bool {
        filling.bytes >= self.policy.frame_bytes || filling.readings >= self.policy.frame_readings
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_closes_by_time_bytes_or_readings() {
        let mut commit = GroupCommit::new(CommitPolicy::default());
        assert_eq!(commit.poll_timeout(), None);
        commit.on_entry(10, 1, 1000);
        commit.on_entry(10, 1, 5000);
        assert_eq!(
            commit.poll_timeout(),
            Some(1000 + COMMIT_DELAY_US),
            "the oldest decides"
        );
        assert!(!commit.should_close(20_999) && commit.should_close(21_000));
        commit.on_entry(FRAME_BYTES, 1, 6000);
        assert!(commit.should_close(6000), "large enough");
        commit.on_committed(100, 7000);
        assert_eq!(commit.poll_timeout(), None);
        commit.on_entry(1, FRAME_READINGS, 8000);
        assert!(commit.should_close(8000), "readings enough");
    }

    #[test]
    fn one_frame_is_in_flight_and_low_latency_closes_behind_it() {
        let mut commit = GroupCommit::new(CommitPolicy::low_latency());
        commit.on_entry(10, 1, 0);
        assert!(commit.should_close(0));
        commit.on_closed();
        commit.on_entry(10, 1, 1);
        assert!(!commit.should_close(1000), "a commit is running");
        commit.on_committed(10, 2000);
        assert!(commit.should_close(2000), "as soon as it returned");
    }

    /// Runs `hours` of entries every millisecond, and says how many bytes the device took.
    fn run(commit: &mut GroupCommit, hours: i64, entry_bytes: usize) -> u64 {
        let mut written = 0;
        let (mut now, mut bytes) = (0, 0);
        while now < hours * 3_600_000_000 {
            commit.on_entry(entry_bytes, 1, now);
            bytes += entry_bytes;
            if commit.should_close(now) {
                commit.on_committed(bytes, now);
                written += COMMIT_COST_BYTES + bytes as u64;
                bytes = 0;
            }
            now += 1000;
        }
        written
    }

    #[test]
    fn a_wear_budget_is_met_by_waiting() {
        let wear = Some(WearBudget::gb_per_day(12));
        let policy = CommitPolicy {
            wear,
            ..CommitPolicy::low_latency()
        };
        let mut commit = GroupCommit::new(policy);
        let written = run(&mut commit, 3, 20);
        // Three hours of budget, and the hour that the bucket held at first.
        assert!(written <= 2_000_000_000 + 100_000, "{written}");
        assert!(written >= 1_700_000_000, "it is used: {written}");
        let Wear::Stretched { delay_us } = commit.wear() else {
            unreachable!("must wait")
        };
        assert!((20_000..=250_000).contains(&delay_us), "{delay_us}");
    }

    #[test]
    fn a_budget_that_waiting_cannot_meet_says_so() {
        let wear = Some(WearBudget::gb_per_day(1));
        let mut commit = GroupCommit::new(CommitPolicy {
            wear,
            ..CommitPolicy::default()
        });
        run(&mut commit, 1, 50);
        assert_eq!(commit.wear(), Wear::Exceeded);
        assert!((240_000..=COMMIT_DELAY_US_MAX).contains(&commit.delay_us()));
        // A quiet night fills the bucket again.
        commit.on_committed(0, 40 * 3_600_000_000);
        assert_eq!(commit.wear(), Wear::Within);
    }

    /// A step of a load: entries of this many bytes, so many a second, for some seconds; and what
    /// else is written meanwhile.
    fn load() -> impl Strategy<Value = Vec<(usize, i64, i64, u64)>> {
        let step = (0usize..3_000, 1i64..3_000, 1i64..4_000, 0u64..200_000);
        proptest::collection::vec(step, 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// What is written stays within what the budget gives, and the hour that it begins with,
        /// unless the delay is as long as it may get: then it says that this is not enough.
        #[test]
        fn the_budget_holds_unless_it_says_so(
            gb in 1u32..40,
            base_us in 0i64..=COMMIT_DELAY_SD_CARD_US,
            steps in load(),
        ) {
            let budget = WearBudget::gb_per_day(gb);
            let mut commit = GroupCommit::new(CommitPolicy {
                max_delay_us: base_us,
                wear: Some(budget),
                ..CommitPolicy::default()
            });
            let hour = u128::from(budget.bytes_per_day / BUCKETS_PER_DAY);
            let (mut now, mut written, mut warned) = (0i64, 0u128, 0u128);
            for (bytes, per_s, seconds, elsewhere) in steps {
                let end = now + seconds * 1_000_000;
                while now < end {
                    commit.on_entry(bytes, 1, now);
                    let delay_us = commit.delay_us();
                    prop_assert!((base_us..=COMMIT_DELAY_US_MAX).contains(&delay_us));
                    // All that comes until then closes with it.
                    let at = commit.poll_timeout().unwrap().max(now);
                    let gathered = 1 + (at - now) * per_s / 1_000_000;
                    let frame = (bytes * gathered as usize).min(2 * FRAME_BYTES);
                    now = at;
                    commit.on_committed(frame, now);
                    commit.on_write(elsewhere, now);
                    let spent = u128::from(COMMIT_COST_BYTES + frame as u64 + elsewhere);
                    written += spent;
                    if commit.wear() == Wear::Exceeded {
                        // The last spending is what emptied the bucket.
                        warned += spent;
                        let least = COMMIT_DELAY_US_MAX - (COMMIT_DELAY_US_MAX - base_us) / 5;
                        prop_assert!(commit.delay_us() >= least, "{}", commit.delay_us());
                    }
                    now += 1_000_000 / per_s;
                }
                let earned = u128::from(budget.bytes_per_day) * now as u128 / DAY_US as u128;
                prop_assert!(written <= hour + earned + warned + 1, "{written} of {earned}");
            }
            // Two quiet hours, and all is as at the beginning.
            commit.on_write(0, now + 2 * 3_600_000_000);
            prop_assert_eq!(commit.wear(), Wear::Within);
            prop_assert_eq!(commit.delay_us(), base_us);
        }
    }

    #[test]
    fn a_jumping_clock_harms_nothing() {
        let wear = Some(WearBudget::gb_per_day(1));
        let mut commit = GroupCommit::new(CommitPolicy {
            wear,
            ..CommitPolicy::default()
        });
        for now in [0, i64::MAX, i64::MIN, -1, 0] {
            commit.on_entry(usize::MAX, u32::MAX, now);
            commit.on_entry(1, 1, now);
            commit.on_committed(usize::MAX, now);
            assert!(commit.delay_us() <= COMMIT_DELAY_US_MAX);
        }
    }
}
