//! A record of the kind `capture`: the readings of a device from one event time to another leave as
//! they are. Total on arbitrary bytes.

use crate::alert::AlertId;
use crate::capture::CaptureSettings;
use bytes::{Buf, BufMut};

const VERSION: u8 = 1;

/// What is asked for because of an alert, or a part of it:
///
/// | at | bytes | field |
/// |---|---|---|
/// | 0 | 1 | version: 1 |
/// | 1 | 16 | the alert's id |
/// | 17 | 8 | when what raised it was received, µs since 1970, UTC |
/// | 25 | 8 | the alert's event time |
/// | 33 | 8 | the first event time that is asked for |
/// | 41 | 8 | the first one behind |
/// | 49 | 1 | 1: nothing more is asked for because of this alert |
/// | 50 | | the device |
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaptureRecord<'a> {
    /// The alert.
    pub alert: AlertId,
    /// When what raised it was received.
    pub received: i64,
    /// Its event time, as its device gives it.
    pub event: i64,
    /// The first event time.
    pub from: i64,
    /// The first one behind.
    pub to: i64,
    /// Whether it is the last record of the alert.
    pub is_last: bool,
    /// Whose readings.
    pub device: &'a str,
}

impl<'a> CaptureRecord<'a> {
    /// The record's bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(50 + self.device.len());
        out.put_u8(VERSION);
        out.put_slice(&self.alert.0);
        for time in [self.received, self.event, self.from, self.to] {
            out.put_i64_le(time);
        }
        out.put_u8(u8::from(self.is_last));
        out.put_slice(self.device.as_bytes());
        out
    }

    /// The record in `bytes`; `None` when they are none of this version.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (alert, mut rest) = bytes.strip_prefix(&[VERSION])?.split_first_chunk()?;
        let mut time = || rest.try_get_i64_le().ok();
        let (received, event, from, to) = (time()?, time()?, time()?, time()?);
        let is_last = rest.try_get_u8().ok()? != 0;
        Some(Self {
            alert: AlertId(*alert),
            received,
            event,
            from,
            to,
            is_last,
            device: std::str::from_utf8(rest).ok()?,
        })
    }

    /// When the first reading that is asked for was received, at the earliest, if its device
    /// keeps its distance from the gateway's clock.
    pub fn received_from(&self) -> i64 {
        let before = self.event.saturating_sub(self.from);
        let as_late = self.received.saturating_sub(before);
        // Where the alert's reading itself came late, those before it did not.
        let late = self.received.saturating_sub(self.event).max(0);
        let late = late.min(crate::limits::CAPTURE_LATE_US);
        as_late
            .saturating_sub(late)
            .saturating_sub(crate::limits::CAPTURE_DISORDER_US)
    }

    /// Until when readings of it are waited for: received time.
    pub fn received_to(&self) -> i64 {
        let behind = self.to.saturating_sub(self.event).max(0);
        self.received
            .saturating_add(behind)
            .saturating_add(crate::limits::CAPTURE_LATE_US)
    }
}

/// The records that an alert asks with: what is before it in pieces, each of which is sealed at
/// once, and with the last one what is behind it.
pub(super) fn records_of<'a>(
    (alert, device): (AlertId, &'a str),
    (received, event): (i64, i64),
    settings: &CaptureSettings,
) -> Vec<CaptureRecord<'a>> {
    let mut records = Vec::new();
    let mut from = event.saturating_sub(settings.pre_us);
    loop {
        let next = from.saturating_add(settings.piece_us());
        let is_last = next >= event;
        // The alert's own time is in it, too.
        let to = match is_last {
            true => event.saturating_add(settings.post_us).saturating_add(1),
            false => next,
        };
        records.push(CaptureRecord {
            alert,
            received,
            event,
            from,
            to,
            is_last,
            device,
        });
        if is_last {
            return records;
        }
        from = next;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::limits::{CAPTURE_PIECES_MAX, CAPTURE_S};
    use proptest::prelude::*;

    const ID: AlertId = AlertId([7; 16]);

    #[test]
    fn an_alert_asks_in_pieces_that_touch() {
        for pre_s in [0, 1, 10, 11, 60, CAPTURE_S.2 as i64] {
            let settings = CaptureSettings {
                pre_us: pre_s * 1_000_000,
                post_us: 5_000_000,
                ..CaptureSettings::default()
            };
            let records = records_of((ID, "d"), (9, 1_000), &settings);
            assert!(records.len() as u64 <= CAPTURE_PIECES_MAX + 1, "{pre_s}");
            assert_eq!(records[0].from, 1_000 - settings.pre_us);
            assert_eq!(records.last().unwrap().to, 5_001_001);
            assert!(records.windows(2).all(|two| two[0].to == two[1].from));
            let last: Vec<_> = records.iter().filter(|record| record.is_last).collect();
            assert_eq!(last, [records.last().unwrap()]);
        }
    }

    #[test]
    fn a_record_comes_back_and_half_of_one_does_not() {
        let records = records_of((ID, "site/d"), (9, i64::MAX), &CaptureSettings::default());
        for record in &records {
            let bytes = record.write();
            assert_eq!(CaptureRecord::read(&bytes).as_ref(), Some(record));
            assert!((0..50).all(|length| CaptureRecord::read(&bytes[..length]).is_none()));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            let with_version = [&[VERSION][..], &bytes].concat();
            for bytes in [&bytes, &with_version] {
                if let Some(record) = CaptureRecord::read(bytes) {
                    let _ = (record.received_from(), record.received_to());
                    prop_assert_eq!(record.write().len(), bytes.len());
                }
            }
        }
    }
}
