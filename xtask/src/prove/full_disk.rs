//! `cargo xtask prove full-disk`: the tests of `tests/tests/full_disk.rs` that take minutes, in
//! release. Mounting needs root; where it is not permitted they say so, and prove nothing.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

/// How long, and which.
#[derive(clap::Args)]
pub struct Arguments {
    /// Seconds that the disk stays full, for each file system and policy.
    #[arg(long, default_value_t = 150)]
    seconds: u64,
    /// Only those whose names hold this: a file system or a policy.
    #[arg(long, default_value = "")]
    only: String,
}

/// Runs them one after the other: each has 10,000 readings a second to take.
pub fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let filter = format!("full_disk::proven_on_{}", arguments.only);
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args([
            "test",
            "--release",
            "-p",
            "tributary-tests",
            "--test",
            "main",
            "--",
        ])
        .args([&*filter, "--ignored", "--nocapture", "--test-threads", "1"])
        .env("TRIBUTARY_FULL_DISK_SECONDS", arguments.seconds.to_string())
        .status()
        .context("running cargo test")?;
    ensure!(status.success(), "the proof failed: {status}");
    Ok(())
}
