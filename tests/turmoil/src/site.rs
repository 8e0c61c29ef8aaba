//! An aggregator: the real ingest and the real keeper, over a disk that is made up.

use crate::limits::{JOURNAL_BYTES, RESTART, SEGMENT_BYTES};
use crate::oracle::{Broken, Copy, Stored};
use crate::socket;
use crate::trace::Trace;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;
use tributary_aggregator::TlsFiles;
use tributary_aggregator::clock::Clock;
use tributary_aggregator::ingest::Ingest;
use tributary_aggregator::ingest::endpoint::configs;
use tributary_aggregator::keeper::record::{RecordKind, parse};
use tributary_aggregator::keeper::{Keeper, KeeperConfig, KeeperParts};
use tributary_journal::{Disk, LifeId, LogConfig, LogKind, SimDisk};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::{BatchKey, LogId};
use tributary_uplink::authority::TRUST_DOMAIN;

/// An aggregator.
#[derive(Clone)]
pub struct Site {
    /// Its disk, which the harness replaces when the power goes.
    pub disk: Arc<Mutex<SimDisk>>,
    /// Its files.
    pub files: TlsFiles,
    /// Which of them it is.
    pub at: usize,
    /// Where it listens.
    pub address: SocketAddr,
    /// Of the run.
    pub seed: u64,
    /// What it sends.
    pub trace: Arc<Trace>,
}

fn config(at: usize) -> KeeperConfig {
    KeeperConfig {
        dir: "/site".into(),
        journal: LogConfig {
            segment_bytes: SEGMENT_BYTES,
            quota_bytes: JOURNAL_BYTES,
            reserve_bytes: 0,
            kind: LogKind::Journal,
        },
        new_log: LogId([at as u8 + 9; 16]),
    }
}

fn open(disk: &SimDisk, at: usize) -> Result<(Keeper, KeeperParts), String> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Keeper::open(&disk, &config(at)).map_err(|error| error.to_string())
}

impl Site {
    /// The present disk.
    pub fn disk(&self) -> SimDisk {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        disk.clone()
    }

    /// One life of its process.
    pub async fn run(self) -> turmoil::Result {
        let (mut keeper, parts) = loop {
            match open(&self.disk(), self.at) {
                Ok(opened) => break opened,
                // Whoever watches over it starts it again.
                // tidy: sleep because the clock is a made-up one
                Err(_) => tokio::time::sleep(RESTART).await,
            }
        };
        let (endpoint, server) = configs(&self.files)?;
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8] = self.at as u8;
        let endpoint = socket::endpoint(self.address, (endpoint, Some(server)), seed, &self.trace)?;
        let ingest = Ingest::new(parts.handle, TRUST_DOMAIN, CancellationToken::new());
        let clock = Clock::start();
        let stop = CancellationToken::new();
        let turning = async {
            loop {
                let until = keeper.turn(clock.told());
                if keeper.wait(clock, until, &stop).await.is_break() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = ingest.run(endpoint) => {}
            () = turning => {}
        }
        Ok(())
    }
}

/// What a process would find in the journal that starts on this disk of this aggregator now.
///
/// # Errors
/// [`Broken::Journal`], also when opening found something that should not be there.
pub fn stored(disk: &SimDisk, at: usize) -> Result<Stored, Broken> {
    read(disk, at).map_err(|what| Broken::Journal(at, what))
}

fn read(disk: &SimDisk, at: usize) -> Result<Stored, String> {
    let (_, parts) = open(disk, at)?;
    if parts.recovered.doubled > 0 || parts.recovered.damaged > 0 {
        return Err(format!("{:?}", parts.recovered));
    }
    let life = LifeId(parts.log.0);
    let (mut stored, mut next) = (Stored::new(), 0);
    while next < parts.reader.end(life).unwrap_or(0) {
        let mut entries = Vec::new();
        let read = parts.reader.read(life, next, 1 << 20, &mut entries);
        read.map_err(|error| error.to_string())?;
        for entry in entries {
            next = entry.number + 1;
            let kind = RecordKind::from_code(entry.kind).ok_or("a record of no kind")?;
            let record = parse(kind, entry.bytes).map_err(|error| error.to_string())?;
            let batch = SealedBatch::open(record.sealed).map_err(|error| error.to_string())?;
            let (key, numbers) = (batch.key(), batch.key().number..batch.key().number + 1);
            let (is_gap, own) = (kind == RecordKind::Gap, vec![numbers]);
            let copy = Copy {
                hash: batch.hash(),
                is_gap,
                in_doubt: record.in_doubt,
            };
            let numbers = if is_gap { record.runs } else { own };
            for number in numbers.into_iter().flatten() {
                let name = (record.agent.clone(), BatchKey { number, ..key });
                stored.entry(name).or_default().push(copy);
            }
        }
    }
    Ok(stored)
}
