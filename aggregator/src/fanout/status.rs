//! What is known about a sink from outside.

use super::chunk::Chunk;
use super::lag::{Lag, Verdict};
use super::sink::SinkError;
use crate::lake::load::Content;
use crate::lake::sink::Item;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A sink's counts and its newest trouble.
#[derive(Debug)]
pub struct SinkStatus {
    name: String,
    required: bool,
    position: AtomicU64,
    rows: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
    chunks: AtomicU64,
    failures: AtomicU64,
    newest: AtomicU64,
    trouble: Mutex<Option<SinkError>>,
    lag: Mutex<Lag>,
}

/// One sink in `/api/v1/status` and in `tributary-aggregator lag`.
#[derive(Clone, Debug, Serialize)]
pub struct SinkReport {
    /// As it is called in the configuration.
    pub name: String,
    /// Whether the journal keeps what it lacks whatever that costs.
    pub required: bool,
    /// Journal entries below are in it.
    pub position: u64,
    /// Entries that are durable and not in it.
    pub lag_entries: u64,
    /// Seconds since the oldest of them became durable.
    pub lag_seconds: f64,
    /// What to make of that.
    pub verdict: Verdict,
    /// Rows written since the start.
    pub rows: u64,
    /// Rows that the target did not take, since the start: they lie in its table `rejected`.
    pub refused_rows: u64,
    /// Journal entries that could not be read, declared in the sink, since the start.
    pub damaged_entries: u64,
    /// When the newest reading in it reached its agent, microseconds since 1970; 0: none yet.
    pub newest_received_us: u64,
    /// Why it does not get on, if so.
    pub trouble: Option<String>,
}

impl SinkStatus {
    /// Of a sink that did nothing yet.
    pub fn new(name: impl Into<String>, required: bool) -> Self {
        Self {
            name: name.into(),
            required,
            position: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            trouble: Mutex::default(),
            lag: Mutex::default(),
        }
    }

    /// As it is called in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the journal keeps what it lacks whatever that costs.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Every journal entry below is in the sink; 0 as long as it did not open.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// Why it does not get on, if so.
    pub fn trouble(&self) -> Option<SinkError> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn lag(&self) -> MutexGuard<'_, Lag> {
        self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stands(&self, position: u64) {
        self.position.store(position, Ordering::Release);
    }

    pub(super) fn has(&self, chunk: &Chunk) {
        let refused = chunk.refused().len() as u64;
        let rows = chunk.rows() as u64 - refused;
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.refused.fetch_add(refused, Ordering::Relaxed);
        self.chunks.fetch_add(1, Ordering::Relaxed);
        for (_, item) in chunk.items() {
            match item {
                Item::Damaged(entries) => {
                    let lost = entries.end.saturating_sub(entries.start);
                    self.lost.fetch_add(lost, Ordering::Relaxed);
                }
                Item::Batch(batch) => {
                    if let Content::Readings(readings) | Content::Named(readings, _) = &batch.1 {
                        let times = readings.rows().iter().map(|row| row.meta.received_time);
                        let newest = u64::try_from(times.max().unwrap_or(0)).unwrap_or(0);
                        self.newest.fetch_max(newest, Ordering::Relaxed);
                    }
                }
                Item::Nothing(_) => {}
            }
        }
        let label = self.name.clone();
        metrics::counter!("tributary_aggregator_sink_rows_total", "sink" => label).increment(rows);
        if refused > 0 {
            let (name, label) = ("tributary_aggregator_sink_refused_rows_total", &self.name);
            metrics::counter!(name, "sink" => label.clone()).increment(refused);
        }
        self.stands(chunk.end());
    }

    pub(super) fn note(&self, trouble: Option<&SinkError>, failed: bool) {
        if failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
            let (name, label) = ("tributary_aggregator_sink_errors_total", &self.name);
            metrics::counter!(name, "sink" => label.clone()).increment(1);
        }
        let mut known = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() == trouble {
            return;
        }
        let sink = &self.name;
        match trouble {
            Some(SinkError::Again(error)) => tracing::warn!(sink, error, "a sink does not get on"),
            Some(error) => tracing::error!(sink, %error, "a sink does not get on"),
            None => tracing::info!(sink, "the sink gets on again"),
        }
        *known = trouble.cloned();
    }

    /// A look at how far it is: now, on a clock that never goes back, and the journal's end.
    pub fn look(&self, now: i64, end: u64) {
        self.lag().note(now, end, self.position());
    }

    /// What is known, at this time of the same clock.
    pub fn report(&self, now: i64, end: u64) -> SinkReport {
        let (position, trouble) = (self.position(), self.trouble());
        let mut lag = self.lag();
        lag.note(now, end, position);
        SinkReport {
            name: self.name.clone(),
            required: self.required,
            position,
            lag_entries: end.saturating_sub(position),
            lag_seconds: lag.behind_us(now, position) as f64 / 1e6,
            verdict: lag.verdict(trouble.is_some()),
            rows: self.rows.load(Ordering::Relaxed),
            refused_rows: self.refused.load(Ordering::Relaxed),
            damaged_entries: self.lost.load(Ordering::Relaxed),
            newest_received_us: self.newest.load(Ordering::Relaxed),
            trouble: trouble.map(|error| error.to_string()),
        }
    }
}
