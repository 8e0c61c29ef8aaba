//! PUBLISH to a client (section 3.3). Our own: rumqttc's packet type would copy topic and
//! identifiers of each delivery before it writes them.

use super::Version;
use bytes::{BufMut, BytesMut};

/// A publication to a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::source) struct Deliver<'a> {
    /// `None` with QoS 0.
    pub packet_id: Option<u16>,
    pub retain: bool,
    pub topic: &'a str,
    /// Of the subscriptions that it fits (MQTT 5).
    pub ids: &'a [u32],
    pub payload: &'a [u8],
}

/// The identifier of the property "Subscription Identifier" (section 3.3.2.3.8 \[5\]).
const SUBSCRIPTION_ID: u8 = 0x0b;

/// Appends it to `out`, unless it is more than `bytes_max`; whether it was.
pub(in crate::source) fn deliver(
    version: Version,
    deliver: &Deliver<'_>,
    bytes_max: usize,
    out: &mut BytesMut,
) -> bool {
    let properties: usize = match version {
        Version::V4 => 0,
        Version::V5 => deliver
            .ids
            .iter()
            .map(|id| 1 + length_of(*id as usize))
            .sum(),
    };
    let head = match version {
        Version::V4 => 0,
        Version::V5 => length_of(properties) + properties,
    };
    let id_bytes = 2 * usize::from(deliver.packet_id.is_some());
    let body = 2 + deliver.topic.len() + id_bytes + head + deliver.payload.len();
    let whole = 1 + length_of(body) + body;
    let Some(topic_bytes) = u16::try_from(deliver.topic.len()).ok() else {
        return false;
    };
    if whole > bytes_max {
        return false;
    }
    out.reserve(whole);
    let qos = u8::from(deliver.packet_id.is_some()) << 1;
    out.put_u8(0x30 | qos | u8::from(deliver.retain));
    variable(body, out);
    out.put_u16(topic_bytes);
    out.put_slice(deliver.topic.as_bytes());
    if let Some(packet_id) = deliver.packet_id {
        out.put_u16(packet_id);
    }
    if version == Version::V5 {
        variable(properties, out);
        for id in deliver.ids {
            out.put_u8(SUBSCRIPTION_ID);
            variable(*id as usize, out);
        }
    }
    out.put_slice(deliver.payload);
    true
}

/// Bytes of a variable byte integer (section 1.5.5 \[5\]).
fn length_of(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

fn variable(mut value: usize, out: &mut BytesMut) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use rumqttc::mqttbytes::{QoS as QoS4, v4};
    use rumqttc::v5::mqttbytes::{QoS as QoS5, v5};

    /// What rumqttc writes for the same.
    fn theirs(version: Version, ours: &Deliver<'_>) -> BytesMut {
        let mut out = BytesMut::new();
        let payload = ours.payload.to_vec();
        match version {
            Version::V4 => {
                let qos = [QoS4::AtMostOnce, QoS4::AtLeastOnce];
                let qos = qos[usize::from(ours.packet_id.is_some())];
                let mut publish = v4::Publish::new(ours.topic, qos, payload);
                publish.pkid = ours.packet_id.unwrap_or(0);
                publish.retain = ours.retain;
                publish.write(&mut out).unwrap();
            }
            Version::V5 => {
                let qos = [QoS5::AtMostOnce, QoS5::AtLeastOnce];
                let qos = qos[usize::from(ours.packet_id.is_some())];
                let ids = ours.ids.iter().map(|id| *id as usize).collect();
                let properties = v5::PublishProperties {
                    subscription_identifiers: ids,
                    ..v5::PublishProperties::default()
                };
                let mut publish = v5::Publish::new(ours.topic, qos, payload, Some(properties));
                publish.pkid = ours.packet_id.unwrap_or(0);
                publish.retain = ours.retain;
                publish.write(&mut out).unwrap();
            }
        }
        out
    }

    #[test]
    fn it_writes_what_rumqttc_writes() {
        let large = vec![7; 20_000];
        for version in [Version::V4, Version::V5] {
            for packet_id in [None, Some(1), Some(u16::MAX)] {
                for (retain, payload) in [(false, &b""[..]), (true, b"x"), (true, &large)] {
                    let ids = [1, 127, 128, 16_383, 16_384, 2_097_152, 268_435_455];
                    for ids in [&[][..], &ids] {
                        let ours = Deliver {
                            packet_id,
                            retain,
                            topic: "tributary/alerts/pump-7/naïve",
                            ids,
                            payload,
                        };
                        let mut out = BytesMut::new();
                        let theirs = theirs(version, &ours);
                        assert!(!deliver(version, &ours, theirs.len() - 1, &mut out));
                        assert_eq!(out.len(), 0, "too large, and nothing of it is written");
                        assert!(deliver(version, &ours, theirs.len(), &mut out));
                        assert_eq!(out, theirs, "{ours:?}");
                    }
                }
            }
        }
    }
}
