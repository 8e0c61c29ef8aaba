//! Marks of what brokers deliver. A broker's session holds thousands of unacknowledged messages
//! where a device has a few, and a broker delivers retained copies of what it delivered before.

use super::checkpoint::MarksError;
use super::ring::Keyed;
use super::{Evidence, Judged, Mark, Reason};
use crate::decode::message_hash;
use crate::limits::{BROKER_MARKS, BROKER_TOPICS_MAX, MARKED_BROKERS_MAX};
use bytes::{Buf, BufMut};
use std::collections::{HashMap, VecDeque};

const VERSION: u16 = 1;

/// The last messages of a session, and how often each content is among them: they are too many to
/// look through for each message.
#[derive(Clone, Debug, Default)]
struct Window {
    marks: VecDeque<Mark>,
    contents: HashMap<u64, u32>,
}

impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        // The contents follow from the marks.
        self.marks == other.marks
    }
}

impl Eq for Window {}

impl Window {
    /// Whether it is the newest with its packet id: an older one was acknowledged before the id was
    /// used again.
    fn contains(&self, mark: Mark) -> bool {
        let newest = || {
            let mut marks = self.marks.iter().rev();
            marks.find(|other| other.number == mark.number)
        };
        self.contains_content(mark.content) && newest() == Some(&mark)
    }

    fn contains_content(&self, content: u64) -> bool {
        self.contents.contains_key(&content)
    }

    fn push(&mut self, mark: Mark) {
        if self.marks.len() >= BROKER_MARKS
            && let Some(oldest) = self.marks.pop_front()
            && let Some(count) = self.contents.get_mut(&oldest.content)
        {
            *count -= 1;
            if *count == 0 {
                self.contents.remove(&oldest.content);
            }
        }
        self.marks.push_back(mark);
        *self.contents.entry(mark.content).or_default() += 1;
    }
}

/// The marks of all sessions at brokers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BrokerMarks {
    sessions: Keyed<u64, Window>,
    /// The content of the last message of a topic, by session and topic.
    topics: Keyed<u64, Option<u64>>,
}

impl BrokerMarks {
    pub(super) fn new() -> Self {
        Self {
            sessions: Keyed::new(MARKED_BROKERS_MAX),
            topics: Keyed::new(BROKER_TOPICS_MAX),
        }
    }

    /// Judges a message that a broker delivered, and marks it.
    pub(super) fn judge(&mut self, message: &Evidence<'_>) -> Judged {
        let copy = self.is_copy(message);
        let mark = Mark {
            number: i64::from(message.packet_id),
            content: message.content,
        };
        if message.packet_id == 0 {
            return match copy {
                true => Judged::Repeat(Reason::Retained),
                false => Judged::New,
            };
        }
        let window = self.sessions.entry(&message.session, || message.session);
        if message.dup && window.contains(mark) {
            return Judged::Repeat(Reason::Dup);
        }
        let blank = message.device_seq.is_none() && !message.has_time;
        let maybe = blank && window.contains_content(mark.content);
        window.push(mark);
        match (copy, maybe) {
            (true, _) => Judged::Repeat(Reason::Retained),
            (false, true) => Judged::MaybeRepeat,
            (false, false) => Judged::New,
        }
    }

    /// Whether it is a retained copy of the last message that its topic gave.
    fn is_copy(&mut self, message: &Evidence<'_>) -> bool {
        let key = message_hash(message.topic, &message.session.to_le_bytes());
        let last = self.topics.entry(&key, || key);
        let same = *last == Some(message.content);
        *last = Some(message.content);
        message.retain && same
    }

