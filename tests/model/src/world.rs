//! One agent, its connections and its aggregators: everything that can happen to them, one step at
//! a time.

use crate::agent::Agent;
use crate::item::Item;
use crate::limits::LINKS_MAX;
use crate::link::{Link, Sent};
use crate::rule::Rule;
use crate::scope::{Left, Scope};
use crate::seen::{Happened, Seen};
use crate::site::{Entry, Site, Step};
use std::ops::Range;
use tributary_protocol::limits::ACK_COALESCE_US;
use tributary_protocol::message::{AgainReason, Message, Reject, RejectCode};

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// The agent seals a batch.
    Seal,
    /// Its spool gives way.
    Shed,
    /// Its sender hears of gaps.
    Tell,
    /// It begins a connection to this aggregator.
    Dial(usize),
    /// It sends the next batch.
    Send,
    /// It hears the next message of its connection.
    Hear,
    /// It keeps its cursor.
    Save,
    /// What waits for another aggregator has waited long enough.
    Wait,
    /// Its connection is lost.
    Lose,
    /// It loses its power; what was trimmed last may be back.
    CrashAgent {
        /// Whether it is.
        back: bool,
    },
    /// The greeting of this connection arrives.
    Greet(u8),
    /// A batch arrives.
    Arrive(u8, Sent),
    /// The aggregator writes its frame.
    Append(usize),
    /// The aggregator cannot write its frame.
    FailAppend(usize),
    /// What waits for it is acknowledged on this connection.
    Acknowledge(u8),
    /// The aggregator loses its power; the frame that was being written may be durable.
    CrashSite {
        /// Which.
        site: usize,
        /// Whether it is.
        kept: bool,
    },
}

/// Everything there is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    agent: Agent,
    sites: Vec<Site>,
    /// Connections, the newest last.
    links: Vec<Link>,
    /// How many there were.
    dialled: u8,
    left: Left,
    /// Whether a ledger took a batch for another's that it had under its number.
    trusted: bool,
    /// The first rule that a step broke.
    broken: Option<Rule>,
}

/// Whether a journal has this number.
fn is_stored(sites: &[Site], life: u64, number: u64) -> bool {
    let mut sites = sites.iter();
    sites.any(|site| site.stored(life, number).is_some())
}

/// Whether the aggregator at `place` may say that it holds this. Of a gap it need not take what it
/// knows that another one has.
fn holds(sites: &[Site], place: usize, item: &Item) -> bool {
    let mut numbers = item.numbers();
    match item.gap {
        true => numbers.all(|number| is_stored(sites, item.life, number)),
        false => sites
            .get(place)
            .is_some_and(|site| site.has_all(item.life, numbers)),
    }
}

fn closing() -> Message {
    Message::Reject(Reject {
        code: RejectCode::Closing,
        detail: String::new(),
        retry_after_ms: 0,
        batch: None,
    })
}

impl World {
    /// Before anything happened.
    pub fn new(scope: &Scope) -> Self {
        let twin = Entry {
            item: Item {
                foreign: true,
                ..Item::batch(1, 0)
            },
            runs: vec![Range { start: 0, end: 1 }],
            marked: false,
        };
        let journal = || scope.twin.then_some(twin.clone()).into_iter().collect();
        Self {
            agent: Agent::new(scope),
            sites: (0..scope.sites)
                .map(|at| Site::new(at, journal()))
                .collect(),
            links: Vec::new(),
            dialled: 0,
            left: scope.left,
            trusted: false,
            broken: None,
        }
    }

    /// The first rule that a step broke.
    pub fn broken(&self) -> Option<Rule> {
        self.broken
    }

    /// Notes what a step broke.
    pub fn note(&mut self, broken: Option<Rule>) {
        self.broken = self.broken.or(broken);
    }

    /// The agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// The aggregators.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// The connections.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// What may still happen.
    pub fn left(&self) -> &Left {
        &self.left
    }

    fn present(&self) -> Option<&Link> {
        let id = self.agent.link?;
        self.links.iter().find(|link| link.id == id)
    }

