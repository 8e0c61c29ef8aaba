//! Alerts whose captures are not asked for in the log yet: raised by a record of it, and no record
//! `capture` behind that one names them. So each is asked for once, whenever the power fails.

use super::record::records_of;
use super::{CaptureRecord, CaptureSettings};
use crate::alert::AlertId;
use crate::forward::ForwardRules;
use crate::judge::{read_text, write_text};
use crate::limits::CAPTURES_WANTED_MAX;
use bytes::{Buf, BufMut};
use metrics::counter;
use std::collections::VecDeque;
use std::sync::Arc;

/// An alert.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Want {
    alert: AlertId,
    device: Box<str>,
    received: i64,
    event: i64,
    /// Whether its records were handed to the log in this life.
    asked: bool,
}

/// All of them, in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    rules: Arc<ForwardRules>,
    waiting: VecDeque<Want>,
}

impl Wanted {
    /// These rules hold; those before may have asked for devices that these do not.
    pub fn set_rules(&mut self, rules: &Arc<ForwardRules>) {
        self.rules = Arc::clone(rules);
        self.waiting.retain(|want| rules.captures(&want.device));
    }

    /// An alert of a device is told: its event time, and when what raised it was received.
    pub fn raised(&mut self, alert: AlertId, device: &str, event: i64, received: i64) {
        if !self.rules.captures(device) || self.waiting.iter().any(|want| want.alert == alert) {
            return;
        }
        if self.waiting.len() >= CAPTURES_WANTED_MAX {
            counter!("tributary_agent_capture_missed_total", "reason" => "room").increment(1);
            return;
        }
        self.waiting.push_back(Want {
            alert,
            device: device.into(),
            received,
            event,
            asked: false,
        });
    }

    /// A record of the log asks for a capture.
    pub fn recorded(&mut self, record: &CaptureRecord<'_>) {
        if record.is_last {
            self.waiting.retain(|want| want.alert != record.alert);
        }
    }

    /// The records that are to be handed to the log next, and to stand in it side by side.
    pub fn next(&self) -> Option<Vec<Vec<u8>>> {
        let want = self.waiting.iter().find(|want| !want.asked)?;
        let (alert, times) = ((want.alert, &*want.device), (want.received, want.event));
        let settings: &CaptureSettings = self.rules.capture();
        let records = records_of(alert, times, settings);
        Some(records.iter().map(CaptureRecord::write).collect())
    }

    /// They were.
    pub fn asked(&mut self) {
        if let Some(want) = self.waiting.iter_mut().find(|want| !want.asked) {
            want.asked = true;
        }
    }

    /// Appends them, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.waiting.len() as u32);
        for want in &self.waiting {
            out.put_slice(&want.alert.0);
            write_text(&want.device, out);
            out.put_i64_le(want.received);
            out.put_i64_le(want.event);
        }
    }

    /// Takes them off the front of `input`; `None` when the bytes are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let mut wanted = Self::default();
        for _ in 0..input.try_get_u32_le().ok()? {
            let (alert, rest) = input.split_first_chunk()?;
            *input = rest;
            let device = read_text(input)?.into();
            let mut time = || input.try_get_i64_le().ok();
            let (received, event) = (time()?, time()?);
            if wanted.waiting.len() < CAPTURES_WANTED_MAX {
                wanted.waiting.push_back(Want {
                    alert: AlertId(*alert),
                    device,
                    received,
                    event,
                    asked: false,
                });
            }
        }
        Some(wanted)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn rules(devices: &str) -> Arc<ForwardRules> {
        let text = format!(
            "[[forward]]\ndevices = [\"{devices}\"]\nwhat = \"aggregates+raw-on-anomaly\"\n"
        );
        let mut document = tributary_settings::Document::parse(&text, "", []);
        let rules = ForwardRules::read(&mut document.root(), &crate::detect::Settings::default());
        assert!(document.finish().is_empty());
        rules
    }

    fn id(n: usize) -> AlertId {
        AlertId((n as u128).to_be_bytes())
    }

    #[test]
    fn an_alert_is_asked_for_until_the_log_has_it() {
        let mut wanted = Wanted::default();
        wanted.raised(id(1), "line1/a", 7, 8);
        assert_eq!(wanted.next(), None, "no rule captures anything");
        wanted.set_rules(&rules("line1/#"));
        wanted.raised(id(1), "line1/a", 7, 8);
        wanted.raised(id(1), "line1/a", 7, 8);
        wanted.raised(id(2), "line2/a", 7, 8);
        wanted.raised(id(3), "line1/b", 9, 9);
        let first = wanted.next().unwrap();
        assert_eq!(wanted.next().unwrap(), first);
        wanted.asked();
        let second = wanted.next().unwrap();
        assert_eq!(CaptureRecord::read(&second[0]).unwrap().alert, id(3));
        wanted.asked();
        assert_eq!(wanted.next(), None);
        // After a restart both are asked for again, but the one that the log has.
        let mut bytes = Vec::new();
        wanted.write(&mut bytes);
        for length in 0..bytes.len() {
            assert!(Wanted::read(&mut &bytes[..length]).is_none(), "{length}");
        }
        let mut wanted = Wanted::read(&mut bytes.as_slice()).unwrap();
        wanted.set_rules(&rules("#"));
        let records = first
            .iter()
            .map(|bytes| CaptureRecord::read(bytes).unwrap());
        records.for_each(|record| wanted.recorded(&record));
        assert_eq!(wanted.next().unwrap(), second);
        wanted.set_rules(&rules("line2/#"));
        assert_eq!(wanted.next(), None);
    }

    #[test]
    fn only_so_many_wait() {
        let mut wanted = Wanted::default();
        wanted.set_rules(&rules("#"));
        (0..CAPTURES_WANTED_MAX + 9).for_each(|n| wanted.raised(id(n), "d", 0, 0));
        assert_eq!(wanted.waiting.len(), CAPTURES_WANTED_MAX);
    }
}
