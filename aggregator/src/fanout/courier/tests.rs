//! A target that fails before a step and after it, refuses rows, and is put back to an earlier
//! position: what it has in the end is every row of the journal once, in its order, but those that
//! it refuses, and those are in its `rejected`.

use super::*;
use crate::lake::load::{Content, GapRow, Origin};
use proptest::prelude::*;
use tributary_protocol::ids::{AgentId, AgentUuid, BatchHash, BatchKey, BufferId, Lane};

fn row(id: u64) -> GapRow {
    GapRow {
        first: id,
        count: 1,
        readings: None,
        event_first: 0,
        event_last: 0,
        reason: String::new(),
        detail: String::new(),
        taken: 1,
    }
}

/// An entry with so many rows, each with an id of its own.
fn item(entry: u64, rows: u64) -> Arc<Item> {
    let origin = Origin {
        entry,
        agent: AgentId::new("t", AgentUuid([1; 16])).expect("a name"),
        key: BatchKey {
            buffer: BufferId([1; 16]),
            lane: Lane::Telemetry,
            number: entry,
        },
        hash: BatchHash([0; 32]),
        in_doubt: false,
        sealed: bytes::Bytes::new(),
    };
    let rows = (0..rows).map(|place| row(entry * 1_000 + place)).collect();
    Arc::new(Item::Batch(Box::new((origin, Content::Gap(rows)))))
}

