//! Who decides whether a client is let in, and what it is told of its session.

use super::super::connection::{Admission, Arrival};
use super::super::registry::Signal;
use super::Shared;
use metrics::counter;
use std::pin::Pin;
use std::sync::Arc;

/// A decision under way.
pub(super) type Admitting = Pin<Box<dyn Future<Output = Admission> + Send>>;

/// Decides about an arrival. An older connection with its identifier ends first: nothing of it
/// comes into the log behind the newer one's.
pub(super) async fn admit(
    shared: Arc<Shared>,
    signal: Arc<Signal>,
    number: u64,
    arrival: Box<Arrival>,
) -> Admission {
    if shared.registry.name(number, &arrival.client_id) {
        counter!("tributary_agent_mqtt_takeovers_total").increment(1);
        signal.older_silent().await;
    }
    let Arrival {
        session,
        clean,
        session_expiry_s,
        ..
    } = *arrival;
    let opened = shared.sessions.open(session, clean, session_expiry_s).await;
    shared.wills.came(session, opened.present);
    Admission::Granted {
        session_present: opened.present,
        session_expiry_s: opened.expiry_s,
        session_changed: opened.changed,
    }
}

/// Cancel safe: the decision goes on where it was.
pub(super) async fn admitted(admitting: &mut Option<Admitting>) -> Admission {
    match admitting {
        Some(admitting) => admitting.await,
        None => std::future::pending().await,
    }
}
