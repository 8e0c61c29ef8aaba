//! The frame around every message and batch on the wire: 12 bytes that say what follows, how long
//! it is, and whether it arrived whole. It knows nothing of what is inside.

use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The first two bytes of every frame.
pub const MAGIC: [u8; 2] = *b"TB";
/// The version of the frame's own layout.
pub const VERSION: u8 = 1;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 12;

/// The header's fields: name, offset, bytes. Integers are little endian; `crc32c` is over the
/// bytes before it and the payload. `docs/wire.md` prints this table.
pub const FIELDS: [(&str, usize, usize); 5] = [
    ("magic", 0, 2),
    ("version", 2, 1),
    ("kind", 3, 1),
    ("length", 4, 4),
    ("crc32c", 8, 4),
];

/// Where [`FIELDS`] puts the length: what a length-delimited reader has to know.
pub const LENGTH_OFFSET: usize = 4;
/// How many bytes the length takes.
pub const LENGTH_BYTES: usize = 4;

/// What a frame carries. Retired codes are never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// The agent introduces itself.
    Hello = 1,
    /// The aggregator says what it holds.
    Welcome = 2,
    /// Batches that are durable.
    Ack = 3,
    /// Why the session, or one batch, is refused.
    Reject = 4,
    /// A sealed batch.
    Batch = 16,
    /// A sealed batch that another journal may hold as well: sent there and not acknowledged.
    BatchInDoubt = 17,
}

impl FrameKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Hello,
        Self::Welcome,
        Self::Ack,
        Self::Reject,
        Self::Batch,
        Self::BatchInDoubt,
    ];

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }
}

/// Why bytes are no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a header, or than the header announces.
    #[error("frame cut short: {have} bytes of {need}")]
    Truncated {
        /// Bytes that are there.
        have: usize,
        /// Bytes that are needed.
        need: usize,
    },
    /// More bytes than the header announces.
    #[error("{0} bytes after the end of the frame")]
    Trailing(usize),
    /// Not our magic.
    #[error("no frame of Tributary: it begins with {0:02x?}")]
    Magic([u8; 2]),
    /// A version that this build does not speak.
    #[error("frame version {0}; this build speaks version {VERSION}")]
    Version(u8),
    /// A kind that this build does not know.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// Longer than any frame may be.
    #[error("a frame of {0} bytes; at most {FRAME_PAYLOAD_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// The checksum does not match.
    #[error("frame damaged on the way: its CRC32C is {actual:08x}, its header says {stated:08x}")]
    Checksum {
        /// What the header says.
        stated: u32,
        /// What the bytes give.
        actual: u32,
    },
}

/// The header of a frame around `payload`, for writers that send both parts without copying.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn header(kind: FrameKind, payload: &[u8]) -> Result<[u8; HEADER_BYTES], FrameError> {
    if payload.len() > FRAME_PAYLOAD_BYTES_MAX {
        return Err(FrameError::TooLong(payload.len()));
    }
    let mut head = [0; HEADER_BYTES];
    let mut out = head.as_mut_slice();
    out.put_slice(&MAGIC);
    out.put_u8(VERSION);
    out.put_u8(kind as u8);
    out.put_u32_le(payload.len() as u32);
    let (before, _) = head.split_at(HEADER_BYTES - 4);
    let crc = crc32c::crc32c_append(crc32c::crc32c(before), payload);
    let (_, mut last) = head.split_at_mut(HEADER_BYTES - 4);
    last.put_u32_le(crc);
    Ok(head)
}

/// A whole frame around `payload`.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn frame(kind: FrameKind, payload: &[u8]) -> Result<Bytes, FrameError> {
    let head = header(kind, payload)?;
    let mut out = BytesMut::with_capacity(HEADER_BYTES + payload.len());
    out.put_slice(&head);
    out.put_slice(payload);
    Ok(out.freeze())
}

/// Bytes that claim to be one frame; [`verify`](Self::verify) is the only way to what is inside.
#[derive(Clone, Debug)]
pub struct RawFrame(pub Bytes);

/// A frame that arrived whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it carries.
    pub kind: FrameKind,
    /// The payload, not yet parsed.
    pub payload: Bytes,
}

impl RawFrame {
    /// Checks length, version, kind and checksum.
    ///
    /// # Errors
    /// Whatever is wrong first, in that order.
    pub fn verify(self) -> Result<Frame, FrameError> {
        let whole = self.0;
        let have = whole.len();
        let Some((before, rest)) = whole.split_at_checked(HEADER_BYTES - 4) else {
            return Err(FrameError::Truncated {
                have,
                need: HEADER_BYTES,
            });
        };
        let mut fields = before;
        let mut magic = [0; 2];
        fields.copy_to_slice(&mut magic);
        let (version, code) = (fields.get_u8(), fields.get_u8());
        let length = fields.get_u32_le() as usize;
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = FrameKind::from_code(code).ok_or(FrameError::Kind(code))?;
        if length > FRAME_PAYLOAD_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        let need = HEADER_BYTES + length;
        if have < need {
            return Err(FrameError::Truncated { have, need });
        }
        if have > need {
            return Err(FrameError::Trailing(have - need));
        }
        let (mut crc_field, payload) = rest.split_at(4);
        let stated = crc_field.get_u32_le();
        let actual = crc32c::crc32c_append(crc32c::crc32c(before), payload);
        if stated != actual {
            return Err(FrameError::Checksum { stated, actual });
        }
        Ok(Frame {
            kind,
            payload: whole.slice(HEADER_BYTES..),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_table_describes_the_header() {
        let mut at = 0;
        for (_, offset, bytes) in FIELDS {
            assert_eq!(offset, at);
            at += bytes;
        }
        assert_eq!(at, HEADER_BYTES);
        assert_eq!(FIELDS[3], ("length", LENGTH_OFFSET, LENGTH_BYTES));
    }

    #[test]
    fn a_golden_frame_stays_as_it_is() {
        let bytes = frame(FrameKind::Ack, b"tributary").unwrap();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("../tests/golden/frame-v1-ack.hex").trim());
        let bytes = frame(FrameKind::BatchInDoubt, b"tributary").unwrap();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let held = include_str!("../tests/golden/frame-v1-batch-in-doubt.hex");
        assert_eq!(hex, held.trim());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = frame(FrameKind::Batch, b"some payload").unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(RawFrame(bad.into()).verify().is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let good = frame(FrameKind::Hello, b"some payload").unwrap();
        for end in 0..good.len() {
            let err = RawFrame(good.slice(..end)).verify().unwrap_err();
            assert!(matches!(err, FrameError::Truncated { .. }), "{end}: {err}");
        }
    }

    proptest! {
        #[test]
        fn any_payload_comes_back(payload in proptest::collection::vec(any::<u8>(), 0..2000)) {
            for kind in FrameKind::ALL {
                let got = RawFrame(frame(kind, &payload).unwrap()).verify().unwrap();
                prop_assert_eq!(got.kind, kind);
                prop_assert_eq!(&got.payload[..], &payload[..]);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = RawFrame(bytes.into()).verify();
        }
    }
}
