//! What the judging stage counts, since the start: no part of what it knows.

use crate::alert::Alert;

/// What was not judged, or not told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Readings that were judged by the detectors of their series, or taken into windows that are.
    pub judged: u64,
    /// Windows of fast series that were judged.
    pub seconds: u64,
    /// Times that a series changed its pace, and its detector began anew.
    pub paces: u64,
    /// Windows of fast series whose peak to peak was not judged: no room to watch it.
    pub crowded: u64,
    /// Readings whose value is a text.
    pub texts: u64,
    /// Readings whose value is no number, or infinite.
    pub not_finite: u64,
    /// Readings behind their device's watermark, or from before their series' newest.
    pub late: u64,
    /// Readings whose time is not believed.
    pub suspect: u64,
    /// Readings that are samples of a vibration.
    pub samples: u64,
    /// Series that gave way to new ones, and what was known of them was kept.
    pub gave_way: u64,
    /// Series that spoke again, and were known.
    pub taken_back: u64,
    /// Series that spoke again and should have been known, but what was kept was not there.
    pub lost: u64,
    /// Series that gave way to new ones for good.
    pub forgotten: u64,
    /// Values of series that are not watched, for which none gave way: too many did lately.
    pub no_turn: u64,
    /// Alerts that were told, by what raised them.
    pub raised: Raised,
    /// Alerts that were counted in a summary instead.
    pub held_back: u64,
}

/// Alerts that were told, by what raised them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Raised {
    /// Detectors of series, of a reading.
    pub series: u64,
    /// Of the windows of fast series.
    pub fast: u64,
    /// Rules.
    pub rules: u64,
    /// Groups.
    pub groups: u64,
    /// Storms: summaries of what was held back.
    pub storms: u64,
}

impl Raised {
    /// What raised them, as it is called in metrics, and how many.
    pub fn by_kind(&self) -> [(&'static str, u64); 5] {
        [
            ("series", self.series),
            ("fast", self.fast),
            ("rule", self.rules),
            ("group", self.groups),
            ("storm", self.storms),
        ]
    }

    /// One more, by the detector of this name; of a window where that is more than a reading.
    pub(super) fn count(&mut self, detector: &str, of_window: bool) {
        let count = match detector.split_once(':') {
            Some(("rule", _)) => &mut self.rules,
            Some(("group", _)) => &mut self.groups,
            _ if of_window => &mut self.fast,
            _ => &mut self.series,
        };
        *count += 1;
    }

    pub(super) fn count_alert(&mut self, alert: &Alert) {
        self.count(&alert.detector, alert.window.is_some());
    }
}
