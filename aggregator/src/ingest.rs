//! Ingest: agents connect over QUIC with certificates of our CA, and send sealed batches.
//!
//! It verifies what arrives and hands it to the keeper; it never decides whether a batch is new,
//! and acknowledges only what the keeper says is durable.

pub mod endpoint;
pub mod identity;
pub mod talk;

mod bucket;
mod connection;
mod reset;
mod stream;

use crate::keeper::KeeperHandle;
use crate::limits::{
    BATCHES_HELD_BYTES_MAX, CONNECTIONS_MAX, GOODBYE_SECONDS_MAX, HANDSHAKE_SECONDS_MAX,
    HANDSHAKES_BEFORE_RETRY,
};
use identity::{Identity, IdentityError, identity};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tributary_protocol::message::RejectCode;

/// What every connection shares.
#[derive(Clone, Debug)]
pub struct Ingest {
    keeper: KeeperHandle,
    trust_domain: Arc<str>,
    budget: Arc<Semaphore>,
    stop: CancellationToken,
    handshakes: Arc<AtomicUsize>,
    connections: TaskTracker,
}

impl Ingest {
    /// Ingest for the agents of a trust domain; it ends with `stop`.
    pub fn new(keeper: KeeperHandle, trust_domain: &str, stop: CancellationToken) -> Self {
        Self {
            keeper,
            trust_domain: trust_domain.into(),
            budget: Arc::new(Semaphore::new(BATCHES_HELD_BYTES_MAX)),
            stop,
            handshakes: Arc::default(),
            connections: TaskTracker::new(),
        }
    }

    /// How many agents are connected or connecting.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Accepts connections until the end, then waits for those that are open.
    pub async fn run(self, endpoint: quinn::Endpoint) {
        loop {
            // Cancel safe: what is not accepted waits in the endpoint.
            let incoming = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                incoming = endpoint.accept() => incoming,
            };
            match incoming {
                Some(incoming) => self.admit(incoming),
                None => break,
            }
        }
        self.connections.close();
        self.connections.wait().await;
        endpoint.close((RejectCode::Closing as u32).into(), b"shutting down");
        let limit = Duration::from_secs(GOODBYE_SECONDS_MAX);
        // Everything was acknowledged before: whoever does not hear it comes again.
        let _ = tokio::time::timeout(limit, endpoint.wait_idle()).await;
    }

    fn admit(&self, incoming: quinn::Incoming) {
        if self.connections.len() >= CONNECTIONS_MAX {
            metrics::counter!("tributary_aggregator_refused_connections_total").increment(1);
            return incoming.refuse();
        }
        let loaded = self.handshakes.load(Ordering::Relaxed) >= HANDSHAKES_BEFORE_RETRY;
        if loaded && !incoming.remote_address_validated() && incoming.may_retry() {
            // A failed answer is as good as a lost one: the peer tries again.
            let _ = incoming.retry();
            return;
        }
        let ingest = self.clone();
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        self.connections.spawn(async move {
            let shaken = ingest.handshake(incoming).await;
            ingest.handshakes.fetch_sub(1, Ordering::Relaxed);
            if let Some((identity, connection)) = shaken {
                metrics::counter!("tributary_aggregator_connections_total").increment(1);
                connection::serve(ingest, identity, connection).await;
            }
        });
    }

    async fn handshake(&self, incoming: quinn::Incoming) -> Option<(Identity, quinn::Connection)> {
        let from = incoming.remote_address();
        let limit = Duration::from_secs(HANDSHAKE_SECONDS_MAX);
        let connecting = incoming.accept().ok()?;
        let connection = match tokio::time::timeout(limit, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                metrics::counter!("tributary_aggregator_failed_handshakes_total").increment(1);
                tracing::info!(%from, %error, "handshake failed");
                return None;
            }
            Err(_) => {
                metrics::counter!("tributary_aggregator_failed_handshakes_total").increment(1);
                tracing::info!(%from, "handshake took longer than {HANDSHAKE_SECONDS_MAX} s");
                return None;
            }
        };
        match self.identify(&connection) {
            Ok(identity) => Some((identity, connection)),
            Err(error) => {
                metrics::counter!("tributary_aggregator_failed_handshakes_total").increment(1);
                tracing::warn!(%from, %error, "certificate of our CA that names no agent");
                let reason = error.to_string();
                connection.close((RejectCode::Forbidden as u32).into(), reason.as_bytes());
                None
            }
        }
    }

    fn identify(&self, connection: &quinn::Connection) -> Result<Identity, IdentityError> {
        let any = connection.peer_identity().ok_or(IdentityError::Missing)?;
        let chain = any.downcast::<Vec<CertificateDer<'static>>>();
        let chain = chain.map_err(|_| IdentityError::Missing)?;
        let leaf = chain.first().ok_or(IdentityError::Missing)?;
        identity(leaf, &self.trust_domain)
    }
}
