//! What is watched, for people: which series are still learned, and which are judged by the second.
//! Asked of the judging stage while it runs; it changes nothing.

use super::Judge;
use super::standing::{Found, Stands, StandsAsk};
use super::watched::Watch;
use crate::detect::SeriesDetector;
use crate::limits::{WATCHING_ASKS_MAX, WATCHING_PATIENCE, WATCHING_STEP};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
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
    /// Some of them, those that are still learned first.
    pub listed: Vec<WatchedSeries>,
}

/// Goes through what is watched, a bounded piece at a time: what is judged meanwhile waits for a
/// piece, and not for all. A series that comes or goes between two pieces may count or not.
#[derive(Debug)]
pub struct Survey {
    most: usize,
    /// The next place that is looked at.
    at: usize,
    learning: usize,
    /// The first ones: those that are still learned, then by name.
    first: BTreeSet<(bool, String, String)>,
}

impl Survey {
    /// Nothing is looked at yet; at most `most` series are to be listed.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            at: 0,
            learning: 0,
            first: BTreeSet::new(),
        }
    }

    fn look_at(&mut self, (device, metric): (&str, &str), learns: bool) {
        self.learning += usize::from(learns);
        let is_before = |(judged, d, m): &(bool, String, String)| {
            (!learns, device, metric) < (*judged, d.as_str(), m.as_str())
        };
        if self.first.len() < self.most || self.first.last().is_some_and(is_before) {
            let names = (device.to_owned(), metric.to_owned());
            self.first.insert((!learns, names.0, names.1));
        }
        if self.first.len() > self.most {
            self.first.pop_last();
        }
    }
}

impl Judge {
    /// Goes on with a survey by a piece; what is watched, once that was the last one.
    pub fn survey(&self, survey: &mut Survey) -> Option<Watching> {
        let watched = &self.series.watched;
        let to = survey.at.saturating_add(WATCHING_STEP);
        for (names, watch) in watched.places(survey.at..to) {
            survey.look_at(names, watch.detector.learns() > 0);
        }
        survey.at = to;
        (to >= watched.places_len()).then(|| self.watching(survey))
    }

    fn watching(&self, survey: &Survey) -> Watching {
        let series = &self.series;
        let listed = survey.first.iter().filter_map(|(_, device, metric)| {
            let names = (device.as_str(), metric.as_str());
            let (slot, _) = series.watched.series(names.0, names.1)?;
            let watch = series.watched.look(slot)?;
            Some(listed(names, watch, series.fast.has(slot)))
        });
        Watching {
            series: series.len(),
            learning: survey.learning,
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
    stands: mpsc::Sender<StandsAsk>,
    /// Whether the stage has replayed the log.
    is_live: watch::Receiver<bool>,
}

/// The stage's end.
#[derive(Debug)]
pub struct WatchersOut {
    /// Who asks.
    pub asked: mpsc::Receiver<oneshot::Sender<Watching>>,
    /// Who asks what stands.
    pub stands: mpsc::Receiver<StandsAsk>,
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
        let ask = |tell| StandsAsk::List(bytes_max, tell);
        self.told(&self.stands, ask).await
    }

    /// The alert that stands whose id begins so.
    ///
    /// # Errors
    /// [`Unwatched`].
    pub async fn find(&self, begins: &str) -> Result<Found, Unwatched> {
        let ask = |tell| StandsAsk::Find(begins.to_owned(), tell);
        self.told(&self.stands, ask).await
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

    #[test]
    fn the_first_are_those_that_are_learned_then_by_name() {
        let mut survey = Survey::new(3);
        for (device, learns) in [
            ("d", false),
            ("c", true),
            ("b", false),
            ("e", true),
            ("a", false),
        ] {
            survey.look_at((device, "t"), learns);
        }
        assert_eq!(survey.learning, 2);
        let first = survey
            .first
            .iter()
            .map(|(judged, device, _)| (*judged, device.as_str()));
        let first: Vec<_> = first.collect();
        assert_eq!(first, [(false, "c"), (false, "e"), (true, "a")]);
    }
}
