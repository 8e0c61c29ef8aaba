//! The column of received times, told as delays after the event times.
//!
//! Rows of one message share both, so a row is told against its twin in the run before. Where an
//! agent stamps many messages at once, the stamps are listed, and a row names the first that fits
//! or how many to pass. Event times are known when this is read.

use super::distinct::Distinct;
use super::order::Run;
use super::symbols::{Flaw, SymbolReader, SymbolWriter, cost};
use super::times::{divide, tick_of};
use crate::reading::Row;

/// How received times are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// The same delay for all rows.
    Constant,
    /// Each row's delay against the least one.
    FromLeast,
    /// Each row's delay against the one before.
    FromLast,
    /// Each row's place in a list of stamps.
    Stamped,
}

impl Form {
    const ALL: [Self; 4] = [
        Self::Constant,
        Self::FromLeast,
        Self::FromLast,
        Self::Stamped,
    ];
}

/// Codes of form and tick together.
const CODES: usize = Form::ALL.len() * 3;

/// Finds the row of the run before that has the same event time: of the same message, mostly.
struct Twins<'a> {
    /// Times of the run before that are not yet passed, and where they begin.
    before: &'a [u64],
    at: usize,
}

impl<'a> Twins<'a> {
    fn new(times: &'a [u64], before: Option<&Run>) -> Self {
        let (start, end) = before.map_or((0, 0), |run| (run.start, run.end));
        Self {
            before: times.get(start..end).unwrap_or_default(),
            at: start,
        }
    }

    #[inline]
    fn of(&mut self, time: u64) -> Option<usize> {
        while let Some((first, rest)) = self.before.split_first() {
            if *first > time {
                return None;
            }
            self.before = rest;
            self.at += 1;
            if *first == time {
                return Some(self.at - 1);
            }
        }
        None
    }
}

/// The first stamp at or after this time.
fn first_fit(stamps: &[u64], time: u64) -> u64 {
    stamps.partition_point(|stamp| *stamp < time) as u64
}

/// Writes the column.
#[derive(Default)]
pub(super) struct DelayWriter {
    /// Delays against the least one, in ticks.
    delays: Vec<u64>,
    /// For each row, the place of its twin; itself: it has none.
    twins: Vec<usize>,
    /// Event times, and stamps less the least delay, after the batch's first event time.
    events: Vec<u64>,
    stamps: Vec<u64>,
    distinct: Distinct,
}

impl DelayWriter {
    /// Writes the received times of `rows`; `times` are their event times in any unit.
    pub fn write(
        &mut self,
        rows: &[Row],
        runs: &[Run],
        times: &[u64],
        first: i64,
        out: &mut SymbolWriter,
    ) {
        let delay = |row: &Row| row.meta.received_time.wrapping_sub(row.meta.event_time);
        let least = rows.iter().map(delay).min().unwrap_or(0);
        self.delays.clear();
        self.delays
            .extend(rows.iter().map(|row| delay(row).wrapping_sub(least) as u64));
        if self.delays.iter().all(|delay| *delay == 0) {
            out.put(Form::Constant as u64);
            out.put_signed(least);
            return;
        }
        self.find_twins(runs, times);
        let (form, plain) = self.cheaper();
        let form = if self.stamp(rows, first, plain) {
            Form::Stamped
        } else {
            form
        };
        let numbers = if form == Form::Stamped {
            &mut self.distinct.levels
        } else {
            &mut self.delays
        };
        let tick = divide(numbers);
        out.put(form as u64 + (Form::ALL.len() * tick) as u64);
        out.put_signed(least);
        if form == Form::Stamped {
            self.write_stamps(tick, out);
        } else {
            self.write_delays(form, out);
        }
    }

    fn find_twins(&mut self, runs: &[Run], times: &[u64]) {
        self.twins.clear();
        let mut before = None;
        for run in runs {
            let mut twins = Twins::new(times, before);
            let own = times.get(run.start..run.end).unwrap_or_default();
            let found = own
                .iter()
                .zip(run.start..)
                .map(|(time, at)| twins.of(*time).unwrap_or(at));
            self.twins.extend(found);
            before = Some(run);
        }
    }

    /// The cheaper of both plain forms, and the bits that rows without a twin take in it.
    fn cheaper(&self) -> (Form, u32) {
        let (mut from_least, mut from_last, mut last) = (0, 0, 0);
        for (at, (delay, twin)) in self.delays.iter().zip(&self.twins).enumerate() {
            if *twin == at {
                from_least += 64 - delay.leading_zeros();
                from_last += cost(delay.wrapping_sub(last) as i64);
            }
            last = *delay;
        }
        match from_last < from_least {
            true => (Form::FromLast, from_last),
            false => (Form::FromLeast, from_least),
        }
    }

