//! What an expression became: operations one after the other over a small stack, jumps only ahead,
//! so that no run has more steps than there are operations.

use super::windows::{Fold, Panes};
use crate::detect::rule::memory::Cell;
use crate::detect::sample::Sample;
use crate::limits::EXPRESSION_STACK_MAX;

/// A function of one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Of1 {
    Abs,
    Sqrt,
    Ln,
    Exp,
    Floor,
}

/// What two numbers give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Of2 {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Pow,
    Min,
    Max,
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
    Differs,
}

/// One operation. Truth values are 1 and 0.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Op {
    Number(f64),
    /// The newest value of a metric.
    Value(u8),
    /// The value before that.
    Previous(u8),
    /// Seconds since it came.
    Age(u8),
    /// An aggregate of a window.
    Window(u8, Fold),
    Negate,
    Not,
    Of1(Of1),
    Of2(Of2),
    /// Where the top is false, goes on there; otherwise takes it away.
    UnlessThen(u16),
    /// Where the top is true, goes on there; otherwise takes it away.
    IfThen(u16),
}

/// Where values come from.
pub(super) trait Source {
    fn value(&self, metric: u8) -> f64;
    fn previous(&self, metric: u8) -> f64;
    fn age(&self, metric: u8) -> f64;
    fn window(&self, window: u8, fold: Fold) -> f64;
}

/// A checked expression.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::detect::rule) struct Program {
    pub(super) ops: Vec<Op>,
    /// The metrics that it is of, the first one first.
    pub metrics: Vec<Box<str>>,
    /// Windows: of which metric, and how many microseconds.
    pub windows: Vec<(u8, i64)>,
}

impl Program {
    /// Whether it is true; `None` where something on the way is no number.
    pub fn run(&self, readings: &Readings<'_>) -> Option<bool> {
        run(&self.ops, readings).0.map(|value| value != 0.0)
    }
}

/// What operations give, and how many were done.
pub(super) fn run(ops: &[Op], source: &impl Source) -> (Option<f64>, usize) {
    let mut stack = [0.0; EXPRESSION_STACK_MAX];
    let mut height = 0;
    let (mut next, mut steps) = (0, 0);
    while let Some(op) = ops.get(next) {
        next += 1;
        steps += 1;
        let done = step(*op, source, &mut stack, &mut height, &mut next);
        if done.is_none() {
            return (None, steps);
        }
    }
    (stack.first().copied().filter(|_| height == 1), steps)
}

/// Does one operation; `None` where it gives no number.
fn step(
    op: Op,
    source: &impl Source,
    stack: &mut [f64; EXPRESSION_STACK_MAX],
    height: &mut usize,
    next: &mut usize,
) -> Option<()> {
    let value = match op {
        Op::Number(number) => number,
        Op::Value(metric) => source.value(metric),
        Op::Previous(metric) => source.previous(metric),
        Op::Age(metric) => source.age(metric),
        Op::Window(window, fold) => source.window(window, fold),
        Op::UnlessThen(target) | Op::IfThen(target) => {
            let top = *stack.get(height.checked_sub(1)?)?;
            if (top != 0.0) == matches!(op, Op::IfThen(_)) {
                *next = usize::from(target).max(*next);
            } else {
                *height -= 1;
            }
            return Some(());
        }
        Op::Negate => -pop(stack, height)?,
        Op::Not => f64::from(pop(stack, height)? == 0.0),
        Op::Of1(of) => of1(of, pop(stack, height)?),
        Op::Of2(of) => {
            let right = pop(stack, height)?;
            of2(of, pop(stack, height)?, right)
        }
    };
    if !value.is_finite() {
        return None;
    }
    *stack.get_mut(*height)? = value;
    *height += 1;
    Some(())
}

fn pop(stack: &[f64; EXPRESSION_STACK_MAX], height: &mut usize) -> Option<f64> {
    *height = height.checked_sub(1)?;
    stack.get(*height).copied()
}

