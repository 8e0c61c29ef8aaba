//! The client library as its documentation uses it, and what goes wrong then. When one of these
//! fails, the library was mended: look whether the wrapper may go.

use super::fake::{Fake, PUBACK, Publish, SUBSCRIBE};
use super::mosquitto::{Mosquitto, numbered, publish};
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Packet, QoS, StateError, v5,
};
use std::net::SocketAddr;
use std::time::Duration;

fn options(address: SocketAddr) -> MqttOptions {
    let mut options = MqttOptions::new("plain", address.ip().to_string(), address.port());
    options.set_clean_session(false).set_manual_acks(true);
    options
}

fn options_v5(address: SocketAddr) -> v5::MqttOptions {
    let mut options = v5::MqttOptions::new("plain", address.ip().to_string(), address.port());
    options.set_clean_start(false).set_manual_acks(true);
    options
}

fn five() -> [Publish<'static>; 5] {
    [1, 2, 3, 4, 5].map(|id| Publish::new(id, "a", b"read from the dead connection"))
}

#[tokio::test]
async fn stale_events_are_acknowledged_on_the_new_connection() {
    let fake = Fake::new().await;
    let (client, mut events) = AsyncClient::new(options(fake.address), 100);
    let (connack, first) = tokio::join!(events.poll(), fake.welcome(false));
    assert!(matches!(connack, Ok(Event::Incoming(Packet::ConnAck(_)))));
    first.last_words(&five()).await;
    assert!(
        events.poll().await.is_err(),
        "it died, and still holds what it read"
    );
    let application = async {
        loop {
            if let Ok(Event::Incoming(Packet::Publish(publish))) = events.poll().await {
                client.ack(&publish).await.unwrap();
            }
        }
    };
    let broker = async {
        let mut second = fake.welcome(false).await;
        second.pubacks(5).await
    };
    let ids = tokio::select! {
        ids = broker => ids,
        () = application => unreachable!(),
    };
    assert_eq!(ids, [1, 2, 3, 4, 5], "of a session that never sent them");
}

