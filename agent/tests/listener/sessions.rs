//! QoS 2, sessions and wills, with real sockets and real clients.

use super::*;
use rumqttc::v5;
use tributary_agent::wal::Message;

/// An MQTT 5 CONNECT: keep alive, clean start, seconds that the session is kept, and a will with
/// its delay in seconds.
fn connect_v5(id: &str, clean: bool, expiry_s: u32, will: Option<u32>) -> Vec<u8> {
    let flags = u8::from(clean) << 1 | if will.is_some() { 4 } else { 0 };
    let mut body = [&[0, 4], b"MQTT".as_slice(), &[5, flags, 0, 60, 5, 0x11]].concat();
    body.extend(expiry_s.to_be_bytes());
    body.extend([0, id.len() as u8]);
    body.extend(id.as_bytes());
    if let Some(delay_s) = will {
        body.extend([5, 0x18]);
        body.extend(delay_s.to_be_bytes());
        body.extend(b"\0\x05state\0\x04lost");
    }
    [&[0x10, body.len() as u8], body.as_slice()].concat()
}

async fn arrive(server: &Server, connect: &[u8]) -> (Raw, bool) {
    let mut raw = Raw::open(server).await;
    raw.send(connect).await;
    let answer = raw.packet().await.unwrap();
    assert_eq!((answer[0], answer[3]), (0x20, 0), "{answer:02x?}");
    (raw, answer[2] == 1)
}

fn wills(frames: &[CommittedFrame]) -> Vec<String> {
    let records = frames.iter().flat_map(CommittedFrame::records);
    let wills = records.filter_map(|(_, kind, bytes)| match Record::parse(kind, bytes) {
        Ok(Record::Message(message)) if message.will => Some(message.topic.to_owned()),
        _ => None,
    });
    wills.collect()
}

#[tokio::test]
async fn qos_2_is_answered_only_when_it_is_durable() {
    let (writer, held) = gate();
    let server = serve(writer).await;
    let mut raw = Raw::connected(&server, 4, "a").await;
    raw.publish(2, 7, "plant/t", b"1").await;
    assert_eq!(held.reached().await, 1);
    raw.send(&[0xc0, 0]).await;
    assert_eq!(raw.packet().await.unwrap(), [0xd0, 0], "no PUBREC before");
    held.open();
    assert_eq!(raw.packet().await.unwrap(), [0x50, 2, 0, 7]);
    raw.send(&[0x62, 2, 0, 7]).await;
    assert_eq!(held.reached().await, 1);
    raw.send(&[0xc0, 0]).await;
    assert_eq!(raw.packet().await.unwrap(), [0xd0, 0], "no PUBCOMP before");
    held.open();
    assert_eq!(raw.packet().await.unwrap(), [0x70, 2, 0, 7]);
    drop((raw, held));
    server.end().await;
}

#[tokio::test]
async fn a_session_is_present_until_it_ends() {
    let (writer, held) = gate();
    drop(held); // everything is durable at once
    let server = serve(writer).await;
    let (raw, present) = arrive(&server, &connect_v5("a", false, 60, None)).await;
    assert!(!present);
    drop(raw);
    let (mut raw, present) = arrive(&server, &connect_v5("a", false, 60, None)).await;
    assert!(present);
    // It leaves, and would not have its session kept.
    raw.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    assert_eq!(raw.packet().await, None);
    let (raw, present) = arrive(&server, &connect_v5("a", false, 60, None)).await;
    assert!(!present);
    drop(raw);
    let (raw, present) = arrive(&server, &connect_v5("a", true, 60, None)).await;
    assert!(!present, "a clean start");
    drop(raw);
    let frames = server.end().await;
    let records = frames.iter().flat_map(CommittedFrame::records);
    let kept: Vec<u32> = records
        .filter_map(|(_, kind, bytes)| match Record::parse(kind, bytes) {
            Ok(Record::Session(session)) => Some(session.expiry_s),
            _ => None,
        })
        .collect();
    assert_eq!(kept, [60, 0, 60], "only what changed stands in the log");
}

#[tokio::test]
async fn who_has_a_session_waits_until_the_log_was_read() {
    let (writer, held) = gate();
    drop(held);
    let sessions = Sessions::new();
    let server = serve_with(writer, sessions.clone()).await;
    let mut waiting = Raw::open(&server).await;
    waiting.send(&connect_v5("a", false, 60, None)).await;
    // Somebody who has none is served meanwhile.
    let _other = Raw::connected(&server, 5, "b").await;
    let before = [(Message::session_of("a"), 60)];
    sessions.replayed(before, std::time::Instant::now());
    let answer = waiting.packet().await.unwrap();
    assert_eq!((answer[2], answer[3]), (1, 0), "present, and let in");
    drop(waiting);
    server.end().await;
}

