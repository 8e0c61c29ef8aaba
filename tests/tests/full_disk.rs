//! A file system of 64 MB, filled by somebody else while readings come in and the link is cut.
//! `cargo xtask prove full-disk` runs each policy for minutes; this is short.

use std::io::Write;
use std::time::Duration;
use tributary_tests::full_disk::Run;

#[test]
fn a_full_disk_ends_nothing_and_hides_nothing() {
    let run = Run {
        policy: "drop-oldest",
        sensors: 100,
        rate_hz: 20.0,
        gives_way: false,
        full: Duration::from_secs(5),
    };
    match run.run() {
        Ok(row) => eprintln!("{row}"),
        // Not by `eprintln`, which a test that passes keeps to itself: nothing was tested.
        Err(why) => writeln!(
            std::io::stderr(),
            "a_full_disk_ends_nothing_and_hides_nothing: NOT TESTED, no file system to fill: {why}"
        )
        .unwrap(),
    }
}
