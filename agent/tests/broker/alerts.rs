//! The agent's alerts at the user's broker: a scripted one, and a real Mosquitto.

use super::fake::{Client, Fake, Publish};
use super::harness::{Flowing, Kept, Ours, config};
use super::mosquitto::Mosquitto;
use bytes::Bytes;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use std::net::SocketAddr;
use tributary_agent::limits::BROKER_PUBLISHING_MAX;
use tributary_agent::source::broker::Protocol;
use tributary_agent::source::hub::Keep;
use tributary_agent::source::{BrokerConfig, Hub};

const BOTH: [Protocol; 2] = [Protocol::V4, Protocol::V5];

fn with_alerts(address: SocketAddr, protocol: Protocol) -> BrokerConfig {
    BrokerConfig {
        alerts: true,
        ..config(address, protocol)
    }
}

fn alert(hub: &Hub, name: &str, payload: &str) {
    let topic = format!("tributary/alerts/{name}");
    hub.publish(
        &topic,
        Bytes::copy_from_slice(payload.as_bytes()),
        Keep::Stands,
    );
}

/// Takes and acknowledges what is published; what it was.
async fn taken(peer: &mut Client, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..count {
        let (id, topic, payload, retain) = peer.published().await;
        peer.puback(id).await;
        let name = topic.strip_prefix("tributary/alerts/").unwrap();
        assert!(retain);
        all.push(format!("{name}={payload}"));
    }
    all
}

#[tokio::test]
async fn alerts_go_to_the_broker_and_wait_for_it_each_in_its_newest_state() {
    for protocol in BOTH {
        let fake = Fake::new().await;
        let mut ours = Ours::start(with_alerts(fake.address, protocol), &Kept::new());
        // Before there is a connection, only the newest waits; what is no alert is not for brokers.
        alert(&ours.hub, "pump/t", "0");
        alert(&ours.hub, "pump/t", "1");
        ours.hub
            .publish("tributary/status", Bytes::from_static(b"x"), Keep::Stands);
        let mut peer = fake.subscribed().await;
        assert_eq!(taken(&mut peer, 1).await, ["pump/t=1"]);
        alert(&ours.hub, "pump/v", "2");
        alert(&ours.hub, "valve", "2");
        let (id, topic, ..) = peer.published().await;
        assert_eq!(topic, "tributary/alerts/pump/v");
        peer.puback(id).await;
        // This one is never acknowledged, and an older state by the time of the next connection.
        let (_, topic, ..) = peer.published().await;
        assert_eq!(topic, "tributary/alerts/valve");
        ours.until(|status| status.published == 2).await;
        drop(peer);
        ours.until(|status| !status.connected).await;
        alert(&ours.hub, "motor", "3");
        alert(&ours.hub, "valve", "3");
        alert(&ours.hub, "valve", "4");
        let mut peer = fake.welcome(true).await;
        if protocol == Protocol::V5 {
            peer.suback().await;
        }
        assert_eq!(taken(&mut peer, 2).await, ["motor=3", "valve=4"]);
        drop(peer);
        // A broker that has lost the session may have lost what it retained: all of it again.
        let mut peer = fake.subscribed().await;
        let all = ["motor=3", "pump/t=1", "pump/v=2", "valve=4"];
        let mut again = taken(&mut peer, 4).await;
        again.sort();
        assert_eq!(again, all);
        ours.let_through().kill();
    }
}

#[tokio::test]
async fn a_broker_that_acknowledges_no_alert_has_its_own_messages_acknowledged() {
    for protocol in BOTH {
        let fake = Fake::new().await;
        let ours = Flowing::start(with_alerts(fake.address, protocol), &Kept::new());
        let mut peer = fake.subscribed().await;
        for number in 0..2 * BROKER_PUBLISHING_MAX {
            alert(&ours.hub, &format!("pump/{number}"), "1");
        }
        for _ in 0..BROKER_PUBLISHING_MAX {
            peer.published().await;
        }
        for id in 1..=40 {
            peer.publish(Publish::new(id, "plant/t", b"21.5")).await;
        }
        // Nothing else comes between: no more alerts are under way than may be.
        assert_eq!(peer.pubacks(40).await, (1..=40).collect::<Vec<_>>());
        ours.kill();
    }
}

