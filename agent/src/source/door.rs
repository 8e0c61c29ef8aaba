//! The listener's connections without sockets, tasks and clocks, for a simulation: the same cores,
//! the same registry and sessions, driven by whoever is told when they are due. Everybody is let
//! in, TLS and passwords are elsewhere, and a will is said as soon as its client is lost, whatever
//! its delay.

use super::connection::{Admission, Arrival, Audience, Connection, Now, Order};
use super::hub::Hub;
use super::registry::{Registry, Signal};
use super::sessions::Sessions;
use crate::limits::{DOOR_INBOX_BYTES_MAX, DOORS_MAX, LAST_READS_MAX, READ_BYTES};
use crate::seal::Now as Told;
use crate::spool::RefuseNew;
use crate::wal::{Batch, Durable, Queue};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Told the door, and how far its messages are durable, where that is acknowledged.
pub type Heard = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// What all doors share.
pub(crate) struct Doors {
    queue: Queue,
    sessions: Sessions,
    refuse: RefuseNew,
    hub: Hub,
    heard: Heard,
    registry: Registry,
    messages_per_s: u32,
    /// What the steady clock of who drives them is counted from.
    base: Instant,
    doors: BTreeMap<u64, State>,
}

/// What the connection tells the log to tell.
struct Ear {
    door: u64,
    heard: Heard,
    signal: Arc<Signal>,
}

impl Durable for Ear {
    fn durable(&self, upto: u64) {
        (self.heard)(self.door, upto);
        self.signal.durable(upto);
    }
}

/// One connection.
struct State {
    core: Connection,
    signal: Arc<Signal>,
    /// How far it knows that it is durable.
    durable: u64,
    client: Option<Box<str>>,
    /// Who waits to be let in.
    arrival: Option<Box<Arrival>>,
    /// What the client sent, and nobody has read.
    inbox: Vec<u8>,
    /// The client closed its end, or is gone.
    ended: bool,
    /// What waits for room in the queue; nothing is read meanwhile.
    batch: Option<Batch>,
    /// Its will was handed over, or waits for room.
    will_said: bool,
}

impl Doors {
    pub fn new(
        (queue, sessions): (Queue, Sessions),
        (refuse, hub): (RefuseNew, Hub),
        heard: Heard,
        messages_per_s: u32,
    ) -> Self {
        Self {
            queue,
            sessions,
            refuse,
            hub,
            heard,
            registry: Registry::default(),
            messages_per_s,
            base: Instant::now(),
            doors: BTreeMap::new(),
        }
    }

    /// The steady clock as the cores know it.
    pub fn instant(&self, now: Told) -> Instant {
        self.base + Duration::from_micros(now.monotonic.max(0).unsigned_abs())
    }

    fn now(&self, now: Told) -> Now {
        Now {
            instant: self.instant(now),
            // At millisecond resolution, as the listener has it.
            unix_us: now.wall - now.wall.rem_euclid(1_000),
        }
    }

    /// Whether there is such a connection, or what is left of it.
    pub fn is_there(&self, id: u64) -> bool {
        self.doors.contains_key(&id)
    }

    /// A client connects; `false` when there is one of this number, or too many.
    pub fn connect(&mut self, id: u64, now: Told) -> bool {
        if self.is_there(id) {
            return false;
        }
        let Some(signal) = self.registry.enter(id, DOORS_MAX) else {
            return false;
        };
        let audience = Audience {
            hub: self.hub.clone(),
            signal: Arc::clone(&signal),
        };
        let core = Connection::new(id.into(), self.messages_per_s, self.instant(now))
            .refusing(self.refuse.clone())
            .reading(audience);
        let state = State {
            core,
            signal,
            durable: 0,
            client: None,
            arrival: None,
            inbox: Vec::new(),
            ended: false,
            batch: None,
            will_said: false,
        };
        self.doors.insert(id, state);
        true
    }

    /// Bytes come from the client; gives how many there was room for.
    pub fn bytes(&mut self, id: u64, bytes: &[u8]) -> usize {
        let Some(state) = self.doors.get_mut(&id).filter(|state| !state.ended) else {
            return 0;
        };
        let room = DOOR_INBOX_BYTES_MAX.saturating_sub(state.inbox.len());
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        state.inbox.extend_from_slice(taken);
        taken.len()
    }

    /// What is said to the client since this was asked last.
    pub fn said(&mut self, id: u64) -> Vec<u8> {
        let state = self.doors.get_mut(&id);
        state.map_or_else(Vec::new, |state| state.core.outgoing().split().to_vec())
    }

    /// The client is gone: what it sent is still read.
    pub fn hang_up(&mut self, id: u64) {
        if let Some(state) = self.doors.get_mut(&id) {
            state.ended = true;
        }
    }

    /// The agent ends: what was taken in is still acknowledged.
    pub fn shut_down(&self) {
        self.registry.order_all(Order::ShutDown);
    }

    /// Nothing will be acknowledged any more.
    pub fn abandon(&self) {
        self.registry.order_all(Order::Abandon);
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.doors.is_empty()
    }

    /// When which door wants a turn: µs on the steady clock.
    pub fn due(&self, now: Told) -> Vec<(u64, i64)> {
        let instant = self.instant(now);
        let at = |instant: Instant| {
            let us = instant.saturating_duration_since(self.base).as_micros();
            i64::try_from(us).unwrap_or(i64::MAX)
        };
        let doors = self.doors.iter();
        let due = doors.filter_map(|(id, state)| {
            if self.is_due(state, instant) {
                return Some((*id, now.monotonic));
            }
            let timeout = state.core.poll_timeout(instant)?;
            Some((*id, at(timeout).max(now.monotonic)))
        });
        due.collect()
    }

