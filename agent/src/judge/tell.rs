//! From what detectors and rules find to alerts: which one it is, whether it is told or counted,
//! and what its topic shows then.

use super::series::{Seen, Series};
use super::standing::Standing;
use super::storm::Counted;
use super::{Said, Spoken, What};
use crate::alert::{
    Alert, AlertId, AlertKind, AlertState, Cause, Revision, Severity, Span, sentence, topic_of,
};
use crate::detect::{GroupEvent, Judgement, RuleChange, RuleEvent};
use crate::limits::MESSAGE_ALERTS_MAX;
use crate::seal::Origin;
use tributary_protocol::reading::{Flags, Meta};

/// What judges a series.
pub(super) const SERIES: &str = "series";
/// Whose alerts summaries are.
const AGENT: (&str, &str) = ("$agent", "alerts");

/// How often it is looked whether there is room for alerts that wait for some.
const OWED_US: i64 = 250_000;

/// Where the log is, and what time it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// The record.
    pub origin: Origin,
    /// When it was received: µs since 1970, UTC.
    pub received: i64,
    /// When it is judged, by the gateway's clock now.
    pub now: i64,
    /// The number that the device gave the reading at hand, and how many of its series had its
    /// time before: what tells apart what rules say of one time.
    pub reading: (i64, u32),
    /// How far its device's time is ahead of the one that it is judged by.
    pub skew: i64,
}

impl Series {
    pub(super) fn may_tell(&self) -> bool {
        self.told < MESSAGE_ALERTS_MAX
    }

    /// Whether an alert is told, which it is then.
    fn admits(
        &mut self,
        moment: Moment,
        (device, metric): (&str, &str),
        severity: Severity,
    ) -> bool {
        let may = self.may_tell();
        let now = (self.times.steady(), moment.received);
        let name = || format!("{device} {metric}");
        let admitted = self.storm.admits(now, (severity, may), name);
        self.told += usize::from(admitted);
        self.counts.held_back += u64::from(!admitted);
        admitted
    }

    /// When there will be something to tell that waits: steady time.
    pub(super) fn later_due(&self, now: i64) -> Option<i64> {
        let owed = self.later.gravest().map(|_| now.saturating_add(OWED_US));
        let waits = self.later.is_waiting() || self.later.has_aggregates();
        waits.then_some(now).or(owed)
    }

    /// Tells what waited, as far as this record may.
    pub(super) fn tell_later(&mut self, moment: Moment, said: &mut Vec<Said>) {
        while self.may_tell()
            && let Some((topic, mut spoken)) = self.later.next()
        {
            // Nothing follows it at once any more.
            spoken.is_present = true;
            self.tell_over(topic, spoken, moment.origin, said);
        }
        while self.may_tell()
            && let Some(severity) = self.later.gravest()
            && self.storm.has_room(self.times.steady(), severity)
            && let Some((device, metric, owed)) = self.later.take_gravest()
        {
            self.storm.take();
            self.told += 1;
            self.counts.raised.count(&owed.standing.detector, false);
            let spoken = Spoken {
                device,
                metric,
                meta: owed.meta,
                state: AlertState::Raised,
                is_present: true,
                is_passing: false,
                json: owed.standing.json.to_string(),
            };
            // What is captured around it is of when it was raised, by its device's own clock.
            let event = owed.meta.event_time.saturating_add(owed.skew);
            let received = owed.meta.received_time;
            self.wanted
                .raised(owed.standing.id, &spoken.device, event, received);
            self.stand(spoken, owed.standing, moment.origin, said);
        }
    }

    /// Raises an alert that stands until it is over: one that there is no room for is told later.
    fn raise_standing(&mut self, alert: Alert, meta: Meta, moment: Moment, said: &mut Vec<Said>) {
        let (device, metric) = (alert.device.clone(), alert.metric.clone());
        // One that stands already was raised by what is configured no more.
        self.standings.clear(&device, &metric, &alert.detector);
        if self.admits(moment, (&device, &metric), alert.severity) {
            self.tell_raised(alert, meta, moment, said);
            return;
        }
        let alert = self.of_incident(alert);
        let standing = standing_of(&alert, alert.json().into());
        let names = (&*device, &*metric);
        let owed = (standing, alert.severity);
        self.later.owe(names, owed, (meta, moment.skew));
    }

    fn of_incident(&mut self, alert: Alert) -> Alert {
        let now = self.times.steady();
        let incident = self.incidents.of(&alert.device, now, alert.id);
        Alert { incident, ..alert }
    }

