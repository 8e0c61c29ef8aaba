//! Statements of MQTT 3.1.1 and 5 that no other test shows, over real sockets. docs/mqtt.md says
//! which statement is shown where. Here everything is durable at once.

use super::*;

const BOTH: [u8; 2] = [4, 5];

/// A packet with a body of at most 127 bytes.
fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    assert!(body.len() < 128);
    [&[first, body.len() as u8], body.as_slice()].concat()
}

/// A text with its length.
fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// A CONNECT: level, flags, properties (MQTT 5) and payload. Kept alive for 60 s.
fn connect(level: u8, flags: u8, properties: &[u8], payload: &[&[u8]]) -> Vec<u8> {
    let length = [properties.len() as u8];
    let properties: &[&[u8]] = match level {
        5 => &[&length, properties],
        _ => &[],
    };
    let head = [b"\0\x04MQTT".as_slice(), &[level, flags, 0, 60]].concat();
    packet(0x10, &[&head, &properties.concat(), &payload.concat()])
}

/// A PUBLISH without properties.
fn publish(level: u8, first: u8, id: u16, topic: &[u8], payload: &[u8]) -> Vec<u8> {
    let id = if first & 6 == 0 {
        Vec::new()
    } else {
        id.to_be_bytes().to_vec()
    };
    let none: &[u8] = if level == 5 { &[0] } else { &[] };
    packet(first, &[&text(topic), &id, none, payload])
}

/// A SUBSCRIBE of packet id 9, each filter with its options.
fn subscribe(level: u8, filters: &[(&[u8], u8)]) -> Vec<u8> {
    let none: &[u8] = if level == 5 { &[0] } else { &[] };
    let filters = filters.iter();
    let filters = filters.flat_map(|(filter, options)| [text(filter), vec![*options]].concat());
    packet(0x82, &[&[0, 9], none, &filters.collect::<Vec<u8>>()])
}

async fn durable_at_once() -> Server {
    let (writer, held) = gate();
    drop(held);
    serve(writer).await
}

/// What the server says to `bytes`, a packet each, until it closes.
async fn until_closed(server: &Server, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut raw = Raw::open(server).await;
    raw.send(bytes).await;
    rest(&mut raw).await
}

async fn rest(raw: &mut Raw) -> Vec<Vec<u8>> {
    let mut said = Vec::new();
    while let Some(packet) = raw.packet().await {
        said.push(packet);
    }
    said
}

/// A client that is let in, and what CONNACK said.
async fn arrive(server: &Server, connect: &[u8]) -> (Raw, Vec<u8>) {
    let mut raw = Raw::open(server).await;
    raw.send(connect).await;
    let answer = raw.packet().await.unwrap();
    assert_eq!((answer[0], answer[3]), (0x20, 0), "{answer:02x?}");
    (raw, answer)
}

async fn ping(raw: &mut Raw) {
    raw.send(&[0xc0, 0]).await;
    assert_eq!(raw.packet().await.unwrap(), [0xd0, 0]);
}

/// What a client of this level hears when it breaks the protocol, before it is closed.
fn farewell(level: u8, code: u8) -> Vec<Vec<u8>> {
    match level {
        5 => vec![vec![0xe0, 1, code]],
        _ => Vec::new(),
    }
}

/// What the messages of the log say: topic, payload, and whether retained and a will.
fn kept(frames: &[CommittedFrame]) -> Vec<(String, Vec<u8>, bool, bool)> {
    let records = frames.iter().flat_map(CommittedFrame::records);
    let messages = records.filter_map(|(_, kind, bytes)| match Record::parse(kind, bytes) {
        Ok(Record::Message(m)) => Some((m.topic.to_owned(), m.payload.to_vec(), m.retain, m.will)),
        _ => None,
    });
    messages.collect()
}

