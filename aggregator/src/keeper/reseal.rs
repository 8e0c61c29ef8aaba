//! A batch of the quarantine, sealed again under a name of its own. Pure: no journal, no file, no
//! clock; the same batch with the same definitions gives the same batches.
//!
//! The name follows from the batch's hash alone, so that whoever does it again makes nothing new:
//! buffer of [life 0](QUARANTINE_LIFE) and the first half of the hash, the lane as it was, numbers
//! from 0. What messages it covers is left out: another batch covers those under its own name.

use super::Checked;
use std::collections::HashMap;
use tributary_protocol::batch::{Content, Decoder, Kind, SealError, SealedBatch, Sealer, Spec};
use tributary_protocol::ids::{BatchHash, BatchKey, BufferId, Lane, SeriesId};
use tributary_protocol::limits::SERIES_PER_BATCH_MAX;
use tributary_protocol::reading::{Flags, Meta, Readings, Row, ValueType};
use tributary_protocol::series::SeriesDef;

/// The life of buffers whose batches come out of quarantine: an agent counts its own from 1.
pub const QUARANTINE_LIFE: u64 = 0;

/// The buffer under which a batch with this hash comes out of quarantine.
pub fn buffer_of(hash: BatchHash) -> BufferId {
    BufferId::new(QUARANTINE_LIFE, hash.short())
}

/// Whether what is in this buffer came out of quarantine.
pub fn is_from_quarantine(buffer: BufferId) -> bool {
    buffer.life() == QUARANTINE_LIFE
}

/// Why a batch stays in quarantine.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Stays {
    /// Its bytes are no batch, or its content can't be read.
    #[error("it does not verify: {0}")]
    Damaged(String),
    /// It is no batch of readings.
    #[error("definitions and declared losses bring no readings")]
    NoReadings,
    /// Nobody knows whose it is.
    #[error("the ledger knows no agent with this UUID, or several")]
    Agent,
    /// Its agent can still send it.
    #[error("nothing is held under its number: its agent sends it under its own name")]
    Absent,
    /// It is not apart from what is held.
    #[error("its number is held with this very hash: it is in the lake, in `rejected/` perhaps")]
    Held,
    /// It needs what nobody said.
    #[error("what its series {} is called is not known", .0.0)]
    Unnamed(SeriesId),
    /// Two machines called one number differently.
    #[error(
        "definitions that are held call its series {} something else than definitions in \
         quarantine: nobody can tell what it is",
        .0.0
    )]
    Disputed(SeriesId),
    /// Its rows are not what its definitions say.
    #[error("its series {} holds {is}, and is defined as {defined}", .series.0)]
    Type {
        /// The series.
        series: SeriesId,
        /// What its values are.
        is: ValueType,
        /// What they should be.
        defined: ValueType,
    },
    /// It can't be sealed again.
    #[error("it can't be sealed again: {0}")]
    Seal(#[from] SealError),
    /// The ledger has no room for it.
    #[error("it is not taken now ({0}): try again once its agent had a session")]
    NotTaken(String),
    /// The journal can't be written.
    #[error("the journal can't be written: {0}")]
    Journal(String),
}

/// Seals a batch again: definitions first, then readings, each of which is marked as perhaps a
/// repeat. `name` says what its series are called.
///
/// # Errors
/// Why it stays.
pub fn reseal(
    batch: &SealedBatch,
    name: &dyn Fn(SeriesId) -> Result<SeriesDef, Stays>,
) -> Result<Vec<(SealedBatch, Checked)>, Stays> {
    if batch.kind() != Kind::Readings {
        return Err(Stays::NoReadings);
    }
    let decoded = batch.decode(&mut Decoder::new());
    let block = match decoded.map_err(|error| Stays::Damaged(error.to_string()))? {
        Content::Readings(block) => block,
        Content::Series { .. } | Content::Gap(_) => return Err(Stays::NoReadings),
    };
    let mut sealer = Resealer {
        sealer: Sealer::new(),
        batch,
        names: batch.names(),
        series: HashMap::new(),
        defs: Vec::new(),
        next: 0,
        made: Vec::new(),
    };
    sealer.number(&block, name)?;
    sealer.define()?;
    sealer.rows(&block, block.rows())?;
    Ok(sealer.made)
}

