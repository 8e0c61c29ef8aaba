//! stub
use anyhow::Result;
use std::path::Path;
#[derive(clap::Args)]
pub struct Arguments {}
pub fn run(_root: &Path, _arguments: &Arguments) -> Result<()> {
    Ok(())
}
