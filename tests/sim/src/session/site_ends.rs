//! What happens at the aggregator's ends of its connections, and to its journal.

use super::site::Step;
use super::spool::Item;
use super::{Event, Invariant, World, parse};
use crate::net::{ConnectionId, Side};
use tributary_protocol::message::{Message, Reject, RejectCode};

impl World<'_> {
    pub(super) fn site_starts(&mut self) {
        if self.site.running.is_none() {
            self.oracle.stats.restarts += 1;
            self.committing = false;
            self.site.start(self.plan.seed, &mut self.oracle);
        }
    }

    pub(super) fn site_hears(&mut self, id: ConnectionId, bytes: &[u8]) {
        if !self.net.is_open(id, Side::Site) {
            return;
        }
        let Some(running) = &mut self.site.running else {
            return;
        };
        let Some(talk) = running.talks.get_mut(&id) else {
            return;
        };
        let message = match parse(bytes) {
            Ok(message) => message,
            Err(error) => {
                self.oracle.violate(Invariant::I11, || error);
                return;
            }
        };
        let hello = match talk.receiver.on_message(message) {
            Ok(hello) => hello,
            Err(reject) => {
                self.oracle
                    .violate(Invariant::I11, || format!("refused: {}", reject.detail));
                return;
            }
        };
        let welcomed = self.site.welcome(id, &hello, &mut self.oracle);
        let Some((welcome, fenced)) = welcomed else {
            return;
        };
        self.oracle.greets(id);
        let session = welcome.session;
        for page in welcome.pages() {
            self.say(id, Side::Agent, Message::Welcome(page));
        }
        let talk = self
            .site
            .running
            .as_mut()
            .and_then(|it| it.talks.get_mut(&id));
        if let Some(Err(reject)) = talk.map(|talk| talk.receiver.on_opened(session)) {
            self.oracle
                .violate(Invariant::I11, || format!("refused: {}", reject.detail));
        }
        if let Some(older) = fenced {
            let us = self.dice("fence").us(0, 50_000);
            self.agenda.after(us, Event::Fenced(older, self.site.life));
        }
    }

    pub(super) fn batch(&mut self, id: ConnectionId, item: Item, damaged: bool) {
        if !self.net.is_open(id, Side::Site) {
            return;
        }
        if damaged {
            self.site_ends(id, Some(RejectCode::Protocol));
            return;
        }
        let now = self.agenda.now();
        match self.site.offer(id, item, now, &mut self.oracle) {
            None => {}
            Some(Step::Answered) => self.plan_ack(id),
            Some(Step::End(code)) => self.site_ends(id, Some(code)),
            Some(Step::Staged { now: true }) => self.commit(),
            Some(Step::Staged { now: false }) => self.plan_commit(),
        }
    }

    /// Plans that the frame is written, unless it is planned.
    fn plan_commit(&mut self) {
        if std::mem::replace(&mut self.committing, true) {
            return;
        }
        let slow = self.agenda.now() < self.slow_until;
        let mut dice = self.dice("commit");
        let us = match slow {
            true => dice.us(50_000, 2_000_000),
            false => dice.us(100, 30_000),
        };
        self.agenda.after(us, Event::Commit(self.site.life));
    }

    pub(super) fn commit(&mut self) {
        self.committing = false;
        let now = self.agenda.now();
        for id in self.site.commit(now, self.plan.seed, &mut self.oracle) {
            self.plan_ack(id);
        }
    }

    /// Plans the acknowledgement of a connection, or says it.
    pub(super) fn plan_ack(&mut self, id: ConnectionId) {
        let life = self.site.life;
        let talk = self
            .site
            .running
            .as_mut()
            .and_then(|it| it.talks.get_mut(&id));
        let Some(talk) = talk else { return };
        let due = talk.receiver.poll_timeout();
        if let Some(at) = due.filter(|_| due != talk.ack_at) {
            talk.ack_at = due;
            self.agenda.at(at, Event::Ack(id, life));
        }
    }

    pub(super) fn ack(&mut self, id: ConnectionId) {
        let now = self.agenda.now();
        let talk = self
            .site
            .running
            .as_mut()
            .and_then(|it| it.talks.get_mut(&id));
        let Some(talk) = talk else { return };
        if let Some(ack) = talk.receiver.poll_ack(now) {
            self.oracle.acknowledged(id, &ack);
            self.say(id, Side::Agent, Message::Ack(ack));
        }
    }

    /// The aggregator's end of a connection is over; it says why, if it knows.
    pub(super) fn site_ends(&mut self, id: ConnectionId, why: Option<RejectCode>) {
        if !self.net.is_open(id, Side::Site) {
            return;
        }
        if let Some(code) = why {
            let reject = Reject {
                code,
                detail: String::new(),
                retry_after_ms: 0,
                batch: None,
            };
            self.say(id, Side::Agent, Message::Reject(reject));
        }
        self.site.end(id);
        let at = self.net.message(id, Side::Agent, self.agenda.now());
        self.net.close(id, Side::Site);
        self.agenda.at(at, Event::Over(id, Side::Agent));
    }
}
