//! Alerts of one device that follow each other closely are one incident, which is called by its
//! first alert. A function of the order of calls and the steady times in them.

use super::kept::{read_text, write_text};
use crate::alert::AlertId;
use crate::limits::INCIDENTS_MAX;
use bytes::{Buf, BufMut};
use std::collections::BTreeMap;

/// Microseconds without an alert after which the next one begins an incident.
const PAUSE_US: i64 = 60_000_000;

/// The incidents that may go on.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Incidents {
    /// By device: the first alert, and when the last one came.
    open: BTreeMap<Box<str>, (AlertId, i64)>,
    /// When those that are over were looked for last.
    swept: i64,
}

impl Incidents {
    /// The incident that an alert of a device at this time belongs to.
    pub fn of(&mut self, device: &str, now: i64, alert: AlertId) -> AlertId {
        if now.saturating_sub(self.swept) > PAUSE_US || self.open.len() >= INCIDENTS_MAX {
            self.open
                .retain(|_, (_, last)| now.saturating_sub(*last) <= PAUSE_US);
            self.swept = now;
        }
        match self.open.get_mut(device) {
            Some((first, last)) if now.saturating_sub(*last) <= PAUSE_US => {
                *last = now.max(*last);
                *first
            }
            _ => {
                if self.open.len() < INCIDENTS_MAX || self.open.contains_key(device) {
                    self.open.insert(device.into(), (alert, now));
                }
                alert
            }
        }
    }

    /// Appends them, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_i64_le(self.swept);
        out.put_u32_le(self.open.len() as u32);
        for (device, (first, last)) in &self.open {
            write_text(device, out);
            out.put_slice(&first.0);
            out.put_i64_le(*last);
        }
    }

    /// Takes them off the front of `input`; `None` when the bytes are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let mut incidents = Self {
            swept: input.try_get_i64_le().ok()?,
            ..Self::default()
        };
        for _ in 0..input.try_get_u32_le().ok()? {
            let device = read_text(input)?.into();
            let (first, rest) = input.split_first_chunk()?;
            *input = rest;
            let last = input.try_get_i64_le().ok()?;
            if incidents.open.len() >= INCIDENTS_MAX {
                return None;
            }
            incidents.open.insert(device, (AlertId(*first), last));
        }
        Some(incidents)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn alerts_of_a_device_within_a_minute_are_one_incident() {
        let id = |n| AlertId([n; 16]);
        let mut incidents = Incidents::default();
        assert_eq!(incidents.of("a", 0, id(1)), id(1));
        assert_eq!(incidents.of("a", PAUSE_US, id(2)), id(1));
        assert_eq!(incidents.of("b", PAUSE_US, id(3)), id(3));
        assert_eq!(incidents.of("a", 2 * PAUSE_US, id(4)), id(1));
        let mut bytes = Vec::new();
        incidents.write(&mut bytes);
        assert_eq!(
            Incidents::read(&mut bytes.as_slice()),
            Some(incidents.clone())
        );
        assert_eq!(incidents.of("a", 3 * PAUSE_US + 1, id(5)), id(5));
        assert_eq!(incidents.open.len(), 1, "what is over is not remembered");
    }

    #[test]
    fn more_devices_than_are_remembered_have_incidents_of_one_alert() {
        let mut incidents = Incidents::default();
        for device in 0..=INCIDENTS_MAX {
            incidents.of(&device.to_string(), 0, AlertId([1; 16]));
        }
        assert_eq!(incidents.open.len(), INCIDENTS_MAX);
        let last = INCIDENTS_MAX.to_string();
        assert_eq!(incidents.of(&last, 1, AlertId([2; 16])), AlertId([2; 16]));
    }
}
