//! What goes into a batch comes out again, to the bit; and whatever else comes in does no harm.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::ids::BufferId;
use crate::reading::{Flags, Meta, Row, Value, ValueType};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

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
    // Making wild readings takes far longer than sealing them; `fuzz/` has the long runs.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn wild_readings_come_back_to_the_bit(readings in wild_readings(160)) {
        round_trip(&readings);
    }
}

fn steady(rows: i64) -> Readings {
    let mut readings = Readings::new();
    for i in 0..rows {
        let meta = Meta {
            event_time: 1_780_000_000_000_000 + i * 1_000_000,
            received_time: 1_780_000_000_000_000 + i * 1_000_000 + (i * 7 % 5) * 1_000,
            device_seq: Some(i),
            ..Meta::default()
        };
        let decimal = Value::F64((2_000 + i * 37 % 90) as f64 / 100.0);
        let text = if i % 3 == 0 { "on" } else { "off" };
        for (series, value) in [decimal, Value::Bool(i % 7 == 0), Value::Str(text)]
            .into_iter()
            .enumerate()
        {
            readings.push(SeriesId(series as u32), meta, value).unwrap();
        }
    }
    readings
}

/// Below zstd, where nothing but the columns' own checks catches damage.
#[test]
fn damaged_columns_are_refused_or_decode_within_bounds() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |end: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % end as u64) as usize
    };
    let mut wild = proptest::test_runner::TestRunner::deterministic();
    let wild = wild_readings(120).new_tree(&mut wild).unwrap().current();
    let mut reader = ColumnReader::default();
    let mut decoded = 0;
    for mut readings in [steady(20), wild] {
        order::Order::default().sort(readings.rows_mut());
        let times = readings.rows().iter().map(|row| row.meta.event_time);
        let (event_first, event_last) = (times.clone().min().unwrap(), times.max().unwrap());
        let mut writer = columns::ColumnWriter::default();
        let (tokens, bits) = writer.write(&readings, event_first).unwrap();
        let rows = readings.len();
        let expected = Expected {
            rows,
            event_first,
            event_last,
            series_end: 1 << 19,
        };
        let whole = reader.read(tokens, bits, expected).unwrap();
        assert_eq!(plain(&whole), plain(&readings));
        for _ in 0..20_000 {
            let (mut tokens, mut bits) = (tokens.to_vec(), bits.to_vec());
            for _ in 0..=random(2) {
                let at = random(tokens.len());
                match random(6) {
                    0 => drop(tokens.splice(at..at, [random(256) as u8])),
                    1 if tokens.len() > 1 => drop(tokens.remove(at)),
                    2 => tokens[at] = random(16) as u8,
                    3 if !bits.is_empty() => {
                        let at = random(bits.len());
                        bits[at] ^= 1 << random(8);
                    }
                    _ => tokens[at] = random(256) as u8,
                }
            }
            let Ok(other) = reader.read(&tokens, &bits, expected) else {
                continue;
            };
            decoded += 1;
            let order = |row: &Row| (row.series, row.meta.event_time);
            assert!(other.rows().is_sorted_by_key(order));
            assert_eq!(other.len(), rows);
        }
    }
    assert!(decoded > 1_000, "{decoded} decoded");
}

#[test]
fn what_no_batch_may_hold_is_refused() {
    let mut sealer = Sealer::new();
    let telemetry = spec(Lane::Telemetry, 2);
    let mut refused = |series: u32, meta: Meta, value: Value<'_>| {
        let mut readings = Readings::new();
        readings.push(SeriesId(series), meta, value).unwrap();
        sealer.readings(&telemetry, &mut readings).unwrap_err()
    };
    let good = Meta::default();
    let beyond = SealError::Series {
        series: SeriesId(2),
        needed: 2,
    };
    assert_eq!(refused(2, good, Value::Bool(true)), beyond);
    let negative = Meta {
        device_seq: Some(-1),
        ..good
    };
    assert_eq!(
        refused(0, negative, Value::Bool(true)),
        SealError::Sequence(-1)
    );
    assert_eq!(refused(0, good, Value::Str("a\0b")), SealError::Text);

    let mut mixed = Readings::new();
    mixed.push(SeriesId(1), good, Value::Bool(true)).unwrap();
    mixed.push(SeriesId(1), good, Value::I64(1)).unwrap();
    let wrong = sealer.readings(&telemetry, &mut mixed);
    assert_eq!(wrong, Err(SealError::MixedTypes(SeriesId(1))));
    assert_eq!(
        sealer.readings(&telemetry, &mut Readings::new()),
        Err(SealError::Empty)
    );
    assert_eq!(
        sealer.series(&spec(Lane::Series, 0), 0, &[]),
        Err(SealError::Empty)
    );

    let mut one = Readings::new();
    one.push(SeriesId(0), good, Value::I64(1)).unwrap();
    let wrong = sealer.readings(&spec(Lane::Series, 2), &mut one.clone());
    assert!(matches!(wrong, Err(SealError::Head(_))));
    let mut covering = telemetry.clone();
    covering.covers = vec![Cover {
        buffer: BufferId::new(1, 1),
        first: u64::MAX,
        count: 1,
    }];
    assert!(matches!(
        sealer.readings(&covering, &mut one),
        Err(SealError::Head(_))
    ));
}

