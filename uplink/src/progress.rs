//! How much of what was sent has arrived at the other end, as its QUIC stack says: a batch may take
//! minutes over a slow link, and the aggregator acknowledges it as a whole. What quinn counts does
//! not tell; what tells how fast to send is told of each packet that arrived.

use crate::limits::PROGRESS_PACKET_BYTES;
use quinn::Connection;
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// Bytes of this connection that arrived in packets of some size: batches, and no sign of life.
pub(crate) fn moved(connection: &Connection) -> u64 {
    let state = connection.congestion_state().into_any();
    state.downcast::<Counted>().map_or(0, |it| it.arrived)
}

/// Makes what counts.
pub(crate) struct Counting;

impl ControllerFactory for Counting {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Counted {
            cubic: Arc::new(CubicConfig::default()).build(now, mtu),
            arrived: 0,
        })
    }
}

/// Quinn's own choice, and a count.
struct Counted {
    cubic: Box<dyn Controller>,
    arrived: u64,
}

impl Controller for Counted {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        if bytes >= PROGRESS_PACKET_BYTES {
            self.arrived = self.arrived.saturating_add(bytes);
        }
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, last: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, app_limited, last);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persists: bool, lost: u64) {
        self.cubic.on_congestion_event(now, sent, persists, lost);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.cubic.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            cubic: self.cubic.clone_box(),
            arrived: self.arrived,
        })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
