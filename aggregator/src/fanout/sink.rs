//! What a sink has to be able to do. How a target does it, and its guarantee, is the sink's affair.

use super::chunk::Chunk;
use std::future::Future;
use std::ops::Range;
use tributary_protocol::ids::LogId;

/// Where a sink stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Every journal entry below is in the sink, and none from here on.
    pub next: u64,
}

/// Why a sink did not do what it was asked to. After each of them it is opened anew: whether the
/// step happened all the same is read from its position, and not guessed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SinkError {
    /// Another try may help: no connection, no answer, no room.
    #[error("{0}")]
    Again(String),
    /// The target does not take these rows as they are; others it would.
    #[error("{0}")]
    Refused(String),
    /// Somebody has to do something at the target: a password, a right, a schema. It is tried
    /// again all the same, seldom: once that is done, it goes on by itself.
    #[error("{0}")]
    Stuck(String),
    /// Another process has opened the sink for this journal since. This one ends.
    #[error("{0}")]
    Fenced(String),
}

/// A target of readings.
///
/// Calls are never cancelled half-way by the caller but where one takes longer than
/// [`SINK_CALL_SECONDS_MAX`](crate::limits::SINK_CALL_SECONDS_MAX): then it is dropped, and the
/// sink opened anew.
pub trait Sink: Send {
    /// Connects, takes the cursor of this journal away from whoever had it, and reads it, in this
    /// order. A journal that the sink has not met begins at 0: it never inherits another's.
    ///
    /// # Errors
    /// See [`SinkError`].
    fn open(&mut self, log: LogId) -> impl Future<Output = Result<Standing, SinkError>> + Send;

    /// Writes the rows of a chunk, but those that were [sifted out](Chunk::refused), what was
    /// sifted out with its reason, and the new position, in one step: all of it, or nothing.
    ///
    /// # Errors
    /// See [`SinkError`]; the step may have happened.
    fn deliver(&mut self, chunk: &Chunk) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Whether the target would take these rows of a chunk, by their places. It changes nothing.
    ///
    /// # Errors
    /// [`SinkError::Refused`] if it would not.
    fn attempt(
        &mut self,
        chunk: &Chunk,
        rows: Range<usize>,
    ) -> impl Future<Output = Result<(), SinkError>> + Send;
}
