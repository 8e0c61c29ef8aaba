//! What one rule remembers of one series, or of several of a device together, and what a reading
//! or the passing of time makes of it.
//!
//! The time of a state is the event time of its newest reading while that is believed, and the
//! steady time at which it was received otherwise; between readings it passes as steady time does.
//! Where that changes, or the gateway's clock is set, what was measured in time begins anew.

use super::band::{Band, Side};
use super::due::NEVER;
use super::expression::{Program, Readings};
use super::memory::{Clock, Memory, NEVER_YET, Order};
use super::run::seconds;
use super::slope::Slope;
use super::{Kind, Other, Rule, SilenceLimit};
use crate::detect::sample::Sample;
use crate::detect::watched::Subject;
use std::sync::Arc;

/// Numbers that an alert tells.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Finding {
    /// The reading's own value; NaN where there is none.
    pub value: f64,
    /// What was held against the limit; NaN where there is none.
    pub measured: f64,
    /// The limit; NaN where there is none.
    pub limit: f64,
}

impl Finding {
    pub const NONE: Self = Self {
        value: f64::NAN,
        measured: f64::NAN,
        limit: f64::NAN,
    };
}

/// What became of a state.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Turn {
    Raised,
    Cleared,
    /// It would have been raised, were the last time not so near.
    HeldBack,
    /// What the rule says cannot be computed from these values.
    Undefined,
}

/// What is told of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Told {
    pub turn: Turn,
    pub finding: Finding,
    pub event_time: i64,
    /// Whether that is by the state's clock, and not a reading's own.
    pub by_clock: bool,
    /// By the state's clock.
    pub window: Option<(i64, i64)>,
    pub late: bool,
}

/// A state: at most 192 bytes, and what its [`Memory`] holds beside.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct State {
    pub rule: u16,
    /// Whether its alert is raised.
    pub raised: bool,
    /// Whether its rule could ever be judged by it.
    pub judged: bool,
    /// Whether it was told that it is held back.
    pub held: bool,
    pub clock: Clock,
    /// Since when what the rule asks for holds; [`NEVER`] while it does not.
    pub since: i64,
    /// When it was last raised.
    pub raised_at: i64,
    /// Under which time it stands among those that are due.
    pub entered: i64,
    /// What was found last.
    pub finding: Finding,
    pub subject: Subject,
    pub unit: Box<str>,
    /// Series that it is told of.
    pub feeds: u32,
    pub memory: Memory,
}

const STATE_BYTES_MAX: usize = 192;
const _: () = assert!(size_of::<State>() <= STATE_BYTES_MAX);

impl State {
    pub fn new(place: u16, rule: &Rule, subject: Subject) -> Self {
        Self {
            rule: place,
            raised: false,
            judged: false,
            held: false,
            clock: Clock::UNSET,
            since: NEVER,
            raised_at: NEVER_YET,
            entered: NEVER,
            finding: Finding::NONE,
            subject,
            unit: "".into(),
            feeds: 0,
            memory: Memory::new(&rule.kind),
        }
    }

    /// Bytes of it, its memory, its unit, and its entries in maps.
    pub fn bytes(&self) -> usize {
        let entries = 2 * size_of::<(i64, u32)>() + 2 * size_of::<(Arc<str>, u32)>();
        size_of::<Option<Self>>() + self.memory.bytes() + self.unit.len() + entries
    }

    /// The time as it passes without readings.
    pub fn time_at(&self, now: i64) -> i64 {
        let passed = now.saturating_sub(self.clock.received).max(0);
        self.clock.time.saturating_add(passed)
    }

    /// Takes a reading of the series that is its `input`.
    pub fn step(&mut self, rule: &Rule, input: u8, sample: &Sample, tell: &mut dyn FnMut(Told)) {
        match &rule.kind {
            Kind::Threshold(band, _) | Kind::Range(band) => self.band(rule, band, sample, tell),
            Kind::Rate(band, over) => self.slope(rule, (band, *over), sample, tell),
            Kind::Stuck(..) => self.run(rule, sample, tell),
            Kind::Silence(limit) => self.rhythm(rule, *limit, sample, tell),
            Kind::Compare(other, band, _) => self.pair(rule, (other, band), input, sample, tell),
            Kind::Expression(of, _, stale) => {
                self.expression(rule, (&of.program, *stale), input, sample, tell);
            }
        }
    }

