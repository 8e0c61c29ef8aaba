//! The column of numbers: doubles, singles and integers.
//!
//! Each run is scaled to integers, foretold by the predictor that suits it, and told as what was
//! wrong; where few levels repeat, the levels are listed and their ranks are told instead. A run
//! says what is its own and takes the rest from the run of its type before.

use super::distinct::Distinct;
use super::order::Run;
use super::scale::{EXPONENT_MAX, STEP_MAX, Scale, at_place, detect, place};
use super::symbols::{Flaw, SymbolReader, SymbolWriter, cost};
use crate::reading::{Row, ValueType};

/// Bits of a run's form, above its value type: it has a scale of its own.
const SCALE: u8 = 1 << 3;
/// Some values are not exactly what their integers stand for.
const CORRECTED: u8 = 1 << 4;
/// Levels are listed, and ranks told.
const LEVELS: u8 = 1 << 5;
/// Where the predictor's number stands.
const PREDICTOR_SHIFT: u32 = 6;
/// Runs shorter than this list no levels.
const LEVELS_RUN_MIN: usize = 8;

/// Scales that are remembered for each type.
const MEMORY: usize = 8;

/// Runs shorter than this take a remembered scale where that is cheaper.
const SHORT_RUN: usize = 16;
/// Bits that it takes to tell a new scale, roughly.
const NEW_SCALE_BITS: u32 = 16;

/// What a run takes from those of its type before: the scale, and where values began. Series of
/// several kinds come in turn, device after device, so the last few scales are remembered.
#[derive(Clone, Copy)]
struct Carried {
    /// Scale and first integer of the last run that had it.
    memory: [(Scale, i64); MEMORY],
    /// Which of them the last run had.
    now: usize,
    /// Which of them is forgotten next.
    oldest: usize,
}

impl Carried {
    fn scale(&self) -> Scale {
        self.memory
            .get(self.now)
            .map_or(Scale::Raw, |(scale, _)| *scale)
    }

    fn first(&mut self) -> &mut i64 {
        let (_, first) = self
            .memory
            .get_mut(self.now)
            .expect("`now` is below MEMORY");
        first
    }

    fn find(&self, scale: Scale) -> Option<usize> {
        self.memory.iter().position(|(known, _)| *known == scale)
    }

    fn remember(&mut self, scale: Scale) {
        self.oldest = (self.oldest + 1) % MEMORY;
        self.now = self.oldest;
        if let Some(slot) = self.memory.get_mut(self.now) {
            *slot = (scale, 0);
        }
    }
}

/// The state of all three types.
#[derive(Clone, Copy)]
pub(super) struct Carry([Carried; 3]);

impl Carry {
    pub fn new() -> Self {
        Self(
            [Carried {
                memory: [(Scale::Raw, 0); MEMORY],
                now: 0,
                oldest: 0,
            }; 3],
        )
    }

    fn of(&mut self, value_type: ValueType) -> &mut Carried {
        let [doubles, singles, integers] = &mut self.0;
        match value_type {
            ValueType::F64 => doubles,
            ValueType::F32 => singles,
            _ => integers,
        }
    }
}

/// Foretells integers from those before, in one of four ways.
#[derive(Clone, Copy)]
struct Predictor {
    last: i64,
    before: i64,
    /// Exponential means, in 1/256, over about 4 and 16 integers.
    quick: i64,
    slow: i64,
}

const LAST: u8 = 0;
const LINE: u8 = 1;
const QUICK: u8 = 2;
const SLOW: u8 = 3;

impl Predictor {
    fn new(first: i64) -> Self {
        let scaled = first.wrapping_shl(8);
        Self {
            last: first,
            before: first,
            quick: scaled,
            slow: scaled,
        }
    }

    #[inline(always)]
    fn next<const P: u8>(&self) -> i64 {
        match P {
            LAST => self.last,
            LINE => self.last.wrapping_mul(2).wrapping_sub(self.before),
            QUICK => self.quick.wrapping_add(128) >> 8,
            _ => self.slow.wrapping_add(128) >> 8,
        }
    }

    #[inline(always)]
    fn learn<const P: u8>(&mut self, k: i64) {
        let scaled = k.wrapping_shl(8);
        match P {
            LAST => self.last = k,
            LINE => {
                self.before = self.last;
                self.last = k;
            }
            QUICK => {
                self.quick = self
                    .quick
                    .wrapping_add(scaled.wrapping_sub(self.quick) >> 2)
            }
            _ => self.slow = self.slow.wrapping_add(scaled.wrapping_sub(self.slow) >> 4),
        }
    }
}

