//! The shell around one subscription: its connection, its timers, its way into the log. It decides
//! nothing.
//!
//! The library is polled all the time, also while storage takes nothing: otherwise it would send no
//! pings, and the broker would end the connection. What holds a broker back is that its messages
//! are not acknowledged: also while the spool refuses what is new, since a broker keeps it.

use super::BrokerConfig;
use super::known::Store;
use super::link::{self, Broken, Handle, Heard, Link, Plan};
use super::outgoing::Outgoing;
use super::status::{BrokerStatus, Counters};
use super::subscriber::{Notice, Step, Subscriber};
use super::subscriptions::Ask;
use crate::limits::BROKER_BATCH_BYTES;
use crate::source::connection::Now;
use crate::source::listener::unix_us;
use crate::source::registry::Signal;
use crate::spool::RefuseNew;
use crate::wal::{Batch, Queue, Room};
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::pin::{Pin, pin};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

type RoomFuture = Pin<Box<dyn Future<Output = Option<Room>> + Send>>;

/// One subscription with everything that it owns.
pub(super) struct Task {
    pub(super) config: BrokerConfig,
    pub(super) client_id: String,
    pub(super) core: Subscriber,
    pub(super) store: Option<Store>,
    pub(super) queue: Queue,
    pub(super) refuse: RefuseNew,
    pub(super) signal: Arc<Signal>,
    pub(super) status: watch::Sender<BrokerStatus>,
    pub(super) counters: Counters,
    pub(super) intake: Intake,
    pub(super) stop: CancellationToken,
    /// Something was counted and not yet told.
    pub(super) untold: bool,
    /// What is published there.
    pub(super) outgoing: Outgoing,
}

/// Messages on their way into the log's queue.
#[derive(Default)]
pub(super) struct Intake {
    /// What is being filled.
    batch: Batch,
    /// What is full, or had to wait, oldest first.
    waiting: VecDeque<Batch>,
    waiting_bytes: usize,
    /// Room for the first that waits: kept over all events, so that it keeps its place.
    room: Option<RoomFuture>,
}

impl Intake {
    /// Bytes that are held beside the queue.
    fn held_bytes(&self) -> usize {
        self.waiting_bytes + self.batch.len_bytes()
    }

    /// Closes the batch that is being filled.
    fn close_batch(&mut self, signal: &Arc<Signal>, upto: u64) {
        if self.batch.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.tell(signal.clone(), upto);
        self.waiting_bytes += batch.len_bytes();
        self.waiting.push_back(batch);
    }

    /// Hands over what there is room for; asks for room for what has to wait.
    fn hand_over(&mut self, queue: &Queue) {
        while self.room.is_none()
            && let Some(bytes) = self.waiting.front().map(Batch::len_bytes)
        {
            match queue.try_room(bytes) {
                Some(room) => self.push(queue, room),
                None => {
                    let queue = queue.clone();
                    self.room = Some(Box::pin(async move { queue.room(bytes).await }));
                }
            }
        }
    }

    fn push(&mut self, queue: &Queue, room: Room) {
        self.room = None;
        if let Some(batch) = self.waiting.pop_front() {
            self.waiting_bytes -= batch.len_bytes();
            queue.push(batch, room);
        }
    }

    /// Waits for room for the first that waits. Cancel safe: its place in the line is kept.
    async fn room(&mut self) -> Option<Room> {
        match &mut self.room {
            Some(room) => room.await,
            None => std::future::pending().await,
        }
    }

    /// The connection is over: what waits was never acknowledged, and comes again.
    fn forget(&mut self) {
        *self = Self::default();
    }
}

/// What happened while the connection was polled.
enum Event {
    Polled(Result<Heard, Broken>),
    /// The library has nothing more just now.
    Idle,
    Room(Option<Room>),
    Told,
    Timeout,
    Stop,
    LogEnd,
}

