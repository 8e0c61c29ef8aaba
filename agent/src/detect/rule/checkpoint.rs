//! What rules remember as bytes, for the checkpoint: by names, versioned, little endian, total on
//! arbitrary bytes.

use super::due::NEVER;
use super::engine::RuleEngine;
use super::event::{RuleEvent, ended};
use super::expression::{Inputs, PANES, Pane, Panes};
use super::memory::{Cell, Clock, Memory, Rhythm};
use super::run::Run;
use super::slope::Slope;
use super::state::{Finding, State};
use super::{Kind, Rules, Severity};
use crate::detect::watched::Subject;
use crate::limits::{RATE_POINTS, RULE_NAME_BYTES_MAX};
use bytes::{Buf, BufMut, TryGetError};
use std::sync::Arc;
use tributary_protocol::limits::NAME_BYTES_MAX;

const VERSION: u16 = 2;

/// Flags of a state.
const RAISED: u8 = 1;
const JUDGED: u8 = 2;
const HELD: u8 = 4;
const BY_EVENT: u8 = 8;
const RUNS: u8 = 16;

/// Why bytes are nothing that rules remember.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RulesError {
    /// The bytes end too early.
    #[error("what rules remember is cut short")]
    Truncated,
    /// Written by a version that this build does not know.
    #[error("what rules remember is of version {0}; this build reads version {VERSION}")]
    Version(u16),
    /// A field holds what it may not.
    #[error("what rules remember: bad {0}")]
    Field(&'static str),
}

impl From<TryGetError> for RulesError {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

impl RuleEngine {
    /// Appends what is remembered to `out`: equal engines give equal bytes.
    pub fn write_checkpoint(&self, out: &mut Vec<u8>) {
        out.put_u16_le(VERSION);
        out.put_i64_le(self.now);
        out.put_i64_le(self.zero);
        out.put_u64_le(self.serial);
        out.put_u32_le(self.names.len() as u32);
        for channel in self.names.values().filter_map(|at| self.channels.at(*at)) {
            put_text(out, channel.subject.device());
            put_text(out, channel.subject.metric());
            out.put_u64_le(channel.forgotten);
        }
        let mut states: Vec<&State> = self.states.iter().map(|(_, state)| state).collect();
        states.sort_by_key(|state| (state.rule, &state.subject));
        out.put_u32_le(states.len() as u32);
        for state in states {
            if let Some(rule) = self.rules.rule(state.rule) {
                put_text(out, &rule.name);
                out.put_slice(&rule.hash);
                out.put_u8(rule.severity as u8);
                put_state(out, state);
            }
        }
    }

    /// What stands at the front of `input`, which is moved behind it, for the rules that hold
    /// now. Alerts of rules that do not are over, which `out` says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read_checkpoint(
        input: &mut &[u8],
        rules: Arc<Rules>,
        out: &mut Vec<RuleEvent>,
    ) -> Result<Self, RulesError> {
        let version = input.try_get_u16_le()?;
        if version != VERSION {
            return Err(RulesError::Version(version));
        }
        let mut engine = Self::new(Arc::clone(&rules));
        engine.now = input.try_get_i64_le()?;
        engine.zero = input.try_get_i64_le()?;
        let serial = input.try_get_u64_le()?;
        // One number for each series that ever came.
        if serial > u64::MAX / 2 {
            return Err(RulesError::Field("count of series"));
        }
        for _ in 0..input.try_get_u32_le()? {
            let device = text(input, NAME_BYTES_MAX)?;
            let metric = text(input, NAME_BYTES_MAX)?;
            let forgotten = input.try_get_u64_le()?;
            if forgotten > serial || device.contains('\0') || metric.contains('\0') {
                return Err(RulesError::Field("series"));
            }
            if engine.names.contains_key(&*Subject::key(device, metric)) {
                return Err(RulesError::Field("series"));
            }
            // Other rules may be for fewer series, or have no room for so many.
            if let Some(at) = engine.watch(device, metric) {
                let restored = engine.restore_forgotten(at, forgotten);
                restored.ok_or(RulesError::Field("series"))?;
            }
        }
        for _ in 0..input.try_get_u32_le()? {
            let name = text(input, RULE_NAME_BYTES_MAX)?;
            let mut hash = [0; 16];
            input.try_copy_to_slice(&mut hash)?;
            let severity = severity(input.try_get_u8()?)?;
            let mut state = state(input)?;
            let place = rules.find(name, &hash);
            let at = place.and_then(|place| {
                state.rule = place;
                let fits = fits(&rules.rule(place)?.kind, &state.memory);
                engine.state_of(place, &state.subject).filter(|_| fits)
            });
            match (at, state.end(engine.now)) {
                (Some(at), _) => engine.restore_state(at, state),
                (None, Some(told)) => {
                    let told = (&told, engine.zero);
                    out.push(ended(&name.into(), severity, &state, told));
                }
                (None, None) => {}
            }
        }
        engine.serial = engine.serial.max(serial);
        engine.tally();
        Ok(engine)
    }