#[tokio::test]
async fn nothing_is_taken_before_connect_nor_behind_one_that_is_refused() {
    let server = durable_at_once().await;
    for level in BOTH {
        let message = publish(level, 0x32, 1, b"a", b"1");
        for first in [&message[..], &[0xc0, 0], &[0xe0, 0], &[0xf0, 0]] {
            let said = until_closed(&server, &[first, message.as_slice()].concat()).await;
            assert_eq!(said, Vec::<Vec<u8>>::new(), "{first:02x?}");
        }
    }
    let name = text("a");
    let refused: [(Vec<u8>, &[u8]); 6] = [
        (connect(3, 2, &[], &[&name]), &[0x20, 2, 0, 1]),
        (connect(6, 2, &[], &[&name]), &[0x20, 3, 0, 0x84, 0]),
        (connect(4, 0, &[], &[&text("")]), &[0x20, 2, 0, 2]),
        (connect(5, 3, &[], &[&name]), &[0x20, 3, 0, 0x81, 0]),
        (
            connect(5, 2, b"\x15\0\x01k", &[&name]),
            &[0x20, 3, 0, 0x8c, 0],
        ),
        (
            connect(5, 6, &[], &[&name, &[0], &text("tributary/x"), &text("")]),
            &[0x20, 3, 0, 0x87, 0],
        ),
    ];
    for (connect, answer) in refused {
        let level = connect[8];
        let behind = publish(level, 0x32, 1, b"a", b"1");
        let said = until_closed(&server, &[connect.as_slice(), &behind].concat()).await;
        assert_eq!(said, [answer], "{connect:02x?}");
    }
    assert_eq!(kept(&server.end().await), []);
}

#[tokio::test]
async fn connack_comes_first_and_once() {
    let server = durable_at_once().await;
    for level in BOTH {
        let connect = connect(level, 2, &[], &[&text("a")]);
        let message = publish(level, 0x32, 7, b"a", b"1");
        let mut raw = Raw::open(&server).await;
        raw.send(&[connect.as_slice(), &[0xc0, 0], &message].concat())
            .await;
        let connack = raw.packet().await.unwrap();
        assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, 0));
        assert_eq!(raw.packet().await.unwrap(), [0xd0, 0]);
        assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 7]);
        raw.send(&connect).await;
        assert_eq!(rest(&mut raw).await, farewell(level, 0x82));
    }
    server.end().await;
}

#[tokio::test]
async fn a_malformed_connect_is_told_on_5_and_closed_on_3_1_1() {
    let server = durable_at_once().await;
    for level in BOTH {
        let name = text("a");
        let none: &[u8] = if level == 5 { &[0] } else { &[] };
        let will = |topic: &[u8]| {
            let will = [none, &text(topic), &text("lost")].concat();
            connect(level, 0x06, &[], &[&name, &will])
        };
        let mut flagged = connect(level, 2, &[], &[&name]);
        flagged[0] = 0x11;
        let table = [
            ("the packet's flags", flagged),
            ("the reserved flag", connect(level, 0x03, &[], &[&name])),
            ("QoS of no will", connect(level, 0x0a, &[], &[&name])),
            ("retain of no will", connect(level, 0x22, &[], &[&name])),
            (
                "a will without flag",
                connect(level, 2, &[], &[&name, &text("a"), &text("b")]),
            ),
            (
                "a will that is not there",
                connect(level, 0x06, &[], &[&name]),
            ),
            ("QoS 3 of a will", {
                let mut connect = will(b"a");
                connect[9] = 0x1e;
                connect
            }),
            ("a wildcard in a will", will(b"a/#")),
            ("an empty topic of a will", will(b"")),
            ("a will's topic that is no UTF-8", will(b"\xff")),
            (
                "a user that is not there",
                connect(level, 0x82, &[], &[&name]),
            ),
            (
                "a user without flag",
                connect(level, 2, &[], &[&name, &text("u")]),
            ),
            (
                "a user that is no UTF-8",
                connect(level, 0x82, &[], &[&name, &text(b"\xed\xa0\x80")]),
            ),
            (
                "a password that is not there",
                connect(level, 0xc2, &[], &[&name, &text("u")]),
            ),
            (
                "a password without flag",
                connect(level, 0x82, &[], &[&name, &text("u"), &text("p")]),
            ),
            (
                "a name with U+0000",
                connect(level, 2, &[], &[&text(b"a\0")]),
            ),
            (
                "a name that is no UTF-8",
                connect(level, 2, &[], &[&text(b"\xc0\x80")]),
            ),
            ("no name", connect(level, 2, &[], &[])),
        ];
        let expected: Vec<Vec<u8>> = match level {
            5 => vec![vec![0x20, 3, 0, 0x81, 0]],
            _ => Vec::new(),
        };
        for (what, bytes) in table {
            assert_eq!(
                until_closed(&server, &bytes).await,
                expected,
                "{level}: {what}"
            );
        }
        let of_another = packet(0x10, &[b"\0\x04MQTX", &[level, 2, 0, 60], none, &name]);
        assert!(until_closed(&server, &of_another).await.is_empty());
    }
    server.end().await;
}