    fn is_due(&self, state: &State, now: Instant) -> bool {
        let core = &state.core;
        if let Some(batch) = &state.batch {
            return state.signal.has_order() || self.queue.try_room(batch.len_bytes()).is_some();
        }
        let reads = core.wants_read(now) && (!state.inbox.is_empty() || state.ended);
        let arrives = state.arrival.as_ref();
        let enters = arrives.is_some_and(|arrival| self.may_enter(state, arrival));
        state.signal.durable_upto() > state.durable
            || state.signal.has_order()
            || core.is_over().is_some()
            || core.wants_resume()
            || core.wants_deliver()
            || reads
            || enters
    }

    /// Whether it is known what session its client has, and no older connection of it speaks.
    fn may_enter(&self, state: &State, arrival: &Arrival) -> bool {
        let wants_session = !arrival.clean || arrival.session_expiry_s > 0;
        (self.sessions.are_known() || !wants_session) && state.signal.is_older_silent()
    }

    /// Does what is due at one door. What is published is delivered by the way.
    pub fn turn(&mut self, id: u64, now: Told) {
        let Some(mut state) = self.doors.remove(&id) else {
            return;
        };
        let at = self.now(now);
        self.hear(id, &mut state, at);
        self.push(id, &mut state);
        if state.batch.is_none() {
            self.enter(id, &mut state, at);
            self.read(id, &mut state, at);
            state.core.handle_timeout(at.instant);
        }
        state.core.handle_published();
        state.core.deliver();
        let is_over = state.core.is_over().is_some();
        if !is_over || !self.depart(id, &mut state, at) {
            self.doors.insert(id, state);
        }
    }

    fn hear(&self, id: u64, state: &mut State, at: Now) {
        state.durable = state.signal.durable_upto();
        state.core.handle_durable(state.durable, at.instant);
        if let Some(order) = state.signal.take_order() {
            if order == Order::TakenOver {
                // What it had sent before it came anew: its last words, and maybe its leave.
                (0..LAST_READS_MAX).for_each(|_| self.read(id, state, at));
            }
            if order == Order::Abandon {
                // What waits for room was never acknowledged: it may be sent again.
                state.batch = None;
            }
            state.core.handle_order(order);
        }
    }

    fn push(&self, id: u64, state: &mut State) {
        let Some(batch) = state.batch.take() else {
            return;
        };
        self.hand_over(id, state, batch);
    }

    /// Gives the log what a core made, or keeps it until there is room.
    fn hand_over(&self, id: u64, state: &mut State, mut batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let signal = Arc::clone(&state.signal);
        let heard = Arc::clone(&self.heard);
        let ear = Ear {
            door: id,
            heard,
            signal,
        };
        batch.tell(Arc::new(ear), state.core.appended());
        match self.queue.try_room(batch.len_bytes()) {
            Some(room) => self.queue.push(batch, room),
            None => state.batch = Some(batch),
        }
    }

    /// Lets in who waits for it, if that can be decided by now.
    fn enter(&self, id: u64, state: &mut State, at: Now) {
        let mut arrival = state.arrival.take();
        let may_enter = |arrival: &mut Box<Arrival>| self.may_enter(state, arrival);
        let Some(arrival) = arrival.take_if(may_enter) else {
            state.arrival = arrival;
            return;
        };
        let (session, clean, expiry_s) = (arrival.session, arrival.clean, arrival.session_expiry_s);
        let opened = self
            .sessions
            .open_now(session, clean, expiry_s, at.instant)
            .expect("it was asked whether sessions are known");
        let admission = Admission::Granted {
            session_present: opened.present,
            session_expiry_s: opened.expiry_s,
            session_changed: opened.changed,
            subscriptions: opened.subscriptions,
        };
        let mut batch = Batch::new();
        state.core.handle_admission(admission, at, &mut batch);
        self.hand_over(id, state, batch);
    }

    /// One read, as far as the client is listened to.
    fn read(&self, id: u64, state: &mut State, at: Now) {
        let resumes = state.batch.is_none() && state.core.wants_resume();
        if !resumes && (state.batch.is_some() || !state.core.wants_read(at.instant)) {
            return;
        }
        let length = match resumes {
            true => 0,
            false => state.inbox.len().min(READ_BYTES),
        };
        if length == 0 && !resumes {
            if state.ended {
                state.core.handle_end();
            }
            return;
        }
        let bytes: Vec<u8> = state.inbox.drain(..length).collect();
        let mut batch = Batch::new();
        state.core.handle_bytes(&bytes, at, &mut batch);
        if let Some(arrival) = state.core.take_arrival() {
            let client = arrival.client_id.clone();
            self.registry.name(id, &client);
            state.client = Some(client);
            state.arrival = Some(arrival);
        }
        self.hand_over(id, state, batch);
    }

    /// Hands over what an ended connection still holds, and says what is to be said of a client
    /// that was lost; whether nothing more comes from here.
    fn depart(&self, id: u64, state: &mut State, at: Now) -> bool {
        state.arrival = None;
        if state.batch.is_none() && !std::mem::replace(&mut state.will_said, true) {
            let mut batch = Batch::new();
            if let Some(will) = state.core.take_will() {
                will.write(at.unix_us, &mut batch);
            }
            self.hand_over(id, state, batch);
        }
        if state.batch.is_some() {
            return false;
        }
        if state.client.is_some() {
            let parked = state.core.take_subscriptions();
            let (session, expiry_s) = (state.core.session(), state.core.session_expiry_s());
            self.sessions
                .close_at(session, expiry_s, parked, at.instant);
        }
        state.signal.silence();
        self.registry.leave(id, state.client.as_deref());
        true
    }
}
