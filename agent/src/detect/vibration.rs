//! What a window of raw samples of a vibration says: how strong it is, how spiky, at which
//! frequencies; and where the shaft's rate is known, how much of it is at that rate and at the
//! rates at which a damaged bearing knocks. `docs/detection.md`, Vibration.
//!
//! What comes out are numbers that are series of their own. Whether one of them is unusual others
//! judge.

mod bearing;
mod checkpoint;
mod engine;
mod moments;
mod spec;
mod spectrum;
mod window;

pub use checkpoint::VibrationError;
pub use engine::{VibrationCounts, VibrationEngine, VibrationFeatures};
pub use spec::VibrationSpecs;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