struct Resealer<'a> {
    sealer: Sealer,
    batch: &'a SealedBatch,
    /// Names that stand in the batch itself.
    names: &'a [SeriesDef],
    /// The numbers that series of its rows get, and what these are called.
    series: HashMap<SeriesId, SeriesId>,
    defs: Vec<SeriesDef>,
    /// The next number of its lane.
    next: u64,
    made: Vec<(SealedBatch, Checked)>,
}

impl Resealer<'_> {
    fn spec(&self, lane: Lane, number: u64, series_needed: usize) -> Spec {
        Spec {
            key: BatchKey {
                buffer: buffer_of(self.batch.hash()),
                lane,
                number,
            },
            sealed_at: self.batch.sealed_at(),
            series_needed: series_needed as u32,
            covers: Vec::new(),
        }
    }

    /// Gives the series of its rows numbers from 0 on; where the batch names them, it has.
    fn number(
        &mut self,
        block: &Readings,
        name: &dyn Fn(SeriesId) -> Result<SeriesDef, Stays>,
    ) -> Result<(), Stays> {
        for run in block.rows().chunk_by(|a, b| a.series == b.series) {
            let Some(row) = run.first() else { continue };
            let def = match self.names {
                [] => name(row.series)?,
                names => names
                    .get(row.series.0 as usize)
                    .cloned()
                    .ok_or(Stays::Unnamed(row.series))?,
            };
            if def.value_type != row.value_type {
                return Err(Stays::Type {
                    series: row.series,
                    is: row.value_type,
                    defined: def.value_type,
                });
            }
            let next = SeriesId(self.defs.len() as u32);
            if self.names.is_empty() && !self.series.contains_key(&row.series) {
                self.series.insert(row.series, next);
                self.defs.push(def);
            }
        }
        Ok(())
    }

    fn define(&mut self) -> Result<(), Stays> {
        let defs = std::mem::take(&mut self.defs);
        let (mut base, mut number, mut most) = (0, 0, SERIES_PER_BATCH_MAX);
        while let Some(rest) = defs.get(base..).filter(|rest| !rest.is_empty()) {
            let part = rest.get(..most.min(rest.len())).unwrap_or(rest);
            let spec = self.spec(Lane::Series, number, 0);
            let sealed = match self.sealer.series(&spec, base as u32, part) {
                Ok(sealed) => sealed,
                Err(SealError::TooLong(_)) if most > 1 => {
                    most /= 2;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let content = Checked::Series {
                base: base as u32,
                defs: part.to_vec(),
            };
            self.made.push((sealed, content));
            (base, number) = (base + part.len(), number + 1);
        }
        self.defs = defs;
        Ok(())
    }

    /// Seals these rows, in parts where they are too much for one batch.
    fn rows(&mut self, block: &Readings, rows: &[Row]) -> Result<(), Stays> {
        let error = match self.seal(block, rows) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match error {
            Stays::Seal(SealError::TooLong(_)) if rows.len() > 1 => {
                let (first, second) = rows.split_at(rows.len() / 2);
                self.rows(block, first)?;
                self.rows(block, second)
            }
            error => Err(error),
        }
    }

    fn seal(&mut self, block: &Readings, rows: &[Row]) -> Result<(), Stays> {
        let mut part = Readings::new();
        for row in rows {
            let series = self.series.get(&row.series).copied();
            let meta = Meta {
                flags: row.meta.flags.with(Flags::MAYBE_REPEAT),
                ..row.meta
            };
            // Texts that were shared are not any more, and may be too much for one batch.
            part.push(series.unwrap_or(row.series), meta, block.value(row))
                .map_err(|_| SealError::TooLong(part.text_bytes()))?;
        }
        let spec = self.spec(self.batch.key().lane, self.next, self.series.len());
        let sealed = self.sealer.named(&spec, self.names, &mut part)?;
        let types = part.rows().iter().map(|row| (row.series, row.value_type));
        let mut types: Vec<_> = types.collect();
        types.dedup();
        let content = Checked::readings(&sealed, types);
        self.made.push((sealed, content));
        self.next += 1;
        Ok(())
    }
}
