//! Somebody who subscribes to alerts while a run is recorded, and notes how long the recording was
//! when each came: whatever is cut behind that, the alert had been heard.

use super::stored::Alert;
use super::wire::packet;
use crate::limits::POLL;
use crate::mqtt;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The listener, with a thread of its own. It comes back when it is cut.
#[derive(Debug)]
pub struct Listener {
    stop: Arc<AtomicBool>,
    running: JoinHandle<HashMap<Alert, u64>>,
}

impl Listener {
    /// Listens at `address`; the recording is `log`.
    pub fn start(address: SocketAddr, log: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, log) = (Arc::clone(&stop), log.to_owned());
        let running = std::thread::spawn(move || {
            let mut heard = HashMap::new();
            while !stopped.load(Ordering::Relaxed) {
                if listen(address, &log, &stopped, &mut heard).is_err() {
                    // tidy: sleep because nobody says when the agent that was killed is back
                    std::thread::sleep(POLL);
                }
            }
            heard
        });
        Self { stop, running }
    }

    /// Ends it: each alert that it heard, and how many bytes the recording had by then, in order.
    ///
    /// # Panics
    /// When its thread did.
    pub fn end(self) -> Vec<(u64, Alert)> {
        self.stop.store(true, Ordering::Relaxed);
        let heard = self.running.join().unwrap();
        let mut heard: Vec<(u64, Alert)> = heard
            .into_iter()
            .map(|(alert, bytes)| (bytes, alert))
            .collect();
        heard.sort();
        heard
    }
}

fn listen(
    address: SocketAddr,
    log: &PathBuf,
    stopped: &AtomicBool,
    heard: &mut HashMap<Alert, u64>,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(10 * POLL))?;
    let mut body = vec![0, 1];
    mqtt::text(&mut body, b"tributary/alerts/#");
    body.push(1);
    let connect = mqtt::connect("listener");
    stream.write_all(&[connect, mqtt::packet(0x82, &body)].concat())?;
    let (mut bytes, mut more) = (Vec::new(), [0; 4096]);
    while !stopped.load(Ordering::Relaxed) {
        match stream.read(&mut more) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => bytes.extend(&more[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        let recorded = std::fs::metadata(log)?.len();
        while let Some((one, at)) = packet(&mut bytes) {
            if one[0] >> 4 != 3 {
                continue;
            }
            let length = usize::from(u16::from_be_bytes([one[at], one[at + 1]]));
            let (id, payload) = one[at + 2 + length..].split_at(2);
            stream.write_all(&[0x40, 2, id[0], id[1]])?;
            if let Some(alert) = alert(payload) {
                heard.entry(alert).or_insert(recorded);
            }
        }
    }
    Ok(())
}

/// Its id and state.
fn alert(payload: &[u8]) -> Option<Alert> {
    let alert: serde_json::Value = serde_json::from_slice(payload).ok()?;
    let word = |key: &str| alert[key].as_str().map(str::to_owned);
    Some((word("id")?, word("state")?))
}
