//! Dead letters for people and for programs: a line each, nothing in it unescaped.

use super::Letter;
use super::put_back::LetterId;
use crate::civil::rfc3339;
use crate::decode::{Property, Said};
use crate::limits::SHOWN_CHARACTERS_MAX;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A letter as one object of JSON.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    id: String,
    received_time: String,
    reason: &'a str,
    why: &'a str,
    topic: &'a str,
    /// Whether it is the last will of a client that was lost.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    will: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    properties: BTreeMap<&'static str, &'a str>,
    bytes: usize,
    put_back: bool,
    /// Whether the payload is all that was published.
    whole: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

/// Where the payload of a letter is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// Nowhere.
    Left,
    /// With it, as base64 (RFC 4648, with padding).
    Here,
    /// In the file of [`file_name`].
    File,
}

impl<'a> Shown<'a> {
    /// The object for a letter.
    pub fn new(id: LetterId, letter: &Letter<'a>, put_back: bool, payload: Payload) -> Self {
        use base64::Engine;
        let encoded = || base64::engine::general_purpose::STANDARD.encode(letter.payload);
        Self {
            id: id.to_string(),
            received_time: rfc3339(letter.received_time),
            reason: letter.word,
            why: letter.reason,
            topic: letter.topic,
            will: letter.will,
            properties: properties(letter).collect(),
            bytes: letter.payload.len(),
            put_back,
            whole: letter.is_whole(),
            payload: (payload == Payload::Here).then(encoded),
            file: (payload == Payload::File).then(|| file_name(id)),
        }
    }
}

/// What user properties say, one that can't be read as why it can't.
fn properties<'a>(letter: &Letter<'a>) -> impl Iterator<Item = (&'static str, &'a str)> {
    let said = letter.properties;
    Property::ALL.into_iter().filter_map(move |property| {
        let text = match said.said(property) {
            Said::Nothing => return None,
            Said::Text(text) => text,
            Said::Twice => "(stood there twice)",
            Said::TooLong => "(was too long)",
        };
        Some((property.name(), text))
    })
}

/// The name of the file that a letter's payload is exported to: of its id alone.
pub fn file_name(id: LetterId) -> String {
    format!("{id}.bin")
}

/// A letter as a line of text.
pub fn line(id: LetterId, letter: &Letter<'_>, put_back: bool) -> String {
    let word = if letter.word.is_empty() {
        "-"
    } else {
        letter.word
    };
    let mut line = format!(
        "{}  {id}  {word}  {}  {} B  {}",
        rfc3339(letter.received_time),
        cut(letter.topic),
        letter.payload.len(),
        cut(letter.reason),
    );
    for (name, text) in properties(letter) {
        write!(line, "  {name}={}", cut(text)).expect("a String takes any text");
    }
    if letter.will {
        line.push_str("  (a will)");
    }
    if put_back {
        line.push_str("  (put back)");
    }
    line
}

/// A text [`escaped`], and no more of it than a person reads in a line: behind `…` stands how long
/// it is.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => {
            let begin = escaped(text.get(..end).unwrap_or_default());
            format!("{begin}… ({} bytes)", text.len())
        }
        None => escaped(text),
    }
}

/// A text without anything that a terminal obeys. Quotes are as they are: nothing stands between
/// quotes here.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for piece in text.split_inclusive(['\'', '"']) {
        let before = piece.strip_suffix(['\'', '"']).unwrap_or(piece);
        out.extend(before.escape_debug());
        out.push_str(piece.strip_prefix(before).unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::UserProperties;
    use crate::seal::Origin;
    use tributary_journal::LifeId;
    use tributary_protocol::ids::BufferId;

    const ID: LetterId = LetterId {
        life: LifeId([0xab; 16]),
        number: 7,
    };

    fn letter<'a>(topic: &'a str, properties: UserProperties<'a>) -> Letter<'a> {
        Letter {
            origin: Origin {
                buffer: BufferId::new(1, 1),
                number: 3,
            },
            received_time: 0,
            word: "name",
            reason: "`a\nb` can't be",
            will: true,
            topic,
            properties,
            payload: b"\x00\xff",
        }
    }

    #[test]
    fn times_are_printed_as_they_are_read() {
        for (time, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (1_769_848_199_250_000, "2026-01-31T08:29:59.250Z"),
            (1_709_251_199_000_000, "2024-02-29T23:59:59.000Z"),
            (4_102_444_800_000_000, "2100-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(time), text);
        }
    }

    #[test]
    fn a_line_holds_the_beginning_of_a_long_text_and_json_all_of_it() {
        let (shown, longer) = ("é".repeat(SHOWN_CHARACTERS_MAX), "é".repeat(30_000));
        assert_eq!(cut(&shown), shown);
        assert_eq!(cut(&longer), format!("{shown}… (60000 bytes)"));
        let ends = format!("{}\n\u{1b}[2J", "a".repeat(SHOWN_CHARACTERS_MAX - 1));
        let ended = format!(
            "{}\\n… ({} bytes)",
            &ends[..SHOWN_CHARACTERS_MAX - 1],
            ends.len()
        );
        assert_eq!(cut(&ends), ended);
        let mut said = UserProperties::NONE;
        said.take("unit", "u");
        let letter = letter(&longer, said);
        let line = line(ID, &letter, false);
        assert!(line.chars().count() < 400, "{line}");
        let json = serde_json::to_string(&Shown::new(ID, &letter, false, Payload::Left)).unwrap();
        assert!(json.contains(&longer));
    }

    #[test]
    fn nothing_of_a_topic_reaches_a_terminal_or_a_path_unescaped() {
        let id = ID;
        let mut said = UserProperties::NONE;
        said.take("unit", "\u{1b}[0m\n");
        let letter = letter("../../etc/\u{1b}[31m\n\"x\"\0", said);
        assert_eq!(file_name(id), format!("{}-7.bin", "ab".repeat(16)));
        let line = line(id, &letter, true);
        assert!(!line.contains(|c: char| c.is_control()), "{line}");
        assert!(
            line.contains(r#"../../etc/\u{1b}[31m\n"x"\0  2 B  `a\nb` can't be  unit="#),
            "{line}"
        );
        let json = serde_json::to_string(&Shown::new(id, &letter, false, Payload::Here)).unwrap();
        assert!(!json.contains(|c: char| c.is_control()), "{json}");
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["topic"], letter.topic);
        assert_eq!(back["payload"], "AP8=");
        assert_eq!(back["will"], true);
        assert_eq!(back["properties"]["unit"], "\u{1b}[0m\n");
    }
}
