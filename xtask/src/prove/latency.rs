//! `cargo xtask prove latency`: runs the program `latency` of the crate of tests, in release, and
//! makes tables of what it found.

use super::table::{list, number, word};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// How much.
#[derive(clap::Args)]
pub struct Arguments {
    /// Spikes in each case, at least; about 99 of 100 are alerts.
    #[arg(long, default_value_t = 1_100)]
    spikes: u64,
    /// SIGKILLs and restarts.
    #[arg(long, default_value_t = 20)]
    restarts: u64,
    /// What the program printed before, instead of running it
    #[arg(long)]
    report: Option<PathBuf>,
}

impl Arguments {
    /// The command that they stand for.
    pub fn command(&self) -> String {
        let Self {
            spikes, restarts, ..
        } = self;
        format!("cargo xtask prove latency --spikes {spikes} --restarts {restarts}")
    }
}

/// Runs it, which takes some ten minutes.
pub fn run(root: &Path, arguments: &Arguments) -> Result<String> {
    let (spikes, restarts) = (arguments.spikes.to_string(), arguments.restarts.to_string());
    let report = match &arguments.report {
        Some(path) => super::printed(path)?,
        None => {
            // The agent and the aggregator are built by the program, where they are not fresh.
            let mut start = vec!["run", "--release", "--quiet", "-p", "tributary-tests"];
            start.extend(["--bin", "latency", "--", &spikes, &restarts]);
            super::last_line(root, &start)?
        }
    };
    tables(&report)
}

/// Upper bounds of a histogram's bars, in ms, as the program has them.
const BARS_MS: [u64; 12] = [1, 2, 3, 5, 10, 20, 50, 100, 250, 500, 1_000, 2_000];

const ABOUT: &str = "From just before a reading is written to its client's socket until its alert \
was read from the socket of a client\nthat subscribes with QoS 1, both in one process; the agent, \
and the aggregator where there is one, are processes of\ntheir own on the same processors. One \
reading of 627 is a spike; what of them raised no alert is what the detector\ndid not find \
unusual.\n";

const CASES: [(&str, &str); 5] = [
    ("connected", "the aggregator acknowledges"),
    ("offline", "there is none"),
    ("backlog", "it takes a backlog in the spool"),
    (
        "slow-disk",
        "each fsync and fdatasync of the agent takes 200 ms more",
    ),
    (
        "windows",
        "connected, each series judged by the second, as is the default",
    ),
];

fn tables(report: &Value) -> Result<String> {
    let plan = report.get("plan").context("no plan")?;
    let mut text = format!(
        "{} readings a second of {} series over {} connections, one reading a message, QoS 1.\n\
         {ABOUT}\n",
        number(plan, "rate")?,
        number(plan, "series")?,
        number(plan, "connections")?
    );
    let all = list(report, "cases")?;
    let timed: Vec<&Value> = all
        .iter()
        .filter(|case| case.get("latency").is_some())
        .collect();
    ensure!(!timed.is_empty(), "no case was timed");
    text += &latencies(&timed)?;
    text += &parts(&timed)?;
    text += &histogram(&timed)?;
    text += &surroundings(&timed)?;
    text += &processors(all)?;
    for case in all {
        if word(case, "case")? == "restarts" {
            text += &restarts(case)?;
        }
    }
    Ok(text)
}

fn about(name: &str) -> &str {
    let known = CASES.iter().find(|(case, _)| *case == name);
    known.map_or(name, |(_, about)| *about)
}

const SHARES: [(&str, &str); 5] = [
    ("p50", "p50"),
    ("p90", "p90"),
    ("p99", "p99"),
    ("p99.9", "p999"),
    ("greatest", "max"),
];

