//! What is to be acknowledged to a broker: in the order of receipt, each only when everything up
//! to it is durable, and never to another connection than the one that it came by. Pure.

use std::collections::VecDeque;

/// A message that its broker waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Unacked {
    /// Our number of the message, which must be durable first.
    upto: u64,
    ack: Ack,
}

/// One acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ack {
    /// The connection that the message came by.
    pub generation: u64,
    /// Its packet id there.
    pub packet_id: u16,
    /// How it was sent: 1, or 2 from a broker that does not keep to what it granted.
    pub qos: u8,
}

/// The acknowledgements that are due, and those that are not yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Acks {
    queue: VecDeque<Unacked>,
    durable: u64,
}

impl Acks {
    /// A message came: it may be acknowledged once our message `upto` is durable.
    pub(super) fn push(&mut self, upto: u64, ack: Ack) {
        self.queue.push_back(Unacked { upto, ack });
    }

    /// Everything up to our message `upto` is durable.
    pub(super) fn durable(&mut self, upto: u64) {
        self.durable = self.durable.max(upto);
    }

    /// The next one that may be sent.
    pub(super) fn due(&self) -> Option<Ack> {
        let first = self.queue.front()?;
        (first.upto <= self.durable).then_some(first.ack)
    }

    /// The one that is due is on its way.
    pub(super) fn sent(&mut self) {
        self.queue.pop_front();
    }

    /// How many messages wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// The connection is over: the broker delivers all of them again on the next one. How many.
    pub(super) fn abandon(&mut self) -> usize {
        let count = self.queue.len();
        self.queue = VecDeque::new();
        count
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    fn ack(generation: u64, packet_id: u16) -> Ack {
        Ack {
            generation,
            packet_id,
            qos: 1,
        }
    }

    fn all_due(acks: &mut Acks) -> Vec<u16> {
        let mut ids = Vec::new();
        while let Some(ack) = acks.due() {
            acks.sent();
            ids.push(ack.packet_id);
        }
        ids
    }

    #[test]
    fn acknowledgements_keep_the_order_of_receipt_and_wait_for_the_disk() {
        let mut acks = Acks::default();
        // The second is our own topic: nothing of it is stored, and it still waits for the first.
        for (upto, id) in [(1, 9), (1, 3), (2, 7), (3, 1)] {
            acks.push(upto, ack(1, id));
        }
        assert_eq!(all_due(&mut acks), [0; 0]);
        acks.durable(2);
        assert_eq!(all_due(&mut acks), [9, 3, 7]);
        acks.durable(1);
        assert_eq!(acks.len(), 1);
        acks.durable(3);
        assert_eq!(all_due(&mut acks), [1]);
    }

    #[test]
    fn what_a_dead_connection_brought_is_acknowledged_to_nobody() {
        let mut acks = Acks::default();
        acks.push(1, ack(1, 1));
        acks.push(2, ack(1, 2));
        assert_eq!(acks.abandon(), 2);
        acks.push(3, ack(2, 1));
        acks.durable(2);
        assert_eq!(
            acks.due(),
            None,
            "the first of the new connection waits for its own"
        );
        acks.durable(3);
        assert_eq!(acks.due(), Some(ack(2, 1)));
    }
}
