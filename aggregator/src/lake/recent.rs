//! The newest alerts, for whoever asks over HTTP: a bounded ring in memory that begins anew with
//! the process. The lake's table has them all.

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
    foreign: u64,
}

impl Recent {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the alerts out of a journal entry, if it holds any.
    pub fn note(&self, origin: &Origin, content: &Content) {
        let (Content::Readings(readings) | Content::Named(readings, _)) = content else {
            return;
        };
        if origin.key.lane != Lane::Alerts {
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
            match readings.value(reading) {
                Value::Str(json) => match Alert::parse(json) {
                    Ok(_) => held.push(object(origin, row, json)),
                    Err(reason) => held.refuse(origin, row, &reason),
                },
                _ => held.refuse(origin, row, "it is no text"),
            }
        }
    }

    /// At most `limit` of them, the newest first.
    pub fn newest(&self, limit: usize) -> Vec<String> {
        self.held().kept.iter().rev().take(limit).cloned().collect()
    }

    /// Readings of the lane `alerts` since the start that are no alerts of schema 1.
    pub fn foreign(&self) -> u64 {
        self.held().foreign
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
        self.foreign += 1;
        let (agent, batch) = (&origin.agent, origin.key);
        tracing::debug!(%agent, %batch, row, reason, "no alert of schema 1");
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
