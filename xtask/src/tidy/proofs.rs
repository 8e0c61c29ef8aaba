//! A rule about docs/exactly-once.md: each row of its tables that promises names a test, or says
//! that there is none yet, and every test that is named is where the link leads. Whether the test
//! shows it, people judge.

use super::rust::numbered;
use super::tree::File;
use super::{Rule, Violation};

const DOCUMENT: &str = "docs/exactly-once.md";
/// The heading of a table's last column.
const SHOWN_BY: &str = "| shown by |";
const NOT_YET: &str = "| not yet |";

const PROOF: Rule = Rule {
    name: "proof",
    why: "a row that promises links to its tests as [`name`](../file.rs), or says `not yet`",
};

/// Every row without a test, and every test that is not in the file behind its link.
pub fn check(files: &[File]) -> Vec<Violation> {
    let at = |line, what| Violation {
        path: DOCUMENT.to_owned(),
        line,
        what,
        why: PROOF.why,
        rule: PROOF.name,
    };
    let Some(text) = text_of(files, DOCUMENT) else {
        return vec![at(1, "is not there".to_owned())];
    };
    let mut violations = Vec::new();
    let mut promises = false;
    for (number, line) in numbered(text) {
        let line = line.trim_end();
        match line {
            _ if !line.starts_with('|') => promises = false,
            _ if line.ends_with(SHOWN_BY) => promises = true,
            _ if !promises || line.starts_with("|---") => {}
            _ if links(line).next().is_none() && !line.ends_with(NOT_YET) => {
                violations.push(at(number, "no test".to_owned()));
            }
            _ => {}
        }
        for (name, path) in links(line) {
            let path = path.strip_prefix("../").unwrap_or(path);
            if !text_of(files, path).is_some_and(|text| has_test(text, name)) {
                violations.push(at(number, format!("no test `{name}` in {path}")));
            }
        }
    }
    violations
}

fn text_of<'a>(files: &'a [File], path: &str) -> Option<&'a str> {
    files.iter().find(|file| file.path == path)?.text()
}

/// Whether a test of that name is there: its attribute stands right above, or it is one of
/// `proptest!`, where a comment may stand between.
fn has_test(text: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("async ").or(Some(line))
            && rest.starts_with("fn ")
        {
            if is_test && rest.starts_with(&head) {
                return true;
            }
            is_test = false;
        }
    }
    false
}

/// The tests of a line, and the files in which they should be.
fn links(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split("[`").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once("`](")?;
        let (path, _) = rest.split_once(')')?;
        path.ends_with(".rs").then_some((name, path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(document: &str) -> Vec<(usize, String)> {
        let file = |path: &str, text: &str| File::new(path.to_owned(), text.into());
        let files = [
            file(DOCUMENT, document),
            file(
                "a/tests.rs",
                "#[test]\nfn it_holds() {}\nfn it_helps() {}\n#[tokio::test]\n\
                 async fn it_waits() {}\n",
            ),
        ];
        let violations = check(&files).into_iter();
        violations.map(|found| (found.line, found.what)).collect()
    }

    #[test]
    fn a_promise_names_a_test_that_is_there() {
        let head = "| fault | shown by |\n|---|---|\n";
        let good = format!("{head}| a | [`it_holds`](../a/tests.rs) |\n| b | not yet |\n");
        assert_eq!(found(&good), []);
        let bare = format!("{head}| a | trust us |\n");
        assert_eq!(found(&bare), [(3, "no test".to_owned())]);
        let gone = format!("{head}| a | [`it_held`](../a/tests.rs) |\n");
        let what = "no test `it_held` in a/tests.rs".to_owned();
        assert_eq!(found(&gone), [(3, what)]);
        let helper = format!("{head}| a | [`it_helps`](../a/tests.rs) |\n");
        assert_eq!(found(&helper).len(), 1);
        let waits = format!("{head}| a | [`it_waits`](../a/tests.rs) |\n");
        assert_eq!(found(&waits), []);
        let elsewhere = format!("{head}| not yet | trust us |\n");
        assert_eq!(found(&elsewhere).len(), 1, "in another column");
        assert_eq!(check(&[]).len(), 1, "the document is gone");
        let other = "| word | meaning |\n|---|---|\n| a | b |\n";
        assert_eq!(found(other), [], "a table that promises nothing");
        assert_eq!(found("[`it_holds`](../b.rs)\n").len(), 1, "outside of one");
    }
}
