//! Alerts that were raised and not cleared, by topic: which of several it shows. Several detectors
//! may judge one series, and names with slashes may make one topic of two series.

mod asked;

pub use asked::{AllStood, Found, Stands, StandsWalk, find, list};

use super::kept::{read_text, write_text};
use crate::alert::{AlertId, Severity, topic_of};
use crate::limits::{STANDING_BYTES_MAX, STANDING_MAX};
use bytes::{Buf, BufMut};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An alert that stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Standing {
    /// What raised it.
    pub detector: Box<str>,
    /// Which.
    pub id: AlertId,
    /// The incident that it is part of.
    pub incident: AlertId,
    /// How much it matters, as its JSON says.
    pub severity: Severity,
    /// Its score.
    pub score: f64,
    /// Its JSON, as it was raised.
    pub json: Arc<str>,
}

/// A text of an alert's JSON. It is our own: a name that somebody else gave has no such quotation
/// marks in it.
fn field<'a>(json: &'a str, key: &str) -> &'a str {
    let field = json.split_once(&format!("\"{key}\":\""));
    let end = field.and_then(|(_, value)| value.split_once('"'));
    end.map_or("", |(value, _)| value)
}

/// How much an alert matters, by its JSON.
pub(super) fn severity_of(json: &str) -> Severity {
    let name = field(json, "severity");
    let found = Severity::NAMES.iter().find(|(known, _)| *known == name);
    found.map(|(_, severity)| *severity).unwrap_or_default()
}

/// One, and whose it is.
#[derive(Clone, PartialEq, Debug)]
struct Of {
    device: Box<str>,
    metric: Box<str>,
    standing: Standing,
}

/// Where the one stands that a topic shows: the gravest, and of those the one raised last.
fn shown(of_topic: &[Of]) -> Option<usize> {
    let ranks = of_topic.iter().map(|of| of.standing.severity);
    let most = ranks.enumerate().max_by_key(|(_, severity)| *severity);
    most.map(|(at, _)| at)
}

/// All of them, at most [`STANDING_MAX`]: of one more it is not remembered that it was raised, and
/// so it is never said to be over.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Standings {
    by_topic: BTreeMap<Box<str>, Vec<Of>>,
    count: usize,
    /// Bytes of their JSON, about.
    bytes: usize,
}

impl Standings {
    /// Keeps one, which is the only one of its detector there.
    pub fn raise(&mut self, device: &str, metric: &str, standing: Standing) {
        if self.count < STANDING_MAX && self.bytes < STANDING_BYTES_MAX {
            self.put(device, metric, standing);
        }
    }

    fn put(&mut self, device: &str, metric: &str, standing: Standing) {
        self.bytes += standing.json.len();
        let of_topic = self.by_topic.entry(topic_of(device, metric).into());
        of_topic.or_default().push(Of {
            device: device.into(),
            metric: metric.into(),
            standing,
        });
        self.count += 1;
    }

    /// Takes out the one of a detector.
    pub fn clear(&mut self, device: &str, metric: &str, detector: &str) -> Option<Standing> {
        let topic = topic_of(device, metric);
        let of_topic = self.by_topic.get_mut(topic.as_str())?;
        let at = of_topic.iter().position(|of| {
            (&*of.device, &*of.metric, &*of.standing.detector) == (device, metric, detector)
        })?;
        let standing = of_topic.remove(at).standing;
        if of_topic.is_empty() {
            self.by_topic.remove(topic.as_str());
        }
        self.count -= 1;
        self.bytes = self.bytes.saturating_sub(standing.json.len());
        Some(standing)
    }

    /// Notes that somebody has seen one: where it stands, and whether it is the present state
    /// there, if it stands and nobody had seen it.
    pub fn acknowledge(&mut self, id: AlertId) -> Option<(&str, &str, &Standing, bool)> {
        const RAISED: &str = "\"state\":\"raised\"";
        for all in self.by_topic.values_mut() {
            let Some(at) = all.iter().position(|of| of.standing.id == id) else {
                continue;
            };
            let is_shown = shown(all) == Some(at);
            let of = all.get_mut(at)?;
            let standing = &mut of.standing;
            // Our own JSON: nothing that somebody else named stands before its state.
            let seen = standing
                .json
                .replacen(RAISED, "\"state\":\"acknowledged\"", 1);
            if *seen == *standing.json {
                return None;
            }
            self.bytes = self.bytes.saturating_sub(standing.json.len()) + seen.len();
            standing.json = seen.into();
            return Some((&of.device, &of.metric, standing, is_shown));
        }
        None
    }

