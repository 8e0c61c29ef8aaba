//! A file system of 64 MB, filled by somebody else while readings come in and the link is cut.
//! `cargo xtask prove full-disk` runs each policy on each file system for minutes; this is short.

use std::time::Duration;
use tributary_tests::full_disk::Run;
use tributary_tests::small_disk::Kind;

#[test]
fn a_full_disk_ends_nothing_and_hides_nothing() {
    let run = Run {
        kind: Kind::Tmpfs,
        policy: "drop-oldest",
        sensors: 100,
        rate_hz: 20.0,
        gives_way: false,
        full: Duration::from_secs(5),
    };
    eprintln!("{}", run.run());
}