#[test]
fn too_many_rows_or_bytes_are_refused() {
    let mut sealer = Sealer::new();
    let mut many = Readings::new();
    for i in 0..=BATCH_READINGS_MAX as i64 {
        let value = Value::I64(i.wrapping_mul(0x5851_f42d_4c95_7f2d));
        many.push(SeriesId(0), Meta::default(), value).unwrap();
    }
    let wrong = sealer.readings(&spec(Lane::Telemetry, 1), &mut many);
    let max = BATCH_READINGS_MAX;
    assert_eq!(wrong, Err(SealError::TooMany { rows: max + 1, max }));

    // Times, numbers and values without any order, beside as much text as a batch may hold.
    let mut long = Readings::new();
    let mut state = 1u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..BATCH_READINGS_MAX - 8 {
        let meta = Meta {
            event_time: (next() >> 2) as i64,
            received_time: (next() >> 2) as i64,
            device_seq: Some((next() >> 1) as i64),
            ..Meta::default()
        };
        let value = Value::I64(next() as i64);
        long.push(SeriesId(0), meta, value).unwrap();
    }
    for _ in 0..8 {
        let printable = |_| char::from(b' ' + (next() % 90) as u8);
        let text: String = (0..64 * 1024).map(printable).collect();
        long.push(SeriesId(1), Meta::default(), Value::Str(&text))
            .unwrap();
    }
    let mut spec = spec(Lane::Telemetry, 1);
    spec.series_needed = 2;
    let wrong = sealer.readings(&spec, &mut long);
    assert!(matches!(wrong, Err(SealError::TooLong(_))), "{wrong:?}");
}

#[test]
fn a_head_of_the_future_is_told_apart_from_damage() {
    let sealed = round_trip(&steady(5));
    let bytes = sealed.bytes();
    // The last two bytes of the head: lane and form.
    let lane_and_form = [
        Lane::Telemetry.code(),
        Kind::Readings as u8 | (Codec::Zstd as u8) << 4,
    ];
    let at = bytes
        .windows(2)
        .position(|pair| pair == lane_and_form)
        .unwrap();
    let with = |lane: u8, form: u8| {
        let mut other = bytes.to_vec();
        other[at..at + 2].copy_from_slice(&[lane, form]);
        SealedBatch::open(other.into())
    };
    assert!(with(2, 0x10).is_ok());
    assert_eq!(with(2, 0x13), Err(BatchError::Kind(3)));
    assert_eq!(with(2, 0x20), Err(BatchError::Codec(2)));
    assert!(matches!(with(5, 0x10), Err(BatchError::Head(_))));
    assert!(matches!(with(0, 0x10), Err(BatchError::Head(_))));
    assert!(matches!(with(2, 0x12), Err(BatchError::Head(_))));
    let stored = with(2, 0x00).unwrap().decode(&mut Decoder::new());
    assert!(stored.is_err());
}

#[test]
fn gaps_and_definitions_come_back() {
    let mut sealer = Sealer::new();
    let mut decoder = Decoder::new();
    for (reason, readings) in GapReason::ALL
        .into_iter()
        .zip([None, Some(0), Some(1), Some(7)])
    {
        let gap = Gap {
            first: 9,
            count: 4,
            readings,
            event_first: i64::MIN,
            event_last: i64::MAX,
            reason,
            detail: String::new(),
            each: Vec::new(),
        };
        let sealed = sealer.gap(&spec(Lane::Alerts, 0), &gap).unwrap();
        assert_eq!((sealed.kind(), sealed.rows()), (Kind::Gap, 0));
        assert_eq!(sealed.decode(&mut decoder), Ok(Content::Gap(gap.clone())));
        let reversed = Gap {
            event_first: 1,
            event_last: 0,
            ..gap
        };
        assert!(sealer.gap(&spec(Lane::Alerts, 0), &reversed).is_err());
    }
    let names = ["a", "pump 7/µ", "a"];
    let defs: Vec<_> = names
        .iter()
        .map(|name| SeriesDef::new(name, "x", Some(name), ValueType::Str).unwrap())
        .collect();
    let sealed = sealer.series(&spec(Lane::Series, 0), 11, &defs).unwrap();
    assert_eq!((sealed.kind(), sealed.rows()), (Kind::Series, 3));
    assert_eq!(
        sealed.decode(&mut decoder),
        Ok(Content::Series { base: 11, defs })
    );
}

