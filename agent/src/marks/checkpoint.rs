//! Marks as bytes, for the checkpoint. Versioned, little endian, total on arbitrary bytes.

use super::broker::BrokerMarks;
use super::ring::{Keyed, Ring};
use super::sessions::Sessions;
use super::{Client, Mark, Marks};
use crate::limits::{
    DEVICE_MARKS, HELD_SESSIONS_MAX, MARKED_DEVICES_MAX, MARKED_SESSIONS_MAX, SESSION_MARKS,
    UNRELEASED_MAX,
};
use bytes::{Buf, BufMut, TryGetError};
use std::sync::Arc;
use tributary_protocol::limits::NAME_BYTES_MAX;

const VERSION: u16 = 4;
/// Devices with number and content of each message, instead of a digest of both.
const VERSION_3: u16 = 3;
/// Sessions in slots that a hand went round, like devices.
const VERSION_2: u16 = 2;
/// The same, without what QoS 2, sessions and brokers need.
const VERSION_1: u16 = 1;

/// Bytes of one mark.
const MARK_BYTES: usize = 8 + 8;
/// Bytes of one mark of a device.
const DIGEST_BYTES: usize = 8;

/// Why bytes are no marks.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MarksError {
    /// The bytes end too early.
    #[error("marks cut short")]
    Truncated,
    /// Written by a version that this build does not know.
    #[error("marks of version {0}; this build reads version {VERSION}")]
    Version(u16),
    /// A field holds what it may not.
    #[error("marks: bad {0}")]
    Field(&'static str),
}

impl From<TryGetError> for MarksError {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

impl Marks {
    /// Appends the marks to `out`.
    pub fn write_checkpoint(&self, out: &mut Vec<u8>) {
        out.put_u16_le(VERSION);
        out.put_u32_le(self.devices.len() as u32);
        out.put_u32_le(self.devices.hand() as u32);
        for (device, used, ring) in self.devices.iter() {
            out.put_u16_le(device.len() as u16);
            out.put_slice(device.as_bytes());
            out.put_u8(u8::from(used));
            out.put_u16_le(ring.len() as u16);
            ring.iter().for_each(|digest| out.put_u64_le(*digest));
        }
        // Their order says who goes next.
        out.put_u32_le(self.sessions.loose_len() as u32);
        out.put_u32_le(self.sessions.held_len() as u32);
        for (session, client) in self.sessions.loose().chain(self.sessions.held()) {
            out.put_u64_le(session);
            write_ring(out, &client.newest);
            out.put_u32_le(client.expiry_s);
            out.put_u16_le(client.unreleased.len() as u16);
            client
                .unreleased
                .iter()
                .for_each(|mark| write_mark(out, mark));
        }
        self.brokers.write(out);
    }

    /// How many bytes longer the marks get as those who are known go on publishing.
    pub fn growth_bytes(&self) -> usize {
        let devices = self.devices.iter();
        let devices: usize = devices.map(|(_, _, ring)| DEVICE_MARKS - ring.len()).sum();
        let sessions = self.sessions.newest_first();
        let sessions: usize = sessions
            .map(|(_, client)| SESSION_MARKS - client.newest.len())
            .sum();
        DIGEST_BYTES * devices + MARK_BYTES * sessions
    }

    /// The marks at the front of `input`, which is moved behind them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read_checkpoint(input: &mut &[u8]) -> Result<Self, MarksError> {
        let version = input.try_get_u16_le()?;
        if !(VERSION_1..=VERSION).contains(&version) {
            return Err(MarksError::Version(version));
        }
        let mut devices = Keyed::new(MARKED_DEVICES_MAX);
        let (count, hand) = (input.try_get_u32_le()?, input.try_get_u32_le()?);
        for _ in 0..count {
            let bytes = usize::from(input.try_get_u16_le()?);
            if bytes > NAME_BYTES_MAX {
                return Err(MarksError::Field("device"));
            }
            let (name, rest) = input.split_at_checked(bytes).ok_or(MarksError::Truncated)?;
            let name = std::str::from_utf8(name).map_err(|_| MarksError::Field("device"))?;
            let name: Arc<str> = name.into();
            *input = rest;
            let used = input.try_get_u8()? != 0;
            let ring = match version {
                VERSION => read_marks(input, |input| Ok(input.try_get_u64_le()?))?,
                _ => read_marks(input, |input| Ok(read_mark(input)?.digest()))?,
            };
            devices
                .restore(name, used, ring)
                .ok_or(MarksError::Field("device"))?;
        }
        devices.set_hand(hand as usize);
        let sessions = match version {
            VERSION_3 | VERSION => read_sessions(input)?,
            _ => read_slots(input, version)?,
        };
        let brokers = match version {
            VERSION_1 => BrokerMarks::new(),
            _ => BrokerMarks::read(input)?,
        };
        Ok(Self {
            devices,
            sessions,
            brokers,
        })
    }
}

