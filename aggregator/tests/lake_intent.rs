//! What says that a flush of the lake is under way, damaged: nothing is lost or there twice, and
//! nobody has to mend anything.

use crate::lake::{LOG, Mortal, expected, live, local, read_back};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use std::sync::Arc;
use tempfile::TempDir;
use tributary_aggregator::lake::LakeError;
use tributary_aggregator::lake::markers::{Done, Intent, Told, intent_path, to_text};
use tributary_protocol::ids::LogId;

async fn text(store: &Arc<dyn ObjectStore>, path: &Path) -> Option<Vec<u8>> {
    let found = store.get(path).await.ok()?;
    Some(found.bytes().await.unwrap().to_vec())
}

async fn put(store: &Arc<dyn ObjectStore>, path: &Path, bytes: &[u8]) {
    let payload = PutPayload::from(bytes.to_vec());
    store.put(path, payload).await.unwrap();
}

/// A lake of 6 entries that was killed after so many changes of its second flush, up to entry 13;
/// the intent's text.
async fn killed(dir: &TempDir, changes: i64) -> Option<Vec<u8>> {
    let store = local(dir);
    live(Arc::clone(&store), dir, 6).await.unwrap();
    let mortal = Mortal::new(Arc::clone(&store), changes, false);
    assert!(live(mortal, dir, 13).await.is_err());
    text(&store, &Path::from(intent_path(LOG, 6))).await
}

/// As versions before the checksum wrote it.
fn old(text: &[u8]) -> Vec<u8> {
    let mut value: serde_json::Value = serde_json::from_slice(text).unwrap();
    let had = value.as_object_mut().unwrap().remove("check");
    assert!(had.is_some(), "it has no checksum");
    serde_json::to_vec(&value).unwrap()
}

#[tokio::test]
async fn a_flipped_bit_in_an_intent_loses_and_doubles_nothing() {
    let (mut flips, mut copies) = (0, 0);
    for changes in [1, 2, 4] {
        let probe = TempDir::new().unwrap();
        let Some(whole) = killed(&probe, changes).await else {
            continue;
        };
        let (old, step) = (old(&whole), whole.len() / 4);
        // Every digit of where it begins and ends, in both forms, and here and there a bit.
        let end = old.windows(8).position(|at| at == b"\"end\":13").unwrap();
        let mut flipped: Vec<(&[u8], usize)> = (0..4)
            .map(|n| (&whole[..], n * step + changes as usize))
            .collect();
        flipped.extend([(&old[..], end + 6), (&old[..], end + 7), (&old[..], 0)]);
        for (form, at) in flipped {
            let dir = TempDir::new().unwrap();
            killed(&dir, changes).await.unwrap();
            let store = local(&dir);
            let path = Path::from(intent_path(LOG, 6));
            let mut bytes = form.to_vec();
            bytes[at] ^= 1;
            put(&store, &path, &bytes).await;
            // More is durable by now: an end of its own would be another one.
            let reached = live(Arc::clone(&store), &dir, 20).await;
            let shown = String::from_utf8_lossy(&bytes);
            match reached {
                Ok(at) => assert_eq!(at, 20, "{shown}"),
                // Nothing of it was visible, and without a checksum its end says 93, perhaps.
                Err(LakeError::RolledBack { .. }) if changes == 1 && form == old => continue,
                Err(error) => panic!("{error}: {shown}"),
            }
            assert_eq!(read_back(&store).await, expected(20), "{changes}: {shown}");
            assert_eq!(text(&store, &path).await, None, "the intent is done");
            flips += 1;
            let copy = Path::from(format!("{path}.damaged"));
            if let Some(kept) = text(&store, &copy).await {
                assert_eq!(kept, bytes);
                copies += 1;
            }
        }
    }
    assert!(flips > 12 && copies > 10, "{flips} {copies}");
}

