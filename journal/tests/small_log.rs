//! What the tests of the log share: a small configuration, and short ways to write and read.

use std::path::Path;
use std::sync::Arc;
use tributary_journal::{
    Disk, Entry, Frame, LifeId, Log, LogConfig, LogError, LogKind, LogReader, LogWriter, Open,
    Opened,
};

pub const DIR: &str = "/data/log";
pub const SEGMENT: u64 = 16 * 1024;

pub fn dir() -> &'static Path {
    Path::new(DIR)
}

pub fn life(n: u8) -> LifeId {
    let mut id = [0; 16];
    id[0] = n;
    LifeId(id)
}

pub fn config() -> LogConfig {
    LogConfig {
        segment_bytes: SEGMENT,
        quota_bytes: 64 * SEGMENT,
        reserve_bytes: 0,
        kind: LogKind::Spool,
    }
}

pub fn open(disk: &(impl Disk + Clone), how: Open) -> Opened {
    try_open(disk, config(), how).unwrap()
}

pub fn try_open(
    disk: &(impl Disk + Clone),
    config: LogConfig,
    how: Open,
) -> Result<Opened, LogError> {
    Log::open(Arc::new(disk.clone()), dir(), config, how)
}

/// A frame of entries made from these bytes.
pub fn frame(entries: &[&[u8]]) -> Frame {
    let mut frame = Frame::new();
    entries
        .iter()
        .for_each(|entry| frame.push(1, entry).unwrap());
    frame
}

/// An entry of `bytes` bytes that names its number.
pub fn entry(number: u64, bytes: usize) -> Vec<u8> {
    let mut entry = number.to_le_bytes().to_vec();
    entry.resize(bytes.max(8), number as u8);
    entry
}

/// Appends `count` frames of one numbered entry.
pub fn append_many(writer: &mut LogWriter, count: u64, bytes: usize) {
    for _ in 0..count {
        let next = writer.next_number();
        let appended = writer.append(&frame(&[&entry(next, bytes)])).unwrap();
        assert_eq!((appended.first, appended.count), (next, 1));
    }
}

/// All entries from `from` on, in calls of `max_bytes`.
pub fn read_all(reader: &LogReader, life: LifeId, from: u64, max_bytes: usize) -> Vec<Entry> {
    let mut out = Vec::new();
    let mut next = from;
    loop {
        let before = out.len();
        reader.read(life, next, max_bytes, &mut out).unwrap();
        let Some(last) = out[before..].last() else {
            return out;
        };
        next = last.number + 1;
    }
}

/// Asserts that these are the numbered entries `from..to`.
pub fn assert_numbered(entries: &[Entry], from: u64, to: u64) {
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers, (from..to).collect::<Vec<_>>());
    for entry in entries {
        assert_eq!(
            entry.bytes[..8],
            entry.number.to_le_bytes(),
            "entry {}",
            entry.number
        );
    }
}
