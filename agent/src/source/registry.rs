//! Who is connected: to end the older of two connections with one client identifier, and all of
//! them at the end. Holds no socket.

use super::access::Identity;
use super::connection::Order;
use super::hub::Wake;
use crate::wal::Durable;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What others tell a connection's task.
#[derive(Debug, Default)]
pub(super) struct Signal {
    number: u64,
    durable: AtomicU64,
    order: AtomicU8,
    notify: Notify,
    /// Who its client was found to be.
    identity: OnceLock<Box<Identity>>,
    silent: CancellationToken,
    /// The connection that this one took over, until it was waited for.
    older: Mutex<Option<Arc<Signal>>>,
}

impl Signal {
    /// How far the connection's messages are durable.
    pub(super) fn durable_upto(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Gives an order; of several that were not yet taken, the strongest holds.
    fn order(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.notify.notify_one();
    }

    /// The order that was given, until it is taken.
    pub(super) fn take_order(&self) -> Option<Order> {
        let code = self.order.swap(0, Ordering::AcqRel);
        Order::ALL.into_iter().find(|order| *order as u8 == code)
    }

    /// Its client was found to be somebody.
    pub(super) fn identify(&self, identity: Identity) {
        // A client is identified once.
        let _ = self.identity.set(Box::new(identity));
    }

    /// Who its client was found to be.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.get().map(Box::as_ref)
    }

    /// Whether an order was given that is not taken.
    #[cfg(any(test, feature = "world"))]
    pub(super) fn has_order(&self) -> bool {
        self.order.load(Ordering::Acquire) != 0
    }

    /// Whether the connections that this one took over, and they in turn, are over.
    #[cfg(any(test, feature = "world"))]
    pub(super) fn is_older_silent(&self) -> bool {
        let mut next = self.older();
        while let Some(older) = next {
            if !older.silent.is_cancelled() {
                return false;
            }
            next = older.older();
        }
        true
    }

    /// The connection is over: it appends nothing more to the log.
    pub(super) fn silence(&self) {
        self.silent.cancel();
    }

    /// Waits until the connections that this one took over, and they in turn, are over. Cancel
    /// safe: whoever takes this one over waits for them, too.
    pub(super) async fn older_silent(&self) {
        let mut next = self.older();
        while let Some(older) = next {
            older.silent.cancelled().await;
            next = older.older();
        }
        self.take_over(None);
    }

    /// The newest of this connection and those that it took over that is not over yet: what is over
    /// is not waited for, and not held.
    fn first_speaking(self: &Arc<Self>) -> Option<Arc<Self>> {
        let mut next = Some(Arc::clone(self));
        while let Some(connection) = next.take_if(|signal| signal.silent.is_cancelled()) {
            next = connection.older();
            connection.take_over(None);
        }
        next
    }

    fn older(&self) -> Option<Arc<Self>> {
        let older = self.older.lock();
        older.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_over(&self, connection: Option<Arc<Self>>) {
        let older = self.older.lock();
        *older.unwrap_or_else(PoisonError::into_inner) = connection;
    }

    /// Waits until something is told. Cancel safe: what was told stays.
    pub(super) async fn told(&self) {
        self.notify.notified().await;
    }
}

impl Wake for Signal {
    fn wake(&self) {
        self.notify.notify_one();
    }
}

impl Durable for Signal {
    fn durable(&self, upto: u64) {
        self.durable.fetch_max(upto, Ordering::AcqRel);
        self.notify.notify_one();
    }
}

/// Everybody who is connected.
#[derive(Debug, Default)]
pub(super) struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    connections: HashMap<u64, Arc<Signal>>,
    clients: HashMap<Box<str>, u64>,
    shut_down: Option<Order>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was accepted; `None` when there are `most` already.
    pub(super) fn enter(&self, number: u64, most: usize) -> Option<Arc<Signal>> {
        let mut inner = self.lock();
        if inner.connections.len() >= most {
            return None;
        }
        let signal = Arc::new(Signal {
            number,
            ..Signal::default()
        });
        if let Some(order) = inner.shut_down {
            signal.order(order);
        }
        inner.connections.insert(number, Arc::clone(&signal));
        Some(signal)
    }

    /// Its client said who it is; an older connection of the same client is told to end, and
    /// [waited for](Signal::older_silent). Whether there was one.
    pub(super) fn name(&self, number: u64, client: &str) -> bool {
        let mut inner = self.lock();
        let older = inner
            .clients
            .insert(client.into(), number)
            .filter(|older| *older != number);
        let older = older.and_then(|older| inner.connections.get(&older));
        let (Some(older), Some(newer)) = (older, inner.connections.get(&number)) else {
            return false;
        };
        older.order(Order::TakenOver);
        newer.take_over(older.first_speaking());
        true
    }

    /// A connection has ended.
    pub(super) fn leave(&self, number: u64, client: Option<&str>) {
        let mut inner = self.lock();
        let gone = inner.connections.remove(&number);
        if let Some(client) = client
            && inner.clients.get(client) == Some(&number)
        {
            // Whoever comes next waits for what this one had to wait for.
            let older = gone.and_then(|signal| signal.older()?.first_speaking());
            match older {
                Some(older) => inner.clients.insert(client.into(), older.number),
                None => inner.clients.remove(client),
            };
        }
    }

    /// Ends the connections of those who were identified and are not let stay; how many.
    pub(super) fn revoke(&self, may_stay: impl Fn(&Identity) -> bool) -> usize {
        let signals: Vec<_> = self.lock().connections.values().cloned().collect();
        let gone = signals.iter().filter(|signal| {
            let identity = signal.identity();
            identity.is_some_and(|identity| !may_stay(identity))
        });
        gone.map(|signal| signal.order(Order::Revoked)).count()
    }

    /// Everybody shall end, and whoever still comes.
    pub(super) fn order_all(&self, order: Order) {
        let mut inner = self.lock();
        inner.shut_down = Some(order);
        inner
            .connections
            .values()
            .for_each(|signal| signal.order(order));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A client that comes again and again while its first connection can't end: what is over is
    /// not held, and the first is still waited for.
    #[test]
    fn a_chain_of_connections_holds_only_who_is_not_over() {
        let registry = Registry::default();
        let first = registry.enter(0, 100_000).unwrap();
        registry.name(0, "me");
        for number in 1..100_000 {
            let signal = registry.enter(number, 100_000).unwrap();
            assert!(registry.name(number, "me"));
            assert!(Arc::ptr_eq(&signal.older().unwrap(), &first), "{number}");
            signal.silence();
            registry.leave(number, Some("me"));
        }
        first.silence();
        let newest = registry.enter(100_000, 100_000).unwrap();
        registry.name(100_000, "me");
        assert!(newest.older().is_none());
    }
}
