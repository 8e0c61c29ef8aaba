//! Reads a truth ledger, one block at a time. What it means is the verifier's business.

use super::codec::{BLOCK_HEAD_BYTES, HEADER_BYTES, Input, block_crc, decode_header};
use super::{Event, Header, TruthError};
use crate::limits::TRUTH_BLOCK_BYTES_MAX;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

/// How a ledger ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// By itself, with its counts.
    Whole,
    /// After a whole block, but without an end record: the run was killed.
    Open,
    /// Within a block that begins at this byte: the run was killed, or the file was cut.
    Torn {
        /// Where the last block begins.
        at: u64,
        /// Bytes of it that are there.
        bytes: u64,
    },
}

/// A truth ledger that is read from its beginning.
#[derive(Debug)]
pub struct TruthReader {
    path: PathBuf,
    file: BufReader<File>,
    header: Header,
    at: u64,
    len: u64,
    ended: bool,
}

impl TruthReader {
    /// Opens the file and reads its header.
    ///
    /// # Errors
    /// When it cannot be read, or is no truth ledger.
    pub fn open(path: &Path) -> Result<Self, TruthError> {
        let io = |what| {
            move |error| TruthError::Io {
                path: path.to_owned(),
                what,
                error,
            }
        };
        let file = File::open(path).map_err(io("open"))?;
        let len = file.metadata().map_err(io("stat"))?.len();
        let mut file = BufReader::with_capacity(2 * TRUTH_BLOCK_BYTES_MAX, file);
        let foreign = |why| TruthError::Foreign {
            path: path.to_owned(),
            why,
        };
        if len < HEADER_BYTES as u64 {
            return Err(foreign("it is shorter than a header"));
        }
        let mut head = [0; HEADER_BYTES];
        file.read_exact(&mut head).map_err(io("read"))?;
        let header = decode_header(&head).map_err(foreign)?;
        let path = path.to_owned();
        Ok(Self {
            path,
            file,
            header,
            at: HEADER_BYTES as u64,
            len,
            ended: false,
        })
    }

    /// What stands in front.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Passes every event to `each`, and says how the ledger ends. `each` may refuse an event by
    /// saying what is wrong with it.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged before its end.
    pub fn read(
        mut self,
        mut each: impl FnMut(Event) -> Result<(), &'static str>,
    ) -> Result<Tail, TruthError> {
        let mut block = Vec::new();
        loop {
            let begin = self.at;
            let left = self.len.saturating_sub(begin);
            if left == 0 {
                return Ok(if self.ended { Tail::Whole } else { Tail::Open });
            }
            let torn = Tail::Torn {
                at: begin,
                bytes: left,
            };
            if self.ended {
                return Err(self.damaged(begin, "records follow the end"));
            }
            if left < BLOCK_HEAD_BYTES as u64 {
                return Ok(torn);
            }
            let (len, crc) = self.block_head()?;
            if left - (BLOCK_HEAD_BYTES as u64) < len as u64 && len <= TRUTH_BLOCK_BYTES_MAX {
                return Ok(torn);
            }
            if len == 0 || len > TRUTH_BLOCK_BYTES_MAX {
                return Err(self.damaged(begin, "the length of a block is impossible"));
            }
            block.resize(len, 0);
            self.fill(&mut block)?;
            if block_crc(&block) != crc {
                if self.at == self.len {
                    return Ok(torn);
                }
                return Err(self.damaged(begin, "the checksum of a block is wrong"));
            }
            self.ended = decode(&block, &mut each).map_err(|why| self.damaged(begin, why))?;
        }
    }

    fn block_head(&mut self) -> Result<(usize, u32), TruthError> {
        let (mut len, mut crc) = ([0; 4], [0; 4]);
        self.fill(&mut len)?;
        self.fill(&mut crc)?;
        Ok((u32::from_le_bytes(len) as usize, u32::from_le_bytes(crc)))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), TruthError> {
        self.at += bytes.len() as u64;
        let read = self.file.read_exact(bytes);
        read.map_err(|error| TruthError::Io {
            path: self.path.clone(),
            what: "read",
            error,
        })
    }

    fn damaged(&self, at: u64, why: &'static str) -> TruthError {
        TruthError::Damaged {
            path: self.path.clone(),
            at,
            why,
        }
    }
}

/// Passes the records of a whole block on; true when the end is among them.
fn decode(
    records: &[u8],
    each: &mut impl FnMut(Event) -> Result<(), &'static str>,
) -> Result<bool, &'static str> {
    let mut input = Input { rest: records };
    let (mut last_us, mut ended) = (0, false);
    while !input.rest.is_empty() {
        if ended {
            return Err("records follow the end");
        }
        let event = input.event(&mut last_us)?;
        ended = matches!(event, Event::End { .. });
        each(event)?;
    }
    Ok(ended)
}
