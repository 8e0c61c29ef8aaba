//! Which time a reading has in detection, and whether it comes too late. Pure: told each reading,
//! when it was received, and whether the gateway's clock is to be trusted. `docs/detection.md`,
//! Time.
//!
//! Each device has a watermark of its own, which no other device moves. A time that nobody should
//! believe moves none: its reading goes on where its device's time would be by now. Whatever runs
//! out, runs out by *steady* time: received time without the jumps of the gateway's clock.

mod checkpoint;
mod device;
mod gateway;
mod median;
mod settings;

use super::sample::DeviceSlot;
use super::slots::Slots;
use device::DeviceClock;
use gateway::GatewayClock;
use median::Median;

use std::ops::Range;

pub use gateway::Gateway;
pub use settings::TimeSettings;

/// Before this no clock is set: 2000-01-01, µs since 1970.
const PLAUSIBLE_FROM: i64 = crate::limits::CLOCK_SANE_FROM_US;
/// From this on a clock is not believed: 2100-01-01, µs since 1970.
const PLAUSIBLE_BELOW: i64 = 4_102_444_800_000_000;

/// What a reading says of its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timed {
    /// Whose it is.
    pub device: DeviceSlot,
    /// µs since 1970, UTC; its received time where the device says none.
    pub event_time: i64,
    /// Whether the device said it.
    pub has_device_time: bool,
}

/// Why a time is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doubt {
    /// The device says none, and the gateway's clock is not trusted.
    NoTime,
    /// It is before 2000 or after 2099: its clock was never set.
    Unset,
    /// It is too far ahead.
    Ahead,
    /// The device's clock was set back, and goes on from there.
    SetBack,
}

/// How far a device's time is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Up to here its readings are complete; what is before it is late.
    pub watermark: i64,
    /// The greatest time of its readings.
    pub newest: i64,
    /// The steady time at which that came.
    pub newest_at: i64,
    /// The steady time at which it was last heard of.
    pub heard: i64,
}

/// What is made of a reading's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeVerdict {
    /// When detection takes it to have been measured: its own time, or where its device's time
    /// would be by now when that is not believed.
    pub time: i64,
    /// Whether it is behind its device's watermark: it changes no model and opens no window.
    pub late: bool,
    /// Whether its own time is not believed: `clock_suspect`.
    pub suspect: bool,
    /// Whether its time tells the time of the week: it is believed, and so is the gateway's clock.
    pub trusted: bool,
    /// How far its device's time is, with this reading.
    pub progress: Progress,
}

/// How often something was wrong with a time, since the start of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimeCounts {
    /// Readings behind their device's watermark.
    pub late: u64,
    /// Readings whose time was too far ahead.
    pub ahead: u64,
    /// Readings whose time was before 2000 or after 2099.
    pub unset: u64,
    /// Readings of devices whose clock had been set back.
    pub set_back: u64,
    /// Readings without a time of their own while the gateway's clock was not trusted.
    pub without_time: u64,
    /// Devices that had run ahead while the gateway's clock was not trusted, and began anew.
    pub begun_anew: u64,
    /// Times that the gateway's clock went back.
    pub gateway_back: u64,
    /// Times that the gateway's clock was set ahead.
    pub gateway_ahead: u64,
    /// Times that the gateway's clock began or ceased to be trusted.
    pub gateway_trust_changed: u64,
    /// Readings of devices beyond the bound, of which nothing is kept.
    pub crowded: u64,
}

/// The time of all devices: 72 bytes each.
#[derive(Clone, Debug)]
pub struct EventTime {
    settings: TimeSettings,
    gateway: GatewayClock,
    devices: Slots<DeviceClock>,
    median: Median,
    /// Whether the gateway's clock was set before the last record.
    was_set: bool,
    counts: TimeCounts,
}

