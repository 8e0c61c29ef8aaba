//! What a session at a broker is subscribed to, and what has to be asked for so that it is what
//! the configuration says. Pure; what it knows survives a restart by [`Known`].

use super::link::{Granted, Welcome};
use super::{Version, filters};
use crate::limits::BROKER_ANSWER_TIMEOUT;
use std::time::Instant;

/// What is kept of a session: without it, a filter taken out of the configuration would stay
/// subscribed, and a new one would never be asked for on MQTT 3.1.1.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Known {
    /// The broker has had a session of ours.
    pub session: bool,
    /// What it is subscribed to.
    pub filters: Vec<String>,
}

/// One thing to ask a broker for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    Subscribe(Vec<String>),
    Unsubscribe(String),
}

/// The subscriptions of one session.
#[derive(Clone, Debug)]
pub(super) struct Subscriptions {
    wanted: Vec<String>,
    session_expiry_s: u32,
    known: Known,
    to_subscribe: Vec<String>,
    to_unsubscribe: Vec<String>,
    /// What was asked for and not yet answered, and when.
    asked: Option<(Vec<String>, Instant)>,
}

impl Subscriptions {
    pub(super) fn new(wanted: Vec<String>, session_expiry_s: u32, known: Known) -> Self {
        Self {
            wanted,
            session_expiry_s,
            known,
            to_subscribe: Vec::new(),
            to_unsubscribe: Vec::new(),
            asked: None,
        }
    }

    /// A connection begins. Whether the broker had a session of ours before.
    pub(super) fn welcome(&mut self, welcome: &Welcome, version: Version) -> bool {
        let had = std::mem::replace(&mut self.known.session, true);
        if !welcome.session_present {
            self.known.filters.clear();
        }
        let wanted = self.wanted.iter();
        self.to_subscribe = match version {
            // Retain handling 1: retained messages come only with a subscription that is new.
            Version::V5 => wanted.cloned().collect(),
            // Each SUBSCRIBE brings them: none for what the session has.
            Version::V4 => wanted
                .filter(|filter| !self.known.filters.contains(filter))
                .cloned()
                .collect(),
        };
        let gone = self.known.filters.iter();
        self.to_unsubscribe = gone
            .filter(|filter| !self.wanted.contains(filter))
            .cloned()
            .collect();
        self.asked = None;
        had
    }

    /// What the broker cannot do, or does not, of what is needed; for people.
    pub(super) fn needs_not_met(&self, welcome: &Welcome) -> Vec<String> {
        let mut wants = Vec::new();
        if welcome.qos_max == Some(0) {
            wants.push(
                "the broker gives QoS 0 only: what it sends is lost when the agent or the link \
                 fails"
                    .to_owned(),
            );
        }
        if let Some(seconds) = welcome.session_expiry_s
            && seconds < self.session_expiry_s
        {
            wants.push(format!(
                "the broker keeps the session for {seconds} s instead of {}: what is published \
                 during a longer absence is lost",
                self.session_expiry_s
            ));
        }
        let any = |test: fn(&str) -> bool| self.wanted.iter().any(|filter| test(filter));
        if welcome.no_wildcards && any(filters::is_wild) {
            wants.push("the broker has no wildcards: name the topics one by one".to_owned());
        }
        if welcome.no_shared && any(filters::is_shared) {
            wants.push("the broker has no shared subscriptions: leave `$share` out".to_owned());
        }
        wants
    }

    /// What to ask for next.
    pub(super) fn due(&self) -> Option<Ask> {
        if let Some(filter) = self.to_unsubscribe.first() {
            return Some(Ask::Unsubscribe(filter.clone()));
        }
        let some = !self.to_subscribe.is_empty() && self.asked.is_none();
        some.then(|| Ask::Subscribe(self.to_subscribe.clone()))
    }

    /// It was asked for.
    pub(super) fn asked(&mut self, ask: &Ask, now: Instant) {
        match ask {
            Ask::Unsubscribe(filter) => {
                self.to_unsubscribe.retain(|gone| gone != filter);
                self.known.filters.retain(|gone| gone != filter);
            }
            Ask::Subscribe(filters) => {
                self.to_subscribe.clear();
                self.asked = Some((filters.clone(), now));
            }
        }
    }

    /// SUBSCRIBE was answered: whether what is known changed, and what is wrong, for people.
    pub(super) fn granted(&mut self, granted: &[Granted]) -> (bool, Vec<String>) {
        let Some((filters, _)) = self.asked.take() else {
            return (false, Vec::new());
        };
        let before = self.known.clone();
        let mut problems = Vec::new();
        if filters.len() != granted.len() {
            problems.push(format!(
                "the broker answered {} of {} filters",
                granted.len(),
                filters.len()
            ));
        }
        for (filter, granted) in filters.into_iter().zip(granted) {
            match granted {
                Granted::Refused(why) => {
                    problems.push(format!("the broker refuses the topics \"{filter}\": {why}"));
                    continue;
                }
                Granted::Qos(0) => problems.push(format!(
                    "the broker gives \"{filter}\" with QoS 0 only: what it sends is lost when \
                     the agent or the link fails"
                )),
                Granted::Qos(_) => {}
            }
            if !self.known.filters.contains(&filter) {
                self.known.filters.push(filter);
            }
        }
        (self.known != before, problems)
    }

    /// When SUBSCRIBE was sent that is not yet answered.
    pub(super) fn asked_at(&self) -> Option<Instant> {
        self.asked.as_ref().map(|(_, at)| *at)
    }

    /// Whether the answer to SUBSCRIBE is overdue.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.asked_at()
            .is_some_and(|at| now >= at + BROKER_ANSWER_TIMEOUT)
    }

    /// The connection is over: what was asked for is asked for again on the next one.
    pub(super) fn disconnected(&mut self) {
        self.asked = None;
        self.to_subscribe.clear();
        self.to_unsubscribe.clear();
    }

    /// What is known of the session.
    pub(super) fn known(&self) -> &Known {
        &self.known
    }
}
