//! The agent's HTTP side, on loopback by default: is it alive, is it ready, what is measured, what
//! is held. It changes nothing.

use crate::catalogue::{Latest, LatestView};
use crate::judge::{Unwatched, Watchers, Watching};
use crate::limits::LATEST_SHOWN;
use crate::measured;
use crate::seal::Waits;
use crate::source::BrokerStatus;
use crate::wal::StorageState;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use metrics::{counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::OnceLock;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tributary_journal::Wear;
use tributary_uplink::Status;

/// What the HTTP side looks at.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The agent's label.
    pub name: String,
    /// How each subscription to a broker stands.
    pub brokers: Vec<watch::Receiver<BrokerStatus>>,
    /// How the uplink stands.
    pub uplink: watch::Receiver<Status>,
    /// Whether messages can be made durable.
    pub storage: watch::Receiver<StorageState>,
    /// What sealed readings wait for.
    pub waits: watch::Receiver<Waits>,
    /// What the budget of writes does to the delay of commits.
    pub wear: watch::Receiver<Wear>,
    /// What is asked which series are watched.
    pub watchers: Watchers,
    /// The newest value of each series.
    pub latest: LatestView,
    /// Where metrics are rendered; nothing when somebody else records them.
    pub metrics: Option<PrometheusHandle>,
}

/// Why the HTTP side does not listen.
#[derive(Debug, thiserror::Error)]
#[error("HTTP: cannot listen on {address}: {source}; see `address` in [http]")]
pub struct BindError {
    /// The address that was wanted.
    address: SocketAddr,
    /// What the system says.
    source: std::io::Error,
}

/// The recorder of this process: made once, or nothing when another one was there first.
pub fn recorder() -> Option<PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let make = || {
        let seconds = [
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
        ];
        let recorder = PrometheusBuilder::new()
            .set_buckets(&seconds)
            .ok()?
            .build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        measured::describe();
        Some(handle)
    };
    RECORDER.get_or_init(make).clone()
}

/// `/readyz`
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    reasons: Vec<&'static str>,
}

/// `/api/v1/status`
#[derive(Debug, Serialize)]
struct Report {
    name: String,
    software: &'static str,
    storage: &'static str,
    wear: &'static str,
    brokers: Vec<BrokerStatus>,
    uplink: UplinkReport,
    /// Nothing where nobody says.
    detection: Option<Watching>,
    /// Why.
    detection_missing: Option<Unwatched>,
    series: usize,
    latest: Vec<Latest>,
}

#[derive(Debug, Serialize)]
struct UplinkReport {
    connected: bool,
    /// Where the aggregator is that was reached last, and whether that is not the first of the
    /// list.
    aggregator: String,
    away: bool,
    problem: Option<String>,
    rtt_us: u64,
    backlog_batches: u64,
    backlog_bytes: u64,
    /// Batches that another aggregator may hold, without having said so.
    in_doubt_batches: u64,
    sessions: u64,
    /// Sessions of the last hour that another machine with this identity ended.
    fenced_last_hour: u64,
    udp_bytes_sent: u64,
}

impl Sources {
    /// Ready means: a message that comes now is made durable. Without an uplink it is kept here,
    /// and that is what the agent is for.
    fn ready(&self) -> Ready {
        let reasons = match *self.storage.borrow() {
            StorageState::Ok => vec![],
            StorageState::Full => vec!["storage is full: nothing is acknowledged"],
            StorageState::Failed => vec!["the disk fails: nothing is acknowledged"],
            StorageState::Blocked => vec![self.waits.borrow().words()],
        };
        Ready {
            ready: reasons.is_empty(),
            reasons,
        }
    }

    async fn report(&self) -> Report {
        let (detection, detection_missing) = match self.watchers.ask().await {
            Ok(watching) => (Some(watching), None),
            Err(why) => (None, Some(why)),
        };
        let uplink = self.uplink.borrow().clone();
        Report {
            name: self.name.clone(),
            software: concat!("tributary-agent ", env!("CARGO_PKG_VERSION")),
            storage: match *self.storage.borrow() {
                StorageState::Ok => "ok",
                StorageState::Full => "full",
                StorageState::Failed => "failed",
                StorageState::Blocked => "blocked",
            },
            wear: match *self.wear.borrow() {
                Wear::Within => "within",
                Wear::Stretched { .. } => "stretched",
                Wear::Exceeded => "exceeded",
            },
            brokers: self.brokers.iter().map(|b| b.borrow().clone()).collect(),
            uplink: UplinkReport {
                connected: uplink.connected,
                aggregator: uplink.aggregator,
                away: uplink.away,
                problem: uplink.problem,
                rtt_us: uplink.rtt_us,
                backlog_batches: uplink.backlog_batches,
                backlog_bytes: uplink.backlog_bytes,
                in_doubt_batches: uplink.in_doubt_batches,
                sessions: uplink.sessions,
                fenced_last_hour: uplink.fenced_last_hour,
                udp_bytes_sent: uplink.udp_bytes_sent,
            },
            detection,
            detection_missing,
            series: self.latest.len(),
            latest: self.latest.list(LATEST_SHOWN),
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
    let uplink = sources.uplink.borrow().clone();
    gauge!("tributary_agent_uplink_connected").set(f64::from(u8::from(uplink.connected)));
    gauge!("tributary_agent_uplink_away").set(f64::from(u8::from(uplink.away)));
    gauge!("tributary_agent_in_doubt_batches").set(uplink.in_doubt_batches as f64);
    gauge!("tributary_agent_uplink_rtt_seconds").set(uplink.rtt_us as f64 / 1e6);
    gauge!("tributary_agent_backlog_batches").set(uplink.backlog_batches as f64);
    gauge!("tributary_agent_backlog_bytes").set(uplink.backlog_bytes as f64);
    gauge!("tributary_agent_uplink_udp_bytes").set(uplink.udp_bytes_sent as f64);
    counter!("tributary_agent_uplink_fenced_total").absolute(uplink.fenced);
    let lost = [
        ("sent_again", uplink.went_back_again),
        ("gone", uplink.went_back_gone),
    ];
    for (outcome, count) in lost {
        counter!("tributary_agent_acknowledged_and_lost_batches_total", "outcome" => outcome)
            .absolute(count);
    }
    gauge!("tributary_agent_ready").set(f64::from(u8::from(sources.ready().ready)));
    handle.run_upkeep();
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        handle.render(),
    )
        .into_response()
}

async fn status(State(sources): State<Sources>) -> Json<Report> {
    Json(sources.report().await)
}

/// Listens on `address`; port 0 takes a free one.
///
/// # Errors
/// [`BindError`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError { address, source })
}

/// Serves until `stop`.
///
/// # Errors
/// What the system says of the socket.
pub async fn serve(
    socket: TcpListener,
    sources: Sources,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(rendered))
        .route("/api/v1/status", get(status))
        .with_state(sources);
    let stopped = async move { stop.cancelled().await };
    axum::serve(socket, router)
        .with_graceful_shutdown(stopped)
        .await
}