    /// The one of a detector.
    pub fn of(&self, device: &str, metric: &str, detector: &str) -> Option<&Standing> {
        let of_topic = self.by_topic.get(topic_of(device, metric).as_str())?;
        let found = of_topic.iter().find(|of| {
            (&*of.device, &*of.metric, &*of.standing.detector) == (device, metric, detector)
        });
        found.map(|of| &of.standing)
    }

    /// The one that a topic shows: the gravest, and of those the one raised last.
    pub fn present(&self, topic: &str) -> Option<&Standing> {
        let of_topic = self.by_topic.get(topic)?;
        Some(&of_topic.get(shown(of_topic)?)?.standing)
    }

    /// For each topic with alerts the one that it shows.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Standing)> {
        let of_topic = self.by_topic.iter();
        of_topic.filter_map(|(topic, all)| Some((&**topic, &all.get(shown(all)?)?.standing)))
    }

    /// How many stand.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Appends all of them, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.count as u32);
        for of in self.by_topic.values().flatten() {
            write_text(&of.device, out);
            write_text(&of.metric, out);
            of.standing.write(out);
        }
    }

    /// Takes them off the front of `input`; `None` when the bytes are none. All that stood stand:
    /// in this order, not that in which they were raised, the bound would leave out others.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let mut standings = Self::default();
        let count = input.try_get_u32_le().ok()?;
        if count as usize > STANDING_MAX {
            return None;
        }
        for _ in 0..count {
            let (device, metric) = (read_text(input)?, read_text(input)?);
            let standing = Standing::read(input)?;
            standings.put(device, metric, standing);
        }
        Some(standings)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// How much alerts matter is known of them: nobody looks for it in all that stands, of which
    /// there may be tens of thousands, each time that somebody has seen one.
    #[test]
    fn what_a_topic_shows_is_known_without_a_look_into_what_stands() {
        let mut standings = Standings::default();
        let alert = |id: u8, severity| Standing {
            detector: format!("rule:{id}").into(),
            id: AlertId([id; 16]),
            incident: AlertId([id; 16]),
            severity,
            score: 1.0,
            json: "{\"state\":\"raised\"}".into(),
        };
        let all = [
            (1, Severity::Warning),
            (2, Severity::Critical),
            (3, Severity::Critical),
            (4, Severity::Info),
        ];
        for (id, severity) in all {
            standings.raise("d", "m", alert(id, severity));
        }
        assert!(standings.acknowledge(AlertId([9; 16])).is_none());
        for (id, is_present) in [(3, true), (2, false), (4, false)] {
            let (_, _, seen, shown) = standings.acknowledge(AlertId([id; 16])).unwrap();
            assert_eq!((seen.id.0, shown), ([id; 16], is_present));
            assert!(seen.json.contains("acknowledged"));
            assert!(standings.acknowledge(AlertId([id; 16])).is_none(), "once");
        }
        let topic = topic_of("d", "m");
        assert_eq!(standings.present(&topic).unwrap().id.0, [3; 16]);
    }

    fn of_bytes(id: u8, bytes: usize) -> Standing {
        let text = "x".repeat(bytes);
        Standing {
            detector: "rule:r".into(),
            id: AlertId([id; 16]),
            incident: AlertId([id; 16]),
            severity: Severity::default(),
            score: 1.0,
            json: format!("{{\"state\":\"raised\",\"x\":\"{text}\"}}").into(),
        }
    }

    fn written_and_read(standings: &Standings) -> Standings {
        let mut bytes = Vec::new();
        standings.write(&mut bytes);
        Standings::read(&mut &bytes[..]).unwrap()
    }

    /// A replay from a checkpoint raises and leaves out what the life before did.
    #[test]
    fn all_that_stood_stand_in_a_checkpoint_that_is_read() {
        let mut standings = Standings::default();
        // A small one whose topic is the last; then large ones, until one passes the bound.
        standings.raise("z", "m", of_bytes(1, 100));
        let mut large = 0;
        while standings.len() == large + 1 {
            standings.raise(&format!("d{large}"), "m", of_bytes(2, 60_000));
            large += 1;
        }
        assert!(standings.bytes >= STANDING_BYTES_MAX && large > 100);
        assert!(standings.acknowledge(AlertId([1; 16])).is_some());
        let mut read = written_and_read(&standings);
        assert!(read == standings, "{} of {}", read.len(), standings.len());
        // What is taken out gives up exactly what it took.
        for device in (0..large - 1).map(|n| format!("d{n}")).chain(["z".into()]) {
            for standings in [&mut standings, &mut read] {
                assert!(standings.clear(&device, "m", "rule:r").is_some());
            }
        }
        assert_eq!(
            (standings, read),
            (Standings::default(), Standings::default())
        );
    }
}
