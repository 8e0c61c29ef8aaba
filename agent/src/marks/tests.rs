//! What is a repeat and what is not, and that a checkpoint changes nothing.

use super::*;
use crate::limits::CONNECTIONS_MAX;
use proptest::prelude::*;

fn message(seq: Option<i64>, content: u64) -> Evidence<'static> {
    Evidence {
        device: Some("d"),
        device_seq: seq,
        has_time: false,
        content,
        session: 1,
        packet_id: 5,
        exactly_once: false,
        dup: false,
        broker: false,
        retain: false,
        topic: "d/m",
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
        Judged::MaybeRepeat,
        "DUP alone is no evidence"
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
    assert!(keyed.entry(&0, || 0).contains(&Mark {
        number: 1,
        content: 1
    }));
}

/// One that uses packet id 1 for everything, one after the other: what it sent long ago is no
/// evidence against what it sends now.
#[test]
fn only_the_newest_message_with_a_packet_id_can_be_redelivered() {
    let mut marks = Marks::new();
    for content in [10, 11] {
        assert_eq!(marks.judge(&message(None, content)), Judged::New);
    }
    let again = |content| Evidence {
        dup: true,
        ..message(None, content)
    };
    assert_eq!(marks.judge(&again(11)), Judged::Repeat(Reason::Dup));
    // Its first copy never came: not the one that was acknowledged before.
    assert_eq!(marks.judge(&again(10)), Judged::MaybeRepeat);
}

#[test]
fn a_released_message_is_no_evidence_and_one_that_is_not_needs_dup() {
    let mut marks = Marks::new();
    let first = Evidence {
        exactly_once: true,
        ..message(None, 10)
    };
    let again = Evidence { dup: true, ..first };
    assert_eq!(marks.judge(&first), Judged::New);
    assert_eq!(marks.judge(&again), Judged::Repeat(Reason::Unreleased));
    marks.release(1, 5);
    marks.release(1, 5);
    assert_eq!(marks.judge(&again), Judged::New);
    // A device that lost its state and begins again with the same id: kept.
    assert_eq!(marks.judge(&first), Judged::MaybeRepeat);
    let timed = Evidence {
        has_time: true,
        ..first
    };
    assert_eq!(marks.judge(&timed), Judged::New);
    let other = Evidence {
        content: 11,
        ..again
    };
    assert_eq!(marks.judge(&other), Judged::New, "other content");
    assert_eq!(marks.judge(&other), Judged::Repeat(Reason::Unreleased));
    let elsewhere = Evidence {
        session: 2,
        ..other
    };
    assert_eq!(marks.judge(&elsewhere), Judged::New);
}

#[test]
fn unreleased_messages_are_bounded_and_the_oldest_goes() {
    let mut marks = Marks::new();
    let with = |packet_id, dup| Evidence {
        exactly_once: true,
        packet_id,
        dup,
        ..message(None, 10)
    };
    for id in 1..=UNRELEASED_MAX as u16 + 1 {
        assert_eq!(marks.judge(&with(id, false)), Judged::New);
    }
    let held = marks.judge(&with(2, true));
    assert_eq!(held, Judged::Repeat(Reason::Unreleased));
    assert_eq!(marks.judge(&with(1, true)), Judged::New);
}

#[test]
fn sessions_that_are_kept_are_told_and_written_down() {
    let mut marks = Marks::new();
    marks.keep(7, 60);
    marks.keep(8, 60);
    marks.keep(8, 0);
    let mut bytes = Vec::new();
    marks.write_checkpoint(&mut bytes);
    let back = Marks::read_checkpoint(&mut bytes.as_slice()).unwrap();
    assert_eq!(back.kept().collect::<Vec<_>>(), [(7, 60)]);
}

