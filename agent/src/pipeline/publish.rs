//! What the agent publishes: what its judging stage says, and what it says of itself, on
//! `tributary/status`. It says that once: that it is gone is seen by the connection's end.

use super::clock::Clock;
use super::judging::Publish;
use crate::source::Hub;
use crate::source::hub::{Keep, Publisher, STATUS};
use metrics::histogram;
use serde::Serialize;

/// The status, as JSON.
#[derive(Serialize)]
struct State<'a> {
    schema: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    version: &'a str,
    state: &'a str,
}

/// A hub on which the agent called `name` has said that it runs.
pub(crate) fn begin(name: &str) -> Hub {
    let hub = Hub::new();
    let state = State {
        schema: 1,
        agent: Some(name).filter(|name| !name.is_empty()),
        version: env!("CARGO_PKG_VERSION"),
        state: "running",
    };
    let json = serde_json::to_vec(&state).expect("texts and a number are JSON");
    hub.publish(STATUS, json.into(), Keep::Stands);
    hub
}

/// Where the judging stage publishes; an empty present state ends that.
pub(super) fn said(publisher: Publisher) -> Publish {
    Box::new(move |one| publisher.publish(&one.topic, one.json, one.keep, one.received))
}

/// Measures how long an alert took, told as it was handed out when its reading was received.
pub(super) fn handed_out() -> impl Fn(i64) {
    let (clock, seconds) = (Clock::new(), histogram!("tributary_agent_alert_seconds"));
    move |received| seconds.record((clock.now().wall - received) as f64 / 1e6)
}
