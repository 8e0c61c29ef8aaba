//! The bytes of segment and frame headers: tables, and the two directions.
//!
//! Little endian. Pure: no file, no decision about what a bad header means.

use crate::bytes_at::{put, u16_at, u32_at, u64_at};
use crate::limits::{
    ENTRY_HEADER_BYTES_MIN, FRAME_ALIGN, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, NUMBER_MAX,
    SEGMENT_HEADER_BYTES,
};
use crate::log::{LifeId, LogKind};

pub use crate::bytes_at::Field;

/// The version that this code writes, and the newest that it reads.
pub const VERSION: u16 = 1;
/// How a segment begins.
pub const SEGMENT_MAGIC: [u8; 8] = *b"TRIBSEG\n";
/// A frame begins with this, exclusive-or the upper half of the segment's salt: "TFRM".
pub const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"TFRM");
/// Where the segment's header stands a second time, in a sector of its own.
pub const HEADER_COPY_AT: u64 = SEGMENT_HEADER_BYTES / 2;
/// Bytes of a segment's header that carry meaning; the rest of its page is zero.
pub const HEADER_USED_BYTES: usize = 68;

/// A segment's header.
pub const SEGMENT_HEADER: [Field; 10] = [
    Field::new("magic", 0, 8),
    Field::new("version", 8, 2),
    Field::new("kind", 10, 1),
    Field::new("flags", 11, 1),
    Field::new("header_bytes", 12, 4),
    Field::new("life", 16, 16),
    Field::new("first", 32, 8),
    Field::new("salt", 40, 8),
    Field::new("created_us", 48, 8),
    Field::new("segment_bytes", 56, 8),
];
/// CRC32C over all fields of the segment's header.
pub const SEGMENT_HEADER_CRC: Field = Field::new("crc32c", 64, 4);

/// A frame's header.
pub const FRAME_HEADER: [Field; 5] = [
    Field::new("mark", 0, 4),
    Field::new("crc32c", 4, 4),
    Field::new("payload_bytes", 8, 4),
    Field::new("count", 12, 4),
    Field::new("first", 16, 8),
];

/// What a segment's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Code of the [`LogKind`].
    pub kind: u8,
    /// Whose numbers.
    pub life: LifeId,
    /// The first number.
    pub first: u64,
    /// Seeds the checksum of every frame.
    pub salt: u64,
    /// When it was begun.
    pub created_us: i64,
    /// Bytes that were preallocated.
    pub segment_bytes: u64,
}

/// Why a page is no header of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderFault {
    /// Neither copy is whole.
    Damaged,
    /// Whole, and written by a newer version.
    Newer(u16),
}

impl SegmentHeader {
    pub(crate) fn new(kind: LogKind, life: LifeId, first: u64, segment_bytes: u64) -> Self {
        Self {
            kind: kind.code(),
            life,
            first,
            salt: 0,
            created_us: 0,
            segment_bytes,
        }
    }

