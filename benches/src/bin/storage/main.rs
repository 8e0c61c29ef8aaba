//! What storing costs the agent: CPU, bytes written, fdatasyncs and memory, stage by stage.
//!
//! `cargo run --release -p tributary-benches --bin storage -- [--json] [--dir DIR]` runs every
//! measure in a process of its own, on real files below DIR, round after round. It measures no
//! network and no MQTT, and counts what is asked of the file system, not what that adds.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

mod counting;
mod input;
mod measures;
mod meter;
mod report;

use anyhow::{Context, Error, Result, bail, ensure};
use clap::Parser;
use measures::{MEASURES, Measure};
use meter::Sample;
use report::Figures;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Measures write-ahead log, sealing, spool and recovery on real files.
#[derive(Parser)]
struct Arguments {
    /// Where to make the folder that is written to, and removed at the end: a real disk. Otherwise
    /// target, or what TRIBUTARY_TEST_DIR names.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How often everything is measured; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Only measures whose names begin so.
    #[arg(long, default_value = "")]
    only: String,
    /// Print one JSON object on the last line as well.
    #[arg(long)]
    json: bool,
    /// What this process itself measures, in DIR; it prints a sample.
    #[arg(long, hide = true)]
    one: Option<String>,
}

#[derive(Serialize)]
struct Report {
    rounds: u32,
    measures: Vec<Figures>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.one {
        Some(name) => one(name, arguments.dir.as_deref().context("--one needs --dir")?),
        None => all(&arguments),
    }
}

/// The folder that is written to.
fn place(dir: Option<&Path>) -> Result<tempfile::TempDir, String> {
    let prefix = "storage-bench-";
    let Some(dir) = dir else {
        return tributary_ground::below_target(prefix);
    };
    tributary_ground::check(dir)?;
    let made = tempfile::Builder::new().prefix(prefix).tempdir_in(dir);
    made.map_err(|error| format!("a folder in {}: {error}", dir.display()))
}

/// Runs one measure in this process.
fn one(name: &str, dir: &Path) -> Result<()> {
    if name == "prepare" {
        return measures::prepare(dir);
    }
    let measure = MEASURES.iter().find(|measure| measure.name == name);
    let sample = measure.context("no such measure")?.run(dir)?;
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}

/// Runs all measures in turn, round after round.
fn all(arguments: &Arguments) -> Result<()> {
    let chosen: Vec<&Measure> = MEASURES
        .iter()
        .filter(|measure| measure.name.starts_with(&arguments.only))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no measure's name begins with `{}`",
        arguments.only
    );
    let place = place(arguments.dir.as_deref()).map_err(Error::msg)?;
    let backlog = place.path().join("backlog");
    if chosen.iter().any(|measure| measure.wants_backlog) {
        child("prepare", &backlog)?;
    }
    let mut samples: Vec<Vec<Sample>> = chosen.iter().map(|_| Vec::new()).collect();
    for _ in 0..arguments.rounds {
        for (measure, samples) in chosen.iter().zip(&mut samples) {
            let own = place.path().join(measure.name);
            let dir = if measure.wants_backlog {
                &backlog
            } else {
                &own
            };
            std::fs::create_dir_all(dir)?;
            let printed = child(measure.name, dir)?;
            samples.push(serde_json::from_str(&printed).context("a sample")?);
            if !measure.wants_backlog {
                std::fs::remove_dir_all(dir)?;
            }
        }
    }
    let rounds = arguments.rounds;
    println!("median of {rounds} (least to greatest); one reading a message\n");
    let figures: Vec<Figures> = chosen
        .iter()
        .zip(&samples)
        .map(|(measure, samples)| Figures::of(measure.name, measure.about, samples))
        .collect();
    figures.iter().for_each(print_table);
    if arguments.json {
        println!(
            "{}",
            serde_json::to_string(&Report {
                rounds,
                measures: figures
            })?
        );
    }
    Ok(())
}

fn print_table(figures: &Figures) {
    println!("{}: {}", figures.measure, figures.about);
    for (what, value) in figures.rows() {
        println!("  {what:<28}{value}");
    }
    println!();
}

/// Runs one measure in a process of its own, and gives what it prints.
fn child(name: &str, dir: &Path) -> Result<String> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--one", name, "--dir"])
        .arg(dir)
        .output()
        .with_context(|| format!("starting {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}: {}", output.status, said.trim_end());
    }
    Ok(String::from_utf8(output.stdout)?)
}
