//! `cargo xtask prove model`: every order of events of each scope of the model, the larger ones as
//! well, on all cores.

use super::last_line;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;

/// Checks them; ends with an error if a rule does not hold. A row for each scope.
pub fn run(root: &Path) -> Result<Vec<Value>> {
    let mut command = vec!["run", "--profile", "sim", "--quiet"];
    command.extend(["-p", "tributary-model", "--bin", "model", "--", "--proof"]);
    let figures = last_line(root, &command)?;
    let rows = figures.as_array().context("the last line is no list")?;
    ensure!(!rows.is_empty(), "nothing was checked");
    Ok(rows.clone())
}
