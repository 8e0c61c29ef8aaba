//! What is said about readings: by the detectors of their series, by rules, and in windows. Told
//! readings in the order of the log, and the time by it.

use super::counts::Counts;
use super::idle::{Idle, IdleRows};
use super::incidents::Incidents;
use super::later::Later;
use super::number_texts::NumberTexts;
use super::over::Over;
use super::readings::Readings;
use super::recent::Recent;
use super::standing::Standings;
use super::storm::Storm;
use super::tell::{self, Moment};
use super::turns::Turns;
use super::units::Units;
use super::watched::{At, Watch, Watched};
use super::{KernelClock, Said, Spoken};
use crate::aggregate::Told;
use crate::alert::{AlertState, Revision, Span};
use crate::capture::Wanted;
use crate::decode::Reading;
use crate::detect::{
    Aggregate, ClockTrust, ClosedSecond, EventTime, Fast, Gateway, GroupEngine, GroupEvent, Place,
    Progress, RuleEngine, RuleEvent, Sample, Settings, TimeVerdict, Timed, VibrationEngine,
    VibrationFeatures, Windows,
};
use crate::forward::Forward;
use crate::limits::{CLOCK_SANE_FROM_US, RECORD_AGGREGATES_MAX, TICK_EVERY_US};
use std::sync::Arc;
use tributary_protocol::ids::is_name;
use tributary_protocol::reading::{Flags, Meta, Value};

/// From here on no clock is believed: 2100-01-01, µs since 1970.
const CLOCK_SANE_BELOW_US: i64 = 4_102_444_800_000_000;
/// Readings without another alert after which one is over.
const CLEAR_READINGS: u8 = 60;

/// The series; see the module.
pub(super) struct Series {
    pub(super) storage: Box<[u8]>,
    pub(super) settings: Settings,
    pub(super) watched: Watched,
    /// Those that gave way, and where what is known of them is kept.
    pub(super) idle: Idle,
    pub(super) rows: Option<Box<dyn IdleRows>>,
    pub(super) times: EventTime,
    pub(super) fast: Fast,
    pub(super) readings: Readings,
    pub(super) windows: Windows,
    pub(super) units: Units,
    pub(super) rules: RuleEngine,
    pub(super) vibration: VibrationEngine,
    pub(super) groups: GroupEngine,
    pub(super) storm: Storm,
    /// How often one may give way to another.
    pub(super) turns: Turns,
    pub(super) standings: Standings,
    pub(super) over: Over,
    pub(super) incidents: Incidents,
    pub(super) later: Later,
    /// Alerts around which readings are to be captured.
    pub(super) wanted: Wanted,
    /// Which readings leave as aggregates alone: they need a place in windows.
    pub(super) forward: Forward,
    /// What the kernel says of the gateway's clock.
    pub(super) kernel: KernelClock,
    /// The greatest received time of a clock that was trusted.
    pub(super) greatest_time: i64,
    pub(super) counts: Counts,
    /// Series that say numbers as texts; since the start, no part of what is known.
    pub(super) number_texts: NumberTexts,
    /// Whether the log is replayed that a life before judged.
    pub(super) is_replay: bool,
    /// Alerts that were told with the message at hand.
    pub(super) told: usize,
    /// Aggregates that were.
    told_aggregates: usize,
    pub(super) windows_revision: Revision,
    pub(super) closed: Vec<ClosedSecond>,
    pub(super) aggregates: Vec<Aggregate>,
    events: Vec<RuleEvent>,
    features: Vec<VibrationFeatures>,
    pub(super) states: Vec<GroupEvent>,
}

/// A value, as far as it is judged.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub at: At,
    pub device: &'a str,
    pub metric: &'a str,
    pub unit: &'a str,
    /// What its reading says of it.
    pub meta: Meta,
    pub sample: Sample,
    /// What was judged together, where that is more than a reading, and what of it.
    pub window: Option<(Span, &'static str)>,
}

impl Seen<'_> {
    /// Its value as a person reads it.
    pub fn value_text(&self) -> String {
        let value = match self.window {
            Some(_) => rounded(self.sample.value),
            None => self.sample.value,
        };
        let unit = match self.unit {
            "" => String::new(),
            unit => format!(" {unit}"),
        };
        let of = self
            .window
            .map_or(String::new(), |(_, of)| format!(" ({of})"));
        format!("{value}{unit}{of}")
    }

    fn place(&self) -> Place<'_> {
        Place {
            series: self.at.series,
            device: self.at.device,
            device_name: self.device,
            metric: self.metric,
            unit: self.unit,
        }
    }
}

