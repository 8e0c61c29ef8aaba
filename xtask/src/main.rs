//! The project's own chores, so that nobody remembers command lines: `tidy`, `codegen`, `results`,
//! `prove`, `services`.
//!
//! `cargo xtask <chore>` runs one. No other crate needs it, and no user's build does.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod codegen;
mod prove;
mod results;
mod services;
mod tidy;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Tributary's chores.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Checks what of the house style a machine can hold; lists every violation.
    Tidy,
    /// Makes protocol/src/generated from protocol/schema with flatc.
    Codegen(codegen::Arguments),
    /// Runs the benches in release and writes benches/RESULTS.md.
    Results(results::Arguments),
    /// Runs what takes too long for a test, and keeps its figures in benches/RESULTS.md.
    Prove(prove::Arguments),
    /// Starts and ends what the tests of sinks need: PostgreSQL, Redis, Kafka.
    Services(services::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Tidy => tidy::run(root()),
        Chore::Codegen(arguments) => codegen::run(root(), &arguments).map(|()| true),
        Chore::Results(arguments) => results::run(root(), &arguments).map(|()| true),
        Chore::Prove(arguments) => prove::run(root(), &arguments).map(|()| true),
        Chore::Services(arguments) => services::run(root(), &arguments).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

/// The workspace: the folder above this crate.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the crate lies in a workspace")
}

/// What a command prints, without the last line end.
fn output(program: &Path, arguments: &[&str], dir: &Path) -> Result<String> {
    let shown = || format!("{} {}", program.display(), arguments.join(" "));
    let output = std::process::Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .output()
        .with_context(|| format!("running {}", shown()))?;
    anyhow::ensure!(
        output.status.success(),
        "{}: {}: {}",
        shown(),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    let text = String::from_utf8(output.stdout)
        .with_context(|| format!("{} printed what is no text", shown()))?;
    Ok(text.trim_end().to_owned())
}

/// The files that git holds or would take: paths from `root`, sorted.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let git = Path::new("git");
    let listed = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let text = output(git, &listed, root)?;
    let mut files: Vec<PathBuf> = text.split_terminator('\0').map(PathBuf::from).collect();
    files.sort();
    files.dedup();
    // What is deleted but not yet committed is still in git's list.
    files.retain(|file| root.join(file).is_file());
    Ok(files)
}
