//! From the figures of a proof to its table. A figure that is missing is an error, not a gap.

pub use crate::results::tables::{list, number, word};
use anyhow::{Context, Result};
use serde_json::Value;

/// Heading and key of each column.
type Columns = [(&'static str, &'static str)];

const CHAOS: &Columns = &[
    ("seed", "seed"),
    ("published", "published"),
    ("delivered", "delivered"),
    ("lost", "lost"),
    ("duplicates", "duplicates"),
    ("kills of the agent", "kills_agent"),
    ("of the aggregator", "kills_aggregator"),
    ("link cuts", "link_cuts"),
    ("bytes a reading", "bytes_per_reading"),
    ("seconds", "elapsed_s"),
];

const KILLS: &Columns = &[
    ("QoS", "qos"),
    ("between fdatasync and acknowledgement", "kills_synced"),
    ("frame unsynced, lost", "kills_unsynced"),
    ("frame torn", "kills_torn"),
    ("frame written", "kills_written"),
    ("after the acknowledgement", "kills_acked"),
    ("published", "published"),
    ("redelivered", "redelivered"),
    ("delivered", "delivered"),
    ("lost", "lost"),
    ("duplicates", "duplicates"),
    ("seconds", "elapsed_s"),
];

const POWER_CUTS: &Columns = &[
    ("runs", "runs"),
    ("readings acknowledged", "acknowledged"),
    ("declared", "declared"),
    ("excused", "excused"),
    ("set apart", "set_apart"),
    ("lost", "lost"),
    ("doubled", "doubled"),
    ("altered", "altered"),
    ("alerts and aggregates missing", "told"),
    ("manual repairs", "repairs"),
];

const SIMULATED: &Columns = &[
    ("seeds", "runs"),
    ("batches held", "acknowledged"),
    ("declared", "declared"),
    ("lost by a disk that lied, or with a journal", "excused"),
    ("lost", "lost"),
    ("doubled", "doubled"),
];

/// Of a sweep of `whole` or of `turmoil`.
const SWEPT: &Columns = &[
    ("seeds", "runs"),
    ("acknowledged", "acknowledged"),
    ("declared", "declared"),
    ("lost", "lost"),
    ("doubled", "doubled"),
    ("manual repairs", "repairs"),
    ("seconds", "seconds"),
];

/// The row of such a sweep; `about` says what its counts are of.
pub fn swept(about: &str, run: &Value) -> Result<String> {
    Ok(format!(
        "{about}\n\n{}",
        table(SWEPT, std::slice::from_ref(run))?
    ))
}

const FULL_DISK: &Columns = &[
    ("published", "published"),
    ("acknowledged into its own blocks", "own_blocks"),
    ("until the link was back", "at_full"),
    ("in all", "acknowledged"),
    ("delivered", "delivered"),
    ("declared", "declared"),
    ("given up", "shed"),
    ("refused", "refused"),
    ("lost", "lost"),
    ("doubled", "doubled"),
    ("altered", "altered"),
];

/// A row for each policy.
pub fn full_disk(rows: &[Value]) -> Result<String> {
    let about = "Readings. An agent on an ext4 of 64 MB that somebody else fills, and keeps full, \
                 while the link is\ncut: `declared` are those that gave way.";
    Ok(format!("{about}\n\n{}", named(FULL_DISK, rows, "fault")?))
}

/// A row for each profile of the simulation, named in front.
pub fn simulated(rows: &[Value]) -> Result<String> {
    let about =
        "A seed that shows anything that must not be ends the proof: every seed here holds.";
    let figures = named(SIMULATED, rows, "profile")?;
    Ok(format!("{about}\n\n{figures}"))
}

const MODEL: &Columns = &[
    ("ledgers", "ledgers"),
    ("batches", "batches"),
    ("connections", "connections"),
    ("lost", "losses"),
    ("agent without power", "agent_crashes"),
    ("aggregator without power", "site_crashes"),
    ("frames not written", "failed_appends"),
    ("times that data gave way", "sheds"),
    ("states", "states"),
    ("steps", "steps"),
    ("depth", "depth"),
    ("seconds", "seconds"),
];

