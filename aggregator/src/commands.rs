//! Commands of the binary that look at an aggregator's data. They say what they have to say to a
//! writer, and how it went as an exit code.

pub mod audit;
pub mod quarantine;
