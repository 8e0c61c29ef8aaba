//! Where an agent of the session world goes that has a list of aggregators: it asks `Route`, does
//! what that says, and tells it what came of it. It decides nothing that the route decides.

use super::machine::{Machine, Process, backoff};
use super::{Event, Invariant, World};
use crate::dice::Dice;
use crate::limits::LEAVE_US_MAX;
use crate::net::ConnectionId;
use crate::plan::Shape;
use tributary_protocol::limits::IN_FLIGHT_BYTES;
use tributary_protocol::session::{Illegal, Place, Route, RouteStep, RouteTimes, Sender};

/// Where the aggregator at `site` is reached.
pub fn place_of(site: usize) -> Place {
    Place(site as u64 + 1)
}

/// What an agent was configured with.
#[derive(Clone, Debug)]
pub struct Ways {
    /// The aggregators, its home first.
    list: Vec<usize>,
    times: RouteTimes,
    hold_us: i64,
}

impl Ways {
    /// Of this agent: each has another home, and times that are long or short beside what a plan
    /// lasts. What is under way arrives before the agent leaves, or it would never get anywhere.
    pub fn draw(seed: u64, agent: usize, shape: &Shape) -> Self {
        let mut dice = Dice::of(seed, "ways", agent as u64, 0);
        let seconds = |dice: &mut Dice, of: [i64; 3]| of[dice.below(3) as usize] * 1_000_000;
        let under_way = 2 * (IN_FLIGHT_BYTES + shape.batch_bytes) * 1_000_000 / shape.rate;
        Self {
            list: (0..shape.sites)
                .map(|n| (agent + n) % shape.sites)
                .collect(),
            times: RouteTimes {
                failover_after_us: seconds(&mut dice, [1, 5, 20]).max(under_way as i64),
                return_after_us: seconds(&mut dice, [3, 20, 600]),
            },
            hold_us: seconds(&mut dice, [2, 30, 600]),
        }
    }

    /// Tells a new sender of it.
    pub fn prepare(&self, sender: &mut Sender, now: i64) {
        sender.hold_for(self.hold_us);
        sender.on_time(now);
        let places: Vec<Place> = self.list.iter().copied().map(place_of).collect();
        sender.keep_to(&places);
    }
}

/// Where a process is on its way.
#[derive(Debug)]
pub struct Way {
    /// Who says where to go.
    pub route: Route,
    list: Vec<usize>,
    /// The connection to its home that it begins beside its session.
    pub probe: Option<ConnectionId>,
    /// Whether it sends nothing more in its session, which it is to leave.
    pub leaves: bool,
    /// When it looks around next, and when it sends what was held.
    looks_at: Option<i64>,
    fills_at: Option<i64>,
    /// Whether this session was told to the route.
    arrived: bool,
    /// Where its last session was.
    last: Option<usize>,
}

impl Way {
    /// Of a process that starts.
    pub fn new(ways: &Ways, now: i64) -> Self {
        Self {
            route: Route::new(ways.list.len(), ways.times, now),
            list: ways.list.clone(),
            probe: None,
            leaves: false,
            looks_at: None,
            fills_at: None,
            arrived: false,
            last: None,
        }
    }
}

impl Process {
    /// When what is in doubt was held long enough, if that is not planned yet.
    pub fn wakes_at(&mut self) -> Option<i64> {
        let way = self.way.as_mut()?;
        let at = self.sender.poll_timeout()?;
        (way.fills_at.replace(at) != Some(at)).then_some(at)
    }

    /// Whether it has a session, and nothing to say in it.
    fn has_nothing_to_send(&mut self, now: i64) -> bool {
        self.sender.on_time(now);
        let idle = self.greeted && self.sender.in_flight() == 0 && self.held_until(now).is_none();
        idle && self.sender.poll_send().is_none()
    }
}

impl Machine {
    /// Whether it has a list of aggregators.
    pub fn is_one_of_several(&self) -> bool {
        self.process.as_ref().is_some_and(|it| it.way.is_some())
    }
}