impl Task {
    /// Runs until it is told to stop, or the log ends. An unreachable broker is tried again for
    /// ever.
    pub(super) async fn run(mut self) {
        loop {
            self.tell();
            match self.core.step(now()) {
                Step::Over => return,
                Step::Wait { until, room } => self.wait(until, room).await,
                Step::Open(plan) => {
                    let ended = self.connect(&plan).await;
                    self.intake.forget();
                    self.outgoing.handle_broken();
                    if let Some(broken) = ended {
                        self.counters.broken(broken.cause.name());
                        self.core.handle_broken(&broken, now(), random());
                    }
                }
            }
        }
    }

    async fn wait(&mut self, until: std::time::Instant, room: bool) {
        tokio::select! {
            () = self.stop.cancelled() => return self.core.handle_stop(),
            () = self.queue.ended() => return self.core.handle_log_end(),
            () = tokio::time::sleep_until(Instant::from_std(until)) => {}
        }
        if room {
            let taken = async {
                self.refuse.over().await;
                self.queue.room(BROKER_BATCH_BYTES).await
            };
            tokio::select! {
                () = self.stop.cancelled() => self.core.handle_stop(),
                () = self.queue.ended() => self.core.handle_log_end(),
                taken = taken => match taken {
                    Some(_) => self.core.handle_room(),
                    None => self.core.handle_log_end(),
                },
            }
        }
    }

    /// One connection, from its beginning to its end; why it ended, unless it was meant to.
    async fn connect(&mut self, plan: &Plan) -> Option<Broken> {
        let (handle, mut link) = match link::open(plan, &self.config, &self.client_id) {
            Ok(both) => both,
            Err(broken) => return Some(broken),
        };
        while !self.core.is_over() {
            let heard = match self.poll(&handle, &mut link).await {
                Ok(Some(heard)) => heard,
                Ok(None) => return None,
                Err(broken) => return Some(broken),
            };
            if matches!(heard, Heard::Welcome(_)) {
                link.keep_alive_at_most(self.config.keep_alive);
            }
            self.heard(heard).await;
        }
        None
    }

    /// Polls the link until something happens there; meanwhile does everything else, since a poll
    /// that is dropped may drop a packet. `None` when it is over.
    async fn poll(&mut self, handle: &Handle, link: &mut Link) -> Result<Option<Heard>, Broken> {
        let mut polled = pin!(link.poll());
        loop {
            self.drive(handle);
            if let Some(broken) = self.core.gives_up() {
                return Err(broken);
            }
            if self.core.is_over() {
                return Ok(None);
            }
            match self.next_event(polled.as_mut()).await {
                Event::Polled(heard) => return heard.map(Some),
                event => self.apply(event),
            }
        }
    }

    /// Cancel safe but for the poll, which lives on: readiness and places in line stay.
    async fn next_event(
        &mut self,
        polled: Pin<&mut impl Future<Output = Result<Heard, Broken>>>,
    ) -> Event {
        let wake = self.core.poll_timeout().map(Instant::from_std);
        let idle = self.untold || !self.intake.batch.is_empty();
        tokio::select! {
            biased;
            heard = polled => Event::Polled(heard),
            () = std::future::ready(()), if idle => Event::Idle,
            () = self.signal.told() => Event::Told,
            room = self.intake.room() => Event::Room(room),
            () = self.refuse.over(), if self.core.is_refused() => Event::Told,
            () = self.queue.ended() => Event::LogEnd,
            () = self.stop.cancelled(), if !self.core.is_stopping() => Event::Stop,
            () = sleep_until(wake), if wake.is_some() => Event::Timeout,
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Idle => {
                self.intake.close_batch(&self.signal, self.core.appended());
                self.tell();
            }
            Event::Room(Some(room)) if !self.refuse.is_on() => {
                self.intake.push(&self.queue, room);
            }
            // It came too late: what waits stays with the broker.
            Event::Room(Some(_)) => self.intake.room = None,
            Event::Room(None) | Event::LogEnd => self.core.handle_log_end(),
            Event::Timeout => self.core.handle_timeout(now()),
            Event::Stop => {
                self.intake.close_batch(&self.signal, self.core.appended());
                self.core.handle_stop();
            }
            Event::Told | Event::Polled(_) => {}
        }
    }

