//! Sensors that publish in turn, evenly over time: one reading a message, a walk in hundredths.

use anyhow::Result;
use std::fmt::Write;
use tributary_agent::decode::UserProperties;
use tributary_agent::wal::{Message, Qos};

/// 2026-01-31T08:00:00Z, in microseconds: where the fleet's clock begins.
pub const BEGIN_US: i64 = 1_769_846_400_000_000;

struct Sensor {
    topic: String,
    session: u64,
    seq: i64,
    hundredths: i64,
}

/// All sensors.
pub struct Fleet {
    sensors: Vec<Sensor>,
    next: usize,
    random: u64,
    payload: String,
}

impl Fleet {
    /// So many sensors that have published nothing.
    pub fn new(sensors: u32) -> Self {
        let sensor = |number: u32| {
            let name = format!("plant/line-{:02}/press-{number:04}", number % 20);
            Sensor {
                session: Message::session_of(&name),
                topic: format!("{name}/temperature"),
                seq: 0,
                hundredths: 2_000 + i64::from(number) * 37,
            }
        };
        Self {
            sensors: (0..sensors).map(sensor).collect(),
            next: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            payload: String::new(),
        }
    }

    /// Writes the record of the next message, which comes at `now_us`, to `record`.
    pub fn publish(&mut self, now_us: i64, record: &mut Vec<u8>) -> Result<()> {
        // Xorshift: G. Marsaglia, "Xorshift RNGs".
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let count = self.sensors.len();
        let Some(sensor) = self.sensors.get_mut(self.next) else {
            return Ok(());
        };
        self.next = (self.next + 1) % count;
        sensor.seq += 1;
        sensor.hundredths += (self.random % 7) as i64 - 3;
        let at_ms = (BEGIN_US + now_us) / 1_000;
        self.payload.clear();
        let value = sensor.hundredths as f64 / 100.0;
        let seq = sensor.seq;
        write!(
            self.payload,
            "{{\"value\":{value},\"ts\":{at_ms},\"seq\":{seq}}}"
        )?;
        record.clear();
        Message {
            session: sensor.session,
            qos: Qos::AtLeastOnce,
            dup: false,
            retain: false,
            v5: false,
            will: false,
            broker: false,
            packet_id: (seq % 65_535) as u16 + 1,
            received_time: BEGIN_US + now_us,
            topic: &sensor.topic,
            properties: UserProperties::NONE,
            payload: self.payload.as_bytes(),
        }
        .write(record);
        Ok(())
    }
}
