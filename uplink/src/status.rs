//! How the uplink stands, for others to see: at any time, connected or not. It sends nothing.

use crate::limits::TICK;
use crate::saving::Saving;
use crate::spool::{Sealed, Spool};
use tokio::sync::{mpsc, watch};
use tributary_protocol::session::Sender;

/// How the uplink stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether a session is open.
    pub connected: bool,
    /// Where the aggregator is that was reached last; empty before any was.
    pub aggregator: String,
    /// Whether that is not the first of the list.
    pub away: bool,
    /// Why not, in words.
    pub problem: Option<String>,
    /// Round trip of the link, in microseconds.
    pub rtt_us: u64,
    /// Batches durable here and not acknowledged.
    pub backlog_batches: u64,
    /// Their bytes, about.
    pub backlog_bytes: u64,
    /// Batches that another aggregator may hold, without having said so.
    pub in_doubt_batches: u64,
    /// Sessions opened since the start.
    pub sessions: u64,
    /// Bytes of sealed batches sent since the start, repeats included.
    pub batch_bytes_sent: u64,
    /// Bytes of UDP payload sent since the start.
    pub udp_bytes_sent: u64,
    /// Batches that could not be read from the spool.
    pub unreadable: u64,
    /// Batches that an aggregator had acknowledged and lost, and that were sent again.
    pub went_back_again: u64,
    /// Those among them that were gone from here by then.
    pub went_back_gone: u64,
    /// Sessions that ended because another machine with this identity began one.
    pub fenced: u64,
    /// Those of the last hour, at most [`FENCES_KEPT`](crate::limits::FENCES_KEPT).
    pub fenced_last_hour: u64,
}

impl Status {
    /// Before anything is connected.
    pub fn of(sender: &Sender) -> Self {
        let mut status = Self::default();
        status.show_backlog(sender);
        status
    }

    /// Takes in what is not acknowledged; whether that changed.
    pub fn show_backlog(&mut self, sender: &Sender) -> bool {
        let (batches, bytes) = sender.backlog();
        let now = (batches, bytes, sender.in_doubt());
        let told = (
            &mut self.backlog_batches,
            &mut self.backlog_bytes,
            &mut self.in_doubt_batches,
        );
        let before = (*told.0, *told.1, *told.2);
        (*told.0, *told.1, *told.2) = now;
        before != now
    }
}

/// Tells the sender what its spool gave up, and everybody what is left.
pub(crate) fn look(sender: &mut Sender, spool: &mut impl Spool, status: &watch::Sender<Status>) {
    for shed in spool.take_sheds() {
        sender.on_shed(shed.key, shed.numbers, shed.bytes);
    }
    status.send_if_modified(|status| status.show_backlog(sender));
}

/// Stands in for [`run`](crate::run()) where there is nobody to send to: everything stays in the
/// spool. Returns whether there was nothing.
pub async fn keep(
    mut sender: Sender,
    mut spool: impl Spool,
    mut sealed: mpsc::Receiver<Sealed>,
    status: watch::Sender<Status>,
) -> bool {
    let problem = Some("no aggregator is configured".to_owned());
    status.send_modify(|status| status.problem = problem);
    loop {
        look(&mut sender, &mut spool, &status);
        match tokio::time::timeout(TICK, sealed.recv()).await {
            Ok(Some(batch)) => sender.on_sealed(batch.key, batch.bytes),
            Ok(None) => break,
            // The spool gives up what is too old, too.
            Err(_) => {}
        }
    }
    Saving::default().finish(&mut spool, &sender).await;
    sender.is_drained()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::spool::{Save, Shed, SpoolError};
    use tributary_protocol::batch::SealedBatch;
    use tributary_protocol::ids::{BatchKey, BufferId, Lane};
    use tributary_protocol::session::{LaneStart, SenderCursor, Trim};

    /// Gave up what it says, and holds nothing to read.
    struct Giving(Vec<Shed>);

    impl Spool for Giving {
        fn read(&mut self, key: BatchKey) -> Result<SealedBatch, SpoolError> {
            let reason = "nobody reads".to_owned();
            Err(SpoolError {
                key,
                reason,
                passing: false,
            })
        }
        fn take_sheds(&mut self) -> Vec<Shed> {
            std::mem::take(&mut self.0)
        }
        fn trim(&mut self, _: Trim) {}
        fn save(&mut self, _: &SenderCursor) -> Save {
            Box::new(|| true)
        }
    }

    #[tokio::test]
    async fn what_is_held_is_told_before_anything_is_connected_or_sealed() {
        let buffer = BufferId::new(1, 1);
        let key = BatchKey {
            buffer,
            lane: Lane::Telemetry,
            number: 0,
        };
        let start = LaneStart {
            key: key.lane_key(),
            first: 0,
            end: 10,
            bytes: 1_000,
            acked: Vec::new(),
        };
        let sender = Sender::new(buffer, vec![start]);
        let (status, mut seen) = watch::channel(Status::of(&sender));
        let of = |status: &Status| (status.backlog_batches, status.backlog_bytes);
        assert_eq!(of(&seen.borrow()), (10, 1_000));
        let spool = Giving(vec![Shed {
            key: key.lane_key(),
            numbers: 0..4,
            bytes: 400,
        }]);
        let (sealed, queue) = mpsc::channel(1);
        let told = async {
            let told = seen.wait_for(|status| of(status) == (7, 600)).await;
            assert!(
                told.is_ok(),
                "nothing was sealed, and it is told all the same"
            );
            drop(sealed);
        };
        let (drained, ()) = tokio::join!(keep(sender, spool, queue, status), told);
        assert!(!drained);
    }
}
