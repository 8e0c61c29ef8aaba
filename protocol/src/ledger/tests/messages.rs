//! The same messages sealed under several buffers: whatever arrives first, and whatever breaks,
//! each is stored once.

use super::*;
use crate::limits::{
    LEDGER_MESSAGE_BUFFERS_MAX, LEDGER_MESSAGE_LANES_MAX, LEDGER_MESSAGE_RUNS_MAX,
};

/// The life whose messages are sealed, and those that seal them.
const A: BufferId = BufferId([1; 16]);
const B: BufferId = BufferId([2; 16]);
const C: BufferId = BufferId([3; 16]);

fn cover(buffer: BufferId, messages: Range<u64>) -> Cover {
    Cover {
        buffer,
        first: messages.start,
        count: messages.end - messages.start,
    }
}

fn of(buffer: BufferId, number: u64) -> BatchKey {
    BatchKey {
        buffer,
        lane: Lane::Telemetry,
        number,
    }
}

/// A batch, and of which messages of `A` its readings are.
#[derive(Clone, Debug)]
struct Batch {
    key: BatchKey,
    covering: Covering,
    rows: BTreeSet<u64>,
}

fn batch(key: BatchKey, covers: Vec<Cover>, rows: &BTreeSet<u64>, splits: bool) -> Batch {
    let is_of = |message: &u64| {
        let mut of_a = covers.iter().filter(|cover| cover.buffer == A);
        of_a.any(|it| (it.first..it.first + it.count).contains(message))
    };
    let rows = rows.iter().copied().filter(is_of).collect();
    Batch {
        key,
        covering: Covering::made(covers, true, splits),
        rows,
    }
}

fn judge(ledger: &mut Ledger, batch: &Batch, takes: bool) -> Verdict {
    let session = ledger.session(&agent(1)).unwrap();
    let named = (batch.key, hash(batch.key.number));
    ledger.judge_covering(session, &agent(1), named, (batch.covering.clone(), takes))
}

fn opened() -> Ledger {
    let mut ledger = Ledger::new();
    let _ = ledger.open_session(&agent(1), &[A, B, C]);
    ledger
}

fn store(ledger: &mut Ledger, batch: &Batch) {
    match judge(ledger, batch, true) {
        Verdict::Fresh(admission) => ledger.commit(admission),
        other => panic!("{:?}: {other:?}", batch.key),
    }
}

/// Has a ledger know of messages, in every way there is.
pub(super) fn fill(ledger: &mut Ledger) {
    let replayed = vec![cover(A, 40..50), cover(B, 0..3)];
    let batches = [
        own(5, 0..7),
        own(9, 20..40),
        batch(of(B, 0), replayed, &all(40..50), true),
    ];
    for batch in &batches {
        ledger.recover_covering(&agent(1), batch.key, &batch.covering);
    }
}

fn all(messages: Range<u64>) -> BTreeSet<u64> {
    messages.collect()
}

fn own(number: u64, messages: Range<u64>) -> Batch {
    let rows = all(messages.clone());
    batch(of(A, number), vec![cover(A, messages)], &rows, false)
}

fn again(buffer: BufferId, number: u64, messages: Range<u64>) -> Batch {
    let rows = all(messages.clone());
    batch(of(buffer, number), vec![cover(A, messages)], &rows, true)
}

#[test]
fn what_an_older_life_sealed_is_not_taken_under_another_name() {
    let mut ledger = opened();
    store(&mut ledger, &own(0, 0..10));
    store(&mut ledger, &own(1, 12..20));
    // Between batches that follow each other no message has a reading.
    let verdict = judge(&mut ledger, &again(B, 0, 5..20), true);
    assert_eq!(verdict, Verdict::Covered(vec![cover(A, 5..20)]));
    let verdict = judge(&mut ledger, &again(B, 0, 15..25), true);
    assert_eq!(verdict, Verdict::Covered(vec![cover(A, 15..20)]));
    store(&mut ledger, &again(B, 0, 20..25));
    // The other way round as well, and in the lane `events` each for itself.
    let verdict = judge(&mut ledger, &own(2, 20..25), true);
    assert_eq!(verdict, Verdict::Covered(vec![cover(A, 20..25)]));
    let mut event = again(B, 0, 5..20);
    event.key.lane = Lane::Events;
    store(&mut ledger, &event);
}

