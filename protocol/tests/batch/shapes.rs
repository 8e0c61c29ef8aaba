//! Batches of several shapes, made from a seed: the same on every machine, for ever.

use tributary_protocol::batch::{Cover, Gap, GapReason, SealedBatch, Sealer, Spec};
use tributary_protocol::ids::{BatchKey, BufferId, Lane, SeriesId};
use tributary_protocol::reading::{Flags, Meta, Readings, Value, ValueType};
use tributary_protocol::series::SeriesDef;

/// xorshift64*: small, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

const NOON: i64 = 1_780_000_000_000_000;

pub fn spec(lane: Lane, series_needed: u32) -> Spec {
    let key = BatchKey {
        buffer: BufferId::new(5, 0x0123_4567_89ab_cdef),
        lane,
        number: 77,
    };
    Spec {
        key,
        sealed_at: NOON + 99_000_000,
        series_needed,
        covers: vec![],
    }
}

fn meta(event_time: i64, delay: i64, seq: i64) -> Meta {
    Meta {
        event_time,
        received_time: event_time + delay,
        device_seq: Some(seq),
        ..Meta::default()
    }
}

/// A few series sampled together: decimals, counts, states, texts.
pub fn narrow(rows: i64) -> Readings {
    let mut random = Random(1);
    let mut readings = Readings::new();
    let (mut level, mut count) = (2_000i64, 0);
    for i in 0..rows {
        level += random.below(21) as i64 - 10;
        count += random.below(4) as i64;
        let meta = meta(
            NOON + i * 1_000_000,
            1_500 + random.below(9) as i64 * 1_000,
            i,
        );
        let values = [
            Value::F64(level as f64 / 100.0),
            Value::F32(((level / 7) as f64 / 10.0) as f32),
            Value::I64(count),
            Value::Bool(i / 9 % 2 == 1),
            Value::Str(if i / 11 % 2 == 0 {
                "running"
            } else {
                "läuft leer"
            }),
            Value::F64((random.below(1 << 14) as f64 - 8_192.0) * 0.000_061),
            Value::F64((3.0 + (i % 5) as f64) * 1.1),
        ];
        for (series, value) in values.into_iter().enumerate() {
            readings.push(SeriesId(series as u32), meta, value).unwrap();
        }
    }
    readings
}

/// Many devices with three series each, in turn, under shared stamps of arrival.
pub fn wide(devices: u32) -> Readings {
    let mut random = Random(2);
    let mut readings = Readings::new();
    for device in 0..devices {
        let event = NOON + random.below(100) as i64 * 1_000;
        let stamp = NOON + 40_017 + i64::from(device / 16) * 7_301;
        let mut meta = meta(event, stamp.max(event) - event, 500 + i64::from(device % 3));
        meta.quality = if device % 29 == 3 { -7 } else { 0 };
        let values = [
            Value::F64((2_000 + random.below(500)) as f64 / 100.0),
            Value::F64((10_130 + random.below(50)) as f64 / 10.0),
            Value::Bool(device % 10 == 0),
        ];
        for (series, value) in (device * 3..).zip(values) {
            readings.push(SeriesId(series), meta, value).unwrap();
        }
    }
    readings
}

/// Whatever a reading may hold.
pub fn wild(rows: u64) -> Readings {
    let mut random = Random(3);
    let mut readings = Readings::new();
    let specials = [
        0,
        1 << 63,
        1,
        0x7ff8_0000_0000_0001,
        0xfff0_0000_0000_0000,
        0x7ff0_dead_0000_0001,
    ];
    for _ in 0..rows {
        let mut meta = Meta {
            event_time: [random.next() as i64, i64::MIN, i64::MAX, NOON][random.below(4) as usize],
            received_time: [random.next() as i64, NOON][random.below(2) as usize],
            quality: random.next() as i32,
            device_seq: Some((random.next() >> (1 + random.below(63))) as i64),
            flags: Flags(random.next() as u8),
        };
        if random.below(3) == 0 {
            meta.device_seq = None;
        }
        let bits = random.next() >> random.below(64);
        let series = random.below(6) as u32;
        let text = format!("{bits:x}");
        let value = match series {
            0 => Value::F64(f64::from_bits(bits)),
            1 => Value::F32(f32::from_bits(bits as u32)),
            2 => Value::I64(bits as i64),
            3 => Value::Bool(bits & 1 == 0),
            4 => Value::Str(&text),
            _ => Value::F64(f64::from_bits(specials[random.below(6) as usize])),
        };
        readings.push(SeriesId(series), meta, value).unwrap();
    }
    readings
}

