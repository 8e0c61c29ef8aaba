//! What breaks, as the plan has it, and that all of it but what is gone is mended in the end.

use super::machine::Machine;
use super::{Event, SAVE_US, World};
use crate::limits::{AGENTS_MAX, IDLE_TIMEOUT_US};
use crate::net::{ConnectionId, Side};
use crate::plan::Fault;
use tributary_protocol::ids::BatchKey;

/// Whether one of these trimmed it and can have it again.
fn remains(machines: &[Machine], agent: usize, key: BatchKey) -> bool {
    let mut of_agent = machines.iter().filter(|machine| machine.agent == agent);
    of_agent.any(|machine| machine.spool.remains(key))
}

impl World<'_> {
    pub(super) fn fault(&mut self, place: usize) {
        if self.healed {
            return;
        }
        let Some((_, fault)) = self.plan.faults.get(place) else {
            return;
        };
        let now = self.agenda.now();
        match *fault {
            Fault::Cut { agent } => self.cut(agent),
            Fault::HalfOpen { agent, knows } => self.half_open(agent, knows),
            Fault::Stall { agent, to, us } => self.stall(agent, to, us),
            Fault::Refuse { agent, us } => self.net.refuse(agent, now + us),
            Fault::Flap {
                agent,
                times,
                every_us,
            } => {
                self.flaps.insert(agent, (times, every_us));
                self.cut(agent);
            }
            Fault::Double { agent, batches } => self.net.double(agent, batches),
            Fault::Damage { agent } => self.net.damage(agent),
            Fault::Shed { agent, numbers } => self.shed(agent, numbers),
            Fault::CrashAgent {
                agent,
                back,
                down_us,
            } => self.crash_agent(agent, back, down_us),
            Fault::Clone { agent } => self.clone_agent(agent),
            Fault::Part { agent, site, us } => self.part(agent, site, us),
            Fault::CrashSite { site, .. }
            | Fault::FailAppends { site, .. }
            | Fault::SlowSite { site, .. }
            | Fault::LoseTail { site, .. }
            | Fault::LoseJournal { site, .. }
            | Fault::Gone { site }
                if site >= self.sites.len() => {}
            Fault::CrashSite {
                site,
                kept,
                down_us,
            } => self.crash_site(site, kept, down_us),
            Fault::FailAppends { site, times, kept } => {
                self.sites[site].failing += times;
                self.sites[site].keeps_failed = kept;
            }
            Fault::SlowSite { site, us } => self.sites[site].slow_until = now + us,
            Fault::LoseTail { site, frames } => self.sites[site].lied = frames,
            Fault::LoseJournal { site, down_us } => self.lose_journal(site, down_us),
            Fault::Gone { site } => self.gone(site),
        }
    }

    fn part(&mut self, agent: usize, site: usize, us: i64) {
        self.net.part(agent, site, self.agenda.now() + us);
        let id = self.connection_of(agent);
        if id.and_then(|id| self.net.site_of(id)) == Some(site) {
            self.cut(agent);
        }
    }

    fn lose_journal(&mut self, at: usize, down_us: i64) {
        self.crash_site(at, false, down_us);
        let machines = &self.machines;
        let remains = |agent, key| remains(machines, agent, key);
        self.sites[at].lose_journal(remains, &mut self.oracle);
    }

    fn gone(&mut self, at: usize) {
        let mut others = self.sites.iter().enumerate();
        if others.any(|(place, site)| place != at && !site.gone) {
            self.crash_site(at, false, 0);
            self.sites[at].gone = true;
        }
    }

    pub(super) fn connection_of(&self, place: usize) -> Option<ConnectionId> {
        self.machines.get(place)?.process.as_ref()?.connection
    }

    pub(super) fn cut(&mut self, place: usize) {
        if let Some(id) = self.connection_of(place) {
            self.site_ends(id, None);
            if self.agent_on(id) == Some(place) {
                self.agent_loses(place);
            }
        }
    }

    pub(super) fn half_open(&mut self, place: usize, knows: Side) {
        let Some(id) = self.connection_of(place) else {
            return;
        };
        let other = knows.other();
        match knows {
            Side::Agent => self.ended(place),
            Side::Site => {
                if let Some(at) = self.net.site_of(id) {
                    self.sites[at].end(id);
                }
            }
        }
        self.net.close(id, knows);
        self.agenda.after(IDLE_TIMEOUT_US, Event::Over(id, other));
    }

    pub(super) fn stall(&mut self, place: usize, to: Side, us: i64) {
        let now = self.agenda.now();
        self.net.stall(place, to, (now, now + us));
        if us < IDLE_TIMEOUT_US {
            return;
        }
        // Nothing heard for so long: the end that hears nothing gives up.
        if let Some(id) = self.connection_of(place) {
            self.agenda.after(IDLE_TIMEOUT_US, Event::Over(id, to));
        }
    }

    pub(super) fn shed(&mut self, place: usize, numbers: u64) {
        let told = self.dice("shed").below(3) > 0;
        let Some(machine) = self.machines.get_mut(place) else {
            return;
        };
        if let Some(gap) = machine.shed(numbers, told) {
            self.oracle.given_up(machine.agent, &gap);
        }
        for key in machine.spool.take_gone() {
            self.oracle.gone(machine.agent, key);
        }
        self.fill(place);
    }

    pub(super) fn crash_agent(&mut self, place: usize, back: bool, down_us: i64) {
        let id = self.connection_of(place);
        let Some(machine) = self.machines.get_mut(place) else {
            return;
        };
        let Some(process) = machine.process.take() else {
            return;
        };
        let probe = process.way.and_then(|way| way.probe);
        for item in machine.spool.after_power_cut(back) {
            self.oracle.came_back(machine.agent, &item);
        }
        for id in id.into_iter().chain(probe) {
            self.net.close(id, Side::Agent);
            self.agenda
                .after(IDLE_TIMEOUT_US, Event::Over(id, Side::Site));
        }
        self.agenda.after(down_us, Event::PowerAgent(place));
    }

    pub(super) fn clone_agent(&mut self, place: usize) {
        let twin_place = self.machines.len();
        let Some(machine) = self.machines.get(place) else {
            return;
        };
        if twin_place >= 2 * AGENTS_MAX || machine.process.is_none() {
            return;
        }
        let twin = machine.twin(twin_place, self.agenda.now());
        self.oracle.twins.insert(twin.agent);
        let life = twin.life;
        let sealing = twin.seals < self.plan.shape.batches;
        self.machines.push(twin);
        self.agenda.after(0, Event::Dial(twin_place, life));
        self.agenda.after(SAVE_US, Event::Save(twin_place, life));
        if sealing {
            self.agenda
                .after(self.plan.shape.every_us, Event::Seal(twin_place));
        }
    }

    pub(super) fn crash_site(&mut self, at: usize, kept: bool, down_us: i64) {
        if self.sites[at].running.is_none() {
            return;
        }
        let machines = &self.machines;
        let remains = |agent, key| remains(machines, agent, key);
        for id in self.sites[at].crash(kept, remains, &mut self.oracle) {
            self.net.close(id, Side::Site);
            let mut dice = self.dice("reset");
            // The next process says that it knows of no such connection; or nobody says anything.
            let us = match dice.one_in(4) {
                true => IDLE_TIMEOUT_US,
                false => dice.us(0, 2_000_000),
            };
            self.agenda.after(us, Event::Over(id, Side::Agent));
        }
        self.agenda.after(down_us, Event::PowerSite(at));
    }

    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.net.heal();
        for at in 0..self.sites.len() {
            self.sites[at].failing = 0;
            self.sites[at].slow_until = 0;
            self.site_starts(at);
        }
        // Of two that are one somebody turns one off.
        for place in self.plan.shape.agents..self.machines.len() {
            self.crash_agent(place, false, 0);
        }
        for place in 0..self.machines.len() {
            self.agent_starts(place);
            self.fill(place);
        }
    }
}
