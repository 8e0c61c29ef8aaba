//! Which messages what waits covers, exactly: what a batch says of them is believed by others, who
//! tell by it what is held twice.

use super::{Lanes, Origin};
use tributary_protocol::batch::Cover;

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
}
