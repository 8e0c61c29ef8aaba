//! The keeper: every verdict, and what holds after a power cut, a full disk, a lost checkpoint.

use crate::sealed::{BUFFER, gap, readings, series, spoiled};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tributary_aggregator::keeper::{
    Checked, Keeper, KeeperConfig, KeeperParts, Offer, Outcome, StoreError,
};
use tributary_aggregator::lake::LakeStatus;
use tributary_journal::{Disk, LogConfig, LogKind, OsDisk, SimDisk, Survival};
use tributary_protocol::batch::{Content, Decoder, SealedBatch};
use tributary_protocol::ids::*;
use tributary_protocol::message::*;
use tributary_protocol::ranges::Held;

pub fn agent(n: u8) -> AgentId {
    AgentId::new("acme", AgentUuid([n; 16])).unwrap()
}

pub fn config(dir: &Path, segment_bytes: u64) -> KeeperConfig {
    let journal = LogConfig {
        segment_bytes,
        quota_bytes: 64 * segment_bytes,
        reserve_bytes: 0,
        kind: LogKind::Journal,
    };
    KeeperConfig {
        dir: dir.to_owned(),
        journal,
        new_log: LogId([9; 16]),
    }
}

/// A keeper that runs on its thread.
pub struct Kept {
    pub parts: KeeperParts,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

pub const SMALL: u64 = 64 * 1024;

impl Kept {
    pub fn start(disk: &Arc<dyn Disk>, dir: &Path, lake: u64) -> Result<Self, StoreError> {
        Ok(Self::of(Keeper::open(disk, &config(dir, SMALL))?, lake))
    }

    pub fn of(opened: (Keeper, KeeperParts), lake: u64) -> Self {
        Self::before(opened, Arc::new(LakeStatus::standing_at(lake)))
    }

    /// With a lake that goes on.
    pub fn before((keeper, parts): (Keeper, KeeperParts), lake: Arc<LakeStatus>) -> Self {
        let stop = CancellationToken::new();
        let (runtime, token) = (tokio::runtime::Handle::current(), stop.clone());
        let thread = std::thread::spawn(move || keeper.run(&runtime, lake, &token));
        Self {
            parts,
            stop,
            thread,
        }
    }

    pub async fn hello(&self) -> (Welcome, CancellationToken) {
        self.hello_with(Vec::new()).await
    }

    /// Of an agent that says what others hold.
    async fn hello_with(&self, elsewhere: Vec<Elsewhere>) -> (Welcome, CancellationToken) {
        let lane = |lane: Lane| LaneState {
            key: LaneKey {
                buffer: BUFFER,
                lane,
            },
            first: 0,
            end: 1_000,
            open: true,
        };
        let lanes = vec![lane(Lane::Series), lane(Lane::Telemetry)];
        let hello = Hello {
            name: "gate".into(),
            software: "test".into(),
            lanes,
            elsewhere,
        };
        let fence = CancellationToken::new();
        (
            self.parts
                .handle
                .open(agent(1), hello, fence.clone())
                .await
                .unwrap(),
            fence,
        )
    }

    pub async fn offer(&self, session: Session, batch: &SealedBatch) -> Outcome {
        let content = match batch.decode(&mut Decoder::new()) {
            Ok(Content::Readings(block)) => {
                let types = block.rows().iter().map(|row| (row.series, row.value_type));
                Checked::readings(batch, types.collect())
            }
            Ok(Content::Series { base, defs }) => Checked::Series { base, defs },
            Ok(Content::Gap(_)) => Checked::Gap,
            Err(error) => Checked::Bad(error.to_string()),
        };
        let batch = batch.clone();
        let offer = Offer {
            session,
            agent: agent(1),
            batch,
            content,
            in_doubt: false,
            permit: None,
        };
        self.parts.handle.offer(offer).await.unwrap()
    }

    pub fn entries(&self) -> u64 {
        *self.parts.durable.borrow()
    }

    pub async fn end(self) {
        self.stop.cancel();
        tokio::task::spawn_blocking(move || self.thread.join().unwrap())
            .await
            .unwrap();
    }
}

pub fn os() -> Arc<dyn Disk> {
    Arc::new(OsDisk)
}

fn code(outcome: Outcome) -> RejectCode {
    match outcome {
        Outcome::Reject(reject) => reject.code,
        other => panic!("{other:?}"),
    }
}

/// Another journal was lost, and what it held was given up meanwhile: the agent names nobody.
#[tokio::test]
async fn a_gap_of_what_an_agent_does_not_name_any_more_is_stored() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let lane = Lane::Telemetry;
    let other = Elsewhere {
        key: LaneKey {
            buffer: BUFFER,
            lane,
        },
        log: LogId([0x77; 16]),
        ranges: vec![Held {
            first: 0,
            end: 6,
            sum: HashSum::default(),
        }],
    };
    kept.hello_with(vec![other]).await;
    let session = kept.hello().await.0.session;
    assert_eq!(kept.offer(session, &gap(1)).await, Outcome::Durable);
    assert_eq!(kept.entries(), 1, "judged a replay of what is nowhere");
    kept.end().await;
}

