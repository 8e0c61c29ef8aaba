//! The lake's loop: reads the durable part of the journal from where the lake stands, flushes by
//! size, by age or on request, and redoes what was interrupted.
//!
//! It runs on a thread of its own, because decoding, sorting and encoding are work, not waiting.
//! What it does when is decided in [steps](Lake::step), which are told the time. It never writes to
//! the journal, and acknowledges nothing.

use super::LakeError;
use super::commit::{LakeStore, PlannedFile};
use super::file::Span;
use super::files::files_of;
use super::load::{Content, FlushPlan, Load, Names, Offer, Origin, Sum, Sums};
use super::markers::{Intent, Progress};
use super::recent::Recent;
use crate::clock::Clock;
use crate::limits::{DONE_MARKERS_MAX, FLUSH_REQUESTS_MAX, FLUSH_RETRY_MS};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tributary_planted::planted;
use tributary_protocol::ids::{Lane, LaneKey};

/// One journal entry, decoded.
#[derive(Debug, PartialEq)]
pub enum Item {
    /// A batch.
    Batch(Box<(Origin, Content)>),
    /// An entry that brings nothing to the lake: a control record.
    Nothing(u64),
    /// Entries that were durable and cannot be read: a loss, which the lake declares.
    Damaged(Range<u64>),
}

impl Item {
    fn entry(&self) -> u64 {
        match self {
            Self::Batch(batch) => batch.0.entry,
            Self::Nothing(entry) => *entry,
            Self::Damaged(entries) => entries.start,
        }
    }
}

/// The durable part of one journal.
pub trait Feed: Send {
    /// The first entry that is still there.
    fn first(&self) -> u64 {
        0
    }
    /// One past the last durable entry.
    fn end(&self) -> u64;
    /// The entry `from`, or that it is damaged; nothing at the end. One at a time: whoever
    /// decodes ahead holds rows that no flush has counted, thousands for each hundred bytes.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn next(&mut self, from: u64) -> Result<Option<Item>, LakeError>;
}

/// How a lake is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LakeConfig {
    /// How long an entry waits for its flush, at most.
    pub flush_interval: Duration,
}

