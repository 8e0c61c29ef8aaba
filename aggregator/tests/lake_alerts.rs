//! The table `alerts`: columns of its own, each alert once, and nothing that stops the lake.

use crate::ingest::{http, site};
use crate::keeper::agent;
use crate::lake::{Mortal, local};
use crate::made::MadeFeed;
use crate::sealed::{EPOCH_US, alerts, readings, series};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType as Micros};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use futures_util::TryStreamExt;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tributary_aggregator::lake::columns::{
    aggregates_schema, alerts_schema, digest, gaps_schema, readings_schema,
};
use tributary_aggregator::lake::commit::LakeStore;
use tributary_aggregator::lake::file::{footer, rows};
use tributary_aggregator::lake::load::{Content, Names, Origin, SeriesName};
use tributary_aggregator::lake::sink::Item;
use tributary_aggregator::lake::{Lake, LakeConfig, LakeError, LakeHandle};
use tributary_aggregator::limits::{ALERTS_LISTED_DEFAULT, ALERTS_RECENT_MAX};
use tributary_protocol::batch::{Content as Decoded, Decoder};
use tributary_protocol::ids::*;
use tributary_protocol::reading::Value;

const GOLDEN: &str = include_str!("../../protocol/tests/data/alert.json");
const SCHEMA: &str = include_str!("../../docs/alert.schema.json");

fn golden() -> Json {
    serde_json::from_str(GOLDEN).unwrap()
}

/// The golden alert, told apart by its number.
fn alert(n: u64) -> String {
    let mut alert = golden();
    alert["id"] = json!(format!("{n:032x}"));
    alert.to_string()
}

/// The Parquet files below a folder.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

pub fn read(path: &Path) -> RecordBatch {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).unwrap().into();
    let mut all = rows(&name, &bytes).unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(footer(&name, &bytes).unwrap().digest, digest(&all[0]));
    all.remove(0)
}

pub fn text(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(name).unwrap().as_string::<i32>();
    (!column.is_null(row)).then(|| column.value(row).to_owned())
}

pub fn time(batch: &RecordBatch, name: &str, row: usize) -> Option<i64> {
    let column = batch.column_by_name(name).unwrap().as_primitive::<Micros>();
    (!column.is_null(row)).then(|| column.value(row))
}

pub fn number(batch: &RecordBatch, name: &str, row: usize) -> Option<f64> {
    let column = batch.column_by_name(name).unwrap();
    let column = column.as_primitive::<Float64Type>();
    (!column.is_null(row)).then(|| column.value(row))
}

