//! How often an address came with a wrong password. Told the time; verifies nothing, and knows
//! nothing of what is still being verified: whoever has a right one is charged nothing, however
//! many come at once.

use crate::limits::{FAILING_ADDRESSES_MAX, FAILURE_FORGIVEN, FAILURES_MAX};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

/// The failures of one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Failed {
    charged: u32,
    /// Since when the next one is being forgiven.
    since: Instant,
    /// Whether it was blocked, and is not forgiven everything since.
    blocked: bool,
}

/// What a failure does to its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Charged {
    /// It may try again.
    Counted,
    /// It may not, from now on.
    Blocked,
    /// It was blocked before, and goes on.
    StillBlocked,
}

impl Failed {
    fn forgive(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        let forgiven = passed.as_nanos() / FAILURE_FORGIVEN.as_nanos();
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        if forgiven >= self.charged {
            (self.charged, self.since, self.blocked) = (0, now, false);
        } else {
            self.charged -= forgiven;
            self.since += FAILURE_FORGIVEN * forgiven;
        }
    }
}

/// The failures of all addresses.
#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<IpAddr, Failed>);

/// Whoever has an IPv6 network has 2^64 addresses in it.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let host = u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !host))
        }
        v4 => v4,
    }
}

impl Failures {
    /// Whether an address may try once more.
    pub fn may(&mut self, address: IpAddr, now: Instant) -> bool {
        let failed = self.0.get_mut(&network(address));
        failed.is_none_or(|failed| {
            failed.forgive(now);
            failed.charged < FAILURES_MAX
        })
    }

    /// Charges a failure.
    pub fn charge(&mut self, address: IpAddr, now: Instant) -> Charged {
        let address = network(address);
        if !self.0.contains_key(&address) {
            self.make_room(now);
        }
        let fresh = Failed {
            charged: 0,
            since: now,
            blocked: false,
        };
        let failed = self.0.entry(address).or_insert(fresh);
        failed.forgive(now);
        failed.charged = (failed.charged + 1).min(FAILURES_MAX);
        let before = failed.blocked;
        failed.blocked |= failed.charged == FAILURES_MAX;
        match (before, failed.blocked) {
            (true, _) => Charged::StillBlocked,
            (false, true) => Charged::Blocked,
            (false, false) => Charged::Counted,
        }
    }

    fn make_room(&mut self, now: Instant) {
        if self.0.len() < FAILING_ADDRESSES_MAX {
            return;
        }
        self.0.retain(|_, failed| {
            failed.forgive(now);
            failed.charged > 0
        });
        if self.0.len() < FAILING_ADDRESSES_MAX {
            return;
        }
        // Whoever failed least loses least by being forgotten.
        let least = self.0.iter().min_by_key(|(_, failed)| failed.charged);
        if let Some(least) = least.map(|(address, _)| *address) {
            self.0.remove(&least);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    impl Failures {
        /// Fails, if it may try.
        fn fail(&mut self, address: IpAddr, now: Instant) -> bool {
            let may = self.may(address, now);
            if may {
                self.charge(address, now);
            }
            may
        }
    }

    #[test]
    fn an_address_may_fail_so_often_and_then_once_in_a_while() {
        let start = Instant::now();
        let mut failures = Failures::default();
        for _ in 0..FAILURES_MAX {
            assert!(failures.fail(HERE, start));
        }
        assert!(!failures.fail(HERE, start));
        let other = "192.0.2.2".parse().unwrap();
        assert!(failures.fail(other, start), "another one may");
        let later = start + FAILURE_FORGIVEN;
        assert!(failures.fail(HERE, later) && !failures.fail(HERE, later));
        let rested = later + FAILURE_FORGIVEN * FAILURES_MAX;
        for _ in 0..FAILURES_MAX {
            assert!(failures.fail(HERE, rested));
        }
        assert!(!failures.fail(HERE, rested));
        // Those that were under way when it was one too many cost no more than that.
        failures.charge(HERE, rested);
        assert!(failures.fail(HERE, rested + FAILURE_FORGIVEN));
    }

    #[test]
    fn it_is_told_once_that_an_address_is_blocked() {
        let start = Instant::now();
        let mut failures = Failures::default();
        for _ in 1..FAILURES_MAX {
            assert_eq!(failures.charge(HERE, start), Charged::Counted);
        }
        assert_eq!(failures.charge(HERE, start), Charged::Blocked);
        // It goes on guessing, as often as it may.
        for n in 1..100 {
            let now = start + FAILURE_FORGIVEN * n;
            assert_eq!(failures.charge(HERE, now), Charged::StillBlocked);
        }
        let rested = start + FAILURE_FORGIVEN * (100 + FAILURES_MAX);
        assert_eq!(failures.charge(HERE, rested), Charged::Counted);
    }

    #[test]
    fn who_does_not_fail_is_not_remembered() {
        let start = Instant::now();
        let mut failures = Failures::default();
        for _ in 0..10 * FAILURES_MAX {
            assert!(failures.may(HERE, start));
        }
        assert!(failures.0.is_empty());
    }

    #[test]
    fn an_ipv6_network_and_a_mapped_address_are_one() {
        let start = Instant::now();
        let mut failures = Failures::default();
        for host in 0..FAILURES_MAX {
            let address = format!("2001:db8::{host:x}").parse().unwrap();
            assert!(failures.fail(address, start));
        }
        assert!(!failures.may("2001:db8::ffff".parse().unwrap(), start));
        assert!(failures.may("2001:db8:0:1::1".parse().unwrap(), start));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), HERE);
    }

    #[test]
    fn no_more_addresses_are_remembered_than_may_be() {
        let start = Instant::now();
        let mut failures = Failures::default();
        for _ in 0..FAILURES_MAX {
            failures.charge(HERE, start);
        }
        for n in 0..2 * FAILING_ADDRESSES_MAX as u32 {
            failures.charge(IpAddr::V4(std::net::Ipv4Addr::from_bits(n)), start);
        }
        assert_eq!(failures.0.len(), FAILING_ADDRESSES_MAX);
        assert!(!failures.may(HERE, start), "the worst one is not forgotten");
    }
}
