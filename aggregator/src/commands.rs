//! Commands of the binary that look at an aggregator's data, or mend it. They say what they have to
//! say to a writer, and how it went as an exit code.

pub mod audit;
pub mod quarantine;
pub mod restore;
