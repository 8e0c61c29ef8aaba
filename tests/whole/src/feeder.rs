//! An agent that is made up but for its sender: it seals batches of readings that nobody sent, so
//! that an aggregator can be run without what lies before it.

use crate::oracle::Oracle;
use crate::site::EPOCH_US;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tributary_protocol::batch::{Gap, GapReason, SealedBatch, Sealer, Spec};
use tributary_protocol::ids::{BatchKey, BufferId, Lane, LaneKey, SeriesId};
use tributary_protocol::ranges::HeldRanges;
use tributary_protocol::reading::{Meta, Readings, Value, ValueType};
use tributary_protocol::series::SeriesDef;
use tributary_protocol::session::{LaneStart, Sender, SenderCursor, Trim};
use tributary_uplink::link::Uplink;
use tributary_uplink::{Save, Sealed, Shed, Spool, SpoolError, Status};
use tributary_world::dice::Dice;

/// What is on its disk, which never fails.
#[derive(Debug, Default)]
struct Kept {
    batches: BTreeMap<BatchKey, SealedBatch>,
    cursor: SenderCursor,
    /// Gaps that the uplink has not heard of.
    news: Vec<Shed>,
}

/// Its spool. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct MadeSpool {
    kept: Arc<Mutex<Kept>>,
    trims: BTreeMap<LaneKey, u64>,
}

impl MadeSpool {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn starts(&self) -> Vec<LaneStart> {
        let kept = self.kept();
        let mut lanes: BTreeMap<LaneKey, (u64, u64, u64)> = BTreeMap::new();
        for (key, batch) in &kept.batches {
            let numbers = batch.numbers();
            let lane = lanes.entry(key.lane_key());
            let (_, end, bytes) = lane.or_insert((numbers.start, numbers.end, 0));
            *end = numbers.end;
            *bytes += batch.bytes().len() as u64;
        }
        let starts = lanes.into_iter().map(|(key, (first, end, bytes))| {
            let acked: HeldRanges = kept.cursor.acked(key);
            LaneStart {
                key,
                first,
                end,
                bytes,
                acked: acked.iter().copied().collect(),
            }
        });
        starts.collect()
    }
}

impl Spool for MadeSpool {
    fn read(&mut self, key: BatchKey) -> Result<SealedBatch, SpoolError> {
        let kept = self.kept();
        let before = kept.batches.range(..=key).next_back();
        let there = before.filter(|(at, batch)| {
            at.lane_key() == key.lane_key() && batch.numbers().contains(&key.number)
        });
        there.map(|(_, batch)| batch.clone()).ok_or(SpoolError {
            key,
            reason: "it is not there".to_owned(),
            passing: false,
        })
    }

    fn take_sheds(&mut self) -> Vec<Shed> {
        std::mem::take(&mut self.kept().news)
    }

    fn trim(&mut self, trim: Trim) {
        self.trims.insert(trim.key, trim.below);
    }

    fn save(&mut self, cursor: &SenderCursor) -> Save {
        let (spool, cursor) = (self.clone(), cursor.clone());
        let trims = std::mem::take(&mut self.trims);
        Box::new(move || {
            let mut kept = spool.kept();
            kept.cursor = cursor;
            kept.batches.retain(|key, batch| {
                let below = trims.get(&key.lane_key()).copied().unwrap_or(0);
                batch.numbers().end > below
            });
            true
        })
    }
}

/// A made-up agent.
pub struct Feeder {
    place: usize,
    /// Its spool.
    pub spool: MadeSpool,
    /// Its uplink, while it has power.
    pub uplink: Option<Uplink<MadeSpool>>,
    present: BufferId,
    life: u64,
    sealer: Sealer,
    /// Series that the present buffer has defined.
    defined: u32,
    ends: BTreeMap<Lane, u64>,
    /// Readings made so far.
    seq: i64,
    /// Batches made so far.
    pub made: u32,
}

/// The series of each buffer, at most.
const SERIES: u32 = 5;
/// Definitions in one batch of them.
const DEFINED_AT_ONCE: u32 = 2;

fn device(place: usize) -> String {
    format!("plant/made-{place}")
}

impl Feeder {
    /// One at this place, without power.
    pub fn new(place: usize) -> Self {
        Self {
            place,
            spool: MadeSpool::default(),
            uplink: None,
            present: BufferId([0; 16]),
            life: 0,
            sealer: Sealer::new(),
            defined: 0,
            ends: BTreeMap::new(),
            seq: 0,
            made: 0,
        }
    }

    /// It gets power.
    pub fn start(&mut self, seed: u64) {
        self.life += 1;
        let random = Dice::of(seed, "life", self.place as u64, self.life).bits();
        self.present = BufferId::new(self.life, random);
        (self.defined, self.ends) = (0, BTreeMap::new());
        self.spool.trims.clear();
        let mut sender = Sender::new(self.present, self.spool.starts());
        {
            let kept = self.spool.kept();
            sender.recall(&kept.cursor);
            for gap in kept.batches.values().filter(|batch| batch.gap().is_some()) {
                sender.on_shed(gap.key().lane_key(), gap.numbers(), 0);
            }
        }
        self.spool.kept().news.clear();
        let status = watch::Sender::new(Status::of(&sender));
        let who = ("world", "made up");
        let parts = (sender, self.spool.clone());
        self.uplink = Some(Uplink::new(who, Duration::from_secs(30), parts, status));
    }