#[test]
fn a_gap_tells_what_is_lost_of_some_of_its_numbers() {
    let mut gap = Gap {
        first: 10,
        count: 6,
        readings: None,
        event_first: 1,
        event_last: 2,
        reason: GapReason::Shed,
        detail: String::new(),
        each: vec![Some(4_096), Some(0), None, None, Some(20_480), Some(127)],
    };
    let one = std::slice::from_ref;
    let mut own = spec(Lane::Telemetry, 0);
    own.key.number = 10;
    let sealed = Sealer::new().gap(&own, &gap).unwrap();
    assert_eq!(sealed.numbers(), 10..16);
    let read = sealed.decode(&mut Decoder::new()).unwrap();
    assert_eq!(read, Content::Gap(gap.clone()));
    let part = |first, count, readings| GapPart {
        first,
        count,
        readings,
    };
    assert_eq!(
        gap.parts(one(&(10..16))),
        [
            part(10, 2, Some(4_096)),
            part(12, 2, None),
            part(14, 2, Some(20_607))
        ]
    );
    assert_eq!(
        gap.parts(&[11..13, 15..16]),
        [
            part(11, 1, Some(0)),
            part(12, 1, None),
            part(15, 1, Some(127))
        ]
    );
    gap.readings = Some(3);
    assert!(Sealer::new().gap(&own, &gap).is_err(), "another sum");
    gap.each = Vec::new();
    assert_eq!(gap.parts(one(&(10..16))), [part(10, 6, Some(3))]);
    assert_eq!(gap.parts(one(&(10..15))), [part(10, 5, None)]);
    gap.each = vec![Some(3)];
    assert!(Sealer::new().gap(&own, &gap).is_err(), "of one number only");
    // A gap that stands under a number of its own replaces nothing else.
    let elsewhere = spec(Lane::Telemetry, 0);
    gap.each = Vec::new();
    let sealed = Sealer::new().gap(&elsewhere, &gap).unwrap();
    let number = elsewhere.key.number;
    assert_eq!(sealed.numbers(), number..number + 1);
}

#[test]
fn events_name_their_series_themselves() {
    let name = |name| SeriesDef::new(name, "state", None, ValueType::I64).unwrap();
    let names = [name("pump-1"), name("pump-2")];
    let mut readings = Readings::new();
    for series in [1, 0, 1] {
        readings
            .push(SeriesId(series), Meta::default(), Value::I64(7))
            .unwrap();
    }
    let mut sealer = Sealer::new();
    let sealed = sealer
        .named(&spec(Lane::Events, 0), &names, &mut readings)
        .unwrap();
    assert_eq!((sealed.names(), sealed.series_needed()), (&names[..], 0));
    let Content::Readings(read) = sealed.decode(&mut Decoder::new()).unwrap() else {
        panic!("readings");
    };
    assert_eq!(read.rows(), readings.rows());
    let one = &names[..1];
    let beyond = sealer.named(&spec(Lane::Events, 0), one, &mut readings);
    assert!(matches!(beyond, Err(SealError::Series { needed: 1, .. })));
    for lane in [Lane::Alerts, Lane::Aggregates] {
        let sealed = sealer.named(&spec(lane, 0), &names, &mut readings);
        assert_eq!(sealed.unwrap().names(), names, "{lane}");
    }
    for (lane, needed) in [(Lane::Telemetry, 2), (Lane::Events, 2)] {
        let sealed = sealer.named(&spec(lane, needed), &names, &mut readings);
        assert!(matches!(sealed, Err(SealError::Head(_))), "{lane}");
    }
}

#[test]
fn what_a_sealer_did_before_does_not_matter() {
    let telemetry = spec(Lane::Telemetry, 9);
    let mut used = Sealer::new();
    used.readings(&telemetry, &mut steady(300)).unwrap();
    let again = used.readings(&telemetry, &mut steady(20)).unwrap();
    let fresh = Sealer::new().readings(&telemetry, &mut steady(20)).unwrap();
    assert_eq!(again.bytes(), fresh.bytes());
    // Nor does the order of arrival among series.
    let mut grouped = steady(20);
    grouped
        .rows_mut()
        .sort_by_key(|row| std::cmp::Reverse(row.series));
    assert_eq!(
        used.readings(&telemetry, &mut grouped).unwrap().bytes(),
        fresh.bytes()
    );
}

/// Where a clock's grid, which counts in 1/256 tick, goes beyond 64 bits.
#[test]
fn times_far_out_come_back() {
    for (start, step) in [
        (i64::MIN, 1i64 << 57),
        (i64::MIN, 3 << 54),
        (i64::MIN + 7, 1 << 61),
    ] {
        let mut readings = Readings::new();
        for series in 0..3u32 {
            for i in 0..=(i64::MAX.wrapping_sub(start) as u64 / step as u64).min(40) as i64 {
                let time = start.wrapping_add(i.wrapping_mul(step));
                let odd = if series == 2 && i == 3 { 1 } else { 0 };
                let meta = Meta {
                    event_time: time + odd,
                    received_time: time,
                    ..Meta::default()
                };
                readings
                    .push(SeriesId(series), meta, Value::I64(i))
                    .unwrap();
            }
        }
        round_trip(&readings);
    }
}
