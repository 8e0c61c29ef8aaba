//! From decoded readings to sealed batches, from there into the spool, and all stages together.

use super::wal::{COMMIT_MESSAGES, push};
use super::{QUOTA_BYTES, open_wal, present};
use crate::counting::CountingDisk;
use crate::input::{BEGIN_US, Fleet, RATE};
use crate::meter::{Meter, Sample};
use anyhow::{Result, ensure};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tributary_agent::catalogue::Catalogue;
use tributary_agent::configuration::Texts;
use tributary_agent::deadletter::DeadLetters;
use tributary_agent::decode::{Reading, Rules};
use tributary_agent::limits::SEAL_DELAY_US;
use tributary_agent::seal::{Lanes, Never, Now, Origin, SealConfig, SealStage, Stores, Taking};
use tributary_agent::spool::{self, SpoolConfig};
use tributary_agent::wal::RecordKind;
use tributary_journal::{Checkpoints, Disk, Frame};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::Lane;
use tributary_protocol::limits::BATCH_READINGS_TARGET;
use tributary_protocol::reading::{Flags, Meta, Value};
use tributary_uplink::Sealed;

/// Batches that are sealed, or appended.
const BATCHES: usize = 250;
/// Messages through all stages.
const MESSAGES: u64 = 2_000_000;
/// Bytes that the log may take, as its settings say when nobody does.
const WAL_QUOTA_BYTES: u64 = 256 * 1024 * 1024;
/// Sealed batches on their way to an uplink; each frame's are taken out at once.
const SEALED_QUEUE: usize = 64;

/// A reading as decoding gives it.
struct Decoded {
    device: String,
    meta: Meta,
    value: f64,
}

/// The spool as it is configured when nobody does, but for its size.
fn spool_config() -> SpoolConfig {
    let mut config = SpoolConfig {
        reserve_bytes: 0,
        ..SpoolConfig::default()
    };
    config.telemetry.quota_bytes = QUOTA_BYTES;
    config
}

fn decoded(fleet: &mut Fleet, meter: &mut Meter) -> Vec<Decoded> {
    let one = |_| {
        let published = fleet.publish();
        meter.count(published.topic, published.payload);
        Decoded {
            device: published.device.to_owned(),
            meta: Meta {
                event_time: published.event_us,
                received_time: published.received_us,
                device_seq: Some(published.seq),
                ..Meta::default()
            },
            value: published.value,
        }
    };
    (0..BATCH_READINGS_TARGET).map(one).collect()
}

/// Fills a batch, message by message, and seals it, with the definitions that it needs first.
fn fill_and_seal(
    lanes: &mut Lanes,
    readings: &[Decoded],
    next: &mut u64,
) -> Result<Vec<SealedBatch>> {
    let mut now = BEGIN_US;
    for one in readings {
        let reading = Reading {
            device: &one.device,
            metric: "temperature",
            unit: "Cel",
            meta: one.meta,
            value: Value::F64(one.value),
        };
        let origin = Origin {
            buffer: present(),
            number: *next,
        };
        *next += 1;
        now = one.meta.received_time;
        let taking = Taking {
            client: None,
            more_flags: Flags::default(),
            now,
        };
        lanes.take(Lane::Telemetry, origin, std::iter::once(reading), taking)?;
    }
    let mut sealed = Vec::new();
    while let Some(definitions) = lanes.seal_series(now)? {
        sealed.push(definitions);
    }
    let readings = lanes.seal_lane(Lane::Telemetry, now)?;
    ensure!(!readings.is_empty(), "nothing was sealed");
    sealed.extend(readings);
    lanes.clear();
    Ok(sealed)
}

/// Decoded readings to sealed batches; nothing is written.
pub fn seal(_: &Path) -> Result<Sample> {
    let (mut fleet, mut meter) = (Fleet::new(), Meter::default());
    let (mut lanes, mut next) = (Lanes::new(present(), SEAL_DELAY_US), 0);
    for _ in 0..BATCHES {
        let readings = decoded(&mut fleet, &mut meter);
        let batches = meter.run(|| fill_and_seal(&mut lanes, &readings, &mut next))?;
        std::hint::black_box(batches);
    }
    meter.finish(&CountingDisk::default())
}

