//! Measures how long alerts take, in one case after the other: what `cargo xtask prove latency`
//! runs. Prints what it found as JSON on its last line.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use tributary_tests::latency::cases::{self, Amount, Case};
use tributary_tests::latency::load::Plan;
use tributary_tests::latency::restarts;

const USAGE: &str = "latency SPIKES RESTARTS [CASE]: so many spikes in each case, and restarts; \
                     only the case connected, offline, backlog, slow-disk, windows or \
                     restarts";

/// 10,000 readings a second over 200 connections, ten a second of each series. Spikes are a little
/// rarer than the 20 alerts a second that are told one by one.
const PLAN: Plan = Plan {
    connections: 200,
    series: 1_000,
    rate: 10_000,
};
/// Shares no divisor with the number of series, so that each has its turn.
const SPIKE_EVERY: u64 = 627;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers = arguments.iter().map_while(|text| text.parse().ok());
    let &[spikes, restarts] = &*numbers.collect::<Vec<u64>>() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let only = arguments.get(2).map_or("", String::as_str);
    let amount = Amount {
        plan: PLAN,
        spike_every: SPIKE_EVERY,
        spikes,
    };
    let mut found = Vec::new();
    for case in Case::ALL {
        if only.is_empty() || only == case.name() {
            let came = cases::run(case, &amount);
            eprintln!("{came}");
            found.push(came);
        }
    }
    if restarts > 0 && (only.is_empty() || only == "restarts") {
        found.push(restarts::run(&amount, restarts, 1));
    }
    println!(
        "{}",
        serde_json::json!({ "cases": found, "plan": {
            "connections": PLAN.connections, "series": PLAN.series, "rate": PLAN.rate,
        }})
    );
    ExitCode::SUCCESS
}
