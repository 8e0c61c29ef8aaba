//! What happens at the aggregators' ends of their connections, and to their journals.

use super::site::{Step, Talk};
use super::spool::Item;
use super::{Event, Invariant, World, parse};
use crate::net::{ConnectionId, Side};
use tributary_protocol::message::{Message, Reject, RejectCode};

impl World<'_> {
    pub(super) fn site_starts(&mut self, at: usize) {
        let site = &mut self.sites[at];
        if site.running.is_none() && !site.gone {
            self.oracle.stats.restarts += 1;
            site.committing = false;
            site.start(self.plan.seed, &mut self.oracle);
        }
    }

    /// What an aggregator knows of a connection, while it has power.
    fn talk(&mut self, id: ConnectionId) -> Option<&mut Talk> {
        let site = self.sites.get_mut(self.net.site_of(id)?)?;
        site.running.as_mut()?.talks.get_mut(&id)
    }

    pub(super) fn site_hears(&mut self, id: ConnectionId, bytes: &[u8]) {
        if !self.net.is_open(id, Side::Site) {
            return;
        }
        let message = match parse(bytes) {
            Ok(message) => message,
            Err(error) => {
                self.oracle.violate(Invariant::I11, || error);
                return;
            }
        };
        let Some(at) = self.net.site_of(id) else {
            return;
        };
        let Some(talk) = self.talk(id) else {
            return;
        };
        let hello = match talk.receiver.on_message(message) {
            Ok(hello) => hello,
            Err(reject) => {
                self.oracle
                    .violate(Invariant::I11, || format!("refused: {}", reject.detail));
                return;
            }
        };
        let site = &mut self.sites[at];
        let life = site.life;
        let welcomed = site.welcome(id, &hello, &mut self.oracle);
        let Some((welcome, fenced)) = welcomed else {
            return;
        };
        self.oracle.greets(at, id);
        let session = welcome.session;
        for page in welcome.pages() {
            self.say(id, Side::Agent, Message::Welcome(page));
        }
        let opened = self.talk(id).map(|talk| talk.receiver.on_opened(session));
        if let Some(Err(reject)) = opened {
            self.oracle
                .violate(Invariant::I11, || format!("refused: {}", reject.detail));
        }
        if let Some(older) = fenced {
            let us = self.dice("fence").us(0, 50_000);
            self.agenda.after(us, Event::Fenced(at, older, life));
        }
    }

    pub(super) fn batch(&mut self, id: ConnectionId, sent: (Item, bool), damaged: bool) {
        if !self.net.is_open(id, Side::Site) {
            return;
        }
        if damaged {
            self.site_ends(id, Some(RejectCode::Protocol));
            return;
        }
        let now = self.agenda.now();
        let Some(at) = self.net.site_of(id) else {
            return;
        };
        match self.sites[at].offer(id, sent, now, &mut self.oracle) {
            None => {}
            Some(Step::Answered) => self.plan_ack(id),
            Some(Step::End(code)) => self.site_ends(id, Some(code)),
            Some(Step::Staged { now: true }) => self.commit(at),
            Some(Step::Staged { now: false }) => self.plan_commit(at),
        }
    }

    /// Plans that the frame is written, unless it is planned.
    fn plan_commit(&mut self, at: usize) {
        let site = &mut self.sites[at];
        if std::mem::replace(&mut site.committing, true) {
            return;
        }
        let slow = self.agenda.now() < site.slow_until;
        let life = site.life;
        let mut dice = self.dice("commit");
        let us = match slow {
            true => dice.us(50_000, 2_000_000),
            false => dice.us(100, 30_000),
        };
        self.agenda.after(us, Event::Commit(at, life));
    }

    pub(super) fn commit(&mut self, at: usize) {
        let now = self.agenda.now();
        let site = &mut self.sites[at];
        site.committing = false;
        for id in site.commit(now, self.plan.seed, &mut self.oracle) {
            self.plan_ack(id);
        }
    }

    /// Plans the acknowledgement of a connection, or says it.
    pub(super) fn plan_ack(&mut self, id: ConnectionId) {
        let Some(at) = self.net.site_of(id) else {
            return;
        };
        let site = &mut self.sites[at];
        let talk = site.running.as_mut().and_then(|it| it.talks.get_mut(&id));
        let Some(talk) = talk else { return };
        let due = talk.receiver.poll_timeout();
        if let Some(due) = due.filter(|at| talk.ack_at != Some(*at)) {
            talk.ack_at = Some(due);
            self.agenda.at(due, Event::Ack(at, id, site.life));
        }
    }

    pub(super) fn ack(&mut self, id: ConnectionId) {
        let now = self.agenda.now();
        let Some(talk) = self.talk(id) else { return };
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
        if let Some(at) = self.net.site_of(id) {
            self.sites[at].end(id);
        }
        let at = self.net.message(id, Side::Agent, self.agenda.now());
        self.net.close(id, Side::Site);
        self.agenda.at(at, Event::Over(id, Side::Agent));
    }
}
