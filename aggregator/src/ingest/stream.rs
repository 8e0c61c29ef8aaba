//! One unidirectional stream, which carries one batch: read under a limit of bytes, a time
//! between two pieces, and a budget. It looks at the frame's header for the length, and at nothing
//! else.

use crate::limits::STREAM_GAP_SECONDS_MAX;
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
    /// It stands still.
    #[error("nothing came of a batch for {STREAM_GAP_SECONDS_MAX} s")]
    Slow,
}

/// Where the pieces of a stream come from.
trait Pieces {
    /// The next piece, of at most `bytes`; nothing at the end.
    async fn next(&mut self, bytes: usize) -> Result<Option<Bytes>, StreamError>;
}

impl Pieces for quinn::RecvStream {
    async fn next(&mut self, bytes: usize) -> Result<Option<Bytes>, StreamError> {
        let chunk = self.read_chunk(bytes, true).await;
        let chunk = chunk.map_err(|_| StreamError::Reset)?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }
}

/// Reads a stream to its end. Until it is there, it takes from the connection's own `share` only:
/// whoever announces batches and does not send them holds up nobody else. What is whole waits for
/// its place in the `budget` of all, which those who have one leave without the network's doing.
///
/// # Errors
/// Why it gave nothing.
pub async fn read(
    stream: quinn::RecvStream,
    share: Arc<Semaphore>,
    budget: Arc<Semaphore>,
) -> Result<ReadStream, StreamError> {
    read_whole(stream, share, budget).await
}

async fn read_whole(
    mut stream: impl Pieces,
    share: Arc<Semaphore>,
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
    let take = |from: Arc<Semaphore>| from.acquire_many_owned(need as u32);
    let _of_share = take(share).await.map_err(|_| StreamError::Reset)?;
    fill(&mut stream, &mut bytes, need).await?;
    if piece(&mut stream, 1).await?.is_some() {
        return Err(StreamError::Trailing);
    }
    let permit = take(budget).await.map_err(|_| StreamError::Reset)?;
    Ok(ReadStream {
        bytes: bytes.freeze(),
        permit,
    })
}

/// Reads until there are `need` bytes.
async fn fill(
    stream: &mut impl Pieces,
    bytes: &mut BytesMut,
    need: usize,
) -> Result<(), StreamError> {
    while bytes.len() < need {
        let have = bytes.len();
        let piece = piece(stream, need - have).await?;
        let piece = piece.ok_or(StreamError::Truncated { have, need })?;
        bytes.extend_from_slice(&piece);
    }
    Ok(())
}

/// The next piece, if it comes in time: a slow link is no fault, one that stands still is.
async fn piece(stream: &mut impl Pieces, bytes: usize) -> Result<Option<Bytes>, StreamError> {
    let limit = Duration::from_secs(STREAM_GAP_SECONDS_MAX);
    let piece = tokio::time::timeout(limit, stream.next(bytes)).await;
    piece.map_err(|_| StreamError::Slow)?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tributary_protocol::frame::{FrameKind, frame};

    /// A link that brings so many bytes at a time, and so often.
    struct Link {
        bytes: Bytes,
        at_a_time: usize,
        seconds: u64,
    }

    impl Pieces for Link {
        async fn next(&mut self, bytes: usize) -> Result<Option<Bytes>, StreamError> {
            // tidy: sleep because the clock is paused: it is the link that is slow.
            tokio::time::sleep(Duration::from_secs(self.seconds)).await;
            let bytes = bytes.min(self.at_a_time).min(self.bytes.len());
            Ok((bytes > 0).then(|| self.bytes.split_to(bytes)))
        }
    }

    async fn over(seconds: u64) -> Result<ReadStream, StreamError> {
        let link = Link {
            bytes: frame(FrameKind::Batch, &[7; 60_000]).unwrap(),
            at_a_time: 1_000,
            seconds,
        };
        let share = Arc::new(Semaphore::new(BATCH_BYTES_MAX));
        let budget = Arc::new(Semaphore::new(BATCH_BYTES_MAX));
        let read = read_whole(link, Arc::clone(&share), budget).await;
        assert_eq!(share.available_permits(), BATCH_BYTES_MAX);
        read
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_link_is_no_fault_and_one_that_stands_still_is() {
        let read = over(STREAM_GAP_SECONDS_MAX - 1).await.unwrap();
        assert_eq!(read.bytes.len(), HEADER_BYTES + 60_000);
        let error = over(STREAM_GAP_SECONDS_MAX + 1).await.unwrap_err();
        assert!(matches!(error, StreamError::Slow), "{error}");
    }
}
