//! The connection told bytes, times and what is durable, and what it then says and does.

use super::*;
use crate::decode::UserProperties;
use crate::limits::{
    READ_BYTES, RECEIVE_MAX, TOO_LARGE_HEAD_BYTES, TOPIC_ALIAS_BYTES_MAX, UNRELEASED_MAX,
    WAL_BATCH_BYTES_MAX,
};
use crate::source::codec::tests::{connect, mutate, next, publish, publish_saying};
use crate::source::hub::Hub;
use crate::wal::Record;
use Version::{V4, V5};
use std::sync::Arc;

mod arrival;
mod reading;

const GRANTED: Admission = Admission::Granted {
    session_present: false,
    session_expiry_s: 0,
    session_changed: false,
    subscriptions: None,
};

struct Client {
    hub: Hub,
    core: Connection,
    start: Instant,
    batch: Batch,
}

impl Client {
    fn new() -> Self {
        Self::of(&Hub::new())
    }

    /// One that may subscribe to what `hub` publishes.
    fn of(hub: &Hub) -> Self {
        let start = Instant::now();
        let audience = Audience {
            hub: hub.clone(),
            signal: Arc::default(),
        };
        Self {
            hub: hub.clone(),
            core: Connection::new(0xabc7, 1_000, start).reading(audience),
            start,
            batch: Batch::new(),
        }
    }

    fn connected(version: Version) -> Self {
        let mut client = Self::new();
        client.send(&connect(version, "me", 10));
        assert_eq!(client.admit(GRANTED), "me");
        let answer = client.said();
        assert_eq!(answer[..1], [0x20], "CONNACK: {answer:02x?}");
        assert_eq!(answer[3], 0, "let in");
        client
    }

    /// Decides about who would be let in; gives its name.
    fn admit(&mut self, admission: Admission) -> String {
        let arrival = self.core.take_arrival().expect("somebody arrived");
        let now = self.now();
        self.core.handle_admission(admission, now, &mut self.batch);
        arrival.client_id.into()
    }

