//! Our subscription and a broker that does what no good one does.

use super::fake::{DISCONNECT, Fake, PINGREQ, PUBACK, PUBCOMP, Publish, SUBSCRIBE};
use super::harness::{Flowing, Kept, Kind, Ours, config};
use std::time::Duration;
use tributary_agent::limits::BROKER_HELD_BYTES_MAX;
use tributary_agent::limits::{BROKER_REQUESTS_MAX, TOO_LARGE_HEAD_BYTES};
use tributary_agent::source::broker::Protocol;
use tributary_agent::spool::RefuseNew;

const BOTH: [Protocol; 2] = [Protocol::V4, Protocol::V5];

fn message(id: u16) -> Publish<'static> {
    Publish::new(id, "plant/t", b"21.5")
}

#[tokio::test]
async fn nothing_read_from_a_dead_connection_is_acknowledged_on_the_next() {
    for protocol in BOTH {
        let fake = Fake::new().await;
        let mut ours = Ours::start(config(fake.address, protocol), &Kept::new());
        let mut first = fake.subscribed().await;
        // Five that arrive, stand at the gate, and outlive their connection; five more that the
        // library reads in one go with the end of the connection.
        for id in 1..=5 {
            first.publish(message(id)).await;
        }
        ours.until(|status| status.received == 5).await;
        let five: Vec<_> = (6..=10).map(message).collect();
        first.last_words(&five).await;
        let mut second = fake.welcome(true).await;
        if protocol == Protocol::V5 {
            second.suback().await;
        }
        ours.until(|status| status.generation == 2 && status.connected)
            .await;
        let mut ours = ours.let_through();
        ours.take(5).await;
        // All that came before is durable now. What a broker with ids from 1 sends is not.
        second
            .publish(Publish::new(77, "plant/t", b"the first of this connection"))
            .await;
        assert_eq!(second.pubacks(1).await, [77], "{protocol:?}");
        for id in 1..=10 {
            second.publish(message(id).dup()).await;
        }
        assert_eq!(second.pubacks(10).await, (1..=10).collect::<Vec<_>>());
        ours.end().await;
    }
}

#[tokio::test]
async fn more_acknowledgements_than_the_library_takes_at_once_all_go_out_in_order() {
    let count = BROKER_REQUESTS_MAX as u16 + 4_000;
    let fake = Fake::new().await;
    let mut ours = Ours::start(config(fake.address, Protocol::V4), &Kept::new());
    let mut peer = fake.subscribed().await;
    // A broker of 3.1.1 may have any window.
    for id in 1..=count {
        peer.publish(message(id)).await;
    }
    ours.until(|status| status.received == u64::from(count))
        .await;
    let ours = ours.let_through();
    assert_eq!(
        peer.pubacks(usize::from(count)).await,
        (1..=count).collect::<Vec<_>>()
    );
    ours.end().await;
}

/// By the real clock: one that jumps while nothing happens jumps over an answer that is on its way.
#[tokio::test]
async fn pings_go_out_while_acknowledgements_are_withheld() {
    for protocol in BOTH {
        let fake = Fake::new().await;
        let mut config = config(fake.address, protocol);
        // The least that the library takes.
        config.keep_alive = Duration::from_secs(5);
        let mut ours = Ours::start(config, &Kept::new());
        let mut peer = fake.subscribed().await;
        peer.publish(message(1)).await;
        ours.until(|status| status.received == 1).await;
        for _ in 0..2 {
            let ping = peer.packet().await.unwrap();
            assert_eq!(ping.head, 0xc0, "no acknowledgement, no end");
            peer.send(&[0xd0, 0]).await;
        }
        let ours = ours.let_through();
        assert_eq!(peer.pubacks(1).await, [1]);
        assert_eq!(ours.status.borrow().generation, 1);
        ours.kill();
    }
}

#[tokio::test]
async fn a_message_of_20_kb_is_one_like_any_other() {
    for protocol in BOTH {
        let fake = Fake::new().await;
        let mut ours = Flowing::start(config(fake.address, protocol), &Kept::new());
        let mut peer = fake.subscribed().await;
        let payload = vec![b'x'; 20_000];
        peer.publish(Publish::new(3, "cam", &payload)).await;
        assert_eq!(peer.pubacks(1).await, [3]);
        assert_eq!(ours.take(1).await[0].payload(), payload);
        ours.end().await;
    }
}