    /// The detector of a series found something.
    pub(super) fn raise(
        &mut self,
        seen: &Seen<'_>,
        judged: &Judgement,
        (earlier, around): (u32, Vec<(i64, f64)>),
        moment: Moment,
        said: &mut Vec<Said>,
    ) {
        if !self.admits(moment, (seen.device, seen.metric), Severity::Warning) {
            return;
        }
        if let Some(watch) = self.watched.watch(seen.at.series) {
            watch.alerted = true;
        }
        let text = "another alert of this series took its place";
        self.clear_with(seen, text, moment, said, false);
        let revision = self.settings.revision();
        let id = AlertId::new(
            &self.storage,
            &Cause {
                device: seen.device,
                metric: seen.metric,
                detector: SERIES,
                revision,
                event_time: seen.meta.event_time,
                device_seq: seen.meta.device_seq.unwrap_or(0),
                earlier,
            },
        );
        let name = format!("{} {}", seen.device, seen.metric);
        let alert = Alert {
            id,
            part: judged.part.map(|part| part.name()),
            revision,
            score: judged.score(),
            around,
            text: sentence(&name, &seen.value_text(), judged.part),
            ..blank(seen, moment)
        };
        self.tell_raised(alert, seen.meta, moment, said);
    }

    fn tell_raised(&mut self, alert: Alert, meta: Meta, moment: Moment, said: &mut Vec<Said>) {
        let alert = self.of_incident(alert);
        self.counts.raised.count_alert(&alert);
        let event = meta.event_time.saturating_add(moment.skew);
        self.wanted
            .raised(alert.id, &alert.device, event, moment.received);
        let spoken = Spoken::new(&alert, meta, true);
        let standing = standing_of(&alert, spoken.json.as_str().into());
        self.stand(spoken, standing, moment.origin, said);
    }

    /// An alert stands from here on. Where a graver one does, its topic shows that again at once;
    /// where there was no room to keep it, also one that is as grave, but none that is less.
    fn stand(
        &mut self,
        mut spoken: Spoken,
        standing: Standing,
        origin: Origin,
        said: &mut Vec<Said>,
    ) {
        let topic = topic_of(&spoken.device, &spoken.metric);
        let (id, severity) = (standing.id, standing.severity);
        self.over.remove(&topic);
        self.standings
            .raise(&spoken.device, &spoken.metric, standing);
        let graver = self.standings.present(&topic);
        let graver = graver.filter(|shown| shown.id != id && shown.severity >= severity);
        let again = graver.map(|shown| What::Again(shown.json.to_string()));
        spoken.is_present = again.is_none();
        say_both((topic, spoken, again), origin, said);
    }

    /// The alert of a series' detector is over.
    pub(super) fn clear(
        &mut self,
        seen: &Seen<'_>,
        text: &str,
        moment: Moment,
        said: &mut Vec<Said>,
    ) {
        self.clear_with(seen, text, moment, said, true);
    }

    fn clear_with(
        &mut self,
        seen: &Seen<'_>,
        text: &str,
        moment: Moment,
        said: &mut Vec<Said>,
        is_present: bool,
    ) {
        let standing = self.standings.clear(seen.device, seen.metric, SERIES);
        let Some(standing) = standing else {
            return;
        };
        let alert = Alert {
            id: standing.id,
            incident: standing.incident,
            state: AlertState::Cleared,
            revision: self.settings.revision(),
            score: standing.score,
            text: text.to_owned(),
            ..blank(seen, moment)
        };
        self.tell_cleared(&alert, seen.meta, is_present, moment.origin, said);
    }

    /// Tells that an alert is over. One that this record has no room for is told with the next
    /// ones.
    fn tell_cleared(
        &mut self,
        alert: &Alert,
        meta: Meta,
        is_present: bool,
        origin: Origin,
        said: &mut Vec<Said>,
    ) {
        let (topic, spoken) = (alert.topic(), Spoken::new(alert, meta, is_present));
        match self.may_tell() && !self.later.is_waiting() {
            true => self.tell_over(topic, spoken, origin, said),
            false => self.later.say(topic, spoken),
        }
    }

    /// What the topic shows then is the gravest alert of those that still stand.
    fn tell_over(
        &mut self,
        topic: String,
        mut spoken: Spoken,
        origin: Origin,
        said: &mut Vec<Said>,
    ) {
        self.told += 1;
        let other = self.standings.present(&topic);
        let other = other.filter(|_| spoken.is_present);
        let again = other.map(|other| What::Again(other.json.to_string()));
        spoken.is_present &= again.is_none();
        if spoken.is_present {
            self.over.put(&topic, &spoken.json);
        }
        say_both((topic, spoken, again), origin, said);
    }

