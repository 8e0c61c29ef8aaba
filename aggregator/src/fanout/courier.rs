//! What a sink does next. Pure: it is told the time, random numbers, and how each step went.
//!
//! The rules, and they are all there are:
//! - a chunk is read from where the sink stands, and goes when it is full or old;
//! - after a step that failed, whatever the reason, the sink is opened anew, and the position that
//!   it gives decides: at the chunk's end, the chunk is there; at its beginning, it is not, and
//!   goes once more as it was; anywhere else, the chunk is forgotten and read again from there;
//! - only a refusal leaves the sink open, and begins a search for the rows.

use super::backoff::Backoff;
use super::chunk::Chunk;
use super::sift::{Sift, Sifted};
use super::sink::{SinkError, Standing};
use crate::lake::sink::Item;
use crate::limits::{SINK_CHUNK_BYTES_MAX, SINK_CHUNK_ENTRIES_MAX, SINK_CHUNK_ROWS_MAX};
use std::ops::Range;
use std::sync::Arc;

/// When a chunk goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Rows at which it is full; at most [`SINK_CHUNK_ROWS_MAX`].
    pub rows: usize,
    /// Microseconds after which it goes though it is not full.
    pub age_us: i64,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Step {
    /// Open the sink, and say where it stands.
    Open,
    /// Read the journal's entry.
    Read(u64),
    /// Deliver [the chunk](Courier::chunk).
    Deliver,
    /// Attempt these rows of it.
    Attempt(Range<usize>),
    /// Nothing until this time, or until more is durable; no time, if only that helps.
    Wait(Option<i64>),
    /// The end: what went wrong is final.
    End,
}

/// What a sink is at.
#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    /// Not open; to be opened at this time.
    Closed(i64),
    Open,
    Sifting(Sift),
    Ended,
}

/// One sink's way through the journal.
#[derive(Debug)]
pub struct Courier {
    pace: Pace,
    state: State,
    chunk: Chunk,
    /// When the chunk's oldest entry was read.
    since: Option<i64>,
    /// The chunk goes now: it is full, or somebody asked for it.
    due: bool,
    /// Entries below were durable when somebody asked that they go.
    wanted: u64,
    backoff: Backoff,
    /// The newest trouble, until something goes well.
    trouble: Option<SinkError>,
}

impl Courier {
    /// One that has not begun.
    pub fn new(pace: Pace) -> Self {
        let rows = pace.rows.clamp(1, SINK_CHUNK_ROWS_MAX);
        Self {
            pace: Pace { rows, ..pace },
            state: State::Closed(i64::MIN),
            chunk: Chunk::default(),
            since: None,
            due: false,
            wanted: 0,
            backoff: Backoff::default(),
            trouble: None,
        }
    }

    /// What is to be done now, if the journal is durable up to `end`.
    pub fn poll(&mut self, now: i64, end: u64) -> Step {
        match &self.state {
            State::Ended => Step::End,
            State::Closed(at) if *at > now => Step::Wait(Some(*at)),
            State::Closed(_) => Step::Open,
            State::Sifting(sift) => match sift.next() {
                Sifted::Attempt(rows) => Step::Attempt(rows),
                found => self.sifted(found),
            },
            State::Open => self.fill(now, end),
        }
    }

    fn fill(&mut self, now: i64, end: u64) -> Step {
        let (first, next) = (self.chunk.first(), self.chunk.end());
        if self.due || self.is_full() {
            return Step::Deliver;
        }
        if next < end {
            return Step::Read(next);
        }
        let old_at = self.since.map(|at| at.saturating_add(self.pace.age_us));
        let is_old = old_at.is_some_and(|at| at <= now);
        match !self.chunk.is_empty() && (is_old || first < self.wanted) {
            true => Step::Deliver,
            false => Step::Wait(old_at),
        }
    }

    fn is_full(&self) -> bool {
        self.chunk.rows() >= self.pace.rows
            || self.chunk.bytes() >= SINK_CHUNK_BYTES_MAX
            || self.chunk.end() - self.chunk.first() >= SINK_CHUNK_ENTRIES_MAX
    }

