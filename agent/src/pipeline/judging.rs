//! The judging stage's thread: replays the log as far as it was durable, then judges what is handed
//! to the log, before that is. What it says is published at once, and given to the sealing stage.
//!
//! What it says, and when, [`JudgingCore`] decides; here are the clock, the tap, the channel, and
//! what is told to people.

mod crowded;
pub(crate) mod deciding;
mod said_of_clock;
mod ticking;

use super::answers::Answers;
use super::clock::Clock;
use super::{Ended, guard, kernel};
use crate::judge::{Counts, WatchersOut};
use crate::limits::{EARLY_BYTES_MAX, JUDGED_QUEUE};
use crate::seal::{FromJudge, IDLE_WAIT};
use crate::wal::{Batch, Queue, Tap};
use crowded::{Crowded, Crowding};
use deciding::{JudgingCore, Published};
use metrics::{counter, gauge, histogram};
use said_of_clock::SaidOfClock;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{error, info, warn};
use tributary_journal::LogError;

/// Records of a replay between two looks at what comes meanwhile.
const EARLY_EVERY: u64 = 256;

/// Publishes.
pub(super) type Publish = Box<dyn Fn(Published) + Send>;

/// Judges what is handed to `queue`, which `tap` saw from its first batch on; gives what it says.
pub(super) fn start(
    core: Option<JudgingCore>,
    stages: &mut JoinSet<Ended>,
    tap: Tap,
    queue: &Queue,
    (publish, panics, asked): (Publish, PathBuf, WatchersOut),
) -> mpsc::Receiver<FromJudge> {
    let (judged, judged_in) = mpsc::channel(JUDGED_QUEUE);
    let Some(core) = core else {
        return judged_in;
    };
    let judging = Judging {
        core,
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
    };
    stages.spawn_blocking(move || {
        guard::watch(panics);
        judging.run();
        Ended::Judging
    });
    judged_in
}

/// Everything that the thread has.
struct Judging {
    core: JudgingCore,
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
        // The sealing stage is gone, and the agent ends, when that is an error.
        let _ = self.live();
    }

    fn replay(&mut self) -> Result<Result<(), Gone>, LogError> {
        let begun = Instant::now();
        let mut records = 0_u64;
        while self.core.replay_step(self.clock.now())? {
            records += 1;
            if records.is_multiple_of(EARLY_EVERY) {
                self.take_early();
            }
            if self.hand_on().is_err() {
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
        self.core.begin(self.clock.now());
        self.hand_on()?;
        for batch in std::mem::take(&mut self.early) {
            self.batch(&batch)?;
        }
        self.poll()?;
        self.answers.begin();
        let mut tapped = Vec::new();
        let mut measured = Instant::now();
        loop {
            let wait = self.wait();
            if !self.tap.take(wait, &mut tapped) {
                break;
            }
            for batch in tapped.drain(..) {
                self.batch(&batch)?;
            }
            self.poll()?;
            self.answers.turn(self.core.judge(), Instant::now());
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

    fn batch(&mut self, batch: &Batch) -> Result<(), Gone> {
        let now = self.clock.now();
        for (kind, bytes) in batch.iter() {
            self.core.record(kind, bytes, now);
            if self.core.has_told() {
                self.hand_on()?;
            }
        }
        Ok(())
    }

    fn wait(&mut self) -> Duration {
        if self.answers.is_under_way() {
            return Duration::ZERO;
        }
        let now = self.clock.now();
        let due = self.core.poll_timeout(now) - now.monotonic;
        Duration::from_micros(due.max(0).unsigned_abs())
    }

    fn poll(&mut self) -> Result<(), Gone> {
        let now = self.clock.now();
        if self.core.poll(now, &self.queue, kernel::ask) {
            self.warn_of_cost();
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Publishes what was said, and gives it to the sealing stage, however long that takes.
    fn hand_on(&mut self) -> Result<(), Gone> {
        for published in self.core.published() {
            (self.publish)(published);
        }
        for from in self.core.take() {
            self.judged.blocking_send(from).map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Hands on what is known.
    fn checkpoint(&mut self) -> Result<(), Gone> {
        let begun = Instant::now();
        self.core.checkpoint();
        if self.core.has_told() {
            histogram!("tributary_agent_detection_checkpoint_seconds")
                .record(begun.elapsed().as_secs_f64());
        }
        self.hand_on()
    }

    /// Says once in a life when the log's quota has checkpoints take more than their share.
    fn warn_of_cost(&mut self) {
        let Some(wal_quota_bytes) = self.core.quota_for_share() else {
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
        match self.said_of_clock.news(self.core.judge()) {
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
        let first = self.core.judge().number_texts().first();
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
        let series_max = self.core.judge().watched() + self.core.judge().idle_len();
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

    fn measure(&mut self) {
        let counts = self.core.judge().counts();
        self.say_of_crowding(&counts);
        gauge!("tributary_agent_watched_series").set(self.core.judge().watched() as f64);
        let trusted = self.core.judge().is_clock_trusted();
        gauge!("tributary_agent_gateway_clock_trusted").set(f64::from(u8::from(trusted)));
        gauge!("tributary_agent_fast_series").set(self.core.judge().fast() as f64);
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
        let standing = self.core.judge().standing_len();
        gauge!("tributary_agent_standing_alerts").set(standing as f64);
        counter!("tributary_agent_alerts_held_back_total").absolute(counts.held_back);
        counter!("tributary_agent_suspect_times_total").absolute(counts.suspect);
        counter!("tributary_agent_forgotten_series_total").absolute(counts.forgotten);
        gauge!("tributary_agent_idle_series").set(self.core.judge().idle_len() as f64);
        counter!("tributary_agent_idle_series_kept_total").absolute(counts.gave_way);
        counter!("tributary_agent_idle_series_back_total").absolute(counts.taken_back);
        counter!("tributary_agent_idle_series_lost_total").absolute(counts.lost);
    }
}