    fn now(&self) -> Now {
        Now {
            instant: self.start,
            unix_us: 1_000,
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn send(&mut self, bytes: &[u8]) {
        let now = self.now();
        self.core.handle_bytes(bytes, now, &mut self.batch);
    }

    /// Sends bytes that begin with a CONNECT, whose client is let in at once.
    fn talk(&mut self, bytes: &[u8]) {
        self.send(bytes);
        if self.core.take_arrival().is_some() {
            let now = self.now();
            self.core.handle_admission(GRANTED, now, &mut self.batch);
        }
    }

    fn said(&mut self) -> Vec<u8> {
        self.core.outgoing().split().to_vec()
    }

    fn over(&self) -> &'static str {
        self.core.is_over().unwrap_or("not over")
    }

    /// The records so far: topic and payload.
    fn records(&self) -> Vec<(String, Vec<u8>)> {
        let records = self
            .batch
            .iter()
            .map(|(kind, bytes)| match Record::parse(kind, bytes) {
                Ok(Record::Message(m)) => (m.topic.to_owned(), m.payload.to_vec()),
                Ok(Record::TooLarge(l)) => (
                    format!("{}:{}", l.message.topic, l.payload_bytes),
                    l.message.payload.to_vec(),
                ),
                other => panic!("{other:?}"),
            });
        records.collect()
    }
}

#[test]
fn a_publication_is_acknowledged_when_it_is_durable_and_in_order() {
    for version in [V4, V5] {
        let mut client = Client::connected(version);
        let mut bytes = publish(version, 1, 1, "a/x", b"1");
        bytes.extend(publish(version, 0, 0, "a/y", b"2"));
        bytes.extend(publish(version, 1, 2, "a/z", b"3"));
        client.send(&bytes);
        assert_eq!(client.core.appended(), 3);
        assert_eq!(client.said(), [0; 0], "nothing before it is durable");
        client.core.handle_durable(1, client.start);
        assert_eq!(client.said(), [0x40, 2, 0, 1]);
        client.core.handle_durable(2, client.start);
        assert_eq!(client.said(), [0; 0], "QoS 0 has no answer");
        client.core.handle_durable(3, client.start);
        assert_eq!(client.said(), [0x40, 2, 0, 2]);
        let topics: Vec<_> = client
            .records()
            .into_iter()
            .map(|(topic, _)| topic)
            .collect();
        assert_eq!(topics, ["a/x", "a/y", "a/z"]);
    }
}

#[test]
fn it_makes_no_difference_how_the_bytes_are_cut() {
    for version in [V4, V5] {
        let mut bytes = connect(version, "me", 10);
        for i in 1..20u16 {
            bytes.extend(publish(
                version,
                1,
                i,
                "plant/pump",
                format!("{i}").as_bytes(),
            ));
        }
        let mut whole = Client::new();
        whole.talk(&bytes);
        for step in [1, 2, 3, 7, 50] {
            let mut cut = Client::new();
            bytes.chunks(step).for_each(|chunk| cut.talk(chunk));
            assert_eq!(cut.records(), whole.records());
            assert_eq!(cut.core.held_bytes(), 0, "an idle connection holds nothing");
        }
        assert_eq!(whole.records().len(), 19);
    }
}

#[test]
fn one_read_gives_no_larger_batch_than_the_limit_says() {
    // The longest topic that an alias may stand for, named by the shortest packets.
    let topic = "t".repeat(TOPIC_ALIAS_BYTES_MAX);
    let mut client = Client::connected(V5);
    client.send(&aliased(&topic, 1));
    client.core.handle_durable(1, client.start);
    client.batch = Batch::new();
    let mut read = aliased("", 1).repeat(READ_BYTES / aliased("", 1).len());
    let messages = read.len() / aliased("", 1).len();
    read.truncate(READ_BYTES);
    client.send(&read);
    let bytes = client.batch.len_bytes();
    assert!(bytes <= WAL_BATCH_BYTES_MAX, "{bytes}");
    assert!(bytes > UNACKED_BYTES_MAX, "the limit was met: {bytes}");
    assert!(!client.core.wants_read(client.start) && !client.core.wants_resume());
    // The rest is taken as there is room, and nothing is lost.
    while client.core.appended() < messages as u64 + 1 {
        client
            .core
            .handle_durable(client.core.appended(), client.start);
        assert!(client.core.wants_resume());
        client.batch = Batch::new();
        client.send(&[]);
        assert!(client.batch.len_bytes() <= WAL_BATCH_BYTES_MAX);
    }
    client
        .core
        .handle_durable(client.core.appended(), client.start);
    assert!(client.core.wants_read(client.at(10_000)));
}

#[test]
fn an_alias_stands_for_the_topic_that_it_was_given() {
    let mut client = Client::connected(V5);
    let mut bytes = aliased("plant/a", 1);
    bytes.extend(aliased("", 1));
    bytes.extend(aliased("plant/b", 10));
    bytes.extend(aliased("", 10));
    bytes.extend(aliased("plant/c", 1));
    bytes.extend(aliased("", 1));
    client.send(&bytes);
    let topics: Vec<_> = client.records().into_iter().map(|(t, _)| t).collect();
    let expected = [
        "plant/a", "plant/a", "plant/b", "plant/b", "plant/c", "plant/c",
    ];
    assert_eq!(topics, expected);
    for (bytes, code, reason) in [
        (aliased("", 2), 0x82, "protocol_error"),
        (aliased("a", 0), 0x94, "topic_alias"),
        (aliased("a", 11), 0x94, "topic_alias"),
        (
            aliased(&"t".repeat(TOPIC_ALIAS_BYTES_MAX), 2),
            0x97,
            "quota",
        ),
    ] {
        let mut client = Client::connected(V5);
        client.send(&aliased("plant/a", 1));
        client.send(&bytes);
        assert_eq!(client.said(), [0xe0, 1, code]);
        assert_eq!((client.over(), client.records().len()), (reason, 1));
    }
}

#[test]
fn what_user_properties_say_stands_in_the_log() {
    let mut client = Client::connected(V5);
    let pairs = [
        ("ts", "1769848199"),
        ("trace", "x"),
        ("unit", "°C"),
        ("seq", "7"),
    ];
    client.send(&publish_saying(V5, 1, 1, ("a/x", b"21.5"), &pairs));
    let mut said = UserProperties::NONE;
    for (name, text) in pairs {
        said.take(name, text);
    }
    let (kind, bytes) = client.batch.iter().next().unwrap();
    let Ok(Record::Message(message)) = Record::parse(kind, bytes) else {
        panic!("no message: {bytes:?}");
    };
    assert_eq!((message.properties, message.payload), (said, &b"21.5"[..]));
    assert_eq!(message.record_bytes(), bytes.len());
}

/// QoS 0, MQTT 5, no payload, an alias.
fn aliased(topic: &str, alias: u16) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    body.extend([3, 0x23, (alias >> 8) as u8, alias as u8]);
    let mut packet = vec![0x30];
    let mut length = body.len();
    while length > 127 {
        packet.push((length % 128) as u8 | 0x80);
        length /= 128;
    }
    packet.push(length as u8);
    [packet, body].concat()
}

