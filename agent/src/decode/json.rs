//! A strict reader of JSON (RFC 8259) that builds no tree: it hands out scalars as they stand, and
//! who calls it walks objects and arrays. It never recurses, and knows nothing of readings.
//!
//! One liberty: `NaN`, `Infinity` and `-Infinity`, which Python's `json` and other writers put
//! out, are taken as the doubles they name.

use super::number::{self, Number};
use super::rows::{Rows, Scalar, head};
use super::{DeadLetter, number::scan};

/// A place in a JSON text.
pub(super) struct Json<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Json<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn wrong(&self, expected: &'static str) -> DeadLetter {
        DeadLetter::Json {
            at: self.at,
            expected,
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// The next byte that is no white space, not taken.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Takes the next byte if it is `wanted`.
    pub(super) fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, wanted: u8, name: &'static str) -> Result<(), DeadLetter> {
        if self.take(wanted) {
            Ok(())
        } else {
            Err(self.wrong(name))
        }
    }

    /// Nothing but white space is left.
    pub(super) fn end(&mut self) -> Result<(), DeadLetter> {
        if self.peek().is_none() {
            Ok(())
        } else {
            Err(self.wrong("the end of the payload"))
        }
    }

    /// A string, its escapes resolved, appended to `out`.
    pub(super) fn string(&mut self, out: &mut String) -> Result<(), DeadLetter> {
        self.expect(b'"', "`\"`")?;
        loop {
            let rest = self.rest();
            let plain = rest
                .iter()
                .take_while(|b| !matches!(b, b'"' | b'\\' | 0..=31))
                .count();
            // Both ends are ASCII or the end of valid UTF-8: never within a character.
            out.push_str(self.text.get(self.at..self.at + plain).unwrap_or_default());
            self.at += plain;
            match rest.get(plain) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape(out)?,
                Some(_) => return Err(self.wrong("an escape instead of a control character")),
                None => return Err(self.wrong("the end of the string")),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), DeadLetter> {
        let escaped = match self.rest().get(1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(out),
            _ => return Err(self.wrong("a known escape")),
        };
        self.at += 2;
        out.push(escaped);
        Ok(())
    }

    fn unicode_escape(&mut self, out: &mut String) -> Result<(), DeadLetter> {
        let first = self.hex4(2)?;
        let (code, length) = match first {
            0xd800..=0xdbff if self.rest().get(6..8) == Some(b"\\u") => {
                let second = self.hex4(8)?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(self.wrong("the second half of a surrogate pair"));
                }
                (0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00), 12)
            }
            _ => (first, 6),
        };
        let Some(character) = char::from_u32(code) else {
            return Err(self.wrong("a character instead of half a surrogate pair"));
        };
        self.at += length;
        out.push(character);
        Ok(())
    }

    /// Four hexadecimal digits, `offset` bytes on.
    fn hex4(&self, offset: usize) -> Result<u32, DeadLetter> {
        let digits = self.rest().get(offset..offset + 4).unwrap_or_default();
        let value = digits
            .iter()
            .try_fold(0, |sum, byte| {
                Some(sum * 16 + char::from(*byte).to_digit(16)?)
            })
            .filter(|_| digits.len() == 4);
        value.ok_or_else(|| self.wrong("four hexadecimal digits"))
    }

    /// A scalar; the text of a string goes to the rows' texts.
    pub(super) fn scalar(&mut self, rows: &mut Rows) -> Result<Scalar, DeadLetter> {
        match self.peek() {
            Some(b'"') => Ok(Scalar::Str(rows.keep_with(|out| self.string(out))?)),
            Some(b'0'..=b'9' | b'-') => self.number(rows),
            Some(_) => self.word(),
            None => Err(self.wrong("a value")),
        }
    }

    fn number(&mut self, rows: &mut Rows) -> Result<Scalar, DeadLetter> {
        let Some((length, integer)) = scan(self.rest()) else {
            return if self.rest().starts_with(b"-Infinity") {
                self.at += "-Infinity".len();
                Ok(Scalar::F64(f64::NEG_INFINITY))
            } else {
                Err(self.wrong("a number as JSON writes it"))
            };
        };
        let text = self.text.get(self.at..self.at + length).unwrap_or_default();
        self.at += length;
        scalar_of(number::value(text, integer), text, rows)
    }

    fn word(&mut self) -> Result<Scalar, DeadLetter> {
        const WORDS: [(&[u8], Scalar); 5] = [
            (b"true", Scalar::Bool(true)),
            (b"false", Scalar::Bool(false)),
            (b"null", Scalar::Null),
            (b"NaN", Scalar::F64(f64::NAN)),
            (b"Infinity", Scalar::F64(f64::INFINITY)),
        ];
        let rest = self.rest();
        match WORDS.iter().find(|(word, _)| rest.starts_with(word)) {
            Some((word, value)) => {
                self.at += word.len();
                Ok(*value)
            }
            None => Err(self.wrong("a value")),
        }
    }
}

/// A number as a scalar.
pub(super) fn scalar_of(number: Number, text: &str, rows: &mut Rows) -> Result<Scalar, DeadLetter> {
    Ok(match number {
        Number::I64(value) => Scalar::I64(value),
        Number::F64(value) => Scalar::F64(value),
        Number::Digits => Scalar::Str(rows.keep(text)),
        Number::TooLarge => return Err(DeadLetter::NumberTooLarge(head(text))),
    })
}
