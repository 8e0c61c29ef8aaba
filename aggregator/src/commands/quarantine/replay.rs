//! `tributary-aggregator quarantine replay`: on a stopped aggregator, readings in quarantine are
//! taken in under a name of their own. What is taken in, and what stays, the
//! [keeper](crate::keeper) decides; here it is chosen and said.

use crate::clock::Clock;
use crate::commands::audit::CommandError;
use crate::config::Config;
use crate::keeper::{Disputed, Readmitted};
use crate::stopped::Stopped;
use clap::Args;
use serde::Serialize;
use std::io::Write;

/// Which, and how it is said.
#[derive(Args, Debug)]
pub struct ReplayArguments {
    /// The file's name as `ls --json` says it, or how it begins: the agent's UUID, and perhaps its
    /// buffer.
    #[arg(value_name = "FILE", required_unless_present = "all")]
    files: Vec<String>,
    /// All of them.
    #[arg(long, conflicts_with = "files")]
    all: bool,
    /// One object of JSON a line.
    #[arg(long)]
    json: bool,
}

/// What became of one file.
#[derive(Debug, Serialize)]
struct Done {
    /// Its name.
    file: String,
    /// Whether its readings are in the journal now, and the file is gone.
    replayed: bool,
    /// Why it stays.
    why: Option<String>,
    /// Whose it is: tenant and UUID.
    agent: Option<String>,
    /// Its name as it came.
    batch: Option<String>,
    /// The buffer that its rows say in the lake.
    buffer: Option<String>,
    /// Its readings.
    rows: Option<u32>,
}

impl Done {
    fn of(file: String, readmitted: Result<Readmitted, String>) -> Self {
        let (done, why) = match readmitted {
            Ok(done) => (Some(done), None),
            Err(why) => (None, Some(why)),
        };
        let done = done.as_ref();
        Self {
            file,
            replayed: done.is_some(),
            why,
            agent: done.map(|done| done.agent.to_string()),
            batch: done.map(|done| done.was.to_string()),
            buffer: done.map(|done| done.buffer.to_string()),
            rows: done.map(|done| done.rows),
        }
    }

    fn say(&self, json: bool, out: &mut dyn Write) -> std::io::Result<()> {
        if json {
            let text = serde_json::to_string(self).map_err(std::io::Error::from)?;
            return writeln!(out, "{text}");
        }
        match (&self.why, self.rows, &self.buffer) {
            (None, Some(rows), Some(buffer)) => {
                writeln!(
                    out,
                    "{}: replayed: {rows} readings, in buffer {buffer}",
                    self.file
                )
            }
            (why, _, _) => {
                let why = why.as_deref().unwrap_or_default().escape_debug();
                writeln!(out, "{}: stays: {why}", self.file)
            }
        }
    }
}

/// Runs the command; whether all that was chosen is out of quarantine.
pub(super) fn run(
    arguments: &ReplayArguments,
    config: &Config,
    out: &mut dyn Write,
) -> Result<bool, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut stopped = runtime.block_on(Stopped::open(config))?;
    let disputed = stopped.keeper.disputed()?;
    let names = stopped.keeper.quarantined();
    // Nothing is no beginning of a name.
    let is_it = |name: &String, file: &String| !file.is_empty() && name.starts_with(file.as_str());
    let chosen = |name: &String| {
        let mut files = arguments.files.iter();
        arguments.all || files.any(|file| is_it(name, file))
    };
    let unknown = |file: &&String| !names.iter().any(|name| is_it(name, file));
    let unknown: Vec<&String> = arguments.files.iter().filter(unknown).collect();
    for file in &unknown {
        let why = Err("nothing in quarantine is called so".to_owned());
        Done::of((*file).clone(), why).say(arguments.json, out)?;
    }
    let mut well = unknown.is_empty();
    let names: Vec<String> = names.iter().filter(|name| chosen(name)).cloned().collect();
    if names.is_empty() && unknown.is_empty() && !arguments.json {
        writeln!(out, "nothing is in quarantine")?;
    }
    let clock = runtime.block_on(async { Clock::start() });
    for name in names {
        let done = replay(&mut stopped, &name, &disputed, clock);
        well &= done.replayed;
        done.say(arguments.json, out)?;
    }
    stopped.keeper.end(clock.told());
    Ok(well)
}

fn replay(stopped: &mut Stopped, name: &str, disputed: &Disputed, clock: Clock) -> Done {
    let readmitted = stopped.keeper.readmit(name, disputed, clock.told());
    let readmitted = match readmitted {
        Ok(readmitted) => readmitted.map_err(|why| why.to_string()),
        Err(error) => Err(format!("it stays: {error}")),
    };
    Done::of(name.to_owned(), readmitted)
}
