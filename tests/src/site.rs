//! One site: an agent, an aggregator and a fleet, with their configuration files, certificates and
//! ports, in a folder of their own that goes when the test is over and is kept when it fails.

use crate::limits::PORTS;
use crate::pki::Pki;
use crate::process::{Process, wait_for};
use crate::programs::{program, scratch};
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::JoinHandle;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tributary_sim::client::Progress;
use tributary_sim::sim::{self, Publishing, RunConfig, RunSummary};
use tributary_sim::verify::{self, Report};

/// An address that nobody listens on, TCP or UDP, and that no client is given by the system. It
/// stays free while its process is down, since no other test is given it.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = PORTS.end - PORTS.start;
    // Test runs at the same time begin at different places.
    let first = (std::process::id() % u32::from(width)) as u16;
    loop {
        let place = (first + NEXT.fetch_add(1, Ordering::Relaxed) % width) % width;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORTS.start + place));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// What the agent's configuration says of its storage, when a test says nothing else: it stands
/// behind what `[agent]` begins with.
const STORAGE: &str = "[wal]\nquota_bytes = \"16 MiB\"\n\
    [spool]\nquota_bytes = \"64 MiB\"\nseal_delay_ms = 200\n";

/// The same of the aggregator.
const AGGREGATOR_STORAGE: &str =
    "[journal]\nquota_bytes = \"64 MiB\"\n[lake]\nflush_interval_ms = 500\n";

/// A site.
#[derive(Debug)]
pub struct Site {
    dir: Option<TempDir>,
    /// The certificates that both ends use, unless a test puts others in their place.
    pub pki: Pki,
    /// Where devices publish.
    pub mqtt: SocketAddr,
    /// Where the aggregator takes batches.
    pub uplink: SocketAddr,
    /// Where the agent says how it is.
    pub agent_http: SocketAddr,
    /// Where the aggregator says how it is.
    pub aggregator_http: SocketAddr,
    agent_sends_to: SocketAddr,
    /// What stands at the end of the agent's configuration.
    more_of_the_agent: String,
    /// Where the agent keeps its data, and what its configuration says of storage.
    agent_dir: PathBuf,
    agent_storage: String,
    aggregator_storage: String,
}

impl Site {
    /// A site with good certificates; nothing runs yet.
    pub fn new(name: &str) -> Self {
        let dir = scratch(name);
        let uplink = free_address();
        let pki = Pki::create(dir.path());
        let site = Self {
            dir: Some(dir),
            pki,
            mqtt: free_address(),
            uplink,
            agent_http: free_address(),
            aggregator_http: free_address(),
            agent_sends_to: uplink,
            more_of_the_agent: String::new(),
            agent_dir: PathBuf::new(),
            agent_storage: STORAGE.to_owned(),
            aggregator_storage: AGGREGATOR_STORAGE.to_owned(),
        };
        let agent_dir = site.path().join("agent");
        site.storing(&agent_dir, STORAGE)
    }

    /// The same, with the agent's data elsewhere, and other settings of its storage.
    pub fn storing(mut self, agent_dir: &Path, storage: &str) -> Self {
        (self.agent_dir, self.agent_storage) = (agent_dir.to_owned(), storage.to_owned());
        self.configure();
        self
    }

    /// The same, with other settings of the aggregator's storage.
    pub fn aggregating(mut self, storage: &str) -> Self {
        storage.clone_into(&mut self.aggregator_storage);
        self.configure();
        self
    }

    /// The same, with the agent sending to a relay instead of the aggregator.
    pub fn behind(mut self, relay: SocketAddr) -> Self {
        self.agent_sends_to = relay;
        self.configure();
        self
    }

    /// The same, with more settings of the agent behind the others.
    pub fn with(mut self, settings: &str) -> Self {
        settings.clone_into(&mut self.more_of_the_agent);
        self.configure();
        self
    }

    /// The folder that all of it is in.
    pub fn path(&self) -> &Path {
        self.dir.as_ref().expect("it goes with the site").path()
    }

