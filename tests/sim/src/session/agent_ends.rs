//! What happens at the agents' ends of their connections.

use super::machine::Machine;
use super::site::Talk;
use super::way::place_of;
use super::{Event, Invariant, SAVE_US, World, parse};
use crate::limits::HANDSHAKE_TIMEOUT_US;
use crate::net::{ConnectionId, Side};
use tributary_protocol::frame::FrameKind;
use tributary_protocol::ids::BufferId;
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
        machine.start(now);
        let life = machine.life;
        self.oracle.stats.restarts += 1;
        if self.plan.profile.knows_several() {
            self.oracle.forgets(machine.agent);
            self.agenda.at(now, Event::Steer(place, life));
        } else {
            self.agenda.at(now, Event::Dial(place, life));
        }
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
        match self.net.dial(place, 0, now) {
            Some((id, us)) => {
                process.connection = Some(id);
                self.dialled(place, life, (id, us));
            }
            None => self.agent_loses(place),
        }
    }

    /// A connection is on its way.
    pub(super) fn dialled(&mut self, place: usize, life: u64, (id, us): (ConnectionId, i64)) {
        self.agenda.after(us, Event::Connected(place, life, id));
        self.agenda
            .after(HANDSHAKE_TIMEOUT_US, Event::GreetLate(place, life, id));
    }

    pub(super) fn connected(&mut self, place: usize, id: ConnectionId) {
        if !self.net.is_open(id, Side::Agent) {
            return;
        }
        let at = self.net.site_of(id);
        let running = at.and_then(|at| self.sites[at].running.as_mut());
        let Some(running) = running else {
            match self.probes_on(id) {
                Some(place) => self.probe_fails(place),
                None => self.agent_loses(place),
            }
            return;
        };
        let talk = Talk {
            agent: self.machines[place].agent,
            receiver: Receiver::new(),
            ack_at: None,
        };
        running.talks.insert(id, talk);
        match self.probes_on(id) {
            Some(place) => self.home_answers(place, id),
            None => self.greet(place, id),
        }
    }

    /// A connection stands: what is said first.
    pub(super) fn greet(&mut self, place: usize, id: ConnectionId) {
        let (several, at) = (self.plan.profile.knows_several(), self.net.site_of(id));
        let machine = &mut self.machines[place];
        let Some(process) = &mut machine.process else {
            return;
        };
        let hello = match at {
            Some(at) if several => {
                let known = process.sender.cursor();
                self.oracle.credits(machine.agent, &known);
                process.sender.on_time(self.agenda.now());
                process.sender.on_connected_to(place_of(at), "gw", "world")
            }
            _ => process.sender.on_connected("gw", "world"),
        };
        match hello {
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
            life,
            ..
        } = &mut self.machines[place];
        let Some(process) = process else { return };
        let several = process.way.is_some();
        let done = match parse(bytes) {
            Ok(Message::Welcome(page)) => {
                process.greeted |= !page.more;
                if process.greeted {
                    let has = |key| spool.stored(key).is_some();
                    self.oracle.greeted(*agent, id, has);
                }
                let flaps = self.flaps.get_mut(&place).filter(|(left, _)| *left > 0);
                if let Some((left, us)) = flaps.filter(|_| process.greeted) {
                    *left -= 1;
                    self.agenda.after(*us, Event::Flap(id));
                }
                let hash_of = |key| spool.stored(key).map(|item| item.hash);
                let done = process.sender.on_welcome(page, hash_of);
                self.oracle.told(*agent, &process.sender.poll_notices());
                done
            }
            Ok(Message::Ack(ack)) => {
                self.oracle.heard((*agent, id), &ack);
                let present = BufferId::new(*life, 0);
                self.oracle
                    .credited((*agent, id), &ack, |key| key.buffer == present);
                process.note(&ack, now);
                if let Some(way) = process.way.as_mut().filter(|_| !ack.ranges.is_empty()) {
                    way.route.on_progress(now);
                }
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
        let greeted = process.greeted;
        if let Err(illegal) = done {
            self.oracle.violate(Invariant::I11, || illegal.to_string());
        }
        if several && greeted {
            self.arrives(place, id);
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
        if let Some(way) = &process.way {
            process.sender.on_time(now);
            if way.leaves {
                return;
            }
        }
        let present = BufferId::new(*life, 0);
        if let Some(until) = process.held_until(now) {
            self.agenda.at(until, Event::Fill(place, *life));
            return;
        }
        while let Some((key, urgency)) = process.sender.poll_send() {
            let Some(item) = spool.stored(key) else {
                self.oracle.asked_for(*agent, key);
                process.sender.skip(key);
                self.oracle.told(*agent, &process.sender.poll_notices());
                continue;
            };
            if spool.reclaim(&item) {
                self.oracle.came_back(*agent, &item);
            }
            if !process.sender.offer(&item.outgoing(), urgency) {
                continue;
            }
            let several = process.way.is_some();
            let marked = several && process.sender.frame_kind(item.key) == FrameKind::BatchInDoubt;
            self.oracle.sent(id, &item);
            if several {
                let old = item.key.buffer != present;
                self.oracle.sent_to((*agent, id), &item, (marked, old));
            }
            let arrival = self.net.batch(id, item.bytes, now);
            let again = arrival.again.map(|at| (at, false));
            if again.is_some() {
                self.oracle.doubled(id, item.key);
            }
            for (at, damaged) in std::iter::once((arrival.at, arrival.damaged)).chain(again) {
                self.agenda
                    .at(at, Event::Batch(id, (item, marked), damaged));
            }
        }
        self.oracle.under_way(process.sender.in_flight());
        if let Some(at) = process.wakes_at() {
            self.agenda.at(at, Event::Fill(place, *life));
        }
        if process.sender.wants_new_session() {
            self.agent_loses(place);
        }
    }

    pub(super) fn save(&mut self, place: usize) {
        let machine = &mut self.machines[place];
        if let Some(process) = &mut machine.process {
            let cursor = process.sender.cursor();
            process.sender.on_saved(&cursor);
            machine.spool.save(cursor);
        }
        self.agenda.after(SAVE_US, Event::Save(place, machine.life));
    }

    /// The agent's end of its connection is over, if it had one; it dials again.
    pub(super) fn agent_loses(&mut self, place: usize) {
        let id = self.connection_of(place);
        self.ended(place);
        let Some(id) = id else { return };
        self.hangs_up(id);
    }

    /// The agent has no connection any more, and did not get one: when it dials again.
    pub(super) fn ended(&mut self, place: usize) {
        if self.plan.profile.knows_several() {
            return self.strays(place);
        }
        let machine = &mut self.machines[place];
        let wait = machine.lost(self.plan.seed);
        self.agenda.after(wait, Event::Dial(place, machine.life));
    }

    /// The agent ends its end of a connection.
    pub(super) fn hangs_up(&mut self, id: ConnectionId) {
        if self.net.close(id, Side::Agent) && self.net.is_open(id, Side::Site) {
            let at = self.net.message(id, Side::Site, self.agenda.now());
            self.agenda.at(at, Event::Over(id, Side::Site));
        }
    }
}