#[test]
fn between_batches_that_do_not_follow_each_other_something_may_be_missing() {
    let mut ledger = opened();
    store(&mut ledger, &own(0, 0..10));
    store(&mut ledger, &own(2, 20..30));
    let verdict = judge(&mut ledger, &again(B, 0, 5..25), true);
    let held = vec![cover(A, 5..10), cover(A, 20..25)];
    assert_eq!(verdict, Verdict::Covered(held));
    // It comes at last.
    store(&mut ledger, &own(1, 10..20));
    let verdict = judge(&mut ledger, &again(B, 0, 5..25), true);
    assert_eq!(verdict, Verdict::Covered(vec![cover(A, 5..25)]));
}

#[test]
fn a_batch_of_some_of_its_messages_readings_covers_none() {
    let mut ledger = opened();
    let mut part = own(0, 0..10);
    part.covering = Covering::made(vec![cover(A, 0..10)], false, false);
    store(&mut ledger, &part);
    store(&mut ledger, &again(B, 0, 0..10));
}

#[test]
fn what_can_not_be_told_or_told_apart_is_taken_and_counted() {
    let mut ledger = opened();
    store(&mut ledger, &again(B, 0, 0..10));
    let Verdict::Fresh(admission) = judge(&mut ledger, &own(0, 5..15), true) else {
        panic!("its readings can't be told apart");
    };
    assert_eq!(admission.doubled(), 5);
    ledger.abort(admission);
    let Verdict::Fresh(admission) = judge(&mut ledger, &own(0, 0..10), false) else {
        panic!("its agent can't be told");
    };
    assert_eq!(admission.doubled(), 10);
    ledger.commit(admission);
}

#[test]
fn what_is_being_written_under_another_name_is_waited_for() {
    let mut ledger = opened();
    let Verdict::Fresh(admission) = judge(&mut ledger, &own(0, 0..10), true) else {
        panic!("nothing is there");
    };
    let twice = again(B, 0, 5..15);
    let busy = Verdict::Refused(Refusal::Busy);
    assert_eq!(judge(&mut ledger, &twice, true), busy);
    ledger.abort(admission);
    let Verdict::Fresh(admission) = judge(&mut ledger, &twice, true) else {
        panic!("what was aborted covers nothing");
    };
    assert_eq!(judge(&mut ledger, &own(0, 0..10), true), busy);
    // Beside it everything goes on.
    store(&mut ledger, &own(1, 20..30));
    ledger.commit(admission);
}

