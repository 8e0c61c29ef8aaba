//! From what the benches print to tables. A figure that is missing is an error, not a gap.

use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write;

/// Columns of the storage table: heading, key, digits.
const STORAGE: [(&str, &str, usize); 9] = [
    ("CPU µs a reading", "cpu_us_per_reading", 3),
    ("CPU ms", "cpu_ms", 1),
    ("elapsed ms", "elapsed_ms", 1),
    ("readings a second", "readings_per_s", 0),
    ("bytes written", "written_bytes", 0),
    ("written to payload", "written_to_payload", 3),
    ("written to payload + topic", "written_to_message", 3),
    ("fdatasyncs", "fdatasyncs", 0),
    ("peak memory MiB", "peak_rss_mib", 1),
];

/// A table for each measure of the bench `storage`.
pub fn storage(report: &Value) -> Result<String> {
    let mut text = String::new();
    for measure in list(report, "measures")? {
        let (name, about) = (word(measure, "measure")?, word(measure, "about")?);
        writeln!(text, "### {name}\n\n{about}.\n\n| | |\n|---|---|")?;
        for (heading, key, digits) in STORAGE {
            let spread = measure
                .get(key)
                .with_context(|| format!("{name}: no `{key}`"))?;
            // What has no readings has no figure a reading; what writes nothing, no bytes.
            if spread.is_null() || number(spread, "max")? == 0.0 {
                continue;
            }
            let figures = ["median", "min", "max"].map(|part| number(spread, part));
            let [median, min, max] = figures;
            writeln!(
                text,
                "| {heading} | {} |",
                shown(median?, min?, max?, digits)
            )?;
        }
        text.push('\n');
    }
    Ok(text)
}

/// Columns of the table of days: heading, key, what one unit is, digits.
const DAY: [(&str, &str, f64, usize); 5] = [
    ("written, GB", "written_bytes", 1e9, 3),
    ("fdatasyncs", "fdatasyncs", 1.0, 0),
    ("on the device, GB", "device_bytes", 1e9, 2),
    ("sent, GB", "sent_bytes", 1e9, 3),
    ("mean commit delay, ms", "delay_ms", 1.0, 0),
];

/// A table of days: what each costs, beside its budget of writes.
pub fn day(report: &Value) -> Result<String> {
    let mut text = "24 hours of the agent's storage in fast motion; 10,000 readings a second: the \
                    last of some hours, times 24.\nWhat the device writes is a model, see \
                    docs/storage.md.\n\n"
        .to_owned();
    let headings: Vec<&str> = DAY.iter().map(|(heading, ..)| *heading).collect();
    let rule = "---|".repeat(DAY.len() + 3);
    writeln!(
        text,
        "| readings a second | configured | {} | the budget |\n|{rule}",
        headings.join(" | ")
    )?;
    for day in list(report, "days")? {
        let (rate, profile) = (number(day, "rate")?, word(day, "profile")?);
        write!(text, "| {rate} | {profile} |")?;
        for (_, key, unit, digits) in DAY {
            write!(text, " {:.digits$} |", number(day, key)? / unit)?;
        }
        writeln!(text, " {} |", word(day, "wear")?)?;
    }
    Ok(text)
}

/// A table over all files, and one with the bytes of each file, from several runs of `wire`.
pub fn wire(runs: &[Value]) -> Result<String> {
    let first = runs.first().context("no run")?;
    let mut text = format!(
        "{} readings a batch. Ours: frame header and envelope counted, quality and sequence \
         number carried; series definitions\n({} bytes in all) apart. Peers: payloads only.\n\n",
        number(first, "batch")?,
        number(first, "definition_bytes")?
    );
    text += "| all files | bytes a reading | encode ns | decode ns |\n|---|---|---|---|\n";
    for (row, format) in list(first, "total")?.iter().enumerate() {
        let of = |key: &str, digits| -> Result<String> {
            let one = |run| number(list(run, "total")?.get(row).context("another format")?, key);
            let mut values = runs.iter().map(one).collect::<Result<Vec<f64>>>()?;
            values.sort_by(f64::total_cmp);
            let at = |index: usize| values.get(index).copied().context("no run");
            Ok(shown(
                at(values.len() / 2)?,
                at(0)?,
                at(values.len() - 1)?,
                digits,
            ))
        };
        let name = word(format, "format")?.trim();
        let (bytes, encode) = (of("bytes_per_reading", 3)?, of("encode_ns", 0)?);
        writeln!(
            text,
            "| {name} | {bytes} | {encode} | {} |",
            of("decode_ns", 0)?
        )?;
    }
    text += &files(first)?;
    Ok(text)
}

