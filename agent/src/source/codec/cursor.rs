//! The primitive fields of MQTT (section 1.5), read from a slice that never grows.

use super::Fault;

/// What is left of a packet.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(&'a [u8]);

const SHORT: Fault = Fault::Malformed("it ends within a field");

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Fault> {
        let (byte, rest) = self.0.split_first().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A packet identifier (section 2.2.1 \[5\]): never 0.
    pub(super) fn packet_id(&mut self) -> Result<u16, Fault> {
        match self.u16()? {
            0 => Err(Fault::Protocol("packet identifier 0")),
            id => Ok(id),
        }
    }

    /// Binary data (section 1.5.6 \[5\]).
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let length = usize::from(self.u16()?);
        self.take(length)
    }

    /// A string (section 1.5.4 \[5\]): UTF-8 without U+0000.
    pub(super) fn string(&mut self) -> Result<&'a str, Fault> {
        let bytes = self.binary()?;
        let text =
            std::str::from_utf8(bytes).map_err(|_| Fault::Malformed("a text that is not UTF-8"))?;
        if bytes.contains(&0) {
            return Err(Fault::Malformed("a text with U+0000"));
        }
        Ok(text)
    }

    /// A variable byte integer (section 1.5.5 \[5\]).
    pub(super) fn variable(&mut self) -> Result<usize, Fault> {
        let (value, length) = variable_length(self.0)?.ok_or(SHORT)?;
        self.take(length)?;
        Ok(value)
    }
}

/// A variable byte integer and its length; `None` when more bytes must come.
pub(super) fn variable_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            if place > 0 && *byte == 0 {
                return Err(Fault::Malformed("a length in more bytes than it needs"));
            }
            return Ok(Some((value, place + 1)));
        }
    }
    if bytes.len() < 4 {
        Ok(None)
    } else {
        Err(Fault::Malformed("a length of five bytes"))
    }
}
