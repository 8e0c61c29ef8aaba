//! Where the cursor is kept: on a thread that may wait for a disk, since the uplink's own drives
//! the connection. When that is to be, is decided elsewhere.

use crate::spool::{Save, Spool};
use std::panic::resume_unwind;
use tokio::task::{JoinError, JoinSet};
use tributary_protocol::session::Sender;

/// Keeps cursors, one at a time. Nothing waits for one: without it a restart sends again what was
/// acknowledged.
#[derive(Default)]
pub(crate) struct Saving {
    under_way: JoinSet<bool>,
    in_place: bool,
}

impl Saving {
    /// Nothing is kept so far. `in_place`: no thread waits for the disk, since it never waits.
    pub(crate) fn new(in_place: bool) -> Self {
        Self {
            under_way: JoinSet::new(),
            in_place,
        }
    }

    /// Begins to keep what is given.
    pub(crate) fn begin(&mut self, save: Save) {
        match self.in_place {
            true => self.under_way.spawn(async move { save() }),
            false => self.under_way.spawn_blocking(save),
        };
    }

    /// Waits for the end of one, and says whether it was kept; for ever where none is under way.
    /// Cancel safe.
    pub(crate) async fn ended(&mut self) -> bool {
        match self.under_way.join_next().await {
            Some(ended) => whole(ended),
            None => std::future::pending().await,
        }
    }

    /// Keeps what is acknowledged by now, where nothing is being kept.
    pub(crate) async fn finish(&mut self, spool: &mut impl Spool, sender: &Sender) {
        self.begin(spool.save(&sender.cursor()));
        // One that was not kept lets what was acknowledged be sent again.
        let _ = self.ended().await;
    }
}

/// What panicked there, panics here.
fn whole(ended: Result<bool, JoinError>) -> bool {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(kept) => kept,
        Err(Ok(panic)) => resume_unwind(panic),
        Err(Err(_)) => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;
    use tributary_protocol::ids::BufferId;

    #[tokio::test]
    async fn a_slow_disk_holds_up_nobody_and_is_heard_of_when_it_is_through() {
        let (begun, begins) = mpsc::sync_channel(1);
        let (end, ended) = mpsc::sync_channel(1);
        let mut saving = Saving::default();
        saving.begin(Box::new(move || {
            begun.send(thread::current().id()).unwrap();
            ended.recv().is_ok()
        }));
        assert_ne!(begins.recv().unwrap(), thread::current().id());
        tokio::select! {
            biased;
            _ = saving.ended() => unreachable!("it is being written"),
            () = tokio::task::yield_now() => {}
        }
        end.send(()).unwrap();
        assert!(saving.ended().await);
        assert!(saving.under_way.is_empty());
    }

    #[tokio::test]
    async fn the_last_one_is_waited_for() {
        struct Kept(mpsc::SyncSender<()>);
        impl Spool for Kept {
            fn read(
                &mut self,
                key: tributary_protocol::ids::BatchKey,
            ) -> Result<tributary_protocol::batch::SealedBatch, crate::spool::SpoolError>
            {
                let reason = "nobody reads".to_owned();
                let passing = false;
                Err(crate::spool::SpoolError {
                    key,
                    reason,
                    passing,
                })
            }
            fn trim(&mut self, _: tributary_protocol::session::Trim) {}
            fn save(&mut self, _: &tributary_protocol::session::SenderCursor) -> Save {
                let kept = self.0.clone();
                Box::new(move || kept.send(()).is_ok())
            }
        }
        let (kept, keeps) = mpsc::sync_channel(1);
        let sender = Sender::new(BufferId::new(1, 1), Vec::new());
        Saving::default().finish(&mut Kept(kept), &sender).await;
        assert!(keeps.try_recv().is_ok());
    }
}
