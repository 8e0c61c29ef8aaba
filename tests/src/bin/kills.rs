//! Kills an agent at chosen steps of its commits as often as it is told to, and says what came of
//! it: what `cargo xtask prove kills` runs.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use tributary_tests::kills::{Kills, Point, run};

const USAGE: &str = "kills COUNT QOS SEED: COUNT times between fdatasync and acknowledgement, and \
                     a tenth as often at each other point";

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .map_while(|text| text.parse().ok())
        .collect();
    let [count, qos @ 1..=2, seed] = *numbers.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let outcome = run(Kills {
        synced: count,
        others: count / 10,
        qos: qos as u8,
        seed,
    });
    let mut line = serde_json::json!({
        "qos": qos,
        "seed": seed,
        "published": outcome.report.published,
        "acknowledged": outcome.report.acknowledged,
        "delivered": outcome.report.delivered,
        "redelivered": outcome.fleet.counts.resent,
        "lost": outcome.report.lost,
        "duplicates": outcome.report.duplicates,
        "altered": outcome.report.changed + outcome.report.foreign,
        "elapsed_s": (outcome.seconds * 10.0).round() / 10.0,
    });
    for (point, kills) in Point::ALL.iter().zip(outcome.kills) {
        if let Some(line) = line.as_object_mut() {
            line.insert(format!("kills_{}", point.name()), kills.into());
        }
    }
    println!("{line}");
    ExitCode::SUCCESS
}
