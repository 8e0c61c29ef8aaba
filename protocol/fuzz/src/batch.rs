//! Any bytes as a batch: opened, decoded, and sealed again when they are readings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_protocol::batch::{Content, Decoder, SealedBatch, Sealer, Spec};

fuzz_target!(|data: &[u8]| {
    let Ok(batch) = SealedBatch::open(bytes::Bytes::copy_from_slice(data)) else {
        return;
    };
    let Ok(Content::Readings(mut readings)) = batch.decode(&mut Decoder::new()) else {
        return;
    };
    let spec = Spec {
        key: batch.key(),
        sealed_at: batch.sealed_at(),
        series_needed: batch.series_needed(),
        covers: batch.covers().to_vec(),
    };
    // The sealer verifies; what is decoded is in order and within bounds, so it seals again.
    let again = Sealer::new()
        .readings(&spec, &mut readings)
        .expect("what decoded seals");
    assert_eq!(again.rows(), batch.rows());
});
