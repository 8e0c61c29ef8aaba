//! How often an address came with a wrong password. Told the time; verifies nothing.
//!
//! A try is charged before its outcome is known, and given back when it was good: as many as may
//! fail are under way at once.

use crate::limits::{FAILING_ADDRESSES_MAX, FAILURE_FORGIVEN, FAILURES_MAX};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

/// The tries of one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tries {
    charged: u32,
    /// Since when the next one is being forgiven.
    since: Instant,
}

impl Tries {
    fn forgive(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        let forgiven = passed.as_nanos() / FAILURE_FORGIVEN.as_nanos();
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        if forgiven >= self.charged {
            (self.charged, self.since) = (0, now);
        } else {
            self.charged -= forgiven;
            self.since += FAILURE_FORGIVEN * forgiven;
        }
    }
}

/// The tries of all addresses.
#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<IpAddr, Tries>);

/// Whoever has an IPv6 network has 2^64 addresses in it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let host = u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !host))
        }
        v4 => v4,
    }
}

impl Failures {
    /// Charges a try; whether there may be one.
    pub fn charge(&mut self, address: IpAddr, now: Instant) -> bool {
        let address = network(address);
        if !self.0.contains_key(&address) {
            self.make_room(now);
        }
        let fresh = Tries {
            charged: 0,
            since: now,
        };
        let tries = self.0.entry(address).or_insert(fresh);
        tries.forgive(now);
        let may = tries.charged < FAILURES_MAX;
        tries.charged += u32::from(may);
        may
    }

    /// The try was good.
    pub fn give_back(&mut self, address: IpAddr) {
        let address = network(address);
        if let Some(tries) = self.0.get_mut(&address) {
            tries.charged = tries.charged.saturating_sub(1);
            if tries.charged == 0 {
                self.0.remove(&address);
            }
        }
    }

    fn make_room(&mut self, now: Instant) {
        if self.0.len() < FAILING_ADDRESSES_MAX {
            return;
        }
        self.0.retain(|_, tries| {
            tries.forgive(now);
            tries.charged > 0
        });
        if self.0.len() < FAILING_ADDRESSES_MAX {
            return;
        }
        // Whoever failed least loses least by being forgotten.
        let least = self.0.iter().min_by_key(|(_, tries)| tries.charged);
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

    #[test]
    fn an_address_may_fail_so_often_and_then_once_in_a_while() {
        let start = Instant::now();
        let mut failures = Failures::default();
        for _ in 0..FAILURES_MAX {
            assert!(failures.charge(HERE, start));
        }
        assert!(!failures.charge(HERE, start));
        let other = "192.0.2.2".parse().unwrap();
        assert!(failures.charge(other, start), "another one may");
        let later = start + FAILURE_FORGIVEN;
        assert!(failures.charge(HERE, later) && !failures.charge(HERE, later));
        let rested = later + FAILURE_FORGIVEN * FAILURES_MAX;
        for _ in 0..FAILURES_MAX {
            assert!(failures.charge(HERE, rested));
        }
        assert!(!failures.charge(HERE, rested));
    }

    #[test]
    fn what_was_good_is_given_back() {
        let start = Instant::now();
        let mut failures = Failures::default();
        for _ in 0..10 * FAILURES_MAX {
            assert!(failures.charge(HERE, start));
            failures.give_back(HERE);
        }
        assert!(failures.0.is_empty(), "and nothing is remembered of it");
    }

    #[test]
    fn an_ipv6_network_and_a_mapped_address_are_one() {
        let start = Instant::now();
        let mut failures = Failures::default();
        for host in 0..FAILURES_MAX {
            let address = format!("2001:db8::{host:x}").parse().unwrap();
            assert!(failures.charge(address, start));
        }
        assert!(!failures.charge("2001:db8::ffff".parse().unwrap(), start));
        assert!(failures.charge("2001:db8:0:1::1".parse().unwrap(), start));
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
        assert!(
            !failures.charge(HERE, start),
            "the worst one is not forgotten"
        );
    }
}
