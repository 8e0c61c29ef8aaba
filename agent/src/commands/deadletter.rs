//! `tributary-agent deadletter ls | export | replay`.

use crate::civil::rfc3339;
use crate::config::Config;
use crate::control::{Answer, AskError, Request, ask};
use crate::deadletter::Letter;
use crate::deadletter::put_back::{LetterId, Outcome};
use crate::deadletter::show::{Payload, Shown, cut, file_name, line};
use crate::deadletter::view::{Selection, Unseen, View, ViewError};
use crate::decode::{Filter, Incoming, Rows, Rules};
use crate::limits::LETTERS_SHOWN;
use clap::{Args, Subcommand};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tributary_protocol::reading::Value;

/// Look at messages that gave no readings, take them out, put them back.
///
/// Works beside a running agent and without one. Exit codes: 0 well, 1 something was not, 2 usage.
#[derive(Args, Debug)]
pub struct DeadLetterArguments {
    /// The agent's folder, instead of `data_dir` of the configuration.
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: DeadLetterCommand,
}

#[derive(Subcommand, Debug)]
enum DeadLetterCommand {
    /// List them: when, which, why, where.
    Ls {
        #[command(flatten)]
        which: Which,
        /// One object of JSON a line.
        #[arg(long)]
        json: bool,
        /// The oldest first; without it, the newest.
        #[arg(long)]
        oldest_first: bool,
    },
    /// Write them out, payloads whole. They stay where they are.
    Export {
        #[command(flatten)]
        which: Which,
        /// A folder to make, for a file each and `letters.jsonl`; or `-`: one object of JSON a
        /// line on standard output, payloads as base64.
        #[arg(long, value_name = "DIR|-")]
        output: PathBuf,
    },
    /// Put them back: the running agent reads each once more, by its present rules, with the time
    /// it was received at then. A letter is put back once, however often this is called.
    Replay {
        #[command(flatten)]
        which: Which,
        /// Put nothing back; say what would come out by the rules of this configuration.
        #[arg(long)]
        dry_run: bool,
        /// The result as one object of JSON (with --dry-run: one a line).
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
struct Which {
    /// Only those with this word for their reason (json, not_utf8, type, …); may be repeated.
    #[arg(long, value_name = "WORD")]
    reason: Vec<String>,
    /// Only those on these topics: an MQTT filter.
    #[arg(long, value_name = "FILTER", value_parser = Filter::parse)]
    topic: Option<Filter>,
    /// Only this one; may be repeated.
    #[arg(long, value_name = "ID")]
    id: Vec<LetterId>,
    /// At most so many; 0 is all. `ls` shows 100 without it.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl Which {
    fn selection(self, oldest_first: bool, default: usize) -> Selection {
        let limit = self.limit.unwrap_or(default);
        Selection {
            reasons: self.reason,
            topic: self.topic,
            ids: self.id,
            limit: (limit > 0).then_some(limit),
            oldest_first,
        }
    }
}

/// Why a command could not do what it was to.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is nothing to look at.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The agent could not be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The agent said no.
    #[error("the agent refuses: {0}")]
    Refused(String),
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

impl From<serde_json::Error> for CommandError {
    fn from(error: serde_json::Error) -> Self {
        Self::Output(error.into())
    }
}

/// What a command says on standard error.
type Notes<'a> = &'a mut dyn Write;

/// Runs the command. `out` and `notes` are standard output and standard error.
///
/// # Errors
/// What went wrong, for people. `Ok(false)`: it was done, and not all is well.
pub fn run(
    arguments: DeadLetterArguments,
    config: &Config,
    out: &mut dyn Write,
    notes: Notes<'_>,
) -> Result<bool, CommandError> {
    let dir = arguments
        .data_dir
        .as_ref()
        .unwrap_or(&config.agent.data_dir);
    let view = View::open(dir)?;
    match arguments.command {
        DeadLetterCommand::Ls {
            which,
            json,
            oldest_first,
        } => {
            let selection = which.selection(oldest_first, LETTERS_SHOWN);
            ls(&view, &selection, json, out, notes)
        }
        DeadLetterCommand::Export { which, output } => {
            let selection = which.selection(true, 0);
            match output.to_str() {
                Some("-") => export_lines(&view, &selection, out, notes),
                _ => export_files(&view, &selection, &output, notes),
            }
        }
        DeadLetterCommand::Replay {
            which,
            dry_run,
            json,
        } => {
            let selection = which.selection(true, 0);
            match dry_run {
                true => try_out(&view, &selection, &config.decode, json, (out, notes)),
                false => replay(&view, &selection, dir, json, (out, notes)),
            }
        }
    }
}

/// Walks, and stops at the first thing that can't be written.
fn walk(
    view: &View,
    selection: &Selection,
    mut each: impl FnMut(LetterId, &Letter<'_>) -> Result<(), CommandError>,
) -> Result<Unseen, CommandError> {
    let mut failed = Ok(());
    let unseen = view.walk(selection, |id, letter| {
        failed = each(id, letter);
        match failed {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    failed.map(|()| unseen)
}

/// Says what could not be shown; whether all could.
fn note_unseen(unseen: Unseen, notes: Notes<'_>) -> Result<bool, CommandError> {
    let Unseen { gone, unreadable } = unseen;
    if gone > 0 {
        writeln!(
            notes,
            "{gone} went while they were looked for: the agent made room"
        )?;
    }
    if unreadable > 0 {
        writeln!(notes, "{unreadable} are damaged and can't be read")?;
    }
    Ok(unreadable == 0)
}

fn ls(
    view: &View,
    selection: &Selection,
    json: bool,
    out: &mut dyn Write,
    notes: Notes<'_>,
) -> Result<bool, CommandError> {
    let mut shown = 0;
    let unseen = walk(view, selection, |id, letter| {
        let put_back = view.was_put_back(id);
        shown += 1;
        match json {
            true => {
                serde_json::to_writer(&mut *out, &Shown::new(id, letter, put_back, Payload::Left))?;
                writeln!(out)?;
            }
            false => writeln!(out, "{}", line(id, letter, put_back))?,
        }
        Ok(())
    })?;
    match (shown, selection.limit) {
        (0, _) => writeln!(notes, "no dead letters")?,
        (n, Some(limit)) if n == limit => {
            writeln!(notes, "{n} shown, there may be more: --limit 0 shows all")?;
        }
        _ => {}
    }
    if let Some(dropped) = view.dropped() {
        writeln!(
            notes,
            "{} were given up for lack of room, received from {} to {}; those that held readings \
             are declared lost",
            dropped.letters,
            rfc3339(dropped.first),
            rfc3339(dropped.last)
        )?;
    }
    note_unseen(unseen, notes)
}

fn export_lines(
    view: &View,
    selection: &Selection,
    out: &mut dyn Write,
    notes: Notes<'_>,
) -> Result<bool, CommandError> {
    let unseen = walk(view, selection, |id, letter| {
        let shown = Shown::new(id, letter, view.was_put_back(id), Payload::Here);
        serde_json::to_writer(&mut *out, &shown)?;
        Ok(writeln!(out)?)
    })?;
    note_unseen(unseen, notes)
}

/// A file for each payload, named by the letter's id alone: nothing that was published becomes a
/// path.
fn export_files(
    view: &View,
    selection: &Selection,
    dir: &Path,
    notes: Notes<'_>,
) -> Result<bool, CommandError> {
    let shown = dir.display();
    let failed = |path: &Path, source| CommandError::Export {
        path: path.to_owned(),
        source,
    };
    std::fs::create_dir(dir).map_err(|error| failed(dir, error))?;
    let create = |name: &str| {
        let path = dir.join(name);
        let opened = OpenOptions::new().write(true).create_new(true).open(&path);
        opened.map_err(|error| failed(&path, error))
    };
    let mut list = create("letters.jsonl")?;
    let mut count = 0;
    let unseen = walk(view, selection, |id, letter| {
        let mut file = create(&file_name(id))?;
        file.write_all(letter.payload)?;
        file.sync_all()?;
        let shown = Shown::new(id, letter, view.was_put_back(id), Payload::File);
        list.write_all(&serde_json::to_vec(&shown)?)?;
        list.write_all(b"\n")?;
        count += 1;
        Ok(())
    })?;
    list.sync_all()?;
    writeln!(notes, "{count} dead letters in {shown}")?;
    note_unseen(unseen, notes)
}

/// Where a command speaks: standard output, and standard error.
type Speaks<'a> = (&'a mut dyn Write, Notes<'a>);

fn replay(
    view: &View,
    selection: &Selection,
    data_dir: &Path,
    json: bool,
    (out, notes): Speaks<'_>,
) -> Result<bool, CommandError> {
    let (ranges, unseen) = view.ranges(selection);
    let whole = note_unseen(unseen, notes)?;
    let outcome = match ranges.is_empty() {
        true => Outcome::default(),
        false => match ask(data_dir, &Request::PutBack(ranges))? {
            Answer::PutBack(outcome) => outcome,
            Answer::Refused(reason) => return Err(CommandError::Refused(reason)),
            other => return Err(CommandError::Refused(format!("it answers {other:?}"))),
        },
    };
    if json {
        writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
    } else {
        tell(&outcome, out)?;
    }
    Ok(whole && outcome.dead_again == 0 && outcome.unreadable == 0)
}

fn tell(outcome: &Outcome, out: &mut dyn Write) -> Result<(), CommandError> {
    let Outcome {
        put_back,
        dead_again,
        before,
        only_head,
        gone,
        unreadable,
    } = outcome;
    writeln!(out, "{put_back} put back")?;
    for (count, what) in [
        (
            dead_again,
            "of them are dead letters again, by the present rules",
        ),
        (before, "were put back before, and are not once more"),
        (only_head, "are here in part only, and can't be put back"),
        (gone, "went meanwhile: the agent made room"),
        (unreadable, "are damaged and can't be read"),
    ] {
        if *count > 0 {
            writeln!(out, "{count} {what}")?;
        }
    }
    Ok(())
}

/// Decodes without putting anything back.
fn try_out(
    view: &View,
    selection: &Selection,
    rules: &Rules,
    json: bool,
    (out, notes): Speaks<'_>,
) -> Result<bool, CommandError> {
    let (mut rows, mut dead, mut good) = (Rows::new(), 0, 0);
    let unseen = walk(view, selection, |id, letter| {
        if view.was_put_back(id) {
            return Ok(());
        }
        let incoming = Incoming {
            topic: letter.topic,
            payload: letter.payload,
            properties: letter.properties,
            received_time: letter.received_time,
        };
        let decoded = match letter.is_whole() {
            true => rules
                .decode(&incoming, &mut rows)
                .map_err(|error| error.to_string()),
            false => Err("here in part only: it can't be put back".to_owned()),
        };
        match &decoded {
            Ok(_) => good += 1,
            Err(_) => dead += 1,
        }
        let filter = rules.filter_for(letter.topic).map(Filter::text);
        match (json, decoded) {
            (true, decoded) => writeln!(out, "{}", tried(id, letter, filter, decoded.err(), &rows)),
            (false, Err(error)) => writeln!(out, "{id}  dead: {}", cut(&error)),
            (false, Ok(_)) => {
                let by = filter.map_or("no rule".into(), |filter| format!("`{filter}`"));
                writeln!(out, "{id}  by {by}, {} readings:", rows.len())?;
                readings(&rows, out)
            }
        }
        .map_err(CommandError::from)
    })?;
    writeln!(
        notes,
        "{good} would give readings, {dead} would not; nothing was put back"
    )?;
    Ok(note_unseen(unseen, notes)? && dead == 0)
}

fn readings(rows: &Rows, out: &mut dyn Write) -> std::io::Result<()> {
    use crate::civil::rfc3339;
    for reading in rows.iter() {
        writeln!(
            out,
            "    {}  {}  {}  {} {}",
            rfc3339(reading.meta.event_time),
            reading.device,
            reading.metric,
            value(reading.value),
            reading.unit,
        )?;
    }
    Ok(())
}

fn tried(
    id: LetterId,
    letter: &Letter<'_>,
    filter: Option<&str>,
    dead: Option<String>,
    rows: &Rows,
) -> serde_json::Value {
    let readings = rows.iter().map(|reading| {
        json!({
            "device": reading.device,
            "metric": reading.metric,
            "unit": reading.unit,
            "event_time_us": reading.meta.event_time,
            "value": value(reading.value),
            "value_type": reading.value.value_type().name(),
        })
    });
    let readings: Vec<_> = readings.filter(|_| dead.is_none()).collect();
    json!({
        "id": id.to_string(),
        "topic": letter.topic,
        "will": letter.will,
        "rule": filter,
        "dead": dead,
        "readings": readings,
    })
}

/// A value as text; one that is a text with nothing unescaped in it.
fn value(value: Value<'_>) -> String {
    match value {
        Value::F64(x) => format!("{x:?}"),
        Value::F32(x) => format!("{x:?}"),
        Value::I64(x) => x.to_string(),
        Value::Bool(x) => x.to_string(),
        Value::Str(text) => format!("{text:?}"),
    }
}
