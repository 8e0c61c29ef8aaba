//! Rules about what Rust files say, line by line. They read masked text; they parse nothing.

use super::{Rule, Source, Violation};

const OPENING: Rule = Rule {
    name: "opening",
    why: "a file opens with `//!`: what it is, and what it does not do",
};
const UNSAFE: Rule = Rule {
    name: "unsafe",
    why: "no unsafe code but in what flatc generates for protocol",
};
const UNFINISHED: Rule = Rule {
    name: "unfinished",
    why: "finish it, or open an issue",
};
const IGNORED: Rule = Rule {
    name: "ignored",
    why: "a test that does not run holds nothing",
};
const SLEEP: Rule = Rule {
    name: "sleep",
    why: "wait for what the test needs, not for time",
};
const GETTER: Rule = Rule {
    name: "getter",
    why: "name what it gives, without `get_`",
};
const ANYHOW: Rule = Rule {
    name: "anyhow",
    why: "libraries have error enums; anyhow is for programs, benches and tests",
};

/// Spelled apart, so that this file does not violate its own rules.
const UNFINISHED_WORDS: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("place", "holder"),
];
const UNFINISHED_MACROS: [&str; 2] = ["todo!", "unimplemented!"];
/// Crate roots that allow unsafe code in one module: the root, and the module's declaration.
const UNSAFE_MODULES: [(&str, &str); 2] = [
    ("protocol/src/lib.rs", "mod generated;"),
    // An allocator that counts: a test of what decoders allocate.
    ("protocol/tests/main.rs", "mod counting;"),
];

/// The first line is `//!`.
pub fn opens_with_what_it_is(source: &Source<'_>) -> Vec<Violation> {
    let says = source
        .text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("//!"));
    let good = says.is_some_and(|says| !says.trim().is_empty());
    if !source.is_rust() || source.is_generated() || good {
        return Vec::new();
    }
    source
        .whole("the first line is not `//! …`", OPENING)
        .into_iter()
        .collect()
}

/// Crate roots forbid unsafe code; `protocol` denies it, and allows it in one module.
pub fn unsafe_code(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_rust() || source.is_generated() || is_fuzz(source) {
        return Vec::new();
    }
    let code = &source.masked.code;
    let mut violations = Vec::new();
    let excepted = UNSAFE_MODULES.iter().find(|(root, _)| *root == source.path);
    let wanted = match excepted {
        Some(_) => "#![deny(unsafe_code)]",
        None => "#![forbid(unsafe_code)]",
    };
    if source.is_crate_root() && !code.contains(wanted) {
        violations.extend(source.whole(format!("a crate root without `{wanted}`"), UNSAFE));
    }
    for (number, line) in numbered(code).filter(|(_, line)| line.contains("allow(unsafe_code")) {
        let mut next = code.lines().skip(number).take(3);
        let in_place = excepted.is_some_and(|(_, module)| next.any(|line| line.trim() == *module));
        if !in_place {
            violations.extend(source.at(number, line.trim(), UNSAFE));
        }
    }
    violations
}

/// Nothing is left for later.
pub fn unfinished(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_rust() {
        return Vec::new();
    }
    let comments = numbered(&source.masked.comments).filter_map(|(number, line)| {
        let word = words(line).find(|word| UNFINISHED_WORDS.contains(word))?;
        source.at(number, format!("`{word}`"), UNFINISHED)
    });
    let macros = numbered(&source.masked.code).filter_map(|(number, line)| {
        let name = UNFINISHED_MACROS
            .into_iter()
            .find(|name| contains_word(line, name))?;
        source.at(number, format!("`{name}`"), UNFINISHED)
    });
    comments.chain(macros).collect()
}

/// Every test runs.
pub fn ignored_tests(source: &Source<'_>) -> Vec<Violation> {
    lines_with(source, IGNORED, |line| {
        let line: String = line.split_whitespace().collect();
        line.contains("#[ignore]") || line.contains("#[ignore=")
    })
}

/// Tests do not wait for time to pass.
pub fn sleeps_in_tests(source: &Source<'_>) -> Vec<Violation> {
    let from = if source.is_test() {
        Some(1)
    } else {
        tests_begin(source)
    };
    let Some(from) = from else { return Vec::new() };
    let mut violations = lines_with(source, SLEEP, |line| contains_word(line, "sleep("));
    violations.retain(|violation| violation.line >= from);
    violations
}

