//! The words of a line of text, for plans.

use std::fmt;
use std::iter::Peekable;
use std::str::{FromStr, SplitWhitespace};

/// The words of a line, of which each is asked for in turn.
pub struct Words<'a>(Peekable<SplitWhitespace<'a>>);

impl<'a> From<&'a str> for Words<'a> {
    fn from(line: &'a str) -> Self {
        Self(line.split_whitespace().peekable())
    }
}

impl<'a> Words<'a> {
    /// The next word, which is `what`.
    ///
    /// # Errors
    /// When there is none.
    pub fn next(&mut self, what: &str) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| format!("{what} is missing"))
    }

    /// Whether this word comes next.
    pub fn comes(&mut self, word: &str) -> bool {
        self.0.peek() == Some(&word)
    }

    /// The next word is this one.
    ///
    /// # Errors
    /// When it is another.
    pub fn word(&mut self, wanted: &str) -> Result<(), String> {
        let word = self.next(wanted)?;
        match word == wanted {
            true => Ok(()),
            false => Err(format!("`{word}` where `{wanted}` is expected")),
        }
    }

    /// `name NUMBER`, the number within these bounds.
    ///
    /// # Errors
    /// When it is something else.
    pub fn number<T: FromStr + PartialOrd + fmt::Display>(
        &mut self,
        name: &str,
        (least, most): (T, T),
    ) -> Result<T, String> {
        self.word(name)?;
        let text = self.next(name)?.replace('_', "");
        let number = text.parse::<T>().ok();
        let number = number.filter(|number| (&least..=&most).contains(&number));
        number.ok_or_else(|| format!("{name} {text}: expected {least} to {most}"))
    }

    /// `name CHOICE`.
    ///
    /// # Errors
    /// When it is none of the choices.
    pub fn one_of<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Result<T, String> {
        self.word(name)?;
        let word = self.next(name)?;
        let chosen = choices.iter().find(|(name, _)| *name == word);
        chosen.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            format!("{name} {word}: expected {}", names.join(" or "))
        })
    }

    /// Nothing more stands there.
    ///
    /// # Errors
    /// When something does.
    pub fn end(&mut self) -> Result<(), String> {
        self.0
            .next()
            .map_or(Ok(()), |word| Err(format!("`{word}` is too much")))
    }
}
