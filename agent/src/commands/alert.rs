//! `tributary-agent alert ls | ack`.

use crate::alert::AlertId;
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
    /// List the alert that stands of each series: what was raised and is not over.
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
        /// The alert's `id`.
        id: AlertId,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No agent could be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
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
        AlertCommand::Ls { .. } => Request::Alerts,
        AlertCommand::Ack { id } => Request::Acknowledge(id.to_string()),
    };
    match (ask(dir, &request)?, &arguments.command) {
        (Answer::Alerts { alerts, more }, AlertCommand::Ls { json, all }) => {
            for alert in &alerts {
                let read: Value = serde_json::from_str(alert).unwrap_or_default();
                let is_over = text(&read, "state") == "cleared";
                match (is_over && !all, json) {
                    (true, _) => {}
                    (false, true) => writeln!(out, "{alert}")?,
                    (false, false) => writeln!(out, "{}", line(&read))?,
                }
            }
            if more > 0 {
                writeln!(notes, "and {more} more: they are on tributary/alerts/#")?;
            }
            Ok(())
        }
        (Answer::Acknowledged, AlertCommand::Ack { id }) => {
            Ok(writeln!(notes, "{id}: acknowledged, if it stands")?)
        }
        (Answer::Refused(why), _) => Err(CommandError::Refused(why)),
        (other, _) => Err(CommandError::Refused(format!("it answers {other:?}"))),
    }
}

fn text<'a>(alert: &'a Value, key: &str) -> &'a str {
    alert.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn line(alert: &Value) -> String {
    let [time, id, state, severity, text] =
        ["event_time", "id", "state", "severity", "text"].map(|key| text(alert, key));
    format!(
        "{time}  {id}  {state:<12}  {severity:<8}  {}",
        escaped(text)
    )
}
