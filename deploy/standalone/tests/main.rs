//! The program as a person starts it: a short demo, from its arguments to its last line; what
//! becomes of one that is killed or interrupted.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod chaos;

use std::process::Command;

#[test]
fn a_short_demo_delivers_everything_once_and_says_so() {
    let data_dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let demo = Command::new(env!("CARGO_BIN_EXE_tributary"))
        .args([
            "demo",
            "--for",
            "2s",
            "--sensors",
            "50",
            "--rate",
            "10",
            "--json",
        ])
        .arg("--data-dir")
        .arg(data_dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success(), "{said}");
    let out = String::from_utf8(demo.stdout).unwrap();
    let summary: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let published = summary["published"].as_u64().unwrap();
    assert!(published > 500, "{summary}");
    assert_eq!(summary["delivered"], published);
    assert_eq!(
        (&summary["lost"], &summary["duplicates"]),
        (&0.into(), &0.into())
    );
    for key in ["p50", "p99", "p999", "max"] {
        assert!(summary["alert_latency_ms"][key].is_number(), "{summary}");
    }
    for key in ["kills_agent", "kills_aggregator", "link_cuts"] {
        assert_eq!(summary[key], 0, "{summary}");
    }
    assert!(summary["bytes_per_reading"].as_f64().unwrap() > 0.0);
}
