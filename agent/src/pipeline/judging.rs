//! The judging stage's thread: replays the log as far as it was durable, then judges what is handed
//! to the log, before that is. What it says is published at once, and given to the sealing stage.

mod crowded;

use super::answers::Answers;
use super::clock::Clock;
use super::{Ended, guard, kernel, replay};
use crate::alert::AlertState;
use crate::judge::{Judge, KernelClock, Said, WatchersOut, What, time_record};
use crate::limits::{CLOCK_ASK_EVERY, EARLY_BYTES_MAX, JUDGED_QUEUE, TICK_LEAST};
use crate::seal::{Ask, Asks, FromJudge, IDLE_WAIT, Origin, SealConfig, Stores};
use crate::source::hub::Keep;
use crate::wal::{Batch, Queue, RecordKind, Replay, Tap};
use crowded::Crowded;
use metrics::{counter, gauge, histogram};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{error, info, warn};
use tributary_journal::LogError;
use tributary_protocol::ids::{BufferId, Lane};

/// Records of a replay between two looks at what comes meanwhile.
const EARLY_EVERY: u64 = 256;

/// Publishes JSON on a topic.
pub(super) type Publish = Box<dyn Fn(&str, &str, Keep) + Send>;

/// The stage, before anything of this life is in the log.
pub(super) struct Waiting {
    judge: Judge,
    /// What the log was told last of the kernel's clock.
    kernel: KernelClock,
    replay: Replay,
    present: BufferId,
    /// Of which messages it is stored what was said, lane by lane.
    covered: BTreeMap<Lane, Origin>,
    asks: Asks,
    checkpoint_bytes_max: u64,
}

