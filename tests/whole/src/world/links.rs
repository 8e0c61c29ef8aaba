//! Connections between agents and the aggregator: dials, what is said and sent on them, how each
//! end learns that they are over.

use super::{Event, World, encode};
use crate::plan::Node;
use crate::site::Said;
use bytes::Bytes;
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::frame::{FrameKind, RawFrame, frame};
use tributary_protocol::message::Message;
use tributary_uplink::link::Do;
use tributary_world::limits::IDLE_TIMEOUT_US;
use tributary_world::net::{ConnectionId, Side};

/// What arrived on a control stream.
pub(super) fn parse(bytes: &Bytes) -> Result<Message, String> {
    let frame = RawFrame(bytes.clone()).verify();
    let frame = frame.map_err(|error| error.to_string())?;
    Message::parse(&frame).map_err(|error| error.to_string())
}

/// What a frame of a batch holds, for people.
pub(super) fn name(bytes: &Bytes) -> String {
    let frame = RawFrame(bytes.clone()).verify();
    let batch = frame.ok().and_then(|it| SealedBatch::open(it.payload).ok());
    batch.map_or_else(
        || "a damaged batch".to_owned(),
        |batch| format!("batch {} of {} rows", batch.key(), batch.rows()),
    )
}

impl World<'_> {
    fn is_alive(&self, place: usize, life: u64) -> bool {
        let sending = self.agents.get(place);
        sending.is_some_and(|it| it.life == life && it.is_up())
    }

    fn agent_on(&self, id: ConnectionId) -> Option<usize> {
        let of = self.net.agent_of(id)?;
        let sending = self.agents.get(of)?;
        (sending.connection == Some(id) && sending.is_up()).then_some(of)
    }

    /// Does what the agent's uplink says, until it has nothing to say.
    pub(super) fn ask_uplink(&mut self, place: usize) {
        let now = self.now();
        loop {
            let random = self.dice("uplink").bits();
            let Some(uplink) = self.agents[place].uplink() else {
                return;
            };
            match uplink.next(now, random) {
                Do::Dial => self.dial(place),
                Do::Probe | Do::Adopt => unreachable!("there is one aggregator"),
                Do::Say(message) => self.agent_says(place, &message),
                Do::Send(batch, _) => self.send(place, &batch),
                Do::Leave(message) => {
                    self.agent_says(place, &message);
                    self.agent_closes(place);
                }
                Do::Hang => self.agent_closes(place),
                Do::Save(save) => {
                    let wait = self.dice("save").us(0, 300_000);
                    self.agents[place].saving = Some((now + wait, save));
                }
                Do::Wait(at) => {
                    self.agents[place].ask_at = at.max(now + 1);
                    return;
                }
                Do::Done(_) => {
                    self.agents[place].ask_at = i64::MAX;
                    return;
                }
            }
        }
    }

    /// A cursor reaches the disk.
    pub(super) fn save(&mut self, place: usize) {
        let now = self.now();
        let sending = &mut self.agents[place];
        let Some((_, save)) = sending.saving.take() else {
            return;
        };
        let kept = save();
        sending.ask_at = now;
        if let Some(uplink) = sending.uplink() {
            uplink.saved(kept, now);
        }
    }

    fn dial(&mut self, place: usize) {
        let now = self.now();
        let site_up = self.site.is_up();
        let life = self.agents[place].life;
        match self.net.dial(place, 0, now).filter(|_| site_up) {
            Some((id, after)) => {
                self.agents[place].connection = Some(id);
                self.agenda.after(after, Event::Connected(place, life, id));
            }
            None => {
                let wait = self.dice("refused").us(0, 3_000_000);
                self.agenda.after(wait, Event::NotConnected(place, life));
            }
        }
    }

    pub(super) fn not_connected(&mut self, place: usize, life: u64) {
        if !self.is_alive(place, life) {
            return;
        }
        let now = self.now();
        let sending = &mut self.agents[place];
        sending.ask_at = now;
        if let Some(uplink) = sending.uplink() {
            uplink.lost("refused");
        }
    }

    pub(super) fn connected(&mut self, place: usize, life: u64, id: ConnectionId) {
        let now = self.now();
        let dialled = self.agents[place].connection == Some(id) && self.is_alive(place, life);
        if !dialled || !self.site.connected(id, place, now) {
            // One of both is not there any more.
            self.net.close(id, Side::Site);
            if dialled {
                self.agent_loses(id);
            }
            return;
        }
        let sending = &mut self.agents[place];
        sending.ask_at = now;
        if let Some(uplink) = sending.uplink() {
            uplink.dialled(now);
        }
    }

    fn agent_says(&mut self, place: usize, message: &Message) {
        if let Some(id) = self.agents[place].connection {
            self.say(id, Side::Site, message);
        }
    }

    /// The agent closes its connection, and the other end learns of it.
    fn agent_closes(&mut self, place: usize) {
        let Some(id) = self.agents[place].connection.take() else {
            return;
        };
        let at = self.net.message(id, Side::Site, self.agenda.now());
        self.agenda.at(at, Event::Over(id, Side::Site));
        self.net.close(id, Side::Agent);
    }

    fn send(&mut self, place: usize, batch: &SealedBatch) {
        let now = self.now();
        self.oracle.sealed(place, batch);
        let Some(id) = self.agents[place].connection else {
            return;
        };
        let bytes = frame(FrameKind::Batch, batch.bytes());
        let bytes = bytes.expect("a batch fits a frame");
        let arrival = self.net.batch(id, bytes.len() as u64, now);
        if let Some(again) = arrival.again {
            self.agenda.at(again, Event::Batch(id, bytes.clone()));
        }
        self.agenda.at(arrival.at, Event::Batch(id, bytes));
    }

    fn say(&mut self, id: ConnectionId, to: Side, message: &Message) {
        let at = self.net.message(id, to, self.agenda.now());
        self.agenda.at(at, Event::Hear(id, to, encode(message)));
    }

    pub(super) fn agent_loses(&mut self, id: ConnectionId) {
        let place = self.agent_on(id);
        self.net.close(id, Side::Agent);
        let Some(place) = place else { return };
        let now = self.now();
        let sending = &mut self.agents[place];
        sending.connection = None;
        sending.ask_at = now;
        if let Some(uplink) = sending.uplink() {
            uplink.lost("lost");
        }
    }

    pub(super) fn site_loses(&mut self, id: ConnectionId) {
        self.net.close(id, Side::Site);
        self.site.lost(id);
    }

    pub(super) fn agent_hears(&mut self, id: ConnectionId, bytes: &Bytes) {
        let now = self.now();
        let Some(place) = self.agent_on(id) else {
            return;
        };
        let message = match parse(bytes) {
            Ok(message) => message,
            Err(error) => return self.oracle.odd(&error),
        };
        let sending = &mut self.agents[place];
        sending.ask_at = now;
        if let Some(uplink) = sending.uplink() {
            uplink.message(message, now);
        }
    }

    /// What the aggregator's conversations have to say.
    pub(super) fn site_says(&mut self, said: Vec<(ConnectionId, Said)>) {
        for (id, said) in said {
            match said {
                Said::Message(message) => {
                    if let (Message::Ack(ack), Some(agent)) = (&message, self.net.agent_of(id)) {
                        self.oracle.acknowledged(agent, ack);
                    }
                    self.say(id, Side::Agent, &message);
                }
                Said::End(reject) => {
                    if let Some(reject) = reject {
                        self.rejected(id, &reject);
                        self.say(id, Side::Agent, &Message::Reject(reject));
                    }
                    let at = self.net.message(id, Side::Agent, self.agenda.now());
                    self.agenda.at(at, Event::Over(id, Side::Agent));
                    self.site_loses(id);
                }
            }
        }
    }

    /// An honest agent is fenced by a connection of its own, and refused by nobody.
    fn rejected(&mut self, id: ConnectionId, reject: &tributary_protocol::message::Reject) {
        use tributary_protocol::message::RejectCode;
        if !matches!(reject.code, RejectCode::Fenced | RejectCode::Closing) {
            self.oracle.violate(crate::oracle::Invariant::I11, || {
                format!("connection {}: {:?} {}", id.0, reject.code, reject.detail)
            });
        }
    }

    /// Every connection of a process that is gone: the other end learns of it at once, or when it
    /// has heard nothing for too long.
    pub(super) fn connections_die(&mut self, ids: Vec<ConnectionId>, of: Node) {
        for id in ids {
            let mut dice = self.dice("dies");
            let wait = match dice.below(3) {
                0 => IDLE_TIMEOUT_US,
                _ => dice.us(0, 2_000_000),
            };
            let (dead, other) = match of {
                Node::Site => (Side::Site, Side::Agent),
                Node::Agent(_) => (Side::Agent, Side::Site),
            };
            self.net.close(id, dead);
            self.agenda.after(wait, Event::Over(id, other));
        }
    }
}
