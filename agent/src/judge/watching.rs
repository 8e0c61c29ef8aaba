//! What is watched, for people: which series are still learned, and which are judged by the second.
//! Asked of the judging stage while it runs; it changes nothing.

use super::Judge;
use super::watched::Watch;
use crate::detect::SeriesDetector;
use crate::limits::{WATCHING_ASKS_MAX, WATCHING_PATIENCE};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

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

/// All of them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Watching {
    /// How many series are watched.
    pub series: usize,
    /// How many of them are still learned, and can't alert.
    pub learning: usize,
    /// How many report faster than once a second, and are judged by the second.
    pub fast: usize,
    /// Whether the gateway's clock is believed: where not, no time tells the time of the week, and
    /// readings without a time of their own are suspect.
    pub clock_trusted: bool,
    /// Some of them, those that are still learned first.
    pub listed: Vec<WatchedSeries>,
}

impl Judge {
    /// What is watched; of the series at most `most`.
    pub fn watching(&self, most: usize) -> Watching {
        let series = &self.series;
        let mut learning = 0;
        let mut all = Vec::with_capacity(series.len());
        for (names, watch) in series.watched.iter() {
            let learns = watch.detector.learns() > 0;
            learning += usize::from(learns);
            all.push(((!learns, names), watch));
        }
        if most < all.len() {
            all.select_nth_unstable_by_key(most, |(key, _)| *key);
            all.truncate(most);
        }
        all.sort_unstable_by_key(|(key, _)| *key);
        let listed = all.into_iter().map(|((_, names), watch)| {
            let slot = series.watched.series(names.0, names.1);
            let is_fast = slot.is_some_and(|(slot, _)| series.fast.has(slot));
            listed(names, watch, is_fast)
        });
        Watching {
            series: series.len(),
            learning,
            fast: series.fast.count(),
            clock_trusted: self.is_clock_trusted(),
            listed: listed.collect(),
        }
    }
}

fn listed((device, metric): (&str, &str), watch: &Watch, is_fast: bool) -> WatchedSeries {
    let learns = watch.detector.learns();
    let of = SeriesDetector::LEARNS;
    WatchedSeries {
        device: device.to_owned(),
        metric: metric.to_owned(),
        judged_by: match (watch.pace.is_derived(), is_fast) {
            (true, _) => JudgedBy::PeakToPeak,
            (false, true) => JudgedBy::Seconds,
            (false, false) => JudgedBy::Readings,
        },
        state: match learns {
            0 => "judged".to_owned(),
            learns => format!("learning ({} of {of})", of.saturating_sub(learns)),
        },
    }
}

/// Asks the running stage.
#[derive(Clone, Debug)]
pub struct Watchers(mpsc::Sender<oneshot::Sender<Watching>>);

/// The stage's end.
pub type WatchersOut = mpsc::Receiver<oneshot::Sender<Watching>>;

impl Watchers {
    /// Both ends.
    pub fn new() -> (Self, WatchersOut) {
        let (asks, asked) = mpsc::channel(WATCHING_ASKS_MAX);
        (Self(asks), asked)
    }

    /// What is watched; `None` where nothing is judged, or not yet: it replays the log, or others
    /// ask as well.
    pub async fn ask(&self) -> Option<Watching> {
        let (tell, told) = oneshot::channel();
        self.0.try_send(tell).ok()?;
        let told = tokio::time::timeout(WATCHING_PATIENCE, told).await;
        told.ok()?.ok()
    }
}
