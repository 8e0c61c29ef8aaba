//! A UDP relay between agent and aggregator: it loses, doubles, reorders and damages datagrams by
//! a seed, and cuts the link when it is told to. It understands nothing of what it carries.

use crate::limits::{DATAGRAM_BYTES_MAX, HELD_DATAGRAMS_MAX, RELAY_FLOWS_MAX};
use crate::rng::Rng;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// How many datagrams meet which fate: of a thousand where it says how bad a link is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Lost.
    pub lost: u64,
    /// Delivered twice.
    pub doubled: u64,
    /// Kept back until up to seven later ones are through.
    pub late: u64,
    /// Delivered with one bit changed.
    pub damaged: u64,
}

/// One direction of one flow. Told of each datagram, it says what leaves now.
#[derive(Debug)]
struct Direction {
    rng: Rng,
    weather: Weather,
    /// (datagrams that still go before it, it).
    held: Vec<(u64, Vec<u8>)>,
    shared: Arc<Shared>,
}

impl Direction {
    fn carry(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let Weather {
            lost,
            doubled,
            late,
            damaged,
        } = self.weather;
        let draw = self.rng.below(1_000);
        let mut out = match draw {
            draw if draw < lost => {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                vec![]
            }
            draw if draw < lost + doubled => {
                self.shared.doubled.fetch_add(1, Ordering::Relaxed);
                vec![datagram.to_vec(); 2]
            }
            draw if draw < lost + doubled + late && self.held.len() < HELD_DATAGRAMS_MAX => {
                self.shared.late.fetch_add(1, Ordering::Relaxed);
                self.held.push((self.rng.below(7) + 2, datagram.to_vec()));
                vec![]
            }
            draw if draw < lost + doubled + late + damaged => {
                self.shared.damaged.fetch_add(1, Ordering::Relaxed);
                let mut bytes = datagram.to_vec();
                let place = self.rng.below(bytes.len().max(1) as u64) as usize;
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << self.rng.below(8);
                }
                vec![bytes]
            }
            _ => vec![datagram.to_vec()],
        };
        for (before, _) in &mut self.held {
            *before -= 1;
        }
        let due = self.held.extract_if(.., |(before, _)| *before == 0);
        out.extend(due.map(|(_, bytes)| bytes));
        out
    }
}

/// A running relay. Dropping it ends it.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    running: Option<std::thread::JoinHandle<()>>,
}

/// What both sides look at.
#[derive(Debug, Default)]
struct Shared {
    cut: AtomicBool,
    mute: AtomicBool,
    sent_bytes: AtomicU64,
    // How many datagrams met each fate, either way.
    lost: AtomicU64,
    doubled: AtomicU64,
    late: AtomicU64,
    damaged: AtomicU64,
}

impl Relay {
    /// A relay in front of `target`, in a thread of its own.
    ///
    /// # Errors
    /// When the system gives no socket or no thread.
    pub fn start(target: SocketAddr, weather: Weather, seed: u64) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let shared = Arc::<Shared>::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let front = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        front.set_nonblocking(true)?;
        let address = front.local_addr()?;
        let front = {
            let _context = runtime.enter();
            Arc::new(UdpSocket::from_std(front)?)
        };
        let carrying = Carrying {
            front,
            target,
            weather,
            seed,
            directions: 0,
            shared: Arc::clone(&shared),
        };
        let stopped = stop.clone();
        let carry = move || {
            runtime.block_on(stopped.run_until_cancelled(carrying.run()));
        };
        let running = std::thread::Builder::new()
            .name("relay".into())
            .spawn(carry)?;
        Ok(Self {
            address,
            shared,
            stop,
            running: Some(running),
        })
    }

    /// From now on nothing gets through.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::Relaxed);
    }

    /// From now on nothing comes back: what agents send still arrives.
    pub fn mute(&self) {
        self.shared.mute.store(true, Ordering::Relaxed);
    }

    /// From now on the link is as it was.
    pub fn mend(&self) {
        self.shared.mute.store(false, Ordering::Relaxed);
        self.shared.cut.store(false, Ordering::Relaxed);
    }

    /// How many datagrams met each fate so far, in either direction.
    pub fn met(&self) -> Weather {
        let count = |fate: &AtomicU64| fate.load(Ordering::Relaxed);
        Weather {
            lost: count(&self.shared.lost),
            doubled: count(&self.shared.doubled),
            late: count(&self.shared.late),
            damaged: count(&self.shared.damaged),
        }
    }

    /// Bytes of payload that agents sent, cut link or not.
    pub fn sent_bytes(&self) -> u64 {
        self.shared.sent_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take()
            && running.join().is_err()
        {
            tracing::error!("the relay ended by a panic");
        }
    }
}

