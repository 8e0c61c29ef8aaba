//! Little-endian integers at a place in bytes from a disk: `None` instead of a panic.
//!
//! Holds no format: the tables of fields are beside the formats.

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// Writes `value` at `at`; a place outside `bytes` is left alone.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = at
        .checked_add(value.len())
        .and_then(|end| bytes.get_mut(at..end))
    {
        place.copy_from_slice(value);
    }
}

/// One field of a stored format: what the tables in code, document and test are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// The field's name.
    pub name: &'static str,
    /// Bytes from the start of the structure.
    pub offset: usize,
    /// Bytes that the field takes.
    pub bytes: usize,
}

impl Field {
    pub(crate) const fn new(name: &'static str, offset: usize, bytes: usize) -> Self {
        Self {
            name,
            offset,
            bytes,
        }
    }
}