impl EventTime {
    /// Nothing heard of any device.
    pub fn new(settings: TimeSettings) -> Self {
        Self {
            settings,
            gateway: GatewayClock::default(),
            devices: Slots::default(),
            median: Median::default(),
            was_set: false,
            counts: TimeCounts::default(),
        }
    }

    /// Takes what a record of the log says of the gateway's clock, before its readings. Gives
    /// the steady time, by which windows and rules are told what runs out: µs from the first
    /// record on.
    pub fn at(&mut self, told: &Gateway) -> i64 {
        let stepped = self.gateway.at(told);
        self.counts.gateway_back += u64::from(stepped.back);
        self.counts.gateway_ahead += u64::from(stepped.ahead);
        self.counts.gateway_trust_changed += u64::from(stepped.trust_changed);
        self.was_set = stepped.back || stepped.ahead || stepped.trust_changed;
        self.gateway.steady
    }

    /// The received time at which it will be this steady time, if the gateway's clock does not
    /// jump before.
    pub fn received_at(&self, steady: i64) -> i64 {
        self.gateway.received_at(steady)
    }

    /// The steady time of the last record.
    pub fn steady(&self) -> i64 {
        self.gateway.steady
    }

    /// Whether the gateway's clock was set between the last record and the one before, or began or
    /// ceased to be trusted: times from before it say nothing about those after it.
    pub fn was_set(&self) -> bool {
        self.was_set
    }

    /// Whether the gateway's clock was trusted with the last record. When that was received is the
    /// log's greatest time then, also where it is less than what that was before.
    pub fn is_gateway_trusted(&self) -> bool {
        self.gateway.trusted
    }

    /// Judges a reading's time.
    pub fn step(&mut self, reading: &Timed) -> TimeVerdict {
        let place = reading.device.0;
        let Some(kept) = self.devices.room(place) else {
            self.counts.crowded += 1;
            return self.untracked();
        };
        let mut device = kept.unwrap_or_default();
        device.fall_idle(self.gateway.steady, &self.settings);
        let far = self.gateway.ahead_from(&self.settings);
        if self.gateway.trusted && device.newest > far {
            device = device.anew();
            self.counts.begun_anew += 1;
        }
        let plausible = (PLAUSIBLE_FROM..PLAUSIBLE_BELOW).contains(&reading.event_time);
        if reading.has_device_time && plausible {
            let steady = self.gateway.steady;
            let fresh = device.claim(reading.event_time.saturating_sub(steady));
            self.median.claimed(fresh);
        }
        // The median is over what is kept.
        *kept = Some(device);
        let doubt = self.doubt(reading, &device, plausible);
        let verdict = self.judge(reading, &mut device, doubt);
        if let Some(kept) = self.devices.at_mut(place) {
            *kept = device;
        }
        verdict
    }

    fn doubt(&mut self, reading: &Timed, device: &DeviceClock, plausible: bool) -> Option<Doubt> {
        if !reading.has_device_time {
            return (!self.gateway.trusted).then_some(Doubt::NoTime);
        }
        if !plausible {
            return Some(Doubt::Unset);
        }
        let ahead_from = if self.gateway.trusted {
            self.gateway.ahead_from(&self.settings)
        } else {
            let steady = self.gateway.steady;
            let claims = self
                .devices
                .iter()
                .filter_map(|(_, device)| device.claimed());
            self.median
                .at(steady, claims)
                .saturating_add(self.settings.future_skew_max_us)
        };
        if reading.event_time > ahead_from {
            return Some(Doubt::Ahead);
        }
        (device.astray && reading.event_time < device.watermark).then_some(Doubt::SetBack)
    }

