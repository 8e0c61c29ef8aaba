//! What the series of a buffer are called, as far as its lane `series` is still here: once it is
//! acknowledged, the aggregator alone knows.

use super::{Met, View, Which, walk};
use std::collections::BTreeMap;
use tributary_journal::LifeId;
use tributary_protocol::batch::{Content, Decoder, SealedBatch};
use tributary_protocol::ids::{BufferId, Lane, SeriesId};
use tributary_protocol::series::SeriesDef;

/// The definitions of one buffer.
#[derive(Debug, Default)]
pub struct SeriesNames(BTreeMap<u32, SeriesDef>);

impl SeriesNames {
    /// Those of `buffer`.
    pub fn of(view: &View, buffer: BufferId) -> Self {
        let mut names = Self::default();
        let Some(log) = view.log(Which::Lane(Lane::Series)) else {
            return names;
        };
        let life = LifeId(buffer.0);
        let Some(span) = log
            .reader
            .lives()
            .into_iter()
            .find(|span| span.life == life)
        else {
            return names;
        };
        let mut decoder = Decoder::new();
        walk(&log.reader, life, span.first..span.end, |met| {
            let Met::Entry(entry) = met else { return };
            let Ok(batch) = SealedBatch::open(entry.bytes) else {
                return;
            };
            if let Ok(Content::Series { base, defs }) = batch.decode(&mut decoder) {
                names.0.extend((base..).zip(defs));
            }
        });
        names
    }

    /// The definition of a series.
    pub fn get(&self, series: SeriesId) -> Option<&SeriesDef> {
        self.0.get(&series.0)
    }
}
