//! Our reader against rumqttc's, packet by packet, and against a hundred thousand broken ones.

use super::*;
use crate::decode::UserProperties;
use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

/// A CONNECT as rumqttc's client writes it.
pub(in crate::source) fn connect(version: Version, id: &str, keep_alive: u16) -> Vec<u8> {
    let mut out = BytesMut::new();
    match version {
        Version::V4 => {
            let mut packet = v4::Connect::new(id);
            packet.keep_alive = keep_alive;
            packet.write(&mut out).unwrap();
        }
        Version::V5 => {
            let client_id = id.to_owned();
            let packet = v5::Connect {
                keep_alive,
                client_id,
                clean_start: true,
                properties: None,
            };
            packet.write(&None, &None, &mut out).unwrap();
        }
    }
    out.to_vec()
}

/// A PUBLISH as rumqttc's client writes it.
pub(in crate::source) fn publish(
    version: Version,
    qos: u8,
    packet_id: u16,
    topic: &str,
    payload: &[u8],
) -> Vec<u8> {
    publish_saying(version, qos, packet_id, (topic, payload), &[])
}

/// The same with user properties, which MQTT 3.1.1 has none of.
pub(in crate::source) fn publish_saying(
    version: Version,
    qos: u8,
    packet_id: u16,
    (topic, payload): (&str, &[u8]),
    said: &[(&str, &str)],
) -> Vec<u8> {
    let mut out = BytesMut::new();
    match version {
        Version::V4 => {
            let qos = rumqttc::mqttbytes::qos(qos).unwrap();
            let mut packet = v4::Publish::new(topic, qos, payload);
            packet.pkid = packet_id;
            packet.write(&mut out).unwrap();
        }
        Version::V5 => {
            let qos = rumqttc::v5::mqttbytes::qos(qos).unwrap();
            let payload = Bytes::copy_from_slice(payload);
            let user_properties = said
                .iter()
                .map(|(name, text)| ((*name).into(), (*text).into()));
            let properties = (!said.is_empty()).then(|| v5::PublishProperties {
                user_properties: user_properties.collect(),
                ..v5::PublishProperties::default()
            });
            let mut packet = v5::Publish::new(topic, qos, payload, properties);
            packet.pkid = packet_id;
            packet.write(&mut out).unwrap();
        }
    }
    out.to_vec()
}

fn subscribe(version: Version, packet_id: u16, filters: &[&str]) -> Vec<u8> {
    let mut out = BytesMut::new();
    match version {
        Version::V4 => {
            let filters = filters.iter().map(|filter| {
                v4::SubscribeFilter::new((*filter).into(), rumqttc::QoS::AtLeastOnce)
            });
            let mut packet = v4::Subscribe::new_many(filters);
            packet.pkid = packet_id;
            packet.write(&mut out).unwrap();
        }
        Version::V5 => {
            let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
            let filters = filters.iter().map(|filter| v5::Filter::new(*filter, qos));
            let mut packet = v5::Subscribe::new_many(filters, None);
            packet.pkid = packet_id;
            packet.write(&mut out).unwrap();
        }
    }
    out.to_vec()
}

/// Reads one whole packet as the connection does.
fn read(version: Version, bytes: &[u8]) -> Result<Packet<'_>, Fault> {
    let header = read_header(bytes)?.ok_or(Fault::Malformed("short"))?;
    let body = bytes
        .get(header.head..header.whole())
        .ok_or(Fault::Malformed("short"))?;
    read_packet(version, header, body)
}

const BOTH: [Version; 2] = [Version::V4, Version::V5];

