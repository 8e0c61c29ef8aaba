//! Reading a state database from another thread than the one that writes it.

use super::{StateDbError, guarded, sled_error};
use std::path::PathBuf;
use std::sync::Arc;

/// Reads what was committed to a [`StateDb`](super::StateDb).
#[derive(Clone, Debug)]
pub struct StateReader {
    pub(super) dir: PathBuf,
    pub(super) tree: sled::Tree,
    /// The last of all: until then sled's threads may write.
    pub(super) _opened: Arc<super::guarded::Opened>,
}

impl StateReader {
    /// The value of a key.
    ///
    /// # Errors
    /// When sled cannot read it.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateDbError> {
        let value = guarded(&self.dir, "read", || {
            let value = self.tree.get(key);
            value.map_err(|error| sled_error(&self.dir, error))
        })?;
        Ok(value.map(|value| value.to_vec()))
    }
}
