//! What one client sends next: a window of publications in flight, and a queue behind it.
//!
//! Pure. The order of first sending is the order of the queue; a publication keeps its packet id
//! until it is done with: at QoS 1 until its PUBACK, at QoS 2 until the PUBCOMP that follows PUBREC
//! and PUBREL. After [`Outbox::disconnected`] all that is in flight is sent again: what was
//! received is released again, in the order of its PUBRECs, and what was not is published again
//! with DUP set, oldest first and before anything new (MQTT 3.1.1, 4.3, 4.4 and 4.6).

use super::Qos;
use crate::limits::{QUEUE_READINGS_MAX, WINDOW_MAX};
use crate::reading::Reading;
use std::collections::VecDeque;

#[derive(Debug)]
struct Flight {
    pkid: u16,
    reading: Reading,
    /// Whether it was ever put on a wire.
    tried: bool,
}

/// A publication that the server has received, and whose id it still holds.
#[derive(Debug)]
struct Release {
    pkid: u16,
    /// Whether PUBREL was sent on this connection, after the last PUBREC.
    sent: bool,
}

/// One packet to put on the wire now.
#[derive(Debug)]
pub enum Transmit<'a> {
    /// PUBLISH.
    Publish {
        /// Packet id; 0 at QoS 0.
        pkid: u16,
        /// Whether it was put on a wire before.
        dup: bool,
        /// What to publish.
        reading: &'a Reading,
    },
    /// PUBREL.
    Release {
        /// Packet id.
        pkid: u16,
    },
}

/// A window and the queue behind it.
#[derive(Debug)]
pub struct Outbox {
    qos: Qos,
    queue: VecDeque<Reading>,
    /// What nobody has said to have received.
    flight: VecDeque<Flight>,
    /// How many of `flight`, from its front, were sent on this connection.
    sent: usize,
    /// At QoS 2: in the order of PUBREC.
    releases: VecDeque<Release>,
    window: usize,
    last_pkid: u16,
    /// At QoS 0: what was handed out last.
    loose: Option<Reading>,
}

impl Outbox {
    /// Empty.
    pub fn new(qos: Qos) -> Self {
        Self {
            qos,
            queue: VecDeque::new(),
            flight: VecDeque::new(),
            sent: 0,
            releases: VecDeque::new(),
            window: WINDOW_MAX,
            last_pkid: 0,
            loose: None,
        }
    }

    /// How many readings the queue has room for.
    pub fn room(&self) -> usize {
        QUEUE_READINGS_MAX.saturating_sub(self.queue.len())
    }

    /// The queue, to be filled by as many readings as there is [room](Self::room) for.
    pub fn queue_mut(&mut self) -> &mut VecDeque<Reading> {
        &mut self.queue
    }

    /// Readings that were never sent.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Readings that were sent and not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.flight.len()
    }

    /// Whether nothing waits for anything.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.flight.is_empty() && self.releases.is_empty()
    }

    /// A connection is open, to a server that takes `receive_max` at once. Without a session that
    /// goes on it holds no ids: there is nothing to release, and what was received stays received.
    pub fn connected(&mut self, receive_max: u16, session_present: bool) {
        self.window = usize::from(receive_max).clamp(1, WINDOW_MAX);
        self.disconnected();
        if !session_present {
            self.releases.clear();
        }
    }

    /// The connection is gone: what is in flight will be sent again.
    pub fn disconnected(&mut self) {
        self.sent = 0;
        self.releases.iter_mut().for_each(|one| one.sent = false);
    }

    /// What to send now, if anything.
    pub fn poll_transmit(&mut self) -> Option<Transmit<'_>> {
        if self.qos == Qos::AtMostOnce {
            self.loose = Some(self.queue.pop_front()?);
            let reading = self.loose.as_ref()?;
            return Some(Transmit::Publish {
                pkid: 0,
                dup: false,
                reading,
            });
        }
        if let Some(release) = self.releases.iter_mut().find(|one| !one.sent) {
            release.sent = true;
            return Some(Transmit::Release { pkid: release.pkid });
        }
        if self.sent + self.releases.len() >= self.window {
            return None;
        }
        if self.sent == self.flight.len() {
            let reading = self.queue.pop_front()?;
            let pkid = self.free_pkid();
            self.flight.push_back(Flight {
                pkid,
                reading,
                tried: false,
            });
        }
        let flight = self.flight.get_mut(self.sent)?;
        self.sent += 1;
        let dup = std::mem::replace(&mut flight.tried, true);
        Some(Transmit::Publish {
            pkid: flight.pkid,
            dup,
            reading: &flight.reading,
        })
    }

    /// The publication that a PUBACK names, or a PUBREC with an error, which is done now. `None`
    /// when nothing in flight has this packet id: it was acknowledged before, or never sent.
    pub fn acknowledged(&mut self, pkid: u16) -> Option<Reading> {
        let place = self.flight.iter().position(|flight| flight.pkid == pkid)?;
        let flight = self.flight.remove(place)?;
        if place < self.sent {
            self.sent -= 1;
        }
        Some(flight.reading)
    }

    /// The publication that a PUBREC names: the server has it, and its id is released next. `None`
    /// when it was received before, and is only released again, or was never sent.
    pub fn received(&mut self, pkid: u16) -> Option<Reading> {
        if let Some(known) = self.releases.iter_mut().find(|one| one.pkid == pkid) {
            known.sent = false;
            return None;
        }
        let reading = self.acknowledged(pkid)?;
        self.releases.push_back(Release { pkid, sent: false });
        Some(reading)
    }

    /// A PUBCOMP: the packet id is free. Whether it was held.
    pub fn completed(&mut self, pkid: u16) -> bool {
        let before = self.releases.len();
        self.releases.retain(|one| one.pkid != pkid);
        self.releases.len() < before
    }

    fn free_pkid(&mut self) -> u16 {
        loop {
            self.last_pkid = self.last_pkid.checked_add(1).unwrap_or(1);
            let flying = self.flight.iter().map(|flight| flight.pkid);
            let mut held = flying.chain(self.releases.iter().map(|one| one.pkid));
            if !held.any(|pkid| pkid == self.last_pkid) {
                return self.last_pkid;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