#[test]
fn what_is_known_is_bounded_and_the_oldest_goes() {
    let mut ledger = opened();
    for number in 0..2 * LEDGER_MESSAGE_RUNS_MAX as u64 {
        store(&mut ledger, &own(2 * number, 10 * number..10 * number + 5));
        let session = ledger.session(&agent(1)).unwrap();
        // So that there is no hole in the lane.
        let between = (hash(1), 2 * number + 1..2 * number + 2);
        let gap = ledger.judge_gap(session, &agent(1), of(A, 2 * number + 1), between);
        let Verdict::Fresh(gap) = gap else {
            panic!("{gap:?}");
        };
        ledger.commit(gap);
    }
    store(&mut ledger, &again(B, 0, 0..5));
    let newest = 10 * (2 * LEDGER_MESSAGE_RUNS_MAX as u64 - 1);
    let verdict = judge(&mut ledger, &again(B, 1, newest..newest + 5), true);
    assert!(matches!(verdict, Verdict::Covered(_)), "{verdict:?}");
    for life in 0..2 * LEDGER_MESSAGE_BUFFERS_MAX as u64 {
        let by = BufferId::new(9, life);
        store(&mut ledger, &again(by, 0, 9_000 + life..9_001 + life));
    }
    assert_eq!(ledger.agents[&agent(1)].messages.sizes(), (1, 128, 8));
    let mut ledger = opened();
    for life in 0..LEDGER_MESSAGE_LANES_MAX as u64 + 1 {
        let origin = BufferId::new(9, life);
        let covers = vec![cover(origin, 0..1)];
        store(&mut ledger, &batch(of(B, life), covers, &all(0..0), true));
    }
    assert_eq!(ledger.agents[&agent(1)].messages.sizes().0, 4_096);
    let of_life = |life| {
        let covers = vec![cover(BufferId::new(9, life), 0..1)];
        batch(of(C, 0), covers, &all(0..0), true)
    };
    let verdict = judge(&mut ledger, &of_life(1), true);
    assert!(matches!(verdict, Verdict::Covered(_)), "{verdict:?}");
    store(&mut ledger, &of_life(0));
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// An agent's lives, each with some of the same messages, and what an aggregator makes of them.
struct World {
    random: Random,
    ledger: Ledger,
    journal: Vec<Batch>,
    /// How far the journal a checkpoint goes, and what it says.
    checkpoint: (usize, Vec<u8>),
    pending: Vec<(Admission, Batch)>,
    unsent: Vec<Batch>,
    next: BTreeMap<BufferId, u64>,
    doubled: u64,
    lives: u64,
    /// Batches that were covered as a whole, and in part.
    covered: [u32; 2],
}

impl World {
    /// Lives that replay what was not sealed when their image was taken. `first`: those of the life
    /// itself come first; otherwise their readings can be told apart.
    fn new(seed: u64, first: bool) -> (Self, BTreeSet<u64>) {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let end = 10 + random.below(60);
        let rows = (0..end).filter(|_| random.below(4) > 0).collect();
        let mut world = Self {
            random,
            ledger: opened(),
            journal: Vec::new(),
            checkpoint: (0, Vec::new()),
            pending: Vec::new(),
            unsent: Vec::new(),
            next: BTreeMap::new(),
            doubled: 0,
            lives: 0,
            covered: [0; 2],
        };
        world.ledger.write_checkpoint(&mut world.checkpoint.1);
        let sealed_to = 1 + world.random.below(end);
        world.seal(A, 0..sealed_to, &rows, !first);
        while first && !(world.unsent.is_empty() && world.pending.is_empty()) {
            world.step();
        }
        // What one of them did not see, another one does.
        let from = world.random.below(sealed_to);
        let to = end - world.random.below(5);
        world.seal(B, from..to.max(from), &rows, true);
        world.seal(C, 0..end, &rows, true);
        (world, rows)
    }

    fn seal(&mut self, buffer: BufferId, all: Range<u64>, rows: &BTreeSet<u64>, splits: bool) {
        let mut at = all.start;
        while at < all.end {
            let to = (at + 1 + self.random.below(12)).min(all.end);
            let next = *self.next.entry(buffer).or_default();
            let sealed = batch(of(buffer, next), vec![cover(A, at..to)], rows, splits);
            if !sealed.rows.is_empty() {
                *self.next.entry(buffer).or_default() += 1;
                // One in eight never arrives.
                if self.random.below(8) > 0 || buffer == C {
                    self.unsent.push(sealed);
                }
            }
            at = to;
        }
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0 => self.crash(),
            1..4 => self.end_frame(),
            4 => {
                let mut bytes = Vec::new();
                self.ledger.write_checkpoint(&mut bytes);
                self.checkpoint = (self.journal.len(), bytes);
            }
            _ if self.unsent.is_empty() => self.end_frame(),
            _ => {
                let at = self.random.below(self.unsent.len() as u64) as usize;
                let sent = self.unsent.swap_remove(at);
                self.arrive(sent);
            }
        }
    }

    fn arrive(&mut self, sent: Batch) {
        match judge(&mut self.ledger, &sent, true) {
            Verdict::Fresh(admission) => {
                self.doubled += admission.doubled();
                self.pending.push((admission, sent));
            }
            Verdict::Refused(Refusal::Busy) | Verdict::Pending => self.unsent.push(sent),
            Verdict::Replay { .. } => {}
            Verdict::Covered(held) => self.replace(&sent, &held),
            other => panic!("{:?}: {other:?}", sent.key),
        }
    }

    /// As an agent does: what is left is sealed again, behind a cover of nothing that says how far
    /// it was sealed.
    fn replace(&mut self, sent: &Batch, held: &[Cover]) {
        let in_held = |message: &u64| {
            let mut held = held.iter();
            held.any(|it| (it.first..it.first + it.count).contains(message))
        };
        let left: BTreeSet<u64> = sent.rows.iter().copied().filter(|m| !in_held(m)).collect();
        self.covered[usize::from(!left.is_empty())] += 1;
        if left.is_empty() {
            return;
        }
        let buffer = BufferId::new(9, self.lives);
        let next = self.next.entry(buffer).or_default();
        let mut covers: Vec<_> = left.iter().map(|m| cover(A, *m..*m + 1)).collect();
        covers.push(cover(buffer, 70..70));
        self.unsent
            .push(batch(of(buffer, *next), covers, &left, true));
        *next += 1;
        if self.random.below(4) == 0 {
            // The power failed before a gap stood for it, and another life does it again.
            self.unsent.push(sent.clone());
            self.lives += 1;
        }
    }

    fn end_frame(&mut self) {
        let fails = self.random.below(4) == 0;
        for (admission, batch) in std::mem::take(&mut self.pending) {
            if fails {
                self.ledger.abort(admission);
                self.unsent.push(batch);
            } else {
                self.ledger.commit(admission);
                if self.random.below(6) == 0 {
                    self.unsent.push(batch.clone());
                }
                self.journal.push(batch);
            }
        }
    }

    fn crash(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        for (admission, batch) in pending {
            self.ledger.abort(admission);
            self.unsent.push(batch);
        }
        let (from, checkpoint) = &self.checkpoint;
        let mut ledger = Ledger::read_checkpoint(checkpoint).unwrap();
        for batch in &self.journal[*from..] {
            assert!(ledger.recover(&agent(1), batch.key, hash(batch.key.number)));
            ledger.recover_covering(&agent(1), batch.key, &batch.covering);
        }
        let known = |ledger: &Ledger| ledger.agents.get(&agent(1)).map(|it| it.messages.clone());
        let (recovered, live) = (known(&ledger), known(&self.ledger));
        assert_eq!(recovered.unwrap_or_default(), live.unwrap_or_default());
        self.ledger = ledger;
        let _ = self.ledger.open_session(&agent(1), &[A, B, C]);
    }
}