/// No function of ours is called `get_…`; a foreign trait's may be.
pub fn getters(source: &Source<'_>) -> Vec<Violation> {
    lines_with(source, GETTER, |line| {
        line.trim_start().starts_with("pub") && contains_word(line, "fn get_")
    })
}

/// A library's errors have types.
pub fn anyhow_in_libraries(source: &Source<'_>) -> Vec<Violation> {
    let crate_of = source.path.split('/').next().unwrap_or_default();
    let library = [
        "protocol",
        "journal",
        "uplink",
        "agent",
        "aggregator",
        "firmware-sim",
    ];
    let is_program = source.stem() == "main" || source.path.contains("/bin/");
    if !library.contains(&crate_of) || is_program || source.is_test() || is_fuzz(source) {
        return Vec::new();
    }
    let mut violations = lines_with(source, ANYHOW, |line| contains_word(line, "anyhow::"));
    let end = tests_begin(source).unwrap_or(usize::MAX);
    violations.retain(|violation| violation.line < end);
    violations
}

/// Lines of code for which `bad` holds.
fn lines_with(source: &Source<'_>, rule: Rule, bad: impl Fn(&str) -> bool) -> Vec<Violation> {
    if !source.is_rust() || source.is_generated() {
        return Vec::new();
    }
    numbered(&source.masked.code)
        .filter(|(_, line)| bad(line))
        .filter_map(|(number, line)| source.at(number, format!("`{}`", line.trim()), rule))
        .collect()
}

/// The line of the first `#[cfg(test)]` that stands before a module.
pub fn tests_begin(source: &Source<'_>) -> Option<usize> {
    let lines: Vec<(usize, &str)> = numbered(&source.masked.code).collect();
    let begins = lines.iter().enumerate().find(|(at, (_, line))| {
        let behind = lines.get(at + 1..).unwrap_or_default();
        let mut declared = behind
            .iter()
            .map(|(_, line)| line.trim())
            .filter(|line| !line.is_empty() && !line.starts_with("#["));
        // A module that is another file is no tail: `mod tests;`.
        let module = |line: &str| line.starts_with("mod ") && !line.ends_with(';');
        line.starts_with("#[cfg(test)]") && declared.next().is_some_and(module)
    });
    begins.map(|(_, (number, _))| *number)
}

/// Lines with their numbers, from 1.
pub fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines())
}

