//! An alert, as it leaves the gateway: JSON of schema 1 (`docs/alert.schema.json`), on its topic
//! and in the lane `alerts`. It decides nothing.

use crate::civil::rfc3339_micros;
use crate::detect::Part;
use crate::limits::ALERT_AROUND_MAX;
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// The topics that alerts are published to begin so.
pub const TOPIC_PREFIX: &str = "tributary/alerts/";
const SCHEMA: u8 = 1;
/// 0001-01-01, and the end of 9999: µs since 1970.
const YEAR_1: i64 = -62_135_596_800_000_000;
const YEAR_9999: i64 = 253_402_300_799_999_999;

/// Which alert it is: the same reading judged again, in a replay or after a restart, has the same
/// one, and nothing else has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertId(pub [u8; 16]);

/// What an alert's identity is made of: nothing of when or how often it came to the gateway, as
/// far as the device gives a time.
#[derive(Clone, Copy, Debug)]
pub struct Cause<'a> {
    /// What publishes.
    pub device: &'a str,
    /// What is measured.
    pub metric: &'a str,
    /// What judged.
    pub detector: &'a str,
    /// By which settings.
    pub revision: Revision,
    /// When it was measured, or where its window begins.
    pub event_time: i64,
    /// The number that the device gave its message; 0 without one.
    pub device_seq: i64,
    /// Earlier readings of the series with that event time.
    pub earlier: u32,
}

impl AlertId {
    /// The alert of `cause` on the gateway whose storage is `storage`.
    pub fn new(storage: &[u8], cause: &Cause<'_>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for text in [storage, cause.device.as_bytes(), cause.metric.as_bytes()] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        hasher.update(&(cause.detector.len() as u64).to_le_bytes());
        hasher.update(cause.detector.as_bytes());
        hasher.update(&cause.revision.0);
        hasher.update(&cause.event_time.to_le_bytes());
        hasher.update(&cause.device_seq.to_le_bytes());
        hasher.update(&cause.earlier.to_le_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

impl FromStr for AlertId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "expected the 32 hexadecimal digits of an alert's `id`";
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| wrong)?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlertId({self})")
    }
}

impl Serialize for AlertId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The settings that hold: the first bytes of the BLAKE3 of their text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Revision(pub [u8; 8]);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({self})")
    }
}

impl Serialize for Revision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How an alert stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// It began.
    Raised,
    /// Somebody has seen it, and it is not over.
    Acknowledged,
    /// It is over.
    Cleared,
}

impl AlertState {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Acknowledged => "acknowledged",
            Self::Cleared => "cleared",
        }
    }

    /// The state with this place in the order of [`AlertState`].
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Raised, Self::Acknowledged, Self::Cleared]
            .get(usize::from(code))
            .copied()
    }
}

/// What kind of alert it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertKind {
    /// Something new just happened to a series.
    Event,
    /// A machine is in an unusual state.
    State,
    /// A rule that a person wrote.
    Rule,
    /// So many alerts that they are counted instead.
    Summary,
}

/// How much it matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth a look.
    Info,
    /// Somebody should look.
    #[default]
    Warning,
    /// Somebody must.
    Critical,
}

impl Severity {
    /// Every severity with its name.
    pub const NAMES: [(&str, Self); 3] = [
        ("info", Self::Info),
        ("warning", Self::Warning),
        ("critical", Self::Critical),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A span of event time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Its first microsecond since 1970, UTC.
    pub from: i64,
    /// The first one behind it.
    pub to: i64,
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Text {
            from: String,
            to: String,
        }
        let (from, to) = (rfc3339_micros(self.from), rfc3339_micros(self.to));
        Text { from, to }.serialize(serializer)
    }
}

fn as_text<S: Serializer>(time_us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    // RFC 3339 has four digits of the year.
    serializer.serialize_str(&rfc3339_micros((*time_us).clamp(YEAR_1, YEAR_9999)))
}

/// One alert.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Alert {
    /// Which.
    pub id: AlertId,
    /// How it stands.
    pub state: AlertState,
    /// The first alert of those of this device that followed each other within a minute.
    pub incident: AlertId,
    /// What kind.
    pub kind: AlertKind,
    /// What publishes; `$agent` in a summary.
    pub device: String,
    /// What is measured; `alerts` in a summary.
    pub metric: String,
    /// In which unit.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// `series`, `rule:<name>` or `group:<name>`.
    pub detector: String,
    /// The part of it that spoke.
    pub part: Option<&'static str>,
    /// The settings that it judged by.
    pub revision: Revision,
    /// How much it matters.
    pub severity: Severity,
    /// From 0 to 1; an alert of a detector has a half or more.
    pub score: f64,
    /// What was measured; `None` where there is no one value, or it is no number.
    pub value: Option<f64>,
    /// When it was measured: microseconds since 1970, UTC.
    #[serde(serialize_with = "as_text")]
    pub event_time: i64,
    /// When the agent got it.
    #[serde(serialize_with = "as_text")]
    pub received_time: i64,
    /// When the agent judged it.
    #[serde(serialize_with = "as_text")]
    pub detection_time: i64,
    /// What was judged together, where that is more than a reading.
    pub window: Option<Span>,
    /// The last readings up to this one, oldest first: event time in microseconds, and value.
    pub around: Vec<(i64, f64)>,
    /// Whether the reading came behind its device's watermark.
    pub late: bool,
    /// It, in a sentence.
    pub text: String,
}

