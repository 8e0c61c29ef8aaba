//! The column of event times.
//!
//! They are counted in ticks from the batch's first one. Where few distinct times are shared by
//! many rows they are listed once, and rows name their place in the list. Either way a row costs
//! what differs from a clock that is learned along the run. Nothing here reads a value.

use super::distinct::Distinct;
use super::order::Run;
use super::symbols::{Flaw, SymbolReader, SymbolWriter, cost};
use crate::reading::Row;

/// Microseconds of the ticks that times may be counted in, greatest first.
const TICKS: [u64; 3] = [1_000_000, 1_000, 1];

/// Foretells the next time of a run, in ticks: the step before, or a grid in phase with the run.
#[derive(Clone, Copy, Default)]
struct Clock {
    last: i64,
    step: i64,
    /// Place and period of the grid, in 1/256 tick.
    grid: i64,
    period: i64,
    step_cost: i64,
    grid_cost: i64,
}

impl Clock {
    /// A clock at its first time, with the pace of the run before.
    fn start(first: i64, before: &Self) -> Self {
        Self {
            last: first,
            step: before.period >> 8,
            grid: first.wrapping_shl(8),
            period: before.period,
            step_cost: 0,
            grid_cost: 0,
        }
    }

    fn by_step(&self) -> i64 {
        self.last.wrapping_add(self.step)
    }

    fn by_grid(&self) -> i64 {
        self.grid.wrapping_add(self.period).wrapping_add(128) >> 8
    }

    #[inline]
    fn next(&self) -> i64 {
        if self.grid_cost <= self.step_cost {
            self.by_grid()
        } else {
            self.by_step()
        }
    }

    /// The step of a clock that has gone right since its start and runs in whole ticks: as long
    /// as each time is as foretold, learning only moves it on.
    fn whole_step(&self) -> Option<i64> {
        let fresh = self.step_cost == 0 && self.grid_cost == 0 && self.period & 255 == 0;
        let in_phase = self.grid == self.last.wrapping_shl(8) && self.step == self.period >> 8;
        (fresh && in_phase).then_some(self.step)
    }

    /// Goes on to `time`, which is a number of whole steps away.
    fn skip_to(&mut self, time: i64) {
        self.last = time;
        self.grid = time.wrapping_shl(8);
    }

    /// Learns the time that came.
    #[inline]
    fn learn(&mut self, time: i64) {
        let step_cost = i64::from(cost(time.wrapping_sub(self.by_step())));
        let grid_cost = i64::from(cost(time.wrapping_sub(self.by_grid())));
        self.step_cost += (step_cost << 4) - (self.step_cost >> 4);
        self.grid_cost += (grid_cost << 4) - (self.grid_cost >> 4);
        self.step = time.wrapping_sub(self.last);
        self.last = time;
        let place = time.wrapping_shl(8);
        let off = place.wrapping_sub(self.grid.wrapping_add(self.period));
        if off.unsigned_abs() > (self.period.unsigned_abs() >> 2).saturating_add(1024) {
            self.grid = place;
            self.period = self.step.wrapping_shl(8);
        } else {
            self.grid = self.grid.wrapping_add(self.period).wrapping_add(off >> 2);
            self.period = self.period.wrapping_add(off >> 7);
        }
    }
}

/// Microseconds of the tick with this index; of one that does not exist, 1.
pub(super) fn tick_of(index: usize) -> u64 {
    TICKS.get(index).copied().unwrap_or(1)
}

/// What one run's times are told against: the run before.
#[derive(Clone, Copy)]
struct Pace {
    first: i64,
    clock: Clock,
}

impl Pace {
    /// Before the first run. Ranks mostly go up by one.
    fn new(listed: bool) -> Self {
        let period = if listed { 1 << 8 } else { 0 };
        Self {
            first: 0,
            clock: Clock {
                period,
                ..Clock::default()
            },
        }
    }

    fn start(&mut self, first: i64) {
        self.first = first;
        self.clock = Clock::start(first, &self.clock);
    }
}

/// Writes the column.
#[derive(Default)]
pub(super) struct TimeWriter {
    /// Ticks after the batch's first event time, or ranks in the list.
    times: Vec<u64>,
    distinct: Distinct,
}

impl TimeWriter {
    /// Writes the event times of `rows`, which are in order; marks the runs whose clock was right
    /// all along with `steady` in their byte of `marks`. Gives the times in the unit written.
    pub fn write(
        &mut self,
        rows: &[Row],
        runs: &[Run],
        first: i64,
        steady: u8,
        marks: &mut [u8],
        out: &mut SymbolWriter,
    ) -> &[u64] {
        let ticks = |row: &Row| row.meta.event_time.wrapping_sub(first) as u64;
        self.times.clear();
        self.times.extend(rows.iter().map(ticks));
        let tick = divide(&mut self.times);
        let listed = self.distinct.find(&self.times, rows.len() / 2);
        out.put((tick * 2 + usize::from(listed)) as u64);
        if listed {
            self.distinct.rank(&mut self.times);
            self.write_list(out);
        }
        let mut pace = Pace::new(listed);
        for (run, mark) in runs.iter().zip(marks) {
            if self.write_run(run, &mut pace, out) {
                *mark |= steady;
            }
        }
        &self.times
    }