/// Devices that connect, publish and are never seen again, as a fleet of buttons does: none of
/// them takes the place of a session that is kept.
#[test]
fn any_number_of_short_sessions_forgets_none_that_is_kept() {
    let unreleased = Evidence {
        exactly_once: true,
        dup: true,
        ..message(None, 10)
    };
    let mut marks = Marks::new();
    marks.keep(unreleased.session, 60);
    assert_eq!(marks.judge(&unreleased), Judged::New);
    marks.keep(2, 60);
    for session in 0..2 * MARKED_SESSIONS_MAX as u64 {
        let session = 100 + session;
        let short = Evidence {
            session,
            exactly_once: session % 2 == 0,
            ..message(None, 10)
        };
        marks.judge(&short);
        // Some go without releasing anything.
        if session % 3 > 0 {
            marks.release(session, 5);
        }
        marks.keep(session, 0);
    }
    let kept: Vec<_> = marks.kept().collect();
    assert_eq!(kept, [(2, 60), (unreleased.session, 60)]);
    assert_eq!(marks.judge(&unreleased), Judged::Repeat(Reason::Unreleased));
    let lens = (marks.sessions.loose_len(), marks.sessions.held_len());
    assert_eq!(lens, (MARKED_SESSIONS_MAX - 2, 2), "and there is a bound");
}

#[test]
fn what_all_sessions_did_not_release_is_bounded_together() {
    let mut marks = Marks::new();
    let publish = |marks: &mut Marks, session, packet_id, dup| {
        marks.judge(&Evidence {
            session,
            packet_id,
            exactly_once: true,
            dup,
            ..message(None, packet_id.into())
        })
    };
    let full = UNRELEASED_MAX as u16;
    let hoarders = (UNRELEASED_CROWD / UNRELEASED_MAX) as u64;
    for session in 0..hoarders {
        for packet_id in 1..=full {
            publish(&mut marks, session, packet_id, false);
        }
    }
    assert_eq!(marks.sessions.unreleased(), UNRELEASED_CROWD);
    // Everybody else keeps what MQTT 5 clients may have in flight.
    let modest = hoarders;
    for packet_id in 1..=RECEIVE_MAX as u16 + 1 {
        assert_eq!(publish(&mut marks, modest, packet_id, false), Judged::New);
    }
    let most = UNRELEASED_CROWD + RECEIVE_MAX;
    assert_eq!(marks.sessions.unreleased(), most);
    let repeat = Judged::Repeat(Reason::Unreleased);
    assert_eq!(publish(&mut marks, modest, 2, true), repeat);
    assert_eq!(
        publish(&mut marks, modest, 1, true),
        Judged::New,
        "the oldest"
    );
    publish(&mut marks, 0, full + 1, false);
    assert_eq!(marks.sessions.unreleased(), most, "one for one");
    for packet_id in 1..=full + 1 {
        marks.release(0, packet_id);
    }
    assert_eq!(marks.sessions.unreleased(), most - UNRELEASED_MAX);
}

#[test]
fn of_a_session_that_is_not_known_nothing_is_released_or_ended() {
    let mut marks = Marks::new();
    marks.release(7, 5);
    marks.keep(7, 0);
    assert_eq!(marks, Marks::new());
}

/// More sessions that are kept than are told apart: the oldest of them go behind the others, and
/// are the first to go only then.
#[test]
fn of_too_many_that_are_kept_the_oldest_goes() {
    let mut marks = Marks::new();
    for session in 0..HELD_SESSIONS_MAX as u64 + 1 {
        marks.keep(session, 60);
    }
    assert_eq!(marks.sessions.held_len(), HELD_SESSIONS_MAX);
    assert_eq!(marks.kept().count(), HELD_SESSIONS_MAX + 1, "still known");
    for session in 0..CONNECTIONS_MAX as u64 {
        let session = 1_000_000 + session;
        marks.judge(&Evidence {
            session,
            ..message(None, 10)
        });
    }
    assert!(marks.kept().all(|(session, _)| session != 0));
    assert_eq!(marks.kept().count(), HELD_SESSIONS_MAX);
}

/// As the version before QoS 2 wrote them: one session, one mark.
#[test]
fn marks_of_version_1_are_read() {
    let mut bytes = vec![1, 0];
    bytes.extend([0; 8]);
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0]);
    bytes.extend([5, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0]);
    let mut input = bytes.as_slice();
    let mut marks = Marks::read_checkpoint(&mut input).unwrap();
    assert!(input.is_empty());
    let again = Evidence {
        dup: true,
        ..message(None, 10)
    };
    assert_eq!(marks.judge(&again), Judged::Repeat(Reason::Dup));
}

