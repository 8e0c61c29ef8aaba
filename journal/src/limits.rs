//! Every bound of the stored formats and of what this crate holds in memory, related at compile
//! time. This file holds no behaviour but [`segment_bytes`].

use std::time::Duration;

/// Bytes before the first frame of a segment: one page, so that no torn frame reaches the header.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;
/// Bytes of a segment when nothing else is asked for.
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of a WAL segment: small, recycled.
pub const WAL_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of a segment, at least. Only tests use segments below 4 MiB.
pub const SEGMENT_BYTES_MIN: u64 = 8 * 1024;
/// Bytes of a segment, at most.
pub const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Segments kept beside the one being written: preallocated, or recycled by trimming.
pub const SPARES_MAX: usize = 1;
/// The same while the quota or the disk has no room for another.
pub const SPARES_SHORT_MAX: usize = 2;
/// Segments that a quota must hold: one written, one ahead.
pub const QUOTA_SEGMENTS_MIN: u64 = 2;

/// Numbers stay below this: nothing that a file claims can make one overflow.
pub const NUMBER_MAX: u64 = 1 << 62;

/// Bytes of payload at which a frame closes.
pub const FRAME_BYTES: usize = 64 * 1024;
/// Readings at which a frame closes.
pub const FRAME_READINGS: u32 = 4_096;
/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 24;
/// Bytes that a frame's start is a multiple of.
pub const FRAME_ALIGN: u64 = 8;
/// Bytes of a frame's payload, at most.
pub const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of one entry, at most.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that an entry adds to its payload, at most: kind and length.
pub const ENTRY_HEADER_BYTES_MAX: usize = 6;
/// Bytes that an entry takes in a frame, at least: kind and a length of nothing.
pub const ENTRY_HEADER_BYTES_MIN: usize = 2;

/// How often what cannot be read is read before it counts as damaged.
pub const READ_TRIES: u32 = 5;
/// Bytes that a scan or a read asks the disk for at once.
pub const READ_BYTES: usize = 256 * 1024;
/// Bytes between two places that a segment's index in memory remembers.
pub const INDEX_STRIDE_BYTES: u64 = 256 * 1024;
/// Bytes of damaged segments kept in `quarantine/`, at most.
pub const QUARANTINE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Files kept in `quarantine/`, at most.
pub const QUARANTINE_FILES_MAX: usize = 256;
/// Damages that one recovery lists, at most; what is beyond is found again by reading.
pub const DAMAGES_MAX: usize = 4_096;

/// Microseconds that an entry waits for its group commit by default.
pub const COMMIT_DELAY_US: i64 = 20_000;
/// The same for SD cards.
pub const COMMIT_DELAY_SD_CARD_US: i64 = 100_000;
/// Microseconds to which a wear budget may stretch that wait, at most.
pub const COMMIT_DELAY_US_MAX: i64 = 250_000;
/// Bytes that one commit costs the device beside its payload (measured on ext4).
pub const COMMIT_COST_BYTES: u64 = 8_700;

/// Bytes of a cursor's slot by default.
pub const CURSOR_SLOT_BYTES: u64 = 4096;
/// Bytes of a cursor's slot, at most.
pub const CURSOR_SLOT_BYTES_MAX: u64 = 1024 * 1024;

/// Checkpoints kept, newest first: the newest may prove unreadable.
pub const CHECKPOINTS_KEPT: usize = 2;
/// Bytes of a checkpoint's body, at most.
pub const CHECKPOINT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Bytes of a key of the state database, at most.
pub const STATE_KEY_BYTES_MAX: usize = 64;
/// Bytes of a value of the state database, at most: a page must never become one of sled's blobs.
pub const STATE_VALUE_BYTES_MAX: usize = 2 * 1024;
/// How long an open waits for a state database that is in use, and between two looks.
pub const STATE_BUSY_PATIENCE: Duration = Duration::from_secs(2);
/// See there.
pub const STATE_BUSY_RETRY: Duration = Duration::from_millis(20);
/// Changes that wait for one commit of the state database, at most.
pub const STATE_PENDING_MAX: usize = 65_536;
/// Bytes of the state database's file above which it is set aside at open: it never shrinks.
pub const STATE_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of that file up to which opening reads all of it once, to find damage early.
pub const STATE_VERIFY_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Databases set aside that are kept, at most.
pub const STATE_SET_ASIDE_MAX: usize = 2;

/// Bytes of a segment for a log with this quota: `clamp(quota / 64, 4 MiB, 64 MiB)`.
pub const fn segment_bytes(quota_bytes: u64) -> u64 {
    let wanted = quota_bytes / 64;
    if wanted < WAL_SEGMENT_BYTES {
        WAL_SEGMENT_BYTES
    } else if wanted > SEGMENT_BYTES_MAX {
        SEGMENT_BYTES_MAX
    } else {
        wanted / SEGMENT_HEADER_BYTES * SEGMENT_HEADER_BYTES
    }
}

const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(FRAME_ALIGN));
const _: () = assert!((FRAME_HEADER_BYTES as u64).is_multiple_of(FRAME_ALIGN));
const _: () = assert!(SEGMENT_BYTES_MIN > SEGMENT_HEADER_BYTES);
const _: () = assert!(ENTRY_BYTES_MAX + ENTRY_HEADER_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES <= FRAME_BYTES_MAX);
// The greatest frame fits the smallest segment that is not a test's.
const _: () = assert!(
    SEGMENT_HEADER_BYTES + (FRAME_HEADER_BYTES + FRAME_BYTES_MAX) as u64 <= WAL_SEGMENT_BYTES
);
const _: () = assert!(WAL_SEGMENT_BYTES <= SEGMENT_BYTES && SEGMENT_BYTES <= SEGMENT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MAX <= QUARANTINE_BYTES_MAX);
const _: () = assert!(COMMIT_DELAY_US <= COMMIT_DELAY_SD_CARD_US);
const _: () = assert!(COMMIT_DELAY_SD_CARD_US <= COMMIT_DELAY_US_MAX);
const _: () = assert!(CURSOR_SLOT_BYTES <= CURSOR_SLOT_BYTES_MAX);
// Seventeen entries of a leaf stay far below sled's blob limit of 131,052 bytes.
const _: () = assert!(17 * (STATE_KEY_BYTES_MAX + STATE_VALUE_BYTES_MAX) < 131_052 / 2);
