//! The bound of what is read as settings.

/// Bytes of a file of settings: who reads one refuses a larger one before it is parsed.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
