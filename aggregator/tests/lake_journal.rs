//! The lake over a real journal: what a bad disk or a dense batch does to it.

use crate::keeper::{Kept, os};
use crate::sealed::{dense, readings, series};
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tributary_aggregator::keeper::Outcome;
use tributary_aggregator::lake::commit::LakeStore;
use tributary_aggregator::lake::file::{footer, rows};
use tributary_aggregator::lake::load::Content;
use tributary_aggregator::lake::sink::{Feed, Item};
use tributary_aggregator::lake::source::JournalFeed;
use tributary_aggregator::lake::{Lake, LakeConfig, LakeHandle};
use tributary_protocol::limits::BATCH_READINGS_MAX;

/// Entry and rows of the next item.
fn next(feed: &mut JournalFeed, from: u64) -> Option<(u64, usize)> {
    match feed.next(from).unwrap()? {
        Item::Batch(batch) => {
            let rows = match &batch.1 {
                Content::Readings(readings) => readings.len(),
                _ => 0,
            };
            Some((batch.0.entry, rows))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_entry_is_decoded_at_a_time() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    assert_eq!(
        kept.offer(session, &series(0, 0, 1)).await,
        Outcome::Durable
    );
    for number in 0..20 {
        let batch = dense(number);
        assert!(
            batch.bytes().len() < 200,
            "not the batch that this is about"
        );
        assert_eq!(kept.offer(session, &batch).await, Outcome::Durable);
    }
    let mut feed = JournalFeed::new(kept.parts.reader.clone(), kept.parts.log);
    assert_eq!(next(&mut feed, 0), Some((0, 0)));
    // In order, again, with a jump, and from before: what was read ahead does not mislead it.
    for entry in [1, 2, 2, 17, 3, 20] {
        assert_eq!(next(&mut feed, entry), Some((entry, BATCH_READINGS_MAX)));
    }
    assert_eq!(next(&mut feed, 21), None);
    kept.end().await;
}

/// What stands in the table `gaps` of a lake written now from this journal: first, count, readings,
/// agent and reason; and how many rows of readings lie beside it.
async fn written(kept: &Kept) -> (Vec<(i64, i64, Option<i64>, String, String)>, usize, u64) {
    let Written {
        gaps,
        rows,
        damaged,
        ..
    } = write_lake(kept).await;
    for (first, count, .., detail) in &gaps {
        let range = format!("{first}..{}", first + count);
        assert!(detail.contains(&range), "{range}");
    }
    let gaps = gaps.into_iter();
    let gaps = gaps
        .map(|(first, count, readings, agent, reason, _)| (first, count, readings, agent, reason));
    (gaps.collect(), rows, damaged)
}

/// A lake that was just written from a journal.
pub struct Written {
    /// First, count, readings, agent, reason and words of every gap.
    pub gaps: Vec<(i64, i64, Option<i64>, String, String, String)>,
    /// Rows of readings.
    pub rows: usize,
    /// Rows by lane.
    pub lanes: BTreeMap<String, usize>,
    /// Batches of all footers, and their hash sum.
    pub sum: (u64, u128),
    /// Entries that are damaged.
    pub damaged: u64,
}

/// Writes a lake from this journal, and reads it.
pub async fn write_lake(kept: &Kept) -> Written {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let feed = JournalFeed::new(kept.parts.reader.clone(), kept.parts.log);
    let (handle, requests) = LakeHandle::new();
    let config = LakeConfig {
        flush_interval: Duration::from_secs(3600),
    };
    let names = Box::new(kept.parts.books.clone());
    let lake_store = LakeStore::new(Arc::clone(&store), None, kept.parts.log);
    let lake = Lake::open(config, lake_store, Box::new(feed), names, &handle)
        .await
        .unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let durable = kept.parts.durable.clone();
    let end = lake.run(durable, requests, stop).await.unwrap();
    assert_eq!(end, kept.entries());
    let mut written = Written {
        gaps: Vec::new(),
        rows: 0,
        lanes: BTreeMap::new(),
        sum: (0, 0),
        damaged: handle.status().damaged(),
    };
    for object in store.list(None).try_collect::<Vec<_>>().await.unwrap() {
        let path = object.location.to_string();
        let bytes = store.get(&object.location).await.unwrap();
        let bytes = bytes.bytes().await.unwrap();
        let is_gaps = path.starts_with("gaps/");
        if !is_gaps && !path.starts_with("readings/") {
            continue;
        }
        for lane in footer(&path, &bytes).unwrap().lanes {
            written.sum.0 += lane.batches;
            let hashes = u128::from_str_radix(&lane.hash_sum, 16).unwrap();
            written.sum.1 = written.sum.1.wrapping_add(hashes);
        }
        for batch in rows(&path, &bytes).unwrap() {
            let text = |name| {
                let column = batch.column_by_name(name).unwrap();
                column.as_string::<i32>().clone()
            };
            if !is_gaps {
                written.rows += batch.num_rows();
                for i in 0..batch.num_rows() {
                    let lane = text("lane").value(i).to_owned();
                    *written.lanes.entry(lane).or_default() += 1;
                }
                continue;
            }
            let whole = |name| {
                let column = batch.column_by_name(name).unwrap();
                column.as_primitive::<Int64Type>().clone()
            };
            for i in 0..batch.num_rows() {
                let lost = whole("readings");
                written.gaps.push((
                    whole("first").value(i),
                    whole("count").value(i),
                    (!lost.is_null(i)).then(|| lost.value(i)),
                    text("agent").value(i).to_owned(),
                    text("reason").value(i).to_owned(),
                    text("detail").value(i).to_owned(),
                ));
            }
        }
    }
    written
}

#[tokio::test]
async fn a_damaged_entry_stands_in_the_lake_as_a_gap() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    assert_eq!(
        kept.offer(session, &series(0, 0, 3)).await,
        Outcome::Durable
    );
    for number in 0..40 {
        let batch = readings(number, 3, 1_000, 0);
        assert_eq!(kept.offer(session, &batch).await, Outcome::Durable);
    }
    assert_eq!(written(&kept).await, (vec![], 40_000, 0));
    let segments = kept.parts.reader.segments();
    kept.end().await;

    // A bad sector in the middle of the second segment.
    let path = &segments[1].path;
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let (gaps, rows, damaged) = written(&kept).await;
    kept.end().await;
    let [(at, 1, None, agent, reason)] = &gaps[..] else {
        panic!("{gaps:?}")
    };
    assert!(segments[1].first <= *at as u64 && (*at as u64) < segments[1].end);
    assert_eq!((&**agent, &**reason), ("", "damaged"));
    assert_eq!((rows, damaged), (39_000, 1));

    // The oldest segment has lost its header: nothing in it can be found.
    let path = &segments[0].path;
    let mut bytes = std::fs::read(path).unwrap();
    bytes[..4096].fill(0);
    std::fs::write(path, bytes).unwrap();
    for _ in 0..2 {
        let kept = Kept::start(&os(), dir.path(), 0).unwrap();
        let (gaps, rows, damaged) = written(&kept).await;
        kept.end().await;
        let headless = segments[0].end;
        assert_eq!((gaps[0].0, gaps[0].1), (0, headless as i64));
        assert_eq!((gaps.len(), damaged), (2, headless + 1));
        // The definitions were in it: the checkpoint has them.
        assert_eq!(rows as u64, 39_000 - (headless - 1) * 1_000);
    }
}
