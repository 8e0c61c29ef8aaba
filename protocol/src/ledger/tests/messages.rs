//! The same messages sealed under several buffers: whatever arrives first, and whatever breaks,
//! nothing is left out, and what is stored twice is marked.

use super::*;
use crate::batch::Cover;
use crate::ledger::messages::{Known, Segment};
use crate::limits::LEDGER_MESSAGE_RUNS_MAX;

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

/// A batch of messages of `A`, and its readings.
#[derive(Clone, Debug)]
struct Batch {
    key: BatchKey,
    covering: Covering,
    readings: BTreeSet<u64>,
}

fn batch(key: BatchKey, covers: Vec<Cover>) -> Batch {
    Batch {
        key,
        covering: Covering(covers),
        readings: BTreeSet::new(),
    }
}

fn judge(ledger: &mut Ledger, batch: &Batch) -> Verdict {
    let session = ledger.session(&agent(1)).unwrap();
    let named = (batch.key, hash(batch.key.number));
    ledger.judge_covering(session, &agent(1), named, batch.covering.clone())
}

fn opened() -> Ledger {
    let mut ledger = Ledger::new();
    let _ = ledger.open_session(&agent(1), &[A, B, C]);
    ledger
}

fn admit(ledger: &mut Ledger, batch: &Batch) -> Admission {
    match judge(ledger, batch) {
        Verdict::Fresh(admission) => admission,
        other => panic!("{:?}: {other:?}", batch.key),
    }
}

/// Takes a batch; gives how many of its messages others have.
fn store(ledger: &mut Ledger, batch: &Batch) -> u64 {
    let admission = admit(ledger, batch);
    let doubled = admission.doubled();
    ledger.commit(admission);
    doubled
}

/// Has a ledger know of messages, in every way there is.
pub(super) fn fill(ledger: &mut Ledger) {
    let replayed = vec![cover(A, 40..50), cover(B, 0..3)];
    let batches = [own(5, 0..7), own(9, 20..40), batch(of(B, 0), replayed)];
    for batch in &batches {
        ledger.recover_covering(&agent(1), batch.key, &batch.covering);
    }
}

fn own(number: u64, messages: Range<u64>) -> Batch {
    again(A, number, messages)
}

fn again(buffer: BufferId, number: u64, messages: Range<u64>) -> Batch {
    batch(of(buffer, number), vec![cover(A, messages)])
}

#[test]
fn what_is_stored_under_another_buffer_too_is_counted() {
    let mut ledger = opened();
    assert_eq!(store(&mut ledger, &own(0, 0..10)), 0);
    assert_eq!(store(&mut ledger, &own(1, 12..20)), 0);
    // Between batches that follow each other no message has a reading.
    assert_eq!(store(&mut ledger, &again(B, 0, 5..25)), 15);
    assert_eq!(store(&mut ledger, &again(B, 1, 25..30)), 0);
    // The other way round as well, once for each message, and in each lane for itself.
    assert_eq!(store(&mut ledger, &own(2, 28..40)), 2);
    assert_eq!(store(&mut ledger, &again(C, 0, 0..50)), 40);
    let mut event = again(B, 0, 5..20);
    event.key.lane = Lane::Events;
    assert_eq!(store(&mut ledger, &event), 0);
}

#[test]
fn between_batches_that_do_not_follow_each_other_something_may_be_missing() {
    let mut ledger = opened();
    store(&mut ledger, &own(0, 0..10));
    store(&mut ledger, &own(2, 20..30));
    let between = again(B, 0, 12..20);
    let admission = admit(&mut ledger, &between);
    assert_eq!(admission.doubled(), 0);
    ledger.abort(admission);
    // It comes at last.
    store(&mut ledger, &own(1, 10..20));
    assert_eq!(store(&mut ledger, &between), 8);
}

