//! The last stage: what is sealed goes out, where there is somebody to send it to.

use super::Ended;
use crate::spool::AgentSpool;
use tokio::sync::{mpsc, watch};
use tributary_protocol::session::Sender;
use tributary_uplink::{Sealed, Status, UplinkConfig};

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
        None => tributary_uplink::keep(sender, spool, sealed, status).await,
    };
    Ended::Uplink { drained }
}
