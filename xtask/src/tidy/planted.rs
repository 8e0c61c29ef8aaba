//! Rules about planted bugs (tests/planted): each has a site, no site stands in a place that is not
//! the product's, and only the simulation may switch them on.

use super::rust::numbered;
use super::tree::File;
use super::{Rule, Violation};

/// Where they are named.
const LIST: &str = "tests/planted/src/lib.rs";
/// The programs that look for them.
const RUNNERS: [&str; 4] = [
    "tests/sim/src/bin/planted.rs",
    "tests/model/src/bin/planted.rs",
    "tests/turmoil/src/bin/planted.rs",
    "tests/whole/src/bin/planted_whole.rs",
];
/// The manifests that may switch them on.
const SIMULATIONS: [&str; 4] = [
    "tests/sim/Cargo.toml",
    "tests/model/Cargo.toml",
    "tests/turmoil/Cargo.toml",
    "tests/whole/Cargo.toml",
];
const PACKAGE: &str = "tributary-planted";
/// Crates of which a planted bug is a bug.
const PRODUCT: [&str; 5] = ["protocol/", "journal/", "uplink/", "agent/", "aggregator/"];

const PLANTED: Rule = Rule {
    name: "planted",
    why: "a planted bug is named in tests/planted and has its sites in the product",
};
const SWITCH: Rule = Rule {
    name: "planted-switch",
    why: "only what simulates switches planted bugs on, behind a feature, not by default",
};

/// Every violation of these rules.
pub fn check(files: &[File]) -> Vec<Violation> {
    let mut violations = sites(files);
    violations.extend(unsought(files));
    violations.extend(
        files
            .iter()
            .filter(|file| is_manifest(file))
            .flat_map(switch),
    );
    violations
}

fn is_manifest(file: &File) -> bool {
    file.path == "Cargo.toml" || file.path.ends_with("/Cargo.toml")
}

/// The names in the list, each on a line of its own with a comma, with their lines.
fn listed(list: &File) -> Vec<(usize, String)> {
    let source = list.source();
    let inside = numbered(&source.masked.code)
        .skip_while(|(_, line)| !line.starts_with("bugs! {"))
        .skip(1)
        .take_while(|(_, line)| !line.starts_with('}'));
    let names = inside.filter_map(|(line, text)| Some((line, text.trim().strip_suffix(',')?)));
    names.map(|(line, name)| (line, name.to_owned())).collect()
}

/// What `planted!(…)` names in a line.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let calls = line.split("planted!(").skip(1);
    calls.filter_map(|behind| behind.split(')').next())
}

/// Each name has a site, and no site stands elsewhere.
fn sites(files: &[File]) -> Vec<Violation> {
    let Some(list) = files.iter().find(|file| file.path == LIST) else {
        return Vec::new();
    };
    let listed = listed(list);
    let mut met = Vec::new();
    let mut violations = Vec::new();
    let rust = files.iter().filter(|file| file.path.ends_with(".rs"));
    for file in rust.filter(|file| file.path != LIST && !file.path.starts_with("xtask/")) {
        let source = file.source();
        let in_place = !source.is_test() && PRODUCT.iter().any(|of| file.path.starts_with(of));
        for (line, text) in numbered(&source.masked.code) {
            for name in named(text) {
                met.push(name.to_owned());
                let known = listed.iter().any(|(_, listed)| listed == name);
                if !in_place || !known {
                    violations.extend(source.at(line, format!("`planted!({name})`"), PLANTED));
                }
            }
        }
    }
    let without = listed.iter().filter(|(_, name)| !met.contains(name));
    violations.extend(without.filter_map(|(line, name)| {
        let what = format!("`{name}` has no site");
        list.source().at(*line, what, PLANTED)
    }));
    violations
}

/// Each name is one that a program looks for.
fn unsought(files: &[File]) -> Vec<Violation> {
    let Some(list) = files.iter().find(|file| file.path == LIST) else {
        return Vec::new();
    };
    // Those of the whole are looked for because the list itself says so.
    let sought = |name: &str| {
        let of_list = [format!("Self::{name},")];
        let of_runner = [" ", ",", "\n", ")"].map(|behind| format!("Bug::{name}{behind}"));
        files.iter().any(|file| match &*file.path {
            LIST => of_list
                .iter()
                .any(|it| file.source().masked.code.contains(&**it)),
            path if RUNNERS.contains(&path) => of_runner
                .iter()
                .any(|it| file.source().masked.code.contains(&**it)),
            _ => false,
        })
    };
    let listed = listed(list).into_iter();
    let unsought = listed.filter(|(_, name)| !sought(name));
    unsought
        .filter_map(|(line, name)| {
            let what = format!("`{name}`: no program looks for it");
            list.source().at(line, what, PLANTED)
        })
        .collect()
}

