//! Links shaped like the QUIC they stand for: of each connection one ordered control stream each
//! way, batches on streams of their own in any order, nothing lost or doubled while both ends live,
//! unless a fault says so. It says when something arrives; it carries nothing itself.

use crate::dice::Dice;
use std::collections::BTreeMap;

/// One connection among all that ever were.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// An end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// The one that dials.
    Agent,
    /// The one that is dialled.
    Site,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Agent => Self::Site,
            Self::Site => Self::Agent,
        }
    }
}

#[derive(Debug)]
struct Connection {
    agent: usize,
    site: usize,
    /// Whether each end still believes in it.
    agent_open: bool,
    site_open: bool,
    /// When the last message arrives that was sent each way.
    up: i64,
    down: i64,
    /// One way, without waiting anywhere.
    delay_us: i64,
    /// When everything that was sent is on its way.
    busy_until: i64,
}

/// A time during which nothing arrives at one side of an agent's link.
#[derive(Clone, Copy, Debug)]
struct Stall {
    agent: usize,
    to: Side,
    from: i64,
    until: i64,
}

/// Every link of a run.
#[derive(Debug)]
pub struct Net {
    seed: u64,
    /// Bytes a second of each link.
    rate: u64,
    connections: BTreeMap<ConnectionId, Connection>,
    dialled: u64,
    packets: BTreeMap<usize, u64>,
    stalls: Vec<Stall>,
    /// Until when each agent's dials fail, and until when those to one aggregator do.
    refused: BTreeMap<usize, i64>,
    parted: BTreeMap<(usize, usize), i64>,
    /// Batches of each agent that are still to be doubled, or damaged on their way.
    doubled: BTreeMap<usize, u32>,
    damaged: BTreeMap<usize, u32>,
}

/// How a batch arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// When.
    pub at: i64,
    /// When once more, on a link that is no QUIC.
    pub again: Option<i64>,
    /// Whether it was damaged on its way.
    pub damaged: bool,
}

fn take(left: &mut BTreeMap<usize, u32>, agent: usize) -> bool {
    let left = left.entry(agent).or_default();
    let there = *left > 0;
    *left = left.saturating_sub(1);
    there
}

impl Net {
    /// Links without a connection.
    pub fn new(seed: u64, rate: u64) -> Self {
        Self {
            seed,
            rate,
            connections: BTreeMap::new(),
            dialled: 0,
            packets: BTreeMap::new(),
            stalls: Vec::new(),
            refused: BTreeMap::new(),
            parted: BTreeMap::new(),
            doubled: BTreeMap::new(),
            damaged: BTreeMap::new(),
        }
    }

    /// An agent dials an aggregator: the connection, and how long it takes until it stands. `None`:
    /// it fails.
    pub fn dial(&mut self, agent: usize, site: usize, now: i64) -> Option<(ConnectionId, i64)> {
        self.dialled += 1;
        let refused = self.refused.get(&agent).into_iter();
        let mut refused = refused.chain(self.parted.get(&(agent, site)));
        if refused.any(|until| now < *until) {
            return None;
        }
        let mut dice = Dice::of(self.seed, "dial", agent as u64, self.dialled);
        // From the next rack to a satellite.
        let delay_us = match dice.below(4) {
            0 => dice.us(100, 1_000),
            1 | 2 => dice.us(1_000, 40_000),
            _ => dice.us(40_000, 350_000),
        };
        let id = ConnectionId(self.dialled);
        let connection = Connection {
            agent,
            site,
            agent_open: true,
            site_open: true,
            up: now,
            down: now,
            delay_us,
            busy_until: now,
        };
        self.connections.insert(id, connection);
        Some((id, 3 * delay_us))
    }

    /// Whose connection it is.
    pub fn agent_of(&self, id: ConnectionId) -> Option<usize> {
        self.connections.get(&id).map(|connection| connection.agent)
    }

    /// Where it was dialled to.
    pub fn site_of(&self, id: ConnectionId) -> Option<usize> {
        self.connections.get(&id).map(|connection| connection.site)
    }

    /// Whether that end still believes in the connection: what arrives there is taken.
    pub fn is_open(&self, id: ConnectionId, side: Side) -> bool {
        let connection = self.connections.get(&id);
        connection.is_some_and(|connection| match side {
            Side::Agent => connection.agent_open,
            Side::Site => connection.site_open,
        })
    }

