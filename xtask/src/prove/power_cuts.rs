//! `cargo xtask prove power-cuts`: runs the program `power_cuts` of the crate of tests, in release.

use super::last_line;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::Path;

/// How many, and which.
#[derive(clap::Args)]
pub struct Arguments {
    /// Power cuts that are replayed from one recording
    #[arg(long, default_value_t = 540)]
    cuts: u64,
    /// Where they come, and which bits are flipped
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Arguments {
    /// The command that they stand for.
    pub fn command(&self) -> String {
        let Self { cuts, seed } = self;
        format!("cargo xtask prove power-cuts --cuts {cuts} --seed {seed}")
    }
}

/// Records a run and cuts it; then flips bits, and has calls fail. Gives a row for each fault.
pub fn run(root: &Path, arguments: &Arguments) -> Result<Vec<Value>> {
    let (cuts, seed) = (arguments.cuts.to_string(), arguments.seed.to_string());
    let mut command = vec!["run", "--release", "--quiet", "-p", "tributary-tests"];
    command.extend(["--bin", "power_cuts", "--", &cuts, &seed]);
    let figures = last_line(root, &command)?;
    let rows = figures.as_array().context("the last line is no list")?;
    Ok(rows.clone())
}