/// The predictor whose residuals are shortest, and their bits.
fn best_predictor(integers: &[i64]) -> (u8, u32) {
    let Some((first, rest)) = integers.split_first() else {
        return (LAST, 0);
    };
    let mut state = Predictor::new(*first);
    let mut costs = [0u32; 4];
    for k in rest {
        let [last, line, quick, slow] = &mut costs;
        *last += cost(k.wrapping_sub(state.next::<LAST>()));
        *line += cost(k.wrapping_sub(state.next::<LINE>()));
        *quick += cost(k.wrapping_sub(state.next::<QUICK>()));
        *slow += cost(k.wrapping_sub(state.next::<SLOW>()));
        state.learn::<LINE>(*k);
        state.learn::<QUICK>(*k);
        state.learn::<SLOW>(*k);
    }
    let best = (0..4u8).zip(costs).min_by_key(|(_, bits)| *bits);
    best.unwrap_or((LAST, 0))
}

fn write_residuals<const P: u8>(integers: &[i64], out: &mut SymbolWriter) {
    let Some((first, rest)) = integers.split_first() else {
        return;
    };
    let mut state = Predictor::new(*first);
    for k in rest {
        out.put_signed(k.wrapping_sub(state.next::<P>()));
        state.learn::<P>(*k);
    }
}

fn read_residuals<const P: u8>(
    first: i64,
    count: usize,
    integers: &mut Vec<i64>,
    from: &mut SymbolReader<'_>,
) -> Result<(), Flaw> {
    let mut state = Predictor::new(first);
    integers.push(first);
    for _ in 1..count {
        let k = state.next::<P>().wrapping_add(from.next_signed()?);
        state.learn::<P>(k);
        integers.push(k);
    }
    Ok(())
}

/// Writes runs of numbers.
#[derive(Default)]
pub(super) struct NumberWriter {
    values: Vec<u64>,
    integers: Vec<i64>,
    corrections: Vec<i64>,
    keys: Vec<u64>,
    ranks: Vec<i64>,
    distinct: Distinct,
}

/// Integers as unsigned ones in the same order.
const SIGN: u64 = 1 << 63;

impl NumberWriter {
    /// Writes a run, and returns the bits of its form above the value type.
    pub fn write(
        &mut self,
        value_type: ValueType,
        rows: &[Row],
        carry: &mut Carry,
        out: &mut SymbolWriter,
    ) -> u8 {
        let carried = carry.of(value_type);
        self.values.clear();
        self.values.extend(rows.iter().map(|row| row.bits));
        let mut form = 0;
        let scale = match value_type {
            ValueType::I64 => Scale::Raw,
            _ => self.choose_scale(value_type, carried),
        };
        if scale != carried.scale() {
            form |= SCALE;
            write_scale(scale, carried, out);
        }
        let base = *carried.first();
        let corrected = self.scale_all(value_type, scale);
        let first = self.integers.first().copied().unwrap_or(0);
        let (predictor, bits) = best_predictor(&self.integers);
        let ranked = self.rank(bits);
        let predictor = if let Some(predictor) = ranked {
            form |= LEVELS;
            self.write_levels(base, out);
            predictor
        } else {
            out.put_signed(first.wrapping_sub(base));
            predictor
        };
        *carried.first() = first;
        form |= predictor << PREDICTOR_SHIFT;
        let told = if ranked.is_some() {
            &self.ranks
        } else {
            &self.integers
        };
        if ranked.is_none() || self.distinct.levels.len() > 1 {
            match predictor {
                LAST => write_residuals::<LAST>(told, out),
                LINE => write_residuals::<LINE>(told, out),
                QUICK => write_residuals::<QUICK>(told, out),
                _ => write_residuals::<SLOW>(told, out),
            }
        }
        if corrected {
            form |= CORRECTED;
            self.write_corrections(out);
        }
        form
    }

    /// The scale of a run: found anew, or for a short one that which tells it in fewest bits.
    fn choose_scale(&self, value_type: ValueType, carried: &Carried) -> Scale {
        let found = detect(value_type, &self.values);
        if self.values.len() >= SHORT_RUN || found == Scale::Raw {
            return found;
        }
        let new = match carried.find(found) {
            None => self
                .short_cost(value_type, found, 0)
                .map(|bits| bits + NEW_SCALE_BITS),
            Some(_) => None,
        };
        let known = carried
            .memory
            .iter()
            .filter(|(scale, _)| *scale != Scale::Raw);
        let known = known.filter_map(|(scale, first)| {
            Some((*scale, self.short_cost(value_type, *scale, *first)?))
        });
        let best = new.map(|bits| (found, bits)).into_iter().chain(known);
        best.min_by_key(|(_, bits)| *bits)
            .map_or(found, |(scale, _)| scale)
    }

