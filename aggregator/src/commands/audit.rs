//! `tributary-aggregator audit`.

use crate::audit::merge::merge;
use crate::audit::{AuditError, Report, Verdict, audit};
use crate::config::{Config, ConfigError};
use crate::limits::AUDIT_REPORT_BYTES_MAX;
use crate::restore::RestoreError;
use crate::running::AggregatorError;
use clap::Args;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Compare what ledger, journal and lake say of every lane of every agent.
///
/// Works beside a running aggregator and without one; it changes nothing. Exit codes: 0 all agree,
/// 1 some do not, 2 usage or configuration, 3 nothing is known to disagree, and something could not
/// be settled.
#[derive(Args, Debug)]
pub struct AuditArguments {
    /// The aggregator's folder, instead of `data_dir` of the configuration.
    #[arg(long, value_name = "DIR", conflicts_with = "merge")]
    data_dir: Option<PathBuf>,
    /// Read every row of the lake: that it is as it was written, and there once.
    #[arg(long)]
    deep: bool,
    /// Lay several aggregators side by side: folders, or what `audit --json` wrote. No two may
    /// hold the same batch.
    #[arg(long, value_name = "DIR|FILE", num_args = 1..)]
    merge: Vec<PathBuf>,
    /// One object of JSON.
    #[arg(long)]
    json: bool,
}

/// Why there is no audit.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is nothing to look at, or it can't be read.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// An aggregator that should be stopped runs, or does not open.
    #[error(transparent)]
    Stopped(#[from] AggregatorError),
    /// No journal could be begun.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A file that is to be merged is no audit.
    #[error("{}: {reason}; expected what `audit --json` wrote", path.display())]
    NoReport {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A folder is to be made that can't be.
    #[error("{}: {source}; name a folder that is not there yet", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The output takes nothing.
    #[error("writing the output: {0}")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// With which code the program ends: 2 where usage or configuration is wrong, 3 where nothing
    /// could be settled.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::NoReport { .. }
            | Self::Folder { .. }
            | Self::Audit(AuditError::NoData { .. }) => 2,
            Self::Audit(AuditError::Moved) => 3,
            _ => 1,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// See [`CommandError`].
pub fn run(
    arguments: &AuditArguments,
    config: Option<&Path>,
    out: &mut dyn Write,
) -> Result<Verdict, CommandError> {
    if arguments.merge.is_empty() {
        let dir = match &arguments.data_dir {
            Some(dir) => dir.clone(),
            None => Config::load(config)?.data_dir,
        };
        let report = audit(&dir, arguments.deep)?;
        say(out, arguments.json, &report)?;
        return Ok(report.verdict());
    }
    let reports = arguments.merge.iter();
    let reports = reports.map(|path| match path.is_dir() {
        true => Ok(audit(path, arguments.deep)?),
        false => read(path),
    });
    let reports = reports.collect::<Result<Vec<_>, CommandError>>()?;
    // Once more, for what one was told of another after that one had been looked at.
    let again = arguments.merge.iter().zip(&reports);
    let later = again.map(|(path, before)| match path.is_dir() {
        true => Ok(audit(path, false)?),
        false => Ok(before.clone()),
    });
    let later = later.collect::<Result<Vec<_>, CommandError>>()?;
    let merged = merge(&reports, &later);
    say(out, arguments.json, &merged)?;
    Ok(merged.verdict())
}

fn say<T: serde::Serialize + std::fmt::Display>(
    out: &mut dyn Write,
    json: bool,
    what: &T,
) -> Result<(), CommandError> {
    if json {
        let text = serde_json::to_string(what).map_err(io::Error::from)?;
        return Ok(writeln!(out, "{text}")?);
    }
    Ok(write!(out, "{what}")?)
}

fn read(path: &Path) -> Result<Report, CommandError> {
    let wrong = |reason: String| CommandError::NoReport {
        path: path.to_owned(),
        reason,
    };
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut text = Vec::new();
    file.take(AUDIT_REPORT_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(|error| wrong(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))
}
