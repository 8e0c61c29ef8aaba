//! rumqttc's MQTT 5 client in the words of [`link`](super).

use super::{Access, Ack, Broken, Cause, Delivery, Granted, Handle, Heard, Link, Plan, Welcome};
use crate::decode::UserProperties;
use crate::limits::{BROKER_CONNECT_TIMEOUT, BROKER_INFLIGHT, BROKER_REQUESTS_MAX};
use crate::source::broker::{BrokerConfig, filters};
use bytes::Bytes;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectProperties, ConnectReturnCode, DisconnectReasonCode, Filter, Packet,
    PubAckReason, Publish, PublishProperties, RetainForwardRule, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error as BytesError, QoS};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions, MqttState, StateError};

pub(super) fn open(plan: &Plan, config: &BrokerConfig, access: &Access) -> (Handle, Link) {
    let mut options = MqttOptions::new(&access.client_id, &config.host, config.port);
    options.set_keep_alive(config.keep_alive);
    options.set_clean_start(false);
    options.set_manual_acks(true);
    options.set_connection_timeout(BROKER_CONNECT_TIMEOUT.as_secs());
    // The default keeps room for 65,535 publications.
    options.set_outgoing_inflight_upper_limit(BROKER_INFLIGHT);
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(config.session_expiry_s);
    properties.receive_maximum = Some(config.receive_maximum);
    properties.max_packet_size = Some(plan.packet_bytes_max);
    properties.topic_alias_max = Some(0);
    options.set_connect_properties(properties);
    options.set_network_options(super::network_options());
    options.set_transport(access.transport());
    if let Some((user, password)) = &access.credentials {
        options.set_credentials(user, password);
    }
    let (client, mut events) = AsyncClient::new(options, BROKER_REQUESTS_MAX);
    expect_any_release(&mut events.state);
    (Handle::V5(client), Link::V5(Box::new(events)))
}

/// A session from an earlier life may hold QoS 2 messages whose PUBREL comes now. The library takes
/// one that it does not await for an error, and would break every connection of that session.
fn expect_any_release(state: &mut MqttState) {
    for pkid in 1..=u16::MAX {
        let publish = Publish {
            qos: QoS::ExactlyOnce,
            pkid,
            ..Publish::default()
        };
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
        Packet::ConnAck(connack) => Heard::Welcome(welcome(&connack)),
        Packet::Publish(publish) => Heard::Delivery(Delivery {
            topic: publish.topic,
            properties: said(publish.properties.as_ref()),
            payload: publish.payload,
            packet_id: publish.pkid,
            qos: publish.qos as u8,
            dup: publish.dup,
            retain: publish.retain,
        }),
        Packet::SubAck(suback) => {
            Heard::Granted(suback.return_codes.into_iter().map(granted).collect())
        }
        Packet::PubAck(puback) => Heard::Answered(puback.pkid, refused(puback.reason)),
        Packet::PingResp(_) => Heard::Pong,
        _ => Heard::Other,
    }
}

/// Why a publication was refused, if it was.
fn refused(reason: PubAckReason) -> Option<String> {
    match reason {
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
        refused => Some(format!("{refused:?}")),
    }
}

/// The user properties of a publication that have a meaning.
fn said(properties: Option<&PublishProperties>) -> Vec<u8> {
    let mut read = UserProperties::NONE;
    let pairs = properties.iter().flat_map(|said| &said.user_properties);
    for (name, text) in pairs {
        read.take(name, text);
    }
    let mut out = Vec::new();
    read.write(&mut out);
    out
}

fn granted(code: SubscribeReasonCode) -> Granted {
    match code {
        SubscribeReasonCode::Success(qos) => Granted::Qos(qos as u8),
        refused => Granted::Refused(format!("{refused:?}")),
    }
}

fn welcome(connack: &ConnAck) -> Welcome {
    let said = connack.properties.as_ref();
    let off = |available: Option<u8>| available == Some(0);
    Welcome {
        session_present: connack.session_present,
        session_expiry_s: said.and_then(|said| said.session_expiry_interval),
        qos_max: said.and_then(|said| said.max_qos),
        no_wildcards: said.is_some_and(|said| off(said.wildcard_subscription_available)),
        no_shared: said.is_some_and(|said| off(said.shared_subscription_available)),
        no_retained: said.is_some_and(|said| off(said.retain_available)),
        packet_bytes_max: said.and_then(|said| said.max_packet_size),
    }
}

pub(super) fn broken(error: ConnectionError) -> Broken {
    let cause = match &error {
        ConnectionError::Timeout(_) => Cause::Silent,
        ConnectionError::Tls(_) => Cause::Tls,
        ConnectionError::Io(error) => super::io_cause(error.kind()),
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::UnsupportedProtocolVersion
            | ConnectReturnCode::RefusedProtocolVersion => Cause::Version,
            _ => Cause::Refused,
        },
        ConnectionError::NotConnAck(_) => Cause::Malformed,
        ConnectionError::RequestsDone => Cause::Closed,
        ConnectionError::MqttState(state) => match state {
            StateError::ServerDisconnect { reason_code, .. } => match reason_code {
                DisconnectReasonCode::SessionTakenOver => Cause::TakenOver,
                _ => Cause::Closed,
            },
            StateError::AwaitPingResp => Cause::Silent,
            StateError::IncomingPacketTooLarge { pkt_size, .. } => Cause::TooLarge(*pkt_size),
            StateError::Deserialization(BytesError::PayloadSizeLimitExceeded {
                pkt_size, ..
            }) => Cause::TooLarge(*pkt_size),
            StateError::Deserialization(BytesError::Io(error)) => super::io_cause(error.kind()),
            StateError::Io(error) => super::io_cause(error.kind()),
            StateError::ConnectionAborted => Cause::Closed,
            _ => Cause::Malformed,
        },
    };
    Broken::new(cause, error)
}

pub(super) fn try_ack(client: &AsyncClient, ack: Ack) -> bool {
    let publish = Publish {
        qos: match ack.qos {
            2 => QoS::ExactlyOnce,
            _ => QoS::AtLeastOnce,
        },
        pkid: ack.packet_id,
        topic: Bytes::new(),
        ..Publish::default()
    };
    client.try_ack(&publish).is_ok()
}

pub(super) fn try_publish(client: &AsyncClient, topic: &str, payload: Bytes, retain: bool) -> bool {
    let published = client.try_publish(topic, QoS::AtLeastOnce, retain, payload);
    published.is_ok()
}

pub(super) fn try_subscribe(client: &AsyncClient, filters: &[String]) -> bool {
    let filters = filters.iter().map(|filter| Filter {
        // Section 3.8.3.1: No Local with a shared subscription is an error.
        nolocal: !filters::is_shared(filter),
        retain_forward_rule: RetainForwardRule::OnNewSubscribe,
        ..Filter::new(filter, QoS::AtLeastOnce)
    });
    client.try_subscribe_many(filters).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn what_user_properties_say_is_handed_on() {
        let mut publish = Publish::new("a/b", QoS::AtLeastOnce, "21.5", None);
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        publish.properties = Some(PublishProperties {
            user_properties: vec![pair("ts", "7"), pair("trace", "x")],
            ..PublishProperties::default()
        });
        let Heard::Delivery(delivery) = heard(Event::Incoming(Packet::Publish(publish))) else {
            panic!("it is a delivery");
        };
        let mut said = UserProperties::NONE;
        said.take("ts", "7");
        assert_eq!(UserProperties::read(&delivery.properties), Some(said));
    }
}
