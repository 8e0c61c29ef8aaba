//! Every way a lake can differ from the truth is found, named, and ends with exit code 1.

use crate::lake::{Row, STARTED_MS, Site, write};
use crate::server::{Act, Server};
use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tributary_sim::client::{Progress, Protocol};
use tributary_sim::reading::Value;
use tributary_sim::sim::{self, Publishing, RunConfig};
use tributary_sim::verify::{self, Report};

/// The report of the library; the command must agree with it about the exit code.
fn verified(site: &Site) -> Report {
    let report = verify::compare(&site.lake(), &site.truth()).unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_tributary-sim"))
        .args(["verify", "--json", "--lake"])
        .arg(site.lake())
        .arg("--truth")
        .arg(site.truth())
        .output()
        .unwrap();
    let printed = String::from_utf8(status.stdout).unwrap();
    let last: serde_json::Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!(last, serde_json::to_value(&report).unwrap());
    assert_eq!(status.status.code(), Some(i32::from(!report.is_clean())));
    report
}

/// (lost, duplicates, changed, foreign), and how many files could not be read.
fn found(report: &Report) -> ((u64, u64, u64, u64), usize) {
    let counts = (
        report.lost,
        report.duplicates,
        report.changed,
        report.foreign,
    );
    (counts, report.unreadable.len())
}

#[test]
fn a_lake_that_agrees_is_clean() {
    let site = Site::new();
    site.write();
    let report = verified(&site);
    assert!(report.is_clean());
    assert_eq!(found(&report), ((0, 0, 0, 0), 0));
    assert_eq!((report.published, report.acknowledged), (1_000, 990));
    assert_eq!(
        (report.delivered, report.unacknowledged_delivered),
        (1_000, 10)
    );
    assert_eq!((report.files, report.rows), (2, 1_000));
    let below = verify::compare(&site.lake().join("readings"), &site.truth()).unwrap();
    assert_eq!(below, report, "the folder `readings` will do as well");
}

#[test]
fn what_was_not_acknowledged_may_be_missing() {
    let site = Site::new();
    site.write();
    write(&site.hour().join("b.parquet"), &site.rows()[600..990]);
    let report = verified(&site);
    assert!(report.is_clean());
    assert_eq!(
        (report.delivered, report.unacknowledged_delivered),
        (990, 0)
    );
}

#[test]
fn without_numbers_readings_are_told_by_their_times() {
    let mut site = Site::new();
    site.numbered = false;
    site.write_truth();
    let mut rows = site.rows();
    write(&site.hour().join("a.parquet"), &rows);
    assert_eq!(verified(&site).foreign, 1_000, "numbers that nobody gave");
    for row in &mut rows {
        row.seq = None;
    }
    write(&site.hour().join("a.parquet"), &rows);
    let report = verified(&site);
    assert_eq!(found(&report), ((0, 0, 0, 0), 0));
    assert_eq!(report.delivered, 1_000);
    rows.push(rows[7].clone());
    rows.remove(3);
    rows[100].time_us += 1;
    write(&site.hour().join("a.parquet"), &rows);
    assert_eq!(found(&verified(&site)), ((2, 1, 0, 1), 0));
}

#[test]
fn numbers_that_got_lost_are_found() {
    let site = Site::new();
    site.write_truth();
    let mut rows = site.rows();
    rows[5].seq = None;
    write(&site.hour().join("a.parquet"), &rows);
    assert_eq!(found(&verified(&site)), ((1, 0, 0, 1), 0));
}

#[test]
fn a_doubled_row_is_found() {
    let site = Site::new();
    site.write();
    write(&site.hour().join("d.parquet"), &site.rows()[42..43]);
    let report = verified(&site);
    assert_eq!(found(&report), ((0, 1, 0, 0), 0));
    assert_eq!(report.delivered, 1_000);
    let words = &report.examples.duplicates[0];
    assert!(words.contains("plant-1/pump-0002 temperature seq 8") && words.contains("d.parquet"));
}