    /// Appends the marks to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.put_u16_le(VERSION);
        out.put_u32_le(self.sessions.len() as u32);
        out.put_u32_le(self.sessions.hand() as u32);
        for (session, used, window) in self.sessions.iter() {
            out.put_u64_le(*session);
            out.put_u8(u8::from(used));
            out.put_u32_le(window.marks.len() as u32);
            for mark in &window.marks {
                out.put_u16_le(mark.number as u16);
                out.put_u64_le(mark.content);
            }
        }
        out.put_u32_le(self.topics.len() as u32);
        out.put_u32_le(self.topics.hand() as u32);
        for (topic, used, last) in self.topics.iter() {
            out.put_u64_le(*topic);
            out.put_u8(u8::from(used));
            out.put_u64_le(last.unwrap_or(0));
        }
    }

    /// The marks at the front of `input`, which is moved behind them.
    pub(crate) fn read(input: &mut &[u8]) -> Result<Self, MarksError> {
        let mut marks = Self::new();
        let version = input.try_get_u16_le()?;
        if version != VERSION {
            return Err(MarksError::Version(version));
        }
        let (count, hand) = (input.try_get_u32_le()?, input.try_get_u32_le()?);
        for _ in 0..count {
            let (session, used) = (input.try_get_u64_le()?, input.try_get_u8()? != 0);
            let held = input.try_get_u32_le()?;
            if held as usize > BROKER_MARKS {
                return Err(MarksError::Field("count of marks"));
            }
            let mut window = Window::default();
            for _ in 0..held {
                window.push(Mark {
                    number: i64::from(input.try_get_u16_le()?),
                    content: input.try_get_u64_le()?,
                });
            }
            let restored = marks.sessions.restore(session, used, window);
            restored.ok_or(MarksError::Field("session"))?;
        }
        marks.sessions.set_hand(hand as usize);
        let (count, hand) = (input.try_get_u32_le()?, input.try_get_u32_le()?);
        for _ in 0..count {
            let (topic, used) = (input.try_get_u64_le()?, input.try_get_u8()? != 0);
            let last = Some(input.try_get_u64_le()?);
            let restored = marks.topics.restore(topic, used, last);
            restored.ok_or(MarksError::Field("topic"))?;
        }
        marks.topics.set_hand(hand as usize);
        Ok(marks)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(topic: &'static str, content: u64, packet_id: u16) -> Evidence<'static> {
        Evidence {
            device: None,
            device_seq: None,
            has_time: true,
            content,
            session: 1,
            packet_id,
            exactly_once: false,
            dup: false,
            broker: true,
            retain: false,
            topic,
        }
    }

    fn dup(of: Evidence<'_>) -> Evidence<'_> {
        Evidence { dup: true, ..of }
    }

    fn retained(of: Evidence<'_>) -> Evidence<'_> {
        Evidence { retain: true, ..of }
    }

    #[test]
    fn a_whole_window_that_comes_again_is_recognised() {
        let mut marks = BrokerMarks::new();
        let of = |n: u64| message("t", 1_000 + n, (n % 65_535) as u16 + 1);
        let count = 2 * BROKER_MARKS as u64;
        for n in 0..count {
            assert_eq!(marks.judge(&of(n)), Judged::New);
        }
        for n in count - BROKER_MARKS as u64..count {
            assert_eq!(marks.judge(&dup(of(n))), Judged::Repeat(Reason::Dup), "{n}");
        }
        let other = message("t", 7, 1);
        assert_eq!(
            marks.judge(&dup(other)),
            Judged::New,
            "DUP alone is no evidence"
        );
        let beyond = of(count - BROKER_MARKS as u64 - 2);
        assert_eq!(
            marks.judge(&dup(beyond)),
            Judged::New,
            "longer ago than may be"
        );
    }

    #[test]
    fn new_ids_without_dup_are_kept_and_flagged_unless_something_tells() {
        let mut marks = BrokerMarks::new();
        let blank = |id| Evidence {
            has_time: false,
            ..message("t", 5, id)
        };
        assert_eq!(marks.judge(&blank(1)), Judged::New);
        assert_eq!(marks.judge(&blank(9)), Judged::MaybeRepeat);
        let timed = message("t", 5, 10);
        assert_eq!(marks.judge(&timed), Judged::New, "a time of its own");
    }

    #[test]
    fn a_retained_copy_of_the_last_is_dropped_and_nothing_else() {
        let mut marks = BrokerMarks::new();
        let first = message("a", 1, 1);
        assert_eq!(
            marks.judge(&retained(first)),
            Judged::New,
            "never seen before"
        );
        assert_eq!(
            marks.judge(&retained(message("a", 1, 2))),
            Judged::Repeat(Reason::Retained)
        );
        assert_eq!(marks.judge(&message("a", 2, 3)), Judged::New, "a live one");
        assert_eq!(
            marks.judge(&message("a", 2, 4)),
            Judged::New,
            "the same value, measured again"
        );
        let at_qos_0 = Evidence {
            packet_id: 0,
            ..message("a", 2, 0)
        };
        assert_eq!(
            marks.judge(&retained(at_qos_0)),
            Judged::Repeat(Reason::Retained)
        );
        assert_eq!(
            marks.judge(&retained(message("a", 1, 5))),
            Judged::New,
            "not the last one seen"
        );
        assert_eq!(
            marks.judge(&retained(message("b", 1, 6))),
            Judged::New,
            "another topic"
        );
        let elsewhere = Evidence {
            session: 2,
            ..message("b", 1, 1)
        };
        assert_eq!(
            marks.judge(&retained(elsewhere)),
            Judged::New,
            "another broker"
        );
    }

    proptest! {
        #[test]
        fn marks_come_back_as_they_were(
            messages in proptest::collection::vec(
                (0u64..3, 0u64..5, 0u16..5, any::<bool>(), any::<bool>()), 0..60
            ),
        ) {
            let mut marks = BrokerMarks::new();
            let topics = ["a", "b", "c"];
            let evidence = |one: (u64, u64, u16, bool, bool)| {
                let (session, content, packet_id, dup, retain) = one;
                Evidence {
                    session,
                    dup,
                    retain,
                    ..message(topics[content as usize % 3], content, packet_id)
                }
            };
            for one in &messages {
                marks.judge(&evidence(*one));
            }
            let mut bytes = Vec::new();
            marks.write(&mut bytes);
            let mut back = BrokerMarks::read(&mut bytes.as_slice()).unwrap();
            prop_assert_eq!(&back, &marks);
            for one in &messages {
                prop_assert_eq!(back.judge(&evidence(*one)), marks.judge(&evidence(*one)));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = BrokerMarks::read(&mut bytes.as_slice());
            let mut behind = vec![1, 0, 1, 0, 0, 0];
            behind.extend(bytes);
            let _ = BrokerMarks::read(&mut behind.as_slice());
        }
    }
}