/// Sealed batches into the spool.
pub fn spool_append(dir: &Path) -> Result<Sample> {
    let disk = CountingDisk::default();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut spool = spool::open(&shared, dir, present(), &spool_config())?.writer;
    let (mut fleet, mut meter) = (Fleet::new(), Meter::default());
    let (mut lanes, mut next) = (Lanes::new(present(), SEAL_DELAY_US), 0);
    for _ in 0..BATCHES {
        let readings = decoded(&mut fleet, &mut meter);
        let batches = fill_and_seal(&mut lanes, &readings, &mut next)?;
        meter.run(|| {
            batches
                .into_iter()
                .try_for_each(|batch| spool.append(vec![batch]).map(drop))
        })?;
    }
    meter.finish(&disk)
}

fn open_stage(
    disk: &CountingDisk,
    dir: &Path,
    wal: tributary_journal::LogReader,
) -> Result<(SealStage, mpsc::Receiver<Sealed>)> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let spool = spool::open(&shared, &spool::dir(dir), present(), &spool_config())?;
    let stores = Stores {
        judged: None,
        spool: spool.writer,
        covered: spool.covered,
        dead: DeadLetters::open(&shared, &dir.join("deadletter"), present(), 0)?,
        checkpoints: Checkpoints::open(Arc::clone(&shared), &dir.join("checkpoint"), "agent")?,
        texts: Texts::open(shared, &dir.join("config"))?,
        wal,
        // What it writes does not pass the counted disk; it may be lost, and is small.
        catalogue: Catalogue::unkept(),
    };
    let config = SealConfig {
        forward: tributary_agent::forward::Forward::default(),
        rules: Rules::builtin(),
        present: present(),
        delay_us: SEAL_DELAY_US,
        checkpoint_bytes_max: WAL_QUOTA_BYTES / 4,
        wal_quota_bytes: WAL_QUOTA_BYTES,
        pause: Arc::new(Never),
    };
    let (sealed, sealed_in) = mpsc::channel(SEALED_QUEUE);
    Ok((SealStage::new(&config, stores, sealed), sealed_in))
}

/// Messages through log, decoding, marks, sealing, spool and checkpoints, on one thread; the time
/// that the stages are told goes on by 20 ms a frame.
pub fn everything(dir: &Path) -> Result<Sample> {
    let disk = CountingDisk::default();
    let opened = open_wal(&disk, &dir.join("wal"), present())?;
    let mut log = opened.writer;
    let (mut stage, mut sealed) = open_stage(&disk, dir, opened.reader)?;
    let (mut fleet, mut meter) = (Fleet::new(), Meter::default());
    let (mut frame, mut scratch, mut records) = (Frame::new(), Vec::new(), Vec::new());
    for step in 0..MESSAGES / COMMIT_MESSAGES {
        frame.clear();
        records.clear();
        // Encoding is the listener's, and measured by `wal-paced`.
        for _ in 0..COMMIT_MESSAGES {
            let published = fleet.publish();
            meter.count(published.topic, published.payload);
            push(&mut frame, &published, &mut scratch)?;
            records.push(scratch.clone());
        }
        let at = BEGIN_US + ((step + 1) * COMMIT_MESSAGES * 1_000_000 / RATE) as i64;
        let now = Now {
            monotonic: at,
            wall: at,
        };
        meter.run(|| -> Result<()> {
            let appended = log.append(&frame)?;
            for (number, record) in (appended.first..).zip(&records) {
                let origin = Origin {
                    buffer: present(),
                    number,
                };
                stage.record(origin, RecordKind::Message.code(), record, now)?;
            }
            stage.tick(now)?;
            while sealed.try_recv().is_ok() {}
            Ok(())
        })?;
    }
    meter.finish(&disk)
}