/// The log is not read to its end: whoever waits for that is told to come again.
#[tokio::test]
async fn who_waits_too_long_to_be_let_in_is_told_that_it_is_busy() {
    let (writer, held) = gate();
    drop(held);
    let server = serve_with(writer, Sessions::new()).await;
    let v4 = b"\x10\x0d\0\x04MQTT\x04\0\0\x3c\0\x01b".to_vec();
    for (connect, busy) in [
        (connect_v5("a", false, 60, None), &[0x20, 3, 0, 0x89, 0][..]),
        (v4, &[0x20, 2, 0, 3]),
    ] {
        let mut waiting = Raw::open(&server).await;
        waiting.send(&connect).await;
        // It was read when somebody behind it is served; from there on the clock is the test's.
        let _other = Raw::connected(&server, 5, "c").await;
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        assert_eq!(waiting.packet().await.unwrap(), busy);
        let waited = begun.elapsed().as_secs();
        assert!(waited <= 60, "{waited}");
        assert_eq!(waiting.packet().await, None);
        tokio::time::resume();
    }
    server.end().await;
}

#[tokio::test]
async fn a_lost_client_has_its_will_in_the_log_and_one_that_leaves_has_not() {
    let (writer, held) = gate();
    drop(held);
    let server = serve(writer).await;
    let (mut left, _) = arrive(&server, &connect_v5("left", true, 0, Some(0))).await;
    left.send(&[0xe0, 0]).await;
    assert_eq!(left.packet().await, None);
    let (lost, _) = arrive(&server, &connect_v5("lost", true, 0, Some(0))).await;
    drop(lost);
    let mut server = server;
    let frame = server.wal.committed.recv().await.unwrap();
    assert_eq!(wills(&[frame]), ["state"]);
    // Those who are here when the agent ends are not lost.
    let (here, _) = arrive(&server, &connect_v5("here", true, 0, Some(0))).await;
    assert_eq!(wills(&server.end().await), [""; 0]);
    drop(here);
}

#[tokio::test]
async fn a_delayed_will_is_withdrawn_by_who_comes_back() {
    let (writer, held) = gate();
    drop(held);
    let mut server = serve(writer).await;
    let connect = connect_v5("a", false, 600, Some(30));
    drop(arrive(&server, &connect).await);
    let (mut raw, present) = arrive(&server, &connect_v5("a", false, 600, None)).await;
    assert!(present);
    // A clean leave, with a publication behind everything that could have come before.
    raw.send(&[0x32, 7, 0, 1, b'a', 0, 7, 0, b'1']).await;
    assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 7]);
    raw.send(&[0xe0, 0]).await;
    assert_eq!(raw.packet().await, None);
    // Whose session ends is not waited for.
    drop(arrive(&server, &connect).await);
    let (raw, _) = arrive(&server, &connect_v5("a", true, 600, None)).await;
    let mut frames = Vec::new();
    while wills(&frames).is_empty() {
        frames.push(server.wal.committed.recv().await.unwrap());
    }
    drop(raw);
    // And whoever stays away is lost when the time is over: from here on the clock is the test's.
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    drop(arrive(&server, &connect).await);
    let mut late = Vec::new();
    while wills(&late).is_empty() {
        late.push(server.wal.committed.recv().await.unwrap());
    }
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(wills(&server.end().await), [""; 0]);
}

/// A newer connection begins in the log only where the older one has ended.
#[tokio::test]
async fn nothing_of_an_older_connection_comes_behind_the_newer_one() {
    let (writer, held) = gate();
    let server = serve(writer).await;
    let mut older = Raw::connected(&server, 4, "same").await;
    older.publish(1, 1, "a/old", b"1").await;
    assert_eq!(held.reached().await, 1);
    for round in 0..20u8 {
        let mut newer = Raw::connected(&server, 4, "same").await;
        newer.publish(1, 1, "a/new", &[b'a' + round]).await;
        newer.send(&[0xc0, 0]).await;
        assert_eq!(newer.packet().await.unwrap(), [0xd0, 0]);
        older = newer;
    }
    drop((older, held));
    let payloads: Vec<u8> = messages(&server.end().await)
        .into_iter()
        .map(|(_, payload)| payload[0])
        .collect();
    let expected: Vec<u8> = [b'1'].into_iter().chain(b'a'..b'a' + 20).collect();
    assert_eq!(payloads, expected);
}

