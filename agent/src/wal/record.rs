//! What one entry of the write-ahead log holds: its kinds, its bytes, and a reader that takes
//! anything and panics at nothing.
//!
//! The kind is the entry's kind in the log. Kind `message` (1), version 1, little endian:
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version: 1 |
//! | 1 | 1 | bits 0-1 QoS, 2 DUP, 3 retain, 4 MQTT 5, 5 will, 6 broker, 7 properties |
//! | 2 | 2 | packet id; 0 with QoS 0 |
//! | 4 | 8 | received time, µs since 1970, UTC |
//! | 12 | 8 | session: [`session_of`](Message::session_of) the client |
//! | 20 | 2 | length of the topic |
//! | 22 | | topic, then payload until the end |
//!
//! With bit 7 user properties stand before the payload: their length (2 bytes), then their bytes
//! as [`UserProperties::write`] gives them.
//!
//! Kind `too_large` (2) has 4 more bytes behind the length of the topic: the bytes that the
//! payload had; what stands behind the topic is its head.
//!
//! Kind `pubrel` (3): session (8), packet id (2). Kind `session` (9): session (8), seconds that it
//! is kept once its client is gone (4; 0: it is over), time (8, µs since 1970, UTC).
//!
//! Kind `refused` (7): version 2 (1 byte), then the message as a record of kind `message`; version
//! 1 said only how many.
//!
//! Kinds are never used again for something else. A later version of a kind may only add behind
//! what is there, or raise the version byte; a greater version is an error that says so.

use crate::decode::{UserProperties, message_hash};
use crate::limits::{RECORD_HEAD_BYTES_MAX, TOPIC_BYTES_MAX};

/// Declares [`RecordKind`], its codes and its names once.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// What kind of entry it is.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum RecordKind { $($(#[$doc])* $name = $code,)* }

        /// Every kind with its code and name, as documents and tools show it.
        pub const KINDS: &[(RecordKind, u8, &str)] =
            &[$((RecordKind::$name, $code, $text),)*];
    };
}

kinds! {
    /// A message as it came.
    Message = 1, "message";
    /// A publication beyond the packet limit: its head, for the dead letters.
    TooLarge = 2, "too_large";
    /// A QoS 2 message was released by its sender.
    PubRel = 3, "pubrel";
    /// Another configuration holds from here on.
    Configuration = 4, "configuration";
    /// What the clock said, where it jumped.
    Clock = 5, "clock";
    /// Time passed without a message.
    Tick = 6, "tick";
    /// A message that is refused though acknowledged, unless it is a second copy.
    Refused = 7, "refused";
    /// Readings of a device around an alert leave as they are.
    Capture = 8, "capture";
    /// A session begins, is kept for longer or shorter, or is over.
    Session = 9, "session";
    /// A dead letter is put back: its message, to be read once more.
    PutBack = 10, "put_back";
    /// Readings are judged by other settings from here on.
    Detection = 11, "detection";
    /// Somebody has seen an alert.
    Acknowledged = 12, "acknowledged";
    /// By which rules readings are forwarded from here on.
    Forward = 13, "forward";
}

impl RecordKind {
    /// The kind's code in the log.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        KINDS
            .iter()
            .find(|(_, known, _)| *known == code)
            .map(|(kind, _, _)| *kind)
    }
}

const VERSION: u8 = 1;
const REFUSED_VERSION: u8 = 2;
/// Bytes before a message's topic.
const MESSAGE_HEAD_BYTES: usize = 22;
const TOO_LARGE_HEAD_BYTES: usize = MESSAGE_HEAD_BYTES + 4;
const _: () =
    assert!(TOO_LARGE_HEAD_BYTES + 2 + UserProperties::BYTES_MAX <= RECORD_HEAD_BYTES_MAX);