/// Bytes a reading of each file: the same in every run.
fn files(run: &Value) -> Result<String> {
    let names = list(run, "total")?
        .iter()
        .map(|format| word(format, "format"));
    let names = names.collect::<Result<Vec<_>>>()?;
    // What is also verified has the same bytes.
    let shown = |name: &&str| name.trim() != "verified";
    let headings: Vec<&str> = names.iter().copied().filter(|name| shown(name)).collect();
    let rule = "---|".repeat(headings.len() + 2);
    let mut text = format!(
        "\n| bytes a reading | readings | {} |\n|{rule}\n",
        headings.join(" | ")
    );
    for file in list(run, "files")? {
        write!(
            text,
            "| {} | {} |",
            word(file, "file")?,
            number(file, "readings")?
        )?;
        for format in list(file, "formats")? {
            if shown(&word(format, "format")?) {
                write!(text, " {:.3} |", number(format, "bytes_per_reading")?)?;
            }
        }
        text.push('\n');
    }
    Ok(text)
}

fn shown(median: f64, min: f64, max: f64, digits: usize) -> String {
    let number = |x: f64| format!("{x:.digits$}");
    if number(min) == number(max) {
        return number(median);
    }
    format!("{} ({} to {})", number(median), number(min), number(max))
}

/// A list of what a bench printed.
pub fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    let list = value.get(key).and_then(Value::as_array);
    list.with_context(|| format!("the bench printed no list `{key}`"))
}

/// A text of it.
pub fn word<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    let word = value.get(key).and_then(Value::as_str);
    word.with_context(|| format!("the bench printed no text `{key}`"))
}

/// A number of it.
pub fn number(value: &Value, key: &str) -> Result<f64> {
    let number = value.get(key).and_then(Value::as_f64);
    number.with_context(|| format!("the bench printed no number `{key}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wire_run(encode: f64) -> Value {
        let format = |name: &str, bytes: f64| {
            json!({"format": name, "bytes_per_reading": bytes, "encode_ns": encode,
                   "decode_ns": 20.0})
        };
        let formats = json!([format("tributary", 0.5), format("  verified", 0.5)]);
        json!({"batch": 1024, "definition_bytes": 7, "total": formats,
               "files": [{"file": "a.csv", "readings": 9, "formats": formats}]})
    }

    #[test]
    fn runs_of_wire_become_medians_with_their_spread() {
        let text = wire(&[wire_run(70.0), wire_run(60.0), wire_run(90.0)]).unwrap();
        assert!(
            text.contains("| tributary | 0.500 | 70 (60 to 90) | 20 |\n"),
            "{text}"
        );
        assert!(text.contains("| verified | 0.500 |"), "{text}");
        assert!(text.contains("| bytes a reading | readings | tributary |\n|---|---|---|\n"));
        assert!(text.ends_with("| a.csv | 9 | 0.500 |\n"), "{text}");
        assert!(
            wire(&[json!({"batch": 1024})]).is_err(),
            "a missing figure is an error"
        );
    }

    #[test]
    fn days_become_a_table() {
        let day = json!({"rate": 10, "profile": "sd-card", "hours": 24, "written_bytes": 1.5e8,
            "fdatasyncs": 604935.0, "device_bytes": 5.4e9, "sent_bytes": 1.8e7, "delay_ms": 100.0,
            "wear": "none"});
        let text = super::day(&json!({"days": [day]})).unwrap();
        let row = "| 10 | sd-card | 0.150 | 604935 | 5.40 | 0.018 | 100 | none |\n";
        assert!(text.ends_with(row), "{text}");
        assert!(super::day(&json!({"days": [{"rate": 10}]})).is_err());
    }

    #[test]
    fn measures_of_storage_become_tables() {
        let spread = |x: f64| json!({"median": x, "min": x - 1.0, "max": x + 1.0});
        let mut measure = json!({"measure": "open", "about": "opens"});
        for (_, key, _) in STORAGE {
            measure[key] = spread(5.0);
        }
        measure["cpu_us_per_reading"] = Value::Null;
        measure["written_bytes"] = json!({"median": 0.0, "min": 0.0, "max": 0.0});
        let text = storage(&json!({"measures": [measure]})).unwrap();
        assert!(text.starts_with("### open\n\nopens.\n"), "{text}");
        assert!(text.contains("| CPU ms | 5.0 (4.0 to 6.0) |\n"), "{text}");
        assert!(
            !text.contains("CPU µs a reading") && !text.contains("bytes written"),
            "{text}"
        );
        measure.as_object_mut().unwrap().remove("fdatasyncs");
        assert!(storage(&json!({"measures": [measure]})).is_err());
    }
}
