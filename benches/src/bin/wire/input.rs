//! CSV files as readings: the first column is the time, each further one a series.
//!
//! It reads what the shared data sets look like: a comma, a header, no quotes.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The value of one reading.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    /// A number.
    Number(f64),
    /// `true` or `false`.
    Truth(bool),
    /// Anything else.
    Text(String),
}

/// One reading of a file.
#[derive(Clone, PartialEq, Debug)]
pub struct Item {
    /// Which column, from 0.
    pub series: u32,
    /// Microseconds since 1970, UTC.
    pub time: i64,
    /// Counts within the series, from 0.
    pub seq: i64,
    /// The value.
    pub value: Cell,
}

/// One CSV file.
pub struct File {
    /// Its path below the input directory.
    pub name: String,
    /// What a device would be called.
    pub device: String,
    /// The names of its series.
    pub metrics: Vec<String>,
    /// Its readings: row after row, column after column.
    pub items: Vec<Item>,
}

/// Every CSV file below `dir`, by path.
pub fn read_all(dir: &Path) -> Result<Vec<File>> {
    let mut paths = Vec::new();
    find(dir, &mut paths)?;
    paths.sort();
    if paths.is_empty() {
        bail!("no CSV file below {}", dir.display());
    }
    let files = paths.iter().map(|path| {
        let text = std::fs::read_to_string(path)?;
        let name = path.strip_prefix(dir).unwrap_or(path).display().to_string();
        let device = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        parse(&text, name, device.unwrap_or_default())
            .with_context(|| format!("reading {}", path.display()))
    });
    files.collect()
}

fn find(dir: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "csv") {
            paths.push(path);
        }
    }
    Ok(())
}

fn parse(text: &str, name: String, device: String) -> Result<File> {
    let mut lines = text.lines();
    let header = lines.next().context("no header")?;
    let metrics: Vec<String> = header.split(',').skip(1).map(str::to_owned).collect();
    let mut items = Vec::new();
    for (line, row) in lines.enumerate().filter(|(_, row)| !row.is_empty()) {
        let mut cells = row.split(',');
        let time = cells
            .next()
            .and_then(time)
            .with_context(|| format!("line {}: the first column is no time: {row}", line + 2))?;
        for (series, cell) in cells.enumerate().filter(|(_, cell)| !cell.is_empty()) {
            items.push(Item {
                series: series as u32,
                time,
                seq: line as i64,
                value: value(cell),
            });
        }
    }
    // A series has one type: that of all its values.
    for series in 0..metrics.len() as u32 {
        let kind = |item: &Item| std::mem::discriminant(&item.value);
        let mut own = items.iter_mut().filter(|item| item.series == series);
        let Some(first) = own.next().map(|item| kind(item)) else {
            continue;
        };
        if own.any(|item| kind(item) != first) {
            bail!(
                "column {} mixes numbers, truth values and texts",
                series + 2
            );
        }
    }
    Ok(File {
        name,
        device,
        metrics,
        items,
    })
}

fn value(cell: &str) -> Cell {
    match (cell, cell.parse()) {
        ("true", _) => Cell::Truth(true),
        ("false", _) => Cell::Truth(false),
        (_, Ok(number)) => Cell::Number(number),
        (text, Err(_)) => Cell::Text(text.to_owned()),
    }
}

/// `YYYY-MM-DD HH:MM:SS` or RFC 3339, with any fraction, as microseconds since 1970, UTC.
fn time(text: &str) -> Option<i64> {
    let (date, clock) = text.split_once(['T', ' '])?;
    let mut parts = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    );
    let (clock, offset) = match clock.rfind(['Z', 'z', '+', '-']) {
        Some(at) => clock.split_at_checked(at)?,
        None => (clock, "Z"),
    };
    let mut parts = clock.splitn(3, ':');
    let (hour, minute) = (
        parts.next()?.parse::<i64>().ok()?,
        parts.next()?.parse::<i64>().ok()?,
    );
    let (seconds, fraction) = parts
        .next()?
        .split_once('.')
        .unwrap_or((clock.get(6..)?, ""));
    let micros: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60
        + seconds.parse::<i64>().ok()?
        - offset_seconds(offset)?;
    Some(seconds * 1_000_000 + micros)
}

fn offset_seconds(offset: &str) -> Option<i64> {
    if offset.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, clock) = offset.split_at_checked(1)?;
    let (hours, minutes) = clock.split_once(':')?;
    let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
    Some(if sign == "-" { -seconds } else { seconds })
}

/// Days from 1970-01-01; after H. Hinnant, "chrono-compatible low-level date algorithms".
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_of_both_forms() {
        assert_eq!(time("1970-01-02 00:00:01"), Some(86_401_000_000));
        assert_eq!(time("2015-02-04T17:51:00Z"), Some(1_423_072_260_000_000));
        assert_eq!(
            time("2015-02-04T18:51:00.25+01:00"),
            Some(1_423_072_260_250_000)
        );
        assert_eq!(time("2000-02-29T00:00:00Z"), Some(951_782_400_000_000));
        assert_eq!(time("yesterday"), None);
    }
}
