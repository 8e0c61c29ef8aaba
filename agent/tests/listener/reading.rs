//! Subscriptions with real sockets and real clients: what they are sent, in which order, and what a
//! session brings back.

use super::access::{SECRET, config, connect, put_who};
use super::*;
use bytes::Bytes;
use rumqttc::{QoS, v5};
use tributary_agent::limits::DELIVERED_MAX;
use tributary_agent::source::access::acl::Grants;
use tributary_agent::source::hub::Keep;

const ALL: &str = "tributary/alerts/#";

fn alert(hub: &Hub, name: &str, payload: &str) {
    let topic = format!("tributary/alerts/{name}");
    hub.publish(
        &topic,
        Bytes::copy_from_slice(payload.as_bytes()),
        Keep::Stands,
    );
}

async fn durable_at_once() -> Server {
    let (writer, held) = gate();
    drop(held);
    serve(writer).await
}

/// Topic, payload, retain flag and subscription identifiers of the next publication.
type Heard = (String, String, bool, Vec<usize>);

/// A client of rumqttc, by either version of MQTT.
enum Client {
    V4(rumqttc::AsyncClient, Box<rumqttc::EventLoop>),
    V5(v5::AsyncClient, Box<v5::EventLoop>),
}

impl Client {
    fn new(server: &Server, level: u8, id: &str, clean: bool) -> Self {
        let (host, port) = (server.address.ip().to_string(), server.address.port());
        match level {
            4 => {
                let mut options = rumqttc::MqttOptions::new(id, host, port);
                options.set_clean_session(clean);
                let (client, events) = rumqttc::AsyncClient::new(options, 16);
                Self::V4(client, Box::new(events))
            }
            _ => {
                let mut options = v5::MqttOptions::new(id, host, port);
                options.set_clean_start(clean);
                let mut properties = v5::mqttbytes::v5::ConnectProperties::new();
                properties.session_expiry_interval = Some(if clean { 0 } else { 600 });
                options.set_connect_properties(properties);
                let (client, events) = v5::AsyncClient::new(options, 16);
                Self::V5(client, Box::new(events))
            }
        }
    }

    /// Waits for CONNACK; whether a session is present.
    async fn connected(&mut self) -> bool {
        loop {
            match self {
                Self::V4(_, events) => {
                    if let rumqttc::Event::Incoming(rumqttc::Packet::ConnAck(connack)) =
                        events.poll().await.unwrap()
                    {
                        return connack.session_present;
                    }
                }
                Self::V5(_, events) => {
                    if let v5::Event::Incoming(v5::mqttbytes::v5::Packet::ConnAck(connack)) =
                        events.poll().await.unwrap()
                    {
                        return connack.session_present;
                    }
                }
            }
        }
    }

    /// Subscribes, and waits for the answer.
    async fn subscribe(&mut self, filter: &str) {
        match self {
            Self::V4(client, events) => {
                client.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
                let granted = rumqttc::SubscribeReasonCode::Success(QoS::AtLeastOnce);
                loop {
                    if let rumqttc::Event::Incoming(rumqttc::Packet::SubAck(suback)) =
                        events.poll().await.unwrap()
                    {
                        assert_eq!(suback.return_codes, [granted]);
                        return;
                    }
                }
            }
            Self::V5(client, events) => {
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                let properties = v5::mqttbytes::v5::SubscribeProperties {
                    id: Some(300),
                    user_properties: Vec::new(),
                };
                client
                    .try_subscribe_with_properties(filter, qos, properties)
                    .unwrap();
                let granted = v5::mqttbytes::v5::SubscribeReasonCode::Success(qos);
                loop {
                    if let v5::Event::Incoming(v5::mqttbytes::v5::Packet::SubAck(suback)) =
                        events.poll().await.unwrap()
                    {
                        assert_eq!(suback.return_codes, [granted]);
                        return;
                    }
                }
            }
        }
    }

