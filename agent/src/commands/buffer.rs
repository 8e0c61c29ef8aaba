//! `tributary-agent buffer ls | verify | export | repair`.

mod export;
mod repair;

use crate::buffer::{BufferError, LogView, View, verify};
use crate::civil::rfc3339;
use crate::config::Config;
use crate::deadletter::show::escaped;
use clap::{Args, Subcommand};
use export::ExportArguments;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tributary_journal::LockError;

/// Look at what an agent holds on its disk: messages, sealed batches lane by lane, declared losses.
///
/// `ls`, `verify` and `export` work beside a running agent and change nothing; `repair` needs it
/// stopped. Exit codes: 0 well, 1 something was not, 2 usage or configuration.
#[derive(Args, Debug)]
pub struct BufferArguments {
    /// The agent's folder, instead of `data_dir` of the configuration.
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: BufferCommand,
}

#[derive(Subcommand, Debug)]
enum BufferCommand {
    /// List buffers: which numbers of which lane, in how many bytes, what was acknowledged, what
    /// is declared lost.
    Ls {
        /// With every file.
        #[arg(long)]
        segments: bool,
        /// One object of JSON a line, files and hash sums included.
        #[arg(long)]
        json: bool,
    },
    /// Read everything back: each frame, each sealed batch and its content.
    Verify {
        /// One object of JSON.
        #[arg(long)]
        json: bool,
    },
    Export(ExportArguments),
    /// Keep aside what can't be read, and declare it lost, as the agent itself does. Batches that
    /// can be read stay; nothing goes of which there is no copy.
    Repair {
        /// Change nothing; say what would be declared.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Why a command could not do what it was to.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is nothing to look at, or it can't be read.
    #[error(transparent)]
    Buffer(#[from] BufferError),
    /// An agent runs on it.
    #[error("{0}; stop the agent first: a running one declares what it can't read by itself")]
    Running(LockError),
    /// The repair failed.
    #[error(transparent)]
    Spool(#[from] crate::spool::OpenError),
    /// The life of the storage can't be counted on.
    #[error("{0}")]
    Life(String),
    /// What is damaged would have to go without a copy.
    #[error(
        "{} has no room for {bytes} bytes more, and nothing was changed: copy the agent's whole \
         folder, then take some of the files there away whose names end in -<offset>.bad (copies \
         of frames; the others are read again at each start), and repair again",
        dir.display()
    )]
    NoRoom {
        /// The folder of copies.
        dir: PathBuf,
        /// Bytes that are to be kept.
        bytes: u64,
    },
    /// A folder is to be made that can't be, or a file in it.
    #[error("{}: {source}; name a folder that is not there yet", path.display())]
    Export {
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
    /// Whether usage or configuration is what is wrong.
    pub fn is_usage(&self) -> bool {
        let no_data = matches!(self, Self::Buffer(BufferError::NoData { .. }));
        no_data || matches!(self, Self::Export { .. })
    }
}

impl From<serde_json::Error> for CommandError {
    fn from(error: serde_json::Error) -> Self {
        Self::Output(error.into())
    }
}

/// Runs the command. `out` and `notes` are standard output and standard error.
///
/// # Errors
/// What went wrong, for people. `Ok(false)`: it was done, and not all is well.
pub fn run(
    arguments: &BufferArguments,
    config: &Config,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<bool, CommandError> {
    let configured = &config.agent.data_dir;
    let dir = arguments.data_dir.as_ref().unwrap_or(configured);
    match &arguments.command {
        BufferCommand::Ls { segments, json } => ls(dir, *segments, *json, out),
        BufferCommand::Verify { json } => check(dir, *json, out),
        BufferCommand::Export(which) => export::run(dir, which, out, notes),
        BufferCommand::Repair { dry_run: true } => repair::try_out(dir, out),
        BufferCommand::Repair { dry_run: false } => repair::run(dir, config, out),
    }
}

fn ls(dir: &Path, segments: bool, json: bool, out: &mut dyn Write) -> Result<bool, CommandError> {
    let views = View::open(dir)?.list();
    if json {
        for view in &views {
            serde_json::to_writer(&mut *out, view)?;
            writeln!(out)?;
        }
        return Ok(true);
    }
    write!(out, "{}", listed(&views, segments))?;
    Ok(true)
}

/// What lies in an agent's directory, for people.
pub(super) fn listed(views: &[LogView], segments: bool) -> String {
    let mut text = String::new();
    let mut buffer = "";
    for view in views {
        if view.buffer != buffer {
            buffer = &view.buffer;
            text.push_str(&format!("buffer {buffer}\n"));
        }
        text.push_str(&line(view));
        for gap in &view.gaps {
            let readings = gap.readings.map_or_else(
                || "nobody knows how many readings".to_owned(),
                |readings| format!("{readings} readings"),
            );
            let (first, end, reason) = (gap.first, gap.end, &gap.reason);
            let detail = escaped(&gap.detail);
            text.push_str(&format!(
                "    declared lost {first}..{end}: {reason}, {readings}; {detail}\n"
            ));
        }
        for segment in view.segments.iter().filter(|_| segments) {
            text.push_str(&format!(
                "    {}  {}..{}  {} bytes, begun {}\n",
                segment.file,
                segment.first,
                segment.end,
                segment.bytes,
                rfc3339(segment.created_us)
            ));
        }
    }
    if text.is_empty() {
        text.push_str("nothing is buffered\n");
    }
    text
}

fn line(view: &LogView) -> String {
    let what = match view.lane {
        Some(_) => "batches",
        None => "entries",
    };
    let mut text = format!(
        "  {:<17} {what} {}..{}, {} bytes in {} files",
        view.log,
        view.first,
        view.end,
        view.bytes,
        view.segments.len()
    );
    if view.lane.is_some() {
        let runs = view.acknowledged.iter();
        let runs: Vec<String> = runs
            .map(|run| format!("{}..{}", run.first, run.end))
            .collect();
        text.push_str(&match (view.is_series(), view.waiting, runs.is_empty()) {
            (true, 0, _) => ", nothing needs them any more".to_owned(),
            (true, ..) => ", sent to each aggregator that lacks them".to_owned(),
            (false, waiting, true) => format!(", none acknowledged, {waiting} to send"),
            (false, waiting, false) => {
                format!(", acknowledged {}, {waiting} to send", runs.join(", "))
            }
        });
    }
    text.push('\n');
    text
}

fn check(dir: &Path, json: bool, out: &mut dyn Write) -> Result<bool, CommandError> {
    let verified = verify(dir)?;
    let well = verified.is_well();
    if json {
        serde_json::to_writer(&mut *out, &verified)?;
        writeln!(out)?;
        return Ok(well);
    }
    for fault in &verified.faults {
        writeln!(out, "{fault}")?;
    }
    for fault in &verified.declared {
        writeln!(out, "nothing to do: {fault}")?;
    }
    writeln!(
        out,
        "{} entries read, {} sealed batches with {} readings decoded; {} damaged",
        verified.entries,
        verified.batches,
        verified.readings,
        verified.faults.len() as u64 + verified.faults_more
    )?;
    match verified.declared.len() {
        0 => {}
        n => writeln!(
            out,
            "{n} more that were acknowledged, are declared lost already, or lie there twice"
        )?,
    }
    if verified.gone > 0 {
        writeln!(
            out,
            "the agent let go of some meanwhile: they were acknowledged"
        )?;
    }
    if !well {
        writeln!(
            out,
            "what can't be read is declared lost when the agent comes to it, or by `buffer \
             repair`; copy the agent's folder first"
        )?;
    }
    Ok(well)
}