    /// Where the state's time goes with a reading; what a changed clock makes void is.
    fn advance(&mut self, sample: &Sample, trusted: bool, late: bool) -> Order {
        let order = self.clock.advance(sample, trusted, late);
        if order == Order::First {
            self.begin_anew();
        }
        order
    }

    /// What was measured in time begins anew.
    fn begin_anew(&mut self) {
        self.since = NEVER;
        if self.raised_at != NEVER_YET {
            self.raised_at = self.clock.time;
        }
        match &mut self.memory {
            Memory::Slope(slope) => **slope = Slope::new(),
            Memory::Run(run) => run.began = self.clock.time,
            Memory::Nothing | Memory::Rhythm(_) | Memory::Pair(_) | Memory::Inputs(_) => {}
        }
    }

    /// The gateway's clock was set: times by it from before say nothing about those to come.
    pub fn clock_was_set(&mut self) {
        if self.clock.by_event {
            (self.clock.by_event, self.clock.time) = (false, self.clock.received);
            self.begin_anew();
        }
        match &mut self.memory {
            Memory::Pair(cells) => cells.iter_mut().for_each(|cell| cell.trusted = false),
            Memory::Inputs(inputs) => {
                inputs
                    .cells
                    .iter_mut()
                    .for_each(|cell| cell.trusted = false);
            }
            Memory::Nothing | Memory::Slope(_) | Memory::Run(_) | Memory::Rhythm(_) => {}
        }
    }

    fn band(&mut self, rule: &Rule, band: &Band, sample: &Sample, tell: &mut dyn FnMut(Told)) {
        let order = self.advance(sample, sample.trusted, sample.late);
        self.judged = true;
        let side = band.side(sample.value);
        if order != Order::Old {
            return self.settle(rule, side, (sample.value, sample.value), None, sample, tell);
        }
        // A single reading of the past holds for no time, and says nothing about now.
        let Side::Outside(limit) = side else {
            return;
        };
        let is_news = !self.raised && self.since == NEVER && rule.kind.hold() == 0;
        if is_news && self.clock.time >= self.raised_at.saturating_add(rule.cool_down) {
            self.finding = Finding {
                value: sample.value,
                measured: sample.value,
                limit,
            };
            let now = self.clock.time;
            self.raise((now, Some(sample.event_time)), None, sample.late, tell);
        }
    }

    fn slope(
        &mut self,
        rule: &Rule,
        (band, over): (&Band, i64),
        sample: &Sample,
        tell: &mut dyn FnMut(Told),
    ) {
        if self.advance(sample, sample.trusted, sample.late) == Order::Old {
            return;
        }
        let time = self.clock.time;
        let Memory::Slope(slope) = &mut self.memory else {
            return;
        };
        let Some((rate, from)) = slope.step(over, time, sample.value) else {
            return;
        };
        self.judged = true;
        if !rate.is_finite() {
            return tell(self.told(Turn::Undefined, sample.event_time, None, false));
        }
        let numbers = (sample.value, rate);
        self.settle(rule, band.side(rate), numbers, Some(from), sample, tell);
    }

    fn run(&mut self, rule: &Rule, sample: &Sample, tell: &mut dyn FnMut(Told)) {
        let Kind::Stuck(limit, tolerance) = &rule.kind else {
            return;
        };
        if self.advance(sample, sample.trusted, sample.late) == Order::Old {
            return;
        }
        let time = self.clock.time;
        let Memory::Run(run) = &mut self.memory else {
            return;
        };
        let goes_on = run.step(*tolerance, time, sample.value);
        let (too_long, began) = (run.too_long(*limit, time), run.began);
        self.judged = true;
        let (side, length) = match too_long {
            Some((length, most)) => (Side::Outside(most), length),
            None if goes_on => (Side::Margin, f64::NAN),
            None => (Side::Inside, f64::NAN),
        };
        self.settle(
            rule,
            side,
            (sample.value, length),
            Some(began),
            sample,
            tell,
        );
    }

