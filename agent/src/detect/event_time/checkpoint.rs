//! The time of all devices as bytes, by their names. Versioned, little endian, total on arbitrary
//! bytes. Counters are the process's, and not kept.

use super::device::DeviceClock;
use super::gateway::GatewayClock;
use super::{EventTime, TimeSettings};
use crate::detect::sample::DeviceSlot;
use crate::detect::state_error::{StateError, read_bool, read_name, read_version, write_name};
use bytes::{Buf, BufMut};

const VERSION: u16 = 3;

impl EventTime {
    /// Appends the state to `out`. A device without a name is left out.
    pub fn write_checkpoint<'a>(
        &self,
        out: &mut Vec<u8>,
        names: &dyn Fn(DeviceSlot) -> Option<&'a str>,
    ) {
        out.put_u16_le(VERSION);
        out.put_u8(u8::from(self.gateway.received.is_some()));
        out.put_i64_le(self.gateway.received.unwrap_or(0));
        out.put_i64_le(self.gateway.steady);
        out.put_u8(u8::from(self.gateway.trusted));
        out.put_i64_le(self.gateway.now);
        out.put_u8(u8::from(self.gateway.behind_since.is_some()));
        out.put_i64_le(self.gateway.behind_since.unwrap_or(0));
        out.put_i64_le(self.median.offset);
        out.put_i64_le(self.median.computed_at);
        out.put_u32_le(self.median.computed_of);
        let devices = self.devices.iter();
        let named = devices.filter_map(|(place, d)| Some((names(DeviceSlot(place))?, d)));
        let named: Vec<(&str, &DeviceClock)> = named.collect();
        out.put_u32_le(named.len() as u32);
        for (name, device) in named {
            write_name(out, name);
            write_device(out, device);
        }
    }

    /// The state at the front of `input`, which is moved behind it. A device that `slots` knows no
    /// place for is left out.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read_checkpoint(
        input: &mut &[u8],
        settings: TimeSettings,
        slots: &mut dyn FnMut(&str) -> Option<DeviceSlot>,
    ) -> Result<Self, StateError> {
        read_version(input, VERSION)?;
        let mut state = Self::new(settings);
        let any = read_bool(input)?;
        let received = input.try_get_i64_le()?;
        state.gateway = GatewayClock {
            received: any.then_some(received),
            steady: input.try_get_i64_le()?,
            trusted: read_bool(input)?,
            now: input.try_get_i64_le()?,
            behind_since: None,
        };
        let is_behind = read_bool(input)?;
        let since = input.try_get_i64_le()?;
        state.gateway.behind_since = is_behind.then_some(since);
        state.median.offset = input.try_get_i64_le()?;
        state.median.computed_at = input.try_get_i64_le()?;
        state.median.computed_of = input.try_get_u32_le()?;
        for _ in 0..input.try_get_u32_le()? {
            let name = read_name(input)?;
            let device = read_device(input)?;
            let room = slots(name).and_then(|slot| state.devices.room(slot.0));
            if let Some(room) = room {
                if room.is_some() {
                    return Err(StateError::Field("device: there twice"));
                }
                state.median.claimed(device.claimed().is_some());
                *room = Some(device);
            }
        }
        Ok(state)
    }
}

fn write_device(out: &mut Vec<u8>, device: &DeviceClock) {
    for number in [
        device.newest,
        device.newest_at,
        device.watermark,
        device.heard,
        device.distance,
        device.late_since,
        device.late_from,
        device.doubted,
    ] {
        out.put_i64_le(number);
    }
    out.put_u8(u8::from(device.astray));
    out.put_u8(u8::from(device.doubts_own));
}

fn read_device(input: &mut &[u8]) -> Result<DeviceClock, StateError> {
    Ok(DeviceClock {
        newest: input.try_get_i64_le()?,
        newest_at: input.try_get_i64_le()?,
        watermark: input.try_get_i64_le()?,
        heard: input.try_get_i64_le()?,
        distance: input.try_get_i64_le()?,
        late_since: input.try_get_i64_le()?,
        late_from: input.try_get_i64_le()?,
        doubted: input.try_get_i64_le()?,
        astray: read_bool(input)?,
        doubts_own: read_bool(input)?,
    })
}
