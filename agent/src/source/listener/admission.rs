//! Who decides whether a client is let in, and what it is told of its session: first who it is,
//! then what its session is.

use super::super::access::acl::Rights;
use super::super::access::{Identity, Peer, Refused};
use super::super::connection::{Admission, Arrival};
use super::super::registry::Signal;
use super::{Shared, Task, wall_now};
use crate::wal::{Batch, Message};
use metrics::counter;
use std::pin::Pin;
use std::sync::Arc;

/// A decision under way.
pub(super) type Admitting = Pin<Box<dyn Future<Output = Step> + Send>>;

/// A step on the way in.
pub(super) enum Step {
    /// It is known who came, if that matters.
    Identified(Box<Arrival>, Option<Identity>),
    /// It is decided.
    Decided(Admission),
}

impl From<Refused> for Admission {
    fn from(Refused { code, reason }: Refused) -> Self {
        Self::Refused { code, reason }
    }
}

/// Finds out who came.
async fn identify(shared: Arc<Shared>, peer: Peer, mut arrival: Box<Arrival>) -> Step {
    let password = arrival.password.take();
    let user = arrival.user.as_deref();
    match shared.access.identify(&peer, user, password).await {
        Ok(identity) => Step::Identified(arrival, identity),
        Err(refused) => Step::Decided(refused.into()),
    }
}

/// Lets a client in. An older connection with its name ends first: nothing of it comes into the
/// log behind the newer one's.
async fn admit(
    shared: Arc<Shared>,
    signal: Arc<Signal>,
    number: u64,
    client: Box<str>,
    arrival: Box<Arrival>,
) -> Step {
    if shared.registry.name(number, &client) {
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
    Step::Decided(Admission::Granted {
        session_present: opened.present,
        session_expiry_s: opened.expiry_s,
        session_changed: opened.changed,
        subscriptions: opened.subscriptions,
    })
}

/// What a user's client is called among all. Nobody takes over another user's client or session:
/// no name holds U+0000.
fn client_of(user: &str, client_id: &str) -> Box<str> {
    format!("{user}\0{client_id}").into()
}

/// The client id in what a client is called among all.
pub(super) fn client_id_of(client: &str) -> &str {
    client.split_once('\0').map_or(client, |(_, id)| id)
}

/// Cancel safe: the decision goes on where it was.
pub(super) async fn next_step(admitting: &mut Option<Admitting>) -> Step {
    match admitting {
        Some(admitting) => admitting.await,
        None => std::future::pending().await,
    }
}

impl Task {
    /// A client came.
    pub(super) fn arrive(&mut self, arrival: Box<Arrival>) {
        // A connection has one CONNECT: the certificate is not asked for again.
        let peer = Peer {
            address: self.peer.address,
            certificate: self.peer.certificate.take(),
        };
        let shared = Arc::clone(&self.shared);
        self.arriving = arrival.held_bytes();
        self.admitting = Some(Box::pin(identify(shared, peer, arrival)));
    }

    /// The next step of its way in.
    pub(super) fn step(&mut self, step: Step) {
        let decided = match step {
            Step::Identified(arrival, identity) => self.identified(arrival, identity),
            Step::Decided(admission) => Some(admission),
        };
        let Some(admission) = decided else { return };
        self.arriving = 0;
        let mut batch = Batch::new();
        self.core
            .handle_admission(admission, wall_now(), &mut batch);
        self.after_read(batch);
    }

    /// Goes on with a client that is known; or it is decided already.
    fn identified(
        &mut self,
        mut arrival: Box<Arrival>,
        identity: Option<Identity>,
    ) -> Option<Admission> {
        let client = match &identity {
            None => arrival.client_id.clone(),
            Some(identity) => client_of(&identity.user, &arrival.client_id),
        };
        if let Some(identity) = identity {
            arrival.session = Message::session_of(&client);
            if let Err(refused) = self.enter_as(identity, &arrival) {
                return Some(refused.into());
            }
        }
        self.client = Some(client.clone());
        self.arriving = arrival.held_bytes() + client.len();
        let (shared, signal) = (Arc::clone(&self.shared), Arc::clone(&self.signal));
        let admit = admit(shared, signal, self.number, client, arrival);
        self.admitting = Some(Box::pin(admit));
        None
    }

    fn enter_as(&mut self, identity: Identity, arrival: &Arrival) -> Result<(), Refused> {
        let rights = Rights {
            user: Arc::clone(&identity.user),
            client_id: arrival.client_id.clone(),
            grants: Arc::clone(&identity.grants),
        };
        // Known first, and looked at again then: who is gone by now is told, or seen here.
        self.signal.identify(identity.clone());
        let not_authorized = |reason| Refused { code: 0x87, reason };
        if !self.shared.may_stay(&identity) {
            return Err(not_authorized("revoked"));
        }
        if !self.core.handle_identity(arrival.session, rights) {
            return Err(not_authorized("will_topic"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_by_its_id_alone() {
        assert_eq!(client_id_of(&client_of("pump-8", "c77")), "c77");
        assert_eq!(client_id_of("c77"), "c77");
    }
}