    /// Where the state of a rule about `subject` stands.
    fn state_of(&self, rule: u16, subject: &Subject) -> Option<u32> {
        let joint = self.joint.get(usize::from(rule))?.get(subject.text());
        joint.copied().or_else(|| {
            let channel = self.channels.at(*self.names.get(subject.text())?)?;
            let is_of = |place: &u32| self.states.at(*place).is_some_and(|s| s.rule == rule);
            channel.feeds.iter().map(|feed| feed.state).find(is_of)
        })
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u16_le(text.len() as u16);
    out.put_slice(text.as_bytes());
}

fn text<'a>(input: &mut &'a [u8], most: usize) -> Result<&'a str, RulesError> {
    let length = usize::from(input.try_get_u16_le()?);
    if length > most {
        return Err(RulesError::Field("length of a name"));
    }
    let (text, rest) = input
        .split_at_checked(length)
        .ok_or(RulesError::Truncated)?;
    *input = rest;
    std::str::from_utf8(text).map_err(|_| RulesError::Field("name"))
}

fn severity(byte: u8) -> Result<Severity, RulesError> {
    let known = Severity::NAMES.iter().map(|(_, severity)| *severity);
    known
        .into_iter()
        .find(|severity| *severity as u8 == byte)
        .ok_or(RulesError::Field("severity"))
}

fn put_state(out: &mut Vec<u8>, state: &State) {
    put_text(out, state.subject.device());
    put_text(out, state.subject.metric());
    put_text(out, &state.unit);
    let flags = [
        (state.raised, RAISED),
        (state.judged, JUDGED),
        (state.held, HELD),
        (state.clock.by_event, BY_EVENT),
        (state.clock.runs, RUNS),
    ];
    out.put_u8(
        flags
            .iter()
            .map(|(is_so, flag)| u8::from(*is_so) * flag)
            .sum(),
    );
    for time in [
        state.clock.time,
        state.clock.received,
        state.since,
        state.raised_at,
    ] {
        out.put_i64_le(time);
    }
    for number in [
        state.finding.value,
        state.finding.measured,
        state.finding.limit,
    ] {
        out.put_f64_le(number);
    }
    put_memory(out, &state.memory);
}

fn state(input: &mut &[u8]) -> Result<State, RulesError> {
    let (device, metric) = (text(input, NAME_BYTES_MAX)?, text(input, NAME_BYTES_MAX)?);
    let subject = Subject::new(device, metric);
    let unit = text(input, NAME_BYTES_MAX)?.into();
    let flags = input.try_get_u8()?;
    let is = |flag: u8| flags & flag != 0;
    let mut times = [0; 4];
    for time in &mut times {
        *time = input.try_get_i64_le()?;
    }
    let [time, received, since, raised_at] = times;
    Ok(State {
        rule: 0,
        raised: is(RAISED),
        judged: is(JUDGED),
        held: is(HELD),
        clock: Clock {
            time,
            received,
            by_event: is(BY_EVENT),
            runs: is(RUNS),
        },
        since,
        raised_at,
        entered: NEVER,
        finding: Finding {
            value: input.try_get_f64_le()?,
            measured: input.try_get_f64_le()?,
            limit: input.try_get_f64_le()?,
        },
        subject,
        unit,
        feeds: 0,
        memory: memory(input)?,
    })
}