    /// The header page: the header, and its copy.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
        for at in [0, HEADER_COPY_AT as usize] {
            put(&mut page, at, &SEGMENT_MAGIC);
            put(&mut page, at + 8, &VERSION.to_le_bytes());
            put(&mut page, at + 10, &[self.kind, 0]);
            put(
                &mut page,
                at + 12,
                &(SEGMENT_HEADER_BYTES as u32).to_le_bytes(),
            );
            put(&mut page, at + 16, &self.life.0);
            put(&mut page, at + 32, &self.first.to_le_bytes());
            put(&mut page, at + 40, &self.salt.to_le_bytes());
            put(&mut page, at + 48, &self.created_us.to_le_bytes());
            put(&mut page, at + 56, &self.segment_bytes.to_le_bytes());
            let crc = page
                .get(at..at + SEGMENT_HEADER_CRC.offset)
                .map_or(0, crc32c::crc32c);
            put(
                &mut page,
                at + SEGMENT_HEADER_CRC.offset,
                &crc.to_le_bytes(),
            );
        }
        page
    }

    /// Reads a header page, from the copy if the first is damaged.
    ///
    /// # Errors
    /// [`HeaderFault`], when neither is whole or the version is not known.
    pub fn decode(page: &[u8]) -> Result<Self, HeaderFault> {
        let copy = page.get(HEADER_COPY_AT as usize..).unwrap_or_default();
        match Self::decode_one(page) {
            Err(HeaderFault::Damaged) => Self::decode_one(copy),
            decided => decided,
        }
    }

    fn decode_one(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let parse = || {
            let fields = bytes.get(..SEGMENT_HEADER_CRC.offset)?;
            let crc = u32_at(bytes, SEGMENT_HEADER_CRC.offset)?;
            if !fields.starts_with(&SEGMENT_MAGIC) || crc32c::crc32c(fields) != crc {
                return None;
            }
            let life = LifeId(fields.get(16..32)?.try_into().ok()?);
            let header = Self {
                kind: *fields.get(10)?,
                life,
                first: u64_at(fields, 32)?,
                salt: u64_at(fields, 40)?,
                created_us: u64_at(fields, 48)? as i64,
                segment_bytes: u64_at(fields, 56)?,
            };
            Some((u16_at(fields, 8)?, header))
        };
        match parse() {
            None => Err(HeaderFault::Damaged),
            Some((version, _)) if version > VERSION => Err(HeaderFault::Newer(version)),
            Some((_, header)) => Ok(header),
        }
    }

    pub(crate) fn key(&self) -> FrameKey {
        FrameKey {
            mark: FRAME_MAGIC ^ (self.salt >> 32) as u32,
            seed: crc32c::crc32c(&self.salt.to_le_bytes()),
        }
    }
}

/// What tells a segment's own frames from all others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameKey {
    pub mark: u32,
    pub seed: u32,
}

/// What a frame's header says, as far as it can be true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    pub crc: u32,
    pub payload_bytes: usize,
    pub count: u32,
    pub first: u64,
}

impl FrameHeader {
    /// Bytes of header, payload and padding.
    pub fn frame_bytes(&self) -> u64 {
        frame_bytes(self.payload_bytes)
    }

    /// One more than the last number.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }

