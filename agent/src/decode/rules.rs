//! A configuration of decoding: its rules in order, found by topic, with the hash that names it.

use super::filter::Filter;
use super::matcher::Matcher;
use super::rows::Rows;
use super::rule::Rule;
use super::{DeadLetter, Decoded, Incoming, message, read, text};
use crate::limits::DECODE_RULES_MAX;
use std::fmt;
use std::sync::{Arc, LazyLock};
use tributary_settings::{Diagnostic, Document, Section};

/// What names a configuration of decoding: BLAKE3 of its text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RulesHash(pub [u8; 32]);

impl fmt::Display for RulesHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RulesHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RulesHash({self})")
    }
}

/// A configuration of decoding.
#[derive(Clone)]
pub struct Rules {
    rules: Vec<Rule>,
    matcher: Matcher,
    builtin: Rule,
    text: String,
    hash: RulesHash,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rules({} rules, {})", self.rules.len(), self.hash)
    }
}

/// Equal texts mean the same.
impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Rules {}

impl Rules {
    fn new(rules: Vec<Rule>) -> Self {
        let text = text::of(&rules);
        Self {
            matcher: Matcher::new(rules.iter().map(|rule| &rule.filter)),
            builtin: Rule::builtin(),
            hash: RulesHash(*blake3::hash(text.as_bytes()).as_bytes()),
            rules,
            text,
        }
    }

    /// The rules that hold when nothing is configured.
    pub fn builtin() -> Arc<Self> {
        static BUILTIN: LazyLock<Arc<Rules>> = LazyLock::new(|| Arc::new(Rules::new(Vec::new())));
        Arc::clone(&BUILTIN)
    }

    /// Reads `[[decode]]` below `root`; what is wrong is reported there.
    pub fn read(root: &mut Section) -> Arc<Self> {
        Self::read_as(root, true)
    }

    /// `strict`: also what only has no effect is wrong. A text that was kept means what it meant.
    fn read_as(root: &mut Section, strict: bool) -> Arc<Self> {
        let mut sections = root.sections("decode");
        if let Some(section) = sections.get(DECODE_RULES_MAX) {
            section.wrong_section(format!("is one too many: at most {DECODE_RULES_MAX} rules"));
        }
        let mut rules: Vec<Rule> = Vec::new();
        for (place, section) in sections.iter_mut().enumerate() {
            let Some(rule) = read::rule(section) else {
                continue;
            };
            let covers = |known: &&Rule| known.filter.covers(&rule.filter);
            if let Some(known) = rules.iter().find(covers).filter(|_| strict) {
                let other: &Filter = &known.filter;
                section.wrong(
                    "topic",
                    format!(
                        "never comes to its turn: `{}` stands before it",
                        other.text()
                    ),
                );
            }
            if place < DECODE_RULES_MAX {
                rules.push(rule);
            }
        }
        if rules.is_empty() {
            return Self::builtin();
        }
        Arc::new(Self::new(rules))
    }

    /// Reads a text that [`text`](Self::text) gave.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Arc<Self>, Vec<Diagnostic>> {
        let mut document = Document::parse(text, "", []);
        let rules = Self::read_as(&mut document.root(), false);
        match document.finish() {
            wrong if wrong.is_empty() => Ok(rules),
            wrong => Err(wrong),
        }
    }

    /// The configuration as it is kept: what it means, with every default written out.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What names it.
    pub fn hash(&self) -> RulesHash {
        self.hash
    }

    /// How many rules there are beside the one that always holds.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether nothing is configured.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The filter of the rule for `topic`; `None` where the default rule holds.
    pub fn filter_for(&self, topic: &str) -> Option<&Filter> {
        let place = self.matcher.find(topic)?;
        self.rules.get(place).map(|rule| &rule.filter)
    }

    /// Decodes a message into `rows`, by the first rule for its topic.
    ///
    /// # Errors
    /// [`DeadLetter`] says why the message holds no readings; `rows` is empty then.
    pub fn decode(&self, message: &Incoming<'_>, rows: &mut Rows) -> Result<Decoded, DeadLetter> {
        let found = self.matcher.find(message.topic);
        let rule = found.and_then(|place| self.rules.get(place));
        message::decode(rule.unwrap_or(&self.builtin), message, rows)
    }
}
