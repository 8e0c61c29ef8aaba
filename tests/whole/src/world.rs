//! The world: machines, links between them, what breaks, and time. Every order of turns that the
//! dice give is one in which real threads might have run.

mod breaks;
mod links;

use crate::agent::Agent;
use crate::bits;
use crate::device::Device;
use crate::feeder::Feeder;
use crate::limits::{DRAIN_US_MAX, EVENTS_MAX};
use crate::oracle::{Causes, Invariant, Oracle, Stats, Violation};
use crate::plan::{Fault, How, Node, Plan};
use crate::site::{Part, Site};
use bytes::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tributary_agent::pipeline::PipelineError;
use tributary_agent::seal::StageError;
use tributary_agent::spool::Policy;
use tributary_journal::SimDisk;
use tributary_protocol::message::Message;
use tributary_uplink::link::{Do, Uplink};
use tributary_uplink::{Save, Spool};
use tributary_world::clock::Agenda;
use tributary_world::dice::Dice;
use tributary_world::net::{ConnectionId, Net, Side};
use tributary_world::trace::{Trace, TraceHash};

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The first thing that must not be, if something was.
    pub violation: Option<Violation>,
    /// Everything that happened.
    pub trace: TraceHash,
    /// How often what happened.
    pub stats: Stats,
    /// The last lines, if somebody asked for them.
    pub lines: Vec<String>,
}

/// Runs a plan. `watched`: the last lines of what happened are wanted.
pub fn run(plan: &Plan, watched: bool) -> Outcome {
    let mut world = World::new(plan, watched);
    let done = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = done {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = || format!("a panic: {}", text.unwrap_or_default());
        world.oracle.violate(Invariant::I15, what);
    }
    Outcome {
        violation: world.oracle.violation().cloned(),
        trace: world.trace.hash(),
        stats: world.oracle.stats,
        lines: world.trace.into_lines(),
    }
}

/// Something that happens. What belongs to a process names its life, and finds nobody later.
#[derive(Clone, Debug)]
enum Event {
    /// Somebody at this machine wants a turn.
    Wake(Node),
    /// A made-up agent makes up its next batch.
    Make(usize),
    /// The agent's dial fails.
    NotConnected(usize, u64),
    /// The agent's connection stands.
    Connected(usize, u64, ConnectionId),
    /// A message arrives.
    Hear(ConnectionId, Side, Bytes),
    /// A batch arrives.
    Batch(ConnectionId, Bytes),
    /// An end learns that its connection is over.
    Over(ConnectionId, Side),
    /// The plan's fault at this place.
    Fault(usize),
    /// A fault of a disk is over.
    Room(Node),
    /// The keeper is as fast as ever.
    Fast,
    /// A machine gets power, or its process is started.
    Start(Node),
    /// Everything is mended.
    Heal,
}

/// What makes batches.
enum Machine {
    Whole(Box<Agent>),
    Made(Box<Feeder>),
}

/// An agent and its uplink.
struct Sending {
    machine: Machine,
    /// Its connection, from the dial on.
    connection: Option<ConnectionId>,
    /// When its uplink is to be asked what to do.
    ask_at: i64,
    /// A cursor on its way to the disk, and when it is there.
    saving: Option<(i64, Save)>,
    life: u64,
}

/// An uplink, whatever its spool.
trait Linked {
    fn next(&mut self, now: i64, random: u64) -> Do;
    fn dialled(&mut self, since: i64);
    fn lost(&mut self, problem: &str);
    fn message(&mut self, message: Message, now: i64);
    fn saved(&mut self, kept: bool, now: i64);
    fn backlog(&self) -> (u64, u64);
}

impl<S: Spool> Linked for Uplink<S> {
    fn next(&mut self, now: i64, random: u64) -> Do {
        self.poll(now, random)
    }

    fn dialled(&mut self, since: i64) {
        Self::dialled(self, since);
    }

    fn lost(&mut self, problem: &str) {
        Self::lost(self, problem.to_owned());
    }

    fn message(&mut self, message: Message, now: i64) {
        Self::message(self, message, now);
    }

    fn saved(&mut self, kept: bool, now: i64) {
        Self::saved(self, kept, now);
    }

    fn backlog(&self) -> (u64, u64) {
        self.sender().backlog()
    }
}

impl Sending {
    fn uplink(&mut self) -> Option<&mut dyn Linked> {
        match &mut self.machine {
            Machine::Whole(agent) => Some(agent.gateway.as_mut()?.uplink()),
            Machine::Made(feeder) => Some(feeder.uplink.as_mut()?),
        }
    }

