//! From a message to readings. Pure: no clock, no file, no state between messages.
//!
//! [`Rules`] are what is configured: the first rule whose topic filter is for the message says how
//! it is read (`docs/decode.md`). Where none is, this holds:
//!
//! | payload | device | metric |
//! |---|---|---|
//! | number, `true`, `false`, text | all topic levels but the last | the last level |
//! | JSON object with a scalar `value` | the same | the same; more members: `<last>.<member>` |
//! | any other JSON object | the whole topic | each scalar, its path joined by `.` |
//! | JSON array | each element as above | |
//!
//! A topic of one level (or with an empty last level) is the device, and its metric is `value`.
//!
//! Members with a meaning, at the top of an object: `ts` (time), `seq` (the device's number, when
//! it is an integer from 0 to `i64::MAX`; any other is a member like others), and beside a scalar
//! `value` also `unit` and `quality`. `null` is no reading.
//! A member with a meaning that stands there twice is an error, since nobody can say which holds;
//! any other member that stands there twice gives two readings.
//!
//! Where the payload says none of these, MQTT 5 user properties of the same names do: also beside a
//! bare value.
//!
//! All rows of a message come out, or none: what cannot be understood anywhere is a
//! [`DeadLetter`] as a whole. An object or array without a scalar gives no rows and no error.

mod filter;
mod matcher;
mod read;
mod rule;
mod rules;
mod text;

mod json;
mod number;
mod pointer;

mod given;
mod message;
mod properties;
mod walk;
mod waveform;

mod convert;
mod meaning;
mod time;

mod hash;
mod rows;

pub use filter::Filter;
pub(crate) use filter::hardly_meant;
pub use hash::message_hash;
pub use properties::{Property, Said, UserProperties};
pub use rows::{Reading, Rows};
pub use rules::{Rules, RulesHash};
pub(crate) use text::quoted;
pub use time::time_of;

/// A message as decoding sees it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// What it was published to.
    pub topic: &'a str,
    /// What was published.
    pub payload: &'a [u8],
    /// What MQTT 5 user properties say of it.
    pub properties: UserProperties<'a>,
    /// When it was received: µs since 1970, UTC.
    pub received_time: i64,
}

/// Decodes a message by the rules that hold when nothing is configured.
///
/// # Errors
/// As [`Rules::decode`].
pub fn decode(
    topic: &str,
    payload: &[u8],
    received_time: i64,
    rows: &mut Rows,
) -> Result<Decoded, DeadLetter> {
    let message = Incoming {
        topic,
        payload,
        properties: UserProperties::default(),
        received_time,
    };
    Rules::builtin().decode(&message, rows)
}

/// What is known of a decoded message beside its rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// How many rows it gave.
    pub readings: usize,
    /// The number that the device gave it; of an array, the first one in it.
    pub device_seq: Option<i64>,
    /// User properties that were passed over, since they say what they can't.
    pub unusable: u32,
}

/// Why a message gives no readings; it is kept whole with this reason.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeadLetter {
    /// Nothing was published.
    #[error("the payload is empty: a number, a text or JSON was expected")]
    Empty,
    /// The payload is neither text nor JSON.
    #[error("the payload is not UTF-8 from byte {0} on: publish text or JSON")]
    NotUtf8(usize),
    /// JSON that is not well formed.
    #[error("malformed JSON at byte {at}: expected {expected}")]
    Json {
        /// Bytes into the payload.
        at: usize,
        /// What would have been right there.
        expected: &'static str,
    },
    /// JSON that nests too deep.
    #[error(
        "JSON nested deeper than {max} levels at byte {0}",
        max = crate::limits::JSON_DEPTH_MAX
    )]
    TooDeep(usize),
    /// An array as the element of an array at the top.
    #[error("an array within the array, as element {0}: numbers, texts or objects were expected")]
    NestedArray(usize),
    /// A number beyond f64.
    #[error("the number `{0}` is beyond what a 64-bit float holds")]
    NumberTooLarge(String),
    /// More readings than one message may give.
    #[error(
        "more than {} readings in one message: publish fewer at once",
        tributary_protocol::limits::MESSAGE_READINGS_MAX
    )]
    TooManyReadings,
    /// A device, metric or unit name that cannot be one.
    #[error("`{name}` cannot be a {what}: expected 1 to 256 bytes without control characters")]
    Name {
        /// `device`, `metric` or `unit`.
        what: &'static str,
        /// The name, its head only when long.
        name: String,
    },
    /// A text value that no reading holds.
    #[error("the text of `{metric}` {why}")]
    Text {
        /// Whose value it is.
        metric: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A member with a meaning that stands there twice.
    #[error("`{0}` stands twice in one object: which one holds?")]
    Twice(String),
    /// A time that is none: where it stood, and what is wrong.
    #[error("`{0}` {1}")]
    Time(String, &'static str),
    /// A quality that is none.
    #[error("`{0}` is neither an integer of 32 bits nor `good`, `uncertain` or `bad`")]
    Quality(String),
    /// A unit that is no text.
    #[error("`{0}` is not a text")]
    Unit(String),
    /// A bare value was to come, and JSON did.
    #[error("an object or an array, where the rule for its topic says a bare value")]
    Form,
    /// None of the values that the rule reads is there.
    #[error("the rule for its topic reads `{0}`, and nothing is there")]
    Missing(String),
    /// An object or an array where the rule reads a value.
    #[error("`{0}` is an object or an array, where the rule for its topic reads a value")]
    Nested(String),
    /// A value that can't be what the rule wants.
    #[error("the value of `{metric}`: {value} {why}")]
    Type {
        /// Whose value it is.
        metric: String,
        /// The value, its head only when long.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Samples that are none, or without a rate.
    #[error("no waveform: {0}")]
    Waveform(String),
    /// The rules that it came under are lost.
    #[error("the decoding rules that it came under are lost: replay it under the present ones")]
    Configuration,
}

impl DeadLetter {
    /// A short stable word for the reason, as in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotUtf8(_) => "not_utf8",
            Self::Json { .. } | Self::TooDeep(_) | Self::NestedArray(_) => "json",
            Self::NumberTooLarge(_) => "number",
            Self::TooManyReadings => "too_many_readings",
            Self::Name { .. } => "name",
            Self::Text { .. } => "text",
            Self::Twice(_) => "twice",
            Self::Time(..) => "time",
            Self::Quality(_) => "quality",
            Self::Unit(_) => "unit",
            Self::Form => "form",
            Self::Missing(_) => "missing",
            Self::Nested(_) => "nested",
            Self::Type { .. } => "type",
            Self::Waveform(_) => "waveform",
            Self::Configuration => "configuration",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
