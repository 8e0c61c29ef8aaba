//! Our subscription, in front of a log that the test holds back or lets through.

use crate::listener::{Gate, Held, gate};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tributary_agent::source::broker::Protocol;
use tributary_agent::source::{BrokerConfig, BrokerStatus, Brokers, Hub};
use tributary_agent::spool::RefuseNew;
use tributary_agent::wal::{CommittedFrame, Record, Wal};
use tributary_journal::{CommitPolicy, Disk, SimDisk};

/// What the agent keeps beside its logs: it outlives a subscription.
#[derive(Clone)]
pub struct Kept {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Kept {
    pub fn new() -> Self {
        Self {
            disk: Arc::new(SimDisk::new(1)),
            dir: Path::new("/broker").to_owned(),
        }
    }
}

/// A running subscription.
pub struct Ours {
    pub status: watch::Receiver<BrokerStatus>,
    /// What the agent publishes.
    pub hub: Hub,
    pub held: Held,
    wal: Wal,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

pub fn config(address: SocketAddr, protocol: Protocol) -> BrokerConfig {
    BrokerConfig {
        name: "test".into(),
        host: address.ip().to_string(),
        port: address.port(),
        topics: vec!["#".into()],
        client_id: Some("ours".into()),
        protocol,
        user: None,
        password_file: None,
        tls: None,
        session_expiry_s: 3_600,
        receive_maximum: 1_024,
        keep_alive: Duration::from_secs(15),
        packet_bytes_max: 1 << 20,
        alerts: false,
    }
}

impl Ours {
    /// Subscribes; every frame waits at the gate.
    pub fn start(config: BrokerConfig, kept: &Kept) -> Self {
        Self::start_refusing(config, kept, &RefuseNew::default())
    }

    /// Subscribes, while the spool says whether it refuses what is new.
    pub fn start_refusing(config: BrokerConfig, kept: &Kept, refuse: &RefuseNew) -> Self {
        let (writer, held): (Gate, Held) = gate();
        let wal = Wal::start(writer, CommitPolicy::low_latency()).unwrap();
        let brokers = Brokers::open(&[config], &kept.disk, &kept.dir, &wal.queue).unwrap();
        let hub = Hub::new();
        let brokers = brokers.refusing(refuse).publishing(&hub);
        let status = brokers.statuses().remove(0);
        let stop = CancellationToken::new();
        let task = tokio::spawn(brokers.run(stop.clone()));
        Self {
            status,
            hub,
            held,
            wal,
            stop,
            task,
        }
    }

    /// Waits until the subscription stands so.
    pub async fn until(&mut self, so: impl FnMut(&BrokerStatus) -> bool) -> BrokerStatus {
        self.status.wait_for(so).await.unwrap().clone()
    }

    /// As if the process died between the fdatasync and the acknowledgement; what is durable.
    pub async fn die_behind_the_log(self) -> Vec<Kind> {
        self.task.abort();
        let _ = self.task.await;
        drop(self.held);
        self.wal.queue.close();
        let mut committed = self.wal.committed;
        let mut records = Vec::new();
        while let Some(frame) = committed.recv().await {
            records.extend(read(&frame));
        }
        records
    }

    /// Tells it to stop, and lets through what waits.
    pub fn stop(self) -> Flowing {
        self.stop.cancel();
        self.let_through()
    }

    /// From here on nothing waits at the gate.
    pub fn let_through(self) -> Flowing {
        let Self {
            status,
            hub,
            held,
            wal,
            stop,
            task,
        } = self;
        drop(held);
        Flowing {
            status,
            hub,
            wal,
            stop,
            task,
        }
    }
}

/// A subscription before a log that takes everything.
pub struct Flowing {
    pub status: watch::Receiver<BrokerStatus>,
    pub hub: Hub,
    wal: Wal,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Flowing {
    pub fn start(config: BrokerConfig, kept: &Kept) -> Self {
        Ours::start(config, kept).let_through()
    }

    /// Waits until the subscription stands so.
    pub async fn until(&mut self, so: impl FnMut(&BrokerStatus) -> bool) -> BrokerStatus {
        self.status.wait_for(so).await.unwrap().clone()
    }

    /// The records of the next frame: (kind, topic, payload, DUP, retained).
    pub async fn next(&mut self) -> Vec<Kind> {
        read(&self.wal.committed.recv().await.unwrap())
    }

    /// At least `count` records.
    pub async fn take(&mut self, count: usize) -> Vec<Kind> {
        let mut records = Vec::new();
        while records.len() < count {
            records.extend(self.next().await);
        }
        records
    }

    /// Tells it to stop, and waits until it has ended.
    pub async fn end(mut self) -> Vec<Kind> {
        self.stop.cancel();
        self.task.await.unwrap();
        self.wal.queue.close();
        let mut records = Vec::new();
        while let Some(frame) = self.wal.committed.recv().await {
            records.extend(read(&frame));
        }
        let thread = self.wal.thread;
        tokio::task::spawn_blocking(move || thread.join().unwrap())
            .await
            .unwrap();
        records
    }

    /// As if the process were killed: nothing more is said to anybody.
    pub fn kill(self) {
        self.task.abort();
        self.wal.queue.close();
    }
}

/// What a record is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    Message {
        topic: String,
        payload: Vec<u8>,
        id: u16,
        dup: bool,
        retain: bool,
    },
    TooLarge {
        topic: String,
        kept: usize,
        payload_bytes: u32,
    },
}

impl Kind {
    pub fn topic(&self) -> &str {
        match self {
            Self::Message { topic, .. } | Self::TooLarge { topic, .. } => topic,
        }
    }

    pub fn payload(&self) -> &[u8] {
        match self {
            Self::Message { payload, .. } => payload,
            Self::TooLarge { .. } => &[],
        }
    }
}

fn read(frame: &CommittedFrame) -> Vec<Kind> {
    let records = frame.records();
    let records = records.map(
        |(_, kind, bytes)| match Record::parse(kind, bytes).unwrap() {
            Record::Message(message) => {
                assert!(message.broker);
                Kind::Message {
                    topic: message.topic.to_owned(),
                    payload: message.payload.to_vec(),
                    id: message.packet_id,
                    dup: message.dup,
                    retain: message.retain,
                }
            }
            Record::TooLarge(large) => Kind::TooLarge {
                topic: large.message.topic.to_owned(),
                kept: large.message.payload.len(),
                payload_bytes: large.payload_bytes,
            },
            other => panic!("no broker gives this: {other:?}"),
        },
    );
    records.collect()
}
