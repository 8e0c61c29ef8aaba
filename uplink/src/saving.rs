//! When the cursor is kept, and where: on a thread that may wait for a disk, since the uplink's own
//! drives the connection. One at a time; what is acknowledged meanwhile is in the next.

use crate::limits::CURSOR_INTERVAL;
use crate::spool::Spool;
use std::panic::resume_unwind;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tributary_protocol::session::Sender;

/// Keeps cursors. Nothing waits for one: without it a restart sends again what was acknowledged.
#[derive(Default)]
pub(crate) struct Saving {
    due: Option<Instant>,
    under_way: JoinSet<()>,
}

impl Saving {
    /// There is something new to keep.
    pub(crate) fn want(&mut self, now: Instant) {
        self.due.get_or_insert(now + CURSOR_INTERVAL);
    }

    /// Begins to keep what is acknowledged by now, if it is time and nothing else is being kept.
    pub(crate) fn look(&mut self, now: Instant, spool: &mut impl Spool, sender: &Sender) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        while let Some(ended) = self.under_way.try_join_next() {
            whole(ended);
        }
        if self.under_way.is_empty() {
            self.due = None;
            self.begin(spool, sender);
        }
    }

    fn begin(&mut self, spool: &mut impl Spool, sender: &Sender) {
        let save = spool.save(&sender.cursor());
        self.under_way.spawn_blocking(save);
    }

    /// Keeps what is acknowledged by now, behind what is being kept.
    pub(crate) async fn finish(&mut self, spool: &mut impl Spool, sender: &Sender) {
        self.settle().await;
        self.begin(spool, sender);
        self.settle().await;
    }

    async fn settle(&mut self) {
        while let Some(ended) = self.under_way.join_next().await {
            whole(ended);
        }
    }
}

/// What panicked there, panics here.
fn whole(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        resume_unwind(panic);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::spool::{Save, SpoolError};
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};
    use tributary_protocol::batch::SealedBatch;
    use tributary_protocol::ids::{BatchKey, BufferId};
    use tributary_protocol::session::{SenderCursor, Trim};

    /// A disk that takes as long as it is told.
    struct Slow {
        begun: mpsc::SyncSender<ThreadId>,
        ended: std::sync::Arc<std::sync::Mutex<mpsc::Receiver<()>>>,
        asked: usize,
    }

    impl Spool for Slow {
        fn read(&mut self, key: BatchKey) -> Result<SealedBatch, SpoolError> {
            let reason = "nobody reads".to_owned();
            let passing = false;
            Err(SpoolError {
                key,
                reason,
                passing,
            })
        }
        fn trim(&mut self, _: Trim) {}
        fn save(&mut self, _: &SenderCursor) -> Save {
            self.asked += 1;
            let (begun, ended) = (self.begun.clone(), self.ended.clone());
            Box::new(move || {
                begun.send(thread::current().id()).unwrap();
                ended.lock().unwrap().recv().unwrap();
            })
        }
    }

    #[tokio::test]
    async fn a_slow_disk_holds_up_nobody_and_has_one_cursor_at_a_time() {
        let (begun, begins) = mpsc::sync_channel(4);
        let (end, ended) = mpsc::sync_channel(4);
        let ended = std::sync::Arc::new(std::sync::Mutex::new(ended));
        let asked = 0;
        let mut spool = Slow {
            begun,
            ended,
            asked,
        };
        let sender = Sender::new(BufferId::new(1, 1), Vec::new());
        let mut saving = Saving::default();
        let mut now = Instant::now();
        saving.want(now);
        saving.look(now, &mut spool, &sender);
        assert_eq!(spool.asked, 0, "not yet");
        now += CURSOR_INTERVAL;
        saving.look(now, &mut spool, &sender);
        assert_ne!(begins.recv().unwrap(), thread::current().id());
        // It is still being written: the next one waits, and has everything by then.
        for _ in 0..3 {
            saving.want(now);
            now += CURSOR_INTERVAL;
            saving.look(now, &mut spool, &sender);
        }
        assert_eq!((spool.asked, begins.try_recv().is_ok()), (1, false));
        for _ in 0..2 {
            end.send(()).unwrap();
        }
        saving.finish(&mut spool, &sender).await;
        assert_eq!((spool.asked, begins.try_iter().count()), (2, 1));
        assert!(saving.under_way.is_empty());
    }
}
