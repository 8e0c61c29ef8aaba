//! Parquet that readers of the lake see and no flush wrote there, files that do not count, and a
//! lake that holds what an older journal gave.

use super::{both, files_below, made, offer, parquet, said};
use crate::keeper::{Kept, os};
use crate::sealed::{readings, series};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tributary_aggregator::audit::{Verdict, audit};
use tributary_aggregator::limits::AUDIT_FOREIGN_MAX;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap();
}

#[tokio::test]
async fn parquet_that_no_flush_wrote_is_found_at_any_depth_and_read_by_a_deep_audit() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    let file = parquet(dir.path(), "readings").remove(0);
    let name = file.file_name().unwrap().to_str().unwrap();
    let lake = dir.path().join("lake");
    let hour = file.parent().unwrap();
    for foreign in [
        lake.join("readings").join(name),
        hour.join("deeper").join(name),
        hour.join("compacted.PARQUET"),
        lake.join("old").join(name),
        lake.join("part-0.parquet"),
    ] {
        copy(&file, &foreign);
        let [plain, deep] = both(dir.path());
        let shown = foreign.display().to_string();
        for report in [&plain, &deep] {
            assert_eq!(report.findings.len(), 1, "{shown}: {}", said(report));
            assert!(
                report.findings[0].what.starts_with(&shown),
                "{}",
                said(report)
            );
        }
        let rows = "(600 rows, 600 of them of batches that the lake has as well)";
        assert!(said(&deep).contains(rows), "{shown}: {}", said(&deep));
        std::fs::remove_file(&foreign).unwrap();
    }
    // What is no Parquet at all.
    let broken = hour.join("broken.parquet");
    std::fs::write(&broken, b"PAR1 and no more").unwrap();
    assert!(said(&audit(dir.path(), true).unwrap()).contains("it can't be read: "));
    std::fs::remove_file(broken).unwrap();
    // What is being put has another ending.
    copy(&file, &hour.join("part.parquet#1"));
    assert_eq!(audit(dir.path(), true).unwrap().verdict(), Verdict::Agrees);
}

fn marker_folder(dir: &Path) -> PathBuf {
    let mut files = Vec::new();
    files_below(&dir.join("lake/_tributary"), &mut files);
    files[0].parent().unwrap().to_owned()
}

#[tokio::test]
async fn a_file_beyond_the_position_is_found_unless_the_flush_under_way_names_it() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    let whole = audit(dir.path(), false).unwrap();
    let file = parquet(dir.path(), "readings").remove(0);
    let name = file.file_name().unwrap().to_str().unwrap();
    let position = whole.lake_position;
    let beyond = format!(
        "{}-{position:020}-{:020}.parquet",
        &name[..32],
        position + 3
    );
    let beyond = file.with_file_name(beyond);
    copy(&file, &beyond);
    for report in both(dir.path()) {
        assert_eq!(report.findings.len(), 1, "{}", said(&report));
        assert!(
            said(&report).contains("not done and not under way"),
            "{}",
            said(&report)
        );
    }
    let below = beyond.strip_prefix(dir.path().join("lake")).unwrap();
    let intent = serde_json::json!({
        "version": 1, "log": whole.log, "first": position, "end": position + 3,
        "software": "test",
        "files": [{ "path": below, "rows": 600, "digest": "" }],
    });
    let path = marker_folder(dir.path()).join(format!("{position:020}.intent"));
    std::fs::write(&path, intent.to_string()).unwrap();
    for report in both(dir.path()) {
        assert!(report.findings.is_empty(), "{}", said(&report));
    }
    // It is damaged.
    std::fs::write(&path, &intent.to_string()[..40]).unwrap();
    for report in both(dir.path()) {
        assert_eq!(report.findings.len(), 1, "{}", said(&report));
        assert!(
            report.findings[0].what.starts_with("the intent "),
            "{}",
            said(&report)
        );
    }
}

#[tokio::test]
async fn what_an_older_journal_gave_the_lake_is_not_forgotten() {
    let older = TempDir::new().unwrap();
    made(older.path()).await;
    let dir = TempDir::new().unwrap();
    let kept = Kept::start(&os(), dir.path(), 0).unwrap();
    let session = kept.hello().await.0.session;
    offer(&kept, session, &series(0, 0, 3)).await;
    for number in 20..23 {
        offer(&kept, session, &readings(number, 3, 100, 0)).await;
    }
    super::flush(&kept, dir.path()).await;
    kept.end().await;
    for file in parquet(older.path(), "readings") {
        let name = file.file_name().unwrap().to_str().unwrap();
        let name = format!("{}{}", "ab".repeat(16), &name[32..]);
        let below = file.strip_prefix(older.path()).unwrap();
        copy(&file, &dir.path().join(below).with_file_name(name));
    }
    let [plain, deep] = both(dir.path());
    for report in [plain, deep] {
        assert_eq!(report.verdict(), Verdict::Agrees, "{}", said(&report));
        assert!(
            said(&report).contains("files of journal abab"),
            "{}",
            said(&report)
        );
    }
}

#[tokio::test]
async fn however_much_is_wrong_a_report_is_bounded_and_says_how_much_is_left_out() {
    let dir = TempDir::new().unwrap();
    made(dir.path()).await;
    let folder = dir.path().join("lake/readings/copies");
    std::fs::create_dir(&folder).unwrap();
    for n in 0..AUDIT_FOREIGN_MAX + 50 {
        std::fs::write(folder.join(format!("{n}.parquet")), b"").unwrap();
    }
    for report in both(dir.path()) {
        assert_eq!(report.findings.len(), AUDIT_FOREIGN_MAX);
        assert_eq!(report.findings_more, 50);
        assert!(said(&report).contains("and 50 more"));
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains("\"findings_more\":50"), "{text}");
    }
}
