//! What breaks, what becomes of a process whose power goes, and how all is mended.

use super::{Event, Machine, World};
use crate::aimed::Aim;
use crate::oracle::Invariant;
use crate::plan::{Fault, How, Node};
use tributary_journal::sim_disk::FileClass;
use tributary_protocol::message::{Ack, AckRange, Message};
use tributary_world::limits::IDLE_TIMEOUT_US;
use tributary_world::net::Side;

/// Microseconds that a supervisor waits until it starts again what did not start.
const RESTART_US: i64 = 1_000_000;
/// Microseconds of a turn of a keeper whose disk is slow, at most.
const SLOW_US: i64 = 300_000;

impl World<'_> {
    pub(super) fn fault(&mut self, place: usize) {
        let Some((_, fault)) = self.plan.faults.get(place).filter(|_| !self.healed) else {
            return;
        };
        let now = self.now();
        match *fault {
            Fault::Cut { agent } => self.cut(agent),
            Fault::HalfOpen { agent, knows } => self.half_open(agent, knows),
            Fault::Stall { agent, to, us } => self.net.stall(agent, to, (now, now + us)),
            Fault::Refuse { agent, us } => self.net.refuse(agent, now + us),
            Fault::Double { agent, batches } => self.net.double(agent, batches),
            Fault::Down {
                node,
                after,
                how,
                down_us,
            } => {
                if let Some(disk) = self.disk(node) {
                    disk.power_off(after);
                    self.falls.retain(|(of, ..)| *of != node);
                    self.falls.push((node, how, down_us));
                }
            }
            Fault::FailGaps { agent, times } => {
                if let Some(Machine::Whole(agent)) = self.machine(agent) {
                    agent.gaps.set(Aim::Fails(times));
                }
            }
            Fault::GapsDown {
                agent,
                write,
                how,
                down_us,
            } => {
                if let Some(Machine::Whole(whole)) = self.machine(agent) {
                    whole.gaps.set(Aim::Power(write));
                    self.falls.retain(|(of, ..)| *of != Node::Agent(agent));
                    self.falls.push((Node::Agent(agent), how, down_us));
                }
            }
            Fault::StorePower {
                changes,
                made,
                down_us,
            } => {
                let disk = self.site.disk.clone();
                self.site.store.power_off(changes, made, &disk);
                self.falls.retain(|(of, ..)| *of != Node::Site);
                let how = How::Power(tributary_journal::Survival::RandomHalf(changes));
                self.falls.push((Node::Site, how, down_us));
            }
            Fault::StoreRefuses { times } => self.site.store.refuse(times),
            Fault::StoreUnheard { times } => self.site.store.unhear(times),
            Fault::Slow { us } => {
                self.site.slow_us = SLOW_US;
                self.agenda.after(us, Event::Fast);
            }
            Fault::Clock { node, us } => self.clock(node, us),
            Fault::Rules { agent } => {
                if let Some(Machine::Whole(agent)) = self.machine(agent) {
                    agent.revision += 1;
                }
            }
            Fault::DoorCut { agent, device } => {
                let oracle_now = now;
                let Self { agents, oracle, .. } = self;
                let machine = agents.get_mut(agent).map(|it| &mut it.machine);
                if let Some(Machine::Whole(agent)) = machine
                    && let Some(device) = agent.devices.get_mut(device)
                {
                    oracle.stats.doors_cut += 1;
                    device.cut(oracle_now, oracle);
                }
            }
            Fault::FailSyncs { node, .. }
            | Fault::FailDirSyncs { node, .. }
            | Fault::FailWrites { node, .. }
            | Fault::Full { node, .. }
            | Fault::Flip { node, .. } => self.disk_fault(node, *fault),
        }
    }

    fn disk_fault(&mut self, node: Node, fault: Fault) {
        let random = self.dice("flip").bits();
        let Some(disk) = self.disk(node) else { return };
        match fault {
            Fault::FailSyncs { times, .. } => disk.fail_syncs(times),
            Fault::FailDirSyncs { times, .. } => disk.fail_dir_syncs(times),
            Fault::FailWrites { times, .. } => disk.fail_writes(times),
            Fault::Full { us, .. } => {
                disk.set_full(true);
                self.agenda.after(us, Event::Room(node));
            }
            Fault::Flip { class, .. } => self.flip(node, class, random),
            _ => {}
        }
    }

    fn flip(&mut self, node: Node, class: FileClass, random: u64) {
        let Self {
            agents,
            site,
            oracle,
            ..
        } = self;
        let (bits, disk) = match node {
            Node::Site => (&mut site.bits, &site.disk),
            Node::Agent(place) => match agents.get_mut(place).map(|it| &mut it.machine) {
                Some(Machine::Whole(agent)) => (&mut agent.bits, &agent.disk),
                _ => return,
            },
        };
        if let Some(hit) = bits.flip(disk, class, random) {
            oracle.flipped(node, &hit);
        }
    }

    fn machine(&mut self, agent: usize) -> Option<&mut Machine> {
        self.agents.get_mut(agent).map(|it| &mut it.machine)
    }

    fn clock(&mut self, node: Node, us: i64) {
        match node {
            Node::Site => self.site.clock_us = us,
            Node::Agent(place) => {
                if let Some(Machine::Whole(agent)) = self.machine(place) {
                    agent.clock_us = us;
                }
            }
        }
    }

    fn cut(&mut self, agent: usize) {
        let id = self.agents.get(agent).and_then(|it| it.connection);
        let Some(id) = id else { return };
        let wait = self.dice("cut").us(0, 100_000);
        self.agenda.after(wait, Event::Over(id, Side::Agent));
        self.agenda.after(wait / 2, Event::Over(id, Side::Site));
    }

    fn half_open(&mut self, agent: usize, knows: Side) {
        let id = self.agents.get(agent).and_then(|it| it.connection);
        let Some(id) = id else { return };
        let now = self.now();
        // The other hears nothing any more, and gives up after a while.
        self.agenda.at(now, Event::Over(id, knows));
        self.agenda
            .after(IDLE_TIMEOUT_US, Event::Over(id, knows.other()));
    }

    /// A machine gets power, or its process is started again.
    pub(super) fn start(&mut self, node: Node) {
        let now = self.now();
        let started = match node {
            Node::Site => {
                if self.site.is_up() {
                    return;
                }
                self.site.start(now, &mut self.oracle)
            }
            Node::Agent(place) => {
                let Self {
                    agents,
                    oracle,
                    plan,
                    ..
                } = self;
                let Some(sending) = agents.get_mut(place).filter(|it| !it.is_up()) else {
                    return;
                };
                sending.life += 1;
                (sending.connection, sending.saving, sending.ask_at) = (None, None, now);
                oracle.stats.agent_starts += 1;
                match &mut sending.machine {
                    Machine::Whole(agent) => agent.start(now, oracle),
                    Machine::Made(feeder) => {
                        feeder.start(plan.seed);
                        Ok(())
                    }
                }
            }
        };
        match (started, node) {
            (Ok(()), _) => {}
            (Err(error), node) => self.did_not_start(node, &error),
        }
    }

    fn did_not_start(&mut self, node: Node, error: &str) {
        self.oracle.stats.failed_starts += 1;
        let off = self.disk(node).is_some_and(|disk| disk.is_off());
        if self.healed && !off {
            let what = || format!("{node} does not start: {error}");
            self.oracle.violate(Invariant::I15, what);
        }
        if off {
            // The power went meanwhile.
            return self.fell(node);
        }
        self.agenda.after(RESTART_US, Event::Start(node));
    }

    /// Every process whose power has gone is buried.
    pub(super) fn bury(&mut self) {
        for node in self.nodes() {
            let off = self.disk(node).is_some_and(|disk| disk.is_off());
            let up = match node {
                Node::Site => self.site.is_up(),
                Node::Agent(place) => self.agents[place].is_up(),
            };
            if !off || !up {
                continue;
            }
            match node {
                Node::Site => self.bury_site(),
                Node::Agent(place) => self.bury_agent(place),
            }
            self.fell(node);
        }
    }

    /// The disk that the next process finds, and when it starts.
    fn fell(&mut self, node: Node) {
        let fall = self.falls.iter().position(|(of, ..)| *of == node);
        let fall = fall.map(|at| self.falls.remove(at));
        let (how, down_us) = fall.map_or((How::Kill, RESTART_US), |(_, how, us)| (how, us));
        let after = |disk: &tributary_journal::SimDisk| match how {
            How::Power(survival) => disk.crash(survival),
            How::Kill => disk.kill(),
        };
        match node {
            Node::Site => self.site.disk = after(&self.site.disk),
            Node::Agent(place) => {
                if let Some(Machine::Whole(agent)) = self.machine(place) {
                    agent.disk = after(&agent.disk);
                }
            }
        }
        let down_us = if self.healed { RESTART_US } else { down_us };
        self.agenda.after(down_us, Event::Start(node));
    }

    fn bury_agent(&mut self, place: usize) {
        let now = self.now();
        let id = self.agents[place].connection;
        let Self { agents, oracle, .. } = self;
        if let Machine::Whole(agent) = &mut agents[place].machine {
            agent.bury(now, oracle);
        }
        self.connections_die(id.into_iter().collect(), Node::Agent(place));
    }

    /// What it had answered as the power went may still leave.
    fn bury_site(&mut self) {
        let (escaped, connections) = self.site.bury();
        for escaped in escaped {
            let Some(agent) = self.net.agent_of(escaped.id) else {
                continue;
            };
            self.escaped(agent, escaped);
        }
        self.connections_die(connections, Node::Site);
    }

    fn escaped(&mut self, agent: usize, escaped: crate::site::Escaped) {
        let key = escaped.key;
        self.oracle.has_escaped(agent, &escaped);
        if self.dice("escape").one_in(2) {
            return;
        }
        let range = AckRange {
            key: key.lane_key(),
            first: key.number,
            end: key.number + 1,
        };
        let ack = Ack {
            ranges: vec![range],
            again: Vec::new(),
        };
        let bytes = super::encode(&Message::Ack(ack));
        let at = self.net.message(escaped.id, Side::Agent, self.now());
        self.agenda
            .at(at, Event::Hear(escaped.id, Side::Agent, bytes));
    }

    /// Nothing breaks from now on, and whoever is down gets up.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.net.heal();
        self.site.store.heal();
        self.site.slow_us = 2_000;
        self.site.clock_us = 0;
        for node in self.nodes() {
            if let Some(disk) = self.disk(node) {
                disk.heal();
                disk.set_full(false);
            }
            if let Node::Agent(place) = node {
                self.clock(node, 0);
                if let Some(Machine::Whole(agent)) = self.machine(place) {
                    agent.clock_us = 0;
                    agent.gaps.set(Aim::None);
                }
            }
            let off = self.disk(node).is_some_and(|disk| disk.is_off());
            if !off {
                self.agenda.after(1, Event::Start(node));
            }
        }
    }
}