const PUBREL_7: [u8; 4] = [0x62, 2, 0, 7];

#[test]
fn qos_2_is_answered_step_by_step_when_each_is_durable() {
    for version in [V4, V5] {
        let mut client = Client::connected(version);
        client.send(&publish(version, 2, 7, "a", b"1"));
        assert_eq!(client.said(), [0; 0]);
        client.core.handle_durable(1, client.start);
        assert_eq!(client.said(), [0x50, 2, 0, 7]);
        // A second copy goes into the log, too: only the log can tell.
        client.send(&publish(version, 2, 7, "a", b"1"));
        client.send(&PUBREL_7);
        assert_eq!(client.said(), [0; 0]);
        client.core.handle_durable(2, client.start);
        assert_eq!(client.said(), [0x50, 2, 0, 7]);
        client.core.handle_durable(3, client.start);
        assert_eq!(client.said(), [0x70, 2, 0, 7]);
        // A release of what nobody knows is answered all the same (section 4.3.3).
        client.send(&PUBREL_7);
        client.core.handle_durable(4, client.start);
        assert_eq!(client.said(), [0x70, 2, 0, 7]);
        let records: Vec<u8> = client.batch.iter().map(|(kind, _)| kind).collect();
        assert_eq!(records, [1, 1, 3, 3]);
    }
}

#[test]
fn qos_2_counts_as_in_flight_until_it_is_released() {
    let mut client = Client::connected(V5);
    for id in 1..=RECEIVE_MAX as u16 {
        client.send(&publish(V5, 2, id, "a", b"1"));
    }
    client.core.handle_durable(64, client.start);
    client.said();
    client.send(&publish(V5, 2, 7, "a", b"1"));
    assert_eq!(client.over(), "not over", "a second copy counts once");
    client.send(&PUBREL_7);
    client.core.handle_durable(66, client.start);
    client.send(&publish(V5, 1, 65, "a", b"1"));
    assert_eq!(client.over(), "not over", "there is room for one");
    client.send(&publish(V5, 2, 66, "a", b"1"));
    assert_eq!(client.over(), "receive_maximum");

    let mut client = Client::connected(V4);
    for id in 1..=UNRELEASED_MAX as u16 {
        client.send(&publish(V4, 2, id, "a", b"1"));
        client.core.handle_durable(id.into(), client.start);
    }
    assert_eq!(client.over(), "not over");
    client.said();
    client.send(&publish(V4, 2, 2_000, "a", b"1"));
    assert_eq!(client.over(), "receive_maximum");
}

#[test]
fn who_has_no_right_to_a_topic_is_refused_with_qos_2_too() {
    for (version, said) in [
        (V4, &[0x50, 2, 0, 7][..]),
        (V5, &[0x50, 4, 0, 7, 0x87, 0][..]),
    ] {
        let mut client = Client::connected(version);
        client.send(&publish(version, 2, 7, "tributary/x", b"1"));
        assert_eq!(
            (client.said().as_slice(), client.records().len()),
            (said, 0)
        );
    }
}

