//! One message to rows, by one rule: which form it has, and what names it gives.

use super::given::Given;
use super::json::{Json, scalar_of};
use super::rows::{Row, Rows, Scalar, Span, head};
use super::rule::{Form, Rule};
use super::walk::Walk;
use super::{DeadLetter, Decoded, Incoming, number, waveform};
use tributary_protocol::ids::is_name;

/// Decodes a message into `rows`.
///
/// # Errors
/// [`DeadLetter`] says why the message holds no readings; `rows` is empty then.
pub(super) fn decode(
    rule: &Rule,
    message: &Incoming<'_>,
    rows: &mut Rows,
) -> Result<Decoded, DeadLetter> {
    rows.clear();
    let outcome = read(rule, message, rows);
    if outcome.is_err() {
        rows.clear();
    }
    let (device_seq, unusable) = outcome?;
    Ok(Decoded {
        readings: rows.len(),
        device_seq,
        unusable,
    })
}

/// Gives the device's number, and how many user properties were of no use.
fn read(
    rule: &Rule,
    message: &Incoming<'_>,
    rows: &mut Rows,
) -> Result<(Option<i64>, u32), DeadLetter> {
    let payload = message.payload;
    if payload.is_empty() {
        return Err(DeadLetter::Empty);
    }
    let text = match rule.form {
        Form::Binary(_) => Ok(""),
        _ => std::str::from_utf8(payload),
    };
    let text = text.map_err(|e| DeadLetter::NotUtf8(e.valid_up_to()))?;
    let names = Names::of(rule, message.topic, rows)?;
    let given = Given::of(rule, &message.properties, rows);
    let mut walk = Walk {
        json: Json::new(text),
        rows,
        rule,
        names,
        given,
        received_time: message.received_time,
        samples: 0,
    };
    let is_json = matches!(walk.json.peek(), Some(b'{' | b'['));
    let seq = match rule.form {
        Form::Binary(samples) => waveform::binary(&mut walk, samples, payload).map(|()| given.seq),
        Form::Text => {
            let value = Scalar::Str(walk.rows.keep(text));
            walk.push_value(value).map(|()| given.seq)
        }
        Form::Value if is_json => Err(DeadLetter::Form),
        Form::Auto if is_json => walk.document(),
        Form::Json | Form::Waveform => walk.document(),
        Form::Auto | Form::Value => walk.bare(text).map(|()| given.seq),
    };
    seq.map(|seq| (seq, given.unusable))
}

/// What a message's topic says: the names for both forms.
#[derive(Clone, Copy)]
pub(super) struct Names {
    /// The device of readings that are named by members.
    pub whole: Span,
    pub device: Span,
    pub metric: Span,
}

impl Names {
    fn of(rule: &Rule, topic: &str, rows: &mut Rows) -> Result<Self, DeadLetter> {
        let (device, metric) = match topic.rsplit_once('/') {
            Some((device, metric)) if !device.is_empty() && !metric.is_empty() => (device, metric),
            _ => (topic, "value"),
        };
        let metric = match &rule.metric {
            None => {
                check_name("metric name", metric)?;
                rows.keep(metric)
            }
            Some(template) => {
                let span = rows.keep_written(|out| template.write(topic, out));
                check_name("metric name", rows.text(span))?;
                span
            }
        };
        if let Some(template) = &rule.device {
            let span = rows.keep_written(|out| template.write(topic, out));
            check_name("device name", rows.text(span))?;
            return Ok(Self {
                whole: span,
                device: span,
                metric,
            });
        }
        if !is_name(topic) {
            // A whole topic that is too long may still split into two names that are not.
            check_name("device name", device)?;
        }
        Ok(Self {
            whole: rows.keep(topic),
            device: rows.keep(device),
            metric,
        })
    }
}

pub(super) fn check_name(what: &'static str, name: &str) -> Result<(), DeadLetter> {
    if is_name(name) {
        Ok(())
    } else {
        Err(DeadLetter::Name {
            what,
            name: head(name),
        })
    }
}

impl Walk<'_, '_> {
    /// A payload that is no object and no array.
    fn bare(&mut self, text: &str) -> Result<(), DeadLetter> {
        let trimmed = text.trim_ascii();
        let value = match trimmed {
            // As in JSON: no reading.
            "null" => return Ok(()),
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

    /// A value without anything beside it in the payload.
    pub(super) fn push_value(&mut self, value: Scalar) -> Result<(), DeadLetter> {
        let Names { device, metric, .. } = self.names;
        let mut meta = self.meta(None)?;
        meta.device_seq = self.given.seq;
        self.push_reading(Row {
            device,
            metric,
            unit: self.given.unit,
            meta,
            value,
        })
    }
}
