//! Two machines with one identity against a running aggregator: kept apart, and said.

use crate::keeper::{Kept, agent, os};
use crate::keeper_turns::World;
use crate::sealed::{readings, series};
use crate::uplink::{Memory, configured};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tributary_aggregator::audit::{Verdict, audit};
use tributary_aggregator::keeper::{KeeperHandle, Outcome, TwinStatus};
use tributary_aggregator::start;
use tributary_journal::SimDisk;
use tributary_protocol::batch::{SealedBatch, Sealer, Spec};
use tributary_protocol::ids::*;
use tributary_protocol::reading::ValueType;
use tributary_protocol::series::SeriesDef;
use tributary_protocol::session::Sender;
use tributary_uplink::{Status, UplinkConfig, run};

/// Definitions of a buffer: what an agent of that life has to send first.
fn definitions(buffer: BufferId) -> SealedBatch {
    let spec = Spec {
        key: BatchKey {
            buffer,
            lane: Lane::Series,
            number: 0,
        },
        sealed_at: 1,
        series_needed: 0,
        covers: Vec::new(),
    };
    let def = SeriesDef::new("pump", "p", None, ValueType::F64).unwrap();
    Sealer::new().series(&spec, 0, &[def]).unwrap()
}

/// A machine that sends what it has and stays; it ends when its queue is dropped.
fn machine(
    uplink: &UplinkConfig,
    buffer: BufferId,
) -> (
    impl Future<Output = bool> + use<>,
    mpsc::Sender<tributary_uplink::Sealed>,
    watch::Receiver<Status>,
) {
    let memory = Memory::default();
    let (sealed, queue) = mpsc::channel(8);
    let (status, seen) = watch::channel(Status::default());
    let first = memory.put(definitions(buffer));
    sealed.try_send(first).unwrap();
    let mut uplink = uplink.clone();
    uplink.drain_deadline = Duration::ZERO;
    let sender = Sender::new(buffer, Vec::new());
    (run(uplink, sender, memory, queue, status), sealed, seen)
}

async fn twins(handle: &KeeperHandle) -> Vec<TwinStatus> {
    handle.report().await.unwrap().twins
}

#[tokio::test]
async fn two_machines_that_take_turns_are_told_and_named_and_both_are_served() {
    let dir = TempDir::new().unwrap();
    let (config, mut uplink) = configured(&dir);
    let running = start(config, CancellationToken::new()).await.unwrap();
    uplink.target.address = running.uplink_addr().to_string();
    // One disk, copied: both begin life 8.
    let (ours, ended, mut seen) = machine(&uplink, BufferId::new(8, 1));
    let (copy, copy_ended, mut seen_copy) = machine(&uplink, BufferId::new(8, 2));
    let handle = running.handle();
    let watching = async {
        seen.wait_for(|status| status.connected).await.unwrap();
        assert!(twins(handle).await.is_empty(), "one machine");
        for seen in [&mut seen, &mut seen_copy] {
            let fenced = seen.wait_for(|status| status.fenced_last_hour >= 2).await;
            assert!(fenced.is_ok());
        }
        // The aggregator learns a moment later that it was heard.
        let listed = loop {
            let listed = twins(handle).await;
            if listed[0].fenced >= 2 && listed[0].turns >= 2 {
                break listed;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(
            (listed.len(), listed[0].copy, listed[0].conflict),
            (1, 1, 0)
        );
        let lanes = handle.report().await.unwrap().agents.remove(0).lanes;
        assert_eq!(lanes.len(), 2, "what both sent is held apart");
        drop((ended, copy_ended));
    };
    let later = async {
        // The copy comes once ours is there.
        while handle.report().await.unwrap().agents.is_empty() {
            tokio::task::yield_now().await;
        }
        copy.await
    };
    tokio::join!(ours, later, watching);
    running.shut_down().await.unwrap();
}

#[test]
fn a_contradiction_is_a_sign_and_a_life_that_the_ledger_knows_otherwise_too() {
    let disk = SimDisk::new(1);
    let mut world = World::open(&disk);
    let session = world.hello(0).0.session;
    for batch in [series(0, 0, 2), readings(0, 2, 9, 0)] {
        assert_eq!(world.offer(session, &batch, 0), Outcome::Durable);
    }
    let other = readings(0, 2, 9, 7);
    assert!(matches!(
        world.offer(session, &other, 0),
        Outcome::Reject(_)
    ));
    let signs = |world: &mut World| {
        let listed = world.report().twins;
        let of = listed
            .iter()
            .map(|it| (it.agent.clone(), it.copy, it.conflict));
        of.collect::<Vec<_>>()
    };
    assert_eq!(signs(&mut world), [(agent(1).to_string(), 0, 1)]);
    // After a restart, and when it is drained: a buffer of the same life by another name.
    drop(world);
    let mut world = World::open(&disk);
    world.hello_filling(BufferId([8; 16]), 0);
    assert_eq!(signs(&mut world), [], "another life");
    let mut same = [7; 16];
    same[15] = 9;
    world.hello_filling(BufferId(same), 1);
    assert_eq!(signs(&mut world), [(agent(1).to_string(), 1, 0)]);
}

#[tokio::test]
async fn an_audit_says_which_life_of_a_storage_stands_under_two_names() {
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    let alarms = || audit(dir.path(), false).unwrap().alarms;
    for (life, salt) in [(7, 1), (8, 1)] {
        let batch = definitions(BufferId::new(life, salt));
        assert_eq!(kept.offer(session, &batch).await, Outcome::Durable);
    }
    assert_eq!(alarms(), []);
    let copy = definitions(BufferId::new(8, 2));
    assert_eq!(kept.offer(session, &copy).await, Outcome::Durable);
    kept.end().await;
    let said = alarms();
    assert_eq!(said.len(), 1, "{said:?}");
    let (ours, copy) = (BufferId::new(8, 1), BufferId::new(8, 2));
    let names = format!("the last of them 8: {ours}, {copy}");
    assert!(said[0].what.contains(&names), "{}", said[0].what);
    assert_eq!(audit(dir.path(), false).unwrap().verdict(), Verdict::Agrees);
}