    async fn heard(&mut self) -> Heard {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        loop {
            match self {
                Self::V4(_, events) => {
                    if let rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) =
                        events.poll().await.unwrap()
                    {
                        let payload = text(&publish.payload);
                        return (publish.topic, payload, publish.retain, Vec::new());
                    }
                }
                Self::V5(_, events) => {
                    if let v5::Event::Incoming(v5::mqttbytes::v5::Packet::Publish(publish)) =
                        events.poll().await.unwrap()
                    {
                        let said = publish.properties.unwrap_or_default();
                        let (topic, payload) = (text(&publish.topic), text(&publish.payload));
                        return (
                            topic,
                            payload,
                            publish.retain,
                            said.subscription_identifiers,
                        );
                    }
                }
            }
        }
    }

    async fn hears(&mut self, name: &str, payload: &str, retain: bool) {
        let ids = if matches!(self, Self::V5(..)) {
            vec![300]
        } else {
            Vec::new()
        };
        let topic = format!("tributary/alerts/{name}");
        assert_eq!(self.heard().await, (topic, payload.to_owned(), retain, ids));
    }
}

#[tokio::test]
async fn a_real_client_is_told_the_present_state_and_then_what_comes() {
    let server = durable_at_once().await;
    for level in [4, 5] {
        alert(&server.hub, "pump/t", "raised");
        let mut client = Client::new(&server, level, "reader", true);
        assert!(!client.connected().await);
        client.subscribe(ALL).await;
        client.hears("pump/t", "raised", true).await;
        for number in 0..2_000 {
            alert(&server.hub, "pump/v", &number.to_string());
            // More are under way than are acknowledged, and fewer than may wait.
            if number >= 500 {
                client
                    .hears("pump/v", &(number - 500).to_string(), false)
                    .await;
            }
        }
        for number in 1_500..2_000 {
            client.hears("pump/v", &number.to_string(), false).await;
        }
        alert(&server.hub, "pump/v", "");
        client.hears("pump/v", "", false).await;
    }
    server.end().await;
}

/// What the library had not acknowledged when it was lost comes again, in its newest state; so does
/// what was published meanwhile.
#[tokio::test]
async fn a_session_brings_subscriptions_back_and_what_changed() {
    let server = durable_at_once().await;
    for level in [4, 5] {
        let mut client = Client::new(&server, level, "keeper", false);
        assert!(!client.connected().await, "{level}");
        client.subscribe(ALL).await;
        alert(&server.hub, "pump/t", "1");
        client.hears("pump/t", "1", false).await;
        drop(client);
        alert(&server.hub, "pump/t", "2");
        alert(&server.hub, "pump/v", "2");
        let mut client = Client::new(&server, level, "keeper", false);
        assert!(client.connected().await, "{level}");
        client.hears("pump/t", "2", false).await;
        client.hears("pump/v", "2", false).await;
        drop(client);
        // A clean start has none.
        let mut client = Client::new(&server, level, "keeper", true);
        assert!(!client.connected().await);
        drop(client);
        server
            .hub
            .publish("tributary/alerts/pump/t", Bytes::new(), Keep::Over);
        server
            .hub
            .publish("tributary/alerts/pump/v", Bytes::new(), Keep::Over);
    }
    server.end().await;
}

/// What the log says of a session with subscriptions: an agent that starts again says that it is
/// not present, since it does not know them.
#[tokio::test]
async fn a_session_with_subscriptions_is_not_present_after_a_restart() {
    let server = durable_at_once().await;
    let mut client = Client::new(&server, 5, "keeper", false);
    client.connected().await;
    client.subscribe(ALL).await;
    drop(client);
    let frames = server.end().await;
    let records = frames.iter().flat_map(CommittedFrame::records);
    let kept = records.filter_map(|(_, kind, bytes)| match Record::parse(kind, bytes) {
        Ok(Record::Session(session)) => Some(session.expiry_s),
        _ => None,
    });
    assert_eq!(kept.collect::<Vec<_>>(), [600, 0]);
}

