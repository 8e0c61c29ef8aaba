//! Reading a TOML configuration so that everything wrong with it is said at once: the key, where
//! it stands, why it is wrong, and the nearest name that would be right.
//!
//! Knows nothing of what is configured. A program takes its settings out of [`Section`]s; what is
//! left over when a section is dropped is unknown. Environment variables `PREFIX__SECTION__KEY`
//! replace settings of the file, and errors name them.

#![forbid(unsafe_code)]

pub mod limits;

mod changes;
mod meant;
mod tables;

pub use meant::nearest;

/// Says a line to whoever started the program, on stderr. Unlike `eprintln!` it does not panic
/// when nobody reads that any more: a log collector that restarts must not end a gateway.
#[macro_export]
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($line)*);
    }};
}

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use toml::de::{DeArray, DeTable, DeValue};

/// Where a setting came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A line of the file, from 1.
    Line(usize),
    /// An environment variable.
    Environment(String),
    /// Nowhere: it is missing.
    Missing,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// The setting, with its section: `uplink.endpoints`. Empty for what is no TOML at all.
    pub key: String,
    /// Where it stands.
    pub place: Place,
    /// Why it is wrong, and what was expected.
    pub reason: String,
    /// The nearest name that would be right, for an unknown one.
    pub nearest: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Line(line) => write!(f, "line {line}: ")?,
            Place::Environment(name) => write!(f, "{name}: ")?,
            Place::Missing => {}
        }
        if !self.key.is_empty() {
            write!(f, "`{}` ", self.key)?;
        }
        f.write_str(&self.reason)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}

/// What is said of a document.
#[derive(Debug, Default)]
struct Said {
    wrong: Vec<Diagnostic>,
    /// Legal, and hardly meant.
    warnings: Vec<Diagnostic>,
}

type Errors = Rc<RefCell<Said>>;

/// A value and where it came from.
#[derive(Clone, Debug)]
struct Node {
    place: Place,
    value: Value,
}

/// A TOML value, as far as settings need it.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "TOML's own types")]
pub enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Datetime(String),
    Array(Vec<Value>),
    #[doc(hidden)]
    Table(Table),
    #[doc(hidden)]
    Tables(Vec<(Place, Table)>),
}

/// A TOML table.
#[derive(Clone, Debug, Default)]
pub struct Table(BTreeMap<String, Node>);

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .zip(&other.0)
                .all(|(a, b)| a.0 == b.0 && a.1.value == b.1.value)
    }
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a text",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number with a fraction",
            Self::Bool(_) => "true or false",
            Self::Datetime(_) => "a time",
            Self::Array(_) => "a list",
            Self::Table(_) => "a section",
            Self::Tables(_) => "a list of sections",
        }
    }
}

/// A configuration on its way from text to settings.
#[derive(Debug)]
pub struct Document {
    root: Option<Section>,
    errors: Errors,
    /// Everything that was set, as it was written.
    written: Table,
}

impl Document {
    /// Reads `text`, and those of `environment` whose names begin with `prefix` and `__`.
    pub fn parse(
        text: &str,
        prefix: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let errors = Errors::default();
        let (table, wrong) = DeTable::parse_recoverable(text);
        for error in wrong {
            let span = error.span().unwrap_or_default();
            let reason = meant::syntax(error.message(), text, &span);
            let place = Place::Line(line_of(text, span.start));
            errors.borrow_mut().wrong.push(Diagnostic {
                key: String::new(),
                place,
                reason,
                nearest: None,
            });
        }
        let mut table = table_of(table.get_ref(), text);
        for (name, value) in environment {
            let Some(path) = name
                .strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix("__"))
            else {
                continue;
            };
            let path: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
            if let Err(reason) = set(&mut table, &path, &name, &value) {
                errors.borrow_mut().wrong.push(Diagnostic {
                    key: path.join("."),
                    place: Place::Environment(name),
                    reason: reason.to_owned(),
                    nearest: None,
                });
            }
        }
        let written = table.clone();
        let root = Section::new(String::new(), table, Rc::clone(&errors));
        Self {
            root: Some(root),
            errors,
            written,
        }
    }

    /// The top of the document, once.
    pub fn root(&mut self) -> Section {
        let errors = Rc::clone(&self.errors);
        self.root
            .take()
            .unwrap_or_else(|| Section::new(String::new(), Table::default(), errors))
    }

    /// What is legal and hardly meant, in the order of the file. Call it when all sections are
    /// dropped.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        let mut warnings = std::mem::take(&mut self.errors.borrow_mut().warnings);
        sort(&mut warnings);
        warnings
    }

    /// Everything that was set, as it was written.
    pub fn written(&self) -> &Table {
        &self.written
    }

    /// What was wrong, in the order of the file. Call it when all sections are dropped.
    pub fn finish(self) -> Vec<Diagnostic> {
        let mut errors = self.errors.take().wrong;
        meant::without_consequences(&mut errors);
        sort(&mut errors);
        errors
    }
}

