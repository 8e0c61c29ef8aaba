//! A flush whose bytes cannot be made.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::lake::load::SeriesName;
use object_store::memory::InMemory;
use tributary_protocol::ids::{
    AgentId, AgentUuid, BatchHash, BatchKey, BufferId, Lane, LogId, SeriesId,
};

const LOG: LogId = LogId([5; 16]);

struct NoNames;

impl Names for NoNames {
    fn name(&self, _: &AgentId, _: BufferId, _: SeriesId) -> Option<SeriesName> {
        None
    }
}

/// Three entries, each a batch that is kept as it is.
struct Three;

impl Feed for Three {
    fn end(&self) -> u64 {
        3
    }

    fn next(&mut self, from: u64) -> Result<Option<Item>, LakeError> {
        let sealed = bytes::Bytes::from(vec![from as u8; 10]);
        let origin = Origin {
            entry: from,
            agent: AgentId::new("acme", AgentUuid([1; 16])).unwrap(),
            key: BatchKey {
                buffer: BufferId::new(1, 1),
                lane: Lane::Telemetry,
                number: from,
            },
            hash: BatchHash::of(&sealed),
            in_doubt: false,
            sealed,
        };
        let reason = "made so".to_owned();
        let content = Content::Refused { reason };
        Ok((from < 3).then(|| Item::Batch(Box::new((origin, content)))))
    }
}

fn refuse(_: Span, _: &FlushPlan) -> Result<Vec<PlannedFile>, LakeError> {
    Err(arrow_schema::ArrowError::DictionaryKeyOverflowError.into())
}

#[tokio::test]
async fn a_flush_whose_bytes_cannot_be_made_is_neither_forgotten_nor_counted() {
    let store = Arc::new(InMemory::new());
    let (handle, _requests) = LakeHandle::new();
    let config = LakeConfig {
        flush_interval: Duration::ZERO,
    };
    let lake_store = LakeStore::new(store, None, LOG);
    let mut lake = Lake::open(
        config,
        lake_store,
        Box::new(Three),
        Box::new(NoNames),
        &handle,
    )
    .await
    .unwrap();
    lake.files_of = refuse;
    for _ in 0..2 {
        let error = lake.step(0).await.unwrap_err();
        assert!(error.is_final(), "another try gives the same: {error}");
        assert!(lake.flush_all(0).await.is_err());
        assert_eq!(lake.progress.position, 0);
    }
    lake.files_of = files_of;
    assert_eq!(lake.flush_all(0).await.unwrap(), 3);
    assert_eq!(handle.status().refused(), 3, "each batch once");
}
