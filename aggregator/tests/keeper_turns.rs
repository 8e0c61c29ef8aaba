//! The keeper without its thread: one thread hands in, gives it turns at made-up times, and
//! collects, over a disk that fails.

use crate::keeper::{SMALL, agent, config};
use crate::sealed::{BUFFER, alerts, bulky, gap, key, of_messages, readings, series, series_of};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio_util::sync::CancellationToken;
use tributary_aggregator::clock::Now;
use tributary_aggregator::keeper::record::{self, RecordKind};
use tributary_aggregator::keeper::{Checked, Keeper, KeeperParts, Offer, Outcome, StatusReport};
use tributary_aggregator::lake::LakeStatus;
use tributary_aggregator::limits::{
    APPEND_RETRY_MS, COMMIT_BATCHES_MAX, COMMIT_BYTES_MAX, KEEPER_QUEUE_MAX, KEEPER_TIDY_MS,
    RECORD_HEADER_BYTES_MAX,
};
use tributary_journal::sim_disk::After;
use tributary_journal::{Disk, LifeId, SimDisk, Survival};
use tributary_protocol::batch::{Content, Decoder, SealedBatch};
use tributary_protocol::ids::*;
use tributary_protocol::limits::VERIFY_TRIES_MAX;
use tributary_protocol::message::*;
use tributary_protocol::reading::Value;

pub const DIR: &str = "/aggregator";
const WALL_US: i64 = 1_800_000_000_000_000;

pub fn at(us: i64) -> Now {
    Now {
        at: us,
        wall_us: WALL_US + us,
    }
}

fn us(ms: u64) -> i64 {
    ms as i64 * 1_000
}

/// A keeper that only ever does something when it is given a turn.
pub struct World {
    pub keeper: Keeper,
    pub parts: KeeperParts,
}

impl World {
    pub fn open(disk: &SimDisk) -> Self {
        Self::of(disk, SMALL)
    }

    fn of(disk: &SimDisk, segment_bytes: u64) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let config = config(Path::new(DIR), segment_bytes);
        let (keeper, parts) = Keeper::open(&disk, &config).unwrap();
        Self { keeper, parts }
    }

    pub fn hello(&mut self, now: i64) -> (Welcome, CancellationToken) {
        self.hello_filling(BUFFER, now)
    }

    /// Of an agent that fills this buffer.
    pub fn hello_filling(&mut self, buffer: BufferId, now: i64) -> (Welcome, CancellationToken) {
        let lane = |lane: Lane| LaneState {
            key: LaneKey { buffer, lane },
            first: 0,
            end: 1_000,
            open: true,
        };
        let hello = Hello {
            name: "gate".into(),
            software: "test".into(),
            lanes: vec![lane(Lane::Series), lane(Lane::Telemetry)],
            ..Hello::default()
        };
        let fence = CancellationToken::new();
        let handle = &self.parts.handle;
        let mut answer = handle.try_open(agent(1), hello, fence.clone()).unwrap();
        assert!(answer.try_recv().is_err(), "answered before its turn");
        self.keeper.turn(at(now));
        (answer.try_recv().unwrap(), fence)
    }

    pub fn hand_in(&self, session: Session, batch: &SealedBatch) -> oneshot::Receiver<Outcome> {
        let content = match batch.decode(&mut Decoder::new()) {
            Ok(Content::Readings(block)) => {
                let types = block.rows().iter().map(|row| (row.series, row.value_type));
                Checked::readings(batch, types.collect())
            }
            Ok(Content::Series { base, defs }) => Checked::Series { base, defs },
            Ok(Content::Gap(_)) => Checked::Gap,
            Err(error) => Checked::Bad(error.to_string()),
        };
        self.hand_in_as(session, batch, content)
    }

    fn hand_in_as(
        &self,
        session: Session,
        batch: &SealedBatch,
        content: Checked,
    ) -> oneshot::Receiver<Outcome> {
        let offer = Offer {
            session,
            agent: agent(1),
            batch: batch.clone(),
            content,
            in_doubt: false,
            permit: None,
        };
        self.parts.handle.try_offer(offer).unwrap()
    }

    /// Hands in, gives a turn, and collects.
    pub fn offer(&mut self, session: Session, batch: &SealedBatch, now: i64) -> Outcome {
        let mut answer = self.hand_in(session, batch);
        self.keeper.turn(at(now));
        answer.try_recv().unwrap()
    }

    /// What the keeper says when it is asked.
    pub fn report(&mut self) -> StatusReport {
        let mut answer = self.parts.handle.try_report().unwrap();
        self.keeper.turn(at(0));
        answer.try_recv().unwrap()
    }

    pub fn entries(&self) -> u64 {
        *self.parts.durable.borrow()
    }

    /// Which batches of readings stand in the journal, and whether each is in doubt.
    fn readings(&self) -> Vec<(BatchKey, bool)> {
        let (mut entries, life) = (Vec::new(), LifeId(self.parts.log.0));
        let reader = &self.parts.reader;
        reader.read(life, 0, 1 << 20, &mut entries).unwrap();
        let records = entries.into_iter().map(|entry| {
            let record = record::parse(RecordKind::Batch, entry.bytes).unwrap();
            (
                SealedBatch::open(record.sealed).unwrap().key(),
                record.in_doubt,
            )
        });
        records
            .filter(|(key, _)| key.lane != Lane::Series)
            .collect()
    }

    fn first(&self) -> u64 {
        self.parts.reader.lives()[0].first
    }
}

