//! The least storage that can be configured, filled several times over.

use tributary_tests::mqtt::Raw;
use tributary_tests::process::wait_for;
use tributary_tests::site::{Site, backlog_gone};

/// A reading in a message as large as a packet may be, nearly: what fills the log is not what
/// fills the spool.
fn fat(number: u32) -> Vec<u8> {
    let mut payload = format!("{{\"value\": {number}, \"seq\": {number}").into_bytes();
    payload.resize(240 * 1024, b' ');
    payload.push(b'}');
    payload
}

#[test]
fn the_least_log_takes_many_times_its_quota() {
    let site = Site::new("small");
    let (mut agent, mut aggregator) = (site.agent(), site.aggregator());
    agent.up();
    aggregator.up();
    let mut messages = 0;
    // Small segments of earlier lives take their share of the quota too.
    for life in 1..=3 {
        let mut client = Raw::connected(site.mqtt, "fat");
        for _ in 0..3 * 16 * 1024 / 240 {
            client.publish("fat/t", &fat(messages));
            messages += 1;
        }
        backlog_gone(&agent);
        if life < 3 {
            agent.kill();
            agent = site.agent();
            agent.up();
        }
    }
    let rows = || aggregator.number("/readings_accepted");
    wait_for(
        "all readings",
        || agent.state(),
        || (rows() == u64::from(messages)).then_some(()),
    );
    assert!(agent.terminate().success());
    assert!(aggregator.terminate().success());
}
