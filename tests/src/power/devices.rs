//! The devices after a power cut: each comes back with the client id that it had, sends again what
//! it has no answer to (the same packet ids, DUP), releases what is to be released, and publishes
//! something new.

use super::wire::{Answer, Devices, Publication, answer, packet};
use crate::dice::Dice;
use crate::limits::{FRESH_PUBLICATIONS, PATIENCE, POLL};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// One in so many stays away: what it has no answer to may be there, or not.
const STAYS_AWAY: u64 = 8;

/// The metric that has a rule: its alerts are told ahead of the log.
const RULED: &str = "temperature";

/// What each client says when it is back, for the first time.
type Fresh = BTreeMap<String, Vec<Arc<Publication>>>;

/// Has the devices come back to `address` and say what they have to, until all of it is
/// acknowledged, however often the connection is lost meanwhile; `all` is what they say in the end.
/// Gives up when it is told to stop.
///
/// # Panics
/// When it takes longer than patience lasts.
pub fn play_on(
    devices: &mut Devices,
    all: &Devices,
    address: SocketAddr,
    seed: u64,
    stop: &AtomicBool,
) {
    let mut dice = Dice::unasked(seed);
    let mut fresh = Fresh::new();
    for (id, client) in &devices.clients {
        // Of what raised an alert that was heard, its reading has to come.
        let raises = client.flight.iter().any(|one| one.topic.contains(RULED));
        if dice.below(STAYS_AWAY) == 0 && !raises || client.connect.is_empty() {
            continue;
        }
        let next = all.clients[id].published.iter();
        let next = next.skip(client.published.len()).take(FRESH_PUBLICATIONS);
        fresh.insert(id.clone(), next.cloned().collect());
    }
    let begun = Instant::now();
    while !fresh.is_empty() && !stop.load(Ordering::Relaxed) {
        let mut open = Vec::new();
        for (id, news) in &mut fresh {
            // Nobody is there, or it was cut: once more.
            if let Ok(stream) = speak(devices, id, news, address) {
                open.push((id.clone(), stream));
            }
        }
        for (id, stream) in open {
            if listen(devices, &id, stream).is_ok() {
                fresh.remove(&id);
            }
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{} devices have no answer",
            fresh.len()
        );
        if !fresh.is_empty() {
            // tidy: sleep because nobody says when the agent that was cut is back
            std::thread::sleep(POLL);
        }
    }
}

fn speak(
    devices: &mut Devices,
    id: &str,
    news: &mut Vec<Arc<Publication>>,
    address: SocketAddr,
) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&devices.clients[id].connect)?;
    let mut taken = [0; 4];
    stream.read_exact(&mut taken)?;
    devices.hears(id, answer(&taken));
    let client = &devices.clients[id];
    let mut said = Vec::new();
    for release in &client.releases {
        let [high, low] = release.to_be_bytes();
        said.extend([0x62, 2, high, low]);
    }
    for one in &client.flight {
        let at = said.len();
        said.extend(&one.packet);
        said[at] |= 8;
    }
    // They are on the wire, as far as the device knows, from here on.
    for one in news.drain(..) {
        said.extend(&one.packet);
        devices.publishes(id, &one);
    }
    stream.write_all(&said)?;
    Ok(stream)
}

/// Hears until there is nothing left to say.
fn listen(devices: &mut Devices, id: &str, mut stream: TcpStream) -> std::io::Result<()> {
    let (mut heard, mut more) = (Vec::new(), [0; 4096]);
    loop {
        let client = &devices.clients[id];
        if client.flight.is_empty() && client.releases.is_empty() {
            return stream.write_all(&[0xe0, 0]);
        }
        let bytes = stream.read(&mut more)?;
        if bytes == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        heard.extend(&more[..bytes]);
        while let Some((one, _)) = packet(&mut heard) {
            let answer = answer(&one);
            devices.hears(id, answer);
            if let Answer::Received(release) = answer {
                let [high, low] = release.to_be_bytes();
                stream.write_all(&[0x62, 2, high, low])?;
            }
        }
    }
}