    fn spec(&mut self, lane: Lane, numbers: u64) -> Spec {
        let end = self.ends.entry(lane).or_default();
        let number = *end;
        *end += numbers;
        let needs = matches!(lane, Lane::Telemetry | Lane::Series);
        Spec {
            key: BatchKey {
                buffer: self.present,
                lane,
                number,
            },
            sealed_at: EPOCH_US,
            series_needed: if needs { self.defined } else { 0 },
            covers: Vec::new(),
        }
    }

    fn keep(&mut self, batch: SealedBatch, oracle: &mut Oracle) {
        let (key, bytes) = (batch.key(), batch.bytes().len() as u64);
        let (numbers, gap) = (batch.numbers(), batch.gap().is_some());
        oracle.sealed(self.place, &batch);
        oracle.spooled(self.place, &batch);
        self.spool.kept().batches.insert(key, batch);
        let Some(uplink) = &mut self.uplink else {
            return;
        };
        for number in numbers.clone() {
            let key = BatchKey { number, ..key };
            uplink.sealed(Sealed { key, bytes });
        }
        if gap {
            let key = key.lane_key();
            let shed = Shed {
                key,
                numbers,
                bytes: 0,
            };
            self.spool.kept().news.push(shed);
            uplink.look();
        }
    }

    /// Seals a batch, or what it needs first.
    pub fn make(&mut self, seed: u64, oracle: &mut Oracle) {
        let mut dice = Dice::of(seed, "make", self.place as u64, u64::from(self.made));
        self.made += 1;
        if self.defined < SERIES && (self.defined == 0 || dice.one_in(4)) {
            self.define(oracle);
        }
        match dice.below(12) {
            0 => self.event(oracle),
            1 => self.gap(1 + dice.below(3), oracle),
            _ => self.readings(&mut dice, oracle),
        }
    }

    fn define(&mut self, oracle: &mut Oracle) {
        let base = self.defined;
        let end = SERIES.min(base + DEFINED_AT_ONCE);
        let defs: Vec<SeriesDef> = (base..end).map(|n| self.def(n)).collect();
        let spec = self.spec(Lane::Series, 1);
        self.defined = end;
        let batch = self.sealer.series(&spec, base, &defs);
        self.keep(batch.expect("good definitions seal"), oracle);
    }

    fn def(&self, series: u32) -> SeriesDef {
        let metric = format!("m{series}");
        let def = SeriesDef::new(&device(self.place), &metric, Some("Pa"), ValueType::I64);
        def.expect("the names are good")
    }

    /// The next reading, which nobody sent and which is to arrive.
    fn push(&mut self, series: u32, block: &mut Readings, oracle: &mut Oracle) {
        let (seq, def) = (self.seq, self.def(series));
        self.seq += 1;
        let meta = Meta {
            event_time: EPOCH_US + seq * 1_000,
            received_time: EPOCH_US + seq * 1_000,
            device_seq: Some(seq),
            ..Meta::default()
        };
        let value = oracle.made(self.place, (&def.device, &def.metric), seq, meta.event_time);
        block
            .push(SeriesId(series), meta, Value::I64(value))
            .expect("a few readings fit");
    }

    fn readings(&mut self, dice: &mut Dice, oracle: &mut Oracle) {
        let mut block = Readings::new();
        let most = if dice.one_in(4) { 400 } else { 20 };
        for _ in 0..1 + dice.below(most) {
            let series = dice.below(u64::from(self.defined)) as u32;
            self.push(series, &mut block, oracle);
        }
        let spec = self.spec(Lane::Telemetry, 1);
        let batch = self.sealer.readings(&spec, &mut block);
        self.keep(batch.expect("good readings seal"), oracle);
    }

    fn event(&mut self, oracle: &mut Oracle) {
        let mut block = Readings::new();
        self.push(0, &mut block, oracle);
        let spec = self.spec(Lane::Events, 1);
        let batch = self.sealer.named(&spec, &[self.def(0)], &mut block);
        self.keep(batch.expect("good readings seal"), oracle);
    }

    /// Numbers that held nothing that anybody asks for.
    fn gap(&mut self, count: u64, oracle: &mut Oracle) {
        let spec = self.spec(Lane::Telemetry, count);
        let gap = Gap {
            first: spec.key.number,
            count,
            readings: Some(0),
            event_first: EPOCH_US,
            event_last: EPOCH_US,
            reason: GapReason::Shed,
            detail: "made so".to_owned(),
            each: Vec::new(),
        };
        let batch = self.sealer.gap(&spec, &gap);
        self.keep(batch.expect("a good gap seals"), oracle);
    }
}