#[tokio::test]
async fn a_password_without_a_user_is_of_mqtt_5() {
    let server = durable_at_once().await;
    let with = |level| connect(level, 0x42, &[], &[&text("a"), &text(b"\xff\0")]);
    assert!(until_closed(&server, &with(4)).await.is_empty());
    let _let_in = arrive(&server, &with(5)).await;
    // Both, binary as a password is.
    for level in BOTH {
        let both = connect(
            level,
            0xc2,
            &[],
            &[&text("b"), &text("u"), &text(b"\xff\0")],
        );
        let _let_in = arrive(&server, &both).await;
    }
    server.end().await;
}

#[tokio::test]
async fn a_name_may_have_all_letters_and_be_long() {
    let server = durable_at_once().await;
    let names = [
        "0123456789abcdefghijklm",
        "nopqrstuvwxyzABCDEFGHIJ",
        "KLMNOPQRSTUVWXYZ",
        "a",
        "Messger\u{e4}t/7 \u{feff}",
        "a-name-of-more-than-twenty-three-bytes",
    ];
    for level in BOTH {
        for name in names {
            let _let_in = arrive(&server, &connect(level, 2, &[], &[&text(name)])).await;
        }
    }
    server.end().await;
}

#[tokio::test]
async fn who_has_no_name_is_given_one_that_nobody_has() {
    let server = durable_at_once().await;
    let forever = [0x11, 0xff, 0xff, 0xff, 0xff];
    let nameless = connect(5, 0, &forever, &[&text("")]);
    let assigned = |connack: &[u8]| -> Vec<u8> {
        let at = connack.windows(2).position(|two| two == [0x12, 0]).unwrap();
        let length = usize::from(connack[at + 2]);
        connack[at + 3..at + 3 + length].to_vec()
    };
    let (first, one) = arrive(&server, &nameless).await;
    let (mut second, two) = arrive(&server, &nameless).await;
    assert_eq!((one[2], two[2]), (0, 0), "a session of its own");
    // 128 bits, and nothing of one tells the next one's.
    let bits = |connack: &[u8]| {
        let name = String::from_utf8(assigned(connack)).unwrap();
        let digits = name.strip_prefix("tributary-").unwrap();
        assert_eq!(digits.len(), 32);
        u128::from_str_radix(digits, 16).unwrap()
    };
    let differ = (bits(&one) ^ bits(&two)).count_ones();
    assert!(differ > 10, "{differ} bits of 128");
    drop(first);
    // It is a name like any other.
    let (_again, connack) =
        arrive(&server, &connect(5, 0, &forever, &[&text(assigned(&one))])).await;
    assert_eq!(connack[2], 1, "its session is there");
    // 3.1.1 is not told, and each is itself.
    let (mut third, connack) = arrive(&server, &connect(4, 2, &[], &[&text("")])).await;
    assert_eq!(connack, [0x20, 2, 0, 0]);
    let (mut fourth, _) = arrive(&server, &connect(4, 2, &[], &[&text("")])).await;
    for raw in [&mut second, &mut third, &mut fourth] {
        ping(raw).await;
    }
    server.end().await;
}

#[tokio::test]
async fn a_session_of_3_1_1_is_there_until_a_clean_one() {
    let server = durable_at_once().await;
    for (flags, present) in [(0, 0), (0, 1), (0, 1), (2, 0), (0, 0), (0, 1)] {
        let (mut raw, connack) = arrive(&server, &connect(4, flags, &[], &[&text("a")])).await;
        assert_eq!(connack, [0x20, 2, present, 0], "{flags}");
        // A leave does not end it.
        raw.send(&[0xe0, 0]).await;
        assert_eq!(raw.packet().await, None);
    }
    server.end().await;
}

