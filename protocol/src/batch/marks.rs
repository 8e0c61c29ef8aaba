//! The columns of device sequence, quality and flags.
//!
//! A run mostly goes on as the one before it did: its sequence counts on, quality and flags stay.
//! Its mark says so in one byte; otherwise the rows where something changes are listed.

use super::order::Run;
use super::symbols::{Flaw, SymbolReader, SymbolWriter, unzigzag, zigzag};
use crate::reading::{Flags, Row};

/// Bits of a run's mark: how its device sequence is told.
const SEQ: u8 = 0b11;
/// No row has a device sequence.
const SEQ_NONE: u8 = 0;
/// The sequence counts on by one step.
const SEQ_STEADY: u8 = 1;
/// Rows where it does not are listed.
const SEQ_LISTED: u8 = 2;
/// Quality changes within the run.
const QUALITY: u8 = 1 << 2;
/// Flags change within the run.
const FLAGS: u8 = 1 << 3;
/// The run's event times are as its clock foretold.
pub(super) const STEADY: u8 = 1 << 4;
/// Every bit that has a meaning.
const KNOWN: u8 = SEQ | QUALITY | FLAGS | STEADY;

/// What the run before leaves behind.
#[derive(Clone, Copy)]
struct Carried {
    /// First device sequence of the last run that had one, and its step.
    seq: i64,
    step: i64,
    quality: i32,
    flags: u8,
}

const START: Carried = Carried {
    seq: 0,
    step: 1,
    quality: 0,
    flags: 0,
};

/// The sequence number expected after `seq`: never negative.
fn after(seq: i64, step: i64) -> i64 {
    seq.wrapping_add(step) & i64::MAX
}

/// Writes the columns, and adds to each run's mark what it has to say.
pub(super) fn write(rows: &[Row], runs: &[Run], marks: &mut [u8], out: &mut SymbolWriter) {
    let mut carried = START;
    for (run, mark) in runs.iter().zip(marks) {
        let rows = rows.get(run.start..run.end).unwrap_or_default();
        *mark |= write_seq(rows, &mut carried, out);
        if rows.iter().any(|row| row.meta.quality != carried.quality) {
            *mark |= QUALITY;
            let changes = rows.iter().map(|row| i64::from(row.meta.quality));
            write_changes(changes, i64::from(carried.quality), out);
        }
        if rows.iter().any(|row| row.meta.flags.0 != carried.flags) {
            *mark |= FLAGS;
            let changes = rows.iter().map(|row| i64::from(row.meta.flags.0));
            write_changes(changes, i64::from(carried.flags), out);
        }
        if let Some(last) = rows.last() {
            carried.quality = last.meta.quality;
            carried.flags = last.meta.flags.0;
        }
    }
}

fn write_seq(rows: &[Row], carried: &mut Carried, out: &mut SymbolWriter) -> u8 {
    let mut seqs = rows.iter().map(|row| row.meta.device_seq);
    let Some(first) = seqs.clone().find_map(|seq| seq) else {
        return SEQ_NONE;
    };
    out.put_signed(first.wrapping_sub(carried.seq));
    carried.seq = first;
    let step = seqs
        .clone()
        .nth(1)
        .flatten()
        .map_or(carried.step, |seq| seq.wrapping_sub(first));
    let mut expected = first;
    let steady = seqs.all(|seq| {
        let right = seq == Some(expected);
        expected = after(expected, step);
        right
    });
    if steady {
        if rows.len() > 1 {
            out.put_signed(step.wrapping_sub(carried.step));
            carried.step = step;
        }
        return SEQ_STEADY;
    }
    write_listed_seq(rows, first, carried.step, out);
    SEQ_LISTED
}

fn write_listed_seq(rows: &[Row], first: i64, step: i64, out: &mut SymbolWriter) {
    let surprises = || {
        let mut expected = first;
        rows.iter().enumerate().filter_map(move |(i, row)| {
            let seq = row.meta.device_seq;
            let code = seq.map_or(0, |seq| zigzag(seq.wrapping_sub(expected)).wrapping_add(1));
            expected = seq.map_or(expected, |seq| after(seq, step));
            (code != 1).then_some((i, code))
        })
    };
    out.put(surprises().count() as u64);
    let mut next = 0;
    for (i, code) in surprises() {
        out.put((i - next) as u64);
        out.put(code);
        next = i + 1;
    }
}

/// Lists where a number changes, and by how much.
fn write_changes(numbers: impl Iterator<Item = i64> + Clone, start: i64, out: &mut SymbolWriter) {
    let changes = || {
        let mut last = start;
        numbers.clone().enumerate().filter_map(move |(i, now)| {
            let change = now.wrapping_sub(last);
            last = now;
            (change != 0).then_some((i, change))
        })
    };
    out.put(changes().count() as u64);
    let mut next = 0;
    for (i, change) in changes() {
        out.put((i - next) as u64);
        out.put_signed(change);
        next = i + 1;
    }
}

