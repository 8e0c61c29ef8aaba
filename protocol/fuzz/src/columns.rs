//! Any bytes as the columns below zstd: what decodes seals again, to the same readings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_protocol::batch::{SealError, Sealer, Spec, fuzz_columns};
use tributary_protocol::ids::{BatchKey, BufferId, Lane};
use tributary_protocol::limits::SERIES_MAX;

fuzz_target!(|data: &[u8]| {
    let Some((head, rest)) = data.split_first_chunk::<6>() else {
        return;
    };
    let [a, b, c, d, shift, bits] = *head;
    let rows = u16::from_le_bytes([a, b]) % 600;
    let span = u64::from(u16::from_le_bytes([c, d])) << (shift % 48);
    let Some((bits, tokens)) = rest.split_at_checked(usize::from(bits)) else {
        return;
    };
    let Some(mut readings) = fuzz_columns(rows, span, tokens, bits) else {
        return;
    };
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
        series_needed: SERIES_MAX as u32,
        covers: vec![],
    };
    match Sealer::new().readings(&spec, &mut readings) {
        Ok(_) | Err(SealError::TooLong(_)) => {}
        Err(wrong) => panic!("decoded, and does not seal: {wrong}"),
    }
});