/// A CONNECT with a will, kept alive for 10 s; of MQTT 5, delayed by 30 s.
fn connect_with_will(version: Version, topic: &str) -> Vec<u8> {
    let v5 = version == V5;
    let mut body = [
        &[0, 4],
        b"MQTT".as_slice(),
        &[4 + u8::from(v5), 0x26, 0, 10],
    ]
    .concat();
    body.extend(v5.then_some([5, 0x11, 0, 0, 0, 60]).iter().flatten());
    body.extend(b"\0\x02me");
    body.extend(v5.then_some([5, 0x18, 0, 0, 0, 30]).iter().flatten());
    body.extend([0, topic.len() as u8]);
    body.extend(topic.as_bytes());
    body.extend(b"\0\x04lost");
    [&[0x10, body.len() as u8], body.as_slice()].concat()
}

#[test]
fn a_will_is_for_whoever_is_lost_and_not_for_who_takes_leave() {
    type End = fn(&mut Client);
    let ends: [(&str, bool, End); 9] = [
        ("disconnected", false, |client| client.send(&[0xe0, 0])),
        ("disconnected", true, |client| client.send(&[0xe0, 1, 4])),
        ("closed_by_client", true, |client| client.core.handle_end()),
        ("keep_alive", true, |client| {
            client.core.handle_timeout(client.at(15_000));
        }),
        ("malformed", true, |client| client.send(&[0, 0])),
        ("taken_over", true, |client| {
            client.core.handle_order(Order::TakenOver);
        }),
        ("shutdown", false, |client| {
            client.core.handle_order(Order::ShutDown);
        }),
        ("revoked", false, |client| {
            client.core.handle_order(Order::Revoked);
        }),
        ("log_ended", false, |client| {
            client.core.handle_order(Order::Abandon);
        }),
    ];
    for version in [V4, V5] {
        for (reason, lost, end) in ends {
            if version == V4 && reason == "disconnected" && lost {
                continue;
            }
            let mut client = Client::new();
            client.talk(&connect_with_will(version, "plant/state"));
            assert!(client.core.held_bytes() > 15, "it counts");
            end(&mut client);
            assert_eq!(client.over(), reason);
            let Some(will) = client.core.take_will() else {
                assert!(!lost, "{reason}");
                continue;
            };
            assert!(lost, "{reason}");
            let delay = if version == V5 { 30 } else { 0 };
            assert_eq!(will.delay, Duration::from_secs(delay));
            let mut batch = Batch::new();
            will.write(5, &mut batch);
            let (kind, bytes) = batch.iter().next().unwrap();
            let Ok(Record::Message(message)) = Record::parse(kind, bytes) else {
                panic!("no message")
            };
            assert!(message.will && message.received_time == 5);
            assert_eq!(message.session, Message::session_of("me"));
            assert_eq!(
                (message.topic, message.payload),
                ("plant/state", &b"lost"[..])
            );
        }
    }
    let mut client = Client::new();
    client.send(&connect_with_will(V5, "tributary/x"));
    assert_eq!(client.said(), [0x20, 3, 0, 0x87, 0]);
    assert_eq!(
        (client.over(), client.core.take_will()),
        ("will_topic", None)
    );
    let mut client = Client::new();
    client.send(&connect_with_will(V5, "plant/state"));
    client.admit(Admission::Refused {
        code: 0x87,
        reason: "not_authorized",
    });
    assert_eq!(client.core.take_will(), None);
}

#[test]
fn who_was_not_let_in_leaves_no_will() {
    for order in Order::ALL {
        let mut client = Client::new();
        client.send(&connect_with_will(V5, "plant/state"));
        client.core.handle_order(order);
        assert_ne!(client.over(), "not over");
        assert_eq!(client.core.take_will(), None);
        // Who is in the way only now may come again.
        let busy: &[u8] = match order {
            Order::Busy => &[0x20, 3, 0, 0x89, 0],
            _ => &[],
        };
        assert_eq!(client.said(), busy);
    }
}

