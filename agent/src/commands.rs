//! Commands of the binary that look at an agent's data, or ask a running agent for something. They
//! say what they have to say to a writer, and how it went as an exit code.

pub mod alert;
pub mod buffer;
pub mod deadletter;
pub mod detect;
pub mod status;
pub mod user;
