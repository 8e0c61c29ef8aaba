//! Looks through what is watched, for whoever asks: a bounded piece at a time.

use super::super::Judge;
use super::super::watched::Watch;
use super::{Configured, ConfiguredKind, JudgedBy, SuspectClock, WatchedSeries, Watching};
use crate::alert::Revision;
use crate::detect::SeriesDetector;
use crate::limits::{WATCHING_CLOCKS_MAX, WATCHING_STEP};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Goes through what is watched, a bounded piece at a time: what is judged meanwhile waits for a
/// piece, and not for all. A series that comes or goes between two pieces may count or not.
#[derive(Debug)]
pub struct Survey {
    most: usize,
    /// The next place that is looked at: of series, of devices and of what has windows.
    at: usize,
    learning: usize,
    /// The first ones: those that are still learned, then by name.
    first: BTreeSet<(bool, String, String)>,
    suspects: usize,
    /// The clocks that are farthest off: by how much, and ahead of the gateway's; µs.
    clocks: BTreeSet<(Reverse<u64>, String, i64)>,
    /// For each window that is configured, how many series it is for.
    windows: Vec<usize>,
    /// The settings of these; `None`: nothing was looked at.
    revision: Option<Revision>,
}

impl Survey {
    /// Nothing is looked at yet; at most `most` series are to be listed.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            at: 0,
            learning: 0,
            first: BTreeSet::new(),
            suspects: 0,
            clocks: BTreeSet::new(),
            windows: Vec::new(),
            revision: None,
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

impl Survey {
    fn suspect(&mut self, device: &str, ahead: i64) {
        self.suspects += 1;
        let off = Reverse(ahead.unsigned_abs());
        let is_before = |(least, d, _): &(Reverse<u64>, String, i64)| (off, device) < (*least, d);
        if self.clocks.len() < WATCHING_CLOCKS_MAX || self.clocks.last().is_some_and(is_before) {
            self.clocks.insert((off, device.to_owned(), ahead));
        }
        if self.clocks.len() > WATCHING_CLOCKS_MAX {
            self.clocks.pop_last();
        }
    }
}

impl Judge {
    /// Goes on with a survey by a piece; what is watched, once that was the last one. Where other
    /// windows were configured meanwhile, it begins anew.
    pub fn survey(&self, survey: &mut Survey) -> Option<Watching> {
        let revision = Some(self.series.windows_revision);
        if survey.revision != revision {
            *survey = Survey {
                revision,
                windows: vec![0; self.series.settings.windows.len()],
                ..Survey::new(survey.most)
            };
        }
        let watched = &self.series.watched;
        let to = survey.at.saturating_add(WATCHING_STEP);
        for (names, watch) in watched.places(survey.at..to) {
            survey.look_at(names, watch.detector.learns() > 0);
        }
        for (device, ahead) in self.series.times.suspects(survey.at..to) {
            if let Some(device) = watched.device_name(device) {
                survey.suspect(device, ahead);
            }
        }
        let windows = &self.series.windows;
        windows.tally(survey.at..to, &mut survey.windows);
        survey.at = to;
        let places = [
            watched.places_len(),
            self.series.times.places_len(),
            windows.places_len(),
        ];
        (places.iter().all(|places| *places <= to)).then(|| self.watching(survey))
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
            suspect_clocks: survey.suspects,
            clocks: survey.clocks.iter().map(clock).collect(),
            number_texts: series.number_texts.all().to_vec(),
            configured: self.tallied(&survey.windows),
            listed: listed.collect(),
            fenced_last_hour: 0,
            away_at: String::new(),
            in_doubt_batches: 0,
        }
    }
}

impl Judge {
    fn tallied(&self, windows: &[usize]) -> Vec<Configured> {
        let series = &self.series;
        let of = |is_joint: bool| if is_joint { "devices" } else { "series" };
        let rules = series.rules.tallied().map(|rule| Configured {
            kind: ConfiguredKind::Rule,
            name: rule.name.to_owned(),
            of: of(rule.is_joint).to_owned(),
            count: rule.states as usize,
            judged: rule.judged as usize,
        });
        let named = series.settings.windows.iter().zip(windows);
        let windows = named.map(|(window, count)| Configured {
            kind: ConfiguredKind::Window,
            name: window.name.to_string(),
            of: of(false).to_owned(),
            count: *count,
            judged: *count,
        });
        let groups = series.groups.tallied().map(|(name, count)| Configured {
            kind: ConfiguredKind::Group,
            name: name.to_owned(),
            of: of(true).to_owned(),
            count,
            judged: count,
        });
        rules.chain(windows).chain(groups).collect()
    }
}

fn clock((_, device, ahead): &(Reverse<u64>, String, i64)) -> SuspectClock {
    SuspectClock {
        device: device.clone(),
        ahead_s: ahead / 1_000_000,
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

#[cfg(test)]
mod tests {
    use super::*;

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
