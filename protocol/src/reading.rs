//! Readings, as they are between decoding and sealing, and again after a batch is opened.
//!
//! A [`Readings`] is one block of rows with the texts they refer to. It knows nothing of devices
//! and metrics: a row names its series by number, and the lane `series` says what that is.

use crate::ids::SeriesId;
use crate::limits::{BATCH_TEXT_BYTES_MAX, TEXT_BYTES_MAX};
use std::fmt;

/// What kind of value a series holds. A series never changes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ValueType {
    /// IEEE 754 double.
    F64 = 0,
    /// IEEE 754 single.
    F32 = 1,
    /// Signed 64-bit integer.
    I64 = 2,
    /// Truth value.
    Bool = 3,
    /// UTF-8 text.
    Str = 4,
}

impl ValueType {
    /// Every type, by code.
    pub const ALL: [Self; 5] = [Self::F64, Self::F32, Self::I64, Self::Bool, Self::Str];

    /// The type's code on the wire and on disk.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The type with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The type's name, as in the lake's column `value_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::I64 => "i64",
            Self::Bool => "bool",
            Self::Str => "str",
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One measured value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<'a> {
    /// A double, kept to the bit: NaN payloads, -0.0 and subnormals included.
    F64(f64),
    /// A single, kept to the bit.
    F32(f32),
    /// An integer.
    I64(i64),
    /// A truth value.
    Bool(bool),
    /// A text of at most [`TEXT_BYTES_MAX`] bytes.
    Str(&'a str),
}

impl Value<'_> {
    /// What kind of value this is.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::F64(_) => ValueType::F64,
            Self::F32(_) => ValueType::F32,
            Self::I64(_) => ValueType::I64,
            Self::Bool(_) => ValueType::Bool,
            Self::Str(_) => ValueType::Str,
        }
    }
}

/// What is known about a reading beside its value: a set of bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// Event time lay behind the watermark by more than the allowed lateness.
    pub const LATE: Self = Self(1);
    /// The event time is not believed: outside [2000, 2100), or more than a day ahead.
    pub const CLOCK_SUSPECT: Self = Self(2);
    /// May be a second copy; nothing tells it from a second measurement.
    pub const MAYBE_REPEAT: Self = Self(4);
    /// The device gave no time: the event time is the received time.
    pub const NO_DEVICE_TIME: Self = Self(8);
    /// Every bit that has a meaning.
    pub const KNOWN: Self = Self(15);

    /// Both sets.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all bits of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Everything about a reading but its series and value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// When it was measured: microseconds since 1970, UTC.
    pub event_time: i64,
    /// When the agent got it: microseconds since 1970, UTC.
    pub received_time: i64,
    /// The device's word on quality; 0 is good.
    pub quality: i32,
    /// The number that the device gave its message, if it did.
    pub device_seq: Option<i64>,
    /// What is known beside.
    pub flags: Flags,
}

/// One reading in a [`Readings`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Everything but series and value.
    pub meta: Meta,
    /// The series.
    pub series: SeriesId,
    /// What `bits` means; the same for all rows of a series.
    pub value_type: ValueType,
    /// The value: its bit pattern (f32 and bool in the low bits), or for a text its place in the
    /// block's texts.
    pub bits: u64,
}

/// Why a reading does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadingError {
    /// One text is too long.
    #[error("a text of {0} bytes; at most {TEXT_BYTES_MAX} are kept in one reading")]
    TextTooLong(usize),
    /// The block's texts together are too long: seal it first.
    #[error("texts of over {BATCH_TEXT_BYTES_MAX} bytes in one batch")]
    TextsFull,
}

/// A block of readings: rows, and the texts they refer to.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Readings {
    rows: Vec<Row>,
    texts: Vec<Box<str>>,
    text_bytes: usize,
}

impl Readings {
    /// An empty block.
    pub fn new() -> Self {
        Self::default()
    }

    /// A block of these rows, whose texts are named by their place in `texts`.
    pub(crate) fn from_parts(rows: Vec<Row>, texts: Vec<Box<str>>) -> Self {
        let text_bytes = texts.iter().map(|text| text.len()).sum();
        Self {
            rows,
            texts,
            text_bytes,
        }
    }

