//! Rules about how large files, functions and lines are, and what files are called.

use super::rust::{numbered, tests_begin};
use super::{Rule, Source, Violation};

/// Characters of a line.
const LINE_CHARS_MAX: usize = 100;
/// Lines of a file, without its tail of tests.
const FILE_LINES_MAX: usize = 600;
/// Lines of a file of tests: they are read one at a time.
const TEST_FILE_LINES_MAX: usize = 900;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a function of tests: what goes in and what comes out stand in it as tables.
const TEST_FUNCTION_LINES_MAX: usize = 100;
/// Names that say nothing.
const EMPTY_NAMES: [&str; 10] = [
    "utils", "util", "common", "base", "manager", "core", "helpers", "helper", "misc", "mod",
];

const LINE: Rule = Rule {
    name: "line",
    why: "at most 100 characters",
};
const FILE: Rule = Rule {
    name: "file",
    why: "at most 600 lines without tests, 900 of tests: split by what it decides",
};
const FUNCTION: Rule = Rule {
    name: "function",
    why: "at most 70 lines, 100 in tests: split into named decisions",
};
const NAME: Rule = Rule {
    name: "name",
    why: "name what it is; `foo.rs` + `foo/` instead of mod.rs",
};

/// No line of Rust is too long. A string that holds one long word, such as a hash, may be lifted.
pub fn long_lines(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_rust() || source.is_generated() {
        return Vec::new();
    }
    numbered(source.text)
        .map(|(number, line)| (number, line.chars().count()))
        .filter(|(_, chars)| *chars > LINE_CHARS_MAX)
        .filter_map(|(number, chars)| source.at(number, format!("{chars} characters"), LINE))
        .collect()
}

/// No file is too long.
pub fn long_files(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_rust() || source.is_generated() {
        return Vec::new();
    }
    let all = source.text.lines().count();
    let (lines, most) = if source.is_test() {
        (all, TEST_FILE_LINES_MAX)
    } else {
        (
            tests_begin(source).map_or(all, |begin| begin - 1),
            FILE_LINES_MAX,
        )
    };
    let violation = (lines > most).then(|| source.whole(format!("{lines} lines"), FILE));
    violation.flatten().into_iter().collect()
}

/// No function is too long.
pub fn long_functions(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_rust() || source.is_generated() {
        return Vec::new();
    }
    let tests = if source.is_test() {
        Some(1)
    } else {
        tests_begin(source)
    };
    let most = |function: &Function<'_>| match tests {
        Some(begin) if function.line >= begin => TEST_FUNCTION_LINES_MAX,
        _ => FUNCTION_LINES_MAX,
    };
    functions(&source.masked.code)
        .into_iter()
        .filter(|function| function.lines > most(function))
        .filter_map(|Function { name, line, lines }| {
            source.at(line, format!("`{name}` has {lines} lines"), FUNCTION)
        })
        .collect()
}

/// No file or folder has a name that says nothing.
pub fn names(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_rust() {
        return Vec::new();
    }
    let parts = source
        .path
        .split('/')
        .map(|part| part.trim_end_matches(".rs"));
    let empty = parts.filter(|part| EMPTY_NAMES.contains(part));
    empty
        .filter_map(|part| source.whole(format!("`{part}`"), NAME))
        .collect()
}

#[derive(PartialEq, Eq, Debug)]
struct Function<'a> {
    name: &'a str,
    line: usize,
    lines: usize,
}

/// Every function that has a body.
fn functions(code: &str) -> Vec<Function<'_>> {
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code.get(..at).unwrap_or_default();
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let behind = code.get(at + 3..).unwrap_or_default();
        let end = behind
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(0);
        let name = behind.get(..end).unwrap_or_default();
        if let Some(body_end) = body_end(behind).filter(|_| !name.is_empty()) {
            let line = 1 + before.matches('\n').count();
            let body = behind.get(..body_end).unwrap_or_default();
            functions.push(Function {
                name,
                line,
                lines: 1 + body.matches('\n').count(),
            });
        }
    }
    functions
}

/// Where the body ends of the function whose name `code` begins with; `None` without one.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut others) = (0usize, 0usize);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others = others.saturating_sub(1),
            '{' => braces += 1,
            '}' if braces <= 1 => return (braces == 1).then_some(at),
            '}' => braces -= 1,
            ';' if braces == 0 && others == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(rule: super::super::FileRule, path: &str, text: &str) -> usize {
        rule(&Source::new(path, text)).len()
    }

    #[test]
    fn lines_have_at_most_100_characters() {
        let text = |chars: usize| format!("//! A.\n//{}\n", "ä".repeat(chars - 2));
        assert_eq!(count(long_lines, "a/src/b.rs", &text(101)), 1);
        assert_eq!(count(long_lines, "a/src/b.rs", &text(100)), 0);
        assert_eq!(count(long_lines, "README.md", &text(101)), 0);
    }

    #[test]
    fn files_have_at_most_600_lines_without_tests() {
        let body = |lines| "fn f() {}\n".repeat(lines);
        assert_eq!(count(long_files, "a/src/b.rs", &body(601)), 1);
        let tail = body(600) + "#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(count(long_files, "a/src/b.rs", &tail), 0);
        assert_eq!(count(long_files, "a/tests/b.rs", &body(900)), 0);
        assert_eq!(count(long_files, "a/tests/b.rs", &body(901)), 1);
        assert_eq!(
            count(long_files, "protocol/src/generated/b.rs", &body(901)),
            0
        );
    }

    #[test]
    fn functions_have_at_most_70_lines() {
        let function = |lines: usize| format!("fn f() {{\n{}}}\n", "    a();\n".repeat(lines - 2));
        assert_eq!(count(long_functions, "a/src/b.rs", &function(71)), 1);
        assert_eq!(count(long_functions, "a/src/b.rs", &function(70)), 0);
        let tail = |lines| format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(lines));
        assert_eq!(count(long_functions, "a/src/b.rs", &tail(100)), 0);
        assert_eq!(count(long_functions, "a/src/b.rs", &tail(101)), 1);
        assert_eq!(count(long_functions, "a/tests/b.rs", &function(101)), 1);
    }

    #[test]
    fn functions_are_found_whatever_stands_in_them() {
        let code = "trait T {\n fn none(a: [u8; 4]) -> u8;\n fn some(f: fn(u8)) {\n  if x {\n\
                    }\n }\n}\nfn last<const N: usize>() -> [u8; N] { a() }\n";
        let found = functions(code);
        let expected = [("some", 3, 4), ("last", 8, 1)];
        let expected = expected.map(|(name, line, lines)| Function { name, line, lines });
        assert_eq!(found, expected);
    }

    #[test]
    fn names_say_something() {
        for path in [
            "a/src/utils.rs",
            "a/src/b/mod.rs",
            "a/src/common/b.rs",
            "core/src/lib.rs",
        ] {
            assert_eq!(count(names, path, "//! A.\n"), 1, "{path}");
        }
        assert_eq!(count(names, "a/src/basement.rs", "//! A.\n"), 0);
        let lifted = "//! A.\n// tidy: name because the norm calls it so\n";
        assert_eq!(count(names, "a/src/base.rs", lifted), 0);
    }
}
