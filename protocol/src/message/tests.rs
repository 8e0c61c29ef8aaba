//! Messages come back as they went, and arbitrary bytes never panic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::frame::RawFrame;
use crate::ids::BatchHash;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

fn key() -> impl Strategy<Value = LaneKey> {
    (any::<[u8; 16]>(), 0u8..5).prop_map(|(buffer, lane)| LaneKey {
        buffer: BufferId(buffer),
        lane: Lane::from_code(lane).unwrap(),
    })
}

fn batch_key() -> impl Strategy<Value = BatchKey> {
    (key(), 0..NUMBER_MAX).prop_map(|(key, number)| BatchKey {
        buffer: key.buffer,
        lane: key.lane,
        number,
    })
}

fn some_runs(count: u64) -> Vec<Held> {
    let run = |i: u64| Held {
        first: i * 10,
        end: i * 10 + 1 + i % 8,
        sum: HashSum::default().with(BatchHash::of(&i.to_le_bytes())),
    };
    (0..count).map(run).collect()
}

prop_compose! {
    fn hello()(
        name in "[a-z0-9 ]{0,40}",
        lanes in proptest::collection::vec(
            (key(), 0..NUMBER_MAX, 0u64..1000, any::<bool>()),
            0..20,
        ),
        elsewhere in proptest::collection::vec((key(), any::<[u8; 16]>(), 1u64..60), 0..9),
    ) -> Message {
        let elsewhere = elsewhere.into_iter().map(|(key, log, runs)| Elsewhere {
            key,
            log: LogId(log),
            ranges: some_runs(runs),
        });
        let lanes = lanes.into_iter().map(|(key, first, more, open)| LaneState {
            key,
            first: first.min(NUMBER_MAX - more),
            end: first.min(NUMBER_MAX - more) + more,
            open,
        });
        Message::Hello(Hello {
            name,
            software: "x 1".into(),
            lanes: lanes.collect(),
            elsewhere: elsewhere.collect(),
        })
    }
}

prop_compose! {
    fn welcome()(
        session in any::<u64>(),
        log in any::<[u8; 16]>(),
        lanes in proptest::collection::vec((key(), 0usize..60, any::<u32>()), 0..20),
        more in any::<bool>(),
        takes_in_doubt in any::<bool>(),
    ) -> Message {
        let lanes = lanes.into_iter().map(|(key, runs, series_known)| LaneHeld {
            key,
            ranges: some_runs(runs as u64),
            series_known,
        });
        Message::Welcome(Welcome {
            session: Session(session),
            log: LogId(log),
            lanes: lanes.collect(),
            batch_bytes_max: 1,
            in_flight_bytes: 2,
            in_flight_batches: 3,
            software: "tributary 1".into(),
            more,
            takes_in_doubt,
        })
    }
}

prop_compose! {
    fn ack()(
        ranges in proptest::collection::vec((key(), 0..NUMBER_MAX / 2, 0u64..99), 0..40),
        again in proptest::collection::vec(batch_key(), 0..40),
    ) -> Message {
        let ranges = ranges.into_iter();
        Message::Ack(Ack {
            ranges: ranges.map(|(key, first, n)| AckRange { key, first, end: first + n }).collect(),
            again: again
                .into_iter()
                .map(|key| Again { key, reason: AgainReason::SeriesUnknown })
                .collect(),
        })
    }
}

prop_compose! {
    fn reject()(
        code in proptest::sample::select(RejectCode::ALL.to_vec()),
        detail in "[a-z ]{0,99}",
        retry_after_ms in any::<u32>(),
        batch in proptest::option::of(batch_key()),
    ) -> Message {
        Message::Reject(Reject { code, detail, retry_after_ms, batch })
    }
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![hello(), welcome(), ack(), reject()]
}

/// The newest revision of golden messages: of those that have more to say than before. Those of all
/// revisions must be read for ever.
const REVISION: u32 = 2;

fn golden_key(lane: Lane) -> LaneKey {
    LaneKey {
        buffer: BufferId::new(3, 0x0102_0304),
        lane,
    }
}

fn golden_hello(revision: u32) -> Hello {
    let state = |lane, first, end| LaneState {
        key: golden_key(lane),
        first,
        end,
        open: lane == Lane::Telemetry,
    };
    Hello {
        name: "pump house".into(),
        software: "tributary 0.1".into(),
        lanes: vec![state(Lane::Series, 0, 2), state(Lane::Telemetry, 7, 40)],
        elsewhere: match revision {
            1 => Vec::new(),
            _ => vec![Elsewhere {
                key: golden_key(Lane::Telemetry),
                log: LogId([6; 16]),
                ranges: vec![golden_run(0, 7), golden_run(20, 22)],
            }],
        },
    }
}

fn golden_run(first: u64, end: u64) -> Held {
    Held {
        first,
        end,
        sum: HashSum((u128::from(first) << 64) | u128::from(end)),
    }
}

fn golden_welcome(revision: u32) -> Welcome {
    Welcome {
        session: Session(9),
        log: LogId([5; 16]),
        lanes: vec![LaneHeld {
            key: golden_key(Lane::Telemetry),
            ranges: vec![golden_run(0, 7), golden_run(30, 31)],
            series_known: 12,
        }],
        batch_bytes_max: 1,
        in_flight_bytes: 2,
        in_flight_batches: 3,
        software: "tributary-aggregator 0.1".into(),
        more: true,
        takes_in_doubt: revision > 1,
    }
}

