//! Publications, from PUBLISH to the answer: what is appended, what is owed, and when it is said.
//! QoS 2 needs no state beside the log: PUBREC and PUBCOMP say that the publication, or its
//! release, is durable, and the log's own judgement tells a second copy.

use super::super::codec::{Answer, Fault, Publish, Version};
use super::{Batch, Connection, Message, Now};
use crate::limits::{
    RECEIVE_MAX, TOPIC_ALIAS_BYTES_MAX, TOPIC_ALIASES_MAX, UNACKED_MESSAGES_MAX, UNRELEASED_MAX,
};
use crate::wal::{PubRel, Qos, TooLarge};

/// Publications that an idle connection keeps room for.
const UNACKED_IDLE: usize = 4;
const _: () = assert!(UNACKED_IDLE < UNACKED_MESSAGES_MAX);

/// Something that is not yet answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unacked {
    /// The client's message number that must be durable first.
    upto: u64,
    bytes: u32,
    packet_id: u16,
    code: u8,
    owed: Owed,
}

/// What a client is owed once something is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owed {
    Nothing,
    PubAck,
    PubRec,
    PubComp,
    SubAck,
}

/// What topics a client's aliases stand for (section 3.3.2.3.4 \[5\]).
#[derive(Debug, Default)]
pub(super) struct Aliases {
    topics: Vec<Option<Box<str>>>,
    bytes: usize,
}

impl Aliases {
    /// The topic of a publication: its own, which its alias stands for from now on, or the one
    /// that its alias stands for.
    fn resolve<'a>(&'a mut self, publish: &Publish<'a>) -> Result<&'a str, Fault> {
        let Some(alias) = publish.alias else {
            return Ok(publish.topic);
        };
        if alias == 0 || alias > TOPIC_ALIASES_MAX {
            return Err(Fault::TopicAlias(alias));
        }
        let place = usize::from(alias) - 1;
        if !publish.topic.is_empty() {
            self.set(place, publish.topic)?;
            return Ok(publish.topic);
        }
        let topic = self.topics.get(place).and_then(Option::as_deref);
        topic.ok_or(Fault::Protocol("a topic alias that no topic was given"))
    }

    fn set(&mut self, place: usize, topic: &str) -> Result<(), Fault> {
        if self.topics.len() <= place {
            self.topics.resize(place + 1, None);
        }
        let Some(slot) = self.topics.get_mut(place) else {
            return Ok(());
        };
        let before = slot.as_deref().map_or(0, str::len);
        let bytes = self.bytes - before + topic.len();
        if bytes > TOPIC_ALIAS_BYTES_MAX {
            return Err(Fault::Quota(
                "the topics that aliases stand for are too long",
            ));
        }
        if slot.as_deref() != Some(topic) {
            *slot = Some(topic.into());
        }
        self.bytes = bytes;
        Ok(())
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.bytes + self.topics.capacity() * size_of::<Option<Box<str>>>()
    }
}

impl Connection {
    pub(super) fn publish(
        &mut self,
        publish: Publish<'_>,
        now: Now,
        batch: &mut Batch,
    ) -> Result<(), Fault> {
        self.check_in_flight(&publish)?;
        // Taken out, so that the topic may be borrowed from it meanwhile.
        let mut aliases = std::mem::take(&mut self.aliases);
        let taken = aliases.resolve(&publish).map(|topic| {
            let publish = Publish { topic, ..publish };
            if !self.refuses(&publish) && !self.turns_away(&publish, now, batch) {
                let message = self.message(&publish, now);
                batch.message(&message);
                self.appended += 1;
                self.tally.messages += 1;
                self.tally.payload_bytes += publish.payload.len() as u64;
                self.await_durable(&publish, message.record_bytes(), 0);
            }
        });
        self.aliases = aliases;
        taken
    }

    /// Takes the head of a publication that was read past.
    pub(super) fn too_large(
        &mut self,
        publish: &Publish<'_>,
        payload_bytes: u32,
        now: Now,
        batch: &mut Batch,
    ) -> Result<(), Fault> {
        self.check_in_flight(publish)?;
        self.tally.too_large += 1;
        if self.refuses(publish) {
            return Ok(());
        }
        let message = self.message(publish, now);
        batch.too_large(&TooLarge {
            message,
            payload_bytes,
        });
        self.appended += 1;
        self.await_durable(publish, message.record_bytes(), 0);
        Ok(())
    }

    /// Holds a client to what it was told (section 4.9 \[5\]), and one that cannot be told to what
    /// memory there is for it.
    fn check_in_flight(&self, publish: &Publish<'_>) -> Result<(), Fault> {
        if publish.qos == 0 || (publish.qos == 2 && self.unreleased.contains(&publish.packet_id)) {
            return Ok(());
        }
        let fits = match self.version {
            Version::V5 => self.in_flight + self.unreleased.len() < RECEIVE_MAX,
            Version::V4 => publish.qos < 2 || self.unreleased.len() < UNRELEASED_MAX,
        };
        if fits {
            Ok(())
        } else {
            Err(Fault::ReceiveMaximum)
        }
    }