    /// Where the lake is.
    pub fn lake(&self) -> PathBuf {
        self.aggregator_dir().join("lake")
    }

    /// Where the fleet's truth ledger is.
    pub fn truth(&self) -> PathBuf {
        self.path().join("truth.bin")
    }

    /// Keeps its folder, for somebody to look at.
    pub fn keep(mut self) {
        if let Some(dir) = self.dir.take() {
            eprintln!("kept for a look: {}", dir.keep().display());
        }
    }

    /// Where the aggregator keeps everything, its lake below it.
    pub fn aggregator_dir(&self) -> PathBuf {
        self.path().join("aggregator")
    }

    /// What `tributary-aggregator audit --deep --json` says of the aggregator's folder, and how it
    /// ends.
    ///
    /// # Panics
    /// When it says nothing that can be read.
    pub fn audit(&self) -> (serde_json::Value, Option<i32>) {
        let dir = self.aggregator_dir();
        let mut command = std::process::Command::new(program("tributary-aggregator"));
        command.args(["audit", "--deep", "--json", "--data-dir"]);
        let output = command.arg(dir).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let read = serde_json::from_str(&said);
        let report = read.unwrap_or_else(|error| panic!("{error}: {said} {output:?}"));
        (report, output.status.code())
    }

    fn configure(&self) {
        let dir = self.path();
        let Pki {
            agent, aggregator, ..
        } = &self.pki;
        let text = format!(
            "[agent]\ndata_dir = {:?}\nname = \"gate\"\n\
             {}\n\
             [source.listener]\naddress = \"{}\"\n\
             [uplink]\nendpoints = [\"{}\"]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n\
             [http]\naddress = \"{}\"\n{}",
            self.agent_dir,
            self.agent_storage,
            self.mqtt,
            self.agent_sends_to,
            agent.ca,
            agent.certificate,
            agent.key,
            self.agent_http,
            self.more_of_the_agent,
        );
        std::fs::write(dir.join("agent.toml"), text).unwrap();
        let text = format!(
            "[aggregator]\ndata_dir = {:?}\n\
             [uplink]\naddress = \"{}\"\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n\
             [http]\naddress = \"{}\"\n{}",
            dir.join("aggregator"),
            self.uplink,
            aggregator.ca,
            aggregator.certificate,
            aggregator.key,
            self.aggregator_http,
            self.aggregator_storage,
        );
        std::fs::write(dir.join("aggregator.toml"), text).unwrap();
    }

    fn start(&self, name: &str, http: SocketAddr, environment: &[(&str, &OsStr)]) -> Process {
        let config = self.path().join(format!("{name}.toml"));
        let config = config.to_str().expect("paths of tests are text");
        let log = self.path().join(format!("{name}.log"));
        let program = program(&format!("tributary-{name}"));
        let arguments = ["run", "--config", config];
        Process::start_with(&program, &arguments, &log, http, environment)
    }

    /// Starts the agent, without waiting for it.
    pub fn agent(&self) -> Process {
        self.start("agent", self.agent_http, &[])
    }

    /// The same, with more in its environment.
    pub fn agent_with(&self, environment: &[(&str, &OsStr)]) -> Process {
        self.start("agent", self.agent_http, environment)
    }

    /// Starts the aggregator, without waiting for it.
    pub fn aggregator(&self) -> Process {
        self.start("aggregator", self.aggregator_http, &[])
    }

    /// The same, with more in its environment.
    pub fn aggregator_with(&self, environment: &[(&str, &OsStr)]) -> Process {
        self.start("aggregator", self.aggregator_http, environment)
    }

    /// A fleet that publishes to the agent until it is stopped.
    pub fn fleet(&self, sensors: u32, rate_hz: f64) -> Fleet {
        Fleet::start(self.publishing(), sensors, rate_hz)
    }

    /// The same, publishing to somebody else: a broker.
    pub fn fleet_at(&self, mqtt: SocketAddr, sensors: u32, rate_hz: f64) -> Fleet {
        let mut publishing = self.publishing();
        publishing.mqtt = mqtt.to_string();
        Fleet::start(publishing, sensors, rate_hz)
    }