/// A row for each scope of the model, named in front.
pub fn model(rows: &[Value]) -> Result<String> {
    let about = "Each scope to its end: every order of everything that can happen, with at most so \
                 many of what breaks.\nA state in which a rule does not hold, or from which not \
                 all drains, ends the proof: there is none.";
    let figures = named(MODEL, rows, "scope")?;
    Ok(format!("{about}\n\n{figures}"))
}

/// A row for each kind of fault, named in front.
pub fn power_cuts(rows: &[Value]) -> Result<String> {
    let about = "`Acknowledged` counts what devices heard acknowledged, before and after it; \
                 `lost` readings that are nowhere\nand not declared; `excused` those of a \
                 last frame or a Parquet file, of which `docs/storage.md`, How it is \
                 tested,\nsays so; `set apart` \
                 those in `rejected/` or among the dead letters: what says how to read them is \
                 damaged;\n`altered` rows that nobody published like that. Of a power cut, and of \
                 a call that fails, all from `declared` on\nare 0.";
    let figures = named(POWER_CUTS, rows, "fault")?;
    Ok(format!("{about}\n\n{figures}"))
}

/// A figure that is a whole number.
pub fn number_of(figures: &Value, key: &str) -> Result<u64> {
    let figure = figures.get(key).and_then(Value::as_u64);
    figure.with_context(|| format!("no whole number `{key}` in {figures}"))
}

/// A table whose rows begin with the word under `key`.
fn named(columns: &Columns, rows: &[Value], key: &str) -> Result<String> {
    let figures = table(columns, rows)?;
    let mut lines = figures.lines();
    let mut text = String::new();
    for name in [key, "---"] {
        let line = lines.next().context("a table has a head")?;
        text += &format!("| {name} {line}\n");
    }
    for (row, line) in rows.iter().zip(lines) {
        let name = row.get(key).and_then(Value::as_str);
        text += &format!("| {} {line}\n", name.context("a row without a name")?);
    }
    Ok(text)
}

/// A row for each seed.
pub fn chaos(runs: &[Value]) -> Result<String> {
    table(CHAOS, runs)
}

/// A row for each quality of service.
pub fn kills(runs: &[Value]) -> Result<String> {
    let about = "SIGKILLs of the agent, by where in a commit they come. `Redelivered` counts \
                 publications that were sent\nwith DUP, one and the same perhaps several times.";
    Ok(format!("{about}\n\n{}", table(KILLS, runs)?))
}

fn table(columns: &Columns, runs: &[Value]) -> Result<String> {
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    let mut text = format!("| {} |\n", headings.join(" | "));
    text += &format!("|{}\n", "---|".repeat(columns.len()));
    for run in runs {
        let cell = |(_, key): &(&str, &str)| {
            let figure = run.get(*key).filter(|figure| figure.is_number());
            figure
                .map(Value::to_string)
                .with_context(|| format!("no number `{key}` in {run}"))
        };
        let cells = columns.iter().map(cell).collect::<Result<Vec<_>>>()?;
        text += &format!("| {} |\n", cells.join(" | "));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_run_is_a_row_and_a_missing_figure_an_error() {
        let columns: &Columns = &[("seed", "seed"), ("what is lost", "lost")];
        let runs = [json!({"seed": 1, "lost": 0}), json!({"seed": 2, "lost": 7})];
        let text = table(columns, &runs).unwrap();
        let expected = "| seed | what is lost |\n|---|---|\n| 1 | 0 |\n| 2 | 7 |\n";
        assert_eq!(text, expected);
        assert!(table(columns, &[json!({"seed": 1})]).is_err());
    }

    #[test]
    fn a_row_of_power_cuts_begins_with_its_name() {
        let row = json!({"fault": "a bit", "runs": 3, "acknowledged": 9, "declared": 1,
            "excused": 0, "set_apart": 0, "lost": 0, "doubled": 0, "altered": 0, "told": 0,
            "repairs": 0});
        let text = power_cuts(std::slice::from_ref(&row)).unwrap();
        let lines: Vec<&str> = text
            .lines()
            .skip_while(|line| !line.starts_with('|'))
            .collect();
        assert_eq!(
            lines[2],
            "| a bit | 3 | 9 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |"
        );
        assert!(lines[0].starts_with("| fault | runs |") && lines[1].starts_with("| --- |---|"));
        assert!(power_cuts(&[json!({"fault": "a bit"})]).is_err());
    }
}
