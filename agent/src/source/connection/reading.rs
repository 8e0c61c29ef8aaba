//! What a client reads: its subscriptions, and what is delivered to it. What waits for it is held
//! by the [`Hub`](super::super::hub::Hub), within bounds; here is only what it has not
//! acknowledged.
//!
//! A subscription outlives its connection with the session, in memory: when the client comes back
//! it is told what changed of the present state meanwhile. The log says of a session with
//! subscriptions that it ends with its connection, since it does not know them: after a restart
//! of the agent such a session is not said to be present.

use super::super::codec::{Answer, Asked, Deliver, Fault, Version, deliver};
use super::super::hub::{
    Delivery, Hub, Present, Quota, Reader, Subscription, Terms, TooSlow, check,
};
use super::super::registry::Signal;
use super::publication::Owed;
use super::{Batch, Connection, Now, Phase};
use crate::limits::{DELIVERED_MAX, DELIVERING_BYTES};
use std::collections::VecDeque;
use std::sync::Arc;

/// What is published, and who is told that there is some of it.
#[derive(Clone, Debug)]
pub(in crate::source) struct Audience {
    pub hub: Hub,
    pub signal: Arc<Signal>,
}

/// What is kept of a client's subscriptions while it is gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::source) struct Parked {
    pub subscriptions: Vec<Subscription>,
    /// The message up to which it has all.
    pub taken: u64,
}

impl Parked {
    /// Bytes of memory that it holds.
    pub(in crate::source) fn held_bytes(&self) -> usize {
        let filters = self.subscriptions.iter();
        let filters = filters.map(|kept| size_of::<Subscription>() + kept.filter.len());
        size_of::<Self>() + filters.sum::<usize>()
    }
}

/// A client that subscribed.
#[derive(Debug)]
pub(super) struct Reading {
    reader: Reader,
    /// QoS 1 deliveries that are not acknowledged: packet id, and which message it is.
    in_flight: VecDeque<(u16, u64)>,
    last_id: u16,
    /// There may be more to deliver once there is room.
    more: bool,
    /// Answers to SUBSCRIBE that wait for the log.
    answers: VecDeque<(u16, Vec<u8>)>,
}

impl Reading {
    fn new(reader: Reader) -> Self {
        Self {
            reader,
            in_flight: VecDeque::new(),
            last_id: 0,
            more: true,
            answers: VecDeque::new(),
        }
    }

    /// A packet id that is not in use (section 2.2.1 \[5\]).
    fn next_id(&self) -> u16 {
        let mut id = self.last_id;
        loop {
            id = id.checked_add(1).unwrap_or(1);
            // There are far fewer under way than there are ids.
            if !self.in_flight.iter().any(|(used, _)| *used == id) {
                return id;
            }
        }
    }
}

impl Connection {
    /// With something to subscribe to.
    pub(in crate::source) fn reading(self, audience: Audience) -> Self {
        Self {
            audience: Some(audience),
            ..self
        }
    }

    /// SUBSCRIBE (section 3.8): each filter is answered in its place.
    pub(super) fn subscribe(
        &mut self,
        packet_id: u16,
        id: Option<u32>,
        asked: &[Asked<'_>],
        now: Now,
        batch: &mut Batch,
    ) {
        let before = self.has_subscriptions();
        let codes = asked.iter().map(|asked| self.subscribe_to(id, asked));
        let codes: Vec<u8> = codes.collect();
        let refused = codes.iter().filter(|code| **code >= 0x80).count() as u64;
        self.tally.subscriptions_refused += refused;
        self.tally.subscribed += codes.len() as u64 - refused;
        let told = self.tell_log(before, now, batch);
        match &mut self.reading {
            // Not before the log knows: the session would be said to be present.
            Some(reading) if told => {
                let bytes = codes.len();
                reading.answers.push_back((packet_id, codes));
                self.owe(Owed::SubAck, packet_id, bytes, 0);
            }
            _ => self.answer_subscribe(packet_id, codes),
        }
    }

    /// Grants one filter, or refuses it, by its code.
    fn subscribe_to(&mut self, id: Option<u32>, asked: &Asked<'_>) -> u8 {
        if let Err(unserved) = check(asked.filter, self.rights.as_deref()) {
            return unserved.code();
        }
        let terms = Terms {
            qos: asked.qos.min(1),
            id,
            as_published: asked.as_published,
        };
        let present = match asked.retain_handling {
            0 => Present::All,
            1 => Present::IfNew,
            _ => Present::Nothing,
        };
        match self.subscribe_as(asked.filter, terms, present) {
            Ok(()) => terms.qos,
            Err(Quota) => 0x97,
        }
    }

    fn subscribe_as(&mut self, filter: &str, terms: Terms, present: Present) -> Result<(), Quota> {
        if self.reading.is_none() {
            let audience = self.audience.as_ref().ok_or(Quota)?;
            let rights = self.rights.as_deref().cloned();
            let reader = audience.hub.reader(audience.signal.clone(), rights)?;
            self.reading = Some(Box::new(Reading::new(reader)));
        }
        let reading = self.reading.as_mut().ok_or(Quota)?;
        reading.more = true;
        reading.reader.subscribe(filter, terms, present)
    }

    /// UNSUBSCRIBE (section 3.10).
    pub(super) fn unsubscribe(
        &mut self,
        packet_id: u16,
        filters: &[&str],
        now: Now,
        batch: &mut Batch,
    ) {
        let before = self.has_subscriptions();
        let codes = filters.iter().map(|filter| {
            let reading = self.reading.as_ref();
            let was = reading.is_some_and(|reading| reading.reader.unsubscribe(filter));
            if was { 0 } else { 0x11 }
        });
        let codes = codes.collect();
        self.tell_log(before, now, batch);
        self.answer(&Answer::UnsubAck { packet_id, codes });
    }

    /// Has the log know whether the session has subscriptions; whether that is news.
    fn tell_log(&mut self, before: bool, now: Now, batch: &mut Batch) -> bool {
        let news = self.has_subscriptions() != before && self.session_expiry_s.unwrap_or(0) > 0;
        if news {
            self.keep_session(now, batch);
        }
        news
    }

    pub(super) fn has_subscriptions(&self) -> bool {
        let reading = self.reading.as_ref();
        reading.is_some_and(|reading| reading.reader.len() > 0)
    }

    /// The log knows what the first answer that waits depends on.
    pub(super) fn answer_subscribed(&mut self) {
        let answers = self.reading.as_mut().map(|reading| &mut reading.answers);
        if let Some((packet_id, codes)) = answers.and_then(VecDeque::pop_front) {
            self.answer_subscribe(packet_id, codes);
        }
    }

    fn answer_subscribe(&mut self, packet_id: u16, codes: Vec<u8>) {
        let refused = codes.iter().any(|code| *code >= 0x80);
        let reason = (refused && self.reasons).then_some("an ingest endpoint, not a broker");
        self.answer(&Answer::SubAck {
            packet_id,
            codes,
            reason,
        });
    }

    /// PUBACK: a delivery is over.
    pub(super) fn delivered(&mut self, packet_id: u16) -> Result<(), Fault> {
        let Some(reading) = &mut self.reading else {
            return Err(Fault::Protocol(
                "an acknowledgement, though nothing was sent",
            ));
        };
        let mut in_flight = reading.in_flight.iter();
        // One that is not under way was acknowledged before: that changes nothing.
        if let Some(place) = in_flight.position(|(used, _)| *used == packet_id) {
            reading.in_flight.remove(place);
            reading.more = true;
            self.tally.deliveries_acknowledged += 1;
        }
        if reading.in_flight.is_empty() {
            reading.in_flight = VecDeque::new();
        }
        Ok(())
    }

    /// There is something new to deliver.
    pub(in crate::source) fn handle_published(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.more = true;
        }
    }

