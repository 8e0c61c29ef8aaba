//! Runs what takes too long for a test, and keeps its figures in `benches/RESULTS.md`: the demo
//! under chaos with one seed after the other, an agent killed a thousand times, power cuts, a full
//! disk; every order of events of a model; what alerts take, and what judging costs.
//!
//! What is proven is judged by the programs that run; here only their exit codes count.

mod detection;
mod full_disk;
mod latency;
mod matrix;
mod model;
mod power_cuts;
mod sim;
mod table;

use crate::results::{self, machine::Machine};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What to prove.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    proof: Proof,
}

#[derive(clap::Subcommand)]
enum Proof {
    /// `demo --for 60s --sensors 1000 --rate 5 --chaos --json` with the seeds 1, 2, 3, …
    Chaos {
        /// How many seeds
        #[arg(long, default_value_t = 10)]
        seeds: u64,
        /// MQTT quality of service of the fleet, 1 or 2
        #[arg(long, default_value_t = 1)]
        qos: u8,
    },
    /// SIGKILL of the agent between fdatasync and PUBACK, and between fdatasync and PUBREC
    Kills {
        /// How many of each, and a tenth of that at each other step of a commit
        #[arg(long, default_value_t = 1_000)]
        count: u64,
        /// When each comes
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Power cuts at chosen operations of a recorded run of the real programs; a bit in each region
    /// of each of their files; each write, growth and sync failing once
    PowerCuts(power_cuts::Arguments),
    /// Both ends of a session in one thread, by seed: every kind of trouble, one after the other
    Sim(sim::Arguments),
    /// Both ends of a session and the ledger in a model checker: every order of events of a small
    /// scope, with one aggregator and with two
    Model,
    /// A day of a gateway in fast motion: what is written, made durable and sent
    Day {
        /// What `day --json` of the benches printed before, instead of running it
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// A file system of 64 MB, filled from outside: no exit, no wedge, every loss declared
    FullDisk(full_disk::Arguments),
    /// How long alerts take, from socket to socket: connected, offline, while a backlog drains, on
    /// a slow disk, after a crash
    Latency(latency::Arguments),
    /// What judging costs: time a reading, memory of 100,000 series, their checkpoint
    DetectionCost,
}

/// Runs it, and writes its figures once all went well.
pub fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let machine = Machine::look(root)?;
    ensure!(
        !machine.proves_nothing(),
        "target lies on a file system in memory or on an overlay, where an fdatasync proves \
         nothing: run it on a disk"
    );
    let mut faults = Vec::new();
    let (title, command, table) = match &arguments.proof {
        Proof::Chaos { seeds, qos } => {
            let title = format!("chaos, QoS {qos}");
            let command = format!("cargo xtask prove chaos --seeds {seeds} --qos {qos}");
            let runs = chaos(root, *seeds, *qos)?;
            faults = matrix::chaos(&runs, *qos)?;
            (title, command, table::chaos(&runs)?)
        }
        Proof::Kills { count, seed } => {
            let command = format!("cargo xtask prove kills --count {count} --seed {seed}");
            let runs = kills(root, *count, *seed)?;
            faults = matrix::kills(&runs)?;
            ("kills".to_owned(), command, table::kills(&runs)?)
        }
        Proof::PowerCuts(arguments) => {
            return power_cuts::run(root, arguments, |title, command, rows| {
                let table = table::power_cuts(rows)?;
                let text = format!("```sh\n{command}\n```\n\n{machine}\n{table}");
                results::keep_proof(root, title, &text)?;
                matrix::keep(root, title, &machine, &matrix::power_cuts(rows)?)
            });
        }
        Proof::Sim(arguments) => {
            let rows = sim::run(root, arguments)?;
            faults = matrix::simulated(&rows)?;
            let table = table::simulated(&rows)?;
            ("simulation".to_owned(), arguments.command(), table)
        }
        Proof::Model => model::run(root)?,
        Proof::Day { report } => {
            // It counts and measures no time: the same in every run.
            let report = match report {
                None => results::bench(root, "day", &[])?,
                Some(path) => printed(path)?,
            };
            let table = results::tables::day(&report)?;
            let command = "cargo xtask prove day".to_owned();
            ("a day".to_owned(), command, table)
        }
        Proof::FullDisk(arguments) => {
            let table = full_disk::run(root, arguments)?;
            ("full disk".to_owned(), arguments.command(), table)
        }
        Proof::Latency(arguments) => {
            let tables = latency::run(root, arguments)?;
            ("latency of alerts".to_owned(), arguments.command(), tables)
        }
        Proof::DetectionCost => {
            let table = detection::tables(&results::bench(root, "detection", &[])?)?;
            let command = "cargo xtask prove detection-cost".to_owned();
            ("cost of detection".to_owned(), command, table)
        }
    };
    let text = format!("```sh\n{command}\n```\n\n{machine}\n{table}");
    results::keep_proof(root, &title, &text)?;
    match faults.is_empty() {
        true => Ok(()),
        false => matrix::keep(root, &title, &machine, &faults),
    }
}

/// The JSON on the last line of a file.
fn printed(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let last = text.lines().rfind(|line| line.starts_with('{'));
    serde_json::from_str(last.unwrap_or_default()).with_context(|| path.display().to_string())
}

fn chaos(root: &Path, seeds: u64, qos: u8) -> Result<Vec<Value>> {
    let data = root.join("target").join("prove-chaos");
    let mut runs = Vec::new();
    for seed in 1..=seeds {
        clear(&data)?;
        let (seed_text, qos_text) = (seed.to_string(), qos.to_string());
        let mut arguments = vec!["run", "--release", "--quiet", "--", "demo", "--for", "60s"];
        arguments.extend(["--sensors", "1000", "--rate", "5", "--chaos", "--json"]);
        arguments.extend(["--seed", &seed_text, "--qos", &qos_text]);
        arguments.extend(["--data-dir", data.to_str().context("a path in UTF-8")?]);
        let mut figures = last_line(root, &arguments)?;
        let object = figures.as_object_mut().context("no JSON object")?;
        object.insert("seed".to_owned(), seed.into());
        println!("{figures}");
        runs.push(figures);
    }
    clear(&data)?;
    Ok(runs)
}

fn kills(root: &Path, count: u64, seed: u64) -> Result<Vec<Value>> {
    let (count, seed) = (count.to_string(), seed.to_string());
    let mut runs = Vec::new();
    for qos in ["1", "2"] {
        let mut arguments = vec!["run", "--release", "--quiet", "-p", "tributary-tests"];
        arguments.extend(["--bin", "kills", "--", &count, qos, &seed]);
        let figures = last_line(root, &arguments)?;
        println!("{figures}");
        runs.push(figures);
    }
    Ok(runs)
}

fn clear(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| dir.display().to_string())
        }
        _ => Ok(()),
    }
}

/// What cargo prints last, which is JSON; what it says beside that can be watched.
fn last_line(root: &Path, arguments: &[&str]) -> Result<Value> {
    println!("cargo {}", arguments.join(" "));
    let ran = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo")?;
    let printed = String::from_utf8_lossy(&ran.stdout);
    let last = printed.lines().last().unwrap_or_default();
    if !ran.status.success() {
        bail!("it failed ({}); nothing is written. {last}", ran.status);
    }
    serde_json::from_str(last).context("its last line is no JSON")
}