#[tokio::test]
async fn an_intent_of_an_earlier_version_is_redone() {
    for changes in [1, 3] {
        let dir = TempDir::new().unwrap();
        let whole = killed(&dir, changes).await.unwrap();
        let store = local(&dir);
        put(&store, &Path::from(intent_path(LOG, 6)), &old(&whole)).await;
        assert_eq!(live(Arc::clone(&store), &dir, 20).await.unwrap(), 20);
        assert_eq!(read_back(&store).await, expected(20));
        let copy = Path::from(format!("{}.damaged", intent_path(LOG, 6)));
        assert_eq!(text(&store, &copy).await, None, "nothing was wrong with it");
    }
}

#[tokio::test]
async fn an_intent_that_nothing_tells_is_named_with_the_way_out() {
    let dir = TempDir::new().unwrap();
    let whole = killed(&dir, 3).await.unwrap();
    let store = local(&dir);
    let path = Path::from(intent_path(LOG, 6));
    let mut bytes = whole;
    bytes[3] ^= 1;
    put(&store, &path, &bytes).await;
    let name = |end: u64| {
        let name = format!("{LOG}-{:020}-{end:020}.parquet", 6);
        Path::from(format!(
            "readings/event_date=2026-11-20/event_hour=20/{name}"
        ))
    };
    put(&store, &name(9), b"of a lake that was put together by hand").await;
    let error = live(Arc::clone(&store), &dir, 20).await.unwrap_err();
    assert!(error.is_final());
    let said = error.to_string();
    for part in [path.as_ref(), "moved away", "{9, 13}", "checksum"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    // The way out.
    let listed: Vec<_> = futures_util::TryStreamExt::try_collect(store.list(None))
        .await
        .unwrap();
    let listed: Vec<object_store::ObjectMeta> = listed;
    for object in listed {
        let location = object.location;
        let of_flush = format!("{LOG}-{:020}-", 6);
        if location == path || location.as_ref().contains(&of_flush) {
            store.delete(&location).await.unwrap();
        }
    }
    assert_eq!(live(Arc::clone(&store), &dir, 20).await.unwrap(), 20);
    assert_eq!(read_back(&store).await, expected(20));
}

#[test]
fn every_flip_of_an_intent_is_noticed_or_changes_nothing() {
    let intent = Intent {
        version: 1,
        log: LOG.to_string(),
        first: 6,
        end: 130,
        software: "0.1.0".to_owned(),
        files: Vec::new(),
    };
    let whole = to_text(&intent);
    let of = (LOG, 6);
    assert_eq!(
        Intent::read("x", &whole, of).unwrap(),
        Told::Surely(intent.clone())
    );
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            match Intent::read("x", &bytes, of) {
                Ok(Told::Damaged(_)) => {}
                // A flip in the checksum's own name: as of an earlier version, and all is there.
                Ok(Told::Perhaps(read)) => assert_eq!(read, intent, "{at} {bit}"),
                other => panic!("{at} {bit}: {other:?}"),
            }
        }
    }
    // Another journal's is no damage.
    assert!(Intent::read("x", &whole, (LogId([1; 16]), 6)).is_err());
}

#[test]
fn every_flip_of_a_done_marker_is_noticed_or_changes_nothing() {
    let done = Done {
        version: 1,
        log: LOG.to_string(),
        first: 6,
        end: 130,
        batches: 12,
        rows: 3_456,
        hash_sum: format!("{:032x}", 0x1234_5678_9abc_def0_u64),
        lanes: Vec::new(),
        files: 3,
    };
    let whole = to_text(&done);
    assert_eq!(Done::read("x", &whole, LOG).unwrap(), done);
    let mut noticed = 0;
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            match Done::read("x", &bytes, LOG) {
                Ok(read) => assert_eq!(read, done, "{at} {bit}"),
                Err(_) => noticed += 1,
            }
        }
    }
    assert!(noticed > whole.len() * 7, "{noticed}");
    // Those of an earlier version have no checksum.
    let earlier = serde_json::to_vec(&done).unwrap();
    assert_eq!(Done::read("x", &earlier, LOG).unwrap(), done);
}
