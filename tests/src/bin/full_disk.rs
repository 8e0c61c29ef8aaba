//! `cargo xtask prove full-disk`: each policy on each file system, one after the other, with
//! 10,000 readings a second. Mounting needs root; where it is not permitted, that is said, and
//! nothing is proven.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::time::Duration;
use tributary_tests::full_disk::Run;
use tributary_tests::small_disk::Kind;

const POLICIES: [&str; 3] = ["drop-oldest", "drop-newest", "block"];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok());
    let only = arguments.next().unwrap_or_default();
    for kind in [Kind::Tmpfs, Kind::Ext4] {
        for policy in POLICIES {
            if !format!("{kind:?}-{policy}").to_lowercase().contains(&only) {
                continue;
            }
            let run = Run {
                kind,
                policy,
                sensors: 1_000,
                rate_hz: 10.0,
                gives_way: true,
                full: Duration::from_secs(seconds.unwrap_or(300)),
            };
            println!("{}", run.run());
        }
    }
}
