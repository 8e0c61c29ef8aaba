//! The lanes of what is said: when each is due, and what stands together.

use super::*;
use crate::alert::AlertState;
use tributary_protocol::batch::{Content, Decoder};
use tributary_protocol::reading::Meta;

fn origin(life: u64, number: u64) -> Origin {
    Origin {
        buffer: BufferId::new(life, 1),
        number,
    }
}

fn now(monotonic: i64) -> Now {
    Now {
        monotonic,
        wall: 1_700_000_000_000_000 + monotonic,
    }
}

fn spoken(device: u64, json: String) -> Spoken {
    Spoken {
        device: format!("d{device}"),
        metric: "t".into(),
        meta: Meta::default(),
        state: AlertState::Raised,
        is_present: true,
        is_passing: false,
        json,
    }
}

/// So many alerts and aggregates of a message.
fn said(origin: Origin, alerts: usize, aggregates: usize) -> FromJudge {
    let some = |count| {
        let all = (0..count).map(|_| spoken(origin.number, "xxx".to_owned()));
        all.collect()
    };
    FromJudge::Said {
        origin,
        alerts: some(alerts),
        aggregates: some(aggregates),
    }
}

fn lanes(covered: Option<Origin>) -> SpokenLanes {
    SpokenLanes::new(BufferId::new(2, 1), |_| covered)
}

fn covers(sealed: &(Vec<SealedBatch>, Origin)) -> Vec<(u64, u64, u64)> {
    let [batch] = &sealed.0[..] else {
        panic!("one batch");
    };
    let shown = |cover: &Cover| (cover.buffer.life(), cover.first, cover.count);
    batch.covers().iter().map(shown).collect()
}

#[test]
fn only_alerts_of_durable_messages_are_sealed_and_at_most_five_times_a_second() {
    let mut lanes = lanes(Some(origin(1, 5)));
    for at in [origin(1, 7), origin(2, 4), origin(2, 9)] {
        lanes.take(said(at, 1, 0), now(0));
    }
    assert_eq!(lanes.poll_timeout(Some(origin(1, 7))), None);
    let at_once = Some((0, Lane::Alerts));
    assert_eq!(lanes.poll_timeout(Some(origin(1, 8))), at_once);
    assert!(lanes.seal(Lane::Alerts, origin(1, 7), now(0)).is_none());
    let sealed = lanes.seal(Lane::Alerts, origin(2, 6), now(10)).unwrap();
    assert_eq!(covers(&sealed), [(1, 5, 3), (2, 4, 1)]);
    let due = Some((10 + JUDGED_SEAL_US, Lane::Alerts));
    assert_eq!(lanes.poll_timeout(Some(origin(2, 10))), due);
    let sealed = lanes.seal(Lane::Alerts, origin(2, 10), now(20)).unwrap();
    assert_eq!(
        (covers(&sealed), sealed.1),
        (vec![(2, 5, 5)], origin(2, 10))
    );
}

#[test]
fn each_lane_covers_what_it_holds_itself() {
    let mut lanes = lanes(None);
    lanes.take(said(origin(2, 3), 0, 2), now(0));
    lanes.take(said(origin(2, 5), 1, 0), now(0));
    lanes.take(said(origin(2, 8), 1, 1), now(0));
    let durable = origin(2, 7);
    let alerts = lanes.seal(Lane::Alerts, durable, now(0)).unwrap();
    let aggregates = lanes.seal(Lane::Aggregates, durable, now(0)).unwrap();
    assert_eq!(covers(&alerts), [(2, 5, 1)]);
    assert_eq!(covers(&aggregates), [(2, 3, 1)]);
    let keys = [&alerts, &aggregates].map(|sealed| sealed.0[0].key());
    assert_eq!(keys.map(|key| key.lane), [Lane::Alerts, Lane::Aggregates]);
    assert_eq!(keys.map(|key| key.number), [0, 0]);
}

