//! Ledger and books as the body of a checkpoint. Versioned, little endian, total on arbitrary
//! bytes; where it is kept and whether it arrived whole is the journal crate's business.
//!
//! version u16 = 2 · ledger length u64 · ledger · books u32 · for each: tenant length u16, tenant,
//! agent UUID 16, buffer 16, torn u8 (from version 2 on), series u32, and for each: value type u8,
//! device, metric, unit, each a length u16 and that many bytes (no unit: length 0).

use super::books::Books;
use bytes::{Buf, BufMut, TryGetError};
use tributary_protocol::ids::{AgentId, AgentUuid, BufferId};
use tributary_protocol::ledger::{CheckpointError, Ledger};
use tributary_protocol::limits::{NAME_BYTES_MAX, SERIES_MAX};
use tributary_protocol::reading::ValueType;
use tributary_protocol::series::SeriesDef;

const VERSION: u16 = 2;

/// Why bytes are no checkpoint of ours.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// They end too early.
    #[error("checkpoint cut short")]
    Truncated,
    /// Written by a later version.
    #[error("checkpoint of version {0}; this build reads version {VERSION}")]
    Version(u16),
    /// A field holds what it may not.
    #[error("checkpoint: bad {0}")]
    Field(&'static str),
    /// The ledger in it is not good.
    #[error(transparent)]
    Ledger(#[from] CheckpointError),
}

impl From<TryGetError> for SnapshotError {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

/// Ledger and books as bytes, the same for the same content.
pub fn encode(ledger: &Ledger, books: &Books) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u16_le(VERSION);
    let mut body = Vec::new();
    ledger.write_checkpoint(&mut body);
    out.put_u64_le(body.len() as u64);
    out.append(&mut body);
    let mut count = 0_u32;
    books.each(|agent, buffer, book, torn| {
        count += 1;
        put_text(&mut body, agent.tenant());
        body.put_slice(&agent.uuid().0);
        body.put_slice(&buffer.0);
        body.put_u8(u8::from(torn));
        body.put_u32_le(book.len());
        for def in book.defs() {
            body.put_u8(def.value_type.code());
            put_text(&mut body, &def.device);
            put_text(&mut body, &def.metric);
            put_text(&mut body, def.unit.as_deref().unwrap_or_default());
        }
    });
    out.put_u32_le(count);
    out.append(&mut body);
    out
}

/// Ledger and books in `bytes`, all of which must be used.
///
/// # Errors
/// What is wrong with them.
pub fn decode(mut bytes: &[u8]) -> Result<(Ledger, Books), SnapshotError> {
    let input = &mut bytes;
    let version = input.try_get_u16_le()?;
    if !(1..=VERSION).contains(&version) {
        return Err(SnapshotError::Version(version));
    }
    let ledger_bytes = usize::try_from(input.try_get_u64_le()?);
    let ledger = take(input, ledger_bytes.map_err(|_| SnapshotError::Truncated)?)?;
    let ledger = Ledger::read_checkpoint(ledger)?;
    let books = Books::new();
    for _ in 0..input.try_get_u32_le()? {
        read_book(version, input, &books)?;
    }
    if input.has_remaining() {
        return Err(SnapshotError::Field("end: bytes are left over"));
    }
    Ok((ledger, books))
}

fn read_book(version: u16, input: &mut &[u8], books: &Books) -> Result<(), SnapshotError> {
    let tenant = text(input)?;
    let uuid = AgentUuid(id(input)?);
    let agent = AgentId::new(tenant, uuid).map_err(|_| SnapshotError::Field("tenant"))?;
    let buffer = BufferId(id(input)?);
    if version >= 2 && input.try_get_u8()? != 0 {
        books.tear(&agent, buffer);
    }
    let count = input.try_get_u32_le()?;
    if count as usize > SERIES_MAX {
        return Err(SnapshotError::Field("count of series"));
    }
    for number in 0..count {
        let value_type = ValueType::from_code(input.try_get_u8()?);
        let value_type = value_type.ok_or(SnapshotError::Field("value type"))?;
        let (device, metric, unit) = (text(input)?, text(input)?, text(input)?);
        let unit = (!unit.is_empty()).then_some(unit);
        let def = SeriesDef::new(device, metric, unit, value_type)
            .map_err(|_| SnapshotError::Field("name of a series"))?;
        books
            .append(&agent, buffer, number, &[def])
            .map_err(|_| SnapshotError::Field("series, which is there twice"))?;
    }
    Ok(())
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u16_le(text.len() as u16);
    out.put_slice(text.as_bytes());
}

fn take<'a>(input: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], SnapshotError> {
    let (taken, rest) = input
        .split_at_checked(bytes)
        .ok_or(SnapshotError::Truncated)?;
    *input = rest;
    Ok(taken)
}

fn text<'a>(input: &mut &'a [u8]) -> Result<&'a str, SnapshotError> {
    let bytes = usize::from(input.try_get_u16_le()?);
    if bytes > NAME_BYTES_MAX {
        return Err(SnapshotError::Field("length of a name"));
    }
    std::str::from_utf8(take(input, bytes)?).map_err(|_| SnapshotError::Field("name"))
}

fn id(input: &mut &[u8]) -> Result<[u8; 16], SnapshotError> {
    take(input, 16)?
        .try_into()
        .map_err(|_| SnapshotError::Truncated)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use tributary_protocol::ids::{BatchHash, BatchKey, Lane};

    fn made() -> Vec<u8> {
        let mut ledger = Ledger::new();
        let books = Books::new();
        for n in 0..3_u8 {
            let agent = AgentId::new("acme", AgentUuid([n; 16])).unwrap();
            let buffer = BufferId::new(1, u64::from(n));
            let key = BatchKey {
                buffer,
                lane: Lane::Telemetry,
                number: u64::from(n),
            };
            assert!(ledger.recover(&agent, key, BatchHash::of(&[n])));
            let unit = (n > 0).then_some("bar");
            let def = SeriesDef::new("pump", "p", unit, ValueType::ALL[usize::from(n)]).unwrap();
            books.append(&agent, buffer, 0, &[def]).unwrap();
            if n == 1 {
                books.tear(&agent, buffer);
            }
        }
        encode(&ledger, &books)
    }

    #[test]
    fn a_snapshot_comes_back() {
        let bytes = made();
        let (ledger, books) = decode(&bytes).unwrap();
        assert_eq!(encode(&ledger, &books), bytes);
        assert_eq!(books.count(), 3);
    }

    #[test]
    fn the_first_version_is_read() {
        let agent = AgentId::new("a", AgentUuid([2; 16])).unwrap();
        let buffer = BufferId::new(1, 1);
        let mut bytes = encode(&Ledger::new(), &Books::new());
        bytes[0] = 1;
        let books = bytes.len() - 4;
        bytes[books] = 1;
        put_text(&mut bytes, agent.tenant());
        bytes.put_slice(&agent.uuid().0);
        bytes.put_slice(&buffer.0);
        bytes.put_u32_le(1);
        bytes.put_u8(ValueType::F64.code());
        for text in ["pump", "p", ""] {
            put_text(&mut bytes, text);
        }
        let (_, books) = decode(&bytes).unwrap();
        assert_eq!(books.len(&agent, buffer), 1);
        assert!(!books.is_torn(&agent, buffer));
    }

    #[test]
    fn every_cut_is_noticed_and_no_flip_panics() {
        let bytes = made();
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end}");
        }
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x80;
            let _ = decode(&bad);
        }
    }
}
