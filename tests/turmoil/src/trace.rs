//! What was sent when, from where to where, and how long it was. Not what was in it: keys of TLS
//! come from the system.

use crate::limits::TRACE_MAX;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A datagram that left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    at: Duration,
    from: SocketAddr,
    to: SocketAddr,
    bytes: usize,
}

impl fmt::Display for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            from,
            to,
            bytes,
        } = self;
        write!(f, "{} {from} {to} {bytes}", at.as_nanos())
    }
}

/// All datagrams of a run, in the order in which they left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagrams(pub Vec<Datagram>);

impl Datagrams {
    /// The run in 64 digits, to be compared with that of another process.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for datagram in &self.0 {
            hasher.update(format!("{datagram}\n").as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Where this run is another than that one, if it is.
    pub fn differs(&self, other: &Self) -> Option<String> {
        let same = |(ours, theirs): &(&Datagram, &Datagram)| ours == theirs;
        let at = self.0.iter().zip(&other.0).take_while(same).count();
        let (ours, theirs) = (self.0.get(at), other.0.get(at));
        (ours != theirs).then(|| format!("datagram {at}: {ours:?} and {theirs:?}"))
    }
}

/// Writes down what is sent.
#[derive(Debug, Default)]
pub struct Trace(Mutex<Vec<Datagram>>);

impl Trace {
    /// A datagram leaves.
    pub fn sent(&self, from: SocketAddr, to: SocketAddr, bytes: usize) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < TRACE_MAX {
            all.push(Datagram {
                at,
                from,
                to,
                bytes,
            });
        }
    }

    /// Whether as many left as may.
    pub fn is_full(&self) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.len() >= TRACE_MAX
    }

    /// All that left.
    pub fn datagrams(&self) -> Datagrams {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Datagrams(all.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_more_or_longer_or_elsewhere_is_another_run_and_so_many_are_a_storm() {
        let trace = Trace::default();
        let [a, b]: [SocketAddr; 2] = [([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 2).into()];
        trace.sent(a, b, 100);
        let one = trace.datagrams();
        for (from, to, bytes) in [(a, b, 101), (b, a, 100)] {
            let other = Trace::default();
            other.sent(from, to, bytes);
            assert!(other.datagrams().differs(&one).is_some());
            assert_ne!(other.datagrams().hash(), one.hash());
        }
        assert_eq!(one.differs(&trace.datagrams()), None);
        trace.sent(a, b, 100);
        assert!(one.differs(&trace.datagrams()).is_some());
        assert!(!trace.is_full());
        (2..TRACE_MAX).for_each(|_| trace.sent(a, b, 100));
        assert!(trace.is_full());
    }
}
