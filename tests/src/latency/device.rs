//! One device: a connection that publishes with QoS 1, comes back when it is cut, and then sends
//! once more what was not acknowledged. Its socket never blocks; it has no thread and no clock.

use crate::mqtt::{packet, publish, text};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// The DUP flag of a PUBLISH.
const DUP: u8 = 0x08;

struct Message {
    id: u16,
    packet: Vec<u8>,
    was_sent: bool,
}

/// How far a device is.
enum Link {
    Down,
    /// CONNECT is sent.
    Coming(TcpStream),
    Up(TcpStream),
}

/// A device.
pub struct Device {
    address: SocketAddr,
    client_id: String,
    link: Link,
    next_id: u16,
    /// What is not acknowledged, oldest first; behind `sent`, what was not sent on this connection.
    unacknowledged: VecDeque<Message>,
    sent: usize,
    /// What the socket did not take of the last message that was sent.
    rest: Vec<u8>,
    answers: Vec<u8>,
    /// Acknowledged messages.
    pub acknowledged: u64,
}

impl Device {
    /// One that is not connected.
    pub fn new(address: SocketAddr, client_id: String) -> Self {
        Self {
            address,
            client_id,
            link: Link::Down,
            next_id: 1,
            unacknowledged: VecDeque::new(),
            sent: 0,
            rest: Vec::new(),
            answers: Vec::new(),
            acknowledged: 0,
        }
    }

    /// Whether the agent took it, and has it still.
    pub fn is_up(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// Whether something waits for its socket.
    pub fn is_behind(&self) -> bool {
        self.is_up() && (self.sent < self.unacknowledged.len() || !self.rest.is_empty())
    }

    /// How many messages are not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.unacknowledged.len()
    }

    /// Publishes, now or when it can.
    pub fn publish(&mut self, topic: &[u8], payload: &[u8]) {
        let id = self.next_id;
        self.next_id = id.checked_add(1).unwrap_or(1);
        self.unacknowledged.push_back(Message {
            id,
            packet: publish(id, topic, payload),
            was_sent: false,
        });
        self.send();
    }

    /// Connects, if it is not connected.
    pub fn connect(&mut self) {
        if !matches!(self.link, Link::Down) {
            return;
        }
        let Ok(mut stream) = TcpStream::connect(self.address) else {
            return;
        };
        let mut body = Vec::new();
        text(&mut body, b"MQTT");
        // The session stays: what is sent again is known as that.
        body.extend([4, 0, 0, 60]);
        text(&mut body, self.client_id.as_bytes());
        let ready = stream
            .set_nodelay(true)
            .and_then(|()| stream.write_all(&packet(0x10, &body)))
            .and_then(|()| stream.set_nonblocking(true));
        if ready.is_ok() {
            self.link = Link::Coming(stream);
        }
    }

    /// Sends what waits.
    pub fn send(&mut self) {
        let Link::Up(stream) = &mut self.link else {
            return;
        };
        loop {
            if self.rest.is_empty() {
                let Some(message) = self.unacknowledged.get_mut(self.sent) else {
                    return;
                };
                let dup = if message.was_sent { DUP } else { 0 };
                message.packet[0] |= dup;
                message.was_sent = true;
                self.sent += 1;
                self.rest.extend(&message.packet);
            }
            match stream.write(&self.rest) {
                Ok(written) => {
                    self.rest.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.cut(),
            }
        }
    }

    /// Takes what the agent said.
    pub fn listen(&mut self) {
        let (Link::Coming(stream) | Link::Up(stream)) = &mut self.link else {
            return;
        };
        let mut bytes = [0; 1_024];
        match stream.read(&mut bytes) {
            Ok(0) => return self.cut(),
            Ok(read) => self.answers.extend(&bytes[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => return self.cut(),
        }
        // CONNACK and PUBACK both have four bytes.
        let whole = self.answers.len() / 4 * 4;
        for answer in self.answers.drain(..whole).collect::<Vec<_>>().chunks(4) {
            match answer[0] {
                0x20 => {
                    assert_eq!(answer[3], 0, "CONNACK that takes {}", self.client_id);
                    self.link = match std::mem::replace(&mut self.link, Link::Down) {
                        Link::Coming(stream) | Link::Up(stream) => Link::Up(stream),
                        Link::Down => Link::Down,
                    };
                }
                0x40 => self.acknowledge(u16::from_be_bytes([answer[2], answer[3]])),
                other => panic!("{}: a packet of kind {other:#x}", self.client_id),
            }
        }
        self.send();
    }

    fn acknowledge(&mut self, id: u16) {
        let first = self.unacknowledged.pop_front();
        let first = first.map(|message| message.id);
        assert_eq!(first, Some(id), "{}: PUBACKs in order", self.client_id);
        self.sent -= 1;
        self.acknowledged += 1;
    }

    fn cut(&mut self) {
        self.link = Link::Down;
        self.sent = 0;
        self.rest.clear();
        self.answers.clear();
    }
}
