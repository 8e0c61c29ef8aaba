//! Batches that an aggregator does not take, because messages that they cover are held there under
//! another buffer. They wait until a gap stands for them, and what is left of them is sealed again;
//! if neither comes, the next session asks once more.

use super::Sender;
use crate::batch::Cover;
use crate::ids::BatchKey;

impl Sender {
    /// One run of the messages of a batch is held under another buffer.
    pub(super) fn on_covered(&mut self, key: BatchKey, messages: Cover) {
        if let Some(runs) = self.covered.get_mut(&key) {
            runs.push(messages);
            return;
        }
        if self.end_flight(key).is_none() {
            return;
        }
        self.covered.insert(key, Vec::from([messages]));
        if let Some(lane) = self.lanes.get_mut(&key.lane_key()) {
            lane.covered.insert(key.number);
        }
        self.touch(key.lane_key());
    }

    /// A batch that is not taken as it is, and which of its messages are held under another buffer:
    /// a gap is to stand for it. Whoever can't have that done now [puts it back](Self::uncover).
    pub fn poll_covered(&mut self) -> Option<(BatchKey, Vec<Cover>)> {
        self.covered.pop_first()
    }

    /// A batch is offered once more as it is.
    pub fn uncover(&mut self, key: BatchKey) {
        if let Some(lane) = self.lanes.get_mut(&key.lane_key()) {
            lane.covered.remove(&key.number);
        }
        self.touch(key.lane_key());
    }
}
