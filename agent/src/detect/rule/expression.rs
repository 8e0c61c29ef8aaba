//! Expressions over the readings of a device and their recent aggregates: `temperature > 80 &&
//! mean(current, 60s) > 12`. A text becomes a flat program that runs once through, so that its work
//! is its length; types, names and constants are checked before any reading comes.
//!
//! A language for one sentence: no variables, no loops, no texts. `docs/decisions/0018` says why it
//! is our own.

mod lex;
mod parse;
mod program;
mod windows;

pub(super) use program::{Inputs, Program, Readings};
pub(super) use windows::{PANES, Pane, Panes};

/// An expression that is true or false.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Expression {
    pub program: Program,
    /// The expression with one spelling for each meaning of its signs.
    pub text: Box<str>,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it and where, as the end of a sentence that begins with the setting.
    pub fn parse(text: &str) -> Result<Self, String> {
        let tokens = lex::tokens(text)?;
        Ok(Self {
            program: parse::program(&tokens)?,
            text: lex::text(&tokens).into(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