    fn is_up(&self) -> bool {
        match &self.machine {
            Machine::Whole(agent) => agent.gateway.is_some(),
            Machine::Made(feeder) => feeder.uplink.is_some(),
        }
    }
}

struct World<'a> {
    plan: &'a Plan,
    agenda: Agenda<Event>,
    net: Net,
    agents: Vec<Sending>,
    site: Site,
    oracle: Oracle,
    trace: Trace,
    /// How the process of a machine ends once its power goes, and how long it is down.
    falls: Vec<(Node, How, i64)>,
    /// When a machine is woken next.
    armed: Vec<(Node, i64)>,
    draws: u64,
    healed: bool,
    /// Since when everything is quiet.
    quiet_since: Option<i64>,
}

/// Microseconds for which all must be quiet before a run is over: everything is sealed by then.
const QUIET_US: i64 = 5_000_000;

impl<'a> World<'a> {
    fn new(plan: &'a Plan, watched: bool) -> Self {
        let shape = plan.shape;
        let agent = |place: usize| {
            let machine = match shape.made {
                0 => {
                    let device = |at: usize| {
                        let qos = ((plan.seed as usize + at) % 4).clamp(0, 2) as u8;
                        let says = (shape.messages, shape.every_us, qos);
                        Device::new(plan.seed, (place, at), says)
                    };
                    let devices = (0..shape.devices).map(device).collect();
                    Machine::Whole(Box::new(Agent::new(plan.seed, place, devices, &shape)))
                }
                _ => Machine::Made(Box::new(Feeder::new(place))),
            };
            Sending {
                machine,
                connection: None,
                ask_at: 0,
                saving: None,
                life: 0,
            }
        };
        let full = |fault: &Fault| {
            matches!(
                fault,
                Fault::Full {
                    node: Node::Agent(_),
                    ..
                }
            )
        };
        let causes = Causes {
            gives_way: plan.has(full) || shape.spool > 0,
            refuses: shape.policy == Policy::DropNewest,
        };
        Self {
            plan,
            agenda: Agenda::default(),
            net: Net::new(plan.seed, shape.rate),
            agents: (0..shape.agents).map(agent).collect(),
            site: Site::new(plan.seed, &shape),
            oracle: Oracle::new(plan.seed, causes),
            trace: Trace::new(watched),
            falls: Vec::new(),
            armed: Vec::new(),
            draws: 0,
            healed: false,
            quiet_since: None,
        }
    }

    fn dice(&mut self, purpose: &str) -> Dice {
        self.draws += 1;
        Dice::of(self.plan.seed, purpose, 0, self.draws)
    }

    fn now(&self) -> i64 {
        self.agenda.now()
    }

    fn run(&mut self) {
        self.start(Node::Site);
        for place in 0..self.agents.len() {
            self.start(Node::Agent(place));
            if self.plan.shape.made > 0 {
                self.agenda
                    .after(self.plan.shape.every_us, Event::Make(place));
            }
        }
        for (place, (at, _)) in self.plan.faults.iter().enumerate() {
            self.agenda.at(*at, Event::Fault(place));
        }
        self.agenda.at(self.plan.heal_at, Event::Heal);
        self.arm();
        while let Some(event) = self.agenda.next_event() {
            self.oracle.stats.events += 1;
            self.note(&event);
            self.apply(event);
            self.bury();
            self.arm();
            if self.oracle.violation().is_some() || self.is_over() {
                return;
            }
        }
    }

    /// Whether the run is at its end; judges it then.
    fn is_over(&mut self) -> bool {
        let now = self.now();
        let since = now - self.plan.heal_at;
        if since > DRAIN_US_MAX || self.oracle.stats.events > EVENTS_MAX {
            let left = self.left();
            self.oracle.violate(Invariant::I8, || {
                format!(
                    "not drained {} s after all was mended: {left}",
                    since / 1_000_000
                )
            });
            return true;
        }
        if !self.healed || !self.is_quiet() {
            self.quiet_since = None;
            return false;
        }
        if now - *self.quiet_since.get_or_insert(now) < QUIET_US {
            return false;
        }
        for (place, sending) in self.agents.iter().enumerate() {
            if let Machine::Whole(agent) = &sending.machine {
                self.oracle.letters(place, &bits::letters(&agent.disk));
            }
        }
        let store = self.site.store.clone();
        self.oracle.finish(&store);
        true
    }

