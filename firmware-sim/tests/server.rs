//! A small MQTT server that does as it is told: acknowledges, keeps silent, refuses, cuts.
//!
//! It speaks through rumqttc's codecs over real TCP, and notes everything it was sent.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tributary_sim::client::Protocol;

/// What to do about one publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Acknowledge it now.
    Ack,
    /// Acknowledge all that was held back, newest first.
    AckHeld,
    /// Hold the acknowledgement back.
    Hold,
    /// MQTT 5: answer with Quota exceeded.
    Refuse,
    /// End the connection without an answer.
    Cut,
    /// Send bytes that are no MQTT.
    Garbage,
}

/// One publication as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub connection: usize,
    pub pkid: u16,
    pub dup: bool,
    pub topic: String,
    pub payload: Vec<u8>,
    pub acknowledged: bool,
}

#[derive(Default)]
pub struct Seen {
    pub received: Vec<Received>,
    /// Client ids, by connection.
    pub clients: Vec<String>,
    /// Connections that ended with DISCONNECT.
    pub farewells: usize,
    /// Most publications that were unanswered at one time.
    pub outstanding_max: usize,
}

type Decide = Box<dyn FnMut(usize, usize) -> Act + Send>;

pub struct Server {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Seen>>,
    count: watch::Receiver<usize>,
    _serving: tokio::task::JoinSet<()>,
}

impl Server {
    /// `decide` gets the number of the connection and of the publication on it, both from 0.
    pub async fn start(
        protocol: Protocol,
        receive_max: u16,
        decide: impl FnMut(usize, usize) -> Act + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (counter, count) = watch::channel(0);
        let decide: Arc<Mutex<Decide>> = Arc::new(Mutex::new(Box::new(decide)));
        let mut serving = tokio::task::JoinSet::new();
        let shared = seen.clone();
        serving.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let peer = Peer {
                    protocol,
                    receive_max,
                    decide: decide.clone(),
                    seen: shared.clone(),
                    counter: counter.clone(),
                };
                connections.spawn(peer.serve(stream));
            }
        });
        Self {
            address,
            seen,
            count,
            _serving: serving,
        }
    }

    /// Returns when this many publications came, copies included.
    pub async fn received(&mut self, count: usize) {
        self.count.wait_for(|seen| *seen >= count).await.unwrap();
    }
}

struct Peer {
    protocol: Protocol,
    receive_max: u16,
    decide: Arc<Mutex<Decide>>,
    seen: Arc<Mutex<Seen>>,
    counter: watch::Sender<usize>,
}

enum Packet {
    Connect(String),
    Publish {
        pkid: u16,
        dup: bool,
        topic: String,
        payload: Vec<u8>,
    },
    Ping,
    Disconnect,
}