/// Fuzz targets are made of a macro that brings unsafe code along.
fn is_fuzz(source: &Source<'_>) -> bool {
    source.path.contains("/fuzz/")
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// Whether `line` holds `pattern` with no letter, digit or `_` before it.
fn contains_word(line: &str, pattern: &str) -> bool {
    line.match_indices(pattern).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rule: super::super::FileRule, path: &str, text: &str) -> Vec<usize> {
        let found = rule(&Source::new(path, text));
        found.into_iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn files_open_with_what_they_are() {
        let rule = opens_with_what_it_is;
        assert_eq!(lines(rule, "a/src/b.rs", "use x;\n"), [1]);
        assert_eq!(lines(rule, "a/src/b.rs", "//!\n//! Late.\n"), [1]);
        assert!(lines(rule, "a/src/b.rs", "//! Something.\n").is_empty());
        assert!(lines(rule, "protocol/src/generated/x.rs", "// made\n").is_empty());
        assert!(lines(rule, "a/README.md", "# A\n").is_empty());
    }

    #[test]
    fn crate_roots_forbid_unsafe_code() {
        let bare = "//! A.\nmod a;\n";
        for root in [
            "agent/src/lib.rs",
            "agent/src/main.rs",
            "agent/tests/main.rs",
        ] {
            assert_eq!(lines(unsafe_code, root, bare), [1], "{root}");
            assert!(lines(unsafe_code, root, "//! A.\n#![forbid(unsafe_code)]\n").is_empty());
        }
        assert!(
            lines(unsafe_code, "agent/src/wal.rs", bare).is_empty(),
            "no root"
        );
        let commented = "//! A.\n// #![forbid(unsafe_code)]\n";
        assert_eq!(lines(unsafe_code, "agent/src/lib.rs", commented), [1]);
    }

    #[test]
    fn protocol_allows_unsafe_code_in_the_generated_module_alone() {
        let root = "protocol/src/lib.rs";
        let good = "//! A.\n#![deny(unsafe_code)]\n#[allow(unsafe_code)]\n#[path = \"x\"]\n\
                    mod generated;\n";
        assert!(lines(unsafe_code, root, good).is_empty());
        let other = good.replace("generated;", "fast;");
        assert_eq!(lines(unsafe_code, root, &other), [3]);
        let elsewhere = "//! A.\n#[allow(unsafe_code)]\nmod generated;\n";
        assert_eq!(lines(unsafe_code, "journal/src/disk.rs", elsewhere), [2]);
    }

    #[test]
    fn nothing_is_left_for_later() {
        for word in UNFINISHED_WORDS {
            let text = format!("//! A.\nfn f() {{}} // {word}: later\n");
            assert_eq!(lines(unfinished, "a/src/b.rs", &text), [2], "{word}");
        }
        let code = "//! A.\nfn f() {\n    todo!()\n}\nfn g() { unimplemented!(\"x\") }\n";
        assert_eq!(lines(unfinished, "a/src/b.rs", code), [3, 5]);
        let good = "//! A.\nconst A: &str = \"todo!\"; // todos are elsewhere\n";
        assert!(lines(unfinished, "a/src/b.rs", good).is_empty());
    }

    #[test]
    fn tests_are_not_ignored() {
        let bad = "//! A.\n#[test]\n#[ignore]\nfn a() {}\n#[ignore = \"slow\"]\nfn b() {}\n";
        assert_eq!(lines(ignored_tests, "a/tests/b.rs", bad), [3, 5]);
        assert!(lines(ignored_tests, "a/tests/b.rs", "//! A.\n// #[ignore]\n").is_empty());
    }

    #[test]
    fn tests_do_not_sleep() {
        let tail =
            "//! A.\nfn f() { sleep(1) }\n#[cfg(test)]\nmod tests {\n    fn t() { sleep(1) }\n}\n";
        assert_eq!(
            lines(sleeps_in_tests, "a/src/b.rs", tail),
            [5],
            "code may, tests may not"
        );
        let test = "//! A.\nfn t() { tokio::time::sleep(x).await }\n";
        assert_eq!(lines(sleeps_in_tests, "a/tests/b.rs", test), [2]);
        let lifted = "//! A.\n// tidy: sleep because the clock is paused\nfn t() { sleep(x) }\n";
        assert!(lines(sleeps_in_tests, "a/tests/b.rs", lifted).is_empty());
        assert!(lines(sleeps_in_tests, "a/tests/b.rs", "//! A.\nfn asleep() {}\n").is_empty());
    }

    #[test]
    fn getters_have_no_prefix() {
        assert_eq!(
            lines(getters, "a/src/b.rs", "//! A.\npub fn get_x() {}\n"),
            [2]
        );
        assert!(lines(getters, "a/src/b.rs", "//! A.\npub fn get(x: u8) {}\n").is_empty());
        assert!(
            lines(getters, "a/src/b.rs", "//! A.\nfn get_opts() {}\n").is_empty(),
            "a trait's"
        );
    }

    #[test]
    fn libraries_have_typed_errors() {
        let bad =
            "//! A.\nuse anyhow::Result;\n#[cfg(test)]\nmod tests {\n    use anyhow::Ok;\n}\n";
        assert_eq!(lines(anyhow_in_libraries, "agent/src/b.rs", bad), [2]);
        for path in ["agent/src/main.rs", "agent/tests/b.rs", "xtask/src/b.rs"] {
            assert!(lines(anyhow_in_libraries, path, bad).is_empty(), "{path}");
        }
    }

    #[test]
    fn the_tail_of_tests_begins_at_its_attribute() {
        let begin = |text| tests_begin(&Source::new("a/src/b.rs", text));
        let tail = "//! A.\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n}\n";
        assert_eq!(begin(tail), Some(2));
        assert_eq!(begin("//! A.\n#[cfg(test)]\nmod tests;\nfn f() {}\n"), None);
        assert_eq!(begin("//! A.\n#[cfg(test)]\nuse x;\nfn f() {}\n"), None);
    }
}
