//! Rules about metrics: each that a program's source names is told in its `measured.rs`, with its
//! kind and its unit, under a name as Prometheus wants it; and each that is told there is one.

use super::rust::numbered;
use super::tree::File;
use super::{Rule, Source, Violation};
use std::collections::BTreeMap;

/// The programs that have metrics.
const PROGRAMS: [&str; 2] = ["agent", "aggregator"];
/// The macros that name one, and the tables in which it is told.
const KINDS: [(&str, &str); 3] = [
    ("counter", "pub const COUNTERS"),
    ("gauge", "pub const GAUGES"),
    ("histogram", "pub const HISTOGRAMS"),
];
/// Units that are not Prometheus's base units.
const UNITS: [&str; 7] = ["_ms", "_us", "_ns", "_milliseconds", "_kb", "_mb", "_mib"];

const MEASURED: Rule = Rule {
    name: "measured",
    why: "each metric is told in measured.rs, in the table of its kind, and named in the source",
};
const METRIC_NAME: Rule = Rule {
    name: "metric-name",
    why: "names and help are as Prometheus wants them, the unit in both",
};

/// Every violation of these rules.
pub fn check(files: &[File]) -> Vec<Violation> {
    let of = |program| of_program(program, files);
    PROGRAMS.into_iter().flat_map(of).collect()
}

fn of_program(program: &str, files: &[File]) -> Vec<Violation> {
    let list = format!("{program}/src/measured.rs");
    let Some(list) = files.iter().find(|file| file.path == list) else {
        return Vec::new();
    };
    let list = list.source();
    let told = told(&list);
    let mut violations: Vec<Violation> = told
        .iter()
        .flat_map(|metric| wrong(metric).map(|what| list.at(metric.line, what, METRIC_NAME)))
        .flatten()
        .collect();
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    for Told {
        line, name, kind, ..
    } in &told
    {
        if kinds.insert(name, kind).is_some() {
            violations.extend(list.at(*line, format!("`{name}` is told twice"), MEASURED));
        }
    }
    let mut met: Vec<String> = Vec::new();
    let below = format!("{program}/src/");
    let rust = files.iter().filter(|file| file.path.starts_with(&below));
    for file in rust.filter(|file| file.path.ends_with(".rs")) {
        let source = file.source();
        if source.is_test() || source.path == list.path {
            continue;
        }
        for (line, name, kind) in named(&source, program) {
            let what = match kinds.get(&*name) {
                Some(known) if *known == kind => None,
                Some(known) => Some(format!("`{name}` is told as a {known}, and is a {kind}")),
                None => Some(format!("`{name}` is told nowhere")),
            };
            violations.extend(what.and_then(|what| source.at(line, what, MEASURED)));
            met.push(name);
        }
    }
    let unmet = told.iter().filter(|metric| !met.contains(&metric.name));
    violations.extend(unmet.filter_map(|metric| {
        let what = format!("`{}` is named nowhere", metric.name);
        list.at(metric.line, what, MEASURED)
    }));
    violations
}

/// A metric as it is told.
struct Told {
    line: usize,
    name: String,
    help: String,
    kind: &'static str,
}

/// What the tables tell.
fn told(list: &Source<'_>) -> Vec<Told> {
    let mut told = Vec::new();
    for (kind, table) in KINDS {
        let Some(at) = list.text.find(table) else {
            continue;
        };
        let rest = list.text.get(at..).unwrap_or_default();
        let table = rest.split("];").next().unwrap_or_default();
        let first = list
            .text
            .get(..at)
            .unwrap_or_default()
            .matches('\n')
            .count()
            + 1;
        let mut texts = literals(table).into_iter();
        while let (Some((line, name)), Some((_, help))) = (texts.next(), texts.next()) {
            told.push(Told {
                line: first + line,
                name,
                help,
                kind,
            });
        }
    }
    told
}

/// The strings in `text`, each with how many lines stand before it. Escapes stay as they are.
fn literals(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let mut escaped = false;
    for (line, text) in (0..).zip(text.split_inclusive('\n')) {
        if open.is_none() && text.trim_start().starts_with("//") {
            continue;
        }
        for c in text.chars() {
            match open.take() {
                None if c == '"' => open = Some((line, String::new())),
                None => {}
                Some(done) if c == '"' && !escaped => found.push(done),
                Some((line, mut text)) => {
                    text.push(c);
                    escaped = c == '\\' && !escaped;
                    open = Some((line, text));
                }
            }
        }
    }
    found
}

/// The metrics that a file names before its tests, each with the macro before it.
fn named(source: &Source<'_>, program: &str) -> Vec<(usize, String, &'static str)> {
    let text = source.text.split("#[cfg(test)]").next().unwrap_or_default();
    let begin = format!("\"tributary_{program}_");
    let mut kind = KINDS[0].0;
    let mut found = Vec::new();
    for (line, text) in numbered(text) {
        let mut rest = text;
        loop {
            let at = rest.find('"').unwrap_or(rest.len());
            let (before, behind) = rest.split_at_checked(at).unwrap_or((rest, ""));
            let macros = KINDS.iter().filter_map(|(kind, _)| {
                let at = before.rfind(&format!("{kind}!("))?;
                Some((at, *kind))
            });
            kind = macros.max().map_or(kind, |(_, kind)| kind);
            if behind.is_empty() {
                break;
            }
            let inside = behind.get(1..).unwrap_or_default();
            let name = inside.split('"').next().unwrap_or_default();
            if behind.starts_with(&begin) {
                found.push((line, name.to_owned(), kind));
            }
            rest = inside.get(name.len() + 1..).unwrap_or_default();
        }
    }
    found
}

