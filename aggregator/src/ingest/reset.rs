//! What lets agents notice at once that the aggregator was started again: the tokens of stateless
//! resets (RFC 9000, section 10.3) are a function of the private key, so that a new process can
//! still end the connections of the one before. Without it, agents would wait for the idle timeout.

use crate::limits::{CONNECTION_ID_BYTES, RESET_INTERVAL};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use std::sync::Arc;
use std::time::Duration;

/// What the key is derived for: nothing else may use this text.
const CONTEXT: &str = "tributary 2026 aggregator stateless reset tokens";

/// The endpoint's settings, for an aggregator with this private key (DER).
pub(super) fn endpoint_config(private_key: &[u8]) -> EndpointConfig {
    let mut config =
        EndpointConfig::new(Arc::new(ResetKey(blake3::derive_key(CONTEXT, private_key))));
    config
        .cid_generator(|| Box::new(RandomIds))
        .min_reset_interval(RESET_INTERVAL);
    config
}

struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let mac = blake3::keyed_hash(&self.0, data);
        for (to, from) in signature_out.iter_mut().zip(mac.as_bytes()) {
            *to = *from;
        }
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let signature: [u8; blake3::OUT_LEN] = signature.try_into().map_err(|_| CryptoError)?;
        // Compared in constant time.
        match blake3::keyed_hash(&self.0, data) == signature {
            true => Ok(()),
            false => Err(CryptoError),
        }
    }
}

/// Connection ids that an earlier process may have given: quinn's own carry a mark of the process,
/// and what lacks it is dropped without a reset.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        rustls::crypto::ring::default_provider()
            .secure_random
            .fill(&mut id)
            .expect("the system gave random numbers when the endpoint was opened");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
