//! An agent: the real uplink over a spool in memory that outlives its process.

use crate::limits::{BATCHES, FAILOVER_AFTER, HOLD, RETURN_AFTER};
use crate::oracle::Told;
use crate::pki::SERVER_NAME;
use crate::plan::Dice;
use crate::socket;
use crate::trace::Trace;
use quinn::EndpointConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tributary_protocol::batch::{Gap, GapReason, SealedBatch, Sealer, Spec};
use tributary_protocol::ids::{AgentId, BatchHash, BatchKey, BufferId, Lane, LaneKey, SeriesId};
use tributary_protocol::reading::{Meta, Readings, Value, ValueType};
use tributary_protocol::series::SeriesDef;
use tributary_protocol::session::{LaneStart, RouteTimes, Sender, SenderCursor, Trim};
use tributary_uplink::limits::SEALED_QUEUE;
use tributary_uplink::{
    Identity, Net, Others, Save, Sealed, Shed, Spool, SpoolError, Status, Target, UplinkConfig,
    run_over,
};

/// 2026-11-20T20:00:00Z.
const EPOCH_US: i64 = 1_795_204_800_000_000;

/// What is on an agent's disk.
#[derive(Debug, Default)]
struct Held {
    life: u64,
    sealed: u64,
    batches: BTreeMap<BatchKey, SealedBatch>,
    /// What stands for those that were given up, and what nobody was told of yet.
    gaps: Vec<SealedBatch>,
    sheds: Vec<Shed>,
    /// Below which number everything is acknowledged.
    trims: BTreeMap<LaneKey, u64>,
    cursor: SenderCursor,
    /// Every batch that was ever sealed.
    all: BTreeMap<BatchKey, BatchHash>,
    /// Those that were acknowledged.
    acked: BTreeSet<BatchKey>,
    /// Those that were given up, and the hash of what stands for each.
    given_up: BTreeMap<BatchKey, BatchHash>,
    /// What its process says of what is not acknowledged.
    backlog: u64,
    /// What it was told that was lost, and the sessions that it had.
    went_back: u64,
    sessions: u64,
}

/// An agent's disk. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct AgentDisk(Arc<Mutex<Held>>);

impl AgentDisk {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it knows, for the oracle; this is its name.
    pub fn told(&self, agent: &AgentId) -> Told {
        let held = self.lock();
        Told {
            agent: agent.clone(),
            sealed: held.all.clone(),
            acked: held.acked.clone(),
            given_up: held.given_up.clone(),
            of_loss: held.went_back > 0,
            newest: BufferId::new(held.life, 7),
        }
    }

    /// How many sessions its processes had.
    pub fn sessions(&self) -> u64 {
        self.lock().sessions
    }

    /// Gives up so many of the oldest batches that nobody acknowledged, as far as this disk knows:
    /// a gap stands for them.
    pub fn shed(&self, most: u64) {
        let mut held = self.lock();
        let is_left = |key: &&BatchKey| {
            let below = held.trims.get(&key.lane_key());
            let acked = held.cursor.acked(key.lane_key());
            let acked = acked.missing(key.number, key.number + 1).is_empty();
            key.lane == Lane::Telemetry && below.is_none_or(|it| key.number >= *it) && !acked
        };
        let mut left = held.batches.keys().filter(is_left).copied();
        let Some(first) = left.next() else { return };
        let next = |(key, number): &(BatchKey, u64)| {
            key.lane_key() == first.lane_key() && key.number == first.number + number
        };
        let rest = left.zip(1..most).take_while(next);
        let all: Vec<BatchKey> = [first].into_iter().chain(rest.map(|it| it.0)).collect();
        let gap = gap(first, all.len() as u64);
        let mut bytes = 0;
        for key in &all {
            let gone = held.batches.remove(key);
            bytes += gone.map_or(0, |batch| batch.bytes().len() as u64);
            held.given_up.insert(*key, gap.hash());
        }
        let numbers = gap.numbers();
        held.gaps.push(gap);
        let key = first.lane_key();
        held.sheds.push(Shed {
            key,
            numbers,
            bytes,
        });
    }

    /// Whether all is sealed and acknowledged. Definitions stay in the spool as long as their
    /// buffer is the present one: of those the backlog speaks.
    pub fn is_drained(&self) -> bool {
        let held = self.lock();
        let acked = |key: &BatchKey| {
            let below = held.trims.get(&key.lane_key());
            below.is_some_and(|below| key.number < *below)
        };
        let data = |key: &&BatchKey| key.lane == Lane::Telemetry;
        let gaps = held.gaps.iter().all(|gap| acked(&last_of(gap)));
        let all = gaps && held.batches.keys().filter(data).all(acked);
        held.sealed >= BATCHES && held.backlog == 0 && all
    }