    /// Hands on what can go: messages to the log, requests to the library.
    fn drive(&mut self, handle: &Handle) {
        if self.intake.batch.len_bytes() >= BROKER_BATCH_BYTES {
            self.intake.close_batch(&self.signal, self.core.appended());
        }
        let held_bytes = self.intake.held_bytes();
        self.untold |= self.core.handle_refusing(self.refuse.is_on(), held_bytes);
        if !self.core.is_refused() {
            self.intake.hand_over(&self.queue);
        } else {
            self.intake.room = None;
        }
        self.core.handle_held(self.intake.held_bytes());
        self.core.handle_durable(self.signal.durable_upto());
        while let Some(ack) = self.core.due_ack() {
            if !handle.try_ack(ack) {
                break;
            }
            self.core.acked();
        }
        while let Some(ask) = self.core.due_ask() {
            let asked = match &ask {
                Ask::Subscribe(filters) => handle.try_subscribe(filters),
                Ask::Unsubscribe(filter) => handle.try_unsubscribe(filter),
            };
            if !asked {
                break;
            }
            self.core.asked(&ask, now());
        }
        self.publish(handle);
        let handed_over = self.intake.held_bytes() == 0 && self.outgoing.is_idle();
        if handed_over && self.core.take_disconnect() && !handle.try_disconnect() {
            self.core.handle_disconnected();
        }
    }

    /// Publishes what waits, as far as the broker keeps up. Nothing more once it is told to stop.
    fn publish(&mut self, handle: &Handle) {
        if self.core.connected().is_none() || self.core.is_stopping() {
            return;
        }
        while let Some((message, retain)) = self.outgoing.due() {
            if !handle.try_publish(message, retain) {
                break;
            }
            self.outgoing.asked();
        }
    }

    async fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Welcome(welcome) => {
                self.core.handle_welcome(&welcome, now());
                self.outgoing.handle_welcome(&welcome);
            }
            Heard::Published(packet_id) => return self.outgoing.handle_sent(packet_id),
            Heard::Answered(packet_id, refused) => {
                self.core.handle_heard(false, now());
                if let Some(why) = self.outgoing.handle_answered(packet_id, refused) {
                    self.core.handle_unpublished(&why);
                }
            }
            Heard::Delivery(delivery) => {
                let now = Now {
                    instant: now(),
                    unix_us: unix_us(),
                };
                self.core
                    .handle_delivery(&delivery, now, &mut self.intake.batch);
                self.untold = true;
                return;
            }
            Heard::Granted(granted) => {
                if self.core.handle_granted(&granted, now()) {
                    self.keep_known().await;
                }
            }
            Heard::Pong => self.core.handle_heard(true, now()),
            Heard::Other => self.core.handle_heard(false, now()),
            Heard::AckSent => {
                self.untold = true;
                return self.core.handle_ack_sent();
            }
            Heard::DisconnectSent => self.core.handle_disconnected(),
            Heard::Sent => {}
        }
        self.tell();
    }

    /// Makes durable what the session is subscribed to.
    async fn keep_known(&mut self) {
        let Some(mut store) = self.store.take() else {
            return;
        };
        let known = self.core.subscriptions().known().clone();
        let written = tokio::task::spawn_blocking(move || {
            let written = store.write(&known);
            (store, written)
        });
        if let Ok((store, written)) = written.await {
            self.store = Some(store);
            if let Err(error) = written {
                warn!(%error, "what was subscribed to is not kept");
            }
        }
    }

    /// Says what there is to say.
    fn tell(&mut self) {
        self.untold = false;
        let name = &self.config.name;
        for notice in self.core.take_notices() {
            match notice {
                Notice::Good(words) => info!(source = name, "broker: {words}"),
                Notice::Bad(words) => warn!(source = name, "broker: {words}"),
            }
        }
        let published = self.outgoing.take_tally();
        self.counters.add_published(&published);
        let tally = self.core.take_tally();
        self.counters.add(&tally, self.core.connected().is_some());
        self.status
            .send_modify(|status| status.update(&self.core, &tally, published.published));
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn sleep_until(wake: Option<Instant>) {
    if let Some(wake) = wake {
        tokio::time::sleep_until(wake).await;
    }
}

/// Any 64 bits: the hasher is keyed afresh by the operating system.
fn random() -> u64 {
    RandomState::new().hash_one(0u8)
}
