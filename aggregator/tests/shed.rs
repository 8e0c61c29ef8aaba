//! Declared losses over several numbers, and events, from the keeper through a restart into the
//! lake: what was delivered and what is declared are together what there was.

use crate::keeper::{Kept, agent, os};
use crate::lake_journal::write_lake;
use crate::sealed::{events, readings, series, shed};
use tempfile::TempDir;
use tributary_aggregator::keeper::Outcome;
use tributary_protocol::ids::{AgentId, HashSum};

/// Count and hash sum of what the keeper holds of the lane `telemetry`.
async fn held(kept: &Kept) -> (u64, u128) {
    let of = |held: &[tributary_protocol::ranges::Held]| {
        let count = held.iter().map(|run| run.end - run.first).sum();
        let sum = held
            .iter()
            .fold(HashSum::default(), |sum, run| sum.and(run.sum));
        (count, sum.0)
    };
    let welcome = kept.hello().await.0;
    let telemetry = welcome.lanes.iter();
    let telemetry = telemetry.max_by_key(|lane| lane.key.lane).unwrap();
    of(&telemetry.ranges)
}

#[tokio::test]
async fn a_gap_declares_exactly_what_did_not_arrive() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    assert_eq!(
        kept.offer(session, &series(0, 0, 3)).await,
        Outcome::Durable
    );
    // Ten batches of 100 readings were sealed. Numbers 0, 1 and 4 arrive; 2 to 7 are shed although
    // 4 was on its way; 5 arrives late; one of the shed was damaged before.
    let sealed = |number| readings(number, 3, 100, 0);
    for number in [0, 1, 4] {
        assert_eq!(kept.offer(session, &sealed(number)).await, Outcome::Durable);
    }
    let each = [Some(100), Some(100), Some(100), Some(100), None, Some(100)];
    let gap = shed(2, &each);
    assert_eq!(kept.offer(session, &gap).await, Outcome::Durable);
    let entries = kept.entries();
    for again in [gap.clone(), sealed(5), sealed(4), sealed(2)] {
        assert_eq!(kept.offer(session, &again).await, Outcome::Durable);
    }
    assert_eq!(kept.entries(), entries, "all of that is known");
    for number in [8, 9] {
        assert_eq!(kept.offer(session, &sealed(number)).await, Outcome::Durable);
    }
    let before = held(&kept).await;
    assert_eq!(before.0, 10);
    kept.end().await;

    // The same after a restart, from the journal alone.
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    assert_eq!(kept.parts.recovered.doubled, 0);
    assert_eq!(held(&kept).await, before);
    let session = kept.hello().await.0.session;
    assert_eq!(kept.offer(session, &gap).await, Outcome::Durable);
    let lake = write_lake(&kept).await;
    kept.end().await;
    let agent: AgentId = agent(1);
    let row = |first, count, readings| {
        let (uuid, reason) = (agent.uuid().to_string(), "shed".to_owned());
        (first, count, readings, uuid, reason, String::new())
    };
    let expected = [
        row(2, 2, Some(200)),
        row(5, 1, Some(100)),
        row(6, 1, None),
        row(7, 1, Some(100)),
    ];
    assert_eq!(lake.gaps, expected);
    assert_eq!(lake.rows, 500);
    // The lake's footers state the same count and sum as the ledger.
    assert_eq!(lake.sum, before);
}

#[tokio::test]
async fn gap_and_data_in_one_commit_share_their_numbers() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    assert_eq!(
        kept.offer(session, &series(0, 0, 1)).await,
        Outcome::Durable
    );
    // All at once, so that many stand in one frame, in whichever order they come.
    let mut offers = Vec::new();
    for round in 0..20 {
        let first = round * 5;
        offers.push(readings(first + 1, 1, 10, 0));
        offers.push(shed(first, &[Some(10); 5]));
        offers.push(shed(first, &[Some(10); 5]));
        offers.push(readings(first + 3, 1, 10, 0));
    }
    let offered = offers.iter().map(|batch| kept.offer(session, batch));
    for outcome in futures_util::future::join_all(offered).await {
        assert_eq!(outcome, Outcome::Durable);
    }
    assert_eq!(held(&kept).await.0, 100);
    let lake = write_lake(&kept).await;
    kept.end().await;
    let declared: i64 = lake.gaps.iter().map(|gap| gap.2.unwrap()).sum();
    assert_eq!(lake.rows as i64 + declared, 1_000);
    assert_eq!(lake.sum.0, 100);
}

#[tokio::test]
async fn events_need_no_definitions_and_stand_in_their_lane() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    assert_eq!(kept.offer(session, &events(0)).await, Outcome::Durable);
    assert_eq!(
        kept.offer(session, &series(0, 0, 1)).await,
        Outcome::Durable
    );
    let batch = readings(0, 1, 7, 0);
    assert_eq!(kept.offer(session, &batch).await, Outcome::Durable);
    let lake = write_lake(&kept).await;
    kept.end().await;
    let lanes = [("events".to_owned(), 2), ("telemetry".to_owned(), 7)];
    assert_eq!(lake.lanes, lanes.into());
}
