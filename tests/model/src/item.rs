//! What an agent seals: a batch, or a gap that stands for some. A name, a count and a hash; no
//! content.

use std::ops::Range;
use tributary_protocol::ids::{BatchHash, BatchKey, BufferId, Lane, LaneKey};
use tributary_protocol::session::Outgoing;

/// A batch, or a gap, as both ends have to know it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Item {
    /// The agent's life whose buffer it stands in.
    pub life: u64,
    /// Its number, the first of those that it stands for.
    pub number: u64,
    /// How many numbers it stands for.
    pub count: u64,
    /// Whether it declares a loss.
    pub gap: bool,
    /// Whether another machine with the same identity sealed it, and not the agent.
    pub foreign: bool,
}

/// The one lane of this buffer that there is.
pub fn lane_of(life: u64) -> LaneKey {
    LaneKey {
        buffer: BufferId::new(life, 0),
        lane: Lane::Telemetry,
    }
}

impl Item {
    /// The batch under this number.
    pub fn batch(life: u64, number: u64) -> Self {
        Self {
            life,
            number,
            count: 1,
            gap: false,
            foreign: false,
        }
    }

    /// Its numbers.
    pub fn numbers(&self) -> Range<u64> {
        self.number..self.number + self.count
    }

    /// Its name.
    pub fn key(&self) -> BatchKey {
        let LaneKey { buffer, lane } = lane_of(self.life);
        BatchKey {
            buffer,
            lane,
            number: self.number,
        }
    }

    /// Its hash.
    pub fn hash(&self) -> BatchHash {
        let kind = u64::from(self.gap) + 2 * u64::from(self.foreign);
        let content = [self.life, self.number, self.count, kind].map(|part| part as u8);
        BatchHash::of(&content)
    }

    /// As the sender has to know it.
    pub fn outgoing(&self, bytes: u64) -> Outgoing {
        Outgoing {
            key: self.key(),
            count: self.count,
            bytes,
            hash: self.hash(),
            series_needed: 0,
            series_after: 0,
        }
    }
}
