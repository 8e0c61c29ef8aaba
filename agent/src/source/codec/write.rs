//! Answers to clients, written through rumqttc's packet types.

use super::Version;
use crate::limits::{PACKET_BYTES_MAX, RECEIVE_MAX, TOPIC_ALIASES_MAX};
use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::{QoS, v5};

/// What a server says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::source) enum Answer<'a> {
    /// The client is let in.
    Welcome {
        /// Whether it has a session already.
        session_present: bool,
        /// The identifier that it was given, if it came without one.
        assigned: Option<&'a str>,
        /// The keep alive to use instead of its own.
        keep_alive_s: Option<u16>,
        /// How long its session is kept, where that is not what it asked for.
        session_expiry_s: Option<u32>,
    },
    /// The client is not let in, by the MQTT 5 code; 3.1.1 gets what is nearest.
    Refused { code: u8 },
    /// A publication is durable (0), or refused.
    PubAck { packet_id: u16, code: u8 },
    /// A QoS 2 publication is durable (0), or refused.
    PubRec { packet_id: u16, code: u8 },
    /// The release of a QoS 2 publication is durable.
    PubComp { packet_id: u16 },
    /// Each subscription is granted with this QoS, or refused with this MQTT 5 code; `reason` is
    /// left out when unwanted.
    SubAck {
        packet_id: u16,
        codes: Vec<u8>,
        reason: Option<&'static str>,
    },
    /// Each subscription is ended, or was none, by its MQTT 5 code.
    UnsubAck { packet_id: u16, codes: Vec<u8> },
    /// PINGRESP.
    Pong,
    /// The server ends the connection; 3.1.1 knows no such packet.
    Disconnect { code: u8 },
}

/// Appends an answer to `out`.
pub(in crate::source) fn write(version: Version, answer: &Answer<'_>, out: &mut BytesMut) {
    let before = out.len();
    let written = match version {
        Version::V4 => write_v4(answer, out).is_ok(),
        Version::V5 => write_v5(answer, out).is_ok(),
    };
    // Only a packet beyond 256 MB fails, and none of these grows with what a client sends.
    debug_assert!(written, "an answer of bounded size is always written");
    if !written {
        out.truncate(before);
    }
}

fn write_v4(answer: &Answer<'_>, out: &mut BytesMut) -> Result<usize, rumqttc::mqttbytes::Error> {
    use v4::ConnectReturnCode as Code;
    match answer {
        Answer::Welcome {
            session_present, ..
        } => v4::ConnAck::new(Code::Success, *session_present).write(out),
        Answer::Refused { code } => {
            let code = match code {
                0x84 => Code::RefusedProtocolVersion,
                0x85 => Code::BadClientId,
                0x86 => Code::BadUserNamePassword,
                0x87 => Code::NotAuthorized,
                _ => Code::ServiceUnavailable,
            };
            v4::ConnAck::new(code, false).write(out)
        }
        // 3.1.1 cannot say no: the publication was counted, and the client must not repeat it.
        Answer::PubAck { packet_id, .. } => v4::PubAck::new(*packet_id).write(out),
        Answer::PubRec { packet_id, .. } => v4::PubRec::new(*packet_id).write(out),
        Answer::PubComp { packet_id } => v4::PubComp::new(*packet_id).write(out),
        Answer::SubAck {
            packet_id, codes, ..
        } => {
            let code = |code: &u8| match code {
                0 => v4::SubscribeReasonCode::Success(rumqttc::QoS::AtMostOnce),
                1 => v4::SubscribeReasonCode::Success(rumqttc::QoS::AtLeastOnce),
                _ => v4::SubscribeReasonCode::Failure,
            };
            v4::SubAck::new(*packet_id, codes.iter().map(code).collect()).write(out)
        }
        Answer::UnsubAck { packet_id, .. } => v4::UnsubAck::new(*packet_id).write(out),
        Answer::Pong => v4::PingResp.write(out),
        Answer::Disconnect { .. } => Ok(0),
    }
}

