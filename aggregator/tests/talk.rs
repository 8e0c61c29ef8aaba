//! A conversation with an agent, without a network: what it makes of frames, when it acknowledges,
//! and that a crash between the keeper's append and the ack costs nothing.

use crate::keeper::agent;
use crate::keeper_turns::{World, at};
use crate::sealed::{BUFFER, gap, readings, series, spoiled};
use bytes::Bytes;
use tributary_aggregator::ingest::identity::Identity;
use tributary_aggregator::ingest::talk::{End, Talk};
use tributary_aggregator::keeper::{Checked, Outcome};
use tributary_aggregator::limits::{AGENT_BURST_BYTES, ROW_BYTES_CHARGED};
use tributary_journal::{SimDisk, Survival};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::frame::{FrameKind, frame};
use tributary_protocol::ids::*;
use tributary_protocol::limits::ACK_COALESCE_US;
use tributary_protocol::message::*;

fn identity() -> Identity {
    Identity {
        agent: agent(1),
        not_after: at(0).wall_us / 1_000_000 + 60,
    }
}

fn talk() -> Talk {
    let mut talk = Talk::new(identity(), at(0));
    assert_eq!(talk.on_confirmed(at(0)), Ok(None));
    talk
}

fn hello() -> Bytes {
    let lane = |lane: Lane| LaneState {
        key: LaneKey {
            buffer: BUFFER,
            lane,
        },
        first: 0,
        end: 1_000,
        open: true,
    };
    let hello = Hello {
        name: "gate".into(),
        software: "test".into(),
        lanes: vec![lane(Lane::Series), lane(Lane::Telemetry)],
        elsewhere: Vec::new(),
    };
    Message::Hello(hello).encode().unwrap()
}

fn framed(batch: &SealedBatch) -> Bytes {
    frame(FrameKind::Batch, batch.bytes()).unwrap()
}

fn welcome(session: u64) -> Welcome {
    Welcome {
        session: Session(session),
        log: LogId([9; 16]),
        lanes: Vec::new(),
        batch_bytes_max: 1 << 18,
        in_flight_bytes: 1 << 18,
        in_flight_batches: 16,
        software: "test".into(),
        more: false,
        takes_in_doubt: false,
    }
}

/// A conversation in which batches are taken.
fn open() -> Talk {
    let mut talk = talk();
    let asked = talk.on_control(hello(), at(0)).unwrap();
    assert!(asked.is_some_and(|hello| hello.lanes.len() == 2));
    assert!(!talk.takes_batches(at(0)));
    talk.on_opened(Some(welcome(7))).unwrap();
    assert!(matches!(talk.poll(at(0)), Some(Message::Welcome(_))));
    assert_eq!(talk.poll(at(0)), None);
    assert!(talk.takes_batches(at(0)));
    talk
}

