//! `tributary status`: how a running `tributary run` is, agent and aggregator.

use crate::limits::{STATUS_BYTES_MAX, STATUS_WAIT_MAX};
use crate::settings::{Settings, SettingsError, parse_address};
use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use tributary_agent::commands::status::text;
use tributary_agent::control::{Answer, Request, ask};
use tributary_agent::judge::Watching;
use tributary_settings::say;

/// Arguments of `tributary status`: those of the `run` that is asked.
#[derive(Args, Debug)]
pub struct StatusArguments {
    /// The settings of `run`, if it has some.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its folder [default: ./tributary-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where its /api/v1/status is [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    console: Option<SocketAddr>,
    /// One object of JSON: `agent` and `aggregator`, null for one that does not answer.
    #[arg(long)]
    json: bool,
}

/// Asks both; what one of them says is told, whatever becomes of the other.
#[allow(clippy::print_stdout, reason = "what a program says to its user")]
pub fn run(arguments: &StatusArguments) -> anyhow::Result<ExitCode> {
    let settings = settings(arguments)?;
    let agent = agent(&settings);
    let aggregator = aggregator(settings.console);
    if arguments.json {
        let all = json!({"agent": agent.as_ref().ok(), "aggregator": aggregator.as_ref().ok()});
        println!("{all}");
    } else {
        if let Ok(watching) = &agent {
            print!("agent: {}", text(watching));
        }
        if let Ok(report) = &aggregator {
            print!("{}", of_aggregator(report));
        }
    }
    let failed = [
        agent.err().map(|error| format!("agent: {error:#}")),
        aggregator
            .err()
            .map(|error| format!("aggregator: {error:#}")),
    ];
    let well = failed.iter().all(Option::is_none);
    failed.iter().flatten().for_each(|error| say!("{error}"));
    Ok(match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn settings(arguments: &StatusArguments) -> Result<Settings, SettingsError> {
    let file = Settings::load(arguments.config.as_deref())?.settings;
    Ok(Settings {
        data_dir: arguments.data_dir.clone().unwrap_or(file.data_dir),
        console: arguments.console.unwrap_or(file.console),
        ..file
    })
}

fn agent(settings: &Settings) -> anyhow::Result<Watching> {
    match ask(&settings.data_dir.join("agent"), &Request::Status)? {
        Answer::Status(watching) => Ok(watching),
        Answer::Refused(why) => Err(anyhow::anyhow!("it refuses: {why}")),
        other => Err(anyhow::anyhow!("it answers {other:?}")),
    }
}

/// What the aggregator says at its console.
fn aggregator(console: SocketAddr) -> anyhow::Result<Value> {
    let page = page(console).with_context(|| {
        format!("nothing answers at http://{console}: is `tributary run` there? see --console")
    })?;
    let (head, body) = page.split_once("\r\n\r\n").unwrap_or((&page, ""));
    let first = head.lines().next().unwrap_or_default();
    ensure!(
        first.contains(" 200 "),
        "http://{console} answers `{first}`"
    );
    serde_json::from_str(body).with_context(|| format!("http://{console} answers no status"))
}

fn page(console: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&console, STATUS_WAIT_MAX)?;
    stream.set_read_timeout(Some(STATUS_WAIT_MAX))?;
    stream.set_write_timeout(Some(STATUS_WAIT_MAX))?;
    let ask =
        format!("GET /api/v1/status HTTP/1.1\r\nhost: {console}\r\nconnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes())?;
    let mut page = String::new();
    stream.take(STATUS_BYTES_MAX).read_to_string(&mut page)?;
    Ok(page)
}

fn of_aggregator(report: &Value) -> String {
    let number = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let mut text = format!(
        "aggregator: {} readings in {} batches accepted\n\
         lake: {} rows in {} files, {} entries of the journal to go\n",
        number("/readings_accepted"),
        number("/batches_accepted"),
        number("/lake/rows"),
        number("/lake/files"),
        number("/lake/lag_entries"),
    );
    if let Some(trouble) = report.pointer("/lake/trouble").and_then(Value::as_str) {
        text.push_str(&format!("lake: {trouble:?}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_how_far_the_lake_is_and_what_troubles_it() {
        let report = json!({
            "readings_accepted": 70, "batches_accepted": 3,
            "lake": {"rows": 50, "files": 2, "lag_entries": 1, "trouble": "no room\u{1b}"},
        });
        assert_eq!(
            of_aggregator(&report),
            "aggregator: 70 readings in 3 batches accepted\n\
             lake: 50 rows in 2 files, 1 entries of the journal to go\n\
             lake: \"no room\\u{1b}\"\n"
        );
    }
}
