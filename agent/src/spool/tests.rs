//! The spool: what is damaged is declared, what it covers is found again.

mod cursor_lags;
mod definitions;
mod gap_log;
mod giving_way;

use super::shed::gap_for;
use super::*;
use crate::limits::BATCH_READ_TRIES;
use std::sync::Arc;
use tributary_journal::SimDisk;
use tributary_protocol::batch::{Content, Decoder, Kind, SealedBatch, Sealer, Spec};
use tributary_protocol::ids::{HashSum, LogId, SeriesId};
use tributary_protocol::ranges::Held;
use tributary_protocol::reading::{Meta, Readings, Value};
use tributary_protocol::session::{AckedTo, Journal, LaneCursor, Place, SenderCursor};
use tributary_uplink::Spool;

/// Quotas of so many MiB, and no reserve.
fn config(mib: u64) -> SpoolConfig {
    let mut config = SpoolConfig {
        reserve_bytes: 0,
        ..SpoolConfig::default()
    };
    config.telemetry.quota_bytes = mib << 20;
    config
}

fn batch(buffer: BufferId, number: u64) -> SealedBatch {
    let mut readings = Readings::new();
    for value in 0..50 {
        let value = Value::F64(f64::from(value) * 1.37);
        readings.push(SeriesId(0), Meta::default(), value).unwrap();
    }
    let key = BatchKey {
        buffer,
        lane: Lane::Telemetry,
        number,
    };
    let spec = Spec {
        key,
        sealed_at: 1,
        series_needed: 1,
        covers: Vec::new(),
    };
    Sealer::new().readings(&spec, &mut readings).unwrap()
}

#[test]
fn a_damaged_batch_is_declared_under_its_own_number_the_same_each_time() {
    let sim = SimDisk::new(1);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let dir = Path::new("/spool");
    let present = BufferId::new(1, 1);
    let mut opened = open(&disk, dir, present, &config(64)).unwrap();
    let batches: Vec<_> = (0..3).map(|number| batch(present, number)).collect();
    for batch in &batches {
        opened.writer.append(vec![batch.clone()]).unwrap();
    }
    let segment = opened.reader.readers[&Lane::Telemetry]
        .segments()
        .remove(0)
        .path;
    let bytes = sim.contents(&segment).unwrap();
    let needle = batches[1].bytes();
    let at = bytes
        .windows(needle.len())
        .position(|window| window == &needle[..])
        .unwrap();
    sim.flip_bit(&segment, at as u64 + 60, 3);

    let key = batches[1].key();
    // A disk that fails for a moment declares nothing.
    for _ in 1..BATCH_READ_TRIES {
        assert!(opened.reader.read(key).unwrap_err().passing);
    }
    let gap = opened.reader.read(key).unwrap();
    assert_eq!((gap.kind(), gap.key()), (Kind::Gap, key));
    assert_eq!(gap_for(key, None).unwrap().bytes(), gap.bytes());
    let Content::Gap(what) = gap.decode(&mut Decoder::new()).unwrap() else {
        panic!("a gap holds a gap");
    };
    assert_eq!((what.first, what.count, what.readings), (1, 1, None));
    for whole in [0, 2] {
        let read = opened.reader.read(batches[whole].key()).unwrap();
        assert_eq!(read.bytes(), batches[whole].bytes());
    }
}

#[test]
fn what_covers_most_is_found_again() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(2));
    let dir = Path::new("/spool");
    let first = BufferId::new(1, 1);
    let mut opened = open(&disk, dir, first, &config(64)).unwrap();
    let key = BatchKey {
        buffer: first,
        lane: Lane::Telemetry,
        number: 0,
    };
    let covers = vec![tributary_protocol::batch::Cover {
        buffer: first,
        first: 5,
        count: 7,
    }];
    let spec = Spec {
        key,
        sealed_at: 1,
        series_needed: 1,
        covers,
    };
    let mut readings = Readings::new();
    readings
        .push(SeriesId(0), Meta::default(), Value::Bool(true))
        .unwrap();
    let sealed = Sealer::new().readings(&spec, &mut readings).unwrap();
    opened.writer.append(vec![sealed]).unwrap();
    drop(opened);
    let opened = open(&disk, dir, BufferId::new(2, 9), &config(64)).unwrap();
    let covered = Origin {
        buffer: first,
        number: 12,
    };
    assert_eq!(opened.covered.least(), Some(covered));
    assert_eq!(opened.sender.backlog().0, 1);
}

#[test]
fn who_acknowledged_what_outlives_the_process() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(3));
    let dir = Path::new("/spool");
    let first = BufferId::new(1, 1);
    let mut opened = open(&disk, dir, first, &config(64)).unwrap();
    let batches: Vec<_> = (0..3).map(|number| batch(first, number)).collect();
    for batch in &batches {
        opened.writer.append(vec![batch.clone()]).unwrap();
    }
    let journal = Journal {
        place: Place::of("aggregator:7443"),
        log: LogId([9; 16]),
    };
    let acked = |batch: &SealedBatch| Held {
        first: batch.key().number,
        end: batch.key().number + 1,
        sum: HashSum::default().with(batch.hash()),
    };
    let lane = LaneCursor {
        key: batches[0].key().lane_key(),
        by: AckedTo::Journal(journal),
        acked: [0, 2].map(|number: usize| acked(&batches[number])).into(),
    };
    let cursor = SenderCursor {
        lanes: vec![lane],
        sent_to: vec![journal],
    };
    opened.reader.save(&cursor)();
    drop(opened);
    let opened = open(&disk, dir, BufferId::new(2, 2), &config(64)).unwrap();
    assert_eq!(opened.sender.cursor(), cursor);
    assert_eq!(opened.sender.backlog().0, 1);
}