fn sort(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by_key(|said| match said.place {
        Place::Line(line) => (0, line),
        Place::Environment(_) => (1, 0),
        Place::Missing => (2, 0),
    });
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}

fn table_of(table: &DeTable<'_>, text: &str) -> Table {
    let entries = table.iter().map(|(key, value)| {
        let place = Place::Line(line_of(text, key.span().start));
        (
            key.get_ref().to_string(),
            Node {
                place,
                value: value_of(value.get_ref(), text),
            },
        )
    });
    Table(entries.collect())
}

fn value_of(value: &DeValue<'_>, text: &str) -> Value {
    match value {
        DeValue::String(value) => Value::String(value.to_string()),
        DeValue::Integer(value) => i64::from_str_radix(value.as_str(), value.radix())
            .map_or_else(|_| Value::String(value.to_string()), Value::Integer),
        DeValue::Float(value) => value
            .as_str()
            .parse()
            .map_or_else(|_| Value::String(value.to_string()), Value::Float),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(value) => Value::Datetime(value.to_string()),
        DeValue::Array(values) => array_of(values, text),
        DeValue::Table(table) => Value::Table(table_of(table, text)),
    }
}

/// A list; one of sections alone keeps where each begins.
fn array_of(values: &DeArray<'_>, text: &str) -> Value {
    let tables = values.iter().map(|value| match value.get_ref() {
        DeValue::Table(table) => {
            let place = Place::Line(line_of(text, value.span().start));
            Some((place, table_of(table, text)))
        }
        _ => None,
    });
    match tables.collect::<Option<Vec<_>>>() {
        Some(tables) if !tables.is_empty() => Value::Tables(tables),
        _ => {
            let values = values.iter();
            Value::Array(
                values
                    .map(|value| value_of(value.get_ref(), text))
                    .collect(),
            )
        }
    }
}

/// Sets what an environment variable says: TOML where it is some, otherwise the text itself.
fn set(table: &mut Table, path: &[String], name: &str, text: &str) -> Result<(), &'static str> {
    let place = Place::Environment(name.to_owned());
    let Some((key, rest)) = path.split_first() else {
        return Ok(());
    };
    if rest.is_empty() {
        let value = match DeValue::parse(text) {
            Ok(value) => value_of(value.get_ref(), text),
            Err(_) => Value::String(text.to_owned()),
        };
        table.0.insert(key.clone(), Node { place, value });
        return Ok(());
    }
    let empty = Node {
        place,
        value: Value::Table(Table::default()),
    };
    let node = table.0.entry(key.clone()).or_insert(empty);
    match &mut node.value {
        Value::Table(inner) => set(inner, rest, name, text),
        Value::Tables(_) => Err("is within a list of sections: only the file can set it"),
        // What stands there is wrong, and said to be when it is read.
        _ => Ok(()),
    }
}

/// What a setting can be read as.
pub trait Setting: Sized {
    /// What is expected, for an error: `an integer of at least 0`.
    const EXPECTED: &'static str;
    /// The setting, if the value is one.
    fn read(value: &Value) -> Option<Self>;
}

impl Setting for String {
    const EXPECTED: &'static str = "a text";
    fn read(value: &Value) -> Option<Self> {
        if let Value::String(text) = value {
            Some(text.clone())
        } else {
            None
        }
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path, as a text";
    fn read(value: &Value) -> Option<Self> {
        String::read(value)
            .filter(|text| !text.is_empty())
            .map(Self::from)
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";
    fn read(value: &Value) -> Option<Self> {
        if let Value::Bool(value) = value {
            Some(*value)
        } else {
            None
        }
    }
}

impl Setting for u64 {
    const EXPECTED: &'static str = "an integer of at least 0";
    fn read(value: &Value) -> Option<Self> {
        if let Value::Integer(value) = value {
            Self::try_from(*value).ok()
        } else {
            None
        }
    }
}

impl Setting for Vec<String> {
    const EXPECTED: &'static str = "a list of texts";
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Array(values) => values.iter().map(String::read).collect(),
            _ => None,
        }
    }
}

/// A number of bytes: an integer, or a text like `256 MiB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(pub u64);

