//! How many TLS handshakes there may be at once. Beyond it the oldest ends, not the newest: who
//! takes long makes room for who comes, so that nobody is kept out by clients that say nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// The handshakes under way, by the connection's number: the oldest is the least.
#[derive(Debug)]
pub(in crate::source) struct Handshakes {
    under_way: Mutex<BTreeMap<u64, CancellationToken>>,
    most: usize,
}

/// A handshake's place.
#[derive(Debug)]
pub(in crate::source) struct Place {
    handshakes: Arc<Handshakes>,
    number: u64,
    given_up: CancellationToken,
}

impl Handshakes {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            under_way: Mutex::default(),
            most,
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        // Nothing panics while it holds the lock.
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A handshake begins.
    pub fn begin(self: &Arc<Self>, number: u64) -> Place {
        let given_up = CancellationToken::new();
        let mut under_way = self.lock();
        if under_way.len() >= self.most
            && let Some((_, oldest)) = under_way.pop_first()
        {
            oldest.cancel();
        }
        under_way.insert(number, given_up.clone());
        drop(under_way);
        Place {
            handshakes: Arc::clone(self),
            number,
            given_up,
        }
    }
}

impl Place {
    /// Waits until the place is needed for somebody else. Cancel safe.
    pub async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handshakes.lock().remove(&self.number);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_for_the_newest() {
        let handshakes = Handshakes::new(2);
        let places: Vec<Place> = (1..=3).map(|number| handshakes.begin(number)).collect();
        let given_up = |places: &[Place]| -> Vec<bool> {
            places.iter().map(|p| p.given_up.is_cancelled()).collect()
        };
        assert_eq!(given_up(&places), [true, false, false]);
        let mut places = places;
        drop(places.remove(1));
        places.push(handshakes.begin(4));
        assert_eq!(given_up(&places), [true, false, false], "2 was over");
        drop(places);
        assert!(handshakes.lock().is_empty());
    }
}