fn code<T: std::fmt::Debug>(ended: Result<T, End>) -> RejectCode {
    match ended {
        Err(End::Rejected(reject)) => reject.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hello_is_opened_and_batches_are_offered_in_its_session() {
    let mut talk = open();
    let offer = talk
        .on_batch(framed(&readings(3, 2, 10, 0)), at(1))
        .unwrap();
    assert_eq!((offer.session, &offer.agent), (Session(7), &agent(1)));
    assert_eq!(offer.batch.key().number, 3);
    assert!(matches!(offer.content, Checked::Readings { .. }));
    let bad = talk.on_batch(framed(&spoiled(4, "")), at(1)).unwrap();
    assert!(
        matches!(bad.content, Checked::Bad(_)),
        "the keeper counts its tries"
    );
}

#[test]
fn what_is_durable_is_acknowledged_together_a_moment_later() {
    let mut talk = open();
    let keys = [0, 1, 2].map(|n| gap(n).key());
    for (key, now) in keys.into_iter().zip([10, 20, 30]) {
        assert_eq!(
            talk.on_outcome(key, Some(Outcome::Durable), at(now)),
            Ok(())
        );
    }
    let due = 10 + ACK_COALESCE_US;
    assert_eq!(talk.poll_timeout(at(30)), Some(due));
    assert_eq!(talk.poll(at(due - 1)), None);
    let Some(Message::Ack(ack)) = talk.poll(at(due)) else {
        panic!("no ack at its time")
    };
    assert_eq!((ack.ranges[0].first, ack.ranges[0].end), (0, 3));
    assert_eq!(
        (talk.poll(at(due)), talk.poll_timeout(at(due))),
        (None, None)
    );
}

#[test]
fn nothing_of_a_session_is_said_before_its_welcome() {
    let mut talk = talk();
    talk.on_control(hello(), at(0)).unwrap();
    talk.on_opened(Some(welcome(7))).unwrap();
    talk.on_outcome(gap(0).key(), Some(Outcome::Durable), at(0))
        .unwrap();
    let late = at(1 + ACK_COALESCE_US);
    assert!(matches!(talk.poll(late), Some(Message::Welcome(_))));
    assert!(matches!(talk.poll(late), Some(Message::Ack(_))));
}

#[test]
fn what_is_wrong_ends_it_and_says_why() {
    let batch = framed(&gap(0));
    let mut flipped = batch.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(
        code(open().on_batch(flipped.into(), at(0))),
        RejectCode::Protocol
    );
    assert_eq!(code(open().on_batch(hello(), at(0))), RejectCode::Protocol);
    assert_eq!(
        code(talk().on_batch(batch.clone(), at(0))),
        RejectCode::Protocol
    );
    assert_eq!(
        code(open().on_control(hello(), at(0))),
        RejectCode::Protocol
    );
    assert_eq!(code(open().on_control(batch, at(0))), RejectCode::Protocol);
    assert_eq!(code(talk().on_opened(None)), RejectCode::Closing);
    assert_eq!(
        code(open().on_outcome(gap(0).key(), None, at(0))),
        RejectCode::Closing
    );
    let goodbye = Reject {
        code: RejectCode::Closing,
        detail: String::new(),
        retry_after_ms: 0,
        batch: None,
    };
    let goodbye = Message::Reject(goodbye).encode().unwrap();
    assert_eq!(open().on_control(goodbye, at(0)), Err(End::Gone));
}

#[test]
fn a_certificate_that_expires_ends_it_by_the_systems_clock() {
    let late = at(61_000_000);
    assert_eq!(
        code(open().on_batch(framed(&gap(0)), late)),
        RejectCode::Forbidden
    );
    assert_eq!(
        code(talk().on_control(hello(), late)),
        RejectCode::Forbidden
    );
}

#[test]
fn who_sends_too_much_waits_and_is_told_when_it_is_over() {
    let mut talk = open();
    let batch = crate::sealed::dense(0);
    let charged = u64::from(batch.rows()) * ROW_BYTES_CHARGED as u64;
    let mut sent = 0;
    while talk.takes_batches(at(0)) {
        talk.on_batch(framed(&batch), at(0)).unwrap();
        sent += 1;
    }
    assert_eq!(sent, AGENT_BURST_BYTES / charged + 1);
    let ready = talk.poll_timeout(at(0)).unwrap();
    assert!(ready > 0 && !talk.takes_batches(at(ready - 1)));
    assert!(talk.takes_batches(at(ready)));
    assert_eq!(talk.poll_timeout(at(ready)), None);
}

#[test]
fn what_a_handshake_has_not_confirmed_begins_no_session() {
    let mut talk = Talk::new(identity(), at(0));
    assert_eq!(talk.on_control(hello(), at(0)), Ok(None));
    assert!(!talk.takes_batches(at(0)));
    assert!(talk.on_confirmed(at(5)).unwrap().is_some(), "it waited");
    talk.on_opened(Some(welcome(1))).unwrap();
    assert!(talk.takes_batches(at(5)));
}

/// One thread is agent, conversation and keeper; the power goes when the batch is durable and
/// nobody has heard of it.
#[test]
fn a_crash_between_append_and_ack_costs_nothing() {
    let disk = SimDisk::new(3);
    let mut world = World::open(&disk);
    let (_, session) = begin(&mut world);
    assert_eq!(world.offer(session, &series(0, 0, 2), 1), Outcome::Durable);
    let batch = readings(0, 2, 10, 0);
    let mut answer = world.hand_in(session, &batch);
    world.keeper.turn(at(2));
    let after = disk.crash(Survival::Nothing);
    assert_eq!(answer.try_recv(), Ok(Outcome::Durable));

    let mut world = World::open(&after);
    let (mut talk, _) = begin(&mut world);
    let offer = talk.on_batch(framed(&batch), at(1)).unwrap();
    let key = offer.batch.key();
    let mut answer = world.parts.handle.try_offer(offer).unwrap();
    world.keeper.turn(at(1));
    talk.on_outcome(key, answer.try_recv().ok(), at(1)).unwrap();
    let ack = talk.poll(at(1 + ACK_COALESCE_US));
    assert!(matches!(ack, Some(Message::Ack(ack)) if ack.again.is_empty()));
    assert_eq!(
        world.entries(),
        2,
        "acknowledged again, and not written again"
    );
}

/// A conversation that the keeper has opened.
fn begin(world: &mut World) -> (Talk, Session) {
    let mut talk = talk();
    let hello = talk.on_control(hello(), at(0)).unwrap().unwrap();
    let handle = world.parts.handle.clone();
    let mut answer = handle
        .try_open(agent(1), hello, Default::default())
        .unwrap();
    world.keeper.turn(at(0));
    let welcome = answer.try_recv().unwrap();
    let session = welcome.session;
    talk.on_opened(Some(welcome)).unwrap();
    while talk.poll(at(0)).is_some() {}
    (talk, session)
}
