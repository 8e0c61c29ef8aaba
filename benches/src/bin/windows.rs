//! What event time and windows cost a reading.
//!
//! `cargo run --release -p tributary-benches --bin windows -- [--json]` passes readings of series
//! at 10 Hz through the agent's own event time and windows, as its detection does: each device
//! has ten. No log, no decoding, no detectors.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use anyhow::{Result, bail};
use clap::Parser;
use serde::Serialize;
use std::time::Instant;
use tributary_agent::detect::{
    DeviceSlot, EventTime, Gateway, Place, Sample, SeriesSlot, TimeSettings, Timed, WindowSpecs,
    Windows,
};
use tributary_settings::Document;

/// Nanoseconds a reading, and bytes a series.
#[derive(Parser)]
struct Arguments {
    /// Series, ten of each device, each with ten readings a second.
    #[arg(long, default_value_t = 1_000)]
    series: u32,
    /// Seconds of readings.
    #[arg(long, default_value_t = 300)]
    seconds: i64,
    /// Print one JSON object on the last line as well.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Figures {
    what: &'static str,
    ns_a_reading: f64,
    bytes_a_series: usize,
    aggregates: usize,
}

const CASES: [(&str, &str); 4] = [
    ("event time alone", ""),
    (
        "tumbling, 1 s",
        "[[detect.window]]\nname = \"a\"\nkind = \"tumbling\"\nsize_ms = 1_000\n",
    ),
    (
        "sliding, 60 s every 10 s",
        "[[detect.window]]\nname = \"a\"\nkind = \"sliding\"\nsize_ms = 60_000\n\
         every_ms = 10_000\n",
    ),
    (
        "sliding, 60 s every 1 s",
        "[[detect.window]]\nname = \"a\"\nkind = \"sliding\"\nsize_ms = 60_000\n\
         every_ms = 1_000\n",
    ),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    println!("| windows | ns a reading | bytes a series | aggregates |");
    println!("|---|---:|---:|---:|");
    let mut all = Vec::new();
    for (what, text) in CASES {
        let figures = measure(what, text, &arguments)?;
        println!(
            "| {what} | {:.0} | {} | {} |",
            figures.ns_a_reading, figures.bytes_a_series, figures.aggregates
        );
        all.push(figures);
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&all)?);
    }
    Ok(())
}

fn measure(what: &'static str, text: &str, arguments: &Arguments) -> Result<Figures> {
    let mut document = Document::parse(text, "", []);
    let specs = WindowSpecs::read(&mut document.root().section("detect"));
    if let Some(wrong) = document.finish().first() {
        bail!("{wrong}");
    }
    let mut times = EventTime::new(TimeSettings::default());
    let mut windows = Windows::new(specs, TimeSettings::default());
    let mut out = Vec::new();
    let (mut aggregates, mut most) = (0, 0);
    // 2026-05-01.
    let begin = 1_777_593_600_000_000_i64;
    let began = Instant::now();
    for tenth in 0..arguments.seconds * 10 {
        let received_time = begin + tenth * 100_000;
        let steady = times.at(&Gateway {
            received_time,
            synchronised: true,
            greatest_time: 0,
        });
        windows.tick(steady, &mut out);
        for series in 0..arguments.series {
            let device = DeviceSlot(series / 10);
            let verdict = times.step(&Timed {
                device,
                event_time: received_time + i64::from(series % 10),
                has_device_time: true,
            });
            // Something between 18 and 26, slowly.
            let noise = (tenth * 7_919 + i64::from(series) * 104_729) % 1_000;
            let sample = Sample {
                event_time: verdict.time,
                received_time,
                value: 18.0 + noise as f64 / 125.0,
                late: verdict.late,
                trusted: verdict.trusted,
            };
            let place = Place {
                series: SeriesSlot(series),
                device,
                device_name: "device",
                metric: "temperature",
                unit: "",
            };
            windows.step(&place, &sample, &verdict.progress, &mut out);
        }
        aggregates += out.len();
        out.clear();
        most = most.max(windows.state_bytes());
    }
    let readings = arguments.seconds * 10 * i64::from(arguments.series);
    Ok(Figures {
        what,
        ns_a_reading: began.elapsed().as_nanos() as f64 / readings.max(1) as f64,
        bytes_a_series: most / arguments.series.max(1) as usize,
        aggregates,
    })
}
