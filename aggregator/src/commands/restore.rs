//! `tributary-aggregator restore`.

use super::audit::CommandError;
use crate::audit::AuditError;
use crate::config::Config;
use crate::restore::{Restored, Summary, restore};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Begin a journal that knows what the lake has, where the old one is lost or older than the lake:
/// agents that send again what is there get it acknowledged, and nothing is stored twice.
///
/// The aggregator must be stopped. It changes nothing where journal and lake fit together, and what
/// it replaces stays, in `replaced-1` (or -2, …) of the data directory. Interrupted, it is to be
/// run again: it goes on. Exit codes: 0 well, 1 something was not, 2 usage or configuration.
#[derive(Args, Debug)]
pub struct RestoreArguments {
    /// The aggregator's folder, instead of `data_dir` of the configuration.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// One object of JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// See [`CommandError`].
pub fn run(
    arguments: &RestoreArguments,
    config: Option<&Path>,
    out: &mut dyn Write,
) -> Result<(), CommandError> {
    let mut config = Config::load(config)?;
    if let Some(dir) = &arguments.data_dir {
        config.data_dir.clone_from(dir);
    }
    if !config.data_dir.is_dir() {
        let dir = config.data_dir;
        return Err(AuditError::NoData { dir }.into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let restored = runtime.block_on(restore(&config))?;
    if arguments.json {
        let restored = match &restored {
            Restored::Nothing => serde_json::json!({ "restored": "nothing" }),
            Restored::Completed => serde_json::json!({ "restored": "completed" }),
            Restored::Begun(summary) => {
                serde_json::json!({ "restored": "begun", "summary": summary })
            }
        };
        return Ok(writeln!(out, "{restored}")?);
    }
    match restored {
        Restored::Nothing => {
            writeln!(
                out,
                "journal and lake fit together: there is nothing to restore"
            )?;
        }
        Restored::Completed => {
            writeln!(out, "the restore that was interrupted is complete")?;
        }
        Restored::Begun(summary) => say(&summary, out)?,
    }
    Ok(())
}

fn say(summary: &Summary, out: &mut dyn Write) -> std::io::Result<()> {
    let Summary {
        log,
        why,
        files,
        lanes,
        numbers,
        twice,
        kept,
        damaged,
    } = summary;
    writeln!(out, "{why}")?;
    writeln!(
        out,
        "journal {log} begins: it holds {numbers} numbers of {lanes} lanes, which {files} files of \
         the lake have, and {kept} entries of the old journal that the lake does not have"
    )?;
    if *twice > 0 {
        writeln!(
            out,
            "{twice} numbers are in the lake more than once, as before: `audit --deep` names them"
        )?;
    }
    if *damaged > 0 {
        writeln!(out, "{damaged} entries of the old journal can't be read")?;
    }
    Ok(())
}
