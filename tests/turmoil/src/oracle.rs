//! What must hold, whatever broke: it is told what agents know and what a journal has, and no more.

use crate::limits::{DRAIN, TRACE_MAX};
use std::collections::BTreeMap;
use tributary_protocol::ids::{AgentId, BatchHash, BatchKey};

/// What a journal holds: under each name every batch that stands there.
pub type Stored = BTreeMap<(AgentId, BatchKey), Vec<BatchHash>>;

/// What an agent knows of its batches.
#[derive(Clone, Debug)]
pub struct Told {
    /// Who it is.
    pub agent: AgentId,
    /// All that it ever sealed.
    pub sealed: BTreeMap<BatchKey, BatchHash>,
    /// What was acknowledged of it, each time.
    pub acked: Vec<BatchKey>,
    /// Whether it was told that an aggregator lost something that was gone from here.
    pub of_loss: bool,
}

/// What did not hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    /// The agent has forgotten it, or may.
    #[error("{0} {1} was acknowledged, and is not stored as it was sealed")]
    Lost(AgentId, BatchKey),
    /// Everything is drained, and it is there so often as it was sealed.
    #[error("{0} {1} is stored {2} times, and was sealed once")]
    NotOnce(AgentId, BatchKey, usize),
    /// It came from nowhere.
    #[error("{0} {1} is stored, and was not sealed")]
    Foreign(AgentId, BatchKey),
    /// No journal of these runs goes back.
    #[error("{0} was told that something was lost")]
    ToldOfLoss(AgentId),
    /// Something waits for ever.
    #[error("not drained {DRAIN:?} after all was mended")]
    NotDrained,
    /// Somebody sends without end.
    #[error("more than {TRACE_MAX} datagrams were sent")]
    Storm,
    /// It can't be opened, or says that there is something in it that should not be.
    #[error("the journal: {0}")]
    Journal(String),
    /// A process ended by itself, or the run could not begin.
    #[error("the run: {0}")]
    Run(String),
}

/// Whether everything that was acknowledged is stored, as it was sealed: at any time.
///
/// # Errors
/// The first that is not.
pub fn keeps(told: &[Told], stored: &Stored) -> Result<(), Broken> {
    for agent in told {
        for key in &agent.acked {
            let there = stored.get(&(agent.agent.clone(), *key));
            let first = there.and_then(|hashes| hashes.first());
            if first.is_none() || first != agent.sealed.get(key) {
                return Err(Broken::Lost(agent.agent.clone(), *key));
            }
        }
    }
    Ok(())
}

/// Whether all holds that must once everything is drained; how many batches there are.
///
/// # Errors
/// The first that does not.
pub fn judge(told: &[Told], stored: &Stored) -> Result<u64, Broken> {
    keeps(told, stored)?;
    for agent in told {
        for (key, hash) in &agent.sealed {
            let there = stored.get(&(agent.agent.clone(), *key));
            let there = there.map_or(&[][..], Vec::as_slice);
            if there != [*hash] {
                let right = there.iter().filter(|stored| *stored == hash).count();
                let times = if right == 1 { there.len() } else { right };
                return Err(Broken::NotOnce(agent.agent.clone(), *key, times));
            }
        }
        if agent.of_loss {
            return Err(Broken::ToldOfLoss(agent.agent.clone()));
        }
    }
    for (agent, key) in stored.keys() {
        let mut of_it = told.iter().filter(|told| told.agent == *agent);
        if !of_it.any(|told| told.sealed.contains_key(key)) {
            return Err(Broken::Foreign(agent.clone(), *key));
        }
    }
    Ok(told.iter().map(|agent| agent.sealed.len() as u64).sum())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use tributary_protocol::ids::{AgentUuid, BufferId, Lane};

    fn key(number: u64) -> BatchKey {
        BatchKey {
            buffer: BufferId::new(1, 7),
            lane: Lane::Telemetry,
            number,
        }
    }

    fn hash(of: u8) -> BatchHash {
        BatchHash([of; 32])
    }

    /// An agent with two batches, both stored, one of them acknowledged.
    fn whole() -> (Told, Stored) {
        let agent = AgentId::new("t", AgentUuid([1; 16])).unwrap();
        let sealed: BTreeMap<_, _> = [(key(0), hash(0)), (key(1), hash(1))].into();
        let of = |(key, hash): (&BatchKey, &BatchHash)| ((agent.clone(), *key), vec![*hash]);
        let stored = sealed.iter().map(of).collect();
        let told = Told {
            agent,
            sealed,
            acked: vec![key(0)],
            of_loss: false,
        };
        (told, stored)
    }

    /// Breaks what is whole; what the oracle says of it, at any time and at the end.
    fn said(
        breaks: impl FnOnce(&mut Told, &mut Stored),
    ) -> (Result<(), Broken>, Result<u64, Broken>) {
        let (mut told, mut stored) = whole();
        breaks(&mut told, &mut stored);
        let told = [told];
        (keeps(&told, &stored), judge(&told, &stored))
    }

    #[test]
    fn what_is_whole_holds() {
        assert_eq!(said(|_, _| {}), (Ok(()), Ok(2)));
    }

    #[test]
    fn what_was_acknowledged_and_is_gone_is_noticed_at_any_time() {
        let agent = whole().0.agent;
        let lost = Broken::Lost(agent.clone(), key(0));
        let both = (Err(lost.clone()), Err(lost));
        let name = (agent, key(0));
        assert_eq!(said(|_, stored| drop(stored.remove(&name))), both);
        // As something else, or acknowledged though it was never sealed.
        assert_eq!(
            said(|_, stored| stored.get_mut(&name).unwrap()[0] = hash(9)),
            both
        );
        let unsealed = |told: &mut Told, stored: &mut Stored| {
            told.sealed.remove(&key(0));
            stored.remove(&name);
        };
        assert_eq!(said(unsealed), both);
    }

    #[test]
    fn what_is_stored_twice_or_not_at_all_or_as_another_is_noticed_in_the_end() {
        let agent = whole().0.agent;
        let name = (agent.clone(), key(1));
        let times = |times| (Ok(()), Err(Broken::NotOnce(agent.clone(), key(1), times)));
        assert_eq!(
            said(|_, stored| stored.get_mut(&name).unwrap().push(hash(1))),
            times(2)
        );
        assert_eq!(
            said(|_, stored| stored.get_mut(&name).unwrap().push(hash(9))),
            times(2)
        );
        assert_eq!(said(|_, stored| drop(stored.remove(&name))), times(0));
        assert_eq!(
            said(|_, stored| stored.get_mut(&name).unwrap()[0] = hash(9)),
            times(0)
        );
    }

    #[test]
    fn what_nobody_sealed_and_what_an_agent_hears_of_loss_is_noticed() {
        let (told, stored) = whole();
        let loss = (Ok(()), Err(Broken::ToldOfLoss(told.agent.clone())));
        assert_eq!(said(|told, _| told.of_loss = true), loss);
        let foreign = |agent: &AgentId, number| Err(Broken::Foreign(agent.clone(), key(number)));
        let more = |name: (AgentId, BatchKey)| {
            move |_: &mut Told, stored: &mut Stored| {
                stored.insert(name, vec![hash(5)]);
            }
        };
        assert_eq!(
            said(more((told.agent.clone(), key(5)))).1,
            foreign(&told.agent, 5)
        );
        let other = AgentId::new("t", AgentUuid([2; 16])).unwrap();
        assert_eq!(said(more((other.clone(), key(0)))).1, foreign(&other, 0));
        assert_eq!(stored.len(), 2);
    }
}
