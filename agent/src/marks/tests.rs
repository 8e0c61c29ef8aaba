//! What is a repeat and what is not, and that a checkpoint changes nothing.

use super::*;
use proptest::prelude::*;

fn message(seq: Option<i64>, content: u64) -> Evidence<'static> {
    Evidence {
        device: Some("d"),
        device_seq: seq,
        has_time: false,
        content,
        session: 1,
        packet_id: 5,
        dup: false,
    }
}

#[test]
fn the_same_number_and_content_is_a_repeat_in_any_session() {
    let mut marks = Marks::new();
    assert_eq!(marks.judge(&message(Some(1), 10)), Judged::New);
    let elsewhere = Evidence {
        session: 2,
        packet_id: 0,
        ..message(Some(1), 10)
    };
    assert_eq!(marks.judge(&elsewhere), Judged::Repeat(Reason::DeviceSeq));
    let other_device = Evidence {
        device: Some("e"),
        session: 3,
        ..message(Some(1), 10)
    };
    assert_eq!(marks.judge(&other_device), Judged::New);
}

#[test]
fn a_reboot_counts_from_zero_again_and_loses_nothing() {
    let mut marks = Marks::new();
    for boot in 0..3 {
        for seq in 0..100 {
            let judged = marks.judge(&message(Some(seq), boot * 1_000 + seq as u64));
            assert_eq!(judged, Judged::New, "boot {boot}, seq {seq}");
        }
    }
}

#[test]
fn a_redelivery_without_a_number_needs_dup_packet_id_and_content() {
    let mut marks = Marks::new();
    assert_eq!(marks.judge(&message(None, 10)), Judged::New);
    let again = Evidence {
        dup: true,
        ..message(None, 10)
    };
    assert_eq!(marks.judge(&again), Judged::Repeat(Reason::Dup));
    assert_eq!(
        marks.judge(&Evidence {
            packet_id: 6,
            ..again
        }),
        Judged::New
    );
    assert_eq!(
        marks.judge(&Evidence {
            content: 11,
            ..again
        }),
        Judged::New
    );
    assert_eq!(
        marks.judge(&Evidence {
            session: 2,
            ..again
        }),
        Judged::New
    );
}

#[test]
fn a_constant_value_is_never_dropped_and_flagged_only_without_time() {
    let mut marks = Marks::new();
    assert_eq!(marks.judge(&message(None, 10)), Judged::New);
    assert_eq!(marks.judge(&message(None, 10)), Judged::MaybeRepeat);
    assert_eq!(
        marks.judge(&Evidence {
            has_time: true,
            ..message(None, 10)
        }),
        Judged::New
    );
    assert_eq!(marks.judge(&message(Some(4), 10)), Judged::New);
    let qos_0 = Evidence {
        packet_id: 0,
        ..message(None, 10)
    };
    assert_eq!(marks.judge(&qos_0), Judged::New);
}

#[test]
fn devices_are_bounded_and_the_busy_ones_stay() {
    let mut keyed: Keyed<u64, Ring<2>> = Keyed::new(100);
    for key in 0..1_000u64 {
        keyed.entry(&0, || 0).push(Mark {
            number: 1,
            content: 1,
        });
        keyed.entry(&key, || key);
    }
    assert_eq!(keyed.len(), 100);
    assert!(keyed.entry(&0, || 0).contains(Mark {
        number: 1,
        content: 1
    }));
}

fn evidence() -> impl Strategy<Value = Evidence<'static>> {
    let device = proptest::sample::select(vec![None, Some("a"), Some("b")]);
    let seq = proptest::option::of(0i64..6);
    (
        device,
        seq,
        any::<bool>(),
        0u64..4,
        0u64..3,
        0u16..5,
        any::<bool>(),
    )
        .prop_map(
            |(device, device_seq, has_time, content, session, packet_id, dup)| Evidence {
                device,
                device_seq,
                has_time,
                content,
                session,
                packet_id,
                dup,
            },
        )
}

proptest! {
    /// Wherever a checkpoint is taken, what follows is judged the same.
    #[test]
    fn a_checkpoint_changes_nothing(
        before in proptest::collection::vec(evidence(), 0..300),
        after in proptest::collection::vec(evidence(), 0..50),
    ) {
        let mut marks = Marks::new();
        for message in &before {
            marks.judge(message);
        }
        let mut bytes = Vec::new();
        marks.write_checkpoint(&mut bytes);
        let mut input = bytes.as_slice();
        let mut back = Marks::read_checkpoint(&mut input).unwrap();
        prop_assert!(input.is_empty());
        for message in &after {
            prop_assert_eq!(back.judge(message), marks.judge(message));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Marks::read_checkpoint(&mut bytes.as_slice());
    }
}
