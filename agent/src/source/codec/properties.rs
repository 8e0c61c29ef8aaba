//! MQTT 5 properties (section 2.2.2 \[5\]): each known, allowed where it stands, and there once.
//!
//! Most have no meaning for an endpoint that delivers nothing of what its clients publish; they are
//! checked and passed.

use super::Fault;
use super::cursor::Cursor;
use crate::decode::UserProperties;

/// Where properties stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Connect = 1,
    Will = 2,
    Publish = 4,
    Subscribe = 8,
    Unsubscribe = 16,
    Disconnect = 32,
    Acknowledgement = 64,
}

#[derive(Clone, Copy)]
enum Type {
    Flag,
    Two,
    Four,
    Variable,
    Text,
    Binary,
    Pair,
}

/// Identifier, type, and where a client may send it (table 2-4).
const TABLE: [(u8, Type, u8); 18] = [
    (0x01, Type::Flag, Place::Publish as u8 | Place::Will as u8),
    (0x02, Type::Four, Place::Publish as u8 | Place::Will as u8),
    (0x03, Type::Text, Place::Publish as u8 | Place::Will as u8),
    (0x08, Type::Text, Place::Publish as u8 | Place::Will as u8),
    (0x09, Type::Binary, Place::Publish as u8 | Place::Will as u8),
    (0x0b, Type::Variable, Place::Subscribe as u8),
    (
        0x11,
        Type::Four,
        Place::Connect as u8 | Place::Disconnect as u8,
    ),
    (0x15, Type::Text, Place::Connect as u8),
    (0x16, Type::Binary, Place::Connect as u8),
    (0x17, Type::Flag, Place::Connect as u8),
    (0x18, Type::Four, Place::Will as u8),
    (0x19, Type::Flag, Place::Connect as u8),
    (
        0x1f,
        Type::Text,
        Place::Disconnect as u8 | Place::Acknowledgement as u8,
    ),
    (0x21, Type::Two, Place::Connect as u8),
    (0x22, Type::Two, Place::Connect as u8),
    (0x23, Type::Two, Place::Publish as u8),
    (0x26, Type::Pair, u8::MAX),
    (0x27, Type::Four, Place::Connect as u8),
];

/// What of the properties has a meaning here.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Properties<'a> {
    pub receive_maximum: Option<u16>,
    pub packet_bytes_max: Option<u32>,
    pub session_expiry_s: Option<u32>,
    pub no_problem_information: bool,
    pub authentication_method: bool,
    pub authentication_data: bool,
    pub topic_alias: Option<u16>,
    pub subscription_id: Option<u32>,
    pub will_delay_s: u32,
    /// Of a publication: what is said beside its payload.
    pub user: UserProperties<'a>,
}

/// The properties at this place of a packet.
pub(super) fn read<'a>(cursor: &mut Cursor<'a>, place: Place) -> Result<Properties<'a>, Fault> {
    let length = cursor.variable()?;
    let mut fields = Cursor::new(cursor.take(length)?);
    let mut found = Properties::default();
    let mut seen = 0u64;
    while !fields.is_empty() {
        let id = fields.variable()?;
        let entry = TABLE.iter().find(|(known, _, _)| usize::from(*known) == id);
        let Some((id, kind, places)) = entry else {
            return Err(Fault::Malformed("an unknown property"));
        };
        if places & place as u8 == 0 {
            return Err(Fault::Protocol("a property that may not stand here"));
        }
        let repeats = matches!(kind, Type::Pair);
        if seen & (1 << id) != 0 && !repeats {
            return Err(Fault::Protocol("a property that stands twice"));
        }
        seen |= 1 << id;
        field(&mut fields, *id, *kind, &mut found)?;
    }
    Ok(found)
}

fn field<'a>(
    fields: &mut Cursor<'a>,
    id: u8,
    kind: Type,
    found: &mut Properties<'a>,
) -> Result<(), Fault> {
    let value = match kind {
        Type::Flag => u32::from(fields.u8()?),
        Type::Two => u32::from(fields.u16()?),
        Type::Four => fields.u32()?,
        Type::Variable => fields.variable()? as u32,
        Type::Text => {
            let text = fields.string()?;
            if id == 0x08 && (text.is_empty() || text.contains(['+', '#'])) {
                return Err(Fault::Protocol("a response topic with a wildcard"));
            }
            0
        }
        Type::Binary => fields.binary().map(|_| 0)?,
        Type::Pair => {
            let name = fields.string()?;
            found.user.take(name, fields.string()?);
            0
        }
    };
    if matches!(kind, Type::Flag) && value > 1 {
        return Err(Fault::Protocol("a property that is neither 0 nor 1"));
    }
    match id {
        0x0b | 0x21 | 0x27 if value == 0 => {
            return Err(Fault::Protocol("a property of 0 that must not be 0"));
        }
        0x0b => found.subscription_id = Some(value),
        0x11 => found.session_expiry_s = Some(value),
        0x15 => found.authentication_method = true,
        0x16 => found.authentication_data = true,
        0x17 => found.no_problem_information = value == 0,
        0x21 => found.receive_maximum = u16::try_from(value).ok(),
        0x18 => found.will_delay_s = value,
        0x23 => found.topic_alias = u16::try_from(value).ok(),
        0x27 => found.packet_bytes_max = Some(value),
        _ => {}
    }
    Ok(())
}
