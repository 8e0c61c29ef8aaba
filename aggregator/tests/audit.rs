//! The audit: of directories that a real keeper and a real lake wrote, whole ones and broken ones.

mod beside;
mod foreign;

use crate::keeper::{Kept, SMALL, agent, checkpoints, config, os};
use crate::sealed::{BUFFER, events, readings, series, shed, spoiled};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tributary_aggregator::audit::merge::{Merged, merge};
use tributary_aggregator::audit::report::{Elsewhere, Span};
use tributary_aggregator::audit::{AuditError, LaneReport, Report, Verdict, audit};
use tributary_aggregator::commands::quarantine::{self, QuarantineArguments};
use tributary_aggregator::keeper::{Keeper, KeeperParts, Outcome};
use tributary_aggregator::lake::commit::LakeStore;
use tributary_aggregator::lake::file::rows;
use tributary_aggregator::lake::source::JournalFeed;
use tributary_aggregator::lake::{Lake, LakeConfig, LakeHandle, LakeStatus};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::Session;

/// The lake in `dir/lake`.
async fn open_lake(
    parts: &KeeperParts,
    dir: &Path,
    handle: &LakeHandle,
    flush_interval: Duration,
) -> Lake {
    let folder = dir.join("lake");
    std::fs::create_dir_all(&folder).unwrap();
    let store = object_store::local::LocalFileSystem::new_with_prefix(&folder).unwrap();
    let store = LakeStore::new(Arc::new(store), Some(folder), parts.log);
    let feed = Box::new(JournalFeed::new(parts.reader.clone(), parts.log));
    let config = LakeConfig { flush_interval };
    let names = Box::new(parts.books.clone());
    let lake = Lake::open(config, store, feed, names, handle).await;
    lake.unwrap()
}

/// Writes everything that is durable into `dir/lake`.
pub async fn flush(kept: &Kept, dir: &Path) {
    let (handle, requests) = LakeHandle::new();
    let lake = open_lake(&kept.parts, dir, &handle, Duration::from_secs(3600)).await;
    let stop = CancellationToken::new();
    stop.cancel();
    let end = lake.run(kept.parts.durable.clone(), requests, stop).await;
    assert_eq!(end.unwrap(), kept.entries());
}

pub async fn offer(kept: &Kept, session: Session, batch: &SealedBatch) {
    assert_eq!(kept.offer(session, batch).await, Outcome::Durable);
}

/// An aggregator's directory: 12 batches of readings but for 4..7, which is declared lost, and 9,
/// which never verified; two flushes of the lake, and an event that waits for the third.
pub async fn made(dir: &Path) {
    let kept = Kept::start(&os(), dir, 0).unwrap();
    let session = kept.hello().await.0.session;
    offer(&kept, session, &series(0, 0, 3)).await;
    for number in [0, 1, 2, 3, 7, 8] {
        offer(&kept, session, &readings(number, 3, 100, 0)).await;
    }
    offer(&kept, session, &shed(4, &[Some(10), Some(20), None])).await;
    flush(&kept, dir).await;
    let bad = spoiled(9, "");
    while kept.offer(session, &bad).await != Outcome::Durable {}
    for number in [10, 11] {
        offer(&kept, session, &readings(number, 3, 100, 0)).await;
    }
    flush(&kept, dir).await;
    offer(&kept, session, &events(0)).await;
    kept.end().await;
}

fn files_below(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files_below(&path, out),
            false => out.push(path),
        }
    }
    out.sort();
}

/// The Parquet files of a table.
pub fn parquet(dir: &Path, table: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    files_below(&dir.join("lake").join(table), &mut files);
    files
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn lane<'a>(report: &'a Report, lane: &str) -> &'a LaneReport {
    report.lanes.iter().find(|it| it.lane == lane).unwrap()
}

fn telemetry(report: &Report) -> &LaneReport {
    lane(report, "telemetry")
}

/// Both kinds of audit.
fn both(dir: &Path) -> [Report; 2] {
    [false, true].map(|deep| audit(dir, deep).unwrap())
}

