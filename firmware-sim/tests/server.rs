//! A small MQTT server that does as it is told: acknowledges, keeps silent, refuses, cuts.
//!
//! It speaks through rumqttc's codecs over real TCP, and notes everything it was sent. At QoS 2 it
//! keeps what a receiver has to keep for a session: the packet ids that are not released.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tributary_sim::client::Protocol;

/// What to do about one publication, or (`Ack`, `Hold` and `Cut`) about one release.
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

/// What a receiver keeps of a session at QoS 2.
#[derive(Default)]
struct Session {
    exists: bool,
    /// Received and not released: a publication with such an id is the same one again.
    unreleased: BTreeSet<u16>,
}

#[derive(Default)]
pub struct Seen {
    pub received: Vec<Received>,
    /// Client ids, by connection.
    pub clients: Vec<String>,
    /// Which of them wanted to begin afresh.
    pub clean: Vec<bool>,
    /// At QoS 2: indices in `received` of what a receiver hands on.
    pub delivered: Vec<usize>,
    /// At QoS 2: (connection, packet id) of each release.
    pub releases: Vec<(usize, u16)>,
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
        Self::start_with(protocol, receive_max, decide, |_, _| Act::Ack).await
    }

    /// The same; `decide_release` gets the number of the connection and of the release on it.
    pub async fn start_with(
        protocol: Protocol,
        receive_max: u16,
        decide: impl FnMut(usize, usize) -> Act + Send + 'static,
        decide_release: impl FnMut(usize, usize) -> Act + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (counter, count) = watch::channel(0);
        let decide: Arc<Mutex<Decide>> = Arc::new(Mutex::new(Box::new(decide)));
        let decide_release: Arc<Mutex<Decide>> = Arc::new(Mutex::new(Box::new(decide_release)));
        let session = Arc::new(Mutex::new(Session::default()));
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
                    decide_release: decide_release.clone(),
                    session: session.clone(),
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
    decide_release: Arc<Mutex<Decide>>,
    session: Arc<Mutex<Session>>,
    seen: Arc<Mutex<Seen>>,
    counter: watch::Sender<usize>,
}

enum Packet {
    Connect {
        id: String,
        clean: bool,
    },
    Publish {
        pkid: u16,
        qos: u8,
        dup: bool,
        topic: String,
        payload: Vec<u8>,
    },
    Release(u16),
    Ping,
    Disconnect,
}

impl Peer {
    async fn serve(self, mut stream: TcpStream) {
        let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
        let (mut connection, mut nth, mut nth_release) = (usize::MAX, 0, 0);
        // (packet id, QoS, place).
        let mut held: Vec<(u16, u8, usize)> = Vec::new();
        loop {
            while let Some(packet) = self.take(&mut input) {
                match packet {
                    Packet::Connect { id, clean } => {
                        let mut seen = self.seen.lock().unwrap();
                        connection = seen.clients.len();
                        seen.clients.push(id);
                        seen.clean.push(clean);
                        let present = self.open_session(clean);
                        self.put_connack(present, &mut out);
                    }
                    Packet::Release(pkid) => {
                        self.seen.lock().unwrap().releases.push((connection, pkid));
                        let act = self.decide_release.lock().unwrap()(connection, nth_release);
                        nth_release += 1;
                        match act {
                            Act::Cut => return self.cut(stream, input, connection, &out).await,
                            Act::Hold => {}
                            _ => self.put_pubcomp(pkid, &mut out),
                        }
                    }
                    Packet::Ping => v4_ping(&mut out),
                    Packet::Disconnect => self.seen.lock().unwrap().farewells += 1,
                    Packet::Publish {
                        pkid,
                        qos,
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
                            Act::Hold => held.push((pkid, qos, place)),
                            Act::Ack => self.put_ack(pkid, qos, place, &mut out),
                            Act::AckHeld => {
                                held.push((pkid, qos, place));
                                for (pkid, qos, place) in held.drain(..).rev() {
                                    self.put_ack(pkid, qos, place, &mut out);
                                }
                            }
                            Act::Refuse if qos == 2 => {
                                let mut ack = v5::PubRec::new(pkid, None);
                                ack.reason = v5::PubRecReason::QuotaExceeded;
                                ack.write(&mut out).unwrap();
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
                    ..
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

    /// Whether a session goes on.
    fn open_session(&self, clean: bool) -> bool {
        let mut session = self.session.lock().unwrap();
        let present = session.exists && !clean;
        if clean {
            session.unreleased.clear();
        }
        // A clean session of MQTT 3.1.1 ends with its connection.
        session.exists = !clean || self.protocol == Protocol::V5;
        present
    }

    fn put_ack(&self, pkid: u16, qos: u8, place: usize, out: &mut BytesMut) {
        if qos == 0 {
            return;
        }
        let mut seen = self.seen.lock().unwrap();
        seen.received[place].acknowledged = true;
        if qos == 2 && self.session.lock().unwrap().unreleased.insert(pkid) {
            seen.delivered.push(place);
        }
        match (self.protocol, qos) {
            (Protocol::V311, 1) => v4::PubAck::new(pkid).write(out).unwrap(),
            (Protocol::V311, _) => v4::PubRec::new(pkid).write(out).unwrap(),
            (Protocol::V5, 1) => v5::PubAck::new(pkid, None).write(out).unwrap(),
            (Protocol::V5, _) => v5::PubRec::new(pkid, None).write(out).unwrap(),
        };
    }

    fn put_pubcomp(&self, pkid: u16, out: &mut BytesMut) {
        self.session.lock().unwrap().unreleased.remove(&pkid);
        match self.protocol {
            Protocol::V311 => v4::PubComp::new(pkid).write(out).unwrap(),
            Protocol::V5 => v5::PubComp::new(pkid, None).write(out).unwrap(),
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
                v4::Packet::Connect(connect) => Some(Packet::Connect {
                    id: connect.client_id,
                    clean: connect.clean_session,
                }),
                v4::Packet::PubRel(release) => Some(Packet::Release(release.pkid)),
                v4::Packet::Publish(p) => Some(Packet::Publish {
                    pkid: p.pkid,
                    qos: p.qos as u8,
                    dup: p.dup,
                    topic: p.topic,
                    payload: p.payload.to_vec(),
                }),
                v4::Packet::PingReq => Some(Packet::Ping),
                other => panic!("a publisher sent {other:?}"),
            },
            Protocol::V5 => match v5::Packet::read(input, Some(1 << 20)).ok()? {
                v5::Packet::Connect(connect, ..) => Some(Packet::Connect {
                    id: connect.client_id,
                    clean: connect.clean_start,
                }),
                v5::Packet::PubRel(release) => Some(Packet::Release(release.pkid)),
                v5::Packet::Publish(p) => Some(Packet::Publish {
                    pkid: p.pkid,
                    qos: p.qos as u8,
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