/// The ids of a chunk's rows, by their places.
fn ids(chunk: &Chunk) -> Vec<u64> {
    let rows = |item: &Item| match item {
        Item::Batch(batch) => match &batch.1 {
            Content::Gap(rows) => rows.iter().map(|row| row.first).collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    chunk.items().flat_map(|(_, item)| rows(item)).collect()
}

/// What goes wrong at one step.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    Nothing,
    /// The step does not happen.
    Before,
    /// It happens, and the answer is lost.
    After,
    /// It happens, its answer is lost, and then the target is put back by so many steps.
    Back(usize),
    /// More is durable.
    More,
    /// Somebody wants all of it now.
    Want,
}

/// A target with a transaction for each step.
#[derive(Clone, Default, Debug)]
struct Target {
    next: u64,
    rows: Vec<u64>,
    rejected: Vec<u64>,
    /// Of at most so many rows at a time.
    most: usize,
}

impl Target {
    fn refuses(&self, rows: &[u64]) -> Option<SinkError> {
        let bad = rows.iter().find(|id| **id % 7 == 3);
        if let Some(id) = bad {
            return Some(SinkError::Refused(format!("row {id}")));
        }
        (rows.len() > self.most).then(|| SinkError::Refused("too many rows".to_owned()))
    }

    fn deliver(&mut self, chunk: &Chunk) -> Result<(), SinkError> {
        assert_eq!(chunk.first(), self.next, "the compare and swap fails");
        let ids = ids(chunk);
        let is_out = |place: usize| chunk.refused().contains_key(&place);
        let places = || ids.iter().enumerate();
        let rows: Vec<u64> = places()
            .filter(|(at, _)| !is_out(*at))
            .map(|(_, id)| *id)
            .collect();
        if let Some(error) = self.refuses(&rows) {
            return Err(error);
        }
        self.rejected
            .extend(places().filter(|(at, _)| is_out(*at)).map(|(_, id)| *id));
        self.rows.extend(rows);
        self.next = chunk.end();
        Ok(())
    }
}

struct World {
    courier: Courier,
    journal: Vec<Arc<Item>>,
    durable: usize,
    target: Target,
    history: Vec<Target>,
    now: i64,
}

impl World {
    fn step(&mut self, fault: Fault) {
        self.now += 1_000;
        let end = self.durable as u64;
        match fault {
            Fault::More => self.durable = (self.durable + 3).min(self.journal.len()),
            Fault::Want => self.courier.want(end),
            _ => {}
        }
        let failed = || SinkError::Again("no answer".to_owned());
        let lost = matches!(fault, Fault::After | Fault::Back(_));
        match self.courier.poll(self.now, end) {
            Step::Wait(until) => self.now = until.unwrap_or(self.now),
            Step::End => panic!("it gave up: {:?}", self.courier.trouble()),
            Step::Read(entry) => {
                let item = Arc::clone(&self.journal[entry as usize]);
                self.courier.on_read(self.now, item);
            }
            Step::Open if fault == Fault::Nothing => {
                let next = self.target.next;
                let _ = self.courier.on_open(Standing { next }, end);
            }
            Step::Open => self.courier.on_failed(self.now, failed(), 7),
            Step::Attempt(rows) => {
                let ids = ids(self.courier.chunk());
                match self.target.refuses(&ids[rows]) {
                    _ if fault == Fault::Before => self.courier.on_failed(self.now, failed(), 7),
                    Some(error) => self.courier.on_failed(self.now, error, 7),
                    None => self.courier.on_taken(),
                }
            }
            Step::Deliver if fault == Fault::Before => {
                self.courier.on_failed(self.now, failed(), 7);
            }
            Step::Deliver => {
                let before = self.target.clone();
                match self.target.deliver(self.courier.chunk()) {
                    Err(error) => self.courier.on_failed(self.now, error, 7),
                    Ok(()) => {
                        self.history.push(before);
                        match lost {
                            true => self.courier.on_failed(self.now, failed(), 7),
                            false => drop(self.courier.on_delivered()),
                        }
                    }
                }
            }
        }
        if let Fault::Back(steps) = fault
            && matches!(self.courier.state, State::Closed(_))
        {
            let at = self.history.len().saturating_sub(steps);
            self.history.truncate(at + 1);
            if let Some(earlier) = self.history.pop() {
                self.target = earlier;
            }
        }
    }
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        8 => Just(Fault::Nothing),
        1 => Just(Fault::Before),
        2 => Just(Fault::After),
        1 => (1_usize..4).prop_map(Fault::Back),
        4 => Just(Fault::More),
        1 => Just(Fault::Want),
    ];
    proptest::collection::vec(fault, 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_fails_each_row_is_there_once_and_in_order(
        rows in proptest::collection::vec(0_u64..40, 1..60),
        faults in faults(),
        pace in 1_usize..200,
        most in 40_usize..300,
    ) {
        let items = rows.iter().enumerate().map(|(at, rows)| item(at as u64, *rows));
        let journal: Vec<_> = items.collect();
        let pace = Pace { rows: pace, age_us: 50_000 };
        let mut world = World {
            courier: Courier::new(pace),
            durable: 0,
            target: Target { most, ..Target::default() },
            history: Vec::new(),
            now: 0,
            journal,
        };
        for fault in faults {
            world.step(fault);
        }
        world.durable = world.journal.len();
        let mut steps = 0;
        while world.target.next < world.durable as u64 {
            world.step(Fault::Nothing);
            steps += 1;
            prop_assert!(steps < 100_000, "it does not drain: {:?}", world.courier.state);
        }
        let ids = rows.iter().enumerate().flat_map(|(at, rows)| {
            (0..*rows).map(move |place| at as u64 * 1_000 + place)
        });
        let (bad, good): (Vec<u64>, Vec<u64>) = ids.partition(|id| id % 7 == 3);
        prop_assert_eq!(world.target.rows, good);
        prop_assert_eq!(world.target.rejected, bad);
    }
}

#[test]
fn a_sink_ahead_of_its_journal_ends_and_says_what_to_do() {
    let pace = Pace {
        rows: 10,
        age_us: 1,
    };
    let mut courier = Courier::new(pace);
    assert_eq!(courier.poll(0, 5), Step::Open);
    assert!(courier.on_open(Standing { next: 6 }, 5).is_none());
    assert_eq!(courier.poll(0, 5), Step::End);
    let said = courier.trouble().expect("trouble").to_string();
    assert!(
        said.contains("rolled back") && said.contains("restore"),
        "{said}"
    );
}

#[test]
fn whoever_is_fenced_ends_and_whoever_is_stuck_comes_back_seldom() {
    let pace = Pace {
        rows: 10,
        age_us: 1,
    };
    let mut courier = Courier::new(pace);
    let password = SinkError::Stuck("password refused".to_owned());
    courier.on_failed(0, password.clone(), 0);
    let Step::Wait(Some(at)) = courier.poll(0, 5) else {
        panic!("it waits");
    };
    assert!(at >= 15_000_000, "{at}");
    assert_eq!(courier.trouble(), Some(&password));
    assert_eq!(courier.poll(at, 5), Step::Open);
    courier.on_failed(at, SinkError::Fenced("somebody else".to_owned()), 0);
    assert_eq!(courier.poll(i64::MAX, 5), Step::End);
}