    /// Bits of a run's steps in this scale, if all its values are exact in it.
    fn short_cost(&self, value_type: ValueType, scale: Scale, first: i64) -> Option<u32> {
        let (mut last, mut bits) = (first, 0);
        for value in &self.values {
            let k = scale.nearest(value_type, *value)?;
            if scale.value(value_type, k) != place(value_type, *value) {
                return None;
            }
            bits += cost(k.wrapping_sub(last));
            last = k;
        }
        Some(bits)
    }

    /// Scales all values; whether any needs a correction.
    fn scale_all(&mut self, value_type: ValueType, scale: Scale) -> bool {
        self.integers.clear();
        self.corrections.clear();
        if scale == Scale::Raw {
            self.integers
                .extend(self.values.iter().map(|bits| place(value_type, *bits)));
            return false;
        }
        let (mut last, mut any) = (0, 0);
        for bits in &self.values {
            // What the scale does not have at all repeats the last integer, far corrected.
            last = scale.nearest(value_type, *bits).unwrap_or(last);
            let correction = place(value_type, *bits).wrapping_sub(scale.value(value_type, last));
            any |= correction;
            self.integers.push(last);
            self.corrections.push(correction);
        }
        any != 0
    }

    /// Whether listing levels takes fewer bits than `plain`; then which predictor suits the ranks.
    fn rank(&mut self, plain: u32) -> Option<u8> {
        let count = self.integers.len();
        if count < LEVELS_RUN_MIN {
            return None;
        }
        self.keys.clear();
        self.keys
            .extend(self.integers.iter().map(|k| *k as u64 ^ SIGN));
        if !self.distinct.find(&self.keys, count / 2) {
            return None;
        }
        self.distinct.rank(&mut self.keys);
        self.ranks.clear();
        self.ranks.extend(self.keys.iter().map(|rank| *rank as i64));
        let (predictor, bits) = best_predictor(&self.ranks);
        let gaps = self.distinct.levels.windows(2).map(|pair| match pair {
            [a, b] => 66 - (b - a).leading_zeros(),
            _ => 0,
        });
        (gaps.sum::<u32>() + bits + 8 < plain).then_some(predictor)
    }

    fn write_levels(&self, base: i64, out: &mut SymbolWriter) {
        let mut levels = self.distinct.levels.iter().map(|key| *key ^ SIGN);
        out.put(self.distinct.levels.len() as u64 - 1);
        let mut last = levels.next().unwrap_or(0);
        out.put_signed((last as i64).wrapping_sub(base));
        for level in levels {
            out.put(level.wrapping_sub(last) - 1);
            last = level;
        }
        if self.distinct.levels.len() > 1 {
            out.put(self.ranks.first().copied().unwrap_or(0) as u64);
        }
    }

    fn write_corrections(&self, out: &mut SymbolWriter) {
        let wrong = self
            .corrections
            .iter()
            .enumerate()
            .filter(|(_, c)| **c != 0);
        out.put(wrong.clone().count() as u64);
        let mut next = 0;
        for (i, correction) in wrong {
            out.put((i - next) as u64);
            out.put_signed(*correction);
            next = i + 1;
        }
    }
}

/// Writes a run's scale: which one of those remembered, or a new one.
fn write_scale(scale: Scale, carried: &mut Carried, out: &mut SymbolWriter) {
    if let Some(known) = carried.find(scale) {
        carried.now = known;
        out.put(known as u64);
        return;
    }
    carried.remember(scale);
    let new = MEMORY as u64;
    match scale {
        Scale::Raw => out.put(new),
        Scale::Decimal { exponent, step } => {
            out.put(new + 1 + u64::from(exponent));
            out.put(step - 1);
        }
        Scale::Factor(bits) => {
            out.put(new + 2 + u64::from(EXPONENT_MAX));
            out.put_bits(bits, 64);
        }
    }
}

fn read_scale(carried: &mut Carried, from: &mut SymbolReader<'_>) -> Result<(), Flaw> {
    let code = from.next_max(MEMORY + 2 + usize::from(EXPONENT_MAX))?;
    let Some(new) = code.checked_sub(MEMORY) else {
        carried.now = code;
        return Ok(());
    };
    let scale = match new.checked_sub(1).map(|exponent| exponent as u8) {
        None => Scale::Raw,
        Some(exponent @ ..=EXPONENT_MAX) => {
            let step = from.get()?;
            if step >= STEP_MAX {
                return from.flaw("has a scale with too great a step");
            }
            Scale::Decimal {
                exponent,
                step: step + 1,
            }
        }
        Some(_) => {
            let bits = from.bits(64)?;
            // Of what is not finite, machines disagree about the sign.
            if !f64::from_bits(bits).is_normal() {
                return from.flaw("has a factor that is no number");
            }
            Scale::Factor(bits)
        }
    };
    carried.remember(scale);
    Ok(())
}