    /// Adds one reading at the end.
    ///
    /// # Errors
    /// When a text is too long, or the block's texts are full; nothing is added then.
    pub fn push(
        &mut self,
        series: SeriesId,
        meta: Meta,
        value: Value<'_>,
    ) -> Result<(), ReadingError> {
        let bits = match value {
            Value::F64(x) => x.to_bits(),
            Value::F32(x) => u64::from(x.to_bits()),
            Value::I64(x) => x as u64,
            Value::Bool(x) => u64::from(x),
            Value::Str(text) => self.intern(text)?,
        };
        self.rows.push(Row {
            meta,
            series,
            value_type: value.value_type(),
            bits,
        });
        Ok(())
    }

    /// The text's place, taking it in when it is not the newest one.
    fn intern(&mut self, text: &str) -> Result<u64, ReadingError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ReadingError::TextTooLong(text.len()));
        }
        if let Some(last) = self.texts.last()
            && **last == *text
        {
            return Ok(self.texts.len() as u64 - 1);
        }
        if self.text_bytes + text.len() > BATCH_TEXT_BYTES_MAX {
            return Err(ReadingError::TextsFull);
        }
        self.text_bytes += text.len();
        self.texts.push(text.into());
        Ok(self.texts.len() as u64 - 1)
    }

    /// The rows, in their order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The rows, to be put into another order.
    pub fn rows_mut(&mut self) -> &mut [Row] {
        &mut self.rows
    }

    /// How many readings there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no reading.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of all texts together.
    pub fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// The text at `place`; empty when there is none, which only a row of another block can ask.
    pub fn text(&self, place: u64) -> &str {
        usize::try_from(place)
            .ok()
            .and_then(|i| self.texts.get(i))
            .map_or("", |text| text)
    }

    /// The value of a row of this block.
    pub fn value(&self, row: &Row) -> Value<'_> {
        match row.value_type {
            ValueType::F64 => Value::F64(f64::from_bits(row.bits)),
            ValueType::F32 => Value::F32(f32::from_bits(row.bits as u32)),
            ValueType::I64 => Value::I64(row.bits as i64),
            ValueType::Bool => Value::Bool(row.bits != 0),
            ValueType::Str => Value::Str(self.text(row.bits)),
        }
    }

    /// Forgets the readings from the `len`th on. Texts that only they used stay until the block is
    /// [cleared](Self::clear).
    pub fn truncate(&mut self, len: usize) {
        self.rows.truncate(len);
        if len == 0 {
            self.clear();
        }
    }

    /// Forgets all readings, and keeps the room for the rows.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.texts.clear();
        self.text_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back_to_the_bit() {
        let mut block = Readings::new();
        let nan = f64::from_bits(0x7ff0_dead_beef_0001);
        let values = [
            Value::F64(nan),
            Value::F64(-0.0),
            Value::F32(f32::from_bits(0xff80_0001)),
            Value::I64(i64::MIN),
            Value::Bool(true),
            Value::Str("läuft"),
        ];
        for value in values {
            block
                .push(SeriesId(0), Meta::default(), value)
                .expect("fits");
        }
        let bits: Vec<u64> = block.rows().iter().map(|row| row.bits).collect();
        assert_eq!(bits, [nan.to_bits(), 1 << 63, 0xff80_0001, 1 << 63, 1, 0]);
        assert_eq!(block.value(&block.rows()[5]), Value::Str("läuft"));
    }

    #[test]
    fn texts_are_bounded_and_a_refused_one_leaves_nothing() {
        let mut block = Readings::new();
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        let meta = Meta::default();
        assert!(block.push(SeriesId(0), meta, Value::Str(&long)).is_err());
        assert!(block.is_empty());
        let most = BATCH_TEXT_BYTES_MAX / TEXT_BYTES_MAX;
        for i in 0..most {
            let text = format!("{i:02}{}", "x".repeat(TEXT_BYTES_MAX - 2));
            block
                .push(SeriesId(0), meta, Value::Str(&text))
                .expect("fits");
        }
        assert_eq!(
            block.push(SeriesId(0), meta, Value::Str("y")),
            Err(ReadingError::TextsFull)
        );
        assert_eq!(block.len(), most);
    }
}