#[tokio::test]
async fn reserved_flags_are_held_in_every_packet() {
    let server = durable_at_once().await;
    for level in BOTH {
        let none: &[u8] = if level == 5 { &[0] } else { &[] };
        let filter = text("a");
        let subscribe = |first| packet(first, &[&[0, 1], none, &filter, &[0]]);
        let unsubscribe = |first| packet(first, &[&[0, 1], none, &filter]);
        let with_id = |first| packet(first, &[&[0, 1]]);
        let mut packets = vec![packet(0x36, &[&filter, &[0, 1], none])];
        packets.extend([0x41, 0x51, 0x60, 0x63, 0x6a, 0x71].map(with_id));
        packets.extend([0x80, 0x83, 0x8a].map(subscribe));
        packets.extend([0xa0, 0xa3, 0xaa].map(unsubscribe));
        packets.extend([0xc1, 0xe1, 0xf1].map(|first| packet(first, &[])));
        for bytes in packets {
            let mut raw = Raw::connected(&server, level, "a").await;
            raw.send(&bytes).await;
            assert_eq!(rest(&mut raw).await, farewell(level, 0x81), "{bytes:02x?}");
        }
        // Of the right flags, and still none of these is for a server.
        for first in [0x20, 0x40, 0x50, 0x70, 0x90, 0xb0, 0xd0, 0xf0] {
            let mut raw = Raw::connected(&server, level, "a").await;
            raw.send(&with_id(first)).await;
            assert_eq!(rest(&mut raw).await, farewell(level, 0x82), "{first:02x}");
        }
    }
    server.end().await;
}

#[tokio::test]
async fn texts_are_utf_8_without_u_0000_and_keep_what_they_have() {
    let server = durable_at_once().await;
    for level in BOTH {
        for bad in [
            &b"a\0b"[..],
            b"\xed\xa0\x80",
            b"\xed\xbf\xbf",
            b"\xc0\x80",
            b"\xff",
            b"a\xc3",
        ] {
            let filter = text(bad);
            let none: &[u8] = if level == 5 { &[0] } else { &[] };
            let mut packets = vec![
                publish(level, 0x30, 0, bad, b"1"),
                subscribe(level, &[(b"a", 0), (bad, 0)]),
                packet(0xa2, &[&[0, 1], none, &filter]),
            ];
            if level == 5 {
                // Content type, response topic, and both halves of a user property.
                let behind = |property: &[u8]| {
                    let length = [property.len() as u8];
                    packet(0x30, &[&text("a"), &length, property, b"1"])
                };
                packets.extend([
                    behind(&[&[0x03], filter.as_slice()].concat()),
                    behind(&[&[0x08], filter.as_slice()].concat()),
                    behind(&[&[0x26], filter.as_slice(), &text("v")].concat()),
                    behind(&[&[0x26], text("k").as_slice(), &filter].concat()),
                ]);
            }
            for bytes in packets {
                let mut raw = Raw::connected(&server, level, "a").await;
                raw.send(&bytes).await;
                assert_eq!(rest(&mut raw).await, farewell(level, 0x81), "{bytes:02x?}");
            }
        }
        let mut raw = Raw::connected(&server, level, "a").await;
        for topic in [
            "\u{feff}plant/\u{feff}",
            "\u{ffff}\u{d7ff}\u{e000}\u{10ffff}",
            "/",
            " ",
        ] {
            raw.send(&publish(level, 0x30, 0, topic.as_bytes(), b"1"))
                .await;
        }
        ping(&mut raw).await;
    }
    let topics: Vec<String> = kept(&server.end().await).into_iter().map(|m| m.0).collect();
    let expected = [
        "\u{feff}plant/\u{feff}",
        "\u{ffff}\u{d7ff}\u{e000}\u{10ffff}",
        "/",
        " ",
    ];
    assert_eq!(topics, [expected, expected].concat());
}

#[tokio::test]
async fn what_a_publication_may_not_say_ends_the_connection() {
    let server = durable_at_once().await;
    let behind = |properties: &[u8]| {
        let length = [properties.len() as u8];
        packet(0x32, &[&text("a"), &[0, 1], &length, properties, b"1"])
    };
    let of_5: [(&str, Vec<u8>, u8); 6] = [
        ("a wildcard to respond to", behind(b"\x08\0\x01#"), 0x82),
        ("a subscription identifier", behind(&[0x0b, 1]), 0x82),
        ("a property of CONNECT", behind(&[0x21, 0, 1]), 0x82),
        ("content type twice", behind(b"\x03\0\0\x03\0\0"), 0x82),
        ("no length of properties", packet(0x30, &[&text("a")]), 0x81),
        (
            "a length in too many bytes",
            packet(0x30, &[&text("a"), &[0x80, 0]]),
            0x81,
        ),
    ];
    for (what, bytes, code) in of_5 {
        let mut raw = Raw::connected(&server, 5, "a").await;
        raw.send(&bytes).await;
        assert_eq!(rest(&mut raw).await, farewell(5, code), "{what}");
    }
    for level in BOTH {
        for (what, bytes, code) in [
            ("DUP with QoS 0", publish(level, 0x38, 0, b"a", b""), 0x81),
            ("packet id 0", publish(level, 0x32, 0, b"a", b""), 0x82),
            (
                "packet id 0 with QoS 2",
                publish(level, 0x34, 0, b"a", b""),
                0x82,
            ),
            ("a wildcard", publish(level, 0x30, 0, b"a/+/b", b""), 0x81),
            (
                "a wildcard at the end",
                publish(level, 0x30, 0, b"a/#", b""),
                0x81,
            ),
            (
                "a length of five bytes",
                vec![0x30, 0xff, 0xff, 0xff, 0xff, 1],
                0x81,
            ),
        ] {
            let mut raw = Raw::connected(&server, level, "a").await;
            raw.send(&bytes).await;
            assert_eq!(
                rest(&mut raw).await,
                farewell(level, code),
                "{level}: {what}"
            );
        }
    }
    assert_eq!(kept(&server.end().await), []);
}

