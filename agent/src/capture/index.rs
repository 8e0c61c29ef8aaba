//! Which messages of which device the log holds that may have to be captured. Only what makes
//! looking for them cheap: whatever is not in it is found in the log.

use crate::limits::{
    CAPTURE_INDEX_BYTES_MAX, CAPTURE_INDEX_DEVICE_BYTES, CAPTURE_INDEX_MESSAGE_BYTES,
};
use crate::seal::Origin;
use std::collections::{BTreeMap, HashMap, VecDeque};
use tributary_protocol::ids::BufferId;

/// By life, and then by device: the numbers of messages, in their order.
#[derive(Debug, Default)]
pub struct Index {
    lives: BTreeMap<BufferId, HashMap<Box<str>, VecDeque<u64>>>,
    /// What it takes, as it is counted.
    bytes: usize,
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

    /// Whether there is room for a message of this device, known or not, beside so many bytes.
    pub fn fits(&self, device: &str, bytes: usize) -> bool {
        self.bytes + bytes + cost_of(device) + CAPTURE_INDEX_MESSAGE_BYTES
            <= CAPTURE_INDEX_BYTES_MAX
    }

    /// Notes a message of a device, behind all others.
    pub fn note(&mut self, device: &str, at: Origin) {
        if !self.fits(device, 0) {
            // What is before is found in the log, if somebody asks for it; so are other devices of
            // this message.
            *self = Self::default();
            self.begin(Origin {
                number: at.number + 1,
                ..at
            });
        }
        let of_life = self.lives.entry(at.buffer).or_default();
        match of_life.get_mut(device) {
            Some(numbers) if numbers.back().is_none_or(|last| *last < at.number) => {
                numbers.push_back(at.number);
            }
            Some(_) => return,
            None => {
                of_life.insert(device.into(), VecDeque::from([at.number]));
                self.bytes += cost_of(device);
            }
        }
        self.bytes += CAPTURE_INDEX_MESSAGE_BYTES;
    }

    /// Notes messages of devices before all others, the last of them first. There must be
    /// [room](Self::fits).
    pub fn note_earlier(&mut self, device: &str, at: Origin) {
        let of_life = self.lives.entry(at.buffer).or_default();
        match of_life.get_mut(device) {
            Some(numbers) if numbers.front().is_none_or(|first| *first > at.number) => {
                numbers.push_front(at.number);
            }
            Some(_) => return,
            None => {
                of_life.insert(device.into(), VecDeque::from([at.number]));
                self.bytes += cost_of(device);
            }
        }
        self.bytes += CAPTURE_INDEX_MESSAGE_BYTES;
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
                numbers.shrink_to(numbers.len() * 2);
                !numbers.is_empty()
            });
            devices.shrink_to(devices.len() * 2);
        }
        let devices = self.lives.values().flatten();
        self.bytes = devices
            .map(|(device, numbers)| cost_of(device) + numbers.len() * CAPTURE_INDEX_MESSAGE_BYTES)
            .sum();
        self.from = self.from.map(|from| from.max(first));
    }
}

/// Bytes that a device counts.
pub fn cost_of(device: &str) -> usize {
    CAPTURE_INDEX_DEVICE_BYTES + device.len()
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
        let bytes = 6 * CAPTURE_INDEX_MESSAGE_BYTES + 3 * cost_of("a");
        assert_eq!((index.bytes, index.from()), (bytes, Some(at(2, 5))));
        assert_eq!(
            index.of("a", at(1, 0), at(9, 0)),
            [at(2, 6), at(2, 8), at(3, 1)]
        );
    }

    #[test]
    fn it_begins_anew_where_it_is_full_of_messages_or_of_devices() {
        let mut index = Index::default();
        index.begin(at(1, 0));
        let (mut number, mut greatest) = (0, 0);
        while index.from() == Some(at(1, 0)) {
            // A device that nobody saw before, and one that everybody knows.
            index.note(&format!("a device called {number}"), at(1, number));
            index.note("a", at(1, number));
            greatest = greatest.max(index.bytes);
            number += 1;
        }
        assert!((CAPTURE_INDEX_BYTES_MAX / 2..=CAPTURE_INDEX_BYTES_MAX).contains(&greatest));
        let devices = CAPTURE_INDEX_BYTES_MAX / CAPTURE_INDEX_DEVICE_BYTES;
        assert!(number < devices as u64, "{number}");
        // Of the message that it was full at, one device may be missing: it is looked for.
        assert_eq!(index.from(), Some(at(1, number)));
        assert!(index.bytes < 1_000);
    }
}