/// The numbers of the lane `telemetry` that an audit finds wrong.
fn wrong(report: &Report) -> Vec<Span> {
    let found = report.findings.iter();
    let found = found.filter(|wrong| wrong.lane.as_deref() == Some("telemetry"));
    found.flat_map(|wrong| wrong.numbers.clone()).collect()
}

fn said(report: &Report) -> String {
    report.to_string()
}

#[tokio::test]
async fn a_whole_directory_agrees_and_says_what_is_held_lost_and_apart() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    for report in both(dir.path()) {
        assert!(report.findings.is_empty(), "{}", said(&report));
        let telemetry = telemetry(&report);
        assert_eq!(telemetry.agent, agent(1).to_string());
        assert_eq!(telemetry.buffer, BUFFER.to_string());
        let committed = telemetry.committed.iter();
        let committed: Vec<Span> = committed.map(|run| (run.first, run.end)).collect();
        assert_eq!((committed, &telemetry.missing), (vec![(0, 12)], &vec![]));
        assert_eq!(telemetry.quarantined, [(9, 10)]);
        let gaps = telemetry.gaps.iter();
        let gaps: Vec<_> = gaps
            .map(|gap| (gap.first, gap.count, gap.readings, &*gap.reason))
            .collect();
        assert_eq!(gaps, [(4, 2, Some(30), "shed"), (6, 1, None, "shed")]);
        let lake = telemetry.lake.as_ref().unwrap();
        assert_eq!((lake.batches, lake.rows), (12, Some(800)));
        assert_eq!(lake.hash_sum, telemetry.ledger.hash_sum);
        assert_eq!(telemetry.journal.hash_sum, telemetry.ledger.hash_sum);
        let events = lane(&report, "events");
        assert_eq!((events.ledger.batches, events.waiting), (1, 1));
        assert_eq!(report.quarantine_files, 1);
        // It comes back from what `--json` writes.
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        assert!(said(&report).contains("declared lost 4..6: shed, 30 readings"));
    }
}

#[tokio::test]
async fn a_file_of_the_lake_that_is_missing_is_named_by_the_numbers_that_were_in_it() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    let files = parquet(dir.path(), "readings");
    assert_eq!(files.len(), 2, "one for each flush");
    std::fs::remove_file(&files[1]).unwrap();
    let [plain, deep] = both(dir.path());
    // What the flush should have brought; and what exactly is not there.
    assert_eq!(wrong(&plain), [(9, 12)], "{}", said(&plain));
    assert_eq!(wrong(&deep)[0], (10, 12), "{}", said(&deep));
    assert!(said(&plain).contains("put back what is missing from a copy"));
}

#[tokio::test]
async fn a_declared_loss_that_is_missing_in_the_lake_is_found() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    std::fs::remove_file(&parquet(dir.path(), "gaps")[0]).unwrap();
    let [plain, deep] = both(dir.path());
    assert!(!plain.findings.is_empty());
    assert_eq!(wrong(&deep)[0], (4, 7), "{}", said(&deep));
}

#[tokio::test]
async fn rows_that_are_there_twice_are_found() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    // A copy in another hour.
    let file = parquet(dir.path(), "readings").remove(0);
    let elsewhere = file.parent().unwrap().with_file_name("event_hour=03");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::copy(&file, elsewhere.join(file.file_name().unwrap())).unwrap();
    let [plain, deep] = both(dir.path());
    assert!(said(&plain).contains("take it away"), "{}", said(&plain));
    assert!(!wrong(&plain).is_empty());
    let twice = said(&deep)
        .matches("100 of its rows are there twice")
        .count();
    assert_eq!(twice, 6, "{}", said(&deep));
}