    fn rhythm(
        &mut self,
        rule: &Rule,
        limit: SilenceLimit,
        sample: &Sample,
        tell: &mut dyn FnMut(Told),
    ) {
        let order = self.advance(sample, sample.trusted, sample.late);
        let Memory::Rhythm(rhythm) = &mut self.memory else {
            return;
        };
        if order == Order::Old {
            return;
        }
        let allowed = rhythm.limit(limit);
        let was_away = std::mem::replace(&mut rhythm.away, false);
        let before = match order {
            Order::Newest(before) if !was_away => Some(before),
            _ => None,
        };
        if let Some(before) = before {
            rhythm.learn(self.clock.time.saturating_sub(before), allowed);
        }
        self.judged |= rhythm.limit(limit).is_some();
        // Readings that come together may tell of a silence that the agent did not see.
        if let (Some(before), Some(allowed), false) = (before, allowed, self.raised) {
            let end = before.saturating_add(allowed);
            if self.clock.time > end && end >= self.raised_at.saturating_add(rule.cool_down) {
                self.silent(allowed, before, end, tell);
            }
        }
        if self.raised {
            self.finding.value = sample.value;
            self.clear(sample.event_time, tell);
        }
    }

    fn silent(&mut self, allowed: i64, from: i64, to: i64, tell: &mut dyn FnMut(Told)) {
        self.finding = Finding {
            value: f64::NAN,
            measured: seconds(to.saturating_sub(from)),
            limit: seconds(allowed),
        };
        self.raise((to, None), Some((from, to)), false, tell);
    }

    fn pair(
        &mut self,
        rule: &Rule,
        (other, band): (&Other, &Band),
        input: u8,
        sample: &Sample,
        tell: &mut dyn FnMut(Told),
    ) {
        let Memory::Pair(cells) = &mut self.memory else {
            return;
        };
        let took = cells
            .get_mut(usize::from(input))
            .map(|cell| cell.take(sample));
        let [left, right] = **cells;
        if took != Some(true) || !left.there || !right.there {
            return;
        }
        // A reading that is older than the other series's newest is its own series's newest.
        let _ = self.advance(sample, left.trusted && right.trusted, false);
        if left.received.abs_diff(right.received) > other.stale.unsigned_abs() {
            self.since = NEVER;
            return;
        }
        self.judged = true;
        let limit = right.value + other.offset;
        let difference = left.value - limit;
        if !difference.is_finite() {
            return tell(self.told(Turn::Undefined, sample.event_time, None, false));
        }
        let side = match band.side(difference) {
            Side::Outside(_) => Side::Outside(limit),
            side => side,
        };
        self.settle(rule, side, (left.value, difference), None, sample, tell);
    }

    fn expression(
        &mut self,
        rule: &Rule,
        (program, stale): (&Program, i64),
        input: u8,
        sample: &Sample,
        tell: &mut dyn FnMut(Told),
    ) {
        let Memory::Inputs(inputs) = &mut self.memory else {
            return;
        };
        let took = inputs.take(program, input, sample);
        let cells = &inputs.cells;
        if !took || !cells.iter().all(|cell| cell.there) {
            return;
        }
        let trusted = cells.iter().all(|cell| cell.trusted);
        let oldest = cells.iter().map(|cell| cell.received).min().unwrap_or(0);
        let newest = cells.iter().map(|cell| cell.received).max().unwrap_or(0);
        let home = program
            .metrics
            .iter()
            .position(|metric| **metric == *self.subject.metric());
        let value = home
            .and_then(|home| cells.get(home))
            .map_or(sample.value, |cell| cell.value);
        let _ = self.advance(sample, trusted, false);
        if newest.saturating_sub(oldest) > stale {
            self.since = NEVER;
            return;
        }
        self.judged = true;
        let Memory::Inputs(inputs) = &self.memory else {
            return;
        };
        let holds = program.run(&Readings {
            program,
            inputs,
            time: self.clock.time,
            received: newest,
        });
        let side = match holds {
            Some(true) => Side::Outside(f64::NAN),
            Some(false) => Side::Inside,
            None => return tell(self.told(Turn::Undefined, sample.event_time, None, false)),
        };
        self.settle(rule, side, (value, f64::NAN), None, sample, tell);
    }

