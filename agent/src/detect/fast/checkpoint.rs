//! Fast series as bytes, by their names. Little endian, total on arbitrary bytes; the version is
//! that of the checkpoint they stand in.

use super::{DeviceSlot, Fast, FastSeries, NEVER, Second, SeriesSlot, start_of};
use crate::detect::state_error::{StateError, read_bool, read_name, write_name};
use crate::limits::{FAST_ALONE_MAX, FAST_WINDOWS_OPEN_MAX};
use bytes::{Buf, BufMut};

/// The places of a device's metric; `None` when it has none.
type Places<'a> = &'a mut dyn FnMut(&str, &str) -> Option<(SeriesSlot, DeviceSlot)>;

impl Fast {
    /// Appends all of them to `out`, the oldest first. A series without a name is left out.
    pub fn write<'a>(
        &self,
        out: &mut Vec<u8>,
        names: &dyn Fn(SeriesSlot) -> Option<(&'a str, &'a str)>,
    ) {
        let slots = self.slots();
        let named = slots
            .iter()
            .filter_map(|slot| Some((names(*slot)?, self.series.at(slot.0)?)));
        let named: Vec<_> = named.collect();
        out.put_u32_le(named.len() as u32);
        for ((device, metric), series) in named {
            write_name(out, device);
            write_name(out, metric);
            write_name(out, &series.unit);
            out.put_i64_le(series.closed);
            out.put_i64_le(series.last);
            out.put_u8(series.alone);
            out.put_i64_le(series.alarm);
            out.put_u8(series.open.iter().flatten().count() as u8);
            for second in series.open.iter().flatten() {
                out.put_i64_le(second.from);
                out.put_u32_le(second.count);
                out.put_u8(u8::from(second.trusted));
                out.put_i64_le(second.received);
                out.put_i64_le(second.skew);
                out.put_f64_le(second.sum);
                out.put_f64_le(second.least);
                out.put_f64_le(second.greatest);
            }
        }
    }

    /// The series at the front of `input`, which is moved behind them. One that `slots` knows no
    /// place for is left out.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read(input: &mut &[u8], slots: Places<'_>) -> Result<Self, StateError> {
        let mut fast = Self::default();
        for _ in 0..input.try_get_u32_le()? {
            let (device, metric) = (read_name(input)?, read_name(input)?);
            let unit = read_name(input)?;
            let (closed, last) = (input.try_get_i64_le()?, input.try_get_i64_le()?);
            let alone = input.try_get_u8()?.min(FAST_ALONE_MAX);
            let alarm = input.try_get_i64_le()?;
            let open = read_open(input)?;
            let Some((slot, device)) = slots(device, metric) else {
                continue;
            };
            if fast.has(slot) {
                return Err(StateError::Field("fast series"));
            }
            if start_of(closed) != closed {
                return Err(StateError::Field("end of windows"));
            }
            fast.begin(slot, device, i64::MIN);
            let Some(series) = fast.series.at_mut(slot.0) else {
                continue;
            };
            **series = FastSeries {
                closed,
                last,
                alone,
                unit: unit.into(),
                open,
                ..(**series).clone()
            };
            // One without an open window needs none, and one with some has one.
            fast.set_alarm(slot, |_| alarm.min(NEVER - 1));
        }
        Ok(fast)
    }
}

fn read_open(input: &mut &[u8]) -> Result<[Option<Second>; FAST_WINDOWS_OPEN_MAX], StateError> {
    let mut open = [None; FAST_WINDOWS_OPEN_MAX];
    let count = usize::from(input.try_get_u8()?);
    if count > FAST_WINDOWS_OPEN_MAX {
        return Err(StateError::Field("count of open windows"));
    }
    let mut last = i64::MIN;
    for place in open.iter_mut().take(count) {
        let second = Second {
            from: input.try_get_i64_le()?,
            count: input.try_get_u32_le()?,
            trusted: read_bool(input)?,
            received: input.try_get_i64_le()?,
            skew: input.try_get_i64_le()?,
            sum: input.try_get_f64_le()?,
            least: input.try_get_f64_le()?,
            greatest: input.try_get_f64_le()?,
        };
        if second.from <= last || start_of(second.from) != second.from || second.count == 0 {
            return Err(StateError::Field("window"));
        }
        last = second.from;
        *place = Some(second);
    }
    Ok(open)
}
