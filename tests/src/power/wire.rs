//! What the devices of a recording had said and heard at one moment, as they know it themselves:
//! which publications are in flight, which ids are to be released, what was acknowledged to them.
//!
//! MQTT 3.1.1 as `tributary-sim` speaks it, byte by byte; a packet that is not whole was not said.

use super::log::{Connection, Op};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// One publication, whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publication {
    /// Where to.
    pub topic: String,
    /// The how-manieth of its topic it is: that names its reading.
    pub nth: u64,
    /// Its id.
    pub id: u16,
    /// The packet, as it was said first.
    pub packet: Vec<u8>,
}

/// What a server's packet is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// CONNACK, and whether the session goes on.
    Taken(bool),
    /// PUBACK: the publication is done.
    Acknowledged(u16),
    /// PUBREC: its id is to be released.
    Received(u16),
    /// PUBCOMP.
    Completed(u16),
    /// Anything else.
    Other,
}

/// Takes the first whole packet out of `bytes`: its head, and what follows the length.
pub fn packet(bytes: &mut Vec<u8>) -> Option<(Vec<u8>, usize)> {
    let (mut length, mut shift, mut at) = (0_usize, 0, 1);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7f) << shift;
        (shift, at) = (shift + 7, at + 1);
        if byte & 0x80 == 0 {
            break;
        }
    }
    if bytes.len() < at + length {
        return None;
    }
    let rest = bytes.split_off(at + length);
    Some((std::mem::replace(bytes, rest), at))
}

/// What a server says.
pub fn answer(packet: &[u8]) -> Answer {
    let id = || u16::from_be_bytes([packet[2], packet[3]]);
    match (packet[0] >> 4, packet.len()) {
        (2, 4) if packet[3] == 0 => Answer::Taken(packet[2] & 1 == 1),
        (4, 4) => Answer::Acknowledged(id()),
        (5, 4) => Answer::Received(id()),
        (7, 4) => Answer::Completed(id()),
        _ => Answer::Other,
    }
}

/// A client and the devices behind it.
#[derive(Clone, Default, Debug)]
pub struct Client {
    /// CONNECT, as it was said last, for a session that goes on.
    pub connect: Vec<u8>,
    /// What nobody has said to have, oldest first.
    pub flight: Vec<Arc<Publication>>,
    /// Ids that the server holds.
    pub releases: Vec<u16>,
    /// All that it has published, in order.
    pub published: Vec<Arc<Publication>>,
}

/// All clients of a recording, and what they were told.
#[derive(Clone, Default, Debug)]
pub struct Devices {
    /// By their id.
    pub clients: BTreeMap<String, Client>,
    streams: HashMap<Connection, Stream>,
    /// How many publications of each topic there were.
    published: HashMap<String, u64>,
    /// Which of them were acknowledged.
    acknowledged: HashMap<String, BTreeSet<u64>>,
}

#[derive(Clone, Default, Debug)]
struct Stream {
    client: String,
    said: Vec<u8>,
    heard: Vec<u8>,
}

impl Devices {
    /// The next operation takes place; whether a device learned of an acknowledgement by it.
    pub fn apply(&mut self, op: &Op<'_>) -> bool {
        match *op {
            Op::Connect { connection } => {
                self.streams.insert(connection, Stream::default());
            }
            Op::Said { connection, data } => {
                let mut stream = self.streams.remove(&connection).unwrap_or_default();
                stream.said.extend(data);
                while let Some((packet, body)) = packet(&mut stream.said) {
                    self.says(&mut stream, packet, body);
                }
                self.streams.insert(connection, stream);
            }
            Op::Heard { connection, data } => {
                let mut stream = self.streams.remove(&connection).unwrap_or_default();
                stream.heard.extend(data);
                let before = self.acknowledged_count();
                while let Some((packet, _)) = packet(&mut stream.heard) {
                    self.hears(&stream.client, answer(&packet));
                }
                self.streams.insert(connection, stream);
                return self.acknowledged_count() > before;
            }
            _ => {}
        }
        false
    }

    fn says(&mut self, stream: &mut Stream, mut packet: Vec<u8>, body: usize) {
        let text = |at: usize| {
            let length = usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
            let bytes = &packet[at + 2..at + 2 + length];
            (String::from_utf8_lossy(bytes).into_owned(), at + 2 + length)
        };
        match packet[0] >> 4 {
            // Protocol name, level, flags, keep alive; then the client's id.
            1 => {
                let (_, level) = text(body);
                (stream.client, _) = text(level + 4);
                packet[level + 1] &= !2;
                self.clients
                    .entry(stream.client.clone())
                    .or_default()
                    .connect = packet;
            }
            3 => {
                let (topic, at) = text(body);
                let id = u16::from_be_bytes([packet[at], packet[at + 1]]);
                let client = self.clients.entry(stream.client.clone()).or_default();
                // A second copy. What has DUP and is not in flight was never whole on a wire.
                if client.flight.iter().any(|flight| flight.id == id) {
                    return;
                }
                packet[0] &= !8;
                let count = self.published.entry(topic.clone()).or_default();
                let one = Arc::new(Publication {
                    topic,
                    nth: *count,
                    id,
                    packet,
                });
                *count += 1;
                client.flight.push(Arc::clone(&one));
                client.published.push(one);
            }
            _ => {}
        }
    }

