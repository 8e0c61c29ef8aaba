//! Devices, the user's broker, agent, aggregator, lake: with the agent killed on the way.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use tributary_tests::dice::Dice;
use tributary_tests::limits::PATIENCE;
use tributary_tests::mosquitto::Mosquitto;
use tributary_tests::mqtt::publish;
use tributary_tests::process::{Process, wait_for};
use tributary_tests::site::{Site, assert_clean, backlog_gone};

const SEED: u64 = 11;
const KILLS: usize = 6;

fn of_broker(agent: &Process, name: &str) -> u64 {
    agent.number(&format!("/brokers/0/{name}"))
}

/// Waits until the agent has acknowledged all that the broker delivered so far.
fn acknowledged(agent: &Process) {
    wait_for(
        "every message acknowledged",
        || format!("{:?}\n{}", agent.status(), agent.last_words()),
        || (of_broker(agent, "unacknowledged") == 0).then_some(()),
    );
}

#[test]
fn what_a_broker_acknowledged_reaches_the_lake_once_though_the_agent_is_killed() {
    let site = Site::new("broker");
    let Some(broker) = Mosquitto::start(site.path()) else {
        return;
    };
    let site = site.with(&format!(
        "[[source.mqtt]]\naddress = \"{}\"\nreceive_maximum = 4096\n",
        broker.address
    ));
    let mut dice = Dice::new(SEED);
    let (mut agent, mut aggregator) = (site.agent(), site.aggregator());
    agent.up();
    aggregator.up();
    wait_for(
        "the subscription",
        || agent.last_words(),
        || (of_broker(&agent, "subscribed") == 1).then_some(()),
    );
    let fleet = site.fleet_at(broker.address, 200, 10.0);
    for _ in 0..KILLS {
        // Somewhere between two fdatasyncs, acknowledgements on their way.
        let more = 1 + dice.below(500);
        wait_for(
            "messages",
            || agent.last_words(),
            || (of_broker(&agent, "received") >= more).then_some(()),
        );
        agent.kill();
        agent = site.agent();
        agent.up();
    }
    let summary = fleet.end();
    acknowledged(&agent);
    // What the broker still held comes until it is quiet: the fleet has ended.
    wait_for(
        "the last of it",
        || format!("{:?}", agent.status()),
        || {
            let rows = aggregator.number("/readings_accepted");
            (rows >= summary.counts.acknowledged).then_some(())
        },
    );
    backlog_gone(&agent);
    assert_eq!(of_broker(&agent, "sessions_lost"), 0);
    let report = site.settle(agent, aggregator);
    assert_clean(&report, &summary);
}

/// A broker of MQTT 3.1.1 that takes one client after the other, and delivers what it is told.
struct Scripted {
    listener: TcpListener,
}

impl Scripted {
    /// The next client, subscribed to everything, or going on with its session.
    fn client(&self, session: bool) -> TcpStream {
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(packet(&mut stream)[0], 0x10, "CONNECT");
        stream.write_all(&[0x20, 2, u8::from(session), 0]).unwrap();
        if !session {
            let subscribe = packet(&mut stream);
            assert_eq!(subscribe[0], 0x82, "SUBSCRIBE");
            let suback = [0x90, 3, subscribe[1], subscribe[2], 1];
            stream.write_all(&suback).unwrap();
        }
        stream
    }
}

/// The first byte of a short packet, and its body.
fn packet(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; usize::from(head[1])];
    stream.read_exact(&mut body).unwrap();
    [&head[..1], &body].concat()
}

#[test]
fn redelivery_with_new_ids_is_dropped_by_the_devices_number_or_kept_and_flagged() {
    let broker = Scripted {
        listener: TcpListener::bind("127.0.0.1:0").unwrap(),
    };
    let address = broker.listener.local_addr().unwrap();
    let site = Site::new("new-ids").with(&format!(
        "[[source.mqtt]]\naddress = \"{address}\"\nprotocol = \"3.1.1\"\n"
    ));
    let mut agent = site.agent();
    let numbered = (&b"pump/rpm"[..], &b"{\"value\": 1480, \"seq\": 17}"[..]);
    let blank = (&b"pump/t"[..], &b"21.5"[..]);
    let mut first = broker.client(false);
    agent.up();
    for (id, (topic, payload)) in [(40, numbered), (41, blank)] {
        first.write_all(&publish(id, topic, payload)).unwrap();
    }
    assert_eq!(packet(&mut first), [0x40, 0, 40]);
    assert_eq!(packet(&mut first), [0x40, 0, 41]);
    // It loses the acknowledgements and begins at 1, without DUP, as rumqttd does.
    drop(first);
    let mut second = broker.client(true);
    for (id, (topic, payload)) in [(1, numbered), (2, blank)] {
        second.write_all(&publish(id, topic, payload)).unwrap();
    }
    assert_eq!(packet(&mut second), [0x40, 0, 1]);
    assert_eq!(packet(&mut second), [0x40, 0, 2]);
    let counts = || {
        let repeats = agent.counter("tributary_agent_repeats_total", "device_seq");
        let flagged = agent.counter("tributary_agent_maybe_repeats_total", "");
        let readings = agent.counter("tributary_agent_readings_total", "");
        (repeats, flagged, readings)
    };
    wait_for(
        "all four judged",
        || format!("{:?}", counts()),
        || (counts().2 >= 3 && counts().0 + counts().1 >= 2).then_some(()),
    );
    assert_eq!(counts(), (1, 1, 3));
}

#[test]
fn a_broker_that_is_not_there_keeps_nobody_from_anything() {
    let site = Site::new("no-broker");
    let nobody = tributary_tests::site::free_address();
    let site = site.with(&format!("[[source.mqtt]]\naddress = \"{nobody}\"\n"));
    let (mut agent, mut aggregator) = (site.agent(), site.aggregator());
    agent.up();
    aggregator.up();
    let fleet = site.fleet(20, 10.0);
    fleet.acknowledged(100);
    let summary = fleet.end();
    let status = agent.status().unwrap();
    assert_eq!(status.pointer("/brokers/0/connected").unwrap(), false);
    assert!(status.pointer("/brokers/0/problem").unwrap().is_string());
    backlog_gone(&agent);
    let report = site.settle(agent, aggregator);
    assert_clean(&report, &summary);
}
