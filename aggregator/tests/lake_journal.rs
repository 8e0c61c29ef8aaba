//! The lake over a real journal: what a bad disk or a dense batch does to it.

use crate::keeper::{Kept, os};
use crate::sealed::{dense, series};
use tempfile::TempDir;
use tributary_aggregator::keeper::Outcome;
use tributary_aggregator::lake::load::Content;
use tributary_aggregator::lake::sink::{Feed, Item};
use tributary_aggregator::lake::source::JournalFeed;
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
