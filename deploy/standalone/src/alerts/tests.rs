//! The subscriber against a server that says what it is told to, over real TCP.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{self, Packet as Sent};
use rumqttc::mqttbytes::{Error, QoS as WireQoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tributary_sim::fault::FaultKind;
use tributary_sim::reading::Value;

const GOLDEN: &str = include_str!("../../../../protocol/tests/data/alert.json");
/// The golden alert's event time, and a second before it.
const EVENT_US: i64 = 1_795_204_800_123_456;
const STARTED_US: i64 = EVENT_US - 1_000_000;

fn series() -> Vec<Series> {
    vec![Series {
        device: "plant-1/pump-0007".to_owned(),
        metric: "temperature".to_owned(),
        unit: None,
    }]
}

/// One connection of the subscriber.
struct Peer {
    stream: TcpStream,
    input: BytesMut,
}

impl Peer {
    async fn of(listener: &TcpListener) -> Self {
        let mut peer = Self {
            stream: listener.accept().await.unwrap().0,
            input: BytesMut::new(),
        };
        let connect = peer.next().await;
        assert!(matches!(connect, Sent::Connect(_)), "{connect:?}");
        let granted = v4::ConnAck::new(v4::ConnectReturnCode::Success, false);
        peer.say(|out| granted.write(out)).await;
        peer
    }

    async fn next(&mut self) -> Sent {
        loop {
            match Sent::read(&mut self.input, 4_096) {
                Ok(packet) => return packet,
                Err(Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(self.stream.read_buf(&mut self.input).await.unwrap() > 0);
        }
    }

    async fn say(&mut self, write: impl Fn(&mut BytesMut) -> Result<usize, Error>) {
        let mut out = BytesMut::new();
        write(&mut out).unwrap();
        self.stream.write_all(&out).await.unwrap();
    }

    /// Answers the subscription.
    async fn answer(&mut self, code: SubscribeReasonCode) {
        let Sent::Subscribe(asked) = self.next().await else {
            panic!("no subscription")
        };
        assert_eq!(asked.filters[0].path, FILTER);
        let ack = v4::SubAck::new(asked.pkid, vec![code]);
        self.say(|out| ack.write(out)).await;
    }

    /// Publishes at QoS 1, and waits until it is acknowledged.
    async fn publish(&mut self, pkid: u16, payload: &str) {
        let topic = "tributary/alerts/plant-1/pump-0007/temperature";
        let mut publish = v4::Publish::new(topic, WireQoS::AtLeastOnce, payload);
        publish.pkid = pkid;
        self.say(|out| publish.write(out)).await;
        let ack = self.next().await;
        assert!(matches!(ack, Sent::PubAck(ack) if ack.pkid == pkid));
    }
}

async fn started() -> (TcpListener, Alerts) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alerts = Alerts::start(listener.local_addr().unwrap(), &series(), STARTED_US);
    (listener, alerts)
}

/// The golden alert without its window, under another id and event time.
fn alert(id: u128, event_time: &str) -> String {
    let mut alert: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
    alert["id"] = format!("{id:032x}").into();
    alert["event_time"] = event_time.into();
    alert["window"] = serde_json::Value::Null;
    alert.to_string()
}

#[tokio::test]
async fn alerts_are_matched_and_a_lost_connection_is_opened_again() {
    let (listener, alerts) = started().await;
    let mark = Mark {
        kind: FaultKind::Spike,
        first_us: EVENT_US,
        nth: 0,
    };
    let reading = Reading {
        series: 0,
        seq: 0,
        time_us: EVENT_US,
        value: Value::F64(27.5),
        written: None,
        fault: Some(mark),
    };
    alerts.watch.writing(&reading, mark, Instant::now());

    let mut peer = Peer::of(&listener).await;
    peer.answer(SubscribeReasonCode::Success(WireQoS::AtLeastOnce))
        .await;
    peer.publish(1, "no alert").await;
    peer.publish(2, &alert(1, "2026-11-20T20:00:00.123456Z"))
        .await;
    drop(peer);
    let mut peer = Peer::of(&listener).await;
    peer.answer(SubscribeReasonCode::Success(WireQoS::AtLeastOnce))
        .await;
    peer.publish(1, &alert(1, "2026-11-20T20:00:00.123456Z"))
        .await;
    peer.publish(2, &alert(2, "2026-11-20T20:00:09.000000Z"))
        .await;

    assert_eq!(alerts.watch.alerts(), Some(2));
    let found = alerts.end().await.unwrap();
    let once = Tally {
        injected: 1,
        found: 1,
    };
    assert_eq!((found.all(), found.alerts_false), (once, 1));
    assert!(found.latency.max > 0.0);
    assert_eq!(found.refused, None);
}

#[tokio::test]
async fn a_refusal_is_said_and_breaks_nothing() {
    let (listener, alerts) = started().await;
    let mut peer = Peer::of(&listener).await;
    peer.answer(SubscribeReasonCode::Failure).await;
    // It goes.
    let end = peer.stream.read_buf(&mut peer.input).await.unwrap();
    assert_eq!(end, 0);
    assert_eq!(alerts.watch.alerts(), None);
    alerts.settle().await;
    let found = alerts.end().await.unwrap();
    assert!(found.refused.unwrap().contains(FILTER));
}

#[tokio::test]
async fn an_agent_that_is_not_there_breaks_nothing() {
    let (listener, alerts) = started().await;
    drop(listener);
    alerts.settle().await;
    assert_eq!(alerts.end().await.unwrap(), Found::default());
}
