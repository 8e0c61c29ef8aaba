//! The sinks of a running aggregator: a thread each, started together and ended together.

use super::postgres::Postgres;
use super::run::Running;
use super::status::SinkStatus;
use super::tap::Shared;
use crate::config::{SinkConfig, Target};
use crate::keeper::KeeperParts;
use crate::lake::sink::Feed;
use crate::lake::source::JournalFeed;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Sinks that run. Dropping it stops them without waiting.
#[derive(Debug)]
pub struct Fed {
    statuses: Vec<Arc<SinkStatus>>,
    threads: Vec<JoinHandle<u64>>,
    stop: CancellationToken,
}

/// A number that another process would not have drawn.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

type Work = Box<dyn FnOnce() -> u64 + Send>;

impl Fed {
    /// Starts every sink; `thread` makes a thread of its name and work.
    ///
    /// # Errors
    /// What `thread` says.
    pub fn start<E>(
        sinks: &[SinkConfig],
        parts: &KeeperParts,
        thread: impl Fn(Work) -> Result<JoinHandle<u64>, E>,
    ) -> Result<Self, E> {
        let feed = || Box::new(JournalFeed::new(parts.reader.clone(), parts.log));
        let shared = Shared::new(feed());
        let mut fed = Self {
            statuses: Vec::new(),
            threads: Vec::new(),
            stop: CancellationToken::new(),
        };
        for sink in sinks {
            let own = feed();
            let begun = own.first();
            let status = Arc::new(SinkStatus::new(&sink.name, sink.required));
            let Target::Postgres(config) = sink.target.clone();
            let running = Running {
                sink: Postgres::new(config, Box::new(parts.books.clone()), begun),
                log: parts.log,
                tap: shared.tap(own),
                pace: sink.pace,
                status: Arc::clone(&status),
                random,
            };
            let work = work(running, parts.durable.clone(), fed.stop.clone());
            fed.threads.push(thread(work)?);
            fed.statuses.push(status);
        }
        Ok(fed)
    }

    /// What is known about each.
    pub fn statuses(&self) -> &[Arc<SinkStatus>] {
        &self.statuses
    }

    /// Lets each deliver what is durable, if it can, and end. Whether all ended as they should.
    pub async fn end(&mut self) -> bool {
        self.stop.cancel();
        let mut well = true;
        for thread in self.threads.drain(..) {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            well &= matches!(joined, Ok(Ok(_)));
        }
        well
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn work(
    running: Running<Postgres>,
    durable: watch::Receiver<u64>,
    stop: CancellationToken,
) -> Work {
    let runtime = tokio::runtime::Handle::current();
    Box::new(move || runtime.block_on(running.run(durable, stop)))
}
