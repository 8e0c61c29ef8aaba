//! The outbox against what a server may do.

use super::*;
use crate::reading::Value;
use proptest::prelude::*;
use std::collections::HashMap;

fn reading(seq: u64) -> Reading {
    Reading {
        series: 0,
        seq,
        time_us: 0,
        value: Value::I64(0),
        written: None,
        fault: None,
    }
}

fn outbox_at(qos: Qos, readings: u64) -> Outbox {
    let mut outbox = Outbox::new(qos);
    outbox.queue_mut().extend((0..readings).map(reading));
    outbox
}

fn outbox(readings: u64) -> Outbox {
    outbox_at(Qos::AtLeastOnce, readings)
}

fn drain(outbox: &mut Outbox) -> Vec<(u16, bool, u64)> {
    let mut sent = Vec::new();
    while let Some(next) = outbox.poll_transmit() {
        let Transmit::Publish { pkid, dup, reading } = next else {
            panic!("{next:?} where only publications are due");
        };
        sent.push((pkid, dup, reading.seq));
    }
    sent
}

/// As text: `+7` a publication of packet id 7, `*7` the same with DUP, `-7` its release.
fn said(outbox: &mut Outbox) -> String {
    let mut words = Vec::new();
    while let Some(next) = outbox.poll_transmit() {
        words.push(match next {
            Transmit::Publish { pkid, dup, .. } => format!("{}{pkid}", if dup { '*' } else { '+' }),
            Transmit::Release { pkid } => format!("-{pkid}"),
        });
    }
    words.join(" ")
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let mut outbox = outbox(100);
    outbox.connected(u16::MAX, true);
    assert_eq!(drain(&mut outbox).len(), WINDOW_MAX);
    assert_eq!(outbox.acknowledged(3).unwrap().seq, 2);
    assert_eq!(outbox.acknowledged(3), None, "acknowledged twice");
    assert_eq!(drain(&mut outbox), [(65, false, 64)]);
}

#[test]
fn a_lost_connection_sends_the_same_again_in_order_and_first() {
    let mut outbox = outbox(10);
    outbox.connected(4, true);
    drain(&mut outbox);
    outbox.acknowledged(2);
    outbox.disconnected();
    outbox.connected(4, true);
    let again = drain(&mut outbox);
    assert_eq!(
        again,
        [(1, true, 0), (3, true, 2), (4, true, 3), (5, false, 4)]
    );
}

#[test]
fn a_server_that_takes_less_than_before_is_respected() {
    let mut outbox = outbox(10);
    outbox.connected(8, true);
    drain(&mut outbox);
    outbox.disconnected();
    outbox.connected(2, true);
    assert_eq!(drain(&mut outbox), [(1, true, 0), (2, true, 1)]);
    // An acknowledgement of what was sent on the older connection only counts as well.
    assert_eq!(outbox.acknowledged(3).unwrap().seq, 2);
    assert_eq!(drain(&mut outbox), []);
    outbox.acknowledged(1);
    assert_eq!(drain(&mut outbox), [(4, true, 3)]);
}

#[test]
fn packet_ids_wrap_around_those_in_flight() {
    let mut outbox = outbox(1);
    outbox.connected(64, true);
    drain(&mut outbox);
    for _ in 0..70_000 {
        outbox.queue_mut().push_back(reading(1));
        let sent = drain(&mut outbox);
        let (pkid, ..) = sent.first().copied().unwrap();
        assert!(pkid > 1, "0 is no packet id, and 1 is in flight");
        outbox.acknowledged(pkid);
    }
}

#[test]
fn at_qos_0_nothing_waits() {
    let mut outbox = outbox_at(Qos::AtMostOnce, 0);
    outbox.queue_mut().extend([reading(1), reading(1)]);
    assert_eq!(drain(&mut outbox), [(0, false, 1), (0, false, 1)]);
    assert!(outbox.is_empty());
}

#[test]
fn at_qos_2_an_id_is_held_until_its_release_is_confirmed() {
    let mut outbox = outbox_at(Qos::ExactlyOnce, 4);
    outbox.connected(2, false);
    assert_eq!(said(&mut outbox), "+1 +2");
    assert_eq!(outbox.received(2).unwrap().seq, 1);
    assert_eq!(outbox.in_flight(), 1, "what was received is acknowledged");
    assert_eq!(said(&mut outbox), "-2", "and still fills the window");
    assert!(!outbox.completed(1), "that was not even received");
    assert!(outbox.completed(2));
    assert_eq!(said(&mut outbox), "+3");
    outbox.received(1);
    outbox.received(3);
    outbox.completed(3);
    outbox.completed(1);
    assert_eq!(said(&mut outbox), "+4");
    assert!(!outbox.is_empty());
    outbox.received(4);
    assert!(!outbox.is_empty(), "its release is not confirmed");
    outbox.completed(4);
    assert!(outbox.is_empty());
}

