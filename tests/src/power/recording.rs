//! One run of the whole system under the recorder: agent, aggregator and fleets, each a process of
//! its own, with alerts that somebody hears, aggregates and series that give way, segments that
//! fill up, and a kill of each end on the way, or one call that fails.

use super::disk::Disk;
use super::faults::Fault;
use super::listener::Listener;
use super::log::{Log, Op};
use super::stored::Stored;
use super::tree::Tree;
use super::truth::Truth;
use super::wire::Devices;
use crate::dice::Dice;
use crate::limits::{
    BACKLOG_BATCHES, BROKEN_MESSAGES, FAT_MESSAGE_BYTES, FAT_TEXT_BYTES, SYNC_LINGER_US,
    TEXTS_PER_S,
};
use crate::mqtt::Raw;
use crate::process::{Process, wait_for};
use crate::programs::program;
use crate::shim::Shim;
use crate::site::{Site, backlog_gone};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tributary_sim::verify;

/// What is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Seconds that the fleets publish.
    pub seconds: u64,
    /// Sensors of each of two fleets.
    pub sensors: u32,
    /// Whether segments are filled, too.
    pub fills_segments: bool,
    /// The agent's records after which it is killed, and the aggregator's.
    pub kills: [u64; 2],
    /// Which call fails, if one does: whoever ends by that is started again.
    pub fault: Option<Fault>,
}

/// The agent's storage: what keeps the log short, and no reserve.
pub const AGENT_STORAGE: &str = "reserve_bytes = 0\n\
    [wal]\nquota_bytes = \"16 MiB\"\n[spool]\nquota_bytes = \"64 MiB\"\nseal_delay_ms = 100\n";
/// The aggregator's.
pub const AGGREGATOR_STORAGE: &str = "[journal]\nquota_bytes = \"64 MiB\"\nreserve_bytes = 0\n\
    [lake]\nflush_interval_ms = 400\n";
/// More of the agent's: few series are watched at once, limits that readings exceed, windows.
pub const DETECTION: &str = "[detect]\nclock = \"plausible\"\nweekly = false\nseries_max = 32\n\
    [[detect.rule]]\nname = \"warm\"\nkind = \"threshold\"\nmetric = \"temperature\"\nabove = 20\n\
    [[detect.window]]\nname = \"one\"\nkind = \"tumbling\"\nsize_ms = 1000\n";

/// The fleets, and the file of each one's truth.
pub const FLEETS: [&str; 3] = ["once", "exactly", "texts"];

/// Which machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Machine {
    /// The gateway.
    Agent,
    /// The aggregator's, and its lake.
    Aggregator,
}

/// A recording.
#[derive(Debug)]
pub struct Recording {
    /// The recorder.
    pub shim: Arc<Shim>,
    /// Where it was.
    pub site: Site,
    /// What was done, in order.
    pub log: Log,
    /// What the fleets published and what was acknowledged to them.
    pub truths: Vec<Truth>,
    /// What all devices had said and heard in the end.
    pub devices: Devices,
    /// What else was stored, and when.
    pub stored: Stored,
    /// How often a program ended by the call that failed.
    pub ended: u64,
    /// After so many operations the agent held batches that no aggregator had.
    pub backlog_at: usize,
}

/// A site for a run, or for what comes after a cut: the same settings.
pub fn site(name: &str) -> Site {
    let site = Site::new(name);
    let agent = site.path().join("agent");
    site.storing(&agent, AGENT_STORAGE)
        .aggregating(AGGREGATOR_STORAGE)
        .with(DETECTION)
}

impl Recording {
    /// Runs the system under the recorder.
    ///
    /// # Panics
    /// When anything is not as it should be, or the recorder missed something.
    pub fn make(scale: &Scale) -> Self {
        Self::make_with(&Arc::new(Shim::compile("disk")), scale)
    }