    /// A series is not watched any more: its alert no longer stands, and nobody knows whether it
    /// should.
    pub(super) fn tell_forgotten(
        &mut self,
        (device, metric): (&str, &str),
        origin: Origin,
        said: &mut Vec<Said>,
    ) {
        self.standings.clear(device, metric, SERIES);
        let topic = topic_of(device, metric);
        let other = self.standings.present(&topic);
        let again = other.map(|other| What::Again(other.json.to_string()));
        if again.is_none() {
            self.over.put(&topic, "");
        }
        said.push(Said {
            origin,
            what: again.unwrap_or(What::Forgotten),
            topic,
        });
    }

    /// Somebody has seen an alert.
    pub(super) fn acknowledge(&mut self, id: AlertId, moment: Moment, said: &mut Vec<Said>) {
        let Some((device, metric, standing, is_present)) = self.standings.acknowledge(id) else {
            return;
        };
        let spoken = Spoken {
            device: device.to_owned(),
            metric: metric.to_owned(),
            meta: Meta {
                event_time: moment.received,
                received_time: moment.received,
                ..Meta::default()
            },
            state: AlertState::Acknowledged,
            is_passing: false,
            is_present,
            json: standing.json.to_string(),
        };
        let topic = topic_of(device, metric);
        let graver = self.standings.present(&topic).filter(|_| !is_present);
        let again = graver.map(|shown| What::Again(shown.json.to_string()));
        say_both((topic, spoken, again), moment.origin, said);
    }

    /// What is said of a device is captured by its own clock, whoever's reading is at hand.
    fn moment_of(&self, device: &str, moment: Moment, at_hand: Option<&Seen<'_>>) -> Moment {
        if at_hand.is_some_and(|seen| seen.device == device) {
            return moment;
        }
        let slot = self.watched.device(device);
        let skew = slot.map_or(0, |slot| self.times.skew(slot));
        Moment { skew, ..moment }
    }

