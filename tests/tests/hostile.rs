//! Bad input and bad certificates, with good readings beside them: those all arrive, once.

use tributary_tests::mqtt::{Raw, connect, publish};
use tributary_tests::process::{Process, wait_for};
use tributary_tests::site::{Site, assert_clean, backlog_gone};

const DEAD: &str = "tributary_agent_dead_letters_total";

/// Payloads that are none, and the reason under which they are kept.
const BAD_PAYLOADS: [(&[u8], &str); 12] = [
    (b"", "empty"),
    (b"{\"value\": 21.5", "json"),
    (b"{\"value\": 21.5}}", "json"),
    (b"{value: 21.5}", "json"),
    (b"[1, 2, [3]]", "json"),
    (b"\xff\xfe\x00binary", "not_utf8"),
    (b"{\"value\": 1e999}", "number"),
    (b"{\"value\": 1, \"ts\": true}", "time"),
    (b"{\"value\": 1, \"ts\": \"yesterday\"}", "time"),
    (b"{\"value\": 1, \"unit\": 5}", "unit"),
    (b"{\"value\": 1, \"quality\": \"so so\"}", "quality"),
    (b"{\"value\": 1, \"value\": 2}", "twice"),
];

/// Payloads that look odd and hold readings; without a time, the agent's own is taken.
const GOOD_PAYLOADS: [&[u8]; 5] = [
    b"21.5",
    b"{\"value\": \"text where a number was expected\"}",
    b"{\"value\": 7}",
    b"{\"value\": false, \"ts\": null}",
    b"{\"value\": -0.0, \"ts\": 0}",
];

/// Bytes that end a connection, and nothing but this connection.
fn fatal() -> Vec<(&'static str, Vec<u8>)> {
    let mut half = connect("half");
    half.extend(&publish(1, b"hostile/half", b"{\"value\": 1}")[..9]);
    let mut wrong_topic = connect("wrong-topic");
    wrong_topic.extend(publish(1, b"hostile/\xc3\x28/t", b"1"));
    let mut wildcard = connect("wildcard");
    wildcard.extend(publish(1, b"hostile/+/t", b"1"));
    let mut twice = connect("twice");
    twice.extend(connect("twice"));
    let mut endless = connect("endless");
    endless.extend([0x32, 0xff, 0xff, 0xff, 0xff, 0xff]);
    vec![
        ("half a packet", half),
        ("a topic that is no UTF-8", wrong_topic),
        ("a wildcard in a topic", wildcard),
        ("CONNECT twice", twice),
        ("a length without end", endless),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        ),
        ("zeros", vec![0; 300]),
        (
            "a PUBLISH before CONNECT",
            publish(1, b"hostile/early/t", b"1"),
        ),
    ]
}

/// Two clients under one name: the newer one has it, and what either got acknowledged is kept.
fn takeover(site: &Site) {
    let mut first = Raw::connected(site.mqtt, "one-name");
    first.publish("hostile/first/t", b"1");
    let mut second = Raw::connected(site.mqtt, "one-name");
    first.closed();
    second.publish("hostile/second/t", b"2");
}

#[test]
fn bad_input_gets_a_clear_answer_and_disturbs_nobody() {
    let site = Site::new("hostile");
    let (mut agent, mut aggregator) = (site.agent(), site.aggregator());
    agent.up();
    aggregator.up();
    let fleet = site.fleet(50, 10.0);

    // Never finished, and held open all the while: it is closed for taking too long.
    let mut endless = Raw::open(site.mqtt);
    endless.send(&connect("never finished")[..5]);

    let mut client = Raw::connected(site.mqtt, "odd");
    for (payload, _) in BAD_PAYLOADS {
        client.publish("hostile/odd/t", payload);
    }
    for payload in GOOD_PAYLOADS {
        client.publish("hostile/good/t", payload);
    }
    for (what, bytes) in fatal() {
        eprintln!("{what}");
        let mut raw = Raw::open(site.mqtt);
        raw.send(&bytes);
        if what == "half a packet" {
            // It could still come: only the client's own end ends it.
            raw.finish();
        }
        raw.closed();
    }
    takeover(&site);
    endless.closed();

    fleet.acknowledged(200);
    let summary = fleet.end();
    for (_, reason) in BAD_PAYLOADS {
        let sent = BAD_PAYLOADS
            .iter()
            .filter(|(_, other)| *other == reason)
            .count() as u64;
        let label = format!("reason=\"{reason}\"");
        wait_for(
            &label,
            || agent.state(),
            || (agent.counter(DEAD, &label) == sent).then_some(()),
        );
    }
    assert_eq!(agent.counter(DEAD, ""), BAD_PAYLOADS.len() as u64);
    assert_eq!(agent.counter("tributary_agent_mqtt_takeovers_total", ""), 1);
    let kept = std::fs::read_dir(site.path().join("agent").join("deadletter")).unwrap();
    let kept: Vec<u8> = kept
        .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    for (payload, _) in BAD_PAYLOADS {
        let held = payload.is_empty() || kept.windows(payload.len()).any(|bytes| bytes == payload);
        assert!(held, "{} is not kept", String::from_utf8_lossy(payload));
    }
    backlog_gone(&agent);
    let report = site.settle(agent, aggregator);
    assert_clean(&report, &summary);
    // Each good one, and one of each client of the takeover; nothing of the rest.
    assert_eq!(report.others, GOOD_PAYLOADS.len() as u64 + 2);
}

/// Waits until the uplink says what its problem is, in words with `part` in them.
fn problem(agent: &Process, part: &str) {
    let state = || format!("{part}: {}", agent.state());
    wait_for("a problem in words", state, || {
        let status = agent.status()?;
        let said = status.pointer("/uplink/problem")?.as_str()?.to_lowercase();
        said.contains(part).then_some(())
    });
}

#[test]
fn with_a_wrong_certificate_everything_waits_and_with_the_right_one_it_arrives() {
    let site = Site::new("certificates");
    let (pki, ready) = (&site.pki, |agent: &Process| {
        agent.page("/readyz").unwrap().0
    });
    pki.agent.become_like(&pki.foreign);
    let (mut agent, mut aggregator) = (site.agent(), site.aggregator());
    agent.up();
    aggregator.up();
    let fleet = site.fleet(50, 10.0);
    fleet.acknowledged(100);

    // It trusts another authority than the one that signed the aggregator's certificate.
    problem(
        &agent,
        "handshake failed: error 48: invalid peer certificate: unknownissuer",
    );
    assert_eq!(ready(&agent), 200);
    // Now it trusts the aggregator, which doesn't trust it.
    std::fs::copy(&pki.good.ca, &pki.agent.ca).unwrap();
    problem(
        &agent,
        "aborted by peer: the cryptographic handshake failed: error 48",
    );
    pki.agent.become_like(&pki.expired);
    problem(&agent, "expired");
    fleet.acknowledged(100);
    assert_eq!(ready(&agent), 200);
    assert!(agent.number("/uplink/backlog_batches") > 0);
    assert_eq!(aggregator.number("/batches_accepted"), 0);

    pki.agent.become_like(&pki.good);
    let summary = fleet.end();
    backlog_gone(&agent);
    let report = site.settle(agent, aggregator);
    assert_clean(&report, &summary);
}
