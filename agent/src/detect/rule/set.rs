//! A checked set of rules, with the text that is kept of it and the hash that names it.

use super::{Rule, read};
use crate::alert::Revision;
use crate::limits::DETECT_RULES_MAX;
use std::fmt;
use std::sync::{Arc, LazyLock};
use tributary_settings::{Diagnostic, Document, Section};

/// Rules of detection.
#[derive(Clone)]
pub struct Rules {
    rules: Vec<Rule>,
    text: String,
    hash: [u8; 32],
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rules({} rules, {})", self.rules.len(), self.revision())
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
        let mut text =
            String::from("# Rules of detection, as this agent keeps them: do not edit.\n");
        for rule in &rules {
            text.push('\n');
            text.push_str(&rule.text);
        }
        Self {
            hash: *blake3::hash(text.as_bytes()).as_bytes(),
            rules,
            text,
        }
    }

    /// No rules.
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<Rules>> = LazyLock::new(|| Arc::new(Rules::new(Vec::new())));
        Arc::clone(&NONE)
    }

    /// Reads `[[detect.rule]]` in the section `detect`; what is wrong is reported there.
    pub fn read(detect: &mut Section) -> Arc<Self> {
        let mut sections = detect.sections("rule");
        if let Some(section) = sections.get(DETECT_RULES_MAX) {
            section.wrong_section(format!("is one too many: at most {DETECT_RULES_MAX} rules"));
        }
        let mut rules: Vec<Rule> = Vec::new();
        for section in &mut sections {
            let Some(rule) = read::rule(section) else {
                continue;
            };
            if rules.iter().any(|known| known.name == rule.name) {
                let reason = format!("is \"{}\", and so is that of a rule above", rule.name);
                section.wrong("name", reason);
            } else if rules.len() < DETECT_RULES_MAX {
                rules.push(rule);
            }
        }
        match rules.is_empty() {
            true => Self::none(),
            false => Arc::new(Self::new(rules)),
        }
    }

    /// Reads a text that [`text`](Self::text) gave.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Arc<Self>, Vec<Diagnostic>> {
        let mut document = Document::parse(text, "", []);
        let rules = Self::read(&mut document.root().section("detect"));
        match document.finish() {
            wrong if wrong.is_empty() => Ok(rules),
            wrong => Err(wrong),
        }
    }

    /// The rules as they are kept: what they mean, with every default written out.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What names them: BLAKE3 of the text.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// What names them in alerts: the beginning of the hash.
    pub fn revision(&self) -> Revision {
        let mut revision = Revision::default();
        let first = self.hash.iter().zip(&mut revision.0);
        first.for_each(|(from, to)| *to = *from);
        revision
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &Rule)> {
        (0..).zip(&self.rules)
    }

    pub(super) fn rule(&self, place: u16) -> Option<&Rule> {
        self.rules.get(usize::from(place))
    }

    /// Where the rule with this name and hash stands.
    pub(super) fn find(&self, name: &str, hash: &[u8; 16]) -> Option<u16> {
        let found = self.iter().find(|(_, rule)| *rule.name == *name)?;
        (found.1.hash == *hash).then_some(found.0)
    }
}
