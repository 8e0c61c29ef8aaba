//! Proofs that take minutes: whole systems of real processes, run one after the other. What holds
//! is judged by what they start, not here.

mod full_disk;

use anyhow::Result;
use std::path::Path;

/// Which proof.
#[derive(clap::Subcommand)]
pub enum Proof {
    /// A file system of 64 MB, filled from outside: no exit, no wedge, every loss declared.
    FullDisk(full_disk::Arguments),
}

/// Runs it.
pub fn run(root: &Path, proof: &Proof) -> Result<()> {
    match proof {
        Proof::FullDisk(arguments) => full_disk::run(root, arguments),
    }
}