#[test]
fn what_is_kept_of_a_session_stands_in_the_log_before_its_messages() {
    let changed = Admission::Granted {
        session_present: false,
        session_expiry_s: 60,
        session_changed: true,
        subscriptions: None,
    };
    let sessions = |client: &Client| -> Vec<u32> {
        let records = client.batch.iter();
        let records = records.map(|(kind, bytes)| Record::parse(kind, bytes).unwrap());
        let sessions = records.filter_map(|record| match record {
            Record::Session(session) => Some(session.expiry_s),
            _ => None,
        });
        sessions.collect()
    };
    let mut client = Client::new();
    client.send(&connect_with_will(V5, "a"));
    client.admit(changed);
    client.send(&publish(V5, 1, 1, "a", b"1"));
    let kinds: Vec<u8> = client.batch.iter().map(|(kind, _)| kind).collect();
    assert_eq!((kinds, sessions(&client)), (vec![9, 1], vec![60]));
    // Longer, shorter, or not at all, as it leaves.
    client.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
    assert_eq!(
        (client.over(), sessions(&client)),
        ("disconnected", vec![60, 0])
    );
    assert_eq!(client.core.session_expiry_s(), Some(0));

    let mut client = Client::connected(V5);
    client.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9]);
    assert_eq!(client.over(), "protocol_error", "it had none to keep");

    // What it asked for and did not get, it is told.
    let mut client = Client::new();
    client.send(&connect_with_will(V5, "a"));
    client.admit(GRANTED);
    assert!(
        client
            .said()
            .windows(5)
            .any(|five| five == [0x11, 0, 0, 0, 0])
    );
    let mut client = Client::new();
    client.send(&connect_with_will(V4, "a"));
    client.admit(Admission::Granted {
        session_present: true,
        session_expiry_s: 60,
        session_changed: false,
        subscriptions: None,
    });
    assert_eq!(client.said(), [0x20, 2, 1, 0]);
}

#[test]
fn refusals_by_version() {
    let publish_to = |version, topic: &str| {
        let mut client = Client::connected(version);
        let mut bytes = publish(version, 1, 5, "a", b"1");
        bytes.extend(publish(version, 1, 6, topic, b"2"));
        client.send(&bytes);
        assert_eq!(client.records().len(), 1, "only the first is kept");
        assert_eq!(client.said(), [0; 0], "answers keep their order");
        client.core.handle_durable(1, client.start);
        (client.said(), client.core.take_tally().refused_topic)
    };
    for topic in [
        "tributary",
        "tributary/alerts/x",
        "$SYS/uptime",
        "$share/g/a",
    ] {
        let (said, count) = publish_to(V5, topic);
        assert_eq!(
            (said.as_slice(), count),
            (&[0x40, 2, 0, 5, 0x40, 4, 0, 6, 0x87, 0][..], 1)
        );
        let (said, count) = publish_to(V4, topic);
        assert_eq!(
            (said.as_slice(), count),
            (&[0x40, 2, 0, 5, 0x40, 2, 0, 6][..], 1)
        );
    }
    let mut client = Client::connected(V5);
    client.send(&publish(V5, 1, 6, "tributaryx", b"2"));
    assert_eq!(client.records().len(), 1);
}

#[test]
fn whoever_is_not_let_in_hears_why() {
    let body = |level: u8, flags: u8, rest: &[u8]| {
        let body = [&[0, 4], b"MQTT".as_slice(), &[level, flags, 0, 60], rest].concat();
        [&[0x10, body.len() as u8], body.as_slice()].concat()
    };
    let table: &[(Vec<u8>, &[u8], &str)] = &[
        (body(3, 2, b"\0\x01a"), &[0x20, 2, 0, 1], "protocol_version"),
        (
            body(6, 2, b"\0\x01a"),
            &[0x20, 3, 0, 0x84, 0],
            "protocol_version",
        ),
        (body(4, 0, b"\0\0"), &[0x20, 2, 0, 2], "client_id"),
        (
            body(5, 2, b"\x04\x15\0\x01k\0\0"),
            &[0x20, 3, 0, 0x8c, 0],
            "authentication",
        ),
        (body(5, 3, b"\0\0\0"), &[0x20, 3, 0, 0x81, 0], "malformed"),
        (body(4, 3, b"\0\0"), &[], "malformed"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), &[], "protocol_error"),
        (vec![0xc0, 0], &[], "protocol_error"),
        (vec![0x10, 0xff, 0xff, 0xff, 0x7f], &[], "packet_too_large"),
        (vec![0x10, 0xff, 0xff, 0xff, 0xff], &[], "malformed"),
    ];
    for (bytes, said, reason) in table {
        let mut client = Client::new();
        client.send(bytes);
        assert_eq!(
            (client.said().as_slice(), client.over()),
            (*said, *reason),
            "{bytes:02x?}"
        );
    }
    // No name: one is given, and an MQTT 5 client is told.
    let mut client = Client::new();
    client.send(&body(5, 2, b"\0\0\0"));
    let given = "tributary-0000000000000000000000000000abc7";
    assert_eq!(client.admit(GRANTED), given);
    assert!(String::from_utf8_lossy(&client.said()).contains(given));
}

