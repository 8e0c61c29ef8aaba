//! The rules in force at each place of the log, and which texts are needed for that.

use super::texts::Texts;
use crate::decode::{Rules, RulesHash};
use crate::seal::Origin;
use bytes::{Buf, BufMut};
use metrics::counter;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use tracing::error;
use tributary_planted::planted;

/// What the log has said about the rules so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InForce {
    /// Nothing: those that always hold, as before there were others.
    #[default]
    Unsaid,
    /// The rules with this hash.
    Named(RulesHash),
    /// It said something, and that is lost.
    Lost,
}

impl InForce {
    /// Appends its bytes, as in a checkpoint.
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Unsaid => out.put_u8(0),
            Self::Named(hash) => {
                out.put_u8(1);
                out.put_slice(&hash.0);
            }
            Self::Lost => out.put_u8(2),
        }
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        match input.try_get_u8().ok()? {
            0 => Some(Self::Unsaid),
            1 => {
                let (hash, rest) = input.split_first_chunk()?;
                *input = rest;
                Some(Self::Named(RulesHash(*hash)))
            }
            2 => Some(Self::Lost),
            _ => None,
        }
    }
}

/// The rules in force, and those before that may be needed again.
#[derive(Debug)]
pub struct Configurations {
    texts: Texts,
    /// What is configured now.
    present: Arc<Rules>,
    /// What held from which message on, oldest first; never empty.
    since: VecDeque<(Option<Origin>, InForce)>,
    /// The rules in force; `None`: lost.
    rules: Option<Arc<Rules>>,
}

impl Configurations {
    /// What a checkpoint says is in force, with what is configured now.
    pub fn new(texts: Texts, present: Arc<Rules>, in_force: InForce) -> Self {
        let mut configurations = Self {
            texts,
            present,
            since: VecDeque::from([(None, in_force)]),
            rules: None,
        };
        configurations.rules = configurations.find(in_force);
        configurations
    }

    /// The rules in force; `None` when nobody knows them.
    pub fn rules(&self) -> Option<&Rules> {
        self.rules.as_deref()
    }

    /// What the log has said.
    pub fn in_force(&self) -> InForce {
        self.since
            .back()
            .map_or(InForce::Lost, |(_, in_force)| *in_force)
    }

    /// Whether the rules that are named hold already; `None` names nothing that can be understood.
    pub fn is_in_force(&self, named: Option<RulesHash>) -> bool {
        named.is_some_and(|hash| self.in_force() == InForce::Named(hash))
    }

    /// From this message on, the rules that are named hold.
    pub fn begin(&mut self, origin: Origin, named: Option<RulesHash>) {
        let in_force = named.map_or(InForce::Lost, InForce::Named);
        self.since.push_back((Some(origin), in_force));
        self.rules = self.find(in_force);
    }

    /// From this message on nobody knows, unless no rules were ever configured.
    pub fn lose(&mut self, origin: Origin) {
        let never =
            self.in_force() == InForce::Unsaid && self.present.is_empty() && self.texts.is_empty();
        if !never {
            self.begin(origin, None);
        }
    }

    fn find(&self, in_force: InForce) -> Option<Arc<Rules>> {
        let found = match in_force {
            InForce::Named(_) if planted!(NewRulesOnReplay) => Ok(Arc::clone(&self.present)),
            InForce::Unsaid => Ok(Rules::builtin()),
            InForce::Named(hash) if hash == self.present.hash() => Ok(Arc::clone(&self.present)),
            InForce::Named(hash) => self.texts.load(hash).map_err(|error| error.to_string()),
            InForce::Lost => Err("the record that names them can't be read".to_owned()),
        };
        found
            .inspect_err(|error| {
                counter!("tributary_agent_configurations_lost_total").increment(1);
                error!(
                    error,
                    "decoding rules are lost: messages that came under them are kept as dead \
                     letters; put them back with `tributary-agent deadletter replay`"
                );
            })
            .ok()
    }

    /// How many of the log's configurations may be needed again.
    pub fn held(&self) -> usize {
        self.since.len()
    }

    /// What held before is not needed again here. Texts stay: who else needs them says so.
    pub fn forget_history(&mut self) {
        let before = self.since.len().saturating_sub(1);
        self.since.drain(..before);
    }

    /// Nothing before this message is replayed any more: removes the texts that only that needed.
    pub fn forget_before(&mut self, origin: Origin) {
        let superseded = |next: &(Option<Origin>, InForce)| next.0.is_some_and(|at| at < origin);
        while self.since.get(1).is_some_and(superseded) {
            self.since.pop_front();
        }
        let mut needed = BTreeSet::from([self.present.hash()]);
        for (_, in_force) in &self.since {
            if let InForce::Named(hash) = in_force {
                needed.insert(*hash);
            }
        }
        self.texts.keep_only(&needed);
    }
}