#[tokio::test]
async fn rows_under_the_name_of_another_journal_are_found_by_a_deep_audit() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    let file = parquet(dir.path(), "readings").remove(0);
    let name = file.file_name().unwrap().to_str().unwrap();
    let other = format!("{}{}", "ab".repeat(16), &name[32..]);
    std::fs::copy(&file, file.with_file_name(other)).unwrap();
    let [plain, deep] = both(dir.path());
    assert!(plain.findings.is_empty(), "{}", said(&plain));
    assert!(
        said(&plain).contains("files of journal abab"),
        "{}",
        said(&plain)
    );
    let twice = said(&deep).matches("it is there twice").count();
    assert_eq!(twice, 6, "{}", said(&deep));
}

#[tokio::test]
async fn a_bit_that_flips_in_any_file_of_the_lake_is_found() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    let mut files = Vec::new();
    files_below(&dir.path().join("lake"), &mut files);
    let mut found = 0;
    for file in files {
        let whole = std::fs::read(&file).unwrap();
        for at in [40, whole.len() / 4, whole.len() / 2, whole.len() - 9] {
            flip(&file, at);
            let report = audit(dir.path(), true).unwrap();
            let changed = std::fs::read(&file).unwrap();
            std::fs::write(&file, &whole).unwrap();
            let name = file.display().to_string();
            if report.findings.is_empty() {
                // What Parquet says beside the rows may change and no row with it.
                if name.ends_with(".json") {
                    // The words of the reason: nothing else says them.
                    continue;
                }
                assert!(name.ends_with(".parquet"), "byte {at} of {name}");
                let read = |bytes: &[u8]| rows(&name, &bytes.to_vec().into()).unwrap();
                assert_eq!(read(&changed), read(&whole), "byte {at} of {name}");
            } else {
                found += 1;
            }
        }
    }
    assert!(found > 12, "{found}: the test shows little");
    assert!(audit(dir.path(), true).unwrap().findings.is_empty());
}

#[tokio::test]
async fn a_batch_that_the_journal_lost_is_named() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    let segment = {
        let mut files = Vec::new();
        files_below(&dir.path().join("journal"), &mut files);
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "seg");
        files.into_iter().find(is_segment).unwrap()
    };
    let bytes = std::fs::read(&segment).unwrap();
    let needle = readings(7, 3, 100, 0);
    let needle = needle.bytes();
    let at = bytes.windows(needle.len()).position(|it| it == &needle[..]);
    flip(&segment, at.unwrap() + 60);
    for report in both(dir.path()) {
        let text = said(&report);
        assert!(text.contains("of the journal: "), "{text}");
        assert!(text.contains("is damaged from byte "), "{text}");
        assert!(text.contains("the lake took them before"), "{text}");
        assert_eq!(wrong(&report), [(7, 8)], "{text}");
    }
}

/// A journal of several segments with two checkpoints, all of it in the lake, some of it trimmed.
async fn long(dir: &Path) {
    let opened = Keeper::open(&os(), &config(dir, SMALL)).unwrap();
    let kept = Kept::of(opened, 0);
    let session = kept.hello().await.0.session;
    offer(&kept, session, &series(0, 0, 3)).await;
    for number in 0..60 {
        offer(&kept, session, &readings(number, 3, 1_000, 0)).await;
    }
    flush(&kept, dir).await;
    kept.end().await;
    let in_lake = LakeStatus::standing_at(61).position();
    let kept = Kept::start(&os(), dir, in_lake).unwrap();
    let session = kept.hello().await.0.session;
    for number in 60..90 {
        offer(&kept, session, &readings(number, 3, 1_000, 0)).await;
    }
    flush(&kept, dir).await;
    assert!(
        kept.parts.reader.lives()[0].first > 0,
        "nothing was trimmed"
    );
    kept.end().await;
}