#[test]
fn silence_ends_a_connection_and_only_silence() {
    let mut client = Client::new();
    client.send(&connect(V5, "me", 10)[..9]);
    assert_eq!(
        client.core.poll_timeout(client.start),
        Some(client.at(5_000))
    );
    client.core.handle_timeout(client.at(4_999));
    assert_eq!(client.over(), "not over");
    client.core.handle_timeout(client.at(5_000));
    assert_eq!(client.over(), "no_connect");

    let mut client = Client::connected(V5);
    assert_eq!(
        client.core.poll_timeout(client.start),
        Some(client.at(15_000))
    );
    client.core.handle_timeout(client.at(14_999));
    assert_eq!(client.over(), "not over");
    client.core.handle_timeout(client.at(15_000));
    assert_eq!(
        (client.said().as_slice(), client.over()),
        (&[0xe0, 1, 0x8d][..], "keep_alive")
    );

    // MQTT 5 without a keep alive gets ours; 3.1.1 cannot be told and has none.
    let mut client = Client::new();
    client.talk(&connect(V5, "me", 0));
    assert_eq!(
        client.core.poll_timeout(client.start),
        Some(client.at(900_000))
    );
    assert!(client.said().ends_with(&[0x13, 2, 88]));
    let mut client = Client::new();
    client.talk(&connect(V4, "me", 0));
    assert_eq!(client.core.poll_timeout(client.start), None);
}

/// Over a slow link one packet may take longer than the keep alive.
#[test]
fn a_packet_that_takes_long_is_no_silence() {
    let mut client = Client::connected(V5);
    let bytes = publish(V5, 1, 1, "a", b"1");
    for (i, byte) in bytes.iter().enumerate() {
        let now = Now {
            instant: client.at(14_000 * (i as u64 + 1)),
            unix_us: 0,
        };
        client.core.handle_timeout(now.instant);
        client.core.handle_bytes(&[*byte], now, &mut client.batch);
    }
    assert_eq!((client.over(), client.records().len()), ("not over", 1));
    let last = 14_000 * bytes.len() as u64;
    client.core.handle_timeout(client.at(last + 15_000));
    assert_eq!(client.over(), "keep_alive");
}

/// A connection that never finishes CONNECT cannot stretch its time byte by byte.
#[test]
fn a_slow_connect_has_one_deadline() {
    let mut client = Client::new();
    let bytes = connect(V4, "me", 10);
    let now = Now {
        instant: client.at(4_000),
        unix_us: 0,
    };
    client
        .core
        .handle_bytes(&bytes[..5], now, &mut client.batch);
    assert_eq!(
        client.core.poll_timeout(now.instant),
        Some(client.at(5_000))
    );
}

/// What follows CONNECT at once, as the standard allows, waits for the decision.
#[test]
fn nothing_of_a_client_is_taken_before_it_is_let_in() {
    let mut bytes = connect(V5, "me", 10);
    bytes.extend(publish(V5, 1, 1, "a", b"1"));
    for admitted in [true, false] {
        let mut client = Client::new();
        client.send(&bytes);
        assert!(!client.core.wants_read(client.start));
        assert_eq!((client.said(), client.batch.records()), (Vec::new(), 0));
        let refused = Admission::Refused {
            code: 0x87,
            reason: "not_authorized",
        };
        client.admit(if admitted { GRANTED } else { refused });
        let said = client.said();
        if admitted {
            assert_eq!((said[0], said[3]), (0x20, 0));
            assert_eq!(client.batch.records(), 1);
        } else {
            assert_eq!(said, [0x20, 3, 0, 0x87, 0]);
            assert_eq!(
                (client.over(), client.batch.records()),
                ("not_authorized", 0)
            );
        }
        assert_eq!(client.core.held_bytes(), 0);
    }
}

