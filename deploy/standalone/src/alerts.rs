//! The demo's own look at alerts: a client that subscribes to them as anybody could, and the
//! matching with the faults that were injected.
//!
//! The shell here owns the connection and the clock; [`hits`] decides.

mod hits;
mod told;

pub use hits::{Found, Hits, Tally};

use crate::limits::{ALERT_BYTES_MAX, ALERT_GRACE, ALERT_RETRY};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS, SubscribeReasonCode};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use told::Told;
use tributary_sim::fault::{Mark, Observer};
use tributary_sim::reading::{Reading, Series};

/// What is subscribed to.
const FILTER: &str = "tributary/alerts/#";
const CLIENT_ID: &str = "tributary-demo-alerts";

/// What the fleet's clients and the subscriber tell, and others read.
#[derive(Debug)]
pub struct Watch {
    hits: Mutex<Hits>,
    offer: Mutex<Offer>,
}

/// What the agent made of the subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Offer {
    #[default]
    Unknown,
    Granted,
    Refused(String),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Alerts that came so far; none when the agent offers none.
    pub fn alerts(&self) -> Option<u64> {
        let refused = matches!(*locked(&self.offer), Offer::Refused(_));
        (!refused).then(|| locked(&self.hits).alerts())
    }

    fn found(&self) -> Found {
        let mut found = locked(&self.hits).found();
        if let Offer::Refused(why) = &*locked(&self.offer) {
            found.refused = Some(why.clone());
        }
        found
    }
}

impl Observer for Watch {
    fn writing(&self, reading: &Reading, mark: Mark, at: Instant) {
        locked(&self.hits).writing(reading, mark, at);
    }
}

/// A subscriber that runs.
pub struct Alerts {
    /// What it has seen.
    pub watch: Arc<Watch>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Alerts {
    /// Subscribes at the agent's listener `mqtt`, for a run of these series that begins at
    /// `started_us`. An agent that refuses, or is away, breaks nothing.
    #[allow(
        clippy::disallowed_methods,
        reason = "whoever has the subscriber waits for its end"
    )]
    pub fn start(mqtt: SocketAddr, series: &[Series], started_us: i64) -> Self {
        let watch = Arc::new(Watch {
            hits: Mutex::new(Hits::new(series, started_us)),
            offer: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let subscriber = Subscriber::new(mqtt, Arc::clone(&watch));
        let running = tokio::spawn(subscriber.run(stop.clone()));
        Self {
            watch,
            stop,
            running,
        }
    }

    /// Once the fleet has ended: gives alerts about its last readings the time to come.
    pub async fn settle(&self) {
        if *locked(&self.watch.offer) == Offer::Granted {
            tokio::time::sleep(ALERT_GRACE).await;
        }
    }

    /// Ends the subscriber, and says what came of it.
    ///
    /// # Errors
    /// When it broke.
    pub async fn end(self) -> anyhow::Result<Found> {
        self.stop.cancel();
        self.running.await?;
        Ok(self.watch.found())
    }
}

/// The connection, which is opened again whenever it is lost.
struct Subscriber {
    client: AsyncClient,
    events: EventLoop,
    watch: Arc<Watch>,
}

impl Subscriber {
    fn new(mqtt: SocketAddr, watch: Arc<Watch>) -> Self {
        let mut options = MqttOptions::new(CLIENT_ID, mqtt.ip().to_string(), mqtt.port());
        options.set_keep_alive(Duration::from_secs(30));
        // What is published while the agent or the connection is away comes afterwards.
        options.set_clean_session(false);
        options.set_max_packet_size(ALERT_BYTES_MAX, ALERT_BYTES_MAX);
        let (client, events) = AsyncClient::new(options, 16);
        Self {
            client,
            events,
            watch,
        }
    }

    /// Until `stop`, or until it is refused.
    async fn run(mut self, stop: CancellationToken) {
        loop {
            // Cancel safe enough: whoever stops wants no more of it.
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = self.events.poll() => event,
            };
            let at = Instant::now();
            match event {
                Ok(Event::Incoming(packet)) => {
                    if !self.take(&packet, at) {
                        return;
                    }
                }
                Ok(Event::Outgoing(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "the subscriber to alerts is not connected");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(ALERT_RETRY) => {}
                    }
                }
            }
        }
    }

    /// Takes in what the agent said; false when nothing more is to be had.
    fn take(&self, packet: &Packet, at: Instant) -> bool {
        match packet {
            // Also of a session that goes on: to subscribe twice costs nothing.
            Packet::ConnAck(_) => {
                if let Err(error) = self.client.try_subscribe(FILTER, QoS::AtLeastOnce) {
                    tracing::warn!(%error, "the subscription to alerts cannot be asked for");
                }
            }
            Packet::SubAck(ack) => {
                if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                    let why = format!("the agent refuses the subscription to {FILTER}");
                    *locked(&self.watch.offer) = Offer::Refused(why);
                    return false;
                }
                *locked(&self.watch.offer) = Offer::Granted;
            }
            Packet::Publish(publish) => {
                let mut hits = locked(&self.watch.hits);
                match told::read(&publish.payload) {
                    Some(Told::Alert(alert)) => hits.alert(&alert, at),
                    Some(Told::Summary(summary)) => hits.summary(&summary),
                    None => {}
                }
            }
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod visible;