#[test]
fn what_is_handed_in_is_answered_by_a_turn_and_by_nothing_else() {
    let mut world = World::open(&SimDisk::new(1));
    let session = world.hello(0).0.session;
    let batches = [
        series(0, 0, 2),
        readings(0, 2, 10, 0),
        readings(1, 2, 10, 0),
    ];
    let mut answers = batches
        .each_ref()
        .map(|batch| world.hand_in(session, batch));
    assert_eq!(world.entries(), 0);
    assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()));
    let until = world.keeper.turn(at(70));
    for answer in &mut answers {
        assert_eq!(answer.try_recv().unwrap(), Outcome::Durable);
    }
    assert_eq!((world.entries(), until), (3, 70 + us(KEEPER_TIDY_MS)));

    // Whoever reads the journal learns the time that the turn was told.
    let mut entries = Vec::new();
    let life = LifeId(world.parts.log.0);
    world
        .parts
        .reader
        .read(life, 0, 1 << 20, &mut entries)
        .unwrap();
    let record = record::parse(RecordKind::Batch, entries.remove(2).bytes).unwrap();
    assert_eq!(record.accepted_at, WALL_US + 70);

    let (_, fence) = world.hello(80);
    assert!(!fence.is_cancelled());
    world.hello(90);
    assert!(fence.is_cancelled(), "a newer session has begun");
}

#[test]
fn a_turn_takes_one_frame_and_asks_for_another_at_once() {
    let mut world = World::of(&SimDisk::new(1), 4 * SMALL);
    let session = world.hello(0).0.session;
    let count = COMMIT_BATCHES_MAX as u64 + 3;
    let mut answers: Vec<_> = (0..count)
        .map(|n| world.hand_in(session, &gap(n)))
        .collect();
    assert_eq!(world.keeper.turn(at(5)), 5, "more waits");
    assert_eq!(world.entries(), COMMIT_BATCHES_MAX as u64);
    assert_eq!(world.keeper.turn(at(5)), 5 + us(KEEPER_TIDY_MS));
    assert_eq!(world.entries(), count);
    let durable = |answer: &mut oneshot::Receiver<_>| answer.try_recv() == Ok(Outcome::Durable);
    assert!(answers.iter_mut().all(durable));
}

#[test]
fn the_queue_is_bounded_and_says_so() {
    let world = World::open(&SimDisk::new(1));
    let session = Session(1);
    let _answers: Vec<_> = (0..KEEPER_QUEUE_MAX as u64)
        .map(|n| world.hand_in(session, &gap(n)))
        .collect();
    let offer = Offer {
        session,
        agent: agent(1),
        batch: gap(9_000),
        content: Checked::Gap,
        in_doubt: false,
        permit: None,
    };
    assert!(world.parts.handle.try_offer(offer).is_err());
}

