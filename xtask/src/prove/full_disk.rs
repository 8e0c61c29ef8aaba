//! `cargo xtask prove full-disk`: runs the program `full_disk` of the crate of tests, in release.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

/// How long, and which.
#[derive(clap::Args)]
pub struct Arguments {
    /// Seconds that the disk stays full, for each file system and policy.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Only those whose names hold this: `tmpfs`, `ext4`, a policy, or `ext4-block`.
    #[arg(long, default_value = "")]
    only: String,
}

/// Runs them one after the other: each has 10,000 readings a second to take.
pub fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args([
            "run",
            "--release",
            "-p",
            "tributary-tests",
            "--bin",
            "full_disk",
            "--",
        ])
        .args([&*arguments.seconds.to_string(), &*arguments.only])
        .status()
        .context("running cargo")?;
    ensure!(status.success(), "the proof failed: {status}");
    Ok(())
}
