//! A day of a gateway in fast motion: what is written to disk, made durable, and sent, beside the
//! budget of writes.
//!
//! `cargo run --release -p tributary-benches --bin day -- [--json]` drives the agent's own group
//! commit, write-ahead log, sealing stage, spool and checkpoints over real files, told a time that
//! does not pass. An fdatasync is counted and left out: it would take the day that this saves.
//! Everything sealed is acknowledged at once. No network and no MQTT.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

mod disk;
mod fleet;
mod gateway;

use anyhow::Result;
use clap::Parser;
use gateway::{Figures, Gateway, Profile};
use serde::Serialize;
use std::path::PathBuf;

/// One day of gateways, in fast motion.
#[derive(Parser)]
struct Arguments {
    /// Where to make the folder that is written to, and removed at the end.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Hours of the slow gateway.
    #[arg(long, default_value_t = 24)]
    hours: u32,
    /// Hours of the fast one; its figures are those of the last of them, times 24.
    #[arg(long, default_value_t = 2)]
    fast_hours: u32,
    /// Print one JSON object on the last line as well.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    days: Vec<Figures>,
}

/// The slow gateway, and the fast one: readings a second, sensors, and what is configured.
const GATEWAYS: [(u32, u32, &[Profile]); 2] = [
    (
        10,
        10,
        &[
            Profile::plain("default", 20),
            Profile::plain("sd-card", 100),
            Profile::budget("sd-card, 4 GB a day", 100, 4),
            Profile::budget("sd-card, 1 GB a day", 100, 1),
        ],
    ),
    (
        10_000,
        1_000,
        &[
            Profile::plain("default", 20),
            Profile::plain("sd-card", 100),
            Profile::budget("sd-card, 150 GB a day", 100, 150),
            Profile::budget("sd-card, 20 GB a day", 100, 20),
        ],
    ),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut days = Vec::new();
    for (rate, sensors, profiles) in GATEWAYS {
        let hours = match rate {
            10 => arguments.hours,
            _ => arguments.fast_hours,
        };
        for profile in profiles {
            let place = tempfile::Builder::new()
                .prefix("day-bench-")
                .tempdir_in(&arguments.dir)?;
            let gateway = Gateway::open(place.path(), (rate, sensors), *profile)?;
            let figures = gateway.run(hours)?;
            print_table(&figures);
            days.push(figures);
        }
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&Report { days })?);
    }
    Ok(())
}

fn print_table(figures: &Figures) {
    println!("{} readings a second, {}", figures.rate, figures.profile);
    let gb = |bytes: f64| format!("{:.3} GB", bytes / 1e9);
    println!("  written to files    {}", gb(figures.written_bytes));
    println!("  fdatasyncs          {:.0}", figures.fdatasyncs);
    println!("  on the device       {}", gb(figures.device_bytes));
    println!("  sent                {}", gb(figures.sent_bytes));
    println!("  mean commit delay   {:.0} ms", figures.delay_ms);
    println!("  the budget          {}\n", figures.wear);
}