#[tokio::test]
async fn malformed_filters_end_the_connection() {
    let server = durable_at_once().await;
    for level in BOTH {
        let none: &[u8] = if level == 5 { &[0] } else { &[] };
        for bad in [&b""[..], b"a+", b"+a/b", b"a/#/b", b"a#", b"#/a"] {
            for bytes in [
                subscribe(level, &[(bad, 0)]),
                packet(0xa2, &[&[0, 1], none, &text(bad)]),
            ] {
                let mut raw = Raw::connected(&server, level, "a").await;
                raw.send(&bytes).await;
                assert_eq!(rest(&mut raw).await, farewell(level, 0x81), "{bytes:02x?}");
            }
        }
        let reserved = if level == 5 { 0x40 } else { 0x04 };
        let filter = text("a");
        for (bytes, code) in [
            (subscribe(level, &[(b"a", reserved)]), 0x81),
            (subscribe(level, &[(b"a", 3)]), 0x81),
            (subscribe(level, &[]), 0x82),
            (packet(0xa2, &[&[0, 1], none]), 0x82),
            (packet(0x82, &[&[0, 0], none, &filter, &[0]]), 0x82),
            (packet(0xa2, &[&[0, 0], none, &filter]), 0x82),
        ] {
            let mut raw = Raw::connected(&server, level, "a").await;
            raw.send(&bytes).await;
            assert_eq!(rest(&mut raw).await, farewell(level, code), "{bytes:02x?}");
        }
    }
    for (options, code) in [(0x30, 0x81), (0x0c, 0x82)] {
        let mut raw = Raw::connected(&server, 5, "a").await;
        raw.send(&subscribe(5, &[(b"$share/g/a", options)])).await;
        assert_eq!(rest(&mut raw).await, farewell(5, code), "{options:02x}");
    }
    server.end().await;
}

#[tokio::test]
async fn each_filter_is_answered_in_its_place() {
    let server = durable_at_once().await;
    let filters: [(&[u8], u8); 5] = [
        (b"$share/g/a", 0),
        (b"+/a/#", 1),
        (b"tributary/alerts/#", 2),
        (b"#", 2),
        (b"tributary/status", 0),
    ];
    let two = [text("tributary/alerts/#"), text("b")].concat();
    let mut raw = Raw::connected(&server, 4, "a").await;
    raw.send(&subscribe(4, &filters)).await;
    let suback = [0x90, 7, 0, 9, 0x80, 0x80, 1, 0x80, 0];
    assert_eq!(raw.packet().await.unwrap(), suback);
    raw.send(&packet(0xa2, &[&[1, 2], &two])).await;
    assert_eq!(raw.packet().await.unwrap(), [0xb0, 2, 1, 2]);
    // A client that wants no reasons, and one for which they are too long, get the codes alone.
    let bare = [0x90, 8, 0, 9, 0, 0x9e, 0x83, 1, 0x83, 0];
    for properties in [&[0x17, 0][..], &[0x27, 0, 0, 0, 43]] {
        let (mut raw, _) = arrive(&server, &connect(5, 2, properties, &[&text("a")])).await;
        raw.send(&subscribe(5, &filters)).await;
        assert_eq!(raw.packet().await.unwrap(), bare);
        raw.send(&packet(0xa2, &[&[1, 2], &[0], &two])).await;
        assert_eq!(raw.packet().await.unwrap(), [0xb0, 5, 1, 2, 0, 0, 0x11]);
    }
    // And who asked for them hears why; a subscription identifier changes nothing of that.
    let mut raw = Raw::connected(&server, 5, "a").await;
    raw.send(&packet(0x82, &[&[0, 9, 2, 0x0b, 5], &text("a"), &[0]]))
        .await;
    let suback = raw.packet().await.unwrap();
    assert!(
        suback.ends_with(&[0x83]) && suback.len() > 30,
        "{suback:02x?}"
    );
    server.end().await;
}