#[tokio::test]
async fn a_poisonous_packet_ends_one_connection_and_is_kept_as_a_head() {
    for protocol in BOTH {
        let fake = Fake::new().await;
        let mut ours = Flowing::start(config(fake.address, protocol), &Kept::new());
        let mut first = fake.subscribed().await;
        ours.until(|status| status.subscribed == 1).await;
        let payload = vec![b'x'; 3_000_000];
        let poison = Publish::new(1, "cam", &payload);
        // It may close before all was written: that is no fault here.
        let bytes = first.publish_bytes(&poison);
        first.send_what_is_taken(&bytes).await;
        let mut second = fake.welcome(true).await;
        if protocol == Protocol::V5 {
            second.suback().await;
        }
        second.publish(poison.dup()).await;
        second.publish(message(2)).await;
        assert_eq!(second.pubacks(2).await, [1, 2], "{protocol:?}");
        let kept = ours.take(2).await;
        let head = Kind::TooLarge {
            topic: "cam".into(),
            kept: TOO_LARGE_HEAD_BYTES,
            payload_bytes: 3_000_000,
        };
        assert_eq!(kept[0], head);
        assert_eq!(kept[1].payload(), b"21.5");
        ours.end().await;
    }
}

#[tokio::test]
async fn a_session_of_3_1_1_is_not_subscribed_to_again_and_version_5_asks_for_no_copies() {
    for protocol in BOTH {
        let fake = Fake::new().await;
        let kept = Kept::new();
        let ours = Flowing::start(config(fake.address, protocol), &kept);
        let mut first = fake.welcome(false).await;
        let subscribe = first.suback().await;
        if protocol == Protocol::V5 {
            // QoS 1, No Local, retained messages only with a new subscription.
            assert_eq!(subscribe.last(), Some(&0b0001_0101));
        }
        // Not only over a reconnect: over a restart, too.
        first.publish(message(1)).await;
        first.pubacks(1).await;
        ours.end().await;
        let ours = Flowing::start(config(fake.address, protocol), &kept);
        let mut second = fake.welcome(true).await;
        if protocol == Protocol::V5 {
            second.suback().await;
        }
        second.publish(message(2)).await;
        let packet = second.awaited().await.unwrap();
        assert_eq!((packet.head, packet.id()), (PUBACK, 2), "{protocol:?}");
        ours.end().await;
    }
}

#[tokio::test]
async fn a_filter_that_left_the_configuration_is_given_back() {
    let fake = Fake::new().await;
    let kept = Kept::new();
    let mut before = config(fake.address, Protocol::V4);
    before.topics = vec!["old/#".into(), "kept/#".into()];
    let mut ours = Flowing::start(before, &kept);
    let _first = fake.subscribed().await;
    ours.until(|status| status.subscribed == 2).await;
    ours.end().await;
    let mut after = config(fake.address, Protocol::V4);
    after.topics = vec!["kept/#".into(), "new/#".into()];
    let ours = Flowing::start(after, &kept);
    let mut peer = fake.welcome(true).await;
    let unsubscribe = peer.awaited().await.unwrap();
    assert_eq!(unsubscribe.head, 0xa2);
    assert!(unsubscribe.body.ends_with(b"old/#"));
    let subscribe = peer.suback().await;
    assert!(subscribe.ends_with(b"new/#\x01"), "{subscribe:?}");
    assert!(!subscribe.windows(4).any(|part| part == b"kept"));
    ours.end().await;
}

#[tokio::test]
async fn a_lost_session_is_subscribed_to_anew() {
    for protocol in BOTH {
        let fake = Fake::new().await;
        let mut ours = Flowing::start(config(fake.address, protocol), &Kept::new());
        let first = fake.subscribed().await;
        ours.until(|status| status.subscribed == 1).await;
        drop(first);
        let mut second = fake.welcome(false).await;
        second.suback().await;
        let status = ours.until(|status| status.sessions_lost == 1).await;
        assert_eq!(status.generation, 2);
        ours.end().await;
    }
}

