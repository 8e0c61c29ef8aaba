//! Rules about docs/mqtt.md: every normative statement of MQTT 3.1.1 and of MQTT 5 has its verdict,
//! once, and every test that the document names is there. Whether the test shows it, people judge.

use super::tree::File;
use super::{Rule, Violation, rust::numbered};
use std::collections::BTreeMap;

const DOCUMENT: &str = "docs/mqtt.md";
/// Tests of Mosquitto's suite that are run stand in this file's list.
const SUITE: &str = "tests/conformance.py";
/// Our own run of others' clients, named as a whole.
const CLIENTS: &str = "clients.py";

const STATEMENT: Rule = Rule {
    name: "statement",
    why: "each normative statement stands once in its standard's tables, with `done: TEST`, \
          `refused CODE: TEST` or `n/a: WHY`",
};
const TEST: Rule = Rule {
    name: "named-test",
    why: "a test that docs/mqtt.md names as `PREFIX::NAME` is in the file of that prefix",
};

/// A section of a standard, and the first and last number of its statements.
type Numbers = (&'static str, u8, u8);

/// The statements of a standard, as its Appendix B lists them.
struct Standard {
    /// The heading above its tables.
    title: &'static str,
    statements: &'static [Numbers],
}

const STANDARDS: [Standard; 2] = [
    Standard {
        title: "MQTT 3.1.1",
        statements: V4,
    },
    Standard {
        title: "MQTT 5",
        statements: V5,
    },
];

/// Two are misprinted in the appendix: "3.1.2.7" and "3-8.3-4".
const V4: &[Numbers] = &[
    ("1.5.3", 1, 3),
    ("2.2.2", 1, 2),
    ("2.3.1", 1, 7),
    ("3.1.0", 1, 2),
    ("3.1.2", 1, 24),
    ("3.1.3", 1, 11),
    ("3.1.4", 1, 5),
    ("3.2.0", 1, 1),
    ("3.2.2", 1, 6),
    ("3.3.1", 1, 12),
    ("3.3.2", 1, 3),
    ("3.3.4", 1, 1),
    ("3.3.5", 1, 2),
    ("3.6.1", 1, 1),
    ("3.8.1", 1, 1),
    ("3.8.3", 1, 4),
    ("3.8.4", 1, 6),
    ("3.9.3", 1, 2),
    ("3.10.1", 1, 1),
    ("3.10.3", 1, 2),
    ("3.10.4", 1, 6),
    ("3.12.4", 1, 1),
    ("3.14.1", 1, 1),
    ("3.14.4", 1, 3),
    ("4.1.0", 1, 2),
    ("4.3.1", 1, 1),
    ("4.3.2", 1, 2),
    ("4.3.3", 1, 2),
    ("4.4.0", 1, 1),
    ("4.5.0", 1, 2),
    ("4.6.0", 1, 6),
    ("4.7.1", 1, 3),
    ("4.7.2", 1, 1),
    ("4.7.3", 1, 4),
    ("4.8.0", 1, 2),
    ("6.0.0", 1, 4),
    ("7.0.0", 1, 2),
    ("7.1.1", 1, 1),
    ("7.1.2", 1, 1),
];

/// 4.2-1 is 4.2.0-1 in the appendix; there is no 2.2.1-1.
const V5: &[Numbers] = &[
    ("1.5.4", 1, 3),
    ("1.5.5", 1, 1),
    ("1.5.7", 1, 1),
    ("2.1.3", 1, 1),
    ("2.2.1", 2, 6),
    ("2.2.2", 1, 1),
    ("3.1.0", 1, 2),
    ("3.1.2", 1, 30),
    ("3.1.3", 1, 12),
    ("3.1.4", 1, 6),
    ("3.2.0", 1, 2),
    ("3.2.2", 1, 22),
    ("3.3.1", 1, 13),
    ("3.3.2", 1, 20),
    ("3.3.4", 1, 10),
    ("3.4.2", 1, 3),
    ("3.5.2", 1, 3),
    ("3.6.1", 1, 1),
    ("3.6.2", 1, 3),
    ("3.7.2", 1, 3),
    ("3.8.1", 1, 1),
    ("3.8.3", 1, 5),
    ("3.8.4", 1, 8),
    ("3.9.2", 1, 2),
    ("3.9.3", 1, 2),
    ("3.10.1", 1, 1),
    ("3.10.3", 1, 2),
    ("3.10.4", 1, 6),
    ("3.11.2", 1, 2),
    ("3.11.3", 1, 2),
    ("3.12.4", 1, 1),
    ("3.14.0", 1, 1),
    ("3.14.1", 1, 1),
    ("3.14.2", 1, 4),
    ("3.14.4", 1, 3),
    ("3.15.1", 1, 1),
    ("3.15.2", 1, 3),
    ("4.1.0", 1, 2),
    ("4.2", 1, 1),
    ("4.3.1", 1, 1),
    ("4.3.2", 1, 5),
    ("4.3.3", 1, 13),
    ("4.4.0", 1, 2),
    ("4.5.0", 1, 2),
    ("4.6.0", 1, 6),
    ("4.7.0", 1, 1),
    ("4.7.1", 1, 2),
    ("4.7.2", 1, 1),
    ("4.7.3", 1, 4),
    ("4.8.2", 1, 6),
    ("4.9.0", 1, 3),
    ("4.12.0", 1, 7),
    ("4.12.1", 1, 2),
    ("4.13.1", 1, 1),
    ("4.13.2", 1, 1),
    ("6.0.0", 1, 4),
];

impl Standard {
    /// Every statement's number, and how often it was met so far.
    fn unmet(&self) -> BTreeMap<String, usize> {
        let sections = self.statements.iter();
        let numbers = sections.flat_map(|(section, first, last)| {
            (*first..=*last).map(move |number| (format!("{section}-{number}"), 0))
        });
        numbers.collect()
    }
}

/// Every violation of these rules.
pub fn check(files: &[File]) -> Vec<Violation> {
    let document = files.iter().find(|file| file.path == DOCUMENT);
    let Some(document) = document else {
        let missing = File::new(DOCUMENT.into(), Vec::new());
        return vec![missing.source().violation(1, "not there", STATEMENT)];
    };
    let mut violations = statements(document);
    violations.extend(named_tests(document, files));
    violations
}

/// Each statement once, with a verdict.
fn statements(document: &File) -> Vec<Violation> {
    let source = document.source();
    let mut violations = Vec::new();
    for standard in &STANDARDS {
        let mut met = standard.unmet();
        let mut within = false;
        for (number, line) in numbered(source.text) {
            if let Some(title) = line.strip_prefix("## ") {
                within = title == standard.title;
            }
            let Some((ids, verdict)) = row(line).filter(|_| within) else {
                continue;
            };
            for id in ids.split(", ") {
                match met.get_mut(id) {
                    Some(0) => met.extend([(id.to_owned(), 1)]),
                    Some(_) => {
                        violations.extend(source.at(number, format!("{id} again"), STATEMENT))
                    }
                    None => {
                        violations.extend(source.at(number, format!("{id}: unknown"), STATEMENT))
                    }
                }
            }
            if !is_verdict(verdict) {
                violations.extend(source.at(number, format!("`{verdict}`"), STATEMENT));
            }
        }
        let unmet = met.into_iter().filter(|(_, times)| *times == 0);
        violations.extend(unmet.filter_map(|(id, _)| {
            source.whole(format!("{}: {id} is missing", standard.title), STATEMENT)
        }));
    }
    violations
}

/// The ids and the verdict of a table's row that begins with a statement's number.
fn row(line: &str) -> Option<(&str, &str)> {
    let cells = line.strip_prefix("| ")?.strip_suffix(" |")?;
    let (ids, _) = cells.split_once(" | ")?;
    let (_, verdict) = cells.rsplit_once(" | ")?;
    let is_id = ids.starts_with(|c: char| c.is_ascii_digit()) && ids.contains('-');
    is_id.then_some((ids, verdict))
}

fn is_verdict(verdict: &str) -> bool {
    let Some((word, said)) = verdict.split_once(": ") else {
        return false;
    };
    match word.split(' ').next() {
        Some("done" | "refused") => quoted(said).any(is_test),
        Some("n/a") => word == "n/a" && !said.trim().is_empty(),
        _ => false,
    }
}

fn is_test(name: &str) -> bool {
    name == CLIENTS || name.contains("::")
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Each test that is named is there.
fn named_tests(document: &File, files: &[File]) -> Vec<Violation> {
    let source = document.source();
    let prefixes: BTreeMap<&str, &str> = source.text.lines().filter_map(prefix).collect();
    let text_of = |path: &str| files.iter().find(|file| file.path == path)?.text();
    let is_there = |name: &str| {
        let Some((prefix, test)) = name.split_once("::") else {
            return text_of(&format!("tests/{name}")).is_some();
        };
        let path = prefixes.get(prefix).copied().unwrap_or_default();
        let text = text_of(path).unwrap_or_default();
        match path {
            SUITE => text.split_whitespace().any(|word| word == test),
            _ => text.contains(&format!("fn {test}(")),
        }
    };
    let mut violations = Vec::new();
    for (number, line) in numbered(source.text) {
        let tests = quoted(line).filter(|name| is_test(name) && !name.ends_with("::"));
        for name in tests.filter(|name| !is_there(name)) {
            violations.extend(source.at(number, format!("`{name}`"), TEST));
        }
    }
    violations
}

/// A row that says in which file the tests of a prefix are: "| `codec::` | path |".
fn prefix(line: &str) -> Option<(&str, &str)> {
    let (prefix, path) = line.strip_prefix("| `")?.split_once("::` | ")?;
    Some((prefix, path.strip_suffix(" |")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document with every statement, one row for each, and what a test changes in it.
    fn document(change: impl Fn(String) -> String) -> File {
        let mut text = "| `a::` | a/tests.rs |\n| `m::` | tests/conformance.py |\n".to_owned();
        for standard in &STANDARDS {
            text += &format!(
                "## {}\n| id | asks | here |\n|---|---|---|\n",
                standard.title
            );
            for id in standard.unmet().into_keys() {
                text += &format!("| {id} | what it asks | done: `a::shown` |\n");
            }
        }
        File::new(DOCUMENT.into(), change(text).into())
    }

    fn files(document: File) -> [File; 4] {
        [
            document,
            File::new("a/tests.rs".into(), "fn shown() {}\nfn other() {}\n".into()),
            File::new(SUITE.into(), "RUN = \"\"\"\n01-one 02-two\n\"\"\"\n".into()),
            File::new("tests/clients.py".into(), "".into()),
        ]
    }

    fn found(change: impl Fn(String) -> String) -> Vec<String> {
        let found = check(&files(document(change)));
        found.into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn every_statement_is_known_by_number() {
        let counts = STANDARDS.map(|standard| standard.unmet().len());
        assert_eq!(counts, [141, 251]);
    }

    #[test]
    fn each_statement_stands_once_with_a_verdict() {
        assert_eq!(found(|text| text), Vec::<String>::new());
        let row = "| 3.12.4-1 | what it asks | done: `a::shown` |\n";
        let without = found(|text| text.replacen(row, "", 1));
        assert_eq!(without, ["MQTT 3.1.1: 3.12.4-1 is missing"]);
        assert_eq!(found(|text| text + row), ["3.12.4-1 again"]);
        assert_eq!(
            found(|text| text + "| 9.9.9-1 | x | n/a: y |\n"),
            ["9.9.9-1: unknown"]
        );
        for verdict in [
            "done",
            "done: yes",
            "n/a",
            "n/a: ",
            "maybe: `a::shown`",
            "refused 0x83: so",
        ] {
            let changed = format!("| 3.12.4-1 | what it asks | {verdict} |\n");
            let found = found(|text| text.replacen(row, &changed, 1));
            assert_eq!(found.len(), 1, "{verdict}: {found:?}");
        }
        for verdict in [
            "n/a: for clients",
            "refused 0x83: `a::other`",
            "done: `clients.py`",
        ] {
            let changed = format!("| 3.12.4-1 | what it asks | {verdict} |\n");
            assert!(
                found(|text| text.replacen(row, &changed, 1)).is_empty(),
                "{verdict}"
            );
        }
        let joined = "| 3.10.3-1, 3.10.3-2 | both | n/a: so |\n";
        let joined = found(|text| {
            let one = "| 3.10.3-1 | what it asks | done: `a::shown` |\n";
            let two = "| 3.10.3-2 | what it asks | done: `a::shown` |\n";
            text.replacen(one, joined, 1).replacen(two, "", 1)
        });
        assert!(joined.is_empty(), "{joined:?}");
    }

    #[test]
    fn each_test_that_is_named_is_there() {
        for name in ["a::shown", "m::02-two", "clients.py"] {
            assert!(
                found(|text| text + &format!("See `{name}`.\n")).is_empty(),
                "{name}"
            );
        }
        for name in ["a::show", "a::gone", "b::shown", "m::02-tw", "m::RUN_"] {
            assert_eq!(
                found(|text| text + &format!("See `{name}`.\n")),
                [format!("`{name}`")]
            );
        }
        assert_eq!(check(&[]).len(), 1, "the document itself");
    }
}
