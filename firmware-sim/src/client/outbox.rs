//! What one client sends next: a window of publications in flight, and a queue behind it.
//!
//! Pure. The order of first sending is the order of the queue; a publication keeps its packet id
//! until it is acknowledged; after [`Outbox::disconnected`] all that is in flight is sent again,
//! oldest first and before anything new, with DUP set (MQTT 3.1.1, 4.4 and 4.6).

use crate::limits::{QUEUE_READINGS_MAX, WINDOW_MAX};
use crate::reading::Reading;
use std::collections::VecDeque;

#[derive(Debug)]
struct Flight {
    pkid: u16,
    reading: Reading,
    /// Whether it was ever put on a wire.
    tried: bool,
}

/// One publication to put on the wire now.
#[derive(Debug)]
pub struct Transmit<'a> {
    /// Packet id; 0 at QoS 0.
    pub pkid: u16,
    /// Whether it was put on a wire before.
    pub dup: bool,
    /// What to publish.
    pub reading: &'a Reading,
}

/// A window and the queue behind it.
#[derive(Debug)]
pub struct Outbox {
    acknowledged_delivery: bool,
    queue: VecDeque<Reading>,
    flight: VecDeque<Flight>,
    /// How many of `flight`, from its front, were sent on this connection.
    sent: usize,
    window: usize,
    last_pkid: u16,
    /// At QoS 0: what was handed out last.
    loose: Option<Reading>,
}

impl Outbox {
    /// Empty, for QoS 1 (`true`) or QoS 0.
    pub fn new(acknowledged_delivery: bool) -> Self {
        Self {
            acknowledged_delivery,
            queue: VecDeque::new(),
            flight: VecDeque::new(),
            sent: 0,
            window: WINDOW_MAX,
            last_pkid: 0,
            loose: None,
        }
    }

    /// How many readings the queue has room for.
    pub fn room(&self) -> usize {
        QUEUE_READINGS_MAX.saturating_sub(self.queue.len())
    }

    /// The queue, to be filled by as many readings as there is [room](Self::room) for.
    pub fn queue_mut(&mut self) -> &mut VecDeque<Reading> {
        &mut self.queue
    }

