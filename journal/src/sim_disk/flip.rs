//! Flipped bits, by what they hit: each kind of region as often as another, however small it is.
//! Regions are found by what stands on the medium; nothing here knows what a region means.

use super::{SimDisk, lock, split_mix};
use crate::bytes_at::{u32_at, u64_at};
use crate::limits::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::log::format::{FrameHeader, HEADER_COPY_AT, HEADER_USED_BYTES, SegmentHeader};
use crate::{checkpoint, cursor};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What a flipped bit hits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FileClass {
    /// A segment's header, or its copy.
    SegmentHeader,
    /// The header of a frame.
    FrameHeader,
    /// The payload of a frame.
    FramePayload,
    /// The header of a checkpoint.
    CheckpointHeader,
    /// The body of a checkpoint.
    CheckpointBody,
    /// A slot of a cursor that holds a value.
    CursorSlot,
    /// A file of none of these formats: a marker, a text.
    Other,
}

impl FileClass {
    /// Every class.
    pub const ALL: [Self; 7] = [
        Self::SegmentHeader,
        Self::FrameHeader,
        Self::FramePayload,
        Self::CheckpointHeader,
        Self::CheckpointBody,
        Self::CursorSlot,
        Self::Other,
    ];
}

/// Where a bit was flipped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flipped {
    /// In which file.
    pub path: PathBuf,
    /// Bytes from its start.
    pub offset: u64,
    /// The bit of that byte.
    pub bit: u8,
}

impl SimDisk {
    /// Flips one bit of a file, on the medium.
    ///
    /// # Panics
    /// When there is no such byte: the test is wrong.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) {
        let world = self.locked();
        let file = world.file(path);
        let mut inode = lock(file.expect("the test names a file that is there"));
        assert!(
            offset < inode.now.bytes,
            "no byte {offset} in {}",
            path.display()
        );
        inode.flip(offset, bit);
    }

    /// Flips one bit in a region of this class, which one as `seed` says; none is there, none is
    /// flipped. Of all files with such a region each is hit as often as another.
    pub fn flip(&self, class: FileClass, mut seed: u64) -> Option<Flipped> {
        let files = self.files_of(class);
        let mut below = |bound: usize| (split_mix(&mut seed) % bound.max(1) as u64) as usize;
        let (path, regions) = files.get(below(files.len()))?;
        let region = regions.get(below(regions.len()))?;
        let offset = (region.start + below(region.end - region.start)) as u64;
        let bit = below(8) as u8;
        self.flip_bit(path, offset, bit);
        Some(Flipped {
            path: path.clone(),
            offset,
            bit,
        })
    }

    /// The files that have regions of this class, and these.
    fn files_of(&self, class: FileClass) -> Vec<(PathBuf, Vec<Range<usize>>)> {
        let paths: Vec<PathBuf> = self.locked().names.keys().cloned().collect();
        let regions = |path: PathBuf| {
            let bytes = self.contents(&path).unwrap_or_default();
            let regions = regions(class, &bytes);
            (path, regions)
        };
        let files = paths.into_iter().map(regions);
        files.filter(|(_, regions)| !regions.is_empty()).collect()
    }
}

/// The regions of this class in a file.
fn regions(class: FileClass, bytes: &[u8]) -> Vec<Range<usize>> {
    let found = of_segment(bytes)
        .or_else(|| of_checkpoint(bytes))
        .or_else(|| of_cursor(bytes));
    let none = || vec![(FileClass::Other, 0..bytes.len())];
    let all = found.unwrap_or_else(none).into_iter();
    let of_class = all.filter(|(of, region)| *of == class && !region.is_empty());
    of_class.map(|(_, region)| region).collect()
}

type Regions = Vec<(FileClass, Range<usize>)>;

fn of_segment(bytes: &[u8]) -> Option<Regions> {
    let header = SegmentHeader::decode(bytes).ok()?;
    let copy = HEADER_COPY_AT as usize;
    let mut regions = vec![
        (FileClass::SegmentHeader, 0..HEADER_USED_BYTES),
        (FileClass::SegmentHeader, copy..copy + HEADER_USED_BYTES),
    ];
    let mut at = SEGMENT_HEADER_BYTES as usize;
    while let Some(frame) = FrameHeader::decode(bytes.get(at..)?, header.key()) {
        let payload = at + FRAME_HEADER_BYTES;
        let end = bytes.len().min(payload + frame.payload_bytes);
        regions.push((FileClass::FrameHeader, at..payload));
        regions.push((FileClass::FramePayload, payload..end));
        at += frame.frame_bytes() as usize;
        if at > bytes.len() {
            break;
        }
    }
    Some(regions)
}

fn of_checkpoint(bytes: &[u8]) -> Option<Regions> {
    if !bytes.starts_with(&checkpoint::MAGIC) {
        return None;
    }
    // The spare room behind the body is no part of it.
    let body = usize::try_from(u64_at(bytes, 24)?).ok()?;
    let end = body.saturating_add(checkpoint::HEADER_BYTES);
    let end = end.min(bytes.len());
    Some(vec![
        (FileClass::CheckpointHeader, 0..checkpoint::HEADER_BYTES),
        (
            FileClass::CheckpointBody,
            checkpoint::HEADER_BYTES.min(end)..end,
        ),
    ])
}

fn of_cursor(bytes: &[u8]) -> Option<Regions> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let slot = |bytes: &[u8], at: usize| {
        let marked = u32_at(bytes, 0) == Some(cursor::MAGIC);
        let value = u32_at(bytes, 16).filter(|_| marked)? as usize;
        let used = bytes.len().min(cursor::HEADER_BYTES + value);
        Some((FileClass::CursorSlot, at..at + used))
    };
    let slots = [slot(first, 0), slot(second, first.len())];
    let slots: Regions = slots.into_iter().flatten().collect();
    (!slots.is_empty()).then_some(slots)
}