    fn link(&mut self, id: u8) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.id == id)
    }

    /// What goes on by itself, the most urgent first: with only these, all has to drain.
    pub fn goes_on(&self) -> Vec<Action> {
        let mut on = Vec::new();
        if self.agent.has_untold() {
            on.push(Action::Tell);
        }
        if self.present().is_some_and(|link| !link.to_agent.is_empty()) {
            on.push(Action::Hear);
        }
        for link in &self.links {
            let Some(receiver) = &link.at_site else {
                continue;
            };
            if receiver.poll_timeout().is_some() {
                on.push(Action::Acknowledge(link.id));
            }
            if link.hello.is_some() {
                on.push(Action::Greet(link.id));
            }
            let batches = link.batches.iter();
            on.extend(batches.map(|sent| Action::Arrive(link.id, *sent)));
        }
        let staged = self.sites.iter().enumerate();
        let staged = staged.filter(|(_, site)| site.has_staged());
        on.extend(staged.map(|(at, _)| Action::Append(at)));
        if self.agent.may_send() {
            on.push(Action::Send);
        }
        if self.agent.waits_until().is_some() {
            on.push(Action::Wait);
        }
        on
    }

    /// Everything that can happen next.
    pub fn actions(&self, scope: &Scope, actions: &mut Vec<Action>) {
        if self.broken.is_some() {
            return;
        }
        actions.extend(self.goes_on());
        let left = &self.left;
        if self.agent.sealed() < scope.batches {
            actions.push(Action::Seal);
        }
        if left.sheds > 0 && self.agent.spool.items().any(|item| !item.gap) {
            actions.push(Action::Shed);
        }
        if self.agent.link.is_none() && left.dials > 0 {
            actions.extend((0..scope.sites).map(Action::Dial));
        }
        if self.agent.would_save() {
            actions.push(Action::Save);
        }
        if self.agent.link.is_some() && left.losses > 0 {
            actions.push(Action::Lose);
        }
        if left.agent_crashes > 0 {
            actions.push(Action::CrashAgent { back: false });
            if self.agent.spool.may_come_back() {
                actions.push(Action::CrashAgent { back: true });
            }
        }
        for (site, it) in self.sites.iter().enumerate() {
            if left.failed_appends > 0 && it.has_staged() {
                actions.push(Action::FailAppend(site));
            }
            if left.site_crashes > 0 {
                actions.push(Action::CrashSite { site, kept: false });
                if it.has_staged() {
                    actions.push(Action::CrashSite { site, kept: true });
                }
            }
        }
    }

    /// Takes one step.
    pub fn apply(&mut self, action: Action, scope: &Scope, seen: &mut Seen) {
        match action {
            Action::Seal => self.agent.seal(scope.batch_bytes),
            Action::Shed => {
                self.left.sheds -= 1;
                self.agent.shed();
            }
            Action::Tell => self.agent.tell(),
            Action::Dial(site) => self.dial(site, seen),
            Action::Send => {
                let sent = self.agent.send(scope, seen);
                let link = self.agent.link.and_then(|id| self.link(id));
                if let Some((link, sent)) = link.zip(sent)
                    && link.at_site.is_some()
                {
                    link.batches.insert(sent);
                }
            }
            Action::Hear => self.hear(scope, seen),
            Action::Save => self.agent.save(),
            Action::Wait => {
                if let Some(until) = self.agent.waits_until() {
                    seen.note(Happened::Waited);
                    self.agent.on_time(until);
                }
            }
            Action::Lose => {
                self.left.losses -= 1;
                self.agent_loses();
            }
            Action::CrashAgent { back } => {
                self.left.agent_crashes -= 1;
                self.end_at_agent();
                self.agent.crash(back, scope, seen);
            }
            Action::Greet(id) => self.greet(id, scope, seen),
            Action::Arrive(id, sent) => self.arrive(id, sent, seen),
            Action::Append(site) => self.append(site, true, seen),
            Action::FailAppend(site) => {
                self.left.failed_appends -= 1;
                self.append(site, false, seen);
            }
            Action::Acknowledge(id) => self.acknowledge(id, seen),
            Action::CrashSite { site, kept } => {
                self.left.site_crashes -= 1;
                self.crash_site(site, kept, seen);
            }
        }
        self.trusted |= seen.happened.contains(&Happened::Trusted);
        self.links.retain(|link| !link.is_over());
    }

    /// As many dials as it takes, when nothing breaks any more.
    pub fn mend(&mut self) {
        self.left.dials = u8::MAX;
    }

    fn dial(&mut self, site: usize, seen: &mut Seen) {
        self.left.dials -= 1;
        let id = self.dialled;
        self.dialled += 1;
        // What is still on the way of the oldest never arrives.
        if self.links.len() == LINKS_MAX {
            let oldest = self.links.remove(0);
            self.forget(&oldest);
        }
        if let Some(hello) = self.agent.dial(id, site, seen) {
            self.links.push(Link::new(id, site, hello));
        }
    }

    /// Nobody waits for anything on this connection any more.
    fn forget(&mut self, link: &Link) {
        if let Some(site) = self.sites.get_mut(link.site) {
            site.forget(link.id);
        }
    }

    fn end_at_agent(&mut self) {
        let Some(link) = self.agent.link.and_then(|id| self.link(id)) else {
            return;
        };
        link.end_at_agent();
        let (id, site) = (link.id, link.site);
        if let Some(site) = self.sites.get_mut(site) {
            site.forget(id);
        }
    }

    fn agent_loses(&mut self) {
        self.end_at_agent();
        self.agent.lose();
    }

    fn hear(&mut self, scope: &Scope, seen: &mut Seen) {
        let link = self.agent.link.and_then(|id| self.link(id));
        let Some(message) = link.and_then(|link| link.to_agent.pop_front()) else {
            return;
        };
        let Some(trimmed) = self.agent.hear(message, scope.sites > 1, seen) else {
            self.agent_loses();
            return;
        };
        for item in trimmed {
            for number in item.numbers() {
                let journals = self.sites.iter();
                let mut kept = journals.filter_map(|site| site.stored(item.life, number));
                // Data may stand where a gap was declared, and a gap where data came late.
                let well = |kept: &Entry| {
                    let excused = kept.item.foreign && self.trusted;
                    kept.item.gap || item.gap || kept.item == item || excused
                };
                seen.must(Rule::I1, kept.any(well));
            }
        }
    }

    fn greet(&mut self, id: u8, scope: &Scope, seen: &mut Seen) {
        let several = scope.sites > 1;
        let Self { links, sites, .. } = self;
        let Some(link) = links.iter_mut().find(|link| link.id == id) else {
            return;
        };
        let (Some(hello), Some(receiver)) = (link.hello.take(), link.at_site.as_mut()) else {
            return;
        };
        let Some(site) = sites.get_mut(link.site) else {
            return;
        };
        let Ok(hello) = receiver.on_message(Message::Hello(hello)) else {
            seen.must(Rule::I11, false);
            return;
        };
        let welcome = site.welcome(id, &hello, (scope.window, several), seen);
        seen.must(Rule::I11, receiver.on_opened(welcome.session).is_ok());
        let place = link.site;
        link.say(Message::Welcome(welcome));
        self.fence(id, place, seen);
    }

    /// What is still under way to sessions that `id` fenced can only be refused: that it is, is
    /// looked at here, and then it is left out.
    fn fence(&mut self, id: u8, place: usize, seen: &mut Seen) {
        let Self { links, sites, .. } = self;
        let Some(site) = sites.get(place) else { return };
        let fenced = |link: &&mut Link| link.site == place && link.id != id && !link.at_agent;
        for link in links.iter_mut().filter(fenced) {
            let session = link.at_site.as_ref().and_then(|it| it.session());
            let Some(session) = session else { continue };
            for sent in std::mem::take(&mut link.batches) {
                seen.note(Happened::Stale);
                seen.must(Rule::I11, site.refuses(session, sent.item));
            }
        }
    }

    fn arrive(&mut self, id: u8, sent: Sent, seen: &mut Seen) {
        let Self { links, sites, .. } = self;
        let Some(link) = links.iter_mut().find(|link| link.id == id) else {
            return;
        };
        let (Some(receiver), Some(site)) = (link.at_site.as_mut(), sites.get_mut(link.site)) else {
            return;
        };
        link.batches.remove(&sent);
        let Ok(session) = receiver.on_batch() else {
            seen.must(Rule::I11, false);
            return;
        };
        match site.offer((id, session), sent, link.at_agent, seen) {
            Step::Waits => {}
            Step::Held => {
                if link.at_agent {
                    receiver.on_durable(sent.item.key(), 0);
                }
                let place = link.site;
                seen.must(Rule::I6, holds(sites, place, &sent.item));
            }
            Step::End => {
                link.end_at_site();
                link.say(closing());
                site.forget(id);
            }
        }
    }

    fn append(&mut self, place: usize, taken: bool, seen: &mut Seen) {
        let Self { links, sites, .. } = self;
        let Some(site) = sites.get_mut(place) else {
            return;
        };
        for (id, item) in site.append(taken, seen) {
            seen.must(Rule::I6, !taken || holds(sites, place, &item));
            let link = links.iter_mut().find(|link| link.id == id);
            let Some(receiver) = link.and_then(|link| link.at_site.as_mut()) else {
                continue;
            };
            match taken {
                true => receiver.on_durable(item.key(), 0),
                false => receiver.on_again(item.key(), AgainReason::Busy, 0),
            }
        }
    }

    fn acknowledge(&mut self, id: u8, seen: &mut Seen) {
        let Self { links, sites, .. } = self;
        let Some(link) = links.iter_mut().find(|link| link.id == id) else {
            return;
        };
        let receiver = link.at_site.as_mut();
        let Some(ack) = receiver.and_then(|it| it.poll_ack(ACK_COALESCE_US)) else {
            return;
        };
        for range in &ack.ranges {
            let life = range.key.buffer.life();
            let mut numbers = range.first..range.end;
            seen.must(
                Rule::I6,
                numbers.all(|number| is_stored(sites, life, number)),
            );
        }
        link.say(Message::Ack(ack));
    }

    fn crash_site(&mut self, place: usize, kept: bool, seen: &mut Seen) {
        let Self { links, sites, .. } = self;
        let Some(site) = sites.get_mut(place) else {
            return;
        };
        site.crash(kept, seen);
        for link in links.iter_mut().filter(|link| link.site == place) {
            if link.at_site.is_some() {
                link.end_at_site();
                // What was said before is still heard.
                link.say(closing());
            }
        }
    }
}
