//! rumqttc's MQTT 3.1.1 client in the words of [`link`](super).

use super::{Access, Ack, Broken, Cause, Delivery, Granted, Handle, Heard, Link, Plan, Welcome};
use crate::limits::{BROKER_INFLIGHT, BROKER_REQUESTS_MAX};
use crate::source::broker::BrokerConfig;
use bytes::Bytes;
use rumqttc::mqttbytes::Error as BytesError;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, MqttOptions, MqttState, Outgoing,
    Packet, Publish, QoS, StateError, SubscribeFilter, SubscribeReasonCode,
};

pub(super) fn open(plan: &Plan, config: &BrokerConfig, access: &Access) -> (Handle, Link) {
    let mut options = MqttOptions::new(&access.client_id, &config.host, config.port);
    options.set_keep_alive(config.keep_alive);
    options.set_clean_session(false);
    options.set_manual_acks(true);
    options.set_inflight(BROKER_INFLIGHT);
    let packet_bytes_max = plan.packet_bytes_max as usize;
    options.set_max_packet_size(packet_bytes_max, packet_bytes_max);
    options.set_transport(access.transport());
    if let Some((user, password)) = &access.credentials {
        options.set_credentials(user, password);
    }
    let (client, mut events) = AsyncClient::new(options, BROKER_REQUESTS_MAX);
    events.set_network_options(super::network_options());
    expect_any_release(&mut events.state);
    (Handle::V4(client), Link::V4(Box::new(events)))
}

/// As with MQTT 5: a PUBREL of an earlier life is no error.
fn expect_any_release(state: &mut MqttState) {
    for pkid in 1..=u16::MAX {
        let mut publish = Publish::from_bytes("", QoS::ExactlyOnce, Bytes::new());
        publish.pkid = pkid;
        let noted = state.handle_incoming_packet(Packet::Publish(publish));
        debug_assert!(matches!(noted, Ok(None)), "answered by hand");
        state.events.clear();
    }
}

pub(super) fn heard(event: Event) -> Heard {
    let packet = match event {
        Event::Outgoing(Outgoing::PubAck(_) | Outgoing::PubRec(_)) => return Heard::AckSent,
        Event::Outgoing(Outgoing::Disconnect) => return Heard::DisconnectSent,
        Event::Outgoing(Outgoing::Publish(packet_id)) => return Heard::Published(packet_id),
        Event::Outgoing(_) => return Heard::Sent,
        Event::Incoming(packet) => packet,
    };
    match packet {
        Packet::ConnAck(connack) => Heard::Welcome(Welcome {
            session_present: connack.session_present,
            ..Welcome::default()
        }),
        Packet::Publish(publish) => Heard::Delivery(Delivery {
            topic: publish.topic.into(),
            payload: publish.payload,
            properties: Vec::new(),
            packet_id: publish.pkid,
            qos: publish.qos as u8,
            dup: publish.dup,
            retain: publish.retain,
        }),
        Packet::SubAck(suback) => {
            let codes = suback.return_codes.into_iter();
            Heard::Granted(codes.map(granted).collect())
        }
        Packet::PubAck(puback) => Heard::Answered(puback.pkid, None),
        Packet::PingResp => Heard::Pong,
        _ => Heard::Other,
    }
}

fn granted(code: SubscribeReasonCode) -> Granted {
    match code {
        SubscribeReasonCode::Success(qos) => Granted::Qos(qos as u8),
        SubscribeReasonCode::Failure => Granted::Refused("MQTT 3.1.1 cannot say why".into()),
    }
}

pub(super) fn broken(error: ConnectionError) -> Broken {
    let cause = match &error {
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => Cause::Silent,
        ConnectionError::Tls(_) => Cause::Tls,
        ConnectionError::Io(error) => super::io_cause(error.kind()),
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::RefusedProtocolVersion => Cause::Version,
            _ => Cause::Refused,
        },
        ConnectionError::NotConnAck(_) => Cause::Malformed,
        ConnectionError::RequestsDone => Cause::Closed,
        ConnectionError::MqttState(state) => match state {
            StateError::AwaitPingResp => Cause::Silent,
            StateError::Deserialization(BytesError::PayloadSizeLimitExceeded(bytes)) => {
                Cause::TooLarge(*bytes)
            }
            StateError::Deserialization(BytesError::Io(error)) | StateError::Io(error) => {
                super::io_cause(error.kind())
            }
            StateError::ConnectionAborted => Cause::Closed,
            _ => Cause::Malformed,
        },
    };
    Broken::new(cause, error)
}

pub(super) fn try_ack(client: &AsyncClient, ack: Ack) -> bool {
    let qos = match ack.qos {
        2 => QoS::ExactlyOnce,
        _ => QoS::AtLeastOnce,
    };
    let mut publish = Publish::from_bytes(String::new(), qos, Bytes::new());
    publish.pkid = ack.packet_id;
    client.try_ack(&publish).is_ok()
}

pub(super) fn try_publish(client: &AsyncClient, topic: &str, payload: Bytes, retain: bool) -> bool {
    let published = client.try_publish(topic, QoS::AtLeastOnce, retain, payload);
    published.is_ok()
}

pub(super) fn try_subscribe(client: &AsyncClient, filters: &[String]) -> bool {
    let filters = filters
        .iter()
        .map(|filter| SubscribeFilter::new(filter.clone(), QoS::AtLeastOnce));
    client.try_subscribe_many(filters).is_ok()
}
