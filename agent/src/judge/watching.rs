//! What is watched, for people: which series are still learned, and which are judged by the second.
//! Asked of the judging stage while it runs; it changes nothing.

mod survey;

pub use survey::Survey;

use super::number_texts::NumberText;
use super::standing::{AllStood, Found, Stands, find, list};
use crate::limits::{WATCHING_ASKS_MAX, WATCHING_PATIENCE};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

/// What the detectors of a series are told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgedBy {
    /// Each reading.
    Readings,
    /// The mean of each second.
    Seconds,
    /// How far apart the readings of each second of another series are.
    PeakToPeak,
}

/// One series.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WatchedSeries {
    /// What publishes.
    pub device: String,
    /// What is measured.
    pub metric: String,
    /// What its detector is told.
    pub judged_by: JudgedBy,
    /// `learning (37 of 100)` of these, or `judged`: it can alert.
    pub state: String,
}

/// What is configured by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfiguredKind {
    /// `[[detect.rule]]`.
    Rule,
    /// `[[detect.window]]`.
    Window,
    /// `[[detect.group]]`.
    Group,
}

/// A rule, a window or a group, and what it is for by now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Configured {
    /// What it is.
    pub kind: ConfiguredKind,
    /// Its name.
    pub name: String,
    /// Of which it is for so many: `series`, or `devices` where it looks at several series
    /// together.
    pub of: String,
    /// How many it is for; 0: no name that came fits its patterns.
    pub count: usize,
    /// Of how many of them it could be judged; a rule that looks at several series together waits
    /// for all of them, and others for enough readings.
    pub judged: usize,
}

/// A device whose own times are not believed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SuspectClock {
    /// The device.
    pub device: String,
    /// Seconds that its clock is ahead of the gateway's; behind it below 0.
    pub ahead_s: i64,
}

/// All of them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Watching {
    /// How many series are watched.
    pub series: usize,
    /// How many of them are still learned, and can't alert.
    pub learning: usize,
    /// How many report faster than once in 0.75 s, and are judged by the second.
    pub fast: usize,
    /// Whether the gateway's clock is believed: where not, no time tells the time of the week, and
    /// readings without a time of their own are suspect.
    pub clock_trusted: bool,
    /// How many devices have a clock that is not believed.
    pub suspect_clocks: usize,
    /// Those of them that are farthest off.
    pub clocks: Vec<SuspectClock>,
    /// Series that say numbers as texts, which nothing judges: the first ones since the start.
    pub number_texts: Vec<NumberText>,
    /// Rules, windows and groups.
    pub configured: Vec<Configured>,
    /// Some of them, those that are still learned first.
    pub listed: Vec<WatchedSeries>,
    /// Sessions of the last hour that another machine with the agent's identity ended: it is no
    /// matter of the judging stage, which says 0, and of whoever asks in the end all the same.
    #[serde(default)]
    pub fenced_last_hour: u64,
    /// Where the agent is that is not at the first aggregator of its list; empty at home.
    #[serde(default)]
    pub away_at: String,
    /// Batches that another aggregator may hold, without having said so.
    #[serde(default)]
    pub in_doubt_batches: u64,
}

/// Why nobody says what is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unwatched {
    /// Nothing is judged.
    Off,
    /// The log is replayed: what comes is judged behind it.
    Replaying,
    /// The stage has something else to do, or others ask as well.
    Busy,
}

impl Unwatched {
    /// As a person reads it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Off => {
                "nothing is judged: see [detect] in the configuration, and the agent's log"
            }
            Self::Replaying => "the agent replays its log: ask again when it has",
            Self::Busy => "the judging stage is busy, or storage takes nothing: ask again",
        }
    }
}

/// Asks the running stage.
#[derive(Clone, Debug)]
pub struct Watchers {
    asks: mpsc::Sender<oneshot::Sender<Watching>>,
    stands: mpsc::Sender<oneshot::Sender<AllStood>>,
    /// Whether the stage has replayed the log.
    is_live: watch::Receiver<bool>,
}

