//! CONNECT (section 3.1): who comes, and with which version.

use super::cursor::Cursor;
use super::properties::{self, Place, Properties};
use super::{Fault, Version};
use crate::limits::CLIENT_ID_BYTES_MAX;

/// A client's introduction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::source) struct Connect<'a> {
    pub version: Version,
    pub client_id: &'a str,
    pub clean: bool,
    pub keep_alive_s: u16,
    pub will: Option<Will<'a>>,
    pub username: Option<&'a str>,
    /// Binary, as the standard has it.
    pub password: Option<&'a [u8]>,
    /// The greatest packet that the client takes.
    pub packet_bytes_max: Option<u32>,
    /// How many QoS 1 publications the client takes before it has acknowledged the first.
    pub receive_maximum: Option<u16>,
    /// How long the client would have its session kept.
    pub session_expiry_s: u32,
    /// Whether the client wants no reason strings.
    pub no_problem_information: bool,
}

/// What a client would have published when it is lost (section 3.1.2.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::source) struct Will<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub retain: bool,
    /// Seconds between the loss and the publication.
    pub delay_s: u32,
}

/// Why a client is not let in. The codes are those of CONNACK (3.2.2.2 \[5\], 3.2.2.3 \[3.1.1\]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::source) enum Refusal {
    /// A protocol level that is not spoken; `newer` than 5 or not.
    Level { newer: bool },
    /// An identifier that cannot be one.
    ClientId(Version),
    /// Enhanced authentication, which is not offered.
    Authentication,
    /// No CONNECT that could be answered.
    Fault(Option<Version>, Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(None, fault)
    }
}

/// Reads the body of a CONNECT.
pub(in crate::source) fn read_connect(flags: u8, body: &[u8]) -> Result<Connect<'_>, Refusal> {
    let mut cursor = Cursor::new(body);
    let name = cursor.binary()?;
    let level = cursor.u8()?;
    let version = match (name, level) {
        (b"MQTT", 4) => Version::V4,
        (b"MQTT", 5) => Version::V5,
        (b"MQTT" | b"MQIsdp", _) => return Err(Refusal::Level { newer: level > 5 }),
        _ => return Err(Fault::Protocol("CONNECT with another protocol's name").into()),
    };
    if flags != 0 {
        return Err(Refusal::Fault(
            Some(version),
            Fault::Malformed("flags of CONNECT"),
        ));
    }
    let fields = read_fields(version, cursor);
    let (connect, properties) = fields.map_err(|f| Refusal::Fault(Some(version), f))?;
    if properties.authentication_method {
        Err(Refusal::Authentication)
    } else if is_client_id(&connect) {
        Ok(connect)
    } else {
        Err(Refusal::ClientId(version))
    }
}

fn is_client_id(connect: &Connect<'_>) -> bool {
    if connect.client_id.is_empty() {
        // Section 3.1.3.1 [3.1.1]: a session that is to be kept needs a name of the client's own.
        return connect.version == Version::V5 || connect.clean;
    }
    connect.client_id.len() <= CLIENT_ID_BYTES_MAX
}

fn read_fields(
    version: Version,
    mut cursor: Cursor<'_>,
) -> Result<(Connect<'_>, Properties<'_>), Fault> {
    let flags = cursor.u8()?;
    let [will, will_retain] = [flags & 0x04 != 0, flags & 0x20 != 0];
    let [username, password] = [flags & 0x80 != 0, flags & 0x40 != 0];
    let will_qos = (flags >> 3) & 3;
    if flags & 1 != 0 || will_qos == 3 || (!will && (will_qos != 0 || will_retain)) {
        return Err(Fault::Malformed("connect flags"));
    }
    if version == Version::V4 && password && !username {
        return Err(Fault::Malformed("a password without a user name"));
    }
    let keep_alive_s = cursor.u16()?;
    let properties = match version {
        Version::V4 => Properties::default(),
        Version::V5 => properties::read(&mut cursor, Place::Connect)?,
    };
    let client_id = cursor.string()?;
    let will = match will {
        true => Some(read_will(version, &mut cursor, will_retain)?),
        false => None,
    };
    let username = if username {
        Some(cursor.string()?)
    } else {
        None
    };
    let password = if password {
        Some(cursor.binary()?)
    } else {
        None
    };
    if !cursor.is_empty() {
        return Err(Fault::Malformed("bytes behind CONNECT's last field"));
    }
    if properties.authentication_data && !properties.authentication_method {
        // Section 3.1.2.11.10 [5].
        return Err(Fault::Protocol("authentication data without a method"));
    }
    let connect = Connect {
        version,
        client_id,
        clean: flags & 2 != 0,
        keep_alive_s,
        will,
        username,
        password,
        packet_bytes_max: properties.packet_bytes_max,
        receive_maximum: properties.receive_maximum,
        session_expiry_s: properties.session_expiry_s.unwrap_or(0),
        no_problem_information: properties.no_problem_information,
    };
    Ok((connect, properties))
}

fn read_will<'a>(
    version: Version,
    cursor: &mut Cursor<'a>,
    retain: bool,
) -> Result<Will<'a>, Fault> {
    let delay_s = match version {
        Version::V4 => 0,
        Version::V5 => properties::read(cursor, Place::Will)?.will_delay_s,
    };
    let topic = cursor.string()?;
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(Fault::Malformed("the topic of the will"));
    }
    Ok(Will {
        topic,
        payload: cursor.binary()?,
        retain,
        delay_s,
    })
}
