//! A journal that is lost, or older than its lake: noticed, and replaced by one that takes nothing
//! a second time, wherever its making stops.

use crate::audit::{flush, made, offer, parquet};
use crate::keeper::{Kept, os};
use crate::sealed::{BUFFER, events, readings, series, shed, spoiled};
use crate::uplink::{Memory, configured};
use std::path::Path;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tributary_aggregator::audit::{Verdict, audit};
use tributary_aggregator::keeper::{Outcome, StoreError};
use tributary_aggregator::lake::file;
use tributary_aggregator::restore::{Restored, Summary, restore, restore_in};
use tributary_aggregator::running::AggregatorError;
use tributary_aggregator::stopped::Stopped;
use tributary_aggregator::{Config, TlsFiles, start};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::session::Sender;

fn config(dir: &Path) -> Config {
    let file = || "none.pem".into();
    let tls = TlsFiles {
        ca: file(),
        cert: file(),
        key: file(),
    };
    let mut config = Config::new(dir.to_owned(), tls);
    config.journal_quota_bytes = 64 << 20;
    config.journal_reserve_bytes = 0;
    config
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let there = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &there),
            false => drop(std::fs::copy(&path, there).unwrap()),
        }
    }
}

fn lose(dir: &Path) {
    for part in ["journal", "ledger"] {
        std::fs::remove_dir_all(dir.join(part)).unwrap();
    }
}

async fn begun(dir: &Path) -> Summary {
    match restore(&config(dir)).await.unwrap() {
        Restored::Begun(summary) => summary,
        other => panic!("{other:?}"),
    }
}

/// Everything that [`made`] had taken, in its order: what an agent has that trimmed nothing.
fn all() -> Vec<SealedBatch> {
    let mut all = vec![series(0, 0, 3)];
    all.extend([0, 1, 2, 3, 7, 8].map(|number| readings(number, 3, 100, 0)));
    all.push(shed(4, &[Some(10), Some(20), None]));
    all.push(spoiled(9, ""));
    all.extend([10, 11].map(|number| readings(number, 3, 100, 0)));
    all.push(events(0));
    all
}

/// An agent sends all of it again; how many entries that gave, and what the audits say then.
async fn sent_again(dir: &Path) -> u64 {
    let kept = Kept::start(&os(), dir, 0).unwrap();
    let before = kept.entries();
    let session = kept.hello().await.0.session;
    for batch in all() {
        while kept.offer(session, &batch).await != Outcome::Durable {}
    }
    let new = kept.entries() - before;
    flush(&kept, dir).await;
    kept.end().await;
    for deep in [false, true] {
        let report = audit(dir, deep).unwrap();
        assert_eq!(report.verdict(), Verdict::Agrees, "{report}");
    }
    new
}

/// Rows of readings in the lake; whether any is there twice, a deep audit says.
fn rows(dir: &Path) -> usize {
    let rows = |path: std::path::PathBuf| {
        let bytes = std::fs::read(&path).unwrap().into();
        let read = file::rows(&path.to_string_lossy(), &bytes).unwrap();
        read.iter().map(|batch| batch.num_rows()).sum::<usize>()
    };
    parquet(dir, "readings").into_iter().map(rows).sum()
}

#[tokio::test]
async fn what_the_lake_has_is_not_taken_again_once_its_journal_is_lost() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    let whole = config(dir.path());
    assert_eq!(restore(&whole).await.unwrap(), Restored::Nothing, "it fits");
    assert!(dir.path().join("journal").is_dir());
    lose(dir.path());
    let summary = begun(dir.path()).await;
    // 0..12 of telemetry: rows, a declared loss, and what never verified. The event waited.
    assert_eq!((summary.lanes, summary.numbers, summary.kept), (1, 12, 0));
    assert_eq!(summary.twice, 0);
    assert_eq!(restore(&whole).await.unwrap(), Restored::Nothing);
    let before = rows(dir.path());
    let new = sent_again(dir.path()).await;
    assert_eq!(new, 2, "definitions, and the event that was lost");
    assert_eq!(rows(dir.path()), before + 2, "the event's two rows");
    // Held also once the entries that said so are in a checkpoint, or are read again.
    assert_eq!(sent_again(dir.path()).await, 0);
}

