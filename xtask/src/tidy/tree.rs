//! Rules about which files there are: what stands beside what, and what is too large for git.

use super::{Rule, Source, Violation};

/// Bytes of a file that git holds.
const FILE_BYTES_MAX: usize = 512 * 1024;
/// Bytes in which a zero byte shows that a file is no text: where git looks, too.
const TEXT_PROBE_BYTES: usize = 8_000;
/// Crates of the workspace that are only tests.
const TEST_CRATE: &str = "tests";

const LARGE: Rule = Rule {
    name: "large",
    why: "at most 512 KiB: git keeps it for ever",
};
const BINARY: Rule = Rule {
    name: "binary",
    why: "no binary but golden files in tests/golden",
};
const LIMITS: Rule = Rule {
    name: "limits",
    why: "every bound of a crate has a line in its src/limits.rs",
};
const DECISION: Rule = Rule {
    name: "decision",
    why: "a decision is listed in docs/decisions/README.md, under a number of its own",
};
const ONE_BINARY: Rule = Rule {
    name: "one-binary",
    why: "a crate's integration tests are one binary: linking many takes minutes",
};

/// A file that git holds or would take.
pub struct File {
    /// From the workspace, with `/`.
    pub path: String,
    bytes: Vec<u8>,
}

impl File {
    /// A file of the workspace.
    pub fn new(path: String, bytes: Vec<u8>) -> Self {
        Self { path, bytes }
    }

    /// Its text, if it is one.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes)
            .ok()
            .filter(|_| !self.is_binary())
    }

    fn is_binary(&self) -> bool {
        self.bytes
            .iter()
            .take(TEXT_PROBE_BYTES)
            .any(|byte| *byte == 0)
    }

    /// What the rules ask of it.
    pub fn source(&self) -> Source<'_> {
        Source::new(&self.path, self.text().unwrap_or_default())
    }
}

/// Every violation of these rules.
pub fn check(files: &[File]) -> Vec<Violation> {
    let rules = [large, binary, limits, decisions, one_test_binary];
    rules.iter().flat_map(|rule| rule(files)).collect()
}

fn large(files: &[File]) -> Vec<Violation> {
    let large = files
        .iter()
        .filter(|file| file.bytes.len() > FILE_BYTES_MAX);
    let what = |file: &File| format!("{} bytes", file.bytes.len());
    large
        .filter_map(|file| file.source().whole(what(file), LARGE))
        .collect()
}

fn binary(files: &[File]) -> Vec<Violation> {
    let binary = files.iter().filter(|file| file.is_binary());
    let stray = binary.filter(|file| !file.path.contains("tests/golden/"));
    stray
        .filter_map(|file| file.source().whole("no text", BINARY))
        .collect()
}

/// Every library has its bounds in one place.
fn limits(files: &[File]) -> Vec<Violation> {
    let libraries = files.iter().filter_map(|file| {
        let folder = file.path.strip_suffix("src/lib.rs")?;
        (folder.trim_end_matches('/') != TEST_CRATE).then_some((file, folder))
    });
    libraries
        .filter(|(_, folder)| {
            let wanted = format!("{folder}src/limits.rs");
            !files.iter().any(|file| file.path == wanted)
        })
        .filter_map(|(file, _)| {
            file.source()
                .whole("a library without src/limits.rs", LIMITS)
        })
        .collect()
}

/// Every decision is listed, and no two have one number.
fn decisions(files: &[File]) -> Vec<Violation> {
    let list = files
        .iter()
        .find(|file| file.path == "docs/decisions/README.md");
    let list = list.and_then(File::text).unwrap_or_default();
    let mut numbers = Vec::new();
    let mut violations = Vec::new();
    for file in files {
        let name = file.path.strip_prefix("docs/decisions/");
        let Some(name) = name.filter(|name| *name != "README.md") else {
            continue;
        };
        let number = name.split('-').next().unwrap_or_default();
        if !list.contains(&format!("({name})")) {
            violations.extend(file.source().whole("not listed", DECISION));
        }
        if numbers.contains(&number) {
            let what = format!("a second decision {number}");
            violations.extend(file.source().whole(what, DECISION));
        }
        numbers.push(number);
    }
    violations
}

