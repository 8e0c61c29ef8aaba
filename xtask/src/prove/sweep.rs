//! `cargo xtask prove whole` and `prove turmoil`: many seeds of all of Tributary in one thread, and
//! of the real uplink and ingest over real QUIC.

use super::{last_line, table};
use anyhow::{Result, ensure};
use serde_json::Value;
use std::path::Path;

/// How many.
#[derive(clap::Args)]
pub struct Arguments {
    /// Seeds
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
}

/// Which of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// `tests/whole`.
    Whole,
    /// `tests/turmoil`.
    Turmoil,
}

impl Which {
    /// As its command and its program are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Turmoil => "turmoil",
        }
    }

    /// What breaks in it.
    pub fn fault(self) -> &'static str {
        match self {
            Self::Whole => "all of it, from devices to the lake (`whole`)",
            Self::Turmoil => "uplink and ingest over real QUIC, in batches (`turmoil`)",
        }
    }

    /// What its counts are of.
    pub fn about(self) -> &'static str {
        match self {
            Self::Whole => "Readings. A seed that shows anything that must not be ends the proof.",
            Self::Turmoil => "Batches. A seed that shows anything that must not be ends the proof.",
        }
    }
}

impl Arguments {
    /// The command that they stand for.
    pub fn command(&self, which: Which) -> String {
        let Self { seeds, from } = self;
        let name = which.name();
        format!("cargo xtask prove {name} --seeds {seeds} --from {from}")
    }
}

/// Runs them all; ends at the first seed that does not hold.
pub fn run(root: &Path, which: Which, arguments: &Arguments) -> Result<Value> {
    let (seeds, from) = (arguments.seeds.to_string(), arguments.from.to_string());
    let (name, package) = (which.name(), format!("tributary-{}", which.name()));
    let mut command = vec!["run", "--profile", "sim", "--quiet", "-p", &package];
    command.extend(["--bin", name, "--", "--seeds", &seeds, "--from", &from]);
    let figures = last_line(root, &command)?;
    let runs = table::number_of(&figures, "runs")?;
    ensure!(
        runs == arguments.seeds,
        "only {runs} of {seeds} seeds were run"
    );
    Ok(figures)
}
