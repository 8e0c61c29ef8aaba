//! Sealed batches made for tests, good ones and others.

use bytes::Bytes;
use tributary_protocol::batch::*;
use tributary_protocol::ids::*;
use tributary_protocol::limits::{NAME_BYTES_MAX, SERIES_PER_BATCH_MAX};
use tributary_protocol::reading::*;
use tributary_protocol::series::SeriesDef;

pub const BUFFER: BufferId = BufferId([7; 16]);
/// 2026-11-20T20:00:00Z.
pub const EPOCH_US: i64 = 1_795_204_800_000_000;

pub fn key(lane: Lane, number: u64) -> BatchKey {
    BatchKey {
        buffer: BUFFER,
        lane,
        number,
    }
}

fn spec(key: BatchKey, series_needed: u32) -> Spec {
    Spec {
        key,
        sealed_at: EPOCH_US,
        series_needed,
        covers: Vec::new(),
    }
}

/// Definitions of `count` series from `base` on.
pub fn series(number: u64, base: u32, count: u32) -> SealedBatch {
    defined(key(Lane::Series, number), base, count, "p")
}

/// As [`series`], with other definitions.
pub fn redefined(number: u64, base: u32, count: u32) -> SealedBatch {
    defined(key(Lane::Series, number), base, count, "q")
}

/// What the one series of [`of_messages`] is called in this buffer.
pub fn series_of(buffer: BufferId) -> SealedBatch {
    let key = BatchKey {
        buffer,
        ..key(Lane::Series, 0)
    };
    defined(key, 0, 1, "p")
}

fn defined(key: BatchKey, base: u32, count: u32, metric: &str) -> SealedBatch {
    let def =
        |n: u32| SeriesDef::new(&format!("pump-{n}"), metric, Some("Pa"), ValueType::F64).unwrap();
    let defs: Vec<SeriesDef> = (base..base + count).map(def).collect();
    Sealer::new().series(&spec(key, 0), base, &defs).unwrap()
}

