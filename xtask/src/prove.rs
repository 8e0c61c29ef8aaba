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
mod sweep;
mod table;

use crate::results::{self, machine::Machine};
use anyhow::{Context, Error, Result, bail, ensure};
use clap::Parser as _;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use sweep::Which;

/// What to prove.
#[derive(clap::Args)]
pub struct Arguments {
    /// One of them; all, one after the other, when none is named: that takes hours
    #[command(subcommand)]
    proof: Option<Proof>,
}

/// All there are, with the arguments that they have then.
const ALL: [&[&str]; 12] = [
    &["model"],
    &["sim"],
    &["whole"],
    &["turmoil"],
    &["chaos"],
    &["chaos", "--qos", "2"],
    &["kills"],
    &["power-cuts"],
    &["full-disk"],
    &["day"],
    &["latency"],
    &["detection-cost"],
];

/// One of them, as its words say.
#[derive(clap::Parser)]
struct One {
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
    /// All of Tributary in one thread, by seed: from devices to the lake
    Whole(sweep::Arguments),
    /// The real uplink and the real ingest over real QUIC, by seed
    Turmoil(sweep::Arguments),
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

/// Runs it, or all of them.
pub fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    match &arguments.proof {
        Some(proof) => prove(root, proof),
        None => all(root),
    }
}

/// Runs all, whatever comes of each; then says what each took, and fails if one did.
fn all(root: &Path) -> Result<()> {
    let names: Vec<String> = ALL.iter().map(|words| words.join(" ")).collect();
    println!("one after the other: {}", names.join(", "));
    let mut summary = String::new();
    let mut failed = Vec::new();
    for (name, words) in names.iter().zip(ALL) {
        let begun = Instant::now();
        let one = One::try_parse_from([&["prove"], words].concat())?;
        let said = match prove(root, &one.proof) {
            Ok(()) => "holds".to_owned(),
            Err(error) => {
                eprintln!("error: {name}: {error:#}");
                failed.push(name.as_str());
                format!("FAILED: {error:#}")
            }
        };
        let minutes = begun.elapsed().as_secs().div_ceil(60);
        writeln!(summary, "{name:<16} {minutes:>4} min  {said}")?;
    }
    print!("{summary}");
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// What a proof found: its section of the results, and its rows of the matrix.
struct Proven {
    title: String,
    command: String,
    table: String,
    faults: Vec<matrix::Row>,
}

/// Runs it, and writes its figures once all went well.
fn prove(root: &Path, proof: &Proof) -> Result<()> {
    let ground = root.join(tributary_ground::target());
    tributary_ground::folder(&ground).map_err(Error::msg)?;
    let machine = Machine::look(root)?;
    if let Proof::PowerCuts(arguments) = proof {
        return power_cuts::run(root, arguments, |title, command, rows| {
            let proven = Proven {
                title: title.to_owned(),
                command: command.to_owned(),
                table: table::power_cuts(rows)?,
                faults: matrix::real(rows)?,
            };
            keep(root, &machine, &proven)
        });
    }
    keep(root, &machine, &proven(root, proof)?)
}

fn keep(root: &Path, machine: &Machine, proven: &Proven) -> Result<()> {
    let Proven {
        title,
        command,
        table,
        faults,
    } = proven;
    let text = format!("```sh\n{command}\n```\n\n{machine}\n{table}");
    results::keep_proof(root, title, &text)?;
    match faults.is_empty() {
        true => Ok(()),
        false => matrix::keep(root, title, machine, faults),
    }
}

fn proven(root: &Path, proof: &Proof) -> Result<Proven> {
    let mut faults = Vec::new();
    let (title, command, table) = match proof {
        Proof::Chaos { seeds, qos } => {
            let runs = chaos(root, *seeds, *qos)?;
            faults = matrix::chaos(&runs, *qos)?;
            let command = format!("cargo xtask prove chaos --seeds {seeds} --qos {qos}");
            (format!("chaos, QoS {qos}"), command, table::chaos(&runs)?)
        }
        Proof::Kills { count, seed } => {
            let runs = kills(root, *count, *seed)?;
            faults = matrix::kills(&runs)?;
            let command = format!("cargo xtask prove kills --count {count} --seed {seed}");
            ("kills".to_owned(), command, table::kills(&runs)?)
        }
        Proof::PowerCuts(_) => bail!("its parts are kept apart"),
        Proof::Sim(arguments) => {
            let rows = sim::run(root, arguments)?;
            faults = matrix::simulated(&rows)?;
            let table = table::simulated(&rows)?;
            ("simulation".to_owned(), arguments.command(), table)
        }
        Proof::Whole(arguments) => return swept(root, Which::Whole, arguments),
        Proof::Turmoil(arguments) => return swept(root, Which::Turmoil, arguments),
        Proof::Model => {
            let rows = model::run(root)?;
            faults = matrix::model(&rows)?;
            let command = "cargo xtask prove model".to_owned();
            ("model".to_owned(), command, table::model(&rows)?)
        }
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
            let rows = full_disk::run(root, arguments)?;
            faults = matrix::real(&rows)?;
            let table = table::full_disk(&rows)?;
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
    Ok(Proven {
        title,
        command,
        table,
        faults,
    })
}

fn swept(root: &Path, which: Which, arguments: &sweep::Arguments) -> Result<Proven> {
    let run = sweep::run(root, which, arguments)?;
    Ok(Proven {
        title: which.name().to_owned(),
        command: arguments.command(which),
        table: table::swept(which.about(), &run)?,
        faults: matrix::swept(which.fault(), &run)?,
    })
}

/// The JSON on the last line of a file.
fn printed(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let last = text.lines().rfind(|line| line.starts_with('{'));
    serde_json::from_str(last.unwrap_or_default()).with_context(|| path.display().to_string())
}

fn chaos(root: &Path, seeds: u64, qos: u8) -> Result<Vec<Value>> {
    let data = root.join(tributary_ground::target());
    let data = tributary_ground::folder(&data).map_err(Error::msg)?;
    let data = data.join("prove-chaos");
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn all_is_every_proof_there_is() {
        for words in ALL {
            let one = One::try_parse_from([&["prove"], words].concat());
            assert!(one.is_ok(), "{words:?}");
        }
        for known in One::command().get_subcommands() {
            let name = known.get_name();
            assert!(ALL.iter().any(|words| words[0] == name), "{name}");
        }
    }
}