#[test]
fn at_qos_2_a_session_that_goes_on_gets_releases_and_repeats_again() {
    let mut outbox = outbox_at(Qos::ExactlyOnce, 6);
    outbox.connected(4, false);
    assert_eq!(said(&mut outbox), "+1 +2 +3 +4");
    outbox.received(3);
    outbox.received(1);
    assert_eq!(said(&mut outbox), "-3 -1");
    outbox.connected(4, true);
    assert_eq!(
        said(&mut outbox),
        "-3 -1 *2 *4",
        "released in the order of PUBREC, published in the order of PUBLISH"
    );
    assert_eq!(outbox.received(3), None, "received before");
    assert_eq!(said(&mut outbox), "-3", "who asks again is told again");
    outbox.completed(3);
    assert_eq!(said(&mut outbox), "+5");
}

#[test]
fn at_qos_2_a_server_that_forgot_the_session_gets_only_what_it_did_not_receive() {
    let mut outbox = outbox_at(Qos::ExactlyOnce, 3);
    outbox.connected(3, false);
    assert_eq!(said(&mut outbox), "+1 +2 +3");
    outbox.received(2);
    outbox.connected(3, false);
    assert_eq!(said(&mut outbox), "*1 *3");
    assert_eq!(outbox.acknowledged(1).unwrap().seq, 0, "refused: done with");
    assert_eq!(said(&mut outbox), "");
}

proptest! {
    /// Whatever the server does: the order of first sending is that of production, a reading keeps
    /// its id, ids in flight are distinct, and DUP says exactly "not the first time".
    #[test]
    fn sending_keeps_its_promises(
        qos in prop::sample::select(vec![Qos::AtLeastOnce, Qos::ExactlyOnce]),
        steps in prop::collection::vec((0u8..6, any::<u16>()), 1..200)
    ) {
        let mut outbox = outbox_at(qos, 500);
        let mut ids: HashMap<u64, u16> = HashMap::new();
        let mut received = Vec::new();
        let mut next = 0;
        outbox.connected(64, false);
        for (kind, number) in steps {
            match kind {
                0 => {
                    for _ in 0..number % 20 {
                        let (pkid, dup, seq) = match outbox.poll_transmit() {
                            None => break,
                            Some(Transmit::Publish { pkid, dup, reading }) => {
                                (pkid, dup, reading.seq)
                            }
                            Some(Transmit::Release { pkid }) => {
                                prop_assert!(received.contains(&pkid));
                                continue;
                            }
                        };
                        match ids.insert(seq, pkid) {
                            Some(before) => prop_assert!(before == pkid && dup),
                            None => {
                                prop_assert!(!dup && seq == next);
                                next += 1;
                            }
                        }
                    }
                }
                1 if qos == Qos::AtLeastOnce => {
                    if let Some(done) = outbox.acknowledged(number % 80) {
                        prop_assert_eq!(ids.get(&done.seq), Some(&(number % 80)));
                    }
                }
                1 | 2 => {
                    let pkid = number % 80;
                    if qos == Qos::ExactlyOnce && let Some(done) = outbox.received(pkid) {
                        prop_assert_eq!(ids.get(&done.seq), Some(&pkid));
                        received.push(pkid);
                    }
                }
                3 => {
                    if outbox.completed(number % 80) {
                        received.retain(|pkid| *pkid != number % 80);
                    }
                }
                4 => outbox.disconnected(),
                _ => {
                    let session_present = number % 2 == 0;
                    outbox.connected(number % 70, session_present);
                    if !session_present {
                        received.clear();
                    }
                }
            }
            let flying = outbox.flight.iter().map(|flight| flight.pkid);
            let mut held: Vec<u16> = flying.chain(received.iter().copied()).collect();
            held.sort_unstable();
            held.dedup();
            prop_assert_eq!(held.len(), outbox.in_flight() + outbox.releases.len());
            prop_assert!(held.len() <= WINDOW_MAX);
        }
    }
}
