//! One run of the whole system under the recorder: agent, aggregator and fleets, each a process of
//! its own, with alerts, aggregates and series that give way, segments that fill up, and a kill of
//! each end on the way.

use super::disk::Disk;
use super::log::{Log, Op};
use super::truth::Truth;
use super::{Names, Survival, tree::Tree};
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
    site: Site,
    /// What was done, in order.
    pub log: Log,
    /// What the fleets published and what was acknowledged to them.
    pub truths: Vec<Truth>,
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
        let (shim, site) = (Shim::compile("disk"), site("recording"));
        let recorder = Recorder::new(&shim, &site);
        std::fs::create_dir(site.path().join("fleets")).unwrap();

        let [agent_dies, aggregator_dies] = scale.kills;
        let mut aggregator = site.aggregator_with(&recorder.with(&dying(aggregator_dies)));
        aggregator.up();
        let mut agent = site.agent_with(&recorder.with(&dying(agent_dies)));
        agent.up();
        let mut client = Raw::connected(site.mqtt, "broken");
        for _ in 0..BROKEN_MESSAGES {
            client.publish("broken/message", b"{\"value\": ");
        }
        let fat = scale.fills_segments.then(|| Fat::start(&site));
        let fleets = start_fleets(&site, &recorder, scale);
        let mut backlog_bytes = 0;
        // Each dies on the way, and comes back; the aggregator once the agent has a backlog.
        for (died, machine) in [
            (agent_dies, Machine::Agent),
            (aggregator_dies, Machine::Aggregator),
        ] {
            if died == 0 {
                continue;
            }
            let environment = recorder.with(&[]);
            let ended = match machine {
                Machine::Agent => {
                    let ended = agent.ended();
                    agent = site.agent_with(&environment);
                    ended
                }
                Machine::Aggregator => {
                    let ended = aggregator.ended();
                    let waits = || {
                        let batches = agent.number("/uplink/backlog_batches");
                        (batches >= BACKLOG_BATCHES).then_some(())
                    };
                    wait_for("a backlog", || agent.state(), waits);
                    backlog_bytes = std::fs::metadata(&recorder.log).unwrap().len();
                    aggregator = site.aggregator_with(&environment);
                    ended
                }
            };
            assert_eq!(ended.code(), None, "{machine:?} was to be killed: {ended}");
        }
        for fleet in fleets {
            let log = site.path().join("fleets.log");
            let status = fleet.ended();
            assert!(status.success(), "{status}\n{}", crate::process::tail(&log));
        }
        drop(fat);
        backlog_gone(&agent);
        site.end(agent, aggregator);

        let log = Log::read(&recorder.log).unwrap();
        let recording = Self {
            backlog_at: log.before(backlog_bytes),
            log,
            truths: FLEETS
                .iter()
                .map(|name| Truth::read(&truth(&site, name)))
                .collect(),
            site,
        };
        recording.check();
        if scale.fills_segments {
            recording.check_that_all_rolled();
        }
        recording
    }

    /// Where a machine's directory was.
    pub fn root(&self, machine: Machine) -> String {
        root(&self.site, machine).to_str().unwrap().to_owned()
    }

    /// Where a fleet's truth was.
    pub fn truth(&self, fleet: &str) -> PathBuf {
        truth(&self.site, fleet)
    }

    /// Where the fleets' truths were.
    pub fn fleets(&self) -> String {
        let fleets = self.site.path().join("fleets");
        fleets.to_str().unwrap().to_owned()
    }

    /// A disk on which nothing was done yet.
    pub fn disk(&self) -> Disk {
        let [agent, aggregator] = [Machine::Agent, Machine::Aggregator].map(|one| self.root(one));
        Disk::new(&[&agent, &aggregator, &self.fleets()])
    }

    /// What was recorded is what happened: with all of it done, and all of it surviving, the
    /// disks are as they really are; and the run itself was clean.
    fn check(&self) {
        for fleet in FLEETS {
            let report = verify::compare(&self.site.lake(), &self.truth(fleet)).unwrap();
            assert!(report.is_clean() && report.acknowledged > 0, "{report:#?}");
        }
        let alerts = verify::alerts(&self.site.lake()).unwrap();
        assert!(
            !alerts.is_empty(),
            "no alert was raised: nothing is proven of them"
        );
        assert_eq!(super::cuts::alerts_told_twice(&self.site), 0, "{alerts:?}");
        let mut disk = self.disk();
        for (place, (_, op)) in self.log.ops().enumerate() {
            let applied = disk.apply(&op);
            applied.unwrap_or_else(|why| panic!("operation {place}, {}: {why}", short(&op)));
        }
        for machine in [Machine::Agent, Machine::Aggregator] {
            let root = self.root(machine);
            let replayed = disk.after_power_cut(&root, Survival::All, Names::ByDirectory);
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

fn root(site: &Site, machine: Machine) -> PathBuf {
    site.path().join(match machine {
        Machine::Agent => "agent",
        Machine::Aggregator => "aggregator",
    })
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
        let mut roots = OsString::from(root(site, Machine::Agent));
        for dir in [root(site, Machine::Aggregator), site.path().join("fleets")] {
            roots.push(":");
            roots.push(dir);
        }
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

/// Two fleets, one at QoS 1 and one at QoS 2 whose readings have no numbers, and texts.
fn start_fleets(site: &Site, recorder: &Recorder, scale: &Scale) -> Vec<Process> {
    let (sensors, length) = (scale.sensors.to_string(), format!("{}s", scale.seconds));
    let texts = site.path().join("texts.csv");
    let text_bytes = match scale.fills_segments {
        true => FAT_TEXT_BYTES,
        false => 64,
    };
    write_texts(&texts, scale.seconds * TEXTS_PER_S, text_bytes);
    let numbered = "--rate 5 --faults 30 --faults-after 1s --site once --seed 1";
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
    let all = [of_fleet(numbered), of_fleet(bare), of_texts];
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
        Process::start_with(&program, &words, &log, site.mqtt, &recorder.with(&[]))
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