#[test]
fn what_is_in_flight_is_bounded() {
    let mut client = Client::connected(V5);
    for i in 1..=64 {
        client.send(&publish(V5, 1, i, "a", b"1"));
    }
    assert_eq!(client.over(), "not over");
    client.send(&publish(V5, 1, 65, "a", b"1"));
    assert_eq!(
        (client.said().as_slice(), client.over()),
        (&[0xe0, 1, 0x93][..], "receive_maximum")
    );
    assert_eq!(client.batch.records(), 64);

    // Bytes on their way to the disk stop the reading, and the silence meanwhile is ours.
    let mut client = Client::connected(V4);
    let big = vec![b'x'; 200_000];
    client.send(&publish(V4, 1, 1, "a", &big));
    assert!(client.core.wants_read(client.start));
    client.send(&publish(V4, 1, 2, "a", &big));
    assert!(!client.core.wants_read(client.start));
    assert_eq!(client.core.poll_timeout(client.start), None);
    client.core.handle_timeout(client.at(1_000_000));
    assert_eq!(client.over(), "not over");
    client.core.handle_durable(1, client.at(1_000_000));
    assert!(client.core.wants_read(client.at(1_000_000)));
    assert_eq!(
        client.core.poll_timeout(client.at(1_000_000)),
        Some(client.at(1_015_000))
    );
}

#[test]
fn a_rate_beyond_the_limit_waits_and_loses_nothing() {
    let mut client = Client::connected(V4);
    let burst: Vec<u8> = (0..1_100)
        .flat_map(|_| publish(V4, 0, 0, "a", b"1"))
        .collect();
    client.send(&burst);
    assert_eq!(client.records().len(), 1_100);
    assert!(!client.core.wants_read(client.start));
    assert_eq!(client.core.poll_timeout(client.start), Some(client.at(101)));
    assert!(client.core.wants_read(client.at(102)));
}

#[test]
fn too_large_is_told_or_becomes_a_dead_letter() {
    let payload: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    let mut client = Client::connected(V5);
    client.send(&publish(V5, 1, 1, "a", &payload)[..10]);
    assert_eq!(
        (client.said().as_slice(), client.over()),
        (&[0xe0, 1, 0x95][..], "packet_too_large")
    );

    for qos in [0, 1] {
        for step in [13, 16_384, 400_000] {
            let mut client = Client::connected(V4);
            let mut bytes = publish(V4, qos, u16::from(qos) * 3, "plant/cam", &payload);
            bytes.extend(publish(V4, 1, 4, "b", b"next"));
            for chunk in bytes.chunks(step) {
                client.send(chunk);
                let held = client.core.held_bytes();
                assert!(
                    held < 3 * TOO_LARGE_HEAD_BYTES,
                    "it is read past, not held: {held}"
                );
            }
            assert_eq!(client.core.held_bytes(), 0);
            let records = client.records();
            assert_eq!(records[0].0, "plant/cam:300000");
            assert_eq!(records[0].1, payload[..TOO_LARGE_HEAD_BYTES]);
            assert_eq!(records[1], ("b".into(), b"next".to_vec()));
            client.core.handle_durable(2, client.start);
            let acks: &[u8] = if qos == 1 {
                &[0x40, 2, 0, 3, 0x40, 2, 0, 4]
            } else {
                &[0x40, 2, 0, 4]
            };
            assert_eq!(client.said(), acks);
            assert_eq!(client.core.take_tally().too_large, 1);
        }
    }
}

#[test]
fn the_head_of_a_large_one_counts_as_held() {
    let mut client = Client::connected(V4);
    let topic = "t".repeat(65_535);
    let bytes = publish(V4, 0, 0, &topic, &vec![0; PACKET_BYTES_MAX]);
    for chunk in bytes[..200_000].chunks(READ_BYTES) {
        client.send(chunk);
    }
    assert!(client.core.held_bytes() > 65_535);
}

