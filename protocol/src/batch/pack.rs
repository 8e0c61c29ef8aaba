//! zstd around the tokens of a body, with every bound checked before anything is decompressed.
//!
//! One frame, without its magic number, with its content size. It knows nothing of columns.

use crate::limits::{BODY_RAW_BYTES_MAX, ZSTD_WINDOW_LOG_MAX};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, find_frame_compressed_size, get_frame_content_size};

/// What every zstd frame begins with, and ours leave out.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// zstd's level: measured against 3, it is as small and faster on bodies of this size.
const LEVEL: i32 = 1;

/// Why a body cannot be unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unpackable(pub &'static str);

/// A zstd compressor with its context.
pub(super) struct Packer {
    context: CCtx<'static>,
    out: Vec<u8>,
}

impl Packer {
    pub fn new() -> Self {
        let mut context = CCtx::create();
        for parameter in [
            CParameter::CompressionLevel(LEVEL),
            CParameter::WindowLog(ZSTD_WINDOW_LOG_MAX),
            CParameter::ContentSizeFlag(true),
            CParameter::ChecksumFlag(false),
        ] {
            context
                .set_parameter(parameter)
                .expect("a parameter that zstd knows, within its range");
        }
        Self {
            context,
            out: Vec::new(),
        }
    }

    /// `raw` compressed, when that is smaller.
    pub fn pack(&mut self, raw: &[u8]) -> Option<&[u8]> {
        self.out.clear();
        self.out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        self.context.compress2(&mut self.out, raw).ok()?;
        let packed = self.out.strip_prefix(&MAGIC)?;
        (packed.len() < raw.len()).then_some(packed)
    }
}

/// A zstd decompressor with its context.
pub(super) struct Unpacker {
    context: DCtx<'static>,
    frame: Vec<u8>,
    raw: Vec<u8>,
}

impl Unpacker {
    pub fn new() -> Self {
        Self {
            context: DCtx::create(),
            frame: Vec::new(),
            raw: Vec::new(),
        }
    }

    /// What was packed, which must be `raw_bytes` long.
    pub fn unpack(&mut self, packed: &[u8], raw_bytes: usize) -> Result<&[u8], Unpackable> {
        if raw_bytes > BODY_RAW_BYTES_MAX {
            return Err(Unpackable("is larger than allowed before compression"));
        }
        self.frame.clear();
        self.frame.extend_from_slice(&MAGIC);
        self.frame.extend_from_slice(packed);
        check_header(packed)?;
        let size = get_frame_content_size(&self.frame).ok().flatten();
        if size != Some(raw_bytes as u64) {
            return Err(Unpackable("does not state the size that the head states"));
        }
        if find_frame_compressed_size(&self.frame) != Ok(self.frame.len()) {
            return Err(Unpackable("is not exactly one zstd frame"));
        }
        self.raw.resize(raw_bytes, 0);
        let got = self
            .context
            .decompress(self.raw.as_mut_slice(), &self.frame);
        if got != Ok(raw_bytes) {
            return Err(Unpackable("does not decompress"));
        }
        Ok(&self.raw)
    }
}

/// Refuses what our packer never writes: dictionaries, checksums, reserved bits, great windows.
fn check_header(packed: &[u8]) -> Result<(), Unpackable> {
    let [descriptor, next, ..] = packed else {
        return Err(Unpackable("is too short for a zstd frame"));
    };
    if descriptor & 0b0001_1111 != 0 {
        return Err(Unpackable("asks of zstd what no batch needs"));
    }
    let single_segment = descriptor & 0b0010_0000 != 0;
    if !single_segment && 10 + u32::from(next >> 3) > ZSTD_WINDOW_LOG_MAX {
        return Err(Unpackable("asks for too great a window"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn packed(raw: &[u8]) -> Vec<u8> {
        Packer::new().pack(raw).unwrap().to_vec()
    }

    #[test]
    fn what_is_packed_comes_back() {
        for len in [100, 5_000, 300_000, BODY_RAW_BYTES_MAX] {
            let raw: Vec<u8> = (0..len).map(|i| (i % 251) as u8 & 0xf0).collect();
            assert_eq!(Unpacker::new().unpack(&packed(&raw), len), Ok(&raw[..]));
        }
    }

    #[test]
    fn bombs_and_second_frames_are_refused() {
        let mut unpacker = Unpacker::new();
        let one = packed(&[0; 4096]);
        assert!(unpacker.unpack(&one, 4095).is_err());
        assert!(unpacker.unpack(&one, 4097).is_err());
        assert!(unpacker.unpack(&packed(&vec![0; 64 << 20]), 4096).is_err());
        assert!(
            unpacker
                .unpack(&packed(&vec![0; 64 << 20]), 64 << 20)
                .is_err()
        );
        let mut two = one.clone();
        two.extend_from_slice(&MAGIC);
        two.extend_from_slice(&one);
        assert!(unpacker.unpack(&two, 4096).is_err());
        assert!(unpacker.unpack(&two, 8192).is_err());
        let mut skippable = one.clone();
        skippable.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
        assert!(unpacker.unpack(&skippable, 4096).is_err());
        let mut trailing = one.clone();
        trailing.push(0);
        assert!(unpacker.unpack(&trailing, 4096).is_err());
        assert!(unpacker.unpack(&one, 4096).is_ok());
    }

    #[test]
    fn a_window_that_needs_memory_is_refused() {
        // Descriptor 0x80: no single segment, content size in four bytes; window log 27.
        let header = [0x80, 17 << 3, 0, 16, 0, 0, 1, 0, 0];
        let wrong = Unpacker::new().unpack(&header, 4096).unwrap_err();
        assert_eq!(wrong, Unpackable("asks for too great a window"));
    }
}
