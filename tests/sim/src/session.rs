//! The session world: `Sender`, `Receiver` and `Ledger` of `tributary-protocol` against each
//! other, over links, spools and a journal that are made up, so that a run takes milliseconds.
//! Batches are a name, a size and a hash.
//!
//! Left out are files, sealing, QUIC, and everything that the shells of both ends decide.

mod agent_ends;
mod breaks;
mod machine;
mod oracle;
mod site;
mod site_ends;
mod spool;
mod way;

pub use oracle::{Invariant, Stats, Violation};

use crate::clock::Agenda;
use crate::dice::Dice;
use crate::limits::{DRAIN_US_MAX, EVENTS_MAX};
use crate::net::{ConnectionId, Net, Side};
use crate::plan::Plan;
use crate::trace::{Trace, TraceHash};
use machine::Machine;
use oracle::Oracle;
use site::Site;
use spool::Item;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tributary_protocol::frame::RawFrame;
use tributary_protocol::message::{Message, RejectCode};
use way::Ways;

/// Microseconds that what is left of twins goes on once all is mended.
const TWINS_US: i64 = 150 * 1_000_000;
/// Microseconds between two looks at the cursor.
const SAVE_US: i64 = 1_000_000;

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
    /// The machine seals its next batch.
    Seal(usize),
    /// The machine dials.
    Dial(usize, u64),
    /// The machine's connection stands.
    Connected(usize, u64, ConnectionId),
    /// Too late for a `Welcome`.
    GreetLate(usize, u64, ConnectionId),
    /// The machine may send again.
    Fill(usize, u64),
    /// The machine keeps its cursor.
    Save(usize, u64),
    /// A message arrives.
    Hear(ConnectionId, Side, Vec<u8>),
    /// A batch arrives, marked as in doubt or not, damaged or not.
    Batch(ConnectionId, (Item, bool), bool),
    /// An end learns that its connection is over.
    Over(ConnectionId, Side),
    /// An older connection is to be closed.
    Fenced(usize, ConnectionId, u64),
    /// The frame of an aggregator is written.
    Commit(usize, u64),
    /// An acknowledgement of an aggregator is due.
    Ack(usize, ConnectionId, u64),
    /// The machine looks whether to go to another aggregator.
    Steer(usize, u64),
    /// The machine leaves its session for the connection that it has beside it.
    Leave(usize, u64, ConnectionId),
    /// A link that flaps goes.
    Flap(ConnectionId),
    /// The plan's fault at this place.
    Fault(usize),
    /// A machine gets power.
    PowerAgent(usize),
    /// An aggregator gets power.
    PowerSite(usize),
    /// Everything is mended.
    Heal,
}

