//! One gateway: the agent's storage, told the time, from the message to the acknowledged batch.

use crate::disk::Unsynced;
use crate::fleet::{BEGIN_US, Fleet};
use anyhow::Result;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tributary_agent::catalogue::Catalogue;
use tributary_agent::configuration::Texts;
use tributary_agent::deadletter::DeadLetters;
use tributary_agent::decode::Rules;
use tributary_agent::limits::{SEAL_DELAY_US, WAL_SEGMENT_BYTES};
use tributary_agent::seal::{Never, Now, Origin, SealConfig, SealStage, Stores};
use tributary_agent::spool::{self, AgentSpool, SpoolConfig};
use tributary_agent::wal::RecordKind;
use tributary_journal::limits::COMMIT_COST_BYTES;
use tributary_journal::{
    Checkpoints, CommitPolicy, Counts, Disk, Frame, GroupCommit, LifeId, Log, LogConfig, LogKind,
    LogWriter, Meter, MeteredDisk, Open, Wear, WearBudget,
};
use tributary_protocol::frame::HEADER_BYTES;
use tributary_protocol::ids::{BufferId, HashSum};
use tributary_protocol::ranges::Held;
use tributary_protocol::session::{AckedTo, LaneCursor, SenderCursor, Trim};
use tributary_uplink::{Sealed, Spool};

const HOUR_US: i64 = 3_600_000_000;
/// Bytes that the log may take, as its settings say when nobody does.
const WAL_QUOTA_BYTES: u64 = 256 * 1024 * 1024;
/// Sealed batches on their way to the uplink, taken out at once.
const SEALED_QUEUE: usize = 1_024;

/// What is configured.
#[derive(Clone, Copy)]
pub struct Profile {
    name: &'static str,
    delay_ms: i64,
    gb_per_day: Option<u32>,
}

impl Profile {
    /// A delay, and no budget.
    pub const fn plain(name: &'static str, delay_ms: i64) -> Self {
        Self {
            name,
            delay_ms,
            gb_per_day: None,
        }
    }

    /// A delay, and `max_write_gb_per_day`.
    pub const fn budget(name: &'static str, delay_ms: i64, gb_per_day: u32) -> Self {
        Self {
            gb_per_day: Some(gb_per_day),
            ..Self::plain(name, delay_ms)
        }
    }
}

/// What a day costs.
#[derive(Serialize)]
pub struct Figures {
    /// Readings a second.
    pub rate: u32,
    /// What was configured.
    pub profile: &'static str,
    /// Hours that were run.
    pub hours: u32,
    /// Bytes written to files.
    pub written_bytes: f64,
    /// fdatasyncs, and fsyncs of directories.
    pub fdatasyncs: f64,
    /// Bytes that the device writes for it, by the model of `docs/storage.md`.
    pub device_bytes: f64,
    /// Bytes of batches with their frames.
    pub sent_bytes: f64,
    /// What the oldest message of a commit waited, on average.
    pub delay_ms: f64,
    /// What the budget did at the end.
    pub wear: &'static str,
}

/// What was counted up to some moment.
#[derive(Clone, Copy, Default)]
struct Seen {
    counts: Counts,
    sent: u64,
    commits: u64,
    waited_us: u64,
}

/// The gateway.
pub struct Gateway {
    rate: u32,
    profile: Profile,
    fleet: Fleet,
    meter: Meter,
    group: GroupCommit,
    log: LogWriter,
    stage: SealStage,
    spool: AgentSpool,
    sealed: mpsc::Receiver<Sealed>,
    acked: SenderCursor,
    frame: Frame,
    records: Vec<Vec<u8>>,
    device_bytes: u64,
    cursor_due: i64,
    seen: Seen,
}

fn present() -> BufferId {
    BufferId::new(1, 1)
}

impl Gateway {
    /// A gateway with empty storage below `dir`.
    pub fn open(dir: &Path, (rate, sensors): (u32, u32), profile: Profile) -> Result<Self> {
        let meter = Meter::default();
        let disk: Arc<dyn Disk> = Arc::new(MeteredDisk::new(Arc::new(Unsynced), meter.clone()));
        let config = LogConfig {
            segment_bytes: WAL_SEGMENT_BYTES,
            quota_bytes: WAL_QUOTA_BYTES,
            reserve_bytes: 0,
            kind: LogKind::Wal,
        };
        let life = Open::NewLife(LifeId(present().0));
        let wal = Log::open(Arc::clone(&disk), &dir.join("wal"), config, life)?;
        let spool_config = SpoolConfig {
            reserve_bytes: 0,
            ..SpoolConfig::default()
        };
        let spool = spool::open(&disk, &spool::dir(dir), present(), &spool_config)?;
        let stores = Stores {
            judged: None,
            spool: spool.writer,
            covered: spool.covered,
            dead: DeadLetters::open(&disk, &dir.join("deadletter"), present(), 0)?,
            checkpoints: Checkpoints::open(Arc::clone(&disk), &dir.join("checkpoint"), "agent")?,
            texts: Texts::open(disk, &dir.join("config"))?,
            wal: wal.reader,
            catalogue: Catalogue::unkept().metered(meter.clone()),
        };
        let config = SealConfig {
            present: present(),
            delay_us: SEAL_DELAY_US,
            checkpoint_bytes_max: WAL_QUOTA_BYTES / 4,
            wal_quota_bytes: WAL_QUOTA_BYTES,
            pause: Arc::new(Never),
            rules: Rules::builtin(),
            forward: tributary_agent::forward::Forward::default(),
        };
        let (sender, sealed) = mpsc::channel(SEALED_QUEUE);
        let policy = CommitPolicy {
            max_delay_us: profile.delay_ms * 1_000,
            wear: profile.gb_per_day.map(WearBudget::gb_per_day),
            ..CommitPolicy::default()
        };
        Ok(Self {
            rate,
            profile,
            fleet: Fleet::new(sensors),
            device_bytes: meter.counts().device_bytes(),
            meter,
            group: GroupCommit::new(policy),
            log: wal.writer,
            stage: SealStage::new(&config, stores, sender),
            spool: spool.reader,
            sealed,
            acked: SenderCursor::default(),
            frame: Frame::new(),
            records: Vec::new(),
            cursor_due: 0,
            seen: Seen::default(),
        })
    }

