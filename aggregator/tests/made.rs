//! Entries, names and feeds made for tests. No journal, no network.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tributary_aggregator::lake::LakeError;
use tributary_aggregator::lake::load::{Content, GapRow, Names, Origin, SeriesName};
use tributary_aggregator::lake::sink::{Feed, Item};
use tributary_protocol::ids::*;
use tributary_protocol::reading::*;

pub const HOUR_US: i64 = 3_600_000_000;
/// 2026-11-20T20:00:00Z.
pub const EPOCH_US: i64 = 1_795_204_800_000_000;

pub fn agent(n: u8) -> AgentId {
    AgentId::new("acme", AgentUuid([n; 16])).unwrap()
}

pub fn origin(entry: u64) -> Origin {
    let sealed = bytes::Bytes::from(format!("sealed {entry}"));
    let key = BatchKey {
        buffer: BufferId::new(1, 1),
        lane: Lane::Telemetry,
        number: entry,
    };
    Origin {
        entry,
        agent: agent(1),
        key,
        hash: BatchHash::of(&sealed),
        in_doubt: entry % 2 == 1,
        sealed,
    }
}

/// A batch whose rows lie in two hours, with every kind of value.
pub fn batch(entry: u64, rows: u32) -> (Origin, Content) {
    let mut readings = Readings::new();
    for row in 0..rows {
        let meta = Meta {
            event_time: EPOCH_US + i64::from(row % 2) * HOUR_US + entry as i64 * 1_000,
            received_time: EPOCH_US + entry as i64 * 1_000 + 5,
            quality: row as i32,
            device_seq: (row % 3 != 0).then_some(i64::from(row)),
            flags: Flags((row % 16) as u8),
        };
        let bits = entry.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(row);
        let text = format!("text {bits}");
        let value = match row % 5 {
            0 => Value::F64(f64::from_bits(bits | (0x7ff << 52))),
            1 => Value::F32(f32::from_bits(bits as u32)),
            2 => Value::I64(bits as i64),
            3 => Value::Bool(bits & 1 == 1),
            _ => Value::Str(&text),
        };
        readings.push(SeriesId(row % 5), meta, value).unwrap();
    }
    (origin(entry), Content::Readings(readings))
}

pub fn gap(entry: u64) -> (Origin, Content) {
    let row = GapRow {
        first: entry,
        count: 3,
        readings: None,
        event_first: EPOCH_US,
        event_last: EPOCH_US + 1,
        reason: "shed".to_owned(),
        detail: "full".to_owned(),
        taken: 1,
    };
    (origin(entry), Content::Gap(vec![row]))
}

/// Names of five series, one for each type of value.
pub struct FiveNames;

impl Names for FiveNames {
    fn name(&self, _: &AgentId, _: BufferId, series: SeriesId) -> Option<SeriesName> {
        let value_type = ValueType::from_code(series.0 as u8)?;
        Some(SeriesName {
            device: format!("pump-{}", 9 - series.0).into(),
            metric: "state".into(),
            unit: if series.0 == 0 {
                "Pa".into()
            } else {
                "".into()
            },
            value_type,
        })
    }
}

/// A journal that is a function of the entry, durable up to `end`.
pub struct MadeFeed {
    pub end: Arc<AtomicU64>,
    pub make: fn(u64) -> Item,
}

impl Feed for MadeFeed {
    fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    fn next(&mut self, from: u64) -> Result<Option<Item>, LakeError> {
        Ok((from < self.end()).then(|| (self.make)(from)))
    }
}
