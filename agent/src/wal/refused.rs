//! What a record of kind `refused` holds: how much was refused although it had to be acknowledged.
//!
//! Version 1, little endian: version (1 byte), messages (4), readings (8), received time of the
//! first and of the last (8 each). A later version may only add behind that.

use super::RecordError;
use bytes::{Buf, BufMut};

const VERSION: u8 = 1;

/// Messages that MQTT 3.1.1 cannot refuse: acknowledged once this is durable, and declared as lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// How many messages.
    pub messages: u32,
    /// How many readings they held.
    pub readings: u64,
    /// When the first was received: µs since 1970, UTC.
    pub first: i64,
    /// When the last was.
    pub last: i64,
}

impl Refused {
    /// One message.
    pub fn one(readings: u64, received_time: i64) -> Self {
        Self {
            messages: 1,
            readings,
            first: received_time,
            last: received_time,
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(other.messages),
            readings: self.readings.saturating_add(other.readings),
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }

    /// The record's bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(29);
        out.put_u8(VERSION);
        out.put_u32_le(self.messages);
        out.put_u64_le(self.readings);
        out.put_i64_le(self.first);
        out.put_i64_le(self.last);
        out
    }

    /// What the bytes of a record say.
    ///
    /// # Errors
    /// [`RecordError`], when they are none.
    pub fn read(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut input = bytes;
        let short = |_| RecordError::Short(bytes.len());
        let version = input.try_get_u8().map_err(short)?;
        if version != VERSION {
            return Err(RecordError::Version(version));
        }
        let refused = Self {
            messages: input.try_get_u32_le().map_err(short)?,
            readings: input.try_get_u64_le().map_err(short)?,
            first: input.try_get_i64_le().map_err(short)?,
            last: input.try_get_i64_le().map_err(short)?,
        };
        if refused.first > refused.last {
            return Err(RecordError::Field("time range"));
        }
        Ok(refused)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_no_cut_panics() {
        let refused = Refused::one(3, 50).and(Refused::one(4, 20));
        assert_eq!((refused.messages, refused.readings), (2, 7));
        let bytes = refused.write();
        assert_eq!(Refused::read(&bytes), Ok(refused));
        for end in 0..bytes.len() {
            assert!(Refused::read(&bytes[..end]).is_err());
        }
        let newer = [2; 29];
        assert_eq!(Refused::read(&newer), Err(RecordError::Version(2)));
    }
}
