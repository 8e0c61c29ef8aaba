//! Runs the benches and writes `benches/RESULTS.md`: nobody copies a figure by hand.
//!
//! It judges nothing; what the figures should be stands in the design, not here.

pub mod machine;
pub mod tables;

use crate::output;
use anyhow::{Context, Result, bail};
use machine::Machine;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const RESULTS: &str = "benches/RESULTS.md";
/// What proofs write themselves: no change of what they prove.
const WRITTEN: [&str; 2] = [RESULTS, "docs/crash-matrix.md"];
/// What the headings of proofs begin with: they stand behind all that is measured.
const PROOF: &str = "Proof: ";
/// Where the data sets are when nobody says.
const SHARED: &str = "../shared";
/// Folders of data sets below `--data` that the bench `wire` takes.
const WIRE_SETS: [&str; 2] = ["wire", "quality"];
/// Every figure is the median of so many runs.
const RUNS: usize = 5;

/// What to run, and on what.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder with the data sets, `wire` and `quality` below it; otherwise ../shared if it exists.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Only these benches; what the others measured before goes.
    #[arg(long, value_delimiter = ',', default_values = ["wire", "storage"])]
    only: Vec<String>,
}

/// One bench: what was run, and the tables that came of it.
struct Section {
    title: &'static str,
    command: String,
    tables: String,
}

/// Runs the benches, writes the file.
pub fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let machine = Machine::look(root)?;
    let mut sections = Vec::new();
    for bench in &arguments.only {
        match bench.as_str() {
            "wire" => sections.extend(wire(root, arguments)?),
            "storage" => sections.push(storage(root)?),
            other => bail!("no bench is called `{other}`: there are wire and storage"),
        }
    }
    let proofs = proofs(&before(root)?);
    write(root, &(render(&machine, &sections) + &proofs.concat()))
}

/// Puts a proof in the place of the older one of its name, or behind all others.
pub fn keep_proof(root: &Path, name: &str, text: &str) -> Result<()> {
    write(root, &with_proof(&before(root)?, name, text))
}

fn before(root: &Path) -> Result<String> {
    match std::fs::read_to_string(root.join(RESULTS)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("reading {RESULTS}")),
    }
}

fn write(root: &Path, text: &str) -> Result<()> {
    std::fs::write(root.join(RESULTS), text).with_context(|| format!("writing {RESULTS}"))?;
    println!("{RESULTS} is written");
    Ok(())
}

/// The sections of proofs, each from the line before its heading.
fn proofs(text: &str) -> Vec<String> {
    let sections = text.split("\n## ").skip(1);
    let proofs = sections.filter(|section| section.starts_with(PROOF));
    proofs
        .map(|section| format!("\n## {}\n", section.trim_end()))
        .collect()
}

fn with_proof(text: &str, name: &str, proof: &str) -> String {
    let heading = format!("\n## {PROOF}{name}\n");
    let mut proofs = proofs(text);
    let measured = text.split(&format!("\n## {PROOF}")).next();
    let section = format!("{heading}\n{}\n", proof.trim_end());
    match proofs.iter_mut().find(|proof| proof.starts_with(&heading)) {
        Some(older) => *older = section,
        None => proofs.push(section),
    }
    format!(
        "{}\n{}",
        measured.unwrap_or_default().trim_end(),
        proofs.concat()
    )
}

/// The bench's last line, which is JSON.
/// Runs a bench, and gives the JSON that it prints last.
pub fn bench(root: &Path, name: &str, arguments: &[&str]) -> Result<Value> {
    let start = [
        "run",
        "--release",
        "--quiet",
        "-p",
        "tributary-benches",
        "--bin",
        name,
        "--",
    ];
    let all = [&start, arguments, &["--json"]].concat();
    println!("cargo {}", all.join(" "));
    let printed = output(Path::new(env!("CARGO")), &all, root)?;
    let last = printed.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("the last line of the bench {name}"))
}

fn wire(root: &Path, arguments: &Arguments) -> Result<Vec<Section>> {
    let data = match &arguments.data {
        Some(data) => std::path::absolute(data).context("the path of the data sets")?,
        None => PathBuf::from(SHARED),
    };
    let mut sections = Vec::new();
    for (set, title) in WIRE_SETS
        .into_iter()
        .zip(["Wire: shared sets", "Wire: NAB sets"])
    {
        let dir = data.join(set);
        if !root.join(&dir).is_dir() {
            println!("wire: {} is not there, and is left out", dir.display());
            continue;
        }
        let input = dir
            .to_str()
            .context("the path of the data sets is not UTF-8")?;
        let runs: Result<Vec<Value>> = (0..RUNS)
            .map(|_| bench(root, "wire", &["--input", input]))
            .collect();
        let command =
            format!("cargo run --release -p tributary-benches --bin wire -- --input DATA/{set}");
        let tables = tables::wire(&runs?)?;
        sections.push(Section {
            title,
            command,
            tables,
        });
    }
    Ok(sections)
}

fn storage(root: &Path) -> Result<Section> {
    let rounds = RUNS.to_string();
    let report = bench(root, "storage", &["--rounds", &rounds])?;
    Ok(Section {
        title: "Storage",
        command: "cargo run --release -p tributary-benches --bin storage".to_owned(),
        tables: tables::storage(&report)?,
    })
}

fn render(machine: &Machine, sections: &[Section]) -> String {
    let mut text = format!(
        "# Results\n\nWritten by `cargo xtask results`, and the proofs at the end by `cargo xtask \
         prove`; not edited. Each figure is the\nmedian of {RUNS} runs, with the least and the \
         greatest behind it. CPU is of all threads, kernel included.\n\n{machine}"
    );
    for Section {
        title,
        command,
        tables,
    } in sections
    {
        text += &format!(
            "\n## {title}\n\n```sh\n{command}\n```\n\n{}\n",
            tables.trim_end()
        );
    }
    text
}

/// The day, UTC, as YYYY-MM-DD. After H. Hinnant, "chrono-compatible low-level date algorithms".
fn today() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    date(since.as_secs() / 86_400)
}

fn date(days: u64) -> String {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let of_era_year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_era_year + of_era_year / 4 - of_era_year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = of_era_year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        let dates = [0, 59, 11_016, 20_514].map(date);
        assert_eq!(
            dates,
            ["1970-01-01", "1970-03-01", "2000-02-29", "2026-03-02"]
        );
    }

    #[test]
    fn proofs_stay_when_benches_run_and_each_is_replaced_by_its_own() {
        let measured = "# Results\n\n| a |\n\n## Storage\n\n| 1 |\n";
        let text = with_proof(measured, "chaos", "old\n");
        let text = with_proof(&text, "kills", "k\n");
        let text = with_proof(&text, "chaos", "new");
        let expected = "\n## Proof: chaos\n\nnew\n\n## Proof: kills\n\nk\n";
        assert_eq!(text, format!("{measured}{expected}"));
        assert_eq!(proofs(&text).concat(), expected);
        assert_eq!(proofs(measured), Vec::<String>::new());
    }

    #[test]
    fn the_file_says_where_and_how_its_figures_came_about() {
        let section = Section {
            title: "Storage",
            command: "cargo run".into(),
            tables: "| a |\n|---|\n| 1 |\n\n".into(),
        };
        let text = render(&Machine::default(), &[section]);
        assert!(
            text.contains("## Storage\n\n```sh\ncargo run\n```\n\n| a |"),
            "{text}"
        );
        assert!(text.ends_with("| 1 |\n"), "{text}");
        assert!(text.contains("median of 5"), "{text}");
    }
}