/// As version 2 wrote them: three sessions in slots, the hand on the second, which was not used
/// since the hand came by; the first is kept, and the third has a message that was not released.
#[test]
fn marks_of_version_2_are_read_and_who_would_have_gone_next_still_does() {
    let mut bytes = vec![2, 0];
    bytes.extend([0; 8]);
    bytes.extend([3, 0, 0, 0, 1, 0, 0, 0]);
    let slot = |session: u8, used: u8, expiry_s: u8, unreleased: u8| {
        let mut bytes = vec![session, 0, 0, 0, 0, 0, 0, 0, used, 0, 0];
        bytes.extend([expiry_s, 0, 0, 0, unreleased, 0]);
        for _ in 0..unreleased {
            bytes.extend([5, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0]);
        }
        bytes
    };
    for slot in [slot(7, 1, 60, 0), slot(8, 0, 0, 0), slot(1, 1, 0, 1)] {
        bytes.extend(slot);
    }
    bytes.extend([1, 0]);
    bytes.extend([0; 16]);
    let mut input = bytes.as_slice();
    let mut marks = Marks::read_checkpoint(&mut input).unwrap();
    assert!(input.is_empty());
    assert_eq!(marks.order(), (vec![8, 1], vec![7]));
    assert_eq!(marks.kept().collect::<Vec<_>>(), [(7, 60)]);
    let again = Evidence {
        exactly_once: true,
        dup: true,
        ..message(None, 10)
    };
    assert_eq!(marks.judge(&again), Judged::Repeat(Reason::Unreleased));
}

/// As version 3 wrote it: a device with number and content of two messages.
#[test]
fn the_device_marks_of_version_3_are_read() {
    let mut bytes = vec![3, 0];
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([1, 0, b'd', 1, 2, 0]);
    for (number, content) in [(41i64, 7u64), (42, 8)] {
        bytes.extend(number.to_le_bytes());
        bytes.extend(content.to_le_bytes());
    }
    bytes.extend([0; 8]);
    bytes.extend([1, 0]);
    bytes.extend([0; 16]);
    let mut marks = Marks::read_checkpoint(&mut bytes.as_slice()).unwrap();
    for (number, content, judged) in [
        (42, 8, Judged::Repeat(Reason::DeviceSeq)),
        (41, 7, Judged::Repeat(Reason::DeviceSeq)),
        (41, 8, Judged::New),
    ] {
        assert_eq!(marks.judge(&message(Some(number), content)), judged);
    }
}

#[test]
fn a_digest_gives_the_same_for_ever() {
    // These values stand in checkpoints on disk: never change them.
    let digest = |number, content| Mark { number, content }.digest();
    assert_eq!(digest(0, 0), GOLDEN_NOTHING);
    assert_eq!(digest(17, 0x1234_5678_9abc_def0), GOLDEN_MESSAGE);
}

const GOLDEN_NOTHING: u64 = 0xe220_a839_7b1d_cdaf;
const GOLDEN_MESSAGE: u64 = 0x92b8_cc68_c9a0_5253;

#[test]
fn what_a_device_numbers_takes_eight_bytes_a_message_in_a_checkpoint() {
    let mut marks = Marks::new();
    let mut empty = Vec::new();
    marks.write_checkpoint(&mut empty);
    for number in 0..200 {
        let message = Evidence {
            packet_id: 0,
            ..message(Some(number), 5)
        };
        assert_eq!(marks.judge(&message), Judged::New);
    }
    let mut full = Vec::new();
    marks.write_checkpoint(&mut full);
    // Its name and the name's length, a bit, the count, and the last of its messages.
    assert_eq!(full.len() - empty.len(), 1 + 2 + 1 + 2 + 8 * DEVICE_MARKS);
}

/// A QoS 2 client that keeps to the standard, takes the lowest free packet id, and publishes the
/// same few values again and again, over connections that are cut.
#[derive(Default)]
struct Publisher {
    published: usize,
    /// Message, packet id, and whether it was released.
    under_way: Vec<(usize, u16, bool)>,
}

impl Publisher {
    fn publish(&mut self) {
        let taken = |id: &u16| self.under_way.iter().any(|(_, used, _)| used == id);
        let id = (1..).find(|id| !taken(id)).unwrap();
        self.under_way.push((self.published, id, false));
        self.published += 1;
    }
}

/// One connection: how many are published before and in it, how much of what is sent arrives, and
/// how many of the answers do.
type Connection = (usize, usize, usize, usize);