#[test]
fn after_a_failed_append_nothing_is_taken_or_said_until_its_time() {
    let disk = SimDisk::new(1);
    let mut world = World::open(&disk);
    let session = world.hello(0).0.session;
    disk.fail_syncs(1_000);
    let mut refused = world.hand_in(session, &gap(0));
    let until = world.keeper.turn(at(100));
    assert_eq!(until, 100 + us(APPEND_RETRY_MS));
    assert!(world.parts.handle.status().trouble().is_some());

    // The disk is well again, and the keeper does not know it yet.
    disk.fail_syncs(0);
    let mut waiting = world.hand_in(session, &gap(1));
    for now in [100, 5_000, until - 1] {
        assert_eq!(world.keeper.turn(at(now)), until);
        assert!(refused.try_recv().is_err() && waiting.try_recv().is_err());
        assert_eq!(world.entries(), 0);
    }
    world.keeper.turn(at(until));
    let busy = Outcome::Again(AgainReason::Busy);
    assert_eq!(refused.try_recv().unwrap(), busy);
    assert_eq!(waiting.try_recv().unwrap(), Outcome::Durable);
    assert_eq!(world.offer(session, &gap(0), until), Outcome::Durable);
    assert_eq!(world.entries(), 2, "each once");
    assert_eq!(world.parts.handle.status().trouble(), None);
}

#[test]
fn a_frame_that_fails_in_the_middle_of_a_turn_keeps_what_came_behind_it() {
    let disk = SimDisk::new(1);
    let mut world = World::open(&disk);
    let session = world.hello(0).0.session;
    disk.fail_syncs(1_000);
    // Definitions end the frame; what is behind them waits with its place in the queue.
    let mut defs = world.hand_in(session, &series(0, 0, 2));
    let mut using = world.hand_in(session, &readings(0, 2, 10, 0));
    let until = world.keeper.turn(at(0));
    disk.fail_syncs(0);
    world.keeper.turn(at(until));
    assert_eq!(defs.try_recv().unwrap(), Outcome::Again(AgainReason::Busy));
    // Its definitions are not held: it was judged after they had failed, and not beside them.
    let unknown = Outcome::Again(AgainReason::SeriesUnknown);
    assert_eq!(using.try_recv().unwrap(), unknown);
    assert_eq!(
        world.offer(session, &series(0, 0, 2), until),
        Outcome::Durable
    );
    assert_eq!(
        world.offer(session, &readings(0, 2, 10, 0), until),
        Outcome::Durable
    );
    assert_eq!(world.entries(), 2);
}

/// Batches that fill a frame so far that more is taken, and [`bulky`] definitions find no room.
fn nearly_full() -> Vec<SealedBatch> {
    let text = |n: u64| -> String {
        let mut state = n;
        let letters = (0..48 * 1024).map(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            char::from(b'!' + ((state >> 33) % 94) as u8)
        });
        letters.collect()
    };
    let (mut batches, mut bytes) = (Vec::new(), 0);
    loop {
        let batch = alerts(
            batches.len() as u64,
            &[Value::Str(&text(batches.len() as u64))],
        );
        bytes += batch.bytes().len() + RECORD_HEADER_BYTES_MAX;
        if bytes >= COMMIT_BYTES_MAX {
            return batches;
        }
        batches.push(batch);
    }
}

#[test]
fn appends_that_fail_within_one_turn_leave_nothing_pending_and_nobody_without_an_answer() {
    let (filling, definitions) = (nearly_full(), bulky(0));
    let (mut failed, mut taken) = (0, 0);
    // So many syncs fail that the first append does, and the second with it or not.
    for syncs in 1..=8 {
        let disk = SimDisk::new(1);
        let mut world = World::of(&disk, 64 * SMALL);
        let session = world.hello(0).0.session;
        disk.fail_syncs(syncs);
        let all: Vec<_> = filling.iter().chain([&definitions]).collect();
        let mut answers: Vec<_> = all.iter().map(|it| world.hand_in(session, it)).collect();
        let until = world.keeper.turn(at(0));
        if world.entries() > 0 {
            taken += 1;
            assert_eq!(world.entries(), all.len() as u64, "{syncs}");
            continue;
        }
        failed += 1;
        assert_eq!(until, us(APPEND_RETRY_MS), "{syncs}");
        for answer in &mut answers {
            let early = answer.try_recv();
            assert_eq!(early, Err(TryRecvError::Empty), "{syncs}");
        }
        disk.fail_syncs(0);
        world.keeper.turn(at(until));
        for answer in &mut answers {
            let busy = Outcome::Again(AgainReason::Busy);
            assert_eq!(answer.try_recv(), Ok(busy), "{syncs}");
        }
        for batch in &all {
            let outcome = world.offer(session, batch, until);
            assert_eq!(outcome, Outcome::Durable, "{syncs}");
        }
        assert_eq!(world.entries(), all.len() as u64, "each once, {syncs}");
    }
    assert!(failed > 2 && taken > 0, "{failed} {taken}");
}