const _: () = assert!(UserProperties::BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(TOPIC_BYTES_MAX <= u16::MAX as usize);

/// How often a message was to be delivered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl Qos {
    /// The QoS with this number.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::AtMostOnce, Self::AtLeastOnce, Self::ExactlyOnce]
            .get(usize::from(code))
            .copied()
    }
}

/// A message as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// Whose: [`Message::session_of`] the client's identifier.
    pub session: u64,
    /// How it was published.
    pub qos: Qos,
    /// Whether the sender said it may be a second delivery.
    pub dup: bool,
    /// Whether the sender asked for it to be retained.
    pub retain: bool,
    /// Whether it came over MQTT 5.
    pub v5: bool,
    /// Whether it is the last will of a client that was lost, and no publication.
    pub will: bool,
    /// Whether a broker delivered it, and no device itself.
    pub broker: bool,
    /// Its packet id; 0 with QoS 0.
    pub packet_id: u16,
    /// When it was received: µs since 1970, UTC.
    pub received_time: i64,
    /// What it was published to.
    pub topic: &'a str,
    /// What MQTT 5 user properties say of it.
    pub properties: UserProperties<'a>,
    /// What was published.
    pub payload: &'a [u8],
}

impl Message<'_> {
    /// The session of the client with this identifier.
    pub fn session_of(client_id: &str) -> u64 {
        message_hash(client_id, b"")
    }

    /// Appends the record's bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_head(self, out);
        write_texts(self, out);
    }

    /// Appends the bytes of a record that refuses it.
    pub fn write_refused(&self, out: &mut Vec<u8>) {
        out.push(REFUSED_VERSION);
        self.write(out);
    }

    /// Bytes of the record.
    pub fn record_bytes(&self) -> usize {
        let properties = match self.properties.is_empty() {
            true => 0,
            false => 2 + self.properties.len_bytes(),
        };
        MESSAGE_HEAD_BYTES + self.topic.len() + properties + self.payload.len()
    }

    /// Hash over all that was published: what tells a second copy from another message.
    pub fn content_hash(&self) -> u64 {
        let hash = message_hash(self.topic, self.payload);
        if self.properties.is_empty() {
            return hash;
        }
        let mut said = hash.to_le_bytes().to_vec();
        self.properties.write(&mut said);
        message_hash("", &said)
    }
}

/// The head of a publication that was beyond the packet limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLarge<'a> {
    /// The message, with only the head of its payload.
    pub message: Message<'a>,
    /// Bytes that the payload had.
    pub payload_bytes: u32,
}

impl TooLarge<'_> {
    /// Appends the record's bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        write_head(&self.message, out);
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        write_texts(&self.message, out);
    }
}

fn write_head(message: &Message<'_>, out: &mut Vec<u8>) {
    debug_assert!(
        message.topic.len() <= TOPIC_BYTES_MAX,
        "MQTT's length field holds no more"
    );
    let flags = message.qos as u8
        | u8::from(message.dup) << 2
        | u8::from(message.retain) << 3
        | u8::from(message.v5) << 4
        | u8::from(message.will) << 5
        | u8::from(message.broker) << 6
        | u8::from(!message.properties.is_empty()) << 7;
    out.extend_from_slice(&[VERSION, flags]);
    out.extend_from_slice(&message.packet_id.to_le_bytes());
    out.extend_from_slice(&message.received_time.to_le_bytes());
    out.extend_from_slice(&message.session.to_le_bytes());
    out.extend_from_slice(&(message.topic.len() as u16).to_le_bytes());
}

fn write_texts(message: &Message<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(message.topic.as_bytes());
    if !message.properties.is_empty() {
        let length = message.properties.len_bytes() as u16;
        out.extend_from_slice(&length.to_le_bytes());
        message.properties.write(out);
    }
    out.extend_from_slice(message.payload);
}

/// A QoS 2 message was released: its packet id may stand for another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PubRel {
    /// Whose: [`Message::session_of`] the client's identifier.
    pub session: u64,
    /// Which.
    pub packet_id: u16,
}

