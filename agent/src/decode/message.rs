//! One message to rows: which form it has, and what its members mean.

use super::json::{Json, scalar_of};
use super::rows::{Row, Rows, Scalar, Span, head};
use super::{DeadLetter, Decoded, message_hash, number, time};
use crate::limits::{JSON_DEPTH_MAX, JSON_PATH_BYTES_MAX};
use tributary_protocol::ids::is_name;
use tributary_protocol::limits::NAME_BYTES_MAX;
use tributary_protocol::reading::{Flags, Meta};

/// Quality words as the severities of OPC UA status codes (part 4, section 7.39): 0 is good.
const QUALITIES: [(&str, i32); 3] = [("good", 0), ("uncertain", 0x4000_0000), ("bad", i32::MIN)];

/// Decodes a message that was received at `received_time` (µs since 1970, UTC) into `rows`.
///
/// # Errors
/// [`DeadLetter`] says why the message holds no readings; `rows` is empty then.
pub fn decode(
    topic: &str,
    payload: &[u8],
    received_time: i64,
    rows: &mut Rows,
) -> Result<Decoded, DeadLetter> {
    rows.clear();
    let outcome = walk(topic, payload, received_time, rows);
    if outcome.is_err() {
        rows.clear();
    }
    let device_seq = outcome?;
    let content_hash = message_hash(topic, payload);
    Ok(Decoded {
        readings: rows.len(),
        device_seq,
        content_hash,
    })
}

fn walk(
    topic: &str,
    payload: &[u8],
    received_time: i64,
    rows: &mut Rows,
) -> Result<Option<i64>, DeadLetter> {
    if payload.is_empty() {
        return Err(DeadLetter::Empty);
    }
    let text = std::str::from_utf8(payload).map_err(|e| DeadLetter::NotUtf8(e.valid_up_to()))?;
    let names = Names::of(topic, rows)?;
    let mut walk = Walk {
        json: Json::new(text),
        rows,
        names,
        received_time,
    };
    match walk.json.peek() {
        Some(b'{') => {
            let seq = walk.top_object()?;
            walk.json.end()?;
            Ok(seq)
        }
        Some(b'[') => {
            let seq = walk.top_array()?;
            walk.json.end()?;
            Ok(seq)
        }
        _ => walk.bare(text).map(|()| None),
    }
}

/// What a topic says: the names for both forms.
#[derive(Clone, Copy)]
struct Names {
    whole: Span,
    device: Span,
    metric: Span,
}

