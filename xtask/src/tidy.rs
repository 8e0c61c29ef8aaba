//! `cargo xtask tidy`: what of the house style a machine can hold, each rule a pure function over
//! a file, or over the list of files. It changes nothing; rustfmt and clippy hold the rest.
//!
//! A rule that would make a piece of code worse is lifted by a comment that says why, on the line
//! or within the eight lines above it (for rules about a whole file, anywhere in it):
//! `// tidy: sleep because the peer under test has no event to wait for`.

mod documents;
mod masked;
mod measured;
mod planted;
mod proofs;
mod rust;
mod shape;
mod statements;
mod tree;

use anyhow::{Context, Result};
use masked::Masked;
use std::fmt;
use std::path::Path;

/// Where something is not as the house wants it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Violation {
    path: String,
    line: usize,
    what: String,
    why: &'static str,
    rule: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            what,
            why,
            rule,
        } = self;
        write!(f, "{path}:{line}: {what}: {why} [{rule}]")
    }
}

/// What a rule is called, in reports and in the comments that lift it, and why it is there.
#[derive(Clone, Copy)]
struct Rule {
    name: &'static str,
    why: &'static str,
}

/// A text file with what the rules ask of it.
struct Source<'a> {
    /// From the workspace, with `/`.
    path: &'a str,
    text: &'a str,
    /// Of Rust only: without strings and comments.
    masked: Masked,
}

/// Lines above a violation in which its comment may stand: attributes and documentation between.
const COMMENT_REACH: usize = 8;

impl<'a> Source<'a> {
    fn new(path: &'a str, text: &'a str) -> Self {
        let is_rust = path.ends_with(".rs");
        let masked = if is_rust {
            Masked::new(text)
        } else {
            Masked::default()
        };
        Self { path, text, masked }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Made by a program.
    fn is_generated(&self) -> bool {
        self.path.contains("/generated/")
    }

    /// The stem of the file's name: `mod` of `a/mod.rs`.
    fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.split('.').next().unwrap_or_default()
    }

    /// All of it is test code: `tests.rs`, and everything below a folder `tests`.
    fn is_test(&self) -> bool {
        self.stem() == "tests" || self.path.starts_with("tests/") || self.path.contains("/tests/")
    }

    /// A program's or a test's or a bench's root file, or a library's.
    fn is_crate_root(&self) -> bool {
        let parts: Vec<&str> = self.path.rsplit('/').collect();
        matches!(
            parts.as_slice(),
            ["lib.rs" | "main.rs", "src", ..]
                | ["main.rs", "tests", ..]
                | [_, "bin", "src", ..]
                | ["main.rs", _, "bin", "src", ..]
        )
    }

    /// A violation on `line`, unless a comment near it lifts the rule.
    fn at(&self, line: usize, what: impl Into<String>, rule: Rule) -> Option<Violation> {
        let first = line.saturating_sub(COMMENT_REACH + 1);
        let mut near = self.text.lines().skip(first).take(line - first);
        let lifted = near.any(|text| lifts(text, rule.name));
        (!lifted).then(|| self.violation(line, what, rule))
    }

    /// A violation by the whole file, unless a comment anywhere in it lifts the rule.
    fn whole(&self, what: impl Into<String>, rule: Rule) -> Option<Violation> {
        let lifted = self.text.lines().any(|text| lifts(text, rule.name));
        (!lifted).then(|| self.violation(1, what, rule))
    }

    fn violation(&self, line: usize, what: impl Into<String>, rule: Rule) -> Violation {
        let Rule { name, why } = rule;
        Violation {
            path: self.path.to_owned(),
            line,
            what: what.into(),
            why,
            rule: name,
        }
    }
}

/// Whether a line holds the comment that lifts a rule, reason included.
fn lifts(line: &str, rule: &str) -> bool {
    let reason = line
        .split_once("// tidy: ")
        .and_then(|(_, said)| said.strip_prefix(rule))
        .and_then(|said| said.strip_prefix(" because "));
    reason.is_some_and(|reason| !reason.trim().is_empty())
}

