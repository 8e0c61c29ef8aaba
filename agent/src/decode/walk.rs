//! A walk through one JSON document: the values at the places that the rule reads go to their
//! slots, every other scalar becomes a row or is passed over. What slots mean is not decided here.

use super::DeadLetter;
use super::given::Given;
use super::json::Json;
use super::message::Names;
use super::pointer::{Node, ROOT};
use super::rows::{Row, Rows, Scalar, Span, head};
use super::rule::{Rule, slot};
use crate::limits::{JSON_DEPTH_MAX, JSON_PATH_BYTES_MAX};
use tributary_protocol::limits::NAME_BYTES_MAX;
use tributary_protocol::reading::Meta;

pub(super) struct Walk<'a, 'r> {
    pub json: Json<'a>,
    pub rows: &'r mut Rows,
    pub rule: &'r Rule,
    pub names: Names,
    pub given: Given,
    pub received_time: i64,
    /// Samples that the document at hand had so far, those that are null too.
    pub samples: usize,
}

impl Walk<'_, '_> {
    /// The payload: one document, or an array of them. Gives the first sequence number.
    pub fn document(&mut self) -> Result<Option<i64>, DeadLetter> {
        // An array may be the samples themselves.
        let is_list = self.json.peek() == Some(b'[') && self.rule.places.slot(ROOT).is_none();
        let seq = if is_list {
            self.list()?
        } else {
            self.element(0)?
        };
        self.json.end()?;
        Ok(seq)
    }

    fn list(&mut self) -> Result<Option<i64>, DeadLetter> {
        self.json.expect(b'[', "`[`")?;
        let mut first_seq = None;
        if self.json.take(b']') {
            return Ok(None);
        }
        for element in 0.. {
            let seq = self.element(element)?;
            first_seq = first_seq.or(seq);
            if self.json.take(b']') {
                break;
            }
            self.json.expect(b',', "`,` or `]`")?;
        }
        Ok(first_seq)
    }

    /// One document; gives its sequence number.
    fn element(&mut self, place: usize) -> Result<Option<i64>, DeadLetter> {
        match self.json.peek() {
            Some(b'[') if self.rule.all => return Err(DeadLetter::NestedArray(place)),
            Some(b'{' | b'[') => {}
            _ if self.rule.all => {
                let value = self.json.scalar(self.rows)?;
                self.push_value(value)?;
                return Ok(self.given.seq);
            }
            _ => {}
        }
        let first = self.rows.len();
        self.rows.slots.clear();
        self.rows.slots.resize(self.rule.places.slots(), None);
        self.rows.path.clear();
        self.samples = 0;
        self.stands(0, Some(ROOT))?;
        self.finish(first)
    }

    /// What stands at the path at hand, within `depth` objects and arrays.
    #[inline]
    fn stands(&mut self, depth: usize, node: Option<Node>) -> Result<(), DeadLetter> {
        let next = self.json.peek();
        if let Some(slot) = node.and_then(|node| self.rule.places.slot(node))
            && self.fill(slot, next)?
        {
            return Ok(());
        }
        if matches!(next, Some(b'{' | b'[')) && depth >= JSON_DEPTH_MAX {
            return Err(DeadLetter::TooDeep(self.json.at()));
        }
        match next {
            Some(b'{') => self.object(depth + 1, node),
            Some(b'[') => self.array(depth + 1, node),
            _ if self.rule.all => self.member(),
            _ => self.pass_over(),
        }
    }

    /// Takes what stands here into its slot; `false` where it is more members instead.
    #[inline]
    fn fill(&mut self, slot: usize, next: Option<u8>) -> Result<bool, DeadLetter> {
        let name = |walk: &Self| walk.rule.places.name(slot).to_owned();
        let held = self.rows.slots.get(slot).copied().flatten();
        if held.is_some() {
            return Err(DeadLetter::Twice(name(self)));
        }
        let value = match next {
            Some(b'[') if slot == slot::SAMPLES => {
                self.read_samples()?;
                Scalar::Null
            }
            Some(b'{' | b'[') => {
                if slot == slot::TIME {
                    let why = "is an object or an array";
                    return Err(DeadLetter::Time(name(self), why));
                }
                return match self.rule.all {
                    true => Ok(false),
                    false => Err(DeadLetter::Nested(name(self))),
                };
            }
            _ => self.json.scalar(self.rows)?,
        };
        if let Some(held) = self.rows.slots.get_mut(slot) {
            *held = Some(value);
        }
        Ok(true)
    }