fn put_memory(out: &mut Vec<u8>, memory: &Memory) {
    match memory {
        Memory::Nothing => out.put_u8(0),
        Memory::Slope(slope) => {
            out.put_u8(1);
            out.put_u8(slope.points().len() as u8);
            for (time, value) in slope.points() {
                out.put_i64_le(*time);
                out.put_f64_le(*value);
            }
        }
        Memory::Run(run) => {
            out.put_u8(2);
            out.put_f64_le(run.value);
            out.put_i64_le(run.began);
            out.put_u32_le(run.readings);
        }
        Memory::Rhythm(rhythm) => {
            out.put_u8(3);
            out.put_f64_le(rhythm.interval);
            out.put_u32_le(rhythm.count);
            out.put_u8(u8::from(rhythm.away));
        }
        Memory::Pair(cells) => {
            out.put_u8(4);
            cells.iter().for_each(|cell| put_cell(out, cell));
        }
        Memory::Inputs(inputs) => {
            out.put_u8(5);
            out.put_u8(inputs.cells.len() as u8);
            for (cell, previous) in inputs.cells.iter().zip(&inputs.previous) {
                put_cell(out, cell);
                out.put_f64_le(*previous);
            }
            out.put_u8(inputs.windows.len() as u8);
            inputs
                .windows
                .iter()
                .for_each(|panes| put_panes(out, panes));
        }
    }
}

fn memory(input: &mut &[u8]) -> Result<Memory, RulesError> {
    Ok(match input.try_get_u8()? {
        0 => Memory::Nothing,
        1 => {
            let count = usize::from(input.try_get_u8()?);
            if count > RATE_POINTS {
                return Err(RulesError::Field("count of points"));
            }
            let mut points = Vec::new();
            for _ in 0..count {
                points.push((input.try_get_i64_le()?, input.try_get_f64_le()?));
            }
            let slope = Slope::of(&points).ok_or(RulesError::Field("points"))?;
            Memory::Slope(Box::new(slope))
        }
        2 => Memory::Run(Run {
            value: input.try_get_f64_le()?,
            began: input.try_get_i64_le()?,
            readings: input.try_get_u32_le()?,
        }),
        3 => Memory::Rhythm(Rhythm {
            interval: input.try_get_f64_le()?,
            count: input.try_get_u32_le()?,
            away: input.try_get_u8()? != 0,
        }),
        4 => Memory::Pair(Box::new([cell(input)?, cell(input)?])),
        5 => {
            let (mut cells, mut previous, mut windows) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..input.try_get_u8()? {
                cells.push(cell(input)?);
                previous.push(input.try_get_f64_le()?);
            }
            for _ in 0..input.try_get_u8()? {
                windows.push(panes(input)?);
            }
            Memory::Inputs(Box::new(Inputs {
                cells: cells.into(),
                previous: previous.into(),
                windows: windows.into(),
            }))
        }
        _ => return Err(RulesError::Field("kind of state")),
    })
}

fn put_cell(out: &mut Vec<u8>, cell: &Cell) {
    out.put_u8(u8::from(cell.there) + 2 * u8::from(cell.trusted));
    out.put_f64_le(cell.value);
    out.put_i64_le(cell.event_time);
    out.put_i64_le(cell.received);
}

fn cell(input: &mut &[u8]) -> Result<Cell, RulesError> {
    let flags = input.try_get_u8()?;
    Ok(Cell {
        there: flags & 1 != 0,
        trusted: flags & 2 != 0,
        value: input.try_get_f64_le()?,
        event_time: input.try_get_i64_le()?,
        received: input.try_get_i64_le()?,
    })
}

/// Whether a rule of this kind remembers this.
fn fits(kind: &Kind, memory: &Memory) -> bool {
    match (Memory::new(kind), memory) {
        (Memory::Inputs(new), Memory::Inputs(read)) => {
            new.cells.len() == read.cells.len() && new.windows.len() == read.windows.len()
        }
        (new, read) => std::mem::discriminant(&new) == std::mem::discriminant(read),
    }
}

fn put_panes(out: &mut Vec<u8>, panes: &Panes) {
    out.put_u8(u8::from(panes.begun));
    out.put_i64_le(panes.newest);
    for pane in &panes.panes {
        out.put_u32_le(pane.count);
        for number in [pane.mean, pane.squares, pane.least, pane.greatest] {
            out.put_f64_le(number);
        }
    }
}

fn panes(input: &mut &[u8]) -> Result<Panes, RulesError> {
    let (begun, newest) = (input.try_get_u8()? != 0, input.try_get_i64_le()?);
    let mut panes = [Pane::EMPTY; PANES];
    for pane in &mut panes {
        *pane = Pane {
            count: input.try_get_u32_le()?,
            mean: input.try_get_f64_le()?,
            squares: input.try_get_f64_le()?,
            least: input.try_get_f64_le()?,
            greatest: input.try_get_f64_le()?,
        };
    }
    Ok(Panes {
        newest,
        panes,
        begun,
    })
}
