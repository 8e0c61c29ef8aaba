//! A client that subscribes: what it is granted, what it is sent and when, and what is kept of it.

use super::*;
use crate::limits::{DELIVERED_MAX, READER_BYTES_MAX, SUBSCRIPTIONS_OF_CLIENT_MAX};
use crate::source::access::acl::Grants;
use crate::source::hub::{Keep, Subscription};
use bytes::Bytes;

/// SUBSCRIBE of packet id 9: each filter with its options, behind the identifier that MQTT 5 has.
fn subscribe(version: Version, id: Option<u8>, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = vec![0, 9];
    if version == V5 {
        body.extend(id.map_or(vec![0], |id| vec![2, 0x0b, id]));
    }
    for (filter, options) in filters {
        body.extend([0, filter.len() as u8]);
        body.extend(filter.as_bytes());
        body.push(*options);
    }
    [&[0x82, body.len() as u8], body.as_slice()].concat()
}

fn unsubscribe(version: Version, filter: &str) -> Vec<u8> {
    let mut body = vec![0, 9];
    body.extend((version == V5).then_some(0));
    body.extend([0, filter.len() as u8]);
    body.extend(filter.as_bytes());
    [&[0xa2, body.len() as u8], body.as_slice()].concat()
}

/// PUBLISH as the server sends it, of less than 128 bytes.
fn sent(
    version: Version,
    first: u8,
    id: Option<u16>,
    subscription: Option<u8>,
    name: &str,
    payload: &str,
) -> Vec<u8> {
    let topic = format!("tributary/alerts/{name}");
    let mut body = vec![0, topic.len() as u8];
    body.extend(topic.as_bytes());
    body.extend(id.iter().flat_map(|id| id.to_be_bytes()));
    if version == V5 {
        body.extend(subscription.map_or(vec![0], |id| vec![2, 0x0b, id]));
    }
    body.extend(payload.as_bytes());
    [&[first, body.len() as u8], body.as_slice()].concat()
}

impl Client {
    fn publish(&self, name: &str, payload: &str, retain: bool) {
        let topic = format!("tributary/alerts/{name}");
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let keep = if retain { Keep::Stands } else { Keep::Not };
        self.hub.publish(&topic, payload, keep);
    }

    /// What its task does when it is told.
    fn delivered(&mut self) -> Vec<u8> {
        self.core.handle_published();
        self.core.deliver();
        self.said()
    }

    fn subscribed(version: Version, options: u8) -> Self {
        let mut client = Self::connected(version);
        client.send(&subscribe(
            version,
            None,
            &[("tributary/alerts/#", options)],
        ));
        let said = client.said();
        assert!(said.ends_with(&[options & 1]), "{said:02x?}");
        client
    }
}

#[test]
fn a_message_is_sent_as_its_subscription_says() {
    for version in [V4, V5] {
        let mut client = Client::connected(version);
        client.publish("a/t", "old", true);
        client.send(&subscribe(
            version,
            Some(7),
            &[("tributary/alerts/#", 0), ("tributary/status", 2)],
        ));
        let none = if version == V5 { &[0][..] } else { &[] };
        let suback = [&[0x90, 4 + none.len() as u8, 0, 9][..], none, &[0, 1]].concat();
        assert_eq!(client.said(), suback, "QoS 2 is granted as 1");
        client.publish("a/t", "new", true);
        let id = (version == V5).then_some(7);
        let live = sent(version, 0x30, None, id, "a/t", "new");
        assert_eq!(
            client.delivered(),
            live,
            "and not the old one, which it stands for"
        );
        client.publish("b/t", "x", true);
        assert_eq!(
            client.delivered(),
            sent(version, 0x30, None, id, "b/t", "x")
        );
        // Again: the present state, marked as such, and with the other QoS from now on.
        client.send(&subscribe(version, None, &[("tributary/alerts/a/#", 1)]));
        client.said();
        let present = sent(version, 0x33, Some(1), None, "a/t", "new");
        assert_eq!(client.delivered(), present);
        client.publish("a/t", "both", false);
        assert_eq!(
            client.delivered(),
            sent(version, 0x32, Some(2), id, "a/t", "both")
        );
        assert_eq!(client.over(), "not over");
    }
}