    /// The same, with a recorder that is compiled.
    ///
    /// # Panics
    /// When anything is not as it should be, or the recorder missed something.
    pub fn make_with(shim: &Arc<Shim>, scale: &Scale) -> Self {
        let site = site("recording");
        let recorder = Recorder::new(shim, &site);
        std::fs::create_dir(site.path().join("fleets")).unwrap();
        let mut running = Running::start(&site, &recorder, scale);
        running.up();
        let listener = Listener::start(site.mqtt, &recorder.log);
        let mut client = running.broken_messages();
        let fat = scale.fills_segments.then(|| Fat::start(&site));
        let mut fleets = start_fleets(&site, &recorder, scale);
        let backlog_bytes = running.kills(scale);
        while !fleets.iter_mut().all(Process::has_ended) {
            running.look();
            // tidy: sleep because a process that ends says so to nobody
            std::thread::sleep(crate::limits::POLL);
        }
        for fleet in fleets {
            let log = site.path().join("fleets.log");
            let status = fleet.ended();
            assert!(status.success(), "{status}\n{}", crate::process::tail(&log));
        }
        drop((fat, client.take()));
        let heard = listener.end();
        let ended = running.end();

        let log = Log::read(&recorder.log).unwrap();
        let heard = heard.into_iter();
        let heard = heard.map(|(bytes, alert)| (log.before(bytes), alert));
        let mut devices = Devices::default();
        for (_, op) in log.ops() {
            devices.apply(&op);
        }
        let disk = disk_of(&site);
        let agent = site.root(Machine::Agent);
        let agent = agent.to_str().unwrap();
        let recording = Self {
            shim: Arc::clone(shim),
            backlog_at: log.before(backlog_bytes),
            stored: Stored::of(&log, disk, agent, &site.lake(), heard.collect()),
            devices,
            ended,
            log,
            truths: FLEETS
                .iter()
                .map(|name| Truth::read(&truth(&site, name)))
                .collect(),
            site,
        };
        recording.check(scale);
        if scale.fills_segments {
            recording.check_that_all_rolled();
        }
        recording
    }

    /// Where a machine's directory was.
    pub fn root(&self, machine: Machine) -> String {
        self.site.root(machine).to_str().unwrap().to_owned()
    }

    /// After so many operations the agent's log was whole from its beginning for the last time.
    ///
    /// # Panics
    /// When it always was.
    pub fn trims_at(&self) -> usize {
        let wal = format!("{}/wal/", self.root(Machine::Agent));
        let is_segment = |path: &str| path.starts_with(&wal) && path.ends_with(".seg");
        let trims = |op: &Op| match op {
            Op::Remove { path } | Op::Rename { from: path, .. } => is_segment(path),
            _ => false,
        };
        let mut ops = self.log.ops();
        ops.position(|(_, op)| trims(&op))
            .expect("a log that is cut")
    }

    /// After so many operations a flush of the lake was under way for the last time.
    ///
    /// # Panics
    /// When none ever was.
    pub fn flushes_at(&self) -> usize {
        let ends = |op: &Op| match op {
            Op::Remove { path } | Op::Rename { from: path, .. } => path.ends_with(".intent"),
            _ => false,
        };
        let ops = self.log.ops().enumerate();
        let ends = ops.filter(|(_, (_, op))| ends(op)).map(|(place, _)| place);
        ends.last().expect("a flush that ends")
    }

    /// A disk on which nothing was done yet.
    pub fn disk(&self) -> Disk {
        disk_of(&self.site)
    }

    /// What was recorded is what happened: with all of it done, and all of it surviving, the
    /// disks are as they really are; and the run itself was clean.
    fn check(&self, scale: &Scale) {
        let lake = self.site.lake();
        for (fleet, known) in FLEETS.iter().zip(&self.truths) {
            let report = verify::compare(&lake, &truth(&self.site, fleet)).unwrap();
            assert!(report.is_clean() && report.acknowledged > 0, "{report:#?}");
            assert!(
                known.agrees_with(&self.devices),
                "what {fleet} said and heard is not in its ledger"
            );
        }
        assert_eq!(verify::losses(&lake).unwrap(), [], "nothing is to be lost");
        assert_eq!(super::cuts::alerts_told_twice(&self.site), 0);
        let missing = self.stored.look(self.log.len(), &lake).unwrap();
        assert_eq!((missing.alerts, missing.twice), (vec![], vec![]));
        let (audit, code) = self.site.audit();
        assert_eq!(code, Some(0), "{audit:#}");
        if scale.fault.is_none() {
            self.check_that_all_was_told();
        }
        self.check_disks();
    }

