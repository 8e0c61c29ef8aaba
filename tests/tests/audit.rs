//! The audit and the proof, `tributary-sim verify`, on the same lakes: whatever was killed
//! meanwhile, they say the same; and what one finds wrong, the other does.

use std::path::{Path, PathBuf};
use tributary_sim::verify;
use tributary_tests::dice::Dice;
use tributary_tests::process::Process;
use tributary_tests::programs::program;
use tributary_tests::site::{Fleet, Site, assert_clean, backlog_gone};

const SEED: u64 = 20_261_127;
const KILLS: usize = 6;

/// Kills one of both, somewhere in its life, and starts it again. The aggregator is audited beside
/// its writes now and then.
fn kill_one(
    site: &Site,
    (agent, aggregator): (Process, Process),
    fleet: &Fleet,
    dice: &mut Dice,
) -> (Process, Process) {
    fleet.acknowledged(1 + dice.below(400));
    if dice.below(2) == 0 && site.aggregator_dir().join("journal").is_dir() {
        let (report, _) = site.audit();
        assert_eq!(report["findings"], serde_json::json!([]), "{report:#}");
    }
    match dice.below(2) {
        0 => {
            agent.kill();
            let mut agent = site.agent();
            agent.up();
            (agent, aggregator)
        }
        _ => {
            aggregator.kill();
            let aggregator = site.aggregator();
            (agent, aggregator)
        }
    }
}

fn parquet_below(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => parquet_below(&path, out),
            false => out.push(path),
        }
    }
    out.sort();
}

#[test]
fn after_random_kills_audit_and_proof_agree_also_on_what_is_broken() {
    let site = Site::new("audit");
    let mut dice = Dice::new(SEED);
    let mut both = (site.agent(), site.aggregator());
    both.0.up();
    let fleet = site.fleet(100, 10.0);
    for _ in 0..KILLS {
        both = kill_one(&site, both, &fleet, &mut dice);
    }
    let summary = fleet.end();
    let (mut agent, aggregator) = both;
    agent.up();
    backlog_gone(&agent);
    let proof = site.settle(agent, aggregator);
    assert_clean(&proof, &summary);
    let (report, code) = site.audit();
    assert_eq!(
        (&report["findings"], code),
        (&serde_json::json!([]), Some(0))
    );
    // Every reading of the lake is a row of the audit, too.
    let lanes = report["lanes"].as_array().unwrap().iter();
    let of_readings = lanes.filter(|lane| lane["lane"] == "telemetry");
    let rows: u64 = of_readings
        .filter_map(|lane| lane["lake"]["rows"].as_u64())
        .sum();
    assert_eq!(rows, proof.delivered);
    break_it(&site, &mut dice);
}

/// Takes a file of readings away, puts it there twice: both say so, and neither without.
fn break_it(site: &Site, dice: &mut Dice) {
    let mut files = Vec::new();
    parquet_below(&site.lake().join("readings"), &mut files);
    let file = &files[dice.below(files.len() as u64) as usize];
    let aside = site.path().join("aside.parquet");
    let agree = |site: &Site| {
        let proof = verify::compare(&site.lake(), &site.truth()).unwrap();
        let (report, code) = site.audit();
        let clean = report["findings"] == serde_json::json!([]);
        assert_eq!(code, Some(i32::from(!clean)));
        assert_eq!(proof.is_clean(), clean, "{report:#}\n{proof:#?}");
        clean
    };
    std::fs::rename(file, &aside).unwrap();
    assert!(!agree(site));
    std::fs::rename(&aside, file).unwrap();
    assert!(agree(site));
    let copy = file.parent().unwrap().with_file_name("event_hour=99");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(file, copy.join(file.file_name().unwrap())).unwrap();
    assert!(!agree(site));
    std::fs::remove_dir_all(copy).unwrap();
    assert!(agree(site));
}

#[test]
fn commands_say_by_their_exit_code_how_it_went() {
    let dir = tributary_tests::programs::scratch("audit-codes");
    let code = |name: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(program(name));
        let output = command.args(arguments).output().unwrap();
        output.status.code()
    };
    let nothing = dir.path().join("nothing");
    let nothing = nothing.to_str().unwrap();
    let aggregator = "tributary-aggregator";
    assert_eq!(code(aggregator, &["audit", "--data-dir", nothing]), Some(2));
    assert_eq!(code(aggregator, &["audit", "--merge", nothing]), Some(2));
    assert_eq!(code(aggregator, &["audit", "--no-such"]), Some(2));
    let quarantine = ["quarantine", "ls", "--data-dir", nothing];
    assert_eq!(code(aggregator, &quarantine), Some(2));
    let agent = "tributary-agent";
    for what in ["ls", "verify", "repair"] {
        let arguments = ["buffer", what, "--data-dir", nothing];
        assert_eq!(code(agent, &arguments), Some(2), "{what}");
    }
    assert!(!Path::new(nothing).exists(), "looking makes nothing");
}
