//! How many bytes and nanoseconds a reading takes on the wire, beside what others send.
//!
//! `cargo run --release -p tributary-benches --bin wire -- --input DIR [--batch N] [--json]` takes
//! every CSV file below DIR. It measures formats only: no disk, no network.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

mod input;
mod measure;
mod peers;

use anyhow::Result;
use clap::Parser;
use measure::{Figures, Ours};
use serde::Serialize;
use std::path::PathBuf;

/// Measures bytes and nanoseconds per reading of Tributary's batches and of what others send.
#[derive(Parser)]
struct Arguments {
    /// Directory with CSV files: a header; the first column RFC 3339 or `YYYY-MM-DD HH:MM:SS`
    /// (UTC); each further column a series of numbers, of true and false, or of texts.
    #[arg(long)]
    input: PathBuf,
    /// Readings in one batch.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    batch: u32,
    /// Print one JSON object on the last line as well.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    batch: u32,
    definition_bytes: usize,
    files: Vec<FileReport>,
    total: Vec<Figures>,
}

#[derive(Serialize)]
struct FileReport {
    file: String,
    series: usize,
    readings: usize,
    formats: Vec<Figures>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let files = input::read_all(&arguments.input)?;
    println!(
        "{} readings a batch; a batch of ours is counted with frame header and envelope, and \
         carries quality and sequence number as well.\nHere received time = event time, quality \
         is good, and the sequence number counts within each series. Series definitions\nare \
         counted apart. Peers are payloads only. Nanoseconds of CPU: median of five, all formats \
         in turn; `verified` = sealed,\ndecoded and compared, as an agent does it.\n",
        arguments.batch
    );
    let mut report = Report {
        batch: arguments.batch,
        definition_bytes: 0,
        files: Vec::new(),
        total: Vec::new(),
    };
    for file in &files {
        report.definition_bytes += Ours::definition_bytes(file)?;
        let formats = measure::file(file, arguments.batch as usize)?;
        let heading = format!(
            "{}: {} series, {} readings",
            file.name,
            file.metrics.len(),
            file.items.len()
        );
        print_table(&heading, &formats);
        report.files.push(FileReport {
            file: file.name.clone(),
            series: file.metrics.len(),
            readings: file.items.len(),
            formats,
        });
    }
    report.total = measure::total(report.files.iter().map(|file| file.formats.as_slice()));
    print_table(&format!("total of {} files", files.len()), &report.total);
    println!(
        "every batch decoded to what went in; series definitions: {} bytes in all",
        report.definition_bytes
    );
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(())
}

fn print_table(heading: &str, formats: &[Figures]) {
    println!("{heading}");
    println!(
        "  {:<18}{:>14}{:>10}{:>12}{:>12}",
        "format", "bytes/reading", "to ours", "encode ns", "decode ns"
    );
    let ours = formats
        .first()
        .map_or(1.0, |figures| figures.bytes_per_reading);
    for figures in formats {
        println!(
            "  {:<18}{:>14.3}{:>9.2}x{:>12.0}{:>12.0}",
            figures.format,
            figures.bytes_per_reading,
            figures.bytes_per_reading / ours,
            figures.encode_ns,
            figures.decode_ns
        );
    }
    println!();
}
