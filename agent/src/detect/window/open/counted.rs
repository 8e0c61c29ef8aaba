//! So many readings, in the order in which they come; late ones are not among them.

use super::super::aggregate::{Closed, Closing};
use super::super::summary::{Item, Summary};
use super::{BEFORE, Room, Taken};

/// The readings so far, if there are any.
#[derive(Clone, Default)]
pub(in super::super) struct Counted(Option<Summary>);

impl Counted {
    pub fn of(open: Option<Summary>) -> Self {
        Self(open)
    }

    pub fn open(&self) -> &[Summary] {
        self.0.as_slice()
    }

    pub fn step(&mut self, item: &Item, room: &mut Room) -> Taken {
        match &mut self.0 {
            Some(summary) => room.add(summary, item),
            None if item.late => return Taken::Behind,
            None if !room.is_left() => return Taken::NoRoom,
            None => {
                let mut summary = Summary::new();
                room.taken(summary.bytes());
                room.add(&mut summary, item);
                self.0 = Some(summary);
            }
        }
        Taken::In
    }

    /// At once when it is full.
    pub fn due(&self, (readings, length_max): (u64, i64)) -> Option<i64> {
        let open = self.0.as_ref()?;
        let full = open.count >= readings;
        Some(if full {
            BEFORE
        } else {
            open.first.0 + length_max
        })
    }

    pub fn close(&mut self, readings: u64, closed: Closed, room: &mut Room) -> Option<Closing> {
        let summary = self.0.take()?;
        room.freed(summary.bytes());
        let full = summary.count >= readings;
        Some(Closing {
            from: summary.first.0,
            to: summary.last.0 + 1,
            present: full,
            summary,
            closed: if full { Closed::Full } else { closed },
        })
    }
}
