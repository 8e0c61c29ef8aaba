//! Windows that are being filled as bytes, for the checkpoint: by names, versioned, little endian,
//! total on arbitrary bytes.

use super::engine::VibrationEngine;
use super::spec::VibrationSpecs;
use super::window::Window;
use crate::detect::watched::Subject;
use crate::limits::VIBRATION_WINDOW;
use bytes::{Buf, BufMut, TryGetError};
use std::sync::Arc;
use tributary_protocol::ids::is_name;

const VERSION: u16 = 1;

/// Why bytes are no windows.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VibrationError {
    /// The bytes end too early.
    #[error("windows of vibration cut short")]
    Truncated,
    /// Written by a version that this build does not know.
    #[error("windows of vibration of version {0}; this build reads version {VERSION}")]
    Version(u16),
    /// A field holds what it may not.
    #[error("windows of vibration: bad {0}")]
    Field(&'static str),
}

impl From<TryGetError> for VibrationError {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

impl VibrationEngine {
    /// Appends the windows to `out`.
    pub fn write_checkpoint(&self, out: &mut Vec<u8>) {
        out.put_u16_le(VERSION);
        out.put_u32_le(self.names.len() as u32);
        for wave in self.names.values().filter_map(|at| self.waves.at(*at)) {
            for name in [wave.subject.device(), wave.subject.metric()] {
                out.put_u16_le(name.len() as u16);
                out.put_slice(name.as_bytes());
            }
            out.put_i64_le(wave.window.first);
            out.put_i64_le(wave.window.last);
            out.put_u32_le(wave.window.samples.len() as u32);
            wave.window
                .samples
                .iter()
                .for_each(|sample| out.put_f64_le(*sample));
        }
    }

    /// The windows at the front of `input`, which is moved behind them, for what is configured
    /// now: a window that is as long as one may be, or longer, begins anew.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read_checkpoint(
        input: &mut &[u8],
        specs: Arc<VibrationSpecs>,
    ) -> Result<Self, VibrationError> {
        let version = input.try_get_u16_le()?;
        if version != VERSION {
            return Err(VibrationError::Version(version));
        }
        let mut engine = Self::new(Arc::clone(&specs));
        for _ in 0..input.try_get_u32_le()? {
            let (device, metric) = (name(input)?, name(input)?);
            let (first, last) = (input.try_get_i64_le()?, input.try_get_i64_le()?);
            let count = u64::from(input.try_get_u32_le()?);
            if count > VIBRATION_WINDOW.2 {
                return Err(VibrationError::Field("count of samples"));
            }
            let mut samples = Vec::new();
            for _ in 0..count {
                samples.push(input.try_get_f64_le()?);
            }
            let mut window = Window {
                samples,
                first,
                last,
            };
            let subject = Subject::new(device, metric);
            if engine.names.contains_key(subject.text()) {
                return Err(VibrationError::Field("series"));
            }
            let Some(spec) = specs.find(device, metric) else {
                continue;
            };
            if specs
                .specs
                .get(spec)
                .is_none_or(|spec| window.samples.len() >= spec.window)
            {
                window.clear();
            }
            let _ = engine.add(subject, spec, window);
        }
        Ok(engine)
    }
}

fn name<'a>(input: &mut &'a [u8]) -> Result<&'a str, VibrationError> {
    let length = usize::from(input.try_get_u16_le()?);
    let (name, rest) = input
        .split_at_checked(length)
        .ok_or(VibrationError::Truncated)?;
    *input = rest;
    let name = std::str::from_utf8(name).map_err(|_| VibrationError::Field("name"))?;
    match is_name(name) {
        true => Ok(name),
        false => Err(VibrationError::Field("name")),
    }
}
