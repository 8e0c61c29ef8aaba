//! Fan-out: what is durable in the journal, handed to every sink in the journal's order, each at
//! its own pace and exactly once.
//!
//! A sink keeps its position inside itself and moves it in the same step as its rows. So whatever
//! fails is answered in one way: the sink is opened anew, says where it stands, and goes on from
//! there. What that means for a chunk under way is decided in [`courier`], which touches nothing.
//! Nothing here acknowledges anything, and no sink waits for another.

pub mod chunk;
pub mod sink;

pub mod backoff;
pub mod courier;
pub mod lag;
pub mod sift;

pub mod status;
pub mod tap;

pub mod run;

pub mod postgres;

pub mod fed;

pub use chunk::Chunk;
pub use sink::{Sink, SinkError, Standing};
pub use status::SinkStatus;
