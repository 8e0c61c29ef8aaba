//! Making durable what a scan found, before anybody believes it.
//!
//! What is read back may stand in the page cache alone: the process before this one died between
//! the write and its fdatasync, or that fdatasync failed, after which the pages count as clean and
//! no later one writes them. So the last frame is written again, in place, from the bytes that
//! were verified (a clean page may have been dropped since), and synced. Whatever stands before it
//! was durable before it was written: one frame is in flight at a time. Needs no free block.
//! Decides nothing about where a segment ends.

use crate::disk::DiskFile;
use crate::log::format::{FrameHeader, FrameKey, encode_frame};
use crate::log::scan::RawFrame;
use std::io;

/// The last thing in a segment that what recovery says depends on.
pub(crate) enum Last {
    /// No frame: only the header, which was durable before the segment got its name.
    Nothing,
    /// A good frame.
    Frame(RawFrame),
    /// The header of a frame that is torn. Nothing else of it counts.
    Header { at: u64, header: FrameHeader },
}

/// Writes it again, and makes it durable.
pub(crate) fn settle(file: &dyn DiskFile, key: FrameKey, last: &Last) -> io::Result<()> {
    match last {
        Last::Nothing => return Ok(()),
        Last::Frame(frame) => {
            let mut bytes = Vec::new();
            let header = &frame.header;
            encode_frame(key, header.first, header.count, &frame.payload, &mut bytes);
            file.write_at(&bytes, frame.at)?;
        }
        Last::Header { at, header } => file.write_at(&header.encode(key), *at)?,
    }
    file.sync_data()
}