/// Fills in device sequence, quality and flags of `rows`, as many as the runs have together.
pub(super) fn read(
    rows: &mut [Row],
    runs: &[Run],
    marks: &[u8],
    from: &mut SymbolReader<'_>,
) -> Result<(), Flaw> {
    let mut carried = START;
    for (run, mark) in runs.iter().zip(marks) {
        let rows = rows.get_mut(run.start..run.end).unwrap_or_default();
        from.column = "device sequence";
        if mark & !KNOWN != 0 {
            return from.flaw("has a mark that means nothing");
        }
        match mark & SEQ {
            SEQ_NONE => {}
            SEQ_STEADY => read_steady_seq(rows, &mut carried, from)?,
            SEQ_LISTED => read_listed_seq(rows, &mut carried, from)?,
            _ => return from.flaw("has a mark that means nothing"),
        }
        from.column = "quality";
        read_quality(rows, mark & QUALITY != 0, &mut carried, from)?;
        from.column = "flags";
        read_flags(rows, mark & FLAGS != 0, &mut carried, from)?;
    }
    Ok(())
}

fn first_seq(carried: &mut Carried, from: &mut SymbolReader<'_>) -> Result<i64, Flaw> {
    carried.seq = carried.seq.wrapping_add(from.next_signed()?);
    if carried.seq < 0 {
        from.flaw("is negative")
    } else {
        Ok(carried.seq)
    }
}

fn read_steady_seq(
    rows: &mut [Row],
    carried: &mut Carried,
    from: &mut SymbolReader<'_>,
) -> Result<(), Flaw> {
    let mut seq = first_seq(carried, from)?;
    if rows.len() > 1 {
        carried.step = carried.step.wrapping_add(from.next_signed()?);
    }
    for row in rows {
        row.meta.device_seq = Some(seq);
        seq = after(seq, carried.step);
    }
    Ok(())
}

fn read_listed_seq(
    rows: &mut [Row],
    carried: &mut Carried,
    from: &mut SymbolReader<'_>,
) -> Result<(), Flaw> {
    let mut expected = first_seq(carried, from)?;
    let mut surprises = from.next_max(rows.len())?;
    let mut gap = if surprises > 0 {
        from.next_max(rows.len())?
    } else {
        rows.len()
    };
    for row in rows.iter_mut() {
        row.meta.device_seq = Some(expected);
        if gap > 0 {
            gap -= 1;
        } else {
            let code = from.get()?.checked_sub(1);
            row.meta.device_seq = code.map(|code| expected.wrapping_add(unzigzag(code)));
            surprises -= 1;
            gap = if surprises > 0 {
                from.next_max(MORE)?
            } else {
                usize::MAX
            };
        }
        match row.meta.device_seq {
            Some(seq) if seq < 0 => return from.flaw("is negative"),
            Some(seq) => expected = after(seq, carried.step),
            None => {}
        }
    }
    if surprises > 0 {
        from.flaw("lists a row beyond its run")
    } else {
        Ok(())
    }
}

/// Greatest gap between two rows of a list.
const MORE: usize = crate::limits::BATCH_READINGS_MAX;

/// Calls `set` for every row with the number that holds there.
fn read_changes(
    rows: &mut [Row],
    start: i64,
    from: &mut SymbolReader<'_>,
    set: impl Fn(&mut Row, i64) -> bool,
) -> Result<(), Flaw> {
    let mut changes = from.next_max(rows.len())?;
    let mut gap = if changes > 0 {
        from.next_max(MORE)?
    } else {
        usize::MAX
    };
    let mut now = start;
    for row in rows.iter_mut() {
        if gap > 0 {
            gap -= 1;
        } else {
            now = now.wrapping_add(from.next_signed()?);
            changes -= 1;
            gap = if changes > 0 {
                from.next_max(MORE)?
            } else {
                usize::MAX
            };
        }
        if !set(row, now) {
            return from.flaw("holds a number that is too great");
        }
    }
    if changes > 0 {
        from.flaw("lists a row beyond its run")
    } else {
        Ok(())
    }
}

fn read_quality(
    rows: &mut [Row],
    changes: bool,
    carried: &mut Carried,
    from: &mut SymbolReader<'_>,
) -> Result<(), Flaw> {
    if !changes {
        rows.iter_mut()
            .for_each(|row| row.meta.quality = carried.quality);
        return Ok(());
    }
    read_changes(rows, i64::from(carried.quality), from, |row, now| {
        let quality = i32::try_from(now);
        row.meta.quality = quality.unwrap_or(0);
        quality.is_ok()
    })?;
    carried.quality = rows.last().map_or(0, |row| row.meta.quality);
    Ok(())
}

fn read_flags(
    rows: &mut [Row],
    changes: bool,
    carried: &mut Carried,
    from: &mut SymbolReader<'_>,
) -> Result<(), Flaw> {
    if !changes {
        rows.iter_mut()
            .for_each(|row| row.meta.flags = Flags(carried.flags));
        return Ok(());
    }
    read_changes(rows, i64::from(carried.flags), from, |row, now| {
        let flags = u8::try_from(now);
        row.meta.flags = Flags(flags.unwrap_or(0));
        flags.is_ok()
    })?;
    carried.flags = rows.last().map_or(0, |row| row.meta.flags.0);
    Ok(())
}