#[tokio::test]
async fn our_own_topics_are_no_source_and_are_acknowledged() {
    let fake = Fake::new().await;
    let ours = Flowing::start(config(fake.address, Protocol::V5), &Kept::new());
    let mut peer = fake.subscribed().await;
    for (id, topic) in [(1, "tributary/alerts/a"), (2, "tributary"), (3, "plant/t")] {
        peer.publish(Publish::new(id, topic, b"1")).await;
    }
    assert_eq!(peer.pubacks(3).await, [1, 2, 3]);
    drop(peer);
    let records = ours.end().await;
    let topics: Vec<_> = records.iter().map(Kind::topic).collect();
    assert_eq!(topics, ["plant/t"]);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_falls_silent_is_replaced() {
    for protocol in BOTH {
        let fake = Fake::new().await;
        let ours = Flowing::start(config(fake.address, protocol), &Kept::new());
        let mut silent = fake.subscribed().await;
        // It hears everything and says nothing more.
        assert_eq!(silent.packet().await.unwrap().head, 0xc0);
        let next = fake.connect().await;
        assert_eq!(next.flags & 2, 0, "the session goes on");
        ours.kill();
    }
}

#[tokio::test]
async fn a_broker_that_reads_nothing_is_left_for_a_new_connection() {
    let fake = Fake::with_small_buffers().await;
    let mut ours = Ours::start(config(fake.address, Protocol::V5), &Kept::new());
    let mut deaf = fake.subscribed().await;
    let count = 40_000;
    for id in 1..=count {
        deaf.publish(message(id)).await;
    }
    ours.until(|status| status.received == u64::from(count))
        .await;
    let mut ours = ours.let_through();
    ours.take(usize::from(count)).await;
    // The acknowledgements fill the socket. From here on time passes when nothing else happens.
    tokio::time::pause();
    let next = fake.connect().await;
    assert_eq!(next.level, 5);
    let said = ours.status.borrow().problem.clone().unwrap();
    assert_eq!(said, "nothing was heard for long");
    drop(deaf);
    ours.kill();
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_never_answered_gets_a_new_connection() {
    let fake = Fake::new().await;
    let ours = Flowing::start(config(fake.address, Protocol::V5), &Kept::new());
    let mut lazy = fake.welcome(false).await;
    assert_eq!(lazy.awaited().await.unwrap().head, SUBSCRIBE);
    assert_eq!(
        lazy.awaited().await,
        None,
        "pings are answered, and it closes"
    );
    fake.subscribed().await;
    ours.kill();
}

#[tokio::test]
async fn a_broker_without_version_5_is_spoken_to_in_3_1_1() {
    // In the words of 5, in those of 3.1.1, and without a word.
    let refusals: [&[u8]; 3] = [&[0x20, 3, 0, 0x84, 0], &[0x20, 2, 0, 1], &[]];
    for refusal in refusals {
        let fake = Fake::new().await;
        let mut ours = Flowing::start(config(fake.address, Protocol::Auto), &Kept::new());
        let mut first = fake.connect().await;
        assert_eq!(first.level, 5);
        first.send(refusal).await;
        first.last_words(&[]).await;
        let mut second = fake.welcome(false).await;
        assert_eq!(second.level, 4, "{refusal:02x?}");
        second.suback().await;
        let status = ours.until(|status| status.connected).await;
        assert_eq!(status.protocol, Some("3.1.1"));
        ours.end().await;
    }
}

#[tokio::test]
async fn a_wrong_password_changes_no_version_and_is_said() {
    let fake = Fake::new().await;
    let mut ours = Flowing::start(config(fake.address, Protocol::Auto), &Kept::new());
    for _ in 0..2 {
        let mut peer = fake.connect().await;
        assert_eq!(peer.level, 5);
        peer.connack(false, 0x86).await;
    }
    let status = ours.until(|status| status.generation >= 2).await;
    assert!(status.problem.unwrap().contains("BadUserNamePassword"));
    ours.end().await;
}

#[tokio::test]
async fn a_release_of_an_earlier_life_is_answered() {
    for protocol in BOTH {
        let fake = Fake::new().await;
        let ours = Flowing::start(config(fake.address, protocol), &Kept::new());
        let mut peer = fake.subscribed().await;
        peer.send(&[0x62, 2, 0, 9]).await;
        let packet = peer.awaited().await.unwrap();
        assert_eq!((packet.head, packet.id()), (PUBCOMP, 9));
        ours.end().await;
    }
}

#[tokio::test]
async fn an_end_acknowledges_what_is_durable_takes_nothing_more_and_keeps_the_session() {
    for protocol in BOTH {
        let fake = Fake::new().await;
        let mut ours = Ours::start(config(fake.address, protocol), &Kept::new());
        let mut peer = fake.subscribed().await;
        peer.publish(message(1)).await;
        ours.until(|status| status.received == 1).await;
        let ours = ours.stop();
        let ended = tokio::spawn(ours.end());
        assert_eq!(peer.pubacks(1).await, [1]);
        let last = peer.awaited().await.unwrap();
        assert_eq!(last.head, DISCONNECT);
        if protocol == Protocol::V5 {
            assert!(
                last.body.iter().all(|byte| *byte == 0),
                "a session expiry of its own would end the session: {last:?}"
            );
        }
        assert_eq!(peer.packet().await, None);
        assert_eq!(ended.await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_broker_that_is_not_there_ends_nothing_and_is_found_when_it_comes() {
    let fake = Fake::new().await;
    let address = fake.address;
    drop(fake);
    let mut ours = Flowing::start(config(address, Protocol::Auto), &Kept::new());
    let status = ours.until(|status| status.generation >= 2).await;
    assert!(!status.connected && status.problem.is_some());
    let fake = Fake::at(address).await;
    fake.subscribed().await;
    ours.until(|status| status.connected).await;
    ours.end().await;
}

#[tokio::test]
async fn what_the_spool_refuses_stays_with_the_broker() {
    for protocol in BOTH {
        let fake = Fake::new().await;
        let refuse = RefuseNew::default();
        let config = config(fake.address, protocol);
        let ours = Ours::start_refusing(config, &Kept::new(), &refuse);
        let mut ours = ours.let_through();
        let mut peer = fake.subscribed().await;
        peer.publish(message(1)).await;
        assert_eq!(peer.pubacks(1).await, [1]);
        ours.take(1).await;

        refuse.set(true);
        for id in 2..=6 {
            peer.publish(message(id)).await;
        }
        let refused = |problem: &str| problem.contains("refuses what is new");
        ours.until(|status| status.received == 6 && status.problem.as_deref().is_some_and(refused))
            .await;
        // Time passes at once only here, where the log's thread has nothing to do: a clock that
        // runs while it works would end the connection.
        tokio::time::pause();
        for _ in 0..3 {
            let ping = peer.packet().await.unwrap();
            assert_eq!(ping.head, PINGREQ, "no acknowledgement, no end");
            peer.send(&[0xd0, 0]).await;
        }
        tokio::time::resume();

        refuse.set(false);
        assert_eq!(peer.pubacks(5).await, [2, 3, 4, 5, 6], "{protocol:?}");
        let status = ours.until(|status| status.problem.is_none()).await;
        assert_eq!(status.generation, 1);
        assert_eq!(ours.take(5).await.len(), 5);
        ours.kill();
    }
}

#[tokio::test]
async fn more_than_memory_takes_waits_at_the_broker_until_there_is_room() {
    let fake = Fake::new().await;
    let refuse = RefuseNew::default();
    let config = config(fake.address, Protocol::V5);
    let ours = Ours::start_refusing(config, &Kept::new(), &refuse);
    let mut ours = ours.let_through();
    let mut first = fake.subscribed().await;
    ours.until(|status| status.subscribed == 1).await;
    refuse.set(true);
    let payload = vec![b'x'; 200_000];
    let count = (BROKER_HELD_BYTES_MAX / payload.len() + 2) as u16;
    for id in 1..=count {
        let bytes = first.publish_bytes(&Publish::new(id, "cam", &payload));
        first.send_what_is_taken(&bytes).await;
    }
    ours.until(|status| !status.connected).await;
    tokio::time::pause();
    let hour = Duration::from_secs(3_600);
    let early = tokio::time::timeout(hour, fake.connect()).await;
    assert!(early.is_err(), "it came back though nothing is taken");
    tokio::time::resume();

    refuse.set(false);
    let mut second = fake.welcome(true).await;
    second.suback().await;
    for id in 1..=count {
        second
            .publish(Publish::new(id, "cam", &payload).dup())
            .await;
    }
    let ids: Vec<_> = (1..=count).collect();
    let (acknowledged, taken) = tokio::join!(second.pubacks(ids.len()), ours.take(ids.len()));
    assert_eq!(acknowledged, ids);
    assert_eq!(taken.len(), ids.len(), "each once");
    ours.kill();
}

#[tokio::test]
async fn an_end_does_not_wait_for_what_the_spool_refuses() {
    let fake = Fake::new().await;
    let (kept, refuse) = (Kept::new(), RefuseNew::default());
    let of = |refuse: &RefuseNew| {
        Ours::start_refusing(config(fake.address, Protocol::V4), &kept, refuse).let_through()
    };
    let mut ours = of(&refuse);
    let mut first = fake.subscribed().await;
    ours.until(|status| status.subscribed == 1).await;
    refuse.set(true);
    first.publish(message(1)).await;
    ours.until(|status| status.received == 1).await;
    assert_eq!(ours.end().await, [], "nothing of it is in the log");
    assert_eq!(first.packet().await, None, "and nothing was acknowledged");

    let ours = of(&RefuseNew::default());
    let mut second = fake.welcome(true).await;
    second.publish(message(1).dup()).await;
    assert_eq!(second.pubacks(1).await, [1]);
    assert_eq!(ours.end().await.len(), 1);
}