    fn check_that_all_was_told(&self) {
        for lane in ["telemetry", "alerts", "aggregates"] {
            let lanes = self.stored.lanes();
            assert!(lanes.contains(lane), "{lanes:?}: nothing is proven of it");
        }
        assert!(self.stored.heard_count() > 0, "nobody heard an alert");
    }

    fn check_disks(&self) {
        let mut disk = self.disk();
        for (place, (_, op)) in self.log.ops().enumerate() {
            let applied = disk.apply(&op);
            applied.unwrap_or_else(|why| panic!("operation {place}, {}: {why}", short(&op)));
        }
        for machine in [Machine::Agent, Machine::Aggregator] {
            let root = self.root(machine);
            let replayed = disk.now(&root);
            let real = Tree::read(Path::new(&root)).unwrap();
            let difference = replayed.difference(&real);
            assert_eq!(difference, None, "the recording of {machine:?} missed it");
        }
    }

    /// Each log went on to further segments, and each kind of checkpoint was written again.
    fn check_that_all_rolled(&self) {
        for (place, ending, least) in [
            ("agent/wal/", ".seg", 4),
            ("agent/spool/telemetry/", ".seg", 4),
            ("aggregator/journal/", ".seg", 4),
            ("agent/checkpoint/agent-", ".ckpt", 3),
            ("agent/checkpoint/judge-", ".ckpt", 3),
            ("aggregator/ledger/ledger-", ".ckpt", 2),
            ("aggregator/lake/_tributary/", ".done", 3),
        ] {
            let is_it = |path: &str| path.contains(place) && path.ends_with(ending);
            let named = self.log.ops().filter(|(_, op)| match op {
                Op::Rename { to, .. } | Op::Link { to, .. } => is_it(to),
                _ => false,
            });
            let named = named.count();
            eprintln!("{named} times {place}*{ending}");
            assert!(named >= least, "{place}*{ending} was named {named} times");
        }
    }
}

/// An operation without its data.
pub fn short(op: &Op<'_>) -> String {
    format!("{op:?}").chars().take(200).collect()
}

impl Site {
    /// Where a machine has its directory, as long as a test puts it nowhere else.
    pub fn root(&self, machine: Machine) -> PathBuf {
        self.path().join(match machine {
            Machine::Agent => "agent",
            Machine::Aggregator => "aggregator",
        })
    }
}

fn disk_of(site: &Site) -> Disk {
    let roots = [Machine::Agent, Machine::Aggregator].map(|one| site.root(one));
    let roots = roots.each_ref().map(|root| root.to_str().unwrap());
    Disk::new(&roots)
}

fn truth(site: &Site, fleet: &str) -> PathBuf {
    site.path().join("fleets").join(format!("{fleet}.truth"))
}

fn dying(records: u64) -> Vec<(&'static str, OsString)> {
    match records {
        0 => Vec::new(),
        records => vec![("DISK_KILL_AT", records.to_string().into())],
    }
}

/// Both ends of a recording.
struct Running<'s> {
    site: &'s Site,
    recorder: &'s Recorder,
    /// Whose call fails, if one does: that may end it.
    may_end: Option<Machine>,
    agent: Process,
    aggregator: Process,
    ended: u64,
}

impl<'s> Running<'s> {
    fn start(site: &'s Site, recorder: &'s Recorder, scale: &Scale) -> Self {
        let of = |machine: Machine, records: u64| match scale.fault {
            Some(fault) if fault.machine == machine => vec![("DISK_FAULT", fault.word())],
            _ => dying(records),
        };
        let [agent_dies, aggregator_dies] = scale.kills;
        let agent = of(Machine::Agent, agent_dies);
        let aggregator = of(Machine::Aggregator, aggregator_dies);
        Self {
            site,
            recorder,
            may_end: scale.fault.map(|fault| fault.machine),
            aggregator: site.aggregator_with(&recorder.with(&aggregator)),
            agent: site.agent_with(&recorder.with(&agent)),
            ended: 0,
        }
    }