impl Setting for ByteSize {
    const EXPECTED: &'static str = "bytes: an integer, or a text like `256 MiB`";
    fn read(value: &Value) -> Option<Self> {
        const UNITS: [(&str, u64); 7] = [
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("kB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("B", 1),
        ];
        let Value::String(text) = value else {
            return u64::read(value).map(Self);
        };
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
        number
            .trim()
            .parse::<u64>()
            .ok()?
            .checked_mul(*unit)
            .map(Self)
    }
}

/// A section of the document. What nobody asked for by the time it is dropped is unknown.
#[derive(Debug)]
pub struct Section {
    path: String,
    entries: BTreeMap<String, Node>,
    known: Vec<&'static str>,
    /// Where each setting that was read stands, for what is found wrong with it later.
    places: BTreeMap<&'static str, Place>,
    /// Where the section begins, when it is one of a list.
    begins: Place,
    errors: Errors,
}

impl Section {
    fn new(path: String, table: Table, errors: Errors) -> Self {
        Self {
            path,
            entries: table.0,
            known: Vec::new(),
            places: BTreeMap::new(),
            begins: Place::Missing,
            errors,
        }
    }

    fn key(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Node> {
        self.known.push(name);
        let node = self.entries.remove(name)?;
        self.places.insert(name, node.place.clone());
        Some(node)
    }

    /// Says that a setting, which was read or is missing, is wrong.
    pub fn wrong(&self, name: &'static str, reason: impl Into<String>) {
        let place = self.places.get(name).unwrap_or(&self.begins).clone();
        self.report(name, place, reason.into(), None);
    }

    /// Says that a setting, which was read, is legal and hardly meant.
    pub fn warn(&self, name: &'static str, reason: impl Into<String>) {
        let place = self.places.get(name).unwrap_or(&self.begins).clone();
        self.errors.borrow_mut().warnings.push(Diagnostic {
            key: self.key(name),
            place,
            reason: reason.into(),
            nearest: None,
        });
    }

    fn report(&self, name: &str, place: Place, reason: String, nearest: Option<String>) {
        let key = self.key(name);
        self.errors.borrow_mut().wrong.push(Diagnostic {
            key,
            place,
            reason,
            nearest,
        });
    }

    /// A section below this one; an empty one when it is not there.
    pub fn section(&mut self, name: &'static str) -> Section {
        let table = match self.take(name) {
            None => Table::default(),
            Some(Node {
                value: Value::Table(table),
                ..
            }) => table,
            Some(Node { value, .. }) => {
                self.wrong(
                    name,
                    format!(
                        "is {}; expected a section: [{}]",
                        value.kind(),
                        self.key(name)
                    ),
                );
                Table::default()
            }
        };
        Section::new(self.key(name), table, Rc::clone(&self.errors))
    }

    /// A setting that may be left out.
    pub fn optional<T: Setting>(&mut self, name: &'static str) -> Option<T> {
        let node = self.take(name)?;
        let read = T::read(&node.value);
        if read.is_none() {
            self.wrong(name, meant::unread::<T>(name, &node.value));
        }
        read
    }

    /// A setting with a default.
    pub fn or<T: Setting>(&mut self, name: &'static str, default: T) -> T {
        self.optional(name).unwrap_or(default)
    }

    /// A setting that is read further; what `read` says against it is reported.
    pub fn read<T: Setting, U>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(T) -> Result<U, String>,
    ) -> Option<U> {
        let setting = self.optional::<T>(name)?;
        read(setting)
            .map_err(|reason| self.wrong(name, reason))
            .ok()
    }

    /// An integer within bounds, with a default.
    pub fn within(&mut self, name: &'static str, bounds: (u64, u64), default: u64) -> u64 {
        let (least, most) = bounds;
        let check = |value: u64| match value {
            _ if (least..=most).contains(&value) => Ok(value),
            _ => Err(format!("is {value}; expected {least} to {most}")),
        };
        self.read(name, check).unwrap_or(default)
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        for (name, node) in std::mem::take(&mut self.entries) {
            let nearest = nearest(&name, &self.known).map(|known| self.key(known));
            let reason = match &nearest {
                Some(_) => "is not known".to_owned(),
                None if self.known.is_empty() => "is not known".to_owned(),
                None => format!("is not known; known are {}", self.known.join(", ")),
            };
            self.report(&name, node.place, reason, nearest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        let read = |text: &str| ByteSize::read(&Value::String(text.into())).map(|size| size.0);
        assert_eq!(read("256 MiB"), Some(256 << 20));
        assert_eq!(read("2GB"), Some(2_000_000_000));
        assert_eq!(read("12"), None);
        assert_eq!(read("99999999999 GiB"), None);
        assert_eq!(ByteSize::read(&Value::Integer(-1)), None);
    }
}
