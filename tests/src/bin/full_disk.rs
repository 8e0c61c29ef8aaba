//! `cargo xtask prove full-disk`: each policy, one after the other, with 10,000 readings a second.
//! Mounting needs root; where it is not permitted nothing is proven, and it ends with 1. The last
//! line is JSON.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Duration;
use tributary_tests::full_disk::Run;

const POLICIES: [&str; 3] = ["drop-oldest", "drop-newest", "block"];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok());
    let only = arguments.next().unwrap_or_default();
    let mut rows = Vec::new();
    for policy in POLICIES.into_iter().filter(|name| name.contains(&only)) {
        let run = Run {
            policy,
            sensors: 1_000,
            rate_hz: 10.0,
            gives_way: true,
            full: Duration::from_secs(seconds.unwrap_or(300)),
        };
        match run.run() {
            Ok(row) => {
                eprintln!("{row}");
                rows.push(row);
            }
            Err(why) => {
                eprintln!("{policy}: nothing is proven, there is no file system to fill: {why}");
                return ExitCode::from(1);
            }
        }
    }
    println!("{}", serde_json::Value::from(rows));
    ExitCode::SUCCESS
}
