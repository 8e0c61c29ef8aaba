//! What the uplink decides: when to dial, what to say and send, when to keep the cursor, and when
//! it is over. Told events and the time, it owns no connection, clock, task or randomness; the
//! spool it reads is given.
//!
//! Times are microseconds on a clock that never goes back.

use crate::backoff;
use crate::limits::{
    BACKOFF_MIN, BUSY_WAIT_MAX, CURSOR_INTERVAL, HANDSHAKE_TIMEOUT, NOTICE_RANGES_MAX, TICK,
};
use crate::spool::{Save, Sealed, Spool};
use crate::status::{Status, look};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{error, info, warn};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::message::{Ack, AgainReason, Message, Reject, RejectCode, Welcome};
use tributary_protocol::session::{Lookup, Notice, Outgoing, Place, Sender, SenderCursor, Urgency};
use way::Way;

mod fences;
mod way;

/// What software we are, as the other end sees it.
const SOFTWARE: &str = concat!("tributary ", env!("CARGO_PKG_VERSION"));

/// What is to be done next.
pub enum Do {
    /// Connect to [this](Uplink::at) of the list, and say [`dialled`](Uplink::dialled) or
    /// [`lost`](Uplink::lost).
    Dial,
    /// Connect to the first of the list beside the session that stands, and say
    /// [`probed`](Uplink::probed) or [`probe_failed`](Uplink::probe_failed).
    Probe,
    /// What was probed is the connection from now on.
    Adopt,
    /// Say this on the control stream; [`lost`](Uplink::lost) when that fails.
    Say(Message),
    /// Send this batch on a stream of its own; [`lost`](Uplink::lost) when that fails.
    Send(SealedBatch, Urgency),
    /// Say this last, and close the connection. It is not spoken of any more.
    Leave(Message),
    /// The other end broke the protocol, or says nothing: close the connection.
    Hang,
    /// Do this where a disk may be waited for, and say [`saved`](Uplink::saved). One at a time.
    Save(Save),
    /// Nothing before this time, unless something happens.
    Wait(i64),
    /// It is over; whether everything was acknowledged.
    Done(bool),
}

impl std::fmt::Debug for Do {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dial => f.write_str("Dial"),
            Self::Probe => f.write_str("Probe"),
            Self::Adopt => f.write_str("Adopt"),
            Self::Say(message) => f.debug_tuple("Say").field(message).finish(),
            Self::Send(batch, urgency) => {
                let mut send = f.debug_tuple("Send");
                send.field(&batch.key()).field(urgency).finish()
            }
            Self::Leave(message) => f.debug_tuple("Leave").field(message).finish(),
            Self::Hang => f.write_str("Hang"),
            Self::Save(_) => f.write_str("Save"),
            Self::Wait(at) => f.debug_tuple("Wait").field(at).finish(),
            Self::Done(drained) => f.debug_tuple("Done").field(drained).finish(),
        }
    }
}

/// Where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It is not connected, and not to be before a wait is over that has still to be drawn.
    Apart,
    /// The same until this time.
    Waiting(i64),
    /// It was told to dial.
    Dialling,
    /// The connection to the first of the list stands since then, and is to be taken.
    Adopting(i64),
    /// A connection stands: it is to be greeted, and to answer until this time.
    Connected(i64),
    /// The answer is awaited until this time.
    Greeting(i64),
    /// A session is open.
    Open,
    /// The connection is to be closed at once.
    Hanging,
    /// No session is opened any more; the last cursor is to be kept.
    Closing,
    /// That is under way, or done.
    Over,
}

/// What there is to keep of what was acknowledged.
#[derive(Clone, Default, Debug)]
struct Saving {
    due: Option<i64>,
    under_way: bool,
    /// Nothing is kept before this, since it failed.
    not_before: i64,
    /// What is being kept, where it matters when it is.
    cursor: Option<SenderCursor>,
}

/// See the module.
pub struct Uplink<S> {
    way: Way,
    name: String,
    drain_deadline_us: i64,
    sender: Sender,
    spool: S,
    status: watch::Sender<Status>,
    phase: Phase,
    /// When it was said that nothing more will be sealed.
    closed_at: Option<i64>,
    /// Sessions in a row in which nothing was acknowledged, and tries without any.
    failures: u32,
    /// Nothing is sent before this, because the aggregator had no room; and how often in a row.
    hold: (Option<i64>, u32),
    /// Whether this session acknowledged anything.
    acked: bool,
    /// When a newer session that is not ours ended one, the newest last.
    fenced: VecDeque<i64>,
    saving: Saving,
}

impl<S> std::fmt::Debug for Uplink<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplink")
            .field("address", &self.way.address())
            .field("phase", &self.phase)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

