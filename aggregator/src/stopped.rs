//! A stopped aggregator, opened by a command that changes what it holds: under the lock of its
//! data directory, and as recovered as when it runs.

use crate::config::Config;
use crate::keeper::{Keeper, KeeperConfig, KeeperParts, StoreError};
use crate::lake::LakeError;
use crate::lake::commit::LakeStore;
use crate::running::{AggregatorError, new_log, whole_journal};
use object_store::local::LocalFileSystem;
use std::sync::Arc;
use tributary_journal::{DirLock, Disk, OsDisk};
use tributary_protocol::ids::LogId;

/// Keeper and files of an aggregator that does not run, nor can while this is there.
pub struct Stopped {
    /// The keeper, which holds what the lake has and its journal lost, too.
    pub keeper: Keeper,
    /// What goes with it.
    pub parts: KeeperParts,
    _lock: DirLock,
}

impl Stopped {
    /// Opens what lies in the data directory of this configuration, where a journal is.
    ///
    /// # Errors
    /// That the aggregator runs, or what does not open, and what to do.
    pub async fn open(config: &Config) -> Result<Self, AggregatorError> {
        let lock = DirLock::acquire(&config.data_dir)?;
        whole_journal(&config.data_dir)?;
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let keeper_config = KeeperConfig {
            dir: config.data_dir.clone(),
            journal: config.journal(),
            new_log: new_log()?,
        };
        let (mut keeper, parts) = Keeper::open(&disk, &keeper_config)?;
        let store = lake_store(config, parts.log)?;
        lake_fits(config, &store, &parts).await?;
        let found = store.find(&parts.unread).await?;
        keeper.take_in(found).map_err(StoreError::from)?;
        Ok(Self {
            keeper,
            parts,
            _lock: lock,
        })
    }
}

/// That nothing is in the lake which the journal does not know: whatever is added to a journal that
/// went back would lie below where the lake stands, and never reach it.
///
/// # Errors
/// That the lake is ahead of the journal, or another's, and what to do.
pub(crate) async fn lake_fits(
    config: &Config,
    store: &LakeStore,
    parts: &KeeperParts,
) -> Result<(), AggregatorError> {
    let journal = *parts.durable.borrow();
    if journal == 0
        && let Some(other) = store.another_log().await?
    {
        let dir = config.lake_dir();
        return Err(AggregatorError::AnotherLog { dir, other });
    }
    let (progress, begun) = store.progress().await?;
    let lake = begun.intent.map_or(progress.position, |intent| intent.end);
    match lake > journal {
        true => Err(LakeError::RolledBack {
            log: parts.log,
            lake,
            journal,
        }
        .into()),
        false => Ok(()),
    }
}

/// The lake of this configuration, as the journal `log` writes it. Its folder is made.
///
/// # Errors
/// When the folder can't be used.
pub(crate) fn lake_store(config: &Config, log: LogId) -> Result<LakeStore, AggregatorError> {
    let dir = config.lake_dir();
    let folder = |reason: String| AggregatorError::LakeFolder {
        path: dir.clone(),
        reason,
    };
    OsDisk
        .create_dir_all(&dir)
        .map_err(|error| folder(error.to_string()))?;
    let dir = dir
        .canonicalize()
        .map_err(|error| folder(error.to_string()))?;
    let store =
        LocalFileSystem::new_with_prefix(&dir).map_err(|error| folder(error.to_string()))?;
    Ok(LakeStore::new(
        Arc::new(store.with_fsync(true)),
        Some(dir),
        log,
    ))
}