#[test]
fn what_rumqttc_writes_is_read() {
    for version in BOTH {
        for (qos, packet_id) in [(0, 0), (1, 7), (2, 8)] {
            let bytes = publish(version, qos, packet_id, "a/b", b"21.5");
            let expected = Publish {
                qos,
                packet_id,
                dup: false,
                retain: false,
                topic: "a/b",
                alias: None,
                properties: UserProperties::NONE,
                payload: b"21.5",
            };
            assert_eq!(read(version, &bytes), Ok(Packet::Publish(expected)));
        }
        let bytes = subscribe(version, 9, &["a/#", "b/+/c"]);
        let asked = |filter| Asked {
            filter,
            qos: 1,
            as_published: false,
            retain_handling: 0,
        };
        assert_eq!(
            read(version, &bytes),
            Ok(Packet::Subscribe {
                packet_id: 9,
                id: None,
                filters: vec![asked("a/#"), asked("b/+/c")],
            })
        );
        let unsubscribe = [
            &[0xa2, 9, 0, 9][..],
            &[0][..usize::from(version == Version::V5)],
        ];
        let mut bytes = [unsubscribe.concat(), b"\0\x01a\0\x02b#".to_vec()].concat();
        bytes[1] = bytes.len() as u8 - 2;
        assert!(read(version, &bytes).is_err());
        let last = bytes.len() - 2;
        bytes[last..].copy_from_slice(b"+/");
        assert_eq!(
            read(version, &bytes),
            Ok(Packet::Unsubscribe {
                packet_id: 9,
                filters: vec!["a", "+/"],
            })
        );
        let taken = Packet::PubAck { packet_id: 9 };
        assert_eq!(read(version, &[0x40, 2, 0, 9]), Ok(taken));
        assert_eq!(read(version, &[0xc0, 0]), Ok(Packet::PingReq));
        let left = Packet::Disconnect {
            with_will: false,
            session_expiry_s: None,
        };
        assert_eq!(read(version, &[0xe0, 0]), Ok(left));
        let released = Packet::PubRel { packet_id: 8 };
        assert_eq!(read(version, &[0x62, 2, 0, 8]), Ok(released));
        let bytes = connect(version, "me", 30);
        let header = read_header(&bytes).unwrap().unwrap();
        let connect = read_connect(header.flags(), &bytes[header.head..]).unwrap();
        assert_eq!((connect.version, connect.client_id), (version, "me"));
        assert_eq!((connect.keep_alive_s, connect.clean), (30, true));
    }
}

#[test]
fn what_is_malformed_is_told_with_the_right_code() {
    use Version::{V4, V5};
    let table: &[(Version, &[u8], u8, &str)] = &[
        (V5, &[0x36, 3, 0, 1, b'a'], 0x81, "QoS 3"),
        (V5, &[0x38, 4, 0, 1, b'a', 0], 0x81, "DUP with QoS 0"),
        (V4, &[0x32, 5, 0, 1, b'a', 0, 0], 0x82, "packet id 0"),
        (V4, &[0x30, 2, 0, 0], 0x81, "empty topic"),
        (V4, &[0x30, 4, 0, 2, b'a', b'#'], 0x81, "wildcard"),
        (V4, &[0x30, 4, 0, 2, b'a', 0], 0x81, "U+0000"),
        (V4, &[0x30, 4, 0, 2, 0xc3, 0x28], 0x81, "no UTF-8"),
        (V4, &[0x30, 5, 0, 3, 0xed, 0xa0, 0x80], 0x81, "a surrogate"),
        (V4, &[0x30, 3, 0, 9, b'a'], 0x81, "topic beyond the packet"),
        (V5, &[0x30, 3, 0, 0, 0], 0x82, "neither topic nor alias"),
        (V4, &[0x60, 2, 0, 1], 0x81, "flags of PUBREL"),
        (V4, &[0x62, 2, 0, 0], 0x82, "PUBREL of packet id 0"),
        (V4, &[0x62, 3, 0, 1, 0], 0x81, "PUBREL with a reason"),
        (
            V5,
            &[0x30, 6, 0, 1, b'a', 2, 0x0b, 1],
            0x82,
            "subscription id from a client",
        ),
        (
            V5,
            &[0x30, 6, 0, 1, b'a', 2, 0x7f, 1],
            0x81,
            "unknown property",
        ),
        (
            V5,
            &[0x30, 8, 0, 1, b'a', 4, 1, 0, 1, 0],
            0x82,
            "property twice",
        ),
        (V5, &[0x30, 6, 0, 1, b'a', 2, 1, 2], 0x82, "flag of 2"),
        (
            V5,
            &[0x30, 5, 0, 1, b'a', 9, 1],
            0x81,
            "properties beyond the packet",
        ),
        (
            V5,
            &[0x30, 0x84, 0, 0, 1, b'a', 0],
            0x81,
            "length in too many bytes",
        ),
        (
            V5,
            &[0x30, 0xff, 0xff, 0xff, 0xff, 1],
            0x81,
            "length of five bytes",
        ),
        (
            V4,
            &[0x80, 6, 0, 1, 0, 1, b'a', 0],
            0x81,
            "flags of SUBSCRIBE",
        ),
        (V4, &[0x82, 2, 0, 1], 0x82, "SUBSCRIBE without a filter"),
        (
            V4,
            &[0x82, 6, 0, 1, 0, 1, b'a', 3],
            0x81,
            "SUBSCRIBE with QoS 3",
        ),
        (
            V4,
            &[0x82, 8, 0, 1, 0, 3, b'#', b'/', b'a', 0],
            0x81,
            "# before the end",
        ),
        (V4, &[0xa2, 2, 0, 1], 0x82, "UNSUBSCRIBE without a filter"),
        (V4, &[0xc0, 1, 0], 0x81, "PINGREQ with a body"),
        (V4, &[0xe0, 1, 0], 0x81, "DISCONNECT with a body"),
        (V4, &[0x20, 2, 0, 0], 0x82, "CONNACK from a client"),
        (V4, &[0x40, 2, 0, 0], 0x82, "PUBACK of packet identifier 0"),
        (V4, &[0x40, 3, 0, 1, 0], 0x81, "PUBACK with a reason"),
        (V4, &[0x50, 2, 0, 1], 0x82, "PUBREC for nothing"),
        (V5, &[0x70, 2, 0, 1], 0x82, "PUBCOMP for nothing"),
        (V5, &[0xf0, 0], 0x82, "AUTH"),
        (V4, &[0x00, 0], 0x81, "type 0"),
        (V4, &[0x10, 0], 0x82, "a second CONNECT"),
    ];
    for (version, bytes, code, what) in table {
        assert_eq!(
            read(*version, bytes).map_err(Fault::code),
            Err(*code),
            "{what}"
        );
    }
}