impl<S: Spool> Uplink<S> {
    /// An uplink to the aggregator at `address` of an agent that people call `name`. Once nothing
    /// more is sealed, what is left may take so long.
    pub fn new(
        (address, name): (&str, &str),
        drain_deadline: Duration,
        (mut sender, spool): (Sender, S),
        status: watch::Sender<Status>,
    ) -> Self {
        sender.keep_to(&[Place::of(address)]);
        Self {
            way: Way::to(address),
            name: name.to_owned(),
            drain_deadline_us: us(drain_deadline),
            sender,
            spool,
            status,
            phase: Phase::Waiting(i64::MIN),
            closed_at: None,
            failures: 0,
            hold: (None, 0),
            acked: false,
            fenced: VecDeque::new(),
            saving: Saving::default(),
        }
    }

    /// Who decides what is sent, to look at.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// Where the batches are.
    pub fn spool(&mut self) -> &mut S {
        &mut self.spool
    }

    /// How it stands, for others to see.
    pub fn status(&self) -> &watch::Sender<Status> {
        &self.status
    }

    /// A batch is durable in the spool.
    pub fn sealed(&mut self, sealed: Sealed) {
        self.sender.on_sealed(sealed.key, sealed.bytes);
        self.look();
    }

    /// Nothing more will be sealed.
    pub fn closed(&mut self, now: i64) {
        self.closed_at.get_or_insert(now);
        if let Phase::Waiting(until) = &mut self.phase {
            *until = now.min(*until);
        }
    }

    /// The connection that was asked for stands, since then: its greeting is to be over in time.
    pub fn dialled(&mut self, since: i64) {
        if self.phase == Phase::Dialling {
            self.phase = Phase::Connected(since.saturating_add(us(HANDSHAKE_TIMEOUT)));
        }
    }

    /// There is no connection, or no more.
    pub fn lost(&mut self, problem: String) {
        if matches!(
            self.phase,
            Phase::Dialling | Phase::Connected(_) | Phase::Greeting(_) | Phase::Open
        ) {
            self.disconnected(problem);
            self.part(Phase::Apart);
        }
    }

    /// What was to be [saved](Do::Save) is; or it could not be, and is tried again later.
    pub fn saved(&mut self, kept: bool, now: i64) {
        self.saving.under_way = false;
        let cursor = self.saving.cursor.take();
        if !kept {
            let again = now.saturating_add(us(CURSOR_INTERVAL));
            self.saving.due = Some(again);
            self.saving.not_before = again;
        } else if let Some(cursor) = cursor {
            self.sender.on_saved(&cursor);
        }
    }

    /// Something of what is under way arrived over there: of the aggregator itself that says
    /// nothing.
    pub fn moved(&mut self, now: i64) {
        let refuses = self.hold.1 > 0;
        if self.phase == Phase::Open && self.sender.in_flight() > 0 && !refuses {
            self.way.moves(now);
        }
    }

    /// The aggregator says something.
    pub fn message(&mut self, message: Message, now: i64) {
        let taken = match (self.phase, message) {
            (Phase::Greeting(_), Message::Welcome(page)) => self.welcome(page, now),
            (Phase::Open, Message::Ack(ack)) => self.ack(&ack, now),
            (Phase::Greeting(_) | Phase::Open, other) => {
                self.note_fence(&other, now);
                Err(unexpected(&other))
            }
            // It was not heard in time.
            _ => return,
        };
        if let Err(problem) = taken {
            self.disconnected(problem);
            self.part(Phase::Hanging);
        }
    }

    /// What to do now. `random` is any 64 bits: agents with other ones come back at other times.
    pub fn poll(&mut self, now: i64, random: u64) -> Do {
        self.sender.on_time(now);
        if let Some(save) = self.save(now) {
            return Do::Save(save);
        }
        match self.phase {
            Phase::Apart => {
                self.phase = self.turn_to_next(now, us(self.wait(random)));
                self.poll(now, random)
            }
            Phase::Waiting(until) if self.is_over(now) && until <= now => {
                self.phase = Phase::Closing;
                self.poll(now, random)
            }
            Phase::Waiting(until) if until <= now => self.dial(now),
            Phase::Waiting(until) => self.pause(Some(until), now),
            Phase::Dialling => self.pause(None, now),
            Phase::Adopting(since) => self.adopt(since),
            Phase::Connected(until) | Phase::Greeting(until) if until <= now => {
                self.disconnected("no Welcome in time".to_owned());
                self.part(Phase::Apart);
                Do::Hang
            }
            Phase::Connected(until) => self.greet(until),
            Phase::Greeting(until) => self.pause(Some(until), now),
            Phase::Open => self.session(now),
            Phase::Hanging => {
                self.phase = Phase::Apart;
                Do::Hang
            }
            Phase::Closing => self.pause(None, now),
            Phase::Over if self.saving.under_way => self.pause(None, now),
            Phase::Over => Do::Done(self.sender.is_drained()),
        }
    }