pub fn definitions() -> Vec<SeriesDef> {
    let device = |i: u32| format!("plant-1/pump-{}", i / 3);
    let kinds = [
        ("temperature", Some("°C"), ValueType::F64),
        ("state", None, ValueType::Str),
        ("starts", None, ValueType::I64),
    ];
    let def = |i: u32| {
        let (metric, unit, value_type) = kinds[i as usize % 3];
        SeriesDef::new(&device(i), metric, unit, value_type).unwrap()
    };
    (0..30).map(def).collect()
}

pub fn gap() -> Gap {
    Gap {
        first: 1 << 40,
        count: 12,
        readings: Some(49_152),
        event_first: NOON,
        event_last: NOON + (90 << 32),
        reason: GapReason::Shed,
        detail: "quota of lane telemetry".to_owned(),
        each: Vec::new(),
    }
}

/// A segment of a spool that was shed: some batches of known size, one damaged.
pub fn shed() -> Gap {
    Gap {
        first: 7,
        count: 5,
        readings: None,
        event_first: NOON,
        event_last: NOON + 90_000_000,
        reason: GapReason::Shed,
        detail: String::new(),
        each: vec![Some(4_096), Some(17), None, Some(300), Some(1)],
    }
}

/// Events of a client, named inline.
pub fn events(sealer: &mut Sealer) -> SealedBatch {
    let mut readings = Readings::new();
    let online = |seq| meta(NOON + seq, 3, seq);
    readings
        .push(SeriesId(1), online(1), Value::Bool(false))
        .unwrap();
    readings
        .push(SeriesId(0), online(2), Value::Str("gone"))
        .unwrap();
    let def = |device, kind| SeriesDef::new(device, "state", None, kind).unwrap();
    let names = [
        def("plant-1/gate", ValueType::Str),
        def("plant-1/pump-3", ValueType::Bool),
    ];
    sealer
        .named(&spec(Lane::Events, 0), &names, &mut readings)
        .unwrap()
}

/// Aggregates of two series, named inline; their windows overlap.
pub fn aggregates(sealer: &mut Sealer) -> SealedBatch {
    let mut readings = Readings::new();
    for n in 0..40_u32 {
        let mean = f64::from(n) / 8.0;
        let text = format!("{{\"schema\":1,\"window\":\"second\",\"mean\":{mean}}}");
        let at = meta(NOON + i64::from(n / 2) * 1_000_000, 1_000_500, 0);
        let series = SeriesId(n % 2);
        readings.push(series, at, Value::Str(&text)).unwrap();
    }
    let def = |device| SeriesDef::new(device, "flow", None, ValueType::Str).unwrap();
    let names = [def("plant-1/pump-3"), def("plant-1/pump-4")];
    sealer
        .named(&spec(Lane::Aggregates, 0), &names, &mut readings)
        .unwrap()
}

/// Every shape, by name, sealed.
pub fn all() -> Vec<(&'static str, SealedBatch)> {
    let mut sealer = Sealer::new();
    let mut covering = spec(Lane::Telemetry, 4_000);
    covering.covers = vec![
        Cover {
            buffer: BufferId::new(4, 44),
            first: 10,
            count: 3,
        },
        Cover {
            buffer: BufferId::new(5, 55),
            first: 0,
            count: 1 << 40,
        },
    ];
    let mut far = spec(Lane::Events, 0);
    far.key.number = (1 << 61) + 5;
    far.sealed_at = i64::MIN + 3;
    let telemetry = spec(Lane::Telemetry, 4_000);
    let mut gone = spec(Lane::Telemetry, 0);
    gone.key.number = shed().first;
    vec![
        (
            "one",
            sealer.readings(&telemetry, &mut first_of_narrow()).unwrap(),
        ),
        (
            "narrow",
            sealer.readings(&telemetry, &mut narrow(60)).unwrap(),
        ),
        ("wide", sealer.readings(&covering, &mut wide(150)).unwrap()),
        ("wild", sealer.readings(&far, &mut wild(80)).unwrap()),
        (
            "series",
            sealer
                .series(&spec(Lane::Series, 0), 70, &definitions())
                .unwrap(),
        ),
        ("gap", sealer.gap(&spec(Lane::Alerts, 0), &gap()).unwrap()),
        ("shed", sealer.gap(&gone, &shed()).unwrap()),
        ("events", events(&mut sealer)),
        ("aggregates", aggregates(&mut sealer)),
        ("shared", shared(&mut sealer)),
    ]
}

/// Part of what messages of an earlier life gave.
fn shared(sealer: &mut Sealer) -> SealedBatch {
    let mut spec = spec(Lane::Telemetry, 4_000);
    spec.covers = vec![Cover {
        buffer: BufferId::new(4, 44),
        first: 1_000,
        count: 70,
    }];
    sealer.shared(&spec, &mut narrow(60)).unwrap()
}

fn first_of_narrow() -> Readings {
    let mut one = Readings::new();
    let all = narrow(1);
    let row = all.rows()[0];
    one.push(row.series, row.meta, all.value(&row)).unwrap();
    one
}
