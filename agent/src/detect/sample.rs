//! A reading as detectors are told it, and what names its series and device while they are at hand.

/// Where a series stands among those at hand. Another one may get the place once it is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SeriesSlot(pub u32);

/// Where a device stands among those at hand. Another one may get the place once it is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceSlot(pub u32);

/// Whose reading it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    /// The series.
    pub series: SeriesSlot,
    /// Its device.
    pub device: DeviceSlot,
    /// The device's name.
    pub device_name: &'a str,
    /// What is measured.
    pub metric: &'a str,
    /// In which unit; empty when nobody said.
    pub unit: &'a str,
}

/// One reading.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sample {
    /// When it was measured: microseconds since 1970, UTC.
    pub event_time: i64,
    /// When the agent got it: microseconds since 1970, UTC.
    pub received_time: i64,
    /// The value; a truth value is 0 or 1.
    pub value: f64,
    /// Whether it came behind its device's watermark: it changes no model and opens no window.
    pub late: bool,
    /// Whether its time is believed. It tells the time of the week where the gateway's clock is
    /// trusted, too.
    pub trusted: bool,
}
