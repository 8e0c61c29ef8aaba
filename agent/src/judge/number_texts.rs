//! Series that say numbers as texts, `"23.5"`: nothing judges them, and who sent them hardly means
//! that. The first ones, since the start of the process; no part of what the stage knows.

use crate::decode::Reading;
use crate::limits::{NUMBER_TEXT_BYTES_MAX, WATCHING_TEXTS_MAX};
use serde::{Deserialize, Serialize};
use tributary_protocol::reading::Value;

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NumberText {
    /// What publishes.
    pub device: String,
    /// What is measured.
    pub metric: String,
    /// The text that was seen first.
    pub text: String,
}

/// The first of them, at most [`WATCHING_TEXTS_MAX`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct NumberTexts(Vec<NumberText>);

impl NumberTexts {
    /// A reading is a text. Once there are enough, none is looked at.
    pub fn note(&mut self, reading: &Reading<'_>) {
        let Value::Str(text) = reading.value else {
            return;
        };
        let is_it = |known: &NumberText| {
            (&*known.device, &*known.metric) == (reading.device, reading.metric)
        };
        if self.0.len() >= WATCHING_TEXTS_MAX || !is_number(text) || self.0.iter().any(is_it) {
            return;
        }
        self.0.push(NumberText {
            device: reading.device.to_owned(),
            metric: reading.metric.to_owned(),
            text: text.trim().to_owned(),
        });
    }

    /// All of them, in the order in which they came.
    pub fn all(&self) -> &[NumberText] {
        &self.0
    }
}

/// Whether it is a number in all but its type.
fn is_number(text: &str) -> bool {
    let text = text.trim();
    text.len() <= NUMBER_TEXT_BYTES_MAX && text.parse().is_ok_and(f64::is_finite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_number_where_it_could_be_decoded_as_one() {
        for text in ["23.5", " 7 ", "-1e3", "+.5"] {
            assert!(is_number(text), "{text}");
        }
        let long = "1".repeat(NUMBER_TEXT_BYTES_MAX + 1);
        for text in ["", "off", "nan", "-inf", "23,5", "3 bar", "-", &long] {
            assert!(!is_number(text), "{text}");
        }
    }
}