#[test]
fn aggregates_wait_for_others_until_they_are_old_or_many() {
    let mut lanes = lanes(None);
    let end = origin(2, 100_000);
    let durable = Some(end);
    lanes.take(said(origin(2, 1), 0, 1), now(1_000));
    lanes.take(said(origin(2, 2), 0, 1), now(9_000));
    let due = Some((1_000 + AGGREGATES_SEAL_US, Lane::Aggregates));
    assert_eq!(lanes.poll_timeout(durable), due);
    // An alert beside them is due at once.
    lanes.take(said(origin(2, 3), 1, 0), now(9_000));
    assert_eq!(lanes.poll_timeout(durable).unwrap().1, Lane::Alerts);
    lanes.seal(Lane::Alerts, end, now(9_000)).unwrap();
    assert_eq!(lanes.poll_timeout(durable), due);
    for number in 4..JUDGED_WAITING_MAX as u64 / 2 + 2 {
        lanes.take(said(origin(2, number), 0, 1), now(10_000));
    }
    assert!(lanes.poll_timeout(durable).unwrap().0 < 0 && lanes.takes());
    let long = "x".repeat(BATCH_TEXT_TARGET_BYTES / 10);
    let mut lanes = self::lanes(None);
    for number in 0..11 {
        let aggregates = vec![spoken(number, long.clone())];
        let (origin, alerts) = (origin(2, number), Vec::new());
        assert!(lanes.poll_timeout(durable).is_none_or(|(at, _)| at > 0));
        lanes.take(
            FromJudge::Said {
                origin,
                alerts,
                aggregates,
            },
            now(0),
        );
    }
    assert!(lanes.poll_timeout(durable).unwrap().0 < 0);
}

#[test]
fn no_more_is_taken_than_may_wait() {
    let mut lanes = lanes(None);
    for number in 0..JUDGED_WAITING_MAX as u64 {
        assert!(lanes.takes());
        lanes.take(said(origin(2, number), 1, 0), now(0));
    }
    assert!(!lanes.takes());
    lanes.seal(Lane::Alerts, origin(2, 1), now(0)).unwrap();
    assert!(lanes.takes());
    for n in 0..JUDGED_CHECKPOINTS_MAX as u64 {
        assert!(lanes.takes());
        let (at, body) = (origin(2, n), Vec::new());
        lanes.take(
            FromJudge::Checkpoint(Known {
                at,
                given_way: 0,
                rows: 0,
                body,
            }),
            now(0),
        );
    }
    assert!(!lanes.takes());
}

#[test]
fn a_message_stands_in_one_batch_and_a_batch_is_bounded() {
    let mut lanes = lanes(None);
    let long = "x".repeat((BATCH_TEXT_TARGET_BYTES / 5).min(60_000));
    for number in 0..12 {
        let from = FromJudge::Said {
            origin: origin(2, number),
            alerts: vec![spoken(number, long.clone())],
            aggregates: Vec::new(),
        };
        lanes.take(from, now(0));
    }
    let mut rows = Vec::new();
    while let Some((batches, _)) = lanes.seal(Lane::Alerts, origin(2, 100), now(0)) {
        assert_eq!(batches.len(), 1);
        rows.push(batches[0].rows());
    }
    assert_eq!(rows.iter().sum::<u32>(), 12);
    assert!(
        rows.len() > 1 && rows.iter().all(|rows| *rows <= 5),
        "{rows:?}"
    );
}