/// Last words and a leave that nobody had read when the client came anew are not lost.
#[tokio::test]
async fn what_was_sent_before_a_newer_connection_is_taken() {
    let (writer, held) = gate();
    drop(held);
    let server = serve(writer).await;
    let connect = connect_v5("a", false, 60, Some(0));
    for round in 0..15u8 {
        // All at once: publication, and a leave that ends the session.
        let (mut older, present) = arrive(&server, &connect).await;
        assert!(!present, "{round}");
        older.send(&[0x30, 5, 0, 1, b'a', 0, round]).await;
        older.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
        drop(older);
    }
    let _newest = arrive(&server, &connect).await;
    let frames = server.end().await;
    let records = frames.iter().flat_map(CommittedFrame::records);
    let payloads: Vec<u8> = records
        .filter_map(|(_, kind, bytes)| match Record::parse(kind, bytes) {
            Ok(Record::Message(message)) => Some(message.payload[0]),
            _ => None,
        })
        .collect();
    assert_eq!(payloads, (0..15).collect::<Vec<_>>(), "each, and no will");
}

async fn publish_qos_2_v4(server: &Server, count: u32) {
    let mut options = rumqttc::MqttOptions::new("v4", "127.0.0.1", server.address.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = rumqttc::AsyncClient::new(options, 16);
    let sender = tokio::spawn(async move {
        for i in 0..count {
            let qos = rumqttc::QoS::ExactlyOnce;
            client
                .publish("v4/n", qos, false, i.to_string())
                .await
                .unwrap();
        }
        client
    });
    let mut done = 0;
    while done < count {
        use rumqttc::{Event, Packet};
        let event = events.poll().await.unwrap();
        done += u32::from(matches!(event, Event::Incoming(Packet::PubComp(_))));
    }
    sender.await.unwrap();
}

async fn publish_qos_2_v5(server: &Server, count: u32) {
    let mut options = v5::MqttOptions::new("v5", "127.0.0.1", server.address.port());
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = v5::AsyncClient::new(options, 16);
    let sender = tokio::spawn(async move {
        for i in 0..count {
            let qos = v5::mqttbytes::QoS::ExactlyOnce;
            client
                .publish("v5/n", qos, false, i.to_string())
                .await
                .unwrap();
        }
        client
    });
    let mut done = 0;
    while done < count {
        let event = events.poll().await.unwrap();
        done += u32::from(matches!(
            event,
            v5::Event::Incoming(v5::Incoming::PubComp(_))
        ));
    }
    sender.await.unwrap();
}

#[tokio::test]
async fn real_clients_publish_with_qos_2() {
    const COUNT: u32 = 300;
    let dir = on_disk();
    let opened = open_log(dir.path(), LIFE);
    let server = serve(opened.writer).await;
    let (server, taking) = taken(server);
    tokio::join!(
        publish_qos_2_v4(&server, COUNT),
        publish_qos_2_v5(&server, COUNT)
    );
    server.end().await;
    let frames = taking.await.unwrap();
    let (mut published, mut released) = ([0; 2], 0);
    for (_, kind, bytes) in frames.iter().flat_map(CommittedFrame::records) {
        match Record::parse(kind, bytes).unwrap() {
            Record::Message(message) => published[usize::from(message.v5)] += 1,
            Record::PubRel(_) => released += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((published, released), ([COUNT, COUNT], 2 * COUNT));
}

/// Who is taken over while it still waits to be let in ends no session.
#[tokio::test]
async fn a_session_outlives_connections_that_come_at_once() {
    let (writer, held) = gate();
    drop(held);
    let server = serve(writer).await;
    let connect = connect_v5("a", false, 60, None);
    drop(arrive(&server, &connect).await);
    for _ in 0..50 {
        let mut raws = Vec::new();
        for _ in 0..3 {
            raws.push(Raw::open(&server).await);
        }
        for raw in &mut raws {
            raw.send(&connect).await;
        }
        let mut let_in = 0;
        for raw in &mut raws {
            if let Some(answer) = raw.packet().await {
                assert_eq!((answer[0], answer[2]), (0x20, 1), "present");
                let_in += 1;
            }
        }
        assert!(let_in > 0);
    }
    server.end().await;
}