/// The stage's end.
#[derive(Debug)]
pub struct WatchersOut {
    /// Who asks.
    pub asked: mpsc::Receiver<oneshot::Sender<Watching>>,
    /// Who asks what stands.
    pub stands: mpsc::Receiver<oneshot::Sender<AllStood>>,
    /// Told once the log is replayed.
    pub is_live: watch::Sender<bool>,
}

impl Watchers {
    /// Both ends.
    pub fn new() -> (Self, WatchersOut) {
        let (asks, asked) = mpsc::channel(WATCHING_ASKS_MAX);
        let (stands, stands_asked) = mpsc::channel(WATCHING_ASKS_MAX);
        let (live, is_live) = watch::channel(false);
        let out = WatchersOut {
            asked,
            stands: stands_asked,
            is_live: live,
        };
        let watchers = Self {
            asks,
            stands,
            is_live,
        };
        (watchers, out)
    }

    /// What is watched. Waits no longer than [`WATCHING_PATIENCE`], and not at all for a stage that
    /// replays the log.
    ///
    /// # Errors
    /// [`Unwatched`].
    pub async fn ask(&self) -> Result<Watching, Unwatched> {
        self.told(&self.asks, |tell| tell).await
    }

    /// Every alert that stands, as far as `bytes_max` bytes of an answer take them.
    ///
    /// # Errors
    /// [`Unwatched`].
    pub async fn stands(&self, bytes_max: usize) -> Result<Stands, Unwatched> {
        let stood = self.told(&self.stands, |tell| tell).await?;
        // Thousands of texts: no other task waits while they are put in order.
        let listed = tokio::task::spawn_blocking(move || list(stood, bytes_max)).await;
        listed.map_err(|_| Unwatched::Busy)
    }

    /// The alert that stands whose id begins so.
    ///
    /// # Errors
    /// [`Unwatched`].
    pub async fn find(&self, begins: &str) -> Result<Found, Unwatched> {
        let stood = self.told(&self.stands, |tell| tell).await?;
        let begins = begins.to_owned();
        let found = tokio::task::spawn_blocking(move || find(&stood, &begins)).await;
        found.map_err(|_| Unwatched::Busy)
    }

    async fn told<A, T>(
        &self,
        asks: &mpsc::Sender<A>,
        ask: impl FnOnce(oneshot::Sender<T>) -> A,
    ) -> Result<T, Unwatched> {
        if asks.is_closed() {
            return Err(Unwatched::Off);
        }
        if !*self.is_live.borrow() {
            return Err(Unwatched::Replaying);
        }
        let (tell, told) = oneshot::channel();
        asks.try_send(ask(tell)).map_err(|_| Unwatched::Busy)?;
        let told = tokio::time::timeout(WATCHING_PATIENCE, told).await;
        let told = told.map_err(|_| Unwatched::Busy)?;
        told.map_err(|_| Unwatched::Off)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_a_stage_that_does_not_answer_is_told_why_and_does_not_wait_for_it() {
        let (watchers, mut out) = Watchers::new();
        let begun = tokio::time::Instant::now();
        assert_eq!(watchers.ask().await, Err(Unwatched::Replaying));
        assert_eq!(begun.elapsed(), std::time::Duration::ZERO);
        out.is_live.send_replace(true);
        for _ in 0..WATCHING_ASKS_MAX {
            assert_eq!(watchers.ask().await, Err(Unwatched::Busy));
        }
        let waited = begun.elapsed();
        assert_eq!(watchers.ask().await, Err(Unwatched::Busy), "no room");
        assert_eq!(begun.elapsed(), waited);
        while let Ok(gone) = out.asked.try_recv() {
            assert!(gone.is_closed());
        }
        let answers = async {
            let tell = out.asked.recv().await.unwrap();
            tell.send(Watching::default()).unwrap();
        };
        let (told, ()) = tokio::join!(watchers.ask(), answers);
        assert_eq!(told, Ok(Watching::default()));
        drop(out);
        assert_eq!(watchers.ask().await, Err(Unwatched::Off));
    }
}
