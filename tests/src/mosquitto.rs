//! A real Mosquitto between devices and agent.

use crate::process::{tail, wait_for};
use crate::site::free_address;
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running broker. Dropping it kills it.
#[derive(Debug)]
pub struct Mosquitto {
    /// Where clients connect.
    pub address: SocketAddr,
    child: Child,
}

/// The program; `None`, which is said, where there is none.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut files = places.map(|place| place.join("mosquitto"));
    let found = files.find(|file| file.exists());
    if found.is_none() {
        // Not `eprintln`, which a test that passes keeps to itself.
        let said = "\nLEFT OUT: there is no mosquitto here (Debian: apt-get install mosquitto)\n";
        std::io::stderr().write_all(said.as_bytes()).unwrap();
    }
    found
}

impl Mosquitto {
    /// One for anybody that drops nothing, with its files in `dir`; `None` where there is no
    /// program.
    pub fn start(dir: &Path) -> Option<Self> {
        let program = program()?;
        let address = free_address();
        let (config, log) = (dir.join("mosquitto.conf"), dir.join("mosquitto.log"));
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n\
             max_inflight_messages 1000\n",
            address.port()
        );
        std::fs::write(&config, text).unwrap();
        let output = File::create(&log).unwrap();
        let mut child = Command::new(program)
            .arg("-c")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        wait_for(
            "mosquitto",
            || tail(&log),
            || {
                let ended = child.try_wait().unwrap();
                assert!(ended.is_none(), "mosquitto: {ended:?}\n{}", tail(&log));
                TcpStream::connect(address).is_ok().then_some(())
            },
        );
        Some(Self { address, child })
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
