//! Virtual time: events in the order in which they are due, and of those due at once in the order
//! in which they were planned. Nothing here waits.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// What is to happen, and what time it is: microseconds since the run began.
#[derive(Debug)]
pub struct Agenda<E> {
    now: i64,
    planned: u64,
    due: BinaryHeap<Due<E>>,
}

#[derive(Debug)]
struct Due<E> {
    at: i64,
    order: u64,
    event: E,
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    /// The greatest comes out first: the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self {
            now: 0,
            planned: 0,
            due: BinaryHeap::new(),
        }
    }
}

impl<E> Agenda<E> {
    /// What time it is.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Plans an event; what should have been earlier is due now.
    pub fn at(&mut self, at: i64, event: E) {
        self.planned += 1;
        self.due.push(Due {
            at: at.max(self.now),
            order: self.planned,
            event,
        });
    }

    /// Plans an event in `us` microseconds.
    pub fn after(&mut self, us: i64, event: E) {
        self.at(self.now.saturating_add(us), event);
    }

    /// The next event, at whose time it is then.
    pub fn next_event(&mut self) -> Option<E> {
        let Due { at, event, .. } = self.due.pop()?;
        self.now = at;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_their_order_and_time_never_goes_back() {
        let mut agenda = Agenda::default();
        agenda.at(5, 'b');
        agenda.at(9, 'd');
        agenda.at(5, 'c');
        agenda.at(1, 'a');
        let mut seen = Vec::new();
        while let Some(event) = agenda.next_event() {
            seen.push((agenda.now(), event));
            if event == 'c' {
                agenda.at(2, 'x');
            }
        }
        assert_eq!(seen, [(1, 'a'), (5, 'b'), (5, 'c'), (5, 'x'), (9, 'd')]);
    }
}
