//! A log whose quota is small beside what the judging stage's checkpoints take.

use super::*;

const QUOTA: u64 = 512 * 1024;
const SEGMENT: u64 = 32 * 1024;
/// Devices, each with a series: so many that a checkpoint takes more than a third of the quota.
const MANY: u64 = 2_000;
const MESSAGES: u64 = 24_000;

fn open(disk: &Arc<dyn Disk>) -> (Gateway, LogReader) {
    Gateway::open_sized(disk, Made::default(), (SEGMENT, QUOTA / 4, QUOTA))
}

/// A value that nothing makes smaller.
fn noisy(device: u64, seq: i64) -> Vec<u8> {
    let mixed = (device * 31 + seq as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let ts = 1_700_000_000_000_000 + seq * 1_000_000 + (mixed % 997) as i64;
    let value = 20.0 + (mixed >> 40) as f64 / 1e7;
    let payload = format!("{{\"value\":{value},\"seq\":{seq},\"ts\":{ts}}}");
    Sent {
        device,
        seq,
        dup: false,
        will: false,
        received: 1_700_000_000_000_000 + seq * 1_000_000,
        topic: &format!("site/d{device}/m"),
        payload: &payload,
    }
    .write()
}

/// Readings that are sealed.
fn sealed(life: &mut Life) -> u64 {
    let mut decoder = Decoder::new();
    let mut rows = 0;
    for start in life.spool.lane_starts() {
        let LaneKey { buffer, lane } = start.key;
        for number in (0..start.end).filter(|_| lane == Lane::Telemetry) {
            let key = BatchKey {
                buffer,
                lane,
                number,
            };
            let batch = life.spool.read(key).unwrap();
            let Content::Readings(readings) = batch.decode(&mut decoder).unwrap() else {
                panic!("nothing is lost");
            };
            rows += readings.rows().len() as u64;
        }
    }
    rows
}

/// As of 25 MB and more with a quota of 64 MiB: a 128th of both.
#[test]
fn checkpoints_of_a_third_of_the_logs_quota_cost_writes_and_stop_and_lose_nothing() {
    let disk = Arc::new(SimDisk::new(1));
    let dynamic: Arc<dyn Disk> = disk.clone();
    let (mut gateway, wal) = open(&dynamic);
    gateway.begin(wal.clone()).unwrap();
    let (mut checkpoints, mut most_held) = (0, 0);
    let queue = Queue::unread();
    let messages: Vec<u64> = (0..MESSAGES).collect();
    for some in messages.chunks(20) {
        gateway.life.now += 100_000;
        let records = some.iter().map(|number| {
            let (device, seq) = (number % MANY, number / MANY);
            (RecordKind::Message, noisy(device, seq as i64))
        });
        let records: Vec<_> = records.collect();
        gateway.hand_in(records, 0, 0);
        gateway.commit(&mut [0]).expect("the log takes it");
        let now = gateway.life.now();
        if gateway.judging.poll(now, &queue, KernelClock::default) {
            gateway.judging.checkpoint();
            gateway.take_told();
            checkpoints += 1;
        }
        gateway.hear_all();
        gateway.writer.step();
        let held: u64 = wal.segments().iter().map(|segment| segment.bytes).sum();
        most_held = most_held.max(held);
    }
    assert!(checkpoints >= 5, "{checkpoints}");
    let packed = gateway
        .judging
        .judge()
        .known()
        .unwrap()
        .pack()
        .unwrap()
        .len() as u64;
    assert!(packed > QUOTA / 3, "{packed}");
    assert!(most_held <= QUOTA, "{most_held}");
    // What the log should have for this not to cost more than a tenth of it.
    let told = gateway.asks.quota_for_share(QUOTA / 4).unwrap();
    assert!(told >= 40 * QUOTA / 3, "{told}");
    gateway.life.stage.finish(gateway.life.now()).unwrap();
    assert_eq!(sealed(&mut gateway.life), MESSAGES);
    // A life later the log has all that the newest checkpoint does not.
    let counts = gateway.judging.judge().counts();
    drop(gateway);
    let dynamic: Arc<dyn Disk> = Arc::new(disk.kill());
    let (mut gateway, wal) = open(&dynamic);
    let from = gateway.judging.judge().position().unwrap();
    gateway.begin(wal).unwrap();
    let replayed = gateway.judging.judge().counts().judged;
    assert_eq!(counts.judged, MESSAGES);
    // The first records of the life before are no messages.
    assert_eq!(
        from.number + replayed,
        MESSAGES + announcements().len() as u64
    );
}