fn write_ring<const N: usize>(out: &mut Vec<u8>, ring: &Ring<N>) {
    out.put_u16_le(ring.len() as u16);
    ring.iter().for_each(|mark| write_mark(out, mark));
}

fn write_mark(out: &mut Vec<u8>, mark: &Mark) {
    out.put_i64_le(mark.number);
    out.put_u64_le(mark.content);
}

fn read_mark(input: &mut &[u8]) -> Result<Mark, MarksError> {
    Ok(Mark {
        number: input.try_get_i64_le()?,
        content: input.try_get_u64_le()?,
    })
}

/// Sessions as they are written now: oldest first, those that outlive their connection behind the
/// others.
fn read_sessions(input: &mut &[u8]) -> Result<Sessions, MarksError> {
    let mut sessions = Sessions::new(MARKED_SESSIONS_MAX, HELD_SESSIONS_MAX);
    let (loose, held) = (input.try_get_u32_le()?, input.try_get_u32_le()?);
    for (count, is_held) in [(loose, false), (held, true)] {
        for _ in 0..count {
            let session = input.try_get_u64_le()?;
            let mut client = Client {
                newest: read_ring(input)?,
                ..Client::default()
            };
            read_held(input, &mut client)?;
            let restored = sessions.restore(session, client, is_held);
            restored.ok_or(MarksError::Field("session"))?;
        }
    }
    Ok(sessions)
}

/// Sessions in slots, of the versions before: who would have gone next is the oldest.
fn read_slots(input: &mut &[u8], version: u16) -> Result<Sessions, MarksError> {
    let (count, hand) = (input.try_get_u32_le()?, input.try_get_u32_le()?);
    let mut slots = Vec::new();
    for _ in 0..count {
        let (session, used) = (input.try_get_u64_le()?, input.try_get_u8()? != 0);
        let mut client = Client {
            newest: read_ring(input)?,
            ..Client::default()
        };
        if version == VERSION_2 {
            read_held(input, &mut client)?;
        }
        slots.push((used, session, client));
    }
    let hand = (hand as usize).min(slots.len());
    slots.rotate_left(hand);
    slots.sort_by_key(|(used, _, _)| *used);
    let mut sessions = Sessions::new(MARKED_SESSIONS_MAX, HELD_SESSIONS_MAX);
    for (_, session, client) in slots {
        let held = client.expiry_s > 0;
        let restored = sessions.restore(session, client, held);
        restored.ok_or(MarksError::Field("session"))?;
    }
    Ok(sessions)
}

fn read_held(input: &mut &[u8], client: &mut Client) -> Result<(), MarksError> {
    client.expiry_s = input.try_get_u32_le()?;
    let count = usize::from(input.try_get_u16_le()?);
    if count > UNRELEASED_MAX {
        return Err(MarksError::Field("count of unreleased messages"));
    }
    for _ in 0..count {
        client.unreleased.push(read_mark(input)?);
    }
    Ok(())
}

fn read_ring<const N: usize>(input: &mut &[u8]) -> Result<Ring<N>, MarksError> {
    read_marks(input, read_mark)
}

fn read_marks<const N: usize, M: PartialEq>(
    input: &mut &[u8],
    mut read: impl FnMut(&mut &[u8]) -> Result<M, MarksError>,
) -> Result<Ring<N, M>, MarksError> {
    let count = usize::from(input.try_get_u16_le()?);
    if count > N {
        return Err(MarksError::Field("count of marks"));
    }
    let mut ring = Ring::default();
    for _ in 0..count {
        ring.push(read(input)?);
    }
    Ok(ring)
}
