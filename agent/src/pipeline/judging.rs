//! The judging stage's thread: replays the log as far as it was durable, then judges what is handed
//! to the log, before that is. What it says is published at once, and given to the sealing stage.

use super::clock::Clock;
use super::{Ended, replay};
use crate::judge::{Judge, Said, What, time_record};
use crate::limits::{CHECKPOINT_SHARE, CHECKPOINT_WAL_BYTES, JUDGED_QUEUE};
use crate::seal::{Ask, Asks, FromJudge, IDLE_WAIT, Origin, SealConfig, Stores};
use crate::wal::{Queue, RecordKind, Replay, Tap};
use metrics::{counter, gauge, histogram};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{error, info};
use tributary_journal::LogError;
use tributary_protocol::ids::{BufferId, Lane};

/// Publishes the present state of a topic.
pub(super) type Publish = Box<dyn Fn(&str, &str) + Send>;

/// The stage, before anything of this life is in the log.
pub(super) struct Waiting {
    judge: Judge,
    replay: Replay,
    present: BufferId,
    covered: Option<Origin>,
    asks: Asks,
    checkpoint_bytes_max: u64,
}

impl Waiting {
    /// The stage as it was; `None` where nothing is judged.
    pub fn new(judge: Option<Judge>, stores: &Stores, config: &SealConfig) -> Option<Self> {
        let judge = judge?;
        Some(Self {
            replay: replay(&stores.wal, judge.position()),
            judge,
            present: config.present,
            covered: stores.covered.of(Lane::Alerts),
            asks: stores.judged.as_ref()?.asks(),
            checkpoint_bytes_max: config.checkpoint_bytes_max,
        })
    }

    /// Judges what is handed to `queue`, which `tap` saw from its first batch on; gives what it
    /// says.
    pub fn start(
        waiting: Option<Self>,
        stages: &mut JoinSet<Ended>,
        tap: Tap,
        queue: &Queue,
        publish: Publish,
    ) -> mpsc::Receiver<FromJudge> {
        let (judged, judged_in) = mpsc::channel(JUDGED_QUEUE);
        let Some(waiting) = waiting else {
            return judged_in;
        };
        let judging = Judging {
            tap,
            queue: queue.clone(),
            publish,
            judged,
            clock: Clock::new(),
            waiting,
        };
        stages.spawn_blocking(move || {
            judging.run();
            Ended::Judging
        });
        judged_in
    }
}

/// Everything that the thread has.
struct Judging {
    waiting: Waiting,
    tap: Tap,
    queue: Queue,
    publish: Publish,
    judged: mpsc::Sender<FromJudge>,
    clock: Clock,
}

/// Nobody takes what is said any more.
struct Gone;

impl Judging {
    /// Runs until the log's queue is closed and everything in it is judged.
    fn run(mut self) {
        match self.replay() {
            Ok(Ok(())) => {}
            Ok(Err(Gone)) => return,
            Err(error) => {
                error!(%error, "the log can't be replayed: nothing is judged in this life");
                return;
            }
        }
        for (topic, json) in self.waiting.judge.standing() {
            (self.publish)(&topic, json);
        }
        // The sealing stage is gone, and the agent ends, when that is an error.
        let _ = self.live();
    }

    fn replay(&mut self) -> Result<Result<(), Gone>, LogError> {
        let begun = Instant::now();
        let mut said = Vec::new();
        let mut records = 0_u64;
        while let Some(step) = self.waiting.replay.next_step()? {
            self.waiting
                .judge
                .replayed(&step, self.clock.now().wall, &mut said);
            records += 1;
            if self.tell(&mut said, None).is_err() {
                return Ok(Err(Gone));
            }
        }
        info!(records, took = ?begun.elapsed(), "log judged");
        Ok(Ok(()))
    }