/// What the HTTP side answers, as JSON.
pub async fn asked(site: &crate::ingest::Site, path: &str) -> Json {
    let answer = http(site.running.http_addr(), path).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn alerts_have_columns_of_their_own_and_what_is_none_is_kept_beside() {
    let site = site().await;
    let mut agent = site.agent(1).await;
    let text_of_golden = golden().to_string();
    let values = [
        Value::Str(&text_of_golden),
        Value::Str("{\"schema\":2,\"id\":\"of a later agent\"}"),
        Value::Str("plain words"),
        Value::F64(7.5),
    ];
    agent.send(&alerts(0, &values)).await;
    agent.send(&series(0, 0, 3)).await;
    agent.send(&readings(0, 3, 10, 0)).await;
    agent.acked(Lane::Telemetry, 1).await;
    site.running.flush().await.unwrap();

    let lake = site.dir.path().join("data/lake");
    let found = files(&lake.join("alerts"));
    assert_eq!(found.len(), 1, "{found:?}");
    let hour = lake.join("alerts/event_date=2026-11-20/event_hour=20");
    assert_eq!(found[0].parent(), Some(&*hour));
    let table = read(&found[0]);
    assert_eq!(table.num_rows(), 4);
    let own = [
        "alert_id", "state", "kind", "unit", "detector", "part", "revision", "severity", "text",
    ];
    for row in 0..4 {
        let is_alert = text(&table, "json", row) == Some(text_of_golden.clone());
        for name in own {
            let expected = golden()[if name == "alert_id" { "id" } else { name }].clone();
            let expected = expected.as_str().map(str::to_owned).filter(|_| is_alert);
            assert_eq!(text(&table, name, row), expected, "{name} of row {row}");
        }
        assert_eq!(number(&table, "score", row), is_alert.then_some(0.83));
        assert_eq!(number(&table, "value", row), is_alert.then_some(27.5));
        let at = |us| is_alert.then_some(EPOCH_US + us);
        assert_eq!(time(&table, "detection_time", row), at(128_000));
        assert_eq!(time(&table, "window_from", row), at(-1_000_000));
        assert_eq!(time(&table, "window_to", row), at(0));
        let late = table.column_by_name("late").unwrap();
        assert_eq!(late.is_null(row), !is_alert);
        // These are the reading's.
        let device = text(&table, "device", row).unwrap();
        assert!(device.starts_with("plant-1/pump-"), "{device}");
        assert_eq!(text(&table, "metric", row).unwrap(), "temperature");
        assert_eq!(text(&table, "lane", row).unwrap(), "alerts");
        let event = time(&table, "event_time", row).unwrap();
        assert_eq!(time(&table, "received_time", row), Some(event + 5));
    }
    let kept: BTreeSet<String> = (0..4).filter_map(|row| text(&table, "json", row)).collect();
    let sent = values.iter().map(|value| match value {
        Value::Str(text) => (*text).to_owned(),
        _ => "7.5".to_owned(),
    });
    assert_eq!(kept, sent.collect());
    // Readings beside them keep theirs.
    let readings = read(&files(&lake.join("readings"))[0]);
    assert!(readings.column_by_name("value_f64").is_some());

    // For a reader that others wrote: tests/alerts.py.
    let left = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lake-of-alerts");
    let _ = std::fs::remove_dir_all(&left);
    std::fs::create_dir_all(left.join("alerts")).unwrap();
    std::fs::copy(&found[0], left.join("alerts/a.parquet")).unwrap();

    let status = asked(&site, "/api/v1/status").await;
    assert_eq!(
        (&status["lake"]["alerts"], &status["lake"]["rows"]),
        (&json!(4), &json!(14))
    );
    assert_eq!(status["lake"]["foreign_alerts"], 3);
}

#[tokio::test]
async fn the_newest_alerts_are_listed_each_once_and_so_many_as_are_asked_for() {
    let site = site().await;
    let mut agent = site.agent(1).await;
    let first = ALERTS_RECENT_MAX as u64;
    for (batch, numbers) in [0..first, first..first + 10].into_iter().enumerate() {
        let texts: Vec<String> = numbers.map(alert).collect();
        let values: Vec<_> = texts.iter().map(|text| Value::Str(text)).collect();
        for (part, values) in values.chunks(100).enumerate() {
            let number = (batch * 10 + part) as u64;
            agent.send(&alerts(number, values)).await;
            agent.acked(Lane::Alerts, 1).await;
        }
    }
    site.running.flush().await.unwrap();
    let ids = |answer: &Json| -> Vec<String> {
        let all = answer["alerts"].as_array().unwrap();
        let id = |one: &Json| one["alert"]["id"].as_str().unwrap().to_owned();
        all.iter().map(id).collect()
    };
    let newest = |count: usize| -> BTreeSet<String> {
        let end = first + 10;
        (end - count as u64..end)
            .map(|n| format!("{n:032x}"))
            .collect()
    };
    let few = asked(&site, "/api/v1/alerts?limit=10").await;
    assert_eq!(ids(&few).into_iter().collect::<BTreeSet<_>>(), newest(10));
    assert_eq!(few["alerts"][0]["tenant"], "acme");
    assert_eq!(few["alerts"][0]["batch"], 10);
    assert_eq!(
        ids(&asked(&site, "/api/v1/alerts").await).len(),
        ALERTS_LISTED_DEFAULT
    );
    let all = ids(&asked(&site, "/api/v1/alerts?limit=99999").await);
    assert_eq!(all.len(), ALERTS_RECENT_MAX);
    let distinct: BTreeSet<_> = all.into_iter().collect();
    let gone: Vec<_> = newest(ALERTS_RECENT_MAX)
        .difference(&distinct)
        .cloned()
        .collect();
    assert_eq!((distinct.len(), gone), (ALERTS_RECENT_MAX, vec![]));
    let wrong = http(site.running.http_addr(), "/api/v1/alerts?limit=some").await;
    assert!(wrong.starts_with("HTTP/1.1 400"), "{wrong}");

    // The ring is of this process; the lake has them all, and neither doubles any.
    let site = site.restart().await;
    assert_eq!(ids(&asked(&site, "/api/v1/alerts").await), [""; 0]);
    let mut found = BTreeSet::new();
    crate::ingest::lake_rows(&site.dir.path().join("data/lake/alerts"), &mut found);
    assert_eq!(found.len(), ALERTS_RECENT_MAX + 10);
}

/// Entry by entry: one alert and one that is none.
fn item(entry: u64) -> Item {
    let (one, other) = (alert(entry), format!("no alert {entry}"));
    let batch = alerts(entry, &[Value::Str(&one), Value::Str(&other)]);
    let Ok(Decoded::Readings(readings)) = batch.decode(&mut Decoder::new()) else {
        panic!("it does not decode")
    };
    let origin = Origin {
        entry,
        agent: agent(1),
        key: batch.key(),
        hash: batch.hash(),
        in_doubt: entry % 2 == 1,
        sealed: batch.bytes().clone(),
    };
    let content = Content::Named(readings, batch.names().into());
    Item::Batch(Box::new((origin, content)))
}

struct NoNames;

impl Names for NoNames {
    fn name(&self, _: &AgentId, _: BufferId, _: SeriesId) -> Option<SeriesName> {
        None
    }
}

/// One life of a lake: everything below `end`, and how many alerts it says it wrote and keeps.
async fn live(store: Arc<dyn ObjectStore>, dir: &TempDir, end: u64) -> Result<u64, LakeError> {
    let feed = Box::new(MadeFeed {
        end: Arc::new(AtomicU64::new(end)),
        make: item,
    });
    let lake_store = LakeStore::new(store, Some(dir.path().to_owned()), LogId([3; 16]));
    let (handle, requests) = LakeHandle::new();
    let config = LakeConfig {
        flush_interval: Duration::from_secs(3600),
    };
    let lake = Lake::open(config, lake_store, feed, Box::new(NoNames), &handle).await?;
    let stop = CancellationToken::new();
    stop.cancel();
    let (_sender, durable) = watch::channel(end);
    let ended = lake.run(durable, requests, stop).await;
    let status = handle.status();
    let listed = status.recent().newest(usize::MAX).len() as u64;
    assert_eq!(
        listed,
        status.recent().foreign(),
        "one of each in every batch"
    );
    if ended.is_ok() {
        assert_eq!(
            status.alerts(),
            2 * listed,
            "what was written, and what was seen"
        );
    }
    ended
}

/// Every alert of the lake: batch, row and JSON.
async fn read_back(store: &Arc<dyn ObjectStore>) -> BTreeSet<(i64, i32, String, Option<String>)> {
    let mut found = BTreeSet::new();
    let listed = store.list(Some(&StorePath::from("alerts")));
    for object in listed.try_collect::<Vec<_>>().await.unwrap() {
        let bytes = store.get(&object.location).await.unwrap();
        let bytes = bytes.bytes().await.unwrap();
        for table in rows(object.location.as_ref(), &bytes).unwrap() {
            let column = |name| table.column_by_name(name).unwrap();
            let numbers = column("batch").as_primitive::<Int64Type>();
            let places = column("row").as_primitive::<Int32Type>();
            for row in 0..table.num_rows() {
                let json = text(&table, "json", row).unwrap();
                let id = text(&table, "alert_id", row);
                let one = (numbers.value(row), places.value(row), json, id);
                assert!(found.insert(one), "an alert twice");
            }
        }
    }
    found
}

#[tokio::test]
async fn killed_at_every_step_each_alert_is_there_once() {
    let mut killed = 0;
    for happens in [false, true] {
        for kill_at in 0..4 {
            let dir = TempDir::new().unwrap();
            let store = local(&dir);
            live(Arc::clone(&store), &dir, 3).await.unwrap();
            let mortal = Mortal::new(Arc::clone(&store), kill_at, happens);
            killed += u32::from(live(mortal, &dir, 8).await.is_err());
            assert_eq!(live(Arc::clone(&store), &dir, 12).await.unwrap(), 12);
            let found = read_back(&store).await;
            let ids: BTreeSet<_> = found.iter().filter_map(|one| one.3.clone()).collect();
            assert_eq!(
                (found.len(), ids.len()),
                (24, 12),
                "killed at {kill_at}, {happens}"
            );
        }
    }
    // Intent, file, done.
    assert!(killed >= 6, "{killed}");
}

/// Whether a value is of a type that the schema names.
fn is_of(value: &Json, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the schema uses {other}"),
    }
}

