//! The last stage: what is sealed goes out, where there is somebody to send it to.

use super::Ended;
use crate::spool::AgentSpool;
use tokio::sync::{mpsc, watch};
use tributary_protocol::session::Sender;
use tributary_uplink::{Sealed, Spool, Status, UplinkConfig};

/// Sends what is sealed, where there is somebody to send it to.
pub(super) async fn forward(
    uplink: Option<UplinkConfig>,
    sender: Sender,
    spool: AgentSpool,
    sealed: mpsc::Receiver<Sealed>,
    status: watch::Sender<Status>,
) -> Ended {
    let drained = match uplink {
        Some(uplink) => tributary_uplink::run(uplink, sender, spool, sealed, status).await,
        None => keep(sender, spool, sealed, status).await,
    };
    Ended::Uplink { drained }
}

/// Stands in for the uplink where none is configured: everything stays in the spool.
async fn keep(
    mut sender: Sender,
    mut spool: AgentSpool,
    mut sealed: mpsc::Receiver<Sealed>,
    status: watch::Sender<Status>,
) -> bool {
    while let Some(batch) = sealed.recv().await {
        sender.on_sealed(batch.key, batch.bytes);
        for shed in spool.take_sheds() {
            sender.on_shed(shed.key, shed.numbers, shed.bytes);
        }
        let (batches, bytes) = sender.backlog();
        status.send_modify(|status| {
            status.problem = Some("no aggregator is configured".to_owned());
            status.backlog_batches = batches;
            status.backlog_bytes = bytes;
        });
    }
    spool.save(&sender.cursor());
    sender.is_drained()
}
