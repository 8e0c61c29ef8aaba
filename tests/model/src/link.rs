//! A connection, shaped like QUIC: control messages in their order, batches in any. Nothing is lost
//! or doubled inside of one; its two ends end apart from each other.

use crate::item::Item;
use std::collections::{BTreeSet, VecDeque};
use tributary_protocol::message::{Hello, Message};
use tributary_protocol::session::Receiver;

/// A batch on its way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Sent {
    /// Which.
    pub item: Item,
    /// Whether it is marked as in doubt.
    pub marked: bool,
}

/// A connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Link {
    /// Its number.
    pub id: u8,
    /// The aggregator at its other end.
    pub site: usize,
    /// Whether the agent still has it.
    pub at_agent: bool,
    /// The aggregator's end, while it has it.
    pub at_site: Option<Receiver>,
    /// The agent's greeting, until it arrives.
    pub hello: Option<Hello>,
    /// Batches on their way.
    pub batches: BTreeSet<Sent>,
    /// Messages on their way to the agent.
    pub to_agent: VecDeque<Message>,
}

impl Link {
    /// A new connection on which `hello` is said first.
    pub fn new(id: u8, site: usize, hello: Hello) -> Self {
        Self {
            id,
            site,
            at_agent: true,
            at_site: Some(Receiver::new()),
            hello: Some(hello),
            batches: BTreeSet::new(),
            to_agent: VecDeque::new(),
        }
    }

    /// Says something to the agent, if it still listens.
    pub fn say(&mut self, message: Message) {
        if self.at_agent {
            self.to_agent.push_back(message);
        }
    }

    /// The agent has it no more; what it sent may still arrive.
    pub fn end_at_agent(&mut self) {
        self.at_agent = false;
        self.to_agent.clear();
        if let Some(receiver) = &mut self.at_site {
            // Nobody hears what would be acknowledged.
            let _ = receiver.poll_ack(i64::MAX);
        }
    }

    /// The aggregator has it no more; what was on its way to it is gone.
    pub fn end_at_site(&mut self) {
        self.at_site = None;
        self.hello = None;
        self.batches.clear();
    }

    /// Whether nothing can come of it any more.
    pub fn is_over(&self) -> bool {
        !self.at_agent && self.hello.is_none() && self.batches.is_empty()
    }
}
