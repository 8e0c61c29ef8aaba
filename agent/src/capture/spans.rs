//! Which event times of which devices were asked for: spans that do not touch. What lies in one is
//! captured once, when its record comes or its reading does; whatever is asked for again is not.
//!
//! All of it is a function of the log: nothing here forgets by itself.

use crate::judge::{read_text, write_text};
use crate::limits::CAPTURES_MAX;
use crate::seal::Origin;
use bytes::{Buf, BufMut};
use std::collections::BTreeMap;
use tributary_protocol::ids::BufferId;

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Span {
    from: i64,
    to: i64,
    /// Up to where was asked for, which may be too long.
    asked: i64,
    /// Readings that are received later are not captured.
    until: i64,
    /// The last record that it was asked for with, or that gave it a reading.
    last: Origin,
}

impl Span {
    fn holds(&self, event: i64) -> bool {
        (self.from..self.to).contains(&event)
    }
}

/// What became of what was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Added {
    /// Event times that nothing asked for before.
    pub new: Vec<(i64, i64)>,
    /// Whether some of it was refused: there are too many captures, or they have become too long.
    pub refused: bool,
    /// Captures look back no further than here, since one that is over was forgotten for this one.
    pub floor: Option<Origin>,
}

/// The spans of all devices.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spans {
    /// By device, in their order.
    devices: BTreeMap<Box<str>, Vec<Span>>,
    count: usize,
    /// The greatest received time.
    received: i64,
}

impl Spans {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Asks for event times of a device, with the record at `at`. Spans that come to touch may
    /// together be `longest` long.
    pub fn add(
        &mut self,
        device: &str,
        (from, to): (i64, i64),
        until: i64,
        (at, longest): (Origin, i64),
    ) -> Added {
        let mut added = Added::default();
        let mut span = Span {
            from,
            to,
            asked: to,
            until,
            last: at,
        };
        let touches = |held: &Span| held.from <= to && from <= held.asked;
        let held = self.devices.get(device).map_or(&[][..], Vec::as_slice);
        let touching: Vec<Span> = held.iter().filter(|held| touches(held)).copied().collect();
        if touching.is_empty() && self.count >= CAPTURES_MAX {
            added.floor = self.forget_closed();
            added.refused = added.floor.is_none();
        }
        if added.refused || from >= to {
            return added;
        }
        for held in &touching {
            span.from = span.from.min(held.from);
            span.to = span.to.max(held.to);
            span.asked = span.asked.max(held.asked);
            span.until = span.until.max(held.until);
        }
        if span.asked.saturating_sub(span.from) > longest && !touching.is_empty() {
            added.refused = touching.iter().all(|held| held.from > from || held.to < to);
            // It goes on where alerts have paused.
            let of_device = self.devices.get_mut(device).into_iter().flatten();
            of_device
                .filter(|held| touches(held))
                .for_each(|held| held.asked = held.asked.max(to));
            return added;
        }
        let mut next = from;
        for held in &touching {
            if next < held.from {
                added.new.push((next, held.from));
            }
            next = next.max(held.to);
        }
        if next < to {
            added.new.push((next, to));
        }
        let of_device = self.devices.entry(device.into()).or_default();
        of_device.retain(|held| !touches(held));
        let place = of_device.partition_point(|held| held.from < span.from);
        of_device.insert(place, span);
        self.count = self.count + 1 - touching.len();
        added
    }

    /// The log has come to this time.
    pub fn pass(&mut self, received: i64) {
        self.received = self.received.max(received);
    }

    /// Whether a reading of the message at `at` is captured as it comes.
    pub fn take(&mut self, device: &str, event: i64, (at, received): (Origin, i64)) -> bool {
        let Some(spans) = self.devices.get_mut(device) else {
            return false;
        };
        let found = spans.iter_mut().find(|span| span.holds(event));
        let found = found.filter(|span| received <= span.until);
        found.is_some_and(|span| {
            span.last = span.last.max(at);
            true
        })
    }

    /// Forgets the one that is over for longest; gives the place behind all that it took.
    fn forget_closed(&mut self) -> Option<Origin> {
        let received = self.received;
        let all = self.devices.iter();
        let all = all.flat_map(|(device, spans)| spans.iter().map(move |span| (device, span)));
        let closed = all.filter(|(_, span)| span.until < received);
        let (device, span) = closed.min_by_key(|(_, span)| span.last)?;
        let (device, span) = (device.clone(), *span);
        self.retain_of(&device, |held| *held != span);
        Some(Origin {
            number: span.last.number + 1,
            ..span.last
        })
    }

    fn retain_of(&mut self, device: &str, keeps: impl FnMut(&Span) -> bool) {
        let Some(spans) = self.devices.get_mut(device) else {
            return;
        };
        let before = spans.len();
        spans.retain(keeps);
        self.count -= before - spans.len();
        if spans.is_empty() {
            self.devices.remove(device);
        }
    }

    /// Forgets those that are over, and of whose readings the log holds none from `first` on.
    pub fn forget_before(&mut self, first: Origin) {
        let received = self.received;
        let devices: Vec<Box<str>> = self.devices.keys().cloned().collect();
        for device in devices {
            self.retain_of(&device, |span| span.last >= first || span.until >= received);
        }
    }