    fn live(&mut self) -> Result<(), Gone> {
        let mut origin = Origin {
            buffer: self.waiting.present,
            number: 0,
        };
        let (mut tapped, mut said) = (Vec::new(), Vec::new());
        let (mut bytes_since, mut due) = (0_u64, 0_u64);
        let mut ticked = None;
        let mut measured = Instant::now();
        loop {
            let wait = self.wait();
            if !self.tap.take(wait, &mut tapped) {
                break;
            }
            let now = self.clock.now().wall;
            for batch in tapped.drain(..) {
                for (kind, bytes) in batch.iter() {
                    self.waiting
                        .judge
                        .record(origin, kind, bytes, now, &mut said);
                    origin.number += 1;
                    bytes_since += bytes.len() as u64;
                    if !said.is_empty() {
                        self.tell(&mut said, Some(now))?;
                    }
                }
            }
            self.tick(&mut ticked);
            let is_wanted = match self.waiting.asks.take() {
                Ask::No => false,
                Ask::Useful => bytes_since >= due,
                Ask::Urgent => bytes_since > 0,
            };
            if is_wanted {
                due = self.checkpoint()?;
                bytes_since = 0;
            }
            if measured.elapsed() >= IDLE_WAIT {
                self.measure();
                measured = Instant::now();
            }
        }
        self.measure();
        self.checkpoint().map(|_| ())
    }

    fn wait(&mut self) -> Duration {
        let due = self.waiting.judge.poll_timeout();
        let us = due.map(|at| at.saturating_sub(self.clock.now().wall).max(0));
        let due = us.map(|us| Duration::from_micros(us.unsigned_abs()));
        due.map_or(IDLE_WAIT, |due| due.min(IDLE_WAIT))
    }

    /// Has the log say that time has passed, once for each time that is due.
    fn tick(&mut self, ticked: &mut Option<i64>) {
        let now = self.clock.now().wall;
        let due = self.waiting.judge.poll_timeout().filter(|due| *due <= now);
        if due.is_none() || due == *ticked {
            return;
        }
        let tick = time_record(RecordKind::Tick, now);
        if let Some(room) = self.queue.try_room(tick.len_bytes()) {
            self.queue.push(tick, room);
            *ticked = due;
        }
    }

    /// Publishes what was said, and hands it on; in a replay only what is not stored yet.
    fn tell(&self, said: &mut Vec<Said>, live: Option<i64>) -> Result<(), Gone> {
        let mut at = None;
        let mut alerts = Vec::new();
        for Said {
            origin,
            topic,
            what,
        } in said.drain(..)
        {
            if live.is_none() && self.waiting.covered.is_some_and(|covered| origin < covered) {
                continue;
            }
            let alert = match what {
                What::Alert(alert) => alert,
                What::Again(json) => {
                    (self.publish)(&topic, &json);
                    continue;
                }
                What::Forgotten => {
                    (self.publish)(&topic, "");
                    continue;
                }
            };
            if alert.is_present {
                (self.publish)(&topic, &alert.json);
            }
            if live.is_some() {
                let late_us = self.clock.now().wall - alert.meta.received_time;
                histogram!("tributary_agent_alert_seconds").record(late_us as f64 / 1e6);
            }
            at = Some(origin);
            alerts.push(alert);
        }
        match at {
            Some(origin) => self.send(FromJudge::Said { origin, alerts }),
            None => Ok(()),
        }
    }

    fn send(&self, from: FromJudge) -> Result<(), Gone> {
        self.judged.blocking_send(from).map_err(|_| Gone)
    }

    /// Hands on what is known; gives how many bytes of the log are due before the next time.
    fn checkpoint(&self) -> Result<u64, Gone> {
        let mut body = Vec::new();
        let Some(at) = self.waiting.judge.write_checkpoint(&mut body) else {
            return Ok(0);
        };
        let due = (body.len() as u64 * CHECKPOINT_SHARE)
            .max(CHECKPOINT_WAL_BYTES)
            .min(self.waiting.checkpoint_bytes_max);
        self.send(FromJudge::Checkpoint { at, body })?;
        // Asked for more often than that only at a start and an end.
        Ok(due / 2)
    }

    fn measure(&self) {
        let counts = self.waiting.judge.counts();
        gauge!("tributary_agent_watched_series").set(self.waiting.judge.watched() as f64);
        for (reason, count) in [
            ("text", counts.texts),
            ("not_finite", counts.not_finite),
            ("late", counts.late),
        ] {
            counter!("tributary_agent_unjudged_readings_total", "reason" => reason).absolute(count);
        }
        counter!("tributary_agent_judged_readings_total").absolute(counts.judged);
        counter!("tributary_agent_alerts_total", "detector" => "series").absolute(counts.raised);
        counter!("tributary_agent_alerts_held_back_total").absolute(counts.held_back);
        counter!("tributary_agent_suspect_times_total").absolute(counts.suspect);
        counter!("tributary_agent_forgotten_series_total").absolute(counts.forgotten);
    }
}