    /// Reserved topics are not for clients, and others not for each. 3.1.1 cannot be told, and must
    /// not try again: it gets its acknowledgement (section 3.3.5 [3.1.1]), and nothing is kept.
    fn refuses(&mut self, publish: &Publish<'_>) -> bool {
        let rights = self.rights.as_deref();
        let foreign = rights.is_some_and(|rights| !rights.allow(publish.topic));
        let refused = is_reserved(publish.topic) || foreign;
        if refused {
            self.tally.refused_topic += 1;
            let user = rights.map(|rights| &*rights.user);
            let client = rights.map(|rights| &*rights.client_id);
            let topic = publish.topic;
            tracing::debug!(
                user,
                client,
                ?topic,
                "MQTT: a publication is refused for its topic"
            );
            self.await_durable(publish, 0, 0x87);
        }
        refused
    }

    /// The spool is full, and its policy is to take nothing new. MQTT 5 can be told: what is not
    /// acknowledged is not lost. 3.1.1 is acknowledged once it is durable that it was refused; so
    /// is what may be a second copy, since only the log can tell whether the first was taken in.
    fn turns_away(&mut self, publish: &Publish<'_>, now: Now, batch: &mut Batch) -> bool {
        if !self.refuse.is_on() {
            return false;
        }
        self.tally.turned_away += 1;
        match (self.version, publish.qos) {
            // Nothing was promised.
            (_, 0) => {}
            (Version::V5, _) if !publish.dup => self.await_durable(publish, 0, 0x97),
            _ => {
                let message = self.message(publish, now);
                batch.refused(&message);
                self.appended += 1;
                self.await_durable(publish, message.record_bytes(), 0);
            }
        }
        true
    }

    pub(super) fn message<'a>(&self, publish: &Publish<'a>, now: Now) -> Message<'a> {
        Message {
            session: self.session,
            qos: Qos::from_code(publish.qos).unwrap_or(Qos::AtMostOnce),
            dup: publish.dup,
            retain: publish.retain,
            v5: self.version == Version::V5,
            will: false,
            broker: false,
            packet_id: publish.packet_id,
            received_time: now.unix_us,
            topic: publish.topic,
            properties: publish.properties,
            payload: publish.payload,
        }
    }

    fn await_durable(&mut self, publish: &Publish<'_>, bytes: usize, code: u8) {
        let packet_id = publish.packet_id;
        let owed = match publish.qos {
            0 => Owed::Nothing,
            1 => Owed::PubAck,
            _ => Owed::PubRec,
        };
        self.in_flight += usize::from(owed == Owed::PubAck);
        // Section 4.3.3 [5]: what is refused is not released.
        let refused = code != 0 && self.version == Version::V5;
        if owed == Owed::PubRec && !refused && !self.unreleased.contains(&packet_id) {
            self.unreleased.push(packet_id);
        }
        self.owe(owed, packet_id, bytes, code);
    }

    /// PUBREL: its packet id may stand for another publication once that is durable.
    pub(super) fn release_one(&mut self, packet_id: u16, batch: &mut Batch) {
        let session = self.session;
        batch.pubrel(&PubRel { session, packet_id });
        self.appended += 1;
        self.owe(Owed::PubComp, packet_id, 0, 0);
    }

    pub(super) fn owe(&mut self, owed: Owed, packet_id: u16, bytes: usize, code: u8) {
        self.unacked_bytes += bytes;
        self.unacked.push_back(Unacked {
            upto: self.appended,
            bytes: bytes as u32,
            packet_id,
            code,
            owed,
        });
    }

    /// Answers what has become durable.
    pub(super) fn release(&mut self) {
        while let Some(first) = self.unacked.front().copied() {
            if first.upto > self.durable {
                break;
            }
            self.unacked.pop_front();
            self.unacked_bytes -= first.bytes as usize;
            self.settle(first);
        }
        if self.unacked.is_empty() {
            // An idle connection holds no room for a burst.
            self.unacked.shrink_to(UNACKED_IDLE);
            self.drained();
        }
    }

    fn settle(&mut self, done: Unacked) {
        let Unacked {
            packet_id, code, ..
        } = done;
        let answer = match done.owed {
            Owed::Nothing => return,
            Owed::SubAck => return self.answer_subscribed(),
            Owed::PubAck => {
                self.in_flight -= 1;
                Answer::PubAck { packet_id, code }
            }
            Owed::PubRec => Answer::PubRec { packet_id, code },
            Owed::PubComp => {
                self.unreleased.retain(|held| *held != packet_id);
                if self.unreleased.is_empty() {
                    self.unreleased = Vec::new();
                }
                Answer::PubComp { packet_id }
            }
        };
        self.tally.acknowledged += u64::from(code == 0 && done.owed != Owed::PubComp);
        self.answer(&answer);
    }
}

/// Whether no client publishes there: the agent's own topics, what a broker says about itself, and
/// what is no topic but a shared subscription (sections 4.7.2 and 4.8.2 \[5\]).
pub(super) fn is_reserved(topic: &str) -> bool {
    let first = topic.split('/').next().unwrap_or_default();
    matches!(first, "tributary" | "$SYS" | "$share")
}
