//! The judging stage's thread: replays the log as far as it was durable, then judges what is handed
//! to the log, before that is. What it says is published at once, and given to the sealing stage.

mod crowded;
mod said_of_clock;
mod ticking;

use super::answers::Answers;
use super::clock::Clock;
use super::{Ended, guard, kernel, replay};
use crate::alert::AlertState;
use crate::judge::{Counts, Judge, KernelClock, Said, WatchersOut, What, time_record};
use crate::limits::{EARLY_BYTES_MAX, JUDGED_QUEUE};
use crate::seal::{Asks, FromJudge, IDLE_WAIT, Origin, SealConfig, Stores};
use crate::source::hub::Keep;
use crate::wal::{Batch, Queue, RecordKind, Replay, Tap};
use crowded::{Crowded, Crowding};
use metrics::{counter, gauge, histogram};
use said_of_clock::SaidOfClock;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ticking::{Due, Ticking};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{error, info, warn};
use tributary_journal::LogError;
use tributary_protocol::ids::{BufferId, Lane};

/// Records of a replay between two looks at what comes meanwhile.
const EARLY_EVERY: u64 = 256;

/// Publishes JSON on a topic; of an alert of this life it is told when its reading was received.
pub(super) type Publish = Box<dyn Fn(&str, &str, Keep, Option<i64>) + Send>;

/// The stage, before anything of this life is in the log.
pub(super) struct Waiting {
    judge: Judge,
    /// What the log is told of the kernel's clock as this life begins.
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
        judge.forward_by(config.forward.rules());
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
            said_of_clock: SaidOfClock::default(),
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
    said_of_clock: SaidOfClock,
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
            (self.publish)(topic, json, Keep::Over, None);
        }
        for (topic, json) in judge.standing() {
            (self.publish)(topic, json, Keep::Stands, None);
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
        let mut ticking = Ticking::new(self.waiting.kernel, Instant::now());
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
            let most = self.waiting.checkpoint_bytes_max;
            if self.waiting.asks.is_wanted(at.bytes_since, most) {
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
            ticking.heard(kind == RecordKind::Tick.code(), Instant::now());
            at.origin.number += 1;
            at.bytes_since += bytes.len() as u64;
            if !at.said.is_empty() {
                self.tell(&mut at.said, Some(now))?;
            }
        }
        Ok(())
    }

    fn wait(&mut self, ticking: &Ticking) -> Duration {
        match self.answers.is_under_way() {
            true => Duration::ZERO,
            false => ticking.wait(self.due(), Instant::now()),
        }
    }

    fn due(&mut self) -> Due {
        let judge = &mut self.waiting.judge;
        Due {
            at: judge.poll_timeout(),
            received: judge.received(),
        }
    }

    /// Has the log say that time has passed. While storage takes nothing, room is for messages.
    fn tick(&mut self, ticking: &mut Ticking) {
        let now = Instant::now();
        ticking.ask(now, kernel::ask);
        let Some(kernel) = ticking.poll(self.due(), now) else {
            return;
        };
        let tick = time_record(RecordKind::Tick, self.clock.now().wall, kernel);
        if let Some(room) = self.queue.try_room(tick.len_bytes()) {
            self.queue.push(tick, room);
            ticking.told(kernel);
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
                    (self.publish)(&topic, &json, Keep::Stands, None);
                    continue;
                }
                What::Forgotten => {
                    (self.publish)(&topic, "", Keep::Over, None);
                    continue;
                }
            };
            let keep = match spoken.state {
                _ if !spoken.is_present || spoken.is_passing => Keep::Not,
                AlertState::Cleared => Keep::Over,
                AlertState::Raised | AlertState::Acknowledged => Keep::Stands,
            };
            let received = (live.is_some() && is_alert).then_some(spoken.meta.received_time);
            (self.publish)(&topic, &spoken.json, keep, received);
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
        let most = self.waiting.checkpoint_bytes_max;
        let Some(wal_quota_bytes) = self.waiting.asks.quota_for_share(most) else {
            return;
        };
        if std::mem::replace(&mut self.warned, true) {
            return;
        }
        warn!(
            wal_quota_bytes,
            "checkpoints of detection take more than a tenth of what the log takes: \
             with this `wal.quota_bytes` they would not"
        );
    }

    /// Says when the gateway's clock is not trusted, and when it is again.
    fn say_of_clock(&mut self) {
        match self.said_of_clock.news(&self.waiting.judge) {
            Some(false) => warn!(
                "the gateway's clock is not trusted: readings without a time of their own are \
                 suspect, and none is judged by the time of the week; have NTP, PTP or timesyncd \
                 set it, or, where it is kept right otherwise, say `clock = \"plausible\"` in \
                 [detect]"
            ),
            Some(true) => info!("the gateway's clock is trusted"),
            None => {}
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

    /// Says in a life once that series push out each other, and once that readings are turned away.
    fn say_of_crowding(&mut self, counts: &Counts) {
        // Those that came back were kept: with all of them watched, none gives way. Of readings
        // that were turned away nobody knows how many series they are.
        let series_max = self.waiting.judge.watched() + self.waiting.judge.idle_len();
        match self.crowded.news(counts) {
            Some(Crowding::PushOut) => warn!(
                series_max,
                "series that report in turn push out each other, which costs a look into the \
                 store each time: with this `detect.series_max` none would"
            ),
            Some(Crowding::TurnAway) => warn!(
                series_max_at_least = series_max,
                no_turn = counts.no_turn,
                "more series report than may be watched, and push out each other so often that \
                 readings are turned away: nothing judges these; `detect.series_max` has to be \
                 at least this, and more where they are of more series"
            ),
            None => {}
        }
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
        self.say_of_crowding(&counts);
        gauge!("tributary_agent_watched_series").set(self.waiting.judge.watched() as f64);
        let trusted = self.waiting.judge.is_clock_trusted();
        gauge!("tributary_agent_gateway_clock_trusted").set(f64::from(u8::from(trusted)));
        gauge!("tributary_agent_fast_series").set(self.waiting.judge.fast() as f64);
        for (reason, count) in [
            ("text", counts.texts),
            ("not_finite", counts.not_finite),
            ("late", counts.late),
            ("no_turn", counts.no_turn),
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