    /// Starts whoever has ended by its fault again; whether both are up.
    fn look(&mut self) -> bool {
        let process = match self.may_end {
            Some(Machine::Agent) => &mut self.agent,
            Some(Machine::Aggregator) => &mut self.aggregator,
            None => return self.aggregator.is_up() && self.agent.is_up(),
        };
        // It may end between two looks: of what may end, that is no fault.
        if process.has_ended() {
            self.ended += 1;
            let words = process.last_words();
            assert!(self.ended < 3, "it ends again without a fault\n{words}");
            let environment = self.recorder.with(&[]);
            *process = match self.may_end {
                Some(Machine::Agent) => self.site.agent_with(&environment),
                _ => self.site.aggregator_with(&environment),
            };
        }
        self.aggregator.answers() && self.agent.answers()
    }

    fn up(&mut self) {
        let log = self.site.path().join("agent.log");
        let words = || crate::process::tail(&log);
        wait_for("a start", words, || self.look().then_some(()));
    }

    /// Sends messages that are no readings, so that there are dead letters.
    fn broken_messages(&mut self) -> Option<Raw> {
        let mut client = Raw::try_connected(self.site.mqtt, "broken")?;
        for _ in 0..BROKEN_MESSAGES {
            // The agent may end meanwhile, and then there are fewer.
            client.try_publish("broken/message", b"{\"value\": ");
        }
        Some(client)
    }

    /// Each dies on the way, and comes back; the aggregator once the agent has a backlog: when the
    /// recording had so many bytes.
    fn kills(&mut self, scale: &Scale) -> u64 {
        let environment = self.recorder.with(&[]);
        let [agent_dies, aggregator_dies] = scale.kills;
        if agent_dies > 0 {
            self.agent.was_killed();
            self.agent = self.site.agent_with(&environment);
        }
        if aggregator_dies == 0 {
            return 0;
        }
        self.aggregator.was_killed();
        let agent = &self.agent;
        let waits = || {
            let batches = agent.number("/uplink/backlog_batches");
            (batches >= BACKLOG_BATCHES).then_some(())
        };
        wait_for("a backlog", || agent.state(), waits);
        let bytes = std::fs::metadata(&self.recorder.log).unwrap().len();
        self.aggregator = self.site.aggregator_with(&environment);
        bytes
    }

    /// Lets all come to its end; how often a program ended by its fault.
    fn end(mut self) -> u64 {
        let drained = |agent: &Process| {
            let status = agent.status()?;
            let connected = status.pointer("/uplink/connected")? == true;
            (connected && status.pointer("/uplink/backlog_batches")? == 0).then_some(())
        };
        let log = self.site.path().join("agent.log");
        let words = || crate::process::tail(&log);
        let is_over = || {
            self.look()
                .then_some(())
                .and_then(|()| drained(&self.agent))
        };
        wait_for("an empty backlog", words, is_over);
        if self.may_end.is_none() {
            self.site.end(self.agent, self.aggregator);
            return 0;
        }
        // The fault may come while it ends, too. Without one all comes to its end.
        for process in [self.agent, self.aggregator] {
            self.ended += u64::from(!process.terminate().success());
        }
        let environment = self.recorder.with(&[]);
        let mut aggregator = self.site.aggregator_with(&environment);
        let mut agent = self.site.agent_with(&environment);
        aggregator.up();
        agent.up();
        backlog_gone(&agent);
        self.site.end(agent, aggregator);
        self.ended
    }
}

/// What has a process recorded.
#[derive(Debug)]
pub struct Recorder {
    /// Where the recording goes.
    pub log: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

impl Recorder {
    /// The recorder of everything on this site.
    pub fn new(shim: &Shim, site: &Site) -> Self {
        let log = site.path().join("recording");
        let mut roots = OsString::from(site.root(Machine::Agent));
        roots.push(":");
        roots.push(site.root(Machine::Aggregator));
        let linger = SYNC_LINGER_US.to_string();
        Self {
            environment: vec![
                ("LD_PRELOAD", shim.library.clone().into()),
                ("DISK_LOG", log.clone().into()),
                ("DISK_ROOTS", roots),
                ("DISK_LINGER_US", linger.into()),
            ],
            log,
        }
    }

    /// A disk with what the machines of the site have now, all of it durable.
    ///
    /// # Panics
    /// When it can't be read.
    pub fn disk(&self, site: &Site) -> Disk {
        let mut disk = disk_of(site);
        for machine in [Machine::Agent, Machine::Aggregator] {
            let root = site.root(machine);
            disk.found(root.to_str().unwrap(), &root).unwrap();
        }
        disk
    }

