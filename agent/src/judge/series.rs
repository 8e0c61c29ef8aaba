//! What is said about single series: their detectors, what stands, and when there is too much to
//! say. Told readings in the order of the log.

use super::storm::{Counted, Storm};
use super::watched::{Gone, Standing, Watch, Watched};
use super::{Said, Spoken};
use crate::alert::{
    Alert, AlertId, AlertKind, AlertState, Cause, Revision, Severity, Span, sentence, topic_of,
};
use crate::decode::Reading;
use crate::detect::{Judgement, Settings};
use crate::limits::MESSAGE_ALERTS_MAX;
use crate::seal::Origin;
use tributary_protocol::reading::{Flags, Meta, Value};

/// What judges a series.
const DETECTOR: &str = "series";
/// Whose alerts summaries are.
const AGENT: (&str, &str) = ("$agent", "alerts");
/// Readings without another alert after which one is over.
const CLEAR_READINGS: u8 = 60;

/// What was not judged, or not told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Readings that were judged.
    pub judged: u64,
    /// Readings whose value is a text.
    pub texts: u64,
    /// Readings whose value is no number, or infinite.
    pub not_finite: u64,
    /// Readings from before their series' newest.
    pub late: u64,
    /// Readings whose time is not believed, which were judged by when they came.
    pub suspect: u64,
    /// Series that gave way to new ones.
    pub forgotten: u64,
    /// Alerts that were told.
    pub raised: u64,
    /// Alerts that were counted in a summary instead.
    pub held_back: u64,
}

/// The series; see the module.
pub(super) struct Series {
    storage: Box<[u8]>,
    pub(super) settings: Settings,
    revision: Revision,
    pub(super) watched: Watched,
    pub(super) storm: Storm,
    counts: Counts,
    /// Alerts that were told with the message at hand.
    told: usize,
}

/// A reading, as far as it is judged.
struct Seen<'a> {
    origin: Origin,
    reading: &'a Reading<'a>,
    /// By which time it is judged.
    time: i64,
    /// Whether its own is not believed.
    suspect: bool,
    value: f64,
    /// The time at which it is judged.
    now: i64,
}

impl Series {
    pub fn new(storage: &[u8], settings: Settings) -> Self {
        Self {
            storage: storage.into(),
            revision: settings.revision(),
            watched: Watched::new(settings.series_max),
            settings,
            storm: Storm::default(),
            counts: Counts::default(),
            told: 0,
        }
    }

