//! From a message to readings, by the rules that hold when nothing is configured. Pure: no clock,
//! no file, no state between messages.
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
//! All rows of a message come out, or none: what cannot be understood anywhere is a
//! [`DeadLetter`] as a whole. An object or array without a scalar gives no rows and no error.

mod hash;
mod json;
mod message;
mod number;
mod rows;
mod time;

pub use hash::message_hash;
pub use message::decode;
pub use rows::{Reading, Rows};

/// What is known of a decoded message beside its rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// How many rows it gave.
    pub readings: usize,
    /// The number that the device gave it; of an array, the first one in it.
    pub device_seq: Option<i64>,
    /// [`message_hash`] over topic and payload: with `device_seq`, the evidence of a repeat.
    pub content_hash: u64,
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
    Twice(&'static str),
    /// A time that is none.
    #[error("`ts` {0}")]
    Time(&'static str),
    /// A quality that is none.
    #[error("`quality` is neither an integer of 32 bits nor `good`, `uncertain` or `bad`")]
    Quality,
    /// A unit that is no text.
    #[error("`unit` is not a text")]
    Unit,
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
            Self::Time(_) => "time",
            Self::Quality => "quality",
            Self::Unit => "unit",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
