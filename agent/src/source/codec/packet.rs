//! The packets of a client that is let in: PUBLISH above all, borrowed from the input.

use super::cursor::Cursor;
use super::properties::{self, Place};
use super::{Fault, Header, Version};
use crate::limits::FILTERS_MAX;

/// A packet from a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::source) enum Packet<'a> {
    Publish(Publish<'a>),
    Subscribe {
        packet_id: u16,
        filters: Vec<&'a str>,
    },
    Unsubscribe {
        packet_id: u16,
        filters: usize,
    },
    PingReq,
    Disconnect,
}

/// A publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::source) struct Publish<'a> {
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    /// 0 with QoS 0.
    pub packet_id: u16,
    pub topic: &'a str,
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
        (8, 0b0010) => read_subscribe(version, body),
        (10, 0b0010) => read_unsubscribe(version, body),
        (12, 0) if body.is_empty() => Ok(Packet::PingReq),
        (14, 0) => read_disconnect(version, body),
        (8 | 10 | 12 | 14, _) => Err(Fault::Malformed("flags or length of the fixed header")),
        (1, _) => Err(Fault::Protocol("a second CONNECT")),
        (4..=7, _) => Err(Fault::Protocol(
            "an acknowledgement, though nothing was sent",
        )),
        (15, _) => Err(Fault::Protocol("AUTH without an authentication method")),
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
    if version == Version::V5 {
        let properties = properties::read(&mut cursor, Place::Publish)?;
        if properties.topic_alias {
            return Err(Fault::TopicAlias);
        }
    }
    if topic.is_empty() {
        return Err(Fault::TopicName("it is empty"));
    }
    if topic.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
        return Err(Fault::TopicName("it holds a wildcard"));
    }
    Ok(Publish {
        qos,
        dup,
        retain,
        packet_id,
        topic,
        payload: cursor.rest(),
    })
}

/// SUBSCRIBE (section 3.8).
fn read_subscribe(version: Version, body: &[u8]) -> Result<Packet<'_>, Fault> {
    let mut cursor = Cursor::new(body);
    let packet_id = cursor.packet_id()?;
    if version == Version::V5 {
        properties::read(&mut cursor, Place::Subscribe)?;
    }
    let mut filters = Vec::new();
    while !cursor.is_empty() {
        filters.push(filter(&mut cursor)?);
        let options = cursor.u8()?;
        let reserved = if version == Version::V4 { 0xfc } else { 0xc0 };
        if options & 3 == 3 || options & reserved != 0 || (options >> 4) & 3 == 3 {
            return Err(Fault::Malformed("subscription options"));
        }
        if filters.len() > FILTERS_MAX {
            return Err(Fault::Protocol("more filters than one packet may hold"));
        }
    }
    if filters.is_empty() {
        return Err(Fault::Protocol("SUBSCRIBE without a filter"));
    }
    Ok(Packet::Subscribe { packet_id, filters })
}

/// UNSUBSCRIBE (section 3.10).
fn read_unsubscribe(version: Version, body: &[u8]) -> Result<Packet<'_>, Fault> {
    let mut cursor = Cursor::new(body);
    let packet_id = cursor.packet_id()?;
    if version == Version::V5 {
        properties::read(&mut cursor, Place::Unsubscribe)?;
    }
    let mut filters = 0;
    while !cursor.is_empty() {
        filter(&mut cursor)?;
        filters += 1;
        if filters > FILTERS_MAX {
            return Err(Fault::Protocol("more filters than one packet may hold"));
        }
    }
    if filters == 0 {
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
            return Err(Fault::TopicFilter(
                "a wildcard within a level, or `#` before the end",
            ));
        }
    }
    if filter.is_empty() {
        Err(Fault::TopicFilter("it is empty"))
    } else {
        Ok(filter)
    }
}

/// DISCONNECT (section 3.14): an MQTT 5 client may leave out all of its body.
fn read_disconnect(version: Version, body: &[u8]) -> Result<Packet<'_>, Fault> {
    let mut cursor = Cursor::new(body);
    if version == Version::V5 && !cursor.is_empty() {
        cursor.u8()?;
        if !cursor.is_empty() {
            properties::read(&mut cursor, Place::Disconnect)?;
        }
    }
    if cursor.is_empty() {
        Ok(Packet::Disconnect)
    } else {
        Err(Fault::Malformed("bytes behind DISCONNECT's last field"))
    }
}