fn connection() -> impl Strategy<Value = Connection> {
    (0usize..3, 0usize..3, 0usize..8, 0usize..8)
}

proptest! {
    /// Whatever is cut wherever, with equal values and equal packet ids: each message once.
    #[test]
    fn qos_2_is_exactly_once(
        connections in proptest::collection::vec(connection(), 1..40),
    ) {
        let mut marks = Marks::new();
        let mut client = Publisher::default();
        let mut kept: Vec<u32> = Vec::new();
        let all: Connection = (0, 0, usize::MAX, usize::MAX);
        for (before, within, arrive, answered) in connections.into_iter().chain([all, all]) {
            let old = client.under_way.len();
            (0..before + within).for_each(|_| client.publish());
            kept.resize(client.published, 0);
            let sent = client.under_way.iter().enumerate();
            let sent: Vec<_> = sent.map(|(place, item)| (*item, place < old)).collect();
            let mut answers = Vec::new();
            for ((index, packet_id, released), dup) in sent.into_iter().take(arrive) {
                if released {
                    marks.release(1, packet_id);
                } else {
                    let judged = marks.judge(&Evidence {
                        exactly_once: true,
                        packet_id,
                        dup,
                        ..message(None, index as u64 % 2)
                    });
                    kept[index] += u32::from(!matches!(judged, Judged::Repeat(_)));
                }
                answers.push((index, released));
            }
            for (index, released) in answers.into_iter().take(answered) {
                let place = client.under_way.iter().position(|item| item.0 == index).unwrap();
                if released {
                    client.under_way.remove(place);
                } else {
                    client.under_way[place].2 = true;
                }
            }
        }
        prop_assert!(client.under_way.is_empty());
        prop_assert!(kept.iter().all(|count| *count == 1), "{kept:?}");
    }
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
        any::<bool>(),
    )
        .prop_map(
            |(device, device_seq, has_time, content, session, packet_id, exactly_once, dup)| {
                Evidence {
                    device,
                    device_seq,
                    has_time,
                    content,
                    session,
                    packet_id,
                    exactly_once,
                    dup,
                    broker: false,
                    retain: false,
                    topic: "d/m",
                }
            },
        )
}

/// What the log may say next.
#[derive(Clone, Debug)]
enum Said {
    Message(Evidence<'static>),
    Release(u64, u16),
    Keep(u64, u32),
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        6 => evidence().prop_map(Said::Message),
        2 => (0u64..3, 0u16..5).prop_map(|(session, id)| Said::Release(session, id)),
        1 => (0u64..3, 0u32..2).prop_map(|(session, expiry_s)| Said::Keep(session, expiry_s)),
    ]
}

impl Marks {
    /// Sessions that hold nothing, and those that do, oldest first.
    fn order(&self) -> (Vec<u64>, Vec<u64>) {
        let loose = self.sessions.loose().map(|(session, _)| session);
        let held = self.sessions.held().map(|(session, _)| session);
        (loose.collect(), held.collect())
    }

    fn hear(&mut self, said: &Said) -> Option<Judged> {
        match said {
            Said::Message(message) => return Some(self.judge(message)),
            Said::Release(session, packet_id) => self.release(*session, *packet_id),
            Said::Keep(session, expiry_s) => self.keep(*session, *expiry_s),
        }
        None
    }
}

proptest! {
    /// Wherever a checkpoint is taken, what follows is judged the same, and the same go next.
    #[test]
    fn a_checkpoint_changes_nothing(
        before in proptest::collection::vec(said(), 0..300),
        after in proptest::collection::vec(said(), 0..50),
    ) {
        let mut marks = Marks::new();
        for said in &before {
            marks.hear(said);
        }
        let mut bytes = Vec::new();
        marks.write_checkpoint(&mut bytes);
        let mut input = bytes.as_slice();
        let mut back = Marks::read_checkpoint(&mut input).unwrap();
        prop_assert!(input.is_empty());
        prop_assert_eq!(back.order(), marks.order());
        for said in &after {
            prop_assert_eq!(back.hear(said), marks.hear(said));
        }
        prop_assert_eq!(back.order(), marks.order());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Marks::read_checkpoint(&mut bytes.as_slice());
    }
}