/// One agent's socket, and ours towards the target.
struct Flow {
    back: Arc<UdpSocket>,
    direction: Direction,
    answers: AbortHandle,
    /// When it was last used, in datagrams.
    used: u64,
}

struct Carrying {
    front: Arc<UdpSocket>,
    target: SocketAddr,
    weather: Weather,
    seed: u64,
    directions: u64,
    shared: Arc<Shared>,
}

impl Carrying {
    fn direction(&mut self) -> Direction {
        self.directions += 1;
        Direction {
            rng: Rng::new(self.seed, self.directions),
            weather: self.weather,
            held: vec![],
            shared: Arc::clone(&self.shared),
        }
    }

    /// Carries what comes from agents; each of their sockets has one of ours towards the target.
    async fn run(mut self) {
        let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
        let mut returning = JoinSet::new();
        let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
        for used in 0u64.. {
            let Ok((length, from)) = self.front.recv_from(&mut bytes).await else {
                continue;
            };
            let datagram = bytes.get(..length).unwrap_or_default();
            let shared = &self.shared;
            shared
                .sent_bytes
                .fetch_add(length as u64, Ordering::Relaxed);
            if shared.cut.load(Ordering::Relaxed) {
                continue;
            }
            if !flows.contains_key(&from) {
                let opened = match self.open(from, used, &mut returning).await {
                    Ok(opened) => opened,
                    Err(error) => {
                        tracing::warn!(%error, "no socket for one more flow: a datagram is lost");
                        continue;
                    }
                };
                make_room(&mut flows);
                flows.insert(from, opened);
                while returning.try_join_next().is_some() {}
            }
            let Some(flow) = flows.get_mut(&from) else {
                continue;
            };
            flow.used = used;
            for datagram in flow.direction.carry(datagram) {
                // Nobody may be there at the moment: it is lost then, as on any link.
                let _ = flow.back.send(&datagram).await;
            }
        }
    }

    async fn open(
        &mut self,
        from: SocketAddr,
        used: u64,
        returning: &mut JoinSet<()>,
    ) -> io::Result<Flow> {
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        back.connect(self.target).await?;
        let back = Arc::new(back);
        let answers = returning.spawn(self.answers(Arc::clone(&back), from));
        let direction = self.direction();
        Ok(Flow {
            back,
            direction,
            answers,
            used,
        })
    }

    /// Carries what comes back to one of the agent's sockets.
    fn answers(
        &mut self,
        back: Arc<UdpSocket>,
        to: SocketAddr,
    ) -> impl Future<Output = ()> + use<> {
        let mut direction = self.direction();
        let (front, shared) = (Arc::clone(&self.front), Arc::clone(&self.shared));
        async move {
            let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
            loop {
                let Ok(length) = back.recv(&mut bytes).await else {
                    continue;
                };
                let cut = shared.cut.load(Ordering::Relaxed);
                if cut || shared.mute.load(Ordering::Relaxed) {
                    continue;
                }
                for datagram in direction.carry(bytes.get(..length).unwrap_or_default()) {
                    let _ = front.send_to(&datagram, to).await;
                }
            }
        }
    }
}

/// One more flow has room: the one that was used least lately goes, when there are too many.
fn make_room(flows: &mut HashMap<SocketAddr, Flow>) {
    if flows.len() < RELAY_FLOWS_MAX {
        return;
    }
    let oldest = flows.iter().min_by_key(|(_, flow)| flow.used);
    if let Some(oldest) = oldest.map(|(from, _)| *from)
        && let Some(flow) = flows.remove(&oldest)
    {
        flow.answers.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_loses_doubles_reorders_and_damages_as_it_was_told() {
        let weather = Weather {
            lost: 100,
            doubled: 100,
            late: 100,
            damaged: 100,
        };
        let mut direction = Direction {
            rng: Rng::new(1, 0),
            weather,
            held: vec![],
            shared: Arc::default(),
        };
        // Each says its number twice, so that a damaged one is like no other.
        let sent: Vec<Vec<u8>> = (0..10_000u32).map(|n| n.to_be_bytes().repeat(2)).collect();
        let got: Vec<Vec<u8>> = sent
            .iter()
            .flat_map(|bytes| direction.carry(bytes))
            .collect();
        let copies = |bytes: &Vec<u8>| got.iter().filter(|other| *other == bytes).count();
        let missing = sent
            .iter()
            .take(1_000)
            .filter(|bytes| copies(bytes) == 0)
            .count();
        let doubled = sent
            .iter()
            .take(1_000)
            .filter(|bytes| copies(bytes) > 1)
            .count();
        let swapped = got.windows(2).filter(|pair| pair[0] > pair[1]).count();
        assert!((150..250).contains(&missing), "{missing} lost or damaged");
        assert!((60..140).contains(&doubled), "{doubled} doubled");
        assert!(swapped > 500, "{swapped} out of order");
    }
}