    /// Appends them, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_i64_le(self.received);
        out.put_u32_le(self.count as u32);
        for (device, spans) in &self.devices {
            for span in spans {
                write_text(device, out);
                for time in [span.from, span.to, span.asked, span.until] {
                    out.put_i64_le(time);
                }
                write_origin(span.last, out);
            }
        }
    }

    /// Takes them off the front of `input`; `None` when the bytes are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let mut spans = Self {
            received: input.try_get_i64_le().ok()?,
            ..Self::default()
        };
        for _ in 0..input.try_get_u32_le().ok()? {
            let device = read_text(input)?;
            let mut time = || input.try_get_i64_le().ok();
            let (from, to, asked, until) = (time()?, time()?, time()?, time()?);
            let last = read_origin(input)?;
            let span = Span {
                from,
                to,
                asked,
                until,
                last,
            };
            let of_device = spans.devices.entry(device.into()).or_default();
            of_device.push(span);
            spans.count += 1;
        }
        Some(spans)
    }
}

/// Appends a place in the log.
pub(super) fn write_origin(origin: Origin, out: &mut Vec<u8>) {
    out.put_slice(&origin.buffer.0);
    out.put_u64_le(origin.number);
}

/// Takes one off the front of `input`.
pub(super) fn read_origin(input: &mut &[u8]) -> Option<Origin> {
    let (buffer, rest) = input.split_first_chunk()?;
    let buffer = BufferId(*buffer);
    *input = rest;
    let number = input.try_get_u64_le().ok()?;
    Some(Origin { buffer, number })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONG: i64 = 1_000;

    fn at(number: u64) -> Origin {
        Origin {
            buffer: BufferId::new(1, 1),
            number,
        }
    }

    #[test]
    fn what_was_asked_for_is_not_asked_for_again() {
        let mut spans = Spans::default();
        let mut add = |from, to| spans.add("d", (from, to), 5_000, (at(1), LONG)).new;
        assert_eq!(add(10, 20), [(10, 20)]);
        assert_eq!(add(12, 18), []);
        assert_eq!(add(30, 40), [(30, 40)]);
        assert_eq!(add(5, 50), [(5, 10), (20, 30), (40, 50)]);
        assert_eq!(add(50, 60), [(50, 60)]);
        assert_eq!(add(7, 7), []);
        assert_eq!(spans.len(), 1);
        assert_eq!(spans.add("e", (7, 9), 0, (at(1), LONG)).new, [(7, 9)]);
        assert!(spans.take("d", 5, (at(9), 5_000)));
        assert!(!spans.take("d", 60, (at(9), 0)));
        assert!(!spans.take("d", 5, (at(9), 5_001)), "it comes too late");
        assert!(!spans.take("f", 7, (at(9), 0)));
    }

    #[test]
    fn alerts_that_follow_each_other_capture_no_longer_than_is_allowed() {
        let mut spans = Spans::default();
        let mut asked = 0;
        for alert in 0..300 {
            let span = (alert * 10, alert * 10 + 100);
            let added = spans.add("d", span, i64::MAX, (at(1), LONG));
            asked += added.new.iter().map(|(from, to)| to - from).sum::<i64>();
            assert_eq!(added.refused, alert > 90, "{alert}");
        }
        assert_eq!(asked, LONG);
        // After a pause another begins.
        let added = spans.add("d", (5_000, 5_100), i64::MAX, (at(1), LONG));
        assert_eq!(added.new, [(5_000, 5_100)]);
    }

    #[test]
    fn too_many_are_refused_until_some_are_over() {
        let mut spans = Spans::default();
        for n in 0..CAPTURES_MAX {
            let until = 100 + n as i64;
            spans.add(&n.to_string(), (0, 9), until, (at(n as u64), LONG));
        }
        assert!(spans.add("more", (0, 9), 999, (at(9_999), LONG)).refused);
        assert!(spans.take("0", 3, (at(77), 50)));
        spans.pass(102);
        let added = spans.add("more", (0, 9), 999, (at(9_999), LONG));
        assert_eq!((added.new, added.floor), (vec![(0, 9)], Some(at(2))));
        assert_eq!(spans.len(), CAPTURES_MAX);
        assert!(!spans.take("1", 3, (at(9_999), 0)));
        // Of the first one the log still holds something, the others are open.
        spans.forget_before(at(70));
        assert_eq!(spans.len(), CAPTURES_MAX);
        spans.forget_before(at(78));
        assert_eq!(spans.len(), CAPTURES_MAX - 1);
    }

    proptest! {
        #[test]
        fn it_takes_what_a_set_would(
            asks in proptest::collection::vec((0i64..60, 0i64..20), 1..30),
        ) {
            let (mut spans, mut set) = (Spans::default(), std::collections::BTreeSet::new());
            for (from, length) in asks {
                let added = spans.add("d", (from, from + length), 9, (at(1), LONG));
                let new: Vec<i64> = added.new.iter().flat_map(|(from, to)| *from..*to).collect();
                let expected: Vec<i64> = (from..from + length)
                    .filter(|event| set.insert(*event))
                    .collect();
                prop_assert_eq!(new, expected);
            }
            let mut bytes = Vec::new();
            spans.write(&mut bytes);
            for length in 0..bytes.len() {
                prop_assert!(Spans::read(&mut &bytes[..length]).is_none());
            }
            let mut read = Spans::read(&mut bytes.as_slice()).unwrap();
            prop_assert_eq!(&read, &spans);
            for event in -1..90 {
                prop_assert_eq!(read.take("d", event, (at(1), 0)), set.contains(&event));
            }
        }
    }
}