impl Alert {
    /// The alert as JSON, on one line.
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        struct Versioned<'a> {
            schema: u8,
            #[serde(flatten)]
            alert: &'a Alert,
        }
        debug_assert!(self.around.len() <= ALERT_AROUND_MAX);
        let versioned = Versioned {
            schema: SCHEMA,
            alert: self,
        };
        serde_json::to_string(&versioned).expect("numbers, texts and lists of them are JSON")
    }

    /// The topic that shows its present state.
    pub fn topic(&self) -> String {
        topic_of(&self.device, &self.metric)
    }
}

/// The topic of a series' alerts: the levels of its names stay levels, and what a topic can't hold
/// is percent-encoded.
pub fn topic_of(device: &str, metric: &str) -> String {
    let mut topic = String::from(TOPIC_PREFIX);
    push_levels(&mut topic, device);
    topic.push('/');
    push_levels(&mut topic, metric);
    topic
}

/// Adds a name as levels of a topic; see [`topic_of`].
pub(crate) fn push_levels(topic: &mut String, name: &str) {
    if name.is_empty() {
        topic.push('%');
    }
    for c in name.chars() {
        match c {
            '+' | '#' | '%' | '\0' => topic.push_str(&format!("%{:02X}", u32::from(c))),
            c => topic.push(c),
        }
    }
}

/// What a series' detector says of a value, in a sentence.
pub fn sentence(name: &str, value: &str, part: Option<Part>) -> String {
    match part {
        Some(Part::Value) | None => {
            format!("{name} is {value}: far from every value that it had lately")
        }
        Some(Part::Weekly) => format!("{name} is {value}: unusual at this time of the week"),
        Some(Part::Mean) => {
            format!("{name} is {value}: its mean left the range that it had lately")
        }
        Some(Part::Step) => format!("{name} went to {value}: a step that it did not make lately"),
        Some(Part::Stuck) => format!("{name} stays at {value} for much longer than it ever did"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const CAUSE: Cause<'_> = Cause {
        device: "site/pump",
        metric: "flow",
        detector: "series",
        revision: Revision([7; 8]),
        event_time: 1_000_000,
        device_seq: 4,
        earlier: 0,
    };

    #[test]
    fn an_id_is_of_its_cause_alone() {
        let id = AlertId::new(b"storage", &CAUSE);
        assert_eq!(id, AlertId::new(b"storage", &CAUSE));
        let others = [
            Cause {
                device: "site/pum",
                metric: "pflow",
                ..CAUSE
            },
            Cause {
                detector: "rule:a",
                ..CAUSE
            },
            Cause {
                revision: Revision([8; 8]),
                ..CAUSE
            },
            Cause {
                event_time: 1_000_001,
                ..CAUSE
            },
            Cause {
                device_seq: 5,
                ..CAUSE
            },
            Cause {
                earlier: 1,
                ..CAUSE
            },
        ];
        for other in others {
            assert_ne!(id, AlertId::new(b"storage", &other), "{other:?}");
        }
        assert_ne!(id, AlertId::new(b"another", &CAUSE));
    }

    #[test]
    fn the_golden_alert_is_what_is_written() {
        let golden = include_str!("../../protocol/tests/data/alert.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let second = 1_795_204_800_000_000;
        let alert = Alert {
            id: AlertId(0x5f0c_6a1e_9b3d_4728_8ac1_d2e3_f405_1627_u128.to_be_bytes()),
            state: AlertState::Raised,
            incident: AlertId(0x5f0c_6a1e_9b3d_4728_8ac1_d2e3_f405_1627_u128.to_be_bytes()),
            kind: AlertKind::Event,
            device: "plant-1/pump-0007".to_owned(),
            metric: "temperature".to_owned(),
            unit: "°C".to_owned(),
            detector: "series".to_owned(),
            part: Some("value"),
            revision: Revision(0x0123_4567_89ab_cdef_u64.to_be_bytes()),
            severity: Severity::Warning,
            score: 0.83,
            value: Some(27.5),
            event_time: second + 123_456,
            received_time: second + 125_000,
            detection_time: second + 128_000,
            window: Some(Span {
                from: second - 1_000_000,
                to: second,
            }),
            around: vec![
                (second - 76_544, 21.31),
                (second + 23_456, 21.34),
                (second + 123_456, 27.5),
            ],
            late: false,
            text: "temperature of plant-1/pump-0007 is 27.5 °C, far from what it was lately."
                .to_owned(),
        };
        let written: serde_json::Value = serde_json::from_str(&alert.json()).unwrap();
        assert_eq!(written, golden);
    }

    #[test]
    fn an_id_is_read_as_it_is_shown() {
        let id = AlertId::new(b"storage", &CAUSE);
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "+1", "zz", &format!("{id}0"), &"+".repeat(32)] {
            assert!(wrong.parse::<AlertId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_name_makes_a_topic_that_is_a_filter_or_empty() {
        assert_eq!(topic_of("a/b", "c"), "tributary/alerts/a/b/c");
        assert_eq!(topic_of("a+#", "%\0"), "tributary/alerts/a%2B%23/%25%00");
        assert_eq!(topic_of("", "m"), "tributary/alerts/%/m");
    }
}