    /// Waits, and looks after itself meanwhile.
    fn pause(&mut self, until: Option<i64>, now: i64) -> Do {
        self.look();
        self.forget_fences(now);
        let tick = now.saturating_add(us(TICK));
        let saving = self.saving.due.filter(|_| !self.saving.under_way);
        let next = until.into_iter().chain(saving).fold(tick, i64::min);
        Do::Wait(next)
    }

    /// How long it is apart. Draining waits no longer than it may.
    fn wait(&self, random: u64) -> Duration {
        let wait = backoff::wait(self.failures, random);
        match self.closed_at {
            Some(_) => wait.min(BACKOFF_MIN),
            None => wait,
        }
    }

    /// Whether nothing more comes in, and nothing is left or there is no time left for it.
    fn is_over(&self, now: i64) -> bool {
        self.closed_at.is_some_and(|at| {
            self.sender.is_drained() || now.saturating_sub(at) >= self.drain_deadline_us
        })
    }

    /// What is to be kept now of what was acknowledged.
    fn save(&mut self, now: i64) -> Option<Save> {
        let is_due = self.saving.due.is_some_and(|due| due <= now) || self.must_save_first();
        let is_due = is_due && self.saving.not_before <= now;
        let is_last = self.phase == Phase::Closing;
        if self.saving.under_way || !(is_due || is_last) {
            return None;
        }
        if is_last {
            self.phase = Phase::Over;
        }
        let cursor = self.sender.cursor();
        let save = self.spool.save(&cursor);
        self.saving = Saving {
            due: None,
            under_way: true,
            not_before: 0,
            cursor: self.way.is_choice().then_some(cursor),
        };
        Some(save)
    }

    /// Tells the sender what the spool gave up, and everybody what is left.
    pub fn look(&mut self) {
        look(&mut self.sender, &mut self.spool, &self.status);
    }

    fn disconnected(&mut self, problem: String) {
        let changed = self.status.borrow().problem.as_ref() != Some(&problem);
        if changed {
            warn!(target = self.way.address(), problem, "uplink down");
        }
        self.status.send_modify(|status| {
            status.connected = false;
            status.problem = Some(problem);
        });
    }

    /// A session, or the try at one, is over.
    fn part(&mut self, phase: Phase) {
        self.sender.on_lost();
        // Only an acknowledgement shows that coming back at once is of any use.
        self.failures = match std::mem::take(&mut self.acked) {
            true => 0,
            false => self.failures.saturating_add(1),
        };
        self.phase = phase;
        self.look();
    }

    fn greet(&mut self, until: i64) -> Do {
        let place = Place::of(self.way.address());
        match self.sender.on_connected_to(place, &self.name, SOFTWARE) {
            Ok(hello) => {
                self.phase = Phase::Greeting(until);
                Do::Say(Message::Hello(hello))
            }
            Err(illegal) => {
                self.disconnected(illegal.to_string());
                self.part(Phase::Apart);
                Do::Hang
            }
        }
    }

    fn welcome(&mut self, page: Welcome, now: i64) -> Result<(), String> {
        let more = page.more;
        let spool = &mut self.spool;
        let look_up = |key| match spool.read(key) {
            Ok(batch) => Lookup::There(batch.hash()),
            Err(error) if error.passing => Lookup::Unread,
            Err(_) => Lookup::Gone,
        };
        let taken = self.sender.on_welcome(page, look_up);
        self.tell_all();
        taken.map_err(|e| e.to_string())?;
        if more {
            return Ok(());
        }
        self.way.welcomed(now)?;
        self.trim(now);
        info!(
            target = self.way.address(),
            session = self.sender.session().map_or(0, |session| session.0),
            "uplink up"
        );
        let (address, away) = (self.way.address(), self.way.at() > 0);
        self.status.send_modify(|status| {
            status.connected = true;
            address.clone_into(&mut status.aggregator);
            status.away = away;
            status.problem = None;
            status.sessions += 1;
        });
        self.phase = Phase::Open;
        Ok(())
    }

    fn tell_all(&mut self) {
        let notices = self.sender.poll_notices();
        notices.iter().for_each(|notice| self.tell(notice));
    }