    /// What rules say, with the reading `at_hand` if with one.
    pub(super) fn tell_events(
        &mut self,
        events: &mut Vec<RuleEvent>,
        (moment, at_hand): (Moment, Option<&Seen<'_>>),
        said: &mut Vec<Said>,
    ) {
        for event in events.drain(..) {
            let detector = format!("rule:{}", event.rule);
            let (device, metric) = (&*event.device, &*event.metric);
            let moment = self.moment_of(device, moment, at_hand);
            let mut flags = Flags::default();
            if event.late {
                flags = flags.with(Flags::LATE);
            }
            let meta = Meta {
                event_time: event.event_time,
                received_time: moment.received,
                flags,
                ..Meta::default()
            };
            match event.change {
                RuleChange::Raised => {
                    let around = self.readings_of((device, metric), at_hand);
                    let alert = Alert {
                        around,
                        ..self.rule_alert(&event, detector, moment)
                    };
                    self.raise_standing(alert, meta, moment, said);
                }
                RuleChange::Cleared if self.later.is_over(device, metric, &detector) => {}
                RuleChange::Cleared => {
                    let Some(standing) = self.standings.clear(device, metric, &detector) else {
                        continue;
                    };
                    let alert = Alert {
                        id: standing.id,
                        incident: standing.incident,
                        state: AlertState::Cleared,
                        ..self.rule_alert(&event, detector, moment)
                    };
                    self.tell_cleared(&alert, meta, true, moment.origin, said);
                }
            }
        }
    }

    /// What states of machines begin or are over.
    pub(super) fn tell_states(
        &mut self,
        states: &mut Vec<GroupEvent>,
        moment: Moment,
        said: &mut Vec<Said>,
    ) {
        for event in states.drain(..) {
            let detector = format!("group:{}", event.group);
            let (device, metric) = (&*event.device, &*event.group);
            let meta = Meta {
                event_time: event.event_time,
                received_time: moment.received,
                ..Meta::default()
            };
            if event.began {
                // The reading at hand is among those of its series by now.
                let farthest = event.farthest.as_ref();
                let around = farthest.map_or(Vec::new(), |(metric, _)| {
                    self.readings_of((device, metric), None)
                });
                let alert = Alert {
                    around,
                    ..self.state_alert(&event, detector, moment)
                };
                self.raise_standing(alert, meta, moment, said);
            } else if self.later.is_over(device, metric, &detector) {
                continue;
            } else if let Some(standing) = self.standings.clear(device, metric, &detector) {
                let alert = Alert {
                    id: standing.id,
                    incident: standing.incident,
                    state: AlertState::Cleared,
                    text: format!("{device}: {metric} is in its usual state again"),
                    ..self.state_alert(&event, detector, moment)
                };
                self.tell_cleared(&alert, meta, true, moment.origin, said);
            }
        }
    }

    fn state_alert(&self, event: &GroupEvent, detector: String, moment: Moment) -> Alert {
        let (device, metric) = (&*event.device, &*event.group);
        let revision = self.settings.revision();
        let cause = Cause {
            device,
            metric,
            detector: &detector,
            revision,
            event_time: event.event_time,
            device_seq: 0,
            earlier: 0,
        };
        let far = event.farthest.as_ref().map_or(String::new(), |(name, by)| {
            format!(": {name} is farthest, by {by:.1} deviations")
        });
        Alert {
            id: AlertId::new(&self.storage, &cause),
            incident: AlertId([0; 16]),
            state: AlertState::Raised,
            kind: AlertKind::State,
            device: device.into(),
            metric: metric.into(),
            unit: String::new(),
            detector,
            part: None,
            revision,
            severity: event.severity,
            score: event.score / (1.0 + event.score),
            value: None,
            event_time: event.event_time,
            received_time: moment.received,
            detection_time: moment.now,
            window: None,
            around: Vec::new(),
            late: false,
            text: format!("{device}: {metric} is in an unusual state{far}"),
        }
    }

    fn rule_alert(&self, event: &RuleEvent, detector: String, moment: Moment) -> Alert {
        let revision = self.rules.rules().revision();
        let cause = Cause {
            device: &event.device,
            metric: &event.metric,
            detector: &detector,
            revision,
            event_time: event.event_time,
            device_seq: moment.reading.0,
            earlier: moment.reading.1,
        };
        Alert {
            id: AlertId::new(&self.storage, &cause),
            incident: AlertId([0; 16]),
            state: AlertState::Raised,
            kind: AlertKind::Rule,
            device: event.device.to_string(),
            metric: event.metric.to_string(),
            unit: event.unit.to_string(),
            part: None,
            revision,
            severity: event.severity,
            score: 1.0,
            value: event.value,
            event_time: event.event_time,
            received_time: moment.received,
            detection_time: moment.now,
            window: event.window.map(|(from, to)| Span { from, to }),
            around: Vec::new(),
            late: event.late,
            text: event.text.clone(),
            detector,
        }
    }
}

/// An alert, and behind it what its topic shows where that is another one.
fn say_both(
    (topic, spoken, again): (String, Spoken, Option<What>),
    origin: Origin,
    said: &mut Vec<Said>,
) {
    for what in [What::Alert(spoken)].into_iter().chain(again) {
        let topic = topic.clone();
        said.push(Said {
            origin,
            topic,
            what,
        });
    }
}

fn standing_of(alert: &Alert, json: std::sync::Arc<str>) -> Standing {
    Standing {
        detector: alert.detector.as_str().into(),
        id: alert.id,
        incident: alert.incident,
        severity: alert.severity,
        score: alert.score,
        json,
    }
}

/// An alert about a value, with nothing said about it.
fn blank(seen: &Seen<'_>, moment: Moment) -> Alert {
    Alert {
        id: AlertId([0; 16]),
        incident: AlertId([0; 16]),
        state: AlertState::Raised,
        kind: AlertKind::Event,
        device: seen.device.into(),
        metric: seen.metric.into(),
        unit: seen.unit.into(),
        detector: SERIES.into(),
        part: None,
        revision: Revision::default(),
        severity: Severity::Warning,
        score: 0.0,
        value: Some(seen.sample.value),
        event_time: seen.meta.event_time,
        received_time: seen.meta.received_time,
        detection_time: moment.now,
        window: seen.window.map(|(span, _)| span),
        around: Vec::new(),
        late: false,
        text: String::new(),
    }
}

/// What was counted instead of told.
pub(super) fn summary(storage: &[u8], counted: &Counted, moment: Moment) -> Said {
    let (device, metric) = AGENT;
    let cause = Cause {
        device,
        metric,
        detector: "storm",
        revision: Revision::default(),
        event_time: counted.since,
        device_seq: 0,
        earlier: 0,
    };
    let alerts = counted.alerts;
    let id = AlertId::new(storage, &cause);
    let alert = Alert {
        id,
        incident: id,
        state: AlertState::Raised,
        kind: AlertKind::Summary,
        device: device.into(),
        metric: metric.into(),
        unit: String::new(),
        detector: "storm".into(),
        part: None,
        revision: Revision::default(),
        severity: Severity::Warning,
        score: 1.0,
        value: Some(alerts as f64),
        event_time: counted.since,
        received_time: moment.received,
        detection_time: moment.now,
        window: Some(Span {
            from: counted.since,
            to: moment.received,
        }),
        around: Vec::new(),
        late: false,
        text: format!(
            "{alerts} more alerts came than are told one by one; the first of them: {}",
            counted.names.join(", ")
        ),
    };
    let meta = Meta {
        event_time: counted.since,
        received_time: moment.received,
        ..Meta::default()
    };
    Said {
        origin: moment.origin,
        topic: topic_of(device, metric),
        what: What::Alert(Spoken::new(&alert, meta, true)),
    }
}