/// Runs a world to its end; gives how often each message is stored.
fn stored(seed: u64, first: bool) -> (BTreeMap<u64, u32>, BTreeSet<u64>, World) {
    let (mut world, rows) = World::new(seed, first);
    let mut left = 2_000;
    while !world.unsent.is_empty() || !world.pending.is_empty() {
        world.step();
        left -= 1;
        assert!(left > 0, "seed {seed}: it does not come to an end");
    }
    let mut times = BTreeMap::new();
    for message in world.journal.iter().flat_map(|batch| &batch.rows) {
        *times.entry(*message).or_default() += 1;
    }
    (times, rows, world)
}

#[test]
fn whatever_comes_first_every_message_is_stored_once() {
    let mut covered = [0; 2];
    for seed in 1..1_500 {
        for first in [false, true] {
            let (times, rows, world) = stored(seed, first);
            let missing: Vec<_> = rows.iter().filter(|m| !times.contains_key(m)).collect();
            assert_eq!(missing, [&0; 0], "seed {seed}: lost");
            assert!(times.values().all(|n| *n == 1), "seed {seed}: {times:?}");
            assert_eq!(world.doubled, 0, "seed {seed}");
            (0..2).for_each(|i| covered[i] += world.covered[i]);
        }
    }
    assert!(covered[0] > 5_000 && covered[1] > 2_000, "{covered:?}");
}

#[cfg(feature = "planted")]
#[test]
fn planted_bugs_of_what_is_covered_are_found() {
    tributary_planted::plant(Some(tributary_planted::Bug::CoveredIgnoresPending));
    let twice = |seed: &u64| stored(*seed, false).0.values().any(|times| *times > 1);
    assert_ne!((1..200).find(twice), None, "in 200 seeds");
    tributary_planted::plant(None);
}
