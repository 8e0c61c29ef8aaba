//! Which Parquet files lie below a lake, at any depth: those of flushes, and those that it did not
//! write. Whoever reads the lake with a wildcard reads both. Of what it opens it reads the footer.

use super::AuditError;
use super::lake::Flush;
use super::report::GapReport;
use crate::lake::Table;
use crate::lake::file::{Footer, footer_of};
use crate::limits::{AUDIT_DEPTH_MAX, AUDIT_FOREIGN_MAX};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The tables that are read.
const TABLES: [Table; 4] = [
    Table::Readings,
    Table::Alerts,
    Table::Aggregates,
    Table::Gaps,
];
/// How deep a flush's file lies: table, day, hour, file.
const DEPTH: usize = 4;

/// A Parquet file of a flush.
#[derive(Debug)]
pub(super) struct OfFlush {
    pub(super) flush: Flush,
    pub(super) table: Table,
    pub(super) path: PathBuf,
}

/// What lies there.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) of_flushes: Vec<OfFlush>,
    /// Parquet files that no flush wrote where they lie; and how many more there are.
    pub(super) foreign: Vec<PathBuf>,
    pub(super) foreign_more: u64,
    /// Folders that are too deep to be looked into.
    pub(super) too_deep: Vec<PathBuf>,
}

/// Every Parquet file below the lake in `dir` for which `take` asks, of those of flushes.
pub(super) fn list(dir: &Path, take: impl Fn(&Flush) -> bool) -> Result<Files, AuditError> {
    let mut files = Files::default();
    let mut names = Vec::new();
    walk(dir, &mut names, &take, &mut files)?;
    Ok(files)
}

fn walk(
    dir: &Path,
    names: &mut Vec<String>,
    take: &impl Fn(&Flush) -> bool,
    files: &mut Files,
) -> Result<(), AuditError> {
    if names.len() >= AUDIT_DEPTH_MAX {
        files.too_deep.push(dir.to_owned());
        return Ok(());
    }
    for name in names_in(dir)? {
        let path = dir.join(&name);
        // Through links, too: so do readers.
        let is_folder = path.is_dir();
        let is_parquet = ends_with_parquet(&name);
        if !is_folder && !is_parquet {
            continue;
        }
        names.push(name);
        if is_folder {
            walk(&path, names, take, files)?;
        } else {
            note(&path, names, take, files);
        }
        names.pop();
    }
    Ok(())
}

fn note(path: &Path, names: &[String], take: &impl Fn(&Flush) -> bool, files: &mut Files) {
    match of_flush(names) {
        Some((flush, table)) if take(&flush) => files.of_flushes.push(OfFlush {
            flush,
            table,
            path: path.to_owned(),
        }),
        Some(_) => {}
        None if files.foreign.len() < AUDIT_FOREIGN_MAX => files.foreign.push(path.to_owned()),
        None => files.foreign_more += 1,
    }
}

/// Which flush wrote the file with these names, from the lake on, if one did.
fn of_flush(names: &[String]) -> Option<(Flush, Table)> {
    let (top, file) = (names.first()?, names.last()?);
    let table = TABLES.into_iter().find(|table| table.name() == top)?;
    let flush = file.strip_suffix(".parquet").and_then(flush_of)?;
    (names.len() == DEPTH).then_some((flush, table))
}

/// A file that is being put has another ending for so long.
fn ends_with_parquet(name: &str) -> bool {
    let ending = Path::new(name).extension();
    ending.is_some_and(|ending| ending.eq_ignore_ascii_case("parquet"))
}

/// The names in a folder, in order; none where there is no folder.
pub(super) fn names_in(dir: &Path) -> Result<Vec<String>, AuditError> {
    let failed = |source| AuditError::Lake {
        path: dir.to_owned(),
        source,
    };
    let listed = match std::fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in listed {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What is in a file of at most so many bytes.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("over {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// `<log>-<first>-<end>`.
pub(super) fn flush_of(stem: &str) -> Option<Flush> {
    let mut parts = stem.split('-');
    let log = parts.next()?.parse().ok()?;
    let mut number = || {
        let digits = parts.next().filter(|digits| digits.len() == 20)?;
        digits.parse().ok()
    };
    let (first, end) = (number()?, number()?);
    (first < end).then_some(Flush { log, first, end })
}

/// The numbers that a gap takes.
pub(super) fn numbers_of(gap: &GapReport) -> (u64, u64) {
    // One that begins below its own number tells of messages, and takes that number alone.
    match gap.first < gap.batch {
        true => (gap.batch, gap.batch.saturating_add(1)),
        false => (gap.first, gap.first.saturating_add(gap.count)),
    }
}

/// Footer and number of rows.
pub(super) fn read_footer(path: &Path) -> Result<(Footer, u64), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    guarded(|| footer_of(&path.display().to_string(), &file).map_err(|error| error.to_string()))
}

/// Runs what may panic on damaged bytes: Parquet's reader relies on what it reads.
pub(super) fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    read.unwrap_or_else(|_| Err("the Parquet reader panicked: the file is damaged".to_owned()))
}
