//! Which messages what waits covers, exactly: what a batch says of them is believed by others, who
//! leave out what it has.

use super::{Lanes, Origin};
use tributary_protocol::batch::Cover;
use tributary_protocol::ids::Lane;

impl Lanes {
    pub(super) fn cover(&mut self, origin: Origin) {
        match self.covers.last_mut() {
            Some(cover) if cover.buffer == origin.buffer => {
                cover.count = origin.number + 1 - cover.first;
            }
            _ => {
                let Origin { buffer, number } = origin;
                self.covers.push(Cover {
                    buffer,
                    first: number,
                    count: 1,
                });
            }
        }
    }

    /// Covers these messages instead of those that it did, and gives them back: what is sealed for
    /// itself covers itself alone.
    pub fn set_covers(&mut self, covers: Vec<Cover>) -> Vec<Cover> {
        std::mem::replace(&mut self.covers, covers)
    }

    /// Covers nothing before this message, and gives back what it covered: a lane may be further on
    /// than others, and what it has of those messages stands in earlier batches.
    pub fn cover_from(&mut self, from: Option<Origin>) -> Vec<Cover> {
        let all = self.covers.clone();
        let Some(Origin { buffer, number }) = from else {
            return all;
        };
        self.covers.retain(|cover| cover.buffer >= buffer);
        if let Some(cover) = self.covers.first_mut().filter(|it| it.buffer == buffer) {
            let end = cover.first + cover.count;
            cover.first = number.clamp(cover.first, end);
            cover.count = end - cover.first;
        }
        self.covers.retain(|cover| cover.count > 0);
        all
    }

    /// For each reading that waits in a lane the place of its message among those that are covered,
    /// if messages of an earlier life are: others may have sealed them, too, and then the rest has
    /// to be told apart. Not where some readings of a message stand in another batch.
    pub(super) fn message_places(&self, lane: Lane) -> Vec<u64> {
        let filling = match lane {
            Lane::Events => &self.events,
            _ => &self.telemetry,
        };
        let replayed = |cover: &Cover| cover.buffer != self.present && cover.count > 0;
        let aside = lane == Lane::Telemetry && !self.aside.is_empty();
        if aside || !self.covers.iter().any(replayed) {
            return Vec::new();
        }
        let mut places = Vec::with_capacity(filling.readings.len());
        for (message, end) in filling.messages.iter().zip(&filling.ends) {
            if let Some(place) = place_of(&self.covers, message.origin) {
                places.resize(*end, place);
            }
        }
        places
    }
}

/// The place of a message among those that are covered.
fn place_of(covers: &[Cover], origin: Origin) -> Option<u64> {
    let mut before = 0;
    for cover in covers {
        let at = origin.number.checked_sub(cover.first);
        let at = at.filter(|at| cover.buffer == origin.buffer && *at < cover.count);
        if let Some(at) = at {
            return Some(before + at);
        }
        before += cover.count;
    }
    None
}
