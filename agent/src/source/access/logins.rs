//! How many logins are under way: of one address, so that none takes all places, and of all.
//! Counts; verifies nothing.

use super::failures::network;
use crate::limits::{LOGINS_MAX, LOGINS_OF_ADDRESS_MAX};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The logins under way.
#[derive(Debug, Default)]
pub(super) struct Logins(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A login under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Login<'a> {
    logins: &'a Logins,
    address: IpAddr,
}

impl Logins {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A login begins; or why it may not, as a short stable word.
    pub fn begin(&self, address: IpAddr) -> Result<Login<'_>, &'static str> {
        let address = network(address);
        let mut counts = self.lock();
        if counts.all >= LOGINS_MAX {
            return Err("busy");
        }
        let of_address = counts.by_address.entry(address).or_default();
        if *of_address >= LOGINS_OF_ADDRESS_MAX {
            return Err("busy_address");
        }
        *of_address += 1;
        counts.all += 1;
        Ok(Login {
            logins: self,
            address,
        })
    }
}

impl Drop for Login<'_> {
    fn drop(&mut self) {
        let mut counts = self.logins.lock();
        counts.all -= 1;
        if let Some(of_address) = counts.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn one_address_leaves_places_to_others_and_all_have_a_bound() {
        let logins = Logins::default();
        let v6 = |host: u128| IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | host));
        let mut under_way: Vec<_> = (0..LOGINS_OF_ADDRESS_MAX as u128)
            .map(|host| logins.begin(v6(host)).unwrap())
            .collect();
        assert_eq!(
            logins.begin(v6(u128::from(u64::MAX))).err(),
            Some("busy_address")
        );
        for n in LOGINS_OF_ADDRESS_MAX..LOGINS_MAX {
            let address = IpAddr::V4(Ipv4Addr::from_bits(n as u32));
            under_way.push(logins.begin(address).unwrap());
        }
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(logins.begin(here).err(), Some("busy"));
        under_way.pop();
        under_way.push(logins.begin(here).unwrap());
        drop(under_way);
        let counts = logins.lock();
        assert_eq!((counts.all, counts.by_address.len()), (0, 0));
    }
}