struct World<'a> {
    plan: &'a Plan,
    agenda: Agenda<Event>,
    net: Net,
    machines: Vec<Machine>,
    sites: Vec<Site>,
    oracle: Oracle,
    trace: Trace,
    /// Sessions of a machine that end by themselves, and how long each of them lasts.
    flaps: BTreeMap<usize, (u32, i64)>,
    draws: u64,
    healed: bool,
    /// Machines that were told of a conflict since.
    told: BTreeSet<usize>,
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, watched: bool) -> Self {
        let (shape, several) = (&plan.shape, plan.profile.knows_several());
        let ways = |agent| several.then(|| Ways::draw(plan.seed, agent, shape));
        let site = |at| Site::new(at, (shape.agents, shape.window), several);
        Self {
            plan,
            agenda: Agenda::default(),
            net: Net::new(plan.seed, plan.shape.rate),
            machines: (0..shape.agents)
                .map(|agent| Machine::new(agent, ways(agent)))
                .collect(),
            sites: (0..shape.sites).map(site).collect(),
            oracle: Oracle::new(shape.sites, several),
            trace: Trace::new(watched),
            flaps: BTreeMap::new(),
            draws: 0,
            healed: false,
            told: BTreeSet::new(),
        }
    }

    fn dice(&mut self, purpose: &str) -> Dice {
        self.draws += 1;
        Dice::of(self.plan.seed, purpose, 0, self.draws)
    }

    fn run(&mut self) {
        (0..self.sites.len()).for_each(|at| self.site_starts(at));
        for place in 0..self.machines.len() {
            self.agent_starts(place);
            self.agenda
                .after(self.plan.shape.every_us, Event::Seal(place));
        }
        for (place, (at, _)) in self.plan.faults.iter().enumerate() {
            self.agenda.at(*at, Event::Fault(place));
        }
        self.agenda.at(self.plan.heal_at, Event::Heal);
        while let Some(event) = self.agenda.next_event() {
            self.oracle.stats.events += 1;
            self.note(&event);
            self.apply(event);
            if self.oracle.violation().is_some() || self.is_over() {
                return;
            }
        }
    }

    /// Whether the run is at its end; judges it then.
    fn is_over(&mut self) -> bool {
        if !self.healed {
            return false;
        }
        let since = self.agenda.now() - self.plan.heal_at;
        let twins = !self.oracle.twins.is_empty();
        let twin = |machine: &Machine| self.oracle.twins.contains(&machine.agent);
        let sealed = |machine: &Machine| machine.seals >= self.plan.shape.batches;
        // Of twins one is left: it drains, too, or hears why not.
        let left = self.machines.iter().take(self.plan.shape.agents);
        let told = |machine: &Machine| twin(machine) && self.told.contains(&machine.place);
        let mut left = left.filter(|machine| !told(machine));
        let drained = left.all(|machine| sealed(machine) && machine.is_drained());
        let idle = |site: &Site| site.gone || site.is_idle();
        let quiet = drained && self.sites.iter().all(idle) && self.have_arrived();
        if !quiet && (since > DRAIN_US_MAX || self.oracle.stats.events > EVENTS_MAX) {
            let left: Vec<_> = self.machines.iter().map(Machine::left).collect();
            let what = || {
                format!(
                    "not drained {} s after all was mended: {left:?}",
                    since / 1_000_000
                )
            };
            self.oracle.violate(Invariant::I8, what);
            return true;
        }
        if !quiet || (twins && since < TWINS_US) {
            return false;
        }
        let (machines, sites) = (&self.machines, &self.sites);
        let left = |agent, key| {
            let mut of_agent = machines.iter().filter(|machine| machine.agent == agent);
            of_agent.any(|machine| machine.spool.stored(key).is_some())
        };
        self.oracle.finish(left, |at| sites[at].gone);
        self.judge_ledgers();
        true
    }

    /// The ledgers at the end, and what each agent knows of them.
    fn judge_ledgers(&mut self) {
        for (at, site) in self.sites.iter().enumerate() {
            if let Some(running) = &site.running {
                self.oracle.ledger(at, &site.agents, &running.ledger);
            }
        }
        for machine in self.machines.iter().filter(|it| it.is_one_of_several()) {
            let Some(process) = &machine.process else {
                continue;
            };
            self.oracle.credits(machine.agent, &process.sender.cursor());
            let Some(id) = process.connection else {
                continue;
            };
            let site = self.net.site_of(id).and_then(|at| self.sites.get(at));
            let running = site.and_then(|site| Some((site, site.running.as_ref()?)));
            if let Some((site, running)) = running {
                let lanes = running.ledger.lanes(&site.agents[machine.agent]);
                self.oracle.sees_no_hole((machine.agent, id), &lanes);
            }
        }
    }

    fn note(&mut self, event: &Event) {
        let now = self.agenda.now();
        let place = |place: &usize| *place as u64;
        let (code, entities, bytes): (u8, [u64; 2], &[u8]) = match event {
            Event::Seal(at) => (0, [place(at), 0], &[]),
            Event::Dial(at, life) => (1, [place(at), *life], &[]),
            Event::Connected(at, _, id) => (2, [place(at), id.0], &[]),
            Event::GreetLate(at, _, id) => (3, [place(at), id.0], &[]),
            Event::Fill(at, life) => (4, [place(at), *life], &[]),
            Event::Save(at, life) => (5, [place(at), *life], &[]),
            Event::Hear(id, side, bytes) => (6, [id.0, *side as u64], bytes),
            Event::Batch(id, (item, marked), damaged) => {
                let what = u64::from(*damaged) | u64::from(*marked) << 1;
                (7, [id.0, what], &item.hash.0)
            }
            Event::Over(id, side) => (8, [id.0, *side as u64], &[]),
            Event::Fenced(_, id, life) => (9, [id.0, *life], &[]),
            Event::Commit(at, life) => (10, [*life, place(at)], &[]),
            Event::Ack(_, id, life) => (11, [id.0, *life], &[]),
            Event::Steer(at, life) => (17, [place(at), *life], &[]),
            Event::Leave(at, _, id) => (18, [place(at), id.0], &[]),
            Event::Fault(at) => (12, [place(at), 0], &[]),
            Event::Flap(id) => (16, [id.0, 0], &[]),
            Event::PowerAgent(at) => (13, [place(at), 0], &[]),
            Event::PowerSite(at) => (14, [place(at), 0], &[]),
            Event::Heal => (15, [0, 0], &[]),
        };
        self.trace
            .note(now, (code, entities), bytes, || match event {
                Event::Batch(id, (item, marked), _) => {
                    let kind = if item.gap { "gap" } else { "batch" };
                    let doubt = if *marked { ", in doubt" } else { "" };
                    format!("{kind} {} of {} on {}{doubt}", item.key, item.count, id.0)
                }
                Event::Hear(id, side, bytes) => match parse(bytes) {
                    Ok(message) => format!("{side:?} hears on {}: {message:?}", id.0),
                    Err(error) => format!("{side:?} hears on {}: {error}", id.0),
                },
                Event::Fault(at) => format!("{:?}", self.plan.faults.get(*at)),
                other => format!("{other:?}"),
            });
    }

    fn apply(&mut self, event: Event) {
        let alive = |world: &Self, place: usize, life: u64| {
            let machine = world.machines.get(place);
            machine.is_some_and(|it| it.process.is_some() && it.life == life)
        };
        match event {
            Event::Seal(place) => self.seal(place),
            Event::Dial(place, life) if alive(self, place, life) => self.dial(place),
            Event::Connected(place, life, id) if alive(self, place, life) => {
                self.connected(place, id);
            }
            Event::GreetLate(place, life, id) if alive(self, place, life) => {
                let process = self.machines[place].process.as_ref();
                let late = process.is_some_and(|it| it.connection == Some(id) && !it.greeted);
                if late {
                    self.agent_loses(place);
                } else if self.probes_on(id).is_some() {
                    self.probe_fails(place);
                }
            }
            Event::Fill(place, life) if alive(self, place, life) => self.fill(place),
            Event::Save(place, life) if alive(self, place, life) => self.save(place),
            Event::Steer(place, life) if alive(self, place, life) => self.looks_around(place),
            Event::Leave(place, life, id) if alive(self, place, life) => self.leaves(place, id),
            Event::Dial(..) | Event::Fill(..) | Event::Save(..) | Event::GreetLate(..) => {}
            Event::Steer(..) | Event::Leave(..) => {}
            Event::Connected(_, _, id) => {
                // Nobody is there any more who dialled.
                self.net.close(id, Side::Agent);
                self.net.close(id, Side::Site);
            }
            Event::Hear(id, Side::Agent, bytes) => self.agent_hears(id, &bytes),
            Event::Hear(id, Side::Site, bytes) => self.site_hears(id, &bytes),
            Event::Batch(id, sent, damaged) => self.batch(id, sent, damaged),
            Event::Over(id, Side::Agent) => {
                if let Some(place) = self.agent_on(id) {
                    self.agent_loses(place);
                } else if let Some(place) = self.probes_on(id) {
                    self.probe_fails(place);
                }
            }
            Event::Over(id, Side::Site) => self.site_ends(id, None),
            Event::Fenced(at, id, life) if life == self.sites[at].life => {
                self.site_ends(id, Some(RejectCode::Fenced));
            }
            Event::Commit(at, life) if life == self.sites[at].life => self.commit(at),
            Event::Ack(at, id, life) if life == self.sites[at].life => self.ack(id),
            Event::Fenced(..) | Event::Commit(..) | Event::Ack(..) => {}
            Event::Flap(id) => {
                if let Some(place) = self.agent_on(id).filter(|_| !self.healed) {
                    self.cut(place);
                }
            }
            Event::Fault(place) => self.fault(place),
            Event::PowerAgent(place) => self.agent_starts(place),
            Event::PowerSite(at) => self.site_starts(at),
            Event::Heal => self.heal(),
        }
    }
}

/// What arrived on a control stream.
fn parse(bytes: &[u8]) -> Result<Message, String> {
    let frame = RawFrame(bytes.to_vec().into()).verify();
    let frame = frame.map_err(|error| error.to_string())?;
    Message::parse(&frame).map_err(|error| error.to_string())
}
