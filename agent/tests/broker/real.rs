//! Our subscription and a real Mosquitto. Where there is none, these tests say so and hold nothing.

use super::harness::{Flowing, Kept, Kind, Ours, config};
use super::mosquitto::{Mosquitto, numbered, publish};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use std::collections::BTreeSet;
use tributary_agent::marks::{Evidence, Judged, Marks, Reason};
use tributary_agent::source::broker::{Protocol, TlsFiles};
use tributary_uplink::authority;

const BOTH: [Protocol; 2] = [Protocol::V4, Protocol::V5];

fn payloads(records: &[Kind]) -> Vec<String> {
    let texts = records.iter().map(Kind::payload);
    texts
        .map(|text| String::from_utf8(text.to_vec()).unwrap())
        .collect()
}

fn sent(messages: &[(String, String)]) -> Vec<String> {
    messages
        .iter()
        .map(|(_, payload)| payload.clone())
        .collect()
}

/// What the agent makes of messages that came more than once.
fn judge(marks: &mut Marks, record: &Kind) -> Judged {
    let Kind::Message {
        topic,
        payload,
        id,
        dup,
        retain,
    } = record
    else {
        panic!("{record:?}")
    };
    marks.judge(&Evidence {
        device: None,
        device_seq: None,
        has_time: false,
        content: tributary_agent::decode::message_hash(topic, payload),
        session: 1,
        packet_id: *id,
        exactly_once: false,
        dup: *dup,
        broker: true,
        retain: *retain,
        topic,
    })
}