/// A rule over one file.
type FileRule = fn(&Source<'_>) -> Vec<Violation>;

const FILE_RULES: &[FileRule] = &[
    rust::opens_with_what_it_is,
    rust::unsafe_code,
    rust::unfinished,
    rust::ignored_tests,
    rust::sleeps_in_tests,
    rust::getters,
    rust::anyhow_in_libraries,
    shape::long_lines,
    shape::long_files,
    shape::long_functions,
    shape::names,
    documents::machine_paths,
    documents::registries,
    documents::changelog_sections,
];

/// Every violation of one text file.
fn check_text(path: &str, text: &str) -> Vec<Violation> {
    let source = Source::new(path, text);
    FILE_RULES.iter().flat_map(|rule| rule(&source)).collect()
}

/// Checks every file that git holds or would take. Whether all is well.
pub fn run(root: &Path) -> Result<bool> {
    let mut violations = Vec::new();
    let mut files = Vec::new();
    for path in crate::files(root)? {
        let bytes = std::fs::read(root.join(&path))
            .with_context(|| format!("reading {}", path.display()))?;
        files.push(tree::File::new(path.to_string_lossy().into_owned(), bytes));
    }
    for file in &files {
        if let Some(text) = file.text() {
            violations.extend(check_text(&file.path, text));
        }
    }
    violations.extend(tree::check(&files));
    violations.extend(statements::check(&files));
    violations.extend(proofs::check(&files));
    violations.extend(planted::check(&files));
    violations.extend(measured::check(&files));
    violations.sort();
    violations
        .iter()
        .for_each(|violation| println!("{violation}"));
    match violations.len() {
        0 => println!("tidy: {} files, as the house wants them", files.len()),
        count => println!("tidy: {count} violations in {} files", files.len()),
    }
    Ok(violations.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_says_where_what_and_why() {
        let source = Source::new("agent/src/a.rs", "//! A.\nfn f() {}\n");
        let rule = Rule {
            name: "shape",
            why: "because",
        };
        let shown = source.violation(2, "a thing", rule).to_string();
        assert_eq!(shown, "agent/src/a.rs:2: a thing: because [shape]");
    }

    #[test]
    fn a_comment_with_a_reason_lifts_its_rule_near_it() {
        let rule = Rule {
            name: "sleep",
            why: "",
        };
        let lifted = "//! A.\n\n// tidy: sleep because the peer has no event\nwait();\n";
        assert!(Source::new("a.rs", lifted).at(4, "it", rule).is_none());
        for line in [
            "// tidy: sleep",
            "// tidy: sleep because ",
            "// tidy: other because x",
        ] {
            let text = format!("//! A.\n\n{line}\nwait();\n");
            assert!(
                Source::new("a.rs", &text).at(4, "it", rule).is_some(),
                "{line}"
            );
        }
        let far = format!(
            "// tidy: sleep because x\n{}wait();\n",
            "\n".repeat(COMMENT_REACH)
        );
        let source = Source::new("a.rs", &far);
        assert!(source.at(2 + COMMENT_REACH, "it", rule).is_some());
        assert!(
            source.whole("it", rule).is_none(),
            "for a whole file it may stand anywhere"
        );
    }

    #[test]
    fn crate_roots_and_tests_are_known_by_their_paths() {
        let root = |path| Source::new(path, "").is_crate_root();
        for path in [
            "agent/src/lib.rs",
            "agent/src/main.rs",
            "agent/tests/main.rs",
            "benches/src/bin/wire/main.rs",
            "benches/src/bin/one.rs",
            "deploy/standalone/src/main.rs",
        ] {
            assert!(root(path), "{path}");
        }
        for path in [
            "agent/src/wal.rs",
            "benches/src/bin/wire/peers.rs",
            "agent/tests/a.rs",
        ] {
            assert!(!root(path), "{path}");
        }
        let test = |path| Source::new(path, "").is_test();
        assert!(test("agent/tests/a.rs") && test("a/src/b/tests.rs") && test("tests/src/a.rs"));
        assert!(!test("agent/src/attests.rs"));
    }
}