#[tokio::test]
async fn stale_events_are_acknowledged_on_the_new_connection_of_version_5_too() {
    let fake = Fake::new().await;
    let (client, mut events) = v5::AsyncClient::new(options_v5(fake.address), 100);
    let (_, first) = tokio::join!(events.poll(), fake.welcome(false));
    first.last_words(&five()).await;
    assert!(events.poll().await.is_err());
    let application = async {
        loop {
            let event = events.poll().await;
            if let Ok(v5::Event::Incoming(v5::mqttbytes::v5::Packet::Publish(publish))) = event {
                client.ack(&publish).await.unwrap();
            }
        }
    };
    let broker = async { fake.welcome(false).await.pubacks(5).await };
    let ids = tokio::select! {
        ids = broker => ids,
        () = application => unreachable!(),
    };
    assert_eq!(ids, [1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn an_awaited_acknowledgement_blocks_the_one_who_polls_for_ever() {
    let fake = Fake::new().await;
    let (client, mut events) = AsyncClient::new(options(fake.address), 1);
    let (_, mut peer) = tokio::join!(events.poll(), fake.welcome(false));
    let two: Vec<u8> = five()[..2]
        .iter()
        .flat_map(|publish| peer.publish_bytes(publish))
        .collect();
    peer.send(&two).await;
    let application = async {
        let mut acknowledged = 0;
        while acknowledged < 2 {
            if let Event::Incoming(Packet::Publish(publish)) = events.poll().await.unwrap() {
                client.ack(&publish).await.unwrap();
                acknowledged += 1;
            }
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(3_600), application).await;
    assert!(
        waited.is_err(),
        "the second waits for the first, which only a poll would send"
    );
}

#[tokio::test]
async fn a_message_of_20_kb_ends_every_connection_for_ever() {
    let fake = Fake::new().await;
    let (_client, mut events) = AsyncClient::new(options(fake.address), 10);
    let payload = vec![b'x'; 20_000];
    let poison = Publish::new(1, "cam", &payload);
    for round in 0..3 {
        let (connack, mut peer) = tokio::join!(events.poll(), fake.welcome(round > 0));
        connack.unwrap();
        let sent = if round > 0 { poison.dup() } else { poison };
        peer.publish(sent).await;
        let error = events.poll().await.unwrap_err();
        let StateError::Deserialization(too_large) = state(error) else {
            panic!("another error")
        };
        let limit = rumqttc::mqttbytes::Error::PayloadSizeLimitExceeded(20_007);
        assert_eq!(too_large.to_string(), limit.to_string());
    }
}

fn state(error: ConnectionError) -> StateError {
    match error {
        ConnectionError::MqttState(error) => error,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_subscription_on_every_connack_is_sent_though_the_session_has_it() {
    let fake = Fake::new().await;
    let (client, mut events) = AsyncClient::new(options(fake.address), 10);
    let application = async {
        loop {
            if let Ok(Event::Incoming(Packet::ConnAck(_))) = events.poll().await {
                client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
            }
        }
    };
    let broker = async {
        fake.subscribed().await.last_words(&[]).await;
        fake.welcome(true).await.awaited().await.unwrap()
    };
    let packet = tokio::select! {
        packet = broker => packet,
        () = application => unreachable!(),
    };
    // Each brings the retained messages again, as ordinary ones with the retain flag.
    assert_eq!(packet.head, SUBSCRIBE);
}

#[tokio::test]
async fn nothing_is_subscribed_to_after_a_session_was_lost() {
    let fake = Fake::new().await;
    let (client, mut events) = AsyncClient::new(options(fake.address), 10);
    client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
    let application = async {
        loop {
            if let Ok(Event::Incoming(Packet::Publish(publish))) = events.poll().await {
                client.ack(&publish).await.unwrap();
            }
        }
    };
    let broker = async {
        fake.subscribed().await.last_words(&[]).await;
        let mut second = fake.welcome(false).await;
        second.publish(five()[0]).await;
        second.awaited().await.unwrap()
    };
    let packet = tokio::select! {
        packet = broker => packet,
        () = application => unreachable!(),
    };
    assert_eq!(packet.head, PUBACK, "no SUBSCRIBE stands before it");
}

#[tokio::test]
async fn redelivery_with_new_ids_looks_like_new_messages() {
    let fake = Fake::new().await;
    let (_client, mut events) = AsyncClient::new(options(fake.address), 10);
    let mut seen = Vec::new();
    for (round, id) in [(0, 7), (1, 1)] {
        let (_, mut peer) = tokio::join!(events.poll(), fake.welcome(round > 0));
        peer.publish(Publish::new(id, "a", b"21.5")).await;
        let Event::Incoming(Packet::Publish(publish)) = events.poll().await.unwrap() else {
            panic!("no message")
        };
        seen.push((publish.pkid, publish.dup));
        drop(peer);
        assert!(events.poll().await.is_err());
    }
    assert_eq!(
        seen,
        [(7, false), (1, false)],
        "nothing tells that they are one"
    );
}

#[tokio::test]
async fn a_broker_that_reads_nothing_stops_version_5_without_an_error() {
    let fake = Fake::with_small_buffers().await;
    let mut options = options_v5(fake.address);
    options.set_keep_alive(Duration::from_secs(15));
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_send_buffer_size(4_096);
    options.set_network_options(network);
    let (client, mut events) = v5::AsyncClient::new(options, 16_384);
    let (_, mut peer) = tokio::join!(events.poll(), fake.welcome(false));
    peer.publish(five()[0]).await;
    let v5::Event::Incoming(v5::mqttbytes::v5::Packet::Publish(publish)) =
        events.poll().await.unwrap()
    else {
        panic!("no message")
    };
    while client.try_ack(&publish).is_ok() {}
    // From here on time passes as soon as nothing else happens.
    tokio::time::pause();
    let polling = async {
        loop {
            if let Err(error) = events.poll().await {
                break error;
            }
        }
    };
    let day = Duration::from_secs(86_400);
    let ended = tokio::time::timeout(day, polling).await;
    assert!(ended.is_err(), "no ping, no error, for a day: {ended:?}");
    drop(peer);
}

#[tokio::test]
async fn a_refusal_in_the_words_of_3_1_1_reads_as_no_answer_in_version_5() {
    let fake = Fake::new().await;
    let (_client, mut events) = v5::AsyncClient::new(options_v5(fake.address), 10);
    let broker = async {
        let mut peer = fake.connect().await;
        assert_eq!(peer.level, 5);
        // Section 3.2.2.3 of 3.1.1: unacceptable protocol version, and closed.
        peer.send(&[0x20, 2, 0, 1]).await;
        peer.last_words(&[]).await;
    };
    let (refused, ()) = tokio::join!(events.poll(), broker);
    let error = refused.unwrap_err();
    assert!(
        matches!(
            error,
            v5::ConnectionError::MqttState(v5::StateError::ConnectionAborted)
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_release_of_an_earlier_life_ends_the_connection() {
    let fake = Fake::new().await;
    let (_client, mut events) = AsyncClient::new(options(fake.address), 10);
    for _ in 0..2 {
        let (_, mut peer) = tokio::join!(events.poll(), fake.welcome(true));
        peer.send(&[0x62, 2, 0, 9]).await;
        let error = loop {
            if let Err(error) = events.poll().await {
                break error;
            }
        };
        assert!(matches!(state(error), StateError::Unsolicited(9)));
    }
}

/// Polls until the connection is back, as the documentation says: an error is followed by a poll.
/// Whether the session is there still.
async fn reconnected(events: &mut EventLoop) -> bool {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(connack))) => return connack.session_present,
            Ok(_) => {}
            // tidy: sleep because the broker that comes back tells nobody: it is asked again.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Takes so many messages, and acknowledges none: (payload, DUP).
async fn received(events: &mut EventLoop, count: usize) -> Vec<(String, bool)> {
    let mut all = Vec::new();
    while all.len() < count {
        if let Event::Incoming(Packet::Publish(publish)) = events.poll().await.unwrap() {
            let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
            all.push((payload, publish.dup));
        }
    }
    all
}

/// A client with a session at this broker, subscribed to all.
async fn subscribed(broker: &Mosquitto) -> (AsyncClient, EventLoop) {
    let (client, mut events) = AsyncClient::new(options(broker.address), 100);
    client.subscribe("#", QoS::AtLeastOnce).await.unwrap();
    loop {
        if let Event::Incoming(Packet::SubAck(_)) = events.poll().await.unwrap() {
            return (client, events);
        }
    }
}

#[tokio::test]
async fn a_broker_that_restarts_with_its_session_doubles_what_was_not_acknowledged() {
    let Some(mut broker) = Mosquitto::start().await else {
        return;
    };
    let (_client, mut events) = subscribed(&broker).await;
    let messages = numbered(40);
    publish(broker.address, QoS::AtLeastOnce, false, &messages).await;
    let first = received(&mut events, 40).await;
    assert!(first.iter().all(|(_, dup)| !dup));
    broker.save().await;
    broker.kill();
    broker.restart().await;
    assert!(reconnected(&mut events).await);
    let again = received(&mut events, 40).await;
    assert!(again.iter().all(|(_, dup)| *dup));
    let payloads = |all: &[(String, bool)]| all.iter().map(|(p, _)| p.clone()).collect::<Vec<_>>();
    assert_eq!(
        payloads(&first),
        payloads(&again),
        "each twice, and the library leaves it to its user to tell"
    );
}

#[tokio::test]
async fn a_broker_that_restarts_without_its_session_is_listened_to_in_vain() {
    let Some(mut broker) = Mosquitto::start().await else {
        return;
    };
    let (client, mut events) = subscribed(&broker).await;
    broker.kill();
    broker.forget();
    broker.restart().await;
    assert!(!reconnected(&mut events).await);
    let messages = numbered(10);
    publish(broker.address, QoS::AtLeastOnce, false, &messages).await;
    // The broker serves this client in order: what it had for it stands before this answer.
    client
        .publish("own", QoS::AtLeastOnce, false, "is anybody there?")
        .await
        .unwrap();
    let mut lost = messages.len();
    loop {
        match events.poll().await.unwrap() {
            Event::Incoming(Packet::Publish(_)) => lost -= 1,
            Event::Incoming(Packet::PubAck(_)) => break,
            _ => {}
        }
    }
    assert_eq!(lost, 10, "connected, no error, and subscribed to nothing");
}
