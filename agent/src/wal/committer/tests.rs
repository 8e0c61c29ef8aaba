//! Over a log on a disk that fails, by a clock that stands: when a frame closes, what is in it, and
//! who has heard by then.

use super::*;
use crate::decode::UserProperties;
use crate::wal::{Durable, Message, Qos};
use std::path::Path;
use std::sync::Mutex;
use tributary_journal::{
    Disk, LifeId, Log, LogConfig, LogKind, LogReader, LogWriter, Open, SimDisk,
};

/// Writes down what it hears, and what the log held by then.
struct Hearing {
    log: LogReader,
    heard: Mutex<Vec<(u64, u64)>>,
}

impl Durable for Hearing {
    fn durable(&self, upto: u64) {
        let held = self.log.lives().last().map_or(0, |span| span.end);
        self.heard.lock().unwrap().push((upto, held));
    }
}

struct Bench {
    disk: SimDisk,
    committer: Committer<LogWriter>,
    queue: Queue,
    source: Arc<Hearing>,
    sent: u64,
}

fn bench(policy: CommitPolicy) -> Bench {
    let disk = SimDisk::new(1);
    let dynamic: Arc<dyn Disk> = Arc::new(disk.clone());
    let config = LogConfig {
        segment_bytes: 1 << 20,
        quota_bytes: 4 << 20,
        reserve_bytes: 0,
        kind: LogKind::Wal,
    };
    let life = Open::NewLife(LifeId([1; 16]));
    let log = Log::open(dynamic, Path::new("/wal"), config, life).unwrap();
    let (committer, queue) = Committer::new(log.writer, policy, Meter::default());
    let source = Arc::new(Hearing {
        log: log.reader,
        heard: Mutex::default(),
    });
    Bench {
        disk,
        committer,
        queue,
        source,
        sent: 0,
    }
}

impl Bench {
    fn push(&mut self, payload_bytes: usize) {
        self.sent += 1;
        let mut batch = Batch::new();
        batch.message(&Message {
            session: 1,
            qos: Qos::AtLeastOnce,
            dup: false,
            retain: false,
            v5: false,
            will: false,
            broker: false,
            packet_id: 1,
            received_time: 1,
            topic: "a",
            properties: UserProperties::NONE,
            payload: &vec![b'1'; payload_bytes],
        });
        batch.tell(self.source.clone(), self.sent);
        let room = self.queue.try_room(batch.len_bytes()).unwrap();
        self.queue.push(batch, room);
    }

    /// What was heard since this was asked last, and how much the log held by then.
    fn heard(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.source.heard.lock().unwrap())
    }

    fn state(&self) -> StorageState {
        *self.committer.state().borrow()
    }
}

fn committed(polled: Polled) -> (u64, u32) {
    match polled {
        Polled::Committed(frame) => (frame.first, frame.count),
        other => panic!("{other:?}"),
    }
}

fn until(polled: Polled) -> i64 {
    match polled {
        Polled::Until(at) => at,
        other => panic!("{other:?}"),
    }
}

fn refused(polled: Polled) -> i64 {
    match polled {
        Polled::Refused(at) => at,
        other => panic!("{other:?}"),
    }
}

const POLICY: CommitPolicy = CommitPolicy {
    max_delay_us: 20_000,
    frame_bytes: 1_000,
    frame_readings: 100,
    wear: None,
};

#[test]
fn a_frame_closes_by_its_oldest_batch_or_by_its_bytes_and_nobody_hears_before() {
    let mut bench = bench(POLICY);
    assert!(matches!(bench.committer.poll(0), Polled::Idle));
    assert_eq!(bench.committer.missing_bytes(), 1);
    bench.push(10);
    assert_eq!(until(bench.committer.poll(5_000)), 25_000);
    let missing = bench.committer.missing_bytes();
    assert!((900..1_000).contains(&missing), "{missing}");
    bench.push(10);
    assert_eq!(until(bench.committer.poll(24_999)), 25_000);
    assert_eq!(bench.heard(), []);
    assert_eq!(committed(bench.committer.poll(25_000)), (0, 2));
    assert_eq!(bench.heard(), [(1, 2), (2, 2)], "in their order, durable");
    assert!(matches!(bench.committer.poll(25_000), Polled::Idle));
    bench.push(1_000);
    assert_eq!(committed(bench.committer.poll(30_000)), (2, 1));
    assert_eq!(bench.heard(), [(3, 3)]);
}

#[test]
fn what_storage_refuses_is_tried_again_ever_less_often_and_takes_nothing_in_meanwhile() {
    let mut bench = bench(CommitPolicy::low_latency());
    bench.disk.fail_syncs(u32::MAX);
    bench.push(10);
    let (mut now_us, mut waits) = (7, Vec::new());
    for _ in 0..3 {
        let at = refused(bench.committer.poll(now_us));
        assert_eq!(bench.state(), StorageState::Failed);
        bench.push(10);
        assert_eq!(until(bench.committer.poll(at - 1)), at, "not before");
        waits.push(at - now_us);
        now_us = at;
    }
    assert_eq!(waits, [50_000, 100_000, 200_000]);
    assert_eq!(bench.heard(), []);
    bench.disk.fail_syncs(0);
    assert_eq!(committed(bench.committer.poll(now_us)), (0, 1), "the same");
    assert_eq!(
        (bench.heard(), bench.state()),
        (vec![(1, 1)], StorageState::Ok)
    );
    assert_eq!(committed(bench.committer.poll(now_us)), (1, 3));
    assert_eq!(bench.heard(), [(2, 4), (3, 4), (4, 4)]);
    // The next time that it fails, it is as if it had never failed.
    bench.disk.fail_syncs(u32::MAX);
    bench.push(10);
    assert_eq!(refused(bench.committer.poll(now_us)) - now_us, 50_000);
}

#[test]
fn a_log_that_is_full_says_so() {
    let mut bench = bench(CommitPolicy::low_latency());
    bench.push(60_000);
    while let Polled::Committed(_) = bench.committer.poll(0) {
        bench.push(60_000);
    }
    assert_eq!(bench.state(), StorageState::Full);
}

#[test]
fn what_waits_when_the_queue_is_closed_is_made_durable_at_once() {
    let mut bench = bench(POLICY);
    bench.push(10);
    until(bench.committer.poll(0));
    bench.push(10);
    bench.queue.close();
    assert_eq!(committed(bench.committer.poll(1)), (0, 2));
    assert!(matches!(bench.committer.poll(1), Polled::Closed));
}

#[test]
fn what_storage_refuses_when_the_queue_is_closed_is_never_acknowledged() {
    let mut bench = bench(CommitPolicy::low_latency());
    bench.disk.fail_syncs(u32::MAX);
    bench.push(10);
    let at = refused(bench.committer.poll(0));
    bench.queue.close();
    assert!(matches!(bench.committer.poll(at), Polled::Closed));
    assert_eq!(bench.heard(), []);
}

#[test]
fn a_frame_takes_what_it_has_room_for_and_leaves_the_rest() {
    let mut bench = bench(CommitPolicy::low_latency());
    let pushed = 3 * FRAME_TAKE_BYTES / 60_000;
    for _ in 0..pushed {
        bench.push(60_000);
    }
    bench.queue.close();
    let mut records = Vec::new();
    while let Polled::Committed(frame) = bench.committer.poll(0) {
        records.push(frame.count as usize);
    }
    assert_eq!(records.iter().sum::<usize>(), pushed);
    assert!(
        records
            .iter()
            .all(|count| count * 60_000 <= FRAME_TAKE_BYTES)
    );
}