#[tokio::test]
async fn every_verdict_has_its_outcome() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    // Too early, then in order, then again.
    let early = readings(0, 2, 10, 0);
    assert_eq!(
        kept.offer(session, &early).await,
        Outcome::Again(AgainReason::SeriesUnknown)
    );
    let beyond = series(1, 2, 1);
    assert_eq!(
        kept.offer(session, &beyond).await,
        Outcome::Again(AgainReason::SeriesUnknown)
    );
    assert_eq!(kept.entries(), 0);
    assert_eq!(
        kept.offer(session, &series(0, 0, 2)).await,
        Outcome::Durable
    );
    assert_eq!(kept.offer(session, &early).await, Outcome::Durable);
    assert_eq!(kept.offer(session, &gap(1)).await, Outcome::Durable);
    assert_eq!(kept.entries(), 3);
    assert_eq!(kept.offer(session, &early).await, Outcome::Durable);
    assert_eq!(
        kept.entries(),
        3,
        "a replay is acknowledged and not written"
    );
    // Another content under a held number.
    let other = readings(0, 2, 10, 77);
    assert_eq!(
        code(kept.offer(session, &other).await),
        RejectCode::Conflict
    );
    assert_eq!(
        std::fs::read_dir(dir.path().join("quarantine"))
            .unwrap()
            .count(),
        1
    );
    // More holes than a ledger keeps.
    for number in (3..).step_by(2).take(64) {
        assert_eq!(
            kept.offer(session, &readings(number, 1, 1, 0)).await,
            Outcome::Durable
        );
    }
    let hole = readings(5_000, 1, 1, 0);
    assert_eq!(
        kept.offer(session, &hole).await,
        Outcome::Again(AgainReason::Holes)
    );
    kept.end().await;
}

#[tokio::test]
async fn a_newer_session_fences_the_older_one() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let (old, fence) = kept.hello().await;
    let (new, _) = kept.hello().await;
    assert!(fence.is_cancelled());
    assert!(new.session > old.session);
    assert_eq!(
        code(kept.offer(old.session, &gap(0)).await),
        RejectCode::Fenced
    );
    assert_eq!(kept.offer(new.session, &gap(0)).await, Outcome::Durable);
    kept.end().await;
}

#[tokio::test]
async fn a_batch_that_never_verifies_is_held_as_quarantined_at_the_third_try() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    let bad = spoiled(0, "");
    for _ in 0..2 {
        assert_eq!(
            kept.offer(session, &bad).await,
            Outcome::Again(AgainReason::Damaged)
        );
        assert_eq!(kept.entries(), 0);
    }
    assert_eq!(kept.offer(session, &bad).await, Outcome::Durable);
    assert_eq!(
        std::fs::read_dir(dir.path().join("quarantine"))
            .unwrap()
            .count(),
        1
    );
    kept.end().await;
    // The number stays held, and is never offered to a sink as rows.
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let (welcome, _) = kept.hello().await;
    assert_eq!(welcome.lanes[1].ranges[0].end, 1);
    assert_eq!(kept.offer(welcome.session, &bad).await, Outcome::Durable);
    assert_eq!(kept.entries(), 1);
    kept.end().await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut() {
    for seed in 0..8 {
        let dir = TempDir::new().unwrap();
        let sim = SimDisk::new(seed);
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let kept = Kept::start(&disk, dir.path(), 0).unwrap();
        let session = kept.hello().await.0.session;
        assert_eq!(
            kept.offer(session, &series(0, 0, 3)).await,
            Outcome::Durable
        );
        for number in 0..40 {
            let batch = readings(number, 3, 200, 0);
            assert_eq!(kept.offer(session, &batch).await, Outcome::Durable);
        }
        let survival = if seed % 2 == 0 {
            Survival::Nothing
        } else {
            Survival::RandomHalf(seed)
        };
        let after: Arc<dyn Disk> = Arc::new(sim.crash(survival));
        kept.end().await;
        let kept = Kept::start(&after, dir.path(), 0).unwrap();
        assert_eq!(kept.entries(), 41);
        assert_eq!(
            kept.parts.recovered.doubled + kept.parts.recovered.damaged,
            0
        );
        let (welcome, _) = kept.hello().await;
        assert_eq!(welcome.lanes[0].series_known, 3);
        let hashes = (0..40).map(|number| readings(number, 3, 200, 0).hash());
        let sum = hashes.fold(HashSum::default(), HashSum::with);
        let held = welcome.lanes[1].ranges[0];
        assert_eq!((held.first, held.end, held.sum), (0, 40, sum));
        for number in 0..41 {
            let batch = readings(number, 3, 200, 0);
            assert_eq!(kept.offer(welcome.session, &batch).await, Outcome::Durable);
        }
        assert_eq!(kept.entries(), 42, "only the batch that was new is written");
        kept.end().await;
    }
}