/// The journal says that it holds them, and no marker of its own tells of those files.
#[tokio::test]
async fn an_audit_after_a_restore_misses_every_file_that_is_taken_away() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    lose(dir.path());
    begun(dir.path()).await;
    sent_again(dir.path()).await;
    let log = audit(dir.path(), false).unwrap().log.replace('-', "");
    let mut of_others: Vec<_> = ["readings", "gaps"]
        .into_iter()
        .flat_map(|table| parquet(dir.path(), table))
        .collect();
    let rejected = std::fs::read_dir(dir.path().join("lake/rejected")).unwrap();
    let rejected = rejected.map(|file| file.unwrap().path());
    of_others.extend(rejected.filter(|file| file.extension().is_some_and(|end| end == "json")));
    of_others.retain(|file| !file.to_string_lossy().contains(&log));
    assert!(of_others.len() >= 3, "{of_others:?}");
    for file in of_others {
        let aside = dir.path().join("aside");
        std::fs::rename(&file, &aside).unwrap();
        for deep in [false, true] {
            let report = audit(dir.path(), deep).unwrap();
            let said = report.to_string();
            assert_eq!(
                report.verdict(),
                Verdict::Disagrees,
                "{}: {said}",
                file.display()
            );
            assert!(said.contains("the files of other journals have"), "{said}");
        }
        std::fs::rename(&aside, &file).unwrap();
    }
    let report = audit(dir.path(), true).unwrap();
    assert_eq!(report.verdict(), Verdict::Agrees, "{report}");
}

#[tokio::test]
async fn an_older_journal_is_replaced_and_what_it_alone_has_is_kept() {
    let dir = TempDir::new().unwrap();
    let path = dir.path();
    let kept = Kept::start(&os(), path, 0).unwrap();
    let session = kept.hello().await.0.session;
    offer(&kept, session, &series(0, 0, 3)).await;
    for number in 0..4 {
        offer(&kept, session, &readings(number, 3, 100, 0)).await;
    }
    flush(&kept, path).await;
    kept.end().await;
    let older = TempDir::new().unwrap();
    copy(path, older.path());
    let kept = Kept::start(&os(), path, 0).unwrap();
    let session = kept.hello().await.0.session;
    for number in 4..8 {
        offer(&kept, session, &readings(number, 3, 100, 0)).await;
    }
    flush(&kept, path).await;
    kept.end().await;
    // The older journal beside the newer lake, of which the first flush is lost.
    lose(path);
    copy(&older.path().join("journal"), &path.join("journal"));
    // What a command added there would lie below where the lake stands.
    let refused = Stopped::open(&config(path)).await.err().unwrap();
    assert!(refused.to_string().contains("restore"), "{refused}");
    let first = parquet(older.path(), "readings");
    for file in &first {
        let below = file.strip_prefix(older.path()).unwrap();
        std::fs::remove_file(path.join(below)).unwrap();
    }
    let summary = begun(path).await;
    assert!(summary.why.contains("rolled back"), "{}", summary.why);
    assert_eq!(summary.numbers, 4, "4..8 are in the lake");
    assert_eq!(summary.kept, 5, "definitions, and 0..4");
    assert!(path.join("replaced-1/journal.old").is_dir());
    let kept = Kept::start(&os(), path, 0).unwrap();
    let (welcome, _) = kept.hello().await;
    let held: Vec<_> = welcome.lanes[1]
        .ranges
        .iter()
        .map(|run| (run.first, run.end))
        .collect();
    assert_eq!(held, [(0, 8)]);
    let before = kept.entries();
    for number in 0..8 {
        let batch = readings(number, 3, 100, 0);
        assert_eq!(kept.offer(welcome.session, &batch).await, Outcome::Durable);
    }
    assert_eq!(kept.entries(), before, "all of it is a repeat");
    flush(&kept, path).await;
    kept.end().await;
    assert_eq!(rows(path), 800, "with their names, each once");
    let report = audit(path, true).unwrap();
    assert_eq!(report.verdict(), Verdict::Agrees, "{report}");
}

#[tokio::test]
async fn wherever_it_stops_the_next_run_goes_on_and_nothing_else_starts_meanwhile() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    let newest = TempDir::new().unwrap();
    copy(dir.path(), newest.path());
    // A journal that ends before its lake, with its checkpoints: all four moves.
    let kept = Kept::start(&os(), newest.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    offer(&kept, session, &readings(12, 3, 100, 0)).await;
    flush(&kept, newest.path()).await;
    kept.end().await;
    std::fs::remove_dir_all(dir.path().join("lake")).unwrap();
    copy(&newest.path().join("lake"), &dir.path().join("lake"));
    std::fs::create_dir_all(dir.path().join("ledger")).unwrap();
    let mut interrupted = 0;
    for moves in 0..8 {
        let site = TempDir::new().unwrap();
        copy(dir.path(), site.path());
        // What an earlier run left half built is no hindrance.
        std::fs::create_dir_all(site.path().join("restore.building/journal")).unwrap();
        let config = config(site.path());
        let first = restore_in(&config, moves).await.unwrap();
        assert!(matches!(first, Restored::Begun(_)), "{moves}: {first:?}");
        let expected = match site.path().join("restore.ready").exists() {
            true => {
                interrupted += 1;
                let refused = Stopped::open(&config).await.err().unwrap();
                assert!(
                    matches!(refused, AggregatorError::Unrestored { .. }),
                    "{refused}"
                );
                Restored::Completed
            }
            false => Restored::Nothing,
        };
        assert_eq!(restore(&config).await.unwrap(), expected, "{moves}");
        assert_eq!(
            restore(&config).await.unwrap(),
            Restored::Nothing,
            "{moves}"
        );
        // Telemetry 0..13, and the event.
        let held: u64 = {
            let report = audit(site.path(), false).unwrap();
            let lanes = report.lanes.iter().filter(|lane| lane.lane != "series");
            lanes.map(|lane| lane.ledger.batches).sum()
        };
        assert_eq!(held, 14, "{moves}");
        assert_eq!(sent_again(site.path()).await, 0, "{moves}");
    }
    assert_eq!(interrupted, 5, "after no move, and after each of four");
}

