//! What was refused though it had to be acknowledged, and what was given up of dead letters:
//! counted until a batch declares it.

use bytes::{Buf, BufMut};
use tributary_protocol::batch::{Gap, GapReason};

/// Messages that were refused at the door, or dead letters with readings that were given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    messages: u32,
    readings: u64,
    /// When the first was received: µs since 1970, UTC.
    first: i64,
    /// When the last was.
    last: i64,
}

impl Refused {
    /// One message of so many readings.
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

    /// How many readings.
    pub fn readings(&self) -> u64 {
        self.readings
    }

    /// Appends its bytes, little endian: messages (4), readings (8), received time of the first and
    /// of the last (8 each).
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.messages);
        out.put_u64_le(self.readings);
        out.put_i64_le(self.first);
        out.put_i64_le(self.last);
    }

    /// Takes its bytes off the front of `input`; `None` when they end too early.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            messages: input.try_get_u32_le().ok()?,
            readings: input.try_get_u64_le().ok()?,
            first: input.try_get_i64_le().ok()?,
            last: input.try_get_i64_le().ok()?,
        })
    }

    /// The gap that declares them, in the place of batch `number`.
    pub fn gap(&self, number: u64) -> Gap {
        Gap {
            first: number,
            count: 1,
            readings: Some(self.readings),
            event_first: self.first,
            event_last: self.last,
            reason: GapReason::Refused,
            detail: format!("{} messages, by the time of their receipt", self.messages),
            each: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_are_declared_as_one() {
        let gap = Refused::one(3, 50).and(Refused::one(4, 20)).gap(9);
        assert_eq!((gap.first, gap.count, gap.readings), (9, 1, Some(7)));
        assert_eq!((gap.event_first, gap.event_last), (20, 50));
        assert_eq!(gap.detail, "2 messages, by the time of their receipt");
    }
}