    /// Runs so many hours. What a day costs is what they cost, or 24 times the last of them.
    pub fn run(mut self, hours: u32) -> Result<Figures> {
        let whole_day = hours == 24;
        let (mut at, mut number) = (0i64, 0u64);
        let mut before = Seen::default();
        let mut record = Vec::new();
        for hour in 1..=i64::from(hours) {
            if !whole_day {
                before = self.look();
            }
            while at < hour * HOUR_US {
                self.fleet.publish(at, &mut record)?;
                self.frame.push(RecordKind::Message.code(), &record)?;
                self.group.on_entry(record.len(), 1, at);
                self.records.push(std::mem::take(&mut record));
                number += 1;
                let next = number as i64 * 1_000_000 / i64::from(self.rate);
                self.until(at, next)?;
                at = next;
            }
        }
        let after = self.look();
        let times = if whole_day { 1.0 } else { 24.0 };
        let more = |after: u64, before: u64| (after - before) as f64 * times;
        let (a, b) = (after.counts, before.counts);
        let commits = (after.commits - before.commits).max(1) as f64;
        Ok(Figures {
            rate: self.rate,
            profile: self.profile.name,
            hours,
            written_bytes: more(a.written_bytes, b.written_bytes),
            fdatasyncs: more(a.fdatasyncs + a.dir_syncs, b.fdatasyncs + b.dir_syncs),
            device_bytes: more(a.device_bytes(), b.device_bytes()),
            sent_bytes: more(after.sent, before.sent),
            delay_ms: (after.waited_us - before.waited_us) as f64 / commits / 1_000.0,
            wear: match (self.profile.gb_per_day, self.group.wear()) {
                (None, _) => "none",
                (_, Wear::Within) => "met without waiting",
                (_, Wear::Stretched { .. }) => "met by waiting",
                (_, Wear::Exceeded) => "exceeded, and said so",
            },
        })
    }

    fn look(&self) -> Seen {
        Seen {
            counts: self.meter.counts(),
            ..self.seen
        }
    }

    /// What is due from `now` until the next message comes.
    fn until(&mut self, now: i64, next: i64) -> Result<()> {
        loop {
            let commit = self.group.poll_timeout().map(|at| at.max(now));
            let seal = self.stage.poll_timeout().map(|at| at.max(now));
            match (commit, seal) {
                (Some(at), seal) if at < next && seal.is_none_or(|seal| at <= seal) => {
                    self.commit(at)?;
                }
                (_, Some(at)) if at < next => self.tick(at)?,
                _ => return Ok(()),
            }
        }
    }

    fn commit(&mut self, now: i64) -> Result<()> {
        let appended = self.log.append_reserved(&self.frame)?;
        let frame_bytes = self.frame.len_bytes();
        self.group.on_committed(frame_bytes, now);
        let all = self.meter.counts().device_bytes() - self.device_bytes;
        self.device_bytes += all;
        let own = COMMIT_COST_BYTES + frame_bytes as u64;
        self.group.on_write(all.saturating_sub(own), now);
        self.seen.commits += 1;
        self.seen.waited_us += u64::try_from(self.group.delay_us()).unwrap_or(0);
        self.frame.clear();
        let kind = RecordKind::Message.code();
        for (number, record) in (appended.first..).zip(std::mem::take(&mut self.records)) {
            let origin = Origin {
                buffer: present(),
                number,
            };
            self.stage.record(origin, kind, &record, told(now))?;
        }
        self.tick(now)
    }

    fn tick(&mut self, now: i64) -> Result<()> {
        self.stage.tick(told(now))?;
        while let Ok(sealed) = self.sealed.try_recv() {
            self.seen.sent += sealed.bytes + HEADER_BYTES as u64;
            let key = sealed.key.lane_key();
            let below = sealed.key.number + 1;
            let run = Held {
                first: 0,
                end: below,
                sum: HashSum::default(),
            };
            self.spool.trim(Trim { key, below });
            self.acked.lanes.retain(|cursor| cursor.key != key);
            self.acked.lanes.push(LaneCursor {
                key,
                by: AckedTo::Somebody,
                acked: vec![run],
            });
            if now >= self.cursor_due {
                self.spool.save(&self.acked)();
                let interval = tributary_uplink::limits::CURSOR_INTERVAL.as_micros();
                self.cursor_due = now + i64::try_from(interval)?;
            }
        }
        Ok(())
    }
}

fn told(now: i64) -> Now {
    Now {
        monotonic: now,
        wall: BEGIN_US + now,
    }
}