/// `rows` readings of `series` series; `salt` makes the content another one.
pub fn readings(number: u64, series: u32, rows: u32, salt: u64) -> SealedBatch {
    let mut block = Readings::new();
    for row in 0..rows {
        let time = EPOCH_US + number as i64 * 1_000_000 + i64::from(row);
        let meta = Meta {
            event_time: time,
            received_time: time,
            ..Meta::default()
        };
        let mixed = (salt * 1_000_003 + number * 4_099 + u64::from(row) + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let value = Value::F64(f64::from_bits(mixed ^ (mixed >> 29)));
        block.push(SeriesId(row % series), meta, value).unwrap();
    }
    Sealer::new()
        .readings(&spec(key(Lane::Telemetry, number), series), &mut block)
        .unwrap()
}

/// One reading of each of these messages of a buffer, sealed under this name.
pub fn of_messages(
    key: BatchKey,
    (origin, messages): (BufferId, std::ops::Range<u64>),
) -> SealedBatch {
    let mut block = Readings::new();
    for message in messages.clone() {
        let meta = Meta {
            event_time: EPOCH_US + message as i64,
            ..Meta::default()
        };
        let value = Value::F64(message as f64);
        block.push(SeriesId(0), meta, value).unwrap();
    }
    let mut spec = spec(key, 1);
    spec.covers = vec![Cover {
        buffer: origin,
        first: messages.start,
        count: messages.end - messages.start,
    }];
    Sealer::new().readings(&spec, &mut block).unwrap()
}

/// `rows` readings of two series, by turns in this hour and the next.
pub fn two_hours(number: u64, rows: u32) -> SealedBatch {
    let mut block = Readings::new();
    for row in 0..rows {
        let second = (number as i64 * 60 + i64::from(row)) * 1_000_000;
        let meta = Meta {
            event_time: EPOCH_US + i64::from(row % 2) * 3_600_000_000 + second,
            received_time: EPOCH_US + second,
            ..Meta::default()
        };
        let value = Value::F64(f64::from(row));
        block.push(SeriesId(row % 2), meta, value).unwrap();
    }
    Sealer::new()
        .readings(&spec(key(Lane::Telemetry, number), 2), &mut block)
        .unwrap()
}

pub fn gap(number: u64) -> SealedBatch {
    let gap = Gap {
        first: number,
        count: 1,
        readings: Some(5),
        event_first: EPOCH_US,
        event_last: EPOCH_US + 9,
        reason: GapReason::Shed,
        detail: "full".to_owned(),
        each: Vec::new(),
    };
    Sealer::new()
        .gap(&spec(key(Lane::Telemetry, number), 0), &gap)
        .unwrap()
}

/// A gap that stands for the batches of these readings, from `first` on.
pub fn shed(first: u64, each: &[Option<u32>]) -> SealedBatch {
    let known: Option<Vec<u64>> = each.iter().map(|count| count.map(u64::from)).collect();
    let gap = Gap {
        first,
        count: each.len() as u64,
        readings: known.map(|known| known.iter().sum()),
        event_first: EPOCH_US,
        event_last: EPOCH_US + 9,
        reason: GapReason::Shed,
        detail: String::new(),
        each: each.to_vec(),
    };
    Sealer::new()
        .gap(&spec(key(Lane::Telemetry, first), 0), &gap)
        .unwrap()
}

/// Two events that name their series themselves.
pub fn events(number: u64) -> SealedBatch {
    let names = ["gate", "pump"]
        .map(|device| SeriesDef::new(device, "state", None, ValueType::Bool).unwrap());
    let mut block = Readings::new();
    for series in 0..2 {
        let meta = Meta {
            event_time: EPOCH_US,
            received_time: EPOCH_US,
            ..Meta::default()
        };
        block
            .push(SeriesId(series), meta, Value::Bool(series == 0))
            .unwrap();
    }
    Sealer::new()
        .named(&spec(key(Lane::Events, number), 0), &names, &mut block)
        .unwrap()
}

/// Readings of the lane `alerts`; see [`named`].
pub fn alerts(number: u64, values: &[Value<'_>]) -> SealedBatch {
    named(Lane::Alerts, number, values)
}

/// Readings of a lane, a second apart, that name their series themselves. Two devices take turns.
pub fn named(lane: Lane, number: u64, values: &[Value<'_>]) -> SealedBatch {
    let mut names: Vec<SeriesDef> = Vec::new();
    let mut block = Readings::new();
    for (row, value) in values.iter().enumerate() {
        let device = ["plant-1/pump-0007", "plant-1/pump-0008"][row % 2];
        let def = SeriesDef::new(device, "temperature", None, value.value_type()).unwrap();
        let place = names.iter().position(|known| *known == def);
        let place = place.unwrap_or_else(|| {
            names.push(def);
            names.len() - 1
        });
        let time = EPOCH_US + number as i64 * 60_000_000 + row as i64 * 1_000_000;
        let meta = Meta {
            event_time: time,
            received_time: time + 5,
            ..Meta::default()
        };
        block.push(SeriesId(place as u32), meta, *value).unwrap();
    }
    Sealer::new()
        .named(&spec(key(lane, number), 0), &names, &mut block)
        .unwrap()
}

/// A batch of this number that opens and does not decode, with the complaint `about` in it.
pub fn spoiled(number: u64, about: &str) -> SealedBatch {
    let mut block = Readings::new();
    for row in 0..2_000 {
        let meta = Meta {
            event_time: EPOCH_US + row,
            received_time: EPOCH_US,
            ..Meta::default()
        };
        block
            .push(SeriesId(0), meta, Value::I64(5 + row % 2))
            .unwrap();
    }
    let good = Sealer::new()
        .readings(&spec(key(Lane::Telemetry, number), 1), &mut block)
        .unwrap();
    for at in 0..good.bytes().len() {
        for bit in 0..8 {
            let mut bytes = good.bytes().to_vec();
            bytes[at] ^= 1 << bit;
            let Ok(batch) = SealedBatch::open(Bytes::from(bytes)) else {
                continue;
            };
            if batch.key() != key(Lane::Telemetry, number) || batch.series_needed() != 1 {
                continue;
            }
            match batch.decode(&mut Decoder::new()) {
                Err(error) if error.to_string().contains(about) => return batch,
                _ => {}
            }
        }
    }
    panic!("no flipped bit gives `{about}`");
}

/// As many readings as a batch may have, in as few bytes as they can be.
pub fn dense(number: u64) -> SealedBatch {
    let mut block = Readings::new();
    for row in 0..tributary_protocol::limits::BATCH_READINGS_MAX as i64 {
        let time = EPOCH_US + row * 1_000;
        let meta = Meta {
            event_time: time,
            received_time: time,
            ..Meta::default()
        };
        block.push(SeriesId(0), meta, Value::F64(1.0)).unwrap();
    }
    Sealer::new()
        .readings(&spec(key(Lane::Telemetry, number), 1), &mut block)
        .unwrap()
}

/// As many definitions as a batch may have, from 0 on, with names that hardly shrink.
pub fn bulky(number: u64) -> SealedBatch {
    let mut state = 1_u64;
    let mut name = || -> String {
        let letters = (0..NAME_BYTES_MAX).map(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            char::from(b'!' + ((state >> 33) % 94) as u8)
        });
        letters.collect()
    };
    let defs = (0..SERIES_PER_BATCH_MAX).map(|_| {
        let (device, metric, unit) = (name(), name(), name());
        SeriesDef::new(&device, &metric, Some(&unit), ValueType::F64).unwrap()
    });
    let defs: Vec<SeriesDef> = defs.collect();
    let spec = spec(key(Lane::Series, number), 0);
    Sealer::new().series(&spec, 0, &defs).unwrap()
}
