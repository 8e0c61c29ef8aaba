//! The control stream's framing, the same at both ends: frames of the wire, cut out of the stream
//! by their length and handed on whole.

use tokio_util::codec::LengthDelimitedCodec;
use tributary_protocol::frame::{HEADER_BYTES, LENGTH_BYTES, LENGTH_OFFSET};
use tributary_protocol::limits::CONTROL_FRAME_BYTES_MAX;

/// A codec that yields whole frames, header included, of at most [`CONTROL_FRAME_BYTES_MAX`].
pub fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .little_endian()
        .length_field_offset(LENGTH_OFFSET)
        .length_field_length(LENGTH_BYTES)
        // The length is the payload's; the header is handed on before it.
        .length_adjustment(HEADER_BYTES as isize)
        .num_skip(0)
        .max_frame_length(CONTROL_FRAME_BYTES_MAX + HEADER_BYTES)
        .new_codec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use tokio_util::codec::Decoder;
    use tributary_protocol::frame::{FrameKind, RawFrame, frame};

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let first = frame(FrameKind::Ack, b"one").expect("short");
        let second = frame(FrameKind::Hello, b"").expect("short");
        let mut codec = codec();
        let mut stream = BytesMut::new();
        let mut out = Vec::new();
        for byte in first.iter().chain(second.iter()) {
            stream.extend_from_slice(&[*byte]);
            out.extend(codec.decode(&mut stream).expect("good frames"));
        }
        let kinds: Vec<_> = out
            .into_iter()
            .map(|bytes| RawFrame(bytes.freeze()).verify().expect("whole").kind)
            .collect();
        assert_eq!(kinds, [FrameKind::Ack, FrameKind::Hello]);
    }

    #[test]
    fn an_endless_frame_is_refused_before_it_is_held() {
        let mut stream = BytesMut::from(&b"TB\x01\x03\xff\xff\xff\x7f"[..]);
        assert!(codec().decode(&mut stream).is_err());
    }
}