    /// Whether [`deliver`](Self::deliver) has more to do, and room for it.
    pub(in crate::source) fn wants_deliver(&self) -> bool {
        let reading = self.reading.as_ref().filter(|_| self.is_open());
        reading.is_some_and(|reading| {
            reading.more
                && self.out.len() < DELIVERING_BYTES
                && reading.in_flight.len() < self.receive_max()
        })
    }

    /// Deliveries that its client takes before it has acknowledged the first.
    fn receive_max(&self) -> usize {
        usize::from(self.receive_max).min(DELIVERED_MAX)
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Writes what there is to deliver, as far as there is room.
    pub(in crate::source) fn deliver(&mut self) {
        let over = self.reading.as_ref().filter(|_| self.is_open());
        if over.is_some_and(|reading| reading.reader.is_over()) {
            return self.end(0x97, "slow_reader");
        }
        while self.wants_deliver() {
            let Some(reading) = &mut self.reading else {
                return;
            };
            match reading.reader.next() {
                Ok(Some(delivery)) => self.write_delivery(&delivery),
                Ok(None) => reading.more = false,
                Err(TooSlow) => return self.end(0x97, "slow_reader"),
            }
        }
    }

    fn write_delivery(&mut self, delivery: &Delivery) {
        let Some(reading) = &mut self.reading else {
            return;
        };
        let message = &delivery.message;
        let packet_id = (delivery.qos > 0).then(|| reading.next_id());
        let packet = Deliver {
            packet_id,
            retain: delivery.retain,
            topic: &message.topic,
            ids: &delivery.ids,
            payload: &message.payload,
        };
        // Section 3.1.2.11.4 [5]: what is more than the client takes is as good as delivered.
        if !deliver(self.version, &packet, self.answer_bytes_max, &mut self.out) {
            self.tally.deliveries_too_large += 1;
            return;
        }
        self.tally.deliveries += 1;
        if let Some(packet_id) = packet_id {
            reading.last_id = packet_id;
            reading.in_flight.push_back((packet_id, message.number));
        }
    }

    /// The client has its subscriptions back, all of them or none.
    pub(super) fn resume_reading(&mut self, parked: &Parked) -> bool {
        let resumed = parked.subscriptions.iter().all(|kept| {
            let present = Present::Since(parked.taken);
            check(&kept.filter, self.rights.as_deref()).is_ok()
                && self.subscribe_as(&kept.filter, kept.terms, present).is_ok()
        });
        if !resumed {
            self.reading = None;
        }
        resumed
    }

    /// What is to be kept of the client's subscriptions, if it has any; it has none any more.
    pub(in crate::source) fn take_subscriptions(&mut self) -> Option<Parked> {
        let reading = self.reading.take()?;
        let (subscriptions, taken) = reading.reader.subscriptions();
        let under_way = reading.in_flight.iter().map(|(_, number)| number - 1).min();
        (!subscriptions.is_empty()).then(|| Parked {
            subscriptions,
            taken: taken.min(under_way.unwrap_or(taken)),
        })
    }

    /// MQTT 5 tells what it takes at once; 3.1.1 takes everything.
    pub(super) fn takes_at_once(&mut self, version: Version, receive_maximum: Option<u16>) {
        self.receive_max = match version {
            Version::V4 => u16::MAX,
            Version::V5 => receive_maximum.unwrap_or(u16::MAX),
        };
    }
}
