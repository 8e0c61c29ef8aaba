//! A broker of nothing but bytes: it does what the test says and nothing else.

use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Where clients connect.
pub struct Fake {
    listener: TcpListener,
    pub address: SocketAddr,
}

/// One packet of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    pub head: u8,
    pub body: Vec<u8>,
}

impl Packet {
    /// The packet id that its body begins with.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.body[0], self.body[1]])
    }
}

pub const CONNECT: u8 = 0x10;
pub const PUBACK: u8 = 0x40;
pub const PUBCOMP: u8 = 0x70;
pub const SUBSCRIBE: u8 = 0x82;
pub const PINGREQ: u8 = 0xc0;
pub const DISCONNECT: u8 = 0xe0;

/// A client's connection.
pub struct Client {
    stream: TcpStream,
    /// The protocol level of its CONNECT.
    pub level: u8,
    /// Its CONNECT flags.
    pub flags: u8,
}

/// One PUBLISH with QoS 1.
#[derive(Clone, Copy)]
pub struct Publish<'a> {
    pub id: u16,
    pub dup: bool,
    pub retain: bool,
    pub topic: &'a str,
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    pub fn new(id: u16, topic: &'a str, payload: &'a [u8]) -> Self {
        Self {
            id,
            dup: false,
            retain: false,
            topic,
            payload,
        }
    }

    pub fn dup(self) -> Self {
        Self { dup: true, ..self }
    }
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
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

impl Fake {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// One at an address that was another's.
    pub async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        Self { listener, address }
    }

    /// One whose side of a connection takes next to nothing that it does not read.
    pub async fn with_small_buffers() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(1).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(8).unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// The next connection, whose CONNECT was read and not yet answered.
    pub async fn connect(&self) -> Client {
        let (stream, _) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Client {
            stream,
            level: 0,
            flags: 0,
        };
        let connect = client.packet().await.unwrap();
        assert_eq!(connect.head, CONNECT);
        (client.level, client.flags) = (connect.body[6], connect.body[7]);
        client
    }

    /// The next connection, taken.
    pub async fn welcome(&self, session_present: bool) -> Client {
        let mut client = self.connect().await;
        client.connack(session_present, 0).await;
        client
    }

    /// The next connection, taken with a new session and subscribed.
    pub async fn subscribed(&self) -> Client {
        let mut client = self.welcome(false).await;
        client.suback().await;
        client
    }
}

impl Client {
    /// The next packet; `None` when the client has closed.
    pub async fn packet(&mut self) -> Option<Packet> {
        let head = self.stream.read_u8().await.ok()?;
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = self.stream.read_u8().await.ok()?;
            length |= usize::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(Packet { head, body })
    }

    /// The next packet that is no ping; pings are answered.
    pub async fn awaited(&mut self) -> Option<Packet> {
        loop {
            let packet = self.packet().await?;
            if packet.head != PINGREQ {
                return Some(packet);
            }
            self.send(&[0xd0, 0]).await;
        }
    }

    /// The next PUBLISH, with QoS 1: its packet id, topic, payload and whether it is retained.
    pub async fn published(&mut self) -> (u16, String, String, bool) {
        let packet = self.awaited().await.unwrap();
        assert_eq!(packet.head & !1, 0x32, "{packet:?}");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let topic_bytes = usize::from(packet.id());
        let (topic, rest) = packet.body[2..].split_at(topic_bytes);
        let payload = &rest[2 + usize::from(self.level == 5)..];
        let id = u16::from_be_bytes([rest[0], rest[1]]);
        (id, text(topic), text(payload), packet.head & 1 == 1)
    }

    /// Acknowledges a publication of the client's.
    pub async fn puback(&mut self, id: u16) {
        self.send(&packet(PUBACK, &id.to_be_bytes())).await;
    }

    /// The packet ids of the next `count` packets, all PUBACK.
    pub async fn pubacks(&mut self, count: usize) -> Vec<u16> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let packet = self.awaited().await.unwrap();
            assert_eq!(packet.head, PUBACK, "{packet:?}");
            ids.push(packet.id());
        }
        ids
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends as much as the client takes before it closes.
    pub async fn send_what_is_taken(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    pub async fn connack(&mut self, session_present: bool, code: u8) {
        let mut body = vec![u8::from(session_present), code];
        body.extend((self.level == 5).then_some(0));
        self.send(&packet(0x20, &body)).await;
    }

    /// Awaits SUBSCRIBE, and grants all of it with QoS 1; its body.
    pub async fn suback(&mut self) -> Vec<u8> {
        let subscribe = self.awaited().await.unwrap();
        assert_eq!(subscribe.head, SUBSCRIBE, "{subscribe:?}");
        let mut filters = 0;
        let properties = usize::from(self.level == 5);
        let mut rest = &subscribe.body[2 + properties..];
        while let [high, low, behind @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            rest = &behind[length + 1..];
            filters += 1;
        }
        let mut body = subscribe.body[..2].to_vec();
        body.extend((self.level == 5).then_some(0));
        body.extend(vec![1; filters]);
        self.send(&packet(0x90, &body)).await;
        subscribe.body
    }

    pub fn publish_bytes(&self, publish: &Publish<'_>) -> Vec<u8> {
        let mut body = (publish.topic.len() as u16).to_be_bytes().to_vec();
        body.extend(publish.topic.as_bytes());
        body.extend(publish.id.to_be_bytes());
        body.extend((self.level == 5).then_some(0));
        body.extend(publish.payload);
        let flags = 0x32 | u8::from(publish.dup) << 3 | u8::from(publish.retain);
        packet(flags, &body)
    }

    pub async fn publish(&mut self, publish: Publish<'_>) {
        let bytes = self.publish_bytes(&publish);
        self.send(&bytes).await;
    }

    /// Sends these in one piece and closes behind them: whoever then reads finds both at once.
    pub async fn last_words(mut self, publishes: &[Publish<'_>]) {
        let bytes: Vec<u8> = publishes
            .iter()
            .flat_map(|publish| self.publish_bytes(publish))
            .collect();
        self.send(&bytes).await;
        self.stream.shutdown().await.unwrap();
    }
}