#[tokio::test]
async fn a_trimmed_journal_is_compared_from_its_checkpoints_on() {
    let dir = TempDir::new().unwrap();
    long(dir.path()).await;
    for report in both(dir.path()) {
        assert!(report.findings.is_empty(), "{}", said(&report));
        assert!(report.journal.0 > 0);
        let telemetry = telemetry(&report);
        assert_eq!(telemetry.ledger.batches, 90);
        assert!(telemetry.journal.batches < 90);
        assert_eq!(telemetry.lake.as_ref().unwrap().batches, 90);
    }
    // A checkpoint that can't be read is said, and the other one does.
    let newest = checkpoints(&dir).pop().unwrap();
    flip(&newest, 60);
    let report = audit(dir.path(), true).unwrap();
    assert_eq!(report.findings.len(), 1, "{}", said(&report));
    assert!(said(&report).contains(&*newest.to_string_lossy()));
    flip(&newest, 60);
    for checkpoint in checkpoints(&dir) {
        std::fs::remove_file(checkpoint).unwrap();
    }
    let refused = audit(dir.path(), false).unwrap_err();
    assert!(
        matches!(refused, AuditError::NoCheckpoint { .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn a_segment_that_is_gone_between_two_checkpoints_is_named_by_its_batches() {
    let dir = TempDir::new().unwrap();
    long(dir.path()).await;
    let report = audit(dir.path(), false).unwrap();
    let mut files = Vec::new();
    files_below(&dir.path().join("journal"), &mut files);
    let segments: Vec<_> = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .collect();
    assert!(segments.len() > 2, "{}", segments.len());
    // The newest but one: what was in it stands between the two checkpoints, or behind both.
    std::fs::remove_file(&segments[segments.len() - 2]).unwrap();
    let broken = audit(dir.path(), false).unwrap();
    assert_eq!(broken.journal, report.journal);
    let text = said(&broken);
    assert!(text.contains("the lake took them before"), "{text}");
    assert!(!wrong(&broken).is_empty(), "{text}");
}

#[tokio::test]
async fn a_journal_that_was_rolled_back_is_found() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    let mut files = Vec::new();
    files_below(&dir.path().join("journal"), &mut files);
    for file in files
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
    {
        std::fs::remove_file(file).unwrap();
    }
    // The journal has no name any more, so nothing of the lake is its.
    let report = audit(dir.path(), false).unwrap();
    let text = said(&report);
    assert!(text.contains("files of journal 0909"), "{text}");
    assert!(matches!(
        audit(&dir.path().join("lake"), false).unwrap_err(),
        AuditError::NoData { .. }
    ));
}

#[tokio::test]
async fn two_aggregators_that_hold_the_same_batch_are_named() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    let mut first = audit(dir.path(), false).unwrap();
    // Both looks at one time.
    first.began_us = first.at_us;
    let mut second = apart_from(&first);
    let apart = laid(&[first.clone(), second.clone()]);
    assert!(apart.findings.is_empty(), "{apart}");
    let telemetry = apart.lanes.iter().find(|lane| lane.lane == "telemetry");
    let telemetry = telemetry.unwrap();
    assert_eq!(telemetry.missing, [(12, 1_000)]);
    assert_eq!(telemetry.batches, 24);
    // Both hold 10 and 11.
    let place = second
        .lanes
        .iter()
        .position(|lane| lane.lane == "telemetry");
    let place = place.unwrap();
    second.lanes[place].committed[0].first = 10;
    second.lanes[place].committed[0].end = 15;
    let both = laid(&[first.clone(), second.clone()]);
    assert_eq!(both.findings.len(), 1, "{both}");
    assert_eq!(both.findings[0].numbers, [(10, 12)]);
    // One of them says that it does not know.
    second.lanes[place].in_doubt = vec![(9, 13)];
    let doubted = laid(&[first.clone(), second]);
    assert!(doubted.findings.is_empty(), "{doubted}");
    // Definitions go to each that lacks them.
    let mut third = apart_from(&first);
    let place = third.lanes.iter().position(|lane| lane.lane == "series");
    third.lanes[place.unwrap()].committed = lane(&first, "series").committed.clone();
    let defined = laid(&[first.clone(), third.clone()]);
    assert!(defined.findings.is_empty(), "{defined}");
    // What one is told that the other holds, it does; or it is said.
    let place = third.lanes.iter().position(|lane| lane.lane == "telemetry");
    let place = place.unwrap();
    let elsewhere = |end| Elsewhere {
        log: first.log.clone(),
        numbers: vec![(0, end)],
    };
    third.lanes[place].elsewhere = vec![elsewhere(12)];
    third.lanes[place].floor = 12;
    let told = laid(&[first.clone(), third.clone()]);
    assert!(told.findings.is_empty(), "{told}");
    third.lanes[place].elsewhere = vec![elsewhere(14)];
    third.lanes[place].floor = 16;
    let told = laid(&[first.clone(), third]);
    let numbers: Vec<_> = told.findings.iter().map(|it| it.numbers.clone()).collect();
    assert_eq!(numbers, [[(12, 14)], [(14, 16)]], "{told}");
    // A copy of the whole.
    let copied = laid(&[first.clone(), first]);
    assert!(
        copied.to_string().contains("have the same journal"),
        "{copied}"
    );
}

/// Side by side, each looked at once.
fn laid(reports: &[Report]) -> Merged {
    merge(reports, reports)
}

/// What one was told while the other was not looked at yet is no loss: it is looked for later.
#[tokio::test]
async fn pictures_of_different_moments_are_no_loss() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    let mut early = audit(dir.path(), false).unwrap();
    assert!(early.began_us > 0 && early.began_us <= early.at_us);
    let mut late = apart_from(&early);
    let place = late.lanes.iter().position(|it| it.lane == "telemetry");
    let place = place.unwrap();
    // Later it is told of two more, and that all below 14 was acknowledged.
    late.lanes[place].elsewhere = vec![Elsewhere {
        log: early.log.clone(),
        numbers: vec![(0, 14)],
    }];
    late.lanes[place].floor = 14;
    (late.began_us, late.at_us) = (early.at_us + 5, early.at_us + 9);
    let reports = [early.clone(), late.clone()];
    let once = merge(&reports, &reports);
    assert!(once.findings.is_empty(), "{once}");
    assert_eq!(once.verdict(), Verdict::Unsettled);
    assert_eq!(once.unsettled[0].numbers, [(12, 14)]);
    // Looked at again, it has them; or it is lost.
    (early.began_us, early.at_us) = (late.at_us, late.at_us + 1);
    let lost = merge(&reports, &[early.clone(), late.clone()]);
    assert_eq!(lost.verdict(), Verdict::Disagrees, "{lost}");
    early.lanes[place].committed[0].end = 14;
    let there = merge(&reports, &[early, late]);
    assert_eq!(there.verdict(), Verdict::Agrees, "{there}");
}

/// An audit of another aggregator, whose numbers are all others.
fn apart_from(report: &Report) -> Report {
    let mut other = report.clone();
    other.log = "ab".repeat(16);
    "other".clone_into(&mut other.data_dir);
    for lane in &mut other.lanes {
        for run in &mut lane.committed {
            (run.first, run.end) = (run.first + 1_000, run.end + 1_000);
        }
    }
    other
}

/// A keeper and a lake, each on its thread, that trim and fold while they are looked at.
#[tokio::test]
async fn a_running_aggregator_is_read_beside_its_writes() {
    let dir = TempDir::new().unwrap();
    let opened = Keeper::open(&os(), &config(dir.path(), SMALL)).unwrap();
    let (handle, requests) = LakeHandle::new();
    let lake = open_lake(&opened.1, dir.path(), &handle, Duration::from_millis(1)).await;
    let kept = Kept::before(opened, Arc::clone(handle.status()));
    let stop = CancellationToken::new();
    let writing = {
        let (durable, stop) = (kept.parts.durable.clone(), stop.clone());
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || runtime.block_on(lake.run(durable, requests, stop)).unwrap())
    };
    let session = kept.hello().await.0.session;
    offer(&kept, session, &series(0, 0, 3)).await;
    let (path, looked) = (dir.path().to_owned(), stop.clone());
    let looking = std::thread::spawn(move || {
        let mut looks = 0;
        while !looked.is_cancelled() || looks < 3 {
            let report = audit(&path, looks % 2 == 0).unwrap();
            assert!(report.findings.is_empty(), "{report}");
            looks += 1;
        }
    });
    for number in 0..300 {
        offer(&kept, session, &readings(number, 3, 300, 0)).await;
        handle.flush().await.unwrap();
    }
    let trimmed = kept.parts.reader.lives()[0].first;
    stop.cancel();
    let written = tokio::task::spawn_blocking(|| (looking.join(), writing.join()));
    let (looked, end) = written.await.unwrap();
    looked.unwrap();
    assert_eq!(end.unwrap(), 301);
    kept.end().await;
    assert!(trimmed > 0, "nothing was trimmed: the test shows little");
    let report = audit(dir.path(), true).unwrap();
    assert!(report.findings.is_empty(), "{report}");
    assert_eq!(telemetry(&report).ledger.batches, 300);
    // Folded markers tell of no lane, and the sum over all is still compared.
    assert_eq!(lane(&report, "series").lake, None);
    let mut markers = Vec::new();
    files_below(&dir.path().join("lake/_tributary"), &mut markers);
    let folded = std::fs::read_to_string(&markers[0]).unwrap();
    let at = folded.find("\"batches\":").unwrap() + 10;
    flip(&markers[0], at);
    let report = audit(dir.path(), false).unwrap();
    assert!(said(&report).contains("checksum"), "{}", said(&report));
    // One of an earlier version, which has none.
    let flipped = std::fs::read_to_string(&markers[0]).unwrap();
    let (said_by_it, _) = flipped.split_once(",\"check\":").unwrap();
    std::fs::write(&markers[0], format!("{said_by_it}}}")).unwrap();
    let report = audit(dir.path(), false).unwrap();
    assert!(
        said(&report).contains("batches of all lanes"),
        "{}",
        said(&report)
    );
}

