//! A summary instead of a storm: so many alerts are sent one by one, the rest is counted. Told the
//! time that has passed by the log, whose clock may be set: steady time, µs.

use crate::alert::Severity;
use crate::limits::{ALERTS_BURST_MAX, ALERTS_CRITICAL, ALERTS_PER_SECOND_MAX, STORM_NAMES_MAX};
use bytes::{Buf, BufMut};

/// What one alert costs.
const ALERT: u64 = 1_000_000;
const FULL: u64 = ALERTS_BURST_MAX * ALERT;
const KEPT: u64 = ALERTS_CRITICAL * ALERT;
/// Microseconds that a summary counts.
const SUMMARY_US: i64 = 1_000_000;

/// What was counted instead of sent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// Alerts.
    pub alerts: u64,
    /// When the first of them was received: µs since 1970, UTC.
    pub since: i64,
    /// The steady time of that.
    steady: i64,
    /// Whose the first ones are.
    pub names: Vec<String>,
}

/// A bucket of alerts, and what did not fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Storm {
    left: u64,
    at: i64,
    counted: Counted,
}

impl Default for Storm {
    fn default() -> Self {
        Self {
            left: FULL,
            at: i64::MIN,
            counted: Counted::default(),
        }
    }
}

impl Storm {
    /// Whether there is room for an alert at this time: some is kept for what is critical.
    pub fn has_room(&mut self, now: i64, severity: Severity) -> bool {
        let elapsed = now.saturating_sub(self.at).max(0) as u64;
        self.at = now;
        let more = elapsed.saturating_mul(ALERTS_PER_SECOND_MAX);
        self.left = self.left.saturating_add(more).min(FULL);
        let kept = match severity {
            Severity::Critical => 0,
            Severity::Info | Severity::Warning => KEPT,
        };
        self.left >= kept + ALERT
    }

    /// Whether an alert of this name is sent, if it may be; otherwise it is counted.
    pub fn admits(
        &mut self,
        (now, received): (i64, i64),
        (severity, may_be): (Severity, bool),
        name: impl FnOnce() -> String,
    ) -> bool {
        if self.has_room(now, severity) && may_be {
            self.left -= ALERT;
            return true;
        }
        if self.counted.alerts == 0 {
            self.counted.since = received;
            self.counted.steady = now;
        }
        self.counted.alerts += 1;
        if self.counted.names.len() < STORM_NAMES_MAX {
            self.counted.names.push(name());
        }
        false
    }

    /// An alert is sent that was counted before.
    pub fn take(&mut self) {
        self.left = self.left.saturating_sub(ALERT);
    }

    /// When a summary is due; `None` while nothing was counted.
    pub fn poll_timeout(&self) -> Option<i64> {
        (self.counted.alerts > 0).then_some(self.counted.steady.saturating_add(SUMMARY_US))
    }

    /// The summary, if it is due.
    pub fn summary(&mut self, now: i64) -> Option<Counted> {
        let is_due = self.poll_timeout().is_some_and(|at| at <= now);
        is_due.then(|| std::mem::take(&mut self.counted))
    }

    /// Appends its bytes, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.left);
        out.put_i64_le(self.at);
        out.put_u64_le(self.counted.alerts);
        out.put_i64_le(self.counted.since);
        out.put_i64_le(self.counted.steady);
        out.put_u8(self.counted.names.len() as u8);
        for name in &self.counted.names {
            super::kept::write_text(name, out);
        }
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let left = input.try_get_u64_le().ok()?.min(FULL);
        let at = input.try_get_i64_le().ok()?;
        let (alerts, since) = (input.try_get_u64_le().ok()?, input.try_get_i64_le().ok()?);
        let steady = input.try_get_i64_le().ok()?;
        let count = usize::from(input.try_get_u8().ok()?);
        let names = (0..count.min(STORM_NAMES_MAX)).map(|_| super::kept::read_text(input));
        let names: Option<Vec<_>> = names.map(|name| name.map(str::to_owned)).collect();
        Some(Self {
            left,
            at,
            counted: Counted {
                alerts,
                since,
                steady,
                names: names?,
            },
        })
    }
}

const _: () = assert!(STORM_NAMES_MAX <= u8::MAX as usize);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ALWAYS: (Severity, bool) = (Severity::Warning, true);

    #[test]
    fn a_burst_is_sent_and_the_rest_is_one_summary_a_second() {
        let mut storm = Storm::default();
        let name = || "a b".to_owned();
        let sent = (0..1_000)
            .filter(|_| storm.admits((0, 9), ALWAYS, name))
            .count() as u64;
        assert_eq!(sent, ALERTS_BURST_MAX - ALERTS_CRITICAL);
        assert_eq!(storm.summary(SUMMARY_US - 1), None);
        let counted = storm.summary(SUMMARY_US).unwrap();
        assert_eq!((counted.alerts, counted.since), (1_000 - sent, 9));
        assert!(storm.has_room(0, Severity::Critical), "some is kept for it");
        assert_eq!(counted.names.len(), STORM_NAMES_MAX);
        assert_eq!(storm.poll_timeout(), None);
        let sent = (0..1_000)
            .filter(|_| storm.admits((SUMMARY_US, 9), ALWAYS, name))
            .count() as u64;
        assert_eq!(sent, ALERTS_PER_SECOND_MAX);
        assert!(!storm.admits((SUMMARY_US, 9), ALWAYS, name));
        assert!(storm.admits((SUMMARY_US * 11 / 10, 9), ALWAYS, name));
        let mut bytes = Vec::new();
        storm.write(&mut bytes);
        assert_eq!(Storm::read(&mut bytes.as_slice()), Some(storm));
    }
}
