//! A device whose readings leave as aggregates, a spike in them, and the agent killed right behind
//! another: what is around both is in the lake, once, and nothing else.

use tributary_sim::sim::now_ms;
use tributary_sim::verify::numbers;
use tributary_tests::mqtt::Raw;
use tributary_tests::process::wait_for;
use tributary_tests::site::{Site, backlog_gone};

/// The same wherever it runs: a kernel's clock that nobody has set would have rules wait.
const SETTINGS: &str = "[detect]\nclock = \"plausible\"\npreset = \"quiet\"\nweekly = false\n\
    [[detect.rule]]\nname = \"wild\"\nkind = \"range\"\nmetric = \"level\"\n\
    min = 0\nmax = 100\n\
    [[detect.window]]\nname = \"ten\"\nkind = \"tumbling\"\nsize_ms = 10000\n\
    [[forward]]\ndevices = [\"tank\"]\nwhat = \"aggregates+raw-on-anomaly\"\n\
    [capture]\npre_s = 5\npost_s = 5\n";

/// Publishes readings of the tank, one for each second of its clock.
fn publish(raw: &mut Raw, begin: i64, seqs: impl Iterator<Item = i64>) {
    for seq in seqs {
        let value = match seq {
            60 | 200 => 150.0,
            _ => 50.0 + (seq as f64 * 0.7).sin(),
        };
        let ts = begin + seq * 1_000_000;
        let payload = format!("{{\"value\":{value},\"seq\":{seq},\"ts\":{ts}}}");
        raw.publish("tank/level", payload.as_bytes());
    }
}

#[test]
fn the_lake_has_aggregates_and_what_is_around_a_spike_though_the_agent_is_killed() {
    let site = Site::new("captures").with(SETTINGS);
    let (mut agent, mut aggregator) = (site.agent(), site.aggregator());
    agent.up();
    aggregator.up();
    let begin = now_ms() * 1_000 - 600_000_000;
    let mut raw = Raw::connected(site.mqtt, "tank");
    publish(&mut raw, begin, 0..=60);
    wait_for(
        "the capture",
        || agent.last_words(),
        || (agent.counter("tributary_agent_captures_total", "") >= 1).then_some(()),
    );
    publish(&mut raw, begin, 61..=200);
    agent.kill();
    agent = site.agent();
    agent.up();
    let mut raw = Raw::connected(site.mqtt, "tank");
    publish(&mut raw, begin, 201..300);
    let lake = || numbers(&site.lake(), "tank", "level").unwrap_or_default();
    wait_for(
        "the second spike in the lake",
        || format!("{:?} {}", lake(), agent.last_words()),
        || lake().contains(&200).then_some(()),
    );
    backlog_gone(&agent);
    assert!(agent.terminate().success());
    // All windows but the last, which is open.
    wait_for(
        "the aggregates in the lake",
        || aggregator.last_words(),
        || (aggregator.number("/lake/aggregates") >= 29).then_some(()),
    );
    assert!(aggregator.terminate().success());
    let stored = lake();
    let around = |seq: &i64| (55..=65).contains(seq) || (195..=205).contains(seq);
    let near: Vec<i64> = stored.iter().copied().filter(around).collect();
    let expected: Vec<i64> = (0..300).filter(around).collect();
    assert_eq!(near, expected, "each once");
    // The detector may have found the way back unusual, too.
    let is_far = |seq: &&i64| !(50..=75).contains(*seq) && !(190..=215).contains(*seq);
    let far: Vec<&i64> = stored.iter().filter(is_far).collect();
    assert!(far.is_empty(), "{far:?}");
    assert!(stored.windows(2).all(|two| two[0] < two[1]), "{stored:?}");
}