    /// Its environment, with more.
    pub fn with<'e>(
        &'e self,
        more: &'e [(&'static str, OsString)],
    ) -> Vec<(&'static str, &'e OsStr)> {
        let all = self.environment.iter().chain(more);
        all.map(|(name, value)| (*name, value.as_os_str()))
            .collect()
    }
}

/// Two fleets whose readings have no numbers, so that MQTT alone tells a second copy, one at QoS 1
/// and one at QoS 2; and texts, with numbers.
fn start_fleets(site: &Site, recorder: &Recorder, scale: &Scale) -> Vec<Process> {
    let (sensors, length) = (scale.sensors.to_string(), format!("{}s", scale.seconds));
    let texts = site.path().join("texts.csv");
    let text_bytes = match scale.fills_segments {
        true => FAT_TEXT_BYTES,
        false => 64,
    };
    write_texts(&texts, scale.seconds * TEXTS_PER_S, text_bytes);
    let bare_once = "--rate 5 --no-seq --faults 30 --faults-after 1s --site once --seed 1";
    let bare = "--rate 5 --qos 2 --no-seq --site exactly --seed 2";
    let of_fleet = |words: &str| {
        let mut all = vec!["run", "--sensors", &sensors, "--for", &length];
        all.extend(words.split(' '));
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let of_texts = ["replay", "--device", "texts", "--input"];
    let mut of_texts: Vec<String> = of_texts.map(str::to_owned).into();
    of_texts.push(texts.to_str().unwrap().to_owned());
    of_texts.extend(["--rate".to_owned(), TEXTS_PER_S.to_string()]);
    let all = [of_fleet(bare_once), of_fleet(bare), of_texts];
    let start = |(name, mut words): (&str, Vec<String>)| {
        let (truth, mqtt) = (truth(site, name), site.mqtt.to_string());
        let truth = truth.to_str().unwrap();
        let shared = ["--mqtt", &mqtt, "--client-id", name, "--truth", truth];
        words.extend(shared.map(str::to_owned));
        words.extend(["--prompt-truth", "--drain", "120s"].map(str::to_owned));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let log = site.path().join("fleets.log");
        let program = program("tributary-sim");
        // It has no HTTP side, and nobody asks for it.
        let wire = [("DISK_WIRE", OsString::from(site.mqtt.port().to_string()))];
        Process::start_with(&program, &words, &log, site.mqtt, &recorder.with(&wire))
    };
    FLEETS.into_iter().zip(all).map(start).collect()
}

/// A table of texts that no compression makes small.
fn write_texts(path: &Path, rows: u64, text_bytes: usize) {
    let mut dice = Dice::unasked(3);
    let mut table = String::from("time,text\n");
    for row in 0..rows {
        let (minute, second) = (row / 60 % 60, row % 60);
        write!(
            table,
            "2026-01-01 {:02}:{minute:02}:{second:02},t",
            row / 3_600
        )
        .unwrap();
        let letters = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
        for _ in 0..text_bytes {
            table.push(char::from(letters[dice.below(64) as usize]));
        }
        table.push('\n');
    }
    std::fs::write(path, table).unwrap();
}

/// A client of messages as large as may be, so that the write-ahead log rolls and is checkpointed.
/// What it says is in no truth.
struct Fat {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Fat {
    fn start(site: &Site) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, address) = (Arc::clone(&stop), site.mqtt);
        let thread = std::thread::spawn(move || {
            let mut number = 0;
            let mut client = None;
            while !stopped.load(Ordering::Relaxed) {
                let mut payload = format!("{{\"value\": {number}").into_bytes();
                payload.resize(FAT_MESSAGE_BYTES, b' ');
                payload.push(b'}');
                let raw = client.get_or_insert_with(|| Raw::try_connected(address, "fat"));
                let is_gone = match raw {
                    Some(raw) => !raw.try_publish("fat/t", &payload),
                    None => true,
                };
                if is_gone {
                    client = None;
                    // tidy: sleep because nobody says when the agent that was killed is back
                    std::thread::sleep(crate::limits::POLL);
                } else {
                    number += 1;
                    // tidy: sleep because the log is to be filled slowly
                    std::thread::sleep(10 * crate::limits::POLL);
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Fat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it has to say, its panic has said.
            let _ = thread.join();
        }
    }
}
