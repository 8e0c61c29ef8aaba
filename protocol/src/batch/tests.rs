//! What goes into a batch comes out again, to the bit; and whatever else comes in does no harm.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::ids::BufferId;
use crate::reading::{Flags, Meta, Row, Value, ValueType};
use proptest::prelude::*;

fn spec(lane: Lane, series_needed: u32) -> Spec {
    let key = BatchKey {
        buffer: BufferId::new(7, 42),
        lane,
        number: 3,
    };
    Spec {
        key,
        sealed_at: 1_800_000_000_000_000,
        series_needed,
        covers: vec![],
    }
}

/// What a reading is, without its place in a list of texts.
fn plain(readings: &Readings) -> Vec<(Row, String)> {
    let one = |row: &Row| match row.value_type {
        ValueType::Str => (Row { bits: 0, ..*row }, readings.text(row.bits).to_owned()),
        _ => (*row, String::new()),
    };
    readings.rows().iter().map(one).collect()
}

fn expected(readings: &Readings) -> Vec<(Row, String)> {
    let mut all = plain(readings);
    all.sort_by_key(|(row, _)| (row.series, row.meta.event_time));
    all
}

fn round_trip(readings: &Readings) -> SealedBatch {
    let mut mine = readings.clone();
    let sealed = Sealer::new()
        .readings(&spec(Lane::Telemetry, 1 << 19), &mut mine)
        .unwrap();
    assert_eq!(plain(&mine), expected(readings));
    let opened = SealedBatch::open(sealed.bytes().clone()).unwrap();
    assert_eq!(opened, sealed);
    let Content::Readings(decoded) = opened.decode(&mut Decoder::new()).unwrap() else {
        panic!("readings were sealed");
    };
    assert_eq!(plain(&decoded), expected(readings));
    let event_times = readings.rows().iter().map(|row| row.meta.event_time);
    assert_eq!(Some(sealed.event_first()), event_times.clone().min());
    assert_eq!(Some(sealed.event_last()), event_times.max());
    sealed
}

#[derive(Clone, Debug)]
enum Wild {
    Bits64(u64),
    Bits32(u32),
    Int(i64),
    Truth(bool),
    Text(String),
}

fn wild_value() -> impl Strategy<Value = (u32, Wild)> {
    let special = prop::sample::select(vec![
        0,
        1 << 63,
        1,
        f64::NAN.to_bits(),
        0x7ff0_dead_beef_0001,
        f64::INFINITY.to_bits(),
        f64::NEG_INFINITY.to_bits(),
        f64::MIN_POSITIVE.to_bits(),
        f64::MAX.to_bits(),
    ]);
    let decimal =
        (-1_000_000i64..1_000_000, 0i32..7).prop_map(|(k, e)| (k as f64 / 10f64.powi(e)).to_bits());
    prop_oneof![
        (0u32..3, any::<u64>()).prop_map(|(s, b)| (s, Wild::Bits64(b))),
        (3u32..6, decimal).prop_map(|(s, b)| (s, Wild::Bits64(b))),
        (3u32..6, special).prop_map(|(s, b)| (s, Wild::Bits64(b))),
        (6u32..8, any::<u32>()).prop_map(|(s, b)| (s, Wild::Bits32(b))),
        (6u32..8, -999i16..999)
            .prop_map(|(s, k)| { (s, Wild::Bits32((f32::from(k) / 100.0).to_bits())) }),
        (8u32..10, any::<i64>()).prop_map(|(s, v)| (s, Wild::Int(v))),
        (8u32..10, 0i64..50).prop_map(|(s, v)| (s, Wild::Int(v))),
        (10u32..12, any::<bool>()).prop_map(|(s, v)| (s, Wild::Truth(v))),
        (12u32..14, "[a-c]{0,2}").prop_map(|(s, v)| (s, Wild::Text(v))),
        (100_000u32..400_000, any::<u64>()).prop_map(|(s, b)| (s, Wild::Bits64(b))),
    ]
}

fn wild_meta() -> impl Strategy<Value = Meta> {
    let time = || {
        prop_oneof![
            any::<i64>(),
            (0i64..100).prop_map(|s| 1_750_000_000_000_000 + s * 1_000_000),
            (0i64..100_000).prop_map(|ms| 1_750_000_000_000_000 + ms * 1_000),
            Just(i64::MIN),
            Just(i64::MAX),
        ]
    };
    let quality = prop_oneof![8 => Just(0), 1 => any::<i32>()];
    let seq = prop_oneof![
        Just(None),
        (0i64..50).prop_map(Some),
        (0i64..=i64::MAX).prop_map(Some),
        Just(Some(i64::MAX)),
    ];
    let flags = prop_oneof![4 => Just(0u8), 1 => any::<u8>()];
    (time(), time(), quality, seq, flags).prop_map(
        |(event_time, received_time, quality, device_seq, flags)| Meta {
            event_time,
            received_time,
            quality,
            device_seq,
            flags: Flags(flags),
        },
    )
}

fn wild_readings(most: usize) -> impl Strategy<Value = Readings> {
    proptest::collection::vec((wild_value(), wild_meta()), 1..most).prop_map(|rows| {
        let mut readings = Readings::new();
        for ((series, value), meta) in &rows {
            let value = match value {
                Wild::Bits64(bits) => Value::F64(f64::from_bits(*bits)),
                Wild::Bits32(bits) => Value::F32(f32::from_bits(*bits)),
                Wild::Int(v) => Value::I64(*v),
                Wild::Truth(v) => Value::Bool(*v),
                Wild::Text(text) => Value::Str(text),
            };
            readings.push(SeriesId(*series), *meta, value).unwrap();
        }
        readings
    })
}

proptest! {
    #[test]
    fn wild_readings_come_back_to_the_bit(readings in wild_readings(400)) {
        round_trip(&readings);
    }
}