    fn judge(
        &mut self,
        reading: &Timed,
        device: &mut DeviceClock,
        doubt: Option<Doubt>,
    ) -> TimeVerdict {
        let (steady, time) = (self.gateway.steady, reading.event_time);
        let mut doubt = doubt;
        let mut late = false;
        if reading.has_device_time && doubt.is_none() {
            late = time < device.watermark;
            if late && device.is_set_back(time, steady) {
                (late, doubt) = (false, Some(Doubt::SetBack));
            } else if !late {
                device.on_time();
            }
        }
        let time = match doubt {
            Some(_) => {
                let by_now = device.time_by_now(steady).unwrap_or(self.gateway.now);
                if self.gateway.trusted {
                    by_now.min(self.gateway.ahead_from(&self.settings))
                } else if device.claimed().is_none() {
                    // Steady time stands still while the agent does not run, and no clock of the
                    // device's would ever say so.
                    by_now.max(self.gateway.now)
                } else {
                    by_now
                }
            }
            None if late => time,
            // What has no time of its own was measured just now, however far its device is.
            None => time.max(device.watermark),
        };
        let distance = reading.event_time.saturating_sub(steady);
        device.doubt(distance, reading.has_device_time, doubt.is_some());
        device.take(time, late, steady, &self.settings);
        self.count(late, doubt);
        TimeVerdict {
            time,
            late,
            suspect: doubt.is_some(),
            trusted: self.gateway.trusted && doubt.is_none(),
            progress: device.progress(),
        }
    }

    fn count(&mut self, late: bool, doubt: Option<Doubt>) {
        self.counts.late += u64::from(late);
        let counter = match doubt {
            None => return,
            Some(Doubt::NoTime) => &mut self.counts.without_time,
            Some(Doubt::Unset) => &mut self.counts.unset,
            Some(Doubt::Ahead) => &mut self.counts.ahead,
            Some(Doubt::SetBack) => &mut self.counts.set_back,
        };
        *counter += 1;
    }

    /// What is said of a device of which nothing can be kept.
    fn untracked(&self) -> TimeVerdict {
        let time = self.gateway.now;
        TimeVerdict {
            time,
            late: false,
            suspect: true,
            trusted: false,
            progress: Progress {
                watermark: time.saturating_sub(self.settings.allowed_lateness_us),
                newest: time,
                newest_at: self.gateway.steady,
                heard: self.gateway.steady,
            },
        }
    }

    /// How far a device's time is; `None` when nothing was heard of it.
    pub fn progress(&self, device: DeviceSlot) -> Option<Progress> {
        let device = self.devices.at(device.0)?;
        let mut device = *device;
        device.fall_idle(self.gateway.steady, &self.settings);
        device.is_heard().then(|| device.progress())
    }

    /// How far a device's own time is ahead of the one that it is judged by, by now: 0 while it is
    /// believed.
    pub fn skew(&self, device: DeviceSlot) -> i64 {
        let steady = self.gateway.steady;
        let device = self.devices.at(device.0);
        let skew = device.and_then(|device| {
            let own = device.doubted()?.saturating_add(steady);
            Some(own.saturating_sub(device.time_by_now(steady)?))
        });
        skew.unwrap_or(0)
    }

    /// How many places of devices there are, taken or not.
    pub fn places_len(&self) -> usize {
        self.devices.len()
    }

    /// Of the devices at these places those whose own times are not believed, and by how much they
    /// are ahead of the gateway's clock: µs.
    pub fn suspects(&self, at: Range<usize>) -> impl Iterator<Item = (DeviceSlot, i64)> {
        let ahead = self.gateway.steady.saturating_sub(self.gateway.now);
        self.devices.range(at).filter_map(move |(place, device)| {
            let doubted = device.doubted().filter(|_| device.doubts_own)?;
            Some((DeviceSlot(place), doubted.saturating_add(ahead)))
        })
    }

    /// Forgets a device; its place may be another one's then.
    pub fn forget(&mut self, device: DeviceSlot) {
        if let Some(device) = self.devices.take(device.0) {
            self.median.forgot(device.claimed().is_some());
        }
    }

    /// Goes on with other settings. No watermark goes back.
    pub fn replace(&mut self, settings: TimeSettings) {
        self.settings = settings;
    }

    /// How often something was wrong with a time.
    pub fn counts(&self) -> &TimeCounts {
        &self.counts
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
