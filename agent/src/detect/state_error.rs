//! Why bytes of a checkpoint are no state of detection, and what several of its parts read alike.
//! Knows no part of it.

use bytes::{Buf, BufMut, TryGetError};
use tributary_protocol::limits::NAME_BYTES_MAX;

/// Why bytes are no state.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StateError {
    /// The bytes end too early.
    #[error("state of detection cut short")]
    Truncated,
    /// Written by a version that this build does not know.
    #[error("state of detection of version {0}; this build reads version {1}")]
    Version(u16, u16),
    /// A field holds what it may not.
    #[error("state of detection: bad {0}")]
    Field(&'static str),
}

impl From<TryGetError> for StateError {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

/// The version at the front of `input`, which must be this one.
pub(super) fn read_version(input: &mut &[u8], known: u16) -> Result<(), StateError> {
    match input.try_get_u16_le()? {
        version if version == known => Ok(()),
        version => Err(StateError::Version(version, known)),
    }
}

/// Appends a name of a device or metric: at most [`NAME_BYTES_MAX`] bytes.
pub(super) fn write_name(out: &mut Vec<u8>, name: &str) {
    out.put_u16_le(name.len() as u16);
    out.put_slice(name.as_bytes());
}

/// The name at the front of `input`, which is moved behind it.
pub(super) fn read_name<'a>(input: &mut &'a [u8]) -> Result<&'a str, StateError> {
    let bytes = usize::from(input.try_get_u16_le()?);
    if bytes > NAME_BYTES_MAX {
        return Err(StateError::Field("name"));
    }
    let (name, rest) = input.split_at_checked(bytes).ok_or(StateError::Truncated)?;
    *input = rest;
    std::str::from_utf8(name).map_err(|_| StateError::Field("name"))
}

/// The truth value at the front of `input`.
pub(super) fn read_bool(input: &mut &[u8]) -> Result<bool, StateError> {
    match input.try_get_u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(StateError::Field("truth value")),
    }
}
