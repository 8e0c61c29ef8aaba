//! Power cuts at many operations of a recording, one bit flipped in each region of each file, and
//! each write and sync failing once: what `cargo xtask prove power-cuts` runs.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use tributary_tests::power::proof::{Part, run};

const USAGE: &str = "power_cuts CUTS SEED [cuts|bits|faults]: so many power cuts over one \
                     recording, chosen by SEED; then bits of its files, and single calls that fail";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let parts: &[Part] = match words.get(2) {
        None => &[Part::Cuts, Part::Bits, Part::Faults],
        Some(&"cuts") => &[Part::Cuts],
        Some(&"bits") => &[Part::Bits],
        Some(&"faults") => &[Part::Faults],
        Some(_) => &[],
    };
    let number = |place: usize| words.get(place).and_then(|word| word.parse::<u64>().ok());
    let (Some(cuts), Some(seed), false) = (number(0), number(1), parts.is_empty()) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let rows = run(parts, usize::try_from(cuts).unwrap_or(usize::MAX), seed);
    let is_well = rows.iter().all(|row| row.is_well());
    let rows: Vec<serde_json::Value> = rows.iter().map(|row| row.json()).collect();
    println!("{}", serde_json::Value::from(rows));
    match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