/// No manifest gives the package a feature.
fn switch(manifest: &File) -> Vec<Violation> {
    let source = manifest.source();
    let lines = numbered(source.text).filter(|(_, line)| line.contains(PACKAGE));
    let bad = lines.filter(|(_, line)| {
        let on = line.contains("features") || line.contains("tributary-planted/");
        let in_simulation =
            SIMULATIONS.contains(&&*manifest.path) && line.starts_with("planted = [");
        on && !in_simulation
    });
    let defaults = numbered(source.text).filter(|(_, line)| {
        SIMULATIONS.contains(&&*manifest.path)
            && line.starts_with("default = ")
            && line.contains("planted")
    });
    bad.chain(defaults)
        .filter_map(|(line, text)| source.at(line, format!("`{}`", text.trim()), SWITCH))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(list: &[(&str, &str)]) -> Vec<String> {
        let file = |(path, text): &(&str, &str)| File::new((*path).into(), (*text).into());
        let files: Vec<File> = list.iter().map(file).collect();
        let found = check(&files).into_iter();
        found
            .map(|it| format!("{}:{} {}", it.path, it.line, it.what))
            .collect()
    }

    const NAMES: (&str, &str) = (
        LIST,
        "//! A.\nbugs! {\n    /// Wrong.\n    OneBug,\n}\nconst OF: &[Bug] = &[Self::OneBug,];\n",
    );

    #[test]
    fn every_bug_is_looked_for() {
        let list = (LIST, "//! A.\nbugs! {\n    /// Wrong.\n    OneBug,\n}\n");
        let site = (
            "agent/src/a.rs",
            "//! L.\nfn f() {\n    if planted!(OneBug) {}\n}\n",
        );
        let missed = found(&[list, site]);
        assert_eq!(
            missed,
            [format!("{LIST}:4 `OneBug`: no program looks for it")]
        );
        let runner = "//! L.\nfn f() {\n    match bug { Bug::OneBug => 1 }\n}\n";
        assert!(found(&[list, site, (RUNNERS[0], runner)]).is_empty());
        let another = runner.replace("OneBug", "OneBugMore");
        assert_eq!(found(&[list, site, (RUNNERS[0], &another)]).len(), 1);
    }

    #[test]
    fn every_bug_has_a_site_in_the_product() {
        let site = "//! L.\nfn f() {\n    if planted!(OneBug) {}\n}\n";
        assert!(found(&[NAMES, ("protocol/src/ledger.rs", site)]).is_empty());
        let missing = found(&[NAMES, ("protocol/src/ledger.rs", "//! L.\n")]);
        assert_eq!(missing, [format!("{LIST}:4 `OneBug` has no site")]);
        let commented = "//! L.\n// if planted!(OneBug) {}\n";
        assert_eq!(found(&[NAMES, ("agent/src/a.rs", commented)]).len(), 1);
        for elsewhere in [
            "tests/sim/src/a.rs",
            "agent/tests/a.rs",
            "firmware-sim/src/a.rs",
        ] {
            let found = found(&[NAMES, (elsewhere, site)]);
            assert_eq!(found, [format!("{elsewhere}:3 `planted!(OneBug)`")]);
        }
        let unknown = site.replace("OneBug", "Another");
        let both = [
            NAMES,
            ("agent/src/a.rs", site),
            ("agent/src/b.rs", &unknown),
        ];
        assert_eq!(found(&both), ["agent/src/b.rs:3 `planted!(Another)`"]);
    }

    #[test]
    fn only_the_simulations_switch_them_on() {
        let plain = "[dependencies]\ntributary-planted.workspace = true\n";
        assert!(found(&[("agent/Cargo.toml", plain)]).is_empty());
        let on = "[dependencies]\ntributary-planted = { workspace = true, features = [\"on\"] }\n";
        assert_eq!(found(&[("agent/Cargo.toml", on)]).len(), 1);
        let behind = "[features]\nplanted = [\"tributary-planted/on\"]\n";
        for simulation in SIMULATIONS {
            assert_eq!(found(&[(simulation, on)]).len(), 1, "always on is too much");
            assert!(found(&[(simulation, behind)]).is_empty());
        }
        assert_eq!(found(&[("uplink/Cargo.toml", behind)]).len(), 1);
        let default = "[features]\ndefault = [\"planted\"]\n";
        assert_eq!(found(&[(SIMULATIONS[0], default)]).len(), 1);
    }
}
