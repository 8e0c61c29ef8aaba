//! The keeper goes on: nothing that a crash, a bad disk or an agent leaves behind stops it for good.

use crate::keeper::{Kept, checkpoints, os};
use crate::sealed::{readings, series};
use tempfile::TempDir;
use tributary_aggregator::keeper::Outcome;
use tributary_protocol::ids::Session;

/// Offers these batches of readings, all of which are durable then.
async fn fill(kept: &Kept, session: Session, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let batch = readings(number, 3, 1_000, 0);
        assert_eq!(kept.offer(session, &batch).await, Outcome::Durable);
    }
}

fn first(kept: &Kept) -> u64 {
    kept.parts.reader.lives()[0].first
}

#[tokio::test]
async fn three_checkpoints_that_a_kill_left_do_not_stop_trimming() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), u64::MAX).unwrap();
    let session = kept.hello().await.0.session;
    assert_eq!(
        kept.offer(session, &series(0, 0, 3)).await,
        Outcome::Durable
    );
    fill(&kept, session, 0..40).await;
    kept.end().await;
    let oldest = checkpoints(&dir).remove(0);
    let bytes = std::fs::read(&oldest).unwrap();
    // Killed between the rename of the third checkpoint and the removal of the first.
    let kept = Kept::start(&os(), dir.path(), u64::MAX).unwrap();
    let session = kept.hello().await.0.session;
    let mut number = 40;
    while oldest.exists() {
        fill(&kept, session, number..number + 1).await;
        number += 1;
    }
    kept.end().await;
    std::fs::write(&oldest, bytes).unwrap();
    assert_eq!(checkpoints(&dir).len(), 3);

    for _ in 0..2 {
        let kept = Kept::start(&os(), dir.path(), u64::MAX).unwrap();
        let session = kept.hello().await.0.session;
        let before = first(&kept);
        fill(&kept, session, number..number + 40).await;
        number += 40;
        assert!(first(&kept) > before, "nothing was trimmed any more");
        kept.end().await;
    }
}