#[tokio::test]
async fn a_broker_that_refuses_alerts_keeps_its_connection() {
    let fake = Fake::new().await;
    let mut ours = Flowing::start(with_alerts(fake.address, Protocol::V5), &Kept::new());
    let mut peer = fake.subscribed().await;
    for number in 0..3 {
        alert(&ours.hub, "pump/t", &number.to_string());
        let (id, _, payload, _) = peer.published().await;
        assert_eq!(payload, number.to_string());
        let [high, low] = id.to_be_bytes();
        // Not authorized.
        peer.send(&[0x40, 4, high, low, 0x87, 0]).await;
    }
    peer.publish(Publish::new(7, "plant/t", b"21.5")).await;
    assert_eq!(peer.pubacks(1).await, [7]);
    let status = ours.until(|status| status.acknowledged == 1).await;
    assert_eq!((status.generation, status.published), (1, 0));
    ours.kill();
}

#[tokio::test]
async fn nothing_is_published_where_nobody_asked_for_it() {
    for protocol in BOTH {
        let fake = Fake::new().await;
        let ours = Flowing::start(config(fake.address, protocol), &Kept::new());
        let mut peer = fake.subscribed().await;
        alert(&ours.hub, "pump/t", "1");
        peer.publish(Publish::new(7, "plant/t", b"21.5")).await;
        assert_eq!(peer.pubacks(1).await, [7], "and nothing before it");
        ours.kill();
    }
}

/// The next publication that a client of the broker's has of our alerts.
async fn next(events: &mut rumqttc::EventLoop) -> (String, String, bool) {
    loop {
        if let Ok(Event::Incoming(Packet::Publish(publish))) = events.poll().await {
            let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
            return (publish.topic, payload, publish.retain);
        }
    }
}

async fn reader(broker: &Mosquitto) -> rumqttc::EventLoop {
    let (host, port) = (broker.address.ip().to_string(), broker.address.port());
    let (client, mut events) = AsyncClient::new(MqttOptions::new("reader", host, port), 16);
    client
        .try_subscribe("tributary/#", QoS::AtLeastOnce)
        .unwrap();
    while !matches!(events.poll().await, Ok(Event::Incoming(Packet::SubAck(_)))) {}
    events
}

#[tokio::test]
async fn a_real_broker_has_the_newest_state_after_it_was_away() {
    for protocol in BOTH {
        let Some(mut broker) = Mosquitto::start().await else {
            return;
        };
        let mut ours = Flowing::start(with_alerts(broker.address, protocol), &Kept::new());
        ours.until(|status| status.subscribed == 1).await;
        let mut events = reader(&broker).await;
        alert(&ours.hub, "pump/t", "1");
        alert(&ours.hub, "pump/v", "1");
        let mut heard = vec![next(&mut events).await, next(&mut events).await];
        heard.sort();
        let topic = |name: &str| format!("tributary/alerts/{name}");
        let live = ["pump/t", "pump/v"].map(|name| (topic(name), "1".to_owned(), false));
        assert_eq!(heard, live);
        ours.until(|status| status.published == 2).await;
        drop(events);
        broker.kill();
        ours.until(|status| !status.connected).await;
        for number in 2..=4 {
            alert(&ours.hub, "pump/t", &number.to_string());
        }
        broker.restart().await;
        // One that was killed has nothing of what it had not written down, and is told all of it.
        ours.until(|status| status.connected && status.published >= 4)
            .await;
        let mut events = reader(&broker).await;
        let mut heard = vec![next(&mut events).await, next(&mut events).await];
        heard.sort();
        let retained = [("pump/t", "4"), ("pump/v", "1")];
        assert_eq!(
            heard,
            retained.map(|(name, text)| (topic(name), text.to_owned(), true))
        );
        // Our own subscription to `#` has them too, by 3.1.1: they are no readings.
        drop(events);
        assert!(ours.end().await.is_empty());
    }
}
