//! `tributary-aggregator quarantine ls | export | replay`.

mod replay;

use super::audit::CommandError;
use crate::audit::AuditError;
use crate::config::Config;
use crate::limits::{QUARANTINE_BYTES_MAX, QUARANTINE_FILES_MAX};
use bytes::Bytes;
use clap::{Args, Subcommand};
use replay::ReplayArguments;
use serde::Serialize;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use tributary_protocol::batch::{Decoder, SealedBatch};
use tributary_protocol::limits::BATCH_BYTES_MAX;

/// Look at batches that were kept apart: those that never verified, and those that contradict
/// what is held; and take in the readings of the latter.
///
/// `ls` and `export` work beside a running aggregator and without one, and change nothing; `replay`
/// needs it stopped. Exit codes: 0 well, 1 something was not, 2 usage or configuration.
#[derive(Args, Debug)]
pub struct QuarantineArguments {
    /// The aggregator's folder, instead of `data_dir` of the configuration.
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: QuarantineCommand,
}

#[derive(Subcommand, Debug)]
enum QuarantineCommand {
    /// List them: whose, which number, how large, and what is wrong with them today.
    Ls {
        /// One object of JSON a line.
        #[arg(long)]
        json: bool,
    },
    /// Copy them, as they came, into a folder to make, with `batches.jsonl` that says what they
    /// are. They stay where they are.
    Export {
        /// The folder.
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
        /// Only those whose file's name begins so: the agent's UUID, and perhaps its buffer.
        #[arg(long, value_name = "TEXT", default_value = "")]
        of: String,
    },
    /// Take in the readings of batches whose number was held with another hash: a clone's, as a
    /// rule. The aggregator must be stopped; it writes them into the lake when it runs again.
    ///
    /// They get a buffer of their own, which begins with 16 zeros and ends as the file's name does,
    /// and are marked `maybe_repeat`: a clone may have measured what its original did. Each file
    /// goes once its readings are durable; what is run again adds nothing. What can't be taken in
    /// stays, and is listed with the reason; the command then ends with 1.
    Replay(ReplayArguments),
}

/// One batch in quarantine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Kept {
    /// The file's name.
    pub file: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// The agent's UUID.
    pub agent: String,
    /// The buffer.
    pub buffer: String,
    /// The lane.
    pub lane: String,
    /// The number in it.
    pub number: Option<u64>,
    /// Rows, as its head says; none where that can't be read.
    pub rows: Option<u32>,
    /// What is wrong with the bytes; nothing where they verify: then it is here because its number
    /// was held with another hash, or its definitions were not known.
    pub wrong: Option<String>,
}

/// Runs the command; whether all went well.
///
/// # Errors
/// See [`CommandError`].
pub fn run(
    arguments: &QuarantineArguments,
    config: Option<&Path>,
    out: &mut dyn Write,
) -> Result<bool, CommandError> {
    match &arguments.command {
        QuarantineCommand::Ls { json } => {
            let (dir, names) = kept(arguments, config)?;
            ls(&dir, &names, *json, out)
        }
        QuarantineCommand::Export { output, of } => {
            let (dir, names) = kept(arguments, config)?;
            let names: Vec<_> = names.into_iter().filter(|n| n.starts_with(of)).collect();
            export(&dir, &names, output, out)
        }
        QuarantineCommand::Replay(replay) => {
            let mut config = Config::load(config)?;
            if let Some(dir) = &arguments.data_dir {
                config.data_dir.clone_from(dir);
            }
            if !config.data_dir.join("journal").is_dir() {
                let dir = config.data_dir;
                return Err(AuditError::NoData { dir }.into());
            }
            replay::run(replay, &config, out)
        }
    }
}

/// The folder, and what is in it.
fn kept(
    arguments: &QuarantineArguments,
    config: Option<&Path>,
) -> Result<(PathBuf, Vec<String>), CommandError> {
    let data_dir = match &arguments.data_dir {
        Some(dir) => dir.clone(),
        None => Config::load(config)?.data_dir,
    };
    let dir = data_dir.join("quarantine");
    match names_in(&dir) {
        Ok(names) => Ok((dir, names)),
        Err(_) => Err(AuditError::NoData { dir: data_dir }.into()),
    }
}

fn names_in(dir: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)?.take(2 * QUARANTINE_FILES_MAX) {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn look(dir: &Path, name: &str) -> std::io::Result<(Kept, Vec<u8>)> {
    let mut bytes = Vec::new();
    let file = fs::File::open(dir.join(name))?;
    file.take(QUARANTINE_BYTES_MAX).read_to_end(&mut bytes)?;
    let mut parts = name.strip_suffix(".batch").unwrap_or(name).split('-');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    let (agent, buffer, lane, number) = (part(), part(), part(), part());
    let mut kept = Kept {
        file: name.to_owned(),
        bytes: bytes.len() as u64,
        agent,
        buffer,
        lane,
        number: number.parse().ok(),
        rows: None,
        wrong: None,
    };
    if bytes.len() > BATCH_BYTES_MAX {
        kept.wrong = Some(format!("{} bytes: no batch is so long", bytes.len()));
        return Ok((kept, bytes));
    }
    match SealedBatch::open(Bytes::copy_from_slice(&bytes)) {
        Err(error) => kept.wrong = Some(error.to_string()),
        Ok(batch) => {
            kept.rows = Some(batch.rows());
            let decoded = batch.decode(&mut Decoder::new());
            kept.wrong = decoded.err().map(|error| error.to_string());
        }
    }
    Ok((kept, bytes))
}

fn ls(dir: &Path, names: &[String], json: bool, out: &mut dyn Write) -> Result<bool, CommandError> {
    for name in names {
        let kept = match look(dir, name) {
            Ok((kept, _)) => kept,
            // Somebody has taken it away meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        if json {
            let text = serde_json::to_string(&kept).map_err(std::io::Error::from)?;
            writeln!(out, "{text}")?;
            continue;
        }
        let Kept {
            agent,
            buffer,
            lane,
            bytes,
            ..
        } = &kept;
        let number = kept.number.map_or("?".to_owned(), |n| n.to_string());
        let wrong = kept.wrong.as_deref().unwrap_or(
            "verifies: its number was held with another hash, or its definitions were not known",
        );
        let wrong = wrong.escape_debug();
        writeln!(
            out,
            "{agent} {buffer} {lane} {number}: {bytes} bytes; {wrong}"
        )?;
    }
    if names.is_empty() && !json {
        writeln!(out, "nothing is in quarantine")?;
    }
    Ok(true)
}

fn export(
    dir: &Path,
    names: &[String],
    output: &Path,
    out: &mut dyn Write,
) -> Result<bool, CommandError> {
    fs::create_dir(output).map_err(|error| CommandError::Folder {
        path: output.to_owned(),
        source: error,
    })?;
    let create = |name: &str| {
        let path = output.join(name);
        OpenOptions::new().write(true).create_new(true).open(path)
    };
    let mut list = create("batches.jsonl")?;
    for name in names {
        let (kept, bytes) = look(dir, name)?;
        let mut file = create(name)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        let text = serde_json::to_string(&kept).map_err(std::io::Error::from)?;
        writeln!(list, "{text}")?;
    }
    list.sync_all()?;
    writeln!(out, "{} batches in {}", names.len(), output.display())?;
    Ok(true)
}