/// What is known about a lake from outside.
#[derive(Debug, Default)]
pub struct LakeStatus {
    position: AtomicU64,
    rows: AtomicU64,
    alerts: AtomicU64,
    aggregates: AtomicU64,
    recent: Recent,
    files: AtomicU64,
    flushes: AtomicU64,
    refused: AtomicU64,
    damaged: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl LakeStatus {
    /// The status of a lake that stands at this position.
    pub fn standing_at(position: u64) -> Self {
        Self {
            position: AtomicU64::new(position),
            ..Self::default()
        }
    }

    /// Every journal entry below is in the lake.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// Rows of readings written since the start.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Those of them that lie in the table `alerts`.
    pub fn alerts(&self) -> u64 {
        self.alerts.load(Ordering::Relaxed)
    }

    /// Those of them that lie in the table `aggregates`.
    pub fn aggregates(&self) -> u64 {
        self.aggregates.load(Ordering::Relaxed)
    }

    /// The newest alerts, written or about to be.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Files written since the start.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Flushes finished since the start.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Batches that could not be written as rows since the start; they lie in `rejected/`.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Journal entries, declared in the table `gaps` since the start, that cannot be read: at most
    /// so many, for a segment without a header does not say how many it held.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Why the lake does not get on, if so.
    pub fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

type Reply = oneshot::Sender<Result<u64, String>>;

/// The way to ask a running lake for something.
#[derive(Clone, Debug)]
pub struct LakeHandle {
    requests: mpsc::Sender<Reply>,
    status: Arc<LakeStatus>,
}

/// The receiving end of [`LakeHandle`].
pub type LakeRequests = mpsc::Receiver<Reply>;

impl LakeHandle {
    /// A handle, and what the lake needs of it.
    pub fn new() -> (Self, LakeRequests) {
        let (requests, receiver) = mpsc::channel(FLUSH_REQUESTS_MAX);
        (
            Self {
                requests,
                status: Arc::default(),
            },
            receiver,
        )
    }

    /// What is known about the lake.
    pub fn status(&self) -> &Arc<LakeStatus> {
        &self.status
    }

    /// Writes everything that is durable now; gives the position that the lake has reached.
    ///
    /// # Errors
    /// Why it could not be written, or that the lake has ended.
    pub async fn flush(&self) -> Result<u64, String> {
        let (reply, answer) = oneshot::channel();
        let ended = || "the lake has ended".to_owned();
        self.requests.send(reply).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

/// A flush whose bytes are made: whatever fails from here on is tried again with the same bytes.
struct Commit {
    span: Span,
    files: Vec<PlannedFile>,
    sums: Sums,
    refused: u64,
    damaged: u64,
}

/// A lake and the journal it is written from.
pub struct Lake {
    config: LakeConfig,
    store: LakeStore,
    feed: Box<dyn Feed>,
    names: Box<dyn Names>,
    progress: Progress,
    load: Load,
    /// Read, and not part of this flush.
    waiting: Option<Item>,
    commit: Option<Commit>,
    /// When the oldest entry was read that waits for its flush.
    since: Option<i64>,
    status: Arc<LakeStatus>,
    files_of: FilesOf,
}

type FilesOf = fn(Span, &FlushPlan) -> Result<Vec<PlannedFile>, LakeError>;

/// How the lake gets on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    /// Another try may help.
    Failed,
    /// Only a person can help.
    Stuck,
}

enum Event {
    /// More is durable, or it is time.
    Again,
    Request(Reply),
    Stop,
}

impl Lake {
    /// Opens a lake: finds out where it stands, and redoes the flush that was interrupted.
    ///
    /// # Errors
    /// When the store fails, or lake and journal do not fit together.
    pub async fn open(
        config: LakeConfig,
        mut store: LakeStore,
        feed: Box<dyn Feed>,
        names: Box<dyn Names>,
        handle: &LakeHandle,
    ) -> Result<Self, LakeError> {
        let (progress, begun) = store.progress().await?;
        store.settle()?;
        let position = progress.position;
        let needed = begun.intent.as_ref().map_or(position, |intent| intent.end);
        if needed > feed.end() {
            let (log, journal) = (store.log(), feed.end());
            return Err(LakeError::RolledBack {
                log,
                lake: needed,
                journal,
            });
        }
        let mut lake = Self {
            config,
            store,
            feed,
            names,
            load: Load::new(position),
            progress,
            waiting: None,
            commit: None,
            since: None,
            status: Arc::clone(handle.status()),
            files_of,
        };
        lake.status.position.store(position, Ordering::Release);
        lake.store.set_aside(&begun).await?;
        if let Some(intent) = begun.intent {
            lake.redo(&intent).await?;
        }
        lake.tidy().await;
        Ok(lake)
    }

    /// Redoes exactly the entries of an intent.
    async fn redo(&mut self, intent: &Intent) -> Result<(), LakeError> {
        let mut intent = intent.clone();
        if planted!(RedoneToAnotherEnd) {
            intent.end = self.feed.end();
        }
        let intent = &intent;
        let mut load = Load::new(intent.first);
        while load.end() < intent.end {
            let item = self.next_item(load.end(), intent.end)?;
            match item {
                Some(Item::Batch(batch)) => {
                    self.status.recent.note(&batch.0, &batch.1);
                    load.take(batch.0, batch.1, &*self.names);
                }
                Some(Item::Nothing(entry)) => load.pass(entry),
                Some(Item::Damaged(entries)) => load.take_damaged(entries),
                None => load.pass(intent.end - 1),
            }
        }
        self.prepare(load)?;
        if let Some(commit) = &self.commit {
            self.store.drop_other_files(intent, &commit.files).await?;
            // The intent of another version names other digests: it stays as it is.
        }
        self.write(true).await
    }

    /// The next entry at or after `from` and below `end`.
    fn next_item(&mut self, from: u64, end: u64) -> Result<Option<Item>, LakeError> {
        if self.waiting.is_none() && from < end {
            self.waiting = self.feed.next(from)?;
        }
        let item = self.waiting.take_if(|item| item.entry() < end);
        if let Some(Item::Damaged(entries)) = &item
            && entries.end > end
        {
            self.waiting = Some(Item::Damaged(end..entries.end));
            return Ok(Some(Item::Damaged(entries.start..end)));
        }
        // What is durable and not given is lost, whatever the reason.
        Ok(item
            .or_else(|| (self.waiting.is_none() && from < end).then_some(Item::Damaged(from..end))))
    }

    /// Reads until the flush is due or nothing more is durable below `end`; whether it is due.
    fn fill(&mut self, end: u64, now: i64) -> Result<bool, LakeError> {
        while !self.load.is_due() {
            let Some(item) = self.next_item(self.load.end(), end)? else {
                return Ok(false);
            };
            match item {
                Item::Nothing(entry) => self.load.pass(entry),
                Item::Damaged(entries) => {
                    if !self.load.has_room_for_damage() {
                        self.waiting = Some(Item::Damaged(entries));
                        return Ok(true);
                    }
                    self.load.take_damaged(entries);
                }
                Item::Batch(batch) => {
                    let (origin, content) = *batch;
                    self.status.recent.note(&origin, &content);
                    if let Offer::Full(back) = self.load.offer(origin, content, &*self.names) {
                        self.waiting = Some(Item::Batch(back));
                        return Ok(true);
                    }
                }
            }
            self.since.get_or_insert(now);
        }
        Ok(true)
    }

    /// Makes the bytes of a flush.
    fn prepare(&mut self, load: Load) -> Result<(), LakeError> {
        let plan = load.plan();
        let span = Span {
            log: self.store.log(),
            first: plan.first(),
            end: plan.end(),
        };
        let files = (self.files_of)(span, &plan)?;
        let refused = plan.refused().len() as u64;
        let damaged = plan.damaged();
        self.commit = Some(Commit {
            span,
            files,
            sums: plan.sums().clone(),
            refused,
            damaged,
        });
        Ok(())
    }

    /// Writes what was prepared, in three steps; `redo` when its intent is there already.
    async fn write(&mut self, redo: bool) -> Result<(), LakeError> {
        let Some(commit) = &self.commit else {
            return Ok(());
        };
        let span = commit.span;
        let count = commit.files.len() as u64;
        if !redo && !planted!(NoIntent) {
            self.store.begin(span, &commit.files).await?;
        }
        if planted!(DoneBeforeFiles) {
            self.store.finish(span, &commit.sums, count).await?;
        }
        self.store.put(commit.files.clone()).await?;
        self.store.finish(span, &commit.sums, count).await?;
        let rows: u64 = commit.sums.values().map(|sum| sum.rows).sum();
        let of = |lane: Lane| -> u64 {
            let sums = commit.sums.iter();
            let of_lane = sums.filter(|((_, key), _): &(&(_, LaneKey), &Sum)| key.lane == lane);
            of_lane.map(|(_, sum)| sum.rows).sum()
        };
        let (alerts, aggregates) = (of(Lane::Alerts), of(Lane::Aggregates));
        self.status.rows.fetch_add(rows, Ordering::Relaxed);
        self.status.alerts.fetch_add(alerts, Ordering::Relaxed);
        self.status
            .aggregates
            .fetch_add(aggregates, Ordering::Relaxed);
        self.status.files.fetch_add(count, Ordering::Relaxed);
        self.status
            .refused
            .fetch_add(commit.refused, Ordering::Relaxed);
        self.status
            .damaged
            .fetch_add(commit.damaged, Ordering::Relaxed);
        metrics::counter!("tributary_aggregator_lake_damaged_entries_total")
            .increment(commit.damaged);
        self.status.flushes.fetch_add(1, Ordering::Relaxed);
        self.status.position.store(span.end, Ordering::Release);
        metrics::counter!("tributary_aggregator_lake_rows_total").increment(rows);
        metrics::counter!("tributary_aggregator_lake_alerts_total").increment(alerts);
        metrics::counter!("tributary_aggregator_lake_aggregates_total").increment(aggregates);
        metrics::counter!("tributary_aggregator_lake_files_total").increment(count);
        self.commit = None;
        self.since = None;
        self.load = Load::new(span.end);
        self.progress.chain.push((span.first, span.end));
        self.progress.position = span.end;
        Ok(())
    }

    /// Flushes what was read, if anything was.
    async fn flush(&mut self) -> Result<(), LakeError> {
        if self.commit.is_none() {
            if self.load.is_empty() {
                return Ok(());
            }
            let from = Load::new(self.progress.position);
            let load = std::mem::replace(&mut self.load, from);
            if let Err(error) = self.prepare(load) {
                // Nothing of it was written: what is tried next begins where the lake stands.
                self.waiting = None;
                self.since = None;
                return Err(error);
            }
        }
        self.write(false).await?;
        if self.progress.chain.len() >= DONE_MARKERS_MAX {
            self.tidy().await;
            self.progress = self.store.progress().await?.0;
        }
        Ok(())
    }

    /// Markers that say nothing any more hold nothing up: what can't be tidied stays.
    async fn tidy(&mut self) {
        if let Err(error) = self.store.tidy(&self.progress).await {
            tracing::warn!(%error, "the lake's markers could not be tidied");
        }
    }

    /// Writes everything that is durable at this moment; gives the position reached.
    ///
    /// # Errors
    /// What could not be written, and why.
    pub async fn flush_all(&mut self, now: i64) -> Result<u64, LakeError> {
        let end = self.feed.end();
        while self.progress.position < end {
            if self.commit.is_none() {
                self.fill(end, now)?;
            }
            self.flush().await?;
        }
        Ok(self.progress.position)
    }

    /// One step: reads what is durable, and flushes what is due. Says when the next flush will be,
    /// if nothing more becomes durable; nothing when none waits. Times are microseconds on a clock
    /// that never goes back. Over a store that never waits, neither does it.
    ///
    /// # Errors
    /// What could not be written, and why; nothing is lost, and the next step tries it again. See
    /// [`LakeError::is_final`].
    pub async fn step(&mut self, now: i64) -> Result<Option<i64>, LakeError> {
        loop {
            let due = self.commit.is_some() || self.fill(self.feed.end(), now)? || self.is_old(now);
            if !due {
                return Ok(self.old_at());
            }
            self.flush().await?;
        }
    }

    /// When what was read is old enough for its flush.
    fn old_at(&self) -> Option<i64> {
        let interval = self.config.flush_interval.as_micros();
        let interval = i64::try_from(interval).unwrap_or(i64::MAX);
        self.since.map(|since| since.saturating_add(interval))
    }

    fn is_old(&self, now: i64) -> bool {
        self.old_at().is_some_and(|at| at <= now)
    }

    /// Runs until `stop`, then writes everything that is durable and ends.
    ///
    /// # Errors
    /// What the last flush met.
    pub async fn run(
        mut self,
        mut durable: watch::Receiver<u64>,
        mut requests: LakeRequests,
        stop: CancellationToken,
    ) -> Result<u64, LakeError> {
        let clock = Clock::start();
        let mut state = State::Well;
        loop {
            if state == State::Well {
                let result = self.step(clock.now()).await;
                state = self.note(result.map(|_| ()));
            }
            let at = self.deadline(state, clock.now());
            match next_event((clock, at), state, &mut durable, &mut requests, &stop).await {
                Event::Again => state = State::Well,
                Event::Request(reply) => {
                    let result = self.flush_all(clock.now()).await;
                    let answer = result.as_ref().map(|at| *at).map_err(ToString::to_string);
                    state = self.note(result.map(|_| ()));
                    // Whoever asked may have gone.
                    let _ = reply.send(answer);
                }
                Event::Stop => return self.flush_all(clock.now()).await,
            }
        }
    }

    /// Keeps what went wrong for whoever looks.
    fn note(&self, result: Result<(), LakeError>) -> State {
        match result {
            Ok(()) => {
                self.status.set_trouble(None);
                State::Well
            }
            Err(error) => {
                if self.status.trouble().as_deref() != Some(&error.to_string()) {
                    tracing::error!(%error, "the lake does not get on");
                }
                metrics::counter!("tributary_aggregator_lake_errors_total").increment(1);
                self.status.set_trouble(Some(error.to_string()));
                if error.is_final() {
                    State::Stuck
                } else {
                    State::Failed
                }
            }
        }
    }

    /// When to look again if nothing happens; never when only a person can help.
    fn deadline(&self, state: State, now: i64) -> Option<i64> {
        match state {
            State::Stuck => None,
            State::Failed => Some(now.saturating_add((FLUSH_RETRY_MS * 1_000) as i64)),
            State::Well => self.old_at(),
        }
    }
}

/// The only place where the lake waits. Cancel safe: a watch keeps its value, a channel its
/// requests, a token stays cancelled, and a deadline is computed anew.
async fn next_event(
    (clock, deadline): (Clock, Option<i64>),
    state: State,
    durable: &mut watch::Receiver<u64>,
    requests: &mut LakeRequests,
    stop: &CancellationToken,
) -> Event {
    tokio::select! {
        biased;
        () = stop.cancelled() => Event::Stop,
        Some(reply) = requests.recv() => Event::Request(reply),
        Ok(()) = durable.changed(), if state == State::Well => Event::Again,
        () = clock.sleep_until(deadline.unwrap_or_default()), if deadline.is_some() => Event::Again,
    }
}

#[cfg(test)]
mod tests;
