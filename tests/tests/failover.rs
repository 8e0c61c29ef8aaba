//! An agent with two aggregators, each with a lake of its own: home is gone with batches that it
//! had and whose acknowledgements were not heard; the agent goes to the other, and comes home.

use std::ffi::OsStr;
use std::process::Command;
use tributary_sim::relay::{Relay, Weather};
use tributary_sim::verify;
use tributary_tests::process::{Process, wait_for};
use tributary_tests::programs::program;
use tributary_tests::site::{Site, backlog_gone};

/// Waits until the agent is there, as it says itself.
fn is_at(agent: &Process, away: bool) {
    wait_for(
        "the other aggregator",
        || agent.state(),
        || {
            let status = agent.status()?;
            let connected = status.pointer("/uplink/connected")? == true;
            (connected && status.pointer("/uplink/away")? == away).then_some(())
        },
    );
}

/// Waits until the aggregator took more batches.
fn takes(aggregator: &Process, more: u64) {
    let before = aggregator.number("/batches_accepted");
    wait_for(
        "batches",
        || aggregator.state(),
        || (aggregator.number("/batches_accepted") >= before + more).then_some(()),
    );
}

#[test]
fn what_home_had_and_did_not_acknowledge_is_in_two_lakes_and_marked_in_one() {
    let (home, away) = (Site::new("home"), Site::new("away"));
    away.pki.aggregator.become_like(&home.pki.aggregator);
    let relay = Relay::start(home.uplink, Weather::default(), 7).unwrap();
    let endpoints = format!("[\"{}\", \"{}\"]", relay.address, away.uplink);
    let settings = [
        ("TRIBUTARY_AGENT__UPLINK__ENDPOINTS", endpoints.as_str()),
        ("TRIBUTARY_AGENT__UPLINK__FAILOVER_AFTER_S", "1"),
        ("TRIBUTARY_AGENT__UPLINK__FAILOVER_HOLD_S", "1"),
        ("TRIBUTARY_AGENT__UPLINK__RETURN_AFTER_S", "1"),
    ];
    let settings = settings.map(|(name, value)| (name, OsStr::new(value)));
    let mut agent = home.agent_with(&settings);
    let (mut first, mut second) = (home.aggregator(), away.aggregator());
    for process in [&mut agent, &mut first, &mut second] {
        process.up();
    }
    is_at(&agent, false);
    let fleet = home.fleet(50, 10.0);
    takes(&first, 3);
    // Home takes what arrives, and the agent does not hear of it.
    relay.mute();
    takes(&first, 2);
    first.kill();
    is_at(&agent, true);
    takes(&second, 3);
    // What may be at home waits no longer.
    relay.mend();
    let mut first = home.aggregator();
    first.up();
    is_at(&agent, false);
    takes(&first, 3);
    let summary = fleet.end();
    backlog_gone(&agent);
    home.end(agent, first);
    assert!(second.terminate().success());
    let lakes = [home.lake(), away.lake()];
    let report = verify::compare_all(&lakes, &home.truth()).unwrap();
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(report.acknowledged, summary.counts.acknowledged);
    assert_eq!(report.delivered, report.published, "{report:#?}");
    assert!(report.twice_in_doubt > 0, "{report:#?}");
    let mut audit = Command::new(program("tributary-aggregator"));
    audit.args(["audit", "--deep", "--merge"]);
    audit.args([home.aggregator_dir(), away.aggregator_dir()]);
    let said = audit.output().unwrap();
    assert!(said.status.success(), "{said:?}");
}