#[test]
fn of_two_lakes_what_is_in_doubt_in_one_is_there_once() {
    let site = Site::new();
    site.write();
    let other = Site::new();
    let lakes = [site.lake(), other.lake()];
    let both = || verify::compare_all(&lakes, &site.truth()).unwrap();
    let mut rows = site.rows()[..3].to_vec();
    write(&other.hour().join("a.parquet"), &rows);
    let report = both();
    assert_eq!(
        (found(&report), report.twice_in_doubt),
        (((0, 3, 0, 0), 0), 0)
    );
    rows[1].in_doubt = true;
    write(&other.hour().join("a.parquet"), &rows);
    let report = both();
    assert_eq!(
        (found(&report), report.twice_in_doubt),
        (((0, 2, 0, 0), 0), 1)
    );
    rows.iter_mut().for_each(|row| row.in_doubt = true);
    write(&other.hour().join("a.parquet"), &rows);
    // Whichever is read first.
    for lakes in [[site.lake(), other.lake()], [other.lake(), site.lake()]] {
        let report = verify::compare_all(&lakes, &site.truth()).unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.delivered, report.twice_in_doubt), (1_000, 3));
    }
    // In one lake nothing is there twice, whatever it says.
    write(&site.hour().join("d.parquet"), &rows);
    assert_eq!(found(&verified(&site)), ((0, 3, 0, 0), 0));
}

#[test]
fn a_second_copy_with_another_value_is_a_duplicate_too() {
    let site = Site::new();
    site.write();
    let copy = Row {
        value: Value::F64(1.0),
        ..site.rows()[0].clone()
    };
    write(&site.hour().join("d.parquet"), &[copy]);
    assert_eq!(found(&verified(&site)), ((0, 1, 1, 0), 0));
}

#[test]
fn a_deleted_file_is_found() {
    let site = Site::new();
    site.write();
    std::fs::remove_file(site.hour().join("a.parquet")).unwrap();
    let report = verified(&site);
    assert_eq!(found(&report), ((600, 0, 0, 0), 0));
    assert_eq!(report.examples.lost.len(), 10);
    assert!(report.examples.lost[0].starts_with("plant-1/pump-0000 temperature seq 0 at 2023-"));
}

#[test]
fn a_deleted_lake_is_found_and_a_folder_that_never_was_is_an_error() {
    let site = Site::new();
    site.write();
    std::fs::remove_dir_all(site.lake().join("readings")).unwrap();
    std::fs::remove_dir_all(site.lake().join("alerts")).unwrap();
    assert_eq!(found(&verified(&site)), ((990, 0, 0, 0), 0));
    std::fs::remove_dir_all(site.lake()).unwrap();
    let error = verify::compare(&site.lake(), &site.truth()).unwrap_err();
    assert!(error.to_string().contains("lake"), "{error}");
}

#[test]
fn every_changed_bit_type_and_time_is_found() {
    type Change = (usize, fn(&mut Row));
    let changes: [Change; 8] = [
        (0, |row| row.value = Value::F64(f64::from_bits(1))),
        (4, |row| row.value = Value::F64(0.0)), // was -0.0
        (1, |row| row.value = Value::I64(-101)),
        (1, |row| row.value = Value::F64(-100.0)),
        (2, |row| row.value = Value::Bool(false)),
        (3, |row| row.value = Value::Text("Running".into())),
        (3, |row| row.value = Value::Text("idle".into())),
        (0, |row| row.time_us += 1),
    ];
    for (place, change) in changes {
        let site = Site::new();
        site.write();
        let mut rows = site.rows();
        change(&mut rows[place]);
        write(&site.hour().join("a.parquet"), &rows[..600]);
        let report = verified(&site);
        assert_eq!(found(&report), ((0, 0, 1, 0), 0), "{:?}", rows[place]);
        assert_eq!(report.delivered, 999);
        assert!(report.examples.changed[0].contains("published: "));
    }
}

#[test]
fn a_corrupted_file_is_found_by_name() {
    let site = Site::new();
    site.write();
    let path = site.hour().join("a.parquet");
    let whole = std::fs::read(&path).unwrap();
    for spoil in [
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 5),
        |bytes: &mut Vec<u8>| bytes.clear(),
        |bytes: &mut Vec<u8>| bytes[4..2_000].fill(0xa5),
    ] {
        let mut bytes = whole.clone();
        spoil(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        let report = verified(&site);
        assert!(!report.is_clean());
        assert_eq!(report.unreadable.len(), 1);
        assert_eq!(report.unreadable[0].file, path);
    }
}

