//! An MQTT client of nothing but bytes, so that a test can also send what no client would.

use crate::limits::PATIENCE;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A connection to a listener.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    next_id: u16,
}

/// A text as MQTT writes it.
pub fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend(bytes);
}

/// A packet with its head.
pub fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![head];
    let mut left = body.len();
    loop {
        let more = left >= 128;
        out.push((left % 128) as u8 | if more { 128 } else { 0 });
        left /= 128;
        if !more {
            break;
        }
    }
    out.extend(body);
    out
}

/// CONNECT of MQTT 3.1.1 with a clean session.
pub fn connect(client_id: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, b"MQTT");
    body.extend([4, 2, 0, 60]);
    text(&mut body, client_id.as_bytes());
    packet(0x10, &body)
}

/// PUBLISH with QoS 1.
pub fn publish(id: u16, topic: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    body.extend(id.to_be_bytes());
    body.extend(payload);
    packet(0x32, &body)
}

impl Raw {
    /// A connection on which nothing is said yet.
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, next_id: 1 }
    }

    /// A client that was taken.
    pub fn connected(address: SocketAddr, client_id: &str) -> Self {
        let mut raw = Self::open(address);
        raw.send(&connect(client_id));
        let mut answer = [0; 4];
        raw.stream.read_exact(&mut answer).unwrap();
        assert_eq!((answer[0], answer[3]), (0x20, 0), "CONNACK that takes it");
        raw
    }

    /// The same; nothing when nobody is there.
    pub fn try_connected(address: SocketAddr, client_id: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut raw = Self { stream, next_id: 1 };
        raw.send(&connect(client_id));
        let mut answer = [0; 4];
        raw.stream.read_exact(&mut answer).ok()?;
        ((answer[0], answer[3]) == (0x20, 0)).then_some(raw)
    }

    /// Says anything.
    pub fn send(&mut self, bytes: &[u8]) {
        // The other side may have closed already; what it then says, or that it says nothing, is
        // what tests look at.
        let _ = self.stream.write_all(bytes);
    }

    /// Publishes with QoS 1, and waits for the PUBACK.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) {
        assert!(self.try_publish(topic, payload), "PUBACK of {topic}");
    }

    /// The same; whether it came.
    pub fn try_publish(&mut self, topic: &str, payload: &[u8]) -> bool {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&publish(id, topic.as_bytes(), payload));
        let mut answer = [0; 4];
        let [high, low] = id.to_be_bytes();
        self.stream.read_exact(&mut answer).is_ok() && answer == [0x40, 2, high, low]
    }

    /// Says that nothing more comes from this side.
    pub fn finish(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Reads until the other side closes.
    ///
    /// # Panics
    /// When it doesn't.
    pub fn closed(mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "{rest:?}"
            ),
        }
    }
}