impl World<'_> {
    /// Whether each agent with a list is in a session.
    pub(super) fn have_arrived(&self) -> bool {
        let mut several = self.machines.iter().filter(|it| it.is_one_of_several());
        several.all(|machine| machine.process.as_ref().is_some_and(|it| it.greeted))
    }

    /// The machine that begins this connection beside its session.
    pub(super) fn probes_on(&self, id: ConnectionId) -> Option<usize> {
        let place = self.net.agent_of(id)?;
        let process = self.machines.get(place)?.process.as_ref()?;
        (process.way.as_ref()?.probe == Some(id)).then_some(place)
    }

    /// A pause before the same aggregator is tried again.
    fn pause(&mut self, place: usize) -> i64 {
        let way = self.way(place);
        let failures = way.map_or(0, |way| way.route.failures());
        self.dice("pause")
            .us(0, backoff(failures.saturating_add(1)))
    }

    fn way(&mut self, place: usize) -> Option<&mut Way> {
        self.machines.get_mut(place)?.process.as_mut()?.way.as_mut()
    }

    /// Asks where to go, until there is nothing to do.
    pub(super) fn looks_around(&mut self, place: usize) {
        let now = self.agenda.now();
        loop {
            let machine = &mut self.machines[place];
            let life = machine.life;
            let Some(process) = &mut machine.process else {
                return;
            };
            let idle = process.has_nothing_to_send(now);
            let Some(way) = &mut process.way else { return };
            if idle {
                way.route.on_progress(now);
            }
            let to = match way.route.poll(now) {
                RouteStep::Dial(at) => way.list[at],
                RouteStep::Probe => way.list[0],
                RouteStep::Leave => {
                    self.agent_loses(place);
                    continue;
                }
                RouteStep::Wait => break,
            };
            let beside = process.greeted;
            match self.net.dial(place, to, now) {
                Some((id, us)) if beside => {
                    way.probe = Some(id);
                    self.dialled(place, life, (id, us));
                }
                Some((id, us)) => {
                    process.connection = Some(id);
                    self.dialled(place, life, (id, us));
                }
                None => self.try_fails(place),
            }
        }
        let machine = &mut self.machines[place];
        let way = machine.process.as_mut().and_then(|it| it.way.as_mut());
        let Some(way) = way else { return };
        let at = way.route.poll_timeout();
        let sooner = |at: &i64| {
            way.looks_at
                .is_none_or(|planned| planned <= now || *at < planned)
        };
        if let Some(at) = at.filter(sooner) {
            way.looks_at = Some(at);
            self.agenda.at(at, Event::Steer(place, machine.life));
        }
    }

    fn must(&mut self, done: Option<Result<(), Illegal>>) {
        if let Some(Err(illegal)) = done {
            self.oracle.violate(Invariant::I11, || illegal.to_string());
        }
    }

    /// The one that was dialled can't be reached.
    fn try_fails(&mut self, place: usize) {
        let (now, pause) = (self.agenda.now(), self.pause(place));
        let done = self.way(place).map(|way| way.route.on_failed(now, pause));
        self.must(done);
    }

    /// Its home can't be reached; its session goes on.
    pub(super) fn probe_fails(&mut self, place: usize) {
        let probe = self.way(place).and_then(|way| way.probe.take());
        if let Some(id) = probe {
            self.hangs_up(id);
        }
        if let Some(way) = self.way(place) {
            way.leaves = false;
        }
        self.try_fails(place);
        self.looks_around(place);
        self.fill(place);
    }

    /// Its home answers: it goes there, at once if it has no session any more.
    pub(super) fn home_answers(&mut self, place: usize, id: ConnectionId) {
        let us = self.dice("leave").us(0, LEAVE_US_MAX);
        let life = self.machines[place].life;
        if let Some(way) = self.way(place) {
            way.leaves = true;
        }
        let us = if self.connection_of(place).is_some() {
            us
        } else {
            0
        };
        self.agenda.after(us, Event::Leave(place, life, id));
    }

    /// Leaves its session, if it still has it, for the connection to its home.
    pub(super) fn leaves(&mut self, place: usize, id: ConnectionId) {
        if self.probes_on(id) != Some(place) {
            return;
        }
        if self.connection_of(place).is_some() {
            self.agent_loses(place);
        }
        let Some(process) = &mut self.machines[place].process else {
            return;
        };
        let way = process.way.as_mut();
        let Some(id) = way.and_then(|way| way.probe.take()) else {
            return;
        };
        process.connection = Some(id);
        self.greet(place, id);
    }

    /// It was welcomed: its cursor says so before anything is sent there.
    pub(super) fn arrives(&mut self, place: usize, id: ConnectionId) {
        let (now, at) = (self.agenda.now(), self.net.site_of(id));
        let machine = &mut self.machines[place];
        let Some(process) = &mut machine.process else {
            return;
        };
        let Some(way) = process.way.as_mut().filter(|way| !way.arrived) else {
            return;
        };
        way.arrived = true;
        let moved = way.last.is_some() && way.last != at;
        self.oracle.stats.switches += u64::from(moved);
        way.last = at;
        let done = way.route.on_welcomed(now);
        if process.sender.needs_saving() {
            let cursor = process.sender.cursor();
            process.sender.on_saved(&cursor);
            machine.spool.save(cursor);
        }
        self.must(Some(done));
        self.looks_around(place);
    }

    /// Its session is over, or did not begin.
    pub(super) fn strays(&mut self, place: usize) {
        let (now, pause) = (self.agenda.now(), self.pause(place));
        let Some(process) = &mut self.machines[place].process else {
            return;
        };
        process.sender.on_lost_at(now);
        process.connection = None;
        let was = std::mem::take(&mut process.greeted);
        let Some(way) = &mut process.way else { return };
        way.leaves = false;
        way.arrived = false;
        let done = match was {
            true => way.route.on_lost(now, 0),
            false => way.route.on_failed(now, pause),
        };
        self.must(Some(done));
        self.agenda
            .after(0, Event::Steer(place, self.machines[place].life));
    }
}