/// Neither what is published nor a subscription outside of a session waits for a disk.
#[tokio::test]
async fn a_disk_that_takes_nothing_holds_up_no_alert() {
    let (writer, held) = gate();
    let server = serve(writer).await;
    let mut reader = Client::new(&server, 5, "reader", true);
    reader.connected().await;
    reader.subscribe(ALL).await;
    let mut device = Raw::connected(&server, 4, "pump").await;
    device.publish(1, 7, "pump/t", b"1").await;
    assert_eq!(held.reached().await, 1);
    // The frame stands at the gate.
    alert(&server.hub, "pump/t", "raised");
    reader.hears("pump/t", "raised", false).await;
    let mut late = Client::new(&server, 4, "late", true);
    late.connected().await;
    late.subscribe(ALL).await;
    late.hears("pump/t", "raised", true).await;
    held.open();
    assert_eq!(device.packet().await.unwrap(), [0x40, 2, 0, 7]);
    drop(held);
    server.end().await;
}

/// It subscribes and then reads nothing from its socket. Whoever else there is has everything.
#[tokio::test]
async fn a_client_that_reads_nothing_harms_nobody() {
    let server = durable_at_once().await;
    let mut stuck = Raw::connected(&server, 5, "stuck").await;
    stuck
        .send(b"\x82\x18\0\x09\0\0\x12tributary/alerts/#\x01")
        .await;
    assert_eq!(stuck.packet().await.unwrap(), [0x90, 4, 0, 9, 0, 1]);
    let mut reader = Client::new(&server, 5, "reader", true);
    reader.connected().await;
    reader.subscribe(ALL).await;
    // More than may be under way to it and wait for it, and than it takes of what it does not
    // acknowledge.
    let payload = "x".repeat(9_000);
    for number in 0..400 {
        alert(&server.hub, &format!("pump/{number}"), &payload);
        reader
            .hears(&format!("pump/{number}"), &payload, false)
            .await;
    }
    // It was ended: behind what had been sent, which is all that it was sent, it hears no more.
    let mut rest = Vec::new();
    let _ = stuck.0.read_to_end(&mut rest).await;
    let count = rest.windows(5).filter(|bytes| *bytes == b"pump/").count();
    assert!(count <= DELIVERED_MAX, "{count}");
    server.end().await;
}

#[tokio::test]
async fn each_user_sees_what_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users.toml");
    let texts =
        |texts: &[&str]| -> Vec<String> { texts.iter().map(|text| (*text).to_owned()).collect() };
    let grants = |publish: &[&str], read| Grants::parse(&texts(publish), read).unwrap();
    put_who(&users, "own", grants(&["plant/%u/#"], true));
    let these = grants(&[], false).reading(&texts(&["plant/+/t"]));
    put_who(&users, "hall", these.unwrap());
    put_who(&users, "none", grants(&["#"], false));
    let (writer, held) = gate();
    drop(held);
    let server = serve_as(writer, &config(None, Some(users)), Sessions::none()).await;
    for name in ["own", "other"] {
        for metric in ["t", "v"] {
            alert(&server.hub, &format!("plant/{name}/{metric}"), "raised");
        }
    }
    for (user, code, expected) in [
        ("own", 0, &["plant/own/t", "plant/own/v"][..]),
        ("hall", 0, &["plant/other/t", "plant/own/t"]),
        ("none", 0x87, &[]),
    ] {
        let mut raw = Raw::open(&server).await;
        raw.send(&connect(5, user, Some(user), Some(SECRET))).await;
        assert_eq!(raw.packet().await.unwrap()[3], 0, "let in");
        raw.send(b"\x82\x18\0\x09\0\0\x12tributary/alerts/#\0")
            .await;
        assert_eq!(raw.packet().await.unwrap().last(), Some(&code), "{user}");
        for name in expected {
            let packet = raw.packet().await.unwrap();
            let said = String::from_utf8_lossy(&packet).into_owned();
            assert!(
                said.contains(&format!("{name}\0raised")),
                "{user}: {said:?}"
            );
        }
        raw.send(&[0xc0, 0]).await;
        assert_eq!(
            raw.packet().await.unwrap(),
            [0xd0, 0],
            "{user}: and no more"
        );
    }
    server.end().await;
}
