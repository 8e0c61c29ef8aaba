//! Agent and aggregator over a link that loses, doubles, reorders and damages datagrams, and is
//! cut now and then.

use tributary_sim::relay::{Relay, Weather};
use tributary_tests::process::{Process, wait_for};
use tributary_tests::site::{Site, assert_clean, backlog_gone};

/// Waits until so many batches wait in the agent's spool.
fn backlog(agent: &Process, batches: u64) {
    wait_for(
        "a backlog",
        || agent.state(),
        || (agent.number("/uplink/backlog_batches") >= batches).then_some(()),
    );
}

#[test]
fn a_bad_link_that_is_cut_again_and_again_loses_and_doubles_nothing() {
    let site = Site::new("link");
    let weather = Weather {
        lost: 80,
        doubled: 50,
        late: 80,
        damaged: 20,
    };
    let relay = Relay::start(site.uplink, weather, 7).unwrap();
    let site = site.behind(relay.address);
    let (mut agent, mut aggregator) = (site.agent(), site.aggregator());
    agent.up();
    aggregator.up();
    let fleet = site.fleet(100, 10.0);
    for cut in 0..3 {
        let before = aggregator.number("/batches_accepted");
        wait_for(
            "batches over a bad link",
            || agent.state(),
            || (aggregator.number("/batches_accepted") > before + 3).then_some(()),
        );
        relay.cut();
        backlog(&agent, 5 + 5 * cut);
        relay.mend();
    }
    let summary = fleet.end();
    backlog_gone(&agent);
    let met = relay.met();
    for (fate, count) in [
        ("lost", met.lost),
        ("doubled", met.doubled),
        ("late", met.late),
        ("damaged", met.damaged),
    ] {
        assert!(count > 0, "no datagram was {fate}: {met:?}");
    }
    let report = site.settle(agent, aggregator);
    assert_clean(&report, &summary);
}
