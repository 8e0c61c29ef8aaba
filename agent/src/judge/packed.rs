//! What the stage knows, packed to be stored: compressed, behind a head that says where it stands.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 2 | version: [`VERSION`] |
//! | 2 | 16 | the log's life, of the first record that is not in it |
//! | 18 | 8 | its number |
//! | 26 | 8 | how many series had given way by then |
//! | 34 | 8 | of how many of them a row is kept |
//! | 42 | 8 | bytes of the body |
//! | 50 | | the body, one zstd frame |
//!
//! Little endian. The file that holds it has a checksum over all of this.

use super::checkpoint::{CheckpointError, VERSION, read_origin};
use super::{Judge, Origin};
use bytes::{Buf, BufMut};
use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;
use tributary_journal::limits::CHECKPOINT_BYTES_MAX;

/// The fastest that is not a mode of its own: it is written every few minutes and read once a life.
const LEVEL: i32 = 1;

/// What the stage knows at a place of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// The first record that is not in it.
    pub at: Origin,
    /// How many series had given way by then: rows of those that gave way later are not in it.
    pub given_way: u64,
    /// Of how many of them a row is kept.
    pub rows: u64,
    /// Its bytes.
    pub body: Vec<u8>,
}

impl Judge {
    /// What is known; `None` before the first record.
    pub fn known(&self) -> Option<Known> {
        // As long as the last one, and some: to grow by doubling takes longer than to write it.
        let last = self.last_bytes.load(Ordering::Relaxed);
        let mut body = Vec::with_capacity(last + last / 16);
        let at = self.write_checkpoint(&mut body)?;
        self.last_bytes.store(body.len(), Ordering::Relaxed);
        Some(Known {
            at,
            given_way: self.series.idle.next(),
            rows: self.series.idle.len() as u64,
            body,
        })
    }
}

impl Known {
    /// As it is stored.
    ///
    /// # Errors
    /// When it is longer than what can be read again, or there is no memory to compress it.
    pub fn pack(&self) -> io::Result<Vec<u8>> {
        if self.body.len() as u64 > CHECKPOINT_BYTES_MAX {
            let bytes = self.body.len();
            return Err(io::Error::other(format!(
                "what detection knows takes {bytes} bytes: at most {CHECKPOINT_BYTES_MAX} can be \
                 read again; lower `detect.series_max`"
            )));
        }
        let mut out = Vec::new();
        out.put_u16_le(VERSION);
        out.put_slice(&self.at.buffer.0);
        out.put_u64_le(self.at.number);
        out.put_u64_le(self.given_way);
        out.put_u64_le(self.rows);
        out.put_u64_le(self.body.len() as u64);
        let mut encoder = zstd::Encoder::new(out, LEVEL)?;
        encoder.write_all(&self.body)?;
        encoder.finish()
    }

    /// Where something that was packed stands.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn position(packed: &[u8]) -> Result<Origin, CheckpointError> {
        head(&mut &*packed).map(|head| head.at)
    }

    /// Whether something that was packed names rows of series that gave way.
    pub fn names_rows(packed: &[u8]) -> bool {
        head(&mut &*packed).is_ok_and(|head| head.rows > 0)
    }

    /// What was packed.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn unpack(packed: &[u8]) -> Result<Self, CheckpointError> {
        let damaged = CheckpointError::Field("compressed body");
        let mut rest = packed;
        let Head {
            at,
            given_way,
            rows,
            bytes,
        } = head(&mut rest)?;
        let whole = usize::try_from(bytes).ok();
        let Some(whole) = whole.filter(|_| bytes <= CHECKPOINT_BYTES_MAX) else {
            return Err(damaged);
        };
        // What the head claims is believed as it comes true.
        let mut body = Vec::with_capacity(whole.min(64 * rest.len()));
        let decoder = zstd::Decoder::with_buffer(rest);
        let read = decoder.and_then(|decoder| decoder.take(bytes + 1).read_to_end(&mut body));
        match read {
            Ok(read) if read == whole => Ok(Self {
                at,
                given_way,
                rows,
                body,
            }),
            _ => Err(damaged),
        }
    }
}

struct Head {
    at: Origin,
    given_way: u64,
    rows: u64,
    /// Of the body.
    bytes: u64,
}

fn head(input: &mut &[u8]) -> Result<Head, CheckpointError> {
    let field = CheckpointError::Field;
    let version = input.try_get_u16_le().map_err(|_| field("version"))?;
    if version != VERSION {
        return Err(CheckpointError::Version(version));
    }
    let at = read_origin(input).ok_or(field("position"))?;
    let number = |input: &mut &[u8], what| input.try_get_u64_le().map_err(|_| field(what));
    Ok(Head {
        at,
        given_way: number(input, "series that gave way")?,
        rows: number(input, "rows")?,
        bytes: number(input, "length")?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tributary_protocol::ids::BufferId;

    fn known(body: Vec<u8>) -> Known {
        let (buffer, number) = (BufferId::new(3, 4), 5);
        Known {
            at: Origin { buffer, number },
            given_way: 6,
            rows: 4,
            body,
        }
    }

    #[test]
    fn it_is_given_back_and_no_part_of_it_is_another() {
        for body in [Vec::new(), vec![7; 100_000], (0..=255).collect()] {
            let known = known(body);
            let packed = known.pack().unwrap();
            assert_eq!(Known::unpack(&packed), Ok(known.clone()));
            assert_eq!(Known::position(&packed), Ok(known.at));
            assert!(Known::names_rows(&packed) && !Known::names_rows(&packed[..33]));
            for length in 0..packed.len() {
                assert!(Known::unpack(&packed[..length]).is_err(), "{length}");
            }
            let mut longer = packed.clone();
            longer[42] ^= 1;
            assert!(Known::unpack(&longer).is_err());
            longer[49] = 0xff;
            assert!(Known::unpack(&longer).is_err(), "more than there may be");
        }
        let older = Known::unpack(&[2, 0, 1]);
        assert_eq!(older, Err(CheckpointError::Version(2)));
    }

    #[test]
    fn one_that_could_not_be_read_again_is_not_packed() {
        let most = usize::try_from(CHECKPOINT_BYTES_MAX).unwrap();
        let refused = known(vec![0; most + 1]).pack();
        assert!(refused.is_err_and(|error| error.to_string().contains("`detect.series_max`")));
    }

    proptest! {
        #[test]
        fn no_bytes_make_one_that_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Known::unpack(&bytes);
            let packed = known(Vec::new()).pack().unwrap();
            let _ = Known::unpack(&[&packed[..50], &bytes].concat());
        }
    }
}