    /// What follows from where a value is; `from`: since when, where the rule itself knows.
    fn settle(
        &mut self,
        rule: &Rule,
        side: Side,
        (value, measured): (f64, f64),
        from: Option<i64>,
        sample: &Sample,
        tell: &mut dyn FnMut(Told),
    ) {
        let time = self.clock.time;
        let limit = match side {
            Side::Outside(limit) => limit,
            Side::Margin | Side::Inside => f64::NAN,
        };
        self.finding = Finding {
            value,
            measured,
            limit,
        };
        match (side, self.raised) {
            (Side::Outside(_), true) | (Side::Margin, true) => {}
            (Side::Outside(_), false) => {
                if self.since == NEVER {
                    (self.since, self.held) = (time, false);
                }
                let from = from.or((rule.kind.hold() > 0).then_some(self.since));
                if time >= self.target(rule) {
                    let window = from.map(|from| (from, time));
                    self.raise((time, Some(sample.event_time)), window, false, tell);
                } else if !self.held && time >= self.since.saturating_add(rule.kind.hold()) {
                    self.held = true;
                    tell(self.told(Turn::HeldBack, sample.event_time, None, false));
                }
            }
            (Side::Margin | Side::Inside, false) => self.since = NEVER,
            (Side::Inside, true) => self.clear(sample.event_time, tell),
        }
    }

    /// From when on what holds is worth an alert.
    fn target(&self, rule: &Rule) -> i64 {
        let held = self.since.saturating_add(rule.kind.hold());
        held.max(self.raised_at.saturating_add(rule.cool_down))
    }

    /// When it has something to say although nothing comes: steady time; [`NEVER`] if not.
    pub fn due(&self, rule: &Rule) -> i64 {
        if self.raised || !self.clock.runs {
            return NEVER;
        }
        let target = match (&rule.kind, &self.memory) {
            (Kind::Silence(limit), Memory::Rhythm(rhythm)) => match rhythm.limit(*limit) {
                None => return NEVER,
                Some(allowed) => {
                    let cooled = self.raised_at.saturating_add(rule.cool_down);
                    self.clock.time.saturating_add(allowed).max(cooled)
                }
            },
            _ if self.since == NEVER || !rule.kind.lasts() => return NEVER,
            _ => self.target(rule),
        };
        let ahead = target.saturating_sub(self.clock.time).max(0);
        self.clock.received.saturating_add(ahead)
    }

    /// Says what it has to say at `due`, which is its own.
    pub fn fire(&mut self, rule: &Rule, due: i64, tell: &mut dyn FnMut(Told)) {
        let time = self.time_at(due);
        if let (Kind::Silence(limit), Memory::Rhythm(rhythm)) = (&rule.kind, &self.memory) {
            if let Some(allowed) = rhythm.limit(*limit) {
                self.silent(allowed, self.clock.time, time, tell);
            }
            return;
        }
        let window = (rule.kind.hold() > 0).then_some((self.since, time));
        self.raise((time, None), window, false, tell);
    }

    /// Raises the alert, `at` by the state's time, with a reading of `event_time` if with one.
    fn raise(
        &mut self,
        (at, event_time): (i64, Option<i64>),
        window: Option<(i64, i64)>,
        late: bool,
        tell: &mut dyn FnMut(Told),
    ) {
        (self.raised, self.since) = (true, NEVER);
        self.raised_at = match event_time {
            Some(event_time) if !self.clock.runs => event_time,
            _ => at,
        };
        tell(Told {
            by_clock: event_time.is_none(),
            ..self.told(Turn::Raised, event_time.unwrap_or(at), window, late)
        });
    }

    fn clear(&mut self, event_time: i64, tell: &mut dyn FnMut(Told)) {
        (self.raised, self.since) = (false, NEVER);
        tell(self.told(Turn::Cleared, event_time, None, false));
    }

    fn told(&self, turn: Turn, event_time: i64, window: Option<(i64, i64)>, late: bool) -> Told {
        Told {
            turn,
            finding: self.finding,
            event_time,
            by_clock: false,
            window,
            late,
        }
    }

    /// What is told of an alert whose rule, or whose series, is no longer there.
    pub fn end(&self, now: i64) -> Option<Told> {
        let told = self.told(Turn::Cleared, self.time_at(now), None, false);
        self.raised.then_some(Told {
            finding: Finding::NONE,
            by_clock: true,
            ..told
        })
    }

    /// The agent was away until `now`: what did not come in the meantime counts for nothing.
    pub fn resume(&mut self, now: i64) {
        self.clock.received = self.clock.received.max(now);
        if let Memory::Rhythm(rhythm) = &mut self.memory {
            rhythm.away = true;
        }
    }
}
