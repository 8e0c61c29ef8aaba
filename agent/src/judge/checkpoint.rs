//! What the stage knows at one place of the log, as bytes: versioned, total on arbitrary ones.

use super::series::Series;
use super::storm::Storm;
use super::watched::Watched;
use super::{Judge, kept};
use crate::configuration::{Configurations, InForce};
use crate::decode::Rows;
use crate::detect::Settings;
use crate::marks::{Marks, MarksError};
use crate::seal::Origin;
use bytes::{Buf, BufMut};
use tributary_protocol::ids::BufferId;

const VERSION: u16 = 1;

/// Why bytes are no checkpoint of this stage.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Written by a version that this build does not know.
    #[error("checkpoint of detection of version {0}; this build reads version {VERSION}")]
    Version(u16),
    /// The marks in it.
    #[error("checkpoint of detection: {0}")]
    Marks(#[from] MarksError),
    /// Something else in it.
    #[error("checkpoint of detection: its {0} can't be read")]
    Field(&'static str),
}

impl Judge {
    /// Appends what is known; `None`, and nothing is appended, before the first record.
    pub fn write_checkpoint(&self, out: &mut Vec<u8>) -> Option<Origin> {
        let position = self.position?;
        out.put_u16_le(VERSION);
        out.put_slice(&position.buffer.0);
        out.put_u64_le(position.number);
        out.put_u8(u8::from(self.configured));
        kept::write_text(&self.series.settings.text(), out);
        self.configurations.in_force().write(out);
        self.marks.write_checkpoint(out);
        self.series.storm.write(out);
        self.series.watched.write(out);
        Some(position)
    }

    /// The stage as it was when `bytes` were written. `configurations` knows what is configured
    /// now.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read_checkpoint(
        storage: &[u8],
        configurations: impl FnOnce(InForce) -> Configurations,
        bytes: &[u8],
    ) -> Result<Self, CheckpointError> {
        let mut rest = bytes;
        let input = &mut rest;
        let field = CheckpointError::Field;
        let version = input.try_get_u16_le().map_err(|_| field("version"))?;
        if version != VERSION {
            return Err(CheckpointError::Version(version));
        }
        let position = read_origin(input).ok_or(field("position"))?;
        let configured = input.try_get_u8().map_err(|_| field("state"))? != 0;
        let text = kept::read_text(input).ok_or(field("settings"))?;
        let settings = Settings::parse(text).map_err(|_| field("settings"))?;
        let in_force = InForce::read(input).ok_or(field("decoding rules"))?;
        let marks = Marks::read_checkpoint(input)?;
        let storm = Storm::read(input).ok_or(field("storm"))?;
        let watched = Watched::read(settings.series_max, input).ok_or(field("series"))?;
        let mut series = Series::new(storage, settings);
        (series.storm, series.watched) = (storm, watched);
        Ok(Self {
            marks,
            rows: Rows::new(),
            configurations: configurations(in_force),
            series,
            configured,
            position: Some(position),
        })
    }
}

fn read_origin(input: &mut &[u8]) -> Option<Origin> {
    let (buffer, rest) = input.split_first_chunk()?;
    let buffer = BufferId(*buffer);
    *input = rest;
    let number = input.try_get_u64_le().ok()?;
    Some(Origin { buffer, number })
}
