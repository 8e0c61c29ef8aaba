//! The packets of a client that is let in: PUBLISH above all, borrowed from the input.

use super::cursor::Cursor;
use super::properties::{self, Place, Properties};
use super::{Fault, Header, Version};
use crate::decode::UserProperties;
use crate::limits::FILTERS_MAX;

/// A packet from a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::source) enum Packet<'a> {
    Publish(Publish<'a>),
    /// A QoS 2 publication is released.
    PubRel {
        packet_id: u16,
    },
    /// A QoS 1 publication of ours is taken, or refused: it is over in either case.
    PubAck {
        packet_id: u16,
    },
    Subscribe {
        packet_id: u16,
        /// What deliveries are to be marked with.
        id: Option<u32>,
        filters: Vec<Asked<'a>>,
    },
    Unsubscribe {
        packet_id: u16,
        filters: Vec<&'a str>,
    },
    PingReq,
    Disconnect {
        /// Whether the client wants its will to be published all the same.
        with_will: bool,
        /// How long its session is to be kept, where it says so.
        session_expiry_s: Option<u32>,
    },
}

/// A subscription that is asked for, with its options (section 3.8.3.1 \[5\]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::source) struct Asked<'a> {
    pub filter: &'a str,
    pub qos: u8,
    /// Retain as published.
    pub as_published: bool,
    /// Retain handling: 0, 1 or 2.
    pub retain_handling: u8,
}

/// A publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::source) struct Publish<'a> {
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    /// 0 with QoS 0.
    pub packet_id: u16,
    /// Empty where an alias stands for it.
    pub topic: &'a str,
    pub alias: Option<u16>,
    pub properties: UserProperties<'a>,
    pub payload: &'a [u8],
}

/// Reads the body of a packet; CONNECT is read elsewhere, and here it is an error.
pub(in crate::source) fn read_packet(
    version: Version,
    header: Header,
    body: &[u8],
) -> Result<Packet<'_>, Fault> {
    match (header.kind(), header.flags()) {
        (3, flags) => read_publish(version, flags, body).map(Packet::Publish),
        (4, 0) => read_puback(version, body),
        (6, 0b0010) => read_pubrel(version, body),
        (8, 0b0010) => read_subscribe(version, body),
        (10, 0b0010) => read_unsubscribe(version, body),
        (12, 0) if body.is_empty() => Ok(Packet::PingReq),
        (14, 0) => read_disconnect(version, body),
        (5 | 7, 0) => Err(Fault::Protocol(
            "an acknowledgement of QoS 2, though nothing was sent with it",
        )),
        (15, 0) => Err(Fault::Protocol("AUTH without an authentication method")),
        (4..=8 | 10 | 12 | 14 | 15, _) => {
            Err(Fault::Malformed("flags or length of the fixed header"))
        }
        (1, _) => Err(Fault::Protocol("a second CONNECT")),
        (0, _) => Err(Fault::Malformed("packet type 0")),
        _ => Err(Fault::Protocol("a packet that only a server sends")),
    }
}

/// PUBLISH (section 3.3).
pub(in crate::source) fn read_publish(
    version: Version,
    flags: u8,
    body: &[u8],
) -> Result<Publish<'_>, Fault> {
    let (qos, dup, retain) = ((flags >> 1) & 3, flags & 8 != 0, flags & 1 != 0);
    if qos == 3 {
        return Err(Fault::Malformed("QoS 3"));
    }
    if dup && qos == 0 {
        return Err(Fault::Malformed("DUP with QoS 0"));
    }
    let mut cursor = Cursor::new(body);
    let topic = cursor.string()?;
    let packet_id = if qos > 0 { cursor.packet_id()? } else { 0 };
    let said = match version {
        Version::V4 => Properties::default(),
        Version::V5 => properties::read(&mut cursor, Place::Publish)?,
    };
    let alias = said.topic_alias;
    if topic.is_empty() && alias.is_none() {
        return Err(match version {
            Version::V4 => Fault::Malformed("an empty topic"),
            // Section 3.3.2.1 [5].
            Version::V5 => Fault::Protocol("an empty topic without an alias"),
        });
    }
    if topic.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
        return Err(Fault::Malformed("a topic with a wildcard"));
    }
    Ok(Publish {
        qos,
        dup,
        retain,
        packet_id,
        topic,
        alias,
        properties: said.user,
        payload: cursor.rest(),
    })
}

