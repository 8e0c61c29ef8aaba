//! Sections whose number or whose names the configuration chooses: lists of sections (`[[rule]]`),
//! and sections whose keys are anybody's names.

use super::meant::{shown, unread};
use super::{Diagnostic, Place, Section, Setting, Table, Value};
use std::rc::Rc;

impl Setting for f64 {
    const EXPECTED: &'static str = "a finite number";
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Float(number) => Some(*number).filter(|number| number.is_finite()),
            // An integer that a double cannot hold is no setting that anybody means.
            Value::Integer(number) if number.unsigned_abs() <= 1 << 53 => Some(*number as Self),
            _ => None,
        }
    }
}

impl Setting for Vec<f64> {
    const EXPECTED: &'static str = "a list of finite numbers";
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Array(values) => values.iter().map(f64::read).collect(),
            _ => None,
        }
    }
}

impl Section {
    /// The sections of the list `[[name]]`, in the order of the file; none when it is not there.
    /// Errors name them `name[0]`, `name[1]`, …; what is missing in one stands at its beginning.
    pub fn sections(&mut self, name: &'static str) -> Vec<Section> {
        let Some(node) = self.take(name) else {
            return Vec::new();
        };
        let tables = match node.value {
            Value::Tables(tables) => tables,
            Value::Array(values) if values.is_empty() => Vec::new(),
            other => {
                let key = self.key(name);
                let kind = other.kind();
                self.wrong(
                    name,
                    format!("is {kind}; expected a list of sections: [[{key}]]"),
                );
                Vec::new()
            }
        };
        let sections = tables
            .into_iter()
            .enumerate()
            .map(|(place, (begins, table))| {
                self.below(format!("{}[{place}]", self.key(name)), begins, table)
            });
        sections.collect()
    }

    /// Every section that is left here, under the names that the configuration gave them.
    pub fn named_sections(&mut self) -> Vec<(String, Section)> {
        let mut sections = Vec::new();
        for (name, node) in std::mem::take(&mut self.entries) {
            match node.value {
                Value::Table(table) => {
                    let section = self.below(self.key(&name), node.place, table);
                    sections.push((name, section));
                }
                other => {
                    let reason = format!("is {}; expected a section", shown(&other));
                    self.report(&name, node.place, reason, None);
                }
            }
        }
        sections
    }

    /// Every setting that is left here, under the names that the configuration gave them; what
    /// `read` says against one is reported.
    pub fn named<T: Setting, U>(
        &mut self,
        mut read: impl FnMut(&str, T) -> Result<U, String>,
    ) -> Vec<(String, U)> {
        let mut settings = Vec::new();
        for (name, node) in std::mem::take(&mut self.entries) {
            let value = T::read(&node.value).ok_or_else(|| unread::<T>(&name, &node.value));
            match value.and_then(|value| read(&name, value)) {
                Ok(setting) => settings.push((name, setting)),
                Err(reason) => self.report(&name, node.place, reason, None),
            }
        }
        settings
    }

    /// Says that the section itself is wrong.
    pub fn wrong_section(&self, reason: impl Into<String>) {
        let said = self.of_section(reason.into());
        self.errors.borrow_mut().wrong.push(said);
    }

    /// Says that the section itself is legal and hardly meant.
    pub fn warn_section(&self, reason: impl Into<String>) {
        let said = self.of_section(reason.into());
        self.errors.borrow_mut().warnings.push(said);
    }

    fn of_section(&self, reason: String) -> Diagnostic {
        Diagnostic {
            key: self.path.clone(),
            place: self.begins.clone(),
            reason,
            nearest: None,
        }
    }

    /// Says that a setting has no place here, if the configuration has it.
    pub fn refuse(&mut self, name: &'static str, reason: impl Into<String>) {
        if self.take(name).is_some() {
            self.wrong(name, reason);
        }
    }

    /// Takes a setting that cannot be looked at, for another one is wrong: it is not unknown.
    pub fn ignore(&mut self, name: &'static str) {
        let _ = self.take(name);
    }