#[tokio::test]
async fn a_client_is_sent_nothing_larger_than_it_takes() {
    let server = durable_at_once().await;
    // Enough for PINGRESP and PUBACK, and not for CONNACK or SUBACK.
    let connect = connect(5, 2, &[0x27, 0, 0, 0, 4], &[&text("a")]);
    let mut raw = Raw::open(&server).await;
    raw.send(&connect).await;
    raw.send(&subscribe(5, &[(b"a", 0)])).await;
    raw.send(&publish(5, 0x32, 7, b"a", b"1")).await;
    raw.send(&[0xc0, 0]).await;
    let mut said = [raw.packet().await.unwrap(), raw.packet().await.unwrap()];
    said.sort();
    assert_eq!(said, [vec![0x40, 2, 0, 7], vec![0xd0, 0]]);
    server.end().await;
}

#[tokio::test]
async fn properties_of_connect_are_held_to_what_they_may_say() {
    let server = durable_at_once().await;
    for (what, properties, code) in [
        ("Receive Maximum 0", &[0x21, 0, 0][..], 0x82),
        ("Maximum Packet Size 0", &[0x27, 0, 0, 0, 0], 0x82),
        ("a request of 2", &[0x19, 2], 0x82),
        ("twice the same", &[0x17, 0, 0x17, 0], 0x82),
        ("a property of PUBLISH", &[0x23, 0, 1], 0x82),
        ("data without a method", &[0x16, 0, 1, b'x'], 0x82),
        ("a method", &[0x15, 0, 1, b'k'], 0x8c),
        ("unknown", &[0x7e, 0], 0x81),
    ] {
        let said = until_closed(&server, &connect(5, 2, properties, &[&text("a")])).await;
        assert_eq!(said, [[0x20, 3, 0, code, 0]], "{what}");
    }
    // What a client may say of itself, and what it is told whatever it says.
    for properties in [
        &[][..],
        &[0x19, 1, 0x17, 1, 0x21, 0, 1, 0x22, 0xff, 0xff],
        &[0x26, 0, 1, b'k', 0, 1, b'v', 0x26, 0, 1, b'k', 0, 1, b'w'],
    ] {
        let (_, connack) = arrive(&server, &connect(5, 2, properties, &[&text("a")])).await;
        let expected = [
            &[0x20, 16, 0, 0, 13][..],
            &[0x21, 0, 64],
            &[0x27, 0, 4, 0, 0],
            &[0x22, 0, 10],
            &[0x2a, 0],
        ];
        assert_eq!(connack, expected.concat());
    }
    server.end().await;
}

#[tokio::test]
async fn an_alias_ends_with_its_connection() {
    let server = durable_at_once().await;
    let aliased = |topic: &str, alias| packet(0x32, &[&text(topic), &[0, 1, 3, 0x23, 0, alias]]);
    let keep = [0x11, 0, 0, 0, 60];
    for alias in [1, 10] {
        let (mut raw, _) = arrive(&server, &connect(5, 2, &keep, &[&text("a")])).await;
        for topic in ["plant", ""] {
            raw.send(&aliased(topic, alias)).await;
            assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 1]);
        }
        drop(raw);
        let (mut raw, connack) = arrive(&server, &connect(5, 0, &keep, &[&text("a")])).await;
        assert_eq!(connack[2], 1, "the session goes on");
        raw.send(&aliased("", alias)).await;
        assert_eq!(rest(&mut raw).await, farewell(5, 0x82));
    }
    let topics: Vec<String> = kept(&server.end().await).into_iter().map(|m| m.0).collect();
    assert_eq!(topics, ["plant"; 4]);
}

