//! The HTTP side: is it alive, is it ready, what is measured, what is held. It changes nothing,
//! and authenticates nobody: it listens on the loopback unless it is told otherwise.

use crate::clock::Clock;
use crate::fanout::SinkStatus;
use crate::fanout::status::SinkReport;
use crate::keeper::{KeeperHandle, StatusReport};
use crate::lake::LakeStatus;
use crate::limits::{ALERTS_LISTED_DEFAULT, ALERTS_RECENT_MAX};
use crate::measured;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tributary_protocol::ids::LogId;

/// What the HTTP side looks at.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The journal's life.
    pub log: LogId,
    /// The keeper.
    pub keeper: KeeperHandle,
    /// The lake.
    pub lake: Arc<LakeStatus>,
    /// The other sinks.
    pub sinks: Vec<Arc<SinkStatus>>,
    /// What their lag is measured by.
    pub clock: Clock,
    /// Where metrics are rendered; nothing when somebody else records them.
    pub metrics: Option<PrometheusHandle>,
    /// Cancelled when the process is about to end.
    pub stop: CancellationToken,
}

/// The recorder of this process: made once, or nothing when another one was there first.
pub fn recorder() -> Option<PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            let seconds = [
                0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
            ];
            let builder = PrometheusBuilder::new().set_buckets(&seconds).ok()?;
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).ok()?;
            measured::describe();
            Some(handle)
        })
        .clone()
}

/// How far the lake has come.
#[derive(Debug, Serialize)]
struct LakeReport {
    position: u64,
    lag_entries: u64,
    rows: u64,
    alerts: u64,
    foreign_alerts: u64,
    aggregates: u64,
    foreign_aggregates: u64,
    files: u64,
    flushes: u64,
    refused_batches: u64,
    damaged_entries: u64,
    trouble: Option<String>,
}

/// `/api/v1/status`
#[derive(Debug, Serialize)]
struct Report {
    software: &'static str,
    log: String,
    journal_end: u64,
    journal_damaged_entries: u64,
    batches_accepted: u64,
    readings_accepted: u64,
    lake: LakeReport,
    sinks: Vec<SinkReport>,
    #[serde(flatten)]
    keeper: Option<StatusReport>,
}

/// `/readyz`
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    reasons: Vec<String>,
}

impl Sources {
    fn lake_report(&self) -> LakeReport {
        let lake = &self.lake;
        let position = lake.position();
        LakeReport {
            position,
            lag_entries: self.keeper.status().end().saturating_sub(position),
            rows: lake.rows(),
            alerts: lake.alerts(),
            foreign_alerts: lake.recent().foreign(),
            aggregates: lake.aggregates(),
            foreign_aggregates: lake.recent().foreign_aggregates(),
            files: lake.files(),
            flushes: lake.flushes(),
            refused_batches: lake.refused(),
            damaged_entries: lake.damaged(),
            trouble: lake.trouble(),
        }
    }

    fn sink_reports(&self) -> Vec<SinkReport> {
        let (now, end) = (self.clock.now(), self.keeper.status().end());
        self.sinks
            .iter()
            .map(|sink| sink.report(now, end))
            .collect()
    }

    fn ready(&self) -> Ready {
        let journal = self
            .keeper
            .status()
            .trouble()
            .map(|why| format!("journal: {why}"));
        let lake = self.lake.trouble().map(|why| format!("lake: {why}"));
        let stopping = self.stop.is_cancelled().then(|| "shutting down".to_owned());
        let reasons: Vec<String> = [journal, lake, stopping].into_iter().flatten().collect();
        Ready {
            ready: reasons.is_empty(),
            reasons,
        }
    }
}

async fn readyz(State(sources): State<Sources>) -> (StatusCode, Json<Ready>) {
    let ready = sources.ready();
    let code = if ready.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(ready))
}

async fn rendered(State(sources): State<Sources>) -> Response {
    let Some(handle) = &sources.metrics else {
        let why = "metrics are recorded by another recorder of this process\n";
        return (StatusCode::NOT_IMPLEMENTED, why).into_response();
    };
    let lake = sources.lake_report();
    metrics::gauge!("tributary_aggregator_journal_end").set(sources.keeper.status().end() as f64);
    metrics::gauge!("tributary_aggregator_lake_position").set(lake.position as f64);
    metrics::gauge!("tributary_aggregator_lake_lag_entries").set(lake.lag_entries as f64);
    for sink in sources.sink_reports() {
        let gauge = |name: &'static str, value: f64| {
            metrics::gauge!(name, "sink" => sink.name.clone()).set(value);
        };
        gauge("tributary_aggregator_sink_position", sink.position as f64);
        gauge(
            "tributary_aggregator_sink_lag_entries",
            sink.lag_entries as f64,
        );
        gauge("tributary_aggregator_sink_lag_seconds", sink.lag_seconds);
        gauge(
            "tributary_aggregator_sink_verdict",
            f64::from(sink.verdict.code()),
        );
        gauge(
            "tributary_aggregator_sink_newest_received_seconds",
            sink.newest_received_us as f64 / 1e6,
        );
    }
    let ready = if sources.ready().ready { 1.0 } else { 0.0 };
    metrics::gauge!("tributary_aggregator_ready").set(ready);
    let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    handle.run_upkeep();
    (kind, handle.render()).into_response()
}

async fn status(State(sources): State<Sources>) -> Json<Report> {
    let keeper = sources.keeper.report().await;
    let counts = sources.keeper.status();
    Json(Report {
        software: concat!("tributary-aggregator ", env!("CARGO_PKG_VERSION")),
        log: sources.log.to_string(),
        journal_end: counts.end(),
        journal_damaged_entries: counts.damaged(),
        batches_accepted: counts.batches(),
        readings_accepted: counts.rows(),
        lake: sources.lake_report(),
        sinks: sources.sink_reports(),
        keeper,
    })
}

/// How much is asked for.
#[derive(Debug, Deserialize)]
struct Listing {
    limit: Option<usize>,
}

/// `/api/v1/alerts`: the newest since the start, newest first.
async fn alerts(State(sources): State<Sources>, Query(listing): Query<Listing>) -> Response {
    let limit = listing.limit.unwrap_or(ALERTS_LISTED_DEFAULT);
    let newest = sources.lake.recent().newest(limit.min(ALERTS_RECENT_MAX));
    let kind = [(CONTENT_TYPE, "application/json")];
    (kind, format!("{{\"alerts\":[{}]}}", newest.join(","))).into_response()
}

/// The routes, for whoever serves more beside them.
pub fn router(sources: Sources) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(rendered))
        .route("/api/v1/status", get(status))
        .route("/api/v1/alerts", get(alerts))
        .with_state(sources)
}

/// Serves until `stop`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    sources: Sources,
    stop: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(sources))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}
