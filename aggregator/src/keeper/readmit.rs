//! Batches that come out of quarantine: taken in under [a name of their own](super::reseal), made
//! durable, and only then out of the folder. Whatever stops in between, doing it again makes
//! nothing new: what is held already under that name is not offered again.

use super::reseal::{Stays, is_from_quarantine, reseal};
use super::{Keeper, Offer, Outcome};
use crate::clock::Now;
use crate::lake::load::Names;
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap};
use std::io;
use tokio::sync::oneshot;
use tributary_protocol::batch::{Content, Decoder, Kind, SealedBatch};
use tributary_protocol::ids::{AgentId, AgentUuid, BatchKey, BufferId, SeriesId, Session};
use tributary_protocol::limits::BATCH_BYTES_MAX;
use tributary_protocol::series::SeriesDef;

/// A batch that came out of quarantine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Readmitted {
    /// Whose it is.
    pub agent: AgentId,
    /// Its name as it came.
    pub was: BatchKey,
    /// The buffer that it stands in now, in the same lane.
    pub buffer: BufferId,
    /// Its readings.
    pub rows: u32,
    /// Its journal entries that are new; none where somebody had got that far before.
    pub new: usize,
}

/// Definitions of one buffer that are in quarantine: number of the first, and what follows.
type Definitions = Vec<(u32, Vec<SeriesDef>)>;

/// What definitions in quarantine call series: of machines that say that they are one.
#[derive(Debug, Default)]
pub struct Disputed(HashMap<(AgentUuid, BufferId), Definitions>);

impl Disputed {
    /// Takes in a batch of the quarantine.
    fn add(&mut self, uuid: AgentUuid, batch: &SealedBatch) {
        if batch.kind() != Kind::Series {
            return;
        }
        if let Ok(Content::Series { base, defs }) = batch.decode(&mut Decoder::new()) {
            let of = self.0.entry((uuid, batch.key().buffer)).or_default();
            of.push((base, defs));
        }
    }

    /// Whether they call it something else.
    fn disputes(&self, of: (AgentUuid, BufferId), series: SeriesId, held: &SeriesDef) -> bool {
        let said = self.0.get(&of).into_iter().flatten();
        let mut said = said.filter_map(|(base, defs)| {
            let place = series.0.checked_sub(*base)?;
            defs.get(place as usize)
        });
        said.any(|def| def != held)
    }
}

fn uuid_of(name: &str) -> Option<AgentUuid> {
    name.split('-').next()?.parse().ok()
}

impl Keeper {
    /// The names of what is in quarantine, sorted.
    pub fn quarantined(&self) -> Vec<String> {
        self.quarantine.names().cloned().collect()
    }

    /// What all definitions in quarantine say.
    ///
    /// # Errors
    /// When one of its files can't be read.
    pub fn disputed(&self) -> io::Result<Disputed> {
        let mut disputed = Disputed::default();
        for name in self.quarantine.names() {
            let bytes = self.quarantine.read(name, BATCH_BYTES_MAX)?;
            if let (Some(uuid), Ok(batch)) = (uuid_of(name), SealedBatch::open(bytes)) {
                disputed.add(uuid, &batch);
            }
        }
        Ok(disputed)
    }

    /// Takes in the batch of this file. It is out of the folder only once its readings are durable
    /// in the journal. While nobody else asks anything of this keeper.
    ///
    /// # Errors
    /// When the file can't be read or removed. That it stays, and why, is no error.
    pub fn readmit(
        &mut self,
        name: &str,
        disputed: &Disputed,
        now: Now,
    ) -> io::Result<Result<Readmitted, Stays>> {
        let bytes = self.quarantine.read(name, BATCH_BYTES_MAX)?;
        let readmitted = self.take(name, bytes, disputed, now);
        if readmitted.is_ok() {
            self.quarantine.remove(name)?;
        }
        Ok(readmitted)
    }

    fn take(
        &mut self,
        name: &str,
        bytes: Bytes,
        disputed: &Disputed,
        now: Now,
    ) -> Result<Readmitted, Stays> {
        let batch = SealedBatch::open(bytes);
        let batch = batch.map_err(|error| Stays::Damaged(error.to_string()))?;
        let agent = self.agent_of(name).ok_or(Stays::Agent)?;
        if batch.kind() != Kind::Readings {
            return Err(Stays::NoReadings);
        }
        let (was, books) = (batch.key(), self.judge.books.clone());
        let named = |series: SeriesId| {
            let found = books.name(&agent, was.buffer, series);
            let found = found.ok_or(Stays::Unnamed(series))?;
            let def = SeriesDef {
                device: found.device,
                metric: found.metric,
                unit: (!found.unit.is_empty()).then_some(found.unit),
                value_type: found.value_type,
            };
            match disputed.disputes((agent.uuid(), was.buffer), series, &def) {
                true => Err(Stays::Disputed(series)),
                false => Ok(def),
            }
        };
        let (rows, resealed) = (batch.rows(), reseal(&batch, &named)?);
        match self.judge.ledger.held_as(&agent, was) {
            None => return Err(Stays::Absent),
            Some(Some(short)) if short == batch.hash().short() => return Err(Stays::Held),
            // Another, or one of which the hash is not known any more.
            Some(_) => {}
        }
        let (session, mut new) = (self.own_session(&agent), 0);
        let buffer = super::reseal::buffer_of(batch.hash());
        for (batch, content) in resealed {
            if self.judge.ledger.held_as(&agent, batch.key()).is_some() {
                continue;
            }
            let offer = Offer {
                session,
                agent: agent.clone(),
                batch,
                content,
                in_doubt: false,
                permit: None,
            };
            self.take_now(offer, now)?;
            new += 1;
        }
        tracing::info!(%agent, batch = %was, %buffer, rows, new, "a batch is out of quarantine");
        Ok(Readmitted {
            agent,
            was,
            buffer,
            rows,
            new,
        })
    }

    fn take_now(&mut self, offer: Offer, now: Now) -> Result<(), Stays> {
        let (reply, mut answer) = oneshot::channel();
        self.offer(offer, reply, now);
        self.append(now);
        match answer.try_recv() {
            Ok(Outcome::Durable) => Ok(()),
            Ok(Outcome::Again(reason)) => Err(Stays::NotTaken(format!("{reason:?}"))),
            Ok(Outcome::Reject(reject)) => Err(Stays::NotTaken(reject.detail)),
            Err(_) => {
                // It waits in vain: nothing of it counts.
                self.end_hold();
                Err(Stays::Journal(self.status.trouble().unwrap_or_default()))
            }
        }
    }

    /// The agent with the UUID in a file's name; a tenant is not in it.
    fn agent_of(&self, name: &str) -> Option<AgentId> {
        let uuid = uuid_of(name)?;
        let mut agents = self.judge.ledger.agents().filter(|a| a.uuid() == uuid);
        let agent = agents.next()?.clone();
        agents.next().is_none().then_some(agent)
    }

    /// A session in which the agent keeps all buffers but those that came out of quarantine: they
    /// are drained, and take no place.
    fn own_session(&mut self, agent: &AgentId) -> Session {
        let lanes = self.judge.ledger.lanes(agent).into_iter();
        let buffers: BTreeSet<BufferId> = lanes
            .map(|lane| lane.key.buffer)
            .filter(|buffer| !is_from_quarantine(*buffer))
            .collect();
        let buffers: Vec<BufferId> = buffers.into_iter().collect();
        self.judge.ledger.open_session(agent, &buffers)
    }
}
