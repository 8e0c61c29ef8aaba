//! `cargo xtask prove detection-cost`: the bench `detection` as tables.

use super::table::{list, number, word};
use anyhow::Result;
use serde_json::Value;
use std::fmt::Write;

/// A table for each measure.
pub fn tables(report: &Value) -> Result<String> {
    let mut text = format!(
        "Medians of five runs, with the least and the greatest behind each; time is the \
         processor's, kernel included.\nThe state of the default detector is {} bytes a series; \
         `memory` and `checkpoint` are of {} series.\n\n\
         | | | |\n|---|---|---|\n",
        number(report, "state_bytes")?,
        number(report, "series")?
    );
    for measure in list(report, "measures")? {
        let name = word(measure, "measure")?;
        let about = word(measure, "about")?;
        for (place, row) in list(measure, "rows")?.iter().enumerate() {
            let [median, min, max] = ["median", "min", "max"].map(|key| number(row, key));
            let digits = number(row, "digits")? as usize;
            let what = word(row, "what")?;
            let first = match place {
                0 => format!("{name}: {about}"),
                _ => String::new(),
            };
            writeln!(
                text,
                "| {first} | {what} | {:.digits$} ({:.digits$} to {:.digits$}) |",
                median?, min?, max?
            )?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn measures_become_rows() {
        let row = json!({"what": "ns", "digits": 1, "median": 2.0, "min": 1.0, "max": 3.0});
        let report = json!({"state_bytes": 768, "series": 10,
            "measures": [{"measure": "a", "about": "b", "rows": [row, row]}]});
        let text = tables(&report).unwrap();
        let rows = "| a: b | ns | 2.0 (1.0 to 3.0) |\n|  | ns | 2.0 (1.0 to 3.0) |\n";
        assert!(text.ends_with(rows), "{text}");
        assert!(tables(&json!({"state_bytes": 1, "series": 1})).is_err());
    }
}
