//! MQTT bytes of both versions, by rumqttc's packet types, behind one face.
//!
//! Only what a publisher needs: CONNECT, PUBLISH, PUBREL, PINGREQ, DISCONNECT out; CONNACK, PUBACK,
//! PUBREC, PUBCOMP, PINGRESP, DISCONNECT in.

use super::Qos;
use crate::limits::{KEEP_ALIVE_S, PACKET_BYTES_MAX, SESSION_EXPIRY_S};
use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::{self, v4};
use rumqttc::v5::mqttbytes::{self as mqttbytes5, v5};

/// The version of MQTT that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
}

impl Protocol {
    /// The protocol level, as CONNECT states it.
    pub fn level(self) -> u8 {
        match self {
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }
}

/// Bytes that are not MQTT, or packets that no publisher should get.
#[derive(Debug, thiserror::Error)]
#[error("the server sent what is not MQTT {version}: {why}")]
pub struct WireError {
    version: &'static str,
    why: String,
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    ConnAck {
        refused: Option<String>,
        receive_max: u16,
        session_present: bool,
    },
    PubAck {
        pkid: u16,
        refused: bool,
    },
    PubRec {
        pkid: u16,
        refused: bool,
    },
    PubComp {
        pkid: u16,
    },
    Disconnect(String),
    Other,
}

/// A topic in the forms that both codecs want.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    text: String,
    bytes: Bytes,
}

impl Topic {
    pub(super) fn new(text: String) -> Self {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        Self { text, bytes }
    }
}

const WRITABLE: &str = "a packet of ours is far below MQTT's limit, and has an id where its QoS \
                        wants one";

/// Appends a CONNECT; without `clean`, a session that the server still has goes on.
pub(super) fn put_connect(protocol: Protocol, client_id: &str, clean: bool, out: &mut BytesMut) {
    let client_id = client_id.to_owned();
    match protocol {
        Protocol::V311 => {
            let mut connect = v4::Connect::new(client_id);
            connect.keep_alive = KEEP_ALIVE_S;
            connect.clean_session = clean;
            connect.write(out).expect(WRITABLE);
        }
        Protocol::V5 => {
            let mut properties = v5::ConnectProperties::new();
            properties.session_expiry_interval = Some(SESSION_EXPIRY_S);
            let connect = v5::Connect {
                keep_alive: KEEP_ALIVE_S,
                client_id,
                clean_start: clean,
                properties: Some(properties),
            };
            connect.write(&None, &None, out).expect(WRITABLE);
        }
    }
}

/// A publication as it goes out.
pub(super) struct Publication<'a> {
    pub topic: &'a Topic,
    pub payload: &'a [u8],
    pub qos: Qos,
    /// 0 at QoS 0.
    pub pkid: u16,
    pub dup: bool,
}

/// Appends a publication.
pub(super) fn put_publish(protocol: Protocol, one: &Publication<'_>, out: &mut BytesMut) {
    let payload = Bytes::copy_from_slice(one.payload);
    match protocol {
        Protocol::V311 => {
            let qos = match one.qos {
                Qos::AtMostOnce => mqttbytes::QoS::AtMostOnce,
                Qos::AtLeastOnce => mqttbytes::QoS::AtLeastOnce,
                Qos::ExactlyOnce => mqttbytes::QoS::ExactlyOnce,
            };
            let mut publish = v4::Publish::from_bytes(one.topic.text.as_str(), qos, payload);
            (publish.pkid, publish.dup) = (one.pkid, one.dup);
            publish.write(out).expect(WRITABLE);
        }
        Protocol::V5 => {
            let qos = match one.qos {
                Qos::AtMostOnce => mqttbytes5::QoS::AtMostOnce,
                Qos::AtLeastOnce => mqttbytes5::QoS::AtLeastOnce,
                Qos::ExactlyOnce => mqttbytes5::QoS::ExactlyOnce,
            };
            let publish = v5::Publish {
                dup: one.dup,
                qos,
                retain: false,
                topic: one.topic.bytes.clone(),
                pkid: one.pkid,
                payload,
                properties: None,
            };
            publish.write(out).expect(WRITABLE);
        }
    }
}

