//! `tributary-agent alert ls | ack`.

use crate::config::Config;
use crate::control::{Answer, AskError, Request, ask};
use crate::deadletter::show::escaped;
use clap::{Args, Subcommand};
use serde_json::Value;
use std::io::{self, Write};
use std::path::PathBuf;

/// Look at the alerts of a running agent, and say that one was seen.
///
/// Exit codes: 0 well, 1 something was not, 2 usage.
#[derive(Args, Debug)]
pub struct AlertArguments {
    /// The agent's folder, instead of `data_dir` of the configuration.
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: AlertCommand,
}

#[derive(Subcommand, Debug)]
enum AlertCommand {
    /// List every alert that stands, the gravest first: what was raised and is not over.
    Ls {
        /// One object of JSON a line, as on the alert's topic.
        #[arg(long)]
        json: bool,
        /// Also what is over, as long as its topic shows it.
        #[arg(long)]
        all: bool,
    },
    /// Say that an alert was seen: its topic and the lake show it as `acknowledged` until it is
    /// over.
    Ack {
        /// The alert's `id`, or how it begins: 6 digits or more.
        #[arg(value_parser = id_digits)]
        id: String,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No agent could be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It has no such alert.
    #[error("{0}: no such alert stands; `alert ls` lists those that do")]
    NotStanding(String),
    /// It has several.
    #[error("{0}: the ids of {1} alerts that stand begin so: give more digits")]
    Several(String, usize),
    /// It refused.
    #[error("the agent refuses: {0}")]
    Refused(String),
    /// Nobody takes what is said.
    #[error("writing: {0}")]
    Write(#[from] io::Error),
}

/// Runs the command.
///
/// # Errors
/// See [`CommandError`].
pub fn run(
    arguments: &AlertArguments,
    config: &Config,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), CommandError> {
    let dir = arguments
        .data_dir
        .as_ref()
        .unwrap_or(&config.agent.data_dir);
    let request = match &arguments.command {
        AlertCommand::Ls { all, .. } => Request::Alerts { over: *all },
        AlertCommand::Ack { id } => Request::Acknowledge(id.clone()),
    };
    match (ask(dir, &request)?, &arguments.command) {
        (Answer::Alerts { alerts, more }, AlertCommand::Ls { json, .. }) => {
            list(&alerts, *json, out)?;
            if more > 0 {
                writeln!(notes, "and {more} more: they are on tributary/alerts/#")?;
            }
            Ok(())
        }
        (Answer::Acknowledged { id, before }, AlertCommand::Ack { .. }) => {
            let said = match before {
                true => "was acknowledged already",
                false => "acknowledged",
            };
            Ok(writeln!(notes, "{id}: {said}")?)
        }
        (Answer::NotStanding, AlertCommand::Ack { id }) => {
            Err(CommandError::NotStanding(id.clone()))
        }
        (Answer::Several(count), AlertCommand::Ack { id }) => {
            Err(CommandError::Several(id.clone(), count))
        }
        (Answer::Refused(why), _) => Err(CommandError::Refused(why)),
        (other, _) => Err(CommandError::Refused(format!("it answers {other:?}"))),
    }
}

/// The first digits of an alert's `id`, as it is shown.
fn id_digits(text: &str) -> Result<String, &'static str> {
    let is_id = (6..=32).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_hexdigit());
    let wrong = "expected the 32 hexadecimal digits of an alert's `id`, or the first 6 or more";
    is_id.then(|| text.to_ascii_lowercase()).ok_or(wrong)
}

fn list(alerts: &[String], json: bool, out: &mut dyn Write) -> io::Result<()> {
    if alerts.is_empty() && !json {
        return writeln!(out, "no alert stands");
    }
    for alert in alerts {
        let read: Value = serde_json::from_str(alert).unwrap_or_default();
        match json {
            true => writeln!(out, "{alert}")?,
            false => writeln!(out, "{}", line(&read))?,
        }
    }
    Ok(())
}

fn text<'a>(alert: &'a Value, key: &str) -> &'a str {
    alert.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn line(alert: &Value) -> String {
    let [time, id, state, severity] =
        ["event_time", "id", "state", "severity"].map(|key| text(alert, key));
    let [detector, device, metric, text] =
        ["detector", "device", "metric", "text"].map(|key| escaped(text(alert, key)));
    format!("{time}  {id}  {state:<12}  {severity:<8}  {device} {metric}  {detector}  {text}")
}