#[test]
fn several_batches_of_one_message_double_none_of_each_other() {
    let mut ledger = opened();
    for number in 0..3 {
        assert_eq!(store(&mut ledger, &own(number, 7..8)), 0);
    }
    assert_eq!(ledger.agents[&agent(1)].messages.sizes(), (1, 1));
    for number in 0..3 {
        assert_eq!(store(&mut ledger, &again(B, number, 7..8)), 1);
    }
    assert_eq!(store(&mut ledger, &own(3, 7..8)), 1);
}

#[test]
fn what_is_being_written_counts_and_what_never_was_does_not() {
    let mut ledger = opened();
    let first = admit(&mut ledger, &own(0, 0..10));
    let second = admit(&mut ledger, &again(B, 0, 5..15));
    assert_eq!((first.doubled(), second.doubled()), (0, 5));
    ledger.abort(first);
    ledger.abort(second);
    let mut unusable = admit(&mut ledger, &again(B, 0, 5..15));
    ledger.set_covering(&mut unusable, Covering::default());
    let own = admit(&mut ledger, &own(0, 0..10));
    assert_eq!(own.doubled(), 0, "what is in no sink doubles nothing");
    ledger.commit(unusable);
    ledger.commit(own);
    let mut unusable = admit(&mut ledger, &again(C, 0, 5..15));
    assert_eq!(unusable.doubled(), 5);
    ledger.set_covering(&mut unusable, Covering::default());
    assert_eq!(unusable.doubled(), 0);
    ledger.commit(unusable);
}

/// Everything that a ledger can't join: each second number, and five messages of ten.
fn apart(life: BufferId, runs: Range<u64>) -> impl Iterator<Item = Batch> {
    runs.map(move |at| batch(of(life, 2 * at), vec![cover(life, 10 * at..10 * at + 5)]))
}

#[test]
fn what_is_known_of_an_agent_is_bounded_and_the_lowest_of_the_first_goes() {
    const MOST: u64 = LEDGER_MESSAGE_RUNS_MAX as u64;
    let mut ledger = opened();
    let take_in = |ledger: &mut Ledger, batch: Batch| {
        ledger.recover_covering(&agent(1), batch.key, &batch.covering);
    };
    let doubled = |ledger: &mut Ledger, life, messages| {
        let admission = admit(ledger, &batch(of(C, 0), vec![cover(life, messages)]));
        let doubled = admission.doubled();
        ledger.abort(admission);
        doubled
    };
    apart(A, 0..MOST).for_each(|batch| take_in(&mut ledger, batch));
    assert_eq!(doubled(&mut ledger, A, 0..10 * MOST), 5 * MOST);
    // One more life: of the first the lowest goes, whoever has it.
    take_in(&mut ledger, again(B, 0, 2..3));
    assert_eq!(doubled(&mut ledger, A, 0..10), 1);
    take_in(&mut ledger, batch(of(B, 1), vec![cover(B, 0..9)]));
    assert_eq!(doubled(&mut ledger, A, 0..10), 0);
    assert_eq!(doubled(&mut ledger, A, 10..20), 5);
    assert_eq!(doubled(&mut ledger, B, 0..9), 9);
    // A life of which nothing is left is begun anew, as the newest.
    apart(B, 10..10 + MOST).for_each(|batch| take_in(&mut ledger, batch));
    let known = |ledger: &Ledger| ledger.agents[&agent(1)].messages.sizes();
    assert_eq!(known(&ledger), (1, MOST as usize));
    take_in(&mut ledger, own(90, 0..5));
    assert_eq!(known(&ledger), (2, MOST as usize));
    assert_eq!(doubled(&mut ledger, A, 0..5), 5);
    assert_eq!(doubled(&mut ledger, B, 100..120), 5);
}