    fn write_list(&self, out: &mut SymbolWriter) {
        out.put(self.distinct.levels.len() as u64);
        let mut clock = Clock::default();
        for time in self.distinct.levels.iter().skip(1) {
            out.put_signed((*time as i64).wrapping_sub(clock.next()));
            clock.learn(*time as i64);
        }
    }

    /// Whether the clock was right for every row after the first; nothing is written for them then.
    fn write_run(&self, run: &Run, pace: &mut Pace, out: &mut SymbolWriter) -> bool {
        let times = self.times.get(run.start..run.end).unwrap_or_default();
        let Some((first, rest)) = times.split_first() else {
            return true;
        };
        out.put_signed((*first as i64).wrapping_sub(pace.first));
        pace.start(*first as i64);
        let whole_step = pace.clock.whole_step();
        if let Some(step) = whole_step {
            let regular = times.windows(2).all(|pair| match pair {
                [a, b] => b.wrapping_sub(*a) as i64 == step,
                _ => false,
            });
            if regular {
                pace.clock
                    .skip_to(times.last().map_or(0, |time| *time as i64));
                return true;
            }
        }
        let written = out.tokens.len();
        let mut wrong = 0;
        for time in rest {
            let off = (*time as i64).wrapping_sub(pace.clock.next());
            wrong |= off;
            out.put_signed(off);
            pace.clock.learn(*time as i64);
        }
        // A reader takes whole steps where it can, also far out, where the grid wraps.
        let steady = wrong == 0 && whole_step.is_none();
        if steady {
            out.tokens.truncate(written);
        }
        steady
    }
}

/// Divides all by the greatest tick that divides them, and gives its index.
pub(super) fn divide(numbers: &mut [u64]) -> usize {
    // Constant divisors: the compiler multiplies instead.
    if numbers.iter().all(|u| u.is_multiple_of(1_000_000)) {
        numbers.iter_mut().for_each(|u| *u /= 1_000_000);
        0
    } else if numbers.iter().all(|u| u.is_multiple_of(1_000)) {
        numbers.iter_mut().for_each(|u| *u /= 1_000);
        1
    } else {
        2
    }
}

/// Reads the column.
#[derive(Default)]
pub(super) struct TimeReader {
    times: Vec<u64>,
    list: Vec<u64>,
}

impl TimeReader {
    /// Fills in the event time of `rows`, as many as the runs have together. Gives the times in
    /// the unit written.
    pub fn read(
        &mut self,
        rows: &mut [Row],
        runs: &[Run],
        first: i64,
        steady: u8,
        marks: &[u8],
        from: &mut SymbolReader<'_>,
    ) -> Result<&[u64], Flaw> {
        from.column = "event time";
        let code = from.next_max(2 * TICKS.len() - 1)?;
        let (tick, listed) = (tick_of(code / 2), code % 2 == 1);
        self.list.clear();
        if listed {
            self.read_list(rows.len(), from)?;
        }
        self.times.clear();
        let mut pace = Pace::new(listed);
        for (run, mark) in runs.iter().zip(marks) {
            self.read_run(run, mark & steady != 0, &mut pace, from)?;
        }
        for (row, time) in rows.iter_mut().zip(&self.times) {
            let ticks = if listed {
                self.listed(*time, from)?
            } else {
                *time
            };
            row.meta.event_time = first.wrapping_add(ticks.wrapping_mul(tick) as i64);
        }
        Ok(&self.times)
    }

    fn read_list(&mut self, most: usize, from: &mut SymbolReader<'_>) -> Result<(), Flaw> {
        let count = from.next_max(most)?;
        self.list.push(0);
        let mut clock = Clock::default();
        for _ in 1..count {
            let time = clock.next().wrapping_add(from.next_signed()?);
            clock.learn(time);
            self.list.push(time as u64);
        }
        Ok(())
    }

    fn listed(&self, rank: u64, from: &SymbolReader<'_>) -> Result<u64, Flaw> {
        match usize::try_from(rank)
            .ok()
            .and_then(|rank| self.list.get(rank))
        {
            Some(time) => Ok(*time),
            None => from.flaw("names a time beyond its list"),
        }
    }

    fn read_run(
        &mut self,
        run: &Run,
        steady: bool,
        pace: &mut Pace,
        from: &mut SymbolReader<'_>,
    ) -> Result<(), Flaw> {
        let first = pace.first.wrapping_add(from.next_signed()?);
        pace.start(first);
        self.times.push(first as u64);
        if let (true, Some(step)) = (steady, pace.clock.whole_step()) {
            let mut time = first;
            for _ in 1..run.len() {
                time = time.wrapping_add(step);
                self.times.push(time as u64);
            }
            pace.clock.skip_to(time);
            return Ok(());
        }
        for _ in 1..run.len() {
            let off = if steady { 0 } else { from.next_signed()? };
            let time = pace.clock.next().wrapping_add(off);
            pace.clock.learn(time);
            self.times.push(time as u64);
        }
        Ok(())
    }
}
