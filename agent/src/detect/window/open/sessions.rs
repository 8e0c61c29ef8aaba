//! Sessions: readings with no pause of `gap` between them. One that comes between two sessions
//! makes one of them, if that does not get too long.

use super::super::aggregate::{Closed, Closing};
use super::super::summary::{Item, Summary};
use super::{BEFORE, Room, Taken};

/// Open sessions, by their first reading's time. There is one, but for readings out of order.
#[derive(Clone)]
pub(in super::super) struct Sessions {
    open: Vec<Summary>,
    /// Before this, sessions are closed.
    pub closed: i64,
}

impl Sessions {
    pub fn new() -> Self {
        Self::of(Vec::new(), BEFORE)
    }

    pub fn of(mut open: Vec<Summary>, closed: i64) -> Self {
        open.sort_by_key(|session| session.first.0);
        Self { open, closed }
    }

    pub fn open(&self) -> &[Summary] {
        &self.open
    }

    pub fn step(&mut self, limits: (i64, i64), item: &Item, room: &mut Room) -> Taken {
        if item.time < self.closed {
            return Taken::Behind;
        }
        let joins = |session: &Summary| joins(session, limits, item.time);
        let Some(at) = self.open.iter().position(joins) else {
            return self.begin(item, room);
        };
        if let Some(session) = self.open.get_mut(at) {
            room.add(session, item);
        }
        if !item.late {
            self.join_next(at, limits, room);
        }
        Taken::In
    }

    fn begin(&mut self, item: &Item, room: &mut Room) -> Taken {
        if item.late {
            return Taken::Behind;
        }
        if !room.is_left() {
            return Taken::NoRoom;
        }
        let mut session = Summary::new();
        room.taken(session.bytes());
        room.add(&mut session, item);
        let at = self.open.partition_point(|open| open.first.0 < item.time);
        self.open.insert(at, session);
        Taken::In
    }

    /// Makes one session of this and the next, when nothing keeps them apart any more.
    fn join_next(&mut self, at: usize, (gap, length_max): (i64, i64), room: &mut Room) {
        let Some(next) = self.open.get(at + 1).cloned() else {
            return;
        };
        let Some(session) = self.open.get_mut(at) else {
            return;
        };
        let apart = next.first.0.saturating_sub(session.last.0);
        let length = next.last.0.saturating_sub(session.first.0);
        if apart >= gap || length >= length_max {
            return;
        }
        room.freed(session.bytes() + next.bytes());
        session.merge(&next);
        room.taken(session.bytes());
        self.open.remove(at + 1);
    }

    /// The time from which on no reading can join the session that is over first.
    pub fn due(&self, limits: (i64, i64)) -> Option<i64> {
        self.open.iter().map(|session| over(session, limits)).min()
    }

    pub fn close(
        &mut self,
        limits: (i64, i64),
        closed: Closed,
        room: &mut Room,
    ) -> Option<Closing> {
        let due = self.due(limits)?;
        let at = self
            .open
            .iter()
            .position(|session| over(session, limits) == due)?;
        let summary = self.open.remove(at);
        room.freed(summary.bytes());
        self.closed = self.closed.max(due);
        Some(Closing {
            from: summary.first.0,
            to: summary.last.0 + 1,
            // It is as long as the series was present.
            present: true,
            summary,
            closed,
        })
    }
}

fn over(session: &Summary, (gap, length_max): (i64, i64)) -> i64 {
    (session.last.0 + gap).min(session.first.0 + length_max)
}

fn joins(session: &Summary, (gap, length_max): (i64, i64), time: i64) -> bool {
    let (first, last) = (session.first.0, session.last.0);
    let length = last.max(time) - first.min(time);
    time > first - gap && time < last + gap && length < length_max
}