    /// The bytes that it was read from.
    pub fn encode(&self, key: FrameKey) -> Vec<u8> {
        let mut out = Vec::with_capacity(FRAME_HEADER_BYTES);
        out.extend_from_slice(&key.mark.to_le_bytes());
        out.extend_from_slice(&self.crc.to_le_bytes());
        out.extend_from_slice(&(self.payload_bytes as u32).to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out
    }

    /// The header at the start of `bytes`, if it bears the mark and contradicts nothing.
    pub fn decode(bytes: &[u8], key: FrameKey) -> Option<Self> {
        if u32_at(bytes, 0)? != key.mark {
            return None;
        }
        let payload_bytes = u32_at(bytes, 8)? as usize;
        let count = u32_at(bytes, 12)?;
        let first = u64_at(bytes, 16)?;
        let possible = payload_bytes <= FRAME_BYTES_MAX
            && count > 0
            && count as usize <= payload_bytes / ENTRY_HEADER_BYTES_MIN
            && first < NUMBER_MAX;
        possible.then_some(Self {
            crc: u32_at(bytes, 4)?,
            payload_bytes,
            count,
            first,
        })
    }
}

/// Bytes that a frame with this payload takes in its segment.
pub(crate) fn frame_bytes(payload_bytes: usize) -> u64 {
    ((FRAME_HEADER_BYTES + payload_bytes) as u64).next_multiple_of(FRAME_ALIGN)
}

/// The checksum over a frame from `payload_bytes` on; `frame` begins at the header and ends with
/// the payload.
pub(crate) fn frame_crc(key: FrameKey, frame: &[u8]) -> Option<u32> {
    Some(crc32c::crc32c_append(key.seed, frame.get(8..)?))
}

/// Puts a frame into `out`: header, payload, padding.
pub(crate) fn encode_frame(
    key: FrameKey,
    first: u64,
    count: u32,
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    let header = FrameHeader {
        crc: 0,
        payload_bytes: payload.len(),
        count,
        first,
    };
    out.clear();
    out.extend_from_slice(&header.encode(key));
    out.extend_from_slice(payload);
    let crc = frame_crc(key, out).unwrap_or_default();
    put(out, 4, &crc.to_le_bytes());
    out.resize(frame_bytes(payload.len()) as usize, 0);
}

/// A segment's file name.
pub fn segment_name(life: LifeId, first: u64) -> String {
    format!("{life}-{first:020}.seg")
}

/// What a segment's file name says.
pub fn parse_segment_name(name: &str) -> Option<(LifeId, u64)> {
    let (life, first) = name.strip_suffix(".seg")?.split_once('-')?;
    let digits = |text: &str, count| text.len() == count && text.is_ascii();
    if !digits(life, 32) || !digits(first, 20) {
        return None;
    }
    let life = LifeId(u128::from_str_radix(life, 16).ok()?.to_be_bytes());
    let first = first.parse().ok().filter(|first| *first < NUMBER_MAX)?;
    // Only the name that we would give: no sign, no upper case.
    (segment_name(life, first) == name).then_some((life, first))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            kind: 2,
            life: LifeId([7; 16]),
            first: 42,
            salt: 0x0123_4567_89ab_cdef,
            created_us: -5,
            segment_bytes: 1 << 24,
        }
    }

    #[test]
    fn tables_have_no_hole_and_no_overlap() {
        let mut at = 0;
        for field in SEGMENT_HEADER.iter().chain([&SEGMENT_HEADER_CRC]) {
            assert_eq!(field.offset, at, "{}", field.name);
            at += field.bytes;
        }
        assert_eq!(at, HEADER_USED_BYTES);
        let mut at = 0;
        for field in FRAME_HEADER {
            assert_eq!(field.offset, at, "{}", field.name);
            at += field.bytes;
        }
        assert_eq!(at, FRAME_HEADER_BYTES);
    }

    /// The document's tables are these tables.
    #[test]
    fn the_document_lists_every_field() {
        let document = include_str!("../../../docs/storage.md");
        for field in SEGMENT_HEADER
            .iter()
            .chain([&SEGMENT_HEADER_CRC])
            .chain(&FRAME_HEADER)
        {
            let row = format!("| {} | {} | `{}` |", field.offset, field.bytes, field.name);
            assert!(
                document.contains(&row),
                "docs/storage.md lacks the row {row}"
            );
        }
    }

    /// Golden bytes of version 1: never edited.
    #[test]
    fn version_1_stays_as_it_was_written() {
        let page = header().encode();
        let hex: String = page[..HEADER_USED_BYTES]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            hex,
            "545249425345470a010002000010000007070707070707070707070707070707\
             2a00000000000000efcdab8967452301fbffffffffffffff00000001000000007e330ccf"
        );
        let mut frame = Vec::new();
        encode_frame(header().key(), 42, 1, &[9, 3, b'a', b'b', b'c'], &mut frame);
        let hex: String = frame.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "3303714ce575039905000000010000002a000000000000000903616263000000"
        );
    }

    #[test]
    fn either_copy_of_the_header_is_enough() {
        let page = header().encode();
        for bit in 0..HEADER_USED_BYTES * 8 {
            let mut hurt = page.clone();
            hurt[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&hurt), Ok(header()));
            hurt[HEADER_COPY_AT as usize + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&hurt), Err(HeaderFault::Damaged));
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut page = header().encode();
        page[8] = 2;
        let crc = crc32c::crc32c(&page[..64]);
        put(&mut page, 64, &crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&page), Err(HeaderFault::Newer(2)));
    }

    #[test]
    fn names_are_read_back_only_as_they_are_given() {
        let name = segment_name(LifeId([0xab; 16]), 7);
        assert_eq!(name.len(), 32 + 1 + 20 + 4);
        assert_eq!(parse_segment_name(&name), Some((LifeId([0xab; 16]), 7)));
        for bad in [
            name.to_uppercase(),
            name.replace("-0", "-+"),
            format!("x{name}"),
        ] {
            assert_eq!(parse_segment_name(&bad), None, "{bad}");
        }
    }
}