#[test]
fn its_end_answers_what_waits_also_within_a_hold() {
    let disk = SimDisk::new(1);
    let mut world = World::open(&disk);
    let session = world.hello(0).0.session;
    disk.fail_syncs(1_000);
    let mut refused = world.hand_in(session, &gap(0));
    world.keeper.turn(at(0));
    disk.fail_syncs(0);
    let mut waiting = world.hand_in(session, &gap(1));
    world.keeper.end(at(1));
    assert_eq!(
        refused.try_recv().unwrap(),
        Outcome::Again(AgainReason::Busy)
    );
    assert_eq!(waiting.try_recv().unwrap(), Outcome::Durable);
    assert!(
        world
            .parts
            .handle
            .try_open(agent(1), Hello::default(), CancellationToken::new())
            .is_err()
    );
    assert_eq!(World::open(&disk).entries(), 1);
}

/// The power goes at each call of an append: whatever was said by then holds, what was not said is
/// there once when it is sent again, whether it had reached the disk or not.
#[test]
fn a_power_cut_between_append_and_answer_neither_loses_nor_doubles() {
    let (mut unsaid, mut held_unsaid) = (0, 0);
    for (operations, survival) in (1..=6).flat_map(|n| {
        let survivals = [Survival::Nothing, Survival::RandomHalf(n), Survival::All];
        survivals.map(|survival| (n, survival))
    }) {
        let disk = SimDisk::new(operations);
        let mut world = World::open(&disk);
        let session = world.hello(0).0.session;
        assert_eq!(world.offer(session, &series(0, 0, 2), 1), Outcome::Durable);
        let batches: Vec<_> = (0..4).map(|n| readings(n, 2, 50, 0)).collect();
        disk.power_off(After::Operations(operations));
        let mut said = Vec::new();
        for batch in &batches {
            let mut answer = world.hand_in(session, batch);
            world.keeper.turn(at(2));
            said.push(answer.try_recv() == Ok(Outcome::Durable));
        }
        assert!(disk.is_off(), "the power was to go during one of them");
        drop(world);

        let mut world = World::open(&disk.crash(survival));
        assert_eq!(world.parts.recovered.damaged, 0);
        let (welcome, _) = world.hello(0);
        let held = |n: u64| {
            let mut runs = welcome.lanes[1].ranges.iter();
            runs.any(|run| (run.first..run.end).contains(&n))
        };
        for (n, (batch, said)) in (0..).zip(batches.iter().zip(said)) {
            assert!(
                held(n) || !said,
                "{n} was acknowledged, {operations} {survival:?}"
            );
            unsaid += u32::from(!said);
            held_unsaid += u32::from(held(n) && !said);
            assert_eq!(world.offer(welcome.session, batch, 1), Outcome::Durable);
        }
        assert_eq!(world.entries(), 5, "each once, {operations} {survival:?}");
    }
    assert!(held_unsaid > 0, "no cut fell between append and answer");
    assert!(unsaid > held_unsaid, "every batch had been written");
}

#[test]
fn it_tidies_a_second_after_the_last_request_and_not_before() {
    let disk = SimDisk::new(1);
    let mut world = World::open(&disk);
    world.keeper.follow(Arc::new(LakeStatus::standing_at(0)));
    let session = world.hello(0).0.session;
    assert_eq!(world.offer(session, &series(0, 0, 3), 0), Outcome::Durable);
    for n in 0..60 {
        let batch = readings(n, 3, 1_000, 0);
        assert_eq!(world.offer(session, &batch, 0), Outcome::Durable);
    }
    assert_eq!(world.first(), 0, "the lake has nothing of it");
    // The lake has all of it now, and nothing is asked of the keeper any more.
    world.keeper.follow(Arc::new(LakeStatus::standing_at(61)));
    let due = us(KEEPER_TIDY_MS);
    assert_eq!(world.keeper.turn(at(due - 1)), due);
    assert_eq!(world.first(), 0);
    assert_eq!(world.keeper.turn(at(due)), 2 * due);
    assert!(world.first() > 0, "segments that are in the lake are gone");
    // A request puts it off.
    world.hello(2 * due - 1);
    assert_eq!(world.keeper.turn(at(2 * due)), 3 * due - 1);
}

