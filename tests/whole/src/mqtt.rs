//! The few packets of MQTT 3.1.1 that a device that publishes says and hears, by hand: no part of
//! the agent is used to talk to it.

/// A packet that a server says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// CONNACK: whether the server has a session of this client.
    Connected {
        /// See there.
        present: bool,
    },
    /// CONNACK that refuses, with its code.
    Refused(u8),
    /// PUBACK.
    Acknowledged(u16),
    /// PUBREC.
    Received(u16),
    /// PUBCOMP.
    Completed(u16),
    /// Something else.
    Other(u8),
}

fn packet(head: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![head];
    let mut left = body.len();
    loop {
        let byte = (left % 128) as u8;
        left /= 128;
        out.push(if left > 0 { byte | 0x80 } else { byte });
        if left == 0 {
            break;
        }
    }
    out.extend(body);
    out
}

fn text(text: &str) -> Vec<u8> {
    let length = (text.len() as u16).to_be_bytes();
    [&length[..], text.as_bytes()].concat()
}

/// CONNECT of a client whose session is kept, with a keep-alive of no end.
pub fn connect(client: &str) -> Vec<u8> {
    packet(0x10, &[&text("MQTT"), &[4, 0, 0, 0], &text(client)])
}

/// PUBLISH; `pkid` is 0 at QoS 0.
pub fn publish(topic: &str, payload: &[u8], (qos, pkid, dup): (u8, u16, bool)) -> Vec<u8> {
    let head = 0x30 | (qos << 1) | (u8::from(dup) << 3);
    let id = pkid.to_be_bytes();
    let id: &[u8] = if qos > 0 { &id } else { &[] };
    packet(head, &[&text(topic), id, payload])
}

/// PUBREL.
pub fn release(pkid: u16) -> Vec<u8> {
    packet(0x62, &[&pkid.to_be_bytes()])
}

/// Takes the whole packets from the front of `input`.
///
/// # Errors
/// When it is no MQTT that a publisher hears.
pub fn take(input: &mut Vec<u8>) -> Result<Vec<Heard>, String> {
    let mut heard = Vec::new();
    while let [kind, length, rest @ ..] = input.as_slice() {
        let length = usize::from(*length);
        if length > 127 {
            return Err(format!("a packet {kind:02x} of more than 127 bytes"));
        }
        if rest.len() < length {
            break;
        }
        let id = rest.first().zip(rest.get(1));
        let id = id.map(|(high, low)| u16::from_be_bytes([*high, *low]));
        heard.push(match (kind, id, length) {
            (0x20, Some(flags), 2) if flags & 0xff == 0 => Heard::Connected {
                present: flags >> 8 & 1 == 1,
            },
            (0x20, Some(flags), 2) => Heard::Refused(flags as u8),
            (0x40, Some(id), 2) => Heard::Acknowledged(id),
            (0x50, Some(id), 2) => Heard::Received(id),
            (0x70, Some(id), 2) => Heard::Completed(id),
            _ => Heard::Other(*kind),
        });
        input.drain(..2 + length);
    }
    Ok(heard)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_those_of_the_standard() {
        let bytes = [16, 14, 0, 4, 77, 81, 84, 84, 4, 0, 0, 0, 0, 2, 100, 49];
        assert_eq!(connect("d1"), bytes);
        let bytes = [0x3a, 7, 0, 1, b'a', 1, 2, b'x', b'y'];
        assert_eq!(publish("a", b"xy", (1, 258, true)), bytes);
        assert_eq!(publish("a", b"", (0, 0, false)), [0x30, 3, 0, 1, b'a']);
        assert_eq!(publish("a", &[0; 200], (0, 0, false))[..3], [0x30, 203, 1]);
        assert_eq!(release(3), [0x62, 2, 0, 3]);
    }

    #[test]
    fn what_comes_in_pieces_waits_for_the_rest() {
        let all = [0x20, 2, 1, 0, 0x40, 2, 0, 7, 0x50, 2, 0, 8, 0x70, 2, 0, 8];
        let mut input = all[..6].to_vec();
        assert_eq!(
            take(&mut input).unwrap(),
            [Heard::Connected { present: true }]
        );
        input.extend(&all[6..]);
        let rest = [
            Heard::Acknowledged(7),
            Heard::Received(8),
            Heard::Completed(8),
        ];
        assert_eq!(take(&mut input).unwrap(), rest);
        assert_eq!(input, [0; 0]);
    }
}