    /// A client is told something.
    pub fn hears(&mut self, client: &str, answer: Answer) {
        let Some(client) = self.clients.get_mut(client) else {
            return;
        };
        match answer {
            Answer::Taken(false) => client.releases.clear(),
            Answer::Completed(id) => client.releases.retain(|one| *one != id),
            Answer::Acknowledged(id) | Answer::Received(id) => {
                if let Some(place) = client.flight.iter().position(|flight| flight.id == id) {
                    let done = client.flight.remove(place);
                    let topic = self.acknowledged.entry(done.topic.clone()).or_default();
                    topic.insert(done.nth);
                    if answer == Answer::Received(id) {
                        client.releases.push(id);
                    }
                }
            }
            Answer::Taken(true) | Answer::Other => {}
        }
    }

    /// A client publishes that for the first time.
    pub fn publishes(&mut self, client: &str, one: &Arc<Publication>) {
        if let Some(client) = self.clients.get_mut(client) {
            *self.published.entry(one.topic.clone()).or_default() += 1;
            client.flight.push(Arc::clone(one));
            client.published.push(Arc::clone(one));
        }
    }

    /// How many readings of a topic were published.
    pub fn published(&self, topic: &str) -> u64 {
        self.published.get(topic).copied().unwrap_or(0)
    }

    /// Which readings of a topic were acknowledged.
    pub fn acknowledged(&self, topic: &str) -> impl Iterator<Item = u64> {
        self.acknowledged.get(topic).into_iter().flatten().copied()
    }

    /// How many readings were acknowledged.
    pub fn acknowledged_count(&self) -> u64 {
        let all = self.acknowledged.values();
        all.map(|topic| topic.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt;

    const ON: Connection = (1, 0);

    fn said(devices: &mut Devices, data: &[u8]) {
        devices.apply(&Op::Said {
            connection: ON,
            data,
        });
    }

    fn heard(devices: &mut Devices, data: &[u8]) -> bool {
        devices.apply(&Op::Heard {
            connection: ON,
            data,
        })
    }

    #[test]
    fn what_is_in_flight_is_what_was_said_whole_and_not_answered() {
        let mut devices = Devices::default();
        devices.apply(&Op::Connect { connection: ON });
        said(&mut devices, &mqtt::connect("a"));
        heard(&mut devices, &[0x20, 2, 0, 0]);
        let packets = [1, 2, 3].map(|id| mqtt::publish(id, b"d/m", b"1"));
        said(&mut devices, &packets.concat()[..packets[0].len() * 2 + 5]);
        assert_eq!(devices.published("d/m"), 2);
        // An answer that comes in two parts.
        assert!(!heard(&mut devices, &[0x40, 2, 0]));
        assert!(heard(&mut devices, &[2]));
        assert_eq!(devices.acknowledged("d/m").collect::<Vec<_>>(), [1]);
        let client = &devices.clients["a"];
        let flight = client.flight.iter().map(|one| (one.id, one.nth));
        assert_eq!(flight.collect::<Vec<_>>(), [(1, 0)]);
        // A session that goes on: not a clean one.
        assert_eq!(client.connect[9] & 2, 0);

        // The first again, and the third, which the server never had whole.
        devices.apply(&Op::Connect { connection: ON });
        said(&mut devices, &mqtt::connect("a"));
        for mut packet in [packets[0].clone(), packets[2].clone()] {
            packet[0] |= 8;
            said(&mut devices, &packet);
        }
        assert_eq!(devices.published("d/m"), 3);
        let flight = devices.clients["a"].flight.iter();
        assert_eq!(flight.map(|one| one.id).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn at_qos_2_an_id_is_held_from_pubrec_to_pubcomp_as_long_as_the_session_lasts() {
        let mut devices = Devices::default();
        devices.apply(&Op::Connect { connection: ON });
        said(&mut devices, &mqtt::connect("a"));
        for id in [1, 2] {
            let mut packet = mqtt::publish(id, b"d/m", b"1");
            packet[0] = 0x34;
            said(&mut devices, &packet);
            heard(&mut devices, &[0x50, 2, 0, id as u8]);
        }
        heard(&mut devices, &[0x70, 2, 0, 1]);
        assert_eq!(devices.clients["a"].releases, [2]);
        assert_eq!(devices.acknowledged_count(), 2);
        heard(&mut devices, &[0x20, 2, 1, 0]);
        assert_eq!(devices.clients["a"].releases, [2]);
        heard(&mut devices, &[0x20, 2, 0, 0]);
        assert!(devices.clients["a"].releases.is_empty());
    }
}