/// The messages of a revision, as this build understands them.
fn golden_messages(revision: u32) -> [(&'static str, Message); 4] {
    let key = golden_key(Lane::Telemetry);
    let batch = |number| BatchKey {
        buffer: key.buffer,
        lane: key.lane,
        number,
    };
    let ack = Ack {
        ranges: vec![AckRange {
            key,
            first: 3,
            end: 9,
        }],
        again: vec![Again {
            key: batch(11),
            reason: AgainReason::Holes,
        }],
    };
    let reject = Reject {
        code: RejectCode::Conflict,
        detail: "held with another hash".into(),
        retry_after_ms: 500,
        batch: Some(batch(4)),
    };
    [
        ("hello", Message::Hello(golden_hello(revision))),
        ("welcome", Message::Welcome(golden_welcome(revision))),
        ("ack", Message::Ack(ack)),
        ("reject", Message::Reject(reject)),
    ]
}

/// `GOLDEN=new cargo test -p tributary-protocol` writes files that are missing; none is changed.
#[test]
fn golden_messages_stay_as_they_are() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for revision in 1..=REVISION {
        let changed = |name: &str| revision == 1 || matches!(name, "hello" | "welcome");
        for (name, message) in golden_messages(revision) {
            if !changed(name) {
                continue;
            }
            let path = folder.join(format!("{name}-{revision}.hex"));
            let bytes = message.encode().unwrap();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            if !path.exists() && std::env::var_os("GOLDEN").is_some_and(|value| value == "new") {
                std::fs::write(&path, format!("{hex}\n")).unwrap();
            }
            let held = std::fs::read_to_string(&path).unwrap();
            // What is not said takes no bytes, so that an older peer hears what it always heard.
            assert_eq!(held.trim(), hex, "{name}-{revision}: encoding changed");
            let held = held.trim().as_bytes().chunks(2);
            let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            let held: Vec<u8> = held.map(byte).collect();
            let frame = RawFrame(held.into()).verify().unwrap();
            assert_eq!(
                Message::parse(&frame).unwrap(),
                message,
                "{name}-{revision}"
            );
        }
    }
}

proptest! {
    #[test]
    fn messages_come_back(message in any_message()) {
        let frame = RawFrame(message.encode().unwrap()).verify().unwrap();
        prop_assert_eq!(Message::parse(&frame).unwrap(), message);
    }
}

/// 100,000 seeded mutations behind a good checksum, so that the parser itself is reached.
#[test]
fn mutations_never_panic() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut refused = 0;
    for _ in 0..1_000 {
        let message = any_message().new_tree(&mut runner).unwrap().current();
        let good = RawFrame(message.encode().unwrap()).verify().unwrap();
        for _ in 0..100 {
            let mut bytes = good.payload.to_vec();
            for _ in 0..1 + next() % 4 {
                let at = next() as usize % bytes.len();
                bytes[at] = next() as u8;
            }
            if next().is_multiple_of(8) {
                bytes.truncate(next() as usize % bytes.len());
            }
            let kind = FrameKind::ALL[next() as usize % FrameKind::ALL.len()];
            let kind = if next().is_multiple_of(4) {
                kind
            } else {
                good.kind
            };
            let mutated = Frame {
                kind,
                payload: bytes.into(),
            };
            refused += usize::from(Message::parse(&mutated).is_err());
        }
    }
    assert!(
        refused > 10_000,
        "the mutations reach nothing: {refused} refused"
    );
}

#[test]
fn a_great_welcome_is_paged() {
    let lane = |i: u64| LaneHeld {
        key: LaneKey {
            buffer: BufferId::new(i, 7),
            lane: Lane::Telemetry,
        },
        ranges: (0..WELCOME_RANGES_MAX as u64)
            .map(|r| Held {
                first: 1 + r * 9,
                end: 4 + r * 9,
                sum: HashSum(u128::from(r)),
            })
            .collect(),
        series_known: 1,
    };
    let whole = Welcome {
        session: Session(1),
        log: LogId([1; 16]),
        lanes: (0..HELLO_LANES_MAX as u64).map(lane).collect(),
        batch_bytes_max: 0,
        in_flight_bytes: 0,
        in_flight_batches: 0,
        software: String::new(),
        more: false,
        takes_in_doubt: false,
    };
    let pages = whole.clone().pages();
    assert!(pages.len() > 10);
    for (i, page) in pages.iter().enumerate() {
        assert_eq!(page.more, i + 1 < pages.len());
        assert!(Message::Welcome(page.clone()).encode().is_ok());
    }
    let lanes: Vec<_> = pages.into_iter().flat_map(|page| page.lanes).collect();
    assert_eq!(lanes, whole.lanes);
}

#[test]
fn the_greatest_hello_fits_a_frame() {
    let lane = |i: u64| LaneState {
        key: LaneKey {
            buffer: BufferId::new(i, i),
            lane: Lane::Telemetry,
        },
        first: NUMBER_MAX - 2,
        end: NUMBER_MAX - 1,
        open: true,
    };
    let name = "n".repeat(NAME_BYTES_MAX);
    let lanes = (0..HELLO_LANES_MAX as u64).map(lane).collect();
    let mut hello = Hello {
        name,
        software: "s".into(),
        lanes,
        elsewhere: Vec::new(),
    };
    // More than there is room for; the newest ranges of each lane are in it.
    for i in 0..HELLO_ELSEWHERE_MAX as u64 {
        hello.push_elsewhere(Elsewhere {
            key: LaneKey {
                buffer: BufferId::new(i, i),
                lane: Lane::Telemetry,
            },
            log: LogId([9; 16]),
            ranges: some_runs(1 + i),
        });
    }
    let ranges: usize = hello.elsewhere.iter().map(|it| it.ranges.len()).sum();
    assert!(ranges > 500, "{ranges}");
    let hello = Message::Hello(hello);
    let frame = RawFrame(hello.encode().unwrap()).verify().unwrap();
    assert_eq!(Message::parse(&frame), Ok(hello));
}