    fn sifted(&mut self, found: Sifted) -> Step {
        self.state = State::Open;
        self.due = true;
        match found {
            Sifted::Done(rows) if !rows.is_empty() => self.chunk.refuse(rows),
            // The target minds how many they are, or there are too many to look for: fewer, then.
            _ => {
                if !self.chunk.halve() {
                    let why = "the target takes the rows of a batch one by one and not together";
                    return self.give_up(why);
                }
            }
        }
        Step::Deliver
    }

    fn give_up(&mut self, why: &str) -> Step {
        self.trouble = Some(SinkError::Stuck(why.to_owned()));
        self.state = State::Ended;
        Step::End
    }

    /// The chunk that is under way.
    pub fn chunk(&self) -> &Chunk {
        &self.chunk
    }

    /// What went wrong last, unless something went well since.
    pub fn trouble(&self) -> Option<&SinkError> {
        self.trouble.as_ref()
    }

    /// Everything below `end` goes as soon as it can.
    pub fn want(&mut self, end: u64) {
        self.wanted = self.wanted.max(end);
    }

    /// The sink is open, and stands here; the journal is durable up to `end`. Gives the chunk that
    /// was under way back if it is in the sink.
    pub fn on_open(&mut self, standing: Standing, end: u64) -> Option<Chunk> {
        let next = standing.next;
        if next > end {
            let _ = self.give_up(&format!(
                "the sink has entries of this journal up to {next}, and the journal ends at {end}: \
                 it was rolled back; put its newest copy back, or let `tributary-aggregator \
                 restore` begin another one"
            ));
            return None;
        }
        self.state = State::Open;
        if !self.chunk.is_empty() && next == self.chunk.end() {
            return Some(self.on_delivered());
        }
        if next != self.chunk.first() || self.chunk.is_empty() {
            self.restart(next);
        } else {
            self.due = true;
        }
        None
    }

    fn restart(&mut self, next: u64) {
        self.chunk = Chunk::new(next);
        self.since = None;
        self.due = false;
    }

    /// The entry that was to be read.
    pub fn on_read(&mut self, now: i64, item: Arc<Item>) {
        self.since.get_or_insert(now);
        self.chunk.push(item);
    }

    /// The journal does not have the entry any more: only a sink that went back asks for it.
    pub fn on_trimmed(&mut self, first: u64) {
        let next = self.chunk.end();
        let _ = self.give_up(&format!(
            "the sink stands at entry {next} of this journal, which begins at {first}: it was put \
             back to an earlier state; put its newest copy back, or take its cursor away: then it \
             begins anew with what the journal has, and the lake has the rest"
        ));
    }

    /// The chunk is in the sink; it is given back.
    pub fn on_delivered(&mut self) -> Chunk {
        let next = self.chunk.end();
        let chunk = std::mem::take(&mut self.chunk);
        self.restart(next);
        self.backoff.succeeded();
        self.trouble = None;
        chunk
    }

    /// The rows that were attempted would be taken.
    pub fn on_taken(&mut self) {
        if let State::Sifting(sift) = &mut self.state {
            sift.taken();
        }
    }

    /// A step failed.
    pub fn on_failed(&mut self, now: i64, error: SinkError, random: u64) {
        if let SinkError::Refused(reason) = &error {
            match &mut self.state {
                State::Sifting(sift) => return sift.refused(reason.clone()),
                State::Open if self.chunk.refused().is_empty() && self.chunk.rows() > 0 => {
                    let divisible = self.chunk.items().nth(1).is_some();
                    let rows = self.chunk.rows();
                    self.state = State::Sifting(Sift::new(rows, reason.clone(), divisible));
                    self.trouble = Some(error);
                    return;
                }
                // Without those rows, too: there are too many, or the target has changed its mind.
                _ => {
                    self.chunk.take_back();
                    if self.chunk.halve() {
                        return;
                    }
                }
            }
        }
        let pause = match &error {
            SinkError::Fenced(_) => {
                self.state = State::Ended;
                self.trouble = Some(error);
                return;
            }
            SinkError::Stuck(_) | SinkError::Refused(_) => self.backoff.stuck(random),
            SinkError::Again(_) => self.backoff.failed(random),
        };
        let pause = i64::try_from(pause)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000);
        self.state = State::Closed(now.saturating_add(pause));
        self.trouble = Some(error);
    }
}

#[cfg(test)]
mod tests;