#[test]
fn the_golden_alert_is_what_the_published_schema_says() {
    assert_follows(SCHEMA, &golden());
}

/// Whether what is golden has what the schema asks for, and nothing that it does not know.
pub fn assert_follows(schema: &str, golden: &Json) {
    let schema: Json = serde_json::from_str(schema).unwrap();
    for name in schema["required"].as_array().unwrap() {
        assert!(
            golden.get(name.as_str().unwrap()).is_some(),
            "{name} is missing"
        );
    }
    for (name, value) in golden.as_object().unwrap() {
        let mut says = &schema["properties"][name];
        assert!(says.is_object(), "the schema does not know {name}");
        if says.get("$ref").is_some() {
            says = &schema["$defs"]["time"];
        }
        let kinds: Vec<_> = match &says["type"] {
            Json::String(kind) => vec![kind.as_str()],
            Json::Array(kinds) => kinds.iter().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        };
        let is_right = kinds.iter().any(|kind| is_of(value, kind))
            || says.get("const") == Some(value)
            || says["enum"]
                .as_array()
                .is_some_and(|some| some.contains(value));
        assert!(is_right, "{name}: {value}");
    }
}

/// Names and types of the columns that docs/lake.md lists under this heading.
pub fn documented(table: &str) -> Vec<(String, String)> {
    let document = include_str!("../../docs/lake.md");
    let heading = format!("## `{table}`");
    let section = document
        .split("\n## ")
        .find(|part| heading.ends_with(part.lines().next().unwrap()));
    let lines = section.unwrap_or_else(|| panic!("no {heading}")).lines();
    let cells = lines.filter(|line| line.starts_with("| `"));
    let columns = cells.flat_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (names, kind) = (cells.next().unwrap(), cells.next().unwrap());
        let kind = kind.to_owned();
        let names: Vec<_> = names
            .split(", ")
            .map(|name| name.trim_matches('`').to_owned())
            .collect();
        names.into_iter().map(move |name| (name, kind.clone()))
    });
    columns.collect()
}

#[test]
fn every_column_of_the_lake_is_documented() {
    for (table, schema) in [
        ("readings", readings_schema()),
        ("alerts", alerts_schema()),
        ("aggregates", aggregates_schema()),
        ("gaps", gaps_schema()),
    ] {
        let kind = |kind: &DataType| match kind {
            DataType::Int64 => "INT64",
            DataType::Int32 => "INT32",
            DataType::Float64 => "DOUBLE",
            DataType::Boolean => "BOOLEAN",
            DataType::Timestamp(..) => "TIMESTAMP",
            _ => "STRING",
        };
        let columns = schema.fields().iter().map(|field| {
            let or_null = if field.is_nullable() { " or null" } else { "" };
            let kind = format!("{}{or_null}", kind(field.data_type()));
            (field.name().clone(), kind)
        });
        assert_eq!(documented(table), columns.collect::<Vec<_>>(), "{table}");
    }
}
