//! `cargo xtask prove full-disk`: runs the program `full_disk` of the crate of tests, in release.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::{Command, Stdio};

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

/// Runs them one after the other: each has 10,000 readings a second to take. Gives what they say.
pub fn run(root: &Path, arguments: &Arguments) -> Result<String> {
    let ran = Command::new(env!("CARGO"))
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
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo")?;
    let said = String::from_utf8_lossy(&ran.stdout);
    println!("{said}");
    ensure!(ran.status.success(), "the proof failed: {}", ran.status);
    ensure!(
        !said.trim().is_empty(),
        "nothing was said: was nothing run?"
    );
    Ok(format!("```\n{}\n```\n", said.trim_end()))
}
