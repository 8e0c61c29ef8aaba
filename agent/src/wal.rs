//! The write-ahead log: messages as they came, durable before they are acknowledged.
//!
//! [`Batch`]es of records come from the sources over a queue bounded by bytes; one thread writes
//! them as frames, one `fdatasync` each; after it, and in log order, the sources hear that their
//! batch is durable, and the frame goes to the next stage. Nothing here knows what a payload means.

mod batch;
mod committer;
mod queue;
mod record;
mod replay;
mod stage;
mod wait;

pub use batch::{Batch, Durable};
#[cfg(any(test, feature = "world"))]
pub(crate) use committer::{Committer, Polled};
pub use queue::{Queue, Room, Tap, Tapped};
pub use record::{KINDS, Message, PubRel, Qos, Record, RecordError, RecordKind, Session, TooLarge};
pub use replay::{Replay, Replayed};
pub use stage::{Append, CommittedFrame, StorageState, Wal, WalError};
