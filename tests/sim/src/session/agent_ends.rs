//! What happens at the agents' ends of their connections.

use super::machine::Machine;
use super::site::Talk;
use super::{Event, Invariant, SAVE_US, World, parse};
use crate::limits::HANDSHAKE_TIMEOUT_US;
use crate::net::{ConnectionId, Side};
use tributary_protocol::message::{Message, RejectCode};
use tributary_protocol::session::Receiver;

impl World<'_> {
    pub(super) fn agent_starts(&mut self, place: usize) {
        let now = self.agenda.now();
        let off = self.healed && place >= self.plan.shape.agents;
        let machine = &mut self.machines[place];
        if machine.process.is_some() || off {
            return;
        }
        machine.start();
        let life = machine.life;
        self.oracle.stats.restarts += 1;
        self.agenda.at(now, Event::Dial(place, life));
        self.agenda.after(SAVE_US, Event::Save(place, life));
    }

    pub(super) fn seal(&mut self, place: usize) {
        let every_us = self.plan.shape.every_us;
        let machine = &mut self.machines[place];
        if machine.process.is_none() {
            self.agenda.after(every_us, Event::Seal(place));
            return;
        }
        for item in machine.seal(self.plan.seed, &self.plan.shape) {
            self.oracle.sealed(machine.agent, &item);
        }
        if machine.seals < self.plan.shape.batches {
            self.agenda.after(every_us, Event::Seal(place));
        }
        self.fill(place);
    }

    pub(super) fn dial(&mut self, place: usize) {
        let machine = &mut self.machines[place];
        let life = machine.life;
        let Some(process) = machine
            .process
            .as_mut()
            .filter(|it| it.connection.is_none())
        else {
            return;
        };
        let now = self.agenda.now();
        match self.net.dial(place, now) {
            Some((id, us)) => {
                process.connection = Some(id);
                self.agenda.after(us, Event::Connected(place, life, id));
                self.agenda
                    .after(HANDSHAKE_TIMEOUT_US, Event::GreetLate(place, life, id));
            }
            None => self.agent_loses(place),
        }
    }

    pub(super) fn connected(&mut self, place: usize, id: ConnectionId) {
        if !self.net.is_open(id, Side::Agent) {
            return;
        }
        let Some(running) = &mut self.site.running else {
            self.agent_loses(place);
            return;
        };
        let machine = &mut self.machines[place];
        let talk = Talk {
            agent: machine.agent,
            receiver: Receiver::new(),
            ack_at: None,
        };
        running.talks.insert(id, talk);
        let Some(process) = &mut machine.process else {
            return;
        };
        match process.sender.on_connected("gw", "world") {
            Ok(hello) => self.say(id, Side::Site, Message::Hello(hello)),
            Err(illegal) => self.oracle.violate(Invariant::I11, || illegal.to_string()),
        }
    }

    /// Says something to that side.
    pub(super) fn say(&mut self, id: ConnectionId, to: Side, message: Message) {
        match message.encode() {
            Ok(bytes) => {
                let at = self.net.message(id, to, self.agenda.now());
                self.agenda.at(at, Event::Hear(id, to, bytes.to_vec()));
            }
            Err(error) => self
                .oracle
                .violate(Invariant::I10, || format!("no frame: {error}")),
        }
    }

    /// The machine that believes in this connection.
    pub(super) fn agent_on(&self, id: ConnectionId) -> Option<usize> {
        let place = self.net.agent_of(id)?;
        let process = self.machines.get(place)?.process.as_ref()?;
        let open = self.net.is_open(id, Side::Agent);
        (open && process.connection == Some(id)).then_some(place)
    }

    pub(super) fn agent_hears(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(place) = self.agent_on(id) else {
            return;
        };
        let now = self.agenda.now();
        let Machine {
            agent,
            process,
            spool,
            ..
        } = &mut self.machines[place];
        let Some(process) = process else { return };
        let done = match parse(bytes) {
            Ok(Message::Welcome(page)) => {
                process.greeted |= !page.more;
                if process.greeted {
                    self.oracle.greeted(*agent, id);
                }
                let flaps = self.flaps.get_mut(&place).filter(|(left, _)| *left > 0);
                if let Some((left, us)) = flaps.filter(|_| process.greeted) {
                    *left -= 1;
                    self.agenda.after(*us, Event::Flap(id));
                }
                let hash_of = |key| spool.stored(key).map(|item| item.hash);
                process.sender.on_welcome(page, hash_of)
            }
            Ok(Message::Ack(ack)) => {
                self.oracle.heard((*agent, id), &ack);
                process.note(&ack, now);
                process.sender.on_ack(&ack)
            }
            Ok(Message::Reject(reject)) => {
                if self.healed && reject.code == RejectCode::Conflict {
                    self.told.insert(place);
                }
                self.agent_loses(place);
                return;
            }
            Ok(Message::Hello(_)) | Err(_) => {
                self.oracle
                    .violate(Invariant::I11, || "no message for an agent".to_owned());
                return;
            }
        };
        if let Err(illegal) = done {
            self.oracle.violate(Invariant::I11, || illegal.to_string());
        }
        self.trim(place);
        self.fill(place);
    }

    pub(super) fn trim(&mut self, place: usize) {
        let machine = &mut self.machines[place];
        for item in machine.trim() {
            let remains = machine.spool.remains(item.key);
            self.oracle.trimmed(machine.agent, &item, remains);
        }
        for key in machine.spool.take_gone() {
            self.oracle.gone(machine.agent, key);
        }
    }

    /// Sends as much as the window allows.
    pub(super) fn fill(&mut self, place: usize) {
        let now = self.agenda.now();
        let Machine {
            agent,
            process,
            spool,
            life,
            ..
        } = &mut self.machines[place];
        let Some(process) = process else { return };
        let Some(id) = process.connection else { return };
        if let Some(until) = process.held_until(now) {
            self.agenda.at(until, Event::Fill(place, *life));
            return;
        }
        while let Some((key, urgency)) = process.sender.poll_send() {
            let Some(item) = spool.stored(key) else {
                self.oracle.asked_for(*agent, key);
                process.sender.skip(key);
                continue;
            };
            if spool.reclaim(&item) {
                self.oracle.came_back(*agent, &item);
            }
            if !process.sender.offer(&item.outgoing(), urgency) {
                continue;
            }
            self.oracle.sent(id, &item);
            let arrival = self.net.batch(id, item.bytes, now);
            let again = arrival.again.map(|at| (at, false));
            if again.is_some() {
                self.oracle.doubled(id, item.key);
            }
            for (at, damaged) in std::iter::once((arrival.at, arrival.damaged)).chain(again) {
                self.agenda.at(at, Event::Batch(id, item, damaged));
            }
        }
        self.oracle.under_way(process.sender.in_flight());
        if process.sender.wants_new_session() {
            self.agent_loses(place);
        }
    }

    pub(super) fn save(&mut self, place: usize) {
        let machine = &mut self.machines[place];
        if let Some(process) = &machine.process {
            machine.spool.save(process.sender.cursor());
        }
        self.agenda.after(SAVE_US, Event::Save(place, machine.life));
    }

    /// The agent's end of its connection is over, if it had one; it dials again.
    pub(super) fn agent_loses(&mut self, place: usize) {
        let machine = &mut self.machines[place];
        let id = machine.process.as_ref().and_then(|it| it.connection);
        let wait = machine.lost(self.plan.seed);
        self.agenda.after(wait, Event::Dial(place, machine.life));
        let Some(id) = id else { return };
        if self.net.close(id, Side::Agent) && self.net.is_open(id, Side::Site) {
            let at = self.net.message(id, Side::Site, self.agenda.now());
            self.agenda.at(at, Event::Over(id, Side::Site));
        }
    }
}
