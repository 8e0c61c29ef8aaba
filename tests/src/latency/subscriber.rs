//! The client that subscribes to alerts, with a thread of its own, which notes when each came. It
//! comes back when it is cut.

use super::Clock;
use super::load::{Place, Plan, series_of};
use crate::mqtt::{connect, packet, text};
use std::collections::HashMap;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// When an alert was raised, in µs since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// When the agent judged it.
    pub judged: i64,
    /// When the alert came to the subscriber, first.
    pub came: i64,
}

/// Time that a read waits, before it is looked whether it is still wanted.
const PATIENCE: Duration = Duration::from_millis(100);
/// Time before the next try to connect.
const RETRY: Duration = Duration::from_millis(20);
const DAY_US: i64 = 86_400_000_000;

type Alerts = Arc<Mutex<HashMap<Place, Seen>>>;

/// The subscriber.
#[derive(Debug)]
pub struct Subscriber {
    alerts: Alerts,
    is_up: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    running: JoinHandle<()>,
}

impl Subscriber {
    /// Subscribes at `address`.
    pub fn start(address: SocketAddr, plan: Plan, clock: Clock) -> Self {
        let alerts = Alerts::default();
        let (is_up, stop) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let listener = Listener {
            address,
            plan,
            clock,
            alerts: Arc::clone(&alerts),
            is_up: Arc::clone(&is_up),
            stop: Arc::clone(&stop),
        };
        let running = std::thread::Builder::new()
            .name("subscriber".to_owned())
            .spawn(move || listener.run())
            .expect("a thread can be started");
        Self {
            alerts,
            is_up,
            stop,
            running,
        }
    }

    /// Whether it is subscribed.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// The alerts so far, by what they are about.
    pub fn alerts(&self) -> MutexGuard<'_, HashMap<Place, Seen>> {
        self.alerts.lock().expect("nobody panics with the lock")
    }

    /// Ends it.
    ///
    /// # Panics
    /// When its thread did.
    pub fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.running.join().expect("the subscriber's thread");
    }
}

struct Listener {
    address: SocketAddr,
    plan: Plan,
    clock: Clock,
    alerts: Alerts,
    is_up: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Listener {
    fn run(self) {
        while !self.stop.load(Ordering::Relaxed) {
            // The agent was killed, or is not there yet.
            if let Err(_cut) = self.listen() {
                // tidy: sleep because nobody says when the agent is back
                std::thread::sleep(RETRY);
            }
            self.is_up.store(false, Ordering::Relaxed);
        }
    }

    fn listen(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut body = vec![0, 1];
        text(&mut body, b"tributary/alerts/#");
        body.push(1);
        stream.write_all(&[connect("watcher"), packet(0x82, &body)].concat())?;
        let mut reader = BufReader::new(stream.try_clone()?);
        while !self.stop.load(Ordering::Relaxed) {
            let Some((head, body)) = self.packet(&mut reader)? else {
                continue;
            };
            let came = self.clock.now();
            match head >> 4 {
                2 => assert_eq!(body, [0, 0], "CONNACK that takes the subscriber"),
                9 => {
                    assert_eq!(body[2..], [1], "SUBACK with QoS 1");
                    self.is_up.store(true, Ordering::Relaxed);
                }
                3 => {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]])) + 2;
                    let (id, payload) = body[topic..].split_at(2);
                    stream.write_all(&[0x40, 2, id[0], id[1]])?;
                    self.note(payload, came);
                }
                other => panic!("the subscriber is sent a packet of kind {other}"),
            }
        }
        Ok(())
    }

    /// The next packet; nothing when none has begun within the patience.
    fn packet(&self, reader: &mut impl Read) -> std::io::Result<Option<(u8, Vec<u8>)>> {
        let mut head = [0];
        if let Err(error) = reader.read_exact(&mut head) {
            return match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(None),
                _ => Err(error),
            };
        }
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let mut byte = [0];
            reader.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7F) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(Some((head[0], body)))
    }

    fn note(&self, payload: &[u8], came: i64) {
        if payload.is_empty() {
            return;
        }
        let alert: serde_json::Value = serde_json::from_slice(payload).expect("alerts are JSON");
        let word = |key: &str| alert[key].as_str().unwrap_or_default();
        if word("state") != "raised" || word("kind") == "summary" {
            return;
        }
        let series = series_of(word("device"), word("metric"), &self.plan);
        let time = |key: &str| time(word(key), came);
        let event = time("event_time");
        let seen = Seen {
            judged: time("detection_time"),
            came,
        };
        let series = series.expect("alerts are about series of the load");
        let mut alerts = self.alerts.lock().expect("nobody panics with the lock");
        alerts.entry((series, event)).or_insert(seen);
    }
}

/// A time as alerts tell it, which is less than half a day from `near`, in µs since 1970.
fn time(text: &str, near: i64) -> i64 {
    // 2026-05-01T12:34:56.789012Z
    let number = |range: std::ops::Range<usize>| -> i64 { text[range].parse().expect(text) };
    let seconds = (number(11..13) * 60 + number(14..16)) * 60 + number(17..19);
    let fraction = text[19..].trim_start_matches('.').trim_end_matches('Z');
    let micros: i64 = format!("{fraction:0<6}").parse().expect(text);
    let of_day = seconds * 1_000_000 + micros;
    let away = (of_day - near.rem_euclid(DAY_US) + DAY_US / 2).rem_euclid(DAY_US) - DAY_US / 2;
    near + away
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_near_another() {
        // 2026-05-01T00:00:00Z.
        let midnight = 1_777_593_600_000_000;
        assert_eq!(
            time("2026-05-01T00:00:01.5Z", midnight),
            midnight + 1_500_000
        );
        let before = time("2026-04-30T23:59:59.999999Z", midnight + 5);
        assert_eq!(before, midnight - 1);
        assert_eq!(
            time("2026-05-01T12:00:00Z", midnight + 43_200_000_000),
            midnight + 43_200_000_000
        );
    }
}