#[tokio::test]
async fn what_is_in_flight_holds_up_no_other_packet() {
    let (writer, held) = gate();
    let server = serve(writer).await;
    let mut raw = Raw::connected(&server, 5, "a").await;
    for id in 1..=64u16 {
        raw.send(&publish(5, 0x30 | 2 << (id % 2), id, b"a", b"1"))
            .await;
    }
    ping(&mut raw).await;
    raw.send(&subscribe(5, &[(b"a", 0)])).await;
    assert_eq!(raw.packet().await.unwrap()[0], 0x90);
    raw.send(&packet(0xa2, &[&[0, 1], &[0], &text("a")])).await;
    assert_eq!(raw.packet().await.unwrap()[0], 0xb0);
    raw.send(&publish(5, 0x32, 65, b"a", b"1")).await;
    assert_eq!(rest(&mut raw).await, farewell(5, 0x93));
    drop(held);
    server.end().await;
}

#[tokio::test]
async fn a_retained_or_empty_publication_is_one_like_any_other() {
    let server = durable_at_once().await;
    for level in BOTH {
        let mut raw = Raw::connected(&server, level, "a").await;
        raw.send(&publish(level, 0x33, 1, b"a", b"1")).await;
        assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 1]);
        raw.send(&publish(level, 0x31, 0, b"a", b"")).await;
        raw.send(&publish(level, 0x34, 2, b"a", b"2")).await;
        assert_eq!(raw.packet().await.unwrap(), [0x50, 2, 0, 2]);
    }
    let of_one: Vec<_> = [("1", true), ("", true), ("2", false)]
        .map(|(payload, retain)| ("a".to_owned(), payload.into(), retain, false))
        .into();
    assert_eq!(kept(&server.end().await), [of_one.clone(), of_one].concat());
}

#[tokio::test]
async fn acknowledgements_keep_the_order_of_receipt() {
    let server = durable_at_once().await;
    for level in BOTH {
        let mut raw = Raw::connected(&server, level, "a").await;
        let ids = [7u16, 300, 2, 9, 1, 40];
        let sent = ids.map(|id| publish(level, 0x30 | 2 << (id % 2), id, b"a", b"1"));
        raw.send(&sent.concat()).await;
        for id in ids {
            let first = 0x40 + 0x10 * (id % 2) as u8;
            let [high, low] = id.to_be_bytes();
            assert_eq!(raw.packet().await.unwrap(), [first, 2, high, low]);
        }
    }
    server.end().await;
}

/// Each row of section 4.3.3 for who receives, over two connections of one session.
#[tokio::test]
async fn qos_2_goes_on_in_the_next_connection() {
    let server = durable_at_once().await;
    let keep = [0x11, 0, 0, 0, 60];
    for level in BOTH {
        let resume = connect(level, 0, &keep, &[&text("a")]);
        let (mut raw, _) = arrive(&server, &resume).await;
        raw.send(&publish(level, 0x34, 7, b"a", b"1")).await;
        assert_eq!(raw.packet().await.unwrap(), [0x50, 2, 0, 7]);
        drop(raw);
        let (mut raw, connack) = arrive(&server, &resume).await;
        assert_eq!(connack[2], 1);
        for (sent, answer) in [
            // PUBREC was lost: again, with DUP.
            (publish(level, 0x3c, 7, b"a", b"1"), [0x50, 2, 0, 7]),
            (packet(0x62, &[&[0, 7]]), [0x70, 2, 0, 7]),
            // PUBCOMP was lost, and a release of what nobody knows.
            (packet(0x62, &[&[0, 7]]), [0x70, 2, 0, 7]),
            (packet(0x62, &[&[1, 9]]), [0x70, 2, 1, 9]),
            // The id is free again.
            (publish(level, 0x34, 7, b"a", b"2"), [0x50, 2, 0, 7]),
        ] {
            raw.send(&sent).await;
            assert_eq!(raw.packet().await.unwrap(), answer);
        }
        // A refusal leaves the id free, where it can be told.
        if level == 5 {
            raw.send(&publish(5, 0x34, 8, b"tributary/x", b"1")).await;
            assert_eq!(raw.packet().await.unwrap(), [0x50, 4, 0, 8, 0x87, 0]);
            raw.send(&publish(5, 0x34, 8, b"a", b"3")).await;
            assert_eq!(raw.packet().await.unwrap(), [0x50, 2, 0, 8]);
        }
        // The next one begins anew.
        let clean = connect(level, 2, &[], &[&text("a")]);
        let _clean = arrive(&server, &clean).await;
    }
    let payloads: Vec<Vec<u8>> = kept(&server.end().await).into_iter().map(|m| m.1).collect();
    // Second copies stand in the log, too: what is a repeat is judged behind it.
    assert_eq!(payloads, [b"1", b"1", b"2", b"1", b"1", b"2", b"3"]);
}

