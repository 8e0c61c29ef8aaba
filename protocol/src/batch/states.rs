//! The columns of truth values and texts.
//!
//! Truth values are told by where they change, or as bits where they change often. Texts are listed
//! once in a batch, in the order in which rows first hold them, and rows name them by their place.

use super::symbols::{Flaw, SymbolReader, SymbolWriter, flaw};
use crate::limits::{BATCH_TEXT_BYTES_MAX, TEXT_BYTES_MAX};
use crate::reading::{Readings, Row};
use std::collections::HashMap;

/// Bit of a run's form, above its value type: its truth values are told as bits.
const AS_BITS: u8 = 1 << 3;

/// Writes a run of truth values, and returns the bits of its form above the value type.
pub(super) fn write_bools(rows: &[Row], out: &mut SymbolWriter) -> u8 {
    let bit = |row: &Row| row.bits & 1;
    let first = rows.first().map_or(0, bit);
    let changes = rows
        .iter()
        .zip(rows.iter().skip(1))
        .filter(|(a, b)| bit(a) != bit(b))
        .count();
    if changes * 8 > rows.len() {
        rows.iter().for_each(|row| out.put_bits(bit(row), 1));
        return AS_BITS;
    }
    out.put((changes as u64) << 1 | first);
    let mut same = 0u64;
    for (a, b) in rows.iter().zip(rows.iter().skip(1)) {
        if bit(a) == bit(b) {
            same += 1;
        } else {
            out.put(same);
            same = 0;
        }
    }
    0
}

/// Fills in a run of truth values.
pub(super) fn read_bools(
    form: u8,
    rows: &mut [Row],
    from: &mut SymbolReader<'_>,
) -> Result<(), Flaw> {
    if form & AS_BITS != 0 {
        for row in rows {
            row.bits = from.bits(1)?;
        }
        return Ok(());
    }
    let most = rows.len();
    let start = from.next_max(most * 2)?;
    let (mut left, mut now) = (start >> 1, (start & 1) as u64);
    let mut same = next_change(left, most, from)?;
    let Some((first, rest)) = rows.split_first_mut() else {
        return Ok(());
    };
    first.bits = now;
    for row in rest {
        if same > 0 {
            same -= 1;
        } else {
            now ^= 1;
            left -= 1;
            same = next_change(left, most, from)?;
        }
        row.bits = now;
    }
    if left > 0 {
        from.flaw("changes beyond its run")
    } else {
        Ok(())
    }
}

/// Rows before the next change, when `left` are still to come.
fn next_change(left: usize, most: usize, from: &mut SymbolReader<'_>) -> Result<usize, Flaw> {
    if left > 0 {
        from.next_max(most)
    } else {
        Ok(usize::MAX)
    }
}

/// The texts of a batch as they are first met.
#[derive(Default)]
pub(super) struct TextWriter<'a> {
    listed: HashMap<&'a str, u64>,
    texts: Vec<&'a str>,
}

/// A row holds the text of the row before.
const SAME: u64 = 0;
/// A row holds the next text of the list.
const NEXT: u64 = 1;

impl<'a> TextWriter<'a> {
    /// Writes a run of texts.
    pub fn write(&mut self, rows: &[Row], readings: &'a Readings, out: &mut SymbolWriter) {
        let mut last = None;
        for row in rows {
            let text = readings.text(row.bits);
            let next = self.texts.len() as u64;
            let place = *self.listed.entry(text).or_insert(next);
            if place == next {
                self.texts.push(text);
            }
            out.put(match place {
                _ if last == Some(place) => SAME,
                _ if place == next => NEXT,
                _ => place + 2,
            });
            last = Some(place);
        }
    }

    /// Writes the list, as the last column.
    pub fn finish(self, out: &mut SymbolWriter) {
        self.texts
            .iter()
            .for_each(|text| out.put(text.len() as u64));
        self.texts
            .iter()
            .for_each(|text| out.tokens.extend_from_slice(text.as_bytes()));
    }
}

/// How many texts the rows of a batch have named so far.
#[derive(Default)]
pub(super) struct TextReader {
    named: u64,
}

impl TextReader {
    /// Fills in a run of texts, by their places in the list.
    pub fn read(&mut self, rows: &mut [Row], from: &mut SymbolReader<'_>) -> Result<(), Flaw> {
        let mut last = None;
        for row in rows {
            row.bits = match (from.get()?, last) {
                (SAME, Some(place)) => place,
                (SAME, None) => return from.flaw("repeats a text before the first"),
                (NEXT, _) => {
                    self.named += 1;
                    self.named - 1
                }
                (place, _) if place - 2 < self.named => place - 2,
                _ => return from.flaw("names a text beyond its list"),
            };
            last = Some(row.bits);
        }
        Ok(())
    }

    /// Reads the list.
    pub fn finish(self, from: &mut SymbolReader<'_>) -> Result<Vec<Box<str>>, Flaw> {
        from.column = "texts";
        let mut bytes = 0;
        let mut lengths = Vec::new();
        for _ in 0..self.named {
            let length = from.next_max(TEXT_BYTES_MAX)?;
            bytes += length;
            if bytes > BATCH_TEXT_BYTES_MAX {
                return from.flaw("is longer than a batch's texts may be");
            }
            lengths.push(length);
        }
        let mut all = from.take(bytes)?;
        let mut texts = Vec::with_capacity(lengths.len());
        for length in lengths {
            let (text, rest) = all.split_at_checked(length).unwrap_or_default();
            all = rest;
            match str::from_utf8(text) {
                Ok(text) if !text.contains('\0') => texts.push(text.into()),
                Ok(_) => return flaw("texts", "holds U+0000"),
                Err(_) => return flaw("texts", "is not UTF-8"),
            }
        }
        Ok(texts)
    }
}
