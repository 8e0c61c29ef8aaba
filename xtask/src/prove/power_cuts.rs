//! `cargo xtask prove power-cuts`: runs the program `power_cuts` of the crate of tests, in release,
//! part by part. Each part has a table of its own and a small JSON of its figures below `target/`,
//! both written when it has ended well, so that parts can be run apart.

use super::{last_line, table};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The parts, in order, and what each one's table is called.
const PARTS: [(&str, &str); 4] = [
    ("cuts", "power cuts"),
    ("bits", "flipped bits"),
    ("enospc", "writes that find no room"),
    ("eio", "syncs that fail"),
];
/// What the figures of a part sum up over its rows.
const SUMS: [&str; 10] = [
    "runs",
    "acknowledged",
    "declared",
    "excused",
    "set_apart",
    "lost",
    "doubled",
    "altered",
    "told",
    "repairs",
];

/// How many, and which.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only these parts: cuts, bits, enospc, eio
    #[arg(long, value_delimiter = ',', default_values = ["cuts", "bits", "enospc", "eio"])]
    part: Vec<String>,
    /// Power cuts that are replayed from one recording
    #[arg(long, default_value_t = 540)]
    cuts: u64,
    /// Where they come, and which bits are flipped
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One run of so many, for a look whether it holds; then nothing is written
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
}

impl Arguments {
    fn command(&self, part: &str) -> String {
        let Self { cuts, seed, .. } = self;
        format!("cargo xtask prove power-cuts --part {part} --cuts {cuts} --seed {seed}")
    }
}

/// Runs the parts; `keep` is given the name, the command and the rows of each.
pub fn run(
    root: &Path,
    arguments: &Arguments,
    mut keep: impl FnMut(&str, &str, &[Value]) -> Result<()>,
) -> Result<()> {
    let is_known = |part: &String| PARTS.iter().any(|(name, _)| name == part);
    let unknown = arguments.part.iter().find(|part| !is_known(part));
    ensure!(
        unknown.is_none(),
        "no part is called `{}`: there are cuts, bits, enospc and eio",
        unknown.map_or("", |part| part)
    );
    for (part, title) in PARTS {
        if !arguments.part.iter().any(|asked| asked == part) {
            continue;
        }
        let report = run_part(root, arguments, part)?;
        let rows = report.get("rows").and_then(Value::as_array);
        let rows = rows.context("the last line has no rows")?;
        let text = table::power_cuts(rows)?;
        println!(
            "{part}: {} s\n{text}",
            table::number_of(&report, "seconds")?
        );
        if arguments.every > 1 {
            continue;
        }
        let figures = serde_json::to_string_pretty(&figures(part, &report, rows)?)?;
        let path = figures_path(root, part);
        std::fs::write(&path, figures + "\n").with_context(|| path.display().to_string())?;
        keep(title, &arguments.command(part), rows)?;
    }
    Ok(())
}

fn run_part(root: &Path, arguments: &Arguments, part: &str) -> Result<Value> {
    let numbers = [arguments.cuts, arguments.seed, arguments.every];
    let numbers = numbers.map(|number| number.to_string());
    let path = figures_path(root, part);
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    if arguments.every == 1 && path.exists() {
        // Figures of before say nothing of a run that does not end well.
        std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
    }
    let mut command = vec!["run", "--release", "--quiet", "-p", "tributary-tests"];
    command.extend(["--bin", "power_cuts", "--", part]);
    command.extend(numbers.iter().map(String::as_str));
    last_line(root, &command)
}

fn figures_path(root: &Path, part: &str) -> PathBuf {
    let target = root.join(tributary_ground::target());
    target.join(format!("prove/power-cuts-{part}.json"))
}

/// What a table over all proofs needs of a part.
fn figures(part: &str, report: &Value, rows: &[Value]) -> Result<Value> {
    let mut figures = serde_json::Map::new();
    figures.insert("proof".to_owned(), json!("power-cuts"));
    figures.insert("part".to_owned(), json!(part));
    let seconds = table::number_of(report, "seconds")?;
    figures.insert("seconds".to_owned(), json!(seconds));
    for key in SUMS {
        let numbers = rows.iter().map(|row| table::number_of(row, key));
        figures.insert(key.to_owned(), json!(numbers.sum::<Result<u64>>()?));
    }
    Ok(Value::Object(figures))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_a_part_are_the_sums_of_its_rows() {
        let row = |runs: u64| {
            json!({"fault": "a bit", "runs": runs, "acknowledged": 9, "declared": 1,
                "excused": 0, "set_apart": 0, "lost": 0, "doubled": 0, "altered": 0, "told": 0,
                "repairs": 0})
        };
        let report = json!({ "seconds": 7 });
        let sums = figures("bits", &report, &[row(3), row(4)]).unwrap();
        assert_eq!(sums["part"], "bits");
        assert_eq!(
            (&sums["runs"], &sums["acknowledged"]),
            (&json!(7), &json!(18))
        );
        assert!(figures("bits", &report, &[json!({"fault": "a bit"})]).is_err());
    }
}
