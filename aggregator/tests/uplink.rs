//! The real client end against the real server end, with the aggregator restarted in the middle.

use crate::ingest::lake_rows;
use crate::sealed::{BUFFER, readings, series};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tributary_aggregator::{Config, TlsFiles, start};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::*;
use tributary_protocol::session::{Sender, SenderCursor, Trim};
use tributary_uplink::authority::{TRUST_DOMAIN, open_or_create};
use tributary_uplink::{
    Identity, Others, Save, Sealed, Spool, SpoolError, Target, UplinkConfig, run,
};

const BATCHES: u64 = 60;

/// A spool in memory that remembers how far it was trimmed.
#[derive(Clone, Default)]
pub struct Memory {
    batches: Arc<Mutex<BTreeMap<BatchKey, SealedBatch>>>,
    trimmed: Arc<Mutex<BTreeMap<LaneKey, u64>>>,
}

impl Memory {
    pub fn put(&self, batch: SealedBatch) -> Sealed {
        let sealed = Sealed {
            key: batch.key(),
            bytes: batch.bytes().len() as u64,
        };
        self.batches.lock().unwrap().insert(batch.key(), batch);
        sealed
    }
}

impl Spool for Memory {
    fn read(&mut self, key: BatchKey) -> Result<SealedBatch, SpoolError> {
        let found = self.batches.lock().unwrap().get(&key).cloned();
        found.ok_or(SpoolError {
            key,
            reason: "gone".to_owned(),
            passing: false,
        })
    }

    fn trim(&mut self, trim: Trim) {
        self.trimmed.lock().unwrap().insert(trim.key, trim.below);
    }

    fn save(&mut self, _: &SenderCursor) -> Save {
        Box::new(|| true)
    }
}

/// An aggregator's configuration below `dir`, and that of an uplink to it, still without address.
pub fn configured(dir: &TempDir) -> (Config, UplinkConfig) {
    let pki = open_or_create(&dir.path().join("pki")).unwrap();
    let tls = TlsFiles {
        ca: pki.ca.clone(),
        cert: pki.aggregator_certificate.clone(),
        key: pki.aggregator_key.clone(),
    };
    let mut config = Config::new(dir.path().join("data"), tls);
    config.uplink = "127.0.0.1:0".parse().unwrap();
    config.http = "127.0.0.1:0".parse().unwrap();
    config.trust_domain = TRUST_DOMAIN.to_owned();
    config.journal_quota_bytes = 64 << 20;
    config.journal_reserve_bytes = 0;
    let uplink = UplinkConfig {
        target: Target {
            address: String::new(),
            server_name: Some("localhost".to_owned()),
        },
        others: Others::default(),
        identity: Identity {
            ca: pki.ca,
            certificate: pki.agent_certificate,
            key: pki.agent_key,
        },
        name: "gate".to_owned(),
        drain_deadline: Duration::from_secs(60),
    };
    (config, uplink)
}

#[tokio::test]
async fn an_uplink_delivers_everything_once_over_a_restart_of_the_aggregator() {
    let dir = TempDir::new().unwrap();
    let (mut config, mut uplink) = configured(&dir);
    let running = start(config.clone(), CancellationToken::new())
        .await
        .unwrap();
    config.uplink = running.uplink_addr();
    uplink.target.address = config.uplink.to_string();
    let memory = Memory::default();
    let (sealed, queue) = mpsc::channel(256);
    let (status, mut watch) = watch::channel(tributary_uplink::Status::default());
    let sender = Sender::new(BUFFER, Vec::new());
    let sending = run(uplink, sender, memory.clone(), queue, status);

    let feeding = async {
        sealed.send(memory.put(series(0, 0, 3))).await.unwrap();
        for number in 0..BATCHES / 2 {
            sealed
                .send(memory.put(readings(number, 3, 50, 0)))
                .await
                .unwrap();
        }
        while running.keeper().batches() < BATCHES / 4 {
            assert_eq!(watch.borrow_and_update().problem, None);
            watch.changed().await.unwrap();
        }
        running.shut_down().await.unwrap();
        let running = start(config, CancellationToken::new()).await.unwrap();
        for number in BATCHES / 2..BATCHES {
            sealed
                .send(memory.put(readings(number, 3, 50, 0)))
                .await
                .unwrap();
        }
        drop(sealed);
        running
    };
    let (all, running) = tokio::join!(sending, feeding);
    assert!(all, "something was not acknowledged");
    running.shut_down().await.unwrap();
    let lane = LaneKey {
        buffer: BUFFER,
        lane: Lane::Telemetry,
    };
    assert_eq!(memory.trimmed.lock().unwrap().get(&lane), Some(&BATCHES));
    let mut found = BTreeSet::new();
    lake_rows(&dir.path().join("data/lake/readings"), &mut found);
    assert_eq!(found.len() as u64, BATCHES * 50);
}

#[tokio::test]
async fn what_an_aggregator_lost_with_its_journal_is_counted_and_what_is_here_goes_again() {
    let dir = TempDir::new().unwrap();
    let (mut config, mut uplink) = configured(&dir);
    let running = start(config.clone(), CancellationToken::new())
        .await
        .unwrap();
    config.uplink = running.uplink_addr();
    uplink.target.address = config.uplink.to_string();
    let memory = Memory::default();
    let (sealed, queue) = mpsc::channel(256);
    let (status, mut watch) = watch::channel(tributary_uplink::Status::default());
    let sender = Sender::new(BUFFER, Vec::new());
    let sending = run(uplink, sender, memory.clone(), queue, status);
    let mut seen = watch.clone();
    let feeding = async {
        sealed.send(memory.put(series(0, 0, 3))).await.unwrap();
        for number in 0..10 {
            let batch = memory.put(readings(number, 3, 50, 0));
            sealed.send(batch).await.unwrap();
        }
        while running.keeper().batches() < 11 || watch.borrow_and_update().backlog_batches > 0 {
            watch.changed().await.unwrap();
        }
        running.shut_down().await.unwrap();
        // Another journal at the same address; of what was trimmed the newest is still there.
        let there = |key: &BatchKey| key.lane == Lane::Series || key.number >= 6;
        memory.batches.lock().unwrap().retain(|key, _| there(key));
        config.data_dir = dir.path().join("empty");
        let running = start(config, CancellationToken::new()).await.unwrap();
        let told = watch.wait_for(|status| status.went_back_gone > 0).await;
        assert!(told.is_ok());
        let batch = memory.put(readings(10, 3, 50, 0));
        sealed.send(batch).await.unwrap();
        drop(sealed);
        running
    };
    let (all, running) = tokio::join!(sending, feeding);
    assert!(all, "something was not acknowledged");
    // The definitions, which are kept until nothing of the buffer is left, what was still there,
    // and the new batch.
    assert_eq!(running.keeper().batches(), 6);
    running.shut_down().await.unwrap();
    let status = seen.borrow_and_update();
    assert_eq!((status.went_back_gone, status.went_back_again), (6, 5));
}
