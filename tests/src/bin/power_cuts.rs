//! Power cuts at many operations of a recording, one bit flipped in each region of each file, and
//! each write, growth and sync failing once: what `cargo xtask prove power-cuts` runs.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Instant;
use tributary_tests::power::proof::{Extent, Part, run};

const USAGE: &str = "power_cuts cuts|bits|enospc|eio CUTS SEED EVERY: that part, with so many \
                     power cuts over one recording, chosen by SEED, and of all its runs one \
                     of EVERY";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let part = words.first().and_then(|name| {
        let mut parts = Part::ALL.into_iter();
        parts.find(|part| part.name() == name)
    });
    let number = |place: usize| words.get(place).and_then(|word| word.parse::<u64>().ok());
    let (Some(part), Some(cuts), Some(seed), Some(every)) = (
        part,
        number(1),
        number(2),
        number(3).filter(|every| *every > 0),
    ) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let extent = Extent {
        cuts: usize::try_from(cuts).unwrap_or(usize::MAX),
        seed,
        every: usize::try_from(every).unwrap_or(usize::MAX),
    };
    let begun = Instant::now();
    let rows = run(part, extent);
    let is_well = rows.iter().all(|row| row.broken == 0);
    let rows: Vec<serde_json::Value> = rows.iter().map(|row| row.json()).collect();
    let seconds = begun.elapsed().as_secs();
    println!(
        "{}",
        serde_json::json!({ "seconds": seconds, "rows": rows })
    );
    match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
