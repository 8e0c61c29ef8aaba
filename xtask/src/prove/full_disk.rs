//! `cargo xtask prove full-disk`: runs the program `full_disk` of the crate of tests, in release.

use super::last_line;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;

/// How long, and which.
#[derive(clap::Args)]
pub struct Arguments {
    /// Seconds that the disk stays full, for each policy
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Only policies whose names hold this
    #[arg(long, default_value = "")]
    only: String,
}

impl Arguments {
    /// The command that they stand for.
    pub fn command(&self) -> String {
        let only = match self.only.as_str() {
            "" => String::new(),
            only => format!(" --only {only}"),
        };
        format!(
            "cargo xtask prove full-disk --seconds {}{only}",
            self.seconds
        )
    }
}

/// Runs them one after the other: each has 10,000 readings a second to take. A row for each.
pub fn run(root: &Path, arguments: &Arguments) -> Result<Vec<Value>> {
    let seconds = arguments.seconds.to_string();
    let mut command = vec!["run", "--release", "--quiet", "-p", "tributary-tests"];
    command.extend(["--bin", "full_disk", "--", &seconds, &arguments.only]);
    let figures = last_line(root, &command)?;
    let rows = figures.as_array().context("the last line is no list")?;
    ensure!(!rows.is_empty(), "no policy is called like that");
    Ok(rows.clone())
}
