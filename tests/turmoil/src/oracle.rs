//! What must hold, whatever broke: it is told what agents know and what journals have, and no more.
//!
//! A batch that was acknowledged stands in a journal, as it was sealed or as the gap that was
//! declared for it. In no journal does it stand twice. It may stand in several: all of them but one
//! say then that it is in doubt. Definitions are not acknowledged for good: they stand in each
//! journal that has data of their buffer, and an agent's newest stand in one at least once it has
//! nothing to send; an older buffer of which nothing else is left may leave none.

use crate::limits::{DRAIN, TRACE_MAX};
use std::collections::{BTreeMap, BTreeSet};
use tributary_protocol::ids::{AgentId, BatchHash, BatchKey, BufferId, Lane};

/// A batch in a journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copy {
    /// Of the batch, or of the gap that took its number.
    pub hash: BatchHash,
    /// Whether it is a gap.
    pub is_gap: bool,
    /// Whether the journal says that another may have it.
    pub in_doubt: bool,
}

/// What a journal holds: under each name everything that stands there.
pub type Stored = BTreeMap<(AgentId, BatchKey), Vec<Copy>>;

/// What an agent knows of its batches.
#[derive(Clone, Debug)]
pub struct Told {
    /// Who it is.
    pub agent: AgentId,
    /// All that it ever sealed.
    pub sealed: BTreeMap<BatchKey, BatchHash>,
    /// What was acknowledged of it, and may be gone from here.
    pub acked: BTreeSet<BatchKey>,
    /// What its spool gave up, and the hash of the gap for it.
    pub given_up: BTreeMap<BatchKey, BatchHash>,
    /// Whether it was told that an aggregator lost something that it had acknowledged.
    pub of_loss: bool,
    /// The buffer of its newest life.
    pub newest: BufferId,
}

/// What there was of it all in the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Batches that were sealed.
    pub sealed: u64,
    /// Those that an aggregator other than the agent's own holds.
    pub elsewhere: u64,
    /// Those that a journal says are in doubt.
    pub in_doubt: u64,
    /// Those that two journals or more hold.
    pub twice: u64,
    /// Those that a gap stands for.
    pub gaps: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.sealed += more.sealed;
        self.elsewhere += more.elsewhere;
        self.in_doubt += more.in_doubt;
        self.twice += more.twice;
        self.gaps += more.gaps;
    }
}

/// What did not hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    /// The agent has forgotten it, or may.
    #[error("{0} {1} was acknowledged, and no journal has it as it was sealed or given up")]
    Lost(AgentId, BatchKey),
    /// Everything is drained, and it is nowhere.
    #[error("{0} {1} is in no journal, and was sealed")]
    Nowhere(AgentId, BatchKey),
    /// One journal has it more than once.
    #[error("{0} {1} stands in the journal of site {2} more than once")]
    Doubled(AgentId, BatchKey, usize),
    /// Two journals have it, and nobody will know.
    #[error("{0} {1} stands in several journals, and {2} of them do not say that it is in doubt")]
    Unmarked(AgentId, BatchKey, usize),
    /// It came from nowhere.
    #[error("{0} {1} stands in the journal of site {2}, and was not sealed or given up")]
    Foreign(AgentId, BatchKey, usize),
    /// Data can't be understood without them.
    #[error("the journal of site {2} has data of {0} {1}, and no definitions")]
    Undefined(AgentId, BufferId, usize),
    /// What was durable there is not any more.
    #[error("{0} {1} stood in the journal of site {2}, and does not any more, or as another")]
    WentBack(AgentId, BatchKey, usize),
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
    #[error("the journal of site {0}: {1}")]
    Journal(usize, String),
    /// A process ended by itself, or the run could not begin.
    #[error("the run: {0}")]
    Run(String),
}