impl Names {
    fn of(topic: &str, rows: &mut Rows) -> Result<Self, DeadLetter> {
        let (device, metric) = match topic.rsplit_once('/') {
            Some((device, metric)) if !device.is_empty() && !metric.is_empty() => (device, metric),
            _ => (topic, "value"),
        };
        if !is_name(topic) {
            // A whole topic that is too long may still split into two names that are not.
            check_name("device name", device)?;
        }
        check_name("metric name", metric)?;
        let whole = rows.keep(topic);
        Ok(Self {
            whole,
            device: rows.keep(device),
            metric: rows.keep(metric),
        })
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), DeadLetter> {
    if is_name(name) {
        Ok(())
    } else {
        Err(DeadLetter::Name {
            what,
            name: head(name),
        })
    }
}

/// Refuses a metric name by its length alone, before it is put together as `before.name`.
fn check_name_length(before: &str, name: &str) -> Result<(), DeadLetter> {
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

/// The members at the top of an object that have a meaning.
#[derive(Default)]
struct Members {
    value: Option<Scalar>,
    ts: Option<Scalar>,
    seq: Option<Scalar>,
    unit: Option<Scalar>,
    quality: Option<Scalar>,
}

impl Members {
    /// The slot of the member called `key`, and its name.
    fn slot(&mut self, key: &str) -> Option<(&mut Option<Scalar>, &'static str)> {
        match key {
            "value" => Some((&mut self.value, "value")),
            "ts" => Some((&mut self.ts, "ts")),
            "seq" => Some((&mut self.seq, "seq")),
            "unit" => Some((&mut self.unit, "unit")),
            "quality" => Some((&mut self.quality, "quality")),
            _ => None,
        }
    }
}

struct Walk<'a, 'r> {
    json: Json<'a>,
    rows: &'r mut Rows,
    names: Names,
    received_time: i64,
}

impl Walk<'_, '_> {
    /// A payload that is no object and no array.
    fn bare(&mut self, text: &str) -> Result<(), DeadLetter> {
        let trimmed = text.trim_ascii();
        let value = match trimmed {
            "true" => Scalar::Bool(true),
            "false" => Scalar::Bool(false),
            _ => match number::bare(trimmed) {
                Some(number) => scalar_of(number, trimmed, self.rows)?,
                None => self.bare_text(text)?,
            },
        };
        self.push_value(value)
    }

    /// A JSON string where it is one, otherwise the text as it came.
    fn bare_text(&mut self, text: &str) -> Result<Scalar, DeadLetter> {
        if self.json.peek() == Some(b'"')
            && let Ok(quoted) = self.json.scalar(self.rows)
            && self.json.end().is_ok()
        {
            return Ok(quoted);
        }
        Ok(Scalar::Str(self.rows.keep(text)))
    }

    /// A value without anything beside it.
    fn push_value(&mut self, value: Scalar) -> Result<(), DeadLetter> {
        let Names { device, metric, .. } = self.names;
        let meta = self.meta(None)?;
        self.rows.push(Row {
            device,
            metric,
            unit: Span::default(),
            meta,
            value,
        })
    }

    fn top_array(&mut self) -> Result<Option<i64>, DeadLetter> {
        self.json.expect(b'[', "`[`")?;
        let mut first_seq = None;
        let mut element = 0;
        if self.json.take(b']') {
            return Ok(None);
        }
        loop {
            match self.json.peek() {
                Some(b'{') => first_seq = first_seq.or(self.top_object()?),
                Some(b'[') => return Err(DeadLetter::NestedArray(element)),
                _ => {
                    let value = self.json.scalar(self.rows)?;
                    self.push_value(value)?;
                }
            }
            element += 1;
            if self.json.take(b']') {
                return Ok(first_seq);
            }
            self.json.expect(b',', "`,` or `]`")?;
        }
    }

    /// An object at the top or in the array at the top; gives its sequence number.
    fn top_object(&mut self) -> Result<Option<i64>, DeadLetter> {
        let first = self.rows.len();
        let mut members = Members::default();
        self.rows.path.clear();
        self.object(1, Some(&mut members))?;
        self.finish(first, &members)
    }

    /// The members of an object; `members` takes what has a meaning at the top.
    fn object(&mut self, depth: usize, mut top: Option<&mut Members>) -> Result<(), DeadLetter> {
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
            let scalar_next = !matches!(self.json.peek(), Some(b'{' | b'['));
            let key = self.rows.path.get(key_at..).unwrap_or_default();
            match top.as_deref_mut().and_then(|members| members.slot(key)) {
                Some((Some(_), name)) => return Err(DeadLetter::Twice(name)),
                Some((slot, _)) if scalar_next => *slot = Some(self.json.scalar(self.rows)?),
                Some((_, "ts")) => return Err(DeadLetter::Time("is an object or an array")),
                _ => self.member(depth)?,
            }
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

    /// What stands at the path at hand: a row, or more members.
    fn member(&mut self, depth: usize) -> Result<(), DeadLetter> {
        let next = self.json.peek();
        if matches!(next, Some(b'{' | b'[')) && depth >= JSON_DEPTH_MAX {
            return Err(DeadLetter::TooDeep(self.json.at()));
        }
        match next {
            Some(b'{') => self.object(depth + 1, None),
            Some(b'[') => self.array(depth + 1),
            _ => {
                let value = self.json.scalar(self.rows)?;
                if value == Scalar::Null {
                    return Ok(());
                }
                // Before it is copied: a path may be repeated for each place of an array.
                check_name_length("", &self.rows.path)?;
                let metric = self.rows.keep_path();
                self.push_member(metric, value)
            }
        }
    }

    /// The places of an array within an object: `path.0`, `path.1`, …
    fn array(&mut self, depth: usize) -> Result<(), DeadLetter> {
        self.json.expect(b'[', "`[`")?;
        if self.json.take(b']') {
            return Ok(());
        }
        let outer = self.rows.path.len();
        for place in 0usize.. {
            use std::fmt::Write;
            write!(self.rows.path, ".{place}").expect("a String takes any text");
            self.member(depth)?;
            self.rows.path.truncate(outer);
            if self.json.take(b']') {
                break;
            }
            self.json.expect(b',', "`,` or `]`")?;
        }
        Ok(())
    }

    fn push_member(&mut self, metric: Span, value: Scalar) -> Result<(), DeadLetter> {
        let (device, unit) = (self.names.whole, Span::default());
        self.rows.push(Row {
            device,
            metric,
            unit,
            meta: Meta::default(),
            value,
        })
    }

    fn push_named(&mut self, name: &str, value: Option<Scalar>) -> Result<(), DeadLetter> {
        match value {
            Some(value) => {
                let metric = self.rows.keep(name);
                self.push_member(metric, value)
            }
            None => Ok(()),
        }
    }

    /// Gives the rows of one object, from `first` on, their names and times.
    fn finish(&mut self, first: usize, members: &Members) -> Result<Option<i64>, DeadLetter> {
        // Batches hold no other: those are members like others.
        let seq = members.seq.and_then(integer).filter(|seq| *seq >= 0);
        if seq.is_none() {
            self.push_named("seq", members.seq)?;
        }
        let mut meta = self.meta(members.ts)?;
        meta.device_seq = seq;
        match members.value {
            Some(value) => self.finish_value(first, members, meta, value)?,
            None => self.finish_members(first, members, meta)?,
        }
        Ok(seq)
    }

    /// The form with a scalar `value`: what stands beside it keeps its place under its name.
    fn finish_value(
        &mut self,
        first: usize,
        members: &Members,
        mut meta: Meta,
        value: Scalar,
    ) -> Result<(), DeadLetter> {
        let Names { device, metric, .. } = self.names;
        for place in first..self.rows.len() {
            let Some(row) = self.rows.row(place) else {
                break;
            };
            check_name_length(self.rows.text(metric), self.rows.text(row.metric))?;
            let metric = self.rows.keep_joined(metric, row.metric);
            check_name("metric name", self.rows.text(metric))?;
            self.rows.set_row(
                place,
                Row {
                    device,
                    metric,
                    meta,
                    ..row
                },
            );
        }
        meta.quality = self.quality(members.quality)?;
        let unit = self.unit(members.unit)?;
        self.rows.push(Row {
            device,
            metric,
            unit,
            meta,
            value,
        })
    }

    fn finish_members(
        &mut self,
        first: usize,
        members: &Members,
        meta: Meta,
    ) -> Result<(), DeadLetter> {
        self.push_named("unit", members.unit)?;
        self.push_named("quality", members.quality)?;
        if self.rows.len() > first {
            check_name("device name", self.rows.text(self.names.whole))?;
        }
        for place in first..self.rows.len() {
            let Some(row) = self.rows.row(place) else {
                break;
            };
            check_name("metric name", self.rows.text(row.metric))?;
        }
        for row in self.rows.from(first) {
            row.meta = meta;
        }
        Ok(())
    }

    /// Times and flags of a reading with this `ts`.
    fn meta(&self, ts: Option<Scalar>) -> Result<Meta, DeadLetter> {
        let received_time = self.received_time;
        let given = match ts {
            None | Some(Scalar::Null) => None,
            Some(Scalar::I64(ts)) => Some(time::from_integer(ts)),
            Some(Scalar::F64(ts)) => Some(time::from_float(ts)?),
            Some(Scalar::Str(span)) => Some(time::from_text(self.rows.text(span))?),
            Some(Scalar::Bool(_)) => return Err(DeadLetter::Time("is a truth value")),
        };
        let event_time = given.unwrap_or(received_time);
        let mut flags = Flags::default();
        if given.is_none() {
            flags = flags.with(Flags::NO_DEVICE_TIME);
        }
        if time::is_suspect(event_time, received_time) {
            flags = flags.with(Flags::CLOCK_SUSPECT);
        }
        Ok(Meta {
            event_time,
            received_time,
            quality: 0,
            device_seq: None,
            flags,
        })
    }

    fn quality(&self, quality: Option<Scalar>) -> Result<i32, DeadLetter> {
        match quality {
            None | Some(Scalar::Null) => Ok(0),
            Some(Scalar::Str(span)) => {
                let word = self.rows.text(span);
                let known = QUALITIES
                    .iter()
                    .find(|(name, _)| word.eq_ignore_ascii_case(name));
                known.map(|(_, code)| *code).ok_or(DeadLetter::Quality)
            }
            Some(number) => integer(number)
                .and_then(|code| {
                    // OPC UA's codes are unsigned: 0x80000000 is what the word `bad` stands for.
                    i32::try_from(code)
                        .ok()
                        .or(u32::try_from(code).ok().map(u32::cast_signed))
                })
                .ok_or(DeadLetter::Quality),
        }
    }

    fn unit(&self, unit: Option<Scalar>) -> Result<Span, DeadLetter> {
        match unit {
            None | Some(Scalar::Null) => Ok(Span::default()),
            Some(Scalar::Str(span)) if self.rows.text(span).is_empty() => Ok(span),
            Some(Scalar::Str(span)) => check_name("unit", self.rows.text(span)).map(|()| span),
            Some(_) => Err(DeadLetter::Unit),
        }
    }
}

/// The integer that a scalar is, also one written with a fraction of zero.
fn integer(scalar: Scalar) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match scalar {
        Scalar::I64(value) => Some(value),
        Scalar::F64(value) if value.fract() == 0.0 && value.abs() <= EXACT => Some(value as i64),
        _ => None,
    }
}
