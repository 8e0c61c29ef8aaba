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
        let life = LifeId(buffer.0);
        let mut decoder = Decoder::new();
        // What one of them can't give back, the other does.
        for which in [Which::Lane(Lane::Series), Which::SeriesCopy] {
            let reader = view.log(which).map(|log| &log.reader);
            let spans = reader.into_iter().flat_map(|reader| {
                let spans = reader.lives().into_iter();
                spans.map(move |span| (reader, span))
            });
            for (reader, span) in spans.filter(|(_, span)| span.life == life) {
                walk(reader, life, span.first..span.end, |met| {
                    let Met::Entry(entry) = met else { return };
                    let Ok(batch) = SealedBatch::open(entry.bytes) else {
                        return;
                    };
                    if let Ok(Content::Series { base, defs }) = batch.decode(&mut decoder) {
                        names.0.extend((base..).zip(defs));
                    }
                });
            }
        }
        names
    }

    /// The definition of a series.
    pub fn get(&self, series: SeriesId) -> Option<&SeriesDef> {
        self.0.get(&series.0)
    }
}
