//! What is said of clients that were lost: their wills, at once or later.

use super::super::connection::Will;
use super::super::wills::Fate;
use super::{Batch, Shared, unix_us};
use metrics::counter;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Publishes a will as lost now.
pub(super) async fn publish_will(shared: &Shared, will: &Will) {
    let mut batch = Batch::new();
    will.write(unix_us(), &mut batch);
    if let Some(room) = shared.queue.room(batch.len_bytes()).await {
        shared.queue.push(batch, room);
        counter!("tributary_agent_mqtt_wills_total", "fate" => "published").increment(1);
    }
}

/// Publishes a will when its delay is over or its session is, unless its client comes back.
pub(super) async fn publish_later(
    shared: Arc<Shared>,
    session: u64,
    will: Box<Will>,
    delay: Duration,
    fate: oneshot::Receiver<Fate>,
) {
    let withdrawn = tokio::select! {
        fate = fate => fate == Ok(Fate::Withdrawn),
        () = tokio::time::sleep(delay) => {
            shared.wills.over(session);
            false
        }
    };
    if withdrawn {
        counter!("tributary_agent_mqtt_wills_total", "fate" => "withdrawn").increment(1);
    } else {
        publish_will(&shared, &will).await;
    }
    shared.wills.done(will.held_bytes());
}