    /// Whether a list of stamps takes fewer bits than `plain`; it is ready then.
    fn stamp(&mut self, rows: &[Row], first: i64, plain: u32) -> bool {
        let alone = self
            .twins
            .iter()
            .enumerate()
            .filter(|(at, twin)| at == *twin)
            .count();
        let event = |row: &Row| row.meta.event_time.wrapping_sub(first) as u64;
        self.events.clear();
        self.events.extend(rows.iter().map(event));
        self.stamps.clear();
        let stamps = self.events.iter().zip(&self.delays);
        self.stamps
            .extend(stamps.map(|(event, delay)| event.wrapping_add(*delay)));
        if !self.distinct.find(&self.stamps, alone / 4) {
            return false;
        }
        // Beyond the range of time, sums wrap: then no stamp need fit.
        let wraps = self
            .events
            .iter()
            .zip(&self.stamps)
            .any(|(event, stamp)| stamp < event);
        let bits_of_list = (self.distinct.levels.len() * 16 + alone * 2) as u32;
        if wraps || bits_of_list >= plain {
            return false;
        }
        self.distinct.rank(&mut self.stamps);
        true
    }

    fn write_stamps(&self, tick: usize, out: &mut SymbolWriter) {
        // Ticks have been divided out of the stamps; rounding up keeps the first that fits.
        let per_tick = tick_of(tick);
        let stamps = &self.distinct.levels;
        out.put(stamps.len() as u64);
        let mut last = 0;
        for stamp in stamps {
            out.put(stamp - last);
            last = *stamp;
        }
        for (at, (rank, twin)) in self.stamps.iter().zip(&self.twins).enumerate() {
            let event = self
                .events
                .get(at)
                .map_or(0, |event| event.div_ceil(per_tick));
            match self.stamps.get(*twin) {
                Some(known) if *twin != at => out.put_signed(rank.wrapping_sub(*known) as i64),
                _ => out.put(rank.wrapping_sub(first_fit(stamps, event))),
            }
        }
    }

    fn write_delays(&self, form: Form, out: &mut SymbolWriter) {
        let mut last = 0;
        for (at, (delay, twin)) in self.delays.iter().zip(&self.twins).enumerate() {
            match (self.delays.get(*twin), form) {
                (Some(known), _) if *twin != at => {
                    out.put_signed(delay.wrapping_sub(*known) as i64);
                }
                (_, Form::FromLast) => out.put_signed(delay.wrapping_sub(last) as i64),
                _ => out.put(*delay),
            }
            last = *delay;
        }
    }
}

/// Reads the column.
#[derive(Default)]
pub(super) struct DelayReader {
    /// Delays, or ranks of stamps.
    told: Vec<u64>,
    stamps: Vec<u64>,
}

impl DelayReader {
    /// Fills in the received time of `rows`, whose event times are known, in `times` as well.
    pub fn read(
        &mut self,
        rows: &mut [Row],
        runs: &[Run],
        times: &[u64],
        first: i64,
        from: &mut SymbolReader<'_>,
    ) -> Result<(), Flaw> {
        from.column = "received time";
        let code = from.next_max(CODES - 1)?;
        let form = *Form::ALL
            .get(code % Form::ALL.len())
            .unwrap_or(&Form::Constant);
        let tick = tick_of(code / Form::ALL.len());
        let least = from.next_signed()?;
        if form == Form::Constant {
            for row in rows {
                row.meta.received_time = row.meta.event_time.wrapping_add(least);
            }
            return Ok(());
        }
        self.stamps.clear();
        if form == Form::Stamped {
            self.read_stamps(rows.len(), from)?;
        }
        let ticks = |row: &Row| (row.meta.event_time.wrapping_sub(first) as u64).div_ceil(tick);
        self.told.clear();
        let (mut before, mut last) = (None, 0u64);
        for run in runs {
            let mut twins = Twins::new(times, before);
            let own = times.get(run.start..run.end).unwrap_or_default();
            let rows = rows.get(run.start..run.end).unwrap_or_default();
            for (time, row) in own.iter().zip(rows) {
                let twin = twins.of(*time).and_then(|at| self.told.get(at));
                last = match (twin, form) {
                    (Some(known), _) => known.wrapping_add(from.next_signed()? as u64),
                    (None, Form::FromLast) => last.wrapping_add(from.next_signed()? as u64),
                    (None, Form::Stamped) => {
                        first_fit(&self.stamps, ticks(row)).wrapping_add(from.get()?)
                    }
                    (None, _) => from.get()?,
                };
                self.told.push(last);
            }
            before = Some(run);
        }
        let base = if form == Form::Stamped {
            Some(first.wrapping_add(least))
        } else {
            None
        };
        for (row, told) in rows.iter_mut().zip(&self.told) {
            row.meta.received_time = match base {
                None => {
                    let delay = least.wrapping_add(told.wrapping_mul(tick) as i64);
                    row.meta.event_time.wrapping_add(delay)
                }
                Some(base) => {
                    let place = usize::try_from(*told).ok();
                    let Some(stamp) = place.and_then(|place| self.stamps.get(place)) else {
                        return from.flaw("names a stamp beyond its list");
                    };
                    base.wrapping_add(stamp.wrapping_mul(tick) as i64)
                }
            };
        }
        Ok(())
    }

    fn read_stamps(&mut self, most: usize, from: &mut SymbolReader<'_>) -> Result<(), Flaw> {
        let mut last = 0u64;
        for _ in 0..from.next_max(most)? {
            let Some(stamp) = last.checked_add(from.get()?) else {
                return from.flaw("has a list of stamps that goes backwards");
            };
            self.stamps.push(stamp);
            last = stamp;
        }
        Ok(())
    }
}
