//! Journal entries on their way into a sink, decoded. Pure.

use crate::lake::load::Content;
use crate::lake::sink::Item;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use tributary_protocol::reading::Row;

/// Entries `[first, end)` of a journal, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chunk {
    first: u64,
    end: u64,
    items: Vec<Arc<Item>>,
    /// One past the last row of each item.
    ends: Vec<usize>,
    bytes: usize,
    refused: BTreeMap<usize, String>,
}

/// How many rows an item brings a sink.
pub fn rows_of(item: &Item) -> usize {
    match item {
        Item::Nothing(_) => 0,
        Item::Damaged(_) => 1,
        Item::Batch(batch) => match &batch.1 {
            Content::Readings(readings) | Content::Named(readings, _) => readings.len(),
            Content::Gap(rows) => rows.len(),
            Content::Refused { .. } => 1,
            Content::Definitions => 0,
        },
    }
}

/// About how many bytes of memory an item takes.
pub fn bytes_of(item: &Item) -> usize {
    let own = size_of::<Item>();
    let Item::Batch(batch) = item else {
        return own;
    };
    let content = match &batch.1 {
        Content::Readings(readings) | Content::Named(readings, _) => {
            readings.len() * size_of::<Row>() + readings.text_bytes()
        }
        Content::Gap(rows) => rows.len() * size_of::<crate::lake::load::GapRow>(),
        Content::Refused { reason } => reason.len(),
        Content::Definitions => 0,
    };
    own + batch.0.sealed.len() + content
}

/// One past the last entry that an item stands for.
pub fn end_of(item: &Item) -> u64 {
    match item {
        Item::Batch(batch) => batch.0.entry + 1,
        Item::Nothing(entry) => entry + 1,
        Item::Damaged(entries) => entries.end,
    }
}

impl Chunk {
    /// An empty chunk that begins at this entry.
    pub fn new(first: u64) -> Self {
        Self {
            first,
            end: first,
            ..Self::default()
        }
    }

    /// Takes the next item.
    pub fn push(&mut self, item: Arc<Item>) {
        let rows = self.rows() + rows_of(&item);
        self.end = self.end.max(end_of(&item));
        self.bytes += bytes_of(&item);
        self.ends.push(rows);
        self.items.push(item);
    }

    /// The first entry.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// One past the last entry.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether no entry is in it.
    pub fn is_empty(&self) -> bool {
        self.first == self.end
    }

    /// How many rows it brings, sifted out or not.
    pub fn rows(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// About how many bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The entries, each with the places of its rows.
    pub fn items(&self) -> impl Iterator<Item = (Range<usize>, &Item)> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let places = starts.zip(&self.ends).map(|(start, end)| start..*end);
        places.zip(self.items.iter().map(AsRef::as_ref))
    }

    /// Rows that the target does not take, by their places, with the reason.
    pub fn refused(&self) -> &BTreeMap<usize, String> {
        &self.refused
    }

    /// Sifts out rows.
    pub fn refuse(&mut self, rows: impl IntoIterator<Item = (usize, String)>) {
        self.refused.extend(rows);
    }

    /// Takes what was sifted out back in.
    pub fn take_back(&mut self) {
        self.refused.clear();
    }

    /// The chunk without its later half; whether it had one.
    pub fn halve(&mut self) -> bool {
        let keep = self.items.len() / 2;
        if keep == 0 {
            return false;
        }
        let mut half = Self::new(self.first);
        for item in self.items.drain(..keep) {
            half.push(item);
        }
        *self = half;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_end_where_their_entries_do() {
        let mut chunk = Chunk::new(5);
        for item in [Item::Nothing(5), Item::Damaged(6..9), Item::Nothing(9)] {
            chunk.push(Arc::new(item));
        }
        assert_eq!((chunk.first(), chunk.end(), chunk.rows()), (5, 10, 1));
        let places: Vec<_> = chunk.items().map(|(rows, _)| rows).collect();
        assert_eq!(places, [0..0, 0..1, 1..1]);
        assert!(chunk.halve());
        assert_eq!((chunk.first(), chunk.end(), chunk.rows()), (5, 6, 0));
        assert!(!chunk.halve());
    }
}