/// Reads runs of numbers.
#[derive(Default)]
pub(super) struct NumberReader {
    integers: Vec<i64>,
    levels: Vec<i64>,
}

impl NumberReader {
    /// Fills in the values of one run's rows, whose form is `form`.
    pub fn read(
        &mut self,
        run: &Run,
        form: u8,
        rows: &mut [Row],
        carry: &mut Carry,
        from: &mut SymbolReader<'_>,
    ) -> Result<(), Flaw> {
        let value_type = run.value_type;
        let carried = carry.of(value_type);
        if form & SCALE != 0 {
            read_scale(carried, from)?;
            if value_type == ValueType::I64 && carried.scale() != Scale::Raw {
                return from.flaw("has a scale for integers");
            }
        }
        self.read_integers(rows.len(), form, carried, from)?;
        let scale = carried.scale();
        if form & CORRECTED != 0 {
            return self.read_corrected(value_type, scale, rows, from);
        }
        for (row, k) in rows.iter_mut().zip(&self.integers) {
            row.bits = at_place(value_type, scale.value(value_type, *k));
        }
        Ok(())
    }

    fn read_integers(
        &mut self,
        count: usize,
        form: u8,
        carried: &mut Carried,
        from: &mut SymbolReader<'_>,
    ) -> Result<(), Flaw> {
        self.integers.clear();
        let levels = form & LEVELS != 0;
        let base = *carried.first();
        let first = if levels {
            self.read_levels(count, base, from)?
        } else {
            base.wrapping_add(from.next_signed()?)
        };
        if levels && self.levels.len() == 1 {
            self.integers.resize(count, 0);
        } else {
            let integers = &mut self.integers;
            match form >> PREDICTOR_SHIFT {
                LAST => read_residuals::<LAST>(first, count, integers, from)?,
                LINE => read_residuals::<LINE>(first, count, integers, from)?,
                QUICK => read_residuals::<QUICK>(first, count, integers, from)?,
                _ => read_residuals::<SLOW>(first, count, integers, from)?,
            }
        }
        if levels {
            for k in &mut self.integers {
                match usize::try_from(*k)
                    .ok()
                    .and_then(|rank| self.levels.get(rank))
                {
                    Some(level) => *k = *level,
                    None => return from.flaw("names a level beyond its list"),
                }
            }
        }
        *carried.first() = self.integers.first().copied().unwrap_or(0);
        Ok(())
    }

    /// Reads the levels, and gives the first rank.
    fn read_levels(
        &mut self,
        count: usize,
        base: i64,
        from: &mut SymbolReader<'_>,
    ) -> Result<i64, Flaw> {
        let more = from.next_max(count)?;
        let mut level = base.wrapping_add(from.next_signed()?);
        self.levels.clear();
        self.levels.push(level);
        for _ in 0..more {
            level = level.wrapping_add(from.get()? as i64).wrapping_add(1);
            self.levels.push(level);
        }
        if more == 0 {
            Ok(0)
        } else {
            Ok(from.next_max(more)? as i64)
        }
    }

    fn read_corrected(
        &self,
        value_type: ValueType,
        scale: Scale,
        rows: &mut [Row],
        from: &mut SymbolReader<'_>,
    ) -> Result<(), Flaw> {
        let mut wrong = from.next_max(rows.len())?;
        let mut gap = next_gap(wrong, rows.len(), from)?;
        let most = rows.len();
        for (row, k) in rows.iter_mut().zip(&self.integers) {
            let mut found = scale.value(value_type, *k);
            if gap > 0 {
                gap -= 1;
            } else {
                found = found.wrapping_add(from.next_signed()?);
                wrong -= 1;
                gap = next_gap(wrong, most, from)?;
            }
            row.bits = at_place(value_type, found);
        }
        if wrong > 0 {
            from.flaw("corrects a row beyond its run")
        } else {
            Ok(())
        }
    }
}

/// Rows before the next one of a list that still names `left`.
fn next_gap(left: usize, most: usize, from: &mut SymbolReader<'_>) -> Result<usize, Flaw> {
    if left > 0 {
        from.next_max(most)
    } else {
        Ok(usize::MAX)
    }
}