#[tokio::test]
async fn everything_arrives_in_order_also_what_was_published_during_an_absence() {
    for protocol in BOTH {
        let Some(broker) = Mosquitto::start().await else {
            return;
        };
        let kept = Kept::new();
        let mut ours = Flowing::start(config(broker.address, protocol), &kept);
        ours.until(|status| status.subscribed == 1).await;
        let messages = numbered(700);
        publish(broker.address, QoS::AtLeastOnce, false, &messages[..500]).await;
        let mut records = ours.take(500).await;
        ours.until(|status| status.acknowledged == 500).await;
        records.extend(ours.end().await);
        publish(broker.address, QoS::AtLeastOnce, false, &messages[500..]).await;
        let mut ours = Flowing::start(config(broker.address, protocol), &kept);
        records.extend(ours.take(200).await);
        let status = ours.until(|status| status.acknowledged == 200).await;
        assert_eq!(status.sessions_lost, 0);
        records.extend(ours.end().await);
        assert_eq!(payloads(&records), sent(&messages), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_flood_beyond_the_window_waits_at_the_broker_and_loses_nothing() {
    let Some(broker) = Mosquitto::start().await else {
        return;
    };
    let mut ours = Ours::start(config(broker.address, Protocol::V5), &Kept::new());
    ours.until(|status| status.subscribed == 1).await;
    let messages = numbered(5_000);
    publish(broker.address, QoS::AtLeastOnce, false, &messages).await;
    // Nothing is durable, nothing acknowledged: what comes is the window, and what the broker
    // then has not sent is not here.
    let status = ours.until(|status| status.received >= 1_000).await;
    assert!(
        status.received < 5_000 && status.acknowledged == 0,
        "{status:?}"
    );
    let mut ours = ours.let_through();
    let records = ours.take(5_000).await;
    assert_eq!(payloads(&records), sent(&messages));
    ours.until(|status| status.acknowledged == 5_000).await;
    assert!(ours.end().await.is_empty());
}

#[tokio::test]
async fn a_killed_broker_that_kept_its_session_goes_on_where_it_was() {
    for protocol in BOTH {
        let Some(mut broker) = Mosquitto::start().await else {
            return;
        };
        let mut ours = Ours::start(config(broker.address, protocol), &Kept::new());
        ours.until(|status| status.subscribed == 1).await;
        let messages = numbered(60);
        publish(broker.address, QoS::AtLeastOnce, false, &messages[..40]).await;
        ours.until(|status| status.received >= 20).await;
        broker.save().await;
        broker.kill();
        ours.until(|status| !status.connected).await;
        // Durable only now: none of it may be acknowledged to the next connection.
        let mut ours = ours.let_through();
        broker.restart().await;
        let status = ours.until(|status| status.connected).await;
        assert_eq!(status.sessions_lost, 0, "{protocol:?}");
        publish(broker.address, QoS::AtLeastOnce, false, &messages[40..]).await;
        let status = ours
            .until(|status| status.acknowledged >= 60 && status.unacknowledged == 0)
            .await;
        assert_eq!(status.acknowledged, 60, "each once");
        let records = ours.end().await;
        let mut marks = Marks::new();
        let kept: Vec<Kind> = records
            .into_iter()
            .filter(|record| judge(&mut marks, record) == Judged::New)
            .collect();
        assert_eq!(payloads(&kept), sent(&messages), "{protocol:?}");
    }
}

#[tokio::test]
async fn an_agent_that_dies_before_it_acknowledges_gets_all_again_and_tells_what_it_had() {
    for protocol in BOTH {
        let Some(broker) = Mosquitto::start().await else {
            return;
        };
        let kept = Kept::new();
        let mut ours = Ours::start(config(broker.address, protocol), &kept);
        ours.until(|status| status.subscribed == 1).await;
        let messages = numbered(400);
        publish(broker.address, QoS::AtLeastOnce, false, &messages).await;
        ours.until(|status| status.received == 400).await;
        // All of it becomes durable, and nobody is left to acknowledge it.
        let mut records = ours.die_behind_the_log().await;
        assert_eq!(records.len(), 400);
        let mut ours = Flowing::start(config(broker.address, protocol), &kept);
        let again = ours.take(400).await;
        ours.until(|status| status.acknowledged == 400).await;
        records.extend(again);
        records.extend(ours.end().await);
        let mut marks = Marks::new();
        let judged: Vec<Judged> = records
            .iter()
            .map(|record| judge(&mut marks, record))
            .collect();
        assert_eq!(judged[..400], [Judged::New; 400]);
        assert_eq!(
            judged[400..],
            [Judged::Repeat(Reason::Dup); 400],
            "{protocol:?}"
        );
    }
}

#[tokio::test]
async fn a_lost_session_is_said_and_retained_copies_are_told_from_readings() {
    for protocol in BOTH {
        let Some(mut broker) = Mosquitto::start().await else {
            return;
        };
        let mut ours = Flowing::start(config(broker.address, protocol), &Kept::new());
        ours.until(|status| status.subscribed == 1).await;
        let state = [("plant/valve".to_owned(), "open".to_owned())];
        publish(broker.address, QoS::AtLeastOnce, true, &state).await;
        let mut records = ours.take(1).await;
        ours.until(|status| status.acknowledged == 1).await;
        broker.kill();
        broker.forget();
        broker.restart().await;
        ours.until(|status| status.sessions_lost == 1).await;
        // The state comes again: as a copy after a new subscription, from whoever has it.
        publish(broker.address, QoS::AtLeastOnce, true, &state).await;
        records.extend(ours.take(1).await);
        broker.save().await;
        broker.kill();
        broker.restart().await;
        ours.until(|status| status.connected && status.generation >= 3)
            .await;
        publish(broker.address, QoS::AtLeastOnce, false, &numbered(1)).await;
        records.extend(ours.take(1).await);
        assert_eq!(
            payloads(&records)[2],
            sent(&numbered(1))[0],
            "the session was kept: no copy came with it ({protocol:?})"
        );
        ours.end().await;
    }
}

#[tokio::test]
async fn a_retained_copy_after_a_new_subscription_is_dropped_only_when_it_is_the_last_seen() {
    for protocol in BOTH {
        let Some(broker) = Mosquitto::start().await else {
            return;
        };
        let state = |value: &str| [("plant/valve".to_owned(), value.to_owned())];
        publish(broker.address, QoS::AtLeastOnce, true, &state("open")).await;
        let mut records = Vec::new();
        // Each life has nothing to go on: a session that was lost on both sides.
        for (life, value) in ["open", "open", "shut"].iter().enumerate() {
            publish(broker.address, QoS::AtLeastOnce, true, &state(value)).await;
            let mut mine = config(broker.address, protocol);
            mine.client_id = Some(format!("life-{life}"));
            let mut ours = Flowing::start(mine, &Kept::new());
            records.extend(ours.take(1).await);
            ours.end().await;
        }
        let mut marks = Marks::new();
        let judged: Vec<Judged> = records
            .iter()
            .map(|record| judge(&mut marks, record))
            .collect();
        let copy = Judged::Repeat(Reason::Retained);
        assert_eq!(judged, [Judged::New, copy, Judged::New], "{records:?}");
    }
}

#[tokio::test]
async fn without_the_wrapper_the_retained_state_comes_with_every_connection() {
    let Some(broker) = Mosquitto::start().await else {
        return;
    };
    let state = [("plant/valve".to_owned(), "open".to_owned())];
    publish(broker.address, QoS::AtLeastOnce, true, &state).await;
    let (host, port) = (broker.address.ip().to_string(), broker.address.port());
    for _ in 0..3 {
        let mut options = MqttOptions::new("plain", &host, port);
        options.set_clean_session(false);
        let (client, mut events) = AsyncClient::new(options, 10);
        client.try_subscribe("#", QoS::AtLeastOnce).unwrap();
        let copy = loop {
            if let Event::Incoming(Packet::Publish(publish)) = events.poll().await.unwrap() {
                break publish;
            }
        };
        assert_eq!(
            (&*copy.topic, copy.retain, copy.dup),
            ("plant/valve", true, false)
        );
        // The acknowledgement leaves with the next look.
        client.try_disconnect().unwrap();
        while events.poll().await.is_ok() {}
    }
}

#[tokio::test]
async fn our_own_topics_are_left_out_of_everything_and_qos_2_becomes_1() {
    let Some(broker) = Mosquitto::start().await else {
        return;
    };
    let ours = Flowing::start(config(broker.address, Protocol::V5), &Kept::new());
    let mut ours = ours;
    ours.until(|status| status.subscribed == 1).await;
    let (host, port) = (broker.address.ip().to_string(), broker.address.port());
    let (plain, mut events) = AsyncClient::new(MqttOptions::new("plain", host, port), 10);
    plain.try_subscribe("#", QoS::AtLeastOnce).unwrap();
    while !matches!(events.poll().await, Ok(Event::Incoming(Packet::SubAck(_)))) {}
    let topics = [
        "tributary/alerts/x",
        "plant/a",
        "tributary/status",
        "plant/b",
    ];
    let messages = topics.map(|topic| (topic.to_owned(), "1".to_owned()));
    publish(broker.address, QoS::ExactlyOnce, false, &messages).await;
    let mut all = BTreeSet::new();
    while all.len() < 4 {
        if let Ok(Event::Incoming(Packet::Publish(publish))) = events.poll().await {
            all.insert(publish.topic);
        }
    }
    assert_eq!(
        all,
        topics.map(str::to_owned).into(),
        "the library brings them all"
    );
    let mut records = ours.take(2).await;
    ours.until(|status| status.acknowledged == 4).await;
    records.extend(ours.end().await);
    let seen: Vec<_> = records.iter().map(Kind::topic).collect();
    assert_eq!(seen, ["plant/a", "plant/b"]);
}

#[tokio::test]
async fn tls_with_certificates_and_a_password_let_the_right_one_in() {
    let pki = tempfile::tempdir().unwrap();
    let files = authority::open_or_create(&pki.path().join("pki")).unwrap();
    let password = pki.path().join("password");
    std::fs::write(&password, "s3cret\n").unwrap();
    let broker = Mosquitto::start_with(|dir| {
        let users = dir.join("users");
        std::fs::write(&users, "gate:s3cret\n").unwrap();
        let hashed = std::process::Command::new("mosquitto_passwd")
            .arg("-U")
            .arg(&users)
            .status();
        assert!(hashed.unwrap().success());
        format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\npassword_file {}\n",
            files.ca.display(),
            files.aggregator_certificate.display(),
            files.aggregator_key.display(),
            users.display()
        )
    });
    let Some(broker) = broker.await else {
        return;
    };
    for protocol in BOTH {
        let mut good = config(broker.address, protocol);
        good.user = Some("gate".into());
        good.password_file = Some(password.clone());
        good.tls = Some(TlsFiles {
            ca: files.ca.clone(),
            identity: Some((files.agent_certificate.clone(), files.agent_key.clone())),
            server_name: None,
        });
        good.check().unwrap();
        let mut ours = Flowing::start(good.clone(), &Kept::new());
        ours.until(|status| status.subscribed == 1).await;
        ours.end().await;

        let mut misnamed = good.clone();
        misnamed.tls.as_mut().unwrap().server_name = Some("another.example.org".into());
        let mut nameless = good.clone();
        nameless.tls.as_mut().unwrap().identity = None;
        let mut stranger = good.clone();
        stranger.user = Some("stranger".into());
        let mut plain = good.clone();
        plain.tls = None;
        for (wrong, config) in [
            ("name", misnamed),
            ("certificate", nameless),
            ("user", stranger),
            ("plain", plain),
        ] {
            let mut ours = Flowing::start(config, &Kept::new());
            let status = ours.until(|status| status.generation >= 2).await;
            assert!(
                !status.connected && status.problem.is_some(),
                "{wrong}: {status:?}"
            );
            assert!(!status.problem.unwrap().contains("s3cret"));
            ours.end().await;
        }
    }
}