#[tokio::test]
async fn a_disk_that_fails_costs_no_acknowledged_batch() {
    let dir = TempDir::new().unwrap();
    let sim = SimDisk::new(1);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let kept = Kept::start(&disk, dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    assert_eq!(kept.offer(session, &gap(0)).await, Outcome::Durable);
    sim.fail_syncs(1_000);
    assert_eq!(
        kept.offer(session, &gap(1)).await,
        Outcome::Again(AgainReason::Busy)
    );
    assert!(kept.parts.handle.status().trouble().is_some());
    sim.fail_syncs(0);
    assert_eq!(kept.hello().await.0.lanes[1].ranges[0].end, 1);
    let session = kept.hello().await.0.session;
    assert_eq!(kept.offer(session, &gap(1)).await, Outcome::Durable);
    assert_eq!(kept.parts.handle.status().trouble(), None);
    kept.end().await;
}

/// Fills several segments, all of them in the lake.
async fn trimmed(dir: &TempDir) -> u64 {
    let kept = Kept::start(&os(), dir.path(), u64::MAX).unwrap();
    let session = kept.hello().await.0.session;
    assert_eq!(
        kept.offer(session, &series(0, 0, 3)).await,
        Outcome::Durable
    );
    for number in 0..60 {
        let batch = readings(number, 3, 1_000, 0);
        assert_eq!(kept.offer(session, &batch).await, Outcome::Durable);
    }
    let first = kept.parts.reader.lives()[0].first;
    kept.end().await;
    first
}

pub fn checkpoints(dir: &TempDir) -> Vec<std::path::PathBuf> {
    let listed = std::fs::read_dir(dir.path().join("ledger")).unwrap();
    let paths = listed.map(|entry| entry.unwrap().path());
    // A spare file is room for the next one.
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_none_or(|end| end != "spare"))
        .collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn the_ledger_outlives_the_segments_it_came_from() {
    let dir = TempDir::new().unwrap();
    assert!(
        trimmed(&dir).await > 0,
        "nothing was trimmed: the test shows nothing"
    );
    // The newer checkpoint is unreadable: the older one and what follows it say the same.
    for spoil_newest in [false, true] {
        if spoil_newest {
            let newest = checkpoints(&dir).pop().unwrap();
            let mut bytes = std::fs::read(&newest).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&newest, bytes).unwrap();
        }
        let kept = Kept::start(&os(), dir.path(), 0).unwrap();
        let (welcome, _) = kept.hello().await;
        assert_eq!(welcome.lanes[0].series_known, 3);
        assert_eq!(welcome.lanes[1].ranges[0].end, 60);
        let before = kept.entries();
        let old = readings(0, 3, 1_000, 0);
        assert_eq!(kept.offer(welcome.session, &old).await, Outcome::Durable);
        assert_eq!(
            kept.entries(),
            before,
            "a batch whose segment is gone is still a replay"
        );
        kept.end().await;
    }
    for checkpoint in checkpoints(&dir) {
        std::fs::remove_file(checkpoint).unwrap();
    }
    let Err(error) = Kept::start(&os(), dir.path(), 0) else {
        panic!("it started")
    };
    assert!(matches!(error, StoreError::NoCheckpoint { .. }), "{error}");
}

#[tokio::test]
async fn nothing_is_trimmed_that_the_lake_has_not_taken() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    assert_eq!(
        kept.offer(session, &series(0, 0, 3)).await,
        Outcome::Durable
    );
    for number in 0..60 {
        let batch = readings(number, 3, 1_000, 0);
        assert_eq!(kept.offer(session, &batch).await, Outcome::Durable);
    }
    assert!(kept.parts.reader.segments().len() > 4);
    assert_eq!(kept.parts.reader.lives()[0].first, 0);
    kept.end().await;
}
