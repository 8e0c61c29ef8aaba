//! The table `aggregates`: columns of its own, each aggregate once, and nothing that stops the
//! lake.

use crate::ingest::{http, site};
use crate::lake_alerts::{asked, assert_follows, files, number, read, text, time};
use crate::sealed::{EPOCH_US, alerts, named, readings, series};
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::path::Path;
use tributary_aggregator::lake::columns::aggregates_schema;
use tributary_protocol::ids::*;
use tributary_protocol::reading::Value;

const GOLDEN: &str = include_str!("../../protocol/tests/data/aggregate.json");
const SCHEMA: &str = include_str!("../../docs/aggregate.schema.json");

fn golden() -> Json {
    serde_json::from_str(GOLDEN).unwrap()
}

#[tokio::test]
async fn aggregates_have_columns_of_their_own_and_what_is_none_is_kept_beside() {
    let site = site().await;
    let mut agent = site.agent(1).await;
    let text_of_golden = golden().to_string();
    let values = [
        Value::Str(&text_of_golden),
        Value::Str("{\"schema\":2,\"window\":\"of a later agent\"}"),
        Value::Str("plain words"),
        Value::F64(7.5),
    ];
    agent.send(&named(Lane::Aggregates, 0, &values)).await;
    agent.send(&alerts(0, &[Value::Str("an alert")])).await;
    agent.send(&series(0, 0, 3)).await;
    agent.send(&readings(0, 3, 10, 0)).await;
    agent.acked(Lane::Telemetry, 1).await;
    // Told again, it stands there once.
    agent.send(&named(Lane::Aggregates, 0, &values)).await;
    agent.acked(Lane::Aggregates, 1).await;
    site.running.flush().await.unwrap();

    let lake = site.dir.path().join("data/lake");
    let found = files(&lake.join("aggregates"));
    assert_eq!(found.len(), 1, "{found:?}");
    let hour = lake.join("aggregates/event_date=2026-11-20/event_hour=20");
    assert_eq!(found[0].parent(), Some(&*hour));
    let table = read(&found[0]);
    assert_eq!(table.num_rows(), 4);
    let says = |name: &str, is: bool| Some(golden()[name].clone()).filter(|_| is);
    for row in 0..4 {
        let is = text(&table, "json", row) == Some(text_of_golden.clone());
        for name in ["window", "kind", "unit", "closed", "revision"] {
            let expected = says(name, is).and_then(|it| it.as_str().map(str::to_owned));
            assert_eq!(text(&table, name, row), expected, "{name} of row {row}");
        }
        for name in [
            "min", "max", "mean", "std", "first", "last", "p50", "p95", "p99",
        ] {
            let expected = says(name, is).and_then(|it| it.as_f64());
            assert_eq!(number(&table, name, row), expected, "{name} of row {row}");
        }
        for name in ["count", "late"] {
            let column = table.column_by_name(name).unwrap();
            let column = column.as_primitive::<Int64Type>();
            let value = (!column.is_null(row)).then(|| column.value(row));
            let expected = says(name, is).and_then(|it| it.as_i64());
            assert_eq!(value, expected, "{name} of row {row}");
        }
        for name in ["complete", "trusted"] {
            let column = table.column_by_name(name).unwrap().as_boolean();
            let value = (!column.is_null(row)).then(|| column.value(row));
            let expected = says(name, is).and_then(|it| it.as_bool());
            assert_eq!(value, expected, "{name} of row {row}");
        }
        let at = |us| is.then_some(EPOCH_US + us);
        assert_eq!(time(&table, "window_from", row), at(0));
        assert_eq!(time(&table, "window_to", row), at(60_000_000));
        // These are the reading's.
        let device = text(&table, "device", row).unwrap();
        assert!(device.starts_with("plant-1/pump-"), "{device}");
        assert_eq!(text(&table, "metric", row).unwrap(), "temperature");
        assert_eq!(text(&table, "lane", row).unwrap(), "aggregates");
        let event = time(&table, "event_time", row).unwrap();
        assert_eq!(time(&table, "received_time", row), Some(event + 5));
    }
    let kept: BTreeSet<String> = (0..4).filter_map(|row| text(&table, "json", row)).collect();
    let sent = values.iter().map(|value| match value {
        Value::Str(text) => (*text).to_owned(),
        _ => "7.5".to_owned(),
    });
    assert_eq!(kept, sent.collect());

    // For a reader that others wrote: tests/aggregates.py.
    let left = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lake-of-aggregates");
    let _ = std::fs::remove_dir_all(&left);
    std::fs::create_dir_all(left.join("aggregates")).unwrap();
    std::fs::copy(&found[0], left.join("aggregates/a.parquet")).unwrap();

    let status = asked(&site, "/api/v1/status").await;
    let lake = &status["lake"];
    let counted = (&lake["aggregates"], &lake["alerts"], &lake["rows"]);
    assert_eq!(counted, (&json!(4), &json!(1), &json!(15)));
    let foreign = (&lake["foreign_aggregates"], &lake["foreign_alerts"]);
    assert_eq!(foreign, (&json!(3), &json!(1)), "kept, and counted");
    let metrics = http(site.running.http_addr(), "/metrics").await;
    assert!(metrics.contains("tributary_aggregator_lake_aggregates_total"));
}

#[test]
fn the_golden_aggregate_is_what_the_published_schema_says() {
    assert_follows(SCHEMA, &golden());
}

#[test]
fn no_member_of_an_aggregate_is_without_a_column() {
    let columns = aggregates_schema();
    for name in golden().as_object().unwrap().keys() {
        let column = match name.as_str() {
            "from" => "window_from",
            "to" => "window_to",
            "schema" => "json",
            same => same,
        };
        assert!(columns.column_with_name(column).is_some(), "{name}");
    }
}
