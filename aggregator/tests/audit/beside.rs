//! Audits beside an aggregator that writes faster than it is read.

use super::{offer, open_lake, parquet, said};
use crate::keeper::{Kept, SMALL, config, os};
use crate::sealed::{readings, series};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tributary_aggregator::audit::{Report, Verdict, audit, audit_beside};
use tributary_aggregator::keeper::Keeper;
use tributary_aggregator::lake::LakeHandle;

/// An aggregator that takes in, flushes and trims in the midst of each look; what an audit says of
/// it, once `break_it` was done to its folder.
async fn looked_at(deep: bool, break_it: impl FnOnce(&std::path::Path)) -> (Report, u64) {
    let dir = TempDir::new().unwrap();
    let opened = Keeper::open(&os(), &config(dir.path(), SMALL)).unwrap();
    let (handle, requests) = LakeHandle::new();
    let lake = open_lake(&opened.1, dir.path(), &handle, Duration::from_millis(1)).await;
    let kept = Arc::new(Kept::before(opened, Arc::clone(handle.status())));
    let stop = CancellationToken::new();
    let runtime = tokio::runtime::Handle::current();
    let writing = {
        let (durable, stop) = (kept.parts.durable.clone(), stop.clone());
        let runtime = runtime.clone();
        std::thread::spawn(move || runtime.block_on(lake.run(durable, requests, stop)).unwrap())
    };
    let session = kept.hello().await.0.session;
    offer(&kept, session, &series(0, 0, 3)).await;
    let handle = Arc::new(handle);
    let next = Arc::new(AtomicU64::new(0));
    let go_on = {
        let (kept, handle, next) = (Arc::clone(&kept), Arc::clone(&handle), Arc::clone(&next));
        async move |count: u64| {
            for _ in 0..count {
                let number = next.fetch_add(1, Ordering::Relaxed);
                offer(&kept, session, &readings(number, 3, 300, 0)).await;
                handle.flush().await.unwrap();
            }
        }
    };
    go_on(20).await;
    break_it(dir.path());
    let path = dir.path().to_owned();
    let looking = tokio::task::spawn_blocking(move || {
        audit_beside(&path, deep, || runtime.block_on(go_on(60))).unwrap()
    });
    let report = looking.await.unwrap();
    let trimmed = kept.parts.reader.lives()[0].first;
    stop.cancel();
    tokio::task::spawn_blocking(|| writing.join())
        .await
        .unwrap()
        .unwrap();
    let kept = Arc::into_inner(kept).unwrap();
    kept.end().await;
    assert!(trimmed > 0, "nothing was trimmed: the test shows little");
    if report.verdict() == Verdict::Agrees {
        let stopped = audit(dir.path(), true).unwrap();
        assert_eq!(stopped.verdict(), Verdict::Agrees, "{}", said(&stopped));
    }
    (report, next.load(Ordering::Relaxed))
}

#[tokio::test]
async fn what_goes_on_in_the_midst_of_a_look_is_no_finding() {
    for deep in [false, true] {
        let (report, written) = looked_at(deep, |_| {}).await;
        assert_eq!(report.verdict(), Verdict::Agrees, "{}", said(&report));
        // The first look was enough.
        assert_eq!(written, 80, "{}", said(&report));
    }
}

#[tokio::test]
async fn what_is_wrong_is_found_also_while_all_its_figures_go_on() {
    for deep in [false, true] {
        let (report, written) = looked_at(deep, |dir| {
            let files = parquet(dir, "readings");
            std::fs::remove_file(&files[3]).unwrap();
        })
        .await;
        assert_eq!(report.verdict(), Verdict::Disagrees, "{}", said(&report));
        assert!(report.unsettled.is_empty(), "{}", said(&report));
        assert_eq!(written, 140, "two looks: {}", said(&report));
    }
}
