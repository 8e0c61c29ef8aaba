//! How a subscription stands, for people and for metrics.

use super::outgoing;
use super::subscriber::{Subscriber, Tally};
use metrics::{Counter, Gauge, counter, gauge};
use serde::Serialize;

/// How a subscription to a broker stands.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct BrokerStatus {
    /// What the configuration calls it.
    pub name: String,
    /// Where the broker is.
    pub address: String,
    /// Who the agent is there.
    pub client_id: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// The version of MQTT that it speaks: `5` or `3.1.1`.
    pub protocol: Option<&'static str>,
    /// How many topic filters its session is subscribed to.
    pub subscribed: usize,
    /// How many connections were begun since the start.
    pub generation: u64,
    /// Messages that came and are to be stored.
    pub received: u64,
    /// Messages that were acknowledged to the broker.
    pub acknowledged: u64,
    /// Messages that the broker waits for.
    pub unacknowledged: u64,
    /// Alerts that the broker has acknowledged.
    pub published: u64,
    /// How often a session was lost at the broker.
    pub sessions_lost: u64,
    /// What stands in the way.
    pub problem: Option<String>,
}

impl BrokerStatus {
    /// Takes in what was counted, and how the subscription stands now.
    pub(super) fn update(&mut self, core: &Subscriber, tally: &Tally, published: u64) {
        self.published += published;
        self.connected = core.connected().is_some();
        self.protocol = core.connected().map(super::Version::name);
        self.subscribed = core.subscriptions().known().filters.len();
        self.generation = core.generation();
        self.received += tally.messages;
        self.acknowledged += tally.acknowledged;
        self.unacknowledged = core.unacknowledged() as u64;
        self.sessions_lost += tally.sessions_lost;
        if self.problem.as_deref() != core.problem() {
            self.problem = core.problem().map(str::to_owned);
        }
    }
}

/// Counters of one source, looked up once.
pub(super) struct Counters {
    name: String,
    messages: Counter,
    payload_bytes: Counter,
    acknowledged: Counter,
    own_topic: Counter,
    too_large: Counter,
    stale: Counter,
    sessions_lost: Counter,
    published: Counter,
    publications_refused: Counter,
    connected: Gauge,
}

impl Counters {
    pub(super) fn new(name: &str) -> Self {
        let name = name.to_owned();
        let source = || name.clone();
        Self {
            messages: counter!("tributary_agent_broker_messages_total", "source" => source()),
            payload_bytes: counter!(
                "tributary_agent_broker_payload_bytes_total", "source" => source()
            ),
            acknowledged: counter!(
                "tributary_agent_broker_acknowledged_total", "source" => source()
            ),
            own_topic: counter!("tributary_agent_broker_own_topic_total", "source" => source()),
            too_large: counter!("tributary_agent_broker_too_large_total", "source" => source()),
            stale: counter!("tributary_agent_broker_stale_acks_total", "source" => source()),
            sessions_lost: counter!(
                "tributary_agent_broker_sessions_lost_total", "source" => source()
            ),
            published: counter!("tributary_agent_broker_published_total", "source" => source()),
            publications_refused: counter!(
                "tributary_agent_broker_published_refused_total", "source" => source()
            ),
            connected: gauge!("tributary_agent_broker_connected", "source" => source()),
            name,
        }
    }

    pub(super) fn add(&self, tally: &Tally, connected: bool) {
        let pairs = [
            (&self.messages, tally.messages),
            (&self.payload_bytes, tally.payload_bytes),
            (&self.acknowledged, tally.acknowledged),
            (&self.own_topic, tally.own_topic),
            (&self.too_large, tally.too_large),
            (&self.stale, tally.stale),
            (&self.sessions_lost, tally.sessions_lost),
        ];
        for (counter, count) in pairs.into_iter().filter(|(_, count)| *count > 0) {
            counter.increment(count);
        }
        self.connected.set(f64::from(u8::from(connected)));
    }

    /// What was published there.
    pub(super) fn add_published(&self, tally: &outgoing::Tally) {
        self.published.increment(tally.published);
        self.publications_refused.increment(tally.refused);
    }

    /// A connection ended, or did not come about.
    pub(super) fn broken(&self, cause: &'static str) {
        let source = self.name.clone();
        counter!("tributary_agent_broker_reconnects_total", "source" => source, "reason" => cause)
            .increment(1);
    }
}
