//! Where the programs of this workspace are, as built for the profile that the tests run in.
//!
//! `cargo test --workspace` builds them; `cargo test -p tributary-tests` does not, and cargo knows
//! of no dependency on another package's program. So what is missing, or older than a source that
//! went into it, is built here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// (program, package) of everything that tests start.
const PROGRAMS: [(&str, &str); 4] = [
    ("tributary-agent", "tributary-agent"),
    ("tributary-aggregator", "tributary-aggregator"),
    ("tributary", "tributary"),
    ("tributary-sim", "tributary-sim"),
];

/// The folder of the profile: `target/debug`, when nothing else is asked for.
fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let folder = test.parent().expect("it lies in a folder");
    match folder.ends_with("deps") {
        true => folder.parent().expect("which lies in the profile's"),
        // A program, not a test.
        false => folder,
    }
    .to_owned()
}

/// A folder for what tests write, on a real file system.
///
/// # Panics
/// Where an fdatasync proves nothing.
pub fn scratch(name: &str) -> tempfile::TempDir {
    let target = profile_dir();
    let target = target.parent().expect("the target folder");
    let made = tributary_ground::scratch(&target.join("tmp"), &format!("{name}-"));
    made.unwrap_or_else(|why| panic!("{why}"))
}

/// The program called `name`, built if need be.
///
/// # Panics
/// When it can't be built.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let dir = profile_dir();
    BUILT.get_or_init(|| build_missing(&dir));
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is not there, even after a build",
        path.display()
    );
    path
}

fn build_missing(dir: &Path) {
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !is_fresh(&dir.join(program)))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return;
    }
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--bins", "--locked", "--profile", profile]);
    build
        .arg("--target-dir")
        .arg(dir.parent().expect("the target folder"));
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for package in &missing {
        build.args(["-p", package]);
    }
    let status = build.status().expect("cargo can be started");
    assert!(status.success(), "building {missing:?}: {status}");
}

/// Whether a program is there, and none of the sources that cargo lists beside it is newer.
fn is_fresh(program: &Path) -> bool {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|file| file.modified());
    let Ok(built) = modified(program) else {
        return false;
    };
    let Ok(listed) = std::fs::read_to_string(program.with_extension("d")) else {
        return false;
    };
    let is_older =
        |source: &str| modified(Path::new(source)).is_ok_and(|time: SystemTime| time <= built);
    let sources = listed.split_once(": ").map_or("", |(_, sources)| sources);
    // Spaces within names are written `\ `.
    let sources = sources.trim().replace("\\ ", "\0");
    sources
        .split(' ')
        .all(|source| is_older(&source.replace('\0', " ")))
}