/// A tick may close a window of every series that there is.
#[test]
fn what_fits_no_batch_stands_in_several_that_are_stored_together() {
    let mut lanes = lanes(None);
    lanes.take(said(origin(2, 1), 0, 3), now(0));
    let json = |n: u64| format!("{{\"n\":{n},\"text\":\"{}\"}}", "y".repeat(400));
    let aggregates: Vec<_> = (0..2_500).map(|n| spoken(n, json(n))).collect();
    let (at, alerts) = (origin(2, 4), Vec::new());
    lanes.take(
        FromJudge::Said {
            origin: at,
            alerts,
            aggregates,
        },
        now(0),
    );
    lanes.take(said(origin(2, 6), 0, 1), now(0));
    let mut seal = || lanes.seal(Lane::Aggregates, origin(2, 9), now(0));
    assert_eq!(covers(&seal().unwrap()), [(2, 1, 1)]);
    let (batches, end) = seal().unwrap();
    assert!(
        batches.len() > 2 && end == origin(2, 5),
        "{}",
        batches.len()
    );
    let mut texts = Vec::new();
    for (number, batch) in (1..).zip(&batches) {
        assert_eq!(batch.key().number, number);
        assert_eq!(batch.covers().len(), 1);
        let Content::Readings(readings) = batch.decode(&mut Decoder::new()).unwrap() else {
            panic!("readings");
        };
        for row in readings.rows() {
            let Value::Str(text) = readings.value(row) else {
                panic!("a text");
            };
            texts.push(text.to_owned());
        }
    }
    texts.sort();
    let mut expected: Vec<_> = (0..2_500).map(json).collect();
    expected.sort();
    assert_eq!(texts, expected);
    assert_eq!(covers(&seal().unwrap()), [(2, 5, 2)]);
    assert!(seal().is_none() && lanes.aggregates.waiting_bytes == 0);
}

/// What no text compresses stays within a frame; what is beyond is counted.
#[test]
fn what_was_said_with_one_message_fits_one_frame_whatever_it_is() {
    let mut lanes = lanes(None);
    let mut random = 1_u64;
    let mut noise = |n| {
        let mut text = String::with_capacity(20_000);
        while text.len() < 20_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(n);
            text.push(char::from(33 + (random >> 33) as u8 % 90));
        }
        text
    };
    let aggregates = (0..200).map(|n| spoken(n, noise(n))).collect();
    let (origin, alerts) = (origin(2, 4), Vec::new());
    lanes.take(
        FromJudge::Said {
            origin,
            alerts,
            aggregates,
        },
        now(0),
    );
    let durable = self::origin(2, 9);
    let (batches, _) = lanes.seal(Lane::Aggregates, durable, now(0)).unwrap();
    let bytes: usize = batches.iter().map(|batch| batch.bytes().len()).sum();
    let rows: u32 = batches.iter().map(SealedBatch::rows).sum();
    assert!(
        bytes < FRAME_BYTES_MAX && bytes > FRAME_BYTES_MAX / 2,
        "{bytes}"
    );
    assert!((60..200).contains(&rows), "{rows}");
}

#[test]
fn a_checkpoint_waits_for_both_lanes_and_neither_holds_back_then() {
    let mut lanes = lanes(None);
    lanes.take(said(origin(2, 3), 1, 1), now(0));
    let (at, body) = (origin(2, 5), vec![1]);
    let known = Known {
        at,
        given_way: 0,
        rows: 0,
        body,
    };
    lanes.take(FromJudge::Checkpoint(known.clone()), now(0));
    lanes.take(said(origin(2, 6), 0, 1), now(0));
    let durable = origin(2, 4);
    lanes.seal(Lane::Alerts, durable, now(0)).unwrap();
    assert_eq!(lanes.checkpoint(Some(at)), None, "its aggregates");
    let held = Some((AGGREGATES_SEAL_US, Lane::Aggregates));
    assert_eq!(lanes.poll_timeout(Some(durable)), held, "it is not durable");
    assert!(lanes.poll_timeout(Some(at)).unwrap().0 < 0);
    lanes.seal(Lane::Aggregates, durable, now(0)).unwrap();
    assert_eq!(lanes.checkpoint(Some(durable)), None, "it is not durable");
    assert_eq!(lanes.checkpoint(Some(at)), Some(known));
    // What came behind it waits as ever.
    let due = lanes.poll_timeout(Some(origin(2, 7)));
    assert_eq!(due, Some((AGGREGATES_SEAL_US, Lane::Aggregates)));
}