    fn object(&mut self, depth: usize, node: Option<Node>) -> Result<(), DeadLetter> {
        self.json.expect(b'{', "`{`")?;
        if self.json.take(b'}') {
            return Ok(());
        }
        let outer = self.rows.path.len();
        loop {
            if outer > 0 {
                self.rows.path.push('.');
            }
            let key_at = self.rows.path.len();
            self.key()?;
            let key = self.rows.path.get(key_at..).unwrap_or_default();
            let below = node.and_then(|node| self.rule.places.member(node, key));
            self.stands(depth, below)?;
            self.rows.path.truncate(outer);
            if self.json.take(b'}') {
                return Ok(());
            }
            self.json.expect(b',', "`,` or `}`")?;
        }
    }

    /// A member's key, appended to the path, and the colon behind it.
    fn key(&mut self) -> Result<(), DeadLetter> {
        if self.json.peek() != Some(b'"') {
            return Err(self.json.wrong("a member's name in quotes"));
        }
        self.json.string(&mut self.rows.path)?;
        if self.rows.path.len() > JSON_PATH_BYTES_MAX {
            return Err(DeadLetter::Name {
                what: "metric name",
                name: head(&self.rows.path),
            });
        }
        self.json.expect(b':', "`:`")
    }

    /// The places of an array within a document: `path.0`, `path.1`, …
    fn array(&mut self, depth: usize, node: Option<Node>) -> Result<(), DeadLetter> {
        self.json.expect(b'[', "`[`")?;
        if self.json.take(b']') {
            return Ok(());
        }
        let outer = self.rows.path.len();
        for place in 0usize.. {
            use std::fmt::Write;
            write!(self.rows.path, ".{place}").expect("a String takes any text");
            let below = node.and_then(|node| self.rule.places.element(node, place));
            self.stands(depth, below)?;
            self.rows.path.truncate(outer);
            if self.json.take(b']') {
                break;
            }
            self.json.expect(b',', "`,` or `]`")?;
        }
        Ok(())
    }

    /// A scalar that is a row, named by the path at hand.
    fn member(&mut self) -> Result<(), DeadLetter> {
        let value = self.json.scalar(self.rows)?;
        if value == Scalar::Null {
            return Ok(());
        }
        // Before it is copied: a path may be repeated for each place of an array.
        check_name_length("", &self.rows.path)?;
        let metric = self.rows.keep_path();
        self.push_member(metric, value)
    }

    /// A row that is given its time once the document is read.
    pub fn push_member(&mut self, metric: Span, value: Scalar) -> Result<(), DeadLetter> {
        let (device, unit) = (self.names.whole, Span::default());
        self.rows.push(Row {
            device,
            metric,
            unit,
            meta: Meta::default(),
            value,
        })
    }

    /// A scalar that nobody reads: well formed is enough.
    fn pass_over(&mut self) -> Result<(), DeadLetter> {
        let kept = self.rows.texts_mark();
        match self.json.scalar(self.rows) {
            Ok(_) | Err(DeadLetter::NumberTooLarge(_)) => {}
            Err(error) => return Err(error),
        }
        self.rows.cut_texts(kept);
        Ok(())
    }
}

/// Refuses a metric name by its length alone, before it is put together as `before.name`.
pub(super) fn check_name_length(before: &str, name: &str) -> Result<(), DeadLetter> {
    let before = if before.is_empty() {
        0
    } else {
        before.len() + 1
    };
    if before + name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(DeadLetter::Name {
        what: "metric name",
        name: head(name),
    })
}