#[test]
fn answers_are_what_the_standard_says() {
    let table: &[(Answer<'_>, &[u8], &[u8])] = &[
        (
            Answer::PubAck {
                packet_id: 258,
                code: 0,
            },
            &[0x40, 2, 1, 2],
            &[0x40, 2, 1, 2],
        ),
        (
            Answer::PubAck {
                packet_id: 1,
                code: 0x87,
            },
            &[0x40, 2, 0, 1],
            &[0x40, 4, 0, 1, 0x87, 0],
        ),
        (Answer::Pong, &[0xd0, 0], &[0xd0, 0]),
        (Answer::Disconnect { code: 0x8e }, &[], &[0xe0, 1, 0x8e]),
        (
            Answer::Refused { code: 0x85 },
            &[0x20, 2, 0, 2],
            &[0x20, 3, 0, 0x85, 0],
        ),
        (
            Answer::Refused { code: 0x84 },
            &[0x20, 2, 0, 1],
            &[0x20, 3, 0, 0x84, 0],
        ),
        (
            Answer::SubAck {
                packet_id: 1,
                codes: vec![0, 1, 0x83, 0x87, 0x8f, 0x97, 0x9e],
                reason: None,
            },
            &[0x90, 9, 0, 1, 0, 1, 0x80, 0x80, 0x80, 0x80, 0x80],
            &[0x90, 10, 0, 1, 0, 0, 1, 0x83, 0x87, 0x8f, 0x97, 0x9e],
        ),
        (
            Answer::UnsubAck {
                packet_id: 1,
                codes: vec![0, 0x11],
            },
            &[0xb0, 2, 0, 1],
            &[0xb0, 5, 0, 1, 0, 0, 0x11],
        ),
        (
            Answer::PubRec {
                packet_id: 7,
                code: 0,
            },
            &[0x50, 2, 0, 7],
            &[0x50, 2, 0, 7],
        ),
        (
            Answer::PubRec {
                packet_id: 7,
                code: 0x97,
            },
            &[0x50, 2, 0, 7],
            &[0x50, 4, 0, 7, 0x97, 0],
        ),
        (
            Answer::PubComp { packet_id: 7 },
            &[0x70, 2, 0, 7],
            &[0x70, 2, 0, 7],
        ),
        (
            Answer::Welcome {
                session_present: true,
                assigned: Some("x"),
                keep_alive_s: Some(600),
                session_expiry_s: Some(0),
            },
            &[0x20, 2, 1, 0],
            &[
                0x20, 28, 1, 0, 25, 0x11, 0, 0, 0, 0, 0x21, 0, 64, 0x27, 0, 4, 0, 0, 0x12, 0, 1,
                b'x', 0x22, 0, 10, 0x2a, 0, 0x13, 2, 88,
            ],
        ),
    ];
    for (answer, v4, v5) in table {
        for (version, expected) in [(Version::V4, v4), (Version::V5, v5)] {
            let mut out = BytesMut::new();
            write(version, answer, &mut out);
            assert_eq!(out, *expected, "{version:?} {answer:?}");
        }
    }
}

#[test]
fn connect_is_read_to_the_last_byte() {
    let read = |body: &[u8]| read_connect(0, body).map(|connect| connect.client_id.to_owned());
    let with = |level: u8, flags: u8, rest: &[u8]| {
        [&[0, 4], b"MQTT".as_slice(), &[level, flags, 0, 60], rest].concat()
    };
    // A password that is no UTF-8 is right: it is binary.
    assert_eq!(
        read(&with(4, 0xc2, b"\0\x01a\0\x01u\0\x02\xff\0")),
        Ok("a".into())
    );
    assert_eq!(read(&with(4, 0x02, b"\0\0")), Ok(String::new()));
    let v4 = Some(Version::V4);
    let malformed = |what| Refusal::Fault(v4, Fault::Malformed(what));
    assert_eq!(
        read(&with(4, 0x00, b"\0\0")),
        Err(Refusal::ClientId(Version::V4))
    );
    assert_eq!(
        read(&with(4, 0x03, b"\0\x01a")),
        Err(malformed("connect flags"))
    );
    assert_eq!(
        read(&with(4, 0x22, b"\0\x01a")),
        Err(malformed("connect flags"))
    );
    assert_eq!(
        read(&with(4, 0x42, b"\0\x01a\0\x01p")),
        Err(malformed("a password without a user name"))
    );
    assert_eq!(
        read(&with(4, 0x02, b"\0\x01ax")),
        Err(malformed("bytes behind CONNECT's last field"))
    );
    assert_eq!(
        read(&with(3, 0x02, b"\0\x01a")),
        Err(Refusal::Level { newer: false })
    );
    assert_eq!(
        read(&with(6, 0x02, b"\0\x01a")),
        Err(Refusal::Level { newer: true })
    );
    assert_eq!(
        read(b"\0\x06MQIsdp\x03\x02\0\x3c\0\x01a"),
        Err(Refusal::Level { newer: false })
    );
    assert!(matches!(
        read(b"\0\x04HTTP\x04"),
        Err(Refusal::Fault(None, _))
    ));
    assert_eq!(
        read(&with(5, 0x02, b"\x04\x15\0\x01k\0\x01a")),
        Err(Refusal::Authentication)
    );
    let long = [b"\x01\x01".as_slice(), &[b'a'; 257]].concat();
    assert_eq!(
        read(&with(4, 0x02, &long)),
        Err(Refusal::ClientId(Version::V4))
    );
}

/// One generator for all seeded mutations (SplitMix64).
pub(in crate::source) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(in crate::source) fn mutate(bytes: &mut Vec<u8>, state: &mut u64) {
    for _ in 0..1 + next(state) % 3 {
        let at = next(state) as usize % bytes.len().max(1);
        match next(state) % 4 {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << (next(state) % 8),
            1 if !bytes.is_empty() => bytes[at] = next(state) as u8,
            2 => bytes.insert(at, next(state) as u8),
            _ if bytes.len() > at => drop(bytes.remove(at)),
            _ => {}
        }
    }
}

#[test]
fn a_hundred_thousand_mutations_panic_nowhere_and_agree_with_rumqttc() {
    let mut state = 7;
    let (mut taken, mut refused) = (0, 0);
    for round in 0..100_000 {
        let version = BOTH[round % 2];
        let mut bytes = match round % 7 {
            0 | 1 => connect(version, "client-7", 30),
            2 | 3 => publish(version, 1, 513, "plant/pump/temp", b"{\"value\":1}"),
            4 => publish(version, 0, 0, "t", b"1"),
            _ => subscribe(version, 3, &["a/+/b", "#"]),
        };
        mutate(&mut bytes, &mut state);
        let Ok(Some(header)) = read_header(&bytes) else {
            continue;
        };
        let Some(body) = bytes.get(header.head..header.whole()) else {
            continue;
        };
        let _ = read_connect(header.flags(), body);
        match read_packet(version, header, body) {
            Ok(Packet::Publish(ours)) => {
                taken += 1;
                agrees(version, &bytes[..header.whole()], &ours);
            }
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(
        taken > 5_000 && refused > 5_000,
        "{taken} taken, {refused} refused"
    );
}

/// What we take, rumqttc takes for the same.
fn agrees(version: Version, bytes: &[u8], ours: &Publish<'_>) {
    let mut stream = BytesMut::from(bytes);
    let ours = (
        ours.qos,
        ours.dup,
        ours.retain,
        ours.packet_id,
        ours.topic,
        ours.payload,
    );
    match version {
        Version::V4 => {
            let Ok(v4::Packet::Publish(p)) = v4::Packet::read(&mut stream, 1 << 20) else {
                panic!("rumqttc refused {bytes:02x?}");
            };
            let theirs = (
                p.qos as u8,
                p.dup,
                p.retain,
                p.pkid,
                p.topic.as_str(),
                &p.payload[..],
            );
            assert_eq!(ours, theirs);
        }
        Version::V5 => {
            let Ok(v5::Packet::Publish(p)) = v5::Packet::read(&mut stream, Some(1 << 20)) else {
                panic!("rumqttc refused {bytes:02x?}");
            };
            let topic = std::str::from_utf8(&p.topic).unwrap();
            let theirs = (p.qos as u8, p.dup, p.retain, p.pkid, topic, &p.payload[..]);
            assert_eq!(ours, theirs);
        }
    }
}