#[test]
fn a_checkpoint_that_knows_more_is_read_as_far_as_it_may_be_kept() {
    let mut ledger = opened();
    let segment = |at: u64| Segment {
        numbers: 2 * at..2 * at + 1,
        messages: 10 * at..10 * at + 5,
    };
    for life in 0..40 {
        let known = Known {
            own: (0..128).map(segment).collect(),
            others: BTreeMap::new(),
        };
        let key = of(BufferId::new(9, life), 0).lane_key();
        let messages = &mut ledger.agents.get_mut(&agent(1)).unwrap().messages;
        assert!(messages.insert(key, known));
    }
    let mut bytes = Vec::new();
    ledger.write_checkpoint(&mut bytes);
    let read = Ledger::read_checkpoint(&bytes).unwrap();
    let kept = LEDGER_MESSAGE_RUNS_MAX / 128;
    assert_eq!(read.agents[&agent(1)].messages.sizes(), (kept, 128 * kept));
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

/// A batch in the journal, and whether its entry is marked.
type Entry = (Batch, bool);

/// An agent's lives, each with some of the same messages, and what an aggregator makes of them.
struct World {
    random: Random,
    ledger: Ledger,
    journal: Vec<Entry>,
    /// How far the journal a checkpoint goes, and what it says.
    checkpoint: (usize, Vec<u8>),
    pending: Vec<(Admission, Batch)>,
    unsent: Vec<Batch>,
    next: BTreeMap<BufferId, u64>,
}

impl World {
    /// Lives that replay what was not sealed when their image was taken; gives all readings, two of
    /// each message that has some.
    fn new(seed: u64) -> (Self, BTreeSet<u64>) {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let end = 10 + random.below(60);
        let messages = (0..end).filter(|_| random.below(4) > 0);
        let readings = messages.flat_map(|message| [2 * message, 2 * message + 1]);
        let readings = readings.collect();
        let mut world = Self {
            random,
            ledger: opened(),
            journal: Vec::new(),
            checkpoint: (0, Vec::new()),
            pending: Vec::new(),
            unsent: Vec::new(),
            next: BTreeMap::new(),
        };
        world.ledger.write_checkpoint(&mut world.checkpoint.1);
        let sealed_to = 1 + world.random.below(end);
        world.seal(A, 0..sealed_to, &readings);
        while world.random.below(20) > 0 {
            world.step();
        }
        // What one of them did not see, another one does.
        let from = world.random.below(sealed_to);
        let to = end - world.random.below(5);
        world.seal(B, from..to.max(from), &readings);
        world.seal(C, 0..end, &readings);
        (world, readings)
    }

    fn seal(&mut self, buffer: BufferId, all: Range<u64>, readings: &BTreeSet<u64>) {
        let mut at = all.start;
        while at < all.end {
            let to = (at + 1 + self.random.below(12)).min(all.end);
            let of_these: Vec<u64> = readings.range(2 * at..2 * to).copied().collect();
            // Here and there two batches share the messages.
            let parts = 1 + u64::from(self.random.below(5) == 0);
            for part in 0..parts {
                let is_in = |reading: &&u64| parts == 1 || *reading % 2 == part;
                let of_part: BTreeSet<u64> = of_these.iter().filter(is_in).copied().collect();
                if !of_part.is_empty() {
                    self.sealed(buffer, at..to, of_part);
                }
            }
            at = to;
        }
    }

    fn sealed(&mut self, buffer: BufferId, messages: Range<u64>, readings: BTreeSet<u64>) {
        let next = self.next.entry(buffer).or_default();
        let sealed = again(buffer, *next, messages);
        *next += 1;
        // One in eight never arrives.
        if self.random.below(8) > 0 || buffer == C {
            self.unsent.push(Batch { readings, ..sealed });
        }
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0 => self.crash(),
            1..4 => {
                let fails = self.random.below(4) == 0;
                self.end_frame(!fails);
            }
            4 => {
                let mut bytes = Vec::new();
                self.ledger.write_checkpoint(&mut bytes);
                self.checkpoint = (self.journal.len(), bytes);
            }
            _ if self.unsent.is_empty() => self.end_frame(true),
            _ => {
                let at = self.random.below(self.unsent.len() as u64) as usize;
                let sent = self.unsent.swap_remove(at);
                match judge(&mut self.ledger, &sent) {
                    Verdict::Fresh(admission) => self.pending.push((admission, sent)),
                    Verdict::Pending => self.unsent.push(sent),
                    Verdict::Replay { .. } => {}
                    other => panic!("{:?}: {other:?}", sent.key),
                }
            }
        }
    }

    /// All of a frame is in the journal, or nothing.
    fn end_frame(&mut self, written: bool) {
        for (admission, batch) in std::mem::take(&mut self.pending) {
            if !written {
                self.ledger.abort(admission);
                self.unsent.push(batch);
                continue;
            }
            self.journal.push((batch.clone(), admission.doubled() > 0));
            self.ledger.commit(admission);
            if self.random.below(6) == 0 {
                self.unsent.push(batch);
            }
        }
    }

    /// The process ends, with a frame under way that is there afterwards, or not.
    fn crash(&mut self) {
        let written = self.random.below(2) == 0;
        self.end_frame(written);
        let (from, checkpoint) = &self.checkpoint;
        let mut ledger = Ledger::read_checkpoint(checkpoint).unwrap();
        for (batch, _) in &self.journal[*from..] {
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

/// Runs a world to its end.
fn run(seed: u64) -> (Vec<Entry>, BTreeSet<u64>) {
    let (mut world, readings) = World::new(seed);
    let mut left = 2_000;
    while !world.unsent.is_empty() || !world.pending.is_empty() {
        world.step();
        left -= 1;
        assert!(left > 0, "seed {seed}: it does not come to an end");
    }
    (world.journal, readings)
}

/// What a buffer's batches in the journal say together: all from the first message to the last of
/// those that follow each other.
fn messages_of(journal: &[Entry], buffer: BufferId) -> BTreeSet<u64> {
    let batches = journal.iter().map(|(batch, _)| batch);
    let batches = batches.filter(|batch| batch.key.buffer == buffer);
    let mut batches: Vec<_> = batches
        .map(|batch| (batch.key.number, batch.covering.0[0]))
        .collect();
    batches.sort_by_key(|(number, _)| *number);
    let mut messages = BTreeSet::new();
    let mut before: Option<(u64, Cover)> = None;
    for (number, cover) in batches {
        let from = match before {
            // Only of its own messages is it known that there was nothing between them.
            Some((last, it)) if last + 1 == number && buffer == A => it.first + it.count,
            _ => cover.first,
        };
        messages.extend(from.min(cover.first)..cover.first + cover.count);
        before = Some((number, cover));
    }
    messages
}

#[test]
fn whatever_comes_first_nothing_is_left_out_and_what_is_there_twice_is_marked() {
    let (mut marked, mut plain) = (0, 0);
    for seed in 1..3_000 {
        let (journal, readings) = run(seed);
        for reading in readings {
            let has = |(batch, _): &&Entry| batch.readings.contains(&reading);
            let copies: Vec<_> = journal.iter().filter(has).collect();
            let unmarked = copies.iter().filter(|(_, marked)| !marked).count();
            assert!(!copies.is_empty(), "seed {seed}: {reading} is lost");
            assert!(
                unmarked < 2,
                "seed {seed}: {reading} in silence: {copies:?}"
            );
        }
        for (batch, is_marked) in &journal {
            let others = [A, B, C].into_iter().filter(|it| *it != batch.key.buffer);
            let theirs: BTreeSet<u64> = others
                .flat_map(|other| messages_of(&journal, other))
                .collect();
            let Cover { first, count, .. } = batch.covering.0[0];
            let alone = theirs.range(first..first + count).next().is_none();
            assert!(
                !(alone && *is_marked),
                "seed {seed}: {batch:?} has no double"
            );
            marked += u32::from(*is_marked);
            plain += u32::from(alone);
        }
    }
    assert!(marked > 10_000 && plain > 1_000, "{marked} {plain}");
}
