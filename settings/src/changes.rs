//! What differs between two documents, as people name it: `[wal] quota_bytes`, `[[decode]]`.

use super::{Table, Value};
use std::collections::BTreeSet;

impl Table {
    /// What differs in the section or setting `path`, whose parts `.` joins: each setting with its
    /// section, a list of sections as a whole.
    pub fn differences(&self, other: &Self, path: &str) -> Vec<String> {
        let mut found = Vec::new();
        differ(path, self.at(path), other.at(path), &mut found);
        found
    }

    fn at(&self, path: &str) -> Option<&Value> {
        let (first, rest) = match path.split_once('.') {
            Some((first, rest)) => (first, Some(rest)),
            None => (path, None),
        };
        match (&self.0.get(first)?.value, rest) {
            (value, None) => Some(value),
            (Value::Table(table), Some(rest)) => table.at(rest),
            _ => None,
        }
    }
}

fn keys(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let table = match value {
        Some(Value::Table(table)) => Some(table),
        _ => None,
    };
    table
        .into_iter()
        .flat_map(|table| table.0.keys().map(String::as_str))
}

fn below<'a>(value: Option<&'a Value>, key: &str) -> Option<&'a Value> {
    match value {
        Some(Value::Table(table)) => table.0.get(key).map(|node| &node.value),
        _ => None,
    }
}

fn differ(path: &str, a: Option<&Value>, b: Option<&Value>, found: &mut Vec<String>) {
    if a == b {
        return;
    }
    let of_table = |value: Option<&Value>| matches!(value, None | Some(Value::Table(_)));
    if of_table(a) && of_table(b) {
        let keys: BTreeSet<&str> = [a, b].into_iter().flat_map(keys).collect();
        for key in keys {
            differ(
                &format!("{path}.{key}"),
                below(a, key),
                below(b, key),
                found,
            );
        }
        return;
    }
    let sections = [a, b].into_iter().flatten();
    let lists = sections.filter_map(|value| match value {
        Value::Tables(tables) => Some(tables.iter().map(|(_, table)| table).collect::<Vec<_>>()),
        _ => None,
    });
    let lists: Vec<_> = lists.collect();
    match (lists.as_slice(), path.rsplit_once('.')) {
        // Where they stand is no matter.
        ([a, b], _) if a == b => {}
        ([_, ..], _) => found.push(format!("[[{path}]]")),
        ([], Some((section, key))) => found.push(format!("[{section}] {key}")),
        ([], None) => found.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Document, Table};

    fn table(text: &str) -> Table {
        Document::parse(text, "P", []).written().clone()
    }

    #[test]
    fn what_differs_is_named_with_its_section() {
        let before = table("[wal]\na = 1\nb = 2\n[s.lanes.x]\nc = 1\n[[d]]\ne = 1\n");
        let after = table("\n[[d]]\ne = 1\n[wal]\nb = 3\n[s.lanes.x]\nc = 1\nf = [1]\n");
        assert_eq!(before.differences(&after, "wal"), ["[wal] a", "[wal] b"]);
        assert_eq!(before.differences(&after, "wal.b"), ["[wal] b"]);
        assert_eq!(before.differences(&after, "s"), ["[s.lanes.x] f"]);
        assert_eq!(before.differences(&table(""), "s"), ["[s.lanes.x] c"]);
        let none: [&str; 0] = [];
        assert_eq!(
            before.differences(&after, "d"),
            none,
            "only its place changed"
        );
        assert_eq!(before.differences(&table("[[d]]\ne = 2\n"), "d"), ["[[d]]"]);
        assert_eq!(before.differences(&table(""), "d"), ["[[d]]"]);
        assert_eq!(before.differences(&after, "no.such"), none);
    }
}
