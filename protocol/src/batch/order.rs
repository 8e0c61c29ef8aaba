//! The decoded order: readings grouped by series, then by event time, then as they arrived.
//!
//! It moves rows and finds runs. It changes no row and writes nothing.

use crate::ids::SeriesId;
use crate::reading::{Row, ValueType};

/// The rows of one series in one batch, which stand together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    /// The series of all these rows.
    pub series: SeriesId,
    /// The type of all their values.
    pub value_type: ValueType,
    /// Place of the first row.
    pub start: usize,
    /// Place after the last row.
    pub end: usize,
}

impl Run {
    /// How many rows there are: at least one.
    pub fn len(&self) -> usize {
        self.end - self.start
    }
}

/// Scratch to bring rows into order.
#[derive(Default)]
pub(super) struct Order {
    /// Open addressing from series to group, one above; 0 is free.
    table: Vec<u32>,
    groups: Vec<Group>,
    group_of: Vec<u32>,
    sorted: Vec<Row>,
}

#[derive(Clone, Copy)]
struct Group {
    series: SeriesId,
    number: u32,
    rows: usize,
    next: usize,
}

impl Order {
    /// Brings rows into the decoded order.
    pub fn sort(&mut self, rows: &mut [Row]) {
        if in_order(rows) {
            return;
        }
        self.count(rows);
        self.place(rows);
        let sorted = self.sorted.get(..rows.len());
        rows.copy_from_slice(sorted.expect("`place` made room for every row"));
        for run in rows.chunk_by_mut(|a, b| a.series == b.series) {
            if !in_order(run) {
                run.sort_by_key(|row| row.meta.event_time);
            }
        }
    }

    /// Finds the group of every row.
    fn count(&mut self, rows: &[Row]) {
        let slots = (rows.len() * 2).next_power_of_two();
        let shift = 32 - slots.trailing_zeros();
        self.table.clear();
        self.table.resize(slots, 0);
        self.groups.clear();
        self.group_of.clear();
        for row in rows {
            let number = self.group(row.series, shift);
            if let Some(group) = self.groups.get_mut(number as usize) {
                group.rows += 1;
            }
            self.group_of.push(number);
        }
    }

    fn group(&mut self, series: SeriesId, shift: u32) -> u32 {
        // Fibonacci hashing: series are dense, and the product spreads them.
        let mut at = (series.0.wrapping_mul(0x9e37_79b9) >> shift) as usize;
        loop {
            let Some(slot) = self.table.get_mut(at) else {
                at = 0;
                continue;
            };
            let Some(number) = slot.checked_sub(1) else {
                let number = self.groups.len() as u32;
                *slot = number + 1;
                self.groups.push(Group {
                    series,
                    number,
                    rows: 0,
                    next: 0,
                });
                return number;
            };
            if self
                .groups
                .get(number as usize)
                .is_some_and(|group| group.series == series)
            {
                return number;
            }
            at += 1;
        }
    }

    /// Puts copies of the rows into `sorted`, groups by series, rows of a group as they came.
    fn place(&mut self, rows: &[Row]) {
        self.groups.sort_unstable_by_key(|group| group.series);
        let mut start = 0;
        for group in &mut self.groups {
            group.next = start;
            start += group.rows;
        }
        self.groups.sort_unstable_by_key(|group| group.number);
        // Every place is written below: what stands there from before does not matter.
        if let (Some(first), true) = (rows.first(), self.sorted.len() < rows.len()) {
            self.sorted.resize(rows.len(), *first);
        }
        for (row, number) in rows.iter().zip(&self.group_of) {
            let group = self.groups.get_mut(*number as usize);
            let group = group.expect("`count` made the group of every row");
            let place = self.sorted.get_mut(group.next);
            *place.expect("as many places as rows") = *row;
            group.next += 1;
        }
    }
}

/// Whether rows stand in the decoded order.
fn in_order(rows: &[Row]) -> bool {
    rows.is_sorted_by_key(|row| (row.series, row.meta.event_time))
}

/// The runs of rows that are in order, or the series whose rows differ in type.
pub(super) fn runs(rows: &[Row], out: &mut Vec<Run>) -> Result<(), SeriesId> {
    out.clear();
    let mut start = 0;
    for rows in rows.chunk_by(|a, b| a.series == b.series) {
        let Some(first) = rows.first() else { continue };
        if rows.iter().any(|row| row.value_type != first.value_type) {
            return Err(first.series);
        }
        let end = start + rows.len();
        out.push(Run {
            series: first.series,
            value_type: first.value_type,
            start,
            end,
        });
        start = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Meta;
    use proptest::prelude::*;

    fn row(series: u32, event_time: i64, bits: u64) -> Row {
        let meta = Meta {
            event_time,
            ..Meta::default()
        };
        Row {
            meta,
            series: SeriesId(series),
            value_type: ValueType::F64,
            bits,
        }
    }

    proptest! {
        #[test]
        fn order_is_that_of_a_stable_sort(
            rows in proptest::collection::vec((0u32..40, -5i64..5), 1..300),
            spread in prop::sample::select(vec![1u32, 7, 24_593, 0x0101_0101]),
        ) {
            let mut rows: Vec<Row> = rows.iter().enumerate()
                .map(|(i, (s, t))| row(s.wrapping_mul(spread), *t, i as u64)).collect();
            let mut expected = rows.clone();
            expected.sort_by_key(|row| (row.series, row.meta.event_time));
            Order::default().sort(&mut rows);
            prop_assert_eq!(rows, expected);
        }
    }
}
