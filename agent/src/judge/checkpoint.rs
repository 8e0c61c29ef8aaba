//! What the stage knows at one place of the log, as bytes: versioned, total on arbitrary ones.

use super::idle::Idle;
use super::incidents::Incidents;
use super::later::Later;
use super::over::Over;
use super::readings::Readings;
use super::series::Series;
use super::standing::Standings;
use super::storm::Storm;
use super::turns::Turns;
use super::units::Units;
use super::watched::Watched;
use super::{Judge, KernelClock, kept};
use crate::capture::Wanted;
use crate::configuration::{Configurations, InForce};
use crate::decode::Rows;
use crate::detect::{
    EventTime, Fast, GroupEngine, RuleEngine, RulesError, Settings, StateError, VibrationEngine,
    VibrationError, Windows,
};
use crate::marks::{Marks, MarksError};
use crate::seal::Origin;
use bytes::{Buf, BufMut};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tributary_protocol::ids::BufferId;

/// Of what is known and of how it is [packed](super::Known), which begin with it.
pub(super) const VERSION: u16 = 8;

/// Why bytes are no checkpoint of this stage.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Written by a version that this build does not know.
    #[error("checkpoint of detection of version {0}; this build reads version {VERSION}")]
    Version(u16),
    /// The marks in it.
    #[error("checkpoint of detection: {0}")]
    Marks(#[from] MarksError),
    /// Event time or windows in it.
    #[error("checkpoint of detection: {0}")]
    State(#[from] StateError),
    /// Rules in it.
    #[error("checkpoint of detection: {0}")]
    Rules(#[from] RulesError),
    /// Vibrations in it.
    #[error("checkpoint of detection: {0}")]
    Vibration(#[from] VibrationError),
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
        out.put_i64_le(self.received);
        kept::write_long_text(&self.series.settings.text(), out);
        self.configurations.in_force().write(out);
        self.marks.write_checkpoint(out);
        self.series.write_checkpoint(out);
        self.series.wanted.write(out);
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
        let received = input.try_get_i64_le().map_err(|_| field("time"))?;
        let text = kept::read_long_text(input).ok_or(field("settings"))?;
        let settings = Settings::parse(text).map_err(|_| field("settings"))?;
        let in_force = InForce::read(input).ok_or(field("decoding rules"))?;
        let marks = Marks::read_checkpoint(input)?;
        let mut series = Series::read_checkpoint(storage, settings, input)?;
        series.wanted = Wanted::read(input).ok_or(field("captures"))?;
        Ok(Self {
            marks,
            rows: Rows::new(),
            configurations: configurations(in_force),
            series,
            configured,
            received,
            position: Some(position),
            last_bytes: AtomicUsize::new(bytes.len()),
        })
    }
}

impl Series {
    fn write_checkpoint(&self, out: &mut Vec<u8>) {
        out.put_i64_le(self.greatest_time);
        self.kernel.write(out);
        self.storm.write(out);
        self.turns.write(out);
        self.standings.write(out);
        self.over.write(out);
        self.incidents.write(out);
        self.later.write(out);
        self.watched.write(out);
        self.idle.write(out);
        self.times
            .write_checkpoint(out, &|device| self.watched.device_name(device));
        self.fast.write(out, &|series| self.watched.names(series));
        self.readings.write(out, &self.fast.slots(), &|series| {
            self.watched.names(series)
        });
        self.windows
            .write_checkpoint(out, &|series| self.watched.names(series));
        self.units.write(out, &|series| self.watched.names(series));
        self.rules.write_checkpoint(out);
        self.vibration.write_checkpoint(out);
        self.groups.write_checkpoint(out);
    }

    fn read_checkpoint(
        storage: &[u8],
        settings: Settings,
        input: &mut &[u8],
    ) -> Result<Self, CheckpointError> {
        let field = CheckpointError::Field;
        let mut series = Self::new(storage, settings);
        series.greatest_time = input.try_get_i64_le().map_err(|_| field("greatest time"))?;
        series.kernel = KernelClock::read(input).ok_or(field("clock"))?;
        series.storm = Storm::read(input).ok_or(field("storm"))?;
        series.turns = Turns::read(input).ok_or(field("turns"))?;
        series.standings = Standings::read(input).ok_or(field("alerts"))?;
        series.over = Over::read(input).ok_or(field("alerts that are over"))?;
        series.incidents = Incidents::read(input).ok_or(field("incidents"))?;
        series.later = Later::read(input).ok_or(field("what is owed"))?;
        let most = series.settings.series_max;
        series.watched = Watched::read(most, input).ok_or(field("series"))?;
        let most = series.settings.series_kept_max;
        series.idle = Idle::read(most, input).ok_or(field("series that gave way"))?;
        let (watched, time) = (&series.watched, series.settings.time);
        series.times =
            EventTime::read_checkpoint(input, time, &mut |device| watched.device(device))?;
        series.fast = Fast::read(input, &mut |device, metric| watched.series(device, metric))?;
        series.readings = Readings::read(input, &mut |device, metric| {
            Some(watched.series(device, metric)?.0)
        })
        .ok_or(field("readings"))?;
        let windows = Arc::clone(&series.settings.windows);
        series.windows = Windows::read_checkpoint(input, windows, time, &mut |device, metric| {
            watched.series(device, metric)
        })?;
        series.units = Units::read(input, &mut |device, metric| {
            Some(watched.series(device, metric)?.0)
        })
        .ok_or(field("units"))?;
        // The rules are those that it was written with: none of their alerts is over.
        let rules = Arc::clone(&series.settings.rules);
        series.rules = RuleEngine::read_checkpoint(input, rules, &mut Vec::new())?;
        let vibration = Arc::clone(&series.settings.vibration);
        series.vibration = VibrationEngine::read_checkpoint(input, vibration)?;
        let groups = Arc::clone(&series.settings.groups);
        series.groups = GroupEngine::read_checkpoint(input, groups).ok_or(field("groups"))?;
        Ok(series)
    }
}

pub(super) fn read_origin(input: &mut &[u8]) -> Option<Origin> {
    let (buffer, rest) = input.split_first_chunk()?;
    let buffer = BufferId(*buffer);
    *input = rest;
    let number = input.try_get_u64_le().ok()?;
    Some(Origin { buffer, number })
}