/// Whatever bit of a file is flipped: it is found, or it stands where no reading is told from.
#[test]
fn a_flipped_bit_never_makes_a_wrong_reading_pass() {
    let site = Site::new();
    site.write();
    let path = site.hour().join("a.parquet");
    let whole = std::fs::read(&path).unwrap();
    let mut noticed = 0;
    let mut tried = 0;
    for at in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        let report = verify::compare(&site.lake(), &site.truth()).unwrap();
        tried += 1;
        noticed += u32::from(!report.is_clean());
        assert!(
            !report.is_clean() || report.delivered == 1_000,
            "flipped at {at}"
        );
    }
    assert!(noticed * 3 > tried, "{noticed} of {tried}");
}

#[test]
fn a_file_without_a_column_or_in_other_units_is_unreadable() {
    use arrow_array::{RecordBatch, StringArray};
    let site = Site::new();
    site.write();
    let devices: StringArray = ["plant-1/pump-0000"].into_iter().map(Some).collect();
    let column = std::sync::Arc::new(devices) as arrow_array::ArrayRef;
    let batch = RecordBatch::try_from_iter([("device", column)]).unwrap();
    let file = std::fs::File::create(site.hour().join("d.parquet")).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let report = verified(&site);
    assert_eq!(found(&report), ((0, 0, 0, 0), 1));
    assert_eq!(report.unreadable[0].why, "there is no column `metric`");
}

#[test]
fn foreign_rows_are_told_from_those_of_others_and_of_older_runs() {
    let site = Site::new();
    site.write();
    let row = site.rows()[0].clone();
    let late_us = STARTED_MS * 1_000 + 60_000_000;
    let older_us = STARTED_MS * 1_000 - 1;
    let foreign = [
        Row {
            seq: Some(200),
            ..row.clone()
        },
        Row {
            seq: None,
            ..row.clone()
        },
        Row {
            seq: Some(-1),
            ..row.clone()
        },
        Row {
            metric: "pressure".into(),
            ..row.clone()
        },
    ];
    let fine = [
        Row {
            device: "plant-1/pump-0005".into(),
            ..row.clone()
        },
        Row {
            seq: Some(777),
            received_us: older_us,
            ..row.clone()
        },
        Row {
            time_us: late_us,
            received_us: older_us,
            ..row.clone()
        },
    ];
    write(&site.hour().join("d.parquet"), &fine);
    let report = verified(&site);
    assert!(report.is_clean());
    assert_eq!((report.others, report.earlier), (1, 2));
    write(&site.hour().join("e.parquet"), &foreign);
    assert_eq!(found(&verified(&site)), ((0, 0, 0, 4), 0));
}

/// A row with a wrong time is another key: whichever is read first, the right one is no copy.
#[test]
fn a_wrong_time_beside_the_right_row_is_a_change_and_no_duplicate() {
    for name in ["0.parquet", "z.parquet"] {
        let site = Site::new();
        site.write();
        let mut row = site.rows()[0].clone();
        row.time_us += 1_000;
        write(&site.hour().join(name), &[row]);
        let report = verified(&site);
        assert_eq!(found(&report), ((0, 0, 1, 0), 0), "{name}");
        assert_eq!(report.delivered, 1_000);
    }
}

#[test]
fn a_truth_without_its_end_is_used_as_far_as_it_goes() {
    let site = Site::new();
    site.write();
    site.write_truth_with(20_000);
    assert!(verified(&site).is_clean());
    let bytes = std::fs::read(site.truth()).unwrap();
    std::fs::write(site.truth(), &bytes[..bytes.len() - 3]).unwrap();
    let report = verified(&site);
    assert!(!report.is_clean(), "it may be cut anywhere");
    assert!(report.is_clean_if_killed(), "{report:?}");
    assert!(report.truth_tail.unwrap().contains("torn"));
    let killed = Command::new(env!("CARGO_BIN_EXE_tributary-sim"))
        .args(["verify", "--killed", "--lake"])
        .args([site.lake(), "--truth".into(), site.truth()])
        .output()
        .unwrap();
    assert_eq!(killed.status.code(), Some(0));
}