    fn is_quiet(&mut self) -> bool {
        let now = self.now();
        let made = self.plan.shape.made;
        let quiet = |sending: &mut Sending| {
            let said = match &sending.machine {
                Machine::Whole(agent) => agent.is_done(now),
                Machine::Made(feeder) => feeder.made >= made,
            };
            let backlog = sending.uplink().map(|uplink| uplink.backlog().0);
            said && backlog == Some(0)
        };
        self.agents.iter_mut().all(quiet) && self.site.is_idle()
    }

    /// What is not done yet, for people.
    fn left(&mut self) -> String {
        let mut all = self.site.left();
        for sending in &mut self.agents {
            if let Machine::Whole(agent) = &sending.machine {
                let devices = agent.devices.iter().filter(|it| !it.is_done());
                devices.for_each(|device| all = format!("{all}; {}", device.left()));
            }
            let backlog = sending.uplink().map(|uplink| uplink.backlog());
            all = format!("{all}; an uplink with {backlog:?} left");
        }
        all
    }

    fn disk(&self, node: Node) -> Option<&SimDisk> {
        match node {
            Node::Site => Some(&self.site.disk),
            Node::Agent(place) => match &self.agents.get(place)?.machine {
                Machine::Whole(agent) => Some(&agent.disk),
                Machine::Made(_) => None,
            },
        }
    }

    fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        let agents = (0..self.agents.len()).map(Node::Agent);
        std::iter::once(Node::Site).chain(agents)
    }

    /// When somebody at a machine wants a turn.
    fn due(&mut self, node: Node) -> Option<i64> {
        let now = self.now();
        match node {
            Node::Site => self.site.due(now).into_iter().map(|(at, _)| at).min(),
            Node::Agent(place) => {
                let sending = &mut self.agents[place];
                let own = match &mut sending.machine {
                    Machine::Whole(agent) => agent.due(now),
                    Machine::Made(_) => None,
                };
                let saving = sending.saving.as_ref().map(|(at, _)| *at);
                let is_up = sending.is_up();
                let link = saving.into_iter().chain([sending.ask_at]);
                let link = link.filter(|_| is_up);
                own.into_iter().chain(link).min()
            }
        }
    }

    /// Wakes every machine when somebody there wants a turn.
    fn arm(&mut self) {
        for node in self.nodes() {
            let Some(at) = self.due(node).map(|at| at.max(self.now())) else {
                continue;
            };
            let known = self
                .armed
                .iter()
                .any(|(of, when)| *of == node && *when <= at);
            if !known {
                self.armed.retain(|(of, _)| *of != node);
                self.armed.push((node, at));
                self.agenda.at(at, Event::Wake(node));
            }
        }
    }

    fn note(&mut self, event: &Event) {
        let node = |node: &Node| match node {
            Node::Site => u64::MAX,
            Node::Agent(place) => *place as u64,
        };
        let place = |place: &usize| *place as u64;
        let (code, entities, bytes): (u8, [u64; 2], &[u8]) = match event {
            Event::Wake(of) => (0, [node(of), self.operations(*of)], &[]),
            Event::Make(at) => (1, [place(at), 0], &[]),
            Event::NotConnected(at, life) => (2, [place(at), *life], &[]),
            Event::Connected(at, _, id) => (3, [place(at), id.0], &[]),
            Event::Hear(id, side, bytes) => (5, [id.0, *side as u64], bytes),
            Event::Batch(id, bytes) => (6, [id.0, 0], bytes),
            Event::Over(id, side) => (7, [id.0, *side as u64], &[]),
            Event::Fault(at) => (8, [place(at), 0], &[]),
            Event::Room(of) => (9, [node(of), 0], &[]),
            Event::Fast => (10, [0, 0], &[]),
            Event::Start(of) => (11, [node(of), 0], &[]),
            Event::Heal => (12, [0, 0], &[]),
        };
        let now = self.agenda.now();
        let faults = &self.plan.faults;
        self.trace
            .note(now, (code, entities), bytes, || match event {
                Event::Hear(id, side, bytes) => match links::parse(bytes) {
                    Ok(message) => format!("{side:?} hears on {}: {message:?}", id.0),
                    Err(error) => format!("{side:?} hears on {}: {error}", id.0),
                },
                Event::Batch(id, bytes) => format!("{} on {}", links::name(bytes), id.0),
                Event::Fault(at) => format!("{:?}", faults.get(*at)),
                // Too many to be of use; what they lead to is there.
                Event::Wake(_) => String::new(),
                other => format!("{other:?}"),
            });
    }

    fn operations(&self, node: Node) -> u64 {
        self.disk(node).map_or(0, |disk| disk.counts().operations)
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Wake(node) => {
                let now = self.now();
                let armed = self.armed.extract_if(.., |it| *it == (node, now));
                // Another may have been earlier, and armed anew: it would double at each turn.
                if armed.count() > 0 {
                    self.wake(node);
                }
            }
            Event::Make(place) => self.make(place),
            Event::NotConnected(place, life) => self.not_connected(place, life),
            Event::Connected(place, life, id) => self.connected(place, life, id),
            Event::Hear(id, Side::Agent, bytes) => self.agent_hears(id, &bytes),
            Event::Hear(id, Side::Site, bytes) => {
                if self.net.is_open(id, Side::Site) {
                    self.site.hear(id, bytes);
                }
            }
            Event::Batch(id, bytes) => {
                if self.net.is_open(id, Side::Site) {
                    self.site.batch(id, bytes);
                }
            }
            Event::Over(id, Side::Agent) => self.agent_loses(id),
            Event::Over(id, Side::Site) => self.site_loses(id),
            Event::Fault(place) => self.fault(place),
            Event::Room(node) => {
                if let Some(disk) = self.disk(node) {
                    disk.set_full(false);
                }
            }
            Event::Fast => self.site.slow_us = 2_000,
            Event::Start(node) => self.start(node),
            Event::Heal => self.heal(),
        }
    }

    /// Gives one part of a machine its turn.
    fn wake(&mut self, node: Node) {
        let now = self.now();
        match node {
            Node::Site => {
                let mut due = self.site.due(now);
                due.retain(|(at, _)| *at <= now);
                if due.is_empty() {
                    return;
                }
                let place = self.dice("site").below(due.len() as u64) as usize;
                let (_, part): (i64, Part) = due[place];
                let said = self.site.turn(part, now, &mut self.oracle);
                if !self.site.disk.is_off() {
                    self.site_says(said);
                }
            }
            Node::Agent(place) => self.wake_agent(place),
        }
    }

    fn wake_agent(&mut self, place: usize) {
        let now = self.now();
        let mut dice = self.dice("agent");
        let sending = &mut self.agents[place];
        if sending.is_up() {
            let saves = sending.saving.as_ref().is_some_and(|(at, _)| *at <= now);
            if saves && dice.one_in(2) {
                return self.save(place);
            }
            if self.agents[place].ask_at <= now && dice.one_in(2) {
                return self.ask_uplink(place);
            }
        }
        let sending = &mut self.agents[place];
        let Machine::Whole(agent) = &mut sending.machine else {
            return;
        };
        match agent.turn(now, &mut self.oracle) {
            Ok(part) => {
                let sealed = part == Some(tributary_agent::gateway::Part::Uplink);
                if sealed {
                    sending.ask_at = now;
                }
            }
            Err(error) => {
                // It waits for room, which a process in one thread cannot: what is in the spool
                // leaves it meanwhile, or the run never drains.
                let waits = matches!(&error, PipelineError::Stage(StageError::Storage(error))
                    if error.is_full() && self.plan.shape.spool > 0);
                let excused = agent.disk.is_off() || !self.healed || waits;
                if !excused {
                    let what = || format!("agent{place} ended: {error}");
                    self.oracle.violate(Invariant::I15, what);
                }
                if !agent.disk.is_off() {
                    // It ends by itself, and is started again.
                    self.falls.retain(|(node, ..)| *node != Node::Agent(place));
                    self.falls.push((Node::Agent(place), How::Kill, 1_000_000));
                    agent
                        .disk
                        .power_off(tributary_journal::sim_disk::After::Between);
                }
            }
        }
    }

    fn make(&mut self, place: usize) {
        let (seed, shape, now) = (self.plan.seed, self.plan.shape, self.now());
        let sending = &mut self.agents[place];
        let Machine::Made(feeder) = &mut sending.machine else {
            return;
        };
        if feeder.uplink.is_some() {
            feeder.make(seed, &mut self.oracle);
            sending.ask_at = now;
        }
        if feeder.made < shape.made {
            self.agenda.after(shape.every_us, Event::Make(place));
        }
    }
}

/// A message as a frame.
fn encode(message: &Message) -> Bytes {
    let bytes = message.encode();
    bytes.expect("what the state machines build fits a frame")
}
