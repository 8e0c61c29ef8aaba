//! A real Mosquitto of the test's own, with a folder of its own, that can be killed and comes back.

use rumqttc::{AsyncClient, Event, MqttOptions, Outgoing, Packet, QoS};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before a test says what it was waiting for: no measure of speed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The broker's program; `None`, which is said, where there is none.
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = places
        .map(|place| place.join("mosquitto"))
        .find(|file| file.exists());
    if found.is_none() {
        // Not `eprintln`, which a test that passes keeps to itself.
        let said = "\nLEFT OUT: there is no mosquitto here (Debian: apt-get install mosquitto)\n";
        std::io::stderr().write_all(said.as_bytes()).unwrap();
    }
    found
}

/// A running broker.
pub struct Mosquitto {
    program: PathBuf,
    dir: TempDir,
    pub address: SocketAddr,
    child: Child,
}

impl Mosquitto {
    /// One for anybody, that keeps what it is given; `None` where there is no program.
    pub async fn start() -> Option<Self> {
        Self::start_with(|_| "allow_anonymous true\n".into()).await
    }

    /// One with more settings; they are told the folder.
    pub async fn start_with(settings: impl Fn(&Path) -> String) -> Option<Self> {
        let program = program()?;
        loop {
            let dir = tempfile::tempdir().unwrap();
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            // Mosquitto gives up its rights when it is root; what it keeps lies in our folder.
            let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
            let text = format!(
                "user {user}\nlistener {} 127.0.0.1\npersistence true\npersistence_location {}/\n\
                 max_queued_messages 0\nmax_inflight_messages 1000\n{}",
                address.port(),
                dir.path().display(),
                settings(dir.path()),
            );
            std::fs::write(dir.path().join("mosquitto.conf"), text).unwrap();
            let child = spawn(&program, dir.path());
            let mut broker = Self {
                program: program.clone(),
                dir,
                address,
                child,
            };
            if broker.up().await {
                return Some(broker);
            }
            assert!(
                broker.said().contains("already in use"),
                "mosquitto ended: {}",
                broker.said()
            );
        }
    }

    /// Waits until it listens; `false` when it ended instead.
    async fn up(&mut self) -> bool {
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "mosquitto does not listen: {}",
                self.said()
            );
            // tidy: sleep because another process says nothing by itself: it has to be asked again
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("mosquitto.db")
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let kill = format!("kill -{name} \"$0\"");
        let sent = Command::new("sh").args(["-c", &kill, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Makes it write down what it holds, and waits until it has.
    pub async fn save(&self) {
        // It writes beside the old one and renames: one that is there again is a new one.
        let _ = std::fs::remove_file(self.database());
        self.signal("USR1");
        let begun = Instant::now();
        while !self.database().exists() {
            assert!(begun.elapsed() < PATIENCE, "nothing saved: {}", self.said());
            // tidy: sleep because another process says nothing by itself: it has to be asked again
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was.
    pub async fn restart(&mut self) {
        self.child = spawn(&self.program, self.dir.path());
        assert!(self.up().await, "{}", self.said());
    }

    /// What it kept is gone.
    pub fn forget(&self) {
        let _ = std::fs::remove_file(self.database());
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            std::io::stderr().write_all(self.said().as_bytes()).unwrap();
        }
    }
}

fn spawn(program: &Path, dir: &Path) -> Child {
    let log = std::fs::File::create(dir.join("log")).unwrap();
    Command::new(program)
        .args(["-v", "-c"])
        .arg(dir.join("mosquitto.conf"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Publishes these, and returns when the broker has acknowledged all.
pub async fn publish(address: SocketAddr, qos: QoS, retain: bool, messages: &[(String, String)]) {
    let mut options = MqttOptions::new("publisher", address.ip().to_string(), address.port());
    options.set_inflight(100);
    let (client, mut events) = AsyncClient::new(options, messages.len() + 1);
    for (topic, payload) in messages {
        client
            .try_publish(topic, qos, retain, payload.as_bytes())
            .unwrap();
    }
    let mut acknowledged = 0;
    while acknowledged < messages.len() {
        match events.poll().await.unwrap() {
            Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => acknowledged += 1,
            Event::Outgoing(Outgoing::Publish(0)) => acknowledged += 1,
            _ => {}
        }
    }
    client.try_disconnect().unwrap();
    while events.poll().await.is_ok() {}
}

/// `count` messages of one device, each its own.
pub fn numbered(count: usize) -> Vec<(String, String)> {
    let message = |n| {
        (
            "plant/pump/t".to_owned(),
            format!("{{\"value\": 1, \"n\": {n}}}"),
        )
    };
    (0..count).map(message).collect()
}
