//! The keeper goes on: nothing that a crash, a bad disk or an agent leaves stops it for good.

use crate::keeper::{Kept, SMALL, checkpoints, config, os};
use crate::sealed::{gap, readings, redefined, series};
use tempfile::TempDir;
use tributary_aggregator::keeper::{Keeper, Outcome, StoreError};
use tributary_journal::SegmentInfo;
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::{LogId, Session};
use tributary_protocol::message::AgainReason;

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

/// Spoils one byte of this batch in the journal.
fn spoil_in_journal(kept_segments: &[SegmentInfo], batch: &SealedBatch) {
    for segment in kept_segments {
        let mut bytes = std::fs::read(&segment.path).unwrap();
        let wanted = batch.bytes();
        let found = bytes.windows(wanted.len()).position(|at| at == wanted);
        if let Some(at) = found {
            bytes[at + wanted.len() / 2] ^= 1;
            std::fs::write(&segment.path, bytes).unwrap();
            return;
        }
    }
    panic!("the batch is not in the journal");
}

#[tokio::test]
async fn damaged_definitions_are_asked_for_again_with_those_behind_them() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    let (first, second) = (series(0, 0, 2), series(1, 2, 1));
    // The checkpoint of the first segment stands behind its first entry.
    for batch in [&gap(0), &first, &second, &readings(1, 3, 9, 0), &gap(2)] {
        assert_eq!(kept.offer(session, batch).await, Outcome::Durable);
    }
    let segments = kept.parts.reader.segments();
    kept.end().await;
    spoil_in_journal(&segments, &first);

    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    assert_eq!(kept.parts.recovered.from, 1, "the checkpoint has them");
    let (welcome, _) = kept.hello().await;
    assert_eq!(welcome.lanes[0].ranges, [], "held, and not in the book");
    let session = welcome.session;
    let after = readings(3, 3, 9, 0);
    assert_eq!(
        kept.offer(session, &after).await,
        Outcome::Again(AgainReason::SeriesUnknown)
    );
    for batch in [&first, &second, &after] {
        assert_eq!(kept.offer(session, batch).await, Outcome::Durable);
    }
    kept.end().await;
}

#[tokio::test]
async fn definitions_in_quarantine_take_what_needs_them_along() {
    let dir = TempDir::new().unwrap();
    let mut kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let mut session = kept.hello().await.0.session;
    assert_eq!(
        kept.offer(session, &series(0, 0, 2)).await,
        Outcome::Durable
    );
    // Series 1 a second time, as something else, and two new ones behind it.
    let other = redefined(1, 1, 3);
    for again in [true, true, false] {
        let outcome = kept.offer(session, &other).await;
        assert_eq!(outcome == Outcome::Again(AgainReason::Damaged), again);
        assert_eq!(outcome == Outcome::Durable, !again);
    }
    // What the good definitions suffice for is taken; whatever needs more, and more definitions,
    // are quarantined too, also after a restart from journal and from checkpoint.
    for life in 0..3_u64 {
        let good = readings(life * 1_000, 2, 9, 0);
        assert_eq!(kept.offer(session, &good).await, Outcome::Durable);
        for batch in [
            readings(life * 1_000 + 1, 4, 9, 0),
            series(2 + life, 4 + life as u32, 1),
        ] {
            for again in [true, true, false] {
                let outcome = kept.offer(session, &batch).await;
                assert_eq!(outcome == Outcome::Durable, !again, "{outcome:?}");
            }
        }
        if life == 1 {
            let many = (2..60).map(|n| readings(life * 1_000 + n, 2, 1_000, 0));
            for batch in many {
                assert_eq!(kept.offer(session, &batch).await, Outcome::Durable);
            }
            assert!(checkpoints(&dir).len() == 2);
        }
        kept.end().await;
        kept = Kept::start(&os(), dir.path(), 0).unwrap();
        session = kept.hello().await.0.session;
    }
    kept.end().await;
}

#[tokio::test]
async fn a_checkpoint_that_failed_is_tried_again_without_a_new_segment() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), u64::MAX).unwrap();
    let session = kept.hello().await.0.session;
    assert_eq!(
        kept.offer(session, &series(0, 0, 3)).await,
        Outcome::Durable
    );
    fill(&kept, session, 0..20).await;
    let before = checkpoints(&dir);
    // Nothing can be written where the checkpoints are: the folder is away.
    let (ledger, away) = (dir.path().join("ledger"), dir.path().join("away"));
    std::fs::rename(&ledger, &away).unwrap();
    let segments = kept.parts.reader.segments().len();
    let mut number = 20;
    while kept.parts.reader.segments().len() == segments {
        fill(&kept, session, number..number + 1).await;
        number += 1;
    }
    std::fs::rename(&away, &ledger).unwrap();
    let held = first(&kept);
    // Nothing is offered any more: the second without a request brings it.
    while checkpoints(&dir) == before || first(&kept) == held {
        tokio::task::yield_now().await;
    }
    kept.end().await;
}

#[tokio::test]
async fn a_journal_that_is_gone_does_not_begin_anew_unseen() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    assert_eq!(kept.offer(session, &gap(0)).await, Outcome::Durable);
    kept.end().await;
    std::fs::remove_dir_all(dir.path().join("journal")).unwrap();
    // The next life has another name, as a rule.
    let mut config = config(dir.path(), SMALL);
    config.new_log = LogId([10; 16]);
    let Err(error) = Keeper::open(&os(), &config) else {
        panic!("it started as if nothing had been")
    };
    assert!(matches!(error, StoreError::JournalGone { .. }), "{error}");
    let ledger = dir.path().join("ledger");
    assert!(error.to_string().contains(&ledger.display().to_string()));
    // What the message says helps, and once begun the new life goes on.
    std::fs::rename(ledger, dir.path().join("ledger.old")).unwrap();
    for _ in 0..2 {
        let kept = Kept::of(Keeper::open(&os(), &config).unwrap(), 0);
        let session = kept.hello().await.0.session;
        assert_eq!(kept.offer(session, &gap(0)).await, Outcome::Durable);
        assert_eq!(kept.entries(), 1);
        kept.end().await;
    }
}
