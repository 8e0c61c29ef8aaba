//! Any bytes as a frame.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_protocol::frame::{RawFrame, frame};

fuzz_target!(|data: &[u8]| {
    let Ok(found) = RawFrame(bytes::Bytes::copy_from_slice(data)).verify() else {
        return;
    };
    assert_eq!(
        frame(found.kind, &found.payload).expect("it was short enough"),
        data
    );
});