#[test]
fn subscriptions_are_refused_with_the_best_reason() {
    let packet = |filters: &[&[u8]], v5: bool| {
        let mut body = vec![0, 9];
        body.extend(v5.then_some(0));
        for filter in filters {
            body.extend([0, filter.len() as u8]);
            body.extend(*filter);
            body.push(0);
        }
        [&[0x82, body.len() as u8], body.as_slice()].concat()
    };
    let filters: &[&[u8]] = &[b"a/#", b"tributary/other", b"$share/g/a"];
    let mut client = Client::connected(V4);
    client.send(&packet(filters, false));
    assert_eq!(client.said(), [0x90, 5, 0, 9, 0x80, 0x80, 0x80]);
    let mut client = Client::connected(V5);
    client.send(&packet(filters, true));
    let said = client.said();
    assert!(said.ends_with(&[0x83, 0x83, 0x9e]), "{said:02x?}");
    assert!(String::from_utf8_lossy(&said).contains("not a broker"));
    assert_eq!(client.over(), "not over");
    client.send(&[0xc0, 0]);
    assert_eq!(client.said(), [0xd0, 0]);
}

#[test]
fn retain_as_published_and_retain_handling_are_kept_to() {
    let mut client = Client::connected(V5);
    client.publish("a/t", "1", true);
    let filter = "tributary/alerts/#";
    // Retain handling 1: new, and then no more; 2: never; 0: each time. 8: retain as published.
    for (options, comes) in [(0x10, true), (0x10, false), (0x20, false), (0x00, true)] {
        client.send(&subscribe(V5, None, &[(filter, options)]));
        client.said();
        let present = sent(V5, 0x31, None, None, "a/t", "1");
        let expected = if comes { present } else { Vec::new() };
        assert_eq!(client.delivered(), expected, "{options:02x}");
    }
    for (options, retain, first) in [(0x28, true, 0x31), (0x28, false, 0x30), (0x20, true, 0x30)] {
        client.send(&subscribe(V5, None, &[(filter, options | 4)]));
        client.said();
        client.publish("a/t", "2", retain);
        assert_eq!(client.delivered(), sent(V5, first, None, None, "a/t", "2"));
    }
}

#[test]
fn unsubscribing_says_whether_there_was_something() {
    for version in [V4, V5] {
        let mut client = Client::subscribed(version, 0);
        for code in [0, 0x11] {
            client.send(&unsubscribe(version, "tributary/alerts/#"));
            let unsuback = match version {
                V4 => vec![0xb0, 2, 0, 9],
                V5 => vec![0xb0, 4, 0, 9, 0, code],
            };
            assert_eq!(client.said(), unsuback);
            client.publish("a/t", "1", false);
            assert_eq!(client.delivered(), [0; 0]);
        }
    }
}

#[test]
fn no_more_is_under_way_than_the_client_takes_and_the_order_is_kept() {
    // CONNECT with a receive maximum of 2.
    let connect = b"\x10\x12\0\x04MQTT\x05\x02\0\x0a\x03\x21\0\x02\0\x02me";
    let mut client = Client::new();
    client.talk(connect);
    client.said();
    client.send(&subscribe(
        V5,
        None,
        &[("tributary/alerts/+/t", 1), ("tributary/alerts/+/v", 0)],
    ));
    client.said();
    for (name, payload) in [
        ("a/t", "1"),
        ("a/t", "2"),
        ("a/t", "3"),
        ("a/v", "4"),
        ("a/t", "5"),
    ] {
        client.publish(name, payload, false);
    }
    let first = sent(V5, 0x32, Some(1), None, "a/t", "1");
    let second = sent(V5, 0x32, Some(2), None, "a/t", "2");
    assert_eq!(client.delivered(), [first, second].concat());
    assert!(!client.core.wants_deliver());
    client.send(&[0xc0, 0]);
    assert_eq!(client.said(), [0xd0, 0], "which holds up nothing else");
    client.send(&[0x40, 2, 0, 2]);
    client.core.deliver();
    // QoS 0 does not overtake what came before it.
    let third = sent(V5, 0x32, Some(3), None, "a/t", "3");
    assert_eq!(client.said(), third);
    client.send(&[0x40, 3, 0, 1, 0x97]);
    client.core.deliver();
    let fourth = sent(V5, 0x30, None, None, "a/v", "4");
    let fifth = sent(V5, 0x32, Some(4), None, "a/t", "5");
    assert_eq!(client.said(), [fourth, fifth].concat());
    // What was acknowledged before is no fault; an acknowledgement of QoS 2 is.
    client.send(&[0x40, 2, 0, 1]);
    assert_eq!(client.over(), "not over");
    client.send(&[0x50, 2, 0, 3]);
    assert_eq!(
        (client.said().as_slice(), client.over()),
        (&[0xe0, 1, 0x82][..], "protocol_error")
    );
}

#[test]
fn an_acknowledgement_before_anything_was_subscribed_to_is_an_error() {
    let mut client = Client::connected(V5);
    client.send(&[0x40, 2, 0, 1]);
    assert_eq!(
        (client.said().as_slice(), client.over()),
        (&[0xe0, 1, 0x82][..], "protocol_error")
    );
}