/// What stands under one name, and where.
fn copies<'a>(
    stored: &'a [Stored],
    name: &(AgentId, BatchKey),
) -> impl Iterator<Item = (usize, &'a Copy)> {
    let of = stored.iter().map(|journal| journal.get(name));
    let of = of.enumerate();
    of.flat_map(|(site, copies)| copies.into_iter().flatten().map(move |copy| (site, copy)))
}

impl Told {
    /// Whether this is what was sealed, or given up, under that name.
    fn knows(&self, key: &BatchKey, copy: &Copy) -> bool {
        match copy.is_gap {
            true => self.given_up.get(key) == Some(&copy.hash),
            false => self.sealed.get(key) == Some(&copy.hash),
        }
    }
}

/// Whether everything that was acknowledged is stored, as it was sealed or given up: at any time.
///
/// # Errors
/// The first that is not.
pub fn keeps(told: &[Told], stored: &[Stored]) -> Result<(), Broken> {
    for agent in told {
        for key in agent.acked.iter().filter(|key| key.lane != Lane::Series) {
            let name = (agent.agent.clone(), *key);
            if !copies(stored, &name).any(|(_, copy)| agent.knows(key, copy)) {
                return Err(Broken::Lost(name.0, name.1));
            }
        }
    }
    Ok(())
}

/// Whether a journal has everything that it had before.
///
/// # Errors
/// The first that it has not.
pub fn goes_on(site: usize, before: &Stored, now: &Stored) -> Result<(), Broken> {
    let gone =
        |(name, copies): &(&(AgentId, BatchKey), &Vec<Copy>)| now.get(*name) != Some(*copies);
    match before.iter().find(gone) {
        Some(((agent, key), _)) => Err(Broken::WentBack(agent.clone(), *key, site)),
        None => Ok(()),
    }
}

/// Whether all holds that must once everything is drained. `homes`: each agent's own aggregator.
///
/// # Errors
/// The first that does not.
pub fn judge(told: &[Told], stored: &[Stored], homes: &[usize]) -> Result<Counts, Broken> {
    keeps(told, stored)?;
    let mut counts = Counts::default();
    for (agent, home) in told.iter().zip(homes) {
        for key in agent.sealed.keys() {
            count(&mut counts, agent, stored, *key, *home)?;
        }
        if agent.of_loss {
            return Err(Broken::ToldOfLoss(agent.agent.clone()));
        }
    }
    for (site, journal) in stored.iter().enumerate() {
        is_whole(told, site, journal)?;
    }
    Ok(counts)
}

/// Looks at all that stands under one name.
fn count(
    counts: &mut Counts,
    agent: &Told,
    stored: &[Stored],
    key: BatchKey,
    home: usize,
) -> Result<(), Broken> {
    let name = (agent.agent.clone(), key);
    let all: Vec<_> = copies(stored, &name).collect();
    let sites: BTreeSet<usize> = all.iter().map(|(site, _)| *site).collect();
    if let Some(site) = sites
        .iter()
        .find(|site| all.iter().filter(|it| it.0 == **site).count() > 1)
    {
        return Err(Broken::Doubled(name.0, key, *site));
    }
    counts.sealed += 1;
    if key.lane == Lane::Series {
        let needed = key.buffer == agent.newest;
        return match all.is_empty() && needed {
            true => Err(Broken::Nowhere(name.0, key)),
            false => Ok(()),
        };
    }
    if all.is_empty() {
        return Err(Broken::Nowhere(name.0, key));
    }
    let unmarked = all.iter().filter(|(_, copy)| !copy.in_doubt).count();
    if unmarked > 1 {
        return Err(Broken::Unmarked(name.0, key, unmarked));
    }
    counts.twice += u64::from(all.len() > 1);
    counts.in_doubt += u64::from(unmarked < all.len());
    counts.gaps += u64::from(all.iter().any(|(_, copy)| copy.is_gap));
    counts.elsewhere += u64::from(all.iter().any(|(site, _)| *site != home));
    Ok(())
}