/// `tests/main.rs`, and modules.
fn one_test_binary(files: &[File]) -> Vec<Violation> {
    let manifest = |folder: &str| {
        let wanted = format!("{folder}Cargo.toml");
        files
            .iter()
            .find(|file| file.path == wanted)
            .and_then(File::text)
    };
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let Some((above, name)) = file.path.rsplit_once("tests/") else {
            continue;
        };
        let is_root = above.is_empty() || above.ends_with('/');
        if !is_root || name.contains('/') || name == "main.rs" {
            continue;
        }
        let Some(manifest) = manifest(above) else {
            continue;
        };
        if manifest.contains("[package]") && !manifest.contains("autotests = false") {
            let what = "becomes a test binary of its own (no `autotests = false`)";
            violations.extend(file.source().whole(what, ONE_BINARY));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Vec<File> {
        let file = |(path, text): &(&str, &str)| File::new((*path).into(), (*text).into());
        list.iter().map(file).collect()
    }

    fn paths(violations: &[Violation]) -> Vec<&str> {
        violations
            .iter()
            .map(|violation| violation.path.as_str())
            .collect()
    }

    #[test]
    fn large_files_are_found() {
        let of = |bytes: usize| [File::new("a.csv".into(), vec![b'x'; bytes])];
        assert_eq!(large(&of(FILE_BYTES_MAX + 1)).len(), 1);
        assert!(large(&of(FILE_BYTES_MAX)).is_empty());
    }

    #[test]
    fn binaries_are_golden_or_not_there() {
        let found = binary(&files(&[
            ("a/x.bin", "a\0"),
            ("a/tests/golden/x", "\0"),
            ("b", "t"),
        ]));
        assert_eq!(paths(&found), ["a/x.bin"]);
        assert!(files(&[("a/x.bin", "a\0")])[0].text().is_none());
    }

    #[test]
    fn libraries_have_limits() {
        let good = [
            ("a/src/lib.rs", "//! A.\n"),
            ("a/src/limits.rs", "//! L.\n"),
        ];
        assert!(limits(&files(&good)).is_empty());
        assert_eq!(paths(&limits(&files(&good[..1]))), ["a/src/lib.rs"]);
        assert!(limits(&files(&[("tests/src/lib.rs", "//! T.\n")])).is_empty());
        assert!(limits(&files(&[("a/src/main.rs", "//! M.\n")])).is_empty());
    }

    #[test]
    fn decisions_are_listed_once() {
        let list = (
            "docs/decisions/README.md",
            "[0001](0001-a.md) [0001](0001-b.md)",
        );
        let all = [
            list,
            ("docs/decisions/0001-a.md", ""),
            ("docs/decisions/0002-c.md", ""),
        ];
        assert_eq!(
            paths(&decisions(&files(&all))),
            ["docs/decisions/0002-c.md"]
        );
        let twice = [
            list,
            ("docs/decisions/0001-a.md", ""),
            ("docs/decisions/0001-b.md", ""),
        ];
        assert_eq!(
            paths(&decisions(&files(&twice))),
            ["docs/decisions/0001-b.md"]
        );
    }

    #[test]
    fn integration_tests_are_one_binary() {
        let bare = ("a/Cargo.toml", "[package]\n");
        let switched = ("a/Cargo.toml", "[package]\nautotests = false\n");
        let test = ("a/tests/b.rs", "//! B.\n");
        assert_eq!(
            paths(&one_test_binary(&files(&[bare, test]))),
            ["a/tests/b.rs"]
        );
        assert!(one_test_binary(&files(&[switched, test])).is_empty());
        let modules = [bare, ("a/tests/main.rs", ""), ("a/tests/main/b.rs", "")];
        assert!(one_test_binary(&files(&modules)).is_empty());
        assert!(one_test_binary(&files(&[bare, ("a/src/b/tests/c.rs", "")])).is_empty());
    }
}