#[test]
fn a_packet_id_is_used_again_only_once_it_is_free() {
    let mut client = Client::subscribed(V4, 1);
    client.publish("a/t", "x", false);
    assert_eq!(
        client.delivered(),
        sent(V4, 0x32, Some(1), None, "a/t", "x")
    );
    // The first stays under way while all others come and go.
    for number in 2..=u32::from(u16::MAX) + 1 {
        client.publish("a/t", "x", false);
        let id = if number > u32::from(u16::MAX) {
            2
        } else {
            number as u16
        };
        assert_eq!(
            client.delivered(),
            sent(V4, 0x32, Some(id), None, "a/t", "x")
        );
        let [high, low] = id.to_be_bytes();
        client.send(&[0x40, 2, high, low]);
    }
}

#[test]
fn what_is_larger_than_the_client_takes_is_passed_over() {
    // CONNECT with a maximum packet size of 64.
    let connect = b"\x10\x14\0\x04MQTT\x05\x02\0\x0a\x05\x27\0\0\0\x40\0\x02me";
    let mut client = Client::new();
    client.talk(connect);
    client.said();
    client.send(&subscribe(V5, None, &[("tributary/alerts/#", 1)]));
    client.said();
    client.publish("a/t", &"x".repeat(64), false);
    client.publish("a/t", "1", false);
    assert_eq!(
        client.delivered(),
        sent(V5, 0x32, Some(1), None, "a/t", "1")
    );
    let tally = client.core.take_tally();
    assert_eq!((tally.deliveries, tally.deliveries_too_large), (1, 1));
}

#[test]
fn a_socket_that_takes_nothing_is_given_little_and_loses_qos_0() {
    let mut client = Client::subscribed(V5, 0);
    let payload = "x".repeat(10_000);
    let count = 2 * READER_BYTES_MAX / payload.len();
    for _ in 0..count {
        client.publish("a/t", &payload, false);
        client.core.handle_published();
        client.core.deliver();
        assert!(client.core.outgoing().len() < OUTGOING_BYTES_MAX);
    }
    assert_eq!(client.over(), "not over");
    let mut bytes = 0;
    while !client.core.outgoing().is_empty() {
        bytes += client.said().len();
        client.core.deliver();
    }
    assert!(
        bytes > READER_BYTES_MAX / 2 && bytes < count * payload.len(),
        "{bytes}"
    );
}

#[test]
fn whoever_acknowledges_nothing_is_told_that_it_is_too_slow() {
    for (version, farewell) in [(V4, &[][..]), (V5, &[0xe0, 1, 0x97])] {
        let mut client = Client::subscribed(version, 1);
        for _ in 0..DELIVERED_MAX {
            client.publish("a/t", "x", true);
        }
        client.delivered();
        assert!(
            !client.core.wants_deliver(),
            "as many as may be are under way"
        );
        let payload = "x".repeat(10_000);
        for _ in 0..READER_BYTES_MAX / (payload.len() + 200) {
            client.publish("a/t", &payload, true);
            assert_eq!(client.delivered(), [0; 0]);
        }
        assert_eq!(client.over(), "not over");
        client.publish("a/t", &payload, true);
        client.publish("a/t", &payload, true);
        assert_eq!(
            (client.delivered().as_slice(), client.over()),
            (farewell, "slow_reader")
        );
        let parked = client.core.take_subscriptions().unwrap();
        assert_eq!(parked.taken, 0, "from the first that was not acknowledged");
    }
}

/// Lets `client` in to a session with `subscriptions` that is kept; gives what CONNACK says.
fn resume(client: &mut Client, subscriptions: Option<Parked>) -> bool {
    client.send(&connect(V5, "me", 10));
    client.admit(Admission::Granted {
        session_present: subscriptions.is_some(),
        session_expiry_s: 60,
        session_changed: false,
        subscriptions: subscriptions.map(Box::new),
    });
    client.core.outgoing().split()[2] == 1
}

