//! Which messages of which device the log holds that may have to be captured. Only what makes
//! looking for them cheap: whatever is not in it is found in the log.

use crate::limits::CAPTURE_INDEX_MAX;
use crate::seal::Origin;
use std::collections::{BTreeMap, HashMap, VecDeque};
use tributary_protocol::ids::BufferId;

/// By life, and then by device: the numbers of messages, in their order.
#[derive(Debug, Default)]
pub struct Index {
    lives: BTreeMap<BufferId, HashMap<Box<str>, VecDeque<u64>>>,
    count: usize,
    /// From here on it holds all.
    from: Option<Origin>,
}

impl Index {
    /// From where on it holds all; `None`: nothing was noted.
    pub fn from(&self) -> Option<Origin> {
        self.from
    }

    /// The log was looked at up to this message, from which on all are [noted](Self::note).
    pub fn begin(&mut self, at: Origin) {
        self.from.get_or_insert(at);
    }

    /// Messages before the others were [noted first](Self::note_earlier), from this one on.
    pub fn begins_earlier(&mut self, at: Origin) {
        self.from = Some(at);
    }

    /// Whether there is room for more messages.
    pub fn has_room(&self) -> bool {
        self.count < CAPTURE_INDEX_MAX
    }

    /// Notes a message of a device, behind all others.
    pub fn note(&mut self, device: &str, at: Origin) {
        if !self.has_room() {
            // What is before is found in the log, if somebody asks for it.
            *self = Self::default();
            self.begin(at);
        }
        let of_life = self.lives.entry(at.buffer).or_default();
        match of_life.get_mut(device) {
            Some(numbers) if numbers.back().is_none_or(|last| *last < at.number) => {
                numbers.push_back(at.number);
            }
            Some(_) => return,
            None => {
                of_life.insert(device.into(), VecDeque::from([at.number]));
            }
        }
        self.count += 1;
    }

    /// Notes messages of devices before all others, the last of them first.
    pub fn note_earlier(&mut self, device: &str, at: Origin) {
        let of_life = self.lives.entry(at.buffer).or_default();
        let numbers = of_life.entry(device.into()).or_default();
        if numbers.front().is_none_or(|first| *first > at.number) {
            numbers.push_front(at.number);
            self.count += 1;
        }
    }

    /// The messages of a device from one place to another, in their order.
    pub fn of(&self, device: &str, from: Origin, to: Origin) -> Vec<Origin> {
        let mut found = Vec::new();
        for (buffer, devices) in self.lives.range(from.buffer..=to.buffer) {
            let Some(numbers) = devices.get(device) else {
                continue;
            };
            let first = match *buffer == from.buffer {
                true => numbers.partition_point(|number| *number < from.number),
                false => 0,
            };
            let origins = numbers.range(first..).map(|number| Origin {
                buffer: *buffer,
                number: *number,
            });
            found.extend(origins.take_while(|origin| *origin < to));
        }
        found
    }

    /// The log holds nothing before this message any more.
    pub fn forget_before(&mut self, first: Origin) {
        self.lives = self.lives.split_off(&first.buffer);
        if let Some(devices) = self.lives.get_mut(&first.buffer) {
            devices.retain(|_, numbers| {
                let gone = numbers.partition_point(|number| *number < first.number);
                numbers.drain(..gone);
                !numbers.is_empty()
            });
        }
        let devices = self.lives.values().flat_map(HashMap::values);
        self.count = devices.map(VecDeque::len).sum();
        self.from = self.from.map(|from| from.max(first));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(life: u64, number: u64) -> Origin {
        Origin {
            buffer: BufferId::new(life, 1),
            number,
        }
    }

    #[test]
    fn messages_of_a_device_are_found_over_lives_and_forgotten_from_the_front() {
        let mut index = Index::default();
        index.begin(at(2, 0));
        for number in 0..10 {
            index.note(["a", "b"][number as usize % 2], at(2, number));
        }
        index.note("a", at(2, 8));
        index.note("a", at(3, 1));
        for number in [7, 5] {
            index.note_earlier("a", at(1, number));
        }
        index.begins_earlier(at(1, 5));
        let found = index.of("a", at(1, 6), at(3, 1));
        let expected = [at(1, 7), at(2, 0), at(2, 2), at(2, 4), at(2, 6), at(2, 8)];
        assert_eq!(found, expected);
        assert_eq!(index.of("b", at(2, 3), at(2, 7)), [at(2, 3), at(2, 5)]);
        index.forget_before(at(2, 5));
        assert_eq!((index.count, index.from()), (6, Some(at(2, 5))));
        assert_eq!(
            index.of("a", at(1, 0), at(9, 0)),
            [at(2, 6), at(2, 8), at(3, 1)]
        );
    }

    #[test]
    fn it_begins_anew_where_it_is_full() {
        let mut index = Index::default();
        index.begin(at(1, 0));
        for number in 0..=CAPTURE_INDEX_MAX as u64 {
            index.note("a", at(1, number));
        }
        let last = at(1, CAPTURE_INDEX_MAX as u64);
        assert_eq!(index.from(), Some(last));
        assert_eq!(index.of("a", at(1, 0), at(2, 0)), [last]);
    }
}
