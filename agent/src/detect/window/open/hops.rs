//! Tumbling and sliding windows, put together from panes.
//!
//! A reading goes into one pane, however many windows it is in; a window that closes merges its
//! panes. Taking a reading into each window instead would cost a sketch for each of them.

use super::super::aggregate::{Closed, Closing, is_present};
use super::super::spec::Hop;
use super::super::summary::{Item, Summary};
use super::{BEFORE, Room, Taken};

/// Panes with readings, by where they begin.
#[derive(Clone)]
pub(in super::super) struct Hops {
    panes: Vec<(i64, Summary)>,
    /// The end of the last window that closed.
    pub closed: i64,
}

impl Hops {
    pub fn new() -> Self {
        Self::of(Vec::new(), BEFORE)
    }

    pub fn of(panes: Vec<(i64, Summary)>, closed: i64) -> Self {
        Self { panes, closed }
    }

    pub fn panes(&self) -> &[(i64, Summary)] {
        &self.panes
    }

    pub fn step(&mut self, hop: &Hop, item: &Item, watermark: i64, room: &mut Room) -> Taken {
        // What the watermark passed is closed, also where no reading was.
        if hop.last_end(item.time) <= self.closed.max(watermark) {
            return Taken::Behind;
        }
        let start = hop.pane_of(item.time);
        let at = match self.panes.binary_search_by_key(&start, |(start, _)| *start) {
            Ok(at) => at,
            Err(_) if !room.is_left() => return Taken::NoRoom,
            Err(at) => {
                let pane = Summary::new();
                room.taken(pane.bytes());
                self.panes.insert(at, (start, pane));
                at
            }
        };
        if let Some((_, pane)) = self.panes.get_mut(at) {
            room.add(pane, item);
        }
        Taken::In
    }

    /// The end of the first window that is not closed and has a pane.
    pub fn due(&self, hop: &Hop) -> Option<i64> {
        let (start, _) = self.panes.first()?;
        Some(
            hop.first_end(*start)
                .max(self.closed.saturating_add(hop.every)),
        )
    }

    pub fn close(
        &mut self,
        hop: &Hop,
        interval: Option<i64>,
        closed: Closed,
        room: &mut Room,
    ) -> Option<Closing> {
        let to = self.due(hop)?;
        let from = to - hop.size;
        let mut summary = Summary::new();
        let in_window = self
            .panes
            .iter()
            .filter(|(start, _)| (from..to).contains(start));
        in_window.for_each(|(_, pane)| summary.merge(pane));
        self.closed = to;
        // What the next window does not hold, none does.
        let needed = to + hop.every - hop.size;
        let past = self.panes.partition_point(|(start, _)| *start < needed);
        self.panes
            .drain(..past)
            .for_each(|(_, pane)| room.freed(pane.bytes()));
        Some(Closing {
            from,
            to,
            present: is_present(&summary, (from, to), interval),
            summary,
            closed,
        })
    }
}
