//! Texts in a checkpoint: 2 bytes of length (of long ones 4), little endian, then UTF-8.

use bytes::{Buf, BufMut};

/// Appends a text; what is beyond the length field is cut off, which no name is.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    let end = text.floor_char_boundary(text.len().min(u16::MAX.into()));
    let text = text.get(..end).unwrap_or_default();
    out.put_u16_le(text.len() as u16);
    out.put_slice(text.as_bytes());
}

/// Takes a text off the front of `input`; `None` when there is none.
pub fn read_text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::from(input.try_get_u16_le().ok()?);
    let (text, rest) = input.split_at_checked(length)?;
    *input = rest;
    std::str::from_utf8(text).ok()
}

/// Appends a text of any length.
pub fn write_long_text(text: &str, out: &mut Vec<u8>) {
    out.put_u32_le(text.len() as u32);
    out.put_slice(text.as_bytes());
}

/// Takes such a text off the front of `input`; `None` when there is none.
pub fn read_long_text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(input.try_get_u32_le().ok()?).ok()?;
    let (text, rest) = input.split_at_checked(length)?;
    *input = rest;
    std::str::from_utf8(text).ok()
}