/// Appends a PUBREL.
pub(super) fn put_release(protocol: Protocol, pkid: u16, out: &mut BytesMut) {
    match protocol {
        Protocol::V311 => v4::PubRel::new(pkid).write(out).expect(WRITABLE),
        Protocol::V5 => v5::PubRel::new(pkid, None).write(out).expect(WRITABLE),
    };
}

pub(super) fn put_ping(out: &mut BytesMut) {
    v4::PingReq.write(out).expect(WRITABLE);
}

/// Two bytes that mean a normal end in both versions.
pub(super) fn put_disconnect(out: &mut BytesMut) {
    v4::Disconnect.write(out).expect(WRITABLE);
}

/// Takes the next whole packet from the front of `input`; `None` when there is none yet.
pub(super) fn take_packet(
    protocol: Protocol,
    input: &mut BytesMut,
) -> Result<Option<Incoming>, WireError> {
    match protocol {
        Protocol::V311 => match v4::Packet::read(input, PACKET_BYTES_MAX) {
            Ok(packet) => Ok(Some(incoming_v4(packet))),
            Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(WireError {
                version: "3.1.1",
                why: error.to_string(),
            }),
        },
        Protocol::V5 => match v5::Packet::read(input, Some(PACKET_BYTES_MAX as u32)) {
            Ok(packet) => Ok(Some(incoming_v5(packet))),
            Err(mqttbytes5::Error::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(WireError {
                version: "5",
                why: error.to_string(),
            }),
        },
    }
}

fn incoming_v4(packet: v4::Packet) -> Incoming {
    match packet {
        v4::Packet::ConnAck(ack) => {
            let refused = ack.code != v4::ConnectReturnCode::Success;
            let refused = refused.then(|| format!("{:?}", ack.code));
            Incoming::ConnAck {
                refused,
                receive_max: u16::MAX,
                session_present: ack.session_present,
            }
        }
        v4::Packet::PubAck(ack) => Incoming::PubAck {
            pkid: ack.pkid,
            refused: false,
        },
        v4::Packet::PubRec(ack) => Incoming::PubRec {
            pkid: ack.pkid,
            refused: false,
        },
        v4::Packet::PubComp(done) => Incoming::PubComp { pkid: done.pkid },
        v4::Packet::Disconnect => Incoming::Disconnect("without a reason".to_owned()),
        _ => Incoming::Other,
    }
}

fn incoming_v5(packet: v5::Packet) -> Incoming {
    match packet {
        v5::Packet::ConnAck(ack) => {
            let refused = ack.code != v5::ConnectReturnCode::Success;
            let refused = refused.then(|| format!("{:?}", ack.code));
            let receive_max = ack.properties.and_then(|held| held.receive_max);
            Incoming::ConnAck {
                refused,
                receive_max: receive_max.unwrap_or(u16::MAX),
                session_present: ack.session_present,
            }
        }
        v5::Packet::PubAck(ack) => {
            use v5::PubAckReason::{NoMatchingSubscribers, Success};
            let refused = !matches!(ack.reason, Success | NoMatchingSubscribers);
            Incoming::PubAck {
                pkid: ack.pkid,
                refused,
            }
        }
        v5::Packet::PubRec(ack) => {
            use v5::PubRecReason::{NoMatchingSubscribers, Success};
            let refused = !matches!(ack.reason, Success | NoMatchingSubscribers);
            Incoming::PubRec {
                pkid: ack.pkid,
                refused,
            }
        }
        v5::Packet::PubComp(done) => Incoming::PubComp { pkid: done.pkid },
        v5::Packet::Disconnect(end) => Incoming::Disconnect(format!("{:?}", end.reason_code)),
        _ => Incoming::Other,
    }
}