/// A truth that was cut behind its header proves nothing, whatever the lake holds.
#[test]
fn a_truth_of_nothing_is_never_clean() {
    let site = Site::new();
    site.write();
    let bytes = std::fs::read(site.truth()).unwrap();
    let mut cuts = 0;
    for end in 0..200 {
        std::fs::write(site.truth(), &bytes[..end]).unwrap();
        let Ok(report) = verify::compare(&site.lake(), &site.truth()) else {
            continue;
        };
        cuts += 1;
        assert!(!report.is_clean() && !report.is_clean_if_killed(), "{end}");
    }
    assert!(cuts > 0, "no cut was a truth at all");
}

#[test]
fn folders_that_were_not_looked_into_are_named() {
    let site = Site::new();
    site.write();
    let hidden = site.hour().join("_hidden");
    std::fs::create_dir(&hidden).unwrap();
    let report = verified(&site);
    assert!(report.is_clean());
    assert!(report.skipped.contains(&hidden), "{:?}", report.skipped);
    let mut deep = site.hour();
    for _ in 0..10 {
        deep.push("deep");
    }
    std::fs::create_dir_all(deep).unwrap();
    let report = verified(&site);
    assert!(!report.is_clean());
    assert_eq!(report.unreadable.len(), 1);
}

/// What a pipeline would make of one publication, decoded here by other means than it was made.
fn decoded(topic: &str, payload: &[u8]) -> Row {
    let text = std::str::from_utf8(payload).unwrap();
    let (value, rest) = text
        .strip_prefix("{\"value\":")
        .unwrap()
        .split_once(",\"ts\":")
        .unwrap();
    let (ts, rest) = rest.split_once(",\"seq\":").unwrap();
    let seq: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let value = match value.strip_prefix('"') {
        Some(quoted) => Value::Text(quoted.strip_suffix('"').unwrap().into()),
        None => match value.parse::<i64>() {
            Ok(whole) => Value::I64(whole),
            Err(_) => Value::F64(value.parse().unwrap()),
        },
    };
    let (device, metric) = topic.rsplit_once('/').unwrap();
    let time_us = ts.parse::<i64>().unwrap() * 1_000;
    Row {
        device: device.to_owned(),
        metric: metric.to_owned(),
        seq: Some(seq.parse().unwrap()),
        time_us,
        received_us: time_us + 5_000,
        value,
        in_doubt: false,
    }
}

#[tokio::test]
async fn a_run_and_the_lake_made_of_what_it_sent_agree() {
    let site = Site::new();
    let decide = |connection, nth| match (connection, nth) {
        (0, 500) => Act::Cut,
        (0, n) if n % 9 == 0 => Act::Hold,
        _ => Act::Ack,
    };
    let mut server = Server::start(Protocol::V311, 64, decide).await;
    let mut publishing = Publishing::to(server.address.to_string());
    publishing.truth = Some(site.truth());
    let mut config = RunConfig::new(publishing);
    (config.sensors, config.rate_hz, config.connections) = (50, 200.0, Some(2));
    let (stop, progress) = (CancellationToken::new(), Arc::new(Progress::default()));
    let running = sim::run(config, stop.clone(), progress.clone());
    let stopping = async {
        server.received(4_000).await;
        stop.cancel();
    };
    let (summary, ()) = tokio::join!(running, stopping);
    let summary = summary.unwrap();
    assert_eq!(summary.counts, progress.counts());
    let mut known = HashSet::new();
    let (mut rows, mut all) = (Vec::new(), Vec::new());
    for received in &server.seen.lock().unwrap().received {
        let row = decoded(&received.topic, &received.payload);
        all.push(row.clone());
        if known.insert((row.device.clone(), row.seq)) {
            rows.push(row);
        }
    }
    let path = site.hour().join("a.parquet");
    write(&path, &rows);
    let report = verified(&site);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.delivered, summary.counts.published);
    assert_eq!(report.acknowledged, summary.counts.acknowledged);
    // Without deduplication every copy shows.
    write(&path, &all);
    assert_eq!(
        found(&verified(&site)),
        ((0, (all.len() - rows.len()) as u64, 0, 0), 0)
    );
    assert!(all.len() > rows.len());
}