impl Peer {
    async fn serve(self, mut stream: TcpStream) {
        let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
        let (mut connection, mut nth) = (usize::MAX, 0);
        let mut held: Vec<(u16, usize)> = Vec::new();
        loop {
            while let Some(packet) = self.take(&mut input) {
                match packet {
                    Packet::Connect(id) => {
                        let mut seen = self.seen.lock().unwrap();
                        connection = seen.clients.len();
                        seen.clients.push(id);
                        self.put_connack(connection > 0, &mut out);
                    }
                    Packet::Ping => v4_ping(&mut out),
                    Packet::Disconnect => self.seen.lock().unwrap().farewells += 1,
                    Packet::Publish {
                        pkid,
                        dup,
                        topic,
                        payload,
                    } => {
                        let act = self.decide.lock().unwrap()(connection, nth);
                        nth += 1;
                        let place = self.note(Received {
                            connection,
                            pkid,
                            dup,
                            topic,
                            payload,
                            acknowledged: false,
                        });
                        match act {
                            Act::Hold => held.push((pkid, place)),
                            Act::Ack => self.put_puback(pkid, place, &mut out),
                            Act::AckHeld => {
                                held.push((pkid, place));
                                for (pkid, place) in held.drain(..).rev() {
                                    self.put_puback(pkid, place, &mut out);
                                }
                            }
                            Act::Refuse => {
                                let mut ack = v5::PubAck::new(pkid, None);
                                ack.reason = v5::PubAckReason::QuotaExceeded;
                                ack.write(&mut out).unwrap();
                            }
                            Act::Garbage => out.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff]),
                            Act::Cut => return self.cut(stream, input, connection, &out).await,
                        }
                        let unanswered = held.len();
                        let mut seen = self.seen.lock().unwrap();
                        seen.outstanding_max = seen.outstanding_max.max(unanswered);
                    }
                }
            }
            if stream.write_all(&out).await.is_err() {
                return;
            }
            out.clear();
            match stream.read_buf(&mut input).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Ends our half after what was answered, and notes what still comes, so that the test knows
    /// exactly what the client has been told.
    async fn cut(&self, mut stream: TcpStream, mut input: BytesMut, connection: usize, out: &[u8]) {
        stream.write_all(out).await.unwrap();
        stream.shutdown().await.unwrap();
        loop {
            while let Some(packet) = self.take(&mut input) {
                if let Packet::Publish {
                    pkid,
                    dup,
                    topic,
                    payload,
                } = packet
                {
                    let acknowledged = false;
                    self.note(Received {
                        connection,
                        pkid,
                        dup,
                        topic,
                        payload,
                        acknowledged,
                    });
                }
            }
            if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
                return;
            }
        }
    }

    fn note(&self, received: Received) -> usize {
        let mut seen = self.seen.lock().unwrap();
        seen.received.push(received);
        let count = seen.received.len();
        self.counter.send_replace(count);
        count - 1
    }

    fn put_connack(&self, session_present: bool, out: &mut BytesMut) {
        match self.protocol {
            Protocol::V311 => {
                v4::ConnAck::new(v4::ConnectReturnCode::Success, session_present)
                    .write(out)
                    .unwrap();
            }
            Protocol::V5 => {
                let properties = v5::ConnAckProperties {
                    session_expiry_interval: None,
                    receive_max: Some(self.receive_max),
                    max_qos: None,
                    retain_available: None,
                    max_packet_size: None,
                    assigned_client_identifier: None,
                    topic_alias_max: None,
                    reason_string: None,
                    user_properties: Vec::new(),
                    wildcard_subscription_available: None,
                    subscription_identifiers_available: None,
                    shared_subscription_available: None,
                    server_keep_alive: None,
                    response_information: None,
                    server_reference: None,
                    authentication_method: None,
                    authentication_data: None,
                };
                let code = v5::ConnectReturnCode::Success;
                let ack = v5::ConnAck {
                    session_present,
                    code,
                    properties: Some(properties),
                };
                ack.write(out).unwrap();
            }
        }
    }

    fn put_puback(&self, pkid: u16, place: usize, out: &mut BytesMut) {
        if pkid == 0 {
            return;
        }
        self.seen.lock().unwrap().received[place].acknowledged = true;
        match self.protocol {
            Protocol::V311 => v4::PubAck::new(pkid).write(out).unwrap(),
            Protocol::V5 => v5::PubAck::new(pkid, None).write(out).unwrap(),
        };
    }

    fn take(&self, input: &mut BytesMut) -> Option<Packet> {
        // The v5 reader has no word for a DISCONNECT without a body.
        if input.starts_with(&[0xe0, 0]) {
            let _ = input.split_to(2);
            return Some(Packet::Disconnect);
        }
        match self.protocol {
            Protocol::V311 => match v4::Packet::read(input, 1 << 20).ok()? {
                v4::Packet::Connect(connect) => {
                    assert!(!connect.clean_session);
                    Some(Packet::Connect(connect.client_id))
                }
                v4::Packet::Publish(p) => Some(Packet::Publish {
                    pkid: p.pkid,
                    dup: p.dup,
                    topic: p.topic,
                    payload: p.payload.to_vec(),
                }),
                v4::Packet::PingReq => Some(Packet::Ping),
                other => panic!("a publisher sent {other:?}"),
            },
            Protocol::V5 => match v5::Packet::read(input, Some(1 << 20)).ok()? {
                v5::Packet::Connect(connect, ..) => {
                    assert!(!connect.clean_start);
                    Some(Packet::Connect(connect.client_id))
                }
                v5::Packet::Publish(p) => Some(Packet::Publish {
                    pkid: p.pkid,
                    dup: p.dup,
                    topic: String::from_utf8(p.topic.to_vec()).unwrap(),
                    payload: p.payload.to_vec(),
                }),
                v5::Packet::PingReq(_) => Some(Packet::Ping),
                other => panic!("a publisher sent {other:?}"),
            },
        }
    }
}

fn v4_ping(out: &mut BytesMut) {
    v4::PingResp.write(out).unwrap();
}