    /// What a process finds that starts.
    fn start(&self) -> (BufferId, Sender) {
        let mut held = self.lock();
        held.life += 1;
        held.trims.clear();
        held.sheds.clear();
        let present = BufferId::new(held.life, 7);
        let mut starts: BTreeMap<LaneKey, LaneStart> = BTreeMap::new();
        let gaps = held.gaps.iter().map(|gap| (gap.key(), gap));
        let there = held.batches.iter().map(|(key, batch)| (*key, batch));
        let there: BTreeMap<BatchKey, &SealedBatch> = gaps.chain(there).collect();
        for (key, batch) in there {
            let start = starts.entry(key.lane_key()).or_insert_with(|| LaneStart {
                key: key.lane_key(),
                first: key.number,
                end: key.number,
                bytes: 0,
                acked: Vec::new(),
            });
            start.end = batch.numbers().end;
            start.bytes += batch.bytes().len() as u64;
        }
        for start in starts.values_mut() {
            start.acked = held.cursor.acked(start.key).iter().copied().collect();
        }
        let mut sender = Sender::new(present, starts.into_values().collect());
        sender.hold_for(HOLD.as_micros() as i64);
        sender.recall(&held.cursor);
        held.backlog = sender.backlog().0;
        (present, sender)
    }

    fn put(&self, batch: SealedBatch) -> Sealed {
        let (key, bytes) = (batch.key(), batch.bytes().len() as u64);
        let mut held = self.lock();
        held.all.insert(key, batch.hash());
        held.sealed += u64::from(key.lane == Lane::Telemetry);
        held.batches.insert(key, batch);
        Sealed { key, bytes }
    }
}

impl Spool for AgentDisk {
    fn read(&mut self, key: BatchKey) -> Result<SealedBatch, SpoolError> {
        let held = self.lock();
        let stands_for = |gap: &&SealedBatch| {
            gap.key().lane_key() == key.lane_key() && gap.numbers().contains(&key.number)
        };
        let gap = || held.gaps.iter().find(stands_for);
        let found = held.batches.get(&key).or_else(gap).cloned();
        found.ok_or(SpoolError {
            key,
            reason: "gone".to_owned(),
            passing: false,
        })
    }

    fn take_sheds(&mut self) -> Vec<Shed> {
        std::mem::take(&mut self.lock().sheds)
    }

    fn trim(&mut self, trim: Trim) {
        let mut held = self.lock();
        let of_lane = |key: &&BatchKey| key.lane_key() == trim.key && key.number < trim.below;
        let acked: Vec<BatchKey> = held.all.keys().filter(of_lane).copied().collect();
        held.acked.extend(acked);
        held.trims.insert(trim.key, trim.below);
    }

    fn save(&mut self, cursor: &SenderCursor) -> Save {
        let (disk, cursor) = (self.clone(), cursor.clone());
        Box::new(move || {
            let mut held = disk.lock();
            held.cursor = cursor;
            let trims = held.trims.clone();
            let stays = |key: &BatchKey| {
                let below = trims.get(&key.lane_key());
                below.is_none_or(|below| key.number >= *below)
            };
            held.batches.retain(|key, _| stays(key));
            held.gaps.retain(|gap| stays(&last_of(gap)));
            true
        })
    }
}

/// Who an agent is, and where it goes.
#[derive(Clone)]
pub struct Agent {
    /// Its disk.
    pub disk: AgentDisk,
    /// Its name.
    pub id: AgentId,
    /// Its host.
    pub host: IpAddr,
    /// Its files.
    pub identity: Identity,
    /// The aggregators, its own first.
    pub sites: Vec<SocketAddr>,
    /// Of the run, and of the agent.
    pub seed: u64,
    /// What it sends.
    pub trace: Arc<Trace>,
}

impl Agent {
    /// One life of its process.
    pub async fn run(self) -> turmoil::Result {
        let (present, sender) = self.disk.start();
        let life = present.life();
        let (sealed, queue) = mpsc::channel(SEALED_QUEUE);
        let (status, mut seen) = watch::channel(Status::of(&sender));
        let target = |site: &SocketAddr| Target {
            address: site.to_string(),
            server_name: Some(SERVER_NAME.to_owned()),
        };
        let mut targets: Vec<Target> = self.sites.iter().map(target).collect();
        let config = UplinkConfig {
            target: targets.remove(0),
            others: Others {
                targets,
                times: RouteTimes {
                    failover_after_us: FAILOVER_AFTER.as_micros() as i64,
                    return_after_us: RETURN_AFTER.as_micros() as i64,
                },
            },
            identity: self.identity.clone(),
            name: "gate".to_owned(),
            drain_deadline: Duration::from_secs(60),
        };
        let net = self.net(life);
        let sending = run_over(net, config, sender, self.disk.clone(), (queue, status));
        let watching = async {
            let mut sessions = 0;
            while seen.changed().await.is_ok() {
                let now = seen.borrow_and_update().clone();
                let mut held = self.disk.lock();
                let went_back = now.went_back_gone + now.went_back_again;
                held.went_back = held.went_back.max(went_back);
                held.sessions += now.sessions - std::mem::replace(&mut sessions, now.sessions);
                held.backlog = now.backlog_batches;
            }
        };
        let _ = tokio::join!(sending, watching, self.seal(present, sealed));
        Ok(())
    }

