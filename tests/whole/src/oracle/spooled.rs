//! What stood under each number of an agent's spool as it became durable there: what a gap for
//! that number declares lost.

use super::{Name, Oracle};
use tributary_protocol::batch::{Content as Decoded, Decoder, Kind, SealedBatch};
use tributary_protocol::ids::{BatchKey, Lane, SeriesId};
use tributary_protocol::reading::{Flags, Meta};
use tributary_protocol::series::SeriesDef;

/// What stood under a number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// These readings, and so many that said of themselves that they may be repeats.
    Readings(Vec<Name>, u64),
    /// A declared loss of so many readings, if anybody knew.
    Lost(Option<u64>),
}

/// The lanes that hold what devices published.
pub(super) const LANES: [Lane; 2] = [Lane::Telemetry, Lane::Events];

impl Oracle {
    /// A batch is durable in an agent's spool.
    pub fn spooled(&mut self, agent: usize, batch: &SealedBatch) {
        let key = batch.key();
        match batch.kind() {
            Kind::Series => {
                if let Ok(Decoded::Series { base, defs }) = batch.decode(&mut Decoder::new()) {
                    let book = self.books.entry((agent, key.buffer)).or_default();
                    // What is read again is known, and what has a hole before it is not.
                    let known = book.len().checked_sub(base).map(|known| known as usize);
                    let news = known.and_then(|known| defs.get(known..));
                    let _ = news.map(|news| book.append(book.len(), news));
                }
            }
            _ if !LANES.contains(&key.lane) => {}
            _ => {
                if let Some(content) = self.content(agent, batch) {
                    self.spooled.entry((agent, key)).or_insert(content);
                }
            }
        }
    }

    /// Whether it was told what stands under this number.
    pub fn is_spooled(&self, agent: usize, key: BatchKey) -> bool {
        self.spooled.contains_key(&(agent, key))
    }

    fn content(&mut self, agent: usize, batch: &SealedBatch) -> Option<Content> {
        let readings = match batch.decode(&mut Decoder::new()).ok()? {
            Decoded::Readings(readings) => readings,
            Decoded::Gap(gap) => return Some(Content::Lost(gap.readings)),
            Decoded::Series { .. } => return None,
        };
        let (mut names, mut flagged) = (Vec::new(), 0);
        for row in readings.rows() {
            if row.meta.flags.has(Flags::MAYBE_REPEAT) {
                flagged += 1;
                continue;
            }
            let def = self.definition(agent, batch, row.series)?.clone();
            names.push(self.named(agent, &def, &row.meta)?);
        }
        Some(Content::Readings(names, flagged))
    }

    fn definition(&self, agent: usize, batch: &SealedBatch, id: SeriesId) -> Option<&SeriesDef> {
        let book = self.books.get(&(agent, batch.key().buffer))?;
        book.get(id)
    }

    fn named(&self, agent: usize, def: &SeriesDef, meta: &Meta) -> Option<Name> {
        let (_, device) = super::end::revision_of(&def.device);
        self.name_of(
            (agent, device),
            &def.metric,
            (meta.device_seq, meta.event_time),
        )
    }
}
