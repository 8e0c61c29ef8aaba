//! The newest alerts, for whoever asks over HTTP: a bounded ring in memory that begins anew with
//! the process. The lake's table has them all.

use super::aggregate::Aggregate;
use super::alert::Alert;
use super::load::{Content, Origin};
use crate::limits::{ALERTS_RECENT_BYTES_MAX, ALERTS_RECENT_MAX};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tributary_protocol::ids::Lane;
use tributary_protocol::reading::Value;

/// The newest alerts of the journal.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    /// Entries below were looked at: one that is read again changes nothing.
    next: u64,
    /// Objects of JSON, oldest first.
    kept: VecDeque<String>,
    bytes: usize,
    /// Of the lanes `alerts` and `aggregates`.
    foreign: [u64; 2],
}

impl Recent {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the alerts out of a journal entry, if it holds any, and counts what is no alert, or no
    /// aggregate, where one should be.
    pub fn note(&self, origin: &Origin, content: &Content) {
        let (Content::Readings(readings) | Content::Named(readings, _)) = content else {
            return;
        };
        let lane = origin.key.lane;
        if !matches!(lane, Lane::Alerts | Lane::Aggregates) {
            return;
        }
        let mut held = self.held();
        if origin.entry < held.next {
            return;
        }
        held.next = origin.entry + 1;
        // A batch is ordered by series.
        let mut rows: Vec<_> = readings.rows().iter().enumerate().collect();
        rows.sort_by_key(|(_, reading)| reading.meta.received_time);
        for (row, reading) in rows {
            let Value::Str(json) = readings.value(reading) else {
                held.refuse(origin, row, "it is no text");
                continue;
            };
            let parsed = match lane {
                Lane::Alerts => Alert::parse(json).map(|_| Some(object(origin, row, json))),
                _ => Aggregate::parse(json).map(|_| None),
            };
            match parsed {
                Ok(Some(alert)) => held.push(alert),
                Ok(None) => {}
                Err(reason) => held.refuse(origin, row, &reason),
            }
        }
    }

    /// At most `limit` of them, the newest first.
    pub fn newest(&self, limit: usize) -> Vec<String> {
        self.held().kept.iter().rev().take(limit).cloned().collect()
    }

    /// Readings of the lane `alerts` since the start that are no alerts of schema 1.
    pub fn foreign(&self) -> u64 {
        let [alerts, _] = self.held().foreign;
        alerts
    }

    /// Readings of the lane `aggregates` since the start that are no aggregates of schema 1.
    pub fn foreign_aggregates(&self) -> u64 {
        let [_, aggregates] = self.held().foreign;
        aggregates
    }
}

impl Held {
    fn push(&mut self, object: String) {
        self.bytes += object.len();
        self.kept.push_back(object);
        while self.kept.len() > ALERTS_RECENT_MAX || self.bytes > ALERTS_RECENT_BYTES_MAX {
            let Some(gone) = self.kept.pop_front() else {
                return;
            };
            self.bytes -= gone.len();
        }
    }

    fn refuse(&mut self, origin: &Origin, row: usize, reason: &str) {
        let [alerts, aggregates] = &mut self.foreign;
        match origin.key.lane {
            Lane::Alerts => *alerts += 1,
            _ => *aggregates += 1,
        }
        let (agent, batch) = (&origin.agent, origin.key);
        tracing::debug!(%agent, %batch, row, reason, "no JSON of schema 1");
    }
}

/// The alert, and whose it is. Its text is JSON: it was parsed.
fn object(origin: &Origin, row: usize, json: &str) -> String {
    let whose = serde_json::json!({
        "tenant": origin.agent.tenant(),
        "agent": origin.agent.uuid().to_string(),
        "buffer": origin.key.buffer.to_string(),
        "batch": origin.key.number,
        "row": row,
    });
    let whose = whose.to_string();
    let members = whose.strip_suffix('}').unwrap_or_default();
    format!("{members},\"alert\":{json}}}")
}