    /// One whose readings have no numbers: only MQTT tells what is sent again.
    pub fn fleet_without_numbers(&self, qos: u8, sensors: u32, rate_hz: f64) -> Fleet {
        let mut publishing = self.publishing();
        (publishing.qos, publishing.numbered) = (qos, false);
        Fleet::start(publishing, sensors, rate_hz)
    }

    fn publishing(&self) -> Publishing {
        let mut publishing = Publishing::to(self.mqtt.to_string());
        publishing.truth = Some(self.truth());
        publishing
    }

    /// Ends both ends, the agent first, and says what then lies in the lake.
    ///
    /// # Panics
    /// When either does not end well, or the agent with something unsent.
    pub fn settle(&self, agent: Process, aggregator: Process) -> Report {
        self.end(agent, aggregator);
        verify::compare(&self.lake(), &self.truth()).unwrap()
    }

    /// Ends both ends, the agent first.
    ///
    /// # Panics
    /// When either does not end well, or the agent with something unsent.
    pub fn end(&self, agent: Process, aggregator: Process) {
        let status = agent.terminate();
        assert!(status.success(), "agent: {status}");
        let said = std::fs::read_to_string(self.path().join("agent.log")).unwrap();
        assert!(
            !said.contains("not everything was acknowledged"),
            "the agent did not drain"
        );
        let status = aggregator.terminate();
        assert!(status.success(), "aggregator: {status}");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("kept for a look: {}", dir.keep().display());
        }
    }
}

/// Waits until nothing is left in the agent's spool, as it says itself.
pub fn backlog_gone(agent: &Process) {
    wait_for(
        "an empty backlog",
        || agent.state(),
        || {
            let status = agent.status()?;
            let connected = status.pointer("/uplink/connected")? == true;
            (connected && status.pointer("/uplink/backlog_batches")? == 0).then_some(())
        },
    );
}

/// A fleet in a thread of its own.
#[derive(Debug)]
pub struct Fleet {
    running: JoinHandle<RunSummary>,
    stop: CancellationToken,
    /// What it has done so far.
    pub progress: Arc<Progress>,
}

impl Fleet {
    fn start(mut publishing: Publishing, sensors: u32, rate_hz: f64) -> Self {
        publishing.drain = crate::limits::PATIENCE;
        let mut config = RunConfig::new(publishing);
        (config.sensors, config.rate_hz) = (sensors, rate_hz);
        config.connections = Some(16);
        let stop = CancellationToken::new();
        let progress = Arc::new(Progress::default());
        let (stopped, counts) = (stop.clone(), Arc::clone(&progress));
        let running = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let run = sim::run(config, stopped, counts);
            runtime.unwrap().block_on(run).unwrap()
        });
        Self {
            running,
            stop,
            progress,
        }
    }

    /// Waits until `more` further readings are acknowledged.
    pub fn acknowledged(&self, more: u64) {
        let until = self.progress.acknowledged() + more;
        let state = || format!("{:?} {:?}", self.progress.counts(), self.progress.trouble());
        wait_for("acknowledgements", state, || {
            (self.progress.acknowledged() >= until).then_some(())
        });
    }

    /// Ends it, once everything that it published is acknowledged.
    ///
    /// # Panics
    /// When something is not.
    pub fn end(self) -> RunSummary {
        self.stop.cancel();
        let summary = self.running.join().unwrap();
        assert!(summary.is_complete(), "{summary:?}");
        summary
    }
}

/// What a clean comparison looks like: everything acknowledged is there, once, as it was.
///
/// # Panics
/// When it is not clean, or proves nothing.
pub fn assert_clean(report: &Report, summary: &RunSummary) {
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(report.truth_tail, None);
    assert_eq!(report.acknowledged, summary.counts.acknowledged);
    assert_eq!(report.delivered, report.published, "{report:#?}");
    assert!(
        report.delivered > 0,
        "nothing was published: nothing is proven"
    );
}
