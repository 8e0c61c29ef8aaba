//! Any readings: they seal, and the sealer finds that they decode to the bit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_protocol::batch::{Sealer, Spec};
use tributary_protocol::ids::{BatchKey, BufferId, Lane, SeriesId};
use tributary_protocol::reading::{Flags, Meta, Readings, Value};

/// Numbers from the fuzzer's bytes: mostly small ones, some of any size.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn wide(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    fn any(&mut self) -> Option<u64> {
        match self.byte()? {
            255 => self.wide(),
            shifted @ 224.. => Some((u64::from(self.byte()?)) << ((shifted - 224) * 2)),
            small => Some(u64::from(small)),
        }
    }
}

fn push(numbers: &mut Numbers<'_>, last: &mut Meta, readings: &mut Readings) -> Option<()> {
    let series = numbers.byte()? % 16;
    last.event_time = last
        .event_time
        .wrapping_add((numbers.any()? as i64).wrapping_mul(1_000));
    last.received_time = last.event_time.wrapping_add(numbers.any()? as i64);
    last.device_seq = match numbers.any()? {
        0 => None,
        step => Some(last.device_seq.unwrap_or(0).wrapping_add(step as i64) & i64::MAX),
    };
    if numbers.byte()? == 0 {
        last.quality = numbers.any()? as i32;
        last.flags = Flags(numbers.byte()?);
    }
    let bits = numbers.any()?;
    let text = ["", "a", "bb", "ccc"][bits as usize % 4];
    let value = match series {
        0..4 => Value::F64(bits as i64 as f64 / 100.0),
        4..6 => Value::F64(f64::from_bits(bits)),
        6..8 => Value::F32(f32::from_bits(bits as u32)),
        8..10 => Value::F32(bits as f32 / 10.0),
        10..12 => Value::I64(bits as i64),
        12..14 => Value::Bool(bits % 2 == 1),
        _ => Value::Str(text),
    };
    readings
        .push(SeriesId(u32::from(series)), *last, value)
        .ok()
}

fuzz_target!(|data: &[u8]| {
    let mut numbers = Numbers(data);
    let mut last = Meta {
        event_time: 1_780_000_000_000_000,
        ..Meta::default()
    };
    let mut readings = Readings::new();
    while readings.len() < 500 && push(&mut numbers, &mut last, &mut readings).is_some() {}
    if readings.is_empty() {
        return;
    }
    let spec = Spec {
        key: BatchKey {
            buffer: BufferId::new(1, 2),
            lane: Lane::Telemetry,
            number: 3,
        },
        sealed_at: 4,
        series_needed: 16,
        covers: vec![],
    };
    Sealer::new()
        .readings(&spec, &mut readings)
        .expect("any readings seal");
});
