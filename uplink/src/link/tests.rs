//! An uplink by a clock that stands, whose aggregator answers as each test says.

use super::*;
use crate::limits::BACKOFF_MAX;
use crate::spool::{Shed, SpoolError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tributary_protocol::batch::{Sealer, Spec};
use tributary_protocol::ids::{BatchKey, BufferId, Lane, LogId, SeriesId, Session};
use tributary_protocol::message::{AckRange, Again, LaneHeld};
use tributary_protocol::reading::{Meta, Readings, Value, ValueType};
use tributary_protocol::series::SeriesDef;
use tributary_protocol::session::{SenderCursor, Trim};

mod several;

const BUFFER: BufferId = BufferId([7; 16]);
const SECOND: i64 = 1_000_000;
/// The longest wait that may be drawn.
const LATE: u64 = u64::MAX;

fn key(number: u64) -> BatchKey {
    BatchKey {
        buffer: BUFFER,
        lane: Lane::Events,
        number,
    }
}

fn batch(number: u64) -> SealedBatch {
    let spec = Spec {
        key: key(number),
        sealed_at: 1,
        series_needed: 0,
        covers: Vec::new(),
    };
    let mut readings = Readings::new();
    let meta = Meta::default();
    readings.push(SeriesId(0), meta, Value::F64(1.0)).unwrap();
    let series = SeriesDef::new("d", "m", None, ValueType::F64).unwrap();
    Sealer::new()
        .named(&spec, &[series], &mut readings)
        .unwrap()
}

/// Batches, and what was kept of them.
#[derive(Default)]
struct Held {
    batches: BTreeMap<BatchKey, SealedBatch>,
    failing: bool,
    /// No cursor can be kept.
    full: bool,
    sheds: Vec<Shed>,
    trims: Vec<Trim>,
    saved: Arc<Mutex<Vec<u64>>>,
}

impl Spool for Held {
    fn read(&mut self, key: BatchKey) -> Result<SealedBatch, SpoolError> {
        let found = self.batches.get(&key).filter(|_| !self.failing);
        found.cloned().ok_or_else(|| SpoolError {
            key,
            reason: "not now".to_owned(),
            passing: self.failing,
        })
    }

    fn take_sheds(&mut self) -> Vec<Shed> {
        std::mem::take(&mut self.sheds)
    }

    fn trim(&mut self, trim: Trim) {
        self.trims.push(trim);
    }

    fn save(&mut self, cursor: &SenderCursor) -> Save {
        let saved = Arc::clone(&self.saved);
        let acked = cursor.acked(key(0).lane_key()).end();
        let full = self.full;
        Box::new(move || {
            if !full {
                saved.lock().unwrap().push(acked);
            }
            !full
        })
    }
}

/// Of an aggregator that holds nothing.
fn welcome() -> Welcome {
    Welcome {
        session: Session(1),
        log: LogId([1; 16]),
        lanes: Vec::new(),
        batch_bytes_max: 1 << 20,
        in_flight_bytes: 1 << 20,
        in_flight_batches: 16,
        software: String::new(),
        more: false,
        takes_in_doubt: true,
    }
}

struct Link {
    core: Uplink<Held>,
    now: i64,
    sealed: u64,
}

impl Link {
    fn new() -> Self {
        let sender = Sender::new(BUFFER, Vec::new());
        let status = watch::Sender::new(Status::of(&sender));
        let who = ("site:4433", "gate");
        let parts = (sender, Held::default());
        Self {
            core: Uplink::new(who, Duration::from_secs(60), parts, status),
            now: SECOND,
            sealed: 0,
        }
    }

    fn seal(&mut self) {
        let (batch, number) = (batch(self.sealed), self.sealed);
        self.sealed += 1;
        let bytes = batch.bytes().len() as u64;
        self.core.spool().batches.insert(key(number), batch);
        let key = key(number);
        self.core.sealed(Sealed { key, bytes });
    }

    fn poll(&mut self) -> Do {
        self.core.poll(self.now, LATE)
    }

    /// What is done until there is nothing to do, and when that will be.
    fn all(&mut self) -> (Vec<String>, i64) {
        let mut done = Vec::new();
        loop {
            match self.poll() {
                Do::Wait(at) => return (done, at - self.now),
                Do::Send(batch, _) => done.push(format!("send {}", batch.key().number)),
                Do::Say(Message::Hello(_)) => done.push("hello".into()),
                Do::Leave(Message::Reject(reject)) => done.push(format!("{:?}", reject.code)),
                Do::Save(save) => {
                    let kept = save();
                    self.core.saved(kept, self.now);
                    done.push("save".into());
                }
                Do::Done(drained) => return (vec![format!("done {drained}")], 0),
                Do::Dial => done.push("dial".into()),
                Do::Hang => done.push("hang".into()),
                other => panic!("{other:?}"),
            }
        }
    }

    fn open(&mut self) {
        while let Do::Save(save) = self.poll() {
            let kept = save();
            self.core.saved(kept, self.now);
        }
        assert_eq!(self.core.phase, Phase::Dialling);
        self.core.dialled(self.now);
        assert!(matches!(self.poll(), Do::Say(Message::Hello(_))));
        self.core.message(Message::Welcome(welcome()), self.now);
        assert!(self.core.status().borrow().connected);
    }

    /// Dials as soon as it may, and is greeted.
    fn open_again(&mut self) {
        while self.core.phase != Phase::Dialling {
            match self.poll() {
                Do::Save(save) => {
                    let kept = save();
                    self.core.saved(kept, self.now);
                }
                Do::Wait(at) => self.now = at,
                Do::Dial => {}
                other => panic!("{other:?}"),
            }
        }
        self.open();
    }

    fn ack(&mut self, first: u64, end: u64) {
        let key = key(0).lane_key();
        let ranges = vec![AckRange { key, first, end }];
        let again = Vec::new();
        let ack = Message::Ack(Ack { ranges, again });
        self.core.message(ack, self.now);
    }

    fn busy(&mut self, number: u64) {
        let again = vec![Again {
            key: key(number),
            reason: AgainReason::Busy,
        }];
        let ranges = Vec::new();
        let ack = Message::Ack(Ack { ranges, again });
        self.core.message(ack, self.now);
    }
}

#[test]
fn it_dials_ever_less_often_until_something_is_acknowledged() {
    let mut link = Link::new();
    let mut waits = Vec::new();
    for _ in 0..10 {
        assert!(matches!(link.poll(), Do::Dial));
        // However often it is looked at: it dials once, and looks after itself.
        assert_eq!(link.all(), (vec![], 250_000));
        link.core.lost("nobody there".into());
        assert!(matches!(link.poll(), Do::Wait(_)));
        let Phase::Waiting(until) = link.core.phase else {
            panic!("{:?}", link.core);
        };
        waits.push((until - link.now + 500_000) / SECOND);
        link.now = until;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
    link.seal();
    link.open();
    assert_eq!(link.all().0, ["send 0"]);
    link.ack(0, 1);
    link.core.lost("gone".into());
    let (_, wait) = link.all();
    assert!(wait <= 500_000, "{wait}");
}

#[test]
fn who_greets_and_gets_no_answer_hangs_up() {
    let mut link = Link::new();
    assert!(matches!(link.poll(), Do::Dial));
    link.core.dialled(link.now);
    assert_eq!(link.all().0, ["hello"]);
    link.now += us(HANDSHAKE_TIMEOUT) - 1;
    assert_eq!(link.all().0, [""; 0]);
    link.now += 1;
    assert_eq!(link.all().0, ["hang"]);
    let problem = link.core.status().borrow().problem.clone();
    assert_eq!(problem.as_deref(), Some("no Welcome in time"));
}

/// A stream that opens late leaves less time for the answer.
#[test]
fn all_of_a_greeting_has_one_deadline() {
    let mut link = Link::new();
    assert!(matches!(link.poll(), Do::Dial));
    let since = link.now;
    link.now += us(HANDSHAKE_TIMEOUT) - 1;
    link.core.dialled(since);
    assert_eq!(link.all(), (vec!["hello".to_owned()], 1));
    link.now += 1;
    assert_eq!(link.all().0, ["hang"]);
    // And none where it is over before there is anything to say.
    link.now += us(BACKOFF_MAX);
    assert_eq!(link.all().0, ["dial"]);
    link.core.dialled(link.now - us(HANDSHAKE_TIMEOUT));
    assert_eq!(link.all().0, ["hang"]);
}

#[test]
fn who_breaks_the_protocol_is_hung_up_on_and_dialled_again() {
    let mut link = Link::new();
    link.seal();
    link.open();
    assert_eq!(link.all().0, ["send 0"]);
    let hello = goodbye();
    link.core.message(hello, link.now);
    assert_eq!(link.all().0, ["hang"]);
    assert!(!link.core.status().borrow().connected);
    // What it says behind that is not heard.
    link.ack(0, 1);
    assert!(!link.core.sender().is_drained());
    link.now += us(BACKOFF_MAX);
    link.open();
    assert_eq!(link.all().0, ["send 0"]);
}

#[test]
fn one_cursor_is_kept_at_a_time_a_second_behind_what_was_acknowledged() {
    let mut link = Link::new();
    let saved = Arc::clone(&link.core.spool().saved);
    (0..3).for_each(|_| link.seal());
    link.open();
    assert_eq!(link.all().0, ["send 0", "send 1", "send 2"]);
    link.ack(0, 1);
    assert_eq!(link.all().0, [""; 0], "not yet");
    link.now += us(CURSOR_INTERVAL);
    let Do::Save(save) = link.poll() else {
        panic!("it is due");
    };
    // It is still being written: the next one waits, and has everything by then.
    for first in [1, 2] {
        link.ack(first, first + 1);
        link.now += us(CURSOR_INTERVAL);
        assert_eq!(link.all().0, [""; 0]);
    }
    let kept = save();
    link.core.saved(kept, link.now);
    assert_eq!(link.all().0, ["save"]);
    assert_eq!(*saved.lock().unwrap(), [1, 3]);
    assert_eq!(link.core.spool().trims.last().map(|it| it.below), Some(3));
}

#[test]
fn an_aggregator_without_room_is_asked_again_ever_less_often() {
    let mut link = Link::new();
    link.seal();
    link.open();
    assert_eq!(link.all().0, ["send 0"]);
    let mut waits = Vec::new();
    for _ in 0..7 {
        link.busy(0);
        let begun = link.now;
        while let (done, wait) = link.all()
            && done != ["send 0"]
        {
            assert_eq!(done.iter().find(|it| *it != "save"), None);
            link.now += wait;
        }
        waits.push(link.now - begun);
    }
    let half = 500_000;
    assert_eq!(waits[..5], [half, 2 * half, 4 * half, 8 * half, 16 * half]);
    assert_eq!(waits[5..], [10 * SECOND; 2]);
    link.ack(0, 1);
    link.seal();
    assert_eq!(link.all().0, ["send 1"]);
}

#[test]
fn a_spool_that_can_not_be_read_is_tried_again_soon() {
    let mut link = Link::new();
    link.open();
    link.core.spool().failing = true;
    link.seal();
    assert_eq!(link.all(), (vec![], 250_000));
    link.core.spool().failing = false;
    assert_eq!(link.all().0, [""; 0], "not at once");
    link.now += us(BACKOFF_MIN);
    assert_eq!(link.all().0, ["send 0"]);
}

/// What was trimmed, and lost by the aggregator, while the disk gives nothing.
#[test]
fn what_can_not_be_read_just_now_is_not_gone() {
    let mut link = Link::new();
    (0..2).for_each(|_| link.seal());
    link.open();
    assert_eq!(link.all().0, ["send 0", "send 1"]);
    link.ack(0, 2);
    assert!(link.core.sender().is_drained());
    link.core.lost("gone".into());
    link.core.spool().failing = true;
    link.all();
    link.now += us(BACKOFF_MAX);
    link.all();
    link.core.dialled(link.now);
    link.all();
    let lane = LaneHeld {
        key: key(0).lane_key(),
        ranges: Vec::new(),
        series_known: 0,
    };
    let welcome = Welcome {
        lanes: vec![lane],
        ..welcome()
    };
    link.core.message(Message::Welcome(welcome), link.now);
    let told = link.core.status().borrow().clone();
    assert_eq!((told.went_back_again, told.went_back_gone), (2, 0));
    assert_eq!(link.all().0, [""; 0]);
    link.core.spool().failing = false;
    link.now += us(BACKOFF_MIN);
    let done = link.all().0;
    let sent = done.iter().filter(|it| it.starts_with("send"));
    assert_eq!(sent.collect::<Vec<_>>(), ["send 0", "send 1"]);
}

#[test]
fn what_is_left_goes_out_before_it_leaves_and_the_last_cursor_is_kept() {
    let mut link = Link::new();
    let saved = Arc::clone(&link.core.spool().saved);
    link.seal();
    link.open();
    link.core.closed(link.now);
    assert_eq!(link.all().0, ["send 0"]);
    link.ack(0, 1);
    let mut done = Vec::new();
    loop {
        match link.poll() {
            Do::Leave(_) => done.push("leave"),
            Do::Save(save) => {
                let kept = save();
                link.core.saved(kept, link.now);
                done.push("save");
            }
            Do::Done(drained) => {
                assert!(drained);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(done, ["leave", "save"]);
    assert_eq!(*saved.lock().unwrap(), [1]);
}

#[test]
fn draining_has_an_end_also_where_nobody_is_there() {
    let mut link = Link::new();
    link.seal();
    let begun = link.now;
    link.core.closed(begun);
    let mut dialled = 0;
    let drained = loop {
        match link.poll() {
            Do::Dial => {
                dialled += 1;
                link.core.lost("nobody there".into());
            }
            Do::Wait(at) => link.now = at,
            Do::Save(save) => {
                let kept = save();
                link.core.saved(kept, link.now);
            }
            Do::Done(drained) => break drained,
            other => panic!("{other:?}"),
        }
    };
    assert!(!drained && dialled > 60, "{dialled}");
    let took = link.now - begun;
    assert!((60 * SECOND..61 * SECOND).contains(&took), "{took}");
}

#[test]
fn a_session_that_another_machine_ended_is_counted_for_an_hour_and_waited_for_ever_longer() {
    let fence = || {
        let detail = String::new();
        Message::Reject(Reject {
            code: RejectCode::Fenced,
            detail,
            retry_after_ms: 0,
            batch: None,
        })
    };
    let mut link = Link::new();
    let (mut waits, mut last) = (Vec::new(), 0);
    for number in 0..4 {
        link.seal();
        link.open_again();
        link.all();
        link.ack(number, number + 1);
        last = link.now;
        link.core.message(fence(), link.now);
        assert_eq!(link.all().0, ["hang"]);
        let Phase::Waiting(until) = link.core.phase else {
            panic!("{:?}", link.core);
        };
        waits.push((until - link.now + 500_000) / SECOND);
        link.now = until;
    }
    assert_eq!(
        waits,
        [1, 2, 4, 8],
        "although something was acknowledged each time"
    );
    let said = |link: &Link| {
        let status = link.core.status().borrow();
        (status.fenced, status.fenced_last_hour)
    };
    assert_eq!(said(&link), (4, 4));
    // Another end is no fence.
    link.open_again();
    link.core.lost("gone".into());
    link.now = last + 3_599 * SECOND;
    link.all();
    assert_eq!(said(&link), (4, 1));
    link.now += SECOND;
    link.all();
    assert_eq!(said(&link), (4, 0), "an hour is over");
}
