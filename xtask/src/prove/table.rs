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
}