/// PUBACK (section 3.4): an MQTT 5 client may leave out all behind the packet identifier.
fn read_puback(version: Version, body: &[u8]) -> Result<Packet<'_>, Fault> {
    let mut cursor = Cursor::new(body);
    let packet_id = cursor.packet_id()?;
    read_reason(version, &mut cursor, Place::Acknowledgement)?;
    Ok(Packet::PubAck { packet_id })
}

/// PUBREL (section 3.6): an MQTT 5 client may leave out all behind the packet identifier.
fn read_pubrel(version: Version, body: &[u8]) -> Result<Packet<'_>, Fault> {
    let mut cursor = Cursor::new(body);
    let packet_id = cursor.packet_id()?;
    read_reason(version, &mut cursor, Place::Acknowledgement)?;
    Ok(Packet::PubRel { packet_id })
}

/// A reason code and properties, which MQTT 5 may leave out from behind; then the packet's end.
fn read_reason<'a>(
    version: Version,
    cursor: &mut Cursor<'a>,
    place: Place,
) -> Result<(u8, Properties<'a>), Fault> {
    let mut read = (0, Properties::default());
    if version == Version::V5 && !cursor.is_empty() {
        read.0 = cursor.u8()?;
        if !cursor.is_empty() {
            read.1 = properties::read(cursor, place)?;
        }
    }
    if cursor.is_empty() {
        Ok(read)
    } else {
        Err(Fault::Malformed("bytes behind the packet's last field"))
    }
}

/// SUBSCRIBE (section 3.8).
fn read_subscribe(version: Version, body: &[u8]) -> Result<Packet<'_>, Fault> {
    let mut cursor = Cursor::new(body);
    let packet_id = cursor.packet_id()?;
    let id = match version {
        Version::V4 => None,
        Version::V5 => properties::read(&mut cursor, Place::Subscribe)?.subscription_id,
    };
    let mut filters = Vec::new();
    while !cursor.is_empty() {
        let filter = filter(&mut cursor)?;
        let options = cursor.u8()?;
        let reserved = if version == Version::V4 { 0xfc } else { 0xc0 };
        if options & 3 == 3 || options & reserved != 0 || (options >> 4) & 3 == 3 {
            return Err(Fault::Malformed("subscription options"));
        }
        // Section 3.8.3.1 [5].
        if options & 4 != 0 && filter.starts_with("$share/") {
            return Err(Fault::Protocol("No Local on a shared subscription"));
        }
        filters.push(Asked {
            filter,
            qos: options & 3,
            as_published: options & 8 != 0,
            retain_handling: (options >> 4) & 3,
        });
        if filters.len() > FILTERS_MAX {
            return Err(Fault::Protocol("more filters than one packet may hold"));
        }
    }
    if filters.is_empty() {
        return Err(Fault::Protocol("SUBSCRIBE without a filter"));
    }
    Ok(Packet::Subscribe {
        packet_id,
        id,
        filters,
    })
}

/// UNSUBSCRIBE (section 3.10).
fn read_unsubscribe(version: Version, body: &[u8]) -> Result<Packet<'_>, Fault> {
    let mut cursor = Cursor::new(body);
    let packet_id = cursor.packet_id()?;
    if version == Version::V5 {
        properties::read(&mut cursor, Place::Unsubscribe)?;
    }
    let mut filters = Vec::new();
    while !cursor.is_empty() {
        filters.push(filter(&mut cursor)?);
        if filters.len() > FILTERS_MAX {
            return Err(Fault::Protocol("more filters than one packet may hold"));
        }
    }
    if filters.is_empty() {
        return Err(Fault::Protocol("UNSUBSCRIBE without a filter"));
    }
    Ok(Packet::Unsubscribe { packet_id, filters })
}

/// A topic filter (section 4.7): wildcards only as whole levels, `#` only at the end.
fn filter<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, Fault> {
    let filter = cursor.string()?;
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let fits = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            _ => !level.contains(['+', '#']),
        };
        if !fits {
            return Err(Fault::Malformed(
                "a filter with a wildcard within a level, or `#` before the end",
            ));
        }
    }
    if filter.is_empty() {
        Err(Fault::Malformed("an empty filter"))
    } else {
        Ok(filter)
    }
}

/// DISCONNECT (section 3.14): an MQTT 5 client may leave out all of its body.
fn read_disconnect(version: Version, body: &[u8]) -> Result<Packet<'_>, Fault> {
    let (code, properties) = read_reason(version, &mut Cursor::new(body), Place::Disconnect)?;
    Ok(Packet::Disconnect {
        // Any reason but a normal one leaves the will in force (section 3.1.2.5).
        with_will: code != 0,
        session_expiry_s: properties.session_expiry_s,
    })
}
