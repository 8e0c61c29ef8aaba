//! What goes on beside the stages until the agent is told to stop. No reading comes through here.

use super::Ended;
use crate::control::{Control, Desk};
use crate::deadletter::put_back::Putter;
use crate::seal::Sleep;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Has what can't be stored given up, once the time to drain is over. Late is safe: what is not
/// sealed by then stays in the log.
pub(super) async fn give_up_after(
    stop: CancellationToken,
    deadline: Duration,
    pause: Arc<Sleep>,
) -> Ended {
    stop.cancelled().await;
    tokio::time::sleep(deadline).await;
    pause.give_up();
    Ended::Deadline
}

/// Answers commands until `stop`; no other stage waits for that.
pub(super) fn answer_commands(
    stages: &mut JoinSet<Ended>,
    data_dir: &Path,
    (putter, desk): (Putter, Desk),
    stop: &CancellationToken,
) {
    if let Some(control) = Control::bind(data_dir, putter, desk) {
        let stop = stop.clone();
        stages.spawn(async move {
            control.run(stop).await;
            Ended::Control
        });
    }
}