/// Looks at all of one journal.
fn is_whole(told: &[Told], site: usize, journal: &Stored) -> Result<(), Broken> {
    let defined: BTreeSet<(&AgentId, BufferId)> = journal
        .keys()
        .filter(|(_, key)| key.lane == Lane::Series)
        .map(|(agent, key)| (agent, key.buffer))
        .collect();
    for ((agent, key), copies) in journal {
        let of_it = told.iter().find(|told| told.agent == *agent);
        let known = |copy: &Copy| of_it.is_some_and(|told| told.knows(key, copy));
        if !copies.iter().all(known) {
            return Err(Broken::Foreign(agent.clone(), *key, site));
        }
        let data = key.lane != Lane::Series && copies.iter().any(|copy| !copy.is_gap);
        if data && !defined.contains(&(agent, key.buffer)) {
            return Err(Broken::Undefined(agent.clone(), key.buffer, site));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use tributary_protocol::ids::AgentUuid;

    /// What breaks what is whole.
    type Breaks = fn(&mut Told, &mut [Stored; 2]);

    fn key(number: u64) -> BatchKey {
        BatchKey {
            buffer: BufferId::new(1, 7),
            lane: Lane::Telemetry,
            number,
        }
    }

    fn series() -> BatchKey {
        BatchKey {
            lane: Lane::Series,
            ..key(0)
        }
    }

    fn agent() -> AgentId {
        AgentId::new("t", AgentUuid([1; 16])).unwrap()
    }

    fn name(number: u64) -> (AgentId, BatchKey) {
        (agent(), key(number))
    }

    fn copy(of: u8) -> Copy {
        Copy {
            hash: BatchHash([of; 32]),
            is_gap: false,
            in_doubt: false,
        }
    }

    /// An agent with definitions, a batch that its own aggregator has, one that it has as well and
    /// another in doubt, and one that was given up and is acknowledged there.
    fn whole() -> (Told, [Stored; 2]) {
        let sealed = [(series(), 9), (key(0), 0), (key(1), 1), (key(2), 2)];
        let told = Told {
            agent: agent(),
            sealed: sealed.map(|(key, of)| (key, BatchHash([of; 32]))).into(),
            acked: [key(0), key(2)].into(),
            given_up: [(key(2), BatchHash([7; 32]))].into(),
            of_loss: false,
            newest: key(0).buffer,
        };
        let defined = ((agent(), series()), vec![copy(9)]);
        let in_doubt = Copy {
            in_doubt: true,
            ..copy(1)
        };
        let gap = Copy {
            is_gap: true,
            ..copy(7)
        };
        let of = [
            (name(0), vec![copy(0)]),
            (name(1), vec![copy(1)]),
            defined.clone(),
        ];
        let other = [(name(1), vec![in_doubt]), (name(2), vec![gap]), defined];
        (told, [of.into(), other.into()])
    }

    fn said(breaks: Breaks) -> (Result<(), Broken>, Result<Counts, Broken>) {
        let (mut told, mut stored) = whole();
        breaks(&mut told, &mut stored);
        let told = [told];
        (keeps(&told, &stored), judge(&told, &stored, &[0]))
    }

    #[test]
    fn what_is_whole_holds_and_is_counted() {
        let counts = Counts {
            sealed: 4,
            elsewhere: 2,
            in_doubt: 1,
            twice: 1,
            gaps: 1,
        };
        assert_eq!(said(|_, _| {}), (Ok(()), Ok(counts)));
    }

    #[test]
    fn what_was_acknowledged_and_is_gone_is_noticed_at_any_time() {
        let lost = |number| Broken::Lost(agent(), key(number));
        let both = |number| (Err(lost(number)), Err(lost(number)));
        assert_eq!(said(|_, stored| drop(stored[0].remove(&name(0)))), both(0));
        // As something else, or acknowledged though it was never sealed, or as a gap of nothing.
        let other: Breaks = |_, stored| stored[0].get_mut(&name(0)).unwrap()[0] = copy(5);
        assert_eq!(said(other), both(0));
        assert_eq!(
            said(|told, _| {
                told.acked.insert(key(5));
            }),
            both(5)
        );
        assert_eq!(said(|told, _| told.given_up.clear()), both(2));
        let gap: Breaks = |_, stored| stored[0].get_mut(&name(0)).unwrap()[0].is_gap = true;
        assert_eq!(said(gap), both(0));
    }

    #[test]
    fn what_is_nowhere_or_there_twice_is_noticed_in_the_end() {
        let ends = |breaks: Breaks, what: Broken| assert_eq!(said(breaks), (Ok(()), Err(what)));
        ends(
            |_, stored| stored.iter_mut().for_each(|it| drop(it.remove(&name(1)))),
            Broken::Nowhere(agent(), key(1)),
        );
        ends(
            |_, stored| stored[0].get_mut(&name(1)).unwrap().push(copy(1)),
            Broken::Doubled(agent(), key(1), 0),
        );
        // Data beside the gap for it, in one journal.
        ends(
            |_, stored| stored[1].get_mut(&name(2)).unwrap().push(copy(2)),
            Broken::Doubled(agent(), key(2), 1),
        );
        ends(
            |_, stored| stored[1].get_mut(&name(1)).unwrap()[0].in_doubt = false,
            Broken::Unmarked(agent(), key(1), 2),
        );
    }

    #[test]
    fn definitions_are_where_data_needs_them_and_the_newest_somewhere() {
        let undefined = Broken::Undefined(agent(), key(0).buffer, 0);
        let gone: Breaks = |_, stored| drop(stored[0].remove(&(agent(), series())));
        assert_eq!(said(gone), (Ok(()), Err(undefined)));
        let unsent: Breaks = |told, _| {
            let buffer = BufferId::new(2, 7);
            let series = BatchKey { buffer, ..series() };
            told.sealed.insert(series, BatchHash([3; 32]));
        };
        assert!(said(unsent).1.is_ok(), "nothing else of an older buffer");
        let newest: Breaks = |told, _| {
            let buffer = BufferId::new(2, 7);
            let series = BatchKey { buffer, ..series() };
            told.sealed.insert(series, BatchHash([3; 32]));
            told.newest = buffer;
        };
        let buffer = BufferId::new(2, 7);
        let nowhere = Broken::Nowhere(agent(), BatchKey { buffer, ..series() });
        assert_eq!(said(newest), (Ok(()), Err(nowhere)));
    }

    #[test]
    fn what_nobody_sealed_and_what_an_agent_hears_of_loss_is_noticed() {
        let ends = |breaks: Breaks, what: Broken| assert_eq!(said(breaks), (Ok(()), Err(what)));
        ends(|told, _| told.of_loss = true, Broken::ToldOfLoss(agent()));
        ends(
            |_, stored| drop(stored[1].insert(name(5), vec![copy(5)])),
            Broken::Foreign(agent(), key(5), 1),
        );
        ends(
            |_, stored| stored[1].get_mut(&name(1)).unwrap()[0].hash = BatchHash([5; 32]),
            Broken::Foreign(agent(), key(1), 1),
        );
        let (_, mut stored) = whole();
        let other = AgentId::new("t", AgentUuid([2; 16])).unwrap();
        stored[0].insert((other.clone(), key(0)), vec![copy(0)]);
        let foreign = Broken::Foreign(other, key(0), 0);
        assert_eq!(judge(&[whole().0], &stored, &[0]), Err(foreign));
    }

    #[test]
    fn a_journal_that_goes_back_is_noticed() {
        let (_, [before, _]) = whole();
        let mut now = before.clone();
        now.insert(name(3), vec![copy(3)]);
        assert_eq!(goes_on(2, &before, &now), Ok(()));
        let back = |number| Err(Broken::WentBack(agent(), key(number), 2));
        assert_eq!(goes_on(2, &now, &before), back(3));
        now.insert(name(1), vec![copy(8)]);
        assert_eq!(goes_on(2, &before, &now), back(1));
    }
}