impl PubRel {
    /// Appends the record's bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.session.to_le_bytes());
        out.extend_from_slice(&self.packet_id.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (session, rest) = bytes.split_first_chunk()?;
        let (packet_id, _) = rest.split_first_chunk()?;
        Some(Self {
            session: u64::from_le_bytes(*session),
            packet_id: u16::from_le_bytes(*packet_id),
        })
    }
}

/// How long a session outlives its client's connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Session {
    /// Whose: [`Message::session_of`] the client's identifier.
    pub session: u64,
    /// Seconds that it is kept once the client is gone; 0: it is over.
    pub expiry_s: u32,
    /// When that was said: µs since 1970, UTC.
    pub time: i64,
}

impl Session {
    /// Appends the record's bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.session.to_le_bytes());
        out.extend_from_slice(&self.expiry_s.to_le_bytes());
        out.extend_from_slice(&self.time.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (session, rest) = bytes.split_first_chunk()?;
        let (expiry_s, rest) = rest.split_first_chunk()?;
        let (time, _) = rest.split_first_chunk()?;
        Some(Self {
            session: u64::from_le_bytes(*session),
            expiry_s: u32::from_le_bytes(*expiry_s),
            time: i64::from_le_bytes(*time),
        })
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// A kind that this version does not know.
    #[error("a record of kind {0}, which this version does not know: another one wrote it")]
    Kind(u8),
    /// A version that this one does not know.
    #[error("a record of version {0}; this version reads others: another one wrote it")]
    Version(u8),
    /// Bytes that end within a field.
    #[error("a record of {0} bytes, which ends within a field")]
    Short(usize),
    /// A field that holds what it cannot.
    #[error("a record whose {0} cannot be")]
    Field(&'static str),
}

/// An entry of the log, read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// A message.
    Message(Message<'a>),
    /// A publication beyond the packet limit.
    TooLarge(TooLarge<'a>),
    /// A message that is refused although it is acknowledged: its readings are declared lost,
    /// unless it is a second copy.
    Refused(Message<'a>),
    /// The release of a QoS 2 message.
    PubRel(PubRel),
    /// What is to be known of a session.
    Session(Session),
    /// A control record, whose bytes belong to the stage that wrote it.
    Control(RecordKind, &'a [u8]),
}

impl<'a> Record<'a> {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`RecordError`] when the bytes are no record of that kind.
    pub fn parse(kind: u8, bytes: &'a [u8]) -> Result<Self, RecordError> {
        match RecordKind::from_code(kind).ok_or(RecordError::Kind(kind))? {
            RecordKind::Message => {
                let (head, rest) = read_head(bytes)?;
                head.message(rest, bytes.len()).map(Record::Message)
            }
            RecordKind::TooLarge => {
                let (head, rest) = read_head(bytes)?;
                let short = RecordError::Short(bytes.len());
                let (payload_bytes, rest) = rest.split_first_chunk().ok_or(short)?;
                let message = head.message(rest, bytes.len())?;
                let payload_bytes = u32::from_le_bytes(*payload_bytes);
                Ok(Record::TooLarge(TooLarge {
                    message,
                    payload_bytes,
                }))
            }
            RecordKind::Refused => match bytes.split_first() {
                Some((&REFUSED_VERSION, rest)) => {
                    let (head, rest) = read_head(rest)?;
                    head.message(rest, bytes.len()).map(Record::Refused)
                }
                Some((version, _)) => Err(RecordError::Version(*version)),
                None => Err(RecordError::Short(0)),
            },
            RecordKind::PubRel => {
                let release = PubRel::read(bytes).map(Record::PubRel);
                release.ok_or(RecordError::Short(bytes.len()))
            }
            RecordKind::Session => {
                let session = Session::read(bytes).map(Record::Session);
                session.ok_or(RecordError::Short(bytes.len()))
            }
            control => Ok(Record::Control(control, bytes)),
        }
    }
}

/// The fixed fields.
struct Head {
    flags: u8,
    qos: Qos,
    packet_id: u16,
    received_time: i64,
    session: u64,
    topic_bytes: u16,
}

fn read_head(bytes: &[u8]) -> Result<(Head, &[u8]), RecordError> {
    let (head, rest) = bytes
        .split_first_chunk::<MESSAGE_HEAD_BYTES>()
        .ok_or(RecordError::Short(bytes.len()))?;
    let [version, flags, p0, p1, times @ .., t0, t1] = *head;
    if version != VERSION {
        return Err(RecordError::Version(version));
    }
    let qos = Qos::from_code(flags & 3).ok_or(RecordError::Field("QoS"))?;
    // A [u8; 16]: received time, then session.
    let both = u128::from_le_bytes(times);
    let head = Head {
        flags,
        qos,
        packet_id: u16::from_le_bytes([p0, p1]),
        received_time: both as u64 as i64,
        session: (both >> 64) as u64,
        topic_bytes: u16::from_le_bytes([t0, t1]),
    };
    Ok((head, rest))
}

impl Head {
    fn message(self, rest: &[u8], record_bytes: usize) -> Result<Message<'_>, RecordError> {
        let short = RecordError::Short(record_bytes);
        let (topic, rest) = rest
            .split_at_checked(usize::from(self.topic_bytes))
            .ok_or(short)?;
        let topic = std::str::from_utf8(topic).map_err(|_| RecordError::Field("topic"))?;
        let (properties, payload) = match self.flags & 128 {
            0 => (UserProperties::default(), rest),
            _ => {
                let (length, rest) = rest.split_first_chunk().ok_or(short)?;
                let length = usize::from(u16::from_le_bytes(*length));
                let (bytes, payload) = rest.split_at_checked(length).ok_or(short)?;
                let read = UserProperties::read(bytes).filter(|said| !said.is_empty());
                (read.ok_or(RecordError::Field("properties"))?, payload)
            }
        };
        Ok(Message {
            session: self.session,
            qos: self.qos,
            dup: self.flags & 4 != 0,
            retain: self.flags & 8 != 0,
            v5: self.flags & 16 != 0,
            will: self.flags & 32 != 0,
            broker: self.flags & 64 != 0,
            properties,
            packet_id: self.packet_id,
            received_time: self.received_time,
            topic,
            payload,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MESSAGE: Message<'static> = Message {
        session: 0x1122_3344_5566_7788,
        qos: Qos::AtLeastOnce,
        dup: true,
        retain: false,
        v5: true,
        will: false,
        broker: false,
        packet_id: 0x0102,
        received_time: 0x0102_0304_0506_0708,
        topic: "a/b",
        properties: UserProperties::NONE,
        payload: b"21.5",
    };

    #[test]
    fn the_bytes_on_disk_are_these() {
        let mut bytes = Vec::new();
        MESSAGE.write(&mut bytes);
        assert_eq!(bytes.len(), MESSAGE.record_bytes());
        assert_eq!(
            bytes,
            [
                &[1, 0b1_0101, 2, 1, 8, 7, 6, 5, 4, 3, 2, 1][..],
                &[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 3, 0],
                b"a/b21.5",
            ]
            .concat()
        );
        assert_eq!(Record::parse(1, &bytes), Ok(Record::Message(MESSAGE)));
    }

    #[test]
    fn what_is_said_beside_a_payload_stands_before_it() {
        let mut properties = UserProperties::NONE;
        properties.take("ts", "7");
        let said = Message {
            properties,
            ..MESSAGE
        };
        let mut bytes = Vec::new();
        said.write(&mut bytes);
        assert_eq!(bytes.len(), said.record_bytes());
        assert_eq!(bytes[1], 0b1001_0101);
        assert_eq!(bytes[22..], *b"a/b\x04\0\0\0\x01721.5");
        assert_eq!(Record::parse(1, &bytes), Ok(Record::Message(said)));
        for length in 25..31 {
            let short = RecordError::Short(length);
            assert_eq!(Record::parse(1, &bytes[..length]), Err(short));
        }
        // Nothing said is written as nothing, so that a message has one text.
        bytes[25] = 0;
        let wrong = RecordError::Field("properties");
        assert_eq!(Record::parse(1, &bytes), Err(wrong));
    }

    #[test]
    fn the_same_value_of_another_time_is_other_content() {
        let at = |ts| {
            let mut properties = UserProperties::NONE;
            properties.take("ts", ts);
            let said = Message {
                properties,
                ..MESSAGE
            };
            said.content_hash()
        };
        assert_eq!(at("7"), at("7"));
        assert_ne!(at("7"), at("8"));
        assert_ne!(at("7"), MESSAGE.content_hash());
        // This one stands in checkpoints on disk.
        assert_eq!(MESSAGE.content_hash(), message_hash("a/b", b"21.5"));
    }

    #[test]
    fn a_refused_one_comes_back() {
        let mut bytes = Vec::new();
        MESSAGE.write_refused(&mut bytes);
        assert_eq!(Record::parse(7, &bytes), Ok(Record::Refused(MESSAGE)));
        for length in 0..26 {
            assert!(Record::parse(7, &bytes[..length]).is_err(), "{length}");
        }
        bytes[0] = 1;
        assert_eq!(Record::parse(7, &bytes), Err(RecordError::Version(1)));
    }

    #[test]
    fn releases_and_sessions_come_back() {
        let release = PubRel {
            session: 0x1122_3344_5566_7788,
            packet_id: 0x0102,
        };
        let mut bytes = Vec::new();
        release.write(&mut bytes);
        assert_eq!(bytes, *b"\x88\x77\x66\x55\x44\x33\x22\x11\x02\x01");
        assert_eq!(Record::parse(3, &bytes), Ok(Record::PubRel(release)));
        assert_eq!(Record::parse(3, &bytes[..9]), Err(RecordError::Short(9)));

        let session = Session {
            session: 7,
            expiry_s: 3_600,
            time: -1,
        };
        let mut bytes = Vec::new();
        session.write(&mut bytes);
        assert_eq!(bytes.len(), 20);
        assert_eq!(Record::parse(9, &bytes), Ok(Record::Session(session)));
        assert_eq!(Record::parse(9, &bytes[..19]), Err(RecordError::Short(19)));
    }

    #[test]
    fn a_head_of_a_large_one_comes_back() {
        let large = TooLarge {
            message: MESSAGE,
            payload_bytes: 300_000,
        };
        let mut bytes = Vec::new();
        large.write(&mut bytes);
        assert_eq!(Record::parse(2, &bytes), Ok(Record::TooLarge(large)));
    }

    #[test]
    fn what_is_no_record_says_why() {
        let mut good = Vec::new();
        MESSAGE.write(&mut good);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Record::parse(1, &bytes).unwrap_err()
        };
        assert_eq!(Record::parse(0, &good), Err(RecordError::Kind(0)));
        assert_eq!(Record::parse(99, &good), Err(RecordError::Kind(99)));
        assert_eq!(with(0, 2), RecordError::Version(2));
        assert_eq!(with(1, 3), RecordError::Field("QoS"));
        assert_eq!(with(1, 0x80), RecordError::Short(29));
        assert_eq!(with(20, 8), RecordError::Short(29));
        assert_eq!(with(22, 0xff), RecordError::Field("topic"));
        for length in 0..25 {
            assert!(Record::parse(1, &good[..length]).is_err(), "{length}");
        }
        assert_eq!(
            Record::parse(6, b"x"),
            Ok(Record::Control(RecordKind::Tick, b"x"))
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            kind in 0u8..12,
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Ok(Record::Message(message)) = Record::parse(kind, &bytes) {
                let mut again = Vec::new();
                message.write(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