fn latencies(cases: &[&Value]) -> Result<String> {
    let headings: Vec<&str> = SHARES.iter().map(|(heading, _)| *heading).collect();
    let mut text = format!(
        "| ms | | {} | alerts | spikes |\n|{}\n",
        headings.join(" | "),
        "---|".repeat(SHARES.len() + 4)
    );
    for case in cases {
        let name = word(case, "case")?;
        write!(text, "| {name} | {} |", about(name))?;
        let latency = case.get("latency").context("no latency")?;
        for (_, key) in SHARES {
            write!(text, " {:.1} |", number(latency, key)?)?;
        }
        let (count, planted) = (number(latency, "count")?, number(case, "planted")?);
        writeln!(text, " {count} | {planted} |")?;
    }
    Ok(text)
}

/// Where the time goes.
fn parts(cases: &[&Value]) -> Result<String> {
    const PARTS: [(&str, &str); 2] = [("until judged", "judged"), ("from then on", "delivered")];
    let headings: Vec<&str> = PARTS.iter().map(|(heading, _)| *heading).collect();
    let mut text = format!(
        "\nOf that, p50 / p99 / greatest:\n\n| ms | {} |\n|{}\n",
        headings.join(" | "),
        "---|".repeat(PARTS.len() + 1)
    );
    for case in cases {
        write!(text, "| {} |", word(case, "case")?)?;
        for (_, key) in PARTS {
            let part = case.get(key).with_context(|| format!("no `{key}`"))?;
            let shown = ["p50", "p99", "max"].map(|share| number(part, share));
            let [p50, p99, max] = shown;
            write!(text, " {:.1} / {:.1} / {:.1} |", p50?, p99?, max?)?;
        }
        text.push('\n');
    }
    Ok(text)
}

fn histogram(cases: &[&Value]) -> Result<String> {
    let names = cases.iter().map(|case| word(case, "case"));
    let names = names.collect::<Result<Vec<_>>>()?;
    let mut text = format!(
        "\n| ms, up to | {} |\n|{}\n",
        names.join(" | "),
        "---|".repeat(names.len() + 1)
    );
    for bar in 0..=BARS_MS.len() {
        let bound = BARS_MS.get(bar).map_or("more".to_owned(), u64::to_string);
        write!(text, "| {bound} |")?;
        for case in cases {
            let bars = list(case.get("latency").context("no latency")?, "bars")?;
            let count = bars.get(bar).and_then(Value::as_u64);
            write!(text, " {} |", count.context("a bar is missing")?)?;
        }
        text.push('\n');
    }
    Ok(text)
}

/// What went on meanwhile.
fn surroundings(cases: &[&Value]) -> Result<String> {
    const COLUMNS: [(&str, &str, usize); 6] = [
        ("seconds", "seconds", 1),
        ("readings a second", "rate", 0),
        ("mean ms to PUBACK", "acknowledged_ms", 0),
        ("load behind its pace at most, ms", "behind_ms", 0),
        ("other alerts", "others", 0),
        ("alerts counted in summaries", "held_back", 0),
    ];
    let headings: Vec<&str> = COLUMNS.iter().map(|(heading, ..)| *heading).collect();
    let mut text = format!(
        "\n| | {} |\n|{}\n",
        headings.join(" | "),
        "---|".repeat(COLUMNS.len() + 1)
    );
    let mut backlogs = String::new();
    for case in cases {
        write!(text, "| {} |", word(case, "case")?)?;
        for (_, key, digits) in COLUMNS {
            write!(text, " {:.digits$} |", number(case, key)?)?;
        }
        text.push('\n');
        let bytes = number(case, "backlog_bytes")?;
        if bytes > 0.0 {
            writeln!(
                backlogs,
                "\nThe backlog: {:.2} GB of sealed readings, of doubles that nothing makes \
                 smaller, made without detection in {:.0} s; drained {}\ntimes, each time to \
                 a hundredth.",
                bytes / 1e9,
                number(case, "fill_seconds")?,
                number(case, "rounds")?
            )?;
        }
    }
    Ok(text + &backlogs)
}