impl Series {
    pub fn new(storage: &[u8], settings: Settings) -> Self {
        Self {
            storage: storage.into(),
            watched: Watched::new(settings.series_max),
            idle: Idle::new(settings.series_kept_max),
            rows: None,
            times: EventTime::new(settings.time),
            fast: Fast::default(),
            readings: Readings::default(),
            windows: Windows::new(Arc::clone(&settings.windows), settings.time),
            units: Units::default(),
            rules: RuleEngine::new(Arc::clone(&settings.rules)),
            vibration: VibrationEngine::new(Arc::clone(&settings.vibration)),
            groups: GroupEngine::new(Arc::clone(&settings.groups)),
            windows_revision: settings.windows_revision(),
            settings,
            storm: Storm::default(),
            turns: Turns::default(),
            standings: Standings::default(),
            over: Over::default(),
            incidents: Incidents::default(),
            later: Later::default(),
            wanted: Wanted::default(),
            forward: Forward::default(),
            kernel: KernelClock::default(),
            greatest_time: 0,
            counts: Counts::default(),
            number_texts: NumberTexts::default(),
            is_replay: false,
            told: 0,
            told_aggregates: 0,
            closed: Vec::new(),
            aggregates: Vec::new(),
            events: Vec::new(),
            features: Vec::new(),
            states: Vec::new(),
        }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn len(&self) -> usize {
        self.watched.len()
    }

    /// When something is due although nothing comes: received time.
    pub fn poll_timeout(&mut self) -> Option<i64> {
        // A pause between two records is told from a clock that was set by how long it is.
        let now = self.times.steady();
        let next = now.saturating_add(TICK_EVERY_US);
        let due = [
            self.windows.poll_timeout(),
            self.fast.poll_timeout(),
            self.rules.poll_timeout(),
            self.later_due(now),
            self.storm.poll_timeout(),
            (self.watched.len() > 0).then_some(next),
        ];
        let due = due.into_iter().flatten().min();
        due.map(|steady| self.times.received_at(steady))
    }

    pub fn standing(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.standings.iter();
        all.map(|(topic, standing)| (topic, &*standing.json))
    }

    /// Judges by other settings from here on. What is unchanged goes on as it was.
    pub fn judge_by(&mut self, settings: Settings, moment: Moment, said: &mut Vec<Said>) {
        if settings == self.settings {
            return;
        }
        self.watched.judge_by(settings.preset);
        if settings.fast != self.settings.fast {
            self.end_fast(moment, said);
        }
        self.times.replace(settings.time);
        self.windows
            .replace(Arc::clone(&settings.windows), settings.time);
        let mut events = std::mem::take(&mut self.events);
        self.rules.replace(Arc::clone(&settings.rules), &mut events);
        self.tell_events(&mut events, (moment, None), said);
        self.events = events;
        self.vibration.replace(Arc::clone(&settings.vibration));
        let mut states = std::mem::take(&mut self.states);
        let groups = Arc::clone(&settings.groups);
        self.groups.replace(groups, moment.received, &mut states);
        self.tell_states(&mut states, moment, said);
        self.states = states;
        while let Some(gone) = self.watched.shrink(settings.series_max) {
            self.give_way(&gone, moment, said);
        }
        self.idle.set_most(settings.series_kept_max);
        self.forget_idle(0, moment, said);
        self.windows_revision = settings.windows_revision();
        self.forward = Forward::new(self.forward.rules(), &settings);
        if settings.rules.is_empty() && settings.groups.is_empty() {
            self.readings = Readings::default();
        }
        self.settings = settings;
    }

    /// The agent begins to run: nothing was silent while it did not.
    pub fn resume(&mut self, moment: Moment, said: &mut Vec<Said>) {
        let steady = self.clock(moment);
        self.rules.resume(steady);
        self.run_out(steady, moment, said);
    }

    /// The log has come to this time: before the readings of a message, and with a tick.
    pub fn pass(&mut self, moment: Moment, said: &mut Vec<Said>) {
        let steady = self.clock(moment);
        self.run_out(steady, moment, said);
    }

    /// The steady time that the log has come to.
    fn clock(&mut self, moment: Moment) -> i64 {
        let plausible = (CLOCK_SANE_FROM_US..CLOCK_SANE_BELOW_US).contains(&moment.received);
        let by_kernel = match self.settings.clock {
            ClockTrust::Kernel => self.kernel.synchronised.unwrap_or(true),
            ClockTrust::Plausible => true,
        };
        let steady = self.times.at(&Gateway {
            received_time: moment.received,
            synchronised: plausible && by_kernel,
            greatest_time: self.greatest_time,
        });
        if self.times.is_gateway_trusted() {
            self.greatest_time = self.times.received_at(steady);
        }
        let zero = self.times.received_at(0);
        self.rules.clock(zero, self.times.was_set());
        steady
    }

    /// Says what has come due.
    fn run_out(&mut self, steady: i64, moment: Moment, said: &mut Vec<Said>) {
        (self.told, self.told_aggregates) = (0, 0);
        self.tell_later(moment, said);
        self.tick_fast(steady, moment, said);
        self.windows.tick(steady, &mut self.aggregates);
        let mut events = std::mem::take(&mut self.events);
        self.rules.tick(steady, &mut events);
        self.tell_events(&mut events, (moment, None), said);
        self.events = events;
        self.tell_aggregates(moment, said);
        if let Some(counted) = self.storm.summary(steady) {
            self.counts.raised.storms += 1;
            said.push(tell::summary(&self.storage, &counted, moment));
        }
    }

    /// Judges a reading.
    pub fn reading(&mut self, reading: &Reading<'_>, moment: Moment, said: &mut Vec<Said>) {
        if !self.settings.enabled {
            return;
        }
        let Some(value) = number(&reading.value) else {
            self.counts.texts += 1;
            self.number_texts.note(reading);
            return;
        };
        let names = (reading.device, reading.metric);
        let Some(at) = self.place_of(names, reading.metric, moment, said) else {
            return;
        };
        let meta = reading.meta;
        let verdict = self.times.step(&Timed {
            device: at.device,
            event_time: meta.event_time,
            has_device_time: !meta.flags.has(Flags::NO_DEVICE_TIME),
        });
        let sample = Sample {
            event_time: verdict.time,
            received_time: meta.received_time,
            value,
            late: verdict.late,
            trusted: !verdict.suspect,
        };
        let seen = Seen {
            at,
            device: reading.device,
            metric: reading.metric,
            unit: reading.unit,
            meta,
            sample,
            window: None,
        };
        self.counts.suspect += u64::from(verdict.suspect);
        self.counts.late += u64::from(verdict.late);
        let mut features = std::mem::take(&mut self.features);
        if self.vibration.step(&seen.place(), &sample, &mut features) {
            self.counts.samples += 1;
            for features in &features {
                self.features_of(features, &seen, &verdict, moment, said);
            }
        } else {
            self.value(&seen, &verdict, moment, said);
        }
        features.clear();
        self.features = features;
    }

    /// Judges what a window of a vibration says: each feature is a series of its own.
    fn features_of(
        &mut self,
        features: &VibrationFeatures,
        of: &Seen<'_>,
        verdict: &TimeVerdict,
        moment: Moment,
        said: &mut Vec<Said>,
    ) {
        for (name, value) in features.names.iter().zip(&features.values) {
            let metric = format!("{}.{name}", of.metric);
            if !is_name(&metric) {
                continue;
            }
            let names = (of.device, &*metric);
            let Some(at) = self.place_of(names, of.metric, moment, said) else {
                continue;
            };
            let seen = Seen {
                at,
                metric: &metric,
                unit: "",
                sample: Sample {
                    value: *value,
                    ..of.sample
                },
                ..*of
            };
            self.value(&seen, verdict, moment, said);
        }
    }

    fn value(
        &mut self,
        seen: &Seen<'_>,
        verdict: &TimeVerdict,
        moment: Moment,
        said: &mut Vec<Said>,
    ) {
        let (place, sample) = (seen.place(), &seen.sample);
        if !self.settings.windows.is_empty() {
            self.units.note(seen.at.series, seen.unit);
        }
        self.windows
            .step(&place, sample, &verdict.progress, &mut self.aggregates);
        let watch = self.watched.watch(seen.at.series);
        let watch = watch.map(|watch| anew(watch, verdict.progress.newest));
        let same = watch.filter(|watch| watch.newest == sample.event_time);
        let earlier = same.map_or(0, |watch| watch.of_newest.saturating_add(1));
        let of_reading = Moment {
            reading: (seen.meta.device_seq.unwrap_or(0), earlier),
            skew: seen.meta.event_time.saturating_sub(sample.event_time),
            ..moment
        };
        let mut events = std::mem::take(&mut self.events);
        let steadily = Sample {
            received_time: self.times.steady(),
            ..*sample
        };
        self.rules.step(&place, &steadily, &mut events);
        self.tell_events(&mut events, (of_reading, Some(seen)), said);
        self.events = events;
        if !sample.late {
            self.judge(seen, &verdict.progress, moment, said);
        }
        let mut states = std::mem::take(&mut self.states);
        self.groups.step(&place, sample, &mut states);
        self.tell_states(&mut states, of_reading, said);
        self.states = states;
        self.tell_aggregates(moment, said);
    }

    /// Judges a reading that is not late; one of a fast series is taken into its window.
    fn judge(
        &mut self,
        seen: &Seen<'_>,
        progress: &Progress,
        moment: Moment,
        said: &mut Vec<Said>,
    ) {
        let Sample {
            event_time, value, ..
        } = seen.sample;
        if value.is_finite() && self.is_fast(seen, moment, said) {
            self.take_fast(seen, progress, moment, said);
            return;
        }
        let Some(watch) = self.watched.watch(seen.at.series) else {
            return;
        };
        if watch.pace.is_on_windows() || watch.pace.is_derived() {
            self.counts.not_finite += 1;
            return;
        }
        let earlier = match value.is_finite() {
            true => note(watch, event_time).map(|step| {
                watch.recent.push(step, value);
                watch.of_newest
            }),
            false => Some(0),
        };
        self.counts.judged += 1;
        self.counts.not_finite += u64::from(!value.is_finite());
        self.counts.late += u64::from(earlier.is_none());
        self.ask(seen, earlier.unwrap_or(0), moment, said);
    }

    /// Asks the detector of a series about a value.
    pub(super) fn ask(
        &mut self,
        seen: &Seen<'_>,
        earlier: u32,
        moment: Moment,
        said: &mut Vec<Said>,
    ) {
        let may_tell = self.may_tell();
        let is_clock_trusted = self.times.is_gateway_trusted();
        let Some(watch) = self.watched.watch(seen.at.series) else {
            return;
        };
        let Sample {
            event_time, value, ..
        } = seen.sample;
        let weekly = self.settings.weekly && seen.sample.trusted && is_clock_trusted;
        let judged = watch.detector.step(weekly, event_time, value);
        if judged.alert {
            watch.quiet = 0;
            let around = watch.recent.around(event_time);
            self.raise(seen, &judged, (earlier, around), moment, said);
            return;
        }
        watch.quiet = watch.quiet.saturating_add(1);
        if watch.alerted && watch.quiet >= CLEAR_READINGS && may_tell {
            watch.alerted = false;
            let of = match seen.window {
                Some(_) => "seconds",
                None => "readings",
            };
            let text = format!(
                "{} {} was as usual for {CLEAR_READINGS} {of}",
                seen.device, seen.metric
            );
            self.clear(seen, &text, moment, said);
        }
    }

    /// Tells what windows say, as far as this record may.
    fn tell_aggregates(&mut self, moment: Moment, said: &mut Vec<Said>) {
        self.take_aggregates(None, moment);
        while self.told_aggregates < RECORD_AGGREGATES_MAX
            && let Some(waited) = self.later.next_aggregate(moment.origin)
        {
            self.told_aggregates += 1;
            said.push(waited);
        }
    }

    /// Has what windows say wait to be told; `gone`: the series that it is all of, where that is
    /// not watched any more.
    pub(super) fn take_aggregates(&mut self, gone: Option<(&str, &str)>, moment: Moment) {
        let mut aggregates = std::mem::take(&mut self.aggregates);
        for aggregate in aggregates.drain(..) {
            let spec = self
                .settings
                .windows
                .iter()
                .find(|it| it.name == aggregate.window);
            let names = gone.or_else(|| self.watched.names(aggregate.series));
            let (Some(spec), Some((device, metric))) = (spec, names) else {
                continue;
            };
            let told = Told {
                aggregate: &aggregate,
                kind: spec.kind,
                device,
                metric,
                unit: self.units.of(aggregate.series),
                revision: self.windows_revision,
            };
            let spoken = Spoken {
                device: device.to_owned(),
                metric: metric.to_owned(),
                meta: told.meta(moment.received),
                state: AlertState::Raised,
                is_present: false,
                is_passing: false,
                json: told.json(),
            };
            self.later.say_aggregate(told.topic(), spoken);
        }
        self.aggregates = aggregates;
    }
}

/// A series that is further than its device, whose time began anew since: when the gateway's clock
/// was set right, say. Its times from before say nothing.
pub(super) fn anew(watch: &mut Watch, device_newest: i64) -> &mut Watch {
    if watch.newest > device_newest {
        watch.newest = i64::MIN;
        watch.of_newest = 0;
        watch.recent = Recent::default();
        watch.detector.forget_times();
    }
    watch
}

/// Takes the time of a reading: how long it is after the newest one so far, or `None` when that is
/// newer.
pub(super) fn note(watch: &mut Watch, time: i64) -> Option<i64> {
    if time < watch.newest {
        return None;
    }
    let step = match watch.newest {
        i64::MIN => 0,
        newest => time.saturating_sub(newest),
    };
    watch.of_newest = match step == 0 && watch.newest == time {
        true => watch.of_newest.saturating_add(1),
        false => 0,
    };
    watch.newest = time;
    Some(step)
}

/// A computed value, to the six digits that a person reads.
fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

/// A value as a number; a text is none.
fn number(value: &Value<'_>) -> Option<f64> {
    match *value {
        Value::F64(value) => Some(value),
        Value::F32(value) => Some(value.into()),
        Value::I64(value) => Some(value as f64),
        Value::Bool(value) => Some(u8::from(value).into()),
        Value::Str(_) => None,
    }
}
