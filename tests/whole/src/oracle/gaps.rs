//! What the lake says is lost, held against what stood under those numbers: a gap excuses exactly
//! what it says, and nothing that is there.

use super::end::place_of;
use super::spooled::{Content, LANES};
use super::{Invariant, Name, Oracle};
use crate::lake::{self, GapRow};
use crate::store::SimStore;
use std::collections::{BTreeMap, BTreeSet};
use tributary_protocol::batch::GapReason;
use tributary_protocol::ids::{BatchKey, Lane, LaneKey};

/// Gaps that a made-up agent makes up say this many readings.
const NOTHING: Option<i64> = Some(0);

/// What is declared lost.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// Readings whose batch is under a gap.
    pub names: BTreeSet<Name>,
    /// Readings that a flipped bit took, where something is declared for it. They may be there:
    /// what is damaged in one place may still be in another.
    pub maybe: BTreeSet<Name>,
    /// Others, of each agent: so many.
    pub others: BTreeMap<usize, u64>,
}

/// What is known of the numbers of one gap.
#[derive(Default)]
struct Under {
    names: Vec<Name>,
    /// Readings under them that have no name here.
    nameless: Option<u64>,
    /// Nobody saw what stood under some of them.
    unseen: bool,
}

impl Under {
    /// How many readings, where all is known.
    fn readings(&self) -> Option<u64> {
        let nameless = self.nameless.filter(|_| !self.unseen)?;
        Some(self.names.len() as u64 + nameless)
    }
}

impl Oracle {
    /// What the lake declares lost, gap by gap.
    pub(super) fn declared(&mut self, store: &SimStore) -> Declared {
        let gaps: Vec<GapRow> = match lake::gaps(&store.objects("gaps")) {
            Ok(gaps) => gaps,
            Err(error) => {
                self.odd(&error);
                return Declared::default();
            }
        };
        self.declared_in(&gaps)
    }

    /// What these declare lost.
    pub(super) fn declared_in(&mut self, gaps: &[GapRow]) -> Declared {
        let mut declared = Declared::default();
        declared.maybe.extend(self.hits.letters.iter().cloned());
        for gap in gaps.iter().filter(|gap| gap.readings != NOTHING) {
            self.has_a_cause(gap);
            if gap.agent.is_empty() {
                let entries = gap.first as u64..(gap.first + gap.count) as u64;
                self.entries_declared(entries, &mut declared);
                continue;
            }
            let lane = LANES.into_iter().find(|it| it.name() == gap.lane);
            if let (Some(place), Some(lane)) = (place_of(&gap.agent), lane) {
                self.declares(gap, (place, lane), &mut declared);
            }
        }
        declared
    }

    /// Nothing is lost without something in the plan that may lose it.
    fn has_a_cause(&mut self, gap: &GapRow) {
        let reason = |reason: GapReason| reason.name() == gap.reason;
        let causes = self.causes;
        let caused = (reason(GapReason::Shed) && causes.gives_way && gap.readings.is_some())
            || (reason(GapReason::Refused) && causes.refuses && gap.readings.is_some())
            || (reason(GapReason::Damaged) && self.is_damaged(gap));
        if !caused {
            self.violate(Invariant::I3, || {
                format!("declared lost, and nothing in the plan is a cause of it: {gap:?}")
            });
        }
    }

    /// Whether bits flipped where this was lost.
    fn is_damaged(&self, gap: &GapRow) -> bool {
        let mut entries = gap.first as u64..(gap.first + gap.count) as u64;
        match place_of(&gap.agent) {
            Some(place) => self.hits.agents.contains(&place),
            None => entries.all(|entry| self.hits.entries.contains(&entry)),
        }
    }

    fn declares(&mut self, gap: &GapRow, (place, lane): (usize, Lane), declared: &mut Declared) {
        let Some(key) = self.lane_of(gap, (place, lane)) else {
            return self.violate(Invariant::I2, || format!("nobody sent this: {gap:?}"));
        };
        let numbers = gap.first as u64..(gap.first + gap.count) as u64;
        if let Some(number) = numbers.clone().find(|it| self.is_data((place, key), *it)) {
            self.violate(Invariant::I5, || {
                format!("{number} of {key:?} is declared lost, and held: {gap:?}")
            });
        }
        let mut under = Under {
            nameless: Some(0),
            ..Under::default()
        };
        for number in numbers {
            let key = BatchKey {
                buffer: key.buffer,
                lane,
                number,
            };
            match self.spooled.get(&(place, key)) {
                Some(Content::Readings(names, flagged)) => {
                    under.names.extend(names.iter().cloned());
                    under.nameless = under.nameless.map(|all| all + flagged);
                }
                Some(Content::Lost(readings)) => {
                    under.nameless = under.nameless.zip(*readings).map(|(all, more)| all + more);
                }
                None => under.unseen = true,
            }
        }
        let said = gap.readings.map(|readings| readings as u64);
        let known = under.readings();
        if said.zip(known).is_some_and(|(said, known)| said != known) {
            self.violate(Invariant::I3, || {
                format!("{known:?} readings stood under these numbers: {gap:?}")
            });
        }
        let named = under.names.len() as u64;
        let others = known.or(said).map_or(0, |all| all.saturating_sub(named));
        *declared.others.entry(place).or_default() += others;
        declared.names.extend(under.names);
        if said.is_none() {
            // It stands for what a bit took, and for nothing else.
            let hit = self.hits.names.iter().filter(|name| name.agent == place);
            declared.maybe.extend(hit.cloned());
        }
    }

    /// The lane of the journal that a gap speaks of.
    fn lane_of(&self, gap: &GapRow, (place, lane): (usize, Lane)) -> Option<LaneKey> {
        let mut keys = self.held.keys();
        let found = keys.find(|(of, key)| {
            *of == place && key.lane == lane && key.buffer.to_string() == gap.buffer
        });
        found.map(|(_, key)| *key)
    }
}
