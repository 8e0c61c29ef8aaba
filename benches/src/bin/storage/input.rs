//! Messages as a fleet publishes them: one reading each, about 60 bytes of JSON, a walk per device.
//!
//! The same on every machine and in every run.

use std::fmt::Write;

/// Devices that publish in turn.
pub const DEVICES: usize = 1_000;
/// Messages a second, all devices together.
pub const RATE: u64 = 20_000;
/// 2026-01-31T08:00:00Z, in microseconds: where the fleet's clock begins.
pub const BEGIN_US: i64 = 1_769_846_400_000_000;

struct Device {
    name: String,
    topic: String,
    session: u64,
    seq: i64,
    /// In ten thousandths.
    value: i64,
}

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Published<'a> {
    /// What publishes it, as the topic says.
    pub device: &'a str,
    /// What it is published to.
    pub topic: &'a str,
    /// What is published.
    pub payload: &'a str,
    /// Whose session.
    pub session: u64,
    /// When it is received.
    pub received_us: i64,
    /// When it was measured.
    pub event_us: i64,
    /// The device's number of it.
    pub seq: i64,
    /// Its one value.
    pub value: f64,
}

/// All devices.
pub struct Fleet {
    devices: Vec<Device>,
    next: u64,
    random: u64,
    payload: String,
}

impl Fleet {
    /// A fleet that has published nothing.
    pub fn new() -> Self {
        let device = |number: usize| {
            let name = format!("plant/line-{:02}/press-{number:04}", number % 20);
            Device {
                topic: format!("{name}/temperature"),
                session: tributary_agent::wal::Message::session_of(&name),
                name,
                seq: 0,
                value: 200_000 + number as i64 * 37,
            }
        };
        Self {
            devices: (0..DEVICES).map(device).collect(),
            next: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            payload: String::new(),
        }
    }

    /// Xorshift: G. Marsaglia, "Xorshift RNGs".
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// The next message.
    pub fn publish(&mut self) -> Published<'_> {
        let (step, jitter) = (self.random() % 401, self.random() % 2_000);
        let received_us = BEGIN_US + (self.next * 1_000_000 / RATE) as i64;
        let event_us = received_us - 3_000 - jitter as i64;
        let index = (self.next % DEVICES as u64) as usize;
        self.next += 1;
        let device = self
            .devices
            .get_mut(index)
            .expect("a device for each index");
        device.value += step as i64 - 200;
        device.seq += 1;
        let (whole, part) = (device.value / 10_000, (device.value % 10_000).abs());
        self.payload.clear();
        write!(
            self.payload,
            r#"{{"value":{whole}.{part:04},"ts":{event_us},"seq":{},"unit":"Cel"}}"#,
            device.seq
        )
        .expect("a string takes everything");
        Published {
            device: &device.name,
            topic: &device.topic,
            payload: &self.payload,
            session: device.session,
            received_us,
            event_us,
            seq: device.seq,
            value: device.value as f64 / 10_000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_agent::decode::{Rows, decode};
    use tributary_protocol::reading::Value;

    #[test]
    fn every_message_is_one_reading_of_about_60_bytes() {
        let mut fleet = Fleet::new();
        let mut rows = Rows::new();
        let mut bytes = 0;
        for _ in 0..10_000 {
            let message = fleet.publish();
            bytes += message.payload.len();
            let decoded = decode(
                message.topic,
                message.payload.as_bytes(),
                message.received_us,
                &mut rows,
            );
            assert_eq!(decoded.unwrap().device_seq, Some(message.seq));
            let readings: Vec<_> = rows.iter().collect();
            assert_eq!(readings.len(), 1);
            assert_eq!(readings[0].device, message.device);
            assert_eq!(readings[0].meta.event_time, message.event_us);
            assert_eq!(readings[0].value, Value::F64(message.value));
        }
        assert!((55..=65).contains(&(bytes / 10_000)), "{}", bytes / 10_000);
    }
}