/// An image was put back, and both lives sealed the same messages: all of it is taken, and the
/// entry of what comes second is marked, in one turn as well, and after a restart.
#[test]
fn an_entry_is_in_doubt_where_another_buffer_has_some_of_its_messages() {
    const IMAGE: BufferId = BufferId([8; 16]);
    let of = |buffer, number| BatchKey {
        buffer,
        ..key(Lane::Telemetry, number)
    };
    let sealed = |buffer, number, messages| of_messages(of(buffer, number), (BUFFER, messages));
    let disk = SimDisk::new(1);
    let mut world = World::open(&disk);
    let session = world.hello(0).0.session;
    for defs in [series_of(BUFFER), series_of(IMAGE)] {
        assert_eq!(world.offer(session, &defs, 0), Outcome::Durable);
    }
    let together = [
        sealed(BUFFER, 0, 0..10),
        sealed(IMAGE, 0, 5..15),
        sealed(BUFFER, 1, 30..40),
    ];
    let mut answers = together.each_ref().map(|it| world.hand_in(session, it));
    world.keeper.turn(at(1));
    for answer in &mut answers {
        assert_eq!(answer.try_recv().unwrap(), Outcome::Durable);
    }
    // What does not verify is in no sink, neither in this turn nor later.
    let unusable = sealed(IMAGE, 1, 60..70);
    let spoil = |world: &World| {
        let content = Checked::Bad("a bit".to_owned());
        world.hand_in_as(session, &unusable, content)
    };
    for _ in 1..VERIFY_TRIES_MAX {
        let mut answer = spoil(&world);
        world.keeper.turn(at(2));
        let damaged = Outcome::Again(AgainReason::Damaged);
        assert_eq!(answer.try_recv().unwrap(), damaged);
    }
    let mut last = spoil(&world);
    let beside = sealed(BUFFER, 2, 60..65);
    assert_eq!(world.offer(session, &beside, 3), Outcome::Durable);
    assert_eq!(last.try_recv().unwrap(), Outcome::Durable);
    let mut world = World::open(&disk.crash(Survival::Nothing));
    let session = world.hello(0).0.session;
    let later = [
        sealed(BUFFER, 3, 65..70),
        sealed(BUFFER, 4, 12..20),
        sealed(IMAGE, 2, 64..80),
        sealed(IMAGE, 3, 80..90),
    ];
    for batch in &later {
        assert_eq!(world.offer(session, batch, 0), Outcome::Durable);
    }
    let marks = [
        (of(BUFFER, 0), false),
        (of(IMAGE, 0), true),
        (of(BUFFER, 1), false),
        (of(IMAGE, 1), false),
        (of(BUFFER, 2), false),
        (of(BUFFER, 3), false),
        (of(BUFFER, 4), true),
        (of(IMAGE, 2), true),
        (of(IMAGE, 3), false),
    ];
    assert_eq!(world.readings(), marks);
}

#[test]
fn a_batch_in_quarantine_is_there_after_a_power_cut() {
    let disk = SimDisk::new(1);
    let mut world = World::open(&disk);
    let session = world.hello(0).0.session;
    assert_eq!(world.offer(session, &series(0, 0, 2), 0), Outcome::Durable);
    let [held, other] = [0, 7].map(|salt| readings(0, 2, 10, salt));
    assert_eq!(world.offer(session, &held, 0), Outcome::Durable);
    for _ in 0..2 {
        let outcome = world.offer(session, &other, 0);
        assert!(matches!(outcome, Outcome::Reject(_)), "{outcome:?}");
    }
    let after = disk.crash(Survival::Nothing);
    let dir = Path::new(DIR).join("quarantine");
    let names = after.list(&dir).unwrap();
    assert_eq!(names.len(), 1, "it came twice, and is kept once");
    let bytes = after.contents(&dir.join(&names[0])).unwrap();
    assert_eq!(bytes[..], other.bytes()[..]);

    // A disk without room loses nothing that was promised.
    let mut world = World::open(&after);
    let session = world.hello(0).0.session;
    after.set_full(true);
    let outcome = world.offer(session, &readings(0, 2, 10, 8), 0);
    assert!(matches!(outcome, Outcome::Reject(_)), "{outcome:?}");
    assert_eq!(after.list(&dir).unwrap().len(), 1);
}
