//! The rows of one message, with the texts they refer to. Used again for the next message, so that
//! decoding allocates nothing once it is warm.

use super::DeadLetter;
use crate::limits::{JSON_PATH_BYTES_MAX, ROW_TEXT_BYTES_KEPT_MAX, ROWS_KEPT_MAX};
use tributary_protocol::limits::{MESSAGE_READINGS_MAX, TEXT_BYTES_MAX};
use tributary_protocol::reading::{Meta, Value};

/// One decoded reading.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Reading<'a> {
    /// What published it.
    pub device: &'a str,
    /// What was measured.
    pub metric: &'a str,
    /// In which unit; empty when nobody said.
    pub unit: &'a str,
    /// Times, quality, sequence, flags.
    pub meta: Meta,
    /// The value.
    pub value: Value<'a>,
}

/// A piece of the texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: usize,
    end: usize,
}

/// A value whose text lies in the rows' texts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    I64(i64),
    F64(f64),
    Str(Span),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub device: Span,
    pub metric: Span,
    pub unit: Span,
    pub meta: Meta,
    pub value: Scalar,
}

/// The rows that one message decodes to. Keep one and use it for every message.
#[derive(Debug, Default)]
pub struct Rows {
    rows: Vec<Row>,
    texts: String,
    /// Scratch of the JSON walk: the path to the member at hand.
    pub(super) path: String,
    /// Scratch of the JSON walk: what was found at the places that the rule reads.
    pub(super) slots: Vec<Option<Scalar>>,
}

impl Rows {
    /// No rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// The readings, in the order of the message.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Reading<'_>> {
        self.rows.iter().map(|row| self.reading(row))
    }

    #[inline]
    fn reading(&self, row: &Row) -> Reading<'_> {
        Reading {
            device: self.text(row.device),
            metric: self.text(row.metric),
            unit: self.text(row.unit),
            meta: row.meta,
            value: match row.value {
                Scalar::F64(x) => Value::F64(x),
                Scalar::I64(x) => Value::I64(x),
                Scalar::Bool(x) => Value::Bool(x),
                Scalar::Str(span) => Value::Str(self.text(span)),
                Scalar::Null => Value::Str(""),
            },
        }
    }

    /// Keeps the readings that `keeps` is true of; gives how many it let go of.
    pub fn retain(&mut self, mut keeps: impl FnMut(&Reading<'_>) -> bool) -> usize {
        let before = self.rows.len();
        let mut rows = std::mem::take(&mut self.rows);
        rows.retain(|row| keeps(&self.reading(row)));
        self.rows = rows;
        before - self.rows.len()
    }

    /// How many readings there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Forgets everything, and the room that only an unusual message needs.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.rows.shrink_to(ROWS_KEPT_MAX);
        self.texts.clear();
        self.texts.shrink_to(ROW_TEXT_BYTES_KEPT_MAX);
        self.path.clear();
        self.path.shrink_to(JSON_PATH_BYTES_MAX);
        self.slots.clear();
    }

    /// Bytes of memory that are held.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let rows = self.rows.capacity() * size_of::<Row>();
        let slots = self.slots.capacity() * size_of::<Option<Scalar>>();
        rows + self.texts.capacity() + self.path.capacity() + slots
    }

    #[inline]
    pub(super) fn text(&self, span: Span) -> &str {
        self.texts.get(span.start..span.end).unwrap_or("")
    }

    /// Takes a text in.
    #[inline]
    pub(super) fn keep(&mut self, text: &str) -> Span {
        let start = self.texts.len();
        self.texts.push_str(text);
        Span {
            start,
            end: self.texts.len(),
        }
    }

    /// Takes in a text that `write` appends.
    pub(super) fn keep_with<E>(
        &mut self,
        write: impl FnOnce(&mut String) -> Result<(), E>,
    ) -> Result<Span, E> {
        let start = self.texts.len();
        write(&mut self.texts)?;
        Ok(Span {
            start,
            end: self.texts.len(),
        })
    }

    /// Takes in a text that `write` appends, which always can.
    pub(super) fn keep_written(&mut self, write: impl FnOnce(&mut String)) -> Span {
        let start = self.texts.len();
        write(&mut self.texts);
        Span {
            start,
            end: self.texts.len(),
        }
    }

    /// How much text there is, to [cut](Self::cut_texts) it back to.
    pub(super) fn texts_mark(&self) -> usize {
        self.texts.len()
    }

    /// Forgets the texts that came after the mark; nothing may refer to them.
    pub(super) fn cut_texts(&mut self, mark: usize) {
        self.texts.truncate(mark);
    }

    /// Takes in the path at hand.
    pub(super) fn keep_path(&mut self) -> Span {
        let start = self.texts.len();
        self.texts.push_str(&self.path);
        Span {
            start,
            end: self.texts.len(),
        }
    }

    /// Takes in `a.b`.
    pub(super) fn keep_joined(&mut self, a: Span, b: Span) -> Span {
        let start = self.texts.len();
        for (i, span) in [a, b].into_iter().enumerate() {
            if i > 0 {
                self.texts.push('.');
            }
            self.texts.extend_from_within(span.start..span.end);
        }
        Span {
            start,
            end: self.texts.len(),
        }
    }

    /// Adds a row, unless it is null.
    #[inline]
    pub(super) fn push(&mut self, row: Row) -> Result<(), DeadLetter> {
        if row.value == Scalar::Null {
            return Ok(());
        }
        self.check_value(&row)?;
        if self.rows.len() == MESSAGE_READINGS_MAX {
            return Err(DeadLetter::TooManyReadings);
        }
        self.rows.push(row);
        Ok(())
    }

    /// Puts a row in the place of one that is there.
    pub(super) fn replace(&mut self, place: usize, row: Row) -> Result<(), DeadLetter> {
        self.check_value(&row)?;
        if let Some(slot) = self.rows.get_mut(place) {
            *slot = row;
        }
        Ok(())
    }

    #[inline]
    fn check_value(&self, row: &Row) -> Result<(), DeadLetter> {
        match row.value {
            Scalar::Str(span) => self.check_text(span, row.metric),
            Scalar::Null | Scalar::Bool(_) | Scalar::I64(_) | Scalar::F64(_) => Ok(()),
        }
    }

    #[inline]
    fn check_text(&self, value: Span, metric: Span) -> Result<(), DeadLetter> {
        let text = self.text(value);
        let why = if text.len() > TEXT_BYTES_MAX {
            "is longer than 64 KiB"
        } else if text.as_bytes().contains(&0) {
            "holds U+0000"
        } else {
            return Ok(());
        };
        Err(DeadLetter::Text {
            metric: head(self.text(metric)),
            why,
        })
    }

    #[inline]
    pub(super) fn row(&self, place: usize) -> Option<Row> {
        self.rows.get(place).copied()
    }
}

/// The head of a text, for a message to a human.
pub(super) fn head(text: &str) -> String {
    const CHARS: usize = 64;
    let mut short: String = text.chars().take(CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