    /// That end is over. Whether it was not before.
    pub fn close(&mut self, id: ConnectionId, side: Side) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        let end = match side {
            Side::Agent => &mut connection.agent_open,
            Side::Site => &mut connection.site_open,
        };
        let was = std::mem::take(end);
        if !connection.agent_open && !connection.site_open {
            self.connections.remove(&id);
        }
        was
    }

    /// The connections of which this end is open, with their agents.
    pub fn open_at(&self, side: Side) -> Vec<(ConnectionId, usize)> {
        let open = self.connections.iter().filter(|(_, it)| match side {
            Side::Agent => it.agent_open,
            Side::Site => it.site_open,
        });
        open.map(|(id, it)| (*id, it.agent)).collect()
    }

    /// How long something takes on this connection, this time.
    fn delay(&mut self, id: ConnectionId) -> (usize, i64) {
        let Some(connection) = self.connections.get(&id) else {
            return (usize::MAX, 0);
        };
        let (agent, delay_us) = (connection.agent, connection.delay_us);
        let packet = self.packets.entry(agent).or_default();
        *packet += 1;
        let mut dice = Dice::of(self.seed, "packet", agent as u64, *packet);
        let mut us = delay_us + dice.us(0, 1 + delay_us / 2);
        // Sent again by the transport, once or more often.
        if dice.one_in(16) {
            us += dice.us(delay_us, 12 * delay_us + 20_000);
        }
        if dice.one_in(400) {
            us += dice.us(0, 8_000_000);
        }
        (agent, us)
    }

    fn stalled(&self, agent: usize, to: Side, at: i64) -> i64 {
        let stalls = self.stalls.iter().filter(|stall| {
            stall.agent == agent && stall.to == to && (stall.from..stall.until).contains(&at)
        });
        stalls.map(|stall| stall.until).fold(at, i64::max)
    }

    /// When a message arrives that is said now on the control stream to that side: behind the one
    /// before.
    pub fn message(&mut self, id: ConnectionId, to: Side, now: i64) -> i64 {
        let (agent, us) = self.delay(id);
        let at = self.stalled(agent, to, now + us);
        let Some(connection) = self.connections.get_mut(&id) else {
            return at;
        };
        let last = match to {
            Side::Agent => &mut connection.down,
            Side::Site => &mut connection.up,
        };
        *last = at.max(*last);
        *last
    }

    /// How long it takes until these bytes are on their way, behind those before them.
    fn queued(&mut self, id: ConnectionId, bytes: u64, now: i64) -> i64 {
        let us = (bytes * 1_000_000 / self.rate.max(1)) as i64;
        let Some(connection) = self.connections.get_mut(&id) else {
            return us;
        };
        connection.busy_until = connection.busy_until.max(now) + us;
        connection.busy_until - now
    }

    /// How a batch arrives that is sent now on a stream of its own.
    pub fn batch(&mut self, id: ConnectionId, bytes: u64, now: i64) -> Arrival {
        let (agent, us) = self.delay(id);
        let us = us + self.queued(id, bytes, now);
        let again = take(&mut self.doubled, agent).then(|| self.delay(id).1);
        let damaged = take(&mut self.damaged, agent);
        let arrives = |us| self.stalled(agent, Side::Site, now + us);
        Arrival {
            at: arrives(us),
            again: again.map(arrives),
            damaged,
        }
    }

    /// Nothing arrives at that side of the agent's link until then; then all at once.
    pub fn stall(&mut self, agent: usize, to: Side, (from, until): (i64, i64)) {
        self.stalls.push(Stall {
            agent,
            to,
            from,
            until,
        });
    }

    /// The agent's dials fail until then.
    pub fn refuse(&mut self, agent: usize, until: i64) {
        self.refused.insert(agent, until);
    }

    /// The agent's dials to this aggregator fail until then.
    pub fn part(&mut self, agent: usize, site: usize, until: i64) {
        self.parted.insert((agent, site), until);
    }

    /// The agent's next batches arrive twice.
    pub fn double(&mut self, agent: usize, batches: u32) {
        self.doubled.insert(agent, batches);
    }

    /// The agent's next batch is damaged on its way.
    pub fn damage(&mut self, agent: usize) {
        self.damaged.insert(agent, 1);
    }

    /// Everything is mended: what is under way arrives, and nothing breaks from now on.
    pub fn heal(&mut self) {
        self.stalls.clear();
        self.refused.clear();
        self.parted.clear();
        self.doubled.clear();
        self.damaged.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_order_and_batches_do_not() {
        let mut net = Net::new(5, 1_000_000_000);
        let (id, _) = net.dial(0, 0, 0).unwrap();
        let said: Vec<i64> = (0..500)
            .map(|now| net.message(id, Side::Site, now))
            .collect();
        assert!(said.is_sorted());
        let sent: Vec<i64> = (0..500).map(|now| net.batch(id, 1, now).at).collect();
        assert!(!sent.is_sorted());
    }

    #[test]
    fn a_stall_holds_back_and_then_lets_all_come_at_once() {
        let mut net = Net::new(5, 1_000_000_000);
        let (id, _) = net.dial(0, 0, 0).unwrap();
        net.stall(0, Side::Site, (0, 90_000_000));
        assert!((0..10).all(|now| net.batch(id, 1, now).at == 90_000_000));
        assert!(
            net.message(id, Side::Agent, 0) < 20_000_000,
            "the other way goes on"
        );
        net.heal();
        assert!(net.batch(id, 1, 0).at < 20_000_000);
    }

    #[test]
    fn batches_wait_for_those_before_them() {
        let mut net = Net::new(5, 1_000);
        let (id, _) = net.dial(0, 0, 0).unwrap();
        for n in 1..100 {
            assert!(net.batch(id, 1_000, 0).at >= n * 1_000_000);
        }
    }

    #[test]
    fn each_end_learns_of_the_end_by_itself() {
        let mut net = Net::new(5, 1_000_000_000);
        let (id, _) = net.dial(2, 0, 0).unwrap();
        assert!(net.close(id, Side::Agent) && !net.close(id, Side::Agent));
        assert!(net.is_open(id, Side::Site) && !net.is_open(id, Side::Agent));
        assert_eq!(net.open_at(Side::Site), [(id, 2)]);
        net.close(id, Side::Site);
        assert_eq!(net.agent_of(id), None);
    }

    #[test]
    fn faults_of_a_link_are_counted_and_over() {
        let mut net = Net::new(5, 1_000_000_000);
        net.refuse(0, 10);
        assert!(net.dial(0, 0, 9).is_none() && net.dial(1, 0, 9).is_some());
        net.part(0, 1, 20);
        assert!(net.dial(0, 1, 19).is_none() && net.dial(1, 1, 19).is_some());
        let (id, _) = net.dial(0, 0, 10).unwrap();
        assert_eq!(net.site_of(id), Some(0));
        net.double(0, 1);
        net.damage(0);
        let first = net.batch(id, 1, 0);
        assert!(first.again.is_some() && first.damaged);
        let second = net.batch(id, 1, 0);
        assert!(second.again.is_none() && !second.damaged);
    }
}