impl Waiting {
    /// The stage as it was; `None` where nothing is judged.
    /// The log is told `kernel` as this life begins.
    pub fn new(
        judge: Option<Judge>,
        kernel: KernelClock,
        stores: &Stores,
        config: &SealConfig,
    ) -> Option<Self> {
        let mut judge = judge?;
        judge.capture_by(config.forward.rules());
        // What no checkpoint needs is kept for captures, and was judged.
        let from = judge.position().or_else(|| stores.needed());
        Some(Self {
            replay: replay(&stores.wal, from),
            judge,
            kernel,
            present: config.present,
            covered: stores.covered.all(),
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
        (publish, panics, asked): (Publish, PathBuf, WatchersOut),
    ) -> mpsc::Receiver<FromJudge> {
        let (judged, judged_in) = mpsc::channel(JUDGED_QUEUE);
        let Some(waiting) = waiting else {
            return judged_in;
        };
        let judging = Judging {
            tap,
            queue: queue.clone(),
            publish,
            answers: Answers::new(asked),
            judged,
            clock: Clock::new(),
            early: Vec::new(),
            early_bytes: 0,
            warned: false,
            said_of_clock: None,
            said_of_texts: false,
            crowded: Crowded::default(),
            waiting,
        };
        stages.spawn_blocking(move || {
            guard::watch(panics);
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
    /// Who wants to know what is watched.
    answers: Answers,
    judged: mpsc::Sender<FromJudge>,
    clock: Clock,
    /// What was handed to the log while what it held before was replayed.
    early: Vec<Arc<Batch>>,
    early_bytes: usize,
    /// It was said that checkpoints take more than their share.
    warned: bool,
    /// What was said of the gateway's clock: whether it is trusted.
    said_of_clock: Option<bool>,
    /// It was said that numbers come as texts.
    said_of_texts: bool,
    crowded: Crowded,
}

/// Nobody takes what is said any more.
struct Gone;

/// Where the stage is in this life's log.
struct Live {
    origin: Origin,
    said: Vec<Said>,
    /// Bytes since the last checkpoint.
    bytes_since: u64,
}

/// What was said about time passing.
struct Ticking {
    /// A record that says so is on its way through the log.
    under_way: bool,
    /// What the last one was due for, and when it was written, if there was room.
    last: Option<i64>,
    at: Instant,
    /// When a record was judged last.
    heard: Instant,
    /// What the kernel said of its clock, and when.
    kernel: (KernelClock, Instant),
}

impl Ticking {
    fn new(kernel: KernelClock) -> Self {
        Self {
            under_way: false,
            last: None,
            at: Instant::now(),
            heard: Instant::now(),
            kernel: (kernel, Instant::now()),
        }
    }
}

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
        let judge = &self.waiting.judge;
        for (topic, json) in judge.over() {
            (self.publish)(topic, json, Keep::Over);
        }
        for (topic, json) in judge.standing() {
            (self.publish)(topic, json, Keep::Stands);
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
            if records.is_multiple_of(EARLY_EVERY) {
                self.take_early();
            }
            if self.tell(&mut said, None).is_err() {
                return Ok(Err(Gone));
            }
        }
        info!(records, took = ?begun.elapsed(), "log judged");
        Ok(Ok(()))
    }

    /// Lets messages go on their way that come during a replay: the room that they take in the
    /// log's queue is for what is not durable.
    fn take_early(&mut self) {
        let mut tapped = Vec::new();
        if self.early_bytes < EARLY_BYTES_MAX {
            self.tap.take(Duration::ZERO, &mut tapped);
        }
        for tapped in tapped {
            self.early_bytes += tapped.len_bytes();
            self.early.push(tapped.into_batch());
        }
    }

    fn live(&mut self) -> Result<(), Gone> {
        let mut at = Live {
            origin: Origin {
                buffer: self.waiting.present,
                number: 0,
            },
            said: Vec::new(),
            bytes_since: 0,
        };
        let mut ticking = Ticking::new(self.waiting.kernel);
        for batch in std::mem::take(&mut self.early) {
            self.batch(&batch, &mut at, &mut ticking)?;
        }
        self.ask();
        self.answers.begin();
        let mut tapped = Vec::new();
        let mut measured = Instant::now();
        loop {
            let wait = self.wait(&ticking);
            if !self.tap.take(wait, &mut tapped) {
                break;
            }
            for batch in tapped.drain(..) {
                self.batch(&batch, &mut at, &mut ticking)?;
            }
            self.ask();
            self.tick(&mut ticking);
            let is_wanted = match self.waiting.asks.take() {
                Ask::No => false,
                Ask::Useful => {
                    let most = self.waiting.checkpoint_bytes_max;
                    at.bytes_since >= self.waiting.asks.due(most)
                }
                Ask::Urgent => at.bytes_since > 0,
            };
            if is_wanted {
                self.warn_of_cost();
                self.checkpoint()?;
                at.bytes_since = 0;
            }
            self.answers.turn(&self.waiting.judge, Instant::now());
            if measured.elapsed() >= IDLE_WAIT {
                self.measure();
                self.say_of_clock();
                self.say_of_texts();
                measured = Instant::now();
            }
        }
        self.measure();
        self.checkpoint()
    }

    fn batch(&mut self, batch: &Batch, at: &mut Live, ticking: &mut Ticking) -> Result<(), Gone> {
        let now = self.clock.now().wall;
        for (kind, bytes) in batch.iter() {
            let judge = &mut self.waiting.judge;
            judge.record(at.origin, kind, bytes, now, &mut at.said);
            ticking.under_way &= kind != RecordKind::Tick.code();
            ticking.heard = Instant::now();
            at.origin.number += 1;
            at.bytes_since += bytes.len() as u64;
            if !at.said.is_empty() {
                self.tell(&mut at.said, Some(now))?;
            }
        }
        Ok(())
    }

    fn wait(&mut self, ticking: &Ticking) -> Duration {
        if self.answers.is_under_way() {
            return Duration::ZERO;
        }
        let due = self.waiting.judge.poll_timeout();
        let is_new = |due: &i64| !ticking.under_way && ticking.last != Some(*due);
        let due = due.filter(is_new).map(|due| self.due_in(due, ticking));
        let soonest = TICK_LEAST.saturating_sub(ticking.at.elapsed());
        due.map_or(IDLE_WAIT, |due| due.max(soonest).min(IDLE_WAIT))
    }

    /// How long it is until a time that the stage asked for: counted from when it last heard of
    /// the time, whatever the gateway's clock does meanwhile.
    fn due_in(&self, due: i64, ticking: &Ticking) -> Duration {
        let us = due.saturating_sub(self.waiting.judge.received()).max(0);
        Duration::from_micros(us.unsigned_abs()).saturating_sub(ticking.heard.elapsed())
    }

    /// Has the log say that time has passed, or that the kernel thinks otherwise of its clock: one
    /// record at a time, and for what is still due behind it only another after a pause. While
    /// storage takes nothing, room is for messages.
    fn tick(&mut self, ticking: &mut Ticking) {
        if ticking.kernel.1.elapsed() >= CLOCK_ASK_EVERY {
            ticking.kernel = (kernel::ask(), Instant::now());
        }
        let kernel = ticking.kernel.0;
        let is_news = kernel != self.waiting.kernel;
        let due = self.waiting.judge.poll_timeout();
        let due = due.filter(|due| self.due_in(*due, ticking).is_zero());
        let is_again = due == ticking.last && ticking.at.elapsed() < IDLE_WAIT;
        let is_soon = !is_news && ticking.at.elapsed() < TICK_LEAST;
        let is_due = (due.is_some() && !is_soon) || is_news;
        if !is_due || ticking.under_way || is_again {
            return;
        }
        (ticking.last, ticking.at) = (due, Instant::now());
        let tick = time_record(RecordKind::Tick, self.clock.now().wall, kernel);
        if let Some(room) = self.queue.try_room(tick.len_bytes()) {
            self.queue.push(tick, room);
            ticking.under_way = true;
            self.waiting.kernel = kernel;
        }
    }

    /// Has the log ask for captures. Where it has no room just now, they are asked for later.
    fn ask(&mut self) {
        while let Some(records) = self.waiting.judge.wanted() {
            let mut batch = Batch::new();
            for bytes in &records {
                batch.control(RecordKind::Capture, bytes);
            }
            let Some(room) = self.queue.try_room(batch.len_bytes()) else {
                return;
            };
            self.queue.push(batch, room);
            self.waiting.judge.asked();
        }
    }

    /// Publishes what was said, and hands it on; in a replay only what is not stored yet.
    fn tell(&self, said: &mut Vec<Said>, live: Option<i64>) -> Result<(), Gone> {
        let mut at = None;
        let (mut alerts, mut aggregates) = (Vec::new(), Vec::new());
        for Said {
            origin,
            topic,
            what,
        } in said.drain(..)
        {
            let lane = lane_of(&what);
            let covered = self.waiting.covered.get(&lane);
            if live.is_none() && covered.is_some_and(|covered| origin < *covered) {
                continue;
            }
            let is_alert = lane == Lane::Alerts;
            let spoken = match what {
                What::Alert(spoken) | What::Aggregate(spoken) => spoken,
                What::Again(json) => {
                    (self.publish)(&topic, &json, Keep::Stands);
                    continue;
                }
                What::Forgotten => {
                    (self.publish)(&topic, "", Keep::Over);
                    continue;
                }
            };
            let keep = match spoken.state {
                _ if !spoken.is_present || spoken.is_passing => Keep::Not,
                AlertState::Cleared => Keep::Over,
                AlertState::Raised | AlertState::Acknowledged => Keep::Stands,
            };
            (self.publish)(&topic, &spoken.json, keep);
            if live.is_some() && is_alert {
                let late_us = self.clock.now().wall - spoken.meta.received_time;
                histogram!("tributary_agent_alert_seconds").record(late_us as f64 / 1e6);
            }
            at = Some(origin);
            match is_alert {
                true => alerts.push(spoken),
                false => aggregates.push(spoken),
            }
        }
        counter!("tributary_agent_aggregates_total").increment(aggregates.len() as u64);
        match at {
            Some(origin) => self.send(FromJudge::Said {
                origin,
                alerts,
                aggregates,
            }),
            None => Ok(()),
        }
    }

    fn send(&self, from: FromJudge) -> Result<(), Gone> {
        self.judged.blocking_send(from).map_err(|_| Gone)
    }

    /// Says once in a life when the log's quota has checkpoints take more than their share.
    fn warn_of_cost(&mut self) {
        let wanted = self.waiting.asks.due(u64::MAX);
        if wanted <= self.waiting.checkpoint_bytes_max || self.warned {
            return;
        }
        self.warned = true;
        let wal_quota_bytes = 4 * wanted;
        warn!(
            wal_quota_bytes,
            "checkpoints of detection take more than a tenth of what the log takes: \
             with this `wal.quota_bytes` they would not"
        );
    }

    /// Says when the gateway's clock is not trusted, and when it is again.
    fn say_of_clock(&mut self) {
        let judge = &self.waiting.judge;
        // In this life the log has told nothing yet, or nothing is judged.
        if judge.received() == 0 || !judge.is_enabled() {
            return;
        }
        let trusted = judge.is_clock_trusted();
        match (trusted, self.said_of_clock.replace(trusted)) {
            (false, None | Some(true)) => warn!(
                "the gateway's clock is not trusted: readings without a time of their own are \
                 suspect, and none is judged by the time of the week; have NTP, PTP or timesyncd \
                 set it, or, where it is kept right otherwise, say `clock = \"plausible\"` in \
                 [detect]"
            ),
            (true, Some(false)) => info!("the gateway's clock is trusted"),
            (true, None | Some(true)) | (false, Some(false)) => {}
        }
    }

    /// Says once in a life that numbers come as texts.
    fn say_of_texts(&mut self) {
        let first = self.waiting.judge.number_texts().first();
        let Some(first) = first.filter(|_| !self.said_of_texts) else {
            return;
        };
        self.said_of_texts = true;
        let (device, metric, text) = (&first.device, &first.metric, &first.text);
        warn!(
            device,
            metric,
            text,
            "a number comes as a text, which nothing judges: have `[[decode]]` give it \
             `type = \"f64\"`; `status` names all such series"
        );
    }

    /// Hands on what is known.
    fn checkpoint(&self) -> Result<(), Gone> {
        let begun = Instant::now();
        let Some(known) = self.waiting.judge.known() else {
            return Ok(());
        };
        histogram!("tributary_agent_detection_checkpoint_seconds")
            .record(begun.elapsed().as_secs_f64());
        self.waiting.asks.answered();
        self.send(FromJudge::Checkpoint(known))
    }

    fn measure(&mut self) {
        let counts = self.waiting.judge.counts();
        if self.crowded.is_news(counts.judged, counts.taken_back) {
            // Those that came back were kept: with all of them watched, none gives way.
            let series_max = self.waiting.judge.watched() + self.waiting.judge.idle_len();
            warn!(
                series_max,
                "a fourth of all readings and more are of series that gave way just before: they \
                 push out each other, and each costs a look into the store; with this \
                 `detect.series_max` none would"
            );
        }
        gauge!("tributary_agent_watched_series").set(self.waiting.judge.watched() as f64);
        let trusted = self.waiting.judge.is_clock_trusted();
        gauge!("tributary_agent_gateway_clock_trusted").set(f64::from(u8::from(trusted)));
        gauge!("tributary_agent_fast_series").set(self.waiting.judge.fast() as f64);
        for (reason, count) in [
            ("text", counts.texts),
            ("not_finite", counts.not_finite),
            ("late", counts.late),
        ] {
            counter!("tributary_agent_unjudged_readings_total", "reason" => reason).absolute(count);
        }
        counter!("tributary_agent_judged_readings_total").absolute(counts.judged);
        counter!("tributary_agent_judged_seconds_total").absolute(counts.seconds);
        counter!("tributary_agent_pace_changes_total").absolute(counts.paces);
        counter!("tributary_agent_crowded_peaks_total").absolute(counts.crowded);
        for (detector, count) in counts.raised.by_kind() {
            counter!("tributary_agent_alerts_total", "detector" => detector).absolute(count);
        }
        let standing = self.waiting.judge.standing_len();
        gauge!("tributary_agent_standing_alerts").set(standing as f64);
        counter!("tributary_agent_alerts_held_back_total").absolute(counts.held_back);
        counter!("tributary_agent_suspect_times_total").absolute(counts.suspect);
        counter!("tributary_agent_forgotten_series_total").absolute(counts.forgotten);
        gauge!("tributary_agent_idle_series").set(self.waiting.judge.idle_len() as f64);
        counter!("tributary_agent_idle_series_kept_total").absolute(counts.gave_way);
        counter!("tributary_agent_idle_series_back_total").absolute(counts.taken_back);
        counter!("tributary_agent_idle_series_lost_total").absolute(counts.lost);
    }
}

/// The lane that it stands in, or goes along with.
fn lane_of(what: &What) -> Lane {
    match what {
        What::Alert(_) | What::Again(_) | What::Forgotten => Lane::Alerts,
        What::Aggregate(_) => Lane::Aggregates,
    }
}
