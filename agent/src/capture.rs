//! Captures: where readings leave as aggregates, the raw ones around an alert leave, too.
//! `docs/decisions/0020`.
//!
//! The write-ahead log is the ring: it is kept for longer than it is needed, and what a capture
//! asks for is read back from it. Pure: what is captured is a function of the log.

mod index;
mod record;
mod spans;
mod state;
mod wanted;

pub use index::{Index, cost_of};
pub use record::CaptureRecord;
pub use spans::{Added, Spans};
pub use state::Captures;
pub use wanted::Wanted;

use crate::limits::{CAPTURE_PIECE_S, CAPTURE_PIECES_MAX, CAPTURE_RING_BYTES, CAPTURE_S};
use tributary_settings::{ByteSize, Section};

/// `[capture]`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CaptureSettings {
    /// Bytes of the log that are kept for captures.
    pub ring_bytes: u64,
    /// Microseconds before an alert.
    pub pre_us: i64,
    /// Microseconds behind one.
    pub post_us: i64,
}

impl Default for CaptureSettings {
    fn default() -> Self {
        Self {
            ring_bytes: CAPTURE_RING_BYTES.1,
            pre_us: us(CAPTURE_S.1),
            post_us: us(CAPTURE_S.1),
        }
    }
}

fn us(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}

impl CaptureSettings {
    /// Reads `[capture]`; what is wrong is reported there.
    pub fn read(section: &mut Section) -> Self {
        let (least, default, most) = CAPTURE_RING_BYTES;
        let ring_bytes = section.read("ring_bytes", |ByteSize(bytes)| match bytes {
            bytes if (least..=most).contains(&bytes) => Ok(bytes),
            _ => Err(format!(
                "is {bytes} bytes; expected {} MiB to {} GiB",
                least >> 20,
                most >> 30
            )),
        });
        let mut seconds = |name| us(section.within(name, (CAPTURE_S.0, CAPTURE_S.2), CAPTURE_S.1));
        Self {
            pre_us: seconds("pre_s"),
            post_us: seconds("post_s"),
            ring_bytes: ring_bytes.unwrap_or(default),
        }
    }

    /// Microseconds before an alert that one record asks for.
    fn piece_us(&self) -> i64 {
        us(CAPTURE_PIECE_S).max(self.pre_us / CAPTURE_PIECES_MAX as i64 + 1)
    }
}