    fn net(&self, life: u64) -> Net {
        let dice = Dice::of(self.seed, &format!("agent {life}"));
        let dice = Arc::new(Mutex::new(dice));
        let next = move || dice.lock().unwrap_or_else(PoisonError::into_inner).any();
        let (trace, random, host) = (Arc::clone(&self.trace), next.clone(), self.host);
        Net {
            open: Arc::new(move |_| {
                let mut seed = [0; 32];
                seed[..8].copy_from_slice(&random().to_le_bytes());
                let config = (EndpointConfig::default(), None);
                socket::endpoint((host, 0).into(), config, seed, &trace)
            }),
            random: Arc::new(next),
            saves_in_place: true,
        }
    }

    /// Seals what is left, and then does not end.
    async fn seal(&self, present: BufferId, sealed: mpsc::Sender<Sealed>) {
        let life = present.life();
        let mut dice = Dice::of(self.seed, &format!("seal {life}"));
        let mut sealer = Sealer::new();
        let definitions = series(&mut sealer, present);
        let mut next = Some(self.disk.put(definitions));
        let mut number = 0;
        loop {
            if let Some(batch) = next.take()
                && sealed.send(batch).await.is_err()
            {
                return;
            }
            if self.disk.lock().sealed >= BATCHES {
                return std::future::pending().await;
            }
            // tidy: sleep because the clock is a made-up one
            tokio::time::sleep(Duration::from_millis(dice.below(1_500))).await;
            let rows = 1 + dice.below(400) as u32;
            let batch = readings(&mut sealer, present, number, (rows, dice.any()));
            next = Some(self.disk.put(batch));
            number += 1;
        }
    }
}

fn spec(buffer: BufferId, lane: Lane, number: u64, series_needed: u32) -> Spec {
    Spec {
        key: BatchKey {
            buffer,
            lane,
            number,
        },
        sealed_at: EPOCH_US,
        series_needed,
        covers: Vec::new(),
    }
}

fn series(sealer: &mut Sealer, buffer: BufferId) -> SealedBatch {
    let def = SeriesDef::new("pump", "p", Some("Pa"), ValueType::F64).expect("usable names");
    let spec = spec(buffer, Lane::Series, 0, 0);
    let sealed = sealer.series(&spec, 0, &[def]);
    sealed.expect("one definition fits a batch")
}

/// The last name that a gap stands for.
fn last_of(gap: &SealedBatch) -> BatchKey {
    BatchKey {
        number: gap.numbers().end - 1,
        ..gap.key()
    }
}

/// What stands for so many batches from this one on.
fn gap(first: BatchKey, count: u64) -> SealedBatch {
    let gap = Gap {
        first: first.number,
        count,
        readings: None,
        event_first: EPOCH_US,
        event_last: EPOCH_US,
        reason: GapReason::Shed,
        detail: String::new(),
        each: Vec::new(),
    };
    let spec = spec(first.buffer, first.lane, first.number, 0);
    let sealed = Sealer::new().gap(&spec, &gap);
    sealed.expect("a gap of a few batches fits one")
}

fn readings(
    sealer: &mut Sealer,
    buffer: BufferId,
    number: u64,
    (rows, salt): (u32, u64),
) -> SealedBatch {
    let mut block = Readings::new();
    let mut dice = Dice::of(salt, "values");
    for row in 0..rows {
        let time = EPOCH_US + number as i64 * 1_000_000 + i64::from(row);
        let meta = Meta {
            event_time: time,
            received_time: time,
            ..Meta::default()
        };
        let value = Value::F64((dice.any() >> 12) as f64);
        let pushed = block.push(SeriesId(0), meta, value);
        pushed.expect("so few readings fit a batch");
    }
    let spec = spec(buffer, Lane::Telemetry, number, 1);
    let sealed = sealer.readings(&spec, &mut block);
    sealed.expect("so few readings fit a batch")
}
