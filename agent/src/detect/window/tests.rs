//! Windows as the gateway has them: readings pass event time first.

mod bad_input;
mod closing;
mod kept;
mod kinds;
mod oracle;

use super::series::Held;
use super::*;
use crate::detect::event_time::{EventTime, Gateway, TimeVerdict, Timed};
use crate::detect::sample::DeviceSlot;
use crate::limits::TICK_EVERY_US;
use tributary_settings::Document;

pub(super) const S: i64 = 1_000_000;
pub(super) const MS: i64 = 1_000;
/// 2026-05-01T00:00:00Z.
pub(super) const MAY: i64 = 1_777_593_600 * S;

/// Windows out of their configuration.
pub(super) fn specs(text: &str) -> Arc<WindowSpecs> {
    let mut document = Document::parse(text, "", []);
    let specs = WindowSpecs::read(&mut document.root().section("detect"));
    assert_eq!(document.finish(), []);
    specs
}

pub(super) const SECOND: &str =
    "[[detect.window]]\nname = \"second\"\nkind = \"tumbling\"\nsize_ms = 1_000\n";
pub(super) const SLIDING: &str = "[[detect.window]]\nname = \"sliding\"\nkind = \"sliding\"\n\
     size_ms = 3_000\nevery_ms = 1_000\n";
pub(super) const SESSION: &str =
    "[[detect.window]]\nname = \"session\"\nkind = \"session\"\ngap_ms = 5_000\n";
pub(super) const COUNT: &str =
    "[[detect.window]]\nname = \"count\"\nkind = \"count\"\nreadings = 4\n";

/// Series by their number: three of each device.
pub(super) const DEVICES: [&str; 3] = ["a", "b/1", "c"];
pub(super) const METRICS: [&str; 3] = ["t", "v/x", "p"];

pub(super) fn names(slot: SeriesSlot) -> Option<(&'static str, &'static str)> {
    let place = slot.0 as usize;
    Some((*DEVICES.get(place / 3)?, *METRICS.get(place % 3)?))
}

/// Event time and windows, and what came out of them.
#[derive(Clone)]
pub(super) struct Case {
    pub times: EventTime,
    pub windows: Windows,
    pub out: Vec<Aggregate>,
    pub received: i64,
    pub steady: i64,
}

impl Case {
    pub fn new(text: &str) -> Self {
        let mut case = Self {
            times: EventTime::new(TimeSettings::default()),
            windows: Windows::new(specs(text), TimeSettings::default()),
            out: Vec::new(),
            received: MAY,
            steady: 0,
        };
        case.after(0);
        case
    }

    /// A record after so much time: what is over then closes.
    pub fn after(&mut self, passed: i64) {
        let end = self.received + passed;
        loop {
            self.received = end.min(self.received + TICK_EVERY_US);
            self.steady = self.times.at(&Gateway {
                received_time: self.received,
                synchronised: true,
                greatest_time: 0,
            });
            if self.received == end {
                break;
            }
        }
        self.windows.tick(self.steady, &mut self.out);
    }

    /// A reading of a series at this time. Its time's verdict, and whether it was behind.
    pub fn judge(&mut self, series: u32, event_time: i64, value: f64) -> (TimeVerdict, bool) {
        let device = DeviceSlot(series / 3);
        let (device_name, metric) = names(SeriesSlot(series)).unwrap();
        let verdict = self.times.step(&Timed {
            device,
            event_time,
            has_device_time: true,
        });
        let place = Place {
            series: SeriesSlot(series),
            device,
            device_name,
            metric,
            unit: "",
        };
        let sample = Sample {
            event_time: verdict.time,
            received_time: self.received,
            value,
            late: verdict.late,
            trusted: verdict.trusted,
        };
        let progress = &verdict.progress;
        let behind = self.windows.step(&place, &sample, progress, &mut self.out);
        (verdict, behind)
    }

    /// A reading so long after May began; whether it was behind.
    pub fn step(&mut self, series: u32, after: i64, value: f64) -> bool {
        self.judge(series, MAY + after, value).1
    }

    /// Readings of series 0, received when they are measured.
    pub fn live(&mut self, readings: &[(i64, f64)]) {
        for (after, value) in readings {
            let passed = MAY + after - self.received;
            self.after(passed.max(0));
            self.step(0, *after, *value);
        }
    }

    /// What came out: series, window, from and to after May began, count.
    pub fn told(&mut self) -> Vec<(u32, String, i64, i64, u64)> {
        let all = std::mem::take(&mut self.out);
        let each = all.iter().map(|a| {
            let (from, to) = (a.from - MAY, a.to - MAY);
            (a.series.0, a.window.to_string(), from, to, a.count)
        });
        each.collect()
    }

    /// The same of the one that came out.
    pub fn only(&mut self) -> Aggregate {
        assert_eq!(self.out.len(), 1, "{:?}", self.out);
        self.out.pop().unwrap()
    }

    pub fn kept(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.windows.write_checkpoint(&mut bytes, &names);
        bytes
    }
}