#[test]
fn a_client_that_comes_back_is_told_what_changed() {
    let hub = Hub::new();
    let mut client = Client::of(&hub);
    resume(&mut client, None);
    client.send(&subscribe(V5, Some(5), &[("tributary/alerts/#", 1)]));
    // The log says that the session ends with the connection, and is the first to know.
    assert_eq!(
        (client.said().as_slice(), client.core.appended()),
        (&[][..], 1)
    );
    client.core.handle_durable(1, client.start);
    assert_eq!(client.said(), [0x90, 4, 0, 9, 0, 1]);
    for name in ["a/t", "b/t", "c/t", "d/t"] {
        client.publish(name, "1", true);
    }
    client.delivered();
    client.send(&[0x40, 2, 0, 1]);
    client.send(&[0x40, 2, 0, 3]);
    let parked = client.core.take_subscriptions().unwrap();
    assert_eq!(parked.taken, 1, "b is the first that was not acknowledged");
    client.publish("a/t", "2", true);
    client.publish("d/t", "2", true);
    let mut again = Client::of(&hub);
    assert!(resume(&mut again, Some(parked)));
    assert_eq!(again.core.appended(), 0, "the log knows");
    let expected = [("a/t", "2"), ("b/t", "1"), ("c/t", "1"), ("d/t", "2")];
    let expected = expected
        .iter()
        .zip(1..)
        .map(|((name, payload), id)| sent(V5, 0x32, Some(id), Some(5), name, payload));
    again.core.deliver();
    assert_eq!(again.said(), expected.collect::<Vec<_>>().concat());
    // Nothing is subscribed to any more: the log knows of the session again.
    again.send(&unsubscribe(V5, "tributary/alerts/#"));
    assert_eq!(session_records(&client), [0]);
    assert_eq!(session_records(&again), [60]);
    assert_eq!(again.core.take_subscriptions(), None);
}

/// How long each record says that the session is kept.
fn session_records(client: &Client) -> Vec<u32> {
    let records = client.batch.iter();
    let sessions = records.filter_map(|(kind, bytes)| match Record::parse(kind, bytes) {
        Ok(Record::Session(session)) => Some(session.expiry_s),
        _ => None,
    });
    sessions.collect()
}

#[test]
fn a_session_whose_subscriptions_cannot_be_given_back_is_not_present() {
    let hub = Hub::new();
    let mut client = Client::of(&hub);
    resume(&mut client, None);
    client.send(&subscribe(V5, None, &[("tributary/alerts/#", 1)]));
    let mut parked = client.core.take_subscriptions().unwrap();
    let one = parked.subscriptions[0].clone();
    for number in 0..SUBSCRIPTIONS_OF_CLIENT_MAX {
        let filter = format!("tributary/alerts/{number}").into();
        parked.subscriptions.push(Subscription {
            filter,
            ..one.clone()
        });
    }
    let mut again = Client::of(&hub);
    assert!(!resume(&mut again, Some(parked)));
    assert_eq!(session_records(&again), [60], "a new one, which is kept");
    again.publish("a/t", "1", false);
    assert_eq!(again.delivered(), [0; 0]);
}

#[test]
fn a_client_is_granted_what_its_user_may_read() {
    let granted = |publish: &[&str], read: Option<&[&str]>, filters: &[(&str, u8)]| {
        let texts = |texts: &[&str]| -> Vec<String> {
            texts.iter().map(|text| (*text).to_owned()).collect()
        };
        let grants = Grants::parse(&texts(publish), read == Some(&[])).unwrap();
        let grants = match read {
            Some(filters) if !filters.is_empty() => grants.reading(&texts(filters)).unwrap(),
            _ => grants,
        };
        let mut client = Client::new();
        client.send(&connect(V5, "me", 10));
        let rights = Rights {
            user: "pump-7".into(),
            client_id: "me".into(),
            grants: Arc::new(grants),
        };
        assert!(client.core.handle_identity(7, rights));
        client.admit(GRANTED);
        client.said();
        client.send(&subscribe(V5, None, filters));
        let said = client.said();
        client.publish("plant/pump-7/t", "1", false);
        client.publish("plant/pump-8/t", "1", false);
        let delivered = client.delivered();
        let seen = ["pump-7", "pump-8"]
            .map(|name| delivered.windows(6).any(|bytes| bytes == name.as_bytes()));
        (said[said.len() - filters.len()..].to_vec(), seen)
    };
    let all = [("tributary/alerts/#", 1)];
    let own = granted(&["plant/%u/#"], Some(&[]), &all);
    assert_eq!(own, (vec![1], [true, false]));
    let these = granted(&[], Some(&["plant/+/t"]), &all);
    assert_eq!(these, (vec![1], [true, true]));
    assert_eq!(granted(&["#"], None, &all), (vec![0x87], [false; 2]));
    let exact = [
        ("tributary/alerts/plant/pump-7/t", 0),
        ("tributary/alerts/plant/pump-8/t", 0),
        ("tributary/status", 0),
        ("plant/pump-7/t", 0),
    ];
    let own = granted(&["plant/%u/#"], Some(&[]), &exact);
    assert_eq!(own, (vec![0, 0x87, 0, 0x83], [true, false]));
}
