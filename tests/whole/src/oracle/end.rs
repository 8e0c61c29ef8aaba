//! The end of a run: the lake's files are read back, and held against what was published.

use super::gaps::Declared;
use super::{Invariant, Name, Oracle};
use crate::lake::{self, Identity, Row};
use crate::site::agent_id;
use crate::store::SimStore;
use std::collections::{BTreeMap, BTreeSet};
use tributary_protocol::ids::{Lane, LaneKey};

/// The agent of this UUID.
pub(super) fn place_of(uuid: &str) -> Option<usize> {
    let mut places = 0..crate::limits::AGENTS_MAX;
    places.find(|place| agent_id(*place).uuid().to_string() == uuid)
}

/// A device's name without its rules, and these.
pub(super) fn revision_of(device: &str) -> (Option<u32>, &str) {
    let named = device.strip_prefix('r').and_then(|it| it.split_once('/'));
    let read = named.and_then(|(revision, device)| Some((revision.parse().ok()?, device)));
    match read {
        Some((revision, device)) => (Some(revision), device),
        None => (None, device),
    }
}

impl Oracle {
    /// The run is over, and everything has drained.
    pub fn finish(&mut self, store: &SimStore) {
        let tables = ["readings", "alerts", "aggregates"];
        let mut identities = BTreeSet::new();
        for table in tables {
            let rows = match lake::rows(&store.objects(table)) {
                Ok(rows) => rows,
                Err(error) => return self.odd(&error),
            };
            for row in &rows {
                if !identities.insert(row.identity.clone()) {
                    let Identity { batch, row: at, .. } = row.identity;
                    self.violate(Invariant::I1, || {
                        format!("row {at} of batch {batch} is in the lake twice: {row:?}")
                    });
                }
                self.is_of_the_journal(row);
            }
            if table == "readings" {
                let mut declared = self.declared(store);
                self.set_apart(store, &mut declared);
                self.compare(&rows, &declared);
            } else {
                self.stats.judged += rows.len() as u64;
            }
        }
        for (lane, held) in &self.held {
            let end = held.keys().next_back().map_or(0, |last| last + 1);
            if held.len() as u64 != end {
                let what = format!("{lane:?} has {} of {end} numbers", held.len());
                return self.violate(Invariant::I4, || what);
            }
        }
    }

    /// A row of the lake has a batch in the journal, which holds data.
    fn is_of_the_journal(&mut self, row: &Row) {
        let Identity {
            agent,
            buffer,
            lane,
            batch,
            ..
        } = &row.identity;
        let lane = Lane::ALL.into_iter().find(|it| it.name() == lane);
        let of = place_of(agent).zip(lane);
        let found = of.is_some_and(|(place, lane)| {
            let mut buffers = self
                .held
                .keys()
                .filter(|(at, key)| *at == place && key.lane == lane);
            let key = buffers.find(|(_, key)| key.buffer.to_string() == *buffer);
            key.is_some_and(|(_, key): &(usize, LaneKey)| {
                self.is_data((place, *key), *batch as u64)
            })
        });
        if !found {
            self.violate(Invariant::I5, || {
                format!("no batch of the journal has this row: {row:?}")
            });
        }
    }

    /// Each published reading is there as often as it may be, and nothing else is.
    pub(super) fn compare(&mut self, rows: &[Row], declared: &Declared) {
        self.stats.rows += rows.len() as u64;
        let mut counts: BTreeMap<Name, u64> = BTreeMap::new();
        for row in rows {
            if let Some(name) = self.is_published(row) {
                // Nothing tells it from another, and it says so: it may be one too many.
                let flagged = row.seq.is_none() && row.maybe_repeat;
                let count = counts.entry(name).or_default();
                *count = (*count + u64::from(!flagged)).max(1);
            }
        }
        let mut missing: BTreeMap<usize, Vec<&Name>> = BTreeMap::new();
        let mut wrong = None;
        for (name, published) in &self.published {
            let lost = declared.names.contains(name);
            match counts.get(name).copied().unwrap_or(0) {
                1 if !lost || !published.numbered => {}
                1 => {
                    wrong.get_or_insert(format!("{name:?} is declared lost, and in the lake"));
                }
                0 if published.loose || !published.told => {}
                0 if lost || declared.maybe.contains(name) => {
                    self.stats.declared += 1;
                    self.stats.named += 1;
                }
                0 => missing.entry(name.agent).or_default().push(name),
                times => {
                    wrong.get_or_insert(format!("{name:?} is in the lake {times} times"));
                }
            }
        }
        for (agent, names) in missing {
            let lost = names.len() as u64;
            self.stats.declared += lost;
            let known = declared.others.get(&agent).copied().unwrap_or(0);
            if known < lost {
                let some: Vec<_> = names.iter().take(3).collect();
                wrong.get_or_insert(format!(
                    "{lost} acknowledged readings are not in the lake, and {known} others are \
                     declared: {some:?}"
                ));
            }
        }
        if let Some(wrong) = wrong {
            self.violate(Invariant::I1, || wrong);
        }
    }

    /// What a row of the lake was published as.
    fn is_published(&mut self, row: &Row) -> Option<Name> {
        let (revision, device) = revision_of(&row.device);
        let agent = place_of(&row.identity.agent)?;
        let name = self.name_of((agent, device), &row.metric, (row.seq, row.event_time));
        let Some(name) = name else {
            self.violate(Invariant::I2, || format!("nobody published this: {row:?}"));
            return None;
        };
        let Some(published) = self.published.get(&name) else {
            self.violate(Invariant::I2, || format!("nobody published this: {row:?}"));
            return None;
        };
        let right = published.value == row.value
            && published.time_us == row.event_time
            && revision.is_none_or(|revision| published.revisions.contains(&revision));
        if !right {
            let what = format!("{published:?} stands in the lake as {row:?}");
            self.violate(Invariant::I2, || what);
        }
        Some(name)
    }

    /// What was published as this; the metric of what has no number must be right.
    pub(super) fn name_of(
        &self,
        (agent, device): (usize, &str),
        metric: &str,
        (seq, event_time): (Option<i64>, i64),
    ) -> Option<Name> {
        let device = device.to_owned();
        match seq {
            Some(seq) => Some(Name {
                agent,
                device,
                metric: metric.to_owned(),
                seq,
            }),
            None => {
                let named = self.unnumbered.get(&(agent, device, event_time));
                named.filter(|name| name.metric == metric).cloned()
            }
        }
    }
}