fn processors(cases: &[Value]) -> Result<String> {
    const COLUMNS: [(&str, &str); 4] = [
        ("agent", "agent"),
        ("publishers and subscriber", "clients"),
        ("aggregator", "aggregator"),
        ("others on the machine", "others"),
    ];
    let headings: Vec<&str> = COLUMNS.iter().map(|(heading, _)| *heading).collect();
    let mut text = format!(
        "\n| CPU s | of seconds | {} | load before |\n|{}\n",
        headings.join(" | "),
        "---|".repeat(COLUMNS.len() + 3)
    );
    for case in cases {
        let seconds = number(case, "seconds")?;
        write!(text, "| {} | {seconds:.1} |", word(case, "case")?)?;
        let cpu = case.get("cpu").context("no processor time")?;
        for (_, key) in COLUMNS {
            write!(text, " {:.1} |", number(cpu, key)?)?;
        }
        writeln!(text, " {} |", word(case, "load_average")?)?;
    }
    Ok(text)
}

fn restarts(case: &Value) -> Result<String> {
    const ROWS: [(&str, &str); 3] = [
        (
            "from SIGKILL to the first alert of a reading made after the start",
            "since_kill",
        ),
        ("from the start to that", "since_start"),
        ("from the start until all clients are back", "clients_up"),
    ];
    let mut text = format!(
        "\n{} SIGKILLs under that load, each 5 to 10 s behind the alert before; the aggregator \
         acknowledges. Clients try\nevery 50 ms to come back, and send what was not acknowledged. \
         Spikes are 99 a second then.\n\n\
         | ms | least | p50 | greatest | of |\n|---|---|---|---|---|\n",
        number(case, "restarts")?
    );
    for (heading, key) in ROWS {
        let figures = case.get(key).with_context(|| format!("no `{key}`"))?;
        write!(text, "| {heading} |")?;
        for share in ["min", "p50", "max"] {
            write!(text, " {:.0} |", number(figures, share)?)?;
        }
        writeln!(text, " {} |", number(figures, "count")?)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn figures() -> Value {
        let bars = vec![1; BARS_MS.len() + 1];
        json!({"count": 13, "p50": 3.21, "p90": 4.0, "p99": 5.0, "p999": 6.0, "min": 1.0,
            "max": 7.0, "bars": bars})
    }

    fn report() -> Value {
        let cpu = json!({"agent": 1.0, "clients": 2.0, "aggregator": 0.0, "others": 0.5});
        let case = json!({"case": "backlog", "latency": figures(), "judged": figures(),
            "delivered": figures(), "planted": 14, "others": 0, "held_back": 0, "rounds": 2,
            "seconds": 60.0, "rate": 9999.7,
            "acknowledged_ms": 20.0, "behind_ms": 1.0, "backlog_bytes": 1e9,
            "fill_seconds": 30.0, "cpu": cpu, "load_average": "0.50"});
        let restarts = json!({"case": "restarts", "since_kill": figures(),
            "since_start": figures(), "clients_up": figures(), "restarts": 20, "seconds": 9.0,
            "cpu": cpu, "load_average": "0.50"});
        json!({"cases": [case, restarts],
            "plan": {"connections": 200, "series": 1000, "rate": 10000}})
    }

    #[test]
    fn what_was_found_becomes_tables_and_a_missing_figure_an_error() {
        let text = tables(&report()).unwrap();
        let row = "| backlog | it takes a backlog in the spool | 3.2 | 4.0 | 5.0 | 6.0 | 7.0 | 13 \
                   | 14 |\n";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("| more | 1 |\n"), "{text}");
        assert!(text.contains("The backlog: 1.00 GB"), "{text}");
        assert!(
            text.contains("| restarts | 9.0 | 1.0 | 2.0 | 0.0 | 0.5 | 0.50 |\n"),
            "{text}"
        );
        assert!(
            text.contains("| from the start to that | 1 | 3 | 7 | 13 |\n"),
            "{text}"
        );
        let mut report = report();
        report["cases"][0]["latency"]
            .as_object_mut()
            .unwrap()
            .remove("p99");
        assert!(tables(&report).is_err());
    }
}