#[tokio::test]
async fn nothing_counts_behind_a_disconnect() {
    let server = durable_at_once().await;
    for level in BOTH {
        let mut raw = Raw::connected(&server, level, "a").await;
        let before = publish(level, 0x30, 0, b"a", b"before");
        let behind = publish(level, 0x32, 1, b"a", b"behind");
        raw.send(&[before.as_slice(), &[0xe0, 0], &behind, &[0xc0, 0]].concat())
            .await;
        assert_eq!(rest(&mut raw).await, Vec::<Vec<u8>>::new());
    }
    let payloads: Vec<Vec<u8>> = kept(&server.end().await).into_iter().map(|m| m.1).collect();
    assert_eq!(payloads, [b"before", b"before"]);
}

/// A CONNECT of `name` with a will of QoS 1 that is retained or not, and in MQTT 5 delayed.
fn with_will(level: u8, name: &str, retain: bool, delay_s: u8, expiry_s: u8) -> Vec<u8> {
    let flags = 0x0e | u8::from(retain) << 5;
    let delay: &[u8] = match level {
        5 => &[5, 0x18, 0, 0, 0, delay_s],
        _ => &[],
    };
    let expiry = [0x11, 0, 0, 0, expiry_s];
    let will = [delay, &text("state"), &text(name)].concat();
    connect(level, flags, &expiry, &[&text(name), &will])
}

/// The next will in the log: whose it is, and whether retained.
async fn next_will(server: &mut Server) -> (String, bool) {
    loop {
        let frame = server.wal.committed.recv().await.unwrap();
        let found = kept(&[frame]).into_iter().find(|message| message.3);
        if let Some((topic, payload, retain, _)) = found {
            assert_eq!(topic, "state");
            return (String::from_utf8(payload).unwrap(), retain);
        }
    }
}

#[tokio::test]
async fn a_will_is_published_once_however_its_client_is_lost() {
    let mut server = durable_at_once().await;
    for level in BOTH {
        let retain = level == 5;
        // Who has none leaves none.
        drop(Raw::connected(&server, level, "none").await);
        for end in [
            "closed",
            "reset",
            "half",
            "malformed",
            "protocol",
            "flags",
            "code",
        ] {
            if level == 4 && end == "code" {
                continue;
            }
            let connect = with_will(level, end, retain, 0, 0);
            let mut raw = if end == "reset" {
                // What is not read when a socket closes resets the connection.
                let mut raw = Raw::open(&server).await;
                raw.send(&connect).await;
                raw.0.readable().await.unwrap();
                raw
            } else {
                arrive(&server, &connect).await.0
            };
            match end {
                "half" => raw.send(&[0x32, 20, 0, 4, b'a']).await,
                "malformed" => raw.send(&[0x00, 0]).await,
                "protocol" => raw.send(&[0x20, 2, 0, 0]).await,
                // No leave, since it is malformed.
                "flags" => raw.send(&[0xe1, 0]).await,
                "code" => raw.send(&[0xe0, 1, 4]).await,
                _ => {}
            }
            drop(raw);
            assert_eq!(
                next_will(&mut server).await,
                (end.into(), retain),
                "{level}"
            );
        }
        // The older of two with one name; and one that takes its leave has none.
        let (_older, _) = arrive(&server, &with_will(level, "same", retain, 0, 0)).await;
        let (mut newer, _) = arrive(&server, &with_will(level, "same", retain, 0, 0)).await;
        assert_eq!(next_will(&mut server).await, ("same".into(), retain));
        newer.send(&[0xe0, 0]).await;
        assert_eq!(newer.packet().await, None);
    }
    let left = kept(&server.end().await);
    assert_eq!(left, [], "each once");
}

#[tokio::test]
async fn a_will_waits_no_longer_than_its_session() {
    let mut server = durable_at_once().await;
    drop(arrive(&server, &with_will(5, "none", false, 200, 0)).await);
    assert_eq!(next_will(&mut server).await.0, "none", "at once");
    // From here on the clock is the test's: it jumps to the only deadline there is.
    tokio::time::pause();
    for (delay_s, expiry_s, waited_s) in [(200, 30, 30), (20, 30, 20)] {
        let begun = tokio::time::Instant::now();
        drop(arrive(&server, &with_will(5, "a", false, delay_s, expiry_s)).await);
        assert_eq!(next_will(&mut server).await.0, "a");
        assert_eq!(begun.elapsed().as_secs(), waited_s);
    }
    assert_eq!(kept(&server.end().await), []);
}