/// What is wrong with a metric's name or help.
fn wrong(metric: &Told) -> impl Iterator<Item = String> {
    let Told {
        name, help, kind, ..
    } = metric;
    let base = name.trim_end_matches("_total");
    let is_named = name
        .bytes()
        .all(|byte| byte == b'_' || byte.is_ascii_lowercase());
    let says_unit = (!name.ends_with("_seconds") || help.contains("seconds"))
        && (!base.ends_with("_bytes") || help.contains("Bytes"));
    let rules = [
        (
            name.ends_with("_total") == (*kind == "counter"),
            "counters alone end in `_total`",
        ),
        (is_named, "lower case and `_` alone"),
        (
            !UNITS.iter().any(|unit| base.ends_with(unit)),
            "seconds and bytes are the units",
        ),
        (
            help.ends_with('.') && !help.contains(['\n', '\\']),
            "its help is a sentence, on a line",
        ),
        (says_unit, "its help says its unit"),
    ];
    let broken = rules.into_iter().filter(|(holds, _)| !holds);
    broken.map(move |(_, rule)| format!("`{name}`: {rule}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "//! A.\npub const COUNTERS: &[(&str, &str)] = &[\n    (\n        \
                        \"tributary_agent_a_total\",\n        // Why.\n        \"What.\",\n    \
                        ),\n    (\"tributary_agent_b_bytes_total\", \"Bytes of b.\"),\n];\n\
                        pub const GAUGES: &[(&str, &str)] = &[];\n\
                        pub const HISTOGRAMS: &[(&str, &str)] = \
                        &[(\"tributary_agent_c_seconds\", \"In seconds.\")];\n";
    const USED: &str = "//! B.\nfn f() {\n    metrics::counter!(\"tributary_agent_a_total\", \
                        \"x\" => \"y\");\n    counter!(\n        \
                        \"tributary_agent_b_bytes_total\"\n    );\n    \
                        histogram!(\"tributary_agent_c_seconds\");\n}\n\
                        #[cfg(test)]\nconst T: &str = \"tributary_agent_of_a_test\";\n";

    fn found(told: &str, used: &str) -> Vec<String> {
        let file = |path: &str, text: &str| File::new(path.into(), text.into());
        let files = [
            file("agent/src/measured.rs", told),
            file("agent/src/b.rs", used),
            file(
                "agent/src/b/tests.rs",
                "//! T.\n\"tributary_agent_in_tests\"\n",
            ),
            file("agent/Cargo.toml", "\"tributary_agent_manifest\""),
        ];
        let found = check(&files).into_iter();
        found
            .map(|it| format!("{}:{} {}", it.path, it.line, it.what))
            .collect()
    }

    #[test]
    fn what_is_told_and_what_is_named_are_the_same() {
        assert_eq!(found(TOLD, USED), Vec::<String>::new());
    }

    #[test]
    fn what_is_named_and_not_told_is_found_where_it_is_named() {
        let more = USED.replace("fn f() {", "fn f() {\n    gauge!(\"tributary_agent_d\");");
        let expected = "agent/src/b.rs:3 `tributary_agent_d` is told nowhere";
        assert_eq!(found(TOLD, &more), [expected]);
    }

    #[test]
    fn what_is_told_and_not_named_is_found_where_it_is_told() {
        let less = USED.replace("tributary_agent_b_bytes_total", "other");
        let expected = "agent/src/measured.rs:8 `tributary_agent_b_bytes_total` is named nowhere";
        assert_eq!(found(TOLD, &less), [expected]);
    }

    #[test]
    fn the_kind_is_that_of_the_table_and_nothing_is_told_twice() {
        let gauge = USED.replace("metrics::counter!", "metrics::gauge!");
        let expected =
            "agent/src/b.rs:3 `tributary_agent_a_total` is told as a counter, and is a gauge";
        assert_eq!(found(TOLD, &gauge)[0], expected);
        let one = "(\"tributary_agent_c_seconds\", \"In seconds.\")";
        let twice = TOLD.replace(one, &format!("{one}, {one}"));
        assert!(found(&twice, USED)[0].ends_with("is told twice"));
    }

    #[test]
    fn names_and_help_are_as_prometheus_wants_them() {
        for (name, help) in [
            ("tributary_agent_c_ms", "In milliseconds."),
            ("tributary_agent_c_total", "It."),
            ("tributary_agent_C", "It."),
            ("tributary_agent_c_seconds", "How long."),
            ("tributary_agent_c_bytes", "How many."),
            ("tributary_agent_c", "no sentence"),
            ("tributary_agent_c", "Two\\nlines."),
        ] {
            let other = format!("\"{name}\", \"{help}\"");
            let told = TOLD.replace("\"tributary_agent_c_seconds\", \"In seconds.\"", &other);
            let used = USED.replace("tributary_agent_c_seconds", name);
            let found = found(&told, &used);
            assert_eq!(found.len(), 1, "{name} {help}: {found:?}");
            assert!(found[0].contains(&format!("`{name}`: ")), "{found:?}");
        }
    }
}
