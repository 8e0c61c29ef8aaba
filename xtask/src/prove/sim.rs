//! `cargo xtask prove sim`: each profile of the simulation with fresh seeds, on all cores.

use super::last_line;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;

/// How many, and which.
#[derive(clap::Args)]
pub struct Arguments {
    /// Seeds of each profile
    #[arg(long, default_value_t = 12_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
}

impl Arguments {
    /// The command that they stand for.
    pub fn command(&self) -> String {
        let Self { seeds, from } = self;
        format!("cargo xtask prove sim --seeds {seeds} --from {from}")
    }
}

/// Runs them; ends at the first seed that does not hold. What came of each profile.
pub fn run(root: &Path, arguments: &Arguments) -> Result<Vec<Value>> {
    let (seeds, from) = (arguments.seeds.to_string(), arguments.from.to_string());
    let mut command = vec![
        "run",
        "--profile",
        "sim",
        "--quiet",
        "-p",
        "tributary-world",
    ];
    command.extend(["--bin", "sim", "--", "--table", &seeds, "--from", &from]);
    let figures = last_line(root, &command)?;
    let rows = figures.as_array().context("the last line is no list")?;
    ensure!(!rows.is_empty(), "nothing was run");
    Ok(rows.clone())
}