    /// A message begins.
    pub fn begin(&mut self) {
        self.told = 0;
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn len(&self) -> usize {
        self.watched.len()
    }

    pub fn poll_timeout(&self) -> Option<i64> {
        self.storm.poll_timeout()
    }

    pub fn standing(&self) -> impl Iterator<Item = (String, &str)> {
        self.watched.iter().filter_map(|((device, metric), watch)| {
            let standing = watch.standing.as_ref()?;
            Some((topic_of(device, metric), &*standing.json))
        })
    }

    /// Judges by other settings from here on.
    pub fn judge_by(&mut self, settings: Settings) {
        if settings == self.settings {
            return;
        }
        self.revision = settings.revision();
        self.watched.set_most(settings.series_max);
        self.watched.judge_by(settings.preset);
        self.settings = settings;
    }

    /// Time has passed, says the log.
    pub fn tick(&mut self, origin: Origin, time: i64, now: i64, said: &mut Vec<Said>) {
        if let Some(counted) = self.storm.summary(time) {
            said.push(self.summary(origin, &counted, time, now));
        }
    }

    /// Judges a reading.
    pub fn reading(
        &mut self,
        origin: Origin,
        reading: &Reading<'_>,
        now: i64,
        said: &mut Vec<Said>,
    ) {
        let meta = &reading.meta;
        if let Some(counted) = self.storm.summary(meta.received_time) {
            said.push(self.summary(origin, &counted, meta.received_time, now));
        }
        if !self.settings.enabled {
            return;
        }
        let Some(value) = number(&reading.value) else {
            self.counts.texts += 1;
            return;
        };
        let suspect = meta.flags.has(Flags::CLOCK_SUSPECT);
        let seen = Seen {
            origin,
            reading,
            time: if suspect {
                meta.received_time
            } else {
                meta.event_time
            },
            suspect,
            value,
            now,
        };
        self.judge(&seen, said);
    }

    fn judge(&mut self, seen: &Seen<'_>, said: &mut Vec<Said>) {
        let Seen {
            origin,
            reading,
            value,
            ..
        } = *seen;
        let preset = self.settings.preset;
        let (watch, gone) = self.watched.entry(reading.device, reading.metric, preset);
        self.counts.forgotten += u64::from(gone != Gone::Nobody);
        if let Gone::Alerted(device, metric) = gone {
            let topic = topic_of(&device, &metric);
            let alert = None;
            said.push(Said {
                origin,
                topic,
                alert,
            });
        }
        let earlier = match value.is_finite() {
            true => note(watch, seen.time, value),
            false => Some(0),
        };
        self.counts.judged += 1;
        self.counts.suspect += u64::from(seen.suspect);
        self.counts.not_finite += u64::from(!value.is_finite());
        self.counts.late += u64::from(earlier.is_none());
        let weekly = self.settings.weekly && !seen.suspect;
        let judged = watch.detector.step(weekly, seen.time, value);
        if judged.alert {
            watch.quiet = 0;
            let is_told = self.told < MESSAGE_ALERTS_MAX;
            let name = || format!("{} {}", reading.device, reading.metric);
            if self.storm.admits(reading.meta.received_time, is_told, name) {
                self.told += 1;
                self.counts.raised += 1;
                let id = identity(&self.storage, self.revision, seen, earlier);
                raise(watch, seen, (id, self.revision), &judged, said);
            } else {
                self.counts.held_back += 1;
            }
            return;
        }
        watch.quiet = watch.quiet.saturating_add(1);
        if watch.quiet >= CLEAR_READINGS
            && self.told < MESSAGE_ALERTS_MAX
            && let Some(standing) = watch.standing.take()
        {
            self.told += 1;
            let text = format!(
                "{} {} was as usual for {CLEAR_READINGS} readings",
                reading.device, reading.metric
            );
            said.push(cleared(seen, (&standing, self.revision), text, true));
        }
    }

    fn summary(&mut self, origin: Origin, counted: &Counted, time: i64, now: i64) -> Said {
        let (device, metric) = AGENT;
        let cause = Cause {
            device,
            metric,
            detector: "storm",
            revision: self.revision,
            event_time: counted.since,
            device_seq: 0,
            earlier: 0,
        };
        let alerts = counted.alerts;
        let text = format!(
            "{alerts} more alerts came than are told one by one; the first of them: {}",
            counted.names.join(", ")
        );
        let window = Span {
            from: counted.since,
            to: time,
        };
        let alert = Alert {
            id: AlertId::new(&self.storage, &cause),
            state: AlertState::Raised,
            kind: AlertKind::Summary,
            device: device.into(),
            metric: metric.into(),
            unit: String::new(),
            detector: "storm".into(),
            part: None,
            revision: self.revision,
            severity: Severity::Warning,
            score: 1.0,
            value: Some(alerts as f64),
            event_time: counted.since,
            received_time: time,
            detection_time: now,
            window: Some(window),
            around: Vec::new(),
            late: false,
            text,
        };
        let meta = Meta {
            event_time: counted.since,
            received_time: time,
            ..Meta::default()
        };
        Said {
            origin,
            topic: alert.topic(),
            alert: Some(Spoken::new(&alert, meta, true)),
        }
    }
}

/// Takes a reading among those that are shown; earlier readings of its time, or `None` when there
/// is a newer one.
fn note(watch: &mut Watch, time: i64, value: f64) -> Option<u32> {
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
    watch.recent.push(step, value);
    watch.newest = time;
    Some(watch.of_newest)
}

fn identity(storage: &[u8], revision: Revision, seen: &Seen<'_>, earlier: Option<u32>) -> AlertId {
    let cause = Cause {
        device: seen.reading.device,
        metric: seen.reading.metric,
        detector: DETECTOR,
        revision,
        event_time: seen.reading.meta.event_time,
        device_seq: seen.reading.meta.device_seq.unwrap_or(0),
        earlier: earlier.unwrap_or(0),
    };
    AlertId::new(storage, &cause)
}

fn raise(
    watch: &mut Watch,
    seen: &Seen<'_>,
    (id, revision): (AlertId, Revision),
    judged: &Judgement,
    said: &mut Vec<Said>,
) {
    if let Some(before) = watch.standing.take() {
        let text = "another alert of this series took its place".to_owned();
        said.push(cleared(seen, (&before, revision), text, false));
    }
    let Seen { reading, value, .. } = seen;
    let name = format!("{} {}", reading.device, reading.metric);
    let alert = Alert {
        id,
        state: AlertState::Raised,
        part: judged.part.map(|part| part.name()),
        revision,
        score: judged.score(),
        around: watch.recent.around(seen.time),
        text: sentence(&name, (*value, reading.unit), judged.part),
        ..blank(seen)
    };
    let spoken = Spoken::new(&alert, reading.meta, true);
    watch.standing = Some(Box::new(Standing {
        id,
        score: alert.score,
        json: spoken.json.as_str().into(),
    }));
    said.push(Said {
        origin: seen.origin,
        topic: alert.topic(),
        alert: Some(spoken),
    });
}

fn cleared(
    seen: &Seen<'_>,
    (standing, revision): (&Standing, Revision),
    text: String,
    is_present: bool,
) -> Said {
    let alert = Alert {
        id: standing.id,
        state: AlertState::Cleared,
        revision,
        score: standing.score,
        text,
        ..blank(seen)
    };
    Said {
        origin: seen.origin,
        topic: alert.topic(),
        alert: Some(Spoken::new(&alert, seen.reading.meta, is_present)),
    }
}

/// An alert about a reading, with nothing said about it.
fn blank(seen: &Seen<'_>) -> Alert {
    let Seen {
        reading,
        value,
        now,
        ..
    } = seen;
    Alert {
        id: AlertId([0; 16]),
        state: AlertState::Raised,
        kind: AlertKind::Event,
        device: reading.device.into(),
        metric: reading.metric.into(),
        unit: reading.unit.into(),
        detector: DETECTOR.into(),
        part: None,
        revision: Revision::default(),
        severity: Severity::Warning,
        score: 0.0,
        value: Some(*value),
        event_time: reading.meta.event_time,
        received_time: reading.meta.received_time,
        detection_time: *now,
        window: None,
        around: Vec::new(),
        late: false,
        text: String::new(),
    }
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