// tidy: function because it is one arm for each packet.
fn write_v5(
    answer: &Answer<'_>,
    out: &mut BytesMut,
) -> Result<usize, rumqttc::v5::mqttbytes::Error> {
    match answer {
        Answer::Welcome {
            session_present,
            assigned,
            keep_alive_s,
            session_expiry_s,
        } => {
            let properties = welcome_properties(*assigned, *keep_alive_s, *session_expiry_s);
            let code = v5::ConnectReturnCode::Success;
            v5::ConnAck {
                session_present: *session_present,
                code,
                properties: Some(properties),
            }
            .write(out)
        }
        Answer::Refused { code } => {
            let code = connect_code(*code);
            v5::ConnAck {
                session_present: false,
                code,
                properties: None,
            }
            .write(out)
        }
        Answer::PubAck { packet_id, code } => {
            let reason = match code {
                0 => v5::PubAckReason::Success,
                0x87 => v5::PubAckReason::NotAuthorized,
                0x97 => v5::PubAckReason::QuotaExceeded,
                _ => v5::PubAckReason::UnspecifiedError,
            };
            v5::PubAck {
                pkid: *packet_id,
                reason,
                properties: None,
            }
            .write(out)
        }
        Answer::PubRec { packet_id, code } => {
            let reason = match code {
                0 => v5::PubRecReason::Success,
                0x87 => v5::PubRecReason::NotAuthorized,
                0x97 => v5::PubRecReason::QuotaExceeded,
                _ => v5::PubRecReason::UnspecifiedError,
            };
            v5::PubRec {
                pkid: *packet_id,
                reason,
                properties: None,
            }
            .write(out)
        }
        Answer::PubComp { packet_id } => v5::PubComp::new(*packet_id, None).write(out),
        Answer::SubAck {
            packet_id,
            codes,
            reason,
        } => {
            let return_codes = codes.iter().map(|code| subscribe_code(*code)).collect();
            let properties = reason.map(|reason| v5::SubAckProperties {
                reason_string: Some(reason.to_owned()),
                user_properties: Vec::new(),
            });
            v5::SubAck {
                pkid: *packet_id,
                return_codes,
                properties,
            }
            .write(out)
        }
        Answer::UnsubAck { packet_id, codes } => {
            let reason = |code: &u8| match code {
                0 => v5::UnsubAckReason::Success,
                _ => v5::UnsubAckReason::NoSubscriptionExisted,
            };
            let reasons = codes.iter().map(reason).collect();
            v5::UnsubAck {
                pkid: *packet_id,
                reasons,
                properties: None,
            }
            .write(out)
        }
        Answer::Pong => v5::PingResp::write(out),
        Answer::Disconnect { code } => {
            // rumqttc 0.25.1 writes this packet wrong: without properties one byte more than its
            // length says, with empty ones without the reason.
            out.extend_from_slice(&[0xe0, 1, *code]);
            Ok(3)
        }
    }
}

/// What a client is told on its way in (section 3.2.2.3 \[5\]).
fn welcome_properties(
    assigned: Option<&str>,
    keep_alive_s: Option<u16>,
    session_expiry_s: Option<u32>,
) -> v5::ConnAckProperties {
    v5::ConnAckProperties {
        session_expiry_interval: session_expiry_s,
        receive_max: u16::try_from(RECEIVE_MAX).ok(),
        max_qos: None,
        retain_available: None,
        max_packet_size: u32::try_from(PACKET_BYTES_MAX).ok(),
        assigned_client_identifier: assigned.map(str::to_owned),
        topic_alias_max: Some(TOPIC_ALIASES_MAX),
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: Some(0),
        server_keep_alive: keep_alive_s,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}

fn connect_code(code: u8) -> v5::ConnectReturnCode {
    use v5::ConnectReturnCode as Code;
    match code {
        0x81 => Code::MalformedPacket,
        0x82 => Code::ProtocolError,
        0x84 => Code::UnsupportedProtocolVersion,
        0x85 => Code::ClientIdentifierNotValid,
        0x86 => Code::BadUserNamePassword,
        0x87 => Code::NotAuthorized,
        0x89 => Code::ServerBusy,
        0x8c => Code::BadAuthenticationMethod,
        0x90 => Code::TopicNameInvalid,
        0x95 => Code::PacketTooLarge,
        0x97 => Code::QuotaExceeded,
        0x9f => Code::ConnectionRateExceeded,
        _ => Code::UnspecifiedError,
    }
}

fn subscribe_code(code: u8) -> v5::SubscribeReasonCode {
    use v5::SubscribeReasonCode as Code;
    match code {
        0 => Code::Success(QoS::AtMostOnce),
        1 => Code::Success(QoS::AtLeastOnce),
        0x87 => Code::NotAuthorized,
        0x8f => Code::TopicFilterInvalid,
        0x97 => Code::QuotaExceeded,
        0x9e => Code::SharedSubscriptionsNotSupported,
        _ => Code::ImplementationSpecific,
    }
}
