//! The session and the ledger under a model checker: every order of everything that can happen to
//! one agent with a few batches, not some of them by chance.
//!
//! It runs the real `Sender`, `Receiver` and `Ledger` of `tributary-protocol`. Around them is made
//! up what a shell does: a spool, connections, a journal. What it has not: content, series, files,
//! time but for one wait, disks that lie, and more of anything than its scope says. Decision 0026.
#![forbid(unsafe_code)]

mod agent;
pub mod check;
mod heal;
mod item;
pub mod limits;
mod link;
mod model;
mod rule;
pub mod scope;
mod seen;
mod site;
mod spool;
mod world;

pub use model::{Counts, Protocol};
pub use rule::Rule;
pub use seen::Happened;
pub use world::{Action, World};