#[derive(clap::Parser)]
struct QuarantineProgram {
    #[command(flatten)]
    arguments: QuarantineArguments,
}

fn quarantined(dir: &Path, arguments: &[&str]) -> (bool, String) {
    let dir = dir.to_str().unwrap();
    let head = ["quarantine", "--data-dir", dir];
    let program = QuarantineProgram::try_parse_from(head.iter().chain(arguments)).unwrap();
    let mut out = Vec::new();
    let well = quarantine::run(&program.arguments, None, &mut out).unwrap();
    (well, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn what_is_in_quarantine_is_listed_with_what_is_wrong_and_copied_out_as_it_came() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    // A batch that contradicts what is held, and verifies.
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    let other = readings(11, 3, 100, 77);
    assert!(matches!(
        kept.offer(session, &other).await,
        Outcome::Reject(_)
    ));
    let (well, text) = quarantined(dir.path(), &["ls"]);
    kept.end().await;
    // What contradicts is an alarm, what never verified is not; nothing disagrees for that.
    let report = audit(dir.path(), false).unwrap();
    assert_eq!(
        (report.alarms.len(), report.verdict()),
        (1, Verdict::Agrees)
    );
    assert_eq!(report.alarms[0].agent, agent(1).to_string());
    assert!(
        said(&report).contains("1 batches in quarantine contradict"),
        "{report}"
    );
    assert!(well);
    let [bad, contrary] = text.lines().collect::<Vec<_>>()[..] else {
        panic!("{text}");
    };
    assert!(
        bad.contains(" telemetry 9: ") && !bad.contains("verifies"),
        "{bad}"
    );
    assert!(contrary.contains(" telemetry 11: ") && contrary.contains("verifies"));
    let (_, json) = quarantined(dir.path(), &["ls", "--json"]);
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["number"], &first["lane"]),
        (&9.into(), &"telemetry".into())
    );
    let output = dir.path().join("out");
    let (well, _) = quarantined(
        dir.path(),
        &["export", "--output", output.to_str().unwrap()],
    );
    assert!(well);
    let mut files = Vec::new();
    files_below(&output, &mut files);
    assert_eq!(files.len(), 3);
    let copies: Vec<_> = files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    assert!(copies.iter().any(|copy| copy == other.bytes()));
    assert!(copies.iter().any(|copy| copy == spoiled(9, "").bytes()));
}
