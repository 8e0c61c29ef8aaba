//! Any bytes as the payload of each kind of message: what parses encodes, and parses the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_protocol::frame::{Frame, FrameKind, RawFrame};
use tributary_protocol::message::Message;

fuzz_target!(|data: &[u8]| {
    let Some((kind, payload)) = data.split_first() else {
        return;
    };
    let kind = FrameKind::ALL[usize::from(*kind) % FrameKind::ALL.len()];
    let frame = Frame {
        kind,
        payload: bytes::Bytes::copy_from_slice(payload),
    };
    let Ok(message) = Message::parse(&frame) else {
        return;
    };
    let Ok(encoded) = message.encode() else {
        return;
    };
    let frame = RawFrame(encoded).verify().expect("our own frame");
    assert_eq!(Message::parse(&frame).expect("our own message"), message);
});