    /// Whether the configuration had `name` here when it was taken.
    pub fn was_read(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Whether the configuration has `name` here, and nobody took it yet.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    fn below(&self, path: String, begins: Place, table: Table) -> Section {
        let mut section = Section::new(path, table, Rc::clone(&self.errors));
        section.begins = begins;
        section
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use crate::{Document, Section};

    /// What is wrong with `text`, once `read` has taken what it knows.
    fn wrong(text: &str, environment: &[(&str, &str)], read: impl FnOnce(&mut Section)) -> String {
        let environment = environment.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        let mut document = Document::parse(text, "P", environment);
        read(&mut document.root());
        let wrong = document.finish();
        let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn a_list_of_sections_comes_in_its_order_and_errors_name_its_place() {
        let text = "[[rule]]\nname = \"a\"\n\n[[rule]]\nnam = \"b\"\n\n[[rule]]\nname = 3\n";
        let said = wrong(text, &[], |root| {
            let mut rules = root.sections("rule");
            let names: Vec<Option<String>> = rules.iter_mut().map(|r| r.optional("name")).collect();
            assert_eq!(names, [Some("a".into()), None, None]);
            rules[1].wrong("name", "is missing");
        });
        assert_eq!(
            said,
            "line 4: `rule[1].name` is missing\n\
             line 5: `rule[1].nam` is not known; did you mean `rule[1].name`?\n\
             line 8: `rule[2].name` is the number 3; expected a text"
        );
    }

    #[test]
    fn what_is_no_list_of_sections_is_said() {
        let none = |root: &mut Section| assert!(root.sections("rule").is_empty());
        assert_eq!(wrong("", &[], none), "");
        assert_eq!(wrong("rule = []", &[], none), "");
        assert_eq!(
            wrong("[rule]\na = 1", &[], none),
            "line 1: `rule` is a section; expected a list of sections: [[rule]]"
        );
        assert_eq!(
            wrong("rule = [1, {}]", &[], none),
            "line 1: `rule` is a list; expected a list of sections: [[rule]]"
        );
        let one = |root: &mut Section| assert_eq!(root.sections("rule").len(), 1);
        assert_eq!(
            wrong("[[rule]]", &[("P__RULE__0__NAME", "x")], one),
            "P__RULE__0__NAME: `rule.0.name` is within a list of sections: only the file can set it"
        );
    }

    #[test]
    fn what_has_no_place_is_refused_once_and_lists_of_numbers_are_read() {
        let said = wrong("a = 1\nb = [1, 2.5]\nc = [1, \"x\"]\n", &[], |root| {
            root.refuse("a", "has no meaning here");
            root.refuse("d", "is not there");
            assert_eq!(root.optional::<Vec<f64>>("b"), Some(vec![1.0, 2.5]));
            assert_eq!(root.optional::<Vec<f64>>("c"), None);
        });
        assert_eq!(
            said,
            "line 1: `a` has no meaning here\n\
             line 3: `c` is the list [1, \"x\"]; expected a list of finite numbers"
        );
    }

    #[test]
    fn names_that_the_file_chooses_are_all_read_with_their_lines() {
        let text = "[at]\nspeed = \"/v\"\nrpm = 7\n\"a b\" = \"v\"\n[of.x]\nk = 1.5\n[of]\ny = 2\n";
        let said = wrong(text, &[], |root| {
            let mut at = root.section("at");
            let named = at.named(|name, pointer: String| match pointer.starts_with('/') {
                true => Ok(format!("{name}{pointer}")),
                false => Err("is no pointer".into()),
            });
            assert_eq!(named, [("speed".into(), "speed/v".into())]);
            let mut of = root.section("of").named_sections();
            assert_eq!(of[0].0, "x");
            assert_eq!(of[0].1.optional::<f64>("k"), Some(1.5));
        });
        assert_eq!(
            said,
            "line 3: `at.rpm` is the number 7; expected a text\n\
             line 4: `at.a b` is no pointer\n\
             line 8: `of.y` is the number 2; expected a section"
        );
    }
}
