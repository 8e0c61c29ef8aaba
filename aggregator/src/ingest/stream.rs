//! One unidirectional stream, which carries one batch: read under a limit, a time and a budget.
//! It looks at the frame's header for the length, and at nothing else.

use crate::limits::STREAM_SECONDS_MAX;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tributary_protocol::frame::{HEADER_BYTES, LENGTH_BYTES, LENGTH_OFFSET};
use tributary_protocol::limits::BATCH_BYTES_MAX;

/// Bytes of a stream as they came, and their share of the budget.
#[derive(Debug)]
pub struct ReadStream {
    /// A frame, not yet verified.
    pub bytes: Bytes,
    /// Given back when the batch is dealt with.
    pub permit: OwnedSemaphorePermit,
}

/// Why a stream gave no batch.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The peer gave it up, or the connection is gone: nothing to say about it.
    #[error("given up by the agent")]
    Reset,
    /// It ended too early.
    #[error("a batch cut short: {have} of {need} bytes came")]
    Truncated {
        /// What came.
        have: usize,
        /// What its header announces.
        need: usize,
    },
    /// Longer than any batch.
    #[error("a batch of {0} bytes; at most {BATCH_BYTES_MAX} are taken")]
    TooLong(usize),
    /// Bytes behind the frame.
    #[error("bytes after the end of a batch")]
    Trailing,
    /// Too slow.
    #[error("a batch took longer than {STREAM_SECONDS_MAX} s")]
    Slow,
}

/// Reads a stream to its end.
///
/// # Errors
/// Why it gave nothing.
pub async fn read(
    stream: quinn::RecvStream,
    budget: Arc<Semaphore>,
) -> Result<ReadStream, StreamError> {
    let limit = Duration::from_secs(STREAM_SECONDS_MAX);
    tokio::time::timeout(limit, read_whole(stream, budget))
        .await
        .map_err(|_| StreamError::Slow)?
}

async fn read_whole(
    mut stream: quinn::RecvStream,
    budget: Arc<Semaphore>,
) -> Result<ReadStream, StreamError> {
    let mut bytes = BytesMut::with_capacity(4 * 1024);
    fill(&mut stream, &mut bytes, HEADER_BYTES).await?;
    let length = bytes
        .get(LENGTH_OFFSET..LENGTH_OFFSET + LENGTH_BYTES)
        .and_then(|field| field.try_into().ok())
        .map_or(usize::MAX, |field| u32::from_le_bytes(field) as usize);
    if length > BATCH_BYTES_MAX {
        return Err(StreamError::TooLong(length));
    }
    let need = HEADER_BYTES + length;
    // The budget is asked for before the bytes; memory grows only as they come.
    let permit = budget
        .acquire_many_owned(need as u32)
        .await
        .map_err(|_| StreamError::Reset)?;
    fill(&mut stream, &mut bytes, need).await?;
    match stream.read_chunk(1, true).await {
        Ok(None) if bytes.len() == need => Ok(ReadStream {
            bytes: bytes.freeze(),
            permit,
        }),
        Ok(_) => Err(StreamError::Trailing),
        Err(_) => Err(StreamError::Reset),
    }
}

/// Reads until there are at least `need` bytes.
async fn fill(
    stream: &mut quinn::RecvStream,
    bytes: &mut BytesMut,
    need: usize,
) -> Result<(), StreamError> {
    while bytes.len() < need {
        let have = bytes.len();
        let chunk = stream
            .read_chunk(need - have, true)
            .await
            .map_err(|_| StreamError::Reset)?;
        let chunk = chunk.ok_or(StreamError::Truncated { have, need })?;
        bytes.extend_from_slice(&chunk.bytes);
    }
    Ok(())
}