    /// What the aggregator acknowledged once and does not hold.
    fn tell(&self, notice: &Notice) {
        let Notice::WentBack {
            log,
            lane,
            ranges,
            again,
        } = notice;
        let gone: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let (buffer, lane) = (lane.buffer, lane.lane.name());
        // The first few: the aggregator's operator looks for them in its sinks.
        let first: Vec<_> = ranges.iter().take(NOTICE_RANGES_MAX).collect();
        match gone {
            0 => warn!(%log, %buffer, lane, again, "the aggregator lost batches that it had \
                acknowledged; they are still here, and are sent again"),
            _ => error!(%log, %buffer, lane, gone, ?first, again, "the aggregator lost batches \
                that it had acknowledged and that are gone from here: look for them in what it \
                had written, or restore its journal"),
        }
        self.status.send_modify(|status| {
            status.went_back_again += again;
            status.went_back_gone += gone;
        });
    }

    fn ack(&mut self, ack: &Ack, now: i64) -> Result<(), String> {
        self.sender.on_ack(ack).map_err(|e| e.to_string())?;
        if !ack.ranges.is_empty() {
            self.acked = true;
            self.way.progresses(now);
        }
        self.hold_back(ack, now);
        self.trim(now);
        Ok(())
    }

    /// An aggregator without room is not asked again at once, but ever less often.
    fn hold_back(&mut self, ack: &Ack, now: i64) {
        let refused = ack
            .again
            .iter()
            .any(|again| again.reason == AgainReason::Busy);
        if !refused {
            self.hold = (None, 0);
            return;
        }
        let (_, times) = self.hold;
        let wait = backoff::wait(times, u64::MAX).min(BUSY_WAIT_MAX);
        let until = now.saturating_add(us(wait));
        self.hold = (Some(until), times.saturating_add(1));
    }

    fn trim(&mut self, now: i64) {
        for trim in self.sender.poll_trims() {
            self.spool.trim(trim);
        }
        let due = now.saturating_add(us(CURSOR_INTERVAL));
        self.saving.due.get_or_insert(due);
    }

    /// One step of a session: sends what the window allows, or ends it, or waits.
    fn session(&mut self, now: i64) -> Do {
        if let Some(send) = self.fill(now) {
            return send;
        }
        let is_over = self.is_over(now);
        if is_over || self.sender.wants_new_session() {
            self.status.send_modify(|status| status.connected = false);
            match is_over {
                true => self.phase = Phase::Closing,
                false => self.part(Phase::Apart),
            }
            return Do::Leave(goodbye());
        }
        if let Some(turn) = self.look_around(now) {
            return turn;
        }
        let held = self.hold.0.filter(|until| *until > now);
        self.pause(held, now)
    }

    /// The next batch to send, if there is one and the aggregator may have room.
    fn fill(&mut self, now: i64) -> Option<Do> {
        let holds = self.hold.0.is_some_and(|until| now < until);
        if self.must_save_first() {
            // The disk holds this up, and not the aggregator.
            self.way.moves(now);
            return None;
        }
        if holds || self.way.is_leaving() {
            return None;
        }
        while let Some((key, urgency)) = self.sender.poll_send() {
            let batch = match self.spool.read(key) {
                Ok(batch) => batch,
                Err(error) if error.passing => {
                    warn!(%error, "tried again soon");
                    // Our own disk holds this up, and not the aggregator.
                    self.way.moves(now);
                    let until = now.saturating_add(us(BACKOFF_MIN));
                    self.hold = (Some(until), self.hold.1);
                    return None;
                }
                Err(error) => {
                    warn!(%error, "passed over");
                    self.sender.skip(key);
                    self.tell_all();
                    self.status.send_modify(|status| status.unreadable += 1);
                    continue;
                }
            };
            let bytes = batch.bytes().len() as u64;
            // It may be a gap that stands for more than what was asked for.
            let numbers = batch.numbers();
            let outgoing = Outgoing {
                key: batch.key(),
                count: numbers.end - numbers.start,
                bytes,
                hash: batch.hash(),
                series_needed: batch.series_needed(),
                series_after: batch.series_needed().saturating_add(batch.rows()),
            };
            if self.sender.offer(&outgoing, urgency) {
                self.status
                    .send_modify(|status| status.batch_bytes_sent += bytes);
                return Some(Do::Send(batch, urgency));
            }
        }
        if self.sender.in_flight() == 0 {
            self.way.progresses(now);
        }
        None
    }
}

/// What ends a session on our own account.
fn goodbye() -> Message {
    Message::Reject(Reject {
        code: RejectCode::Closing,
        detail: "the agent ends the session".to_owned(),
        retry_after_ms: 0,
        batch: None,
    })
}

fn unexpected(message: &Message) -> String {
    match message {
        Message::Reject(reject) => {
            format!(
                "refused by the aggregator ({:?}): {}",
                reject.code, reject.detail
            )
        }
        other => format!("the aggregator broke the protocol: {other:?}"),
    }
}

fn us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