fn of1(of: Of1, x: f64) -> f64 {
    match of {
        Of1::Abs => x.abs(),
        Of1::Sqrt => x.sqrt(),
        Of1::Ln => x.ln(),
        Of1::Exp => x.exp(),
        Of1::Floor => x.floor(),
    }
}

fn of2(of: Of2, a: f64, b: f64) -> f64 {
    match of {
        Of2::Add => a + b,
        Of2::Subtract => a - b,
        Of2::Multiply => a * b,
        Of2::Divide => a / b,
        Of2::Remainder => a % b,
        Of2::Pow => a.powf(b),
        Of2::Min => a.min(b),
        Of2::Max => a.max(b),
        Of2::Less => f64::from(a < b),
        Of2::AtMost => f64::from(a <= b),
        Of2::Greater => f64::from(a > b),
        Of2::AtLeast => f64::from(a >= b),
        Of2::Equal => f64::from(a == b),
        Of2::Differs => f64::from(a != b),
    }
}

/// What an expression remembers of a device: 48 bytes, 40 for each metric, 336 for each window.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::detect::rule) struct Inputs {
    pub cells: Box<[Cell]>,
    /// The value before that of each cell; NaN where there is none.
    pub previous: Box<[f64]>,
    pub windows: Box<[Panes]>,
}

impl Inputs {
    pub fn new(program: &Program) -> Self {
        Self {
            cells: vec![Cell::EMPTY; program.metrics.len()].into(),
            previous: vec![f64::NAN; program.metrics.len()].into(),
            windows: vec![Panes::EMPTY; program.windows.len()].into(),
        }
    }

    /// Bytes of it.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.cells)
            + size_of_val(&*self.previous)
            + size_of_val(&*self.windows)
    }

    /// Takes a reading of a metric, unless a newer one is there.
    pub fn take(&mut self, program: &Program, metric: u8, sample: &Sample) -> bool {
        let Some(cell) = self.cells.get_mut(usize::from(metric)) else {
            return false;
        };
        let before = *cell;
        if !cell.take(sample) {
            return false;
        }
        if let Some(previous) = self
            .previous
            .get_mut(usize::from(metric))
            .filter(|_| before.there)
        {
            *previous = before.value;
        }
        let other_clock = before.there && before.trusted != sample.trusted;
        for (panes, (of, span)) in self.windows.iter_mut().zip(&program.windows) {
            if *of == metric {
                if other_clock {
                    *panes = Panes::EMPTY;
                }
                panes.push(*span, time(sample), sample.value);
            }
        }
        true
    }
}

/// The time by which a reading goes into windows.
fn time(sample: &Sample) -> i64 {
    match sample.trusted {
        true => sample.event_time,
        false => sample.received_time,
    }
}

/// What an expression is told of a device at one time.
pub(in crate::detect::rule) struct Readings<'a> {
    pub program: &'a Program,
    pub inputs: &'a Inputs,
    /// The newest time of the device, by the clock of the newest reading.
    pub time: i64,
    /// When the newest reading came.
    pub received: i64,
}

impl Source for Readings<'_> {
    fn value(&self, metric: u8) -> f64 {
        let cell = self.inputs.cells.get(usize::from(metric));
        cell.filter(|cell| cell.there)
            .map_or(f64::NAN, |cell| cell.value)
    }

    fn previous(&self, metric: u8) -> f64 {
        let previous = self.inputs.previous.get(usize::from(metric));
        previous.copied().unwrap_or(f64::NAN)
    }

    fn age(&self, metric: u8) -> f64 {
        let cell = self.inputs.cells.get(usize::from(metric));
        let passed = cell.map(|cell| self.received.saturating_sub(cell.received));
        passed.map_or(f64::NAN, |passed| passed as f64 / 1e6)
    }

    fn window(&self, window: u8, fold: Fold) -> f64 {
        let place = usize::from(window);
        let panes = self.inputs.windows.get(place);
        let span = self.program.windows.get(place);
        let both = panes.zip(span);
        both.map_or(f64::NAN, |(panes, (_, span))| {
            panes.fold(fold, *span, self.time)
        })
    }
}