#[tokio::test]
async fn an_empty_journal_before_a_lake_does_not_start_and_after_a_restore_nothing_doubles() {
    let dir = TempDir::new().unwrap();
    let (mut config, mut uplink) = configured(&dir);
    let mut counts = Vec::new();
    for round in 0..2 {
        if round == 1 {
            lose(&config.data_dir);
            let refused = start(config.clone(), CancellationToken::new()).await;
            let refused = refused.err().unwrap();
            assert!(
                matches!(refused, AggregatorError::AnotherLog { .. }),
                "{refused}"
            );
            assert!(refused.to_string().contains("tributary-aggregator restore"));
            let restored = restore(&config).await.unwrap();
            assert!(matches!(restored, Restored::Begun(_)), "{restored:?}");
        }
        let running = start(config.clone(), CancellationToken::new())
            .await
            .unwrap();
        // While it runs, nothing is restored.
        let refused = restore(&config).await.unwrap_err();
        assert!(refused.to_string().contains("another process"), "{refused}");
        config.uplink = running.uplink_addr();
        uplink.target.address = config.uplink.to_string();
        let memory = Memory::default();
        let (sealed, queue) = mpsc::channel(64);
        let (status, _) = watch::channel(tributary_uplink::Status::default());
        // An agent that knows of no acknowledgement.
        let sender = Sender::new(BUFFER, Vec::new());
        sealed.try_send(memory.put(series(0, 0, 3))).unwrap();
        for number in 0..20 {
            let batch = memory.put(readings(number, 3, 50, 0));
            sealed.try_send(batch).unwrap();
        }
        drop(sealed);
        let all = tributary_uplink::run(uplink.clone(), sender, memory, queue, status).await;
        assert!(all, "something was not acknowledged");
        counts.push(running.keeper().batches());
        running.shut_down().await.unwrap();
        config.uplink.set_port(0);
    }
    assert_eq!(
        counts,
        [21, 0],
        "all is held, so nothing needs its definitions either"
    );
    assert_eq!(rows(&config.data_dir), 20 * 50);
    let report = audit(&config.data_dir, true).unwrap();
    assert_eq!(report.verdict(), Verdict::Agrees, "{report}");
}

/// Somebody who wants to begin anew took journal and lake away, and left the checkpoints.
#[tokio::test]
async fn where_nothing_is_held_a_journal_begins_anew() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    for part in ["journal", "lake"] {
        std::fs::remove_dir_all(dir.path().join(part)).unwrap();
    }
    let refused = Stopped::open(&config(dir.path())).await.err().unwrap();
    assert!(refused.to_string().contains("restore"), "{refused}");
    begun(dir.path()).await;
    assert_eq!(
        restore(&config(dir.path())).await.unwrap(),
        Restored::Nothing
    );
    assert!(sent_again(dir.path()).await > 0);
}

/// Only the journal's entries said what the lake has, until the first commit.
#[tokio::test]
async fn a_bit_in_what_a_restore_wrote_takes_nothing_of_it() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    lose(dir.path());
    begun(dir.path()).await;
    let journal = std::fs::read_dir(dir.path().join("journal")).unwrap();
    let mut segments: Vec<_> = journal.map(|it| it.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|it| it == "seg"));
    // In the first frame, behind its header.
    let mut bytes = std::fs::read(&segments[0]).unwrap();
    bytes[4096 + 40] ^= 1;
    std::fs::write(&segments[0], bytes).unwrap();
    let before = rows(dir.path());
    // Its last frame, so it looks torn; a checkpoint knows better.
    let refused = Kept::start(&os(), dir.path(), 0).err().unwrap();
    assert!(
        matches!(refused, StoreError::RolledBack { .. }),
        "{refused}"
    );
    begun(dir.path()).await;
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    for number in [0, 1, 2, 3, 7, 8] {
        let batch = readings(number, 3, 100, 0);
        assert_eq!(kept.offer(session, &batch).await, Outcome::Durable);
    }
    flush(&kept, dir.path()).await;
    kept.end().await;
    assert_eq!(rows(dir.path()), before, "the lake had them");
}