    /// Readings that were never sent.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Readings that were sent and not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.flight.len()
    }

    /// Whether nothing waits for anything.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.flight.is_empty()
    }

    /// A connection is open, to a server that takes `receive_max` at once.
    pub fn connected(&mut self, receive_max: u16) {
        self.window = usize::from(receive_max).clamp(1, WINDOW_MAX);
        self.sent = 0;
    }

    /// The connection is gone: what is in flight will be sent again.
    pub fn disconnected(&mut self) {
        self.sent = 0;
    }

    /// What to send now, if anything.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        if !self.acknowledged_delivery {
            self.loose = Some(self.queue.pop_front()?);
            let reading = self.loose.as_ref()?;
            return Some(Transmit {
                pkid: 0,
                dup: false,
                reading,
            });
        }
        if self.sent >= self.window {
            return None;
        }
        if self.sent == self.flight.len() {
            let reading = self.queue.pop_front()?;
            let pkid = self.free_pkid();
            self.flight.push_back(Flight {
                pkid,
                reading,
                tried: false,
            });
        }
        let flight = self.flight.get_mut(self.sent)?;
        self.sent += 1;
        let dup = std::mem::replace(&mut flight.tried, true);
        Some(Transmit {
            pkid: flight.pkid,
            dup,
            reading: &flight.reading,
        })
    }

    /// The publication that a PUBACK names, which is done now. `None` when nothing in flight has
    /// this packet id: it was acknowledged before, or never sent.
    pub fn acknowledged(&mut self, pkid: u16) -> Option<Reading> {
        let place = self.flight.iter().position(|flight| flight.pkid == pkid)?;
        let flight = self.flight.remove(place)?;
        if place < self.sent {
            self.sent -= 1;
        }
        Some(flight.reading)
    }

    fn free_pkid(&mut self) -> u16 {
        loop {
            self.last_pkid = self.last_pkid.checked_add(1).unwrap_or(1);
            if !self
                .flight
                .iter()
                .any(|flight| flight.pkid == self.last_pkid)
            {
                return self.last_pkid;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::reading::Value;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn outbox(readings: u64) -> Outbox {
        let mut outbox = Outbox::new(true);
        for seq in 0..readings {
            let value = Value::I64(0);
            let reading = Reading {
                series: 0,
                seq,
                time_us: 0,
                value,
                written: None,
            };
            outbox.queue_mut().push_back(reading);
        }
        outbox
    }

    fn drain(outbox: &mut Outbox) -> Vec<(u16, bool, u64)> {
        let mut sent = Vec::new();
        while let Some(next) = outbox.poll_transmit() {
            sent.push((next.pkid, next.dup, next.reading.seq));
        }
        sent
    }

    #[test]
    fn the_window_bounds_what_is_in_flight() {
        let mut outbox = outbox(100);
        outbox.connected(u16::MAX);
        assert_eq!(drain(&mut outbox).len(), WINDOW_MAX);
        assert_eq!(outbox.acknowledged(3).unwrap().seq, 2);
        assert_eq!(outbox.acknowledged(3), None, "acknowledged twice");
        assert_eq!(drain(&mut outbox), [(65, false, 64)]);
    }

    #[test]
    fn a_lost_connection_sends_the_same_again_in_order_and_first() {
        let mut outbox = outbox(10);
        outbox.connected(4);
        drain(&mut outbox);
        outbox.acknowledged(2);
        outbox.disconnected();
        outbox.connected(4);
        let again = drain(&mut outbox);
        assert_eq!(
            again,
            [(1, true, 0), (3, true, 2), (4, true, 3), (5, false, 4)]
        );
    }

    #[test]
    fn a_server_that_takes_less_than_before_is_respected() {
        let mut outbox = outbox(10);
        outbox.connected(8);
        drain(&mut outbox);
        outbox.disconnected();
        outbox.connected(2);
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
        outbox.connected(64);
        drain(&mut outbox);
        for _ in 0..70_000 {
            let value = Value::I64(0);
            let reading = Reading {
                series: 0,
                seq: 1,
                time_us: 0,
                value,
                written: None,
            };
            outbox.queue_mut().push_back(reading);
            let sent = drain(&mut outbox);
            let (pkid, ..) = sent.first().copied().unwrap();
            assert!(pkid > 1, "0 is no packet id, and 1 is in flight");
            outbox.acknowledged(pkid);
        }
    }

    #[test]
    fn at_qos_0_nothing_waits() {
        let mut outbox = outbox(0);
        outbox.acknowledged_delivery = false;
        let value = Value::I64(0);
        let reading = Reading {
            series: 0,
            seq: 1,
            time_us: 0,
            value,
            written: None,
        };
        outbox.queue_mut().extend([reading.clone(), reading]);
        assert_eq!(drain(&mut outbox), [(0, false, 1), (0, false, 1)]);
        assert!(outbox.is_empty());
    }

    proptest! {
        /// Whatever the server does: the order of first sending is that of production, a reading
        /// keeps its id, ids in flight are distinct, and DUP says exactly "not the first time".
        #[test]
        fn sending_keeps_its_promises(
            steps in prop::collection::vec((0u8..4, any::<u16>()), 1..200)
        ) {
            let mut outbox = outbox(500);
            let mut ids: HashMap<u64, u16> = HashMap::new();
            let mut next = 0;
            outbox.connected(64);
            for (kind, number) in steps {
                match kind {
                    0 => {
                        for _ in 0..number % 20 {
                            let Some(sent) = outbox.poll_transmit() else { break };
                            let seq = sent.reading.seq;
                            match ids.insert(seq, sent.pkid) {
                                Some(before) => prop_assert!(before == sent.pkid && sent.dup),
                                None => {
                                    prop_assert!(!sent.dup && seq == next);
                                    next += 1;
                                }
                            }
                        }
                    }
                    1 => {
                        if let Some(done) = outbox.acknowledged(number % 80) {
                            prop_assert_eq!(ids.get(&done.seq), Some(&(number % 80)));
                        }
                    }
                    2 => outbox.disconnected(),
                    _ => outbox.connected(number % 70),
                }
                let mut flying: Vec<u16> = outbox.flight.iter().map(|f| f.pkid).collect();
                flying.sort_unstable();
                flying.dedup();
                prop_assert_eq!(flying.len(), outbox.in_flight());
                prop_assert!(outbox.in_flight() <= WINDOW_MAX);
            }
        }
    }
}
