//! A sink's loop: does what [`Courier`] says, and tells it how that went. It decides nothing.

use super::courier::{Courier, Pace, Step};
use super::sink::{Sink, SinkError};
use super::status::SinkStatus;
use super::tap::Tap;
use crate::clock::Clock;
use crate::lake::sink::Item;
use crate::limits::SINK_CALL_SECONDS_MAX;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tributary_protocol::ids::LogId;

/// What a sink's loop works with.
pub struct Running<S> {
    /// The target.
    pub sink: S,
    /// The journal.
    pub log: LogId,
    /// Its entries.
    pub tap: Tap,
    /// When a chunk goes.
    pub pace: Pace,
    /// What is known about it from outside.
    pub status: Arc<SinkStatus>,
    /// Random numbers, for pauses.
    pub random: fn() -> u64,
}

/// A step, for so long at most: what hangs is given up like what failed.
async fn bounded<T>(step: impl Future<Output = Result<T, SinkError>>) -> Result<T, SinkError> {
    let limit = Duration::from_secs(SINK_CALL_SECONDS_MAX);
    tokio::time::timeout(limit, step).await.unwrap_or_else(|_| {
        Err(SinkError::Again(format!(
            "no answer within {SINK_CALL_SECONDS_MAX} s; it is tried again"
        )))
    })
}

impl<S: Sink> Running<S> {
    /// Runs until `stop`, then delivers what is durable by then if the sink takes it at once, and
    /// ends. Gives the sink's position.
    pub async fn run(mut self, mut durable: watch::Receiver<u64>, stop: CancellationToken) -> u64 {
        let clock = Clock::start();
        let mut courier = Courier::new(self.pace);
        loop {
            let now = clock.now();
            let end = self.tap.end();
            self.status.look(now, end);
            if stop.is_cancelled() {
                if courier.trouble().is_some() || self.status.position() >= end {
                    return self.status.position();
                }
                courier.want(end);
            }
            match courier.poll(now, end) {
                Step::Wait(until) => {
                    tokio::select! {
                        biased;
                        () = stop.cancelled(), if !stop.is_cancelled() => {}
                        Ok(()) = durable.changed() => {}
                        () = clock.sleep_until(until.unwrap_or_default()), if until.is_some() => {}
                        else => return self.status.position(),
                    }
                }
                Step::End => {
                    stop.cancelled().await;
                    return self.status.position();
                }
                step => self.carry_out(step, &mut courier, clock).await,
            }
        }
    }

    async fn carry_out(&mut self, step: Step, courier: &mut Courier, clock: Clock) {
        let result = match step {
            Step::Open => bounded(self.sink.open(self.log)).await.map(|standing| {
                let there = courier.on_open(standing, self.tap.end());
                match there {
                    Some(chunk) => self.status.has(&chunk),
                    None => self.status.stands(standing.next),
                }
            }),
            Step::Deliver => bounded(self.sink.deliver(courier.chunk())).await.map(|()| {
                let chunk = courier.on_delivered();
                self.status.has(&chunk);
            }),
            Step::Attempt(rows) => bounded(self.sink.attempt(courier.chunk(), rows))
                .await
                .map(|()| courier.on_taken()),
            Step::Read(entry) => return self.read(entry, courier, clock),
            Step::Wait(_) | Step::End => return,
        };
        let failed = result.is_err();
        if let Err(error) = result {
            courier.on_failed(clock.now(), error, (self.random)());
        }
        self.status.note(courier.trouble(), failed);
    }

    fn read(&mut self, entry: u64, courier: &mut Courier, clock: Clock) {
        // Where a chunk begins: looking at every entry would cost more than reading it.
        let first = match courier.chunk().is_empty() {
            true => self.tap.first(),
            false => 0,
        };
        if entry < first && self.status.is_required() {
            courier.on_trimmed(first);
            return self.status.note(courier.trouble(), true);
        }
        if entry < first {
            let lost = Item::Damaged(entry..first);
            return courier.on_read(clock.now(), Arc::new(lost));
        }
        let why = match self.tap.next(entry) {
            Ok(Some(item)) => return courier.on_read(clock.now(), item),
            Ok(None) => format!("the journal does not give entry {entry}, which is durable"),
            Err(error) => error.to_string(),
        };
        courier.on_failed(clock.now(), SinkError::Again(why), (self.random)());
        self.status.note(courier.trouble(), true);
    }
}