#[test]
fn orders_end_it_with_their_reason() {
    let mut client = Client::connected(V5);
    client.core.handle_order(Order::TakenOver);
    assert_eq!(
        (client.said().as_slice(), client.over()),
        (&[0xe0, 1, 0x8e][..], "taken_over")
    );
    let mut client = Client::connected(V4);
    client.core.handle_order(Order::TakenOver);
    assert_eq!(
        (client.said().as_slice(), client.over()),
        (&[][..], "taken_over")
    );

    // A shutdown first acknowledges what was taken in, and takes nothing more.
    let mut client = Client::connected(V5);
    client.send(&publish(V5, 1, 1, "a", b"1"));
    client.core.handle_order(Order::ShutDown);
    assert!(!client.core.wants_read(client.start));
    assert_eq!(client.over(), "not over");
    client.core.handle_durable(1, client.start);
    assert_eq!(client.said(), [0x40, 2, 0, 1, 0xe0, 1, 0x8b]);
    assert_eq!(client.over(), "shutdown");
}

#[test]
fn twenty_thousand_broken_conversations_panic_nowhere() {
    let mut state = 99;
    let mut endings = std::collections::BTreeMap::new();
    for round in 0..20_000usize {
        let version = [V4, V5][round % 2];
        let mut bytes = connect(version, "me", 10);
        if round % 3 == 0 {
            mutate(&mut bytes, &mut state);
        }
        let mut rest = publish(version, 1, 1, "a/b", b"1");
        rest.extend([0xc0, 0]);
        rest.extend(publish(version, 0, 0, "a/c", b"2"));
        mutate(&mut rest, &mut state);
        bytes.extend(rest);
        let mut client = Client::new();
        for chunk in bytes.chunks(1 + next(&mut state) as usize % 40) {
            client.talk(chunk);
        }
        client
            .core
            .handle_durable(client.core.appended(), client.start);
        assert!(client.core.held_bytes() < 1_024);
        assert_eq!(u64::from(client.batch.records()), client.core.appended());
        *endings.entry(client.over()).or_insert(0) += 1;
    }
    assert!(endings.len() > 4, "{endings:?}");
}

#[test]
fn what_a_full_spool_refuses_is_told_or_declared() {
    for version in [V4, V5] {
        let mut client = Client::connected(version);
        let refuse = crate::spool::RefuseNew::default();
        client.core = client.core.refusing(refuse.clone());
        let send = |client: &mut Client, packet_id| {
            client.send(&publish(version, 1, packet_id, "d/m", b"{\"a\":1,\"b\":2}"));
        };
        send(&mut client, 1);
        refuse.set(true);
        send(&mut client, 2);
        client.send(&publish(version, 0, 0, "d/m", b"3"));
        // Only the log can tell whether the first copy was taken in.
        let mut again = publish(version, 1, 9, "d/m", b"4");
        again[0] |= 8;
        client.send(&again);
        refuse.set(false);
        send(&mut client, 3);
        let records: Vec<_> = client
            .batch
            .iter()
            .map(|(kind, bytes)| match Record::parse(kind, bytes).unwrap() {
                Record::Message(message) => u64::from(message.packet_id),
                Record::Refused(message) => 100 + u64::from(message.packet_id),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            records,
            if version == V4 {
                vec![1, 102, 109, 3]
            } else {
                vec![1, 109, 3]
            }
        );
        assert_eq!(client.core.take_tally().turned_away, 3);
        // In their order, and none before it is durable what became of it.
        assert!(client.said().is_empty());
        let (now, all) = (client.start, client.core.appended());
        client.core.handle_durable(all, now);
        let told = match version {
            V4 => [
                &[0x40, 2, 0, 1, 0x40, 2, 0, 2][..],
                &[0x40, 2, 0, 9, 0x40, 2, 0, 3],
            ],
            V5 => [
                &[0x40, 2, 0, 1, 0x40, 4, 0, 2, 0x97, 0][..],
                &[0x40, 2, 0, 9, 0x40, 2, 0, 3],
            ],
        };
        assert_eq!(client.said(), told.concat());
    }
}
