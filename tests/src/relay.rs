//! A UDP relay between agent and aggregator: it loses, doubles, reorders and damages datagrams by
//! a seed, and cuts the link when it is told to. It understands nothing of what it carries.

use crate::dice::Dice;
use crate::limits::{DATAGRAM_BYTES_MAX, HELD_DATAGRAMS_MAX};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How bad the link is: out of a thousand datagrams, how many meet which fate.
#[derive(Clone, Copy, Debug)]
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
    dice: Dice,
    weather: Weather,
    /// (datagrams that still go before it, it).
    held: Vec<(u64, Vec<u8>)>,
}

impl Direction {
    fn carry(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let Weather {
            lost,
            doubled,
            late,
            damaged,
        } = self.weather;
        let draw = self.dice.below(1_000);
        let mut out = match draw {
            draw if draw < lost => vec![],
            draw if draw < lost + doubled => vec![datagram.to_vec(); 2],
            draw if draw < lost + doubled + late && self.held.len() < HELD_DATAGRAMS_MAX => {
                self.held.push((self.dice.below(7) + 2, datagram.to_vec()));
                vec![]
            }
            draw if draw < lost + doubled + late + damaged => {
                let mut bytes = datagram.to_vec();
                let place = self.dice.below(bytes.len().max(1) as u64) as usize;
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << self.dice.below(8);
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
    cut: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
    stop: CancellationToken,
    running: Option<std::thread::JoinHandle<()>>,
}

impl Relay {
    /// A relay in front of `target`.
    pub fn start(target: SocketAddr, weather: Weather, seed: u64) -> Self {
        let stop = CancellationToken::new();
        let (cut, carried) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let front = Arc::new(runtime.block_on(front).unwrap());
        let address = front.local_addr().unwrap();
        let carrying = Carrying {
            front,
            target,
            weather,
            dice: Dice::new(seed),
            cut: Arc::clone(&cut),
            carried: Arc::clone(&carried),
        };
        let stopped = stop.clone();
        let running = std::thread::spawn(move || {
            runtime.block_on(stopped.run_until_cancelled(carrying.run()));
        });
        Self {
            address,
            cut,
            carried,
            stop,
            running: Some(running),
        }
    }

    /// From now on nothing gets through.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// From now on the link is as it was.
    pub fn mend(&self) {
        self.cut.store(false, Ordering::Relaxed);
    }

    /// Datagrams that came to it while the link was whole.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            // A relay that panicked has made its test fail by carrying nothing.
            let _ = running.join();
        }
    }
}

struct Carrying {
    front: Arc<UdpSocket>,
    target: SocketAddr,
    weather: Weather,
    dice: Dice,
    cut: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
}

impl Carrying {
    fn direction(&mut self) -> Direction {
        let mut dice = self.dice.clone();
        self.dice.bits();
        dice.shuffle(&mut [0; 8]);
        Direction {
            dice,
            weather: self.weather,
            held: vec![],
        }
    }

    /// Carries what comes from agents; each of their sockets has one of ours towards the target.
    async fn run(mut self) {
        let mut flows: HashMap<SocketAddr, (Arc<UdpSocket>, Direction)> = HashMap::new();
        let mut returning = JoinSet::new();
        let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let Ok((length, from)) = self.front.recv_from(&mut bytes).await else {
                continue;
            };
            if self.cut.load(Ordering::Relaxed) {
                continue;
            }
            self.carried.fetch_add(1, Ordering::Relaxed);
            let (back, direction) = match flows.entry(from) {
                Entry::Occupied(flow) => flow.into_mut(),
                Entry::Vacant(place) => {
                    let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                    back.connect(self.target).await.unwrap();
                    let back = Arc::new(back);
                    let direction = self.direction();
                    returning.spawn(self.answers(Arc::clone(&back), from));
                    place.insert((back, direction))
                }
            };
            for datagram in direction.carry(&bytes[..length]) {
                // Nobody may be there at the moment: it is lost then, as on any link.
                let _ = back.send(&datagram).await;
            }
        }
    }

    /// Carries what comes back to one of the agent's sockets.
    fn answers(
        &mut self,
        back: Arc<UdpSocket>,
        to: SocketAddr,
    ) -> impl Future<Output = ()> + use<> {
        let mut direction = self.direction();
        let (front, cut) = (Arc::clone(&self.front), Arc::clone(&self.cut));
        async move {
            let mut bytes = vec![0; DATAGRAM_BYTES_MAX];
            loop {
                let Ok(length) = back.recv(&mut bytes).await else {
                    continue;
                };
                if cut.load(Ordering::Relaxed) {
                    continue;
                }
                for datagram in direction.carry(&bytes[..length]) {
                    let _ = front.send_to(&datagram, to).await;
                }
            }
        }
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
            dice: Dice::new(1),
            weather,
            held: vec![],
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
