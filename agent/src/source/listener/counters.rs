//! What all connections count. It counts nothing itself: the cores do.

use super::super::connection::Tally;
use metrics::{Counter, counter};

/// Counters that are added to for each read: looked up once.
pub(super) struct Counters {
    messages: Counter,
    payload_bytes: Counter,
    acknowledged: Counter,
    refused_topic: Counter,
    too_large: Counter,
    turned_away: Counter,
    subscribed: Counter,
    subscriptions_refused: Counter,
    deliveries: Counter,
    deliveries_acknowledged: Counter,
    deliveries_too_large: Counter,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counters")
    }
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            messages: counter!("tributary_agent_mqtt_messages_total"),
            payload_bytes: counter!("tributary_agent_mqtt_payload_bytes_total"),
            acknowledged: counter!("tributary_agent_mqtt_acknowledged_total"),
            refused_topic: counter!("tributary_agent_mqtt_refused_topic_total"),
            too_large: counter!("tributary_agent_mqtt_too_large_total"),
            turned_away: counter!("tributary_agent_mqtt_turned_away_total"),
            subscribed: counter!("tributary_agent_mqtt_subscriptions_total"),
            subscriptions_refused: counter!("tributary_agent_mqtt_subscriptions_refused_total"),
            deliveries: counter!("tributary_agent_mqtt_deliveries_total"),
            deliveries_acknowledged: counter!("tributary_agent_mqtt_deliveries_acknowledged_total"),
            deliveries_too_large: counter!("tributary_agent_mqtt_deliveries_too_large_total"),
        }
    }

    pub(super) fn add(&self, tally: Tally) {
        let pairs = [
            (&self.messages, tally.messages),
            (&self.payload_bytes, tally.payload_bytes),
            (&self.acknowledged, tally.acknowledged),
            (&self.refused_topic, tally.refused_topic),
            (&self.too_large, tally.too_large),
            (&self.turned_away, tally.turned_away),
            (&self.subscribed, tally.subscribed),
            (&self.subscriptions_refused, tally.subscriptions_refused),
            (&self.deliveries, tally.deliveries),
            (&self.deliveries_acknowledged, tally.deliveries_acknowledged),
            (&self.deliveries_too_large, tally.deliveries_too_large),
        ];
        for (counter, count) in pairs.into_iter().filter(|(_, count)| *count > 0) {
            counter.increment(count);
        }
    }
}
